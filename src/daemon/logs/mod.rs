//! What guests print: on disk, in a ring of two files an instance; in memory what is still to be written, and the queue of an
//! attached client.
//!
//! ```text
//! guest ──► pending ──► thread "logs" ──► ID-GENERATION.log ──► readers, followers
//!    └────► queue of the attached client
//! ```
//!
//! A log that is full makes no guest wait and fails none: the oldest bytes go first, and are counted; so are those that cannot
//! be written, and those that come faster than a log may grow. A guest waits only for write(2), and, as at a pipe, for its attached client, who gets every byte. Nothing is
//! synced: what was written survives the daemon's death, and a power cut costs the newest of it.

mod rate;
mod reader;
pub(crate) mod record;
mod ring;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{Query, Read, Reader};

use crate::config::fixed::ATTACHED_BYTES_MAX;
use crate::daemon::{blocking, clock};
use crate::engine::Sink;
use crate::error::{Error, Result};
use crate::model::instance::{InstanceId, LogTime};
use crate::model::reply::Output;
use crate::model::request::StdStream;
use async_trait::async_trait;
use bytes::Bytes;
use rate::Rate;
use record::{Piece, RECORD_COST};
use ring::{Disk, Ring};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::{Notify, watch};
use writer::Work;

/// What may wait to be written, in bytes with what each piece costs.
const PENDING_BYTES_MAX: usize = 128 * 1024;
/// How much is enough to be written at a time, likewise, and makes it urgent.
const FLUSH_BYTES: usize = 64 * 1024;
/// A line that is printed in pieces is one record, as long as it has no more bytes than this.
const JOINED_BYTES_MAX: usize = 4096;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Everything behind these locks is plain data that no statement leaves half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The logs of all instances: a cheap handle. With the last one the thread ends, as by [`Logs::close`].
#[derive(Clone)]
pub(super) struct Logs(Arc<Shared>);

struct Shared {
    disk: Arc<Disk>,
    work: Arc<Work>,
    bytes_per_second: usize,
    entries: Mutex<HashMap<InstanceId, Entry>>,
}

/// What there is of a log as long as its instance is known.
struct Entry {
    /// What was learned of the files; it stays when nobody holds the log.
    ring: Arc<Mutex<Ring>>,
    log: Weak<Log>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.work.close();
    }
}

