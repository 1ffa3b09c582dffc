//! Stops that meet the end of the daemon: each is answered or its connection closed, the daemon ends in time, and nothing is
//! left of what it ran.

use super::daemon::{Daemon, soon};
use super::say;
use coracle::client::ClientError;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// What runs when the daemon is told to end, by turns.
const MODULES: [&str; 5] = ["spin", "sleep_longest", "flood", "huge_file", "grow_storm"];

/// How the daemon is told to end.
#[derive(Debug, Clone, Copy)]
pub enum Told {
    BySignal,
    ByVerb,
}

/// From request to reply of each stop that was answered, and until the daemon was gone.
pub async fn round(directory: &Path, instances: usize, told: Told) -> (Vec<Duration>, Duration) {
    let daemon = Daemon::spawn(directory, instances);
    let mut client = daemon.client().await;
    let names: Vec<String> = (0..instances).map(|i| format!("last-{i}")).collect();
    for (name, module) in names.iter().zip(MODULES.iter().cycle()) {
        client.run(&["--name", name, "-m", "8m", "--disk", "128g", module]).await.unwrap();
    }
    for name in &names {
        let _running: Value =
            soon("a running guest", client.request(&["wait", "--condition", "running", name])).await.unwrap();
    }
    let barrier = Arc::new(Barrier::new(instances + 1));
    let mut stops = JoinSet::new();
    for name in names {
        let (mut client, barrier) = (daemon.client().await, Arc::clone(&barrier));
        stops.spawn(async move {
            barrier.wait().await;
            let asked = Instant::now();
            match soon("an answer or a close", client.request::<Value>(&["stop", &name])).await {
                Ok(view) => {
                    assert_eq!((&view["state"], &view["exit_code"]), (&json!("stopped"), &json!(143)), "{view}");
                    assert!(["stop", "shutdown"].contains(&view["reason"].as_str().unwrap()), "{view}");
                    Some(asked.elapsed())
                }
                Err(ClientError::Broken(_)) => None,
                Err(e) => panic!("stop {name} during the shutdown: {e}"),
            }
        });
    }
    barrier.wait().await;
    match told {
        Told::BySignal => daemon.terminate(),
        Told::ByVerb => {
            let _ending: Value = client.request(&["shutdown"]).await.unwrap();
        }
    }
    let ending = Instant::now();
    let (times, ()) = tokio::join!(stops.join_all(), daemon.ended());
    let busy = ending.elapsed();
    let closed = times.iter().filter(|time| time.is_none()).count();
    if closed > 0 {
        say(&format!("during a shutdown ({told:?}) {closed} of {instances} stops found their connection closed"));
    }
    next_one_is_clean(directory, instances).await;
    (times.into_iter().flatten().collect(), busy)
}

/// The next daemon finds all of them stopped, and nothing of it computes.
async fn next_one_is_clean(directory: &Path, instances: usize) {
    let next = Daemon::spawn(directory, instances);
    let mut client = next.client().await;
    let list = client.list().await.unwrap();
    assert_eq!(list.len(), instances);
    for view in list {
        let end = (view.state.as_str(), view.exit_code, view.run);
        assert_eq!(end, ("stopped", Some(143), 1), "{}: {:?}", view.name, view.message);
    }
    next.quiet(Duration::from_millis(200), "a start", || next.log_bytes()).await;
    let names: Vec<String> = client.list().await.unwrap().into_iter().map(|view| view.name.to_string()).collect();
    for removed in client.each::<Value>(&["rm", "-v"], &names).await.unwrap() {
        removed.unwrap();
    }
    next.terminate();
    next.ended().await;
}
