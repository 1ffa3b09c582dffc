//! One task an instance: it runs the guest, listens for whoever wants it to end and for the deadline, and goes on to the next
//! run where a policy or a `restart` asks for one. It reports exactly one end of each run.
//!
//! ```text
//!           ┌───────────── the next run is due ─────────────┐
//! accepted ─┴► written down ► guest code ► its end ► written down ─┬► pause
//!                                                                 └► over
//! ```

use crate::daemon::lifecycle::broken;
use crate::daemon::live::{Live, Why};
use crate::daemon::supervisor::{Next, Prepared, Supervisor};
use crate::engine::{self, Engine};
use crate::model::instance::{Ended, ExitStatus, InstanceId, RunSpec, Rung, Stopped};
use crate::model::name::Name;
use crate::model::restart::{BackOff, RestartPolicy};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// How soon a run that could not be written down is tried again.
const STATE_REFUSED: Duration = Duration::from_secs(1);

fn stopped(rung: Rung, since: Instant) -> Stopped {
    Stopped { rung, took_us: u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX) }
}

fn out_of_cpu_time(limit: Option<Duration>) -> Ended {
    let limit = humantime::format_duration(limit.unwrap_or_default());
    let message = format!("it used more than {limit} of CPU time (--cpu-time)");
    Ended::new(ExitStatus::Killed, "cpu-time", Some(message))
}

fn timed_out(timeout: Option<Duration>) -> Ended {
    let timeout = humantime::format_duration(timeout.unwrap_or_default());
    let message = format!("it ran for longer than {timeout} (--timeout)");
    Ended::new(ExitStatus::TimedOut, "timeout", Some(message))
}

/// Drives a guest whose panic, in a call of the host or in the engine, is the end of this run and of nothing else.
///
/// # Cancel safety
///
/// As that of the guest.
async fn caught(mut guest: Pin<&mut impl Future<Output = Ended>>, name: &Name) -> Ended {
    std::future::poll_fn(|cx| {
        // After a panic the guest is dropped, and looked at no more.
        catch_unwind(AssertUnwindSafe(|| guest.as_mut().poll(cx))).unwrap_or_else(|_payload| {
            tracing::error!(instance = %name, "the task of an instance panicked");
            Poll::Ready(broken())
        })
    })
    .await
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
        let Prepared { run, program, sandbox, workspace, mounts, ticket } = prepared;
        let control = self.live.control();
        assert!(!self.supervisor.breaks_task(&self.spec.name), "a fault that was asked for");
        // The guest begins while its run is being written down; who asked for it hears of it only behind that. One that cannot be
        // written down ends: nothing runs that the daemon would have forgotten.
        let live = Arc::clone(&self.live);
        let mut unrecorded = std::pin::pin!(async move {
            match ticket.recorded().await {
                Ok(()) => {
                    live.progress.send_modify(|p| p.run = run);
                    None
                }
                Err(error) => Some(Ended::new(ExitStatus::Failed, "state", Some(error.to_string()))),
            }
        });
        let mut is_recorded = self.spec.restart != RestartPolicy::No;
        if is_recorded && let Some(ended) = unrecorded.as_mut().await {
            // What is to come back does nothing before that would survive a power failure. To a policy it is a run that failed.
            let pause = (&mut self.back_off, Duration::ZERO);
            return self.supervisor.finish(self.id, ended, &self.live, pause).settle(&self.live).await;
        }
        let account = &self.live.account;
        account.begin(self.spec.share, self.spec.cpu_time);
        let begun = Instant::now();
        let deadline = async {
            match self.spec.timeout {
                Some(timeout) => {
                    let until = control.entered().await + timeout;
                    account.urgent(tokio::time::sleep_until(until)).await;
                }
                None => std::future::pending().await,
            }
        };
        let (mut ended, limit, computing) = {
            let guest = self.engine.paced(engine::run(&self.engine, &program, sandbox));
            let mut guest = std::pin::pin!(guest);
            let mut deadline = std::pin::pin!(deadline);
            let mut asked = std::pin::pin!(control.asked(account));
            let mut exhausted = std::pin::pin!(account.exhausted());
            let (ended, limit) = loop {
                tokio::select! {
                    // The order is the promise: what an operator asked for wins over what the guest does at the same moment.
                    biased;
                    why = asked.as_mut() => break (why.ended(), control.asked_at()),
                    () = deadline.as_mut() => break (timed_out(self.spec.timeout), Some(Instant::now())),
                    () = exhausted.as_mut() => break (out_of_cpu_time(self.spec.cpu_time), Some(Instant::now())),
                    failed = unrecorded.as_mut(), if !is_recorded => match failed {
                        Some(ended) => break (ended, None),
                        None => is_recorded = true,
                    },
                    ended = caught(guest.as_mut(), &self.spec.name) => break (ended, None),
                }
            };
            let computing = guest.was_computing();
            (ended, limit, computing)
            // Here the guest's future goes, and with it its stack, its store and its memory: before the end is reported.
        };
        // What is left to do is short, and somebody waits for it.
        account.hurry();
        ended.cpu_us = Some(u64::try_from(account.used_by_now().as_micros()).unwrap_or(u64::MAX));
        ended.stopped = match (limit, control.asked_at()) {
            (Some(since), _) => Some(stopped(if computing { Rung::Tick } else { Rung::HostCall }, since)),
            (None, Some(since)) => Some(stopped(Rung::Grace, since)),
            (None, None) => None,
        };
        drop((workspace, mounts));
        let pause = (&mut self.back_off, begun.elapsed());
        let finished = self.supervisor.finish(self.id, ended, &self.live, pause);
        finished.settle(&self.live).await
    }

    /// Waits, and prepares the next run.
    async fn pause(&mut self, delay: Duration) -> Next {
        let control = self.live.control();
        let asked = async {
            match self.supervisor.asked_before(self.id) {
                Some(why) => why,
                None => control.asked(&self.live.account).await,
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
