//! Completions: what real shells offer, with a daemon, without one, and with one that does not answer.

use crate::support::{Cli, Harness, cannot_try};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command whose `coracle` is ours.
fn with_ours(cli: &Cli, program: &str) -> Command {
    let ours = Path::new(env!("CARGO_BIN_EXE_coracle")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(ours.to_owned()).chain(std::env::split_paths(&path))).unwrap();
    let mut command = Command::new(program);
    command
        .env("PATH", path)
        .env("CORACLE_HOST", format!("tcp://{}", cli.address))
        .env("CORACLE_STATE_DIR", cli.directory.path().join("state"))
        .env("HOME", cli.directory.path())
        .current_dir(cli.directory.path())
        .stdin(Stdio::null());
    command
}

/// What bash offers behind `line`: the function that the script has made is called as bash calls it.
async fn in_bash(cli: &Cli, line: &str) -> Vec<String> {
    // As readline takes words apart.
    let begins = |(at, c): &(usize, char)| matches!(c, '=' | ':') || *c == ' ' && !line[..*at].ends_with('\\');
    let current = line.char_indices().rfind(begins).map_or(line, |(at, _)| &line[at + 1..]);
    let script = r#"
        source <(coracle completions bash)
        COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        [[ $1 != *' ' ]] || { COMP_WORDS+=(''); COMP_CWORD=$((COMP_CWORD + 1)); }
        function=$(complete -p coracle | sed 's/.* -F \([^ ]*\) coracle$/\1/')
        "$function" coracle "$2" ''
        (( ${#COMPREPLY[@]} == 0 )) || printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = with_ours(cli, "bash");
    bash.args(["--norc", "-c", script, "bash", line, current]);
    let (code, out, err) = cli.finish(bash, b"").await;
    assert_eq!((code, err.as_str()), (0, ""), "{line}");
    out.lines().map(str::to_owned).collect()
}

/// What is offered, asked for again where it is not what is wanted: on a machine with much to do a daemon may not answer as soon
/// as a person's key would wait for.
async fn offered<T: PartialEq<W>, W: ?Sized>(ask: impl AsyncFn() -> T, wanted: &W) -> T {
    for _ in 0..20 {
        let offered = ask().await;
        if offered == *wanted {
            return offered;
        }
    }
    ask().await
}

/// `beats` runs, `ended` has ended.
async fn two_instances(daemon: &Harness) -> Cli {
    let cli = Cli::of(daemon);
    cli.run(&["run", "-d", "--name", "beats", "sleep"]).await;
    cli.run(&["run", "--name", "ended", "hello"]).await;
    daemon.wait_for_state("beats", "running").await;
    std::fs::write(cli.directory.path().join("app.wasm"), "").unwrap();
    std::fs::write(cli.directory.path().join("notes.txt"), "").unwrap();
    std::fs::create_dir(cli.directory.path().join("my dir")).unwrap();
    cli
}

#[tokio::test(flavor = "multi_thread")]
async fn names_complete_in_bash() {
    let daemon = Harness::start().await;
    let cli = two_instances(&daemon).await;
    for (line, wanted) in [
        ("coracle st", &["stop", "stats"][..]),
        ("coracle stop ", &["beats"]),
        ("coracle kill b", &["beats"]),
        ("coracle stop beats ", &[]),
        ("coracle rm ", &["ended"]),
        ("coracle logs ", &["beats", "ended"]),
        ("coracle logs e", &["ended"]),
        ("coracle logs --stream=std", &["stdout", "stderr"]),
        ("coracle logs --stream std", &["stdout", "stderr"]),
        ("coracle run args_e", &["args_env", "args_env-p2"]),
        ("coracle run ./ap", &["./app.wasm"]),
        ("coracle run ./no", &[]),
        ("coracle run ./my", &["./my dir"]),
        ("coracle run ./my\\ d", &["./my dir"]),
        ("coracle daemon --root=my\\ ", &["my dir"]),
        ("coracle run --restart un", &["unless-stopped"]),
        ("coracle run -d args_e", &["args_env", "args_env-p2"]),
        ("coracle run hello beat", &[]),
        ("coracle forget ", &[]),
        ("coracle put ap", &["app.wasm"]),
        ("coracle daemon --root my", &["my dir"]),
        ("coracle --host unix:/nowhere stop ", &[]),
    ] {
        assert_eq!(offered(async || in_bash(&cli, line).await, wanted).await, wanted, "{line}");
    }
}

/// What can be asked of fish without a terminal, and of zsh with what its completion system offers put in its place.
#[tokio::test(flavor = "multi_thread")]
async fn names_complete_in_fish_and_zsh() {
    let daemon = Harness::start().await;
    let cli = two_instances(&daemon).await;
    let lines = [
        ("coracle stop ", "beats|running"),
        ("coracle rm ", "ended|exited (0)"),
        ("coracle logs --stream=stdo", "--stream=stdout|File descriptor 1"),
    ];
    let said_by = async |shell: Command| {
        let (code, out, err) = cli.finish(shell, b"").await;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out.trim_end().to_owned()
    };
    match with_ours(&cli, "fish").args(["--no-config", "-c", "true"]).status() {
        Err(_) => cannot_try("fish(1), its completions"),
        Ok(_) => {
            let asked = async |line: &str| {
                let mut fish = with_ours(&cli, "fish");
                let script = "coracle completions fish | source; complete --do-complete $argv[1]";
                fish.args(["--no-config", "-c", script, line]);
                said_by(fish).await.replace('\t', "|")
            };
            for (line, wanted) in lines {
                let said = offered(async || asked(line).await, wanted).await;
                assert_eq!(said, wanted, "{line}");
            }
            assert_eq!(asked("coracle run ./").await, "./app.wasm\n./my dir/");
            assert_eq!(asked("coracle put --name x ap").await, "app.wasm");
        }
    }
    if with_ours(&cli, "zsh").args(["-f", "-c", "true"]).status().is_err() {
        return cannot_try("zsh(1), its completions");
    }
    for (line, wanted) in lines {
        let script = r#"
            compdef() {}
            compset() {}
            compadd() { [[ "$1 $4" == '-l -d' ]] && print -rl -- "${(P@)5}" }
            _files() { print -r -- files "$@" }
            source <(coracle completions zsh)
            words=(${(s: :)1}) CURRENT=$#words
            [[ $1 != *' ' ]] || { words+=(''); CURRENT=$#words }
            PREFIX=$words[-1]
            _coracle
        "#;
        let asked = async || {
            let mut zsh = with_ours(&cli, "zsh");
            zsh.args(["-f", "-c", script, "zsh", line]);
            said_by(zsh).await.replace("  -- ", "|")
        };
        let said = offered(asked, wanted).await;
        assert_eq!(said, wanted, "{line}");
    }
}

/// The shells read their scripts without complaint; for PowerShell there is only the script to look at.
#[tokio::test(flavor = "multi_thread")]
async fn every_shell_takes_its_script() {
    let cli = Cli::alone();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let (code, script, err) = cli.run(&["completions", shell]).await;
        assert_eq!((code, err.as_str()), (0, ""));
        let file = cli.directory.path().join(shell);
        std::fs::write(&file, script).unwrap();
        let mut command = Command::new(shell);
        command.arg(check).arg(&file).stdin(Stdio::null());
        match command.output() {
            Err(_) => cannot_try(&format!("{shell}(1), the script for it")),
            Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}"),
        }
    }
    let (code, script, _) = cli.run(&["completions", "powershell"]).await;
    assert!(code == 0 && script.contains("Register-ArgumentCompleter -Native -CommandName coracle"), "{script}");
    assert_eq!(cli.run(&["completions", "csh"]).await.0, 125);
}

/// As little as possible happens at a key: no daemon is started, nobody is waited for, and nothing is said.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_nothing_is_offered_and_nothing_started() {
    let nobody = Cli::alone();
    assert_eq!(nobody.run(&["__complete", "--", "coracle", "stop", ""]).await, (0, "words\n".into(), String::new()));
    assert_eq!(nobody.run(&["__complete", "--", "coracle", "run", ""]).await, (0, "modules\n".into(), String::new()));
    assert!(!nobody.directory.path().join("state").exists(), "a daemon would have made it");
    assert!(std::net::TcpStream::connect(nobody.address).is_err());
    // Somebody listens, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = Cli { address: listener.local_addr().unwrap(), directory: tempfile::tempdir().unwrap() };
    let begun = Instant::now();
    assert_eq!(silent.run(&["__complete", "--", "coracle", "stop", ""]).await, (0, "words\n".into(), String::new()));
    // A connection is waited for ten seconds elsewhere; the rest is room for a machine with much to do.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
