//! The shell around the pure half: tasks, files, time. It opens what a daemon needs and takes it down in order; the doors
//! that clients come through are not its business.

mod attachment;
mod budget;
pub(crate) mod checkup;
pub mod clock;
mod compile;
mod digest;
mod events;
pub mod fence;
mod instance_task;
mod lifecycle;
mod limits;
mod live;
pub(crate) mod logs;
mod metrics;
mod modules;
mod mounts;
mod process;
mod removal;
mod removing;
mod scheduler;
mod stats;
mod store;
mod supervisor;
#[cfg(unix)]
mod usage;
mod views;
mod workspace;

pub use attachment::{Attachment, Started};
pub use compile::{Compiling, Said as CompilerSaid};
pub use events::{Followed, Follower};
pub use live::Done;
pub use logs::{Log, Query, Read, Reader};
pub use metrics::{Metrics, Turned, Way};
pub use modules::{OpenModule, Upload};
pub use stats::Samples;
pub use supervisor::Supervisor;
pub use views::Pages;

use crate::config::{Config, GuestPriority, fixed};
use crate::engine::{self, Engine, Setup};
use crate::error::{Error, Result};
use crate::model::auth::Token;
use crate::model::hex::encode as hex;
use crate::model::registry::Registry;
use budget::Budget;
use logs::Logs;
use modules::Modules;
use mounts::Mounts;
use scheduler::{Scheduler, Serves};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use supervisor::Parts;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use workspace::Workspaces;

/// Everything behind the doors: the state directory, the guests' runtime, the supervisor.
pub struct Daemon {
    supervisor: Supervisor,
    tracker: TaskTracker,
    store: Arc<Store>,
    modules: Modules,
    logs: Logs,
    token: Token,
    state_dir: PathBuf,
    drain: Duration,
    _guests: Guests,
}

/// The threads of the guests, and the runtime that drives what they wait for. A file operation that hangs in the kernel must
/// not hang the daemon's end: its thread is left behind.
struct Guests {
    scheduler: Scheduler,
    ended: CancellationToken,
}

impl Guests {
    fn start(engine: &Arc<Engine>, config: &Config) -> Result<Guests> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Of the threads that do the blocking work of guests; the runtime's own is ours.
            .on_thread_start(lower_priority)
            .build()
            .map_err(|e| Error::io("cannot start the threads for guests", &e))?;
        let (handle, ended) = (runtime.handle().clone(), CancellationToken::new());
        let until = ended.clone();
        std::thread::Builder::new()
            .name("guest-io".into())
            .spawn(move || {
                runtime.block_on(until.cancelled());
                runtime.shutdown_background();
            })
            .map_err(|e| Error::io("cannot start the threads for guests", &e))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (engine, priority) = (Arc::clone(engine), config.guest_priority);
        let scheduler = Scheduler::start(
            &handle,
            processors,
            move || engine.tick(),
            move |serves| match serves {
                Serves::Quick => engine::set_turn_ticks(fixed::TURN_TICKS_QUICK),
                Serves::All | Serves::AllButOne => {
                    engine::step_back_at_ticks();
                    step_back(priority);
                }
            },
        );
        let scheduler = scheduler.inspect_err(|_| ended.cancel())?;
        if config.plain_queue {
            scheduler.leave_to(plain_runtime(processors)?);
        }
        Ok(Guests { scheduler, ended })
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.scheduler.end();
        self.ended.cancel();
    }
}

impl Daemon {
    /// Takes the state directory, starts the threads for guests (a runtime of their own, so that none of them can hold up an
    /// answer), and takes up what an earlier daemon left.
    ///
    /// # Errors
    ///
    /// What makes it impossible to run anything: the state directory, the root, a limit of the machine.
    pub async fn open(config: &Config) -> Result<Daemon> {
        let config = config.clone();
        let daemon = blocking(move || Daemon::open_now(&config)).await?;
        daemon.supervisor.resume_removals();
        daemon.tracker.spawn(daemon.supervisor.clone().tidy());
        Ok(daemon)
    }

    fn open_now(config: &Config) -> Result<Daemon> {
        let state_dir = config
            .state_dir()
            .ok_or_else(|| Error::Denied("there is no home directory: give --state-dir DIR".into()))?;
        let limits = config.limits.clone();
        let store = Arc::new(Store::open(&state_dir, config.durability, &limits)?);
        let loaded = store.loaded();
        let token = crate::transport::token::read_or_make(&state_dir)?;
        raise_descriptor_limit();
        let engine = Arc::new(Engine::start(Setup {
            dense: config.dense,
            ticks: !config.faults.no_ticks,
            ..Setup::new(config.limits.table_entries_max)
        })?);
        let guests = Guests::start(&engine, config)?;
        let tracker = TaskTracker::new();
        let mounts = Mounts::new(config, &state_dir)?;
        let workspaces = Workspaces::new(&config.root, Arc::clone(&store))?;
        let modules = Modules::open(Arc::clone(&engine), Arc::clone(&store), &workspaces, config, tracker.clone())?;
        let budget = Budget::new(&limits, engine.entries())?;
        let logs = Logs::open(&store.logs(), limits.log_bytes_max, limits.log_bytes_per_second, store.full())?;
        let mut registry = Registry::restore(loaded.records);
        registry.reserve_ids(loaded.id_next);
        let supervisor = Supervisor::new(Parts {
            engine,
            modules: modules.clone(),
            workspaces,
            mounts,
            store: Arc::clone(&store),
            logs: logs.clone(),
            limits,
            fence: config.fenced.clone().unwrap_or_else(|| fence::WITHIN_ANOTHER.to_owned()),
            faults: config.faults.clone(),
            budget,
            tracker: tracker.clone(),
            scheduler: guests.scheduler.clone(),
            registry,
            seq_next: loaded.seq_next,
        });
        tracing::info!(state_dir = %state_dir.display(), root = %config.root.display(), "ready");
        let daemon = Daemon {
            supervisor,
            tracker,
            store,
            modules,
            logs: logs.clone(),
            token,
            state_dir,
            drain: config.drain(),
            _guests: guests,
        };
        daemon.supervisor.recover()?;
        logs.retain(|id| daemon.supervisor.knows(id));
        Ok(daemon)
    }

