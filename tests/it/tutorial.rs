//! docs/tutorial.md is typed once more.

use crate::support::{Cli, Harness, cannot_try, source};
use std::path::Path;

/// A fenced block: what stands behind the three backticks, and its text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    for (i, part) in page.split("```").enumerate() {
        if i % 2 == 1 {
            let (head, text) = part.split_once('\n').expect("a block has lines");
            found.push((head.to_owned(), text.to_owned()));
        }
    }
    found
}

/// Whether it was printed: `…` stands for any text in a line, and alone for any lines.
fn fits(printed: &[&str], shown: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((&"…", rest)) => (0..=printed.len()).any(|skipped| fits(&printed[skipped..], rest)),
        Some((line, rest)) => printed.split_first().is_some_and(|(p, others)| line_fits(p, line) && fits(others, rest)),
    }
}

fn line_fits(printed: &str, shown: &str) -> bool {
    let pieces: Vec<&str> = shown.split('…').collect();
    let [first, middle @ .., last] = pieces.as_slice() else { return printed == shown };
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn what_was_printed_is_compared() {
    assert!(fits(&["a", "b"], &["a", "b"]) && fits(&["a", "x", "y", "b"], &["a", "…", "b"]));
    assert!(line_fits("NAME  STATE", "NAME …") && line_fits("x trapped y", "x …trapped…"));
    assert!(!fits(&["a"], &["a", "b"]) && !fits(&["a", "c"], &["a"]) && !line_fits("NAME", "NOUN…"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_does_what_is_shown() {
    let page = std::fs::read_to_string(source().join("docs/tutorial.md")).unwrap();
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let here = tempfile::tempdir().unwrap();
    let (mut files, mut commands) = (0, 0);
    for (head, text) in blocks(&page) {
        match head.split_once(' ') {
            // A file that is kept in this repository is shown as it is.
            Some((_, path)) if Path::new(path).components().count() > 1 => {
                assert_eq!(std::fs::read_to_string(source().join(path)).unwrap(), text, "{path}");
                files += 1;
            }
            Some((_, name)) => {
                std::fs::write(here.path().join(name), &text).unwrap();
                files += 1;
            }
            None if head == "console" => {
                for step in text.split("$ ").skip(1) {
                    let (command, shown) = step.split_once('\n').unwrap();
                    if command.contains("hungry.wasm") {
                        let Some(built) = crate::examples::built("hungry") else { return };
                        std::fs::copy(built, here.path().join("hungry.wasm")).unwrap();
                    }
                    if command.starts_with("clang")
                        && std::process::Command::new("clang").arg("--version").output().is_err()
                    {
                        return cannot_try("the tutorial in C: there is no clang");
                    }
                    let mut shell = cli.shell(command);
                    shell.current_dir(here.path());
                    let (code, out, err) = cli.finish(shell, b"").await;
                    let printed: Vec<String> = [out, err].concat().lines().map(|l| l.trim_end().to_owned()).collect();
                    let printed: Vec<&str> = printed.iter().map(String::as_str).collect();
                    let shown: Vec<&str> = shown.lines().collect();
                    assert!(fits(&printed, &shown), "{command}\nprinted {printed:#?}\nshown {shown:#?}");
                    assert_eq!(code, 0, "{command}");
                    commands += 1;
                }
            }
            None => {}
        }
    }
    assert!(files >= 3 && commands >= 10, "{files} files, {commands} commands");
}
