//! One run of a module: what it was given, where it is in its life, how it ended.
//!
//! ```text
//! created ──► running ──► exited (N) | trapped | stopped | killed | timed-out | lost
//!    ▲  └───────┬───────► failed (never reached guest code), or any of these ends
//!    └── restarting (between two runs) ──► the end of the last run, if it was the last
//! ```
//!
//! A start function is guest code before the entry point; one that ends within a tick goes from created to its end.

use crate::model::escape;
use crate::model::filter::Labels;
use crate::model::mount::Mount;
use crate::model::name::Name;
use crate::model::restart::RestartPolicy;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Wall-clock time in microseconds since 1970-01-01T00:00:00Z; for display, never for deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The last one that can be written as a date: RFC 3339 has four digits for a year.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999_999);

    /// In seconds.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of today fit")]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the microsecond; [`Timestamp::MAX`] for what is later.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = std::time::UNIX_EPOCH + Duration::from_micros(self.min(&Timestamp::MAX).0);
        write!(f, "{}", humantime::format_rfc3339_micros(time))
    }
}

/// Wall-clock time in nanoseconds since 1970-01-01T00:00:00Z, of a piece of output; for display, never for deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LogTime(pub u64);

impl fmt::Display for LogTime {
    /// RFC 3339 in UTC, to the nanosecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = std::time::UNIX_EPOCH + Duration::from_nanos(self.0);
        write!(f, "{}", humantime::format_rfc3339_nanos(time))
    }
}

impl From<LogTime> for String {
    fn from(time: LogTime) -> String {
        time.to_string()
    }
}

impl From<Timestamp> for LogTime {
    fn from(time: Timestamp) -> LogTime {
        LogTime(time.0.saturating_mul(1000))
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

impl TryFrom<String> for LogTime {
    type Error = String;

    fn try_from(text: String) -> Result<LogTime, String> {
        let since = since_1970(&text)?;
        Ok(LogTime(u64::try_from(since.as_nanos()).map_err(|e| e.to_string())?))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = String;

    fn try_from(text: String) -> Result<Timestamp, String> {
        let since = since_1970(&text)?;
        Ok(Timestamp(u64::try_from(since.as_micros()).map_err(|e| e.to_string())?))
    }
}

fn since_1970(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_rfc3339(text).map_err(|e| e.to_string())?;
    time.duration_since(std::time::UNIX_EPOCH).map_err(|e| e.to_string())
}

/// What a run may use of the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its part where it competes with others, against [`Share::WEIGHT_DEFAULT`] for each that did not ask.
    #[serde(rename = "cpu_weight")]
    pub weight: u32,
    /// Thousandths of one processor that it may use at most, over windows of 100 ms.
    pub cpus_milli: Option<u32>,
}

impl Share {
    /// The weight of a run that did not ask for one, as in cgroups(7).
    pub const WEIGHT_DEFAULT: u32 = 100;
}

impl Default for Share {
    fn default() -> Share {
        Share { weight: Share::WEIGHT_DEFAULT, cpus_milli: None }
    }
}

/// Bytes that an instance may have in its directory, unless the daemon or the run says otherwise.
pub const DISK_BYTES_DEFAULT: usize = 256 << 20;
/// Files that an instance may have there.
pub const FILES_DEFAULT: usize = 10_000;

/// Everything a run is given. Environment values stay in here: they never enter a record, an event or a log.
#[derive(Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// What to run.
    pub module: Name,
    /// What to call it.
    pub name: Name,
    /// `argv[0]`, if it is not the module's name.
    pub argv0: Option<String>,
    /// The guest's arguments after `argv[0]`.
    pub args: Vec<String>,
    /// The guest's whole environment.
    pub env: Vec<(String, String)>,
    /// Directories of the host that it is lent besides its own.
    pub mounts: Vec<Mount>,
    /// Whether stdin is open, to be fed by the attached client.
    pub stdin: bool,
    /// All memories and tables together, in bytes.
    pub memory_bytes_max: usize,
    /// Files and links in its directory, in bytes.
    pub disk_bytes_max: usize,
    /// Names in its directory: of files, links and directories.
    pub files_max: usize,
    /// Wall time of each run, from the entry into guest code.
    pub timeout: Option<Duration>,
    /// CPU time of each run.
    pub cpu_time: Option<Duration>,
    /// What it may use of the processors.
    pub share: Share,
    /// What happens when the run is over.
    pub restart: RestartPolicy,
    /// Whether the instance goes, with its directory and its log, when it has ended.
    pub remove: bool,
    /// Labels, for filters.
    pub labels: Labels,
    /// The stored module with this content, whatever its name leads to.
    pub sha256: Option<String>,
}

impl RunSpec {
    /// What may be shown and written down of it.
    pub fn launch(&self, digest: &str, directory: &str) -> Launch {
        Launch {
            module: self.module.clone(),
            digest: digest.to_owned(),
            argv0: self.argv0.clone(),
            args: self.args.clone(),
            env: self.env.iter().map(|(key, _)| key.clone()).collect(),
            directory: directory.to_owned(),
            mounts: self.mounts.clone(),
            memory_bytes_max: self.memory_bytes_max,
            disk_bytes_max: self.disk_bytes_max,
            files_max: self.files_max,
            timeout_ms: self.timeout.map(milliseconds),
            cpu_time_ms: self.cpu_time.map(milliseconds),
            share: self.share,
            restart: self.restart,
            remove: self.remove,
            fresh: false,
            labels: self.labels.clone(),
            pinned: self.sha256.is_some(),
        }
    }

