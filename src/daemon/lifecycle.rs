//! What an instance goes through after its first run was accepted: guest code, the end, the next run, the removal; and what a
//! daemon does about the instances of an earlier one.

use crate::daemon::clock;
use crate::daemon::live::{Live, Why};
use crate::daemon::logs;
use crate::daemon::modules::Loaded;
use crate::daemon::store::Ticket;
use crate::daemon::supervisor::{Next, Prepared, Ready, State, Supervisor};
use crate::engine::{DiskBudget, Reach, Sandbox, Sink, Usage};
use crate::error::{Error, Result};
use crate::model::event::{Event, EventKind};
use crate::model::instance::{Ended, ExitStatus, InstanceId, RunSpec, State as RunState};
use crate::model::name::Name;
use crate::model::reply::InstanceView;
use crate::model::request::StdStream;
use crate::model::restart::{BackOff, RestartPolicy};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The end of a run whose task broke.
pub(super) fn broken() -> Ended {
    let message = "the task of this instance broke; the daemon's log says more";
    Ended::new(ExitStatus::Killed, "internal", Some(message.to_owned()))
}

/// Takes what a guest prints with a panic: a fault that was asked for.
struct Breaks;

#[async_trait::async_trait]
impl Sink for Breaks {
    fn room(&self) -> usize {
        4096
    }

    async fn ready(&self) {}

    fn write(&self, _: StdStream, _: bytes::Bytes) {
        panic!("a fault that was asked for");
    }
}

/// A run that is over in memory; still to be written down and told.
pub(super) struct Finished {
    supervisor: Supervisor,
    id: InstanceId,
    run: u32,
    view: Arc<InstanceView>,
    ticket: Ticket,
    next: Next,
}

impl Finished {
    /// Returns when the end and the output before it are written down, and tells whoever waits.
    pub(super) async fn settle(self, live: &Arc<Live>) -> Next {
        live.log.flushed_first().await;
        self.supervisor.written(self.ticket, &self.view.name).await;
        if let Next::Over = self.next
            && self.view.remove
        {
            // Before anybody is told, so that its name is free for whoever was waiting.
            let volumes = live.volumes.load(Ordering::Relaxed);
            self.supervisor.remove_ended(&self.view.name, self.run, volumes).await;
        }
        let ended = (self.run, Arc::clone(&self.view));
        live.progress.send_modify(|p| {
            // One that could not even begin was a run too.
            p.run = p.run.max(self.run);
            p.ended = Some(ended);
        });
        if let Next::Over = self.next {
            self.supervisor.over(self.id, live, self.view);
        }
        self.next
    }
}

impl Supervisor {
    /// A store that no longer writes keeps nothing from ending; the next daemon will say that it was lost.
    async fn written(&self, ticket: Ticket, name: &Name) {
        if let Err(error) = ticket.recorded().await {
            tracing::error!(instance = %name, "its end is not written down: {error}");
        }
    }

    /// What the task needs for a run that was accepted. The lock is held.
    pub(super) fn prepare(
        &self,
        id: InstanceId,
        run: u32,
        live: &Arc<Live>,
        spec: &RunSpec,
        ready: Ready,
        ticket: Ticket,
    ) -> Prepared {
        let mut args = vec![spec.argv0.clone().unwrap_or_else(|| spec.module.to_string())];
        args.extend(spec.args.iter().cloned());
        let entered = (self.clone(), Arc::clone(live), live.control());
        let accepted = Instant::now();
        let breaks = self.0.faults.panics_at_entry.iter().any(|name| *name == spec.name.as_str());
        let many = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let reach = ready.loaded.program.needs().reach;
        let disk_max = Usage { bytes: many(spec.disk_bytes_max), files: many(spec.files_max) };
        let scan = if reach == Reach::Files { ready.workspace.scan() } else { None };
        let sandbox = Sandbox {
            args,
            env: spec.env.clone(),
            // A program that can get at nothing of it takes no descriptors for it; it is there all the same.
            directory: if reach == Reach::Nothing { None } else { ready.workspace.lend() },
            mounts: ready.mounts.iter().map(|m| (m.lend(), m.guest.clone(), m.read_only)).collect(),
            disk: DiskBudget { max: disk_max, floor: Arc::clone(&self.0.floor), scan },
            stdin: live.control().stdin.clone(),
            sink: if self.0.faults.panics_at_output.iter().any(|name| *name == spec.name.as_str()) {
                Arc::new(Breaks)
            } else {
                logs::sink(&live.log)
            },
            memory_bytes_max: spec.memory_bytes_max,
            memory_total: Arc::clone(&self.0.memory_total),
            gauges: Arc::clone(&live.gauges),
            handles_max: self.0.limits.handles_max,
            table_entries_max: self.0.limits.table_entries_max,
            random_bytes_max: self.0.limits.random_bytes_max,
            hostcall_bytes_max: self.0.limits.hostcall_bytes_max,
            brief: spec.restart == RestartPolicy::No,
            on_enter: Box::new(move || {
                assert!(!breaks, "a fault that was asked for");
                let (supervisor, live, control) = entered;
                control.enter();
                supervisor.metrics().entered(accepted.elapsed());
                supervisor.started(id, run, &live);
            }),
        };
        let Ready { loaded: Loaded { program, .. }, workspace, mounts } = ready;
        let workspace = (reach != Reach::Nothing).then_some(workspace);
        Prepared { run, program, sandbox, workspace, mounts, ticket }
    }

