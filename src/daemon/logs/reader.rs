//! Readers of a log: from the files, each at its own pace, so that neither a slow one nor many of them hold up a guest.
//!
//! A reader goes round by round: it asks that what is pending be written, reads up to the end as it is then, and says that there
//! is nothing more for now. So it comes to an end also at a guest that prints faster than it reads. A follower's next round
//! begins with the next write, which it does not hurry: what waits for it is written in larger pieces.

use super::record::{Header, RECORD_COST, Records, index};
use super::ring::{Generation, READ_BYTES, Ring};
use super::{Log, lock};
use crate::daemon::{blocking, clock};
use crate::error::{Error, Result};
use crate::model::instance::LogTime;
use crate::model::reply::{Data, Output};
use crate::model::request::StdStream;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read as _, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// What is wanted of a log.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only the last lines, of those that the rest of this lets through.
    pub tail: Option<usize>,
    /// Nothing older.
    pub since: Option<LogTime>,
    /// Nothing newer.
    pub until: Option<LogTime>,
    /// Only this stream.
    pub stream: Option<StdStream>,
}

impl Query {
    /// Each record is asked, for clocks jump.
    fn wants(&self, header: &Header) -> bool {
        self.stream.is_none_or(|stream| stream == header.stream)
            && self.since.is_none_or(|since| header.at >= since)
            && self.until.is_none_or(|until| header.at <= until)
    }
}

/// What a reader got.
#[derive(Debug, Default)]
pub struct Read {
    /// Bytes that were gone before the reader came to them; they were printed before `outputs`.
    pub dropped: u64,
    /// The next pieces, oldest first.
    pub outputs: Vec<Output>,
}

impl Read {
    /// Nothing more for now.
    fn is_empty(&self) -> bool {
        self.dropped == 0 && self.outputs.is_empty()
    }
}

/// Reads a log, once to its end or on and on.
pub struct Reader {
    log: Arc<Log>,
    query: Query,
    /// When `until` is.
    deadline: Option<Instant>,
    /// `None`: not begun.
    place: Option<Place>,
    /// `until` has passed, and what was printed before it is in the file.
    over: bool,
}

/// Where a reader is.
#[derive(Debug, Clone, Copy)]
struct Place {
    generation: u64,
    /// In its file; a record begins here.
    offset: u64,
    /// Of the next byte that is wanted.
    position: u64,
    /// Where this round ends; `None`: at the end as it will be found.
    round: Option<u64>,
}

impl Reader {
    pub(super) fn new(log: Arc<Log>, query: Query) -> Reader {
        // Too far away to be said is never.
        let deadline = query.until.and_then(|until| {
            let nanos = until.0.saturating_sub(clock::now_in_nanos().0);
            Instant::now().checked_add(Duration::from_nanos(nanos))
        });
        Reader { log, query, deadline, place: None, over: false }
    }

    /// The next pieces, about 64 KiB at most. Neither output nor a gap: that was all that had been printed when this round
    /// began; the next call begins another one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was not returned is read again.
    pub async fn next(&mut self) -> Result<Read> {
        let mut place = self.begun().await?;
        match place.round {
            Some(end) if place.position >= end => {
                self.place = Some(Place { round: None, ..place });
                return Ok(Read::default());
            }
            Some(_) => {}
            None => self.log.flushed().await,
        }
        let query = self.query.clone();
        let (place, read) = self
            .with_ring(move |ring| {
                let read = read(ring, &mut place, &query)?;
                if read.is_empty() {
                    place.round = None;
                }
                Ok((place, read))
            })
            .await?;
        self.place = Some(place);
        Ok(read)
    }

    /// Waits until there is more to read. False: nothing more will come, because the instance is over, its log was removed, or
    /// `until` has passed.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: it only waits.
    pub async fn grown(&mut self) -> bool {
        // What is wrong with the file, the next read says.
        let Ok(mut place) = self.begun().await else { return true };
        let mut progress = self.log.progress.subscribe();
        let mut flushed = false;
        loop {
            let seen = *progress.borrow_and_update();
            let passed = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
            let ends = passed || !seen.may_grow();
            if ends && !flushed {
                // What was printed at the end may still be on its way to the file.
                self.log.flushed().await;
                flushed = true;
                continue;
            }
            flushed = ends;
            let end = place.round.unwrap_or_default().max(seen.end);
            if place.position < end && !self.over {
                place.round = Some(end);
                self.place = Some(place);
                // One more round, however much is printed after `until`.
                self.over = passed;
                return true;
            }
            if ends {
                return false;
            }
            let deadline = async {
                match self.deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender is in `self.log`; it cannot be gone.
                _changed = progress.changed() => {}
                () = deadline => {}
            }
        }
    }

    /// The place, found if it is not known yet.
    async fn begun(&mut self) -> Result<Place> {
        if let Some(place) = self.place {
            return Ok(place);
        }
        self.log.flushed().await;
        let query = self.query.clone();
        let place = self.with_ring(move |ring| begin(ring, &query)).await?;
        self.place = Some(place);
        Ok(place)
    }

    async fn with_ring<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mutex<Ring>) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let ring = Arc::clone(&self.log.ring);
        blocking(move || work(&ring)).await.map_err(|e| Error::io("cannot read the log", &e))
    }
}

