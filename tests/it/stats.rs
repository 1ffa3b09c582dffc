//! `stats`: what is told of an instance is what it uses, of all that are alive, and waits for none of them.

use crate::support::{Cli, Harness, soon};
use coracle::client::ClientError;
use coracle::model::stats::{InstanceStats, Sample};
use serde_json::Value;

fn words(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn names(sample: &Sample) -> Vec<&str> {
    sample.instances.iter().map(|stats| stats.name.as_str()).collect()
}

async fn one(daemon: &Harness, name: &str) -> InstanceStats {
    daemon.client().await.stats(&words(&[name]), false).await.unwrap().instances.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_says_what_an_instance_uses_now_and_used_at_most() {
    const PAGE: u64 = 65_536;
    let daemon = Harness::start().await;
    for guest in ["stays", "stays-p2"] {
        let mut client = daemon.client().await;
        client.run(&["--name", "web", "-m", "8m", "--disk", "1000", "--files", "7", guest]).await.unwrap();
        daemon.wait_for_output("web").await;
        let stats = soon("its log is written", async {
            loop {
                let stats = one(&daemon, "web").await;
                if stats.log_bytes.is_some_and(|bytes| bytes >= 5) {
                    return stats;
                }
            }
        })
        .await;
        // A component has the adapter's memory besides.
        let memory = stats.memory_bytes.unwrap();
        let own = if guest == "stays" { memory == 3 * PAGE } else { (3 * PAGE..8 << 20).contains(&memory) };
        assert!(own, "{guest}: {stats:?}");
        assert_eq!((stats.memory_peak_bytes, stats.memory_bytes_max), (stats.memory_bytes, 8 << 20));
        assert_eq!((stats.disk_bytes, stats.files), (Some(5), Some(1)), "{guest}");
        assert_eq!((stats.disk_bytes_max, stats.files_max), (1000, 7));
        assert_eq!((stats.state.as_str(), stats.exit_code, stats.restarts), ("running", None, 0));
        assert!(stats.output_bytes == Some(5) && stats.cpu_us.is_some(), "{stats:?}");
        assert!(stats.age_us.is_some() && stats.at_us > 0, "{stats:?}");

        client.request::<Value>(&["stop", "web"]).await.unwrap();
        let ended = one(&daemon, "web").await;
        assert_eq!((ended.state.as_str(), ended.exit_code), ("stopped", Some(143)));
        assert!(ended.cpu_us.is_some() && ended.age_us.is_some(), "{ended:?}");
        let live = [ended.memory_bytes, ended.memory_peak_bytes, ended.disk_bytes, ended.files, ended.log_bytes];
        assert!(live.iter().all(Option::is_none) && ended.output_bytes.is_none(), "{ended:?}");
        assert_eq!(names(&client.stats(&[], false).await.unwrap()), [""; 0], "it is not alive");
        client.request::<Value>(&["rm", "-v", "web"]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_made_of_two_samples() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    client.run(&["--cpus", "0.5", "spin"]).await.unwrap();
    client.run(&["sleep"]).await.unwrap();
    daemon.wait_for_state("spin", "running").await;
    daemon.wait_for_state("sleep", "running").await;
    let before = client.stats(&[], false).await.unwrap();
    assert_eq!(names(&before), ["spin", "sleep"]);
    // Long enough for one share to tell from another, on a machine that does other things.
    let (share, idle, now) = soon("half a second of processor time", async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let now = client.stats(&[], false).await.unwrap();
            let used = now.instances[0].cpu_us.unwrap() - before.instances[0].cpu_us.unwrap();
            if used >= 500_000 {
                let share = |i: usize| now.instances[i].cpu_percent_since(&before.instances[i]).unwrap();
                return (share(0), share(1), now);
            }
        }
    })
    .await;
    assert!(share > 0.5 && share < 65.0, "half of one, or what the machine has: {share}");
    assert!(idle < share, "{idle}");
    let (first, then) = (before.daemon, now.daemon);
    assert!(then.guests_cpu_us >= first.guests_cpu_us + 500_000, "{then:?}");
    assert!(then.cpu_us.unwrap() >= then.guests_cpu_us, "the process has used what its guests have: {then:?}");
    assert_eq!((then.live, then.instances), (2, 2));
    assert!(then.memory_bytes >= 65_536 && then.memory_bytes < then.memory_bytes_max, "{then:?}");
    #[cfg(target_os = "linux")]
    assert!(then.rss_bytes.unwrap() > 1 << 20, "{then:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_choose_in_their_order_and_one_that_is_unknown_is_told() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    for name in ["a", "b"] {
        client.run(&["--name", name, "sleep"]).await.unwrap();
        daemon.wait_for_state(name, "running").await;
    }
    daemon.run_to_end(&["--name", "c", "exit_7"]).await;
    assert_eq!(names(&client.stats(&[], false).await.unwrap()), ["a", "b"], "what is alive");
    assert_eq!(names(&client.stats(&words(&["c", "a"]), false).await.unwrap()), ["c", "a"]);
    let refused = client.stats(&words(&["a", "nobody"]), false).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(r) if r.message == "no instance named 'nobody'"), "{refused}");
    let mut raw = daemon.raw().await;
    assert_eq!(raw.ask("stats nobody").await, "Container not found");
    assert_eq!(raw.ask("stats a a").await, "ERR usage 'a' is named twice");
    assert!(raw.ask("stats a/b").await.starts_with("ERR bad-name"));
    raw.send("stats c b\nping\n").await;
    let lines = raw.dotted().await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("daemon - age=") && lines[0].contains(" live=2/"), "{lines:?}");
    assert!(lines[1].starts_with("c - exited (7) run=1 ") && lines[1].ends_with(" restarts=0"), "{lines:?}");
    assert!(lines[2].starts_with("b - running run=1 age=") && lines[2].contains(" memory=65536/"), "{lines:?}");
    assert_eq!(raw.line().await, "pong", "and the connection goes on");
}