    /// Guest code was entered.
    fn started(&self, id: InstanceId, run: u32, live: &Live) {
        let mut state = self.lock();
        let event = state.registry.started(id, clock::now());
        self.apply(&mut state, event);
        drop(state);
        live.progress.send_modify(|p| p.entered = run);
    }

    /// The run of `id` is over, and nothing of it is left. `pause`: the policy's back-off, and how long the run lived.
    pub(super) fn finish(
        &self,
        id: InstanceId,
        mut ended: Ended,
        live: &Live,
        pause: (&mut BackOff, Duration),
    ) -> Finished {
        let mut state = self.lock();
        state.budget.release(id);
        let record = state.registry.by_id(id).expect("a live instance has a record");
        // Asked under the lock, so that none comes between; also if it left by itself in the time that it was given for it.
        let restart = live.control().asked_for() == Some(Why::Restart);
        if restart && record.stop_requested && ended.reason == "restart" {
            // A stop came before the restart was done.
            ended = Why::Stop.ended();
        }
        let (back_off, life) = pause;
        self.metrics().ran(life);
        if restart {
            *back_off = BackOff::default();
        }
        let event = state.registry.ended(id, ended, restart, || back_off.after(life), clock::now());
        self.finished(&mut state, live, event)
    }

    fn finished(&self, state: &mut State, live: &Live, event: Event) -> Finished {
        let (id, run) = (event.id, event.run);
        let next = match &event.kind {
            EventKind::Restarting { delay_ms, .. } => Next::Pause(Duration::from_millis(*delay_ms)),
            _ => Next::Over,
        };
        let record = state.registry.by_id(id).expect("a live instance has a record");
        // That an operator stopped it must survive what the policy survives.
        let synced = record.stop_requested && record.launch.restart != RestartPolicy::No;
        let ticket = self.apply_and_tell(state, event, synced);
        let record = state.registry.by_id(id).expect("a run that ended leaves its record");
        let view = Arc::new(InstanceView::of(record));
        live.log.end_run(run);
        match next {
            Next::Over => live.log.over(),
            Next::Pause(_) | Next::Run(_) => live.begin_anew(),
        }
        Finished { supervisor: self.clone(), id, run, view, ticket, next }
    }

    /// What came while nobody was listening, at the beginning of a pause. Every request sets its mark and speaks to the present
    /// control under the lock, so none is missed by asking here.
    pub(super) fn asked_before(&self, id: InstanceId) -> Option<Why> {
        let state = self.lock();
        let stopped = state.registry.by_id(id).is_none_or(|record| record.stop_requested);
        match stopped {
            true => Some(Why::Stop),
            false => self.0.shutdown.is_cancelled().then_some(Why::Shutdown),
        }
    }

    /// A `restart` during a pause: what is asked from now on is asked of the next run.
    pub(super) fn begin_anew(&self, live: &Live) {
        let _state = self.lock();
        live.begin_anew();
    }

