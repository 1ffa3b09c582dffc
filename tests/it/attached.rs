//! Attached runs on the wire: every byte of output, input with back pressure, and either side going away.

use crate::support::{Harness, soon};
use coracle::client::{Next, Receiver};
use coracle::model::reply::{InstanceView, StreamEvent};
use coracle::model::request::StdStream;
use coracle::transport::socket_path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Reads a run to its end: what it printed on each stream, and how it ended.
async fn to_end(receiver: &mut Receiver) -> (Vec<u8>, Vec<u8>, InstanceView) {
    let (mut out, mut err) = (vec![], vec![]);
    soon("the end of the run", async {
        loop {
            match receiver.next().await.unwrap() {
                Next::Event(StreamEvent::Output(output)) => {
                    let to = if output.stream == StdStream::Stdout { &mut out } else { &mut err };
                    to.extend_from_slice(&output.data.into_bytes().unwrap());
                }
                Next::Event(_) => {}
                Next::End(view) => return (out, err, view),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn input_comes_back_byte_for_byte() {
    let daemon = Harness::start().await;
    // More than every buffer on the way holds, of all byte values.
    let input: Vec<u8> = (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for guest in ["cat", "cat-p2"] {
        let mut client = daemon.client().await;
        client.send(&["run", "--attach", "-i", guest]).await.unwrap();
        let (mut receiver, mut sender) = client.split();
        let sending = async {
            sender.input(&input).await.unwrap();
            sender.end_of_input().await.unwrap();
        };
        let ((), (out, err, view)) = tokio::join!(sending, to_end(&mut receiver));
        assert!(out == input, "{guest}: {} bytes came back", out.len());
        assert_eq!((err.len(), view.exit_code), (0, Some(0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_complete_before_the_exit_code() {
    let daemon = Harness::start().await;
    for guest in ["both", "both-p2"] {
        for _ in 0..50 {
            let mut client = daemon.client().await;
            client.send(&["run", "--attach", guest]).await.unwrap();
            let (out, err, view) = to_end(&mut client.split().0).await;
            assert_eq!((out.as_slice(), err.as_slice(), view.exit_code), (&b"out\nlast"[..], &b"err\n"[..], Some(0)));
        }
    }
}

/// A client that does not read makes its own guest wait, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_its_own_guest_only() {
    let daemon = Harness::start().await;
    let mut slow = daemon.client().await;
    slow.send(&["run", "--attach", "chatty"]).await.unwrap();
    daemon.wait_for_output("chatty").await;
    for _ in 0..20 {
        assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
    }
    // It did not print on without us: what is on its way is what the buffers hold, not what a second of printing makes.
    let mut raw = daemon.raw().await;
    assert_eq!(raw.ask("stop chatty").await, "Container 'chatty' stopped");
    let (out, _, view) = to_end(&mut slow.split().0).await;
    assert_eq!(view.state, "stopped");
    let line = "a line of sixty-six bytes, printed as often as there is time for.\n";
    assert!(out.chunks(line.len()).all(|c| line.as_bytes().starts_with(c)), "nothing was left out in between");
    assert!(out.len() < 64 << 20, "{}", out.len());
}

/// There is always more output than its client has taken, and the input comes in between.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_floods_its_client_hears_it() {
    let daemon = Harness::with_limits(|l| l.log_bytes_max = 64 << 10).await;
    // A component only says whether it failed.
    for (guest, code) in [("until_input", 42), ("until_input-p2", 1)] {
        // Less is on its way in a Unix socket than the daemon sends of a guest at a time.
        let mut client = tokio::net::UnixStream::connect(socket_path(&daemon.state)).await.unwrap();
        client.write_all(format!("format json\nrun --attach -i {guest}\n").as_bytes()).await.unwrap();
        let log = daemon.supervisor.log(&daemon.wait_for_state(guest, "running").await.name).unwrap();
        soon("a guest that waits for its client", async {
            let mut before = 0;
            loop {
                match log.dropped().await {
                    printed if printed > 0 && printed == before => return,
                    printed => before = printed,
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
        client.write_all(b"{\"stdin\":{\"text\":\"*\"}}\n").await.unwrap();
        let (mut piece, mut end, mut taken) = (vec![0; 16 << 10], vec![], 0);
        loop {
            let read = soon("output", client.read(&mut piece)).await.unwrap();
            if read == 0 {
                break;
            }
            taken += read;
            assert!(taken < 32 << 20, "{guest} did not hear its client");
            end.extend_from_slice(&piece[..read]);
            end.drain(..end.len().saturating_sub(4096));
            // So the guest has filled up again when the daemon looks for more.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let end = String::from_utf8(end).unwrap();
        let end = end.lines().last().unwrap();
        assert!(end.contains(&format!("\"exit_code\":{code},")), "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_when_its_client_goes() {
    let daemon = Harness::with_limits(|l| l.log_bytes_max = 64 << 10).await;
    let mut client = daemon.client().await;
    client.send(&["run", "--attach", "chatty"]).await.unwrap();
    daemon.wait_for_output("chatty").await;
    drop(client);
    let log = daemon.supervisor.log(&"chatty".parse().unwrap()).unwrap();
    let before = log.dropped().await;
    // More than it could print without anybody taking it.
    soon("more output", async {
        while log.dropped().await < before + (8 << 20) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(daemon.raw().await.ask("stop chatty").await, "Container 'chatty' stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_the_input() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    client.send(&["run", "--attach", "-i", "cat"]).await.unwrap();
    daemon.wait_for_state("cat", "running").await;
    drop(client);
    daemon.wait_for_state("cat", "exited").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_needs_json_and_input_needs_attaching() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    assert!(raw.ask("run --attach hello").await.starts_with("ERR usage --attach"));
    assert!(raw.ask("run -i hello").await.starts_with("ERR usage -i needs"));
    assert!(raw.ask("run --attach -d hello").await.starts_with("ERR usage "));
    assert_eq!(raw.ask("list").await, "Available containers: []");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_is_none_closes_the_connection_and_the_input() {
    let daemon = Harness::start().await;
    for bad in
        ["list\n", "{\"stdin\":{\"base64\":\"?\"}}\n", "{\"stdin\":{\"text\":\"x\"},\"more\":1}\n", "{}\n\u{7f}\n"]
    {
        let mut raw = daemon.raw().await;
        raw.ask("format json").await;
        raw.send("run --attach -i cat\n").await;
        while !raw.line().await.contains("created") {}
        raw.send(bad).await;
        let rest = String::from_utf8(raw.rest().await).unwrap();
        assert!(rest.contains("\"error\"") || bad == "{}\n\u{7f}\n", "{bad}: {rest}");
        daemon.wait_for_state("cat", "exited").await;
    }
}

/// `compiling` comes before `created`, for a client that shows that it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_events_is_compiling_created_output_end() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    client.send(&["run", "--attach", "both"]).await.unwrap();
    let mut seen = vec![];
    loop {
        match soon("an event", client.next::<InstanceView>()).await.unwrap() {
            Next::Event(StreamEvent::Compiling { .. }) => seen.push("compiling"),
            Next::Event(StreamEvent::Created(_)) => seen.push("created"),
            Next::Event(StreamEvent::Output(_)) => seen.push("output"),
            Next::Event(other) => panic!("{other:?}"),
            Next::End(_) => break,
        }
    }
    seen.dedup();
    assert_eq!(seen, ["compiling", "created", "output"]);
}
