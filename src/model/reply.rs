//! Replies: one value, two spellings. Plain is what a person reads, and keeps the original daemon's sentences; JSON is
//! one object a line: `{"ok":…}`, `{"error":{"code":…,"message":…}}`, and `{"event":…}` lines before the closing object of a
//! request that streams.

mod list;
mod several;
mod stats;
mod stream;

pub use list::Listing;
pub use several::Several;
pub use stats::Sampling;
pub use stream::StreamEvent;

use crate::error::{Code, Error};
use crate::model::escape;
use crate::model::instance::LogTime;
use crate::model::limit::LimitViews;
use crate::model::name::Name;
use crate::model::request::{StdStream, WireFormat};
pub use crate::model::view::{Inspection, InstanceView, RunView};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The longest plain reply to `run` and `stop`, with its line end: one `recv(1024)` gets it whole.
pub const REPLY_BYTES_MAX: usize = 1024;

/// What a request came to; for `list` see [`Listing`], for `stats` [`Sampling`], for a verb with several names [`Several`].
#[derive(Debug, Clone)]
pub enum Reply {
    /// `run` was accepted.
    Created(Created),
    /// `stop` is done.
    Stopped(Box<InstanceView>),
    /// `kill` is done.
    Killed(Box<InstanceView>),
    /// `stop` or `kill` of a run that was still being prepared: it is not going to begin.
    NeverStarted(Name),
    /// `restart` is done.
    Restarted(Created),
    /// `wait --condition running`: it is.
    Running(Box<InstanceView>),
    /// `wait`: the run is over.
    Waited(Box<InstanceView>),
    /// `rm` is done.
    Removed(Name),
    /// `prune` is done.
    Pruned(Vec<Name>),
    /// `inspect`.
    Inspected(Box<Inspection>),
    /// The end of `events`: the number of the newest event that the daemon had written down.
    EventsEnd(u64),
    /// The end of `logs`.
    LogsEnd(LogView),
    /// `put` is done.
    Stored(ModuleView),
    /// The end of `get`.
    Content(ContentView),
    /// `modules`.
    Modules(Vec<ModuleView>),
    /// `limits`.
    Limits(LimitViews),
    /// `forget` is done.
    Forgotten(Name),
    /// `hello`.
    Hello(Hello),
    /// `ping`.
    Pong,
    /// `auth`: the daemon's number, in hex.
    Challenge(String),
    /// `auth`: it has been shown; the daemon's answer to the client's number, in hex.
    Proved(String),
    /// `format`.
    Format(WireFormat),
    /// `help`.
    Help(String),
    /// `shutdown`.
    ShuttingDown,
}

/// An accepted run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The instance.
    pub name: Name,
    /// The directory lent as `/`.
    pub directory: String,
    /// Which run of it, from 1.
    pub run: u32,
}

/// A module that can be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModuleView {
    /// Its name.
    pub name: Name,
    /// Where it was found: `stored`, `directory` or `built-in`.
    pub source: String,
    /// The file, for modules of a `--modules` directory.
    pub path: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes in hex; absent for a file that nobody has run yet.
    pub digest: Option<String>,
}

/// What was sent of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentView {
    /// Its name.
    pub name: Name,
    /// How many bytes there were.
    pub bytes: u64,
    /// Whether they are WebAssembly text.
    pub text: bool,
}

/// How the log of an instance stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogView {
    /// Bytes that were printed and are not kept: they no longer fit, came too fast, or could not be written.
    pub dropped_bytes: u64,
}

/// The daemon's answer to `hello`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The program.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Version of the protocol.
    pub protocol: u32,
    /// The engine and its version.
    pub engine: String,
    /// What the daemon can do, for clients to adapt to.
    pub features: Vec<String>,
}

/// What an attached client sends while the guest runs: bytes for its stdin, or null for the end of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The bytes.
    pub stdin: Option<Data>,
}

/// A piece of what a guest printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Which stream.
    pub stream: StdStream,
    /// When (RFC 3339, to the nanosecond).
    pub at: LogTime,
    /// Which run of the instance.
    pub run: u32,
    /// The bytes: `text` if they are UTF-8, otherwise `base64`.
    #[serde(flatten)]
    pub data: Data,
}

/// Bytes in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// As they are.
    Text(String),
    /// Encoded, because they are not UTF-8.
    Base64(String),
}

impl Data {
    /// Bytes in the form that JSON can carry.
    pub fn of(bytes: &[u8]) -> Data {
        match std::str::from_utf8(bytes) {
            Ok(text) => Data::Text(text.to_owned()),
            Err(_) => Data::Base64(BASE64.encode(bytes)),
        }
    }

