//! The supervisor: a cheap handle that runs, stops and shows instances. It holds the registry and what is alive beside it.
//!
//! One short lock guards both, never across an await: decide, apply, hand over. What takes time (finding a module, making a
//! directory, writing down, waiting for an end) happens outside of it. What a run goes through after it was accepted is in
//! `lifecycle.rs`.

use crate::config::{Faults, Limits};
use crate::daemon::attachment::{Attachment, Started};
use crate::daemon::blocking;
use crate::daemon::budget::Budget;
use crate::daemon::clock;
use crate::daemon::compile::Compiling;
use crate::daemon::instance_task::Task;
use crate::daemon::live::{Control, Done, Live, Why};
use crate::daemon::logs::Logs;
use crate::daemon::metrics::Metrics;
use crate::daemon::modules::{Loaded, Modules, OpenModule, Upload};
use crate::daemon::mounts::{Mounted, Mounts};
use crate::daemon::scheduler::Scheduler;
use crate::daemon::store::{Change, Store, Ticket};
use crate::daemon::workspace::{Workspace, Workspaces};
use crate::engine::{Engine, Floor, MemoryBudget, Program, Sandbox, StdinPipe};
use crate::error::{Error, Result};
use crate::model::ageing::Ageing;
use crate::model::event::{Event, EventKind, EventView};
use crate::model::instance::{InstanceId, RunSpec, State as RunState};
use crate::model::name::Name;
use crate::model::registry::Registry;
use crate::model::reply::{Created, ModuleView};
use crate::model::restart::BackOff;
use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The handle. Clones are the same supervisor.
#[derive(Clone)]
pub struct Supervisor(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// When the daemon began: the zero of its own time.
    pub(super) begun: Instant,
    pub(super) engine: Arc<Engine>,
    pub(super) modules: Modules,
    pub(super) workspaces: Workspaces,
    mounts: Arc<Mounts>,
    pub(super) store: Arc<Store>,
    pub(super) logs: Logs,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    /// What the kernel's fence is.
    pub(super) fence: String,
    pub(super) faults: Faults,
    pub(super) memory_total: Arc<MemoryBudget>,
    pub(super) floor: Arc<Floor>,
    /// Tasks that the daemon waits for before it ends.
    pub(super) tracker: TaskTracker,
    /// Where guests run.
    pub(super) scheduler: Scheduler,
    pub(super) shutdown: CancellationToken,
    state: Mutex<State>,
    /// How many are alive or on their way; watched by the drain.
    pub(super) population: watch::Sender<usize>,
    /// Places for clients.
    connections: Arc<Semaphore>,
    /// One directory is removed at a time.
    pub(super) removing: Semaphore,
    /// Dropped last: connections whose close tells that the daemon is gone.
    until_the_end: Mutex<Vec<Box<dyn Any + Send>>>,
}

pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) budget: Budget,
    pub(super) live: HashMap<InstanceId, Arc<Live>>,
    /// The number of the next event.
    pub(super) seq_next: u64,
    /// Whether age can be believed.
    pub(super) ageing: Ageing,
    /// Directories that are being removed, or wait for it.
    pub(super) digging: HashSet<String>,
    /// Names that are taken by work which is not recorded yet; folded.
    pub(super) reserved: HashMap<String, Reserved>,
}

/// A name that is taken.
pub(super) struct Reserved {
    name: Name,
    cancelled: CancellationToken,
    what: What,
}

/// By what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A run that is being prepared: its module is still being found or compiled.
    Starting,
    /// A removal.
    Removing,
}

/// What comes after a run, or after a pause.
pub(super) enum Next {
    /// This run.
    Run(Box<Prepared>),
    /// A pause, and then a run.
    Pause(Duration),
    /// Nothing.
    Over,
}

/// A run that is accepted.
pub(super) struct Prepared {
    pub(super) run: u32,
    pub(super) program: Program,
    pub(super) sandbox: Sandbox,
    /// Keeps the lent directory the verified one until the store has opened it.
    pub(super) workspace: Option<Workspace>,
    /// Likewise.
    pub(super) mounts: Vec<Mounted>,
    pub(super) ticket: Ticket,
}

