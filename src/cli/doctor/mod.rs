//! `coracle doctor`: looks whether everything is in order, and says of each thing what to do about it. It needs no daemon, changes
//! nothing, and does not disturb a daemon that runs.

mod machine;
mod state;

use super::colour::Brush;
use super::failure::Failure;
use super::{Connecting, FAILED, Outcome, on_a_runtime, print, print_json, target_of, template_lines};
use crate::client::{Client, ClientError, Target};
use crate::config;
use crate::model::escape;
use crate::model::limit::LimitViews;
use crate::model::reply::{Hello, InstanceView};
use crate::model::request::OutputFormat;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// How long a daemon may take to answer all that it is asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of `doctor`.
#[derive(Debug, Clone, Args)]
pub(super) struct DoctorArgs {
    /// The state directory to look at [default: the platform's]
    #[arg(long, value_name = "DIR", env = "CORACLE_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Where the directories of instances are made
    #[arg(long, value_name = "DIR", env = "CORACLE_ROOT", default_value_os_t = config::root_default())]
    root: PathBuf,
    /// How to show it: table, json, or a template such as '{{.failed}} {{.warned}}' over the fields of the JSON [default: table]
    #[arg(long, value_name = "FORMAT")]
    format: Option<OutputFormat>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// It works, and could work better.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    what: String,
    /// What to do, unless it is in order.
    todo: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding { check, level: Level::Ok, what: what.into(), todo: None }
    }

    fn warn(check: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Finding {
        Finding { check, level: Level::Warn, what: what.into(), todo: Some(todo.into()) }
    }

    fn fail(check: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Finding {
        Finding { check, level: Level::Fail, what: what.into(), todo: Some(todo.into()) }
    }
}

/// All of it, for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    checks: &'a [Finding],
    failed: usize,
    warned: usize,
}

/// What a daemon says of itself.
struct Daemon {
    hello: Hello,
    /// Only for who is listened to.
    limits: Option<LimitViews>,
    instances: Vec<InstanceView>,
}

pub(super) fn doctor(connecting: &Connecting, args: &DoctorArgs) -> Outcome {
    let state_dir = args.state_dir.clone().or_else(config::state_dir_default);
    let target = target_of(connecting, state_dir.as_deref())?;
    let asked = on_a_runtime(async { Ok(ask(target.clone()).await) })?;
    let (found, daemon) = reached(&target, connecting.host.is_some(), asked);
    let mut findings = vec![found];
    if let Some(daemon) = &daemon {
        findings.push(version(&daemon.hello));
    }
    let mut directories: Vec<PathBuf> = vec![];
    match &state_dir {
        Some(directory) => state::look(directory, daemon.is_some(), &mut findings, &mut directories),
        None => findings.push(Finding::fail("state", "there is no home directory", "give --state-dir DIR")),
    }
    if let Some(daemon) = &daemon {
        directories = daemon.instances.iter().map(|view| PathBuf::from(&view.directory)).collect();
    }
    state::root(&args.root, &directories, &mut findings);
    machine::look(state_dir.as_deref(), &args.root, &mut findings);
    findings
        .push(machine::fence(daemon.as_ref().and_then(|daemon| daemon.limits.as_ref()).map(|all| all.fence.as_str())));
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let report = Report { checks: &findings, failed: count(Level::Fail), warned: count(Level::Warn) };
    match args.format.clone().unwrap_or_default() {
        OutputFormat::Template(template) => print(&template_lines(&template, [&report])?)?,
        OutputFormat::Json => print_json(&report)?,
        OutputFormat::Table => print(&page(&report, Brush::on(&std::io::stdout())))?,
    };
    Ok(if report.failed == 0 { 0 } else { FAILED })
}

async fn ask(target: Target) -> Result<Daemon, ClientError> {
    let asked = async {
        let mut client = Client::connect(target).await?;
        let hello = client.request(&["hello"]).await?;
        let limits = client.request(&["limits"]).await.ok();
        let instances = client.list().await.unwrap_or_default();
        Ok(Daemon { hello, limits, instances })
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(asked) => asked,
        Err(_) => Err(ClientError::Protocol(format!("no answer within {}", humantime::format_duration(PATIENCE)))),
    }
}

