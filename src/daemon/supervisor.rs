//! The supervisor: a cheap handle that runs, stops and shows instances. It holds the registry and what is alive beside it.
//!
//! One short lock guards both, never across an await: decide, apply, hand over. What takes time (finding a module, making a
//! directory, waiting for an end) happens outside of it.

use crate::config::Limits;
use crate::daemon::blocking;
use crate::daemon::budget::{Budget, Promise};
use crate::daemon::clock;
use crate::daemon::instance_task::{Task, Why};
use crate::daemon::logs::{self, Log};
use crate::daemon::modules::{Modules, Upload};
use crate::daemon::workspace::{Workspace, Workspaces};
use crate::engine::{Engine, MemoryBudget, Sandbox, StdinPipe};
use crate::error::{Error, Result};
use crate::model::event::{Event, EventKind};
use crate::model::instance::{Ended, InstanceId, Launch, Record, RunSpec};
use crate::model::name::Name;
use crate::model::registry::Registry;
use crate::model::reply::{Created, InstanceView, ModuleView, Output};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The handle. Clones are the same supervisor.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    modules: Modules,
    workspaces: Workspaces,
    limits: Limits,
    memory_total: Arc<MemoryBudget>,
    /// Tasks that the daemon waits for before it ends.
    tracker: TaskTracker,
    /// Where guests run.
    guests: Handle,
    shutdown: CancellationToken,
    state: Mutex<State>,
    /// How many are alive or on their way; watched by the drain.
    population: watch::Sender<usize>,
    /// Dropped last: connections whose close tells that the daemon is gone.
    until_the_end: Mutex<Vec<Box<dyn Any + Send>>>,
}

struct State {
    registry: Registry,
    budget: Budget,
    live: HashMap<InstanceId, Arc<Live>>,
    logs: HashMap<InstanceId, Arc<Log>>,
    /// Runs that are not recorded yet, because their module is still being found or compiled; by folded name.
    starting: HashMap<String, Starting>,
}

/// A run that is being prepared.
struct Starting {
    name: Name,
    cancelled: CancellationToken,
}

/// What there is of an instance only while it lives.
pub(super) struct Live {
    /// Ends the run. What for is in [`Live::why`].
    pub(super) stop: CancellationToken,
    why: OnceLock<Why>,
    /// When the grace of the most impatient stop is over.
    grace: watch::Sender<Option<Instant>>,
    promise: Promise,
    stdin: Option<StdinPipe>,
    /// Filled when the run is over and recorded.
    done: watch::Sender<Option<Arc<InstanceView>>>,
}

impl Live {
    /// What the run is ended for; the first reason stands.
    pub(super) fn why(&self) -> Why {
        self.why.get().copied().unwrap_or(Why::Shutdown)
    }

    /// Returns when the grace of a stop is over, and makes it the reason.
    pub(super) async fn grace_over(&self) -> Why {
        let mut grace = self.grace.subscribe();
        loop {
            let until = *grace.borrow_and_update();
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender is in `self`; it cannot be gone.
                _changed = grace.changed() => {}
                () = over => return *self.why.get_or_init(|| Why::Stop),
            }
        }
    }

    fn end(&self, why: Why, engine: &Engine) {
        // Set or set before: the first to ask is the reason.
        self.why.get_or_init(|| why);
        self.stop.cancel();
        // A guest that computes is asked now, not at the next tick.
        engine.tick();
    }
}

/// An accepted run.
pub struct Started {
    /// What to reply.
    pub created: Created,
    /// The streams, if they were asked for.
    pub attachment: Option<Attachment>,
}

/// A client's hold on the streams of a run: the guest waits for it. Dropped, it lets go, and the run goes on.
pub struct Attachment {
    log: Arc<Log>,
    run: u32,
    stdin: Option<StdinPipe>,
    done: Done,
}

impl Attachment {
    /// The next output. `None`: the run is over and all of its output was handed out.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn next(&self) -> Option<Vec<Output>> {
        self.log.take(self.run).await
    }

    /// The guest's stdin, if it is open.
    pub fn stdin(&self) -> Option<&StdinPipe> {
        self.stdin.as_ref()
    }

    /// How the run ended.
    pub async fn ended(&self) -> InstanceView {
        self.done.clone().wait().await
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.log.detach(self.run);
        if let Some(stdin) = &self.stdin {
            stdin.close();
        }
    }
}

/// The end of a run, now or later.
#[derive(Clone)]
pub struct Done(DoneKind);

#[derive(Clone)]
enum DoneKind {
    Already(Arc<InstanceView>),
    Later(watch::Receiver<Option<Arc<InstanceView>>>),
}