/// Finds where a reader begins: at the oldest record that is kept, or at the line that the tail begins with.
fn begin(ring: &Mutex<Ring>, query: &Query) -> io::Result<Place> {
    let (generations, end) = look(ring)?;
    let round = Some(end);
    let Some(lines) = query.tail else {
        let position = generations.first().map_or(end, |oldest| oldest.first);
        return Ok(Place { generation: 0, offset: 0, position, round });
    };
    let newest = generations.last().map_or((0, 0), |newest| (newest.number, newest.len));
    let mut place = Place { generation: newest.0, offset: newest.1, position: end, round };
    if lines == 0 {
        return Ok(place);
    }
    // Open from here on: what is rotated away meanwhile can be read to its end.
    let mut files = Vec::with_capacity(generations.len());
    for generation in generations {
        if let Some(file) = open(ring, generation.number)? {
            files.push((generation, file));
        }
    }
    // Twice over the files, and nothing of a log's size in memory.
    let mut count = 0_usize;
    each_line(&files, query, |_, _, _| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    let mut before = count.saturating_sub(lines);
    each_line(&files, query, |generation, offset, position| {
        if before > 0 {
            before -= 1;
            return ControlFlow::Continue(());
        }
        place = Place { generation, offset, position, round };
        ControlFlow::Break(())
    })?;
    Ok(place)
}

/// Tells where each line begins that `query` wants: in which generation, in the record at which offset, at which position. A
/// stream's line goes on over the records of the other stream.
fn each_line(
    files: &[(Generation, File)],
    query: &Query,
    mut line: impl FnMut(u64, u64, u64) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut within = [false; 2];
    let mut run = 0;
    let mut body = Vec::new();
    for (generation, file) in files {
        let mut records = records(file, 0, generation.len)?;
        let mut offset = 0;
        while let Some(header) = records.next(&mut body)? {
            if header.run != run {
                // No line goes on in the next run.
                (within, run) = ([false; 2], header.run);
            }
            if query.wants(&header) {
                let within = &mut within[index(header.stream)];
                let mut position = header.position;
                for piece in body.split_inclusive(|byte| *byte == b'\n') {
                    if !*within && line(generation.number, offset, position).is_break() {
                        return Ok(());
                    }
                    *within = !piece.ends_with(b"\n");
                    position += piece.len() as u64;
                }
            }
            offset = records.whole();
        }
    }
    Ok(())
}

/// Reads on from `place`, which is moved.
fn read(ring: &Mutex<Ring>, place: &mut Place, query: &Query) -> io::Result<Read> {
    let mut read = Read::default();
    let mut body = Vec::new();
    let mut cost = 0;
    loop {
        let (generations, end) = look(ring)?;
        let round = *place.round.get_or_insert(end);
        if place.position >= round {
            return Ok(read);
        }
        let at =
            |g: &&Generation| g.number > place.generation || (g.number == place.generation && g.len > place.offset);
        let Some(generation) = generations.iter().find(at) else {
            // What was printed and is not in the files is gone.
            if read.outputs.is_empty() {
                read.dropped += end.saturating_sub(place.position);
                place.position = end;
            }
            return Ok(read);
        };
        // Rotated away since: look again.
        let Some(file) = open(ring, generation.number)? else { continue };
        if generation.number != place.generation {
            (place.generation, place.offset) = (generation.number, 0);
        }
        let mut records = records(&file, place.offset, generation.len)?;
        let begin = place.offset;
        while place.position < round {
            let Some(header) = records.next(&mut body)? else {
                // Or damaged since; then positions tell what is missed.
                place.offset = generation.len;
                break;
            };
            let missed = header.position.saturating_sub(place.position);
            if missed > 0 && !read.outputs.is_empty() {
                return Ok(read);
            }
            read.dropped += missed;
            // The first record of a tail may begin with older lines.
            let skip = usize::try_from(place.position.saturating_sub(header.position)).unwrap_or(usize::MAX);
            place.offset = begin + records.whole();
            place.position = header.end();
            let bytes = body.get(skip..).unwrap_or_default();
            if !bytes.is_empty() && query.wants(&header) {
                let data = Data::of(bytes);
                read.outputs.push(Output { stream: header.stream, at: header.at, run: header.run, data });
                cost += bytes.len() + RECORD_COST;
                if cost >= READ_BYTES {
                    return Ok(read);
                }
            }
        }
    }
}

/// What is in the files, and the position behind all that was printed.
fn look(ring: &Mutex<Ring>) -> io::Result<(Vec<Generation>, u64)> {
    let mut ring = lock(ring);
    ring.learn()?;
    Ok((ring.generations().collect(), ring.end()))
}

/// Opens a generation. `None`: it is gone, and the ring knows. Opened without the ring's lock: however many readers there are,
/// the writer does not wait for them.
fn open(ring: &Mutex<Ring>, generation: u64) -> io::Result<Option<File>> {
    let path = lock(ring).path(generation);
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            lock(ring).check(generation);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// The records of a file from `offset` on, as far as they were whole.
fn records(mut file: &File, offset: u64, len: u64) -> io::Result<Records<BufReader<io::Take<&File>>>> {
    file.seek(SeekFrom::Start(offset))?;
    Ok(Records::new(BufReader::with_capacity(READ_BYTES, file.take(len.saturating_sub(offset))), 0))
}
