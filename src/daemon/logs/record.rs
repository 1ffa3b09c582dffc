//! A piece of output, and the record of a log file that keeps it: written here, and read here.
//!
//! ```text
//! NANOSECONDS RUN 1|2 LENGTH POSITION\n
//! LENGTH bytes, as they were printed\n
//! ```
//!
//! NANOSECONDS are those since 1970, 1 and 2 are the guest's descriptors, POSITION is how many bytes the instance had ever
//! printed before. So a person can read the file, bytes that are no text survive, and what is missing between two records
//! can be counted. Files may be torn or damaged: what is not exactly this is the end of what can be read.

use crate::model::instance::LogTime;
use crate::model::reply::{Data, Output};
use crate::model::request::StdStream;
use std::io::{self, BufRead, ErrorKind, Read, Write};

/// The most bytes of output in one record; a file that claims more is damaged.
pub(super) const RECORD_BYTES_MAX: usize = 64 * 1024;
/// What a piece costs beside its bytes, in memory and about that on disk; charged, so that single bytes stay within limits too.
pub(super) const RECORD_COST: usize = 64;
/// The longest header with its line end: a u64, a u32, a digit, five digits, a u64.
const HEADER_BYTES_MAX: usize = 20 + 1 + 10 + 1 + 1 + 1 + 5 + 1 + 20 + 1;
/// Nobody prints that much. A file that claims it is damaged, and so sums of positions do not overflow.
const POSITION_MAX: u64 = 1 << 62;

/// A piece of output in memory.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) at: LogTime,
    pub(super) run: u32,
    pub(super) stream: StdStream,
    pub(super) bytes: Vec<u8>,
    /// Bytes that were printed behind these and are not kept.
    pub(super) skipped: u64,
}

impl Piece {
    /// What was printed, kept or not.
    pub(super) fn printed(&self) -> u64 {
        self.bytes.len() as u64 + self.skipped
    }

    /// What it is charged with.
    pub(super) fn cost(&self) -> usize {
        self.bytes.len() + RECORD_COST
    }

    /// It takes no more than this on disk.
    pub(super) fn encoded_bytes_max(&self) -> usize {
        HEADER_BYTES_MAX + self.bytes.len() + 1
    }

    /// Appends its record to `out`.
    pub(super) fn encode(&self, position: u64, out: &mut Vec<u8>) {
        let stream = 1 + index(self.stream);
        writeln!(out, "{} {} {stream} {} {position}", self.at.0, self.run, self.bytes.len()).expect("a Vec takes all");
        out.extend_from_slice(&self.bytes);
        out.push(b'\n');
    }

    /// For those who asked for it.
    pub(super) fn output(&self) -> Output {
        Output { stream: self.stream, at: self.at, run: self.run, data: Data::of(&self.bytes) }
    }
}

/// 0 for standard output, 1 for standard error.
pub(super) fn index(stream: StdStream) -> usize {
    usize::from(stream == StdStream::Stderr)
}

/// The first line of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) at: LogTime,
    pub(super) run: u32,
    pub(super) stream: StdStream,
    len: usize,
    /// Of the first byte.
    pub(super) position: u64,
}

