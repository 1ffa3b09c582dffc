//! The threads: each takes a guest from the queue, polls it for a turn, and charges it.

use super::queue::{Lane, Serves};
use super::{At, Shared, Worker};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;

/// Starts one more thread that serves.
pub(super) fn start(
    shared: &Arc<Shared>,
    serves: Serves,
    runtime: Handle,
    prepare: Arc<impl Fn(Serves) + Send + Sync + 'static>,
) -> std::io::Result<()> {
    let name = match serves {
        Serves::All | Serves::AllButOne => "guest",
        Serves::Quick => "guest-quick",
    };
    let theirs = Arc::clone(shared);
    // It looks at the queue before it sleeps, so it may begin before it is known; its number is.
    let mut state = shared.lock();
    let number = state.workers.len();
    let handle = thread::Builder::new().name(name.into()).spawn(move || {
        prepare(serves);
        // Timers and files of guests are this runtime's; no guest runs on its thread.
        let _entered = runtime.enter();
        serve(&theirs, number, serves);
    })?;
    state.workers.push(Worker { thread: handle.thread().clone(), serves, at: At::Looking });
    Ok(())
}

thread_local! {
    /// This thread's CPU time when its present turn began.
    static TURN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// CPU time of the present turn; for whoever is polled in it.
pub(super) fn cpu_of_turn() -> Duration {
    cpu_time().saturating_sub(TURN.get())
}

fn serve(shared: &Shared, number: usize, serves: Serves) {
    loop {
        let mut state = shared.lock();
        if state.ended {
            return;
        }
        let now = shared.now();
        // Where others compete for the processors, what is quick is done sooner at the priority of the thread that serves
        // nothing else; it will look soon, unless it is held up.
        let left =
            serves == Serves::All && state.workers.iter().any(|w| w.serves == Serves::Quick && w.looks_soon(now));
        let picked = match left {
            true => state.queue.pick(Serves::AllButOne, now).or_else(|| state.queue.pick(Serves::All, now)),
            false => state.queue.pick(serves, now),
        };
        let Some((key, ready)) = picked else {
            let release = state.queue.next_release();
            state.workers[number].at = At::Asleep;
            drop(state);
            match release {
                Some(at) => thread::park_timeout(Duration::from_nanos(at.saturating_sub(now))),
                None => thread::park(),
            }
            // Woken for somebody, or for the time: it looks in any case.
            shared.lock().workers[number].at = At::Looking;
            continue;
        };
        state.workers[number].at = At::Busy { since: now };
        // Whoever sleeps was the only one to look when there was nobody, and there may be more by now.
        if let Some(quick) = state.queue.next() {
            shared.wake_idle(state, quick);
        } else {
            drop(state);
        }
        let account = Arc::clone(ready.metadata());
        TURN.set(cpu_time());
        // A panic in one guest's task ends that guest: its future is dropped, and with it the guard that reports the end.
        let panicked = catch_unwind(AssertUnwindSafe(|| ready.run())).is_err();
        let cpu = u64::try_from(cpu_of_turn().as_nanos()).unwrap_or(u64::MAX);
        if panicked {
            tracing::error!("the task of an instance panicked");
        }
        let over = account.charge(cpu);
        let mut state = shared.lock();
        state.workers[number].at = At::Looking;
        let now = shared.now();
        if over {
            state.queue.hurry(key);
        }
        let arrival = state.queue.turn_over(key, cpu, now);
        let task = match state.tasks.get(&key) {
            Some(task) if task.is_finished() => state.tasks.remove(&key),
            _ => None,
        };
        let left = task.is_some().then(|| state.queue.remove(key)).flatten();
        match arrival {
            // Somebody has to know when it may go on.
            Some(arrival) if arrival.lane == Lane::Held || serves == Serves::Quick => {
                shared.wake_idle(state, arrival.quick);
            }
            _ => drop(state),
        }
        // Outside of the lock: what they drop may wake others.
        drop((task, left));
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    #[cfg(unix)]
    {
        // clock_gettime(2), CLOCK_THREAD_CPUTIME_ID.
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }
    #[cfg(not(unix))]
    {
        // In steps of a scheduler's tick, as GetThreadTimes counts; right on average.
        cpu_time::ThreadTime::now().as_duration()
    }
}
