//! README.md and docs/guide.md say what is true: their commands are there and work, their limits are those of the program.

use crate::support::{Cli, Harness, soon, source};

fn readme() -> String {
    std::fs::read_to_string(source().join("README.md")).unwrap()
}

fn guide() -> String {
    std::fs::read_to_string(source().join("docs/guide.md")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_works_as_it_stands() {
    let readme = readme();
    assert!(readme.lines().any(|l| l == "cargo test"), "the command that tests");
    let command =
        readme.lines().find(|l| l.starts_with("cargo run --release -- ")).expect("the command that runs something");
    assert_eq!(command, "cargo run --release -- run hello");
    // What follows the dashes, with the program that was built for this test; CI runs the whole line.
    let cli = Cli::alone();
    let words: Vec<&str> = command.split(" -- ").nth(1).unwrap().split(' ').collect();
    let (code, out, err) = cli.run(&words).await;
    assert_eq!((code, out.as_str()), (0, "Hello from Coracle!\n"), "{err}");
    assert!(readme.contains(out.trim_end()), "README shows what it prints");
    cli.run(&["shutdown"]).await;
}

/// The session in README.md, typed again: lines in pairs, what was sent and what came back.
#[tokio::test(flavor = "multi_thread")]
async fn the_netcat_session_is_a_real_one() {
    let readme = readme();
    let session = readme.split("$ nc 127.0.0.1 8080\n").nth(1).unwrap().split("```").next().unwrap();
    let lines: Vec<&str> = session.lines().collect();
    assert!(lines.len() >= 8 && lines.len().is_multiple_of(2), "{lines:?}");
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    for pair in lines.chunks(2) {
        let expected = pair[1].replace("/tmp/", &format!("{}/", daemon.root.display()));
        let mut reply = raw.ask(pair[0]).await;
        // A person types more slowly than a guest starts.
        soon("the state that README shows", async {
            while pair[0] == "list" && reply != expected {
                reply = raw.ask("list").await;
            }
        })
        .await;
        assert_eq!(reply, expected, "{}", pair[0]);
    }
}

/// A cell without the backticks around it.
fn plain(cell: &str) -> String {
    let inner = cell.strip_prefix('`').and_then(|c| c.strip_suffix('`')).filter(|c| !c.contains('`'));
    inner.unwrap_or(cell).to_owned()
}

#[test]
fn the_table_of_limits_is_that_of_the_program() {
    let rows: Vec<Vec<String>> = guide()
        .lines()
        .filter(|l| l.starts_with("| `--"))
        .map(|l| l.trim_matches('|').split(" | ").map(|c| plain(c.trim())).collect())
        .collect();
    let limits = coracle::config::limits();
    assert_eq!(rows.len(), limits.len(), "{rows:?}");
    for (row, limit) in rows.iter().zip(limits) {
        assert_eq!(row[0], limit.flag);
        if !limit.default.is_empty() {
            assert_eq!(row[1], limit.default, "{}", limit.flag);
        }
        assert_eq!(row[2], limit.what.split(" [default").next().unwrap(), "{}", limit.flag);
    }
}

#[test]
fn every_exit_code_and_every_verb_has_its_line() {
    let guide = guide();
    for code in ["124", "125", "126", "127", "134", "137", "143"] {
        assert!(guide.contains(&format!("| {code} |")), "{code}");
    }
    let protocol = std::fs::read_to_string(source().join("docs/protocol.md")).unwrap();
    let verbs = "run stop kill restart list wait rm prune logs inspect stats events put get modules forget limits hello ping format help \
                 shutdown";
    for verb in verbs.split_whitespace() {
        assert!(
            protocol.lines().any(|l| l.starts_with('#') && l.contains(&format!("`{verb}"))),
            "docs/protocol.md has no section on {verb}"
        );
    }
}

/// Whether there is a test of that name, as `docs/threats.md` names tests.
fn is_a_test(named: &str) -> bool {
    let (place, function) = named.rsplit_once("::").unwrap();
    let found = |path: std::path::PathBuf| {
        std::fs::read_to_string(path).is_ok_and(|text| {
            // With its attribute somewhere above it, or within a block of properties.
            text.match_indices(&format!("fn {function}("))
                .any(|(at, _)| ["test]", "test(", "proptest!"].iter().any(|mark| text[..at].contains(mark)))
        })
    };
    let folder = |path: std::path::PathBuf| {
        let mut folders = vec![path];
        let mut files = vec![];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files
    };
    let base =
        if place.starts_with("it/") || source().join(format!("tests/{place}.rs")).exists() { "tests" } else { "src" };
    let at = source().join(base).join(place);
    found(at.with_extension("rs")) || folder(at).into_iter().any(found)
}

/// The tests that are named in a text, in backticks.
fn tests_named(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::") && !quoted.contains(' ')).collect()
}

#[test]
fn every_threat_and_every_promise_names_tests_that_are_there() {
    let read = |name: &str| std::fs::read_to_string(source().join("docs").join(name)).unwrap();
    let (threats, promises) = (read("threats.md"), read("specification.md"));
    let rows: Vec<&str> =
        threats.lines().filter(|l| l.starts_with("| ") && l[2..].starts_with(|c: char| c.is_ascii_digit())).collect();
    for (number, row) in (1..=36).zip(&rows) {
        assert!(row.starts_with(&format!("| {number} | ")), "{row}");
        assert!(!tests_named(row.rsplit(" | ").next().unwrap()).is_empty(), "{row}");
    }
    assert_eq!(rows.len(), 36);
    let mut count = 0;
    for part in promises.split("\n\n").flat_map(|part| part.split_inclusive(".\n")) {
        let begins = part.lines().find_map(|l| l.split_once(". ").and_then(|(n, _)| n.trim().parse::<u32>().ok()));
        if let Some(number) = begins {
            count += 1;
            assert_eq!(number, count, "{part}");
            assert!(!tests_named(part).is_empty(), "{part}");
        }
    }
    assert_eq!(count, 37);
    let missing: Vec<&str> =
        [tests_named(&threats), tests_named(&promises)].concat().into_iter().filter(|test| !is_a_test(test)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(
        !is_a_test("it/papers::a_test_that_is_not_there") && is_a_test("it/papers::the_quick_start_works_as_it_stands")
    );
}