    /// The bytes again. `None`: broken base64.
    pub fn into_bytes(self) -> Option<Bytes> {
        match self {
            Data::Text(text) => Some(text.into()),
            Data::Base64(text) => BASE64.decode(text).ok().map(Bytes::from),
        }
    }
}

/// A refusal as it stands in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What a program branches on.
    pub code: Code,
    /// What a person reads.
    pub message: String,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Refusal {
        // The text may quote a client, a module or a guest: shortened and escaped here, for both spellings.
        Refusal { code: error.code(), message: escape::short(&error.to_string(), REPLY_BYTES_MAX - 32) }
    }
}

/// A line of JSON from the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line<T> {
    /// It is done.
    Ok(T),
    /// It was refused.
    Error(Refusal),
    /// There is more to come.
    Event(StreamEvent),
}

/// A plain refusal, with its line end.
pub fn plain_error(error: &Error) -> String {
    let refusal = Refusal::from(error);
    match error {
        // The original daemon's sentences.
        Error::NotFound(_) => "Container not found\n".to_owned(),
        Error::UnknownVerb(_) => format!("{}\n", escape::short(&refusal.message, 80)),
        Error::MissingArgument(_) => format!("{}\n", refusal.message),
        _ => format!("ERR {} {}\n", refusal.code, refusal.message),
    }
}

/// A refusal in JSON, with its line end.
pub fn json_error(error: &Error) -> String {
    json_line(&Line::<()>::Error(Refusal::from(error)))
}

/// One line of JSON, with its end.
pub fn json_line<T: Serialize>(value: &T) -> String {
    let mut line =
        escape::json(serde_json::to_string(value).expect("replies have string keys and no failing serializers"));
    line.push('\n');
    line
}

/// JSON for people: several lines, without an end.
pub fn json_pretty<T: Serialize>(value: &T) -> String {
    escape::json(serde_json::to_string_pretty(value).expect("views have string keys and no failing serializers"))
}

/// A text of several lines: dots doubled at line starts, a single dot at the end (as SMTP does, RFC 5321, 4.5.2).
pub fn dotted<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> String {
    let mut out = String::new();
    for line in lines {
        dotted_line(&mut out, line.as_ref());
    }
    out.push_str(".\n");
    out
}

/// One line of a [`dotted`] text.
pub fn dotted_line(out: &mut String, line: &str) {
    if line.starts_with('.') {
        out.push('.');
    }
    out.push_str(&escape::line(line));
    out.push('\n');
}

impl Reply {
    /// The reply for people, with its line end.
    pub fn plain(&self) -> String {
        match self {
            Reply::Created(created) => {
                escape_one(&format!("Container '{}' created at '{}'", created.name, created.directory))
            }
            Reply::Stopped(view) => format!("Container '{}' stopped\n", view.name),
            // What had ended before is told as it ended; only `stop` has a sentence for both.
            Reply::Killed(view) => format!("Container '{}' {}\n", view.name, view.status()),
            Reply::NeverStarted(name) => format!("Container '{name}' stopped\n"),
            Reply::Restarted(created) => format!("Container '{}' restarted\n", created.name),
            Reply::Running(view) => format!("Container '{}' {}\n", view.name, view.status()),
            Reply::Waited(view) => format!("{}\n", view.exit_code.unwrap_or_default()),
            Reply::Removed(name) => format!("Container '{name}' removed\n"),
            Reply::Pruned(names) => dotted(names.iter().map(Name::as_str)),
            Reply::Inspected(view) => dotted(json_pretty(view).lines()),
            Reply::LogsEnd(_) | Reply::EventsEnd(_) | Reply::Content(_) => ".\n".to_owned(),
            Reply::Stored(module) => {
                let digest = module.digest.as_deref().unwrap_or_default();
                format!("Module '{}' stored ({} bytes, sha256 {digest})\n", module.name, module.bytes)
            }
            Reply::Modules(modules) => {
                dotted(modules.iter().map(|m| format!("{} - {} ({} bytes)", m.name, m.source, m.bytes)))
            }
            Reply::Limits(all) => dotted(
                all.limits
                    .iter()
                    .map(|limit| {
                        let used = limit.used_text().map(|used| format!(", {used} used")).unwrap_or_default();
                        format!("{} {}{used} - {}", limit.flag, limit.value_text(), limit.what)
                    })
                    .chain([format!("fence {}", all.fence)]),
            ),
            Reply::Forgotten(name) => format!("Module '{name}' forgotten\n"),
            Reply::Hello(h) => {
                format!("{} {} protocol {} {} [{}]\n", h.program, h.version, h.protocol, h.engine, h.features.join(" "))
            }
            Reply::Pong => "pong\n".to_owned(),
            Reply::Challenge(number) => format!("challenge {number}\n"),
            Reply::Proved(answer) => format!("proved {answer}\n"),
            Reply::Format(_) => "Format plain\n".to_owned(),
            Reply::Help(text) => dotted(text.trim_end().lines()),
            Reply::ShuttingDown => "Shutting down\n".to_owned(),
        }
    }

