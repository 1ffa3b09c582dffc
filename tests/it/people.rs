//! What the command line shows to people: tables that fit, colours, pages, templates. On a terminal, as script(1) gives one, and
//! without, where it is plain and in full.

use crate::support::{Cli, Harness};
use serde_json::Value;

/// A daemon with something to show: one that runs, one that failed with a long message and has a long name.
async fn with_instances() -> (Harness, Cli) {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["run", "-d", "--name", "web", "-l", "tier=front", "-l", "a.b=x", "sleep"]).await.0, 0);
    daemon.wait_for_state("web", "running").await;
    let long = "an-instance-with-a-name-as-long-as-it-may-be-and-so-it-is-cut";
    assert_eq!(cli.run(&["run", "--name", long, "trap"]).await.0, 134);
    (daemon, cli)
}

const LONG: &str = "an-instance-with-a-name-as-long-as-it-may-be-and-so-it-is-cut";

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_filled_from_the_fields_of_the_json() {
    let (_daemon, cli) = with_instances().await;
    let lines = async |words: &[&str]| {
        let (code, out, err) = cli.run(words).await;
        assert_eq!((code, err.as_str()), (0, ""), "{words:?}");
        out
    };
    let template = r"{{.name}}\t{{.state}} {{.exit_code}} {{.labels.tier}}{{.labels.a.b}}";
    let out = lines(&["list", "--format", template]).await;
    assert_eq!(out, format!("web\trunning  frontx\n{LONG}\ttrapped 134 \n"));
    let out = lines(&["list", "-f", "name=web", "--format", "{{json .labels}}"]).await;
    assert_eq!(out, "{\"a.b\":\"x\",\"tier\":\"front\"}\n");
    assert_eq!(lines(&["inspect", "--format", "{{.runs.0.reason}}", LONG]).await, "trap:unreachable\n");
    assert!(lines(&["modules", "--format", "{{.name}}={{.source}}"]).await.contains("hello=built-in\n"));
    assert!(lines(&["modules", "-q"]).await.lines().any(|line| line == "clock"));
    assert!(lines(&["limits", "--format", "{{.flag}} {{.unit}}"]).await.contains("--cpus milli-cpus\n"));
    assert!(lines(&["limits", "-q"]).await.starts_with("--memory\n"));
    let events =
        ["events", "--since", "0", "--until", "0s", "--format", "{{.type}} {{.name}} {{.state}}{{.labels.tier}}"];
    let out = lines(&events).await;
    assert!(out.starts_with("created web front\nstarted web front\n"), "{out}");
    assert!(out.ends_with(&format!("ended {LONG} trapped\n")), "{out}");
    let whole: Value = serde_json::from_str(&lines(&["inspect", "--format", "{{json .}}", "web"]).await).unwrap();
    assert_eq!(whole["name"], "web");

    let (code, out, err) = cli.run(&["list", "--format", "{{.Names}}"]).await;
    assert_eq!((code, out.as_str(), err.lines().count()), (125, "", 1));
    assert!(err.starts_with("error: --format: there is no field 'Names'; there are: args, cpu_"), "{err}");
    let (code, _, err) = cli.run(&["list", "--format", "yaml"]).await;
    assert!(code == 125 && err.contains("it is table, json, or a template such as '{{.name}} {{.state}}'"), "{err}");
    // On the wire they mean nothing.
    let mut raw = _daemon.raw().await;
    for request in ["list --format '{{.name}}' --no-trunc -w", "list --format json"] {
        let reply = raw.ask(request).await;
        assert!(reply.starts_with("Available containers: ['web - running', "), "{reply}");
    }
    assert!(raw.ask("list --format yaml").await.starts_with("ERR usage invalid value 'yaml' for '--format <FORMAT>'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_terminal_is_nothing_is_cut_and_inspect_is_json() {
    let (_daemon, cli) = with_instances().await;
    let (_, out, _) = cli.run(&["list"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["NAME", "MODULE", "STATE", "SINCE", "RUN", "WHY"]);
    assert!(lines[2].starts_with(&format!("{LONG}  trap    trapped  ")), "{out}");
    assert!(lines[2].contains("  1    wasm `unreachable` instruction executed in inner < outer"), "{out}");
    assert_eq!(cli.run(&["list", "--no-trunc"]).await.1.lines().next(), lines.first().copied());
    let inspected: Value = serde_json::from_str(&cli.run(&["inspect", LONG]).await.1).unwrap();
    assert_eq!(inspected["reason"], "trap:unreachable");
    let (code, page, _) = cli.run(&["inspect", "--format", "table", LONG, "web"]).await;
    assert!(code == 0 && page.starts_with(&format!("{LONG}\n\nState\n  State         trapped\n")), "{page}");
    for line in [
        "\nweb\n",
        "  Labels        a.b=x tier=front\n",
        "\nRuns\n",
        "  Reason        trap:unreachable\n",
        "\nDirectories\n",
    ] {
        assert!(page.contains(line), "{line:?} is not in {page}");
    }
    assert!(!page.contains('\x1b') && !out.contains('\x1b'));
}

#[cfg(target_os = "linux")]
mod terminals {
    use super::*;
    use crate::support::{cannot_try, soon};
    use std::io::{BufRead, Read};
    use std::process::{Command, Stdio};

    /// The command line on a terminal with so many columns; `before`: words of a shell in front.
    fn on_a_terminal(cli: &Cli, columns: usize, before: &str, words: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_coracle");
        let mut script = Command::new("script");
        script
            .args(["-qec", &format!("stty cols {columns} rows 24; {before} {program} {words}"), "/dev/null"])
            .env("CORACLE_HOST", cli.address.to_string())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        script
    }

    /// What it shows, without the colours, and whether there were any.
    async fn shown(cli: &Cli, columns: usize, before: &str, words: &str) -> Option<(String, bool)> {
        if Command::new("script").arg("--version").output().is_err() {
            cannot_try("script(1), a terminal for the command line");
            return None;
        }
        let (code, out, _) = cli.finish(on_a_terminal(cli, columns, before, words), b"").await;
        assert_eq!(code, 0, "{words}: {out}");
        let out = out.replace("\r\n", "\n");
        let mut plain = String::new();
        let mut rest = out.as_str();
        while let Some((text, behind)) = rest.split_once("\x1b[") {
            plain.push_str(text);
            // Nothing but colours is in there.
            let (sgr, behind) = behind.split_once('m').expect("the end of a colour");
            assert!(sgr.bytes().all(|b| b.is_ascii_digit()), "{sgr:?}");
            rest = behind;
        }
        plain.push_str(rest);
        Some((plain, out.contains('\x1b')))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tables_fit_the_terminal_and_have_colours() {
        let (_daemon, cli) = with_instances().await;
        for columns in [30, 60, 80, 100, 132] {
            for verb in ["list", "limits", "modules", "stats --no-stream", "inspect web", "events --since 0 --until 0s"]
            {
                let Some((out, colours)) = shown(&cli, columns, "", verb).await else { return };
                assert!(colours, "{verb}");
                for line in out.lines() {
                    assert!(line.chars().count() <= columns, "{verb} at {columns}: {line}");
                }
            }
        }
        let (out, _) = shown(&cli, 80, "", "list").await.unwrap();
        let line = out.lines().nth(2).unwrap();
        assert!(line.starts_with("an-instance-") && line.contains('…') && line.contains("  trapped  "), "{out}");
        let (out, _) = shown(&cli, 80, "", "list --no-trunc").await.unwrap();
        assert!(out.contains(LONG) && !out.contains('…'), "{out}");
        let (out, _) = shown(&cli, 100, "", "limits").await.unwrap();
        let whole = out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(whole.contains("Memories and tables of one") && !out.contains('…'), "it goes on below: {out}");
        // Colours can be forbidden, and what is no terminal gets none.
        for (before, words) in [("NO_COLOR=1", "list"), ("TERM=dumb", "list"), ("", "list | cat")] {
            let (out, colours) = shown(&cli, 80, before, words).await.unwrap();
            assert!(!colours && out.starts_with("NAME  "), "{before} {words}: {out}");
        }
        let (_, colours) = shown(&cli, 80, "NO_COLOR=", "list").await.unwrap();
        assert!(colours, "an empty one forbids nothing");
        let (out, _) = shown(&cli, 80, "", "inspect --format json web").await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["name"], "web");
    }

    /// Pictures in place until a signal comes, with the cursor back at the end.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_watched_is_shown_again_when_something_happens() {
        let (daemon, cli) = with_instances().await;
        for (words, new) in [("list -w", "started-meanwhile"), ("stats", "started-later")] {
            let words = format!("-h >/dev/null; echo $$; exec {} {words}", env!("CARGO_BIN_EXE_coracle"));
            let mut child = match on_a_terminal(&cli, 100, "", &words).stdout(Stdio::piped()).spawn() {
                Ok(child) => child,
                Err(_) => return cannot_try("script(1), a terminal for the command line"),
            };
            let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
            let until = move |mut out: std::io::BufReader<std::process::ChildStdout>, what: &'static str| {
                tokio::task::spawn_blocking(move || {
                    let mut all = String::new();
                    while !all.contains(what) {
                        let mut bytes = vec![];
                        assert!(out.read_until(b'\n', &mut bytes).unwrap() > 0, "it ended: {all}");
                        all.push_str(&String::from_utf8_lossy(&bytes));
                    }
                    (all, out)
                })
            };
            let mut first = String::new();
            out.read_line(&mut first).unwrap();
            let pid = rustix::process::Pid::from_raw(first.trim().parse().unwrap()).unwrap();
            let (text, out) = soon("the first picture", until(out, "web")).await.unwrap();
            assert!(text.starts_with("\x1b[?25l\x1b[2J\x1b[H"), "{text:?}");
            daemon.client().await.run(&["--name", new, "sleep"]).await.unwrap();
            let (_, mut out) = soon("the next picture", until(out, new)).await.unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            let rest = tokio::task::spawn_blocking(move || {
                let mut rest = vec![];
                out.read_to_end(&mut rest).unwrap();
                (child.wait().unwrap().code(), String::from_utf8_lossy(&rest).into_owned())
            });
            let (code, rest) = soon("its end", rest).await.unwrap();
            assert!(code == Some(0) && rest.ends_with("\x1b[?25h"), "{code:?} {rest:?}");
        }
    }
}

/// Without a terminal, below each other.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_what_is_watched_is_lines() {
    use std::io::BufRead;
    let (_daemon, cli) = with_instances().await;
    for words in [&["list", "-w", "--format", "json"][..], &["stats", "-w", "--format", "json"]] {
        let mut child = cli.command(words).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let two = tokio::task::spawn_blocking(move || {
            let mut lines = [String::new(), String::new()];
            lines.iter_mut().for_each(|line| assert!(out.read_line(line).unwrap() > 0));
            lines
        });
        for line in crate::support::soon("two of them", two).await.unwrap() {
            let value: Value = serde_json::from_str(&line).unwrap();
            let first = value.get(0).unwrap_or(&value["instances"][0]);
            assert_eq!(first["name"], "web", "{words:?}: {line}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
