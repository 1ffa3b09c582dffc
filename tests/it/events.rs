//! `events`: every change, in order, live and from the record; a slow follower is told what it lost.

use crate::support::{Cli, Harness, Raw, soon};
use serde_json::Value;

/// The events that come to an end, as JSON.
async fn replay(daemon: &Harness, words: &str) -> Vec<Value> {
    let mut raw = daemon.raw().await;
    raw.send(&format!("format json\nevents {words}\n")).await;
    raw.line().await;
    let mut events = vec![];
    loop {
        let line: Value = serde_json::from_str(&raw.line().await).unwrap();
        if line.get("ok").is_some() {
            return events;
        }
        events.push(line["event"].clone());
    }
}

fn words(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|e| format!("{} {}", e["event"]["name"].as_str().unwrap(), e["event"]["type"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_an_event_with_the_next_number() {
    let mut daemon = Harness::start().await;
    daemon.run_to_end(&["--name", "a", "exit_7"]).await;
    let mut client = daemon.client().await;
    client.run(&["--name", "b", "sleep"]).await.unwrap();
    daemon.wait_for_state("b", "running").await;
    client.request::<Value>(&["stop", "b"]).await.unwrap();
    client.request::<Value>(&["rm", "a"]).await.unwrap();
    let all = replay(&daemon, "--since 0 --until 0s").await;
    let expected =
        ["a created", "a started", "a ended", "b created", "b started", "b stop-requested", "b ended", "a removed"];
    assert_eq!(words(&all), expected);
    let seqs: Vec<u64> = all.iter().map(|e| e["event"]["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=8).collect::<Vec<_>>());
    let end = &all[2]["event"];
    assert_eq!(
        (end["exit_code"].as_u64(), end["state"].as_str(), end["reason"].as_str()),
        (Some(7), Some("exited"), Some("exit"))
    );
    // By number, by time, by what they are.
    assert_eq!(words(&replay(&daemon, "--since 4 --until 6").await), &expected[3..6]);
    assert_eq!(words(&replay(&daemon, "--since 0 --until 0s -f type=ended -f name=b").await), ["b ended"]);
    assert_eq!(words(&replay(&daemon, "--since 0 --until 0s -f module=exit_7 -f type=created").await), ["a created"]);
    let at = all[3]["event"]["at"].as_str().unwrap();
    assert_eq!(words(&replay(&daemon, &format!("--since {at} --until 0s")).await), &expected[3..]);
    assert!(replay(&daemon, "--since 99 --until 0s").await.is_empty());
    assert!(replay(&daemon, "--until 1h").await.is_empty(), "an hour ago, and from now on");
    // The numbers go on with the next daemon.
    daemon.restart().await;
    daemon.run_to_end(&["--name", "c", "hello"]).await;
    assert_eq!(replay(&daemon, "--since 9 --until 9").await[0]["event"]["name"], "c");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_what_happens_as_it_happens_and_nothing_twice() {
    let daemon = Harness::start().await;
    daemon.run_to_end(&["--name", "before", "hello"]).await;
    let mut live = daemon.raw().await;
    live.send("events\n").await;
    let mut replaying = daemon.raw().await;
    replaying.send("events --since 0 -f type=created\n").await;
    assert!(replaying.line().await.contains(" created before run=1 module=hello"));
    // What it was asked for is known to the daemon when another request on that connection would be.
    daemon.run_to_end(&["--name", "after", "hello"]).await;
    assert!(replaying.line().await.contains(" created after "));
    loop {
        let line = live.line().await;
        assert!(!line.contains("before"), "{line}");
        if line.contains(" ended after run=1 module=hello state=exited exit_code=0 reason=exit") {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_follower_is_told_how_many_it_lost() {
    let daemon = Harness::start().await;
    let mut raw = Raw::connect(daemon.address).await;
    raw.send("format json\nevents\n").await;
    raw.line().await;
    // It reads nothing while more happens than any buffer between us holds.
    let mut client = daemon.client().await;
    let label = format!("--label=k={}", "x".repeat(1000));
    let mut last = 0;
    for round in 0..40 {
        for i in 0..120 {
            let name = format!("--name=n{i}");
            // The names that are still at it are skipped: what counts is the number of events.
            if client.run(&[&name, &label, "hello"]).await.is_ok() {
                last += 1;
            }
        }
        assert!(round < 40 && last > 0);
    }
    let (mut seen, mut lost, mut next) = (0u64, 0u64, None::<u64>);
    let newest = daemon.supervisor.newest_event();
    soon("the newest event", async {
        loop {
            let line: Value = serde_json::from_str(&raw.line().await).unwrap();
            match line["event"]["type"].as_str().unwrap() {
                "lost" => {
                    let n = line["event"]["events"].as_u64().unwrap();
                    lost += n;
                    next = next.map(|next| next + n);
                }
                _ => {
                    let seq = line["event"]["event"]["seq"].as_u64().unwrap();
                    assert_eq!(seq, next.unwrap_or(seq), "a gap that nobody told of");
                    next = Some(seq + 1);
                    seen += 1;
                    if seq >= newest {
                        return;
                    }
                }
            }
        }
    })
    .await;
    assert!(lost > 0 && seen > 0, "{seen} seen, {lost} lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_kept_within_their_limit() {
    let daemon = Harness::with_limits(|l| l.events_max = 10).await;
    let mut client = daemon.client().await;
    for _ in 0..500 {
        client.run(&["hello"]).await.unwrap();
        client.request::<Value>(&["wait", "hello"]).await.unwrap();
    }
    let all = replay(&daemon, "--since 0 --until 0s").await;
    assert_eq!(all[0]["type"], "lost");
    let lost = all[0]["events"].as_u64().unwrap();
    assert_eq!(lost + all.len() as u64 - 1, daemon.supervisor.newest_event(), "what is gone is told");
    assert!(all.len() < 1200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_lines_or_json() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    daemon.run_to_end(&["--name", "a", "-l", "k=\u{202e}v", "hello"]).await;
    let (code, out, err) = cli.run(&["events", "--since", "0", "--until", "0s"]).await;
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 3));
    assert!(out.lines().next().unwrap().ends_with(" created a run=1 module=hello k=\\u{202e}v"), "{out}");
    let (_, out, _) =
        cli.run(&["events", "--since", "10m", "--until", "0s", "--format", "json", "-f", "type=ended"]).await;
    let event: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(
        (event["type"].as_str(), event["name"].as_str(), event["seq"].as_u64()),
        (Some("ended"), Some("a"), Some(3))
    );
    let (code, _, err) = cli.run(&["events", "--since", "soon"]).await;
    assert!(code == 125 && err.contains("number of an event"), "{err}");
}
