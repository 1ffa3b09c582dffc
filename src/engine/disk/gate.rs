//! How many calls of guests work on files at a time.
//!
//! The threads that may block are many, because one that hangs must hold up nobody. But most calls find everything in memory, and
//! then those threads compute: a hundred guests that list directories would have a hundred of them compete with whoever
//! answers, and whoever holds a lock among them would wait for all the others. So there are few places, and who has had one
//! for long, because a disk is slow or a server hangs, loses it to whoever waits, and goes on without.

use crate::config::fixed::FILE_CALL_LATE;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Instant;
use tokio::sync::Semaphore;

/// One for all instances.
#[derive(Debug)]
pub(in crate::engine) struct Gate {
    places: Semaphore,
    taken: Mutex<Vec<Arc<Place>>>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    /// Somebody else has it.
    left: AtomicBool,
}

/// A place in the gate. Left when it is dropped.
pub(super) struct Turn {
    gate: Arc<Gate>,
    place: Arc<Place>,
}

impl Gate {
    pub(in crate::engine) fn new(places: usize) -> Gate {
        Gate { places: Semaphore::new(places.max(1)), taken: Mutex::default() }
    }

    /// Waits for a place: in the order of those who came, and not for those who have had theirs for long.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn enter(self: &Arc<Gate>) -> Turn {
        if let Some(turn) = self.try_enter() {
            return turn;
        }
        let mut free = pin!(self.places.acquire());
        loop {
            match tokio::time::timeout(FILE_CALL_LATE, free.as_mut()).await {
                Ok(place) => {
                    place.expect("it is never closed").forget();
                    return self.turn();
                }
                Err(_) => self.take_from_late(),
            }
        }
    }

    /// A place, if there is one and nobody waits.
    pub(super) fn try_enter(self: &Arc<Gate>) -> Option<Turn> {
        self.places.try_acquire().ok()?.forget();
        Some(self.turn())
    }

    /// Makes a call that has one thing done by a thread that may block. Its place is left as soon as that is done, not when the
    /// guest has its next turn; what the call may have done after it is done without one. Nothing of it begins before it is
    /// polled.
    ///
    /// # Cancel safety
    ///
    /// As that of the call.
    pub(super) async fn pass<F: Future>(self: &Arc<Gate>, call: F) -> F::Output {
        let turn = Arc::new(self.enter().await);
        let mut call = pin!(call);
        poll_fn(|cx| {
            let done = Done { turn: Arc::clone(&turn), waker: cx.waker().clone() };
            call.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(done))))
        })
        .await
    }

    fn turn(self: &Arc<Gate>) -> Turn {
        let place = Arc::new(Place { since: Instant::now(), left: AtomicBool::new(false) });
        self.lock().push(Arc::clone(&place));
        Turn { gate: Arc::clone(self), place }
    }

    fn take_from_late(&self) {
        let late: Vec<_> = self.lock().extract_if(.., |place| place.since.elapsed() >= FILE_CALL_LATE).collect();
        for place in late {
            self.leave(&place);
        }
    }

    fn leave(&self, place: &Place) {
        // By whoever has it or by whoever takes it away, not by both.
        if !place.left.swap(true, AcqRel) {
            self.places.add_permits(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        // A list that no statement leaves half changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn end(&self) {
        self.gate.lock().retain(|place| !Arc::ptr_eq(place, &self.place));
        self.gate.leave(&self.place);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end();
    }
}

/// Leaves the place, and wakes the guest.
struct Done {
    turn: Arc<Turn>,
    waker: Waker,
}

impl Wake for Done {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.turn.end();
        self.waker.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::mpsc;
    use tokio::task::{JoinSet, spawn_blocking};

    fn free(gate: &Gate) -> usize {
        gate.places.available_permits()
    }

    fn waits(future: Pin<&mut impl Future>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_are_at_work_than_there_are_places() {
        let gate = Arc::new(Gate::new(3));
        let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut calls = JoinSet::new();
        for _ in 0..50 {
            let (gate, busy, most) = (Arc::clone(&gate), Arc::clone(&busy), Arc::clone(&most));
            calls.spawn(async move {
                for _ in 0..20 {
                    let (busy, most) = (Arc::clone(&busy), Arc::clone(&most));
                    let work = move || {
                        most.fetch_max(busy.fetch_add(1, Relaxed) + 1, Relaxed);
                        std::thread::yield_now();
                        busy.fetch_sub(1, Relaxed);
                    };
                    gate.pass(async { spawn_blocking(work).await.unwrap() }).await;
                }
            });
        }
        calls.join_all().await;
        let most = most.load(Relaxed);
        // One more for each that lost its place on a slow machine; without places it would be fifty.
        assert!((2..10).contains(&most), "{most}");
        assert_eq!((free(&gate), gate.lock().len()), (3, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_hangs_holds_up_the_others_once() {
        let gate = Arc::new(Gate::new(1));
        let (release, released) = mpsc::channel::<()>();
        let mut hangs = JoinSet::new();
        let theirs = Arc::clone(&gate);
        hangs.spawn(async move { theirs.pass(async { spawn_blocking(move || released.recv()).await }).await });
        while free(&gate) > 0 {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        gate.pass(async { spawn_blocking(|| ()).await.unwrap() }).await;
        assert!(begun.elapsed() >= FILE_CALL_LATE, "{:?}", begun.elapsed());
        // The place is not that one's any more.
        assert_eq!((free(&gate), gate.lock().len()), (1, 0));
        gate.try_enter().unwrap();
        release.send(()).unwrap();
        hangs.join_next().await.unwrap().unwrap().unwrap().unwrap();
        assert_eq!((free(&gate), gate.lock().len()), (1, 0), "and it does not give it back once more");
    }

    #[tokio::test]
    async fn a_place_is_left_when_the_work_is_done_and_not_when_somebody_looks() {
        let gate = Arc::new(Gate::new(1));
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        let mut call = pin!(gate.pass(is_done));
        assert!(waits(call.as_mut()));
        assert_eq!(free(&gate), 0);
        done.send(()).unwrap();
        assert_eq!(free(&gate), 1);
        call.await.unwrap();
        assert_eq!(free(&gate), 1);
        // Neither a call that is dropped keeps it, nor who waits and gives up.
        let turn = gate.try_enter().unwrap();
        assert!(waits(pin!(gate.enter())));
        drop(turn);
        assert_eq!((free(&gate), gate.lock().len()), (1, 0));
        assert!(waits(pin!(gate.pass(std::future::pending::<()>()))));
        assert_eq!((free(&gate), gate.lock().len()), (1, 0));
    }
}
