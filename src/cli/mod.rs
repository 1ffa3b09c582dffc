//! The command line: the verbs of the protocol with the same grammar, and `daemon`. The only place that prints.
//!
//! Standard output is data, standard error is talk. What a guest or a module wrote is escaped before a person reads it in a
//! message; the output of a run goes through as it is.

mod background;
mod compile;
mod daemon;
mod file;
mod progress;
mod run;
mod show;
mod streams;

use crate::client::{Client, ClientError};
use crate::config::ADDRESS_DEFAULT;
use crate::error::Code;
use crate::model::escape;
use crate::model::limit::LimitViews;
use crate::model::reply::{Inspection, InstanceView, json_pretty};
use crate::model::request::{Condition, OutputFormat, PutArgs, Request, WireFormat};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::Value;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

/// Coracle could not do what it was asked to; a guest's own codes and those of its ends are in [`InstanceView`].
const FAILED: u8 = 125;
const CANNOT_RUN: u8 = 126;
const NO_SUCH_MODULE: u8 = 127;

/// Runs WebAssembly programs in sandboxes, the way a container daemon runs containers
#[derive(Debug, Parser)]
#[command(name = "coracle", version, disable_help_subcommand = true, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    /// The daemon to talk to: tcp://ADDRESS:PORT [default: tcp://127.0.0.1:8080]
    #[arg(long, global = true, env = "CORACLE_HOST", value_name = "HOST")]
    host: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str =
    "Exit codes of run: the program's own; 124 timed out, 125 Coracle failed, 126 the module cannot run,
127 no such module, 134 trap, 137 killed or out of memory, 143 stopped.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve on a loopback address until told to stop
    Daemon(Box<daemon::DaemonArgs>),
    /// Compile a module, for the daemon
    #[command(hide = true)]
    CompileModule(compile::CompileArgs),
    #[command(flatten)]
    Request(Request),
}

/// What a person is told: one line, perhaps with a line on what to do, and the exit code that goes with it.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, code: FAILED }
    }

    fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let code = match error.code() {
            Some(Code::NoModule) => NO_SUCH_MODULE,
            Some(Code::BadModule) => CANNOT_RUN,
            _ => FAILED,
        };
        let failure = Failure { message: error.to_string(), hint: None, code };
        match error {
            ClientError::Connect { .. } => {
                failure.hint("start one with `coracle daemon`, or run something: `coracle run hello`")
            }
            _ => failure,
        }
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Failure {
        Failure::new(error.to_string())
    }
}

/// Writing to our own standard output failed. A reader that left (`| head`) is no failure.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(format!("cannot write the output: {error}"))
    }
}

type Outcome = Result<u8, Failure>;

/// Parses, does, and answers with the exit code.
pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(e) => {
            let failed = e.use_stderr();
            // A closed stream is no reason to fail twice.
            let _printed = e.print();
            return ExitCode::from(if failed { FAILED } else { 0 });
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => {
            let _printed = e.print();
            return ExitCode::from(FAILED);
        }
    };
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.code)
        }
    }
}

fn command() -> clap::Command {
    Cli::command().mut_subcommand("format", |c| c.hide(true)).mut_subcommand("run", |run| {
        run.mut_arg("attach", |arg| arg.hide(true)).after_help(
            "The program sees its own directory as `/`, and no other file, no network and no variable of your environment.",
        )
    })
}

/// One line on standard error, escaped: it may quote a guest, a module or a stranger.
fn complain(failure: &Failure) {
    let mut err = std::io::stderr().lock();
    // Nobody is left to tell if even that fails.
    let _printed = writeln!(err, "error: {}", escape::line(&failure.message));
    if let Some(hint) = &failure.hint {
        let _printed = writeln!(err, "hint: {}", escape::line(hint));
    }
}

/// Talk for a person, on standard error.
fn say(text: &str) {
    // Talk is never worth failing for.
    let _printed = writeln!(std::io::stderr().lock(), "coracle: {}", escape::line(text));
}

fn dispatch(cli: Cli) -> Outcome {
    let host = cli.host;
    let request = match cli.verb {
        Verb::Daemon(args) => return daemon::foreground(*args),
        Verb::CompileModule(args) => return compile::child(&args),
        Verb::Request(Request::Help { verb }) => return help(verb.as_deref()),
        Verb::Request(request) => request,
    };
    let address = address(host.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(format!("cannot start: {e}")))?;
    let outcome = runtime.block_on(perform(address, request));
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
            None => return Err(Failure::new(format!("there is no command '{verb}'")).hint("`coracle help` lists them")),
        },
    };
    print(&text.to_string())
}

