//! What must hold for any bytes: promises as functions that take them as they come, and panic where one is broken.
//!
//! `cargo test` tries them with proptest, and on everything that is kept in `fuzz/corpus/`; the targets in `fuzz/` hand them
//! what libFuzzer comes up with. Not part of the library's interface: `fuzz/` builds this file a second time, without the
//! engine and the database.

use crate::error::Error;
use crate::model::escape;
use crate::model::event::EventView;
use crate::model::filter::{Filter, parse_labels};
use crate::model::frame;
use crate::model::instance::{Ended, Launch, LogTime, RunSpec, Stopped, Timestamp};
use crate::model::name::{NAME_BYTES_MAX, Name};
use crate::model::reply::{Line, REPLY_BYTES_MAX, Refusal, RunView, StreamEvent, json_error, plain_error};
use crate::model::request::{self, Parsed, Request};
use crate::model::run_args::RunArgs;
use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::{Component, Path};

/// A promise about bytes.
pub type Check = fn(&[u8]);

/// All of them, each with the name of its target and of its corpus.
pub const ALL: [(&str, Check); 7] = [
    ("framing", framing),
    ("logs", logs),
    ("names", names),
    ("requests", requests),
    ("stored", stored),
    ("structure", structure),
    ("unroll", unroll),
];

/// However the network cuts the bytes, the same lines come out, and then the same refusal.
///
/// The first two bytes say how many others go before the rest, if any, so that a short input reaches the longest line; the next
/// six say how long the pieces are.
pub fn framing(input: &[u8]) {
    let Some((&[high, low, cuts @ ..], rest)) = input.split_first_chunk::<8>() else { return };
    let padding = match u16::from_be_bytes([high, low]).checked_sub(1 << 15) {
        Some(padding) => usize::from(padding) % (frame::LINE_BYTES_MAX + 8),
        None => 0,
    };
    let bytes = [&vec![b'x'; padding][..], rest].concat();
    let whole = read(&[&bytes]);

    let (mut pieces, mut later) = (vec![], &bytes[..]);
    for (i, cut) in cuts.iter().cycle().enumerate() {
        // The first one takes most of the padding along.
        let least = if i == 0 { padding.saturating_sub(16) } else { 1 };
        let Some((now, rest)) = later.split_at_checked(least + usize::from(cut % 32)) else { break };
        pieces.push(now);
        later = rest;
    }
    pieces.push(later);
    assert_eq!(read(&pieces), whole, "in {} pieces", pieces.len());

    let (lines, end) = whole;
    assert!(lines.iter().all(|line| line.len() <= frame::LINE_BYTES_MAX));
    if let Ok(left) = end {
        let plain = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        let mut all: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        assert_eq!(Some(&left[..]), all.pop());
        assert_eq!(lines, all.into_iter().map(plain).collect::<Vec<_>>());
    }
}

/// The lines of a connection up to the first that is refused, and what it is refused for, or what is left.
fn read(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Result<Vec<u8>, Refusal>) {
    let (mut buffer, mut lines) = (BytesMut::new(), vec![]);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let line = match frame::take_line(&mut buffer) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => return (lines, Err(Refusal::from(&error))),
            };
            if let Err(error) = frame::request_text(&line) {
                return (lines, Err(Refusal::from(&error)));
            }
            lines.push(line.to_vec());
        }
    }
    (lines, Ok(buffer.to_vec()))
}

/// Any line is a request, a text of help, or a refusal that fits a line; the words of a run are read as that run again.
pub fn requests(line: &[u8]) {
    // As the door does: an array of words in JSON, or a line.
    let words = match line.starts_with(b"[") {
        true => match frame::text(line).map(serde_json::from_str::<Vec<String>>) {
            Ok(Ok(words)) => words,
            Ok(Err(_)) => return,
            Err(error) => return refusal(&error),
        },
        false => match frame::request_text(line).and_then(request::split) {
            Ok(words) => words,
            Err(error) => return refusal(&error),
        },
    };
    if words.is_empty() {
        return;
    }
    if let Ok(quoted) = shlex::try_join(words.iter().map(String::as_str)) {
        assert_eq!(request::split(&quoted).ok().as_ref(), Some(&words), "{quoted}");
    }
    let parsed = parse(&words);
    assert_eq!(parse(&words), parsed, "what was asked before makes no difference");
    match parsed {
        Ok(Parsed::Help(text)) => assert!(!text.trim().is_empty()),
        Ok(Parsed::Request(Request::Run(run))) => words_of(&run),
        Ok(Parsed::Request(request)) => arguments_of(&request),
        Err(_) => {}
    }
}

fn parse(words: &[String]) -> Result<Parsed, Refusal> {
    request::parse(words).map_err(|error| {
        refusal(&error);
        Refusal::from(&error)
    })
}

fn words_of(run: &RunArgs) {
    let read = |run: &RunArgs| match parse(&run.words()) {
        Ok(Parsed::Request(Request::Run(read))) => *read,
        other => panic!("{:?} are read as {other:?}", run.words()),
    };
    // There are two ways to say some things; the words are one of them.
    let once = read(run);
    assert_eq!((once.words(), &once.command), (run.words(), &run.command));
    assert_eq!(read(&once), once);
    match run.environment() {
        Ok(env) => {
            assert!(env.iter().all(|(key, value)| !key.is_empty() && !key.contains('=') && !value.contains('\0')))
        }
        Err(error) => refusal(&error),
    }
    match parse_labels(&run.label) {
        Ok(labels) => assert!(!labels.contains_key("")),
        Err(error) => refusal(&error),
    }
}

