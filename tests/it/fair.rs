//! Processors are shared: a crowd that computes holds up nobody, weights and limits hold, and a stop goes before all.

use crate::support::{Harness, soon};
use coracle::client::Client;
use coracle::model::instance::Rung;
use coracle::model::reply::{Inspection, InstanceView};
use std::time::{Duration, Instant};

async fn crowd(client: &mut Client, n: usize, flags: &[&str]) -> Vec<String> {
    let names: Vec<String> = (0..n).map(|i| format!("{}s{i}", flags.concat().replace('-', "x"))).collect();
    for name in &names {
        client.run(&[&["--name", name.as_str()], flags, &["spin"]].concat()).await.unwrap();
    }
    names
}

async fn cpu(client: &mut Client, name: &str) -> Duration {
    let inspection: Inspection = client.request(&["inspect", name]).await.unwrap();
    Duration::from_micros(inspection.instance.cpu_us.unwrap_or_default())
}

async fn cpu_of_all(client: &mut Client, names: &[String]) -> Duration {
    let mut sum = Duration::ZERO;
    for name in names {
        sum += cpu(client, name).await;
    }
    sum
}

/// With a queue that is first in, first out each of these would wait for 400 turns of 5 ms, more than once.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_computes_holds_up_neither_a_new_run_nor_a_stop() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    let names = crowd(&mut client, 400, &[]).await;
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(0));
    }
    for name in &names[..20] {
        let view: InstanceView = soon("the stop", client.request(&["stop", name])).await.unwrap();
        assert_eq!(view.state, "stopped");
    }
    // On the plain queue: forty times a second and more.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // They did compute meanwhile, all of them.
    for name in &names[20..] {
        daemon.wait_for_state(name, "running").await;
        soon("a turn of each", async {
            while cpu(&mut client, name).await == Duration::ZERO {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_divide_the_processors() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    let light = crowd(&mut client, 6, &["--cpu-weight", "100"]).await;
    let heavy = crowd(&mut client, 6, &["--cpu-weight", "300"]).await;
    // What newcomers are given first is used up.
    for name in light.iter().chain(&heavy) {
        soon("its first turns", async {
            while cpu(&mut client, name).await < Duration::from_millis(160) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    let before = (cpu_of_all(&mut client, &light).await, cpu_of_all(&mut client, &heavy).await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = (cpu_of_all(&mut client, &light).await, cpu_of_all(&mut client, &heavy).await);
    let ratio = (after.1 - before.1).as_secs_f64() / (after.0 - before.0).as_secs_f64();
    assert!((2.4..=3.6).contains(&ratio), "{ratio}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cpus_holds_a_guest_to_its_part_and_no_longer_than_a_stop_takes() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    let begun = Instant::now();
    client.run(&["--cpus", "0.1", "spin"]).await.unwrap();
    client.run(&["--cpus", "0.01", "--name", "slow", "spin"]).await.unwrap();
    soon("half a second of time", async {
        while cpu(&mut client, "spin").await < Duration::from_millis(200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Twenty windows of 10 ms, less the one that is open and what it may be over.
    assert!(begun.elapsed() > Duration::from_millis(1600), "{:?}", begun.elapsed());
    let slow = cpu(&mut client, "slow").await.as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(slow < 0.02, "{slow}");
    for name in ["spin", "slow"] {
        let view: InstanceView = soon("the stop", client.request(&["stop", name])).await.unwrap();
        assert_eq!(view.stopped.unwrap().rung, Rung::Tick);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_ends_a_run_that_uses_more_and_none_that_uses_less() {
    let daemon = Harness::start().await;
    let ended = daemon.run_to_end(&["--cpu-time", "150ms", "spin"]).await;
    assert_eq!(
        (ended.state.as_str(), ended.exit_code, ended.reason.as_deref()),
        ("killed", Some(137), Some("cpu-time"))
    );
    assert!(ended.message.as_deref().unwrap().contains("150ms of CPU time (--cpu-time)"), "{ended:?}");
    let used = ended.cpu_us.unwrap();
    // A turn is at most a tick of 5 ms and what the machine adds to it.
    assert!((150_000..250_000).contains(&used), "{used}");
    // One that sleeps uses none, however long it lives: it is the other limit that ends it.
    let ended = daemon.run_to_end(&["--cpu-time", "150ms", "--timeout", "1s", "sleep"]).await;
    assert_eq!((ended.state.as_str(), ended.stopped.unwrap().rung), ("timed-out", Rung::HostCall));
    let ended = daemon.run_to_end(&["--cpu-time", "1h", "compute"]).await;
    assert_eq!(ended.exit_code, Some(0));
    let needs = Duration::from_micros(ended.cpu_us.unwrap());
    assert!(needs > Duration::from_millis(20), "it counted: {needs:?}");
    // Each run has the whole of it.
    for _ in 0..2 {
        let limit = format!("{}us", needs.as_micros() * 8);
        assert_eq!(daemon.run_to_end(&["--cpu-time", &limit, "compute"]).await.exit_code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_daemon_was_given_holds_for_runs_that_do_not_ask() {
    let daemon = Harness::with_limits(|l| {
        l.cpu_time.0 = Some(Duration::from_millis(50));
        l.timeout.0 = Some(Duration::from_secs(3));
        l.cpus_milli.0 = Some(500);
        l.cpu_weight = 7;
    })
    .await;
    let ended = daemon.run_to_end(&["spin"]).await;
    assert_eq!(ended.reason.as_deref(), Some("cpu-time"));
    assert_eq!((ended.share.weight, ended.share.cpus_milli, ended.timeout_ms), (7, Some(500), Some(3000)));
    assert_eq!(daemon.run_to_end(&["sleep"]).await.reason.as_deref(), Some("timeout"));
    let asks = ["--cpu-time", "1h", "--timeout", "100ms", "--cpus", "2", "--cpu-weight", "10000", "spin"];
    let ended = daemon.run_to_end(&asks).await;
    assert_eq!(ended.reason.as_deref(), Some("timeout"));
    assert_eq!((ended.share.weight, ended.share.cpus_milli, ended.cpu_time_ms), (10_000, Some(2000), Some(3_600_000)));
}

/// The time of a run begins with its code, a start function's too; not with the compilation before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_counts_from_guest_code_and_reaches_a_start_function() {
    let daemon = Harness::start().await;
    // A start function is guest code, whether it computes or waits.
    let waited = daemon.run_to_end(&["--timeout", "200ms", "start_waits"]).await;
    assert_eq!((waited.reason.as_deref(), waited.started_at.is_some()), (Some("timeout"), true), "{waited:?}");
    let failed = daemon.run_to_end(&["start_fails"]).await;
    assert_eq!(failed.reason.as_deref(), Some("trap:host-call"), "{failed:?}");
    assert!(failed.message.as_deref().is_some_and(|m| m.contains("--random-size") && m.contains("(-m)")), "{failed:?}");
    let ended = daemon.run_to_end(&["--timeout", "200ms", "start_loops"]).await;
    assert_eq!((ended.state.as_str(), ended.stopped.unwrap().rung), ("timed-out", Rung::Tick));
    let at = |time: &Option<String>| humantime::parse_rfc3339(time.as_deref().unwrap()).unwrap();
    let lived = at(&ended.ended_at).duration_since(at(&ended.started_at)).unwrap();
    assert!(lived >= Duration::from_millis(199), "{lived:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_says_on_which_rung_a_guest_was_ended_and_how_long_that_took() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    for (words, grace, rung) in [
        (&["spin"][..], "0s", Rung::Tick),
        (&["sleep"], "0s", Rung::HostCall),
        (&["spin"], "100ms", Rung::Tick),
        (&["-i", "cat"], "1m", Rung::Grace),
    ] {
        let mut attached = daemon.client().await;
        attached.send(&[&["run", "--attach"], words].concat()).await.unwrap();
        let name = words.last().unwrap();
        daemon.wait_for_state(name, "running").await;
        let asked = Instant::now();
        let _view: InstanceView = soon("the stop", client.request(&["stop", "-t", grace, name])).await.unwrap();
        let took = asked.elapsed();
        let inspection: Inspection = client.request(&["inspect", name]).await.unwrap();
        let stopped = inspection.instance.stopped.unwrap_or_else(|| panic!("{words:?}"));
        assert_eq!(stopped.rung, rung, "{words:?}");
        let said = Duration::from_micros(stopped.took_us);
        assert!(said <= took, "{said:?} of {took:?}");
        assert!(grace == "1m" || said >= humantime::parse_duration(grace).unwrap(), "{said:?}");
        assert_eq!(inspection.runs.last().unwrap().stopped, Some(stopped));
    }
    // One that left by itself was not stopped by anybody.
    let ended = daemon.run_to_end(&["hello"]).await;
    assert_eq!(ended.stopped, None);
    assert!(ended.cpu_us.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_wakes_in_time_among_those_that_compute() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    crowd(&mut client, 50, &[]).await;
    // A thousand times 10 ms; a round of the others would be 125 ms, and each time it would be later.
    let begun = Instant::now();
    assert_eq!(daemon.run_to_end(&["punctual"]).await.exit_code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_share_is_refused_in_one_line() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    for line in [
        "run --cpus 0 spin",
        "run --cpus -1 spin",
        "run --cpus lots spin",
        "run --cpus NaN spin",
        "run --cpus 2000 spin",
        "run --cpu-weight 0 spin",
        "run --cpu-weight 10001 spin",
        "run --cpu-time soon spin",
    ] {
        let reply = raw.ask(line).await;
        assert!(reply.starts_with("ERR usage "), "{line}: {reply}");
    }
    assert_eq!(raw.ask("list").await, "Available containers: []");
}
