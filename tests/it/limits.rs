//! Every limit that has a flag: just under it, just over it, and an error that names it.

use crate::support::{Cli, Foreground, Harness, soon};
use coracle::client::Client;
use coracle::model::limit::LimitViews;
use coracle::model::reply::InstanceView;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_by_the_run_and_by_the_daemon() {
    let daemon = Harness::with_limits(|l| l.memory_bytes_max = 2 << 20).await;
    assert_eq!(daemon.run_to_end(&["grow"]).await.exit_code, Some(32), "pages of 64 KiB in the default of 2 MiB");
    assert_eq!(daemon.run_to_end(&["-m", "1m", "grow"]).await.exit_code, Some(16));
    assert_eq!(daemon.run_to_end(&["-m", "3m", "grow"]).await.exit_code, Some(48));
    let view = daemon.run_to_end(&["big_write"]).await;
    assert_eq!(view.exit_code, Some(0), "32 pages just fit");
    let view = daemon.run_to_end(&["-m", "2097151", "big_write"]).await;
    assert_eq!((view.exit_code, view.reason.as_deref()), (Some(137), Some("memory")));
    assert!(view.message.unwrap().contains("-m"));
    let mut raw = daemon.raw().await;
    assert_eq!(
        raw.ask("run -m 4097m grow").await,
        "ERR limit the memory of an instance is limited to 4.0 GiB (--memory-max)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_instances_share_a_budget() {
    let daemon = Harness::with_limits(|l| l.memory_bytes_total = Some(300 << 20)).await;
    let mut raw = daemon.raw().await;
    assert!(raw.ask("run --name a fill").await.contains("created"));
    daemon.wait_for_state("a", "running").await;
    let view = daemon.run_to_end(&["--name", "b", "fill"]).await;
    assert_eq!((view.exit_code, view.reason.as_deref()), (Some(137), Some("memory")));
    assert!(view.message.unwrap().contains("--memory-total"));
    raw.ask("stop a").await;
    raw.ask("run --name b fill").await;
    daemon.wait_for_state("b", "running").await;
    raw.ask("stop b").await;
}

/// They are refused one by one, and the machine stays as it is.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_greedy_guests_have_no_more_than_all_may_have() {
    const TOTAL: u64 = 256 << 20;
    /// What an instance costs beside its memory: its stack, its store, its log, its place in the registry.
    const EACH: u64 = 128 << 10;
    let cli = Cli::alone();
    let guests = crate::support::guests().to_str().unwrap();
    let words = ["--listen", "127.0.0.1:0", "--modules", guests, "--memory-total", "256m"];
    let daemon = Foreground::start(&cli, &words);
    let mut client = Client::connect(daemon.address()).await.unwrap();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        most.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    };
    let before = resident();
    let names: Vec<String> = (0..1000).map(|i| format!("g{i}")).collect();
    for name in &names {
        // A limit of the machine, on memories or descriptors, may come first; it is a refusal like any other.
        match client.run(&["--name", name, "-m", "2m", "hoarder"]).await {
            Ok(_) => {}
            Err(e) => assert!(e.to_string().contains("--mappings"), "{e}"),
        }
    }
    let used = soon("all that there is", async {
        loop {
            let all: LimitViews = client.request(&["limits"]).await.unwrap();
            let used = all.limits.iter().find(|limit| limit.flag == "--memory-total").unwrap().used.unwrap();
            assert!(used <= TOTAL, "{used}");
            if used > TOTAL - (1 << 20) {
                break used;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(used <= TOTAL);
    // Who comes now does not fit: its one page is refused, and it is told why.
    let live = client.list_filtered(&["status=running".to_owned()]).await.unwrap().len();
    assert!(live > 100, "{live}");
    assert!(resident() <= before + TOTAL + EACH * 1000, "{} MiB", (resident() - before) >> 20);
    for result in client.each::<InstanceView>(&["kill"], &names).await.unwrap() {
        // One that never began to run has nothing to be killed.
        drop(result);
    }
    let created = client.run(&["hello"]).await.unwrap();
    let view: InstanceView = soon("hello", client.request(&["wait", created.name.as_str()])).await.unwrap();
    assert_eq!(view.exit_code, Some(0));
    let all: LimitViews = client.request(&["limits"]).await.unwrap();
    let used = all.limits.iter().find(|limit| limit.flag == "--memory-total").unwrap().used;
    assert_eq!(used, Some(0), "all of it is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_instances_are_bounded() {
    let daemon = Harness::with_limits(|l| l.instances_max = 2).await;
    let mut raw = daemon.raw().await;
    assert!(raw.ask("run --name a sleep").await.contains("created"));
    assert!(raw.ask("run --name b sleep").await.contains("created"));
    assert_eq!(raw.ask("run --name c sleep").await, "ERR limit live instances is limited to 2 (--instances)");
    raw.ask("stop a").await;
    assert!(raw.ask("run --name c sleep").await.contains("created"));
    raw.send("stop b c\n").await;
    raw.dotted().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_ended_instances_are_bounded() {
    let daemon = Harness::with_limits(|l| l.ended_max = 3).await;
    for i in 0..5 {
        daemon.run_to_end(&["--name", &format!("n{i}"), "exit_7"]).await;
    }
    let mut raw = daemon.raw().await;
    raw.send("list -q\n").await;
    assert_eq!(raw.dotted().await, ["n2", "n3", "n4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_bounded_and_says_what_it_dropped() {
    let daemon = Harness::with_limits(|l| l.log_bytes_max = 10_000).await;
    let mut raw = daemon.raw().await;
    raw.ask("run chatty").await;
    let log = daemon.supervisor.log(&"chatty".parse().unwrap()).unwrap();
    soon("a million bytes", async {
        while log.dropped().await < 1_000_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    raw.ask("stop chatty").await;
    raw.send("logs chatty\n").await;
    let kept: usize = raw.dotted().await.iter().map(|l| l.len() + 1).sum();
    assert!((1000..=10_000).contains(&kept), "{kept}");
    raw.ask("format json").await;
    raw.send("logs chatty\n").await;
    soon("the end", async {
        loop {
            let line: serde_json::Value = serde_json::from_str(&raw.line().await).unwrap();
            if let Some(end) = line.get("ok") {
                assert!(end["dropped_bytes"].as_u64().unwrap() >= 1_000_000);
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_come_back() {
    let daemon = Harness::with_limits(|l| l.connections_max = 3).await;
    let mut open = vec![];
    for _ in 0..3 {
        let mut raw = daemon.raw().await;
        assert_eq!(raw.ask("ping").await, "pong");
        open.push(raw);
    }
    let refused = daemon.raw().await.rest().await;
    assert_eq!(String::from_utf8(refused).unwrap(), "ERR limit connections is limited to 3 (--connections)\n");
    // A client that has sent something already hears it too, and ours understands it.
    let (code, _, err) = crate::support::Cli::of(&daemon).run(&["list"]).await;
    assert!(code == 125 && err.contains("(--connections)"), "{err}");
    assert_eq!(open[0].ask("ping").await, "pong", "the others are as before");
    open.pop();
    daemon.wait_for_place().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_and_a_stalling_client_are_sent_away() {
    let daemon = Harness::with_limits(|l| {
        l.first_request = Duration::from_millis(300);
        l.stall = Duration::from_millis(400);
    })
    .await;
    let silent = daemon.raw().await.rest().await;
    assert_eq!(
        String::from_utf8(silent).unwrap(),
        "ERR limit the first request did not arrive within 300ms (--first-request)\n"
    );
    // What asks for nothing is no request, however much of it comes: in whole lines, in one that never ends, once.
    let first = "ERR limit the first request did not arrive within 300ms (--first-request)\n";
    for nothing in ["\n", "# a comment\n", "  \t \r\n", " ", "#"] {
        for often in [true, false] {
            let mut idle = daemon.raw().await;
            idle.send(nothing).await;
            let (mut read, mut write) = idle.stream.into_split();
            let more = async {
                // Until the daemon has closed.
                while often && write.write_all(nothing.as_bytes()).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                std::future::pending().await
            };
            let mut said = String::new();
            tokio::select! {
                read = soon("the close", read.read_to_string(&mut said)) => assert!(read.is_ok() || often, "{read:?}"),
                () = more => {}
            }
            // With bytes on their way the close may be a reset, which takes the refusal with it.
            assert!(said == first || (often && said.is_empty()), "{nothing:?} {often}: {said}");
        }
    }
    let mut late = daemon.raw().await;
    late.send("\n# soon\n").await;
    assert_eq!(late.ask("ping").await, "pong", "in time");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(late.ask("ping").await, "pong", "behind the first request there is no hurry");
    let mut slow = daemon.raw().await;
    assert_eq!(slow.ask("ping").await, "pong");
    // Longer than what silence completes, and without an end.
    slow.send(&"x".repeat(2000)).await;
    let said = String::from_utf8(slow.rest().await).unwrap();
    assert_eq!(said, "ERR limit the rest of a line did not arrive within 400ms (--stall)\n");
    let mut half = daemon.raw().await;
    half.send("put x --size 10\n12345").await;
    let said = String::from_utf8(half.rest().await).unwrap();
    assert_eq!(said, "ERR limit the rest of a transfer did not arrive within 400ms (--stall)\n");
}

/// A client that asks for much and takes nothing of it; its place is the only one.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_reply_is_given_up() {
    let daemon = Harness::with_limits(|l| {
        l.connections_max = 1;
        l.stall = Duration::from_millis(400);
    })
    .await;
    let (_read, mut write) = daemon.raw().await.stream.into_split();
    let asking = async move {
        // Until the daemon has closed: then there is nobody to write to.
        while tokio::io::AsyncWriteExt::write_all(&mut write, "help\n".repeat(1000).as_bytes()).await.is_ok() {}
    };
    soon("the end of the connection", asking).await;
    daemon.wait_for_place().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_variables_and_filters_are_bounded_in_number() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    let created = format!("Container 'exit_7' created at '{}'", daemon.root.join("exit_7").display());
    assert_eq!(raw.ask(&format!("run exit_7{}", " a".repeat(1024))).await, created);
    assert_eq!(raw.ask("wait exit_7").await, "7");
    assert_eq!(
        raw.ask(&format!("run exit_7{}", " a".repeat(1025))).await,
        "ERR limit the number of arguments is limited to 1024 (put them into a file)"
    );
    let variables = |n: usize| (0..n).map(|i| format!(" -e A{i}=")).collect::<String>();
    assert_eq!(raw.ask(&format!("run{} exit_7", variables(512))).await, created);
    assert_eq!(raw.ask("wait exit_7").await, "7");
    assert_eq!(
        raw.ask(&format!("run{} exit_7", variables(513))).await,
        "ERR limit the number of variables is limited to 512 (-e)"
    );
    assert_eq!(raw.ask(&format!("list{}", " -f name=z".repeat(64))).await, "Available containers: []");
    let refused = "ERR usage there are at most 64 values of --filter";
    for verb in ["list", "prune", "events"] {
        let filter = if verb == "prune" { " -f label=x" } else { " -f name=x" };
        assert_eq!(raw.ask(&format!("{verb}{}", filter.repeat(65))).await, refused);
    }
}

/// What is announced takes room until it is there, or given up; and it comes in some time.
#[tokio::test(flavor = "multi_thread")]
async fn modules_on_their_way_are_bounded_in_bytes_and_in_time() {
    let daemon = Harness::with_limits(|limits| {
        limits.uploads_bytes_max = 100;
        limits.stall = Duration::from_secs(1);
    })
    .await;
    let (mut slow, begun) = (daemon.raw().await, std::time::Instant::now());
    slow.send("format json\nput a --size 60\n").await;
    assert_eq!(slow.line().await, "{\"ok\":{\"format\":\"json\"}}");
    assert!(slow.line().await.contains("ready"));
    let refusal = "ERR limit modules that are on their way in is limited to 100 B (--uploads)";
    let mut other = daemon.raw().await;
    other.send("put b --size 41\n").await;
    assert_eq!(String::from_utf8(other.rest().await).unwrap(), format!("{refusal}\n"));
    assert!(daemon.raw().await.ask("put b --size 101").await.contains("--uploads"));
    // A byte now and then, and never a pause that is too long.
    let refused = soon("the end of the transfer", async {
        loop {
            slow.send_bytes(b"x").await;
            tokio::select! {
                line = slow.line() => return line,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    })
    .await;
    assert!(refused.contains("--stall") && begun.elapsed() >= Duration::from_secs(1), "{refused}");
    let mut third = daemon.raw().await;
    third.send("format json\nput b --size 100\n").await;
    third.line().await;
    soon("room", async { assert!(third.line().await.contains("ready")) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_bounded_wherever_it_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    let module = wat::parse_str("(module (func (export \"_start\")))").unwrap();
    // A custom section of zeroes fills the file up: id 0, its size, an empty name.
    let filled = |bytes: usize| {
        let rest = bytes - module.len() - 6;
        let mut all = module.clone();
        all.push(0);
        let mut size = rest;
        for _ in 0..4 {
            all.push((size & 0x7f) as u8 | 0x80);
            size >>= 7;
        }
        all.push((size & 0x7f) as u8);
        all.resize(bytes, 0);
        all
    };
    std::fs::write(directory.path().join("fits.wasm"), filled(10_000)).unwrap();
    std::fs::write(directory.path().join("large.wasm"), filled(10_001)).unwrap();
    let path = directory.path().to_owned();
    let daemon = Harness::with(move |config| {
        config.limits.module_bytes_max = 10_000;
        config.module_dirs = vec![path];
    })
    .await;
    assert_eq!(daemon.run_to_end(&["fits"]).await.exit_code, Some(0));
    let mut raw = daemon.raw().await;
    let refusal = "ERR limit a module is limited to 9.8 KiB (--module-size)";
    assert_eq!(raw.ask("run large").await, refusal);
    let mut client = daemon.client().await;
    let fits = filled(10_000);
    client.put("stored", &fits, &crate::sandbox::sha256(&fits), false, |_| ()).await.unwrap();
    let large = filled(10_001);
    let error = client.put("stored", &large, &crate::sandbox::sha256(&large), false, |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("--module-size"), "{error}");
    assert_eq!(raw.ask("put plain --size 10001").await, refusal);
    assert_eq!(raw.line().await, "", "the bytes that were announced cannot be told from requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_modules_are_bounded() {
    let daemon = Harness::with_limits(|l| l.stored_modules_max = 2).await;
    let mut client = daemon.client().await;
    let text = b"(module (func (export \"_start\")))";
    let digest = crate::sandbox::sha256(text);
    for name in ["a", "b", "a"] {
        client.put(name, text, &digest, true, |_| ()).await.unwrap();
    }
    let error = client.put("c", text, &digest, true, |_| ()).await.unwrap_err();
    assert_eq!(error.to_string(), "stored modules is limited to 2 (--stored-modules)");
    client.request::<serde_json::Value>(&["forget", "a"]).await.unwrap();
    client.put("c", text, &digest, true, |_| ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_modules_are_bounded_and_compiled_again() {
    let daemon = Harness::with_limits(|l| l.module_cache_max = 1).await;
    for _ in 0..3 {
        assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
        assert_eq!(daemon.run_to_end(&["exit_200"]).await.exit_code, Some(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_handles_are_bounded() {
    let daemon = Harness::with_limits(|l| l.handles_max = 32).await;
    let many = |n: usize| [vec!["handles"], vec!["x"; n]].concat();
    assert_eq!(daemon.run_to_end(&many(16)).await.exit_code, Some(0));
    for (words, world) in [(many(32), "handles"), (many(32), "handles-p2")] {
        let view = daemon.run_to_end(&[&[world], &words[1..]].concat()).await;
        assert_eq!(view.state, "trapped", "{view:?}");
        assert!(view.message.as_deref().unwrap().contains("(--handles)"), "{view:?}");
    }
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(0));
}

/// A component makes resources of its own without asking the host: twice as many as handles, for each of those may be lent.
#[tokio::test(flavor = "multi_thread")]
async fn resources_of_a_component_are_bounded() {
    let modules = tempfile::tempdir().unwrap();
    for (name, n) in [("under", 64), ("over", 65)] {
        let text = format!(
            "(component
               (type $resource (resource (rep i32)))
               (core func $new (canon resource.new $resource))
               (core module $makes
                 (import \"\" \"new\" (func $new (param i32) (result i32)))
                 (func (export \"run\") (result i32) (local $i i32)
                   (loop $more
                     (drop (call $new (i32.const 0)))
                     (local.set $i (i32.add (local.get $i) (i32.const 1)))
                     (br_if $more (i32.lt_u (local.get $i) (i32.const {n}))))
                   (i32.const 0)))
               (core instance $made (instantiate $makes (with \"\" (instance (export \"new\" (func $new))))))
               (func $run (result (result)) (canon lift (core func $made \"run\")))
               (instance $cli (export \"run\" (func $run)))
               (export \"wasi:cli/run@0.2.0\" (instance $cli)))"
        );
        std::fs::write(modules.path().join(format!("{name}.wat")), text).unwrap();
    }
    let daemon = Harness::with(|config| {
        config.limits.handles_max = 32;
        config.module_dirs.push(modules.path().to_owned());
    })
    .await;
    assert_eq!(daemon.run_to_end(&["under"]).await.exit_code, Some(0));
    let view = daemon.run_to_end(&["over"]).await;
    assert_eq!(view.reason.as_deref(), Some("trap:host-call"), "{view:?}");
    assert!(view.message.as_deref().unwrap().contains("(--handles)"), "{view:?}");
}

/// What a guest could open is promised to it before it begins, so that the daemon can always answer.
#[tokio::test(flavor = "multi_thread")]
async fn open_files_of_all_instances_are_bounded_by_what_they_could_open() {
    let daemon = Harness::with_limits(|l| {
        l.handles_max = 32;
        l.open_files_max = Some(2 * 34 + 2 + 2);
    })
    .await;
    let mut raw = daemon.raw().await;
    for name in ["a", "b"] {
        assert!(raw.ask(&format!("run --name {name} append")).await.contains("created"));
    }
    let refusal = raw.ask("run --name c append").await;
    assert_eq!(
        refusal,
        "ERR limit the number of files that all instances may open is limited to 72 (--open-files, --handles, ulimit -n)"
    );
    assert!(raw.ask("run spin").await.contains("created"), "a module that cannot open files is not charged for them");
    assert!(raw.ask("run --name d spin").await.contains("created"), "nor for code that another one runs too");
    assert!(raw.ask("run sleep").await.starts_with("ERR limit"));
    for name in ["a", "d", "spin"] {
        raw.ask(&format!("stop {name}")).await;
    }
    assert!(raw.ask("run --name c append-p2").await.contains("created"), "it is given back");
    raw.send("kill b c\n").await;
    raw.dotted().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memories_and_stacks_of_all_instances_are_bounded() {
    let daemon = Harness::with_limits(|l| l.mappings_max = Some(14)).await;
    let mut raw = daemon.raw().await;
    assert!(raw.ask("run --name a sleep").await.contains("created"), "a memory and a stack, five entries of the map");
    assert!(raw.ask("run --name b sleep").await.contains("created"));
    let refusal = raw.ask("run --name c sleep").await;
    assert!(refusal.starts_with("ERR limit ") && refusal.contains("--mappings"), "{refusal}");
    raw.ask("stop a").await;
    assert!(raw.ask("run --name c sleep").await.contains("created"));
    raw.send("kill b c\n").await;
    raw.dotted().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_memory_for_one_call_is_bounded() {
    let daemon = Harness::with_limits(|l| l.hostcall_bytes_max = 2 << 20).await;
    assert_eq!(daemon.run_to_end(&["big_write"]).await.exit_code, Some(0));
    let daemon = Harness::with_limits(|l| l.hostcall_bytes_max = 1 << 19).await;
    assert_eq!(daemon.run_to_end(&["big_write"]).await.exit_code, Some(48), "ENOMEM of WASI");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_for_one_call_are_bounded() {
    let daemon = Harness::start().await;
    assert_eq!(daemon.run_to_end(&["random"]).await.exit_code, Some(0));
    let ended = daemon.run_to_end(&["random", "x"]).await;
    assert_eq!(ended.state, "trapped");
    assert!(ended.message.as_deref().unwrap().contains("limit 65536 (--random-size)"), "{ended:?}");
    let daemon = Harness::with_limits(|l| l.random_bytes_max = 1 << 20).await;
    assert_eq!(daemon.run_to_end(&["random", "x"]).await.exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_at_its_timeout() {
    let daemon = Harness::start().await;
    for guest in ["spin", "sleep", "chatty"] {
        let view = daemon.run_to_end(&["--timeout", "100ms", guest]).await;
        assert_eq!((view.state.as_str(), view.exit_code), ("timed-out", Some(124)));
        assert_eq!(view.reason.as_deref(), Some("timeout"));
    }
    assert_eq!(daemon.run_to_end(&["--timeout", "1h", "exit_7"]).await.exit_code, Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_shows_every_limit_with_its_value_and_use() {
    let daemon = Harness::with_limits(|l| {
        l.memory_bytes_max = 3 << 20;
        l.connections_max = 7;
        l.cpus_milli.0 = Some(250);
    })
    .await;
    let mut client = daemon.client().await;
    client.run(&["spin"]).await.unwrap();
    daemon.wait_for_state("spin", "running").await;
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(0));
    let all: LimitViews = client.request(&["limits"]).await.unwrap();
    let flags: Vec<&str> = all.limits.iter().map(|limit| limit.flag.as_str()).collect();
    let known = coracle::config::limits();
    assert_eq!(flags, known.iter().map(|limit| limit.flag.as_str()).collect::<Vec<_>>());
    let find = |flag: &str| all.limits.iter().find(|limit| limit.flag == flag).unwrap();
    for (flag, value, used) in [
        ("--memory", Some(3 << 20), None),
        ("--memory-total", None, Some(1 << 16)),
        ("--cpus", Some(250), None),
        ("--cpu-time", None, None),
        ("--instances", Some(4096), Some(1)),
        ("--keep", Some(10_000), Some(1)),
        ("--keep-for", Some(7 * 86_400_000), None),
        ("--module-cache", Some(64), Some(2)),
        ("--compile-cpu", Some(120_000), None),
        ("--compile-queue", Some(64), Some(0)),
        ("--mappings", None, Some(5)),
    ] {
        let limit = find(flag);
        assert_eq!(limit.used, used, "{flag}");
        if value.is_some() {
            assert_eq!(limit.value, value, "{flag}");
        }
    }
    assert!((1..=1 << 20).contains(&find("--compiled-cache").used.unwrap()));
    assert_eq!(find("--timeout").value, None);
    // Those of the harness may still be leaving.
    assert!((1..=7).contains(&find("--connections").used.unwrap()));
    assert_eq!(find("--connections").value, Some(7));
    assert!(find("--open-files").used.unwrap() < find("--open-files").value.unwrap());
    let mut raw = daemon.raw().await;
    raw.send("limits\n").await;
    let lines = raw.dotted().await;
    assert_eq!(lines.len(), known.len() + 1);
    assert_eq!(lines[known.len()], "fence none: the daemon is within another program");
    assert_eq!(all.fence, "none: the daemon is within another program");
    assert!(!lines.iter().any(|line| line.contains("[default")), "{lines:?}");
    assert!(lines.iter().any(|line| line == "--cpus 0.250 - The most that an instance may use of the processors, such as 0.5, unless its run says otherwise"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn table_entries_are_bounded_and_the_refusal_is_told() {
    let entries = |n: u32| {
        format!(
            "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32))) (memory (export \"memory\") 1)
              (table $t 10 funcref) (func (export \"_start\")
                (if (i32.eq (table.grow $t (ref.null func) (i32.const {n})) (i32.const -1)) (then (call $exit (i32.const 9))))))"
        )
    };
    let modules = tempfile::tempdir().unwrap();
    let daemon = Harness::with(|config| {
        config.limits.table_entries_max = 1000;
        config.module_dirs.push(modules.path().to_owned());
    })
    .await;
    for (name, n, code) in [("under", 990, 0), ("over", 991, 9)] {
        std::fs::write(modules.path().join(format!("{name}.wat")), entries(n)).unwrap();
        let ended = daemon.run_to_end(&[name]).await;
        assert_eq!(ended.exit_code, Some(code), "{ended:?}");
        let says = ended.message.unwrap_or_default();
        assert_eq!(says.contains("1001 table entries; its limit is 1000 (--table-entries)"), code == 9, "{says}");
    }
}

/// Descriptors that a daemon has open.
#[cfg(target_os = "linux")]
fn descriptors(daemon: &crate::support::Foreground) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap().count()
}

/// More clients than there are descriptors: who is connected is served, and so is everybody when they are gone.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_descriptors_waits_and_serves_again_when_there_are_some() {
    use crate::support::{Cli, Foreground, Raw};
    const MAX: usize = 150;
    let mut cli = Cli::alone();
    let limit = format!("ulimit -n {MAX}");
    let words = ["--listen", "127.0.0.1:0", "--connections", "1000", "--open-files", "40", "--handles", "8"];
    let daemon = Foreground::start_in_shell(&cli, &limit, &words);
    cli.address = daemon.address();
    let mut early = Raw::connect(cli.address).await;
    // Whatever the first run opens for good is open.
    assert!(early.ask("run hello").await.contains("created"));
    assert_eq!(early.ask("wait hello").await, "0");
    let before = descriptors(&daemon);
    assert!(before < MAX - 50, "{before}");
    let mut flood = vec![];
    // More than fit, and no more than the kernel keeps waiting (`somaxconn` may be 128).
    for _ in 0..MAX {
        flood.push(Raw::connect(cli.address).await);
    }
    soon("no descriptor is left", async {
        while descriptors(&daemon) < MAX {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(early.ask("ping").await, "pong");
    assert_eq!(early.ask("list").await, "Available containers: ['hello - exited (0)']");
    // Fields 14 and 15 of proc_pid_stat(5): user and system time in ticks of 10 ms.
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let used = ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ticks() - used < 50, "it does not spin: {} of 100 ticks", ticks() - used);
    // What needs a descriptor is refused in one line, and breaks nothing.
    let refused = early.ask("run --name late hello").await;
    assert!(refused.starts_with("ERR io "), "{refused}");
    let released = std::time::Instant::now();
    drop(flood);
    assert_eq!(Raw::connect(cli.address).await.ask("ping").await, "pong");
    assert!(released.elapsed() < Duration::from_secs(2), "{:?}", released.elapsed());
    assert!(early.ask("run --name late hello").await.contains("created"), "and the state can be written");
    assert_eq!(early.ask("wait late").await, "0");
    soon("all descriptors are back", async {
        while descriptors(&daemon) > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// One descriptor less than what the daemon may need for itself and for one instance.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_could_run_out_of_descriptors_does_not_start() {
    use crate::support::{Cli, Foreground};
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let compilers = processors + processors.div_ceil(4);
    // Connections, compilers, queue, cache, a removal, the rest; and an instance with its handles.
    let needed = 3 * 10 + 9 * compilers + 5 + 2 * 6 + 4 + 256 + (20 + 4);
    let words = [
        &["--listen", "127.0.0.1:0", "--connections", "10", "--compile-queue", "5"][..],
        &["--module-cache", "6", "--handles", "20", "--modules", crate::support::guests().to_str().unwrap()],
    ]
    .concat();
    let cli = Cli::alone();
    let daemon = Foreground::start_in_shell(&cli, &format!("ulimit -n {needed}"), &words);
    let mut raw = crate::support::Raw::connect(daemon.address()).await;
    assert!(raw.ask("run append").await.contains("created"));
    assert!(raw.ask("run --name second append").await.starts_with("ERR limit "));
    drop(daemon);
    let mut short = std::process::Command::new("sh");
    let script = format!("ulimit -n {}; exec \"$0\" daemon \"$@\"", needed - 1);
    short.args(["-c", &script, env!("CARGO_BIN_EXE_coracle")]).args(&words);
    let directory = cli.directory.path();
    short.env("CORACLE_STATE_DIR", directory.join("state")).env("CORACLE_ROOT", directory.join("root"));
    let (code, _, err) = cli.finish(short, b"").await;
    assert!(code == 125 && err.contains("(ulimit -n)") && err.contains("it may need 24"), "{code} {err}");
}
