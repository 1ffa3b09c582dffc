//! The scheduler of guests: threads that take turns from a queue of our own. Nothing of wasmtime is in here: a guest is a
//! future that yields at each tick.
//!
//! ```text
//!  spawn, wakers ──► queue (pure: who is next) ──► workers, one a processor ── poll for a turn ──┐
//!                      ▲       └─────────────────► one more, for what is quick ── poll ──────────┤
//!                      └───────── CPU time of the turn is charged, ready again? ◄────────────────┘
//! ```
//!
//! A runtime's own queue is first in, first out: behind a thousand endless loops a new guest waits for a thousand turns. Here
//! the order is [`queue`]'s. What the threads add:
//!
//! - **Who arrives and is quick does not wait for a tick.** If nobody is free, those who compute are asked to yield at once.
//! - **One thread serves only what is quick**, at the priority of the threads that answer, while the others step back. A guest
//!   in a long operation that cannot be interrupted (the filling of 256 MiB of memory) holds up a worker, but not this one.
//! - **What should end a guest moves it to the front** (`Account::urgent`): a stop, a deadline, a used-up budget.
//!
//! Timers, files and sockets that guests wait for belong to a tokio runtime with one thread, which no guest runs on.

mod account;
mod queue;
mod workers;

pub(super) use account::Account;
pub(super) use queue::Serves;

use crate::error::{Error, Result};
use crate::model::instance::Share;
use async_task::{Runnable, Task};
use queue::{Key, Nanos, RunQueue};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};

/// How soon after one interruption those who compute are interrupted again.
const INTERRUPTS_APART: Nanos = 200_000;

/// A guest that is ready, with its account.
type Ready = Runnable<Arc<Account>>;

/// The handle. Clones are the same scheduler; [`Scheduler::end`] ends it.
#[derive(Clone)]
pub(super) struct Scheduler(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    begun: Instant,
    keys: AtomicU64,
    /// Nanoseconds that all guests have used.
    used: Arc<AtomicU64>,
    /// Asks those who compute to yield.
    interrupt: Box<dyn Fn() + Send + Sync>,
    /// Takes all guests instead, in benches that compare.
    plain: OnceLock<Runtime>,
}

struct State {
    queue: RunQueue<Ready>,
    /// Every guest, so that the end finds those who wait for something else than a turn.
    tasks: HashMap<Key, Task<(), Arc<Account>>>,
    workers: Vec<Worker>,
    interrupted: Nanos,
    ended: bool,
}

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// It sleeps, and nobody has woken it yet.
    Asleep,
    /// It is awake, or about to be, and will look at the queue.
    Looking,
    /// It polls a guest.
    Busy { since: Nanos },
}

/// A turn among the quick is over sooner than that, unless something cannot be interrupted.
const HELD_UP: Nanos = 2_000_000;

impl Worker {
    /// Whether it will look at the queue soon.
    fn looks_soon(&self, now: Nanos) -> bool {
        match self.at {
            At::Looking => true,
            At::Busy { since } => now.saturating_sub(since) < HELD_UP,
            // Whoever came has woken it, if there was anybody for it.
            At::Asleep => false,
        }
    }
}

struct Worker {
    thread: Thread,
    serves: Serves,
    at: At,
}