impl Done {
    /// Waits for the end of the run that was the newest when this was made.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait(self) -> InstanceView {
        match self.0 {
            DoneKind::Already(view) => InstanceView::clone(&view),
            DoneKind::Later(mut done) => {
                let view = done.wait_for(Option::is_some).await.expect("the end is sent before its sender goes");
                InstanceView::clone(view.as_ref().expect("just seen"))
            }
        }
    }
}

/// Holds a name while its run is being prepared; whoever stops the name meanwhile cancels the token.
struct Reservation {
    supervisor: Supervisor,
    folded: String,
    cancelled: CancellationToken,
    held: bool,
}

impl Reservation {
    /// Lets go under the same lock that records the run: a stop finds the one or the other, and never only this one.
    fn release(mut self, state: &mut State) {
        state.starting.remove(&self.folded);
        self.held = false;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held {
            let mut state = self.supervisor.lock();
            state.starting.remove(&self.folded);
            self.supervisor.count(&state);
        }
    }
}

impl Supervisor {
    /// A supervisor without instances. `guests` is the runtime that guests run on.
    pub(super) fn new(
        engine: Arc<Engine>,
        modules: Modules,
        workspaces: Workspaces,
        limits: Limits,
        budget: Budget,
        tracker: TaskTracker,
        guests: Handle,
    ) -> Supervisor {
        let memory_total = Arc::new(MemoryBudget::new(limits.memory_bytes_total()));
        Supervisor(Arc::new(Inner {
            engine,
            modules,
            workspaces,
            limits,
            memory_total,
            tracker,
            guests,
            shutdown: CancellationToken::new(),
            state: Mutex::new(State {
                registry: Registry::default(),
                budget,
                live: HashMap::new(),
                logs: HashMap::new(),
                starting: HashMap::new(),
            }),
            population: watch::Sender::new(0),
            until_the_end: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a broken invariant of the registry: nothing after it could be trusted.
        self.0.state.lock().unwrap_or_else(|_: PoisonError<_>| std::process::abort())
    }

    fn count(&self, state: &State) {
        self.0.population.send_replace(state.live.len() + state.starting.len());
    }

    /// What may be run, stored and held.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// How many instances are alive.
    pub fn live(&self) -> usize {
        self.lock().registry.live()
    }

    /// Bytes that the memories and tables of all instances have now.
    pub fn memory_bytes_used(&self) -> usize {
        self.0.memory_total.used()
    }

    fn accepting(&self) -> Result<()> {
        if self.0.shutdown.is_cancelled() { Err(Error::ShuttingDown) } else { Ok(()) }
    }

    /// Runs a module. Returns when the run is recorded and on its way into guest code. `attach` gives the caller the
    /// guest's streams; `digest` insists on one content of a stored module; `compiling` is called if that takes long.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] and its kin, [`Error::NoModule`], [`Error::BadModule`], [`Error::Limit`], [`Error::Denied`] for
    /// a directory that is not ours, [`Error::Stopping`] if it was stopped before it began.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the run is recorded and started, or it is not.
    pub async fn run(
        &self,
        spec: RunSpec,
        attach: bool,
        digest: Option<&str>,
        compiling: impl FnOnce(),
    ) -> Result<Started> {
        self.check_spec(&spec)?;
        let reservation = self.reserve(&spec.name)?;
        let loaded = tokio::select! {
            biased;
            () = reservation.cancelled.cancelled() => return Err(self.accepting().err().unwrap_or(Error::Stopping(spec.name))),
            loaded = self.0.modules.load(&spec.module, digest, compiling) => loaded?,
        };
        let workspace = self.workspace(&spec.name).await?;
        let directory = self.0.workspaces.path(&spec.name).to_string_lossy().into_owned();
        let launch = Arc::new(Launch {
            module: spec.module.clone(),
            digest: loaded.digest.to_string(),
            args: spec.args.clone(),
            env: spec.env.iter().map(|(key, _)| key.clone()).collect(),
            directory: directory.clone(),
            memory_bytes_max: spec.memory_bytes_max,
            timeout_ms: spec.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        });
        let stdin = spec.stdin.then(StdinPipe::default);
        let mut args = vec![spec.argv0.unwrap_or_else(|| spec.module.to_string())];
        args.extend(spec.args);

        let mut state = self.lock();
        self.accepting()?;
        if reservation.cancelled.is_cancelled() {
            return Err(Error::Stopping(spec.name));
        }
        let event = state.registry.decide_run(&spec.name, launch, self.0.limits.instances_max, clock::now())?;
        let promise = state.budget.promise(loaded.program.needs())?;
        let (id, run) = (event.id, event.run);
        self.apply(&mut state, &event);
        let log = state.logs.entry(id).or_insert_with(|| Arc::new(Log::new(self.0.limits.log_bytes_max)));
        let log = Arc::clone(log);
        log.begin(run, attach);
        let live = Arc::new(Live {
            stop: CancellationToken::new(),
            why: OnceLock::new(),
            grace: watch::Sender::new(None),
            promise,
            stdin: stdin.clone(),
            done: watch::Sender::new(None),
        });
        state.live.insert(id, Arc::clone(&live));
        reservation.release(&mut state);
        self.count(&state);
        let done = Done(DoneKind::Later(live.done.subscribe()));
        let entered = self.clone();
        let sandbox = Sandbox {
            args,
            env: spec.env,
            directory: workspace.lend(),
            stdin: stdin.clone(),
            sink: logs::sink(&log),
            memory_bytes_max: spec.memory_bytes_max,
            memory_total: Arc::clone(&self.0.memory_total),
            handles_max: self.0.limits.handles_max,
            hostcall_bytes_max: self.0.limits.hostcall_bytes_max,
            on_enter: Box::new(move || entered.started(id)),
        };
        let task = Task {
            supervisor: self.clone(),
            engine: Arc::clone(&self.0.engine),
            id,
            live,
            program: loaded.program,
            sandbox,
            workspace,
            timeout: spec.timeout,
        };
        self.0.tracker.spawn_on(task.run(), &self.0.guests);
        drop(state);
        let attachment = attach.then(|| Attachment { log, run, stdin, done });
        Ok(Started { created: Created { name: spec.name, directory, run }, attachment })
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
        let ceiling = self.0.limits.memory_bytes_ceiling;
        if spec.memory_bytes_max > ceiling {
            let limit = bytesize::ByteSize(u64::try_from(ceiling).unwrap_or(u64::MAX)).to_string();
            return Err(Error::Limit { what: "the memory of an instance", limit, name: "--memory-max" });
        }
        Ok(())
    }

    fn reserve(&self, name: &Name) -> Result<Reservation> {
        let mut state = self.lock();
        self.accepting()?;
        let folded = name.folded();
        if let Some(Starting { name: known, cancelled }) = state.starting.get(&folded) {
            return Err(match cancelled.is_cancelled() {
                _ if known != name => Error::ExistsOtherCase { asked: name.clone(), known: known.clone() },
                true => Error::Stopping(name.clone()),
                false => Error::Exists(name.clone()),
            });
        }
        state.registry.check_run(name, self.0.limits.instances_max, state.starting.len())?;
        let cancelled = CancellationToken::new();
        state.starting.insert(folded.clone(), Starting { name: name.clone(), cancelled: cancelled.clone() });
        self.count(&state);
        Ok(Reservation { supervisor: self.clone(), folded, cancelled, held: true })
    }

    fn apply(&self, state: &mut State, event: &Event) {
        tracing::debug!(instance = %event.name, run = event.run, event = event_word(&event.kind), "registry");
        state.registry.apply(event);
        if let EventKind::Removed = event.kind {
            state.logs.remove(&event.id);
        }
    }

    /// Guest code was entered.
    fn started(&self, id: InstanceId) {
        let mut state = self.lock();
        let event = state.registry.started(id, clock::now());
        self.apply(&mut state, &event);
    }

    /// The run of `id` is over, and nothing of it is left.
    pub(super) fn finish(&self, id: InstanceId, ended: Ended) {
        let mut state = self.lock();
        let event = state.registry.ended(id, ended, clock::now());
        self.apply(&mut state, &event);
        let view = state.registry.get(&event.name).map(InstanceView::of).expect("an instance that ended is known");
        if let Some(log) = state.logs.get(&id) {
            log.finish();
        }
        // The last state is visible before the live handle goes, or an end would look like "no such instance".
        if let Some(live) = state.live.remove(&id) {
            state.budget.release(live.promise);
            live.done.send_replace(Some(Arc::new(view)));
        }
        for event in state.registry.decide_prune(self.0.limits.ended_max, clock::now()) {
            self.apply(&mut state, &event);
        }
        self.count(&state);
    }

    /// Every instance, in order of creation.
    pub fn list(&self) -> Vec<InstanceView> {
        // Copied under the lock, and put into words outside of it.
        let records: Vec<Record> = self.lock().registry.records().cloned().collect();
        records.iter().map(InstanceView::of).collect()
    }

    /// Everything about one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn inspect(&self, name: &Name) -> Result<InstanceView> {
        self.lock().registry.get(name).map(InstanceView::of)
    }

    /// The end of the newest run of `name`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn wait(&self, name: &Name) -> Result<Done> {
        Self::done(&self.lock(), name)
    }

    fn done(state: &State, name: &Name) -> Result<Done> {
        let record = state.registry.get(name)?;
        Ok(Done(match state.live.get(&record.id) {
            Some(live) => DoneKind::Later(live.done.subscribe()),
            None => DoneKind::Already(Arc::new(InstanceView::of(record))),
        }))
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
        if let Some(starting) = state.starting.get(&name.folded()).filter(|s| s.name == *name) {
            starting.cancelled.cancel();
            return Ok(None);
        }
        // Recorded before the guest is told, so that nobody takes an operator's stop for a failure.
        if let Some(event) = state.registry.decide_stop(name, clock::now())? {
            self.apply(&mut state, &event);
        }
        let done = Self::done(&state, name)?;
        let id = state.registry.get(name)?.id;
        let Some(live) = state.live.get(&id).cloned() else { return Ok(Some(done)) };
        drop(state);
        if grace.is_zero() {
            live.end(why, &self.0.engine);
            return Ok(Some(done));
        }
        if let Some(stdin) = &live.stdin {
            stdin.close();
        }
        // The instance's own task keeps the time: no client has to stay for it, and however many ask, there is one deadline.
        let until = Instant::now() + grace;
        live.grace.send_if_modified(|known| {
            let sooner = known.is_none_or(|known| until < known);
            if sooner {
                *known = Some(until);
            }
            sooner
        });
        Ok(Some(done))
    }

    /// Forgets an ended instance; its directory stays. `force` kills it first.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::StillRunning`].
    pub async fn remove(&self, name: &Name, force: bool) -> Result<()> {
        if force
            && self.inspect(name).is_ok_and(|view| view.ended_at.is_none())
            && let Some(done) = self.kill(name)?
        {
            done.wait().await;
        }
        let mut state = self.lock();
        let event = state.registry.decide_remove(name, clock::now())?;
        self.apply(&mut state, &event);
        Ok(())
    }

    /// The log of an instance.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn log(&self, name: &Name) -> Result<Arc<Log>> {
        let state = self.lock();
        let id = state.registry.get(name)?.id;
        Ok(Arc::clone(state.logs.get(&id).expect("every record has a log")))
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
    /// [`Error::Limit`], [`Error::ExistsOtherCase`], [`Error::Io`], [`Error::ShuttingDown`].
    pub fn begin_put(&self, name: &Name, bytes: u64, text: bool) -> Result<Upload> {
        self.accepting()?;
        self.0.modules.begin_put(name, bytes, text)
    }

    /// Every module that can be run.
    pub async fn modules(&self) -> Vec<ModuleView> {
        self.0.modules.list().await
    }

    /// How many times a module was compiled so far.
    pub fn compilations(&self) -> u64 {
        self.0.modules.compilations()
    }

    /// Forgets a stored module.
    ///
    /// # Errors
    ///
    /// [`Error::NoModule`], [`Error::Denied`], [`Error::Io`].
    pub async fn forget(&self, name: &Name) -> Result<()> {
        self.0.modules.forget(name).await
    }

    /// Keeps something until the daemon is gone.
    pub fn keep(&self, thing: Box<dyn Any + Send>) {
        // Nothing is done under this lock that could break it.
        self.0.until_the_end.lock().unwrap_or_else(PoisonError::into_inner).push(thing);
    }

    /// Asks for the daemon's end; returns at once.
    pub fn shut_down(&self) {
        self.0.shutdown.cancel();
    }

    /// Returns when somebody asked for the daemon's end.
    pub async fn shutdown_requested(&self) {
        self.0.shutdown.cancelled().await;
    }

    /// Ends every instance and waits until all are gone. New ones are refused by then.
    pub(super) async fn drain(&self) {
        let live: Vec<Arc<Live>> = {
            let state = self.lock();
            state.starting.values().for_each(|starting| starting.cancelled.cancel());
            state.live.values().cloned().collect()
        };
        for live in live {
            live.end(Why::Shutdown, &self.0.engine);
        }
        let mut population = self.0.population.subscribe();
        // The sender is in `self`; it cannot be gone.
        let _gone = population.wait_for(|n| *n == 0).await;
    }
}

fn event_word(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Created(_) => "created",
        EventKind::Started => "started",
        EventKind::StopRequested => "stop requested",
        EventKind::Ended(_) => "ended",
        EventKind::Removed => "removed",
    }
}
