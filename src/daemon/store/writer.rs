//! The one thread that writes: changes come in a queue, are committed in groups, and are answered when they are in the file.
//!
//! ```text
//! healthy ──(disk full: the reserve is let go, and the group goes in)──► full ──(the reserve is there again)──► healthy
//!    └────────────────(any other failure, or full without a reserve)──► broken, until the daemon is started again
//! ```
//!
//! Full: what ends is still written down, nothing new is begun. Broken: nothing is written any more, since what a failed
//! sync left behind cannot be known (fsync(2) reports an error once).

use super::{Change, rows};
use crate::config::{Durability, Limits, fixed};
use crate::error::{Error, Result};
use crate::model::event::EventView;
use rusqlite::{Connection, ErrorCode};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot};

/// Events are trimmed when this many more than the limit are there: a little at a time would be a scan each time.
const TRIM_EVERY: u64 = 1000;

/// On a full disk: how often to look whether there is room again.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_millis(500);

/// The log of the database is brought into its file when it has grown to this many pages, after those who wait were
/// answered; SQLite by itself would let them wait for it.
const CHECKPOINT_PAGES: i32 = 1000;

/// A change on its way, and who waits for it.
pub(super) struct Job {
    pub(super) change: Change,
    /// Whether it has to survive a power failure before it is answered.
    pub(super) synced: bool,
    pub(super) done: [Option<oneshot::Sender<Result<()>>>; 2],
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    /// All is well.
    Healthy,
    /// The disk is full; ends are still written down.
    Full,
    /// Nothing is written any more.
    Broken(String),
}

/// What the writer shares with those who ask it.
#[derive(Debug)]
pub(super) struct Shared {
    health: Mutex<Health>,
    /// The newest event that is in the file.
    pub(super) newest: AtomicU64,
    /// Events that are in the file, for followers.
    pub(super) followers: broadcast::Sender<Arc<EventView>>,
    reserve: PathBuf,
}

