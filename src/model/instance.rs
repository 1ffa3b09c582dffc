//! One run of a module: what it was given, where it is in its life, how it ended.
//!
//! ```text
//! created ──► running ──► exited (N) | trapped | stopped | killed | timed-out
//!    └──────────────────► failed (never reached guest code), or any of these ends
//! ```
//!
//! A start function is guest code before the entry point; one that ends within a tick goes from created to its end.

use crate::model::name::Name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Wall-clock time in microseconds since 1970-01-01T00:00:00Z; for display, never for deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the microsecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = std::time::UNIX_EPOCH + Duration::from_micros(self.0);
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

impl TryFrom<String> for LogTime {
    type Error = String;

    fn try_from(text: String) -> Result<LogTime, String> {
        let time = humantime::parse_rfc3339(&text).map_err(|e| e.to_string())?;
        let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|e| e.to_string())?;
        Ok(LogTime(u64::try_from(since.as_nanos()).map_err(|e| e.to_string())?))
    }
}

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
    /// Whether stdin is open, to be fed by the attached client.
    pub stdin: bool,
    /// All memories and tables together, in bytes.
    pub memory_bytes_max: usize,
    /// Wall time from the start of the run's task, which is microseconds before guest code.
    pub timeout: Option<Duration>,
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
}

impl ExitStatus {
    /// What a shell would see: the guest's own code; 124 timed out, 126 cannot run, 134 trap, 137 killed, 143 stopped.
    pub fn exit_code(self) -> u8 {
        match self {
            ExitStatus::Exited(code) => code,
            ExitStatus::TimedOut => 124,
            ExitStatus::Failed => 126,
            ExitStatus::Trapped => 134,
            ExitStatus::Killed => 137,
            ExitStatus::Stopped => 143,
        }
    }
}

/// The end of a run, with why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// A word for programs: `exit`, `trap:unreachable`, `stop`, `kill`, `timeout`, `memory`, `shutdown`, `internal`, …
    pub reason: String,
    /// What a person wants to know: the trap and a short backtrace. May hold text of the guest's; unescaped.
    pub message: Option<String>,
}

/// Where a run is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Accepted and recorded, not yet in guest code.
    Created,
    /// In guest code.
    Running,
    /// Over.
    Ended(Ended),
}

impl State {
    /// Whether the run is not over yet.
    pub fn is_live(&self) -> bool {
        match self {
            State::Created | State::Running => true,
            State::Ended(_) => false,
        }
    }

    /// The word of the contract, without the exit code.
    pub fn word(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running => "running",
            State::Ended(ended) => match ended.status {
                ExitStatus::Exited(_) => "exited",
                ExitStatus::Trapped => "trapped",
                ExitStatus::Stopped => "stopped",
                ExitStatus::Killed => "killed",
                ExitStatus::TimedOut => "timed-out",
                ExitStatus::Failed => "failed",
            },
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
    /// The guest's arguments after `argv[0]`.
    pub args: Vec<String>,
    /// Names of the environment variables that were set.
    pub env: Vec<String>,
    /// The directory lent as `/`, for display.
    pub directory: String,
    /// All memories and tables together, in bytes.
    pub memory_bytes_max: usize,
    /// Wall time allowed, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// Identity of an instance over all its runs, in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub u64);
