//! The request grammar: the same clap definitions read a line of the protocol and a command line.
//!
//! A line is split into words as a POSIX shell splits them (quotes, backslash); the first word is the verb. In
//! `format json` a line may also be a JSON array of words, which carries what a line cannot (a newline in an argument).
//! Everything after the module's name belongs to the guest.

use crate::error::{Error, Result};
use crate::model::escape;
pub use crate::model::run_args::{RunArgs, parse_cpus};
pub use crate::model::showing::{InspectArgs, LimitsArgs, ListArgs, ModulesArgs, OutputFormat, Showing, StatsArgs};
use crate::model::when::{Moment, Position, parse_moment, parse_position};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command, FromArgMatches, Subcommand, ValueEnum};
use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

/// What a client can ask for. Verbs are in the order of `help`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Request {
    /// Run a module in a sandbox of its own
    Run(Box<RunArgs>),
    /// Stop instances, whatever they are doing
    Stop(StopArgs),
    /// End instances at once, as killed (exit code 137)
    Kill(Names),
    /// Stop instances and run them again, as they were run before
    Restart(StopArgs),
    /// List instances in order of creation
    #[command(visible_aliases = ["ls", "ps"])]
    List(ListArgs),
    /// Wait until instances have ended, and print their exit codes
    Wait(WaitArgs),
    /// Remove ended instances and their logs (their directories stay, unless -v is given)
    Rm(RmArgs),
    /// Remove all ended instances
    Prune(PruneArgs),
    /// Show what an instance printed
    Logs(LogsArgs),
    /// Show everything known about instances, with their earlier runs
    Inspect(InspectArgs),
    /// Show what instances use of processors, memory, disk and log, and what the daemon does
    Stats(StatsArgs),
    /// Show what happens to instances, live or from the record
    Events(EventsArgs),
    /// Store a module with the daemon
    Put(PutArgs),
    /// Print the bytes of a module
    Get(GetArgs),
    /// List the modules that can be run
    Modules(ModulesArgs),
    /// Forget stored modules
    Forget(Names),
    /// Show every limit of the daemon, with its value and what is used of it
    Limits(LimitsArgs),
    /// Show the daemon's version and abilities
    Hello,
    /// See whether the daemon answers
    Ping,
    /// Choose the format of this connection's replies
    Format {
        /// `plain` for people, `json` for programs
        format: WireFormat,
    },
    /// Show that this client has the daemon's token: alone asks for a number, and then answers with it
    Auth(AuthArgs),
    /// Describe the commands, or one of them
    Help {
        /// The command to describe
        verb: Option<String>,
    },
    /// End the daemon and everything it runs
    Shutdown,
}

/// How replies look on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum WireFormat {
    /// Sentences for people.
    #[default]
    Plain,
    /// One JSON object a line, for programs.
    Json,
}

/// Arguments of `auth`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct AuthArgs {
    /// 32 random bytes of the client's, in hex
    #[arg(value_name = "NUMBER", requires = "answer")]
    pub number: Option<String>,
    /// The answer to the daemon's number and this one, in hex
    #[arg(value_name = "ANSWER")]
    pub answer: Option<String>,
}

