//! Values of environments: in the one row that the next run is made of, and nowhere else.

use crate::support::{Cli, Foreground, Raw, cannot_try, guests, soon};
use std::path::{Path, PathBuf};

/// What is looked for, in any file and any output.
const MARKER: &str = "m4rk3r-0f-4-s3cr3t";

/// Every file below, with what is in it.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = vec![];
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            // One that is gone by now holds nothing.
            found.extend(std::fs::read(&path).map(|bytes| (path, bytes)));
        }
    }
    found
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
}

/// Names of the files that hold it.
fn holders(directory: &Path) -> Vec<String> {
    let holders = files(directory).into_iter().filter(|(_, bytes)| holds(bytes));
    holders.map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// A daemon that says all it can, into a file beside its state.
fn start(cli: &mut Cli) -> Foreground {
    let log = cli.directory.path().join("log");
    let before = format!("export CORACLE_LOG=debug; exec 2>>'{}'", log.display());
    let modules = guests().to_str().unwrap();
    let daemon = Foreground::start_in_shell(cli, &before, &["--listen", "127.0.0.1:0", "--modules", modules]);
    cli.address = daemon.address();
    daemon
}

async fn end(cli: &Cli, mut daemon: Foreground) {
    assert_eq!(cli.run(&["shutdown"]).await.0, 0);
    soon("the daemon's end", tokio::task::spawn_blocking(move || daemon.child.wait().unwrap())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_in_the_database_and_nowhere_else() {
    let mut cli = Cli::alone();
    let daemon = start(&mut cli);
    // A short one, and one that has pages of the database to itself.
    let (short, long) = (format!("SECRET={MARKER}"), format!("SECRET={}", format!("{MARKER} ").repeat(300)));
    let mut said = vec![];
    for words in [
        &["run", "-d", "--restart", "always", "-e", &short, "--name", "stays", "sleep"][..],
        &["run", "-d", "-e", &long, "--name", "long", "sleep"],
        &["run", "-e", &short, "exit_7"],
        &["run", "-e", &short, "trap"],
        &["run", "-e", &short, "--rm", "--name", "brief", "exit_7"],
        &["restart", "stays"],
        // Slips beside it.
        &["run", "-e", &short, "--name", "stays", "sleep"],
        &["run", "-e", &short, "no-such-module"],
        &["run", "-e", &short, "--name", "../x", "sleep"],
        &["run", "-e", &short, "-m", "lots", "sleep"],
        &["run", "-e", &format!("={MARKER}"), "sleep"],
        &["run", "-e", &short, "-m", "1", "sleep"],
        &["list", "-e", &short],
        &["list", "--format", "json"],
        &["inspect", "stays", "long", "exit_7", "trap"],
        &["logs", "stays"],
        &["logs", "trap"],
        &["events", "--since", "0", "--until", "0s", "--format", "json"],
        &["events", "--since", "0", "--until", "0s"],
        &["modules"],
        &["limits"],
        &["hello"],
        &["stop", "long"],
        &["wait", "long"],
    ] {
        let (_, out, err) = cli.run(words).await;
        assert!(!holds(out.as_bytes()) && !holds(err.as_bytes()), "{words:?}: {out}{err}");
        said.push(out + &err);
    }
    assert!(said.iter().any(|said| said.contains("\"SECRET\"")), "the name may be known");
    for (format, requests) in [
        (
            "plain",
            vec![
                "list".to_owned(),
                "inspect stays".into(),
                format!("run -e {short} --frob sleep"),
                format!("run -e '{short}"),
            ],
        ),
        (
            "json",
            vec![
                "list".to_owned(),
                "inspect stays".into(),
                format!("[\"run\",\"-e\",\"{short}\""),
                format!("[\"run\",\"-e\",\"{short}\",7]"),
                format!("[\"run\",\"-e\",\"{short}\",\"\\u0000\",\"sleep\"]"),
                format!("[\"run\",\"--name\",\"brief\",\"-e\",\"{short}\\u0000\",\"sleep\"]"),
            ],
        ),
    ] {
        let mut raw = Raw::connect(cli.address).await;
        raw.send(&format!("format {format}\n")).await;
        for request in requests {
            raw.send(&format!("{request}\n")).await;
        }
        tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await.unwrap();
        let said = raw.rest().await;
        assert!(said.len() > 500 && !holds(&said), "{}", String::from_utf8_lossy(&said));
    }
    let directory = cli.directory.path().to_owned();
    let found = holders(&directory);
    assert!(!found.is_empty() && found.iter().all(|name| name.starts_with("state.db")), "{found:?}");
    end(&cli, daemon).await;
    assert_eq!(holders(&directory), ["state.db"]);

    // What is removed is gone from there too, once the database is one file again.
    let daemon = start(&mut cli);
    assert_eq!(cli.run(&["rm", "-f", "stays"]).await.0, 0);
    assert_eq!(cli.run(&["prune"]).await.1.lines().count(), 4, "long, exit_7, trap, and what did not fit its memory");
    end(&cli, daemon).await;
    assert_eq!(holders(&directory), Vec::<String>::new());
    assert!(
        files(&directory).iter().any(|(path, bytes)| path.ends_with("log") && bytes.len() > 500),
        "there was a log"
    );
}

/// What would be left behind by a crash, and what is said of a user who may do everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_leaves_no_core_and_says_when_it_is_root() {
    let mut cli = Cli::alone();
    let daemon = {
        let before = "ulimit -c unlimited 2>/dev/null || ulimit -c hard";
        let log = cli.directory.path().join("log");
        let before = format!("{before}; exec 2>>'{}'", log.display());
        Foreground::start_in_shell(&cli, &before, &["--listen", "127.0.0.1:0"])
    };
    cli.address = daemon.address();
    let log = std::fs::read_to_string(cli.directory.path().join("log")).unwrap();
    let said = log.lines().filter(|line| line.contains("started as root")).count();
    assert_eq!(said, usize::from(rustix::process::geteuid().is_root()), "{log}");
    let Ok(limits) = std::fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())) else {
        return cannot_try("/proc, where the limits of a process are told");
    };
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
}