    /// The reply for programs, with its line end.
    pub fn json(&self) -> String {
        json_line(&Line::Ok(self.json_value()))
    }

    fn json_value(&self) -> serde_json::Value {
        use serde_json::json;
        match self {
            Reply::Created(created) | Reply::Restarted(created) => json!(created),
            Reply::Stopped(view) | Reply::Killed(view) | Reply::Waited(view) | Reply::Running(view) => json!(view),
            Reply::Inspected(view) => json!(view),
            Reply::Pruned(names) => json!({ "removed": names }),
            Reply::EventsEnd(seq) => json!({ "newest": seq }),
            Reply::Content(view) => json!(view),
            Reply::NeverStarted(name) => json!({ "name": name, "state": "never-started" }),
            Reply::Removed(name) => json!({ "removed": name }),
            Reply::LogsEnd(view) => json!(view),
            Reply::Stored(module) => json!(module),
            Reply::Modules(modules) => json!({ "modules": modules }),
            Reply::Limits(all) => json!(all),
            Reply::Forgotten(name) => json!({ "forgotten": name }),
            Reply::Hello(hello) => json!(hello),
            Reply::Pong => json!({ "pong": true }),
            Reply::Challenge(number) => json!({ "challenge": number }),
            Reply::Proved(answer) => json!({ "proved": answer }),
            Reply::Format(format) => json!({ "format": match format {
                WireFormat::Plain => "plain",
                WireFormat::Json => "json",
            } }),
            Reply::Help(text) => json!({ "help": text }),
            Reply::ShuttingDown => json!({ "shutting_down": true }),
        }
    }
}

/// A one-line reply that quotes a path of the operator's choosing.
fn escape_one(text: &str) -> String {
    format!("{}\n", escape::short(text, REPLY_BYTES_MAX - 1))
}

/// Puts the pieces that guests print together to lines, for readers that want lines.
#[derive(Debug, Default)]
pub struct LineAssembler {
    rest: Vec<u8>,
}

impl LineAssembler {
    /// The longest line that is kept together; a longer one is cut.
    pub const LINE_BYTES_MAX: usize = 8192;

