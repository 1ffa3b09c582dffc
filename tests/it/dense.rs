//! `--dense`: as many as the system's map would never have room for, and guests that notice nothing of it.

use crate::support::{Cli, Foreground, Harness, cannot_try, guests, soon};
use coracle::client::Client;
use coracle::model::limit::{LimitView, LimitViews};

/// Entries that all instances may have.
const MAPPINGS: usize = 300;
/// What ordinary instances with one memory and a stack are charged.
const ORDINARY: usize = 5;

async fn limit(client: &mut Client, flag: &str) -> LimitView {
    let all: LimitViews = client.request(&["limits"]).await.unwrap();
    all.limits.into_iter().find(|limit| limit.flag == flag).unwrap()
}

fn daemon(cli: &Cli, words: &[&str]) -> Foreground {
    let mappings = MAPPINGS.to_string();
    let guests = guests().to_str().unwrap();
    let common = ["--listen", "127.0.0.1:0", "--modules", guests, "--mappings", &mappings];
    Foreground::start(cli, &[&common, words].concat())
}

/// Entries that the map of the process has.
fn entries(daemon: &Foreground) -> usize {
    std::fs::read_to_string(format!("/proc/{}/maps", daemon.child.id())).unwrap().lines().count()
}

async fn running(client: &mut Client) -> usize {
    client.list_filtered(&["status=running".to_owned()]).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_more_are_alive_than_the_map_has_room_for() {
    const MANY: usize = 50 * MAPPINGS / ORDINARY;
    let cli = Cli::alone();
    let ordinary = daemon(&cli, &[]);
    let mut client = Client::connect(ordinary.address()).await.unwrap();
    for i in 0..MAPPINGS / ORDINARY {
        client.run(&["--name", &format!("o{i}"), "sleep"]).await.unwrap();
    }
    let refused = client.run(&["--name", "more", "sleep"]).await.unwrap_err();
    assert!(refused.to_string().contains("--mappings"), "{refused}");
    drop(ordinary);

    let cli = Cli::alone();
    let dense = daemon(&cli, &["--dense"]);
    let mut client = Client::connect(dense.address()).await.unwrap();
    client.run(&["--name", "first", "sleep"]).await.unwrap();
    soon("the first", client.request::<serde_json::Value>(&["wait", "--condition", "running", "first"])).await.unwrap();
    if limit(&mut client, "--mappings").await.used > Some(4) {
        return cannot_try("guards that take no entry of the map (Linux 6.13)");
    }
    let before = entries(&dense);
    for i in 1..MANY {
        client.run(&["--name", &format!("d{i}"), "sleep"]).await.unwrap();
    }
    soon("all of them", async { while running(&mut client).await < MANY {} }).await;
    assert!(entries(&dense) < before + MAPPINGS, "{before}, and then {}", entries(&dense));
    // Every other one goes: of what was one mapping each of the others would be one now.
    let names: Vec<String> = (1..MANY).step_by(2).map(|i| format!("d{i}")).collect();
    for stopped in client.each::<serde_json::Value>(&["stop"], &names).await.unwrap() {
        stopped.unwrap();
    }
    assert_eq!(running(&mut client).await, MANY - names.len());
    assert!(entries(&dense) < before + MAPPINGS, "{before}, and then {}", entries(&dense));
    let created = client.run(&["hello"]).await.unwrap();
    let wait = ["wait", created.name.as_str()];
    let end: coracle::model::reply::InstanceView = soon("hello", client.request(&wait)).await.unwrap();
    assert_eq!(end.exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dense_daemon_has_room_for_a_hundred_thousand_unless_told_otherwise() {
    for (words, instances) in [(&[][..], 4096), (&["--dense"], 100_000), (&["--dense", "--instances", "7"], 7)] {
        let cli = Cli::alone();
        let daemon = daemon(&cli, words);
        let mut client = Client::connect(daemon.address()).await.unwrap();
        assert_eq!(limit(&mut client, "--instances").await.value, Some(instances), "{words:?}");
    }
}

/// Addresses that no memory is kept for: with a few of them an ordinary daemon starts, and this one says what it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn without_addresses_it_says_so_and_does_not_start() {
    let cli = Cli::alone();
    let script = "ulimit -v 8000000; exec \"$0\" daemon --listen 127.0.0.1:0 --dense";
    let mut command = cli.command::<&str>(&[]);
    let program = command.get_program().to_owned();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script]).arg(program);
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    command = shell;
    let (code, out, err) = cli.finish(command, b"").await;
    assert_eq!((code, out.as_str()), (125, ""), "{err}");
    assert!(err.contains("--dense needs addresses") && err.contains("ulimit -v"), "{err}");
}

