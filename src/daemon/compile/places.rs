//! Who may compile now. There is a quick place for each processor, and a few slow ones beside them.
//!
//! ```text
//! waiting, the smallest first ──► quick ──(longer than a moment, and others wait)──► slow, if one is free
//!                                                          └──► begun again, when a slow one is free
//! ```
//!
//! So nobody waits behind a compilation for longer than a moment, whatever it compiles, and the number of compilers is
//! bounded, and with it their memory.

use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// Of so many that begin, one is who has waited longest, however large its module is.
const OLDEST_EVERY: u64 = 4;

/// Gives out places. A cheap handle; clones share everything.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// How many wait for a quick place that nobody makes for them yet.
    pressed: watch::Sender<usize>,
}

struct Queue {
    quick_free: usize,
    slow_free: usize,
    waiting_max: usize,
    /// In the order of arrival.
    quick: Vec<Waiting>,
    slow: VecDeque<Waiting>,
    begun: u64,
    /// Quick places that are about to be given back for those who wait.
    leaving: usize,
}

struct Waiting {
    bytes: u64,
    turn: oneshot::Sender<Place>,
    /// Told the place in the queue, 1 for the next, whenever it changes.
    told: Box<dyn Fn(usize) + Send>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quick,
    /// Quick, and to be given back for those who wait.
    Leaving,
    Slow,
}

/// The right to run one compiler; given back when it is dropped.
pub(super) struct Place {
    kind: Kind,
    /// `None` once it was given on.
    shared: Option<Arc<Shared>>,
}

/// What who has taken its time has to do.
pub(super) enum Step {
    /// Go on: it is in a slow place now, and is not asked again.
    Slow,
    /// Go on: nobody waits any more.
    Stay,
    /// Make room, and wait for a slow place.
    Leave,
}

impl Places {
    /// So many places, and at most `waiting_max` who wait for one.
    pub(super) fn new(quick: usize, slow: usize, waiting_max: usize) -> Places {
        let queue = Queue {
            quick_free: quick,
            slow_free: slow,
            waiting_max,
            quick: vec![],
            slow: VecDeque::new(),
            begun: 0,
            leaving: 0,
        };
        Places(Arc::new(Shared { queue: Mutex::new(queue), pressed: watch::Sender::new(0) }))
    }

    /// A quick place for a module of `bytes` bytes. `told` hears the place in the queue, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if too many wait.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the turn goes to the next.
    pub(super) async fn quick(&self, bytes: u64, told: impl Fn(usize) + Send + 'static) -> Result<Place> {
        let turn = {
            let mut queue = self.0.lock();
            if queue.quick_free > 0 {
                queue.quick_free -= 1;
                return Ok(self.place(Kind::Quick));
            }
            let max = queue.waiting_max;
            if queue.waiting() >= max {
                return Err(Error::Limit {
                    what: "the number of modules that wait to be compiled",
                    limit: max.to_string(),
                    name: "--compile-queue",
                });
            }
            let (turn, waited) = oneshot::channel();
            queue.quick.push(Waiting { bytes, turn, told: Box::new(told) });
            self.0.changed(&queue);
            waited
        };
        turn.await.map_err(|_| Error::ShuttingDown)
    }

    /// A slow place, in the order of asking. Not refused: who asks was let in before.
    ///
    /// # Errors
    ///
    /// [`Error::ShuttingDown`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn slow(&self, told: impl Fn(usize) + Send + 'static) -> Result<Place> {
        let turn = {
            let mut queue = self.0.lock();
            if queue.slow_free > 0 {
                queue.slow_free -= 1;
                return Ok(self.place(Kind::Slow));
            }
            let (turn, waited) = oneshot::channel();
            queue.slow.push_back(Waiting { bytes: 0, turn, told: Box::new(told) });
            self.0.changed(&queue);
            waited
        };
        turn.await.map_err(|_| Error::ShuttingDown)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.lock().waiting()
    }

    /// Returns when somebody waits for a quick place.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn pressed(&self) {
        let mut pressed = self.0.pressed.subscribe();
        let is = pressed.wait_for(|waiting| *waiting > 0).await;
        assert!(is.is_ok(), "the sender is in the same place as we");
    }

    /// Makes room for who waits, by moving to a slow place or by having to leave.
    pub(super) fn make_room(&self, place: &mut Place) -> Step {
        let mut queue = self.0.lock();
        if queue.unserved() == 0 {
            return Step::Stay;
        }
        if queue.slow_free > 0 {
            queue.slow_free -= 1;
            place.kind = Kind::Slow;
            self.0.give(&mut queue, Kind::Quick);
            return Step::Slow;
        }
        queue.leaving += 1;
        place.kind = Kind::Leaving;
        self.0.changed(&queue);
        Step::Leave
    }

    fn place(&self, kind: Kind) -> Place {
        Place { kind, shared: Some(Arc::clone(&self.0)) }
    }
}

impl Queue {
    fn waiting(&self) -> usize {
        self.quick.len() + self.slow.len()
    }

    /// How many wait for a quick place that nobody makes for them yet.
    fn unserved(&self) -> usize {
        self.quick.len().saturating_sub(self.leaving)
    }

