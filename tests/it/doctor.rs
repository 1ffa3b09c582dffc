//! `coracle doctor`: a healthy machine is told as such, and each thing that is broken by its name, with what to do.

use crate::support::{Cli, Foreground, Impostor};
use serde_json::{Value, json};
use std::path::PathBuf;

/// All checks, with the exit code.
async fn examined(cli: &Cli, words: &[&str]) -> (i32, Value) {
    let (code, out, err) = cli.run(&[&["doctor", "--format", "json"], words].concat()).await;
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out} {err}"));
    let failed = report["checks"].as_array().unwrap().iter().filter(|check| check["level"] == "fail").count();
    assert_eq!((code, &report["failed"]), (if failed == 0 { 0 } else { 125 }, &failed.into()), "{report}");
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["level"] == "ok", check["todo"].is_null(), "what is not in order has its advice: {check}");
    }
    (code, report)
}

/// How a check went, and all that it says.
fn of(report: &Value, check: &str) -> (String, String) {
    let found = report["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no {check}: {report}"));
    (found["level"].as_str().unwrap().to_owned(), format!("{} {}", found["what"], found["todo"]))
}

/// That exactly this check is not in order, besides the daemon, which may be gone.
async fn found(cli: &Cli, check: &str, level: &str, said: &[&str]) {
    let (_, report) = examined(cli, &[]).await;
    let (is, what) = of(&report, check);
    assert_eq!(is, level, "{check}: {what}");
    assert!(said.iter().all(|said| what.contains(said)), "{check}: {what}");
    for other in ["state", "lock", "database", "token", "compiled", "clock", "root", "directories"] {
        let told = report["checks"].as_array().unwrap().iter().any(|finding| finding["check"] == other);
        if other != check && told {
            assert_eq!(of(&report, other).0, "ok", "{other}, with a broken {check}: {report}");
        }
    }
}

fn at(cli: &Cli, name: &str) -> PathBuf {
    cli.directory.path().join(name)
}

