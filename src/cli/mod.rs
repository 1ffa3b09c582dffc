//! The command line: the verbs of the protocol with the same grammar, and `daemon`. The only place that prints.
//!
//! Standard output is data, standard error is talk. What a guest or a module wrote is escaped before a person reads it in a
//! message; the output of a run goes through as it is.

mod advice;
mod again;
mod background;
mod colour;
mod compile;
mod completions;
mod daemon;
mod doctor;
mod explain;
mod failure;
mod file;
mod list;
mod manual;
mod page;
mod progress;
mod run;
mod service;
mod show;
mod streams;
mod table;
mod terminal;
mod top;
mod usage;
mod watch;

use crate::client::{Client, ClientError, Target};
use crate::config::ADDRESS_DEFAULT;
use crate::error::Code;
use crate::model::escape;
use crate::model::reply::{InstanceView, json_pretty};
use crate::model::request::{Condition, PutArgs, Request, WireFormat};
use crate::model::template::Template;
use crate::transport::token;
use advice::About;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use failure::{Failure, complain};
use serde_json::Value;
use std::io::Write;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Coracle could not do what it was asked to; a guest's own codes and those of its ends are in [`InstanceView`].
const FAILED: u8 = 125;
const CANNOT_RUN: u8 = 126;
const NO_SUCH_MODULE: u8 = 127;

/// Runs WebAssembly programs in sandboxes, the way a container daemon runs containers
#[derive(Debug, Parser)]
#[command(name = "coracle", version, disable_help_subcommand = true, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    connecting: Connecting,
    #[command(subcommand)]
    verb: Verb,
}

/// How a daemon is reached.
#[derive(Debug, Clone, Default, clap::Args)]
struct Connecting {
    /// The daemon to talk to: tcp://ADDRESS:PORT, unix:PATH or tls://NAME:PORT [default: your own daemon, by its socket in the
    /// state directory, or else on 127.0.0.1:8080]
    #[arg(long, global = true, env = "CORACLE_HOST", value_name = "HOST")]
    host: Option<String>,
    /// The token, where the daemon wants one [default: the one in the state directory]
    #[arg(long, global = true, env = "CORACLE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// With tls://: the daemon's certificate, or that of the authority that signed it (PEM)
    #[arg(long, global = true, env = "CORACLE_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

const AFTER_HELP: &str =
    "Exit codes of run: the program's own; 124 timed out, 125 Coracle failed, 126 the module cannot run,
127 no such module, 134 trap, 137 killed or out of memory, 143 stopped.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve on a loopback address until told to stop
    Daemon(Box<daemon::DaemonArgs>),
    /// Say what a module is, what it wants, and whether it can run
    Explain(explain::ExplainArgs),
    /// Look whether everything is in order: the daemon, its directories, this machine
    Doctor(doctor::DoctorArgs),
    /// Print a script that completes commands, flags and names in a shell
    Completions(completions::CompletionsArgs),
    /// Print what systemd or launchd needs to keep your daemon running, or write it to where they look
    InstallService(service::ServiceArgs),
    /// Print the manual, or write its pages into a directory
    Man(manual::ManArgs),
    /// Compile a module, for the daemon
    #[command(hide = true)]
    CompileModule(compile::CompileArgs),
    /// Show what runs on a live screen: what it uses, what it prints; and stop, restart or remove it
    Top,
    /// Say what could stand in a place, for those scripts
    #[command(name = "__complete", hide = true)]
    Complete(completions::CompleteArgs),
    #[command(flatten)]
    Request(Request),
}

type Outcome = Result<u8, Failure>;

/// Parses, does, and answers with the exit code.
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => return ExitCode::from(unparsed(&e)),
    };
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// What was asked for is help, or it is no command of ours.
fn unparsed(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A closed stream is no reason to fail twice.
            let _printed = error.print();
            if error.use_stderr() { FAILED } else { 0 }
        }
        _ => {
            let words: Vec<String> = std::env::args_os().skip(1).filter_map(|word| word.into_string().ok()).collect();
            complain(&Failure::of_grammar(&command(), &words, error));
            FAILED
        }
    }
}