/// Whether it answers, and what it says of itself.
fn reached(target: &Target, asked_for: bool, asked: Result<Daemon, ClientError>) -> (Finding, Option<Daemon>) {
    const CHECK: &str = "daemon";
    let error = match asked {
        Ok(daemon) => return (Finding::ok(CHECK, format!("answers on {target}")), Some(daemon)),
        Err(error) => error,
    };
    let finding = match &error {
        ClientError::Connect { source, .. } if asked_for => {
            let todo = "start it there (`coracle daemon --listen ADDR`), or look at --host and CORACLE_HOST";
            Finding::fail(CHECK, format!("none answers on {target}: {source}"), todo)
        }
        ClientError::Connect { source, .. } => {
            let todo = "start one with `coracle daemon`, or run something: `coracle run hello` starts one by itself";
            Finding::warn(CHECK, format!("none answers on {target}: {source}"), todo)
        }
        // Elsewhere `coracle doctor` is the advice.
        ClientError::Protocol(_) | ClientError::Broken(_) => {
            let todo = "look who listens there and at the daemon's log, or give another --host";
            Finding::fail(CHECK, format!("{target}: {}", Failure::from(error).one_line()), todo)
        }
        _ => {
            let failure = Failure::from(error);
            let todo = failure.hints.first().map_or("look at the log of the daemon there", String::as_str);
            Finding::fail(CHECK, format!("{target}: {}", failure.one_line()), todo)
        }
    };
    (finding, None)
}

fn version(hello: &Hello) -> Finding {
    const CHECK: &str = "version";
    let ours = env!("CARGO_PKG_VERSION");
    if hello.version == ours {
        return Finding::ok(CHECK, format!("the daemon and this program are {ours} ({})", hello.engine));
    }
    Finding::warn(
        CHECK,
        format!("the daemon is {}, and this program {ours}", hello.version),
        "end it with `coracle shutdown`, and start the other with `coracle daemon`",
    )
}

/// For people: one line each, and below what to do. Paths and what a daemon says pass `escape`.
fn page(report: &Report<'_>, brush: Brush) -> String {
    let mut page = String::new();
    let width = report.checks.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    for finding in report.checks {
        let level = match finding.level {
            Level::Ok => brush.good("ok  "),
            Level::Warn => brush.doubtful("warn"),
            Level::Fail => brush.bad("fail"),
        };
        page.push_str(&format!("{level}  {:width$}  {}\n", finding.check, escape::line(&finding.what)));
        if let Some(todo) = &finding.todo {
            page.push_str(&format!("      {:width$}  {} {}\n", "", brush.advice("->"), escape::line(todo)));
        }
    }
    let end = match (report.failed, report.warned) {
        (0, 0) => "everything is in order".to_owned(),
        (0, warned) => format!("nothing fails; {warned} could be better"),
        (failed, warned) => format!("{failed} failed, {warned} could be better"),
    };
    page.push_str(&format!("{end}\n"));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_and_what_to_do_another() {
        let checks = [
            Finding::ok("daemon", "answers"),
            Finding::warn("state", "a\nb", "do\x1b[2J"),
            Finding::fail("open files", "few", "more"),
        ];
        let report = Report { checks: &checks, failed: 1, warned: 1 };
        let plain = "ok    daemon      answers\n\
                     warn  state       a\\nb\n                  -> do\\x1b[2J\n\
                     fail  open files  few\n                  -> more\n\
                     1 failed, 1 could be better\n";
        assert_eq!(page(&report, Brush::default()), plain);
    }

    #[test]
    fn a_daemon_of_another_version_is_told() {
        let hello = |version: &str| Hello {
            program: "coracle".into(),
            version: version.into(),
            protocol: 1,
            engine: "wasmtime".into(),
            features: vec![],
        };
        assert_eq!(version(&hello(env!("CARGO_PKG_VERSION"))).level, Level::Ok);
        let other = version(&hello("9.9.9"));
        assert_eq!(other.level, Level::Warn);
        assert!(other.what.contains("9.9.9") && other.todo.unwrap().contains("coracle shutdown"));
    }
}
