//! `coracle daemon`: serve until a signal or `shutdown`.

use super::failure::Failure;
use super::{FAILED, Outcome, line_of, print};
use crate::config::Config;
use crate::daemon::{Supervisor, fence};
use crate::model::escape;
use crate::server;
use crate::state_dir;
use clap::{Args, ValueEnum};
use std::borrow::Cow;
use std::io::Write;
use tracing_subscriber::EnvFilter;

/// Arguments of `daemon`.
#[derive(Debug, Clone, Args)]
pub(super) struct DaemonArgs {
    #[command(flatten)]
    config: Config,
    /// How the daemon's own log looks; what it tells is set by CORACLE_LOG (error, warn, info, debug)
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Leave the terminal's session; set by the command line when it starts a daemon by itself
    #[arg(long, hide = true)]
    background: bool,
}

impl DaemonArgs {
    /// What the daemon is told.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Serves in the foreground. `listening on ADDRESS` is the first line on standard output, once it is true.
pub(super) fn foreground(args: DaemonArgs) -> Outcome {
    #[cfg(unix)]
    leave_others_out(args.background);
    // What we were started with is not for the compilers that we start.
    #[cfg(unix)]
    close_fds::set_fds_cloexec(3, &[]);
    start_log(args.log_format);
    #[cfg(unix)]
    {
        leave_no_core();
        if rustix::process::geteuid().is_root() {
            tracing::warn!("started as root: nothing but the sandbox separates a guest from the whole system");
        }
    }
    let mut config = args.config;
    let outcome = match fence(&mut config) {
        Ok(()) => run(config),
        Err(failure) => Err(failure),
    };
    match outcome {
        // Whoever started us reads standard output, and nobody standard error.
        Err(failure) if args.background => {
            print(&line_of(&failure.one_line()))?;
            Ok(FAILED)
        }
        outcome => outcome,
    }
}

/// While there is one thread: those that are begun later are within it.
fn fence(config: &mut Config) -> Result<(), Failure> {
    let state_dir =
        config.state_dir().ok_or_else(|| Failure::new("there is no home directory: give --state-dir DIR"))?;
    // What is not there cannot be let through. If this fails, so does what comes behind it, and says why.
    let _told_later = (state_dir::make(&state_dir), std::fs::create_dir_all(&config.root));
    config.fenced = Some(fence::raise(config, &state_dir)?);
    Ok(())
}

fn run(config: Config) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|e| Failure::new("cannot start").cause(e))?;
    let outcome = runtime.block_on(serve(config));
    // A reader that hangs in the kernel is left behind.
    runtime.shutdown_background();
    outcome
}

/// What guests and the daemon write is for this user alone; and a daemon in the background belongs to no terminal.
#[cfg(unix)]
fn leave_others_out(background: bool) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if background && let Err(e) = rustix::process::setsid() {
        tracing::debug!("setsid: {e}");
    }
}

/// A core would hold the values of environments, and lie about for whoever finds it; so the compilers that we start leave none
/// either. Programs that the kernel pipes cores to are told the limit, and hold to it (core(5)).
#[cfg(unix)]
fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(e) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!("a crash could leave a core with secrets in it: {e}");
    }
}

fn start_log(format: LogFormat) {
    // wasmtime's WASI is instrumented at every call: only what is asked for by name is let through.
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .parse_lossy(match std::env::var("CORACLE_LOG") {
            Ok(level) if !level.is_empty() => level.split(',').map(directive).collect::<Vec<_>>().join(","),
            _ => "coracle=info".to_owned(),
        });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Records { format })
        // What colours a terminal moves its cursor as well.
        .with_ansi(false)
        .with_target(false)
        // Nobody is left to tell when even that cannot be written; the default would panic over it.
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(e) = started {
        let _printed = writeln!(std::io::stderr(), "coracle: no log: {e}");
    }
}

/// Standard error, for records of the log: each is one line, and nothing in it acts on a terminal, whatever names and paths it
/// quotes. The log is read later, by others.
struct Records {
    format: LogFormat,
}

impl Write for Records {
    /// Takes a record whole, as tracing-subscriber hands it over, and writes it at once: lines of several threads stay apart.
    fn write(&mut self, record: &[u8]) -> std::io::Result<usize> {
        std::io::stderr().write_all(record_line(self.format, record).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A record, which ends with a line end, as one printable line.
fn record_line(format: LogFormat, record: &[u8]) -> String {
    let text = String::from_utf8_lossy(record);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let line = match format {
        LogFormat::Text => escape::line(text),
        // Within strings JSON has escaped line ends already.
        LogFormat::Json => Cow::Owned(escape::json(text.to_owned())),
    };
    format!("{line}\n")
}

/// `debug` means ours; `wasmtime=debug` is taken as it stands.
fn directive(level: &str) -> String {
    if level.contains('=') { level.to_owned() } else { format!("coracle={level}") }
}

async fn serve(config: Config) -> Outcome {
    #[cfg(unix)]
    outlive_file_size_limit();
    let server = server::start(config).await?;
    let signals = signals(server.supervisor().clone())?;
    print(&format!("listening on {}\n", server.address()))?;
    if let Some(address) = server.metrics() {
        print(&format!("metrics on http://{address}/metrics\n"))?;
    }
    server.ended().await;
    signals.abort();
    Ok(0)
}

/// A write beyond the limit on file sizes is an error like any other, and no reason to die (setrlimit(2), `RLIMIT_FSIZE`).
#[cfg(unix)]
fn outlive_file_size_limit() {
    use tokio::signal::unix::{SignalKind, signal};
    /// The number on Linux and on the BSDs; the standard library does not name it.
    const SIGXFSZ: i32 = 25;
    // Once there is a handler it stays, whether or not anybody listens.
    if let Err(e) = signal(SignalKind::from_raw(SIGXFSZ)) {
        tracing::debug!("SIGXFSZ: {e}");
    }
}

/// The first signal asks for an orderly end; the second does not wait for it.
fn signals(supervisor: Supervisor) -> Result<tokio::task::JoinHandle<()>, Failure> {
    let mut signals = Signals::new().map_err(|e| Failure::new("cannot listen for signals").cause(e))?;
    #[expect(clippy::disallowed_methods, reason = "ends with the daemon: its handle is kept and aborted")]
    let handle = tokio::spawn(async move {
        signals.next().await;
        supervisor.shut_down();
        signals.next().await;
        tracing::warn!("a second signal: leaving at once");
        #[expect(clippy::exit, reason = "at once is what the second signal asks for")]
        std::process::exit(i32::from(FAILED));
    });
    Ok(handle)
}

/// Ctrl-C and, on Unix, SIGTERM.
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Signals> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
        }
        #[cfg(not(unix))]
        Ok(Signals {})
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_printable_line() {
        let text = "INFO ready root=/a\nWARN forged \u{1b}[2J\u{9b}\u{202e}\u{2028}\n".as_bytes();
        let line = "INFO ready root=/a\\nWARN forged \\x1b[2J\\x9b\\u{202e}\\u{2028}\n";
        assert_eq!(record_line(LogFormat::Text, text), line);
        let value = serde_json::json!({ "root": "/a\nWARN forged \u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}" });
        let line = record_line(LogFormat::Json, format!("{value}\n").as_bytes());
        assert_eq!(line, "{\"root\":\"/a\\nWARN forged \\u001b[2J\\u007f\\u009b\\u202e\\u2028\"}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
        assert_eq!(record_line(LogFormat::Text, b"\xff"), "\u{fffd}\n");
    }
}