fn command() -> clap::Command {
    Cli::command().mut_subcommand("format", |c| c.hide(true)).mut_subcommand("auth", |c| c.hide(true)).mut_subcommand("run", |run| {
        run.mut_arg("attach", |arg| arg.hide(true)).after_help(
            "The program sees its own directory as `/`, and no other file, no network and no variable of your environment.",
        )
    })
}

/// Talk for a person, on standard error.
fn say(text: &str) {
    // Talk is never worth failing for.
    let _printed = writeln!(std::io::stderr().lock(), "coracle: {}", escape::line(text));
}

fn dispatch(cli: Cli) -> Outcome {
    let request = match cli.verb {
        Verb::Daemon(args) => return daemon::foreground(*args),
        Verb::CompileModule(args) => return compile::child(&args),
        Verb::Completions(args) => return completions::script(&args),
        Verb::InstallService(args) => return service::install(&args),
        Verb::Man(args) => return manual::manual(&args),
        Verb::Complete(args) => return completions::answer(&args),
        Verb::Doctor(args) => return doctor::doctor(&cli.connecting, &args),
        Verb::Explain(args) => {
            let target = || target(&cli.connecting);
            return explain::explain(target, &args);
        }
        Verb::Request(Request::Help { verb }) => return help(verb.as_deref()),
        Verb::Top => return on_a_runtime(top::run(target(&cli.connecting)?)),
        Verb::Request(request) => request,
    };
    let target = target(&cli.connecting)?;
    on_a_runtime(perform(target, request))
}

/// Does it, and waits for nothing else.
fn on_a_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::new("cannot start").cause(e))?;
    let outcome = runtime.block_on(work);
    // Not waited for: a blocked read of a terminal would keep us here.
    runtime.shutdown_background();
    outcome
}

fn help(verb: Option<&str>) -> Outcome {
    let mut command = command();
    let text = match verb {
        None => command.render_help(),
        Some(verb) => match command.find_subcommand_mut(verb) {
            Some(sub) => sub.clone().bin_name(format!("coracle {verb}")).render_help(),
            None => return Err(Failure::no_such_command(&command, verb)),
        },
    };
    print(&text.to_string())
}

/// `tcp://ADDRESS:PORT` (or without `tcp://`), `unix:PATH`, `tls://NAME:PORT`; without any, the user's own daemon.
fn target(args: &Connecting) -> Result<Target, Failure> {
    let set = std::env::var_os("CORACLE_STATE_DIR").map(PathBuf::from);
    target_of(args, set.or_else(crate::config::state_dir_default).as_deref())
}

/// As [`target()`], for the daemon of this state directory.
fn target_of(args: &Connecting, state_dir: Option<&Path>) -> Result<Target, Failure> {
    let token = args.token_file.clone().or_else(|| state_dir.map(token::path));
    let Some(host) = args.host.as_deref() else {
        let address = ADDRESS_DEFAULT.parse().map_err(|e| Failure::new(format!("{ADDRESS_DEFAULT}: {e}")))?;
        #[cfg(unix)]
        let target = match state_dir {
            Some(directory) => Target::own(crate::transport::socket_path(directory), address),
            None => Target::tcp(address),
        };
        #[cfg(not(unix))]
        let target = Target::tcp(address);
        return Ok(target.with_token(token));
    };
    let bad = || {
        Failure::new(format!("--host {host}: not an address"))
            .hint("it looks like tcp://127.0.0.1:8080, unix:/run/coracle.sock or tls://example.org:8443")
    };
    #[cfg(unix)]
    if let Some(path) = host.strip_prefix("unix://").or_else(|| host.strip_prefix("unix:")) {
        return if path.is_empty() { Err(bad()) } else { Ok(Target::unix(path).with_token(token)) };
    }
    let resolve = |plain: &str| plain.to_socket_addrs().map_err(|_| bad())?.next().ok_or_else(bad);
    if let Some(plain) = host.strip_prefix("tls://") {
        let name = plain.rsplit_once(':').map(|(name, _)| name.trim_matches(['[', ']'])).ok_or_else(bad)?;
        let authorities = args.tls_ca.clone().ok_or_else(|| {
            Failure::new(format!("--host {host}: --tls-ca is missing"))
                .hint("give the file with the daemon's certificate, or that of the authority that signed it")
        })?;
        return Ok(Target::tls(name, resolve(plain)?, authorities).with_token(token));
    }
    Ok(Target::tcp(resolve(host.strip_prefix("tcp://").unwrap_or(host))?).with_token(token))
}