impl Logs {
    /// The logs in `directory`, which exists, of at most about `bytes_max` bytes each, which grow by at most `bytes_per_second`.
    /// Reads the names of the files that are there, and starts the thread that writes. While the disk is `full`, what is printed is dropped and counted: the room that
    /// is left is for the state.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn open(
        directory: &Path,
        bytes_max: usize,
        bytes_per_second: usize,
        full: Arc<AtomicBool>,
    ) -> Result<Logs> {
        let disk = Arc::new(Disk::new(directory, bytes_max, full));
        let found = disk.list().map_err(|e| Error::io(format!("cannot read {}", directory.display()), &e))?;
        let entry = |(id, numbers)| {
            let ring = Arc::new(Mutex::new(Ring::found(Arc::clone(&disk), id, numbers)));
            (id, Entry { ring, log: Weak::new() })
        };
        let entries = Mutex::new(found.into_iter().map(entry).collect());
        let work = Arc::new(Work::default());
        let works = Arc::clone(&work);
        // Not waited for at its end: a disk that hangs would hang us too.
        let _detached = std::thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || works.run())
            .map_err(|e| Error::io("cannot start the thread for logs", &e))?;
        Ok(Logs(Arc::new(Shared { disk, work, bytes_per_second, entries })))
    }

    /// The log of an instance: the same one for as long as anybody holds it. Does not touch its files.
    pub(super) fn get(&self, id: InstanceId) -> Arc<Log> {
        let mut entries = lock(&self.0.entries);
        let entry = entries.entry(id).or_insert_with(|| {
            let ring = Ring::found(Arc::clone(&self.0.disk), id, Vec::new());
            Entry { ring: Arc::new(Mutex::new(ring)), log: Weak::new() }
        });
        entry.log.upgrade().unwrap_or_else(|| {
            let log = Log::new(id, Arc::clone(&entry.ring), &self.0);
            entry.log = Arc::downgrade(&log);
            log
        })
    }

    /// Forgets the log of an instance, whose id is never used again; the thread removes its files. Who reads it meanwhile comes
    /// to an end, and what is still printed goes nowhere.
    pub(super) fn remove(&self, id: InstanceId) {
        let Some(entry) = lock(&self.0.entries).remove(&id) else { return };
        if let Some(log) = entry.log.upgrade() {
            log.close();
        }
        // Behind what the thread is writing just now; and nothing is written behind this.
        self.0.work.remove(entry.ring);
    }

    /// Removes the files of instances that are not `known`: of a daemon that died before it removed them.
    pub(super) fn retain(&self, known: impl Fn(InstanceId) -> bool) {
        // Asked without the lock: whoever answers may have a lock of its own, under which it asks for logs.
        let all: Vec<InstanceId> = lock(&self.0.entries).keys().copied().collect();
        all.into_iter().filter(|id| !known(*id)).for_each(|id| self.remove(id));
    }

    /// Bytes that guests printed, and how many of them are in no log because they came too fast or could not be written.
    pub(super) fn counted(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        (count(&self.0.work.printed), count(&self.0.work.skipped) + count(&self.0.disk.unwritten))
    }

    /// Writes what is still to be written and ends the thread. Blocks for that, at most a few seconds: a disk that hangs does
    /// not hang the daemon's end. What is printed later goes nowhere.
    pub(super) fn close(&self) {
        self.0.work.close();
    }
}

/// The log of one instance over all its runs.
pub struct Log {
    id: InstanceId,
    /// Before anything of it was due.
    begun: Instant,
    /// For the thread's queue.
    this: Weak<Log>,
    work: Arc<Work>,
    /// Its lock is held while files are read or written, so it is not for async threads. It comes before that of `state`.
    ring: Arc<Mutex<Ring>>,
    record_bytes_max: usize,
    state: Mutex<State>,
    /// For the attached client: something was printed, or its run ended.
    printed: Notify,
    /// For the guest: something was written, or an attached client took something or went away.
    room: Notify,
    /// For everybody who reads: how far the files are.
    progress: watch::Sender<Progress>,
    /// For everybody who looks: bytes of its files, [`UNKNOWN`] until they are known.
    bytes: AtomicU64,
    /// Likewise: bytes that were printed since this log is in memory.
    output: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

#[derive(Default)]
struct State {
    /// What may still be kept.
    rate: Rate,
    pending: VecDeque<Piece>,
    pending_cost: usize,
    /// What the thread has taken and not written yet.
    writing_cost: usize,
    /// Bytes that became pending since this log is in memory, and how many of them the thread has taken.
    printed: u64,
    taken: u64,
    /// Of the first, up to which somebody waits who goes before the other logs.
    awaited: u64,
    queued: Option<Queued>,
    /// Nothing is written any more.
    closed: bool,
    run: u32,
    run_live: bool,
    /// What attached clients have still to take, by run: the client of a run may be behind when the next one begins.
    attached: BTreeMap<u32, Queue>,
}

/// Where the log stands in the thread's queue.
#[derive(Clone, Copy)]
struct Queued {
    due: Instant,
    when: When,
}

/// When the thread should come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    /// In a moment, for more to come.
    Soon,
    /// Behind those that came before.
    Now,
    /// Before all others: somebody waits, and what is pending is little.
    First,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    cost: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Of [`State::printed`], what was written or given up.
    flushed: u64,
    /// The position behind what was written or given up; 0: nothing yet since the log is in memory.
    end: u64,
    /// A run prints, or a further one is on its way.
    live: bool,
    closed: bool,
}

impl Progress {
    fn may_grow(&self) -> bool {
        self.live && !self.closed
    }
}

