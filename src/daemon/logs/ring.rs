//! The files of one log: a ring of two generations, `ID-GENERATION.log`, of which the newest is written to.
//!
//! No descriptor is held: there may be a hundred thousand logs. What is known of the files is learned from them at the first
//! use after a start, and kept. Calls block on the disk; they belong on a thread that may.

use super::record::{Piece, RECORD_BYTES_MAX, Records};
use crate::model::instance::InstanceId;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that are read at a time.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// The smallest generation, in bytes: it has to hold a few records.
const GENERATION_BYTES_MIN: u64 = 1024;

/// Where all the files are, and how large they get.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    generation_bytes_max: u64,
    /// The room that is left is for the state.
    full: Arc<AtomicBool>,
    /// Bytes of output of all logs that were to be written, and could not be.
    pub(super) unwritten: AtomicU64,
}

impl Disk {
    /// Files in `directory`, of at most `bytes_max` bytes a log; none grows while the disk is `full`.
    pub(super) fn new(directory: &Path, bytes_max: usize, full: Arc<AtomicBool>) -> Disk {
        let generation_bytes_max = (bytes_max as u64 / 2).max(GENERATION_BYTES_MIN);
        Disk { directory: directory.to_owned(), generation_bytes_max, full, unwritten: AtomicU64::new(0) }
    }

    /// The most bytes of output in one record, so that the end of a full generation is not left empty for much.
    pub(super) fn record_bytes_max(&self) -> usize {
        usize::try_from(self.generation_bytes_max / 4).unwrap_or(usize::MAX).min(RECORD_BYTES_MAX)
    }

    fn path(&self, id: InstanceId, generation: u64) -> PathBuf {
        self.directory.join(format!("{}-{generation}.log", id.0))
    }

    /// The generations that have a file, by instance. Names that are not ours are left out.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub(super) fn list(&self) -> io::Result<HashMap<InstanceId, Vec<u64>>> {
        let mut found: HashMap<InstanceId, Vec<u64>> = HashMap::new();
        for entry in std::fs::read_dir(&self.directory)? {
            if let Some((id, generation)) = entry?.file_name().to_str().and_then(parse_name) {
                found.entry(id).or_default().push(generation);
            }
        }
        Ok(found)
    }

    fn remove(&self, id: InstanceId, generation: u64) {
        let path = self.path(id, generation);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => tracing::warn!(path = %path.display(), "cannot remove a log: {e}"),
        }
    }

    fn open_to_append(&self, id: InstanceId, generation: u64, create: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create(create);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(self.path(id, generation))
    }
}

/// `ID-GENERATION.log` in decimal, as it is written here. Above that range a generation would have no next one.
fn parse_name(name: &str) -> Option<(InstanceId, u64)> {
    let (id, generation) = name.strip_suffix(".log")?.split_once('-')?;
    let (id, generation): (u64, u64) = (id.parse().ok()?, generation.parse().ok()?);
    let ours = generation < u64::MAX / 2 && format!("{id}-{generation}.log") == name;
    ours.then_some((InstanceId(id), generation))
}

/// One file, as far as it holds whole records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) number: u64,
    /// Position of its first byte of output.
    pub(super) first: u64,
    /// Bytes of the file that are whole records; there may be more, from a write that was torn.
    pub(super) len: u64,
    /// Bytes of output in them.
    kept: u64,
}

impl Generation {
    fn empty(number: u64) -> Generation {
        Generation { number, first: 0, len: 0, kept: 0 }
    }
}

/// The files of one log.
#[derive(Debug)]
pub(super) struct Ring {
    disk: Arc<Disk>,
    id: InstanceId,
    /// Oldest first; at most two, once they are learned.
    generations: Vec<Generation>,
    /// The number of the next generation.
    next: u64,
    /// Whether `generations` says more than which files there are.
    learned: bool,
    /// Bytes that were ever printed; before the files are learned, only those that could not be written since the start.
    end: u64,
    removed: bool,
    /// Writing failed, and that was said.
    failing: bool,
}

impl Ring {
    /// The ring of an instance that has files of these generations.
    pub(super) fn found(disk: Arc<Disk>, id: InstanceId, mut numbers: Vec<u64>) -> Ring {
        numbers.sort_unstable();
        let next = numbers.last().map_or(1, |newest| newest + 1);
        let learned = numbers.is_empty();
        let generations = numbers.into_iter().map(Generation::empty).collect();
        Ring { disk, id, generations, next, learned, end: 0, removed: false, failing: false }
    }

