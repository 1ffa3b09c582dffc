//! What may be shown of an instance: its record in words, without a value of its environment.

use crate::model::filter::Labels;
use crate::model::instance::{Record, Share, Stopped};
use crate::model::mount::Mount;
use crate::model::name::Name;
use serde::{Deserialize, Serialize};

/// Everything known about an instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its name.
    pub name: Name,
    /// The module it runs.
    pub module: Name,
    /// SHA-256 of the module, in hex.
    pub digest: String,
    /// Which run, from 1.
    pub run: u32,
    /// The word of the contract: `created`, `running`, `exited`, …
    pub state: String,
    /// Once over: what a shell would see.
    pub exit_code: Option<u8>,
    /// Once over: why, for programs.
    pub reason: Option<String>,
    /// Once over: why, for people. Text of the guest's may be in it.
    pub message: Option<String>,
    /// Whether an operator asked for its end.
    pub stop_requested: bool,
    /// What happens when a run is over: `no`, `on-failure[:N]`, `always`, `unless-stopped`.
    pub restart: String,
    /// How often that happened since an operator ran it.
    pub restarts: u32,
    /// Whether it goes when it has ended.
    pub remove: bool,
    /// Labels.
    pub labels: Labels,
    /// When the run was accepted (RFC 3339).
    pub created_at: String,
    /// When guest code was entered.
    pub started_at: Option<String>,
    /// When it was over.
    pub ended_at: Option<String>,
    /// The guest's arguments.
    pub args: Vec<String>,
    /// Names of its environment variables; values are never shown.
    pub env: Vec<String>,
    /// The directory lent as `/`.
    pub directory: String,
    /// Directories of the host that are lent besides.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// All memories and tables together, in bytes.
    pub memory_bytes_max: usize,
    /// Files and links in its directory, in bytes.
    pub disk_bytes_max: usize,
    /// Names in its directory.
    pub files_max: usize,
    /// Wall time allowed, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// CPU time allowed, in milliseconds.
    pub cpu_time_ms: Option<u64>,
    /// What it may use of the processors: its weight among others, and at most thousandths of one.
    #[serde(flatten)]
    pub share: Share,
    /// CPU time that the run has used, in microseconds: of one that is over (unless it was lost), and in `inspect`.
    pub cpu_us: Option<u64>,
    /// Once over, if it was made to end: how, and how long that took.
    pub stopped: Option<Stopped>,
}

impl InstanceView {
    /// What may be shown of a record.
    pub fn of(record: &Record) -> InstanceView {
        let ended = record.state.ended();
        let launch = &record.launch;
        InstanceView {
            name: record.name.clone(),
            module: launch.module.clone(),
            digest: launch.digest.clone(),
            run: record.run,
            state: record.state.word().to_owned(),
            exit_code: ended.map(|e| e.status.exit_code()),
            reason: ended.map(|e| e.reason.clone()),
            message: ended.and_then(|e| e.message.clone()),
            stop_requested: record.stop_requested,
            restart: launch.restart.to_string(),
            restarts: record.restarts,
            remove: launch.remove,
            labels: launch.labels.clone(),
            created_at: record.created_at.to_string(),
            started_at: record.started_at.map(|t| t.to_string()),
            ended_at: record.ended_at.map(|t| t.to_string()),
            args: launch.args.clone(),
            env: launch.env.clone(),
            directory: launch.directory.clone(),
            mounts: launch.mounts.clone(),
            memory_bytes_max: launch.memory_bytes_max,
            disk_bytes_max: launch.disk_bytes_max,
            files_max: launch.files_max,
            timeout_ms: launch.timeout_ms,
            cpu_time_ms: launch.cpu_time_ms,
            share: launch.share,
            cpu_us: ended.and_then(|e| e.cpu_us),
            stopped: ended.and_then(|e| e.stopped),
        }
    }

    /// Whether the name is taken: by a run that is not over, or by one that is to come.
    pub fn is_live(&self) -> bool {
        matches!(self.state.as_str(), "created" | "running" | "restarting")
    }

    /// What `list` shows: the word, and `(N)` behind `exited`.
    pub fn status(&self) -> String {
        match (self.state.as_str(), self.exit_code) {
            ("exited", Some(code)) => format!("exited ({code})"),
            (state, _) => state.to_owned(),
        }
    }
}

/// One run of an instance, the newest or an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Which, from 1.
    pub run: u32,
    /// The module.
    pub module: Name,
    /// SHA-256 of the module, in hex.
    pub digest: String,
    /// The word of the contract.
    pub state: String,
    /// Once over: what a shell would see.
    pub exit_code: Option<u8>,
    /// Once over: why, for programs.
    pub reason: Option<String>,
    /// Once over: why, for people.
    pub message: Option<String>,
    /// When it was accepted (RFC 3339).
    pub created_at: String,
    /// When guest code was entered.
    pub started_at: Option<String>,
    /// When it was over.
    pub ended_at: Option<String>,
    /// CPU time used, in microseconds.
    #[serde(default)]
    pub cpu_us: Option<u64>,
    /// Once over, if it was made to end: how, and how long that took.
    #[serde(default)]
    pub stopped: Option<Stopped>,
}

impl RunView {
    /// The newest run.
    pub fn of(instance: &InstanceView) -> RunView {
        RunView {
            run: instance.run,
            module: instance.module.clone(),
            digest: instance.digest.clone(),
            state: instance.state.clone(),
            exit_code: instance.exit_code,
            reason: instance.reason.clone(),
            message: instance.message.clone(),
            created_at: instance.created_at.clone(),
            started_at: instance.started_at.clone(),
            ended_at: instance.ended_at.clone(),
            cpu_us: instance.cpu_us,
            stopped: instance.stopped,
        }
    }
}

/// `inspect`: the instance, and the runs of it that are still known, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inspection {
    /// The newest run.
    #[serde(flatten)]
    pub instance: InstanceView,
    /// All known runs.
    pub runs: Vec<RunView>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::instance::{Ended, ExitStatus, State};
    use crate::model::registry::tests::record;

    #[test]
    fn what_is_shown_is_the_record_in_words() {
        let mut web = record("web", &["tier=front"]);
        let exited = Ended::new(ExitStatus::Exited(3), "exit", Some("why".into()));
        for (state, status, live) in [
            (State::Created, "created", true),
            (State::Running, "running", true),
            (State::Restarting(exited.clone()), "restarting", true),
            (State::Ended(exited), "exited (3)", false),
            (State::Ended(Ended::new(ExitStatus::Lost, "daemon-restart", None)), "lost", false),
        ] {
            web.state = state;
            let view = InstanceView::of(&web);
            assert_eq!((view.status(), view.is_live()), (status.to_owned(), live));
            assert_eq!(view.status(), web.state.to_string());
            let run = RunView::of(&view);
            assert_eq!((run.module.as_str(), run.exit_code), ("web", web.state.ended().map(|e| e.status.exit_code())));
            assert_eq!(run.reason, web.state.ended().map(|e| e.reason.clone()));
        }
    }
}
