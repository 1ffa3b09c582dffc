//! One task an instance: it runs the guest, listens for whoever wants it to end and for the deadline, and goes on to the next
//! run where a policy or a `restart` asks for one. It reports exactly one end of each run.
//!
//! ```text
//!           ┌───────────── the next run is due ─────────────┐
//! accepted ─┴► written down ► guest code ► its end ► written down ─┬► pause
//!                                                                 └► over
//! ```

use crate::daemon::live::{Live, Why};
use crate::daemon::supervisor::{Next, Prepared, Supervisor};
use crate::engine::{self, Engine};
use crate::model::instance::{Ended, ExitStatus, InstanceId, RunSpec};
use crate::model::restart::BackOff;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How soon a run that could not be written down is tried again.
const STATE_REFUSED: Duration = Duration::from_secs(1);

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
    pub(super) spec: RunSpec,
    pub(super) back_off: BackOff,
}

/// Reports the end of an instance whose task panicked, or whose runtime went away.
struct Guard {
    supervisor: Supervisor,
    id: InstanceId,
    live: Arc<Live>,
    whole: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.whole {
            self.supervisor.abandon(self.id, &self.live);
        }
    }
}

impl Task {
    /// Lives the instance's life. A first run that was prepared, or a pause before one.
    pub(super) async fn run(mut self, first: Next) {
        let mut guard =
            Guard { supervisor: self.supervisor.clone(), id: self.id, live: Arc::clone(&self.live), whole: false };
        let mut next = first;
        loop {
            next = match next {
                Next::Run(prepared) => self.one_run(*prepared).await,
                Next::Pause(delay) => self.pause(delay).await,
                Next::Over => break,
            };
        }
        guard.whole = true;
    }

    async fn one_run(&mut self, prepared: Prepared) -> Next {
        let Prepared { run, program, sandbox, workspace, promise, ticket } = prepared;
        let control = self.live.control();
        if let Err(error) = ticket.recorded().await {
            // Nothing runs that the daemon could forget.
            let ended = Ended { status: ExitStatus::Failed, reason: "state".into(), message: Some(error.to_string()) };
            // To a policy it is a run that failed.
            let pause = (&mut self.back_off, Duration::ZERO);
            return self.supervisor.finish(self.id, ended, &self.live, promise, pause).settle(&self.live).await;
        }
        self.live.progress.send_modify(|p| p.run = run);
        let begun = Instant::now();
        let deadline = async {
            match self.spec.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let ended = {
            let guest = self.engine.paced(engine::run(&self.engine, &program, sandbox));
            tokio::select! {
                // The order is the promise: what an operator asked for wins over what the guest does at the same moment.
                biased;
                why = control.asked() => why.ended(),
                () = deadline => timed_out(self.spec.timeout.unwrap_or_default()),
                ended = guest => ended,
            }
            // Here the guest's future goes, and with it its stack, its store and its memory: before the end is reported.
        };
        drop(workspace);
        let pause = (&mut self.back_off, begun.elapsed());
        let finished = self.supervisor.finish(self.id, ended, &self.live, promise, pause);
        finished.settle(&self.live).await
    }

    /// Waits, and prepares the next run.
    async fn pause(&mut self, delay: Duration) -> Next {
        let control = self.live.control();
        let asked = async {
            match self.supervisor.asked_before(self.id) {
                Some(why) => why,
                None => control.asked().await,
            }
        };
        let ready = async {
            tokio::time::sleep(delay).await;
            self.supervisor.make_ready(&self.spec).await
        };
        let ready = tokio::select! {
            biased;
            why = asked => return match why {
                Why::Stop | Why::Kill => self.supervisor.cancel_restart(self.id, &self.live).await,
                // The next daemon runs it.
                Why::Shutdown => self.supervisor.leave(self.id, &self.live),
                Why::Restart => {
                    self.back_off = BackOff::default();
                    self.supervisor.begin_anew(&self.live);
                    Next::Pause(Duration::ZERO)
                }
            },
            ready = ready => ready,
        };
        match ready {
            Ok(ready) => self.supervisor.run_again(self.id, &self.live, &self.spec, ready, &mut self.back_off).await,
            Err(crate::Error::StateRefuses(_)) => Next::Pause(STATE_REFUSED),
            Err(error) => self.supervisor.fail_again(self.id, &self.live, &self.spec, &error, &mut self.back_off).await,
        }
    }
}
