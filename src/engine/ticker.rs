//! The clock of pre-emption: an OS thread that advances the engines' epochs while guest code runs, and sleeps while none does.
//!
//! A timer of the guests' runtime would starve behind the very guests that it should interrupt.

use crate::config::fixed;
use pin_project_lite::pin_project;
use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::thread::{self, Thread};
use wasmtime::EngineWeak;

/// Ticks without a guest before the thread goes to sleep: waking it costs a system call, so not after each short run.
const IDLE_TICKS: u32 = 100;

struct Shared {
    /// Whose epochs are advanced: all at each tick.
    engines: Vec<EngineWeak>,
    /// Guests that are being polled right now.
    polled: AtomicUsize,
    /// Ticks so far.
    ticks: AtomicU64,
    /// Those of them that end every turn, however short it was.
    interrupts: AtomicU64,
    asleep: AtomicBool,
    ended: AtomicBool,
}

/// What this thread is polling.
#[derive(Clone, Copy)]
struct Turn {
    /// Ticks and interrupts when it began.
    begun: u64,
    interrupts: u64,
    /// Whether the guest yielded because of a tick, and not because it waits for something.
    computed: bool,
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn { begun: 0, interrupts: 0, computed: false }) };
    static TURN_TICKS: Cell<u64> = const { Cell::new(fixed::TURN_TICKS) };
    static STEPS_BACK: Cell<bool> = const { Cell::new(false) };
}

/// How long guests may compute on this thread at a time.
pub fn set_turn_ticks(ticks: u64) {
    TURN_TICKS.set(ticks);
}

/// Has guests that compute on this thread offer the processor to other threads at each tick (sched_yield(2)).
///
/// A thread of low priority makes way for whoever wakes up, but not always at once: Linux's EEVDF passes over one that has just
/// had a few microseconds more than its share, and looks again at the kernel's next tick, up to 4 ms later.
pub fn step_back_at_ticks() {
    STEPS_BACK.set(true);
}

impl Shared {
    /// False: no engine is left.
    fn tick(&self) -> bool {
        // Counted first: a guest that is asked at this tick must not take it for an earlier one.
        self.ticks.fetch_add(1, SeqCst);
        let engines = self.engines.iter().filter_map(EngineWeak::upgrade);
        engines.inspect(wasmtime::Engine::increment_epoch).count() > 0
    }

    fn turn(&self) -> Turn {
        Turn { begun: self.ticks.load(SeqCst), interrupts: self.interrupts.load(SeqCst), computed: false }
    }
}

/// Knows whether a turn is over.
#[derive(Clone)]
pub(super) struct Turns(Arc<Shared>);

impl Turns {
    /// Asked by a guest at a tick: whether it should yield. A guest that has waited finds all the ticks that it missed, and is
    /// at the beginning of its turn all the same.
    pub(super) fn is_over(&self) -> bool {
        if STEPS_BACK.get() {
            thread::yield_now();
        }
        let turn = TURN.get();
        let now = self.0.turn();
        let over = now.interrupts != turn.interrupts || now.begun - turn.begun >= TURN_TICKS.get();
        TURN.set(Turn { computed: over, ..turn });
        over
    }
}

/// Handle of the ticker thread, which ends with it (or with the engine, whichever is first).
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Ticker {
    /// `ticks`: whether the thread ticks at all.
    pub(super) fn start(engines: Vec<EngineWeak>, ticks: bool) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared {
            engines,
            polled: AtomicUsize::new(0),
            ticks: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let stands_still = move |shared: &Shared| {
            while !shared.ended.load(SeqCst) {
                thread::park();
            }
        };
        let run = move || if ticks { tick(&theirs) } else { stands_still(&theirs) };
        let handle = thread::Builder::new().name("ticker".into()).spawn(run)?;
        Ok(Ticker { shared, thread: handle.thread().clone() })
    }

    pub(super) fn paced<F: Future>(&self, future: F) -> Paced<F> {
        Paced { future, computed: false, shared: Arc::clone(&self.shared), thread: self.thread.clone() }
    }

    pub(super) fn turns(&self) -> Turns {
        Turns(Arc::clone(&self.shared))
    }

    pub(super) fn interrupt(&self) {
        self.shared.interrupts.fetch_add(1, SeqCst);
        self.shared.tick();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.thread.unpark();
    }
}

fn tick(shared: &Shared) {
    let mut idle = 0;
    while !shared.ended.load(SeqCst) {
        if idle < IDLE_TICKS {
            thread::park_timeout(fixed::TICK);
        } else {
            // Announce the sleep before the last look, so that a guest that begins in between sees it and wakes us.
            shared.asleep.store(true, SeqCst);
            if shared.polled.load(SeqCst) == 0 && !shared.ended.load(SeqCst) {
                thread::park();
            }
            shared.asleep.store(false, SeqCst);
            idle = 0;
            continue;
        }
        if shared.polled.load(SeqCst) == 0 {
            idle += 1;
            continue;
        }
        idle = 0;
        if !shared.tick() {
            return;
        }
    }
}

pin_project! {
    /// A guest's future: the ticker runs while it is polled.
    pub struct Paced<F> {
        #[pin]
        future: F,
        computed: bool,
        shared: Arc<Shared>,
        thread: Thread,
    }
}

impl<F> Paced<F> {
    /// Whether it was computing when it was left last, and not waiting for something.
    pub fn was_computing(&self) -> bool {
        self.computed
    }
}

impl<F: Future> Future for Paced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        /// Counts down also when the guest's host code panics.
        struct Polled<'a>(&'a AtomicUsize);
        impl Drop for Polled<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        let this = self.project();
        this.shared.polled.fetch_add(1, SeqCst);
        let _polled = Polled(&this.shared.polled);
        if this.shared.asleep.load(SeqCst) {
            this.thread.unpark();
        }
        TURN.set(this.shared.turn());
        let polled = this.future.poll(cx);
        *this.computed = TURN.get().computed;
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_stands_still_while_nobody_computes() {
        let engine = super::super::Engine::new(100_000).unwrap();
        let wait_asleep = || {
            while !engine.ticker.shared.asleep.load(SeqCst) {
                thread::yield_now();
            }
        };
        wait_asleep();
        // A guest of half a second of pure computing is given ticks, and then it is quiet again.
        let text = "(module (memory (export \"memory\") 1)
            (func (export \"_start\") (local $i i32)
              (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $l (i32.lt_u (local.get $i) (i32.const 100000000))))))";
        let program = super::super::tests::program(&engine, text.as_bytes(), true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sandbox = crate::engine::sandbox::tests::bare();
        let mut polls = 0;
        let guest = engine.paced(super::super::run(&engine, &program, sandbox));
        let mut guest = std::pin::pin!(guest);
        let ended = runtime.block_on(std::future::poll_fn(|cx| {
            polls += 1;
            guest.as_mut().poll(cx)
        }));
        assert_eq!(ended.status.exit_code(), 0, "{ended:?}");
        assert!(polls > 1, "the guest computed through without a single tick");
        wait_asleep();
    }
}