fn arguments_of(request: &Request) {
    if let Some(names) = request.names()
        && let Err(error) = request::distinct(names)
    {
        refusal(&error);
    }
    let filter = match request {
        Request::List(args) => Filter::of_list(&args.filter),
        Request::Prune(args) => Filter::of_prune(&args.filter),
        Request::Events(args) => Filter::of_events(&args.filter),
        Request::Logs(args) => {
            for moment in args.since.iter().chain(&args.until) {
                assert!(moment.resolve(Timestamp(0)) <= moment.resolve(Timestamp(u64::MAX)));
            }
            return;
        }
        _ => return,
    };
    if let Err(error) = filter {
        refusal(&error);
    }
}

/// A refusal is one printable line, in both spellings, and short in plain.
fn refusal(error: &Error) {
    let json = json_error(error);
    one_line(&plain_error(error), REPLY_BYTES_MAX);
    one_line(&json, usize::MAX);
    let back: Line<()> = serde_json::from_str(&json).expect("it is JSON");
    assert!(matches!(back, Line::Error(back) if back == Refusal::from(error)));
}

fn one_line(line: &str, bytes_max: usize) {
    let text = line.strip_suffix('\n').expect("a line has an end");
    assert_eq!(escape::line(text), text);
    assert!(line.len() <= bytes_max, "{} bytes", line.len());
}

/// What is taken for a name is one component of a path on Linux, macOS and Windows, and no option of a program.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (asked, given) = (text.parse::<Name>(), Name::try_from(text.to_owned()));
    if let Err(error) = &asked {
        refusal(error);
        // Longer than every verb and device, and nothing but letters: there is no reason to refuse it.
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric()) && (20..=NAME_BYTES_MAX).contains(&text.len());
        assert!(!plain, "'{text}' was refused");
    }
    assert!(asked.is_err() || given.is_ok());
    for name in [asked, given].into_iter().flatten() {
        assert_eq!(name.as_str(), text);
        let mut parts = Path::new(text).components();
        assert!(matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == text));
        // Microsoft, "Naming Files, Paths, and Namespaces"; macOS has the colon besides.
        assert!(text.len() <= NAME_BYTES_MAX && text.is_ascii());
        assert!(!text.contains(|c: char| c.is_control() || "<>:\"/\\|?* ".contains(c)));
        assert!(!text.ends_with('.') && !text.starts_with(['.', '-']));
        let stem = text.split('.').next().unwrap_or_default().to_ascii_uppercase();
        assert!(!["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str()));
        let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
        assert!(!port.is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit())));
        again(&name);
        assert!(name.folded().eq_ignore_ascii_case(text) && Name::try_from(name.folded()).is_ok());
    }
}

/// What the database and the wire hold as JSON is read back as it was written, and can be shown.
pub fn stored(bytes: &[u8]) {
    if let Ok(number) = <[u8; 8]>::try_from(bytes) {
        times(u64::from_be_bytes(number));
    }
    if let Ok(launch) = serde_json::from_slice::<Launch>(bytes) {
        again(&launch);
        // What a restart makes of it is the same again.
        let env = launch.env.iter().map(|key| (key.clone(), String::new())).collect();
        let spec = RunSpec::again(&launch.module, &launch, env);
        assert_eq!(spec.launch(&launch.digest, &launch.directory), Launch { fresh: false, ..launch });
    }
    if let Ok(view) = serde_json::from_slice::<EventView>(bytes) {
        again(&view);
        assert!(view.line().contains(&view.at.to_string()));
        again(&StreamEvent::Registry { event: Box::new(view) });
    }
    if let Ok(event) = serde_json::from_slice::<StreamEvent>(bytes) {
        again(&event);
    }
    if let Ok(run) = serde_json::from_slice::<RunView>(bytes) {
        again(&run);
    }
    if let Ok(ended) = serde_json::from_slice::<Ended>(bytes) {
        again(&ended);
    }
    if let Ok(stopped) = serde_json::from_slice::<Stopped>(bytes) {
        again(&stopped);
    }
    if let Ok(env) = serde_json::from_slice::<Vec<(String, String)>>(bytes) {
        again(&env);
    }
}

/// Any number can stand where a time should, in a row or on a clock.
fn times(number: u64) {
    let text = Timestamp(number).to_string();
    let back = Timestamp::try_from(text.clone()).expect("a time is read as it is shown");
    assert!(back.0 == number || (number > back.0 && Timestamp(u64::MAX).to_string() == text), "{number} is {text}");
    again(&back);
    again(&LogTime(number));
    assert!(LogTime::from(Timestamp(number)).0 >= number);
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("it has string keys and no failing serializers");
    let back: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text} was written and is not read: {e}"));
    assert_eq!(&back, value, "{text}");
}

/// The whole records of a log file are read, and nothing that was never written.
pub fn logs(file: &[u8]) {
    crate::daemon::logs::record::promise(file);
}

/// What a module is refused for before it is compiled: it can neither be hidden behind something nor inside of something.
pub fn structure(wasm: &[u8]) {
    crate::engine::structure::promise(wasm);
}

/// What is made of a module before it is compiled: whatever it is, it stays as valid and nearly as small.
pub fn unroll(wasm: &[u8]) {
    crate::engine::unroll::promise(wasm);
}

#[cfg(test)]
mod tests;