/// What a run needs of the outside before it can be accepted.
pub(super) struct Ready {
    pub(super) loaded: Loaded,
    pub(super) workspace: Workspace,
    pub(super) mounts: Vec<Mounted>,
}

/// Holds a name while work on it is being prepared; whoever stops the name meanwhile cancels the token.
pub(super) struct Reservation {
    supervisor: Supervisor,
    folded: String,
    cancelled: CancellationToken,
    held: bool,
}

impl Reservation {
    /// Lets go under the same lock that records the run: a stop finds the one or the other, and never only this one.
    pub(super) fn release(mut self, state: &mut State) {
        state.reserved.remove(&self.folded);
        self.held = false;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held {
            let mut state = self.supervisor.lock();
            state.reserved.remove(&self.folded);
            self.supervisor.count(&state);
        }
    }
}

/// What the supervisor is made of.
pub(super) struct Parts {
    pub(super) engine: Arc<Engine>,
    pub(super) modules: Modules,
    pub(super) workspaces: Workspaces,
    pub(super) mounts: Mounts,
    pub(super) store: Arc<Store>,
    pub(super) logs: Logs,
    pub(super) limits: Limits,
    pub(super) fence: String,
    pub(super) faults: Faults,
    pub(super) budget: Budget,
    pub(super) tracker: TaskTracker,
    pub(super) scheduler: Scheduler,
    pub(super) registry: Registry,
    pub(super) seq_next: u64,
}