/// What the thread writes at a time.
struct Batch {
    pieces: Vec<Piece>,
    cost: usize,
    /// What will be flushed once it is written.
    flushed: u64,
}

impl Log {
    fn new(id: InstanceId, ring: Arc<Mutex<Ring>>, shared: &Shared) -> Arc<Log> {
        // Whoever has the files is writing them, and will say.
        let bytes = ring.try_lock().ok().and_then(|ring| ring.bytes()).unwrap_or(UNKNOWN);
        Arc::new_cyclic(|this| Log {
            bytes: AtomicU64::new(bytes),
            output: AtomicU64::new(0),
            id,
            begun: Instant::now(),
            this: Weak::clone(this),
            work: Arc::clone(&shared.work),
            ring,
            record_bytes_max: shared.disk.record_bytes_max(),
            state: Mutex::new(State { rate: Rate::new(shared.bytes_per_second), ..State::default() }),
            printed: Notify::new(),
            room: Notify::new(),
            progress: watch::Sender::default(),
        })
    }

    /// A run begins to print here. `attached`: a client will take every byte, through [`Log::take`], until [`Log::detach`].
    pub(super) fn begin(&self, run: u32, attached: bool) {
        let mut state = lock(&self.state);
        state.run = run;
        state.run_live = true;
        if attached {
            state.attached.insert(run, Queue::default());
        }
        drop(state);
        self.progress.send_modify(|progress| progress.live = true);
    }

    /// The run is over: its attached client comes to an end. Followers go on, for there may be a restart.
    pub(super) fn end_run(&self, run: u32) {
        let mut state = lock(&self.state);
        if state.run == run {
            state.run_live = false;
        }
        drop(state);
        self.printed.notify_waiters();
    }

    /// No further run is on its way: followers come to an end. [`Log::begin`] makes it live again.
    pub(super) fn over(&self) {
        self.progress.send_modify(|progress| progress.live = false);
    }

    /// Returns when everything that was printed before is in the file, or was given up and counted.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: it only waits.
    pub async fn flushed(&self) {
        self.flush_when(When::Now).await;
    }

    /// [`Log::flushed`], before the other logs: for a run that is over, whose end waits for it. It prints no more, so what is
    /// pending is at most [`PENDING_BYTES_MAX`].
    pub(super) async fn flushed_first(&self) {
        self.flush_when(When::First).await;
    }

    async fn flush_when(&self, when: When) {
        let mut progress = self.progress.subscribe();
        let printed = {
            let mut state = lock(&self.state);
            if !state.pending.is_empty() {
                if when == When::First {
                    state.awaited = state.printed;
                }
                self.queue(&mut state, when);
            }
            state.printed
        };
        // The sender is in `self`; it cannot be gone.
        let _flushed = progress.wait_for(|progress| progress.closed || progress.flushed >= printed).await;
    }

    /// The client attached to `run` is gone; the guest no longer waits for it.
    pub fn detach(&self, run: u32) {
        lock(&self.state).attached.remove(&run);
        self.room.notify_waiters();
    }

    /// The next pieces for the client attached to `run`. `None`: the run is over and all was taken.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was not returned is still there.
    pub async fn take(&self, run: u32) -> Option<Vec<Output>> {
        loop {
            let mut printed = std::pin::pin!(self.printed.notified());
            // Listen before looking, or a change in between would be missed.
            printed.as_mut().enable();
            {
                let mut state = lock(&self.state);
                let live = state.run_live && state.run == run;
                let queue = state.attached.get_mut(&run)?;
                if !queue.pieces.is_empty() {
                    let pieces = std::mem::take(queue).pieces;
                    drop(state);
                    self.room.notify_waiters();
                    return Some(pieces.iter().map(Piece::output).collect());
                }
                if !live {
                    return None;
                }
            }
            printed.await;
        }
    }

    /// Reads what is kept, and then what comes.
    pub fn reader(self: &Arc<Self>, query: Query) -> Reader {
        Reader::new(Arc::clone(self), query)
    }

