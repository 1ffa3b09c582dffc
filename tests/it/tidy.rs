//! Reads the sources, and holds them to what ARCHITECTURE.md promises.

use crate::support::source;
use std::path::{Path, PathBuf};

fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, out: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                out.push((path, text));
            }
        }
    }
    let mut out = vec![];
    walk(&source().join(folder), &mut out);
    assert!(!out.is_empty(), "no sources in {folder}");
    out
}

/// Lines of code that contain one of the words; comments and tests do not count.
fn offenders(folder: &str, except: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = vec![];
    for (path, text) in rust_files(folder) {
        let shown = path.strip_prefix(source()).unwrap().display().to_string().replace('\\', "/");
        if except.iter().any(|e| shown.starts_with(e)) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            if words.iter().any(|w| line.contains(w)) {
                found.push(format!("{shown}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn only_the_engine_knows_wasmtime() {
    assert_eq!(
        offenders("src", &["src/engine/"], &["wasmtime::", "wasmtime_wasi", "use wasmtime"]),
        Vec::<String>::new()
    );
}

#[test]
fn the_model_is_pure() {
    let impure = [
        "tokio",
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "SystemTime::now",
        "Instant::now",
        "rusqlite",
        "rustix",
        "tracing",
    ];
    assert_eq!(offenders("src/model", &[], &impure), Vec::<String>::new());
}

#[test]
fn arrows_point_one_way() {
    for (room, forbidden) in [
        (
            "src/model",
            &[
                "crate::engine",
                "crate::daemon",
                "crate::api",
                "crate::cli",
                "crate::client",
                "crate::server",
                "crate::config",
            ][..],
        ),
        (
            "src/transport",
            &["crate::engine", "crate::daemon", "crate::api", "crate::cli", "crate::client", "crate::server"],
        ),
        ("src/engine", &["crate::daemon", "crate::api", "crate::cli", "crate::client", "crate::server"]),
        ("src/daemon", &["crate::api", "crate::cli", "crate::client", "crate::server"]),
        ("src/api", &["crate::cli", "crate::client", "crate::server"]),
    ] {
        assert_eq!(offenders(room, &[], forbidden), Vec::<String>::new(), "{room}");
    }
    let client = std::fs::read_to_string(source().join("src/client.rs")).unwrap();
    assert!(!client.contains("crate::daemon") && !client.contains("crate::engine"));
}

#[test]
fn only_the_command_line_prints() {
    assert_eq!(offenders("src", &["src/cli/"], &["io::stdout", "io::stderr", "println!", "print!"]), ["src/none"; 0]);
}

#[test]
fn main_is_a_door_and_no_file_is_a_hall() {
    for (path, text) in rust_files("src").into_iter().chain(rust_files("tests")) {
        let lines = text.lines().count();
        let most = if path.ends_with("src/main.rs") { 100 } else { 700 };
        assert!(lines <= most, "{} has {lines} lines", path.display());
        assert!(text.starts_with("//!"), "{} does not say what it owns", path.display());
    }
}

#[test]
fn every_guest_has_a_test() {
    for (guests, tests) in [("tests/guests", "tests/it"), ("tests/torture/guests", "tests/torture")] {
        let tests: String = rust_files(tests).into_iter().map(|(_, text)| text).collect();
        for entry in std::fs::read_dir(source().join(guests)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let used = [format!("\"{name}\""), format!("\"{name}-p2\""), format!("run {name}"), format!(" {name}\")")];
            assert!(used.iter().any(|u| tests.contains(u)), "no test runs {name}");
        }
    }
}