/// More than a page of each kind.
#[tokio::test(flavor = "multi_thread")]
async fn many_are_told_page_by_page_and_none_twice() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    let mut alive = vec![];
    for i in 0..600 {
        let name = format!("i{i}");
        client.run(&["--name", &name, if i % 2 == 0 { "exit_7" } else { "sleep" }]).await.unwrap();
        if i % 2 == 1 {
            alive.push(name);
        }
    }
    soon("the ends", async {
        while daemon.supervisor.live() > 300 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let sample = client.stats(&[], false).await.unwrap();
    assert_eq!(names(&sample), alive);
    assert_eq!((sample.daemon.live, sample.daemon.instances), (300, 600));
    let everything = client.stats(&[], true).await.unwrap();
    assert_eq!(names(&everything), (0..600).map(|i| format!("i{i}")).collect::<Vec<_>>());
    let all: Vec<String> = (0..600).rev().map(|i| format!("i{i}")).collect();
    assert_eq!(names(&client.stats(&all, false).await.unwrap()), all);
}

/// The page and the JSON of it, and what the command line adds.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_a_sample_once_where_no_terminal_is() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["run", "-d", "spin"]).await.0, 0);
    daemon.wait_for_state("spin", "running").await;
    let (code, out, err) = cli.run(&["stats"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, err.as_str(), lines.len()), (0, "", 4), "{out}");
    let head: Vec<&str> = lines[0].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let heads = ["NAME", "STATE", "CPU %", "TIME", "MEMORY", "PEAK", "DISK", "FILES", "LOG", "RESTARTS", "AGE"];
    assert_eq!(head, heads);
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(
        (&cells[..2], &cells[4..10]),
        (&["spin", "running"][..], &["64K/256M", "64K", "-", "-", "0B", "0"][..]),
        "{out}"
    );
    assert!(cells[2].ends_with('%') && cells[3].ends_with('s') && cells[10].ends_with('s'), "{out}");
    assert!(lines[3].starts_with("Daemon: 1/4096 instances alive, memory 64K/"), "{out}");
    let (code, out, _) = cli.run(&["stats", "--format", "json", "spin"]).await;
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["instances"][0]["name"], &json["daemon"]["live"]), (0, &"spin".into(), &1.into()));
    assert!(json["instances"][0]["cpu_percent"].as_f64().unwrap() > 0.0, "{out}");
    assert!(json["daemon"]["cpu_percent"].is_f64() && json["daemon"]["own_percent"].is_f64(), "{out}");
    let template = "{{.name}} {{.memory_bytes}}/{{.memory_bytes_max}}";
    let shown = cli.run(&["stats", "--no-stream", "--format", template]).await;
    assert_eq!(shown, (0, "spin 65536/268435456\n".into(), String::new()));
    let (code, _, err) = cli.run(&["stats", "nobody"]).await;
    assert_eq!((code, err.as_str()), (125, "error: no instance named 'nobody'\n"));
}
