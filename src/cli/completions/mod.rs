//! `coracle completions SHELL`: a script for the shell, which asks this program at each press of the key what could stand there.
//!
//! The verbs and flags come from the grammar, names of instances and modules from the daemon, if there is one and it answers at
//! once; none is ever started for it. Files are left to the shell, which knows best how to find and quote them.

mod line;

use super::{Connecting, Outcome, command, print, target};
use crate::client::Client;
use crate::model::name::Name;
use clap::{Args, FromArgMatches, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};
use std::ffi::OsString;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

/// How long a daemon may take to tell names: a person waits for the key.
const PATIENCE: Duration = Duration::from_millis(120);

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

/// Prints the script.
pub(super) fn script(args: &CompletionsArgs) -> Outcome {
    print(match args.shell {
        Shell::Bash => include_str!("coracle.bash"),
        Shell::Zsh => include_str!("coracle.zsh"),
        Shell::Fish => include_str!("coracle.fish"),
        Shell::Powershell => include_str!("coracle.ps1"),
    })
}

/// What the scripts ask.
#[derive(Debug, Clone, Args)]
pub(super) struct CompleteArgs {
    /// The line up to the cursor, for a shell that does not split it as it will when it runs it
    #[arg(long)]
    line: Option<String>,
    /// The end of the last word that such a shell replaces
    #[arg(long, default_value = "")]
    current: String,
    /// The word that is completed is a new one, for a shell that passes no empty words
    #[arg(long)]
    next: bool,
    /// The words up to the cursor; the last one is completed
    #[arg(last = true)]
    words: Vec<OsString>,
}

/// Files that the shell is to complete besides what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    None,
    Any,
    Directories,
    Modules,
}

impl Files {
    fn word(self) -> &'static str {
        match self {
            Files::None => "words",
            Files::Any => "files",
            Files::Directories => "directories",
            Files::Modules => "modules",
        }
    }
}

/// Answers a script: first which files the shell is to add, then a candidate a line, with a tab and what it is.
pub(super) fn answer(args: &CompleteArgs) -> Outcome {
    let mut words: Vec<OsString> = match &args.line {
        Some(line) => line::split(line).into_iter().map(OsString::from).collect(),
        None => args.words.clone(),
    };
    words.extend(args.next.then(OsString::new));
    let (files, candidates) = candidates(&words);
    let word = words.last().map(|w| w.to_string_lossy().into_owned()).unwrap_or_default();
    let mut answer = files.word().to_owned();
    let mut skip = 0;
    if args.line.is_some() {
        // A shell that takes a part of the word for all of it gets the rest without that; and what it takes for the word, without
        // its quotes, to look for files.
        let current = line::split(&args.current).pop().unwrap_or_default();
        skip = if word.ends_with(&current) { word.len() - current.len() } else { 0 };
        answer.push('\t');
        answer.push_str(&current.replace('\n', " "));
    }
    answer.push('\n');
    for (value, about) in candidates {
        answer.push_str(value.get(skip..).unwrap_or(&value));
        if !about.is_empty() {
            answer.push('\t');
            answer.push_str(&about);
        }
        answer.push('\n');
    }
    print(&answer)
}

/// What could stand in the place of the last word, and what it is.
fn candidates(words: &[OsString]) -> (Files, Vec<(String, String)>) {
    let nothing = (Files::None, vec![]);
    let Some((current, before)) = words.split_last() else { return nothing };
    let typed = Typed::read(before);
    if typed.is_in_the_guests_arguments {
        return (Files::Any, vec![]);
    }
    let asked = Arc::new(OnceLock::new());
    let mut grammar = with_completers(&typed, &asked);
    let Ok(found) = complete(&mut grammar, words.to_vec(), words.len() - 1, None) else { return nothing };
    let mut found: Vec<(String, String)> = found
        .into_iter()
        .map(|candidate| {
            let about = candidate.get_help().map(ToString::to_string).unwrap_or_default();
            let first = about.lines().next().unwrap_or_default();
            (candidate.get_value().to_string_lossy().into_owned(), first.replace('\t', " "))
        })
        .collect();
    // Flags are in the way of names unless somebody begins to type one, or there is nothing else.
    let is_flag = |(value, _): &(String, String)| value.starts_with('-');
    let others = found.iter().any(|candidate| !is_flag(candidate)) || typed.wants_names || asked.get().is_some();
    if others && !current.to_string_lossy().starts_with('-') {
        found.retain(|candidate| !is_flag(candidate));
    }
    (asked.get().copied().unwrap_or(Files::None), found)
}