    /// What `name` was given, from what was written down; `env` are the values that went with it. Its stdin was the first
    /// client's.
    pub fn again(name: &Name, launch: &Launch, env: Vec<(String, String)>) -> RunSpec {
        RunSpec {
            module: launch.module.clone(),
            name: name.clone(),
            argv0: launch.argv0.clone(),
            args: launch.args.clone(),
            env,
            mounts: launch.mounts.clone(),
            stdin: false,
            memory_bytes_max: launch.memory_bytes_max,
            disk_bytes_max: launch.disk_bytes_max,
            files_max: launch.files_max,
            timeout: launch.timeout_ms.map(Duration::from_millis),
            cpu_time: launch.cpu_time_ms.map(Duration::from_millis),
            share: launch.share,
            restart: launch.restart,
            remove: launch.remove,
            labels: launch.labels.clone(),
            sha256: launch.pinned.then(|| launch.digest.clone()),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "code")]
pub enum ExitStatus {
    /// The guest returned from its entry point (0) or called `proc_exit` / `wasi:cli/exit`.
    Exited(u8),
    /// The guest trapped.
    Trapped,
    /// An operator stopped it.
    Stopped,
    /// An operator killed it, or it went past a budget.
    Killed,
    /// It ran longer than `--timeout`.
    TimedOut,
    /// It never reached guest code.
    Failed,
    /// The daemon died under it.
    Lost,
}

impl ExitStatus {
    /// What a shell would see: the guest's own code; 124 timed out, 125 lost, 126 cannot run, 134 trap, 137 killed, 143
    /// stopped.
    pub fn exit_code(self) -> u8 {
        match self {
            ExitStatus::Exited(code) => code,
            ExitStatus::TimedOut => 124,
            ExitStatus::Failed => 126,
            ExitStatus::Trapped => 134,
            ExitStatus::Killed => 137,
            ExitStatus::Stopped => 143,
            ExitStatus::Lost => 125,
        }
    }

