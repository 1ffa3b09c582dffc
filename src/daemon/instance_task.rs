//! One task an instance: it runs the guest, listens for the stop and the deadline, and reports exactly one end.

use crate::daemon::supervisor::{Live, Supervisor};
use crate::daemon::workspace::Workspace;
use crate::engine::{self, Engine, Program, Sandbox};
use crate::model::instance::{Ended, ExitStatus, InstanceId};
use std::sync::Arc;
use std::time::Duration;

/// Why somebody outside ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// `stop`.
    Stop,
    /// `kill`.
    Kill,
    /// The daemon is on its way out.
    Shutdown,
}

impl Why {
    fn ended(self) -> Ended {
        let (status, reason) = match self {
            Why::Stop => (ExitStatus::Stopped, "stop"),
            Why::Kill => (ExitStatus::Killed, "kill"),
            Why::Shutdown => (ExitStatus::Stopped, "shutdown"),
        };
        Ended { status, reason: reason.to_owned(), message: None }
    }
}

fn timed_out(timeout: Duration) -> Ended {
    let message = format!("it ran for longer than {} (--timeout)", humantime::format_duration(timeout));
    Ended { status: ExitStatus::TimedOut, reason: "timeout".to_owned(), message: Some(message) }
}

/// All that the task needs, handed over when it starts.
pub(super) struct Task {
    pub(super) supervisor: Supervisor,
    pub(super) engine: Arc<Engine>,
    pub(super) id: InstanceId,
    pub(super) live: Arc<Live>,
    pub(super) program: Program,
    pub(super) sandbox: Sandbox,
    /// Keeps the lent directory the verified one until the store has opened it.
    pub(super) workspace: Workspace,
    pub(super) timeout: Option<Duration>,
}

/// Reports the end of a run, once, also when the task panics or its runtime goes away.
struct Report {
    supervisor: Supervisor,
    id: InstanceId,
    ended: Option<Ended>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let ended = self.ended.take().unwrap_or_else(|| Ended {
            status: ExitStatus::Killed,
            reason: "internal".to_owned(),
            message: Some("the task of this instance broke; the daemon's log says more".to_owned()),
        });
        self.supervisor.finish(self.id, ended);
    }
}

impl Task {
    pub(super) async fn run(self) {
        let mut report = Report { supervisor: self.supervisor, id: self.id, ended: None };
        let deadline = async {
            match self.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let ended = {
            let guest = self.engine.paced(engine::run(&self.engine, &self.program, self.sandbox));
            tokio::select! {
                // The order is the promise: what an operator asked for wins over what the guest does at the same moment.
                biased;
                () = self.live.stop.cancelled() => self.live.why().ended(),
                why = self.live.grace_over() => why.ended(),
                () = deadline => timed_out(self.timeout.unwrap_or_default()),
                ended = guest => ended,
            }
            // Here the guest's future goes, and with it its stack, its store and its memory: before the end is reported.
        };
        drop(self.workspace);
        report.ended = Some(ended);
    }
}
