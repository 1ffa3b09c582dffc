//! `stop` returns when the instance is gone, whatever it is doing; `kill` at once; a grace lets it leave by itself.

use crate::support::{Harness, large_module, soon};
use coracle::model::reply::InstanceView;
use std::time::{Duration, Instant};

/// Starts, stops, and checks that all of it is gone.
async fn stops(daemon: &Harness, words: &[&str], name: &str) -> Duration {
    let mut client = daemon.client().await;
    client.run(words).await.unwrap();
    daemon.wait_for_state(name, "running").await;
    let asked = Instant::now();
    let view: InstanceView = soon("the stop", client.request(&["stop", name])).await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.exit_code, view.reason.as_deref()),
        ("stopped", Some(143), Some("stop")),
        "{name}"
    );
    assert_eq!(daemon.supervisor.live(), 0, "{name} is gone when stop returns");
    assert_eq!(daemon.supervisor.memory_bytes_used(), 0, "{name}: its memory is given back");
    asked.elapsed()
}

async fn stops_in_both_worlds(guest: &str) {
    let daemon = Harness::start().await;
    stops(&daemon, &[guest], guest).await;
    let component = format!("{guest}-p2");
    stops(&daemon, &[&component], &component).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_interrupts_an_endless_loop() {
    let daemon = Harness::start().await;
    stops(&daemon, &["spin"], "spin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_interrupts_a_sleep_of_an_hour() {
    stops_in_both_worlds("sleep").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_interrupts_endless_recursion() {
    stops_in_both_worlds("recurse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_interrupts_a_guest_that_only_prints() {
    stops_in_both_worlds("chatty").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_interrupts_a_guest_that_only_writes_a_file() {
    stops_in_both_worlds("append").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_interrupts_long_bulk_operations() {
    stops_in_both_worlds("fill").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_interrupts_a_start_function() {
    let daemon = Harness::start().await;
    stops(&daemon, &["start_loops"], "start_loops").await;
}

/// The open of a FIFO without a writer blocks in the kernel; the guest goes, and so does the daemon.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn stop_interrupts_a_guest_that_is_blocked_in_a_host_call() {
    let mut daemon = Harness::start().await;
    daemon.run_to_end(&["open", "nothing"]).await;
    let fifo = daemon.root.join("open/fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Often enough to find it in the kernel, and not on its way there.
    for _ in 0..20 {
        stops(&daemon, &["open", "fifo"], "open").await;
    }
    daemon.end().await;
    // Let the threads that are left behind go; where there is none, this does not wait for one (open(2), O_NONBLOCK).
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    drop(rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty()));
}

/// With `-i` and a client that sends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn stop_interrupts_a_read_of_input_that_never_comes() {
    let daemon = Harness::start().await;
    for guest in ["cat", "cat-p2"] {
        let mut attached = daemon.client().await;
        attached.send(&["run", "--attach", "-i", guest]).await.unwrap();
        daemon.wait_for_state(guest, "running").await;
        let mut client = daemon.client().await;
        let view: InstanceView = soon("the stop", client.request(&["stop", guest])).await.unwrap();
        assert_eq!(view.state, "stopped");
    }
    assert_eq!(daemon.supervisor.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_closes_stdin_and_lets_the_guest_leave_by_itself() {
    let daemon = Harness::start().await;
    let mut attached = daemon.client().await;
    attached.send(&["run", "--attach", "-i", "cat"]).await.unwrap();
    daemon.wait_for_state("cat", "running").await;
    let mut raw = daemon.raw().await;
    assert_eq!(raw.ask("stop -t 60 cat").await, "Container 'cat' stopped");
    let view = daemon.supervisor.view(&"cat".parse().unwrap()).unwrap();
    assert_eq!((view.state.as_str(), view.exit_code, view.stop_requested), ("exited", Some(0), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_is_not_longer_than_it_says_and_kill_cuts_it_short() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    raw.ask("run sleep").await;
    assert_eq!(raw.ask("stop -t 50ms sleep").await, "Container 'sleep' stopped");
    raw.ask("run sleep").await;
    let mut patient = daemon.raw().await;
    patient.send("stop -t 1h sleep\n").await;
    soon("the request to stop", async {
        while !daemon.supervisor.view(&"sleep".parse().unwrap()).unwrap().stop_requested {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(raw.ask("run sleep").await, "ERR busy 'sleep' is being stopped; try again when it has ended");
    assert_eq!(raw.ask("kill sleep").await, "Container 'sleep' killed");
    assert_eq!(patient.line().await, "Container 'sleep' stopped");
}

/// The client leaves during the grace; its stop stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_goes_on_without_its_client() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    raw.ask("run sleep").await;
    raw.send("stop -t 100ms sleep\n").await;
    drop(raw);
    daemon.wait_for_state("sleep", "stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_stops_of_one_instance_are_one_stop() {
    let daemon = Harness::start().await;
    daemon.client().await.run(&["spin"]).await.unwrap();
    let mut clients = vec![];
    for _ in 0..16 {
        let mut raw = daemon.raw().await;
        raw.send("stop spin\n").await;
        clients.push(raw);
    }
    for mut raw in clients {
        assert_eq!(raw.line().await, "Container 'spin' stopped");
    }
}

/// A stop at any moment of a start: what it says of the run is what becomes of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_meets_a_start_tells_the_truth() {
    let daemon = Harness::start().await;
    let (mut runner, mut stopper) = (daemon.raw().await, daemon.raw().await);
    stopper.ask("format json").await;
    let (mut prevented, mut stopped) = (0, 0);
    for _ in 0..1000 {
        runner.send("run spin\n").await;
        let view = loop {
            let said: serde_json::Value = serde_json::from_str(&stopper.ask("stop spin").await).unwrap();
            if let Some(view) = said.get("ok").filter(|v| v["run"] != stopped || v["state"] == "never-started") {
                break view.clone();
            }
        };
        let created = runner.line().await.contains("created");
        if view["state"] == "never-started" {
            assert!(!created, "it was said never to begin, and began");
            prevented += 1;
        } else {
            assert!(created && view["state"] == "stopped", "{view}");
            stopped += 1;
        }
        assert_eq!(daemon.supervisor.live(), 0);
    }
    assert_eq!(prevented + stopped, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_while_its_module_is_compiled_never_begins() {
    let directory = large_module(3000);
    let path = directory.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs.push(path)).await;
    let mut starting = daemon.raw().await;
    starting.send("run large\n").await;
    let mut raw = daemon.raw().await;
    soon("the compilation", async {
        while daemon.supervisor.compilations() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(raw.ask("run large").await.starts_with("ERR exists"), "the name is taken");
    assert_eq!(raw.ask("stop large").await, "Container 'large' stopped");
    assert!(starting.line().await.starts_with("ERR busy"), "it never began");
    assert_eq!(raw.ask("list").await, "Available containers: []");
}