    /// Finds out what the files hold, unless it is known. They are not changed: a torn end is only passed over.
    ///
    /// # Errors
    ///
    /// A file cannot be read. Nothing is known then; it is tried again at the next use.
    pub(super) fn learn(&mut self) -> io::Result<()> {
        if self.learned {
            return Ok(());
        }
        let (mut learned, mut end) = (Vec::with_capacity(2), 0);
        let surplus = self.generations.len().saturating_sub(2);
        for generation in &self.generations[surplus..] {
            match File::open(self.path(generation.number)) {
                Ok(file) => learned.push(scan(file, generation.number, &mut end)?),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        // Files whose removal failed when their time came.
        for generation in &self.generations[..surplus] {
            self.disk.remove(self.id, generation.number);
        }
        self.generations = learned;
        self.end += end;
        self.learned = true;
        Ok(())
    }

    /// Bytes that were ever printed, as far as they were written or given up.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of its files, if it is known what they hold.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.learned.then(|| self.generations.iter().map(|g| g.len).sum())
    }

    /// Bytes that were printed and are not in the files: too old by now, or never written.
    pub(super) fn dropped(&mut self) -> u64 {
        if let Err(e) = self.learn() {
            tracing::warn!(instance = self.id.0, "the log cannot be read: {e}");
        }
        self.end.saturating_sub(self.generations.iter().map(|g| g.kept).sum())
    }

    /// What is known of the files that hold something, oldest first.
    pub(super) fn generations(&self) -> impl Iterator<Item = Generation> {
        self.generations.iter().copied().filter(|g| g.len > 0)
    }

    /// The file of a generation.
    pub(super) fn path(&self, generation: u64) -> PathBuf {
        self.disk.path(self.id, generation)
    }

    /// Somebody found that a file is gone that was there a moment ago. If it was not its time, it is forgotten here too.
    pub(super) fn check(&mut self, generation: u64) {
        let path = self.path(generation);
        self.generations.retain(|g| g.number != generation || path.exists());
    }

    /// Removes the files, for good: whatever comes later is given up.
    pub(super) fn remove(&mut self) {
        self.removed = true;
        self.learned = true;
        for generation in std::mem::take(&mut self.generations) {
            self.disk.remove(self.id, generation.number);
        }
    }

    /// Writes pieces, in their order. What cannot be written is given up and counted. `buffer` is only there to be used again.
    pub(super) fn append(&mut self, pieces: &[Piece], buffer: &mut Vec<u8>) {
        if self.removed {
            return;
        }
        match self.try_append(pieces, buffer) {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(instance = self.id.0, "the log can be written again");
            }
            Err(e) if !self.failing => {
                self.failing = true;
                tracing::warn!(instance = self.id.0, "the log cannot be written, output is dropped: {e}");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn try_append(&mut self, pieces: &[Piece], buffer: &mut Vec<u8>) -> io::Result<()> {
        let room = match self.disk.full.load(Ordering::Relaxed) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(()),
        };
        if let Err(e) = self.learn().and(room) {
            self.end += pieces.iter().map(Piece::printed).sum::<u64>();
            self.disk.unwritten.fetch_add(pieces.iter().map(|piece| piece.bytes.len() as u64).sum(), Ordering::Relaxed);
            return Err(e);
        }
        // The newest may be gone. What is older is not written to again: its readers are past it.
        if self.generations.last().is_none_or(|newest| newest.number + 1 != self.next) {
            self.begin_generation();
        }
        buffer.clear();
        let (mut kept, mut printed, mut result) = (0, 0, Ok(()));
        for piece in pieces {
            if !piece.bytes.is_empty() {
                let size = piece.encoded_bytes_max() as u64;
                if buffer.is_empty() || !self.fits(buffer.len() as u64, size) {
                    // Also where there is nothing to write: what was skipped is before the next record's position.
                    result = result.and(self.write(buffer, kept, printed));
                    buffer.clear();
                    (kept, printed) = (0, 0);
                    if !self.fits(0, size) {
                        self.begin_generation();
                    }
                }
                piece.encode(self.end + printed, buffer);
                kept += piece.bytes.len() as u64;
            }
            printed += piece.printed();
        }
        result.and(self.write(buffer, kept, printed))
    }

    fn newest(&self) -> Generation {
        self.generations.last().copied().unwrap_or(Generation::empty(0))
    }

    /// Whether the newest generation has room for a record behind what is `buffered` for it; an empty one has.
    fn fits(&self, buffered: u64, size: u64) -> bool {
        let used = self.newest().len + buffered;
        used == 0 || used + size <= self.disk.generation_bytes_max
    }

    /// Begins the next generation, in memory. The files that had their time go first, so that a full disk has room again;
    /// a generation that nothing came of does not cost an older one its place.
    fn begin_generation(&mut self) {
        let before = self.generations.iter().rfind(|g| g.len > 0).copied();
        for generation in std::mem::take(&mut self.generations) {
            if Some(generation) != before {
                self.disk.remove(self.id, generation.number);
            }
        }
        self.generations.extend(before);
        self.generations.push(Generation::empty(self.next));
        self.next += 1;
    }

    /// Writes encoded records with `kept` bytes of output, of the `printed` that there were.
    fn write(&mut self, records: &[u8], kept: u64, printed: u64) -> io::Result<()> {
        let written = self.try_write(records, kept, printed);
        if written.is_err() {
            self.disk.unwritten.fetch_add(kept, Ordering::Relaxed);
        }
        written
    }

    fn try_write(&mut self, records: &[u8], kept: u64, printed: u64) -> io::Result<()> {
        let position = self.end;
        // Whether or not it can be written: a gap in the positions is how readers learn of it.
        self.end += printed;
        if records.is_empty() {
            return Ok(());
        }
        let mut file = self.open_newest()?;
        let len = self.newest().len;
        if let Err(e) = file.write_all(records) {
            // Whole records are behind a torn one only if it is cut off, or in another file.
            if let Err(cut) = file.set_len(len) {
                tracing::debug!(instance = self.id.0, "a generation is given up: {cut}");
                self.begin_generation();
            }
            return Err(e);
        }
        if let Some(newest) = self.generations.last_mut() {
            newest.first = if len == 0 { position } else { newest.first };
            newest.len += records.len() as u64;
            newest.kept += kept;
        }
        Ok(())
    }

    /// Opens the newest file, cut to its whole records; or the next one, if it is not the file that it was.
    fn open_newest(&mut self) -> io::Result<File> {
        let newest = self.newest();
        match self.disk.open_to_append(self.id, newest.number, newest.len == 0) {
            Ok(file) => {
                let len = file.metadata()?.len();
                if len == newest.len || (len > newest.len && file.set_len(newest.len).is_ok()) {
                    return Ok(file);
                }
                if len < newest.len {
                    self.generations.pop();
                    self.disk.remove(self.id, newest.number);
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound && newest.len > 0 => {
                self.generations.pop();
            }
            Err(e) => return Err(e),
        }
        self.begin_generation();
        self.disk.open_to_append(self.id, self.newest().number, true)
    }
}

/// What a file holds. `end`: no record begins before it, and it is moved behind the last one.
fn scan(file: File, number: u64, end: &mut u64) -> io::Result<Generation> {
    let mut generation = Generation::empty(number);
    // What is there is bounded, or a device in the place of a file would be read for ever.
    let bytes = file.metadata()?.len();
    let mut records = Records::new(BufReader::with_capacity(READ_BYTES, file.take(bytes)), *end);
    let mut body = Vec::new();
    while let Some(header) = records.next(&mut body)? {
        if generation.len == 0 {
            generation.first = header.position;
        }
        generation.len = records.whole();
        generation.kept += body.len() as u64;
        *end = header.end();
    }
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::instance::LogTime;
    use crate::model::request::StdStream;

    const ID: InstanceId = InstanceId(7);

    fn piece(text: &str) -> Piece {
        Piece { at: LogTime(1), run: 1, stream: StdStream::Stdout, bytes: text.as_bytes().to_vec(), skipped: 0 }
    }

    fn ring(directory: &Path, bytes_max: usize) -> Ring {
        let disk = Arc::new(Disk::new(directory, bytes_max, Arc::default()));
        let numbers = disk.list().unwrap().remove(&ID).unwrap_or_default();
        Ring::found(disk, ID, numbers)
    }

    fn put(ring: &mut Ring, text: &str) {
        ring.append(&[piece(text)], &mut vec![]);
    }

    fn read(ring: &mut Ring) -> String {
        ring.learn().unwrap();
        let mut text = vec![];
        for generation in ring.generations() {
            let bytes = std::fs::read(ring.path(generation.number)).unwrap();
            let len = usize::try_from(generation.len).unwrap();
            let mut records = Records::new(&bytes[..len], 0);
            let mut body = vec![];
            while records.next(&mut body).unwrap().is_some() {
                text.extend_from_slice(&body);
            }
            assert_eq!(records.whole(), generation.len);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn only_our_own_names_are_ours() {
        assert_eq!(parse_name("12-3.log"), Some((InstanceId(12), 3)));
        for other in
            ["12-3.log~", "012-3.log", "+12-3.log", "12-03.log", "-3.log", "12.log", "12-18446744073709551615.log"]
        {
            assert_eq!(parse_name(other), None, "{other}");
        }
        let directory = tempfile::tempdir().unwrap();
        for name in ["7-1.log", "7-01.log", "notes"] {
            std::fs::write(directory.path().join(name), "mine").unwrap();
        }
        let mut ring = ring(directory.path(), 4096);
        put(&mut ring, "ours\n");
        ring.remove();
        let mut left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["7-01.log", "notes"]);
    }

    /// Whatever the last write was cut down to: what is whole is read, and the next write goes behind it.
    #[test]
    fn a_torn_end_is_passed_over_and_then_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7-1.log");
        let mut first = ring(directory.path(), 4096);
        let mut ends = vec![0];
        for text in ["one\n", "two\n", "three\n"] {
            put(&mut first, text);
            ends.push(std::fs::metadata(&path).unwrap().len());
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            for garbage in [&b""[..], b"\0\0\0\0", b"\xff 1 1 1 0\n"] {
                std::fs::write(&path, [&whole[..cut], garbage].concat()).unwrap();
                let kept = ends.iter().rposition(|end| *end <= cut as u64).unwrap();
                let expected = ["one\n", "two\n", "three\n"][..kept].concat();
                let mut again = ring(directory.path(), 4096);
                assert_eq!(read(&mut again), expected);
                assert_eq!(std::fs::read(&path).unwrap().len(), cut + garbage.len(), "reading changes nothing");
                put(&mut again, "four\n");
                assert_eq!(read(&mut again), expected.clone() + "four\n");
                assert_eq!(again.end(), expected.len() as u64 + 5);
                assert_eq!(again.dropped(), 0);
                assert_eq!(read(&mut ring(directory.path(), 4096)), expected + "four\n", "and so it is after a start");
                assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
            }
        }
    }

    #[test]
    fn a_file_that_was_cut_or_removed_by_others_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let mut ring = ring(directory.path(), 4096);
        put(&mut ring, "one\n");
        put(&mut ring, "two\n");
        File::options().write(true).open(directory.path().join("7-1.log")).unwrap().set_len(10).unwrap();
        put(&mut ring, "three\n");
        assert_eq!((read(&mut ring).as_str(), ring.dropped()), ("three\n", 8));
        std::fs::remove_file(directory.path().join("7-2.log")).unwrap();
        put(&mut ring, "four\n");
        assert_eq!((read(&mut ring).as_str(), ring.dropped()), ("four\n", 14));
        std::fs::remove_file(directory.path().join("7-3.log")).unwrap();
        ring.check(3);
        assert_eq!(ring.dropped(), 19);
        put(&mut ring, "five\n");
        assert_eq!((read(&mut ring).as_str(), ring.dropped()), ("five\n", 19));
    }

    #[test]
    fn files_beyond_two_go_when_they_are_found() {
        let directory = tempfile::tempdir().unwrap();
        for number in 1..=4 {
            let record = format!("1 1 1 2 {}\nx\n\n", 10 * number);
            std::fs::write(directory.path().join(format!("7-{number}.log")), record).unwrap();
        }
        let mut ring = ring(directory.path(), 4096);
        assert_eq!((read(&mut ring).as_str(), ring.end(), ring.dropped()), ("x\nx\n", 42, 38));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        put(&mut ring, "y\n");
        assert_eq!(read(&mut ring), "x\nx\ny\n");
    }

    #[test]
    fn a_newer_file_does_not_go_back_behind_an_older_one() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("7-1.log"), "1 1 1 2 100\nx\n\n").unwrap();
        std::fs::write(directory.path().join("7-2.log"), "1 1 1 2 0\ny\n\n").unwrap();
        let mut ring = ring(directory.path(), 4096);
        assert_eq!((read(&mut ring).as_str(), ring.end()), ("x\n", 102));
        put(&mut ring, "z\n");
        assert_eq!(read(&mut ring), "x\nz\n");
    }

    /// A full disk costs what is printed meanwhile, not what was printed before.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_failed_write_costs_no_older_output() {
        let directory = tempfile::tempdir().unwrap();
        let mut ring = ring(directory.path(), 4096);
        put(&mut ring, "before\n");
        ring.begin_generation();
        for _ in 0..5 {
            let path = ring.path(ring.newest().number);
            std::os::unix::fs::symlink("/dev/full", &path).unwrap();
            put(&mut ring, "lost\n");
            assert!(ring.failing && !path.exists());
        }
        assert_eq!((read(&mut ring).as_str(), ring.dropped()), ("before\n", 25));
        put(&mut ring, "after\n");
        assert_eq!((read(&mut ring).as_str(), ring.dropped(), ring.failing), ("before\nafter\n", 25, false));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
