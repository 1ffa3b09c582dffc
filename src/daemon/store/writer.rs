//! The one thread that writes: changes come in a queue, are committed in groups, and are answered when they are in the file.
//! What takes a disk's time and nobody waits for is another thread's ([`Syncer`]): the sync of commits that were not synced,
//! and bringing the log into the database file.
//!
//! ```text
//! healthy ──(disk full: the reserve is let go, and the group goes in)──► full ──(the reserve is there again)──► healthy
//!    ├──(another program has the database)──► held ──(it was written again)──► healthy
//!    └──────────────────────(any other failure)──────────────────────┴──► broken, until the daemon is started again
//! ```
//!
//! Full: what ends is still written down, nothing new is begun. What does not fit even so was rolled back whole: whoever waits
//! is told, and it is tried again, before what comes after it. Broken: nothing is written any more, since what a failed sync
//! left behind cannot be known (fsync(2) reports an error once). Held: another program has the database, what happened waits
//! until it lets go, and nothing new is begun.

use super::{Change, rows};
use crate::config::{Durability, Limits, fixed};
use crate::error::{Error, Result};
use crate::model::event::EventView;
use rusqlite::{Connection, ErrorCode};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot};

/// Events are trimmed when this many more than the limit are there: a little at a time would be a scan each time.
const TRIM_EVERY: u64 = 1000;

/// On a full disk: how often to look whether there is room again.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_millis(500);

/// The log of the database is brought into its file each time it has grown by this many pages, after those who wait were
/// answered; SQLite by itself would let them wait for it. Not more often: it syncs, and the commits beside it are slow then.
pub(super) const CHECKPOINT_EVERY: i32 = 1000;
/// While there is always somebody writing, a checkpoint ends before the end of the log, which therefore never begins anew.
/// From this length on the writer makes one itself: of the pages that came since the last, and two syncs.
pub(super) const CHECKPOINT_PAGES_MAX: i32 = 8000;

/// A change that nobody waits for is written with the next one that somebody does, or after this time: a commit costs far more
/// than what is in it.
const LINGER: Duration = Duration::from_millis(5);

/// Why nothing is written while somebody else writes.
const HELD: &str = "another program holds state.db";

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
    /// Another program holds the database, and what happened waits for it.
    Held,
    /// Nothing is written any more.
    Broken(String),
}

impl Health {
    /// All words.
    pub(super) const WORDS: [&str; 4] = ["healthy", "full", "held", "broken"];

    fn word(&self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Full => "full",
            Health::Held => "held",
            Health::Broken(_) => "broken",
        }
    }
}

impl Job {
    fn is_awaited(&self) -> bool {
        self.done.iter().any(Option::is_some)
    }

    /// Whether it is tried again. Events have happened. Any other change that somebody waits for is refused, and not made.
    fn is_kept(&self) -> bool {
        matches!(self.change, Change::Event { .. }) || !self.is_awaited()
    }
}

/// What the writer shares with those who ask it.
#[derive(Debug)]
pub(super) struct Shared {
    health: Mutex<Health>,
    /// As the health says; for those who would take the room that is left.
    pub(super) full: Arc<AtomicBool>,
    /// The newest event that is in the file.
    pub(super) newest: AtomicU64,
    /// Events that are in the file, for followers.
    pub(super) followers: broadcast::Sender<Arc<EventView>>,
    reserve: PathBuf,
    /// Groups that were committed.
    pub(super) commits: AtomicU64,
    /// Syncs, of commits or behind them.
    pub(super) syncs: AtomicU64,
    /// Changes that were handed over and are not answered yet.
    pub(super) queued: AtomicU64,
}

