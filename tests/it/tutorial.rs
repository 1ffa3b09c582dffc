//! docs/tutorial.md, and the session in README.md, are typed once more.

use crate::support::{Cli, Harness, cannot_try, soon, source};
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

/// The commands of a block, each with the lines below it.
fn steps(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    let step = |step| str::split_once(step, '\n').map(|(command, shown)| (command, shown.lines().collect()));
    text.split("$ ").skip(1).map(move |text| step(text).expect("a command stands on a line"))
}

/// A line without what is another at each run: numbers, and how much room they take.
fn without_numbers(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let digits: String = word.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
        let mut word = digits.clone();
        while word.contains("##") {
            word = word.replace("##", "#");
        }
        if word == "second" { "seconds".to_owned() } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_in_the_readme_is_a_real_one() {
    let page = std::fs::read_to_string(source().join("README.md")).unwrap();
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let mut commands = 0;
    for (head, text) in blocks(&page) {
        for (command, shown) in steps(&text).filter(|_| head == "console") {
            let shown: Vec<String> = shown.into_iter().map(without_numbers).collect();
            // A person types more slowly than a guest starts.
            let asks = ["coracle list", "coracle stats", "coracle logs"].iter().any(|verb| command.starts_with(verb));
            soon(&format!("what README shows of {command}"), async {
                loop {
                    let (_, out, err) = cli.finish(cli.shell(command), b"").await;
                    let printed: Vec<String> = [out, err].concat().lines().map(without_numbers).collect();
                    if printed == shown {
                        break;
                    }
                    assert!(asks, "{command}\nprinted {printed:#?}\nshown {shown:#?}");
                }
            })
            .await;
            commands += 1;
        }
    }
    assert!(commands >= 8, "{commands} commands");
}

#[test]
fn what_was_printed_is_compared() {
    assert_eq!(without_numbers("spin  64K/16M   1.16s  1 second ago"), "spin #K/#M #.#s # seconds ago");
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
                for (command, shown) in steps(&text) {
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
