//! The end of a daemon, in order or by `kill -9`, and what the next one makes of it.
#![cfg(unix)]

use crate::sandbox::sha256;
use crate::support::{Cli, Foreground, Harness, cannot_try, guests, soon};
use coracle::client::Client;
use coracle::model::reply::{Inspection, InstanceView};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// A daemon of the binary with the tests' guests.
fn start(cli: &mut Cli) -> Foreground {
    let daemon = Foreground::start(cli, &["--listen", "127.0.0.1:0", "--modules", guests().to_str().unwrap()]);
    cli.address = daemon.address();
    daemon
}

async fn kill(mut daemon: Foreground) {
    daemon.signal(Signal::KILL);
    tokio::task::spawn_blocking(move || daemon.child.wait().unwrap()).await.unwrap();
}

async fn views(cli: &Cli) -> BTreeMap<String, InstanceView> {
    let mut client = Client::connect(cli.address).await.unwrap();
    client.list().await.unwrap().into_iter().map(|view| (view.name.to_string(), view)).collect()
}

async fn wait_for(cli: &Cli, what: &str, is: impl Fn(&BTreeMap<String, InstanceView>) -> bool) {
    soon(what, async {
        while !is(&views(cli).await) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_nothing_is_forgotten_and_policies_run_again() {
    let mut cli = Cli::alone();
    let daemon = start(&mut cli);
    let mut client = Client::connect(cli.address).await.unwrap();
    for (name, policy) in
        [("no", "no"), ("on-failure", "on-failure"), ("unless", "unless-stopped"), ("always", "always")]
    {
        client.run(&["--restart", policy, "--name", name, "-e", "KEY=value", "sleep"]).await.unwrap();
        let stopped = format!("stopped-{name}");
        client.run(&["--restart", policy, "--name", &stopped, "sleep"]).await.unwrap();
        client.request::<Value>(&["stop", &stopped]).await.unwrap();
    }
    client.run(&["--name", "done", "exit_7"]).await.unwrap();
    client.request::<Value>(&["wait", "done"]).await.unwrap();
    client.run(&["--name", "forgotten", "exit_7"]).await.unwrap();
    client.request::<Value>(&["wait", "forgotten"]).await.unwrap();
    client.request::<Value>(&["rm", "-v", "forgotten"]).await.unwrap();
    client.run(&["--rm", "--name", "brief", "sleep"]).await.unwrap();
    client.run(&["--name", "speaks", "both"]).await.unwrap();
    client.request::<Value>(&["wait", "speaks"]).await.unwrap();
    kill(daemon).await;

    let daemon = start(&mut cli);
    let comes_back = ["on-failure", "unless", "always", "stopped-always"];
    wait_for(&cli, "what has a policy runs", |v| comes_back.iter().all(|n| v[*n].state == "running")).await;
    let now = views(&cli).await;
    for name in comes_back {
        assert_eq!(now[name].run, 2, "{name}");
    }
    let lost = &now["no"];
    assert_eq!(
        (lost.state.as_str(), lost.exit_code, lost.reason.as_deref()),
        ("lost", Some(125), Some("daemon-restart"))
    );
    for name in ["stopped-no", "stopped-on-failure", "stopped-unless"] {
        assert_eq!((now[name].state.as_str(), now[name].run), ("stopped", 1), "{name}");
    }
    assert_eq!(now["done"].status(), "exited (7)");
    assert!(!now.contains_key("forgotten"));
    wait_for(&cli, "what was to go with its end goes", |v| !v.contains_key("brief")).await;
    let mut client = Client::connect(cli.address).await.unwrap();
    let inspection: Inspection = client.request(&["inspect", "unless"]).await.unwrap();
    assert_eq!((inspection.runs[0].state.as_str(), inspection.instance.env), ("lost", vec!["KEY".to_owned()]));
    let (_, out, err) = cli.run(&["logs", "speaks"]).await;
    assert_eq!((out.as_str(), err.as_str()), ("out\nlast", "err\n"), "logs last too");
    kill(daemon).await;

    // Once more: what came back comes back again, and nothing is lost twice.
    let _daemon = start(&mut cli);
    wait_for(&cli, "it runs a third time", |v| comes_back.iter().all(|n| v[*n].state == "running" && v[*n].run == 3))
        .await;
    assert_eq!(views(&cli).await["no"].ended_at, now["no"].ended_at);
}

/// More of them than records are kept: each goes with its directory, and not as a record that is one too many.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_by_itself_goes_with_its_directory_also_if_it_is_one_too_many() {
    let mut cli = Cli::alone();
    let words = ["--listen", "127.0.0.1:0", "--modules", guests().to_str().unwrap(), "--keep", "1"];
    let daemon = Foreground::start(&cli, &words);
    cli.address = daemon.address();
    let mut client = Client::connect(cli.address).await.unwrap();
    let root = cli.directory.path().join("root");
    for name in ["s1", "s2", "s3", "swapped"] {
        client.run(&["--rm", "--name", name, "sleep"]).await.unwrap();
    }
    kill(daemon).await;
    std::fs::rename(root.join("swapped"), root.join("away")).unwrap();
    std::fs::create_dir(root.join("swapped")).unwrap();
    let daemon = Foreground::start(&cli, &words);
    cli.address = daemon.address();
    wait_for(&cli, "all records go", BTreeMap::is_empty).await;
    soon("the end of all removals", async {
        while std::fs::read_dir(&root).unwrap().count() > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(root.join("swapped").is_dir() && root.join("away").is_dir(), "what the daemon did not make stays");
    assert_eq!(cli.run(&["shutdown"]).await.0, 0);
    let database = rusqlite::Connection::open(cli.directory.path().join("state/state.db")).unwrap();
    let rows = "SELECT (SELECT count(*) FROM removal), count(*), max(path) FROM workspace";
    let left = database.query_row(rows, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    assert_eq!(left, (0, 1, root.join("swapped").to_str().unwrap().to_owned()));
}

/// What was called `ls` before that was a verb is shown, stopped and removed as ever; nothing new is called so.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_has_become_a_verb_can_still_be_stopped_and_removed() {
    let mut daemon = Harness::start().await;
    daemon.client().await.run(&["--restart", "always", "--name", "old", "sleep"]).await.unwrap();
    let text = b"(module (func (export \"_start\")))";
    daemon.client().await.put("old", text, &sha256(text), true, |_| ()).await.unwrap();
    daemon.end().await;
    let database = rusqlite::Connection::open(daemon.state.join("state.db")).unwrap();
    database.execute_batch("UPDATE instance SET name = 'ls'; UPDATE module SET name = 'ps'").unwrap();
    drop(database);
    daemon.begin().await;
    daemon.wait_for_state("ls", "running").await;
    let mut client = daemon.client().await;
    let names: Vec<String> = client.modules().await.unwrap().into_iter().map(|m| m.name.to_string()).collect();
    assert!(names.contains(&"ps".to_owned()), "{names:?}");
    for request in [&["inspect", "ls"][..], &["restart", "ls"], &["stop", "ls"], &["rm", "-v", "ls"], &["forget", "ps"]]
    {
        soon("an answer", client.request::<Value>(request)).await.unwrap_or_else(|e| panic!("{request:?}: {e}"));
    }
    assert!(!daemon.root.join("ls").exists());
    for request in [&["run", "--name", "ls", "hello"][..], &["stop", "ls"], &["forget", "ps"]] {
        let refused = client.request::<Value>(request).await.unwrap_err();
        assert_eq!(refused.code(), Some(coracle::Code::BadName), "{request:?}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_is_no_stop_for_what_has_a_policy() {
    let mut daemon = Harness::start().await;
    let mut client = daemon.client().await;
    for policy in ["no", "on-failure", "unless-stopped", "always"] {
        client.run(&["--restart", policy, "--name", &format!("x-{policy}"), "sleep"]).await.unwrap();
    }
    // Between two runs when the daemon ends.
    client.run(&["--restart", "on-failure", "--name", "pausing", "exit_7"]).await.unwrap();
    daemon.wait_for("pausing", "has a long pause", |view| view.restarts >= 4 && view.state == "restarting").await;
    daemon.restart().await;
    for policy in ["on-failure", "unless-stopped", "always"] {
        let view = daemon.wait_for_state(&format!("x-{policy}"), "running").await;
        assert_eq!((view.run, view.restarts), (2, 0), "{policy}");
    }
    let no = daemon.wait_for_state("x-no", "stopped").await;
    assert_eq!(no.reason.as_deref(), Some("shutdown"));
    let view = daemon.wait_for("pausing", "goes on", |view| view.restarts >= 5).await;
    assert!(view.run >= 5);
}

/// `state.db` after an orderly end is one file that holds everything: that is what a backup needs to know.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_orderly_end_the_database_is_one_file() {
    let mut daemon = Harness::start().await;
    daemon.run_to_end(&["exit_7"]).await;
    daemon.end().await;
    let files: Vec<String> =
        std::fs::read_dir(&daemon.state).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(files.contains(&"state.db".to_owned()) && !files.iter().any(|f| f.starts_with("state.db-")), "{files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_refuses_new_work_and_ends_whatever_runs_in_time() {
    let mut cli = Cli::alone();
    let mut daemon = start(&mut cli);
    let mut client = Client::connect(cli.address).await.unwrap();
    for i in 0..8 {
        for guest in ["spin", "sleep", "append", "chatty", "fill"] {
            client.run(&["--name", &format!("{guest}{i}"), guest]).await.unwrap();
        }
    }
    client.run(&["--restart", "always", "--name", "loop", "exit_7"]).await.unwrap();
    let signalled = Instant::now();
    daemon.signal(Signal::TERM);
    // On a connection that is open, and on a new one: no, or nobody.
    let refused = client.run(&["--name", "late", "hello"]).await;
    assert!(refused.is_err(), "{refused:?}");
    let status = tokio::task::spawn_blocking(move || daemon.child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(signalled.elapsed() < Duration::from_secs(10), "{:?}", signalled.elapsed());
    let _daemon = start(&mut cli);
    let now = views(&cli).await;
    assert!(!now.contains_key("late"));
    assert!(now.values().filter(|v| v.restart == "no").all(|v| v.reason.as_deref() == Some("shutdown")), "{now:?}");
}

/// A guest whose file operation hangs in the kernel holds up the end; a second signal does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let mut cli = Cli::alone();
    let mut daemon = start(&mut cli);
    let mut client = Client::connect(cli.address).await.unwrap();
    // An attached client that takes nothing: the daemon would give it time to.
    client.send(&["run", "--attach", "chatty"]).await.unwrap();
    wait_for(&cli, "it prints", |v| v.get("chatty").is_some_and(|v| v.state == "running")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let signalled = Instant::now();
    daemon.signal(Signal::TERM);
    let status = tokio::task::spawn_blocking(move || daemon.child.wait().unwrap()).await.unwrap();
    assert!(signalled.elapsed() < Duration::from_secs(2));
    // It had ended by itself, or was told to.
    assert!(matches!(status.code(), Some(0 | 125)), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_directory_leaves_the_first_alone() {
    let mut cli = Cli::alone();
    let _daemon = start(&mut cli);
    let mut client = Client::connect(cli.address).await.unwrap();
    client.run(&["sleep"]).await.unwrap();
    let (code, out, err) = cli.run(&["daemon", "--listen", "127.0.0.1:0"]).await;
    assert_eq!((code, out.as_str()), (125, ""));
    assert!(err.contains("another daemon uses the state directory"), "{err}");
    let view: InstanceView = client.request(&["stop", "sleep"]).await.unwrap();
    assert_eq!(view.state, "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_socket_stays_where_the_socket_would_be() {
    let mut daemon = Harness::start().await;
    daemon.end().await;
    let path = coracle::server::socket_path(&daemon.state);
    assert!(!path.exists());
    std::fs::write(&path, "mine").unwrap();
    daemon.begin().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    daemon.run_to_end(&["exit_7"]).await;
    daemon.end().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

/// A directory of its own on a file system of a few megabytes; unmounted when it goes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(kib: u32) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={kib}k,mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "coracle-test"]).arg(directory.path()).status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk(directory))
    }
}

impl SmallDisk {
    /// A daemon that has its state there.
    fn start(&self, cli: &mut Cli) -> Foreground {
        let state = self.0.path().join("state");
        let (modules, state) = (guests().to_str().unwrap(), state.to_str().unwrap());
        let daemon = Foreground::start(cli, &["--listen", "127.0.0.1:0", "--modules", modules, "--state-dir", state]);
        cli.address = daemon.address();
        daemon
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a daemon that a failed test left may still hold it.
        let _unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_ends_are_recorded_and_new_work_is_refused_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(16 * 1024) else { return cannot_try("a small tmpfs, which needs root") };
    let mut cli = Cli::alone();
    let daemon = disk.start(&mut cli);
    let mut client = Client::connect(cli.address).await.unwrap();
    for name in ["a", "b"] {
        client.run(&["--name", name, "sleep"]).await.unwrap();
    }
    client.run(&["--name", "done", "exit_7"]).await.unwrap();
    client.request::<Value>(&["wait", "done"]).await.unwrap();
    let filler = disk.0.path().join("filler");
    fill(&filler);
    // Until a change needs another page of the disk.
    let mut acknowledged = 0;
    let refusal = soon("a refusal", async {
        loop {
            let label = format!("--label=k={}", "x".repeat(900));
            match client.run(&["--name", &format!("n{acknowledged}"), &label, "exit_7"]).await {
                Ok(_) => acknowledged += 1,
                Err(e) => return e,
            }
        }
    })
    .await;
    assert_eq!(refusal.code(), Some(coracle::Code::Io), "{refusal}");
    assert!(refusal.to_string().contains("disk is full"), "{refusal}");
    // What makes room is done.
    client.request::<Value>(&["rm", "done"]).await.unwrap();
    // What goes on working, and is recorded with the room that was kept for it.
    let stopped: InstanceView = client.request(&["stop", "a"]).await.unwrap();
    assert_eq!(stopped.state, "stopped");
    assert!(client.list().await.unwrap().len() >= 2);
    // Room again: without a restart it goes on.
    std::fs::remove_file(&filler).unwrap();
    soon("new work", async {
        while client.run(&["--name", "after", "exit_7"]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    client.request::<Value>(&["wait", "after"]).await.unwrap();
    kill(daemon).await;
    let daemon = disk.start(&mut cli);
    let now = views(&cli).await;
    assert_eq!((now["a"].state.as_str(), now["b"].state.as_str()), ("stopped", "lost"));
    assert_eq!(now["after"].status(), "exited (7)");
    assert!(!now.contains_key("done"), "its removal was acknowledged");
    for i in 0..acknowledged {
        assert!(now.contains_key(&format!("n{i}")), "n{i} was acknowledged");
    }
    kill(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_starts_on_a_full_disk_and_says_what_it_cannot_do() {
    let Some(disk) = SmallDisk::mount(12 * 1024) else { return cannot_try("a small tmpfs, which needs root") };
    let mut cli = Cli::alone();
    let daemon = disk.start(&mut cli);
    let mut client = Client::connect(cli.address).await.unwrap();
    client.run(&["--name", "a", "sleep"]).await.unwrap();
    kill(daemon).await;
    // Not even the reserve is left.
    std::fs::remove_file(disk.0.path().join("state/reserve")).unwrap();
    let filler = disk.0.path().join("filler");
    fill(&filler);
    let room = std::fs::File::options().write(true).open(&filler).unwrap();
    let taken = room.metadata().unwrap().len();
    room.set_len(taken - (512 << 10)).unwrap();
    drop(room);
    let daemon = disk.start(&mut cli);
    assert_eq!(views(&cli).await["a"].state, "lost");
    let mut client = Client::connect(cli.address).await.unwrap();
    let refusal = client.run(&["--name", "b", "exit_7"]).await.unwrap_err();
    assert!(refusal.to_string().contains("disk is full"), "{refusal}");
    std::fs::remove_file(&filler).unwrap();
    soon("new work", async {
        while client.run(&["--name", "b", "exit_7"]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    kill(daemon).await;
}

/// An operator's shell in the middle of a transaction: refused for as long as it lasts, and nothing is lost by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_else_holds_is_written_again_when_it_is_free() {
    let mut cli = Cli::alone();
    let daemon = start(&mut cli);
    let mut client = Client::connect(cli.address).await.unwrap();
    client.run(&["--name", "s", "sleep"]).await.unwrap();
    client.run(&["--name", "meanwhile", "exit_7"]).await.unwrap();
    client.request::<Value>(&["wait", "meanwhile"]).await.unwrap();
    client.run(&["--name", "policy", "--restart", "always", "exit_7"]).await.unwrap();
    let database = rusqlite::Connection::open(cli.directory.path().join("state/state.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refusal = client.run(&["--name", "meanwhile", "exit_7"]).await.unwrap_err();
    assert!(refusal.to_string().contains("another program holds state.db"), "{refusal}");
    let stopped: InstanceView = soon("a stop", client.request(&["stop", "s"])).await.unwrap();
    assert_eq!(stopped.state, "stopped");
    // Refused at once from here on: what waits to be written does not grow with what is asked.
    for _ in 0..50 {
        let refusal = client.run(&["--name", "meanwhile", "exit_7"]).await.unwrap_err();
        assert!(refusal.to_string().contains("another program holds state.db"), "{refusal}");
    }
    assert_eq!(views(&cli).await["meanwhile"].run, 2, "the first one only");
    // What was refused is not done later behind everybody's back; what was done says so.
    let app = cli.directory.path().join("refused.wat");
    std::fs::write(&app, "(module (func (export \"_start\")))").unwrap();
    let (code, _, err) = cli.run(&["put", app.to_str().unwrap()]).await;
    assert!(code == 125 && err.contains("nothing new is accepted"), "{err}");
    let removed = client.request::<Value>(&["rm", "meanwhile"]).await.unwrap_err();
    assert!(removed.to_string().contains("it is done, and not written down yet"), "{removed}");
    database.execute_batch("COMMIT").unwrap();
    soon("new work", async {
        while client.run(&["--name", "after", "exit_7"]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    kill(daemon).await;
    let _daemon = start(&mut cli);
    let now = views(&cli).await;
    assert_eq!(now["s"].state, "stopped");
    assert!(!now.contains_key("meanwhile"), "refused, failed, removed: in this order");
    wait_for(&cli, "the policy goes on", |v| v["policy"].state == "restarting" && v["policy"].exit_code == Some(7))
        .await;
    let (_, modules, _) = cli.run(&["modules"]).await;
    assert!(!modules.contains("refused"), "{modules}");
}

/// A limit on the size of files is met by an error of the write, not by the end of the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_file_sizes_ends_no_daemon() {
    let mut cli = Cli::alone();
    let daemon = Foreground::start_in_shell(
        &cli,
        "ulimit -f 10240",
        &["--listen", "127.0.0.1:0", "--log", "64m", "--modules", guests().to_str().unwrap()],
    );
    cli.address = daemon.address();
    let mut client = Client::connect(cli.address).await.unwrap();
    client.run(&["chatty"]).await.unwrap();
    let logs = cli.directory.path().join("state/logs");
    soon("a log as large as a file may be", async {
        while std::fs::read_dir(&logs)
            .unwrap()
            .flatten()
            .filter_map(|e| e.metadata().ok())
            .all(|m| m.len() < 4500 << 10)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.request::<Value>(&["stop", "chatty"]).await.unwrap();
    assert_eq!(cli.run(&["run", "exit_7"]).await.0, 7);
}

/// Takes all the room there is.
fn fill(path: &std::path::Path) {
    let mut file = std::fs::File::create(path).unwrap();
    let chunk = [1; 4096];
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
}

/// The system calls of the daemon's writes fail, from the n-th on, for n = 1, 2, 3, …
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_or_write_nothing_new_is_acknowledged_and_nothing_old_is_lost() {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        return cannot_try("strace, which makes system calls fail");
    }
    for (call, nth) in [
        ("fsync", 1),
        ("fsync", 2),
        ("fsync", 5),
        ("fdatasync", 1),
        ("fdatasync", 2),
        ("pwrite64", 1),
        ("pwrite64", 2),
        ("pwrite64", 7),
        ("pwrite64", 20),
    ] {
        let mut cli = Cli::alone();
        let daemon = start(&mut cli);
        let tracer = inject(daemon.child.id(), &format!("{call}:error=EIO:when={nth}+"), call);
        let mut client = Client::connect(cli.address).await.unwrap();
        let mut acknowledged = vec![];
        let mut lived = None;
        // With a policy, so that each is synced before its reply; or without, so that it is synced soon after.
        let policy = if call == "fdatasync" { "no" } else { "unless-stopped" };
        let refusal = soon("a refusal", async {
            loop {
                let name = format!("n{}", acknowledged.len());
                match client.run(&["--name", &name, "--restart", policy, "sleep"]).await {
                    Ok(_) => acknowledged.push(name),
                    Err(e) => return e,
                }
                lived = acknowledged.first().cloned();
            }
        })
        .await;
        assert_eq!(refusal.code(), Some(coracle::Code::Io), "{call} {nth}: {refusal}");
        assert!(refusal.to_string().contains("cannot be written"), "{call} {nth}: {refusal}");
        // It was not going to be retried and then believed.
        for words in [&["--name", "late", "exit_7"][..], &["--name", "later", "exit_7"]] {
            assert_eq!(client.run(words).await.unwrap_err().code(), Some(coracle::Code::Io));
        }
        let list = client.list().await.unwrap();
        assert!(acknowledged.iter().all(|name| list.iter().any(|v| v.name.as_str() == name)), "list goes on");
        if let Some(name) = &lived {
            let stopped: InstanceView = soon("a stop", client.request(&["stop", name])).await.unwrap();
            assert!(!stopped.is_live(), "stop goes on");
        }
        kill(daemon).await;
        drop(tracer);
        let daemon = start(&mut cli);
        let now = views(&cli).await;
        for name in &acknowledged {
            assert!(now.contains_key(name), "{call} {nth}: '{name}' was acknowledged");
        }
        assert!(!now.contains_key("late") && !now.contains_key("later"), "what was refused is not there");
        kill(daemon).await;
    }
}

/// On a disk that cannot sync: what has to come back is refused, because its reply waits for the sync; what has not is
/// accepted, because its reply waits for no more than the file. With `--durability full` every reply waits.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_waits_for_the_sync_that_it_needs_and_for_no_other() {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        return cannot_try("strace, which makes system calls fail");
    }
    for (durability, policy, accepted) in
        [("normal", "no", true), ("normal", "on-failure", false), ("full", "no", false)]
    {
        let mut cli = Cli::alone();
        let modules = guests().to_str().unwrap();
        let words = ["--listen", "127.0.0.1:0", "--modules", modules, "--durability", durability];
        let daemon = Foreground::start(&cli, &words);
        cli.address = daemon.address();
        let tracer = inject(daemon.child.id(), "fsync:error=EIO:when=1+", "fsync");
        let mut client = Client::connect(cli.address).await.unwrap();
        let run = client.run(&["--restart", policy, "sleep"]).await;
        assert_eq!(run.is_ok(), accepted, "{durability} {policy}: {run:?}");
        kill(daemon).await;
        drop(tracer);
    }
}

/// A tracer that is gone when it goes.
#[cfg(target_os = "linux")]
struct Tracer(std::process::Child);

#[cfg(target_os = "linux")]
impl Drop for Tracer {
    fn drop(&mut self) {
        // With the one that it traced it may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// From its n-th on, a system call of each thread of this process fails.
#[cfg(target_os = "linux")]
fn inject(pid: u32, fault: &str, call: &str) -> Tracer {
    use std::io::BufRead;
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &format!("inject={fault}")]);
    command.args(["-p", &pid.to_string()]).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "{line}");
    Tracer(child)
}
