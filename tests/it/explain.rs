//! `coracle explain` and `get`: what is told of a module is what a run says of it.

use crate::support::{Cli, Harness, guests, source};
use serde_json::Value;

/// What `explain` says of a module, as JSON, with its exit code.
async fn explained(cli: &Cli, module: &str) -> (i32, Value) {
    let (code, out, err) = cli.run(&["explain", "--format", "json", module]).await;
    (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{module}: {e}: {out} {err}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_of_each_guest_what_a_run_says() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let mut seen = 0;
    for entry in std::fs::read_dir(guests()).unwrap() {
        let path = entry.unwrap().path();
        let path = path.to_str().unwrap();
        let (code, report) = explained(&cli, path).await;
        let (put, _, err) = cli.run(&["put", "--name", &format!("m{seen}"), path]).await;
        assert_eq!(report["runs"], put == 0, "{path}: {report} {err}");
        assert_eq!(code, if put == 0 { 0 } else { 126 }, "{path}");
        if put == 0 {
            // Accepted: the module is compiled, checked and linked by then.
            let ran = cli.run(&["run", "-d", "--name", &format!("r{seen}"), &format!("m{seen}")]).await;
            assert_eq!(ran.0, 0, "{path}: {ran:?}");
            assert_eq!(cli.run(&["rm", "-f", &format!("r{seen}")]).await.0, 0, "{path}");
        }
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
    for name in ["hello", "clock", "spin"] {
        let (code, report) = explained(&cli, name).await;
        assert_eq!(
            (code, &report["runs"], &report["command"]),
            (0, &true.into(), &format!("coracle run {name}").into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_module_is_told_alike_by_explain_and_run() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    for (text, why) in [
        ("(module (import \"env\" \"emscripten_memcpy_js\" (func)) (func (export \"_start\")))", "Emscripten"),
        ("(module (import \"wbg\" \"__wbindgen_throw\" (func)))", "wasm-bindgen"),
        ("(module (import \"gojs\" \"runtime.wasmExit\" (func)))", "Go"),
        ("(module (import \"wasix_32v1\" \"fd_dup\" (func)) (func (export \"_start\")))", "WASIX"),
        ("(module (import \"host\" \"f\" (func)) (func (export \"_start\")))", "no flag adds to it"),
        ("(module (func (export \"_initialize\")))", "it is a library"),
        ("(component (import \"wasi:http/types@0.2.0\" (instance (export \"f\" (func)))))", "no network, and no flag"),
    ] {
        let file = cli.directory.path().join("refused.wat");
        std::fs::write(&file, text).unwrap();
        let path = file.to_str().unwrap();
        let (code, report) = explained(&cli, path).await;
        assert_eq!((code, &report["runs"]), (126, &false.into()), "{text}");
        assert!(report["why"].as_str().unwrap().contains(why), "{report}");
        assert!(report["way_out"].is_string(), "{report}");
        let (code, _, err) = cli.run(&["run", path]).await;
        assert!(code == 126 && err.contains(why), "{err}");
        assert!(
            err.ends_with(&format!("hint: `coracle explain {path}` says what it is, and what it wants\n")),
            "{err}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_explained_without_a_daemon_and_a_name_by_what_get_sends() {
    let cli = Cli::alone();
    let file = source().join("tests/guests/trap.wat");
    let (code, out, err) = cli.run(&["explain", file.to_str().unwrap()]).await;
    assert!(code == 0 && out.contains("\nkind      a program of WASI preview 1") && err.is_empty(), "{out} {err}");
    assert!(out.ends_with(&format!("run it    coracle run {}\n", file.display())), "{out}");
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["put", "--name", "stored", file.to_str().unwrap()]).await.0, 0);
    let got = cli.run(&["get", "stored"]).await;
    assert_eq!(got, (0, std::fs::read_to_string(&file).unwrap(), String::new()));
    let (code, _, err) = cli.run(&["get", "helo"]).await;
    assert_eq!((code, err.as_str()), (127, "error: no module named 'helo' (did you mean 'hello'?)\n"));
    // The name of an instance is no module's, but it leads to one.
    assert_eq!(cli.run(&["run", "-d", "--name", "web", "stored"]).await.0, 0);
    let (code, _, err) = cli.run(&["explain", "web"]).await;
    assert!(code == 127 && err.starts_with("error: no module named 'web'"), "{err}");
    assert!(err.ends_with("\nhint: 'web' is an instance of the module 'stored': coracle explain stored\n"), "{err}");
    assert!(daemon.raw().await.ask("get hello").await.starts_with("ERR usage get streams events"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_is_told_with_what_was_meant() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["run", "-d", "--name", "web", "sleep"]).await.0, 0);
    for (words, told) in [
        (&["stop", "wbe"][..], "error: no instance named 'wbe' (did you mean 'web'?)\n"),
        (&["logs", "wbe"], "error: no instance named 'wbe' (did you mean 'web'?)\n"),
        (&["lst"], "error: there is no command 'lst' (did you mean 'list'?)\nhint: coracle help\n"),
        (&["help", "lst"], "error: there is no command 'lst' (did you mean 'list'?)\nhint: coracle help\n"),
        (
            &["rm", "--forse", "web"],
            "error: unexpected argument '--forse' found (did you mean '--force'?)\nhint: coracle help rm\n",
        ),
        (
            &["run", "-d", "--name", "web", "sleep"],
            "error: 'web' is already running; stop it first, or give the new one another name with --name\n\
             hint: coracle rm -f web, or coracle restart web\n\
             hint: or give the new one another name: coracle run --name OTHER …\n",
        ),
        (
            &["rm", "web"],
            "error: 'web' is running; stop it first, or remove it with --force\nhint: coracle rm -f web\n",
        ),
    ] {
        assert_eq!(cli.run(words).await, (125, String::new(), told.to_owned()), "{words:?}");
    }
    let (_, _, err) = cli.run(&["run", "-m", "64k", "fill"]).await;
    assert!(err.contains("(-m)\nhint: give it more memory, such as -m 1m\n"), "{err}");
}

/// A module says as much of itself as it likes, and a person gets a page.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_a_module_is_bounded_and_printable() {
    let cli = Cli::alone();
    let file = cli.directory.path().join("loud.wat");
    let long = "\\1b[2J\\e2\\80\\ae".repeat(5000);
    let exports: String = (0..9000).map(|n| format!("(export \"f{n}{}\" (func 0))", &long[..200])).collect();
    let text = format!(
        "(module (import \"{long}\" \"{long}\" (func)) (func (export \"_start\")) (export \"{long}\" (func 0)) {exports})"
    );
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let (code, out, err) = cli.run(&["explain", path]).await;
    assert!(code == 126 && err.is_empty() && out.len() < 10_000 && out.lines().count() < 20, "{} {err}", out.len());
    assert!(!out.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{out:?}");
    assert!(out.contains("more\n") && out.contains("it cannot run: it imports `"), "{out}");
    let (code, out, _) = cli.run(&["explain", "--format", "json", path]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 126 && out.len() < 100_000 && report["exports_count"] == 9002, "{}", out.len());
    assert!(!out.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')));
    // What is no module at all, and what is no file.
    for (bytes, why) in [(&b"\x7fELF"[..], "native object"), (b"", "empty"), (b"#!/bin/sh", "WebAssembly")] {
        let file = cli.directory.path().join("other.wasm");
        std::fs::write(&file, bytes).unwrap();
        let (code, out, _) = cli.run(&["explain", file.to_str().unwrap()]).await;
        assert!(code == 126 && out.contains("kind      nothing that could be read") && out.contains(why), "{out}");
    }
    let (code, _, err) = cli.run(&["explain", "./nowhere.wasm"]).await;
    assert!(code == 127 && err.starts_with("error: cannot read ./nowhere.wasm\n  caused by: "), "{err}");
    let (code, _, err) = cli.run(&["explain", "hello"]).await;
    assert!(code == 125 && err.contains("no daemon answers") && err.contains("a file needs no daemon"), "{err}");
}
