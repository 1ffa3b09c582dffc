//! What the command line shows of an answer, whoever gave it, and the daemon's log of what it meets: nothing of it moves a
//! cursor, reorders text or begins a line.

use crate::support::{Cli, Impostor, cannot_try, exit_code, soon};
use serde_json::{Value, json};
use std::io::BufRead;
use std::process::Stdio;

/// C0, DEL, C1, a bidirectional control, a line separator, the byte order mark, and ends of lines.
const HOSTILE: &str = "a\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}\u{feff}\r\n\tz";
/// The same for a person.
const SHOWN: &str = r"a\x1b[2J\x7f\x9b\u{202e}\u{2028}\u{feff}\r\n\tz";
/// The same within a string of JSON.
const IN_JSON: &str = r"a\u001b[2J\u007f\u009b\u202e\u2028\ufeff\r\n\tz";

/// Whether a terminal would do more with it than show it.
fn acts(text: &str) -> bool {
    text.chars().any(|c| c != '\n' && (c.is_control() || "\u{202e}\u{2028}\u{feff}".contains(c)))
}

/// What is shown of an answer: exit code, standard output, standard error.
async fn shown(words: &[&str], lines: &[Value]) -> (i32, String, String) {
    let (code, out, err) = Impostor::saying(lines).await.cli.run(words).await;
    assert!(!acts(&out) && !acts(&err), "{words:?}: {out:?} {err:?}");
    (code, out, err)
}