impl Shared {
    pub(super) fn new(directory: &Path, newest: u64) -> Shared {
        Shared {
            health: Mutex::new(Health::Healthy),
            newest: AtomicU64::new(newest),
            followers: broadcast::Sender::new(fixed::EVENTS_BEHIND_MAX),
            reserve: directory.join("reserve"),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // One enum, replaced whole.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something new may be begun.
    ///
    /// # Errors
    ///
    /// [`Error::StateRefuses`].
    pub(super) fn accepting(&self) -> Result<()> {
        match &*self.health() {
            Health::Healthy => Ok(()),
            Health::Full => Err(Error::StateRefuses("the disk is full; it goes on when there is room again".into())),
            Health::Broken(why) => Err(broken(why)),
        }
    }

    /// Makes sure that there is room for ends on a full disk. False: there is none.
    pub(super) fn fill_reserve(&self) -> bool {
        static CHUNK: [u8; 64 * 1024] = [0; 64 * 1024];
        if self.reserve.metadata().is_ok_and(|m| m.len() >= fixed::RESERVE_BYTES) {
            return true;
        }
        let write = || {
            let mut file = File::create(&self.reserve)?;
            for _ in 0..fixed::RESERVE_BYTES / CHUNK.len() as u64 {
                file.write_all(&CHUNK)?;
            }
            file.sync_all()
        };
        match write() {
            Ok(()) => true,
            Err(e) => {
                tracing::warn!("no room for a reserve in the state directory: {e}");
                self.free_reserve();
                false
            }
        }
    }

    fn free_reserve(&self) -> bool {
        std::fs::remove_file(&self.reserve).is_ok()
    }

    /// For a store that writes nothing.
    pub(super) fn publish(&self, view: EventView) {
        self.newest.store(view.seq, Ordering::Release);
        // Nobody may be listening.
        let _unheard = self.followers.send(Arc::new(view));
    }
}

fn broken(why: &str) -> Error {
    Error::StateRefuses(format!("{why}; free what is in its way and start the daemon again"))
}

/// The thread's own things.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) durability: Durability,
    pub(super) runs_max: usize,
    pub(super) events_max: usize,
    /// Whether the connection syncs each commit now.
    syncing: bool,
    /// When the oldest commit was made that is not synced.
    unsynced_since: Option<Instant>,
    trimmed_at: u64,
    looked_for_room: Instant,
    /// Pages in the log of the database after the last commit.
    log_pages: Arc<AtomicI32>,
}

impl Writer {
    pub(super) fn new(
        mut connection: Connection,
        shared: Arc<Shared>,
        durability: Durability,
        limits: &Limits,
    ) -> rusqlite::Result<Writer> {
        let log_pages = Arc::new(AtomicI32::new(0));
        let pages = Arc::clone(&log_pages);
        // In the place of SQLite's own, which would write the log back within the commit.
        connection.wal_hook(Some(move |_: &mut _, n| {
            pages.store(n, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Writer {
            connection,
            shared,
            durability,
            runs_max: limits.runs_max,
            events_max: limits.events_max,
            syncing: true,
            unsynced_since: None,
            // Trims once soon after each start.
            trimmed_at: 0,
            looked_for_room: Instant::now(),
            log_pages,
        })
    }

    /// Writes until all senders are gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let first = match self.unsynced_since {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                // Half of what is promised: the sync itself takes time.
                Some(since) => jobs.recv_timeout((fixed::SYNC_WITHIN / 2).saturating_sub(since.elapsed())),
            };
            match first {
                Ok(first) => self.group(first, jobs),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.unsynced_since.is_some_and(|since| since.elapsed() >= fixed::SYNC_WITHIN / 2) {
                self.sync();
            }
        }
        self.sync();
        // The last connection that closes writes everything into the database file and removes the log.
        if let Err((_, e)) = self.connection.close() {
            tracing::warn!("closing the state: {e}");
        }
    }

    /// Commits what is waiting, in one transaction.
    fn group(&mut self, first: Job, jobs: &Receiver<Job>) {
        let mut group = vec![first];
        while group.len() < fixed::GROUP_MAX
            && let Ok(next) = jobs.try_recv()
        {
            group.push(next);
        }
        let health = self.shared.health().clone();
        let result = match health {
            Health::Broken(why) => Err(why),
            Health::Healthy | Health::Full => self.commit_or_make_room(&group, health == Health::Full),
        };
        if let Err(why) = &result {
            self.break_down(why);
        }
        for Job { change, done, .. } in group {
            if result.is_ok()
                && let Change::Event { view, .. } = change
            {
                self.shared.publish(*view);
            }
            for done in done.into_iter().flatten() {
                // Whoever asked may have gone.
                let _unheard = done.send(result.clone().map_err(|why| broken(&why)));
            }
        }
        if result.is_ok() {
            self.trim();
            self.checkpoint();
        }
    }

    fn commit_or_make_room(&mut self, group: &[Job], full: bool) -> Result<(), String> {
        let text = |e: rusqlite::Error| e.to_string();
        match self.commit(group) {
            Ok(()) => {
                // Each look writes the whole reserve.
                if full && self.looked_for_room.elapsed() >= LOOK_FOR_ROOM_EVERY {
                    self.looked_for_room = Instant::now();
                    if self.shared.fill_reserve() {
                        tracing::info!("there is room again in the state directory");
                        *self.shared.health() = Health::Healthy;
                    }
                }
                Ok(())
            }
            // What SQLite rolled back for want of room was never said to be there: to try again is honest.
            Err(e) if !full && e.sqlite_error_code() == Some(ErrorCode::DiskFull) && self.shared.free_reserve() => {
                tracing::error!("the disk is full: nothing new is accepted until there is room again");
                *self.shared.health() = Health::Full;
                self.commit(group).map_err(text)
            }
            Err(e) => Err(text(e)),
        }
    }

    fn commit(&mut self, group: &[Job]) -> rusqlite::Result<()> {
        let sync = self.durability == Durability::Full || group.iter().any(|job| job.synced);
        self.set_syncing(sync)?;
        let transaction = self.connection.unchecked_transaction()?;
        for job in group {
            rows::write(&transaction, &job.change, self.runs_max)?;
        }
        transaction.commit()?;
        self.unsynced_since = match sync {
            true => None,
            false => self.unsynced_since.or_else(|| Some(Instant::now())),
        };
        Ok(())
    }

    /// In WAL mode FULL syncs the log at each commit, NORMAL only at checkpoints (sqlite.org/pragma.html#pragma_synchronous).
    fn set_syncing(&mut self, sync: bool) -> rusqlite::Result<()> {
        if self.syncing != sync {
            self.connection.execute_batch(match sync {
                true => "PRAGMA synchronous = FULL",
                false => "PRAGMA synchronous = NORMAL",
            })?;
            self.syncing = sync;
        }
        Ok(())
    }

    /// Brings the commits of the last moments to the disk: a synced commit syncs those before it.
    fn sync(&mut self) {
        if self.unsynced_since.take().is_none() || matches!(*self.shared.health(), Health::Broken(_)) {
            return;
        }
        let newest = i64::try_from(self.shared.newest.load(Ordering::Acquire)).unwrap_or(i64::MAX);
        let synced = self
            .set_syncing(true)
            .and_then(|()| self.connection.prepare_cached("UPDATE synced SET seq = ?1")?.execute([newest]).map(|_| ()));
        if let Err(e) = synced {
            if e.sqlite_error_code() == Some(ErrorCode::DiskFull) {
                // The next group will find out, with something to lose.
                return;
            }
            self.break_down(&e.to_string());
        }
    }

    /// Brings the log into the database file, as far as readers allow, so that it begins anew.
    fn checkpoint(&mut self) {
        if self.log_pages.load(Ordering::Relaxed) < CHECKPOINT_PAGES {
            return;
        }
        // It syncs both files. What it could not do stays in the log, which grows until it can.
        let done = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        match done {
            Ok(()) => {}
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DiskFull) => tracing::debug!("no room for a checkpoint"),
            Err(e) => self.break_down(&e.to_string()),
        }
    }

    fn break_down(&self, why: &str) {
        let mut health = self.shared.health();
        if !matches!(*health, Health::Broken(_)) {
            tracing::error!("the state can no longer be written: {why}");
            *health = Health::Broken(why.to_owned());
        }
    }

    /// Keeps the newest events.
    fn trim(&mut self) {
        let newest = self.shared.newest.load(Ordering::Acquire);
        if newest < self.trimmed_at.saturating_add(TRIM_EVERY) {
            return;
        }
        self.trimmed_at = newest;
        let keep = u64::try_from(self.events_max).unwrap_or(u64::MAX);
        let Ok(before) = i64::try_from(newest.saturating_sub(keep)) else { return };
        // Fails as any write would, and the next one tells; until then there are some events too many.
        if let Err(e) = self.connection.execute("DELETE FROM event WHERE seq <= ?1", [before]) {
            tracing::warn!("old events cannot be removed: {e}");
        }
    }
}

/// How long the end waits for the last writes.
pub(super) const CLOSE: Duration = Duration::from_secs(2);
