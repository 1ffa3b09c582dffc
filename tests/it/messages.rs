//! What a person is told who made a slip, or whom something was refused: its shape, what to type next, and that nothing of it is
//! for machines to trip over.

use crate::support::{Cli, Harness, cannot_try, large_module};
use std::process::{Command, Stdio};

/// Every line has its place: one `error:`, then causes, then hints.
fn is_in_shape(err: &str) -> bool {
    let mut rank = 0;
    let ranks = err.lines().map(|line| match line {
        line if line.starts_with("error: ") => 1,
        line if line.starts_with("  caused by: ") => 2,
        line if line.starts_with("hint: ") => 3,
        _ => 0,
    });
    let in_order = ranks.clone().all(|next| std::mem::replace(&mut rank, next) <= next && next > 0);
    in_order && ranks.filter(|rank| *rank == 1).count() == 1 && err.ends_with('\n')
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_command_line_is_told_in_two_lines_with_where_to_look() {
    let cli = Cli::alone();
    for (words, told, hint) in [
        (&["lgos"][..], "there is no command 'lgos' (did you mean 'logs'?)", "coracle help"),
        (&["xyzzy"], "there is no command 'xyzzy'", "coracle help"),
        (&["run", "--memry", "1g", "x"], "'--memry' found (did you mean '--memory'?)", "coracle help run"),
        (&["daemon", "--instnces", "3"], "(did you mean '--instances'?)", "coracle help daemon"),
        (&["doctor", "--formt", "json"], "(did you mean '--format'?)", "coracle help doctor"),
        (&["list", "--format", "jsn"], "it is table, json, or a template such as", "coracle help list"),
        (&["daemon", "--fence", "requird"], "(did you mean 'required'?)", "coracle help daemon"),
        (&["run", "-m", "3z", "x"], "'3z' is not a size; try 64m", "coracle help run"),
        (&["run", "--timeout", "abc", "x"], "'abc' is not a duration; try 30s", "coracle help run"),
        (&["run", "-v", "x", "x"], "'x' is not HOST:GUEST", "coracle help run"),
        (&["run", "-t", "x"], "unexpected argument '-t' found", "coracle help run"),
        (&["stop"], "required arguments were not provided", "coracle stop [OPTIONS] <NAME>..."),
        (&["explain"], "required arguments were not provided", "coracle explain [OPTIONS] <FILE|NAME>"),
        (&["ping", "x"], "unexpected argument 'x' found", "coracle help ping"),
    ] {
        let (code, out, err) = cli.run(words).await;
        assert_eq!((code, out.as_str()), (125, ""), "{words:?}");
        let (first, second) = err.split_once('\n').unwrap();
        assert!(first.starts_with("error: ") && first.contains(told), "{words:?}: {err}");
        assert_eq!(second, format!("hint: {hint}\n"), "{words:?}");
    }
    // Help that was asked for is help, and on standard output.
    let (code, out, err) = cli.run(&["run", "--help"]).await;
    assert!(code == 0 && out.contains("Usage: coracle run") && err.is_empty(), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_system_said_has_a_line_of_its_own_below() {
    let cli = Cli::alone();
    let not_there = "  caused by: No such file or directory (os error 2)\n";
    std::fs::write(cli.directory.path().join("server.wasm"), "no module").unwrap();
    let beside = cli.directory.path().join("sever.wasm");
    let (code, _, err) = cli.run(&["run", "--no-autostart", beside.to_str().unwrap()]).await;
    // Without a daemon that is what is wrong first.
    assert!(code == 125 && err.starts_with(&format!("error: no daemon answers on {}\n  caused by: ", cli.address)));
    assert!(err.ends_with("hint: start one with `coracle daemon`, or run something: `coracle run hello`\n"), "{err}");
    let daemon = Harness::start().await;
    let cli = Cli { address: daemon.address, ..cli };
    let (code, _, err) = cli.run(&["run", beside.to_str().unwrap()]).await;
    let meant = cli.directory.path().join("server.wasm");
    let told = format!("error: cannot read {}\n{not_there}hint: did you mean {}?\n", beside.display(), meant.display());
    assert_eq!((code, err), (127, told));
    let (code, _, err) = cli.run(&["run", "--env-file", "/nowhere/env", "hello"]).await;
    assert_eq!((code, err), (125, format!("error: cannot read /nowhere/env\n{not_there}")));
    // A directory in the place of a module.
    let (code, _, err) = cli.run(&["run", &format!("{}/", cli.directory.path().display())]).await;
    assert!(code == 126 && is_in_shape(&err), "{err}");
    assert!(err.contains("is a directory") && err.contains("coracle run ") && err.contains("server.wasm"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_to_type() {
    let daemon = Harness::with_limits(|limits| limits.instances_max = 1).await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["run", "-d", "--name", "web", "sleep"]).await.0, 0);
    for (words, hints) in [
        (
            &["run", "-d", "--name", "WEB", "hello"][..],
            &["coracle rm -f web", "coracle restart web", "--name OTHER"][..],
        ),
        (&["run", "hello"], &["coracle daemon --instances …", "coracle limits"]),
        (&["run", "-m", "4097m", "hello"], &["coracle daemon --memory-max …"]),
        (&["rm", "web"], &["coracle rm -f web"]),
        (&["inspect", "nobody"], &["coracle list"]),
    ] {
        let (code, out, err) = cli.run(words).await;
        assert!(code == 125 && out.is_empty() && is_in_shape(&err), "{words:?}: {err}");
        let told: String = err.lines().filter(|line| line.starts_with("hint: ")).collect();
        assert!(hints.iter().all(|hint| told.contains(hint)), "{words:?}: {err}");
    }
    for verb in ["stop", "kill", "wait", "inspect", "restart", "rm", "logs"] {
        let (code, _, err) = cli.run(&[verb, "wbe"]).await;
        assert_eq!((code, err.as_str()), (125, "error: no instance named 'wbe' (did you mean 'web'?)\n"), "{verb}");
    }
    // What goes over the wire is as it ever was.
    let mut raw = daemon.raw().await;
    assert_eq!(raw.ask("stop wbe").await, "Container not found");
    assert_eq!(raw.ask("stop --nope x").await, "ERR usage unexpected argument '--nope' found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_not_meant_is_told_with_what_helps() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    for (words, code, hint) in [
        (
            &["run", "trap"][..],
            134,
            "hint: coracle logs trap shows what it printed, coracle inspect trap how it ended\n",
        ),
        (&["run", "--rm", "--name", "gone", "trap"], 134, ""),
        (&["run", "-m", "64k", "fill"], 137, "hint: give it more memory, such as -m 1m\n"),
        (&["run", "--timeout", "100ms", "spin"], 124, "hint: give it more time: --timeout TIME\n"),
        (
            &["run", "--name", "busy", "--cpu-time", "50ms", "spin"],
            -1,
            "hint: give it more processor time: --cpu-time TIME\n",
        ),
        (&["run", "exit_7"], 7, ""),
    ] {
        let (ended, _, err) = cli.run(words).await;
        assert!(code == -1 || ended == code, "{words:?}: {ended} {err}");
        match hint {
            "" => assert!(!err.contains("hint:"), "{words:?}: {err}"),
            hint => assert!(is_in_shape(&err) && err.contains(hint), "{words:?}: {err}"),
        }
    }
}

/// A command of ours with a terminal, which script(1) gives it; none where there is no script(1).
fn on_a_terminal(cli: &Cli, words: &str) -> Option<Command> {
    Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    let mut script = Command::new("script");
    script
        .args(["-qec", &format!("{} {words}", env!("CARGO_BIN_EXE_coracle")), "/dev/null"])
        .env("CORACLE_HOST", cli.address.to_string())
        .env("CORACLE_STATE_DIR", cli.directory.path().join("state"))
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    Some(script)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_that_want_them() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let plain = "error: no instance named 'nobody'\r\nhint: `coracle list` shows those that there are\r\n";
    let coloured = "\x1b[1;31merror:\x1b[0m no instance named 'nobody'\r\n\x1b[36mhint:\x1b[0m `coracle list` shows those \
                    that there are\r\n";
    let Some(command) = on_a_terminal(&cli, "stop nobody") else {
        return cannot_try("script(1), a terminal for the command line");
    };
    assert_eq!(cli.finish(command, b"").await, (125, coloured.to_owned(), String::new()));
    for (variable, value, shown) in
        [("NO_COLOR", "1", plain), ("NO_COLOR", "", coloured), ("TERM", "dumb", plain), ("CLICOLOR", "0", coloured)]
    {
        let mut command = on_a_terminal(&cli, "stop nobody").unwrap();
        command.env(variable, value);
        assert_eq!(cli.finish(command, b"").await.1, shown, "{variable}={value}");
    }
    // `doctor` and `explain` too, and a file is no terminal.
    for (words, colour) in [("explain hello", "\x1b[32mit can run\x1b[0m"), ("doctor", "\x1b[32mok  \x1b[0m")] {
        let (_, out, _) = cli.finish(on_a_terminal(&cli, words).unwrap(), b"").await;
        assert!(out.contains(colour), "{out:?}");
        let (_, out, _) = cli.finish(on_a_terminal(&cli, &format!("{words} | cat")).unwrap(), b"").await;
        assert!(!out.contains('\x1b') && !out.is_empty(), "{out:?}");
    }
    let mut command = cli.command(&["stop", "nobody"]);
    command.env("TERM", "xterm").env("CLICOLOR_FORCE", "1");
    assert_eq!(cli.finish(command, b"").await.2, plain.replace('\r', ""));
}

/// A module that takes longer to compile than a person waits without a sign.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn bars_are_for_terminals() {
    let modules = large_module(6003);
    let known = modules.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs.push(known)).await;
    let cli = Cli::of(&daemon);
    // By its name, and not stayed with.
    let Some(command) = on_a_terminal(&cli, "run -d --name named large") else {
        return cannot_try("script(1), a terminal for the command line");
    };
    let (code, out, _) = cli.finish(command, b"").await;
    assert!(code == 0 && out.contains("preparing large") && out.contains("named"), "{out:?}");
    let directory = large_module(6000);
    let path = directory.path().join("large.wasm");
    let path = path.to_str().unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(cli.run(&["run", path]).await, (0, String::new(), String::new()), "nothing of a bar");
    assert!(begun.elapsed().as_millis() > 1000, "it took too little time for a bar: {:?}", begun.elapsed());
    // The same with other bytes, or it would be in the cache.
    let directory = large_module(6001);
    let words = format!("run --name other {}/large.wasm", directory.path().display());
    let (code, out, _) = cli.finish(on_a_terminal(&cli, &words).unwrap(), b"").await;
    assert!(code == 0 && out.contains("compiling large"), "{out:?}");
    // Only standard error is asked: with that in a file there is no bar, though standard output is a terminal.
    let directory = large_module(6002);
    let words = format!(
        "run --name third {}/large.wasm 2>{}",
        directory.path().display(),
        cli.directory.path().join("err").display()
    );
    assert_eq!(cli.finish(on_a_terminal(&cli, &words).unwrap(), b"").await, (0, String::new(), String::new()));
    assert_eq!(std::fs::read_to_string(cli.directory.path().join("err")).unwrap(), "");
}
