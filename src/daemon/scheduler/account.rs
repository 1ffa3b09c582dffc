//! What one guest has used of the processors, and what makes it first in the queue.

use super::Shared;
use super::queue::Key;
use super::workers;
use crate::model::instance::Share;
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// The CPU time of one guest, in its present run. It is made by the scheduler and lives as long as anybody looks at it.
pub(in crate::daemon) struct Account {
    pub(super) key: Key,
    shared: Weak<Shared>,
    /// Nanoseconds.
    used: AtomicU64,
    /// And of all guests, with those that are gone.
    used_by_all: Arc<AtomicU64>,
    /// Nanoseconds; `u64::MAX` is no limit.
    limit: AtomicU64,
    over: Notify,
}

impl Account {
    pub(super) fn new(key: Key, shared: &Arc<Shared>) -> Account {
        Account {
            key,
            shared: Arc::downgrade(shared),
            used: AtomicU64::new(0),
            used_by_all: Arc::clone(&shared.used),
            limit: AtomicU64::new(u64::MAX),
            over: Notify::new(),
        }
    }

    /// A run begins: nothing is used, and this is what it may use. It has no privilege any more.
    pub(in crate::daemon) fn begin(&self, share: Share, cpu_time: Option<Duration>) {
        let limit = cpu_time.map_or(u64::MAX, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.used.store(0, Relaxed);
        self.limit.store(limit, Relaxed);
        if let Some(shared) = self.shared.upgrade() {
            shared.set_share(self.key, share);
        }
    }

    /// CPU time of the threads that ran it, until its last turn.
    pub(in crate::daemon) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Relaxed))
    }

    /// As [`Account::used`], with the present turn; for whoever is polled in it.
    pub(in crate::daemon) fn used_by_now(&self) -> Duration {
        self.used() + workers::cpu_of_turn()
    }

    /// From now on, and until the next run begins, it goes before all others: what is left to do is short.
    pub(in crate::daemon) fn hurry(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.hurry(self.key);
        }
    }

    /// Returns when the run has used more CPU time than it may.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(in crate::daemon) async fn exhausted(&self) {
        loop {
            let mut over = std::pin::pin!(self.over.notified());
            // Listen before looking, or a turn that ends in between would be missed.
            over.as_mut().enable();
            if self.is_over() {
                return;
            }
            over.await;
        }
    }

    fn is_over(&self) -> bool {
        self.used.load(Relaxed) > self.limit.load(Relaxed)
    }

    /// After each turn. Says whether it has to end.
    pub(super) fn charge(&self, cpu_ns: u64) -> bool {
        // One thread at a time has a guest.
        self.used.fetch_add(cpu_ns, Relaxed);
        self.used_by_all.fetch_add(cpu_ns, Relaxed);
        let over = self.is_over();
        if over {
            self.over.notify_waiters();
        }
        over
    }

    /// Whatever wakes `future` makes this guest first in the queue. For what should end it: it is polled in the guest's own
    /// turns, and one that computes has to wait for them.
    pub(in crate::daemon) fn urgent<F: Future>(self: &Arc<Self>, future: F) -> Urgent<F> {
        Urgent { future, account: Arc::clone(self), waker: None }
    }
}

pin_project! {
    /// [`Account::urgent`].
    pub(in crate::daemon) struct Urgent<F> {
        #[pin]
        future: F,
        account: Arc<Account>,
        // The waker that was made, and the one that it was made of.
        waker: Option<(Waker, Waker)>,
    }
}

struct Hurried {
    account: Arc<Account>,
    waker: Waker,
}

impl Wake for Hurried {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.account.hurry();
        self.waker.wake_by_ref();
    }
}

impl<F: Future> Future for Urgent<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if !this.waker.as_ref().is_some_and(|(_, of)| of.will_wake(cx.waker())) {
            let hurried = Hurried { account: Arc::clone(this.account), waker: cx.waker().clone() };
            *this.waker = Some((Arc::new(hurried).into(), cx.waker().clone()));
        }
        let (waker, _) = this.waker.as_ref().expect("it was just made");
        this.future.poll(&mut Context::from_waker(waker))
    }
}
