//! Where modules come from: stored, from directories that change, built in; compiled once for all who ask.

use crate::sandbox::sha256;
use crate::support::{Cli, Harness, large_module, soon};
use coracle::client::PutProgress;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

fn exits_with(code: u8) -> String {
    format!(
        "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32))) (memory (export \"memory\") 1)
           (func (export \"_start\") (call $exit (i32.const {code}))))"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_comes_before_directories_before_built_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let second = tempfile::tempdir().unwrap();
    let second_path = second.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs = vec![path, second_path]).await;
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(0));
    std::fs::write(second.path().join("hello.wat"), exits_with(2)).unwrap();
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(2));
    std::fs::write(directory.path().join("hello.wat"), exits_with(3)).unwrap();
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(3), "the first directory is first");
    std::fs::write(directory.path().join("hello.wasm"), wat::parse_str(exits_with(4)).unwrap()).unwrap();
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(4), "binary before text");
    let text = exits_with(5);
    let mut client = daemon.client().await;
    client.put("hello", text.as_bytes(), &sha256(text.as_bytes()), true, |_| ()).await.unwrap();
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(5));
    let listed = client.modules().await.unwrap();
    assert_eq!(
        listed.iter().filter(|m| m.name.as_str() == "hello").map(|m| m.source.as_str()).collect::<Vec<_>>(),
        ["stored"]
    );
    client.request::<serde_json::Value>(&["forget", "hello"]).await.unwrap();
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(4));
}

/// What it sent goes with it; but the compilation that it began is also that of others, who sent the same.
#[tokio::test]
async fn a_put_waits_for_a_compilation_that_somebody_began_who_has_left() {
    let daemon = Harness::start().await;
    let text = exits_with(6);
    let mut finishing = vec![];
    for name in ["left", "stays"] {
        let upload = daemon.supervisor.begin_put(&name.parse().unwrap(), text.len() as u64, true).unwrap();
        let upload = upload.write(text.clone().into()).await.unwrap();
        finishing.push(Box::pin(upload.finish(None, |_| ())));
    }
    for finish in &mut finishing {
        // Begins it, or joins it: on one thread nothing of it is done before this test waits for something.
        tokio::select! {
            biased;
            _ = finish => panic!("nothing was compiled yet"),
            () = std::future::ready(()) => {}
        }
    }
    let stays = finishing.pop().unwrap();
    drop(finishing);
    let stored = soon("the module of who stays", stays).await.unwrap();
    assert_eq!((stored.name.as_str(), daemon.supervisor.compilations()), ("stays", 1));
    assert_eq!(daemon.run_to_end(&["stays"]).await.exit_code, Some(6));
    assert!(daemon.raw().await.ask("run left").await.starts_with("ERR no-module"));
}

/// The same size and, for a coarse clock, the same time: what counts is the content.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_be_replaced_while_the_daemon_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs = vec![path]).await;
    for code in (10..50).chain(10..20) {
        std::fs::write(directory.path().join("app.wat"), exits_with(code)).unwrap();
        assert_eq!(daemon.run_to_end(&["app"]).await.exit_code, Some(code));
    }
    std::fs::remove_file(directory.path().join("app.wat")).unwrap();
    assert!(daemon.raw().await.ask("run app").await.starts_with("ERR no-module"));
}

#[tokio::test(flavor = "multi_thread")]
async fn put_takes_raw_bytes_in_both_formats_and_refuses_what_cannot_run() {
    let daemon = Harness::start().await;
    let module = wat::parse_str(exits_with(9)).unwrap();
    let mut raw = daemon.raw().await;
    raw.send(&format!("put plain --size {}\n", module.len())).await;
    raw.send_bytes(&module).await;
    raw.send("run plain\n").await;
    assert_eq!(raw.line().await, format!("Module 'plain' stored ({} bytes, sha256 {})", module.len(), sha256(&module)));
    assert!(raw.line().await.contains("created"), "what follows the bytes is a request again");
    assert_eq!(raw.ask("wait plain").await, "9");
    raw.send("put bad --size 5\nhello").await;
    assert!(raw.line().await.starts_with("ERR bad-module module 'bad' cannot run: "));
    raw.send("put wrong --size 4 --sha256 00\n\0asm").await;
    assert!(raw.line().await.starts_with("ERR usage what arrived has the SHA-256"));
    assert!(raw.ask("run bad").await.starts_with("ERR no-module"));
    assert_eq!(raw.ask("forget plain").await, "Module 'plain' forgotten");
    assert!(raw.ask("forget hello").await.starts_with("ERR denied 'hello' is built in"));
    assert!(raw.ask("forget sleep").await.starts_with("ERR denied 'sleep' is a file of a --modules directory"));
    assert!(raw.ask("forget nothing").await.starts_with("ERR no-module"));
    let left = std::fs::read_dir(daemon.state.join("incoming")).unwrap().count()
        + std::fs::read_dir(daemon.state.join("modules")).unwrap().count();
    assert_eq!(left, 0, "nothing of it is left on the disk");
}