    /// The word of the contract, without the exit code.
    pub fn word(self) -> &'static str {
        match self {
            ExitStatus::Exited(_) => "exited",
            ExitStatus::Trapped => "trapped",
            ExitStatus::Stopped => "stopped",
            ExitStatus::Killed => "killed",
            ExitStatus::TimedOut => "timed-out",
            ExitStatus::Failed => "failed",
            ExitStatus::Lost => "lost",
        }
    }
}

/// What is kept of the message of an end, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 512;

/// The end of a run, with why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// A word for programs: `exit`, `trap:unreachable`, `stop`, `kill`, `restart`, `timeout`, `cpu-time`, `memory`,
    /// `shutdown`, `daemon-restart`, `internal`, …
    pub reason: String,
    /// What a person wants to know: the trap and a short backtrace. May hold text of the guest's, as one printable line of at
    /// most [`MESSAGE_BYTES_MAX`].
    pub message: Option<String>,
    /// CPU time that the run used, in microseconds; not known of runs that were lost.
    #[serde(default)]
    pub cpu_us: Option<u64>,
    /// How it was made to end, if somebody or a limit did.
    #[serde(default)]
    pub stopped: Option<Stopped>,
}

impl Ended {
    /// An end of which no more is known.
    pub fn new(status: ExitStatus, reason: impl Into<String>, message: Option<String>) -> Ended {
        let message = message.map(|text| escape::short(&text, MESSAGE_BYTES_MAX));
        Ended { status, reason: reason.into(), message, cpu_us: None, stopped: None }
    }
}

/// How a run was made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The rung of the ladder on which it did.
    pub rung: Rung,
    /// From the request (or the end of the deadline, or the last turn of the budget) until nothing of the guest was left, in
    /// microseconds.
    pub took_us: u64,
}

/// The rungs of the ladder that ends a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// It left by itself, in the time that it was given after its stdin was closed.
    Grace,
    /// It was computing, and yielded at a tick.
    Tick,
    /// It was waiting in a call of the host, which was dropped.
    HostCall,
}

/// Where a run is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Accepted and recorded, not yet in guest code.
    Created,
    /// In guest code.
    Running,
    /// Between two runs; the last one ended like this.
    Restarting(Ended),
    /// Over.
    Ended(Ended),
}

impl State {
    /// Whether the name is taken: by a run that is not over, or by one that is to come.
    pub fn is_live(&self) -> bool {
        match self {
            State::Created | State::Running | State::Restarting(_) => true,
            State::Ended(_) => false,
        }
    }

    /// How the run ended, if it did.
    pub fn ended(&self) -> Option<&Ended> {
        match self {
            State::Created | State::Running => None,
            State::Restarting(ended) | State::Ended(ended) => Some(ended),
        }
    }

    /// The word of the contract, without the exit code.
    pub fn word(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running => "running",
            State::Restarting(_) => "restarting",
            State::Ended(ended) => ended.status.word(),
        }
    }
}

impl fmt::Display for State {
    /// What `list` shows: the word, and `(N)` behind `exited`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Ended(Ended { status: ExitStatus::Exited(code), .. }) => write!(f, "exited ({code})"),
            other => f.write_str(other.word()),
        }
    }
}

/// What the registry keeps of an instance: its identity and its newest run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Order of creation; never used twice.
    pub id: InstanceId,
    /// Its name.
    pub name: Name,
    /// Which run this is, from 1.
    pub run: u32,
    /// What was launched; shared, so that a list of records is cheap to take.
    pub launch: Arc<Launch>,
    /// Where the run is.
    pub state: State,
    /// Set once an operator asked for the end.
    pub stop_requested: bool,
    /// How often the restart policy has run it again since an operator did.
    pub restarts: u32,
    /// When the run was accepted.
    pub created_at: Timestamp,
    /// When guest code was entered.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// How many ended before it.
    pub ended_order: Option<u64>,
}

