//! The binary: exit codes, attached runs, files, the daemon that it starts, and the daemon itself.

use crate::support::{Cli, Foreground, Harness, cannot_try, exit_code, guests, large_module, signal_child, soon};
use coracle::model::filter::Filter;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_exit_code_table() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let code = async |words: &[&str]| cli.run(words).await.0;
    assert_eq!(code(&["run", "hello"]).await, 0);
    assert_eq!(code(&["run", "exit_7"]).await, 7);
    assert_eq!(code(&["run", "exit_200"]).await, 200);
    assert_eq!(code(&["run", "--timeout", "100ms", "spin"]).await, 124);
    assert_eq!(code(&["run", "--frobnicate", "hello"]).await, 125);
    assert_eq!(code(&["run", "--name", "a/b", "hello"]).await, 125);
    assert_eq!(code(&["run", "./Cargo.toml.wasm"]).await, 127, "no such file");
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.wasm");
    std::fs::write(&bad, "no module").unwrap();
    assert_eq!(code(&["run", bad.to_str().unwrap()]).await, 126);
    assert_eq!(code(&["run", "no-such-module"]).await, 127);
    assert_eq!(code(&["run", "trap"]).await, 134);
    assert_eq!(code(&["run", "-m", "64k", "fill"]).await, 137, "larger than its memory");
    for (verb, code) in [("kill", 137), ("stop", 143)] {
        let run = cli.command(&["run", "sleep"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        daemon.wait_for_state("sleep", "running").await;
        assert_eq!(cli.run(&[verb, "sleep"]).await, (0, "sleep\n".into(), String::new()));
        assert_eq!(exit_code(run).await.0, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_one_line_with_a_hint_on_standard_error() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let (_, out, err) = cli.run(&["run", "helo"]).await;
    assert_eq!((out.as_str(), err.as_str()), ("", "error: no module named 'helo' (did you mean 'hello'?)\n"));
    let (_, out, err) = cli.run(&["run", "trap"]).await;
    assert_eq!(out, "");
    let (told, hint) = err.split_once('\n').unwrap();
    assert!(
        told.starts_with("error: 'trap' trapped: wasm `unreachable` instruction executed in inner < outer"),
        "{err}"
    );
    assert_eq!(hint, "hint: coracle logs trap shows what it printed, coracle inspect trap how it ended\n");
    let (code, _, err) = cli.run(&["stop", "nobody"]).await;
    let unknown = "error: no instance named 'nobody'\nhint: `coracle list` shows those that there are\n";
    assert_eq!((code, err.as_str()), (125, unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_streams_as_it_comes_and_streams_stay_apart() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["run", "both"]).await, (0, "out\nlast".into(), "err\n".into()));
    // The first line is there while the guest still runs.
    let mut child = cli.command(&["run", "clock"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let first = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        (line, stdout)
    });
    let (line, stdout) = soon("the first line", first).await.unwrap();
    assert!(line.ends_with("Z\n"), "{line}");
    daemon.wait_for_state("clock", "running").await;
    // Our reader leaves: the program is stopped, as one that gets SIGPIPE would be.
    drop(stdout);
    let (code, _, _) = exit_code(child).await;
    assert_eq!(code, 143);
    assert_eq!(daemon.supervisor.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_passed_with_i_and_only_then() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let input: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
    let (code, out, _) = cli.run_with_input(&["run", "-i", "cat"], input.as_bytes()).await;
    assert!(code == 0 && out == input, "{code}, {} bytes", out.len());
    let (code, out, _) = cli.run_with_input(&["run", "cat"], b"not asked for").await;
    assert_eq!((code, out.as_str()), (0, ""));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_the_instance() {
    use rustix::process::Signal;
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    for (signal, guest) in [(Signal::INT, "spin"), (Signal::TERM, "sleep")] {
        let child = cli.command(&["run", guest]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        daemon.wait_for_state(guest, "running").await;
        signal_child(&child, signal);
        let (code, _, err) = exit_code(child).await;
        assert_eq!((code, err.as_str()), (143, ""));
        daemon.wait_for_state(guest, "stopped").await;
    }
}

/// While the module is still being compiled: then it never begins.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_before_the_start_means_no_start() {
    let directory = large_module(3000);
    let path = directory.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs.push(path)).await;
    let cli = Cli::of(&daemon);
    let child = cli.command(&["run", "large"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut raw = daemon.raw().await;
    soon("the compilation", async {
        while daemon.supervisor.compilations() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    signal_child(&child, rustix::process::Signal::INT);
    assert_eq!(exit_code(child).await.0, 143);
    // The compilation goes on, for whoever asks next: that run is the first.
    soon("the name is free", async {
        while !raw.ask("run large").await.contains("created") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(daemon.supervisor.view(&"large".parse().unwrap()).unwrap().run, 1);
}

/// What is an argument is the guest's affair, and what is shown of it does nothing to a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn any_text_may_be_an_argument() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let odd = [
        "GET / HTTP/1.1",
        "Host: x",
        "\u{7f}",
        "a\u{85}b",
        "\u{202e}",
        "\u{1b}[2J",
        "line\nend",
        "'\\\"$",
        "\u{e0041}",
    ];
    let (code, out, _) = cli.run(&[&["run", "args_env"], &odd[..]].concat()).await;
    assert_eq!((code, out), (0, format!("args_env\0{}\0--\n", odd.join("\0"))));
    for words in [&["inspect", "args_env"][..], &["list", "--format", "json"]] {
        let (_, shown, _) = cli.run(words).await;
        assert!(
            !shown.contains(|c: char| c != '\n' && (c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c))),
            "{shown}"
        );
        assert!(shown.contains("\\u202e"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_runs_print_the_name_and_verbs_take_several() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["run", "-d", "--name", "a", "sleep"]).await, (0, "a\n".into(), String::new()));
    assert_eq!(cli.run(&["run", "-d", "--name", "b", "exit_7"]).await.1, "b\n");
    assert_eq!(cli.run(&["wait", "b"]).await.1, "7\n");
    let (code, out, err) = cli.run(&["stop", "a", "nobody", "b"]).await;
    let unknown = "error: no instance named 'nobody'\nhint: `coracle list` shows those that there are\n";
    assert_eq!((code, out.as_str(), err.as_str()), (125, "a\nb\n", unknown));
    let (_, table, _) = cli.run(&["list"]).await;
    let rows: Vec<Vec<&str>> =
        table.lines().map(|l| l.split("  ").filter(|c| !c.is_empty()).map(str::trim).collect()).collect();
    assert_eq!(rows[0], ["NAME", "MODULE", "STATE", "SINCE", "RUN", "WHY"]);
    assert_eq!((rows[1][0], rows[1][2]), ("a", "stopped"));
    assert_eq!((rows[2][0], rows[2][2]), ("b", "exited (7)"));
    assert_eq!(cli.run(&["ps"]).await.1.lines().next(), table.lines().next());
    assert_eq!(cli.run(&["ls", "-q"]).await.1, "a\nb\n");
    let json: serde_json::Value = serde_json::from_str(&cli.run(&["list", "--format", "json"]).await.1).unwrap();
    assert_eq!((&json[1]["name"], &json[1]["exit_code"]), (&"b".into(), &7.into()));
    let inspected: serde_json::Value = serde_json::from_str(&cli.run(&["inspect", "a"]).await.1).unwrap();
    assert_eq!(inspected["reason"], "stop");
    assert_eq!(cli.run(&["rm", "a", "b"]).await.1, "a\nb\n");
    assert_eq!(cli.run(&["ping"]).await.1, "pong\n");
    assert!(cli.run(&["hello"]).await.1.contains("\"protocol\": 1"));
    assert!(cli.run(&["help", "run"]).await.1.contains("--timeout"));
    assert!(cli.run(&["--version"]).await.1.starts_with("coracle 0."));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_go_to_the_streams_they_came_from() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    cli.run(&["run", "both"]).await;
    assert_eq!(cli.run(&["logs", "both"]).await, (0, "out\nlast".into(), "err\n".into()));
    let (_, out, _) = cli.run(&["logs", "-t", "-n", "1", "both"]).await;
    assert!(out.ends_with("Z last\n"), "{out}");
    // Two of them: an attached run keeps what it printed for `logs`, byte for byte where no terminal is.
    cli.run(&["run", "colours"]).await;
    let out = cli.command(&["logs", "colours"]).output().unwrap();
    assert_eq!(out.stdout, b"\x1b[2J\xff\x1b]0;x\x07\n.\n");
}

/// With a terminal for its output, a log is escaped unless asked for as it is, and a list is a table.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_shown_no_control_characters_of_a_log() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    cli.run(&["run", "colours"]).await;
    // script(1) gives the command a terminal.
    let on_a_terminal = |words: &str| {
        let mut script = std::process::Command::new("script");
        script
            .args(["-qec", &format!("{} {words}", env!("CARGO_BIN_EXE_coracle")), "/dev/null"])
            .env("CORACLE_HOST", cli.address.to_string())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        script
    };
    if on_a_terminal("ping").output().is_err() {
        return cannot_try("script(1), a terminal for the command line");
    }
    let (code, out, _) = cli.finish(on_a_terminal("logs colours"), b"").await;
    assert_eq!((code, out.as_str()), (0, "\\x1b[2J\\xff\\x1b]0;x\\x07\r\n.\r\n"));
    let (code, out, _) = cli.finish(on_a_terminal("logs --raw colours"), b"").await;
    assert_eq!((code, out.as_str()), (0, "\x1b[2J\u{fffd}\x1b]0;x\x07\r\n.\r\n"), "asked for");
    // Each stream is asked by itself: here one of the two is a file.
    cli.run(&["run", "--name", "loud", "colours", "x"]).await;
    let file = cli.directory.path().join("file");
    for to_the_file in [">", "2>"] {
        let words = format!("logs loud {to_the_file} {}", file.display());
        let (code, out, _) = cli.finish(on_a_terminal(&words), b"").await;
        assert_eq!((code, out.as_str()), (0, "\\x1b[2J\\xff\\x1b]0;x\\x07\r\n.\r\n"), "{words}");
        assert_eq!(std::fs::read(&file).unwrap(), b"\x1b[2J\xff\x1b]0;x\x07\n.\n", "{words}");
    }
    let (code, out, _) = cli.finish(on_a_terminal("list"), b"").await;
    let lines: Vec<&str> = out.split("\r\n").collect();
    assert!(code == 0 && lines[0].starts_with("NAME     MODULE   STATE       SINCE"), "{out}");
    assert!(lines[1].starts_with("colours  colours  exited (0)  "), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_sent_and_run() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("My App.wat");
    std::fs::copy(guests().join("exit_7.wat"), &text).unwrap();
    assert_eq!(cli.run(&["run", text.to_str().unwrap()]).await.0, 7);
    let list = daemon.supervisor.list(&Filter::default());
    assert_eq!((list[0].name.as_str(), list[0].module.as_str()), ("My-App", "My-App"));
    let binary = directory.path().join("app.wasm");
    std::fs::write(&binary, wat::parse_file(guests().join("exit_200.wat")).unwrap()).unwrap();
    assert_eq!(cli.run(&["run", "--name", "other", binary.to_str().unwrap()]).await.0, 200);
    let component = guests().join("both-p2.wasm");
    assert_eq!(cli.run(&["run", component.to_str().unwrap()]).await.1, "out\nlast");
    assert!(cli.run(&["put", "--name", "stored", binary.to_str().unwrap()]).await.1.starts_with("stored "));
    assert_eq!(cli.run(&["run", "stored"]).await.0, 200);
    assert!(cli.run(&["modules"]).await.1.contains("stored"));
    assert_eq!(cli.run(&["forget", "stored"]).await.1, "stored\n");
    let (code, _, err) = cli.run(&["run", directory.path().to_str().unwrap()]).await;
    assert!(code == 126 && err.contains("not a regular file"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_what_was_asked_for() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let file = cli.directory.path().join("env");
    std::fs::write(&file, "# a comment\nA=from file\n\nB=2\nFROM_HERE\n").unwrap();
    let mut command = cli.command(&[
        "run",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "B=3",
        "-e",
        "HERE",
        "-e",
        "UNSET",
        "args_env",
    ]);
    command.env("HERE", "here").env("FROM_HERE", "too").env("SECRET", "not this");
    let (_, out, _) = cli.finish(command, b"").await;
    assert_eq!(out, "args_env\0--\nA=from file\0B=3\0FROM_HERE=too\0HERE=here\0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_starts_a_daemon_where_none_is_and_says_so_once() {
    let cli = Cli::alone();
    let (code, _, err) = cli.run(&["list"]).await;
    assert!(code == 125 && err.contains("hint: start one with `coracle daemon`"), "{err}");
    let (code, _, err) = cli.run(&["run", "--no-autostart", "hello"]).await;
    assert!(code == 125 && err.contains("no daemon answers"), "{err}");
    let (code, out, err) = cli.run(&["run", "hello"]).await;
    assert_eq!((code, out.as_str()), (0, "Hello from Coracle!\n"), "{err}");
    assert!(err.starts_with("coracle: started a daemon on 127.0.0.1:") && err.lines().count() == 1, "{err}");
    assert_eq!(cli.run(&["run", "hello", "again"]).await, (0, "Hello, again!\n".into(), String::new()));
    assert_eq!(cli.run(&["shutdown"]).await.0, 0);
    soon("the daemon's end", async {
        while tokio::net::TcpStream::connect(cli.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Where others may put something, the log of a daemon in the background would be written wherever they want it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_daemon_in_the_background_is_no_file_of_somebody_elses() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let cli = Cli::alone();
    let at = |path: &str| cli.directory.path().join(path);
    let precious = vec![b'x'; 2 << 20];
    std::fs::write(at("precious"), &precious).unwrap();
    std::fs::create_dir(at("state")).unwrap();
    symlink(at("precious"), at("state/daemon.log")).unwrap();
    for mode in [0o777, 0o1777] {
        std::fs::set_permissions(at("state"), PermissionsExt::from_mode(mode)).unwrap();
        let (code, _, err) = cli.run(&["run", "hello"]).await;
        assert!(code == 125 && err.contains("others may write to the state directory"), "{err}");
        assert!(std::fs::read(at("precious")).unwrap() == precious, "{mode:o}: it is as it was");
    }
    // In a directory of our own a link is none of the daemon's making either; nor is the directory, if a link leads to it.
    std::fs::set_permissions(at("state"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(cli.run(&["run", "hello"]).await.0, 0);
    assert!(std::fs::read(at("precious")).unwrap() == precious);
    assert_eq!(cli.run(&["shutdown"]).await.0, 0);
    std::fs::rename(at("precious"), at("state/daemon.log")).unwrap();
    std::fs::rename(at("state"), at("elsewhere")).unwrap();
    symlink(at("elsewhere"), at("state")).unwrap();
    assert_eq!(cli.run(&["run", "hello", "again"]).await.0, 0);
    assert!(std::fs::read(at("elsewhere/daemon.log")).unwrap() == precious);
    assert_eq!(cli.run(&["shutdown"]).await.0, 0);
}

/// Several find no daemon at the same moment: each gets its answer, from the one that was first.
#[tokio::test(flavor = "multi_thread")]
async fn runs_that_start_a_daemon_at_once_share_it() {
    let cli = Cli::alone();
    let runs: Vec<Child> = (0..4)
        .map(|i| {
            cli.command(&["run", "--name", &format!("n{i}"), "hello"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for run in runs {
        let (code, out, err) = exit_code(run).await;
        assert_eq!((code, out.as_str()), (0, "Hello from Coracle!\n"), "{err}");
    }
    assert_eq!(cli.run(&["list", "-q"]).await.1.lines().count(), 4);
    cli.run(&["shutdown"]).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_says_where_it_listens_and_ends_cleanly_on_signals() {
    use rustix::process::Signal;
    for signal in [Signal::TERM, Signal::INT] {
        let mut cli = Cli::alone();
        let modules = guests().to_str().unwrap();
        let mut daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0", "--modules", modules]);
        cli.address = daemon.address();
        assert_eq!(cli.run(&["run", "exit_7"]).await.0, 7);
        for guest in ["spin", "sleep", "chatty", "append"] {
            assert_eq!(cli.run(&["run", "-d", guest]).await.0, 0);
        }
        daemon.signal(signal);
        let child = &mut daemon.child;
        let status = tokio::task::block_in_place(|| child.wait()).unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_the_next_daemon_serves_with_the_same_directories() {
    use rustix::process::Signal;
    let mut cli = Cli::alone();
    let modules = guests().to_str().unwrap();
    for _ in 0..3 {
        let mut daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0", "--modules", modules]);
        cli.address = daemon.address();
        assert_eq!(cli.run(&["run", "hello"]).await.1, "Hello from Coracle!\n");
        assert_eq!(cli.run(&["run", "-d", "append"]).await.0, 0);
        daemon.signal(Signal::KILL);
        let child = &mut daemon.child;
        tokio::task::block_in_place(|| child.wait()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cannot_serve_says_why() {
    let cli = Cli::alone();
    let daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0"]);
    let taken = daemon.address().to_string();
    let other = cli.directory.path().join("other").display().to_string();
    for (words, why) in [
        (vec!["--listen", "127.0.0.1:0"], "another daemon uses the state directory"),
        (vec!["--listen", &taken, "--state-dir", &other], "is in use"),
        (vec!["--listen", "0.0.0.0:0", "--state-dir", &other], "--tls-cert"),
        (vec!["--listen", "[::]:0", "--state-dir", &other], "--tls-cert"),
        (vec!["--listen", "192.0.2.1:0", "--state-dir", &other], "--tls-cert"),
        (vec!["--listen", "[::ffff:192.0.2.1]:0", "--state-dir", &other], "--tls-cert"),
        (vec!["--listen", "localhost"], "invalid"),
        (
            vec!["--listen", "127.0.0.1:0", "--state-dir", &other, "--modules", "/no/such/dir"],
            "there is no such directory",
        ),
        (vec!["--instances", "0"], "a number from 1"),
    ] {
        let (code, out, err) = cli.run(&[&["daemon"], words.as_slice()].concat()).await;
        assert!(code == 125 && out.is_empty() && err.contains(why), "{words:?}: {code} {out} {err}");
    }
    let mut raw = crate::support::Raw::connect(daemon.address()).await;
    assert_eq!(raw.ask("ping").await, "pong", "the first daemon is untouched");
}

/// The ticker sleeps while no guest computes, and so do the threads that serve them.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_daemon_uses_no_processor_time() {
    let cli = Cli::alone();
    let daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0"]);
    let stat = format!("/proc/{}/stat", daemon.child.id());
    let Ok(_) = std::fs::read_to_string(&stat) else { return cannot_try("/proc, where processor time is told") };
    let mut raw = crate::support::Raw::connect(daemon.address()).await;
    raw.ask("run hello").await;
    raw.ask("wait hello").await;
    raw.ask("run --cpus 0.5 spin").await;
    raw.ask("stop spin").await;
    // Fields 14 and 15 of proc_pid_stat(5): user and system time in ticks of 10 ms.
    let ticks = || -> u64 {
        let text = std::fs::read_to_string(&stat).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    // The ticker goes to sleep after twenty ticks without a guest.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(ticks() - before <= 1, "{} ticks", ticks() - before);
}

/// Threads of guests that compute step back as far as they were told; the one for what is quick does not.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn guests_that_compute_step_back_as_far_as_they_are_told() {
    const SCHED_IDLE: &str = "5";
    let ours = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ours = ours.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap();
    for (priority, policy, nice) in [("idle", SCHED_IDLE, None), ("low", "0", Some("10")), ("normal", "0", Some(ours))]
    {
        let cli = Cli::alone();
        let daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0", "--guest-priority", priority]);
        let mut raw = crate::support::Raw::connect(daemon.address()).await;
        raw.ask("run hello").await;
        raw.ask("wait hello").await;
        let mut seen = vec![];
        for entry in std::fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path().join("stat")).unwrap();
            // proc_pid_stat(5): behind the name, nice is the 17th field and policy the 39th.
            let (head, tail) = text.rsplit_once(')').unwrap();
            let fields: Vec<&str> = tail.split_whitespace().collect();
            let name = head.split_once('(').unwrap().1.to_owned();
            match name.as_str() {
                "guest" => {
                    assert_eq!(fields[38], policy, "{priority}");
                    assert!(nice.is_none_or(|nice| fields[16] == nice), "{priority}: {text}");
                }
                "guest-quick" | "control" => assert_eq!((fields[38], fields[16]), ("0", ours), "{priority}: {name}"),
                _ => {}
            }
            seen.push(name);
        }
        assert!(["guest", "guest-quick", "control"].iter().all(|name| seen.iter().any(|s| s == name)), "{seen:?}");
    }
}