/// `tcp://ADDRESS:PORT`, or without `tcp://`.
fn address(host: Option<&str>) -> Result<SocketAddr, Failure> {
    let host = host.unwrap_or(ADDRESS_DEFAULT);
    if host.starts_with("unix:") {
        return Err(
            Failure::new(format!("--host {host}: Unix sockets are not supported yet")).hint("use tcp://127.0.0.1:PORT")
        );
    }
    let bad = || Failure::new(format!("--host {host}: not an address")).hint("it looks like tcp://127.0.0.1:8080");
    let plain = host.strip_prefix("tcp://").unwrap_or(host);
    plain.to_socket_addrs().map_err(|_| bad())?.next().ok_or_else(bad)
}

async fn perform(address: SocketAddr, request: Request) -> Outcome {
    let args = match request {
        Request::Run(args) => return run::run(address, *args).await,
        request => request,
    };
    let mut client = Client::connect(address).await?;
    match args {
        Request::List(args) => {
            let list = client.list_filtered(&args.filter).await?;
            match (args.format, args.quiet) {
                (OutputFormat::Json, _) => print_json(&list),
                (_, true) => print(&list.iter().map(|v| format!("{}\n", v.name)).collect::<String>()),
                (OutputFormat::Table, false) => print(&show::instances(&list)),
            }
        }
        Request::Modules(args) => {
            let modules = client.modules().await?;
            match args.format {
                OutputFormat::Json => print_json(&modules),
                OutputFormat::Table => print(&show::modules(&modules)),
            }
        }
        Request::Limits(args) => {
            let all: LimitViews = client.request(&["limits"]).await?;
            match args.format {
                OutputFormat::Json => print_json(&all.limits),
                OutputFormat::Table => print(&show::limits(&all.limits)),
            }
        }
        Request::Stop(args) => {
            let time = format!("--time={}ns", args.time.as_nanos());
            each::<Value>(&mut client, &["stop", &time], &args.names, |name, _| format!("{name}\n")).await
        }
        Request::Restart(args) => {
            let time = format!("--time={}ns", args.time.as_nanos());
            each::<Value>(&mut client, &["restart", &time], &args.names, |name, _| format!("{name}\n")).await
        }
        Request::Kill(names) => {
            each::<Value>(&mut client, &["kill"], &names.names, |name, _| format!("{name}\n")).await
        }
        Request::Rm(args) => {
            let mut words = vec!["rm"];
            words.extend(args.force.then_some("--force"));
            words.extend(args.volumes.then_some("--volumes"));
            each::<Value>(&mut client, &words, &args.names, |name, _| format!("{name}\n")).await
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
            each::<Value>(&mut client, &["forget"], &names.names, |name, _| format!("{name}\n")).await
        }
        Request::Wait(args) => match args.condition {
            Condition::Stopped => {
                let code = |_: &str, view: InstanceView| format!("{}\n", view.exit_code.unwrap_or_default());
                each(&mut client, &["wait"], &args.names, code).await
            }
            Condition::Running => {
                let words = ["wait", "--condition=running"];
                each::<Value>(&mut client, &words, &args.names, |name, _| format!("{name}\n")).await
            }
        },
        Request::Inspect(names) => {
            let pretty = |_: &str, inspection: Inspection| format!("{}\n", json_pretty(&inspection));
            each(&mut client, &["inspect"], &names.names, pretty).await
        }
        Request::Logs(args) => streams::logs(&mut client, &args).await,
        Request::Events(args) => streams::events(&mut client, &args).await,
        Request::Put(args) => put(&mut client, &args).await,
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
    line: impl Fn(&str, T) -> String,
) -> Outcome {
    let mut code = 0;
    let results = client.each::<T>(words, names).await?;
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(value) => {
                print(&line(name, value))?;
            }
            Err(error) => {
                let failure = Failure::from(error);
                complain(&failure);
                code = FAILED;
            }
        }
    }
    Ok(code)
}

async fn put(client: &mut Client, args: &PutArgs) -> Outcome {
    let module = file::ModuleFile::read(&args.module)?;
    let name = args.name.clone().map_or_else(|| module.name(), Ok)?;
    let view = module.send(client, &name).await?;
    print(&format!("{} {}\n", view.name, view.digest.unwrap_or_default()))
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

    #[test]
    fn hosts_are_read_with_and_without_the_scheme() {
        assert_eq!(address(None).unwrap(), ([127, 0, 0, 1], 8080).into());
        assert_eq!(address(Some("tcp://127.0.0.1:9")).unwrap().port(), 9);
        assert_eq!(address(Some("[::1]:9")).unwrap().port(), 9);
        for bad in ["unix:/x", "nowhere", "tcp://", "127.0.0.1"] {
            assert!(address(Some(bad)).is_err(), "{bad}");
        }
    }
}
