//! What guests print, on disk: whole, dated, bounded, and there after the daemon.

use crate::support::{Cli, Harness, soon};
use coracle::model::reply::{Data, Output};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The pieces of a log, and how many bytes are gone.
async fn pieces(daemon: &Harness, words: &str) -> (Vec<Output>, u64) {
    let mut raw = daemon.raw().await;
    raw.send(&format!("format json\nlogs {words}\n")).await;
    raw.line().await;
    let mut all = vec![];
    loop {
        let mut line: Value = serde_json::from_str(&raw.line().await).unwrap();
        if let Some(end) = line.get("ok") {
            return (all, end["dropped_bytes"].as_u64().unwrap());
        }
        if line["event"]["type"] == "output" {
            all.push(serde_json::from_value(line["event"].take()).unwrap());
        }
    }
}

fn bytes(pieces: Vec<Output>) -> Vec<u8> {
    pieces.into_iter().flat_map(|piece| piece.data.into_bytes().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_survive_and_every_piece_has_its_time_and_run() {
    let mut daemon = Harness::start().await;
    let every: Vec<u8> = (0..=255).collect();
    for _ in 0..2 {
        daemon.run_to_end(&["raw_bytes"]).await;
    }
    for _ in 0..2 {
        let (all, dropped) = pieces(&daemon, "raw_bytes").await;
        assert_eq!((all.iter().map(|piece| piece.run).collect::<Vec<_>>(), dropped), (vec![1, 2], 0));
        assert!(all[0].at < all[1].at && all[0].at.to_string().len() == "2026-11-24T10:00:00.123456789Z".len());
        assert!(matches!(all[0].data, Data::Base64(_)));
        assert_eq!(bytes(all), every.repeat(2));
        // And again, from what the next daemon finds.
        daemon.restart().await;
    }
    daemon.run_to_end(&["raw_bytes"]).await;
    let (all, _) = pieces(&daemon, "raw_bytes").await;
    assert_eq!(all.iter().map(|piece| piece.run).collect::<Vec<_>>(), [1, 2, 3], "the log goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_chosen_by_time() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    daemon.run_to_end(&["--name", "h", "hello", "first"]).await;
    let (first, _) = pieces(&daemon, "h").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    daemon.run_to_end(&["--name", "h", "hello", "second"]).await;
    let (all, _) = pieces(&daemon, "h").await;
    let (one, two) = (first[0].at.to_string(), all.last().unwrap().at.to_string());
    let lines = async |words: &[&str]| cli.run(&[&["logs", "h"], words].concat()).await.1;
    assert_eq!(lines(&["--since", "1h"]).await, "Hello, first!\nHello, second!\n");
    assert_eq!(lines(&["--until", "1h"]).await, "");
    assert_eq!(lines(&["--since", &two]).await, "Hello, second!\n");
    // To the microsecond, which lies before its nanoseconds.
    assert_eq!(lines(&["--until", &format!("{}Z", &two[..26])]).await, "Hello, first!\n");
    assert!(lines(&["-t", "-n", "1"]).await.starts_with(&two));
    assert!(one < two);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_goes_on_over_restarts_until_the_instance_is_over() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    client.run(&["--name", "c", "clock"]).await.unwrap();
    daemon.wait_for_output("c").await;
    let mut follower = daemon.raw().await;
    follower.send("format json\nlogs -f c\n").await;
    follower.line().await;
    let mut runs = vec![];
    for run in 1..=3 {
        soon("output of the run", async {
            loop {
                let line: Value = serde_json::from_str(&follower.line().await).unwrap();
                if line["event"]["run"] == run {
                    runs.push(run);
                    return;
                }
            }
        })
        .await;
        if run < 3 {
            client.request::<Value>(&["restart", "c"]).await.unwrap();
        }
    }
    client.request::<Value>(&["stop", "c"]).await.unwrap();
    soon("the end of the stream", async {
        while serde_json::from_str::<Value>(&follower.line().await).unwrap().get("ok").is_none() {}
    })
    .await;
    assert_eq!(runs, [1, 2, 3]);
}

/// A policy's pause is not the end of the stream either.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_waits_through_a_pause() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    client.run(&["--restart", "always", "both"]).await.unwrap();
    let mut follower = daemon.raw().await;
    follower.send("format json\nlogs -f --stream stderr both\n").await;
    follower.line().await;
    for run in 1..=4 {
        let line: Value = serde_json::from_str(&follower.line().await).unwrap();
        assert_eq!((line["event"]["run"].as_u64(), line["event"]["text"].as_str()), (Some(run), Some("err\n")));
    }
    client.request::<Value>(&["stop", "both"]).await.unwrap();
    soon("the end of the stream", async {
        while serde_json::from_str::<Value>(&follower.line().await).unwrap().get("ok").is_none() {}
    })
    .await;
}

/// A guest that prints as fast as it can: bounded on disk, counted, and nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_stays_within_its_limit_and_holds_up_nobody() {
    let daemon = Harness::with_limits(|l| l.log_bytes_max = 1 << 20).await;
    let mut client = daemon.client().await;
    client.run(&["flood"]).await.unwrap();
    let log = daemon.supervisor.log(&"flood".parse().unwrap()).unwrap();
    let on_disk = || -> u64 {
        let entries = std::fs::read_dir(daemon.state.join("logs")).unwrap().flatten();
        entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
    };
    soon("much more than is kept", async {
        while log.dropped().await < 200 << 20 {
            assert!(on_disk() <= (1 << 20) + (128 << 10), "{}", on_disk());
            assert_eq!(client.list().await.unwrap().len(), 1);
        }
    })
    .await;
    client.run(&["hello"]).await.unwrap();
    client.request::<Value>(&["wait", "hello"]).await.unwrap();
    client.request::<Value>(&["stop", "flood"]).await.unwrap();
    let (kept, dropped) = pieces(&daemon, "flood").await;
    assert!(dropped >= 200 << 20 && bytes(kept).len() > 256 << 10);
}

/// Faster than a log may grow: the files do not, the rest is counted, and nobody waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_written_no_faster_than_its_rate() {
    const RATE: u64 = 1 << 20;
    let daemon = Harness::with_limits(|l| {
        l.log_bytes_max = 1 << 30;
        l.log_bytes_per_second = 1 << 20;
    })
    .await;
    let mut client = daemon.client().await;
    let begun = Instant::now();
    client.run(&["flood"]).await.unwrap();
    let log = daemon.supervisor.log(&"flood".parse().unwrap()).unwrap();
    let mut on_disk = 0;
    soon("much more than the rate", async {
        while log.dropped().await < 128 << 20 {
            let entries = std::fs::read_dir(daemon.state.join("logs")).unwrap().flatten();
            on_disk = entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum();
            // What comes at once, and what the time since the first byte brought.
            let at_most = RATE + RATE * u64::try_from(begun.elapsed().as_millis()).unwrap() / 1000;
            assert!(on_disk <= at_most, "{on_disk} of {at_most}");
            assert_eq!(client.list().await.unwrap().len(), 1);
        }
    })
    .await;
    assert!(on_disk > RATE / 2, "{on_disk}");
    client.request::<Value>(&["stop", "flood"]).await.unwrap();
    let (kept, dropped) = pieces(&daemon, "flood").await;
    assert!(dropped >= 128 << 20 && bytes(kept).len() as u64 >= RATE / 2);
    // An attached client is no file: of what it is given nothing is left out.
    let daemon = Harness::with_limits(|l| l.log_bytes_per_second = 1000).await;
    let (code, out, _) = Cli::of(&daemon).run(&["run", "lines"]).await;
    assert!(code == 0 && out.len() == 1 << 20, "{code}: {} bytes", out.len());
    assert!(pieces(&daemon, "lines").await.1 > 1_000_000);
}

/// Logs lie where no guest can reach them, for this user alone.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn logs_are_files_of_the_daemons_own() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Harness::start().await;
    daemon.run_to_end(&["hello"]).await;
    let files: Vec<_> = std::fs::read_dir(daemon.state.join("logs")).unwrap().flatten().collect();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(files[0].path()).unwrap();
    assert!(text.contains(" 1 1 20 0\nHello from Coracle!\n"), "a person can read it: {text}");
    assert_eq!(std::fs::read_dir(daemon.root.join("hello")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_line_ends_with_its_run() {
    let daemon = Harness::start().await;
    for _ in 0..2 {
        daemon.run_to_end(&["both"]).await;
    }
    let mut raw = daemon.raw().await;
    raw.send("logs --stream stdout both\n").await;
    assert_eq!(raw.dotted().await, ["out", "last", "out", "last"]);
    raw.send("logs --stream stdout -n 3 both\n").await;
    assert_eq!(raw.dotted().await, ["last", "out", "last"]);
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["logs", "-t", "--stream", "stdout", "both"]).await.1.lines().count(), 4);
}