/// Arguments of `stop`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct StopArgs {
    /// Close stdin first and give the guest this much time to leave by itself, e.g. 5s
    #[arg(short, long = "time", value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    pub time: Duration,
    /// The instances
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Instances or modules by name.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Names {
    /// The names
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Arguments of `rm`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RmArgs {
    /// Kill the instance first if it is running
    #[arg(short, long)]
    pub force: bool,
    /// Remove its directory too, with everything in it
    #[arg(short, long)]
    pub volumes: bool,
    /// The instances
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Arguments of `prune`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct PruneArgs {
    /// Remove their directories too, with everything in them
    #[arg(short, long)]
    pub volumes: bool,
    /// Only those that match: label=KEY[=VALUE], module=NAME, until=TIME (ended before)
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

/// Arguments of `wait`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct WaitArgs {
    /// What to wait for
    #[arg(long, value_enum, default_value_t)]
    pub condition: Condition,
    /// The instances
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Condition {
    /// In guest code.
    Running,
    /// Ended, with no other run to follow.
    #[default]
    Stopped,
}

/// Arguments of `events`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct EventsArgs {
    /// Begin with the event of this number, or at this time (10m for ten minutes ago, or 2026-11-24T10:00:00Z)
    #[arg(long, value_name = "SEQ|TIME", value_parser = parse_position)]
    pub since: Option<Position>,
    /// End with the event of this number, or at this time, and do not follow on
    #[arg(long, value_name = "SEQ|TIME", value_parser = parse_position)]
    pub until: Option<Position>,
    /// Only those that match: name=NAME, type=TYPE, module=NAME, label=KEY[=VALUE]
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// How.
    #[command(flatten)]
    pub show: Showing,
}

/// Arguments of `logs`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LogsArgs {
    /// Go on with what is printed from now on, until the instance has ended; over its restarts
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<usize>,
    /// The time of each line in front of it
    #[arg(short, long)]
    pub timestamps: bool,
    /// Only what was printed since then (10m for ten minutes ago, or 2026-11-24T10:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub since: Option<Moment>,
    /// Only what was printed until then
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub until: Option<Moment>,
    /// Only this stream
    #[arg(long, value_enum)]
    pub stream: Option<StdStream>,
    /// Bytes as they are, also to a terminal, which may act on them (on the command line)
    #[arg(long)]
    pub raw: bool,
    /// The instance
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Standard output or standard error of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StdStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Arguments of `put`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PutArgs {
    /// Name to store it under [default: the file's name without its extension]
    #[arg(long)]
    pub name: Option<String>,
    /// On the wire: how many bytes will follow
    #[arg(long, value_name = "BYTES", hide = true)]
    pub size: Option<u64>,
    /// On the wire: SHA-256 of the bytes, in hex; what the daemon already has is not sent again
    #[arg(long, value_name = "HEX", hide = true)]
    pub sha256: Option<String>,
    /// On the wire: the bytes are WebAssembly text
    #[arg(long, hide = true)]
    pub wat: bool,
    /// The file (on the wire: the module's name)
    #[arg(value_name = "FILE")]
    pub module: String,
}

/// Parses `64m`, `1g`, `512k` (binary, as docker), `64MiB`, `64MB`, or a number of bytes.
///
/// # Errors
///
/// One line that says what a size looks like.
pub fn parse_size(s: &str) -> Result<usize, String> {
    let bad = || format!("'{}' is not a size; try 64m, 1g or a number of bytes", escape::short(s, 40));
    let spelled = match s.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']) {
        Some(number) if number.trim_end().bytes().all(|b| b.is_ascii_digit() || b == b'.') => format!("{s}iB"),
        _ => s.to_owned(),
    };
    let bytes = spelled.parse::<bytesize::ByteSize>().map_err(|_| bad())?.as_u64();
    if bytes == 0 {
        return Err("a size is at least one byte".into());
    }
    // What does not fit is read as the largest number there is.
    if bytes == u64::MAX {
        return Err(bad());
    }
    usize::try_from(bytes).map_err(|_| bad())
}

/// Arguments of `get`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct GetArgs {
    /// The module
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Parses a number from 1 to `MAX`.
///
/// # Errors
///
/// One line that says what is wanted.
pub fn parse_count<const MAX: usize>(s: &str) -> Result<usize, String> {
    match s.parse::<usize>() {
        Ok(n) if (1..=MAX).contains(&n) => Ok(n),
        _ => Err(format!("a number from 1 to {MAX} is wanted")),
    }
}

/// Parses `30s`, `1m 30s`, `250ms`, or a number of seconds.
///
/// # Errors
///
/// One line that says what a duration looks like.
pub fn parse_duration(s: &str) -> Result<Duration, String> {
    const YEARS_100: Duration = Duration::from_secs(100 * 366 * 86_400);
    let parsed = match s.parse::<u32>() {
        Ok(seconds) => Some(Duration::from_secs(seconds.into())),
        Err(_) => humantime::parse_duration(s).ok(),
    };
    parsed
        .filter(|d| *d <= YEARS_100)
        .ok_or_else(|| format!("'{}' is not a duration; try 30s, 5m or 250ms", escape::short(s, 40)))
}

/// What a line asked for: a request, or text to show (`run --help`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Something to do.
    Request(Request),
    /// Something to show.
    Help(String),
}