impl Supervisor {
    /// A supervisor of what is in the registry; nothing of it runs yet.
    pub(super) fn new(parts: Parts) -> Supervisor {
        let memory_total = Arc::new(MemoryBudget::new(parts.limits.memory_bytes_total()));
        let keep = u64::try_from(parts.limits.disk_free_bytes).unwrap_or(u64::MAX);
        let floor = Arc::new(Floor::new(parts.workspaces.root().to_owned(), keep));
        let connections = Arc::new(Semaphore::new(parts.limits.connections_max));
        Supervisor(Arc::new(Inner {
            begun: Instant::now(),
            connections,
            engine: parts.engine,
            modules: parts.modules,
            workspaces: parts.workspaces,
            mounts: Arc::new(parts.mounts),
            store: parts.store,
            logs: parts.logs,
            limits: parts.limits,
            metrics: Metrics::default(),
            fence: parts.fence,
            faults: parts.faults,
            memory_total,
            floor,
            tracker: parts.tracker,
            scheduler: parts.scheduler,
            shutdown: CancellationToken::new(),
            state: Mutex::new(State {
                registry: parts.registry,
                budget: parts.budget,
                live: HashMap::new(),
                seq_next: parts.seq_next,
                ageing: Ageing::default(),
                digging: HashSet::new(),
                reserved: HashMap::new(),
            }),
            population: watch::Sender::new(0),
            removing: Semaphore::new(1),
            until_the_end: Mutex::default(),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a broken invariant of the registry: nothing after it could be trusted.
        self.0.state.lock().unwrap_or_else(|_: PoisonError<_>| std::process::abort())
    }

    pub(super) fn count(&self, state: &State) {
        self.0.population.send_replace(state.live.len() + state.reserved.len());
    }

    /// What may be run, stored and held.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// A place for each client.
    pub fn connections(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.connections)
    }

    /// Whether the task of this instance is to panic: a fault that was asked for.
    pub(super) fn breaks_task(&self, name: &Name) -> bool {
        self.0.faults.panics_in_task.iter().any(|broken| *broken == name.as_str())
    }

    /// How many instances are alive.
    pub fn live(&self) -> usize {
        self.lock().registry.live()
    }

    /// How many instances are known.
    #[expect(clippy::len_without_is_empty, reason = "a daemon is not a collection")]
    pub fn len(&self) -> usize {
        self.lock().registry.len()
    }

    /// Whether there is a record of it.
    pub(super) fn knows(&self, id: InstanceId) -> bool {
        self.lock().registry.by_id(id).is_some()
    }

    /// Bytes that the memories and tables of all instances have now.
    pub fn memory_bytes_used(&self) -> usize {
        self.0.memory_total.used()
    }

    /// Whether something new may be begun.
    pub(super) fn accepting(&self) -> Result<()> {
        if self.0.shutdown.is_cancelled() { Err(Error::ShuttingDown) } else { self.0.store.accepting() }
    }

    /// Runs a module. Returns when the run is written down and on its way into guest code. `attach` gives the caller the
    /// guest's streams; `compiling` hears how far it is, if the module has to be compiled first.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] and its kin, [`Error::NoModule`], [`Error::BadModule`], [`Error::Limit`], [`Error::Denied`] for
    /// a directory that is not ours, [`Error::Stopping`] if it was stopped before it began, [`Error::StateRefuses`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the run is written down and started, or it is not.
    pub async fn run(&self, spec: RunSpec, attach: bool, compiling: impl FnMut(Compiling)) -> Result<Started> {
        self.run_known(spec, None, attach, compiling).await
    }

    /// [`Supervisor::run`], if the name is still (or again) that of the instance `known`.
    async fn run_known(
        &self,
        spec: RunSpec,
        known: Option<InstanceId>,
        attach: bool,
        compiling: impl FnMut(Compiling),
    ) -> Result<Started> {
        self.check_spec(&spec)?;
        let reservation = self.reserve(&spec.name, What::Starting)?;
        let loaded = tokio::select! {
            biased;
            () = reservation.cancelled.cancelled() => return Err(self.accepting().err().unwrap_or(Error::Stopping(spec.name))),
            loaded = self.0.modules.load(&spec.module, spec.sha256.as_deref(), compiling) => loaded?,
        };
        let ready = self.ready(loaded, &spec).await?;
        let (created, attachment, recorded) = self.accept(spec, ready, known, attach, reservation)?;
        recorded.recorded().await.map_err(|e| match e {
            // Its task ends it.
            Error::NotWrittenYet(why) => Error::StateRefuses(why),
            other => other,
        })?;
        Ok(Started { created, attachment })
    }

    /// The step that nothing can come between: recorded, handed to the store, and in the hands of its task.
    fn accept(
        &self,
        spec: RunSpec,
        ready: Ready,
        known: Option<InstanceId>,
        attach: bool,
        reservation: Reservation,
    ) -> Result<(Created, Option<Attachment>, Ticket)> {
        let directory = self.0.workspaces.path(&spec.name).to_string_lossy().into_owned();
        let mut launch = spec.launch(&ready.loaded.digest, &directory);
        launch.fresh = ready.workspace.made;
        let launch = Arc::new(launch);
        let stdin = spec.stdin.then(StdinPipe::default);
        let mut state = self.lock();
        self.accepting()?;
        if reservation.cancelled.is_cancelled() {
            return Err(Error::Stopping(spec.name));
        }
        if let Some(id) = known
            && state.registry.get(&spec.name)?.id != id
        {
            return Err(Error::NotFound(spec.name.to_string()));
        }
        let event = state.registry.decide_run(&spec.name, launch, self.0.limits.instances_max, clock::now())?;
        state.budget.promise(event.id, &ready.loaded.program, ready.mounts.len())?;
        let (id, run) = (event.id, event.run);
        let (ticket, recorded) = self.apply_run(&mut state, event, &spec);
        let log = self.0.logs.get(id);
        log.begin(run, attach);
        let control = Arc::new(Control::with_stdin(stdin.clone()));
        let live = Arc::new(Live::new(Arc::clone(&log), control, self.0.scheduler.account()));
        state.live.insert(id, Arc::clone(&live));
        reservation.release(&mut state);
        self.count(&state);
        let attachment = attach.then(|| Attachment::new(log, run, stdin, Done::of(&live)));
        let created = Created { name: spec.name.clone(), directory, run };
        let prepared = self.prepare(id, run, &live, &spec, ready, ticket);
        self.spawn(id, live, spec, Next::Run(Box::new(prepared)));
        Ok((created, attachment, recorded))
    }

    /// Hands an instance to its task.
    pub(super) fn spawn(&self, id: InstanceId, live: Arc<Live>, spec: RunSpec, first: Next) {
        let engine = Arc::clone(&self.0.engine);
        let account = Arc::clone(&live.account);
        let task = Task { supervisor: self.clone(), engine, id, live, spec, back_off: BackOff::default() };
        self.0.scheduler.spawn(account, self.0.tracker.track_future(task.run(first)));
    }

    /// What a run needs besides its module. The mounts first: no directory is made for a run that cannot be.
    pub(super) async fn ready(&self, loaded: Loaded, spec: &RunSpec) -> Result<Ready> {
        let mounts = match spec.mounts.is_empty() {
            true => vec![],
            false => self.0.mounts.lend(&spec.mounts).await?,
        };
        Ok(Ready { loaded, workspace: self.workspace(&spec.name).await?, mounts })
    }

    async fn workspace(&self, name: &Name) -> Result<Workspace> {
        // Microseconds of open and fstat; a hop to another thread and back would cost more.
        if let Some(workspace) = self.0.workspaces.open_known(name)? {
            return Ok(workspace);
        }
        // The first time it is written down, which a disk may take its time for.
        let (this, name) = (self.clone(), name.clone());
        blocking(move || this.0.workspaces.open(&name)).await
    }

    fn check_spec(&self, spec: &RunSpec) -> Result<()> {
        let limits = &self.0.limits;
        let size = |bytes: usize| bytesize::ByteSize(u64::try_from(bytes).unwrap_or(u64::MAX)).to_string();
        let (what, limit, name) = if spec.memory_bytes_max > limits.memory_bytes_ceiling {
            ("the memory of an instance", size(limits.memory_bytes_ceiling), "--memory-max")
        } else if spec.disk_bytes_max > limits.disk_bytes_ceiling {
            ("the disk of an instance", size(limits.disk_bytes_ceiling), "--disk-max")
        } else if spec.files_max > limits.files_ceiling {
            ("the number of files of an instance", limits.files_ceiling.to_string(), "--files-max")
        } else {
            return Ok(());
        };
        Err(Error::Limit { what, limit, name })
    }

    pub(super) fn reserve(&self, name: &Name, what: What) -> Result<Reservation> {
        let mut state = self.lock();
        match what {
            What::Starting => self.accepting()?,
            What::Removing => self.0.store.accepting_removals()?,
        }
        let folded = name.folded();
        if let Some(Reserved { name: known, cancelled, what: by }) = state.reserved.get(&folded) {
            return Err(match cancelled.is_cancelled() || *by == What::Removing {
                _ if known != name => Error::ExistsOtherCase { asked: name.clone(), known: known.clone() },
                true => Error::Stopping(name.clone()),
                false => Error::Exists(name.clone()),
            });
        }
        match what {
            What::Starting => {
                state.registry.check_run(name, self.0.limits.instances_max, state.reserved.len())?;
            }
            What::Removing => {
                state.registry.decide_remove(name, clock::now())?;
            }
        }
        let cancelled = CancellationToken::new();
        let reserved = Reserved { name: name.clone(), cancelled: cancelled.clone(), what };
        state.reserved.insert(folded.clone(), reserved);
        self.count(&state);
        Ok(Reservation { supervisor: self.clone(), folded, cancelled, held: true })
    }

    /// Whether something of that name is alive or about to be.
    pub(super) fn is_taken(&self, name: &Name) -> bool {
        let state = self.lock();
        state.reserved.get(&name.folded()).is_some_and(|r| r.what == What::Starting)
            || state.registry.get(name).is_ok_and(|record| record.state.is_live())
    }

    /// Returns when no work that is not recorded yet holds the name.
    pub(super) async fn unreserved(&self, name: &Name) {
        let mut population = self.0.population.subscribe();
        while self.lock().reserved.contains_key(&name.folded()) {
            // It is counted anew whenever a name is held or let go. The sender is in `self`; it cannot be gone.
            let _counted = population.changed().await;
        }
    }

    /// Makes an event so, and hands it to the store: memory and disk have one order.
    pub(super) fn apply(&self, state: &mut State, event: Event) {
        self.0.store.note(self.applied(state, event, vec![]));
    }

    /// [`Supervisor::apply`], for somebody who waits. `synced`: until it would survive a power failure.
    pub(super) fn apply_and_tell(&self, state: &mut State, event: Event, synced: bool) -> Ticket {
        self.0.store.submit(self.applied(state, event, vec![]), synced)
    }

    /// The event of a new run: for its task and for whoever asked. What has to come back after a power failure is synced.
    pub(super) fn apply_run(&self, state: &mut State, event: Event, spec: &RunSpec) -> (Ticket, Ticket) {
        let synced = spec.restart != crate::model::restart::RestartPolicy::No;
        self.0.store.submit_for_two(self.applied(state, event, spec.env.clone()), synced)
    }

    fn applied(&self, state: &mut State, event: Event, env: Vec<(String, String)>) -> Change {
        tracing::debug!(instance = %event.name, run = event.run, event = event.kind.word(), "registry");
        self.0.metrics.event(&event.kind);
        let seq = state.seq_next;
        state.seq_next += 1;
        let (view, ended_order) = if event.kind == EventKind::Removed {
            let view = EventView::of(seq, &event, state.registry.by_id(event.id).expect("only what exists is removed"));
            state.registry.apply(&event);
            self.0.logs.remove(event.id);
            (view, None)
        } else {
            state.registry.apply(&event);
            let record = state.registry.by_id(event.id).expect("it was just changed");
            (EventView::of(seq, &event, record), record.ended_order)
        };
        Change::Event { event, view: Box::new(view), ended_order, env }
    }

    /// Stops `name`: its stdin is closed, and after `grace` it is ended whatever it is doing. The stop happens whether or
    /// not anybody waits for what is returned. A run that is still being prepared is not going to begin (`None`).
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn stop(&self, name: &Name, grace: Duration) -> Result<Option<Done>> {
        self.end(name, grace, Why::Stop)
    }

    /// Ends `name` at once. As [`Supervisor::stop`] otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn kill(&self, name: &Name) -> Result<Option<Done>> {
        self.end(name, Duration::ZERO, Why::Kill)
    }

    fn end(&self, name: &Name, grace: Duration, why: Why) -> Result<Option<Done>> {
        let mut state = self.lock();
        let starting = state.reserved.get(&name.folded()).filter(|r| r.name == *name && r.what == What::Starting);
        if let Some(starting) = starting {
            starting.cancelled.cancel();
            return Ok(None);
        }
        // Recorded before the guest is told, so that nobody takes an operator's stop for a failure.
        if let Some(event) = state.registry.decide_stop(name, clock::now())? {
            self.apply(&mut state, event);
        }
        let done = Self::done(&state, name)?;
        let record = state.registry.get(name)?;
        // Between two runs there is nobody to be given time.
        let grace = if matches!(record.state, RunState::Restarting(_)) { Duration::ZERO } else { grace };
        if let Some(live) = state.live.get(&record.id) {
            self.ask(&live.control(), grace, why);
        }
        Ok(Some(done))
    }

    /// The lock is held, so that no control is replaced between the mark in the registry and this.
    fn ask(&self, control: &Control, grace: Duration, why: Why) {
        if grace.is_zero() {
            control.end(why, &self.0.engine);
        } else {
            control.end_at(Instant::now() + grace, why);
        }
    }

    /// Ends the run of `name`, as [`Supervisor::stop`] does, and runs it again as it was run before. One that has ended is
    /// run again. Returns when the next run is written down.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Stopping`] if it is being stopped; as [`Supervisor::run`].
    pub async fn restart(&self, name: &Name, grace: Duration) -> Result<Created> {
        self.accepting()?;
        let (live, id, run, launch) = {
            let state = self.lock();
            if let Some(reserved) = state.reserved.get(&name.folded()) {
                return Err(match reserved.what {
                    What::Starting => Error::NotRunning { name: name.clone(), state: "being started".to_owned() },
                    What::Removing => Error::Stopping(name.clone()),
                });
            }
            let record = state.registry.get(name)?;
            let live = state.live.get(&record.id).filter(|_| record.state.is_live()).cloned();
            if let Some(live) = &live {
                if record.stop_requested {
                    return Err(Error::Stopping(name.clone()));
                }
                // Between two runs there is nobody to be given time.
                let grace = if matches!(record.state, RunState::Restarting(_)) { Duration::ZERO } else { grace };
                self.ask(&live.control(), grace, Why::Restart);
            }
            (live, record.id, record.run, Arc::clone(&record.launch))
        };
        let Some(live) = live else {
            let env = self.0.store.answer(move |store| store.environment(id)).await?;
            let env = env.ok_or_else(|| Error::NotFound(name.to_string()))?;
            let spec = RunSpec::again(name, &launch, env);
            return Ok(self.run_known(spec, Some(id), false, |_| ()).await?.created);
        };
        let mut progress = live.progress.subscribe();
        let reached = progress.wait_for(|p| p.run > run || p.over.is_some()).await;
        let reached = reached.expect("the end is sent before its sender goes").clone();
        if let Some((ended, view)) = &reached.ended
            && *ended > run
            && view.started_at.is_none()
            && view.exit_code == Some(126)
        {
            let why = view.message.as_deref().unwrap_or_default();
            return Err(Error::NotRunning { name: name.clone(), state: format!("{} ({why})", view.status()) });
        }
        match reached.over {
            Some(_) if reached.run <= run => Err(self.accepting().err().unwrap_or(Error::Stopping(name.clone()))),
            _ => Ok(Created { name: name.clone(), directory: launch.directory.clone(), run: reached.run }),
        }
    }

    /// Whether a module of this content is here already; then it has the name now.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::begin_put`].
    pub async fn put_known(&self, name: &Name, sha256: &str, text: bool) -> Result<Option<ModuleView>> {
        self.accepting()?;
        self.0.modules.put_known(name, sha256, text).await
    }

    /// Begins to receive a module.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`], [`Error::ExistsOtherCase`], [`Error::Io`], [`Error::ShuttingDown`], [`Error::StateRefuses`].
    pub fn begin_put(&self, name: &Name, bytes: u64, text: bool) -> Result<Upload> {
        self.accepting()?;
        self.0.modules.begin_put(name, bytes, text)
    }

    /// Every module that can be run.
    pub async fn modules(&self) -> Vec<ModuleView> {
        self.0.modules.list().await
    }

    /// Opens a module, to be sent.
    ///
    /// # Errors
    ///
    /// [`Error::NoModule`], [`Error::BadModule`], [`Error::Limit`], [`Error::Io`].
    pub async fn open_module(&self, name: &Name) -> Result<OpenModule> {
        self.0.modules.open_content(name).await
    }

    /// How many times a module was compiled so far.
    pub fn compilations(&self) -> u64 {
        self.0.modules.compilations()
    }

    /// Forgets a stored module.
    ///
    /// # Errors
    ///
    /// [`Error::NoModule`], [`Error::Denied`], [`Error::Io`], [`Error::StateRefuses`].
    pub async fn forget(&self, name: &Name) -> Result<()> {
        self.0.store.accepting_removals()?;
        self.0.modules.forget(name).await
    }

    /// Keeps something until the daemon is gone.
    pub fn keep(&self, thing: Box<dyn Any + Send>) {
        // Nothing is done under this lock that could break it.
        self.0.until_the_end.lock().unwrap_or_else(PoisonError::into_inner).push(thing);
    }

    /// Lets go of what was kept until the end.
    pub(super) fn let_go(&self) {
        self.0.until_the_end.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Asks for the daemon's end; returns at once.
    pub fn shut_down(&self) {
        self.0.shutdown.cancel();
    }

    /// Returns when somebody asked for the daemon's end.
    pub async fn shutdown_requested(&self) {
        self.0.shutdown.cancelled().await;
    }

    /// Returns when somebody asked for the daemon's end and no instance is left.
    pub async fn drained(&self) {
        self.shutdown_requested().await;
        let mut population = self.0.population.subscribe();
        // The sender is in `self`; it cannot be gone.
        let _gone = population.wait_for(|n| *n == 0).await;
    }

    /// Ends every instance and waits until all are gone. New ones are refused by then.
    pub(super) async fn drain(&self) {
        let live: Vec<Arc<Live>> = {
            let state = self.lock();
            state.reserved.values().for_each(|reserved| reserved.cancelled.cancel());
            state.live.values().cloned().collect()
        };
        for live in live {
            live.control().end(Why::Shutdown, &self.0.engine);
        }
        self.drained().await;
    }
}