    /// No other run follows: whoever waits is told, the records above the limit go, and so does what was run with `--rm`.
    fn over(&self, id: InstanceId, live: &Arc<Live>, view: Arc<InstanceView>) {
        let remove = view.remove && !view.is_live() && self.knows(id);
        let (name, run) = (view.name.clone(), view.run);
        {
            let mut state = self.lock();
            // The last state is visible before the live handle goes, or an end would look like "no such instance". By now it
            // may be another run's.
            if state.live.get(&id).is_some_and(|known| Arc::ptr_eq(known, live)) {
                state.live.remove(&id);
            }
            live.progress.send_modify(|p| p.over = Some(view));
            self.prune_old(&mut state);
            self.count(&state);
        }
        if remove {
            self.remove_later(name, run);
        }
    }

    /// A module and a directory for the next run.
    pub(super) async fn make_ready(&self, spec: &RunSpec) -> Result<Ready> {
        self.accepting()?;
        let loaded = self.0.modules.load(&spec.module, spec.sha256.as_deref(), |_| ()).await?;
        self.ready(loaded, spec).await
    }

    /// The next run of an instance that is between two runs.
    pub(super) async fn run_again(
        &self,
        id: InstanceId,
        live: &Arc<Live>,
        spec: &RunSpec,
        ready: Ready,
        back_off: &mut BackOff,
    ) -> Next {
        let directory = self.0.workspaces.path(&spec.name).to_string_lossy().into_owned();
        let mut launch = spec.launch(&ready.loaded.digest, &directory);
        let refused = {
            let mut state = self.lock();
            launch.fresh = ready.workspace.made || state.registry.by_id(id).is_some_and(|record| record.launch.fresh);
            let launch = Arc::new(launch);
            let stopped = state.registry.by_id(id).is_none_or(|record| record.stop_requested);
            if stopped || live.control().why().is_some() || self.0.shutdown.is_cancelled() {
                // It came while the run was being prepared; the pause knows what to do.
                return Next::Pause(Duration::ZERO);
            }
            match state.budget.promise(id, &ready.loaded.program, ready.mounts.len()) {
                Ok(()) => {
                    let event = state.registry.next_run(id, launch, clock::now());
                    let run = event.run;
                    let (ticket, _) = self.apply_run(&mut state, event, spec);
                    live.log.begin(run, false);
                    return Next::Run(Box::new(self.prepare(id, run, live, spec, ready, ticket)));
                }
                Err(error) => error,
            }
        };
        self.fail_again(id, live, spec, &refused, back_off).await
    }

    /// The next run cannot even begin: it is recorded as one that failed, and the policy says what follows.
    pub(super) async fn fail_again(
        &self,
        id: InstanceId,
        live: &Arc<Live>,
        spec: &RunSpec,
        error: &Error,
        back_off: &mut BackOff,
    ) -> Next {
        let finished = {
            let mut state = self.lock();
            if self.0.shutdown.is_cancelled() || live.control().why().is_some() {
                return Next::Pause(Duration::ZERO);
            }
            let record = state.registry.by_id(id).expect("a live instance has a record");
            let launch = Arc::clone(&record.launch);
            let event = state.registry.next_run(id, launch, clock::now());
            live.log.begin(event.run, false);
            let (_, recorded) = self.apply_run(&mut state, event, spec);
            // Its end is behind it in the queue, and is waited for.
            drop(recorded);
            let ended = Ended::new(ExitStatus::Failed, error.code().to_string(), Some(error.to_string()));
            let event = state.registry.ended(id, ended, false, || back_off.after(Duration::ZERO), clock::now());
            self.finished(&mut state, live, event)
        };
        finished.settle(live).await
    }

    /// An operator stopped it between two runs.
    pub(super) async fn cancel_restart(&self, id: InstanceId, live: &Arc<Live>) -> Next {
        let (ticket, view) = {
            let mut state = self.lock();
            let event = state.registry.restart_cancelled(id, clock::now());
            let ticket = self.apply_and_tell(&mut state, event, true);
            live.log.over();
            let record = state.registry.by_id(id).expect("a run that ended leaves its record");
            (ticket, Arc::new(InstanceView::of(record)))
        };
        self.written(ticket, &view.name).await;
        self.over(id, live, view);
        Next::Over
    }