/// Strikes out what is no prime in a memory that it grows for it, and leaves with how many primes there are below a million,
/// modulo 251.
const SIEVE: &str = "(module
    (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
    (memory (export \"memory\") 1)
    (func (export \"_start\") (local $i i32) (local $j i32) (local $count i32)
      (if (i32.ne (memory.grow (i32.const 15)) (i32.const 1)) (then unreachable))
      (local.set $i (i32.const 2))
      (loop $next
        (if (i32.eqz (i32.load8_u (local.get $i))) (then
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (local.set $j (i32.mul (local.get $i) (i32.const 2)))
          (loop $strike
            (if (i32.lt_u (local.get $j) (i32.const 1000000)) (then
              (i32.store8 (local.get $j) (i32.const 1))
              (local.set $j (i32.add (local.get $j) (local.get $i)))
              (br $strike))))))
        (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000000))))
      (call $exit (i32.rem_u (local.get $count) (i32.const 251)))))";

/// There are 78,498.
const SIEVED: u8 = (78_498_u32 % 251) as u8;

#[tokio::test(flavor = "multi_thread")]
async fn guests_do_what_they_do_elsewhere() {
    let modules = tempfile::tempdir().unwrap();
    std::fs::write(modules.path().join("sieve.wat"), SIEVE).unwrap();
    let daemon = Harness::with(|config| {
        config.dense = true;
        config.limits.memory_bytes_max = 2 << 20;
        config.module_dirs.push(modules.path().to_owned());
    })
    .await;
    // Twice: the second has what the first gave back.
    for _ in 0..2 {
        assert_eq!(daemon.run_to_end(&["sieve"]).await.exit_code, Some(SIEVED));
        for world in ["", "-p2"] {
            let run = async |words: &[&str], guest: &str| {
                daemon.run_to_end(&[words, &[&format!("{guest}{world}")]].concat()).await
            };
            assert_eq!(run(&[], "exit_7").await.exit_code, Some(if world.is_empty() { 7 } else { 1 }));
            let overflow = run(&[], "overflow").await;
            assert_eq!(overflow.reason.as_deref(), Some("trap:stack-overflow"), "{overflow:?}");
            assert_eq!(run(&[], "trap").await.exit_code, Some(134));
            let mut client = daemon.client().await;
            for guest in ["spin", "recurse", "sleep"] {
                let guest = if guest == "spin" { guest.to_owned() } else { format!("{guest}{world}") };
                let name = client.run(&[&guest]).await.unwrap().name.to_string();
                daemon.wait_for_state(&name, "running").await;
                soon("a stop", client.request::<serde_json::Value>(&["stop", &name])).await.unwrap();
                let ended = daemon.wait_for(&name, "has ended", |view| view.exit_code.is_some()).await;
                assert_eq!(ended.exit_code, Some(143), "{guest}");
            }
        }
        // Page by page, each power of two in another place.
        assert_eq!(daemon.run_to_end(&["grow"]).await.exit_code, Some(32));
        assert_eq!(daemon.run_to_end(&["-m", "3m", "grow"]).await.exit_code, Some(48));
        let ended = daemon.run_to_end(&["-m", "2097151", "big_write"]).await;
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (Some(137), Some("memory")));
    }
    let mut client = daemon.client().await;
    assert_eq!(limit(&mut client, "--memory-total").await.used, Some(0), "all of it is given back");
}

/// Code of one is of no use to the other, and each keeps its own.
#[tokio::test(flavor = "multi_thread")]
async fn code_is_compiled_for_the_daemon_that_runs_it() {
    let cli = Cli::alone();
    let compiled = || std::fs::read_dir(cli.directory.path().join("state/compiled")).unwrap().count();
    for (words, codes) in [(&[][..], 1), (&["--dense"], 2), (&[], 2), (&["--dense"], 2)] {
        let mut daemon = daemon(&cli, words);
        let mut client = Client::connect(daemon.address()).await.unwrap();
        let created = client.run(&["exit_7"]).await.unwrap();
        let wait = ["wait", created.name.as_str()];
        let end: coracle::model::reply::InstanceView = soon("the end", client.request(&wait)).await.unwrap();
        assert_eq!((end.exit_code, compiled()), (Some(7), codes), "{words:?}");
        client.shut_down().await.unwrap();
        soon("the daemon's end", tokio::task::spawn_blocking(move || daemon.child.wait())).await.unwrap().unwrap();
    }
}