/// What is there before the word that is completed.
#[derive(Debug, Clone, Default)]
struct Typed {
    connecting: Connecting,
    /// Those of a verb that takes several: none is offered twice.
    names: Vec<String>,
    wants_names: bool,
    is_in_the_guests_arguments: bool,
}

impl Typed {
    fn read(before: &[OsString]) -> Typed {
        let Ok(matches) = command().ignore_errors(true).try_get_matches_from(before) else { return Typed::default() };
        let connecting = Connecting::from_arg_matches(&matches).unwrap_or_default();
        let Some((verb, matches)) = matches.subcommand() else { return Typed { connecting, ..Typed::default() } };
        let given = |id: &str| -> Vec<String> {
            matches.try_get_many::<String>(id).ok().flatten().unwrap_or_default().cloned().collect()
        };
        let wants_names =
            KINDS.iter().any(|(v, _, kind)| *v == verb && matches!(kind, Kind::Instances(_) | Kind::Stored));
        let is_in_the_guests_arguments = verb == "run" && !given("command").is_empty();
        Typed { connecting, names: given("names"), wants_names, is_in_the_guests_arguments }
    }
}

/// What an argument is, where the grammar does not say it by itself.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Instances, of which some are meant: those that have not ended, those that have, or all.
    Instances(fn(is_live: bool) -> bool),
    /// Modules that were put.
    Stored,
    /// Modules, or their files.
    Modules,
    Verbs,
    Files(Files),
    Words(&'static [&'static str]),
    /// Whatever somebody thinks of: a number, a time, a name that is not there yet.
    Free,
}

const ALL: Kind = Kind::Instances(|_| true);
const LIVE: Kind = Kind::Instances(|is_live| is_live);
const ENDED: Kind = Kind::Instances(|is_live| !is_live);
const FILE: Kind = Kind::Files(Files::Any);
const DIRECTORY: Kind = Kind::Files(Files::Directories);
const FORMAT: Kind = Kind::Words(&["table", "json"]);

/// By verb (`*` is any) and name of the argument in the grammar. What is not here is one of a few words that the grammar
/// knows, or takes no value: a test looks.
const KINDS: &[(&str, &str, Kind)] = &[
    ("*", "host", Kind::Free),
    ("*", "token_file", FILE),
    ("*", "tls_ca", FILE),
    ("run", "command", Kind::Modules),
    ("run", "name", Kind::Free),
    ("run", "env", Kind::Free),
    ("run", "env_file", FILE),
    ("run", "volume", DIRECTORY),
    ("run", "dir", DIRECTORY),
    ("run", "restart", Kind::Words(&["no", "on-failure", "always", "unless-stopped"])),
    ("run", "label", Kind::Free),
    ("run", "argv0", Kind::Free),
    ("stop", "names", LIVE),
    ("kill", "names", LIVE),
    ("restart", "names", ALL),
    ("wait", "names", LIVE),
    ("rm", "names", ENDED),
    ("inspect", "names", ALL),
    ("forget", "names", Kind::Stored),
    ("logs", "name", ALL),
    ("logs", "since", Kind::Free),
    ("logs", "until", Kind::Free),
    ("events", "since", Kind::Free),
    ("events", "until", Kind::Free),
    ("events", "filter", Kind::Words(&["name=", "type=", "module=", "label="])),
    ("list", "filter", Kind::Words(&["name=", "module=", "status=", "exited=", "label="])),
    ("prune", "filter", Kind::Words(&["label=", "module=", "until="])),
    ("put", "module", Kind::Files(Files::Modules)),
    ("put", "name", Kind::Free),
    ("get", "name", Kind::Modules),
    ("explain", "module", Kind::Modules),
    ("stats", "names", LIVE),
    ("doctor", "state_dir", DIRECTORY),
    ("doctor", "root", DIRECTORY),
    ("list", "format", FORMAT),
    ("modules", "format", FORMAT),
    ("limits", "format", FORMAT),
    ("stats", "format", FORMAT),
    ("events", "format", FORMAT),
    ("inspect", "format", FORMAT),
    ("explain", "format", FORMAT),
    ("doctor", "format", FORMAT),
    ("help", "verb", Kind::Verbs),
    ("man", "verb", Kind::Verbs),
    ("man", "out", DIRECTORY),
    ("install-service", "flags", Kind::Free),
    ("daemon", "listen", Kind::Free),
    ("daemon", "metrics", Kind::Free),
    ("daemon", "tls_cert", FILE),
    ("daemon", "tls_key", FILE),
    ("daemon", "state_dir", DIRECTORY),
    ("daemon", "root", DIRECTORY),
    ("daemon", "module_dirs", DIRECTORY),
    ("daemon", "mount_roots", DIRECTORY),
];