/// Splits a request line into words as a POSIX shell does.
///
/// # Errors
///
/// [`Error::Usage`] for an open quote or a backslash at the end.
pub fn split(line: &str) -> Result<Vec<String>> {
    shlex::split(line).ok_or_else(|| Error::Usage("a quote is not closed, or the line ends in a backslash".into()))
}

/// Reads a request from its words; `words` is not empty.
///
/// # Errors
///
/// [`Error::UnknownVerb`], [`Error::MissingArgument`] or [`Error::Usage`].
pub fn parse(words: &[String]) -> Result<Parsed> {
    thread_local! {
        // Building the commands costs far more than parsing a line with them.
        static WIRE: RefCell<Command> = RefCell::new(wire_command());
    }
    let verb = words.first().map(String::as_str).unwrap_or_default();
    WIRE.with_borrow_mut(|command| {
        if command.find_subcommand(verb).is_none() {
            return Err(Error::UnknownVerb(verb.to_owned()));
        }
        let matches = match command.try_get_matches_from_mut(words) {
            Ok(matches) => matches,
            Err(e) if e.kind() == ErrorKind::DisplayHelp => return Ok(Parsed::Help(e.render().to_string())),
            Err(e) => return Err(usage_error(verb, &e)),
        };
        let request = Request::from_arg_matches(&matches).map_err(|e| usage_error(verb, &e))?;
        if let Request::Help { verb } = &request {
            return help(command, verb.as_deref()).map(Parsed::Help);
        }
        Ok(Parsed::Request(request))
    })
}

fn wire_command() -> Command {
    let command = Command::new("coracle").no_binary_name(true).term_width(80);
    let mut command = Request::augment_subcommands(command)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .help_template("{subcommands}");
    command.build();
    command
}

fn help(command: &mut Command, verb: Option<&str>) -> Result<String> {
    match verb {
        None => Ok(command.render_help().to_string()),
        Some(verb) => match command.find_subcommand_mut(verb) {
            // A copy under its own name: parsing changes what a command calls itself.
            Some(sub) => Ok(sub.clone().bin_name(verb).render_help().to_string()),
            None => Err(Error::UnknownVerb(verb.to_owned())),
        },
    }
}

fn usage_error(verb: &str, e: &clap::Error) -> Error {
    if matches!(e.kind(), ErrorKind::MissingRequiredArgument) {
        return Error::MissingArgument(match verb {
            // The original daemon's words.
            "run" | "stop" => format!("{verb} <container_name>"),
            other => format!("{other} <name>"),
        });
    }
    // An unknown option comes with a page of usage; the first line names it, and clap knows what was meant.
    let text = e.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    let mut line = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    if let Some(ContextValue::String(meant)) = e.get(ContextKind::SuggestedArg) {
        line.push_str(&format!(" (did you mean {meant}?)"));
    }
    Error::Usage(line)
}

impl Request {
    /// Every verb, in the order of `help`.
    pub const VERBS: [&str; 22] = [
        "run", "stop", "kill", "restart", "list", "wait", "rm", "prune", "logs", "inspect", "stats", "events", "put",
        "get", "modules", "forget", "limits", "hello", "ping", "format", "auth", "shutdown",
    ];