/// Clients that reset at any moment of a `put`, and a limit that is reached by several at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_is_whole_or_leaves_nothing() {
    let daemon = Harness::with_limits(|l| l.stored_modules_max = 3).await;
    let mut puts = JoinSet::new();
    for i in 0..60u64 {
        let address = daemon.address;
        puts.spawn(async move {
            let text = exits_with(u8::try_from(i).unwrap());
            let mut raw = crate::support::Raw::connect(address).await;
            raw.send(&format!("format json\nput m{i} --wat --size {}\n", text.len())).await;
            raw.line().await;
            raw.line().await;
            raw.send(&text).await;
            if i % 3 != 0 {
                tokio::time::sleep(std::time::Duration::from_millis(i / 2)).await;
                raw.stream.set_zero_linger().unwrap();
            } else {
                // As many events as there are places in the queue, and then the answer.
                while raw.line().await.starts_with("{\"event\"") {}
            }
        });
    }
    soon("60 puts", puts.join_all()).await;
    let files = || std::fs::read_dir(daemon.state.join("modules")).unwrap().count();
    let mut client = daemon.client().await;
    soon("as many files as names", async {
        loop {
            let stored = client.modules().await.unwrap().iter().filter(|m| m.source == "stored").count();
            if stored == files() && (1..=3).contains(&stored) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_daemon_has_is_not_sent_again() {
    let daemon = Harness::start().await;
    let text = exits_with(6);
    let digest = sha256(text.as_bytes());
    let mut client = daemon.client().await;
    let sent = AtomicUsize::new(0);
    for name in ["one", "two"] {
        let count = |step| {
            if let PutProgress::Sent(bytes) = step {
                sent.fetch_add(bytes, Ordering::Relaxed);
            }
        };
        client.put(name, text.as_bytes(), &digest, true, count).await.unwrap();
        assert_eq!(daemon.run_to_end(&[name]).await.exit_code, Some(6));
    }
    assert_eq!(sent.into_inner(), text.len());
    // The content stays as long as one name leads to it.
    client.request::<serde_json::Value>(&["forget", "one"]).await.unwrap();
    assert_eq!(daemon.run_to_end(&["two"]).await.exit_code, Some(6));
    assert_eq!(daemon.run_to_end(&["--sha256", &digest, "two"]).await.exit_code, Some(6));
    // Another file of the same name: who asked for the first still gets it, as long as it is compiled.
    let other = exits_with(8);
    client.put("two", other.as_bytes(), &sha256(other.as_bytes()), true, |_| ()).await.unwrap();
    assert_eq!(daemon.run_to_end(&["two"]).await.exit_code, Some(8));
    assert_eq!(daemon.run_to_end(&["--sha256", &digest, "two"]).await.exit_code, Some(6));
    let mut raw = daemon.raw().await;
    let unknown = raw.ask(&format!("run --sha256 {} two", "0".repeat(64))).await;
    assert_eq!(unknown, "ERR no-module no module named 'two' with that content");
}

/// Sixty-four clients ask for a module that nobody has compiled yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_compiled_once_however_many_ask() {
    let directory = large_module(400);
    let path = directory.path().to_owned();
    let daemon = Arc::new(Harness::with(move |config| config.module_dirs.push(path)).await);
    let before = daemon.supervisor.compilations();
    let mut clients = JoinSet::new();
    for i in 0..64 {
        let daemon = Arc::clone(&daemon);
        clients.spawn(async move { daemon.run_to_end(&["--name", &format!("l{i}"), "large"]).await.exit_code });
    }
    let codes = soon("64 runs", clients.join_all()).await;
    assert!(codes.iter().all(|c| *c == Some(0)));
    assert_eq!(daemon.run_to_end(&["large"]).await.exit_code, Some(0));
    assert_eq!(daemon.supervisor.compilations() - before, 1, "and it is kept");
}

/// A stored file that was lost or damaged behind the daemon's back is told when it is needed, and can be put again.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_module_that_was_lost_can_be_put_again() {
    let mut daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let file = cli.directory.path().join("app.wat");
    std::fs::write(&file, exits_with(9)).unwrap();
    let words = ["run", file.to_str().unwrap()];
    assert_eq!(cli.run(&words).await.0, 9);
    let path = std::fs::read_dir(daemon.state.join("modules")).unwrap().next().unwrap().unwrap().path();
    daemon.restart().await;
    let cli = Cli { address: daemon.address, ..cli };
    std::fs::remove_file(&path).unwrap();
    assert_eq!(cli.run(&words).await.0, 9, "lost");
    daemon.restart().await;
    let cli = Cli { address: daemon.address, ..cli };
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::write(&path, "x".repeat(usize::try_from(length).unwrap())).unwrap();
    assert_eq!(cli.run(&words).await.0, 9, "its compiled code is whole");
    daemon.restart().await;
    let cli = Cli { address: daemon.address, ..cli };
    for entry in std::fs::read_dir(daemon.state.join("compiled")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let (code, _, err) = cli.run(&words).await;
    assert!(code == 125 && err.contains("damaged"), "{code} {err}");
    assert_eq!(cli.run(&words).await.0, 9, "and brought again");
}
