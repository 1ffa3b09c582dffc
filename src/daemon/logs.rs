//! What guests print: the newest bytes of each instance in memory, its followers, and the queue of an attached client.
//!
//! A log never makes a guest wait and never fails it: the oldest bytes go first, and are counted. Only an attached client
//! does, as a pipe would: it gets every byte, so the guest waits for it.

use crate::config::fixed::ATTACHED_BYTES_MAX;
use crate::daemon::clock;
use crate::engine::Sink;
use crate::model::instance::LogTime;
use crate::model::reply::{Data, Output};
use crate::model::request::StdStream;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Room for a guest's next write where nobody is attached, in bytes.
const ROOM: usize = 64 * 1024;
/// What a record costs beside its bytes; charged, so that a guest printing single bytes stays within the limit too.
const RECORD_COST: usize = 64;
/// A record is appended to until it has this many bytes.
const RECORD_BYTES: usize = 4096;
/// Bytes that a reader takes at a time.
const READ_BYTES: usize = 64 * 1024;

/// The log of one instance over all its runs.
#[derive(Debug)]
pub struct Log {
    bytes_max: usize,
    state: Mutex<State>,
    /// Something was printed, or a run ended.
    grown: Notify,
    /// An attached client took something, or went away.
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    records: VecDeque<Record>,
    /// Bytes in `records` with what each record costs.
    cost: usize,
    /// Position behind the newest byte; the first byte ever printed has position 0.
    end: u64,
    dropped: u64,
    run: u32,
    live: bool,
    /// What attached clients have still to take, by run: the client of a run may be behind when the next one begins.
    attached: BTreeMap<u32, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Record>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Record {
    position: u64,
    at: LogTime,
    run: u32,
    stream: StdStream,
    bytes: Vec<u8>,
}

impl Record {
    fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    fn output(&self, from: usize) -> Output {
        let bytes = self.bytes.get(from..).unwrap_or_default();
        Output { stream: self.stream, at: self.at, run: self.run, data: Data::of(bytes) }
    }
}

/// Where a reader of a log is.
#[derive(Debug, Clone, Copy)]
pub struct Cursor(u64);

/// What a reader got.
#[derive(Debug, Default)]
pub struct Read {
    /// Bytes that were gone before the reader came to them.
    pub dropped: u64,
    /// The next pieces, oldest first; empty: nothing more for now.
    pub outputs: Vec<Output>,
}

impl Log {
    /// An empty log that keeps about `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Log {
        Log { bytes_max, state: Mutex::default(), grown: Notify::new(), taken: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, and no statement in between leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new run begins to print here. `attached`: a client will take every byte, through [`Log::take`], until [`Log::detach`].
    pub fn begin(&self, run: u32, attached: bool) {
        let mut state = self.lock();
        state.run = run;
        state.live = true;
        if attached {
            state.attached.insert(run, Queue::default());
        }
    }

    /// The run is over: followers and the attached client come to an end.
    pub fn finish(&self) {
        self.lock().live = false;
        self.grown.notify_waiters();
        self.taken.notify_waiters();
    }

    /// The client attached to `run` is gone; the guest no longer waits for it.
    pub fn detach(&self, run: u32) {
        self.lock().attached.remove(&run);
        self.taken.notify_waiters();
    }

    /// The next pieces for the client attached to `run`. `None`: the run is over and all was taken.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was not returned is still there.
    pub async fn take(&self, run: u32) -> Option<Vec<Output>> {
        loop {
            let mut grown = std::pin::pin!(self.grown.notified());
            // Listen before looking, or a change in between would be missed.
            grown.as_mut().enable();
            {
                let mut state = self.lock();
                let live = state.live && state.run == run;
                let queue = state.attached.get_mut(&run)?;
                if !queue.records.is_empty() {
                    let outputs = queue.records.drain(..).map(|r| r.output(0)).collect();
                    queue.bytes = 0;
                    drop(state);
                    self.taken.notify_waiters();
                    return Some(outputs);
                }
                if !live {
                    return None;
                }
            }
            grown.await;
        }
    }

    /// The beginning of what is kept.
    pub fn start(&self) -> Cursor {
        Cursor(self.lock().records.front().map_or(0, |r| r.position))
    }

    /// Where the last `lines` lines of `stream` (or of both) begin.
    pub fn tail(&self, lines: usize, stream: Option<StdStream>) -> Cursor {
        let state = self.lock();
        if lines == 0 {
            return Cursor(state.end);
        }
        // Positions where the newest lines begin. A stream's line goes on over the records of the other stream.
        let mut begins: VecDeque<u64> = VecDeque::new();
        let mut within = [false; 2];
        for record in state.records.iter().filter(|r| stream.is_none_or(|s| s == r.stream)) {
            let within = &mut within[usize::from(record.stream == StdStream::Stderr)];
            for (i, byte) in record.bytes.iter().enumerate() {
                if !*within {
                    begins.push_back(record.position + i as u64);
                    if begins.len() > lines {
                        begins.pop_front();
                    }
                }
                *within = *byte != b'\n';
            }
        }
        Cursor(begins.front().copied().unwrap_or(state.end))
    }

    /// Reads on from `cursor`, which is moved.
    pub fn read(&self, cursor: &mut Cursor, stream: Option<StdStream>) -> Read {
        let state = self.lock();
        let mut read = Read::default();
        let first = state.records.front().map_or(state.end, |r| r.position);
        if cursor.0 < first {
            read.dropped = first - cursor.0;
            cursor.0 = first;
        }
        let from = state.records.partition_point(|r| r.end() <= cursor.0);
        let mut bytes = 0;
        for record in state.records.range(from..) {
            let skip = usize::try_from(cursor.0.saturating_sub(record.position)).unwrap_or(usize::MAX);
            if stream.is_none_or(|s| s == record.stream) {
                if bytes >= READ_BYTES {
                    break;
                }
                read.outputs.push(record.output(skip));
                bytes += record.bytes.len() - skip;
            }
            cursor.0 = record.end();
        }
        read
    }

    /// Waits until there is something behind `cursor`. False: the run is over, and there will be nothing more.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: it only waits.
    pub async fn grown_past(&self, cursor: &Cursor) -> bool {
        loop {
            let mut grown = std::pin::pin!(self.grown.notified());
            grown.as_mut().enable();
            {
                let state = self.lock();
                if state.end > cursor.0 {
                    return true;
                }
                if !state.live {
                    return false;
                }
            }
            grown.await;
        }
    }

    /// Bytes that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }
}

impl State {
    fn push(&mut self, stream: StdStream, bytes: &[u8], at: LogTime, bytes_max: usize) {
        let (run, position) = (self.run, self.end);
        self.end += bytes.len() as u64;
        match self.records.back_mut() {
            Some(last) if joins(last, run, stream, bytes.len()) => last.bytes.extend_from_slice(bytes),
            _ => {
                self.records.push_back(Record { position, at, run, stream, bytes: bytes.to_vec() });
                self.cost += RECORD_COST;
            }
        }
        self.cost += bytes.len();
        while self.cost > bytes_max
            && self.records.len() > 1
            && let Some(oldest) = self.records.pop_front()
        {
            self.cost -= oldest.bytes.len() + RECORD_COST;
            self.dropped += oldest.bytes.len() as u64;
        }
    }
}

/// Whether a piece continues a record: the same line of the same stream, so that its time is the line's.
fn joins(last: &Record, run: u32, stream: StdStream, more: usize) -> bool {
    last.run == run
        && last.stream == stream
        && last.bytes.len() + more <= RECORD_BYTES
        && last.bytes.last() != Some(&b'\n')
}

#[async_trait]
impl Sink for Log {
    fn room(&self) -> usize {
        let state = self.lock();
        state.attached.get(&state.run).map_or(ROOM, |queue| ATTACHED_BYTES_MAX.saturating_sub(queue.bytes))
    }

