//! The promises under proptest, and on what fuzzing found worth keeping.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use std::fs;
use std::path::PathBuf;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a folder, without their extensions.
fn entries(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(fuzz().join(folder)).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_fuzzing_found_worth_keeping_holds() {
    let mut bytes_all = 0;
    for (name, check) in ALL {
        let corpus = fuzz().join("corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            assert!(std::panic::catch_unwind(|| check(&bytes)).is_ok(), "{}", path.display());
            bytes_all += bytes.len();
            inputs += 1;
        }
        assert!(inputs >= 5, "{} has {inputs} inputs", corpus.display());
    }
    assert!(bytes_all < 200_000, "{bytes_all} bytes: `cargo fuzz cmin` (fuzz/README.md)");
}

#[test]
fn each_promise_has_a_target_and_a_corpus() {
    let all = ALL.map(|(name, _)| name.to_owned());
    assert_eq!(entries("fuzz_targets"), all);
    assert_eq!(entries("corpus"), all);
    for name in all {
        let target = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("check::{name}(")), "{name}");
    }
}

/// A promise that cannot be broken says nothing.
#[test]
fn what_breaks_a_promise_panics() {
    for line in ["no end", "two\nlines\n", "\x1b[2J\n", "\u{202e}\n", "too long\n"] {
        assert!(std::panic::catch_unwind(|| one_line(line, 8)).is_err(), "{line:?}");
    }
    one_line("short\n", 8);
    assert!(std::panic::catch_unwind(|| again(&Forgetful { what: 1 })).is_err());
}

/// Loses what it holds on the way to JSON and back.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Forgetful {
    #[serde(skip)]
    what: u8,
}

/// Requests as somebody types them, with slips.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let verbs = "run stop kill restart list ls wait rm prune logs inspect events put modules forget limits hello ping format \
                 help shutdown RUN --help";
    let known = "-d --attach --name -i -e A=1 KEY --env-file -m 64m --disk=1g --files 7 --cpus 0.25 --cpu-weight 100 --timeout \
                 1m30s --cpu-time=5ns --restart on-failure:3 --rm -l k=v --argv0 -- hello web -f label=a=b until=10m \
                 status=exited --since 2026-11-24 --until=17 -n --tail=5 --help -t json plain --format table --condition \
                 running --size --sha256 -v -q";
    let word = prop_oneof![
        4 => select(known.split(' ').collect::<Vec<_>>()).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => "[0-9]{1,21}[a-z.]{0,3}",
        1 => "-{0,2}[a-z]{1,8}(=\\PC{0,8})?",
    ];
    (select(verbs.split(' ').collect::<Vec<_>>()), prop::collection::vec(word, 0..8), 0..3).prop_map(
        |(verb, mut words, how)| {
            words.insert(0, verb.to_owned());
            match how {
                0 => json!(words).to_string(),
                1 => shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default(),
                _ => words.join(" "),
            }
            .into_bytes()
        },
    )
}

/// What is written down as JSON, with fields that are there or not.
fn json_text() -> impl Strategy<Value = String> {
    let text = || "\\PC{0,9}|[a-z\\x00-\\x1f]{1,5}";
    let name = || "[a-z]{1,5}|con|\\.\\.|[A-Za-z0-9._-]{1,70}";
    let time = prop_oneof![
        any::<u64>().prop_map(|n| Timestamp(n).to_string()),
        "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-9]{2}:[0-9]{2}:[0-6][0-9](\\.[0-9]{0,9})?Z",
    ];
    let policy = select(vec!["no", "always", "unless-stopped", "on-failure", "on-failure:3", "on-failure:0", "never"]);
    let number = prop_oneof![0u64..300, any::<u64>()];
    (
        (text(), name(), name(), time),
        (policy, number, any::<bool>()),
        prop::collection::btree_map(text(), text(), 0..3),
        (prop::collection::vec(text(), 0..3), prop::option::of(text()), 0..6),
    )
        .prop_map(|((text, name, module, time), (policy, n, yes), labels, (args, maybe, kind))| {
            let state = ["exited", "trapped", "lost", "timed-out", &text][usize::try_from(n % 5).unwrap()];
            let stopped = json!({ "rung": "host-call", "took_us": n });
            match kind {
                0 => json!({
                    "module": module, "digest": text, "argv0": maybe, "args": args, "env": args, "directory": text,
                    "memory_bytes_max": n, "timeout_ms": yes.then_some(n), "restart": policy, "remove": yes,
                    "fresh": yes, "labels": labels, "pinned": !yes, "share": { "cpu_weight": 7, "cpus_milli": null },
                }),
                1 => json!({
                    "seq": n, "at": time, "type": text, "name": name, "run": n % 9, "module": module, "state": maybe,
                    "exit_code": n % 300, "reason": maybe, "delay_ms": n, "labels": labels,
                }),
                2 => json!({
                    "status": { "state": state, "code": n }, "reason": text, "message": maybe, "cpu_us": n,
                    "stopped": stopped,
                }),
                3 => json!({
                    "run": n % 9, "module": module, "digest": text, "state": state, "exit_code": null, "reason": maybe,
                    "message": text, "created_at": time, "started_at": maybe, "ended_at": null, "stopped": stopped,
                }),
                4 => json!({ "type": "output", "stream": "stderr", "at": time, "run": 1, "text": text }),
                _ => json!(labels.into_iter().collect::<Vec<_>>()),
            }
            .to_string()
        })
}

proptest! {
    #[test]
    fn any_line_is_answered(line in line()) {
        requests(&line);
    }

    #[test]
    fn any_name_is_one_component(name in "[a-zA-Z0-9._-]{1,66}|(con|NUL|com[0-9]|lpt)[.-]?[0-9a-z]{0,3}|\\PC{0,70}") {
        names(name.as_bytes());
    }

    #[test]
    fn what_is_written_down_is_read_back(text in json_text(), at in any::<prop::sample::Index>(), byte in any::<Option<u8>>()) {
        let mut bytes = text.into_bytes();
        if let Some(byte) = byte {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        stored(&bytes);
    }

    #[test]
    fn any_number_is_a_time(number in prop_oneof![any::<u64>(), 253_402_300_799_999_990u64..253_402_300_800_000_010]) {
        stored(&number.to_be_bytes());
    }

    #[test]
    fn no_bytes_break_a_promise(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (_, check) in ALL {
            check(&bytes);
        }
    }
}