impl Shared {
    pub(super) fn new(directory: &Path, newest: u64) -> Shared {
        Shared {
            health: Mutex::new(Health::Healthy),
            full: Arc::default(),
            newest: AtomicU64::new(newest),
            followers: broadcast::Sender::new(fixed::EVENTS_BEHIND_MAX),
            reserve: directory.join("reserve"),
            commits: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            queued: AtomicU64::new(0),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // One enum, replaced whole.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The word for how it is.
    pub(super) fn health_word(&self) -> &'static str {
        self.health().word()
    }

    /// Whether something new may be begun.
    ///
    /// # Errors
    ///
    /// [`Error::StateRefuses`].
    pub(super) fn accepting(&self) -> Result<()> {
        match &*self.health() {
            Health::Healthy => Ok(()),
            Health::Full => {
                let why = "the disk is full; it goes on when there is room again (rm, prune -v and forget make some)";
                Err(Error::StateRefuses(why.into()))
            }
            Health::Held => Err(Error::StateRefuses(format!("{HELD}; it goes on when that is done"))),
            Health::Broken(why) => Err(broken(why)),
        }
    }

    /// Whether something may be removed.
    ///
    /// # Errors
    ///
    /// [`Error::StateRefuses`].
    pub(super) fn accepting_removals(&self) -> Result<()> {
        match &*self.health() {
            Health::Healthy | Health::Full | Health::Held => Ok(()),
            Health::Broken(why) => Err(broken(why)),
        }
    }

    pub(super) fn set_health(&self, health: Health) {
        let mut now = self.health();
        // Nothing leads back from there, also if it came to that while somebody looked for room.
        if !matches!(*now, Health::Broken(_)) {
            self.full.store(health == Health::Full, Ordering::Relaxed);
            *now = health;
        }
    }

    /// From one health to another; any other stays.
    fn turn(&self, from: &Health, to: Health) {
        let mut now = self.health();
        if *now == *from {
            *now = to;
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

    pub(super) fn free_reserve(&self) -> bool {
        std::fs::remove_file(&self.reserve).is_ok()
    }

    fn break_down(&self, why: &str) {
        let mut health = self.health();
        if !matches!(*health, Health::Broken(_)) {
            tracing::error!("the state can no longer be written: {why}");
            *health = Health::Broken(why.to_owned());
            // No room is kept for what is not written.
            self.full.store(false, Ordering::Relaxed);
        }
    }

    /// Brings the log into the database file, as far as readers allow, and syncs both.
    /// False: the other thread is at it.
    fn checkpoint(&self, connection: &Connection) -> bool {
        match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, bool>(0)) {
            Ok(busy) => return !busy,
            // What it could not do stays in the log, which grows until it can.
            Err(e) if is_full(&e) => tracing::debug!("no room for a checkpoint"),
            Err(e) => self.break_down(&e.to_string()),
        }
        true
    }

    /// For a store that writes nothing.
    pub(super) fn publish(&self, view: EventView) {
        self.newest.store(view.seq, Ordering::Release);
        // Nobody may be listening.
        let _unheard = self.followers.send(Arc::new(view));
    }
}

fn broken(why: &str) -> Error {
    Error::StateRefuses(format!("{why}; what was asked for may be there when the daemon is started again"))
}

fn is_full(e: &rusqlite::Error) -> bool {
    e.sqlite_error_code() == Some(ErrorCode::DiskFull)
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
    /// How long the log is when it is brought into the file next.
    checkpoint_at: i32,
    syncer: mpsc::SyncSender<Work>,
    /// What could not be written yet. Bounded by what is alive: nothing new is begun meanwhile.
    backlog: Vec<Job>,
}

/// Why a group is not in the file.
enum Failure {
    /// It was rolled back whole, for a reason that passes.
    ForNow(String),
    /// What the file holds is not known.
    ForGood(String),
}

/// What the other thread does.
enum Work {
    /// Brings commits to the disk.
    Sync,
    /// Brings the log into the database file.
    Checkpoint,
}

/// The thread that waits for the disk.
pub(super) struct Syncer {
    connection: Connection,
    /// The log of the database, which keeps its file for as long as it is open. Opened at the start: later there may be no
    /// descriptor left, and nothing that was written would be lost for that.
    log: File,
    shared: Arc<Shared>,
    work: Receiver<Work>,
}

impl Writer {
    pub(super) fn new(
        mut connection: Connection,
        shared: Arc<Shared>,
        durability: Durability,
        limits: &Limits,
        second: Connection,
        log: File,
    ) -> rusqlite::Result<(Writer, Syncer)> {
        // One for each kind of change.
        connection.set_prepared_statement_cache_capacity(64);
        let log_pages = Arc::new(AtomicI32::new(0));
        let pages = Arc::clone(&log_pages);
        // In the place of SQLite's own, which would write the log back within the commit.
        connection.wal_hook(Some(move |_: &mut _, n| {
            pages.store(n, Ordering::Relaxed);
            Ok(())
        }))?;
        // Room for one of each: more would only do the same again.
        let (syncer, work) = mpsc::sync_channel(2);
        let waits = Syncer { connection: second, log, shared: Arc::clone(&shared), work };
        let writer = Writer {
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
            checkpoint_at: CHECKPOINT_EVERY,
            syncer,
            backlog: vec![],
        };
        Ok((writer, waits))
    }

    /// Writes until all senders are gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>, syncer: JoinHandle<()>) {
        // What nobody waits for, and since when it is here.
        let mut waiting: (Vec<Job>, Option<Instant>) = (vec![], None);
        loop {
            let left =
                |since: Option<Instant>, within: Duration| since.map(|since| within.saturating_sub(since.elapsed()));
            // Half of what is promised: the sync itself takes time.
            let again = (!self.backlog.is_empty()).then_some(LOOK_FOR_ROOM_EVERY);
            let due = [left(waiting.1, LINGER), left(self.unsynced_since, fixed::SYNC_WITHIN / 2), again];
            let next = match due.into_iter().flatten().min() {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => jobs.recv_timeout(wait),
            };
            let ended = matches!(next, Err(RecvTimeoutError::Disconnected));
            let mut urgent = ended || again.is_some() || waiting.1.is_some_and(|since| since.elapsed() >= LINGER);
            if let Ok(job) = next {
                urgent |= job.is_awaited();
                waiting.0.push(job);
                waiting.1.get_or_insert_with(Instant::now);
            }
            if urgent && !(waiting.0.is_empty() && self.backlog.is_empty()) {
                self.group(std::mem::take(&mut waiting.0), jobs);
                waiting.1 = None;
            }
            if ended {
                break;
            }
            if self.unsynced_since.is_some_and(|since| since.elapsed() >= fixed::SYNC_WITHIN / 2) {
                self.sync();
            }
        }
        drop(self.syncer);
        // A panic there was told by its own message.
        let _told = syncer.join();
        // The last connection that closes writes everything into the database file and removes the log.
        if let Err((_, e)) = self.connection.close() {
            tracing::warn!("closing the state: {e}");
        }
    }

    /// Commits what is waiting, in one transaction.
    fn group(&mut self, mut group: Vec<Job>, jobs: &Receiver<Job>) {
        while group.len() < fixed::GROUP_MAX
            && let Ok(next) = jobs.try_recv()
        {
            group.push(next);
        }
        group.splice(0..0, std::mem::take(&mut self.backlog));
        let health = self.shared.health().clone();
        let result = match health {
            Health::Broken(why) => Err(Failure::ForGood(why)),
            Health::Healthy | Health::Full | Health::Held => self.commit_or_make_room(&group, health == Health::Full),
        };
        let refused = match &result {
            Ok(()) => None,
            Err(Failure::ForNow(why)) => Some(Error::NotWrittenYet(why.clone())),
            Err(Failure::ForGood(why)) => {
                self.shared.break_down(why);
                Some(broken(why))
            }
        };
        // Before the answers: whoever has one finds that nothing new is begun, so that what waits is bounded by what is alive.
        match &result {
            Err(Failure::ForNow(_)) if group.iter().any(Job::is_kept) => {
                self.shared.turn(&Health::Healthy, Health::Held)
            }
            Ok(()) => self.shared.turn(&Health::Held, Health::Healthy),
            _ => {}
        }
        let answered = u64::try_from(group.len()).unwrap_or(u64::MAX);
        for mut job in group {
            let kept = job.is_kept();
            let waiting = std::mem::take(&mut job.done);
            let mut refusal = refused.clone();
            match &result {
                Ok(()) => {
                    if let Change::Event { view, .. } = job.change {
                        // Before the answer: whoever has that finds it on record.
                        self.shared.publish(*view);
                    }
                }
                Err(Failure::ForNow(why)) => {
                    if kept {
                        self.backlog.push(job);
                    } else {
                        refusal = Some(Error::StateRefuses(why.clone()));
                    }
                }
                Err(Failure::ForGood(_)) => {}
            }
            for done in waiting.into_iter().flatten() {
                // Whoever asked may have gone.
                let _unheard = done.send(refusal.clone().map_or(Ok(()), Err));
            }
        }
        let kept = u64::try_from(self.backlog.len()).unwrap_or(u64::MAX);
        self.shared.queued.fetch_sub(answered.saturating_sub(kept), Ordering::Relaxed);
        if result.is_ok() {
            self.trim();
            self.checkpoint();
        }
    }

    fn commit_or_make_room(&mut self, group: &[Job], full: bool) -> Result<(), Failure> {
        let mut committed = self.commit(group);
        if committed.as_ref().is_err_and(is_full) && !full {
            tracing::error!("the disk is full: nothing new is accepted until there is room again");
            self.shared.set_health(Health::Full);
            // What SQLite rolled back for want of room was never said to be there: to try again is honest.
            if self.shared.free_reserve() {
                committed = self.commit(group);
            }
        }
        match committed {
            Ok(()) => {
                // Each look writes the whole reserve.
                if full && self.looked_for_room.elapsed() >= LOOK_FOR_ROOM_EVERY {
                    self.looked_for_room = Instant::now();
                    if self.shared.fill_reserve() {
                        tracing::info!("there is room again in the state directory");
                        self.shared.set_health(Health::Healthy);
                    }
                }
                Ok(())
            }
            Err(e) if is_full(&e) => Err(Failure::ForNow("the disk is full".to_owned())),
            Err(e) if matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) => {
                tracing::warn!("{HELD}, and keeps the daemon from writing");
                Err(Failure::ForNow(HELD.to_owned()))
            }
            Err(e) => Err(Failure::ForGood(e.to_string())),
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
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.syncs.fetch_add(sync.into(), Ordering::Relaxed);
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

    /// Brings the commits of the last moments to the disk, while further ones are made.
    fn sync(&mut self) {
        match self.syncer.try_send(Work::Sync) {
            Ok(()) => self.unsynced_since = None,
            // The disk is slow: it is asked again when it is done with what it has.
            Err(TrySendError::Full(_)) => self.unsynced_since = Some(Instant::now()),
            Err(TrySendError::Disconnected(_)) => self.shared.break_down("the thread that syncs is gone"),
        }
    }

    /// Has the log brought into the database file, so that it begins anew.
    fn checkpoint(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        if pages < self.checkpoint_at - CHECKPOINT_EVERY {
            // It has begun anew.
            self.checkpoint_at = CHECKPOINT_EVERY;
        }
        if pages < self.checkpoint_at {
            return;
        }
        if pages < CHECKPOINT_PAGES_MAX {
            // One that is on its way already is enough.
            let _busy = self.syncer.try_send(Work::Checkpoint);
        } else if !self.shared.checkpoint(&self.connection) {
            // Behind the next commit again.
            return;
        }
        self.checkpoint_at = pages.saturating_add(CHECKPOINT_EVERY);
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

impl Syncer {
    /// Works until the writer is gone, which syncs the rest itself as it closes.
    pub(super) fn run(self) {
        while let Ok(work) = self.work.recv() {
            match work {
                Work::Sync => {
                    self.shared.syncs.fetch_add(1, Ordering::Relaxed);
                    if let Err(e) = self.sync() {
                        // fsync(2): an error is told once, and what it was about is lost.
                        self.shared.break_down(&format!("a sync failed: {e}"));
                    }
                }
                Work::Checkpoint => {
                    // The writer's own does as much.
                    self.shared.checkpoint(&self.connection);
                }
            }
        }
    }

    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.log.sync_data()
    }
}