/// A daemon that has run something, and its command line.
async fn daemon() -> (Cli, Foreground) {
    let mut cli = Cli::alone();
    std::fs::create_dir(at(&cli, "root")).unwrap();
    let daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0"]);
    cli.address = daemon.address();
    assert_eq!(cli.run(&["run", "hello"]).await.0, 0);
    (cli, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_daemon_is_told_as_such_and_is_not_disturbed() {
    let (cli, _daemon) = daemon().await;
    let before = cli.run(&["inspect", "hello"]).await;
    let (code, report) = examined(&cli, &[]).await;
    assert_eq!((code, &report["failed"]), (0, &0.into()));
    for check in ["daemon", "version", "state", "lock", "database", "token", "compiled", "clock", "root", "directories"]
    {
        assert_eq!(of(&report, check).0, "ok", "{report}");
    }
    for check in ["open files", "memory", "state disk", "root disk", "fence"] {
        assert_ne!(of(&report, check).0, "fail", "{report}");
    }
    let (code, page, err) = cli.run(&["doctor"]).await;
    assert!(code == 0 && err.is_empty() && page.starts_with("ok    daemon       answers on "), "{page} {err}");
    assert!(page.lines().last().unwrap().starts_with(if report["warned"] == 0 {
        "everything"
    } else {
        "nothing fails"
    }));
    assert!(!page.contains('\x1b'));
    assert_eq!(cli.run(&["inspect", "hello"]).await, before);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_in_a_state_directory_is_named_without_a_daemon() {
    use std::os::unix::fs::PermissionsExt;
    let (cli, daemon) = daemon().await;
    assert_eq!(cli.run(&["shutdown"]).await.0, 0);
    drop(daemon);
    let mode = |name: &str, mode| std::fs::set_permissions(at(&cli, name), PermissionsExt::from_mode(mode)).unwrap();
    let listing = |directory: PathBuf| {
        let mut all: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        all.sort();
        all
    };
    let before = (listing(at(&cli, "state")), std::fs::read(at(&cli, "state/state.db")).unwrap());
    found(&cli, "daemon", "fail", &["Connection refused", "coracle daemon"]).await;
    for (name, bad, good, check, level, said) in [
        ("state/token", 0o644, 0o600, "token", "fail", "chmod 600"),
        ("state", 0o777, 0o700, "state", "fail", "chmod 700"),
        ("state", 0o755, 0o700, "state", "warn", "look into"),
        ("root", 0o777, 0o700, "root", "fail", "not sticky"),
        ("root/hello", 0o777, 0o700, "directories", "warn", "root/hello"),
    ] {
        mode(name, bad);
        found(&cli, check, level, &[said]).await;
        mode(name, good);
    }
    assert_eq!((listing(at(&cli, "state")), std::fs::read(at(&cli, "state/state.db")).unwrap()), before, "as it was");
    let code = std::fs::read_dir(at(&cli, "state/compiled")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&code).unwrap();
    std::fs::write(&code, "other").unwrap();
    found(&cli, "compiled", "warn", &["damaged", code.file_name().unwrap().to_str().unwrap()]).await;
    std::fs::write(&code, whole).unwrap();
    let token = std::fs::File::options().write(true).open(at(&cli, "state/token")).unwrap();
    let written = token.metadata().unwrap().modified().unwrap();
    token.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000)).unwrap();
    found(&cli, "clock", "warn", &["2096", "set the clock"]).await;
    token.set_modified(written).unwrap();
    for (bytes, said) in [(&b"no database, but long enough to be one"[..], "damaged or no database"), (b"", "is empty")]
    {
        std::fs::write(at(&cli, "state/state.db"), bytes).unwrap();
        found(&cli, "database", "fail", &[said, "docs/operations.md"]).await;
    }
    std::fs::remove_file(at(&cli, "state/state.db")).unwrap();
    found(&cli, "database", "fail", &["is missing, but there is"]).await;
    // A file in the place of each directory.
    std::fs::remove_dir_all(at(&cli, "state")).unwrap();
    std::fs::write(at(&cli, "state"), "").unwrap();
    found(&cli, "state", "fail", &["is no directory", "--state-dir"]).await;
    std::fs::remove_file(at(&cli, "state")).unwrap();
    found(&cli, "state", "ok", &["is made when a daemon starts"]).await;
    std::fs::remove_dir_all(at(&cli, "root")).unwrap();
    std::fs::write(at(&cli, "root"), "").unwrap();
    found(&cli, "root", "fail", &["is no directory", "--root"]).await;
}

/// One that has the state directory, and is not where it is looked for.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_elsewhere_is_told_by_its_lock() {
    let (mut cli, daemon) = daemon().await;
    let there = cli.address;
    cli.address = Cli::alone().address;
    found(&cli, "lock", "fail", &["held by coracle, process", &daemon.child.id().to_string(), "listens elsewhere"])
        .await;
    // By its own socket it is found without an address.
    let mut command = cli.command(&["doctor"]);
    command.env_remove("CORACLE_HOST");
    let (code, page, _) = cli.finish(command, b"").await;
    assert!(code == 0 && page.starts_with("ok    daemon "), "{page}");
    cli.address = there;
    assert_eq!(of(&examined(&cli, &[]).await.1, "lock").0, "ok");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_shell_that_leave_no_room_are_named() {
    let cli = Cli::alone();
    let limited = async |limit: &str| {
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", &format!("{limit}; exec \"$0\" doctor --format json"), env!("CARGO_BIN_EXE_coracle")])
            .env("CORACLE_HOST", cli.address.to_string())
            .env("CORACLE_STATE_DIR", at(&cli, "state"))
            .env("CORACLE_ROOT", at(&cli, "root"));
        let (code, out, err) = cli.finish(command, b"").await;
        (code, serde_json::from_str::<Value>(&out).unwrap_or_else(|e| panic!("{e}: {out} {err}")))
    };
    for (limit, check, todo) in
        [("ulimit -n 500", "open files", "ulimit -Hn"), ("ulimit -v 8000000", "addresses", "ulimit -v unlimited")]
    {
        let (code, report) = limited(limit).await;
        let (level, what) = of(&report, check);
        assert!(code == 125 && level == "fail" && what.contains(todo), "{limit}: {what}");
    }
}

/// Others that listen where a daemon is looked for: one of another version, and one that is none.
#[tokio::test(flavor = "multi_thread")]
async fn who_answers_and_is_no_daemon_of_this_version_is_told() {
    let hello =
        json!({ "program": "coracle", "version": "9.9.9", "protocol": 1, "engine": "x\x1b[2J", "features": [] });
    for (answer, check, level, said) in [
        (json!({ "ok": hello }).to_string(), "version", "warn", ["9.9.9", "coracle shutdown"]),
        (
            "HTTP/1.1 400 Bad Request".to_owned(),
            "daemon",
            "fail",
            ["this is no coracle daemon", "look who listens there"],
        ),
    ] {
        let impostor = match answer.starts_with('{') {
            true => Impostor::answering(format!("{answer}\n").into_bytes()).await,
            false => Impostor::agreeing(format!("{answer}\n").into_bytes(), vec![]).await,
        };
        let cli = &impostor.cli;
        let (_, report) = examined(cli, &[]).await;
        let (is, what) = of(&report, check);
        assert!(is == level && said.iter().all(|said| what.contains(said)), "{check}: {is} {what}");
        let (_, page, _) = cli.run(&["doctor"]).await;
        assert!(!page.contains('\x1b'), "{page:?}");
    }
}