    async fn ready(&self) {
        loop {
            let mut taken = std::pin::pin!(self.taken.notified());
            taken.as_mut().enable();
            if self.room() > 0 {
                return;
            }
            taken.await;
        }
    }

    fn write(&self, stream: StdStream, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let at = clock::now_in_nanos();
        let mut state = self.lock();
        let (run, position) = (state.run, state.end);
        if let Some(queue) = state.attached.get_mut(&run) {
            match queue.records.back_mut() {
                Some(last) if last.stream == stream && last.bytes.len() + bytes.len() <= RECORD_BYTES => {
                    last.bytes.extend_from_slice(&bytes);
                }
                _ => {
                    queue.records.push_back(Record { position, at, run, stream, bytes: bytes.to_vec() });
                    queue.bytes += RECORD_COST;
                }
            }
            queue.bytes += bytes.len();
        }
        state.push(stream, &bytes, at, self.bytes_max);
        drop(state);
        self.grown.notify_waiters();
    }
}

/// A log as the sink of one run.
pub(super) fn sink(log: &Arc<Log>) -> Arc<dyn Sink> {
    Arc::clone(log) as Arc<dyn Sink>
}

#[cfg(test)]
mod tests {
    use super::*;
    use StdStream::{Stderr, Stdout};

    fn put(log: &Log, stream: StdStream, text: &str) {
        log.write(stream, Bytes::copy_from_slice(text.as_bytes()));
    }

    fn text(outputs: Vec<Output>) -> String {
        outputs.into_iter().map(|o| String::from_utf8(o.data.into_bytes().unwrap().to_vec()).unwrap()).collect()
    }

    fn read_all(log: &Log, mut cursor: Cursor, stream: Option<StdStream>) -> String {
        let mut all = String::new();
        loop {
            let read = log.read(&mut cursor, stream);
            if read.outputs.is_empty() {
                return all;
            }
            all += &text(read.outputs);
        }
    }

