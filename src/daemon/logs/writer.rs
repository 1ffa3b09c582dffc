//! The thread that writes the files of all logs, and what it has still to do.
//!
//! A log that has something to write stands here once, with the moment it is due: soon, so that pieces of a line and lines of
//! a burst are written together; at once, when it has much or somebody waits for it.

use super::Log;
use super::lock;
use super::ring::Ring;
use crate::config::fixed::CLOSE;
use crate::model::instance::InstanceId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what is printed may stay in memory for more to come.
pub(super) const LINGER: Duration = Duration::from_millis(10);

/// Behind its last work the thread goes on looking each [`LINGER`] for a while: to be woken for each line that is not due yet
/// would cost more than to write it.
const LOOKS: u32 = 10;

/// What the thread has to do.
#[derive(Default)]
pub(super) struct Work {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    /// Bytes that all guests printed, and how many of them came too fast to be kept.
    pub(super) printed: AtomicU64,
    pub(super) skipped: AtomicU64,
}

#[derive(Default)]
struct Jobs {
    logs: BTreeMap<(Instant, InstanceId), Arc<Log>>,
    removals: VecDeque<Arc<Mutex<Ring>>>,
    /// When the thread looks again by itself. `None`: not before it is woken.
    looks_at: Option<Instant>,
    /// How often it still does that.
    looks: u32,
    /// No more is wanted than what is here.
    closing: bool,
    /// The thread is gone.
    ended: bool,
}

/// What it does next.
struct Job {
    log: Option<Arc<Log>>,
    removal: Option<Arc<Mutex<Ring>>>,
}

impl Work {
    /// Has the log written at `due`; `before`: it stands here for a later moment, or the thread is about to come to it. False:
    /// nothing is written any more.
    pub(super) fn schedule(&self, log: Arc<Log>, before: Option<Instant>, due: Instant) -> bool {
        let mut jobs = lock(&self.jobs);
        if jobs.ended {
            return false;
        }
        let id = log.id;
        if before.is_some_and(|before| jobs.logs.remove(&(before, id)).is_none()) {
            return true;
        }
        jobs.logs.insert((due, id), log);
        let is_late = jobs.looks_at.is_none_or(|at| due < at);
        drop(jobs);
        if is_late {
            self.changed.notify_all();
        }
        true
    }

    /// Has the files of a log removed.
    pub(super) fn remove(&self, ring: Arc<Mutex<Ring>>) {
        // After the end of the thread they stay; a later start finds that nobody knows them.
        lock(&self.jobs).removals.push_back(ring);
        self.changed.notify_all();
    }

    /// Has the rest done, and waits for it, but not for a disk that hangs.
    pub(super) fn close(&self) {
        let mut jobs = lock(&self.jobs);
        if std::mem::replace(&mut jobs.closing, true) {
            return;
        }
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(jobs, CLOSE, |jobs| !jobs.ended);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            tracing::warn!("the end of the logs is not written: the disk takes too long");
        }
    }

    /// Waits for something to do. One removal at a time, so that many of them hold up no log. `None`: all is done.
    fn next(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        loop {
            let now = Instant::now();
            let mut wait = jobs.logs.first_key_value().map(|((due, _), _)| due.saturating_duration_since(now));
            let is_due = wait.is_some_and(|wait| wait.is_zero() || jobs.closing);
            let log = if is_due { jobs.logs.pop_first().map(|(_, log)| log) } else { None };
            let removal = jobs.removals.pop_front();
            if log.is_some() || removal.is_some() {
                jobs.looks = LOOKS;
                return Some(Job { log, removal });
            }
            if jobs.closing {
                return None;
            }
            if wait.is_none() && jobs.looks > 0 {
                jobs.looks -= 1;
                wait = Some(LINGER);
            }
            jobs.looks_at = wait.map(|wait| now + wait);
            jobs = match wait {
                Some(wait) => self.changed.wait_timeout(jobs, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Whose turn is next.
    #[cfg(test)]
    pub(super) fn first(&self) -> Option<InstanceId> {
        lock(&self.jobs).logs.first_key_value().map(|((_, id), _)| *id)
    }

    /// The thread.
    pub(super) fn run(&self) {
        let _end = End(self);
        let mut buffer = Vec::new();
        while let Some(Job { log, removal }) = self.next() {
            if let Some(log) = log {
                log.flush(&mut buffer);
            }
            if let Some(ring) = removal {
                lock(&ring).remove();
            }
        }
    }
}

/// Tells that the thread is gone, however it went.
struct End<'a>(&'a Work);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut jobs = lock(&self.0.jobs);
        jobs.ended = true;
        let left = std::mem::take(&mut jobs.logs);
        drop(jobs);
        self.0.changed.notify_all();
        left.into_values().for_each(|log| log.close());
    }
}