    /// Who waits for a quick place, in the order of their turns.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.quick.len()).collect();
        order.sort_by_key(|i| self.quick[*i].bytes);
        order
    }

    fn next(&mut self, kind: Kind) -> Option<Waiting> {
        if kind == Kind::Slow {
            return self.slow.pop_front();
        }
        let smallest = *self.order().first()?;
        self.begun += 1;
        Some(self.quick.remove(if self.begun.is_multiple_of(OLDEST_EVERY) { 0 } else { smallest }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Counts that a panic in between leaves whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a free place to who is next.
    fn give(self: &Arc<Shared>, queue: &mut Queue, kind: Kind) {
        let mut place = Place { kind, shared: Some(Arc::clone(self)) };
        loop {
            let Some(next) = queue.next(kind) else {
                // Not given back once more when it is dropped here.
                place.shared = None;
                match kind {
                    Kind::Slow => queue.slow_free += 1,
                    Kind::Quick | Kind::Leaving => queue.quick_free += 1,
                }
                break;
            };
            match next.turn.send(place) {
                Ok(()) => break,
                Err(back) => place = back,
            }
        }
        self.changed(queue);
    }

    fn changed(&self, queue: &Queue) {
        for (place, index) in queue.order().into_iter().enumerate() {
            (queue.quick[index].told)(place + 1);
        }
        for (place, waiting) in queue.slow.iter().enumerate() {
            (waiting.told)(place + 1);
        }
        self.pressed.send_replace(queue.unserved());
    }
}

impl Place {
    /// Whether it may be kept to the end.
    pub(super) fn is_slow(&self) -> bool {
        self.kind == Kind::Slow
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let mut queue = shared.lock();
        let kind = match self.kind {
            Kind::Leaving => {
                queue.leaving -= 1;
                Kind::Quick
            }
            kind => kind,
        };
        shared.give(&mut queue, kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::task::JoinHandle;

    #[expect(clippy::disallowed_methods, reason = "awaited or aborted by the test")]
    fn wait(places: &Places, bytes: u64) -> (JoinHandle<Result<Place>>, Arc<AtomicUsize>) {
        let told = Arc::new(AtomicUsize::new(0));
        let (places, heard) = (places.clone(), Arc::clone(&told));
        let turn = tokio::spawn(async move { places.quick(bytes, move |n| heard.store(n, Ordering::Relaxed)).await });
        (turn, told)
    }

    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_smallest_is_next_and_the_oldest_is_not_forgotten() {
        let places = Places::new(1, 1, 8);
        let mut place = places.quick(1, |_| ()).await.unwrap();
        let (large, large_told) = wait(&places, 1000);
        settle().await;
        let small: Vec<_> = (1..=4).map(|bytes| wait(&places, bytes)).collect();
        settle().await;
        assert_eq!(large_told.load(Ordering::Relaxed), 5);
        assert_eq!(small[3].1.load(Ordering::Relaxed), 4);
        for (turn, _) in small.into_iter().take(3) {
            drop(place);
            place = turn.await.unwrap().unwrap();
        }
        assert_eq!(large_told.load(Ordering::Relaxed), 2);
        drop(place);
        assert!(large.await.unwrap().is_ok(), "the fourth turn is that of the oldest");
    }

    #[tokio::test]
    async fn too_many_are_refused_and_who_gives_up_is_passed_over() {
        let places = Places::new(1, 1, 2);
        let place = places.quick(1, |_| ()).await.unwrap();
        let (first, _) = wait(&places, 1);
        let (second, told) = wait(&places, 2);
        settle().await;
        let refused = places.quick(0, |_| ()).await.err().unwrap();
        assert!(refused.to_string().contains("limited to 2 (--compile-queue)"), "{refused}");
        assert_eq!(told.load(Ordering::Relaxed), 2);
        first.abort();
        assert!(first.await.is_err());
        drop(place);
        drop(second.await.unwrap().unwrap());
        assert_eq!(places.0.lock().quick_free, 1);
    }

    #[tokio::test]
    async fn who_takes_long_makes_room_for_as_many_as_wait() {
        let places = Places::new(2, 1, 8);
        let mut long = [places.quick(1, |_| ()).await.unwrap(), places.quick(1, |_| ()).await.unwrap()];
        assert!(matches!(places.make_room(&mut long[0]), Step::Stay), "nobody waits");
        let (first, _) = wait(&places, 1);
        places.pressed().await;
        assert!(matches!(places.make_room(&mut long[0]), Step::Slow));
        let first = first.await.unwrap().unwrap();
        assert!(matches!(places.make_room(&mut long[1]), Step::Stay), "one was enough");
        let (second, _) = wait(&places, 1);
        places.pressed().await;
        assert!(matches!(places.make_room(&mut long[1]), Step::Leave), "no slow place is free");
        let mut first = first;
        assert!(matches!(places.make_room(&mut first), Step::Stay), "somebody leaves already");
        let [in_slow, leaving] = long;
        drop(leaving);
        drop(second.await.unwrap().unwrap());
        drop(first);
        drop(in_slow);
        let queue = places.0.lock();
        assert_eq!((queue.quick_free, queue.slow_free, queue.leaving), (2, 1, 0), "all came back");
    }
}