    #[test]
    fn a_line_in_pieces_is_one_record() {
        let log = Log::new(1000);
        log.begin(1, false);
        for piece in ["a", "b", "\n", "c\n"] {
            put(&log, Stdout, piece);
        }
        put(&log, Stderr, "oops\n");
        let read = log.read(&mut log.start(), None);
        assert_eq!(read.outputs.len(), 3);
        assert_eq!(text(read.outputs), "ab\nc\noops\n");
        assert_eq!(read_all(&log, log.start(), Some(Stderr)), "oops\n");
    }

    #[test]
    fn the_oldest_output_goes_first_and_is_counted() {
        let log = Log::new(10 * (RECORD_COST + 10));
        log.begin(1, false);
        let mut cursor = log.start();
        for i in 0..100 {
            put(&log, Stdout, &format!("line {i:04}\n"));
        }
        assert_eq!(log.dropped(), 900);
        let read = log.read(&mut cursor, None);
        assert_eq!(read.dropped, 900);
        assert!(text(read.outputs).starts_with("line 0090\n"));
    }

    #[test]
    fn single_bytes_stay_within_the_limit_too() {
        let log = Log::new(4096);
        log.begin(1, false);
        for i in 0..100_000 {
            put(&log, if i % 2 == 0 { Stdout } else { Stderr }, "x");
        }
        assert!(log.lock().records.len() * RECORD_COST <= 4096 + RECORD_COST);
    }

    #[test]
    fn the_tail_counts_lines_and_an_unfinished_one() {
        let log = Log::new(10_000);
        log.begin(1, false);
        put(&log, Stdout, "one\ntwo\n");
        put(&log, Stderr, "err\n");
        put(&log, Stdout, "thr");
        put(&log, Stdout, "ee");
        assert_eq!(read_all(&log, log.tail(1, None), None), "three");
        assert_eq!(read_all(&log, log.tail(2, None), None), "err\nthree");
        assert_eq!(read_all(&log, log.tail(2, Some(Stdout)), Some(Stdout)), "two\nthree");
        assert_eq!(read_all(&log, log.tail(99, None), None), "one\ntwo\nerr\nthree");
        assert_eq!(read_all(&log, log.tail(0, None), None), "");
    }

    #[tokio::test]
    async fn an_attached_client_gets_every_byte_and_makes_the_guest_wait() {
        let log = Log::new(1000);
        log.begin(1, true);
        let chunk = "x".repeat(4096);
        let mut written = 0;
        while log.room() >= chunk.len() {
            put(&log, Stdout, &chunk);
            written += chunk.len();
        }
        assert!(written <= ATTACHED_BYTES_MAX && written > ATTACHED_BYTES_MAX / 2, "{written}");
        assert_eq!(text(log.take(1).await.unwrap()).len(), written, "the log's own limit does not touch it");
        log.ready().await;
        put(&log, Stdout, "last");
        log.finish();
        assert_eq!(text(log.take(1).await.unwrap()), "last");
        assert!(log.take(1).await.is_none());
    }

    #[test]
    fn single_bytes_fill_the_queue_of_an_attached_client_too() {
        let log = Log::new(1000);
        log.begin(1, true);
        let mut pieces = 0;
        while log.room() > 0 {
            put(&log, if pieces % 2 == 0 { Stdout } else { Stderr }, "x");
            pieces += 1;
        }
        assert!(pieces * RECORD_COST <= ATTACHED_BYTES_MAX + RECORD_COST, "{pieces}");
    }

    /// The next run may begin before the client of the last one took all, and before it lets go.
    #[tokio::test]
    async fn runs_of_one_name_have_a_queue_each() {
        let log = Log::new(1000);
        log.begin(1, true);
        put(&log, Stdout, "first");
        log.finish();
        log.begin(2, true);
        put(&log, Stdout, "second");
        assert_eq!(text(log.take(1).await.unwrap()), "first");
        assert!(log.take(1).await.is_none());
        log.detach(1);
        assert_eq!(text(log.take(2).await.unwrap()), "second");
    }

    #[tokio::test]
    async fn a_client_that_left_holds_up_nobody() {
        let log = Log::new(1000);
        log.begin(1, true);
        put(&log, Stdout, &"x".repeat(ATTACHED_BYTES_MAX));
        assert_eq!(log.room(), 0);
        log.detach(1);
        log.ready().await;
        assert!(log.room() > 0);
    }

    #[tokio::test]
    async fn a_follower_is_woken_by_output_and_by_the_end() {
        let log = Log::new(1000);
        log.begin(1, false);
        let mut cursor = log.start();
        put(&log, Stdout, "a\n");
        assert!(log.grown_past(&cursor).await);
        log.read(&mut cursor, None);
        log.finish();
        assert!(!log.grown_past(&cursor).await);
    }
}