/// The part of a [`RunSpec`] that may be shown and written down: names of environment variables, not their values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The module's name.
    pub module: Name,
    /// SHA-256 of the module's bytes, in hex.
    pub digest: String,
    /// `argv[0]`, if it is not the module's name.
    #[serde(default)]
    pub argv0: Option<String>,
    /// The guest's arguments after `argv[0]`.
    pub args: Vec<String>,
    /// Names of the environment variables that were set.
    pub env: Vec<String>,
    /// The directory lent as `/`, for display.
    pub directory: String,
    /// Directories of the host that it was lent besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// All memories and tables together, in bytes.
    pub memory_bytes_max: usize,
    /// Files and links in its directory, in bytes.
    #[serde(default = "disk_bytes_default")]
    pub disk_bytes_max: usize,
    /// Names in its directory.
    #[serde(default = "files_default")]
    pub files_max: usize,
    /// Wall time allowed to each run, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// CPU time allowed to each run, in milliseconds.
    #[serde(default)]
    pub cpu_time_ms: Option<u64>,
    /// What it may use of the processors.
    #[serde(default)]
    pub share: Share,
    /// What happens when a run is over.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Whether the instance goes when it has ended.
    #[serde(default)]
    pub remove: bool,
    /// Whether the directory was made for it, and so goes with it.
    #[serde(default)]
    pub fresh: bool,
    /// Labels, for filters.
    #[serde(default)]
    pub labels: Labels,
    /// Whether `digest` is what was asked for, whatever the name leads to.
    #[serde(default)]
    pub pinned: bool,
}

/// For what was written down before there was a budget.
fn disk_bytes_default() -> usize {
    DISK_BYTES_DEFAULT
}

fn files_default() -> usize {
    FILES_DEFAULT
}

/// Identity of an instance over all its runs, in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_all_dates_is_shown_as_the_last_one() {
        let last = "9999-12-31T23:59:59.999999Z";
        for at in [Timestamp::MAX, Timestamp(Timestamp::MAX.0 + 1), Timestamp(u64::MAX)] {
            assert_eq!(at.to_string(), last);
        }
        assert_eq!(Timestamp(Timestamp::MAX.0 - 1).to_string(), "9999-12-31T23:59:59.999998Z");
        assert_eq!(Timestamp::try_from(last.to_owned()), Ok(Timestamp::MAX));
        // Nanoseconds in 64 bits end long before.
        assert!(LogTime(u64::MAX).to_string().starts_with("2554-"));
        assert!(LogTime::from(Timestamp::MAX).to_string().starts_with("2554-"));
    }

    /// What was written down before there was a budget, a share or a policy.
    #[test]
    fn what_an_older_launch_does_not_say_is_the_default() {
        let old =
            r#"{"module":"a","digest":"","args":[],"env":[],"directory":"","memory_bytes_max":1,"timeout_ms":null}"#;
        let launch: Launch = serde_json::from_str(old).unwrap();
        assert_eq!((launch.disk_bytes_max, launch.files_max), (268_435_456, 10_000));
        assert_eq!((launch.share, launch.restart), (Share { weight: 100, cpus_milli: None }, RestartPolicy::No));
        assert!(!launch.remove && !launch.fresh && !launch.pinned);
    }

    /// The table in docs/guide.md.
    #[test]
    fn every_end_has_its_word_and_its_code() {
        for (status, word, code) in [
            (ExitStatus::Exited(7), "exited", 7),
            (ExitStatus::Trapped, "trapped", 134),
            (ExitStatus::Stopped, "stopped", 143),
            (ExitStatus::Killed, "killed", 137),
            (ExitStatus::TimedOut, "timed-out", 124),
            (ExitStatus::Failed, "failed", 126),
            (ExitStatus::Lost, "lost", 125),
        ] {
            assert_eq!((status.word(), status.exit_code()), (word, code));
            let ended = Ended::new(status, "x", None);
            assert_eq!(State::Restarting(ended.clone()).to_string(), "restarting");
            let shown = if word == "exited" { "exited (7)" } else { word };
            assert_eq!(State::Ended(ended).to_string(), shown);
        }
        assert_eq!([State::Created, State::Running].map(|s| s.to_string()), ["created", "running"]);
        assert!([State::Created, State::Running].iter().all(|s| s.is_live() && s.ended().is_none()));
    }
}