    /// Bytes of its files, if it is known, as of the last time that something was written. Waits for nobody.
    pub(super) fn bytes(&self) -> Option<u64> {
        Some(self.bytes.load(Relaxed)).filter(|bytes| *bytes != UNKNOWN)
    }

    /// Bytes that were printed since this log is in memory: as long as its instance lives. Waits for nobody.
    pub(super) fn output(&self) -> u64 {
        self.output.load(Relaxed)
    }

    /// Bytes that were printed and are no longer kept, or never were; what is still pending is not among them.
    pub async fn dropped(&self) -> u64 {
        let ring = Arc::clone(&self.ring);
        blocking(move || lock(&ring).dropped()).await
    }

    /// Has the thread come here.
    fn queue(&self, state: &mut State, when: When) {
        if state.queued.is_some_and(|queued| queued.when >= when) {
            return;
        }
        let Some(this) = self.this.upgrade() else { return };
        let due = match when {
            When::Soon => Instant::now() + writer::LINGER,
            When::Now => Instant::now(),
            When::First => self.begun,
        };
        let before = state.queued.replace(Queued { due, when }).map(|queued| queued.due);
        if !self.work.schedule(this, before, due) {
            self.close_with(state);
        }
    }

    /// Writes a part of what is pending; the rest has its turn behind the other logs. For the thread.
    fn flush(&self, buffer: &mut Vec<u8>) {
        // First the files, which a reader may have; then what to write: what comes meanwhile still joins.
        let mut ring = lock(&self.ring);
        let Some(batch) = self.take_batch() else { return };
        // A defect in there must not leave every guest waiting for ever.
        if catch_unwind(AssertUnwindSafe(|| ring.append(&batch.pieces, buffer))).is_err() {
            tracing::error!(instance = self.id.0, "writing the log broke");
        }
        let end = ring.end();
        self.bytes.store(ring.bytes().unwrap_or(UNKNOWN), Relaxed);
        drop(ring);
        lock(&self.state).writing_cost -= batch.cost;
        self.progress.send_modify(|progress| {
            progress.flushed = batch.flushed;
            progress.end = end;
        });
        self.room.notify_waiters();
    }

    fn take_batch(&self) -> Option<Batch> {
        let mut state = lock(&self.state);
        state.queued = None;
        let mut cost = 0;
        let enough = |piece: &Piece| {
            let enough = cost >= FLUSH_BYTES;
            cost += piece.cost();
            enough
        };
        let count = state.pending.iter().position(enough).unwrap_or(state.pending.len());
        let pieces: Vec<Piece> = state.pending.drain(..count).collect();
        if pieces.is_empty() {
            return None;
        }
        let cost = pieces.iter().map(Piece::cost).sum();
        state.pending_cost -= cost;
        state.writing_cost += cost;
        state.taken += pieces.iter().map(Piece::printed).sum::<u64>();
        let flushed = state.taken;
        if !state.pending.is_empty() {
            let when = if state.taken < state.awaited { When::First } else { When::Now };
            self.queue(&mut state, when);
        }
        Some(Batch { pieces, cost, flushed })
    }

    /// Nothing will be written any more: nobody is to wait for it.
    fn close(&self) {
        self.close_with(&mut lock(&self.state));
    }

    fn close_with(&self, state: &mut State) {
        state.closed = true;
        state.pending.clear();
        state.pending_cost = 0;
        self.progress.send_modify(|progress| progress.closed = true);
        self.room.notify_waiters();
    }
}