async fn perform(target: Target, request: Request) -> Outcome {
    let about = About::of(&request);
    match ask(target.clone(), request).await {
        Err(failure) if failure.refused.is_some() => Err(advice::advise(target, failure, &about).await),
        outcome => outcome,
    }
}

async fn ask(target: Target, request: Request) -> Outcome {
    let args = match request {
        Request::Run(args) => return run::run(target, *args).await,
        request => request,
    };
    let mut client = Client::connect(target.clone()).await?;
    match args {
        Request::List(args) => list::list(target, &mut client, &args).await,
        Request::Modules(args) => list::modules(&mut client, &args).await,
        Request::Limits(args) => list::limits(&mut client, &args).await,
        Request::Stats(args) => usage::stats(&mut client, &args).await,
        Request::Stop(args) => {
            let time = format!("--time={}ns", args.time.as_nanos());
            each::<Value>(&mut client, &["stop", &time], &args.names, |name, _| Ok(line_of(name))).await
        }
        Request::Restart(args) => {
            let time = format!("--time={}ns", args.time.as_nanos());
            each::<Value>(&mut client, &["restart", &time], &args.names, |name, _| Ok(line_of(name))).await
        }
        Request::Kill(names) => each::<Value>(&mut client, &["kill"], &names.names, |name, _| Ok(line_of(name))).await,
        Request::Rm(args) => {
            let mut words = vec!["rm"];
            words.extend(args.force.then_some("--force"));
            words.extend(args.volumes.then_some("--volumes"));
            each::<Value>(&mut client, &words, &args.names, |name, _| Ok(line_of(name))).await
        }
        Request::Prune(args) => {
            let filters: Vec<String> = args.filter.iter().map(|f| format!("--filter={f}")).collect();
            let mut words = vec!["prune"];
            words.extend(args.volumes.then_some("--volumes"));
            words.extend(filters.iter().map(String::as_str));
            let pruned: Pruned = client.request(&words).await?;
            print(&pruned.removed.iter().map(|name| format!("{name}\n")).collect::<String>())
        }
        Request::Forget(names) => {
            each::<Value>(&mut client, &["forget"], &names.names, |name, _| Ok(line_of(name))).await
        }
        Request::Wait(args) => match args.condition {
            Condition::Stopped => {
                let code = |_: &str, view: InstanceView| Ok(format!("{}\n", view.exit_code.unwrap_or_default()));
                each(&mut client, &["wait"], &args.names, code).await
            }
            Condition::Running => {
                let words = ["wait", "--condition=running"];
                each::<Value>(&mut client, &words, &args.names, |name, _| Ok(line_of(name))).await
            }
        },
        Request::Inspect(args) => list::inspect(&mut client, &args).await,
        Request::Logs(args) => streams::logs(&mut client, &args).await,
        Request::Events(args) => streams::events(&mut client, &args).await,
        Request::Put(args) => put(&mut client, &args).await,
        Request::Get(args) => explain::get(&mut client, &args.name).await,
        Request::Hello => {
            let hello: Value = client.request(&["hello"]).await?;
            print_json(&hello)
        }
        Request::Ping => {
            client.request::<Value>(&["ping"]).await?;
            print("pong\n")
        }
        Request::Shutdown => {
            client.shut_down().await?;
            Ok(0)
        }
        Request::Format { format } => {
            let word = if format == WireFormat::Json { "json" } else { "plain" };
            Err(Failure::new(format!("`format {word}` is for a connection"))
                .hint("on the command line use --format json"))
        }
        Request::Auth(_) => {
            Err(Failure::new("`auth` is for a connection")
                .hint("the command line shows the token by itself: --token-file"))
        }
        Request::Run(_) | Request::Help { .. } => Err(Failure::new("this verb was handled above")),
    }
}

/// What `prune` answers.
#[derive(Debug, serde::Deserialize)]
struct Pruned {
    removed: Vec<crate::model::name::Name>,
}

