//! The command line and the daemon where the world around them misbehaves: full disks, closed pipes, foreign ports.
#![cfg(unix)]

use crate::support::{Cli, Foreground, Harness, exit_code, guests, signal_child, soon};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// What Ctrl-C on `coracle daemon 2>&1 | tee log` leaves: nobody reads the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_log_cannot_be_written_serves_and_ends_in_order() {
    let mut cli = Cli::alone();
    let modules = guests().to_str().unwrap();
    let mut child = cli
        .command(&["daemon", "--listen", "127.0.0.1:0", "--modules", modules])
        .env("CORACLE_LOG", "debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    cli.address = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
    assert_eq!(cli.run(&["run", "exit_7"]).await.0, 7);
    assert_eq!(cli.run(&["run", "-d", "spin"]).await.0, 0);
    assert_eq!(cli.run(&["shutdown"]).await.0, 0);
    assert_eq!(exit_code(child).await.0, 0);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_output_cannot_be_written_is_stopped() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let child = cli.command(&["run", "clock"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let (code, _, err) = exit_code(child).await;
    assert!(code == 125 && err.contains("cannot write the output"), "{code} {err}");
    daemon.wait_for_state("clock", "stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_on_the_port_is_told_and_not_waited_for() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut cli = Cli::alone();
    cli.address = silent.local_addr().unwrap();
    let (code, _, err) = cli.run(&["list"]).await;
    assert!(code == 125 && err.contains("has not answered for 10s"), "{err}");
}

/// A daemon that hangs: the second Ctrl-C waits for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_does_not_wait_for_the_daemon() {
    let mut cli = Cli::alone();
    let daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0"]);
    cli.address = daemon.address();
    let mut child = cli.command(&["run", "clock"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    daemon.signal(Signal::STOP);
    soon("the end of the command", async {
        while child.try_wait().unwrap().is_none() {
            signal_child(&child, Signal::INT);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(child.wait().unwrap().code(), Some(143));
    daemon.signal(Signal::CONT);
}

/// `shutdown` returns when address and state directory are free, also with idle clients about.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_right_after_a_shutdown_starts_the_next_daemon() {
    let cli = Cli::alone();
    for _ in 0..3 {
        let (code, out, err) = cli.run(&["run", "hello"]).await;
        assert_eq!((code, out.as_str()), (0, "Hello from Coracle!\n"), "{err}");
        let _idle = crate::support::Raw::connect(cli.address).await;
        assert_eq!(cli.run(&["shutdown"]).await.0, 0);
    }
}

/// A lock or a pipe that the caller has open is not held for as long as the daemon lives.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_in_the_background_holds_nothing_of_its_caller() {
    let cli = Cli::alone();
    let held = cli.directory.path().join("held");
    let program = env!("CARGO_BIN_EXE_coracle");
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", &format!("cd '{}'; exec 7>held; {program} run hello", cli.directory.path().display())])
        .env("CORACLE_HOST", cli.address.to_string())
        // Relative, and yet the same for the daemon that works elsewhere.
        .env("CORACLE_STATE_DIR", "state")
        .env("CORACLE_ROOT", "root")
        .stdin(Stdio::null());
    let (code, out, err) = cli.finish(shell, b"").await;
    assert_eq!((code, out.as_str()), (0, "Hello from Coracle!\n"), "{err}");
    assert!(cli.directory.path().join("root/hello").is_dir());
    let mut holders = vec![];
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(handles) = std::fs::read_dir(process.path().join("fd")) else { continue };
        holders.extend(
            handles.flatten().filter_map(|h| std::fs::read_link(h.path()).ok()).filter(|target| *target == held),
        );
        if let Ok(cwd) = std::fs::read_link(process.path().join("cwd")) {
            assert_ne!(cwd, cli.directory.path(), "the daemon stands in its caller's directory");
        }
    }
    assert!(holders.is_empty(), "somebody holds the caller's file");
    cli.run(&["shutdown"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_names_than_a_request_holds_are_sent_in_parts() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let mut client = daemon.client().await;
    let names: Vec<String> = (0..400).map(|i| format!("instance-with-a-long-name-{i:04}")).collect();
    for name in &names {
        client.run(&["--name", name, "exit_7"]).await.unwrap();
    }
    let words: Vec<&str> = ["wait"].into_iter().chain(names.iter().map(String::as_str)).collect();
    assert_eq!(cli.run(&words).await.1, "7\n".repeat(400));
    let words: Vec<&str> = ["rm"].into_iter().chain(names.iter().map(String::as_str)).collect();
    assert_eq!(cli.run(&words).await.1.lines().count(), 400);
    assert_eq!(cli.run(&["list", "-q"]).await.1, "");
}