/// An instance in which every text that is no name is hostile.
fn instance() -> Value {
    json!({
        "name": "web", "module": "hello", "digest": HOSTILE, "run": 1, "state": HOSTILE, "exit_code": 3, "reason": HOSTILE,
        "message": HOSTILE, "stop_requested": false, "restart": HOSTILE, "restarts": 0, "remove": false,
        "labels": { HOSTILE: HOSTILE }, "created_at": HOSTILE, "started_at": HOSTILE, "ended_at": HOSTILE,
        "args": [HOSTILE], "env": [HOSTILE], "directory": HOSTILE,
        "mounts": [{ "host": HOSTILE, "guest": HOSTILE, "read_only": true }], "memory_bytes_max": 1, "disk_bytes_max": 1,
        "files_max": 1, "timeout_ms": null, "cpu_time_ms": null, "cpu_weight": 100, "cpus_milli": null, "cpu_us": null,
        "stopped": null,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_tables_of_printable_text() {
    let width = SHOWN.chars().count();
    let list = [json!({ "ok": { "instances": [instance()] } })];
    let (code, out, _) = shown(&["list"], &list).await;
    let table = format!(
        "NAME  MODULE  {:width$}  {:width$}  RUN  WHY\nweb   hello   {SHOWN}  {SHOWN}  1    {SHOWN}\n",
        "STATE", "SINCE"
    );
    assert_eq!((code, out), (0, table));
    let (_, out, _) = shown(&["list", "--format", "json"], &list).await;
    assert_eq!(out.matches(IN_JSON).count(), 15, "{out}");

    let modules = [json!({ "ok": { "modules": [
        { "name": "web", "source": "stored", "path": HOSTILE, "bytes": 1, "digest": HOSTILE },
        { "name": "db", "source": HOSTILE, "path": null, "bytes": 1, "digest": null },
    ] } })];
    let (code, out, _) = shown(&["modules"], &modules).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines.len()), (0, 3), "{out}");
    assert!(lines[1].starts_with("web   1 B   a\\x1b[2J\\x7f") && lines[1].ends_with(SHOWN), "{out}");
    assert!(lines[2].starts_with("db    1 B   -  ") && lines[2].ends_with(SHOWN), "{out}");

    let limits = [json!({ "ok": { "limits": [
        { "flag": HOSTILE, "default": HOSTILE, "unit": "count", "value": 1, "used": 1, "what": HOSTILE },
    ], "fence": HOSTILE } })];
    let (code, out, _) = shown(&["limits"], &limits).await;
    let table = format!(
        "{:width$}  VALUE  {:width$}  USED  BOUNDS\n{SHOWN}  1      {SHOWN}  1     {SHOWN}\n\nKernel fence: {SHOWN}\n",
        "LIMIT", "DEFAULT"
    );
    assert_eq!((code, out), (0, table));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_json_that_says_the_same() {
    let mut inspection = instance();
    inspection["runs"] = json!([]);
    let (code, out, _) = shown(&["inspect", "web"], &[json!({ "ok": inspection })]).await;
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (0, inspection.clone()));
    let (code, page, _) = shown(&["inspect", "--format", "table", "web"], &[json!({ "ok": inspection })]).await;
    assert!(code == 0 && page.matches(SHOWN).count() >= 10, "{page}");
    let template = "{{.message}} {{json .message}}";
    let (_, out, _) = shown(&["list", "--format", template], &[json!({ "ok": { "instances": [instance()] } })]).await;
    assert_eq!(out, format!("{SHOWN} \"{IN_JSON}\"\n"));
    let (_, out, _) = shown(&["hello"], &[json!({ "ok": { HOSTILE: HOSTILE } })]).await;
    assert_eq!(out, format!("{{\n  \"{IN_JSON}\": \"{IN_JSON}\"\n}}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_one_line() {
    let event = json!({
        "seq": 7, "at": "2026-11-24T10:00:00Z", "type": "ended", "name": "web", "run": 1, "module": "hello",
        "state": HOSTILE, "exit_code": 3, "reason": HOSTILE, "message": HOSTILE, "labels": { HOSTILE: HOSTILE },
    });
    let lines = [json!({ "event": { "type": "registry", "event": event } }), json!({ "ok": { "newest": 7 } })];
    let (code, out, _) = shown(&["events"], &lines).await;
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(code == 0 && out.ends_with(&format!(" reason={SHOWN} {SHOWN}={SHOWN}\n")), "{out}");
    let (_, out, _) = shown(&["events", "--format", "json"], &lines).await;
    assert!(out.lines().count() == 1 && out.matches(IN_JSON).count() == 5, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_and_an_end_are_one_line() {
    let refusal = json!({ "error": { "code": "usage", "message": HOSTILE } });
    let error = (125, String::new(), format!("error: {SHOWN}\n"));
    for words in [
        &["list"][..],
        &["list", "-q"],
        &["inspect", "web"],
        &["logs", "web"],
        &["events"],
        &["modules"],
        &["limits"],
        &["stop", "web"],
        &["kill", "web"],
        &["restart", "web"],
        &["wait", "web"],
        &["rm", "web"],
        &["prune"],
        &["forget", "web"],
        &["hello"],
        &["ping"],
        &["shutdown"],
        &["run", "web"],
        &["run", "-d", "web"],
    ] {
        assert_eq!(shown(words, std::slice::from_ref(&refusal)).await, error, "{words:?}");
    }
    let each = json!({ "ok": { "each": [refusal, { "ok": {} }] } });
    assert_eq!(shown(&["rm", "a", "b"], &[each]).await, (125, "b\n".into(), format!("error: {SHOWN}\n")));
    let ended = shown(&["run", "web"], &[json!({ "ok": instance() })]).await;
    assert_eq!(ended, (3, String::new(), format!("error: 'web' {SHOWN}: {SHOWN}\n")));
    let mut between = instance();
    between["state"] = "restarting".into();
    let (_, _, err) = shown(&["run", "web"], &[json!({ "ok": between })]).await;
    assert_eq!(err, format!("coracle: 'web' ended with 3 and runs again (--restart {SHOWN})\n"));
    // No JSON at all.
    let (code, out, err) = Impostor::answering(format!("{HOSTILE}\n").into_bytes()).await.cli.run(&["ping"]).await;
    assert!(code == 125 && out.is_empty() && !acts(&err), "{err:?}");
    let (told, hint) = err.split_once('\n').unwrap();
    assert!(told.ends_with(": a\\x1b[2J\\x7f\\x9b\\u{202e}\\u{2028}\\u{feff}\\r"), "{err}");
    assert_eq!(hint, "hint: `coracle doctor` looks what is there\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_told_in_printable_names() {
    let module = json!({ "ok": { "name": "web", "source": "stored", "path": null, "bytes": 1, "digest": HOSTILE } });
    let file = tempfile::Builder::new().suffix(".wat").tempfile().unwrap();
    let put = shown(&["put", "--name", "web", file.path().to_str().unwrap()], &[module]).await;
    assert_eq!(put, (0, format!("web {SHOWN}\n"), String::new()));
    // What was typed, and what only looks like a name of ours.
    let removed = shown(&["rm", HOSTILE], &[json!({ "ok": {} })]).await;
    assert_eq!(removed, (0, format!("{SHOWN}\n"), String::new()));
    for (words, reply) in [
        (&["run", "-d", "web"][..], json!({ "ok": { "name": HOSTILE, "directory": "/", "run": 1 } })),
        (&["prune"], json!({ "ok": { "removed": [HOSTILE] } })),
        (&["list", "-q"], json!({ "ok": { "instances": [{ "name": HOSTILE }] } })),
    ] {
        let (code, out, err) = shown(words, &[reply]).await;
        assert!(
            code == 125 && out.is_empty() && err.starts_with("error: this is no coracle daemon"),
            "{words:?}: {err}"
        );
    }
}

/// A log is the one thing that goes through as it is, and not to a terminal.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_escaped_for_a_terminal_only() {
    let output = |stream: &str| json!({ "event": { "type": "output", "stream": stream, "at": "2026-11-24T10:00:00Z", "run": 1, "text": HOSTILE } });
    let lines = [output("stdout"), output("stderr"), json!({ "ok": { "dropped_bytes": 0 } })];
    let impostor = Impostor::saying(&lines).await;
    let logs = impostor.cli.run(&["logs", "web"]).await;
    assert_eq!(logs, (0, HOSTILE.into(), HOSTILE.into()));
    let mut script = std::process::Command::new("script");
    script
        .args(["-qec", &format!("{} logs -t web", env!("CARGO_BIN_EXE_coracle")), "/dev/null"])
        .env("CORACLE_HOST", impostor.cli.address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let Ok(child) = script.spawn() else { return cannot_try("script(1), a terminal for the command line") };
    let output = soon("the log", tokio::task::spawn_blocking(|| child.wait_with_output().unwrap())).await.unwrap();
    let at = "2026-11-24T10:00:00.000000000Z";
    let first = format!("{at} a\\x1b[2J\\x7f\\x9b\\u{{202e}}\\u{{2028}}\\u{{feff}}\r\n");
    let last = format!("{at} \\tz\r\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{first}{first}{last}{last}"));
}

/// One record, one line, in both formats: paths in it are what somebody else named.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_log_is_lines_of_printable_text() {
    let mut cli = Cli::alone();
    let (state, root) = (cli.directory.path().join(HOSTILE), cli.directory.path().join(format!("root {HOSTILE}")));
    // What it cannot remove it complains about: a directory among files. In a state directory that is there.
    let foreign = state.join("modules").join(HOSTILE);
    for (life, format) in ["text", "text", "json"].into_iter().enumerate() {
        let mut child = cli
            .command(&["daemon", "--listen", "127.0.0.1:0", "--log-format", format])
            .env("CORACLE_STATE_DIR", &state)
            .env("CORACLE_ROOT", &root)
            .env("CORACLE_LOG", "debug")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        cli.address = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
        assert_eq!(cli.run(&["run", "hello", HOSTILE]).await.0, 0);
        assert_eq!(cli.run(&["shutdown"]).await.0, 0);
        let (code, _, log) = exit_code(child).await;
        assert!(code == 0 && !acts(&log), "{log:?}");
        std::fs::create_dir_all(&foreign).unwrap();
        if life == 0 {
            continue;
        }
        let (ready, complaint) = ("ready", "cannot remove an unused module");
        if format == "json" {
            let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let find = |message: &str| {
                let is =
                    |record: &&Value| record["fields"]["message"].as_str().unwrap_or_default().starts_with(message);
                records.iter().find(is).unwrap_or_else(|| panic!("no '{message}' in {log}"))["fields"].clone()
            };
            assert_eq!(find(ready)["root"], *root.to_str().unwrap());
            assert_eq!(find(complaint)["path"], *foreign.to_str().unwrap());
        } else {
            assert!(log.lines().all(|line| line.starts_with("20") && line.contains('Z')), "{log}");
            for message in [ready, complaint] {
                let line = log.lines().find(|line| line.contains(message)).unwrap_or_else(|| panic!("{log}"));
                assert!(line.contains(SHOWN), "{line}");
            }
        }
    }
}