impl Scheduler {
    /// Starts the threads, which call `prepare` first. `interrupt` makes every guest that computes yield soon; `runtime` drives
    /// what guests wait for.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if no thread can be had.
    pub(super) fn start(
        runtime: &Handle,
        processors: usize,
        interrupt: impl Fn() + Send + Sync + 'static,
        prepare: impl Fn(Serves) + Send + Sync + 'static,
    ) -> Result<Scheduler> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: RunQueue::default(),
                tasks: HashMap::new(),
                workers: vec![],
                interrupted: 0,
                ended: false,
            }),
            begun: Instant::now(),
            keys: AtomicU64::new(1),
            used: Arc::default(),
            interrupt: Box::new(interrupt),
            plain: OnceLock::new(),
        });
        let (scheduler, prepare) = (Scheduler(shared), Arc::new(prepare));
        for serves in std::iter::repeat_n(Serves::All, processors).chain([Serves::Quick]) {
            if let Err(e) = workers::start(&scheduler.0, serves, runtime.clone(), Arc::clone(&prepare)) {
                scheduler.end();
                return Err(Error::io("cannot start the threads for guests", &e));
            }
        }
        Ok(scheduler)
    }

    /// CPU time of all guests so far, until the last turn of each.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.0.used.load(Relaxed))
    }

    /// An account for a guest to come.
    pub(super) fn account(&self) -> Arc<Account> {
        Arc::new(Account::new(Key(self.0.keys.fetch_add(1, Relaxed)), &self.0))
    }

    /// Lives a guest's life. Its first turn is as soon as that of any newcomer. A panic ends this guest and no other.
    pub(super) fn spawn(&self, account: Arc<Account>, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.0.plain.get() {
            drop(runtime.spawn(future));
            return;
        }
        let key = account.key;
        let shared = Arc::clone(&self.0);
        let schedule = move |ready: Ready| shared.ready(ready);
        let (ready, task) = async_task::Builder::new().metadata(account).spawn(move |_| future, schedule);
        {
            let mut state = self.0.lock();
            if state.ended {
                drop(state);
                return;
            }
            state.queue.add(key, self.0.now());
            state.tasks.insert(key, task);
        }
        ready.schedule();
    }

    /// Gives all guests to a runtime from now on. It lives as long as the process.
    pub(super) fn leave_to(&self, runtime: Runtime) {
        self.0.plain.get_or_init(|| runtime);
    }

    /// How many guests there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().tasks.len()
    }

    /// Drops every guest and lets the threads end; what a thread is in the middle of is dropped after its turn. Does not wait.
    pub(super) fn end(&self) {
        let (tasks, threads) = {
            let mut state = self.0.lock();
            state.ended = true;
            let threads: Vec<Thread> = state.workers.iter().map(|worker| worker.thread.clone()).collect();
            (std::mem::take(&mut state.tasks), threads)
        };
        (self.0.interrupt)();
        threads.iter().for_each(Thread::unpark);
        // Each is handed to `ready` once more, which drops it.
        drop(tasks);
        let left = {
            let mut state = self.0.lock();
            std::mem::take(&mut state.queue)
        };
        drop(left);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a broken queue: nothing after it could be trusted.
        self.state.lock().unwrap_or_else(|_: PoisonError<_>| std::process::abort())
    }

    fn now(&self) -> Nanos {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn set_share(&self, key: Key, share: Share) {
        self.lock().queue.set_share(key, share);
    }

    /// Somebody woke a guest, or it yielded.
    fn ready(&self, ready: Ready) {
        let key = ready.metadata().key;
        let mut state = self.lock();
        if state.ended {
            drop(state);
            // Outside of the lock: what it drops may wake others.
            drop(ready);
            return;
        }
        let now = self.now();
        let arrival = state.queue.ready(key, ready, now);
        self.find_worker(state, arrival, now);
    }

    fn hurry(&self, key: Key) {
        let mut state = self.lock();
        let now = self.now();
        let arrival = state.queue.hurry(key);
        self.find_worker(state, arrival, now);
    }

    /// Wakes who should serve the one that arrived, or asks those who compute to make room.
    fn find_worker(&self, mut state: MutexGuard<'_, State>, arrival: Option<queue::Arrival>, now: Nanos) {
        let Some(arrival) = arrival else { return };
        let idle = state.idle(arrival.quick);
        let interrupt =
            idle.is_none() && arrival.interrupts && now.saturating_sub(state.interrupted) >= INTERRUPTS_APART;
        if interrupt {
            state.interrupted = now;
        }
        drop(state);
        if let Some(thread) = idle {
            thread.unpark();
        } else if interrupt {
            (self.interrupt)();
        }
    }

    fn wake_idle(&self, mut state: MutexGuard<'_, State>, quick: bool) {
        let idle = state.idle(quick);
        drop(state);
        if let Some(thread) = idle {
            thread.unpark();
        }
    }
}

impl State {
    /// One that sleeps and serves who is quick, or everybody; it counts as woken.
    fn idle(&mut self, quick: bool) -> Option<Thread> {
        // Last comes the one that serves only the quick, of another priority: for them it is the first choice.
        let worker =
            self.workers.iter_mut().rev().find(|w| w.at == At::Asleep && (quick || w.serves == Serves::All))?;
        worker.at = At::Looking;
        Some(worker.thread.clone())
    }
}

#[cfg(test)]
mod tests;