    /// The daemon ends while it is between two runs: as it is, it is for the next daemon.
    pub(super) fn leave(&self, id: InstanceId, live: &Arc<Live>) -> Next {
        let view = self.lock().registry.by_id(id).map(|record| Arc::new(InstanceView::of(record)));
        if let Some(view) = view {
            live.log.over();
            self.over(id, live, view);
        }
        Next::Over
    }

    /// The task of an instance broke: whatever it had come to, nobody waits for it in vain.
    pub(super) fn abandon(&self, id: InstanceId, live: &Arc<Live>) {
        let view = {
            let mut state = self.lock();
            state.budget.release(id);
            let Some(record) = state.registry.by_id(id) else { return };
            let run = record.run;
            let kind = match record.state {
                RunState::Created | RunState::Running => Some(EventKind::Ended(broken())),
                RunState::Restarting(_) => Some(EventKind::RestartCancelled),
                // It broke behind its end.
                RunState::Ended(_) => None,
            };
            if let Some(kind) = kind {
                let event = Event::of(record, clock::now(), kind);
                self.apply(&mut state, event);
            }
            live.log.end_run(run);
            live.log.over();
            let record = state.registry.by_id(id).expect("a run that ended leaves its record");
            Arc::new(InstanceView::of(record))
        };
        self.over(id, live, view);
    }

    /// What this daemon does about the instances of an earlier one. The changes are written down when it returns; the runs that
    /// come back have been given to their tasks.
    ///
    /// # Errors
    ///
    /// [`Error::StateRefuses`].
    pub(super) fn recover(&self) -> Result<()> {
        let tickets: Vec<Ticket> = {
            let mut state = self.lock();
            let events = state.registry.decide_recovery(clock::now());
            let tickets = events.into_iter().map(|event| self.apply_and_tell(&mut state, event, false)).collect();
            self.prune_old(&mut state);
            tickets
        };
        for ticket in tickets {
            if let Err(error) = ticket.wait() {
                tracing::error!("what became of an instance is not written down: {error}");
            }
        }
        let mut state = self.lock();
        let waiting: Vec<(InstanceId, u32, Name, _)> = state
            .registry
            .records()
            .filter(|record| record.state.is_live())
            .map(|record| (record.id, record.run, record.name.clone(), Arc::clone(&record.launch)))
            .collect();
        tracing::info!(instances = state.registry.len(), running_again = waiting.len(), "recovered");
        for (id, run, name, launch) in waiting {
            let env = self.0.store.environment(id)?.unwrap_or_default();
            let spec = RunSpec::again(&name, &launch, env);
            let log = self.0.logs.get(id);
            // Followers wait for the next run.
            log.begin(run, false);
            log.end_run(run);
            let live = Arc::new(Live::new(log, Arc::default(), self.0.scheduler.account()));
            state.live.insert(id, Arc::clone(&live));
            self.spawn(id, live, spec, Next::Pause(Duration::ZERO));
        }
        self.count(&state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::daemon::Daemon;
    use crate::model::registry::tests::{launch, name};

    /// After its end was in the registry, and before anybody heard of it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_breaks_behind_the_end_of_its_run_leaves_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let (state, root) = (dir.path().join("state"), dir.path().join("root"));
        let daemon = Daemon::open(&Config::new(([127, 0, 0, 1], 0).into(), state, root)).await.unwrap();
        let supervisor = daemon.supervisor();
        let (id, live) = {
            // As a run does, without a guest.
            let mut state = supervisor.lock();
            let launched = launch("a");
            let created = state.registry.decide_run(&launched.module, Arc::clone(&launched), 10, clock::now()).unwrap();
            let id = created.id;
            supervisor.apply(&mut state, created);
            let live = Arc::new(Live::new(supervisor.0.logs.get(id), Arc::default(), supervisor.0.scheduler.account()));
            state.live.insert(id, Arc::clone(&live));
            let ended = Ended::new(ExitStatus::Exited(7), "exit", None);
            let ended = state.registry.ended(id, ended, false, || Duration::ZERO, clock::now());
            supervisor.apply(&mut state, ended);
            (id, live)
        };
        supervisor.abandon(id, &live);
        assert!(supervisor.lock().live.is_empty());
        let over = live.progress.borrow().over.clone().unwrap();
        assert_eq!((over.name.clone(), over.exit_code), (name("a"), Some(7)), "and its end is its own");
        supervisor.shut_down();
        daemon.ended().await;
    }
}