impl State {
    /// Says how many of the bytes are not kept.
    fn push(&mut self, stream: StdStream, mut bytes: Bytes, at: LogTime, now: Instant, record_bytes_max: usize) -> u64 {
        let run = self.run;
        self.printed += bytes.len() as u64;
        let joined = self.pending.back().is_some_and(|last| joins(last, run, stream, bytes.len(), record_bytes_max));
        // The rate is that of the files: what a record costs beside its bytes is charged too.
        let cost = if joined { 0 } else { RECORD_COST };
        let kept = self.rate.take(cost + bytes.len(), now).saturating_sub(cost);
        let skipped = (bytes.len() - kept) as u64;
        bytes.truncate(kept);
        if let Some(last) = self.pending.back_mut()
            && joined
        {
            last.bytes.extend_from_slice(&bytes);
            self.pending_cost += bytes.len();
            bytes.clear();
        }
        while !bytes.is_empty() {
            let bytes = bytes.split_to(bytes.len().min(record_bytes_max));
            self.push_piece(Piece { at, run, stream, bytes: owned(bytes), skipped: 0 });
        }
        match self.pending.back_mut() {
            Some(last) => last.skipped += skipped,
            None if skipped > 0 => self.push_piece(Piece { at, run, stream, bytes: Vec::new(), skipped }),
            None => {}
        }
        skipped
    }

    fn push_piece(&mut self, piece: Piece) {
        self.pending_cost += piece.cost();
        self.pending.push_back(piece);
    }
}

/// Nobody else has these bytes, mostly, and then this copies nothing. But what was cut out of something far larger must not keep
/// that: what is pending is counted by its length.
fn owned(bytes: Bytes) -> Vec<u8> {
    let mut bytes = Vec::from(bytes);
    if bytes.capacity() / 2 > bytes.len() {
        bytes.shrink_to_fit();
    }
    bytes
}

/// Whether a piece continues another: the same line of the same stream, so that its time is the line's.
fn joins(last: &Piece, run: u32, stream: StdStream, more: usize, record_bytes_max: usize) -> bool {
    last.run == run
        && last.stream == stream
        && last.bytes.len() + more <= JOINED_BYTES_MAX.min(record_bytes_max)
        && last.bytes.last() != Some(&b'\n')
        && last.skipped == 0
}

impl Queue {
    fn push(&mut self, run: u32, stream: StdStream, bytes: &[u8], at: LogTime) {
        match self.pieces.back_mut() {
            Some(last) if last.stream == stream && last.bytes.len() + bytes.len() <= JOINED_BYTES_MAX => {
                last.bytes.extend_from_slice(bytes);
            }
            _ => {
                self.pieces.push_back(Piece { at, run, stream, bytes: bytes.to_vec(), skipped: 0 });
                self.cost += RECORD_COST;
            }
        }
        self.cost += bytes.len();
    }
}

#[async_trait]
impl Sink for Log {
    fn room(&self) -> usize {
        let state = lock(&self.state);
        let pending = PENDING_BYTES_MAX.saturating_sub(state.pending_cost + state.writing_cost);
        match state.attached.get(&state.run) {
            Some(queue) => pending.min(ATTACHED_BYTES_MAX.saturating_sub(queue.cost)),
            None => pending,
        }
    }

    async fn ready(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.room() > 0 {
                return;
            }
            room.await;
        }
    }

    fn write(&self, stream: StdStream, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let at = clock::now_in_nanos();
        self.output.fetch_add(bytes.len() as u64, Relaxed);
        let mut state = lock(&self.state);
        let run = state.run;
        if let Some(queue) = state.attached.get_mut(&run) {
            queue.push(run, stream, &bytes, at);
        }
        if !state.closed {
            self.work.printed.fetch_add(bytes.len() as u64, Relaxed);
            let skipped = state.push(stream, bytes, at, Instant::now(), self.record_bytes_max);
            self.work.skipped.fetch_add(skipped, Relaxed);
            let when = if state.pending_cost >= FLUSH_BYTES { When::Now } else { When::Soon };
            self.queue(&mut state, when);
        }
        drop(state);
        self.printed.notify_waiters();
    }
}

/// A log as the sink of one run.
pub(super) fn sink(log: &Arc<Log>) -> Arc<dyn Sink> {
    Arc::clone(log) as Arc<dyn Sink>
}