/// A verb with several names: each that went well on a line of its own, each that did not on standard error.
async fn each<T: serde::de::DeserializeOwned>(
    client: &mut Client,
    words: &[&str],
    names: &[String],
    mut line: impl FnMut(&str, T) -> Result<String, Failure>,
) -> Outcome {
    let mut code = 0;
    let results = client.each::<T>(words, names).await?;
    let unknown = |result: &Result<T, ClientError>| {
        result.as_ref().err().and_then(ClientError::code).is_some_and(|code| code == Code::NotFound)
    };
    let known = if results.iter().any(unknown) { advice::instances(client).await } else { vec![] };
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(value) => {
                print(&line(name, value)?)?;
            }
            Err(error) => {
                complain(&advised(words, name, error.into(), &known));
                code = FAILED;
            }
        }
    }
    Ok(code)
}

fn advised(words: &[&str], name: &str, failure: Failure, known: &[String]) -> Failure {
    match (failure.refused, words.first()) {
        (Some(Code::NotFound), _) => advice::of_unknown(failure, name, known),
        (Some(Code::Busy), Some(&"rm")) => failure.hint(format!("coracle rm -f {name}")),
        _ => failure,
    }
}

async fn put(client: &mut Client, args: &PutArgs) -> Outcome {
    let module = file::ModuleFile::read(&args.module)?;
    let name = args.name.clone().map_or_else(|| module.name(), Ok)?;
    let view = module.send(client, &name).await?;
    print(&line_of(&format!("{} {}", view.name, view.digest.unwrap_or_default())))
}

/// One line of what was typed or answered; whoever answers may be no daemon of ours.
fn line_of(text: &str) -> String {
    format!("{}\n", escape::line(text))
}

/// Data, on standard output.
fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(0),
        Err(e) => quiet_if_closed(e),
    }
}

fn print_json<T: serde::Serialize>(value: &T) -> Outcome {
    print(&format!("{}\n", json_pretty(value)))
}

/// A line for each thing, as its template wants it.
fn template_lines<T: serde::Serialize>(
    template: &Template,
    things: impl IntoIterator<Item = T>,
) -> Result<String, Failure> {
    let mut out = String::new();
    for thing in things {
        let value = serde_json::to_value(thing).map_err(|e| Failure::new(format!("cannot be JSON: {e}")))?;
        out.push_str(&template.fill(&value).map_err(|why| Failure::new(format!("--format: {why}")))?);
        out.push('\n');
    }
    Ok(out)
}

/// The reader of our output left: it has what it wanted.
fn quiet_if_closed(e: std::io::Error) -> Outcome {
    if e.kind() == std::io::ErrorKind::BrokenPipe { Ok(0) } else { Err(e.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        command().debug_assert();
    }

    /// As on the wire, so for the words that only the command line has.
    #[test]
    fn no_word_of_the_command_line_is_a_name() {
        let command = command();
        let words = command.get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name);
        let words: Vec<&str> = words.filter(|word| *word != "hello").collect();
        assert!(words.contains(&"daemon") && words.contains(&"run"));
        for word in words {
            assert!(word.parse::<crate::model::name::Name>().is_err(), "{word}");
        }
    }

    #[test]
    fn hosts_are_read_with_and_without_the_scheme() {
        let read = |host: Option<&str>, tls_ca: Option<&str>| {
            let connecting =
                Connecting { host: host.map(str::to_owned), token_file: None, tls_ca: tls_ca.map(PathBuf::from) };
            target(&connecting).map(|target| target.to_string()).map_err(|failure| failure.message)
        };
        assert_eq!(read(None, None).unwrap(), "127.0.0.1:8080");
        assert_eq!(read(Some("tcp://127.0.0.1:9"), None).unwrap(), "127.0.0.1:9");
        assert_eq!(read(Some("[::1]:9"), None).unwrap(), "[::1]:9");
        assert_eq!(read(Some("tls://127.0.0.1:9"), Some("ca.pem")).unwrap(), "tls://127.0.0.1:9");
        #[cfg(unix)]
        for socket in ["unix:/x", "unix:///x"] {
            assert_eq!(read(Some(socket), None).unwrap(), "unix:/x");
        }
        assert!(read(Some("tls://127.0.0.1:9"), None).unwrap_err().contains("--tls-ca"));
        for bad in ["unix:", "nowhere", "tcp://", "127.0.0.1", "tls://", "tls://127.0.0.1"] {
            assert!(read(Some(bad), Some("ca.pem")).is_err(), "{bad}");
        }
    }
}