    /// The verb.
    pub fn verb(&self) -> &'static str {
        match self {
            Request::Run(_) => "run",
            Request::Stop(_) => "stop",
            Request::Kill(_) => "kill",
            Request::Restart(_) => "restart",
            Request::List(_) => "list",
            Request::Wait(_) => "wait",
            Request::Rm(_) => "rm",
            Request::Prune(_) => "prune",
            Request::Logs(_) => "logs",
            Request::Inspect(_) => "inspect",
            Request::Events(_) => "events",
            Request::Put(_) => "put",
            Request::Get(_) => "get",
            Request::Modules(_) => "modules",
            Request::Forget(_) => "forget",
            Request::Limits(_) => "limits",
            Request::Stats(_) => "stats",
            Request::Hello => "hello",
            Request::Ping => "ping",
            Request::Format { .. } => "format",
            Request::Auth(_) => "auth",
            Request::Help { .. } => "help",
            Request::Shutdown => "shutdown",
        }
    }

    /// Whether a client may ask for it that has not shown who it is.
    pub fn is_for_everybody(&self) -> bool {
        matches!(self, Request::Hello | Request::Ping | Request::Auth(_) | Request::Help { .. })
    }

    /// The names of a verb that takes several.
    pub fn names(&self) -> Option<&[String]> {
        match self {
            Request::Stop(StopArgs { names, .. })
            | Request::Restart(StopArgs { names, .. })
            | Request::Rm(RmArgs { names, .. })
            | Request::Kill(Names { names })
            | Request::Wait(WaitArgs { names, .. })
            | Request::Inspect(InspectArgs { names, .. })
            | Request::Stats(StatsArgs { names, .. })
            | Request::Forget(Names { names }) => Some(names),
            _ => None,
        }
    }
}