    /// Takes a piece and hands each line that it completes, without its end, to `line`.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = Self::LINE_BYTES_MAX - self.rest.len();
            let head = &bytes[..bytes.len().min(room)];
            match head.iter().position(|b| *b == b'\n') {
                Some(end) => {
                    self.rest.extend_from_slice(&head[..end]);
                    bytes = &bytes[end + 1..];
                    self.flush_line(&mut line);
                }
                None => {
                    self.rest.extend_from_slice(head);
                    bytes = &bytes[head.len()..];
                    if self.rest.len() == Self::LINE_BYTES_MAX {
                        self.flush_line(&mut line);
                    }
                }
            }
        }
    }

    /// Whether no line is begun.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Hands out what is left of an unfinished line.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            self.flush_line(&mut line);
        }
    }

    fn flush_line(&mut self, line: &mut impl FnMut(&[u8])) {
        line(self.rest.strip_suffix(b"\r").unwrap_or(&self.rest));
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusals_are_one_short_printable_line() {
        let long = "x\n\x1b[2J".repeat(1000);
        for error in [
            Error::UnknownVerb(long.clone()),
            Error::Usage(long.clone()),
            Error::Internal(long.clone()),
            Error::BadName { name: long.clone(), why: "it is long" },
        ] {
            let plain = plain_error(&error);
            assert!(plain.len() <= REPLY_BYTES_MAX, "{}", plain.len());
            assert_eq!(plain.matches('\n').count(), 1);
            assert!(!plain.contains('\x1b'));
            assert!(!json_error(&error).contains("\\u001b"));
        }
        let fits = "x".repeat(900);
        assert_eq!(plain_error(&Error::Usage(fits.clone())), format!("ERR usage {fits}\n"));
    }

    #[test]
    fn five_sentences_are_the_original_daemons() {
        let name = |n: &str| n.parse::<Name>().unwrap();
        let created = Created { name: name("web"), directory: "/tmp/web".into(), run: 1 };
        let view = Box::new(InstanceView::of(&crate::model::registry::tests::record("web", &[])));
        assert_eq!(Reply::Created(created).plain(), "Container 'web' created at '/tmp/web'\n");
        assert_eq!(Reply::Stopped(view.clone()).plain(), "Container 'web' stopped\n");
        let mut listing = Listing::new(WireFormat::Plain, false);
        let mut list = listing.head().to_owned();
        for _ in 0..2 {
            listing.push(&mut list, &crate::model::registry::tests::record("web", &[]));
        }
        assert_eq!(list + listing.tail(), "Available containers: ['web - created', 'web - created']\n");
        assert_eq!(plain_error(&Error::NotFound("web".into())), "Container not found\n");
        assert_eq!(plain_error(&Error::UnknownVerb("dance".into())), "Unknown command dance\n");
        let usage = Error::MissingArgument("run <container_name>".into());
        assert_eq!(plain_error(&usage), "Usage: run <container_name>\n");
        assert_eq!(plain_error(&Error::ShuttingDown), "ERR shutting-down the daemon is shutting down\n");
        let inspected = Inspection { instance: *view, runs: vec![] };
        let inspected = Reply::Inspected(Box::new(inspected));
        assert!(inspected.plain().starts_with("{\n  \"name\": \"web\",\n") && inspected.plain().ends_with("\n}\n.\n"));
        assert!(inspected.json().starts_with("{\"ok\":{") && inspected.json().contains("\"name\":\"web\""));
    }

    #[test]
    fn a_line_that_never_ends_is_cut() {
        const MOST: usize = LineAssembler::LINE_BYTES_MAX;
        let (mut lines, mut lengths) = (LineAssembler::default(), vec![]);
        assert!(lines.is_empty());
        lines.push(&[b'x'; MOST - 1], |line| lengths.push(line.len()));
        assert!(!lines.is_empty());
        lines.push(&[b'x'; MOST + 2], |line| lengths.push(line.len()));
        lines.push(b"x\r\n\n", |line| lengths.push(line.len()));
        assert!(lines.is_empty());
        lines.push(b"rest", |line| lengths.push(line.len()));
        lines.finish(|line| lengths.push(line.len()));
        lines.finish(|line| lengths.push(line.len()));
        assert_eq!(lengths, [MOST, MOST, 2, 0, 4]);
    }

    #[test]
    fn a_text_of_several_lines_ends_with_a_dot_and_hides_none() {
        assert_eq!(dotted(["a", ".", "..b", ""]), "a\n..\n...b\n\n.\n");
    }

    #[test]
    fn json_says_event_ok_and_error() {
        let event = Line::<()>::Event(StreamEvent::Output(Output {
            stream: StdStream::Stdout,
            at: LogTime(1_700_000_000_000_000_005),
            run: 1,
            data: Data::of(b"hi"),
        }));
        assert_eq!(
            json_line(&event),
            "{\"event\":{\"type\":\"output\",\"stream\":\"stdout\",\"at\":\"2023-11-14T22:13:20.000000005Z\",\"run\":1,\"text\":\"hi\"}}\n"
        );
        let compiling = |elapsed_ms| StreamEvent::Compiling { module: "a".parse().unwrap(), queued: None, elapsed_ms };
        assert_eq!(json_line(&compiling(0)), "{\"type\":\"compiling\",\"module\":\"a\"}\n");
        assert_eq!(json_line(&compiling(7)), "{\"type\":\"compiling\",\"module\":\"a\",\"elapsed_ms\":7}\n");
        assert_eq!(Reply::Pong.json(), "{\"ok\":{\"pong\":true}}\n");
        assert_eq!(
            json_error(&Error::ShuttingDown),
            "{\"error\":{\"code\":\"shutting-down\",\"message\":\"the daemon is shutting down\"}}\n"
        );
    }

    proptest! {
        #[test]
        fn bytes_survive_json(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let json = serde_json::to_string(&Data::of(&bytes)).unwrap();
            let back: Data = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back.into_bytes().unwrap(), bytes);
        }

        #[test]
        fn lines_do_not_depend_on_the_pieces(text in "[ab\r\n]{0,80}", cut in 0usize..80) {
            let collect = |pieces: &[&[u8]]| {
                let (mut out, mut lines) = (vec![], LineAssembler::default());
                for piece in pieces {
                    lines.push(piece, |l| out.push(l.to_vec()));
                }
                lines.finish(|l| out.push(l.to_vec()));
                out
            };
            let (a, b) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(collect(&[a, b]), collect(&[text.as_bytes()]));
        }
    }
}