/// The kind of an argument, if it takes a value that the grammar has no words for. Sizes, times and numbers are free.
fn kind(verb: &str, arg: &clap::Arg) -> Option<Kind> {
    let named = KINDS.iter().find(|(v, id, _)| (*v == verb || *v == "*") && *id == arg.get_id().as_str());
    if let Some((.., kind)) = named {
        return Some(*kind);
    }
    let takes_value = arg.get_action().takes_values() && arg.get_possible_values().is_empty() && !arg.is_hide_set();
    let names = arg.get_value_names().unwrap_or_default();
    let is_quantity = names.iter().any(|name| ["N", "SIZE", "TIME"].contains(&name.as_str()));
    (takes_value && is_quantity).then_some(Kind::Free)
}

/// The grammar, with what completes each argument. `asked` hears which files one of them wants to be completed.
fn with_completers(typed: &Typed, asked: &Arc<OnceLock<Files>>) -> clap::Command {
    let verbs: Vec<String> =
        command().get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name().to_owned()).collect();
    let add = |verb: &str, arg: clap::Arg| {
        let Some(kind) = kind(verb, &arg) else { return arg };
        let (typed, verbs, asked) = (typed.clone(), verbs.clone(), Arc::clone(asked));
        arg.add(ArgValueCompleter::new(move |current: &std::ffi::OsStr| {
            let current = current.to_string_lossy();
            // What begins like a path is none of a name.
            let values = if current.contains('/') { vec![] } else { values(kind, &typed, &verbs) };
            if let Some(files) = files(kind) {
                // The first: there is one word to complete.
                asked.get_or_init(|| files);
            }
            let fits = |(value, _): &(String, String)| value.starts_with(&*current);
            let candidate = |(value, about): (String, String)| {
                CompletionCandidate::new(value).help((!about.is_empty()).then(|| about.into()))
            };
            values.into_iter().filter(fits).map(candidate).collect()
        }))
    };
    let grammar = command().mut_args(|arg| add("", arg));
    let verbs: Vec<String> = grammar.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    verbs.iter().fold(grammar, |grammar, verb| grammar.mut_subcommand(verb, |c| c.mut_args(|arg| add(verb, arg))))
}

fn files(kind: Kind) -> Option<Files> {
    match kind {
        Kind::Modules => Some(Files::Modules),
        Kind::Files(files) => Some(files),
        _ => None,
    }
}

/// All values of a kind, whatever they begin with, and what each is.
fn values(kind: Kind, typed: &Typed, verbs: &[String]) -> Vec<(String, String)> {
    let plain = |value: &str| (value.to_owned(), String::new());
    match kind {
        Kind::Words(words) => words.iter().copied().map(plain).collect(),
        Kind::Verbs => verbs.iter().map(|verb| plain(verb)).collect(),
        Kind::Free | Kind::Files(_) => vec![],
        Kind::Instances(_) | Kind::Stored | Kind::Modules => {
            let mut told = told_at_once(kind, typed.connecting.clone());
            told.retain(|(name, _)| !typed.names.contains(name));
            told
        }
    }
}

