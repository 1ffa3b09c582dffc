//! Counts the lines, words and bytes of its standard input, as `wc` does.

use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = count(io::stdin().lock()).and_then(|counts| {
        let Counts { lines, words, bytes } = counts;
        writeln!(io::stdout(), "{lines} {words} {bytes}")
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wordcount: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What `wc` prints, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Line ends: a last line without one is not counted.
    lines: u64,
    /// Runs of bytes that are not white space.
    words: u64,
    bytes: u64,
}

/// Reads `input` to its end, a buffer at a time: it may be of any length.
fn count(mut input: impl Read) -> io::Result<Counts> {
    let mut buffer = vec![0; 64 * 1024];
    let mut counts = Counts::default();
    // Kept from one buffer to the next, which may begin inside a word.
    let mut in_word = false;
    loop {
        let chunk = match input.read(&mut buffer) {
            Ok(0) => return Ok(counts),
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        counts.bytes += chunk.len() as u64;
        for &byte in chunk {
            counts.lines += u64::from(byte == b'\n');
            let was_in_word = in_word;
            in_word = !is_space(byte);
            counts.words += u64::from(in_word && !was_in_word);
        }
    }
}

/// C's `isspace`: Rust's own test leaves the vertical tab out.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &[u8], lines: u64, words: u64, bytes: u64) {
        assert_eq!(count(input).unwrap(), Counts { lines, words, bytes });
    }

    #[test]
    fn counts_what_wc_counts() {
        check(b"", 0, 0, 0);
        check(b"\n", 1, 0, 1);
        check(b"one two\nthree\n", 2, 3, 14);
        check(b"  no line end  ", 0, 3, 15);
        check("Grüße\u{2003}\n".as_bytes(), 1, 1, 11);
        check(b"a\tb\x0bc\x0cd\re", 0, 5, 9);
    }

    #[test]
    fn a_word_may_cross_the_end_of_the_buffer() {
        check(&[b'x'; 200_000], 0, 1, 200_000);
    }

    #[test]
    fn short_reads_change_nothing() {
        let input = b"one two".chain(&b"three\nfour"[..]);
        let expected = Counts { lines: 1, words: 3, bytes: 17 };
        assert_eq!(count(input).unwrap(), expected);
    }
}