/// Refuses a request that names one thing twice: to answer for a name as often as it fits a line costs more than asking.
///
/// # Errors
///
/// [`Error::Usage`].
pub fn distinct(names: &[String]) -> Result<()> {
    let mut seen = HashSet::with_capacity(names.len());
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(Error::Usage(format!("'{}' is named twice", escape::short(twice, 80)))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_line(line: &str) -> Result<Request> {
        match parse(&split(line)?)? {
            Parsed::Request(request) => Ok(request),
            Parsed::Help(text) => panic!("help: {text}"),
        }
    }

    #[test]
    fn what_follows_the_module_belongs_to_the_guest() {
        let Request::Run(run) = parse_line("run -e A=1 --name web hello -d --name x 'two words' -- -e").unwrap() else {
            panic!()
        };
        assert_eq!(run.module(), "hello");
        assert_eq!(run.guest_args(), ["-d", "--name", "x", "two words", "--", "-e"]);
        assert_eq!(run.name.as_deref(), Some("web"));
        assert!(!run.detach);
        assert_eq!(run.environment().unwrap(), [("A".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn the_original_usage_sentences_stand() {
        assert_eq!(parse_line("run").unwrap_err().to_string(), "Usage: run <container_name>");
        assert_eq!(parse_line("stop").unwrap_err().to_string(), "Usage: stop <container_name>");
        assert_eq!(parse_line("frobnicate x").unwrap_err().to_string(), "Unknown command frobnicate");
        assert_eq!(parse_line("RUN x").unwrap_err().to_string(), "Unknown command RUN");
        assert_eq!(parse_line("--help").unwrap_err().to_string(), "Unknown command --help");
    }

    #[test]
    fn slips_are_usage_errors_of_one_line() {
        for line in [
            "run --frob hello",
            "run -m lots hello",
            "run --timeout never hello",
            "list all",
            "ping ping",
            "stop -t x y",
            "format yaml",
            "run 'open",
            "run a\\",
            "logs",
            "logs a b",
            "wait",
            "run -d -i hello",
            "shutdown now",
            "run -m 0 x",
            "run --restart sometimes x",
            "run --rm --restart always x",
            "wait --condition over x",
            "logs --since yesterday x",
            "events --until soon",
            "restart",
        ] {
            let error = parse_line(line).unwrap_err();
            assert_eq!(error.code(), crate::Code::Usage, "{line}");
            assert!(!error.to_string().contains('\n') && error.to_string().len() > 8, "{line}: {error}");
        }
        assert!(parse_line("run --nam x hello").unwrap_err().to_string().contains("did you mean --name"));
    }

    #[test]
    fn sizes_and_durations_are_read_as_docker_reads_them() {
        assert_eq!(parse_size("64m"), Ok(64 << 20));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        assert_eq!(parse_size("1 g"), Ok(1 << 30), "a blank makes no other gigabyte of it");
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("65536"), Ok(65536));
        assert_eq!(parse_size("1.5m"), Ok(3 << 19));
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "-1", "m", "1x", "99999999999999999999g"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("99y").map(|d| d.as_secs() / 86_400), Ok(36_159));
        for (number, read) in [("1", Some(1)), ("9", Some(9)), ("0", None), ("10", None), ("x", None)] {
            assert_eq!(parse_count::<9>(number).ok(), read, "{number}");
        }
        for bad in ["", "-1s", "soon", "99999999999999y", "1000y"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn several_names_are_told_and_none_of_them_twice() {
        for verb in ["stop", "kill", "restart", "wait", "rm", "inspect", "stats", "forget"] {
            let request = parse_line(&format!("{verb} a b")).unwrap();
            assert_eq!(request.names().unwrap(), ["a", "b"], "{verb}");
        }
        assert_eq!(parse_line("list").unwrap().names(), None);
        assert_eq!(parse_line("stats").unwrap().names(), Some(&[][..]), "all that are alive");
        let names = |names: &[&str]| distinct(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert!(names(&["a", "b", "A"]).is_ok());
        assert_eq!(names(&["a", "b", "a"]).unwrap_err().to_string(), "'a' is named twice");
    }

    #[test]
    fn every_verb_has_help() {
        let all = parse(&["help".into()]).unwrap();
        let Parsed::Help(text) = all else { panic!() };
        for verb in [
            "run", "stop", "list", "kill", "restart", "wait", "rm", "prune", "logs", "inspect", "stats", "events",
            "put", "get", "modules", "forget", "limits", "hello", "ping", "format", "auth", "help", "shutdown",
        ] {
            assert!(text.contains(verb), "{verb} is not in: {text}");
            assert!(matches!(parse(&["help".into(), verb.into()]), Ok(Parsed::Help(_))));
        }
        assert!(matches!(parse(&["run".into(), "--help".into()]), Ok(Parsed::Help(_))));
        assert!(parse(&["help".into(), "nope".into()]).is_err());
    }

    /// But for `hello`, the first module that anybody runs.
    #[test]
    fn no_verb_is_a_name() {
        let grammar = wire_command();
        let asked: Vec<&str> =
            grammar.get_subcommands().map(Command::get_name).filter(|verb| *verb != "help").collect();
        assert_eq!(asked, Request::VERBS, "and every verb is counted; `help` is answered by the grammar");
        let verbs =
            grammar.get_subcommands().flat_map(|c| std::iter::once(c.get_name()).chain(c.get_visible_aliases()));
        let mut refused = 0;
        for verb in verbs.filter(|verb| *verb != "hello") {
            let upper = verb.to_ascii_uppercase();
            for spelled in [verb, &upper] {
                let parsed = spelled.parse::<crate::model::name::Name>();
                assert_eq!(parsed.unwrap_err().code(), crate::Code::BadName, "{spelled}");
            }
            refused += 1;
        }
        assert!(refused >= 21, "{refused}: every verb, and the two aliases");
        assert!("hello".parse::<crate::model::name::Name>().is_ok());
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in "\\PC{0,60}|(run|stop|list|logs|put|help|format)( [-a-z'\"\\\\=0-9]{0,6}){0,5}") {
            if let Ok(words) = split(&line) && !words.is_empty() {
                let _outcome = parse(&words);
            }
        }

        #[test]
        fn quoted_words_come_back_whole(words in prop::collection::vec("[^\\x00\\n\\r]{0,12}", 1..6)) {
            let line = shlex::try_join(words.iter().map(String::as_str)).unwrap();
            prop_assert_eq!(split(&line).unwrap(), words);
        }
    }
}