/// What a daemon tells within [`PATIENCE`]: nothing if there is none, it is not ours, or it takes longer.
fn told_at_once(kind: Kind, connecting: Connecting) -> Vec<(String, String)> {
    let (send, receive) = mpsc::channel();
    // A thread that is not waited for: to look up the name of a host can take longer than anybody would wait.
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        // The receiver may have given up.
        let _unheard = send.send(runtime.block_on(ask(kind, &connecting)));
    });
    receive.recv_timeout(PATIENCE).ok().flatten().unwrap_or_default()
}

async fn ask(kind: Kind, connecting: &Connecting) -> Option<Vec<(String, String)>> {
    let mut client = Client::connect(target(connecting).ok()?).await.ok()?;
    let line = |name: Name, about: String| (name.to_string(), crate::model::escape::line(&about).into_owned());
    match kind {
        Kind::Instances(wanted) => {
            let all = client.list().await.ok()?.into_iter().filter(|view| wanted(view.is_live()));
            Some(all.map(|view| (view.status(), view)).map(|(status, view)| line(view.name, status)).collect())
        }
        _ => {
            let all = client.modules().await.ok()?.into_iter();
            let wanted = all.filter(|view| !matches!(kind, Kind::Stored) || view.source == "stored");
            Some(wanted.map(|view| line(view.name, format!("module, {}", view.source))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new argument is not forgotten: what takes a value says here what it is.
    #[test]
    fn every_argument_is_completed_or_known_to_be_free() {
        let grammar = command();
        let mut seen = 0;
        for verb in grammar.get_subcommands().filter(|c| !c.is_hide_set()) {
            for arg in verb.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_action().takes_values()) {
                let known = kind(verb.get_name(), arg).is_some() || !arg.get_possible_values().is_empty();
                assert!(known, "{} {}: say in KINDS what completes it", verb.get_name(), arg.get_id());
                seen += 1;
            }
        }
        assert!(seen > 60, "{seen}");
        for (verb, id, _) in KINDS {
            let within = grammar.find_subcommand(verb).unwrap_or(&grammar);
            assert!(within.get_arguments().any(|arg| arg.get_id() == id), "{verb} has no {id} any more");
        }
    }

    fn offered(words: &[&str]) -> Vec<String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        // Nobody listens there.
        let nobody = ["coracle", "--host", "unix:/nowhere"].map(OsString::from);
        candidates(&[&nobody[..], &words].concat()).1.into_iter().map(|(value, _)| value).collect()
    }

    #[test]
    fn verbs_flags_and_words_come_from_the_grammar() {
        let verbs = offered(&[""]);
        assert!(verbs.contains(&"run".to_owned()) && verbs.contains(&"daemon".to_owned()), "{verbs:?}");
        assert!(verbs.iter().all(|verb| !verb.starts_with('-') && *verb != "compile-module"), "{verbs:?}");
        assert_eq!(offered(&["re"]), ["restart"]);
        assert_eq!(offered(&["logs", "--stream", ""]), ["stdout", "stderr"]);
        assert_eq!(offered(&["logs", "--stream=stdo"]), ["--stream=stdout"]);
        assert_eq!(offered(&["run", "--cpu-"]), ["--cpu-weight", "--cpu-time"]);
        assert_eq!(offered(&["run", "--restart", "on"]), ["on-failure"]);
        assert_eq!(offered(&["list", "-f", "st"]), ["status="]);
        assert_eq!(offered(&["help", "insp"]).first().map(String::as_str), Some("inspect"));
        assert!(offered(&["list", ""]).contains(&"--quiet".to_owned()), "there is nothing else");
        for none in [&["stop", ""][..], &["run", "--name", ""], &["run", "hello", "--"]] {
            assert_eq!(offered(none), ["-"; 0], "{none:?}");
        }
    }
}