    /// The handle that everything is done through.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// What clients have to know that the kernel does not vouch for.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The state directory, which is this daemon's alone.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Returns when somebody asked for the daemon's end.
    pub async fn shutdown_requested(&self) {
        self.supervisor.shutdown_requested().await;
    }

    /// Where tasks are started that the end has to wait for.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Runs until somebody asks for the end ([`Supervisor::shut_down`]), then takes everything down in order: no new
    /// work, guests ended, their ends written down, answers sent. At most [`fixed::DRAIN`] for the guests, and less for the
    /// rest.
    pub async fn ended(self) {
        self.supervisor.shutdown_requested().await;
        tracing::info!(live = self.supervisor.live(), "shutting down");
        self.modules.compilers().close();
        if tokio::time::timeout(self.drain, self.supervisor.drain()).await.is_err() {
            tracing::warn!(live = self.supervisor.live(), "some guests did not end in time");
        }
        self.tracker.close();
        if tokio::time::timeout(fixed::FAREWELL, self.tracker.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        let (store, logs) = (self.store, self.logs);
        // On a thread of its own: those that block may all hang, in directories of servers that are gone.
        let (closed, closing) = tokio::sync::oneshot::channel::<()>();
        let close = move || {
            logs.close();
            store.close();
            drop(closed);
        };
        match std::thread::Builder::new().name("close".into()).spawn(close) {
            // The end of the channel is what it says.
            Ok(_) => drop(closing.await),
            Err(e) => tracing::error!("the state is not closed in order: {e}"),
        }
        // The state directory is free: whoever waited for the close may know.
        self.supervisor.let_go();
    }
}

/// A runtime that runs guests in its own order, set up for that as well as it can be.
fn plain_runtime(processors: usize) -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors)
        .enable_all()
        // New and woken guests come from the global queue; look there at each second turn, not at each 61st. Not at each: what is
        // at the front of a worker's own queue would never have one, since only what is behind it overflows (tokio 1.54).
        .global_queue_interval(2)
        .event_interval(1)
        .on_thread_start(lower_priority)
        .build()
        .map_err(|e| Error::io("cannot start the threads for guests", &e))
}

/// For the threads of those who compute: what answers goes before them.
fn step_back(priority: GuestPriority) {
    match priority {
        GuestPriority::Normal => {}
        GuestPriority::Low => lower_priority(),
        GuestPriority::Idle => {
            use thread_priority::{ThreadPriority, set_current_thread_priority};
            // sched(7): unlike a nice value, SCHED_IDLE makes way for whoever wakes up at once, and not after a slice.
            #[cfg(target_os = "linux")]
            let set = thread_priority::set_thread_priority_and_policy(
                thread_priority::thread_native_id(),
                ThreadPriority::Min,
                thread_priority::ThreadSchedulePolicy::Normal(thread_priority::NormalThreadSchedulePolicy::Idle),
            )
            .or_else(|_| set_current_thread_priority(ThreadPriority::Min));
            #[cfg(not(target_os = "linux"))]
            let set = set_current_thread_priority(ThreadPriority::Min);
            if let Err(e) = set {
                tracing::debug!("guest threads keep their priority: {e}");
            }
        }
    }
}

/// On Linux a thread has a nice value of its own (setpriority(2), "C library/kernel differences"): guests step back behind
/// the threads that answer.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        const NICE: i32 = 10;
        if let Err(e) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
            tracing::debug!("guest threads keep their priority: {e}");
        }
    }
}

/// Each instance and each connection holds descriptors; the soft limit is for programs that use select(2).
fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!("the limit of open files stays as it is: {e}");
        }
    }
}

/// Runs what may block for a while on a thread that may.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // Not cancelled: nothing aborts these. A panic goes on to whoever waited for the result.
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that may block may all do so, in directories of servers that are gone.
    #[test]
    fn the_end_needs_none_of_the_threads_that_may_hang() {
        const THREADS: usize = 4;
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let config = Config::new(([127, 0, 0, 1], 0).into(), state.clone(), dir.path().join("root"));
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).max_blocking_threads(THREADS).enable_all().build().unwrap();
        runtime.block_on(async {
            let daemon = Daemon::open(&config).await.unwrap();
            let back = CancellationToken::new();
            // Also where this test fails, or its end would wait for them.
            let comes_back = back.clone().drop_guard();
            let hanging = Arc::new(tokio::sync::Barrier::new(THREADS + 1));
            for _ in 0..THREADS {
                let (back, hanging) = (back.clone(), Arc::clone(&hanging));
                let hangs = move || {
                    let until = async { tokio::join!(hanging.wait(), back.cancelled()) };
                    tokio::runtime::Handle::current().block_on(until);
                };
                drop(tokio::task::spawn_blocking(hangs));
            }
            hanging.wait().await;
            daemon.supervisor().shut_down();
            let ended = tokio::time::timeout(Duration::from_secs(60), daemon.ended());
            ended.await.expect("the daemon ends, whoever hangs");
            // In order: the directory is free for the next one.
            Store::open(&state, config.durability, &config.limits).unwrap();
            drop(comes_back);
        });
    }
}