impl Header {
    /// The position behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.position + self.len as u64
    }

    /// Reads a header, without its line end. `None`: this is none.
    fn parse(line: &[u8]) -> Option<Header> {
        let mut fields = line.split(|b| *b == b' ').map(number);
        let mut next = || fields.next().flatten();
        let at = LogTime(next()?);
        let run = u32::try_from(next()?).ok()?;
        let stream = match next()? {
            1 => StdStream::Stdout,
            2 => StdStream::Stderr,
            _ => return None,
        };
        let len = usize::try_from(next()?).ok().filter(|len| (1..=RECORD_BYTES_MAX).contains(len))?;
        let position = next().filter(|position| *position <= POSITION_MAX)?;
        fields.next().is_none().then_some(Header { at, run, stream, len, position })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    // A sign, which `parse` would take, was never written.
    digits.iter().all(u8::is_ascii_digit).then(|| str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// The whole records of a file, or of a part of it that begins with a record.
pub(super) struct Records<R> {
    input: R,
    line: Vec<u8>,
    /// Bytes of the file that were whole records so far.
    whole: u64,
    /// No record begins before this position.
    least: u64,
}

impl<R: BufRead> Records<R> {
    /// What `input` holds; a record before position `least` would be damage.
    pub(super) fn new(input: R, least: u64) -> Records<R> {
        Records { input, line: Vec::with_capacity(HEADER_BYTES_MAX), whole: 0, least }
    }

    /// Bytes of the file that were whole records so far.
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    /// The next whole record; its bytes replace those in `body`. `None`: here is the end, or nothing that can be read.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(super) fn next(&mut self, body: &mut Vec<u8>) -> io::Result<Option<Header>> {
        self.line.clear();
        let header_max = HEADER_BYTES_MAX as u64;
        self.input.by_ref().take(header_max).read_until(b'\n', &mut self.line)?;
        let Some(header) = self.line.strip_suffix(b"\n").and_then(Header::parse) else { return Ok(None) };
        if header.position < self.least {
            return Ok(None);
        }
        // With the line end behind the bytes.
        body.resize(header.len + 1, 0);
        match self.input.read_exact(body) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        if body.pop() != Some(b'\n') {
            return Ok(None);
        }
        self.whole += (self.line.len() + header.len + 1) as u64;
        self.least = header.end();
        Ok(Some(header))
    }
}

/// Whatever a file holds: what is read is whole records from its beginning, in order, and each of them as it would be written.
/// Panics where that is not so; see [`crate::check`].
pub(crate) fn promise(file: &[u8]) {
    let (all, whole) = records(file);
    assert!(whole <= file.len());
    let (again, same) = records(&file[..whole]);
    assert!(again == all && same == whole, "what comes behind makes a difference");
    // What is lost to a torn write is the last record.
    if let Some(torn) = whole.checked_sub(1) {
        assert!(records(&file[..torn]).0 == all[..all.len() - 1]);
    }
    let mut written = vec![];
    for (header, body) in &all {
        assert_eq!(header.end() - header.position, body.len() as u64);
        let piece = Piece { at: header.at, run: header.run, stream: header.stream, bytes: body.clone(), skipped: 0 };
        let before = written.len();
        piece.encode(header.position, &mut written);
        assert!(written.len() - before <= piece.encoded_bytes_max());
    }
    assert!(all.is_sorted_by(|(one, _), (next, _)| one.end() <= next.position));
    assert!(records(&written) == (all, written.len()), "what is written is not what was read");
}

/// The records that can be read, and how many bytes they take.
fn records(file: &[u8]) -> (Vec<(Header, Vec<u8>)>, usize) {
    let (mut records, mut body, mut all) = (Records::new(file, 0), vec![], vec![]);
    while let Some(header) = records.next(&mut body).expect("a slice can be read") {
        all.push((header, body.clone()));
    }
    (all, usize::try_from(records.whole()).expect("no more than there is"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
        super::records(bytes).0
    }

    #[test]
    fn a_person_can_read_it() {
        let mut out = vec![];
        let at = LogTime(1_700_000_000_000_000_005);
        Piece { at, run: 3, stream: StdStream::Stderr, bytes: b"oops\n".to_vec(), skipped: 0 }.encode(70, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "1700000000000000005 3 2 5 70\noops\n\n");
    }

    #[test]
    fn the_longest_header_is_known() {
        let (at, run, bytes) = (LogTime(u64::MAX), u32::MAX, vec![0; RECORD_BYTES_MAX]);
        let piece = Piece { at, run, stream: StdStream::Stdout, bytes, skipped: 0 };
        let mut out = vec![];
        piece.encode(POSITION_MAX, &mut out);
        assert!(out.len() <= piece.encoded_bytes_max(), "{} bytes", out.len());
        assert_eq!(records(&out).len(), 1);
    }

    #[test]
    fn what_was_never_written_is_damage() {
        assert_eq!(records(b"1 1 1 2 0\nab\n").len(), 1);
        for bad in [
            &b"1 1 1 2 0\nab"[..],
            b"1 1 1 2 0\nabc\n",
            b"1 1 1 0 0\n\n",
            b"1 1 1 -2 0\nab\n",
            b"1 1 1 +2 0\nab\n",
            b"1 1 1  2 0\nab\n",
            b"1 1 1 2 0 \nab\n",
            b"1 1 1 2 0 0\nab\n",
            b"1 1 1 2\nab\n",
            b"1 1 3 2 0\nab\n",
            b"1 4294967296 1 2 0\nab\n",
            b"1 1 1 65537 0\nab\n",
            b"1 1 1 18446744073709551615 0\nab\n",
            b"1 1 1 2 18446744073709551615\nab\n",
            b"99999999999999999999 1 1 2 0\nab\n",
            b"\n",
            b"\0\0\0\0",
            b"",
        ] {
            assert_eq!(records(bad), [], "{}", bad.escape_ascii());
        }
        let huge = [&b"1 1 1 65537 0\n"[..], &[b'x'; RECORD_BYTES_MAX + 1], b"\n"].concat();
        assert_eq!(records(&huge), []);
        let endless = [b'1'; 1000];
        assert_eq!(records(&endless), []);
        assert_eq!(records(b"1 1 1 2 5\nab\n1 1 1 2 6\nab\n").len(), 1, "positions only grow");
    }

    proptest! {
        #[test]
        fn records_survive(pieces in prop::collection::vec((any::<u64>(), any::<u32>(), any::<bool>(),
                prop::collection::vec(any::<u8>(), 1..200)), 0..8)) {
            let (mut out, mut position) = (vec![], 0);
            for (at, run, stderr, bytes) in &pieces {
                let stream = if *stderr { StdStream::Stderr } else { StdStream::Stdout };
                Piece { at: LogTime(*at), run: *run, stream, bytes: bytes.clone(), skipped: 0 }.encode(position, &mut out);
                position += bytes.len() as u64;
            }
            promise(&out);
            let back = records(&out);
            prop_assert_eq!(back.len(), pieces.len());
            for ((header, body), (at, run, stderr, bytes)) in back.iter().zip(&pieces) {
                prop_assert_eq!((header.at.0, header.run, index(header.stream)), (*at, *run, usize::from(*stderr)));
                prop_assert_eq!(body, bytes);
            }
        }

        #[test]
        fn whatever_a_file_holds_only_records_are_read(bytes in prop::collection::vec(prop_oneof![
                any::<u8>(), Just(b' '), Just(b'\n'), Just(b'1'), Just(b'0')], 0..200)) {
            promise(&bytes);
        }
    }
}
