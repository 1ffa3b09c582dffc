//! Many clients at once; a slow, a silent and a vanishing one hold up nobody.

use crate::support::{Harness, soon};
use coracle::model::filter::Filter;
use std::sync::Arc;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_run_wait_and_list_at_once() {
    let daemon = Arc::new(Harness::start().await);
    let mut clients = JoinSet::new();
    for client in 0..32 {
        let daemon = Arc::clone(&daemon);
        clients.spawn(async move {
            let mut connection = daemon.client().await;
            for i in 0..20 {
                let name = format!("c{client}-{i}");
                connection.run(&["--name", &name, "exit_7"]).await.unwrap();
                let view: coracle::model::reply::InstanceView = connection.request(&["wait", &name]).await.unwrap();
                assert_eq!(view.exit_code, Some(7));
            }
            connection.list().await.unwrap();
        });
    }
    soon("640 runs", async {
        while let Some(done) = clients.join_next().await.transpose().unwrap() {
            let () = done;
        }
    })
    .await;
    assert_eq!(daemon.supervisor.list(&Filter::default()).len(), 640);
    assert_eq!(daemon.supervisor.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_clients_one_gets_the_name() {
    let daemon = Arc::new(Harness::start().await);
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        let daemon = Arc::clone(&daemon);
        clients.spawn(async move { daemon.raw().await.ask("run sleep").await });
    }
    let replies = soon("32 replies", clients.join_all()).await;
    assert_eq!(replies.iter().filter(|r| r.contains("created")).count(), 1, "{replies:?}");
    assert_eq!(replies.iter().filter(|r| r.starts_with("ERR exists")).count(), 31);
}

/// Slow, silent and half-way clients, and one that reads nothing of what it asked for.
#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_clients_hold_up_nobody() {
    let daemon = Harness::start().await;
    let mut held = vec![];
    for i in 0..100 {
        let mut raw = daemon.raw().await;
        match i % 4 {
            0 => {}
            1 => raw.send(&"x".repeat(1500)).await,
            2 => raw.send("put half --size 1000\nonly a part").await,
            _ => raw.send(&"help\n".repeat(2000)).await,
        }
        held.push(raw);
    }
    assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
    let mut raw = daemon.raw().await;
    assert_eq!(raw.ask("list").await, "Available containers: ['exit_7 - exited (7)']");
}

#[tokio::test(flavor = "multi_thread")]
async fn spinning_guests_hold_up_no_answer() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    for i in 0..16 {
        client.run(&["--name", &format!("s{i}"), "spin"]).await.unwrap();
    }
    for i in 0..16 {
        daemon.wait_for_state(&format!("s{i}"), "running").await;
    }
    assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7), "a new guest gets its turn");
    let names: Vec<String> = (0..16).map(|i| format!("s{i}")).collect();
    let stopped = soon("16 stops", client.each::<serde_json::Value>(&["stop"], &names)).await.unwrap();
    assert!(stopped.iter().all(Result::is_ok));
}

/// Ten thousand that close at once, and more idle ones than there are places: who is connected is served as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_harms_nobody_who_is_connected() {
    let daemon = Harness::start().await;
    let mut witness = daemon.raw().await;
    assert_eq!(witness.ask("ping").await, "pong");
    for _ in 0..10_000 {
        drop(daemon.raw().await);
    }
    assert_eq!(witness.ask("ping").await, "pong");
    let mut idle = vec![];
    for _ in 0..1500 {
        idle.push(daemon.raw().await);
    }
    assert_eq!(witness.ask("run exit_7").await.split(' ').nth(2), Some("created"));
    assert_eq!(witness.ask("wait exit_7").await, "7");
    drop(idle);
    daemon.wait_for_place().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_vanish_at_any_time() {
    let daemon = Harness::with_limits(|l| l.connections_max = 16).await;
    for i in 0..300 {
        let Ok(mut stream) = tokio::net::TcpStream::connect(daemon.address).await else { continue };
        let request =
            ["run exit_7\n", "list\nlist\n", "run --name", "put x --size 100000\nxx", "logs -f x\n", "help\nhelp\n"]
                [i % 6];
        // The place may be taken; then the daemon has closed already.
        let _refused = tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await;
        if i % 2 == 0 {
            stream.set_zero_linger().unwrap();
        }
    }
    soon("all places free", async {
        loop {
            let mut open = vec![];
            let mut free = true;
            for _ in 0..16 {
                let mut raw = daemon.raw().await;
                free &= raw.ask("ping").await == "pong";
                open.push(raw);
            }
            if free {
                return;
            }
        }
    })
    .await;
    soon("no instance left", async {
        while daemon.supervisor.live() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
