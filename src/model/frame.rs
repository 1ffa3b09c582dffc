//! Framing: bytes of a connection become request lines. "Not yet" is not "never", and the peer sizes no allocation.

use crate::error::{Error, Result};
use bytes::{Buf, Bytes, BytesMut};

/// The longest request line, in bytes, without its end.
pub const LINE_BYTES_MAX: usize = 8192;

/// The longest request that silence completes: the original client sends no line end and reads with `recv(1024)`.
pub const SILENT_BYTES_MAX: usize = 1024;

/// The first byte of a TLS record that carries a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Takes the next complete line out of `buffer`, without its LF or CRLF. `None`: more bytes are needed.
///
/// # Errors
///
/// [`Error::LineTooLong`]; [`Error::BadByte`] or [`Error::ForeignProtocol`] as soon as what is there can no longer become a
/// line. After an error nothing in the buffer may be interpreted.
pub fn take_line(buffer: &mut BytesMut) -> Result<Option<Bytes>> {
    match memchr::memchr(b'\n', buffer.get(..LINE_BYTES_MAX + 2).unwrap_or(buffer)) {
        Some(end) => {
            let mut line = buffer.split_to(end).freeze();
            buffer.advance(1);
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if line.len() > LINE_BYTES_MAX {
                // As if it had come without its end: what is wrong with a line does not depend on how it was cut.
                check_bytes(&line)?;
                return Err(Error::LineTooLong { limit: LINE_BYTES_MAX });
            }
            Ok(Some(line))
        }
        None => {
            // One byte more than a line has makes it too long, whatever lies beyond.
            check_bytes(buffer.get(..LINE_BYTES_MAX + 1).unwrap_or(buffer))?;
            // One byte of grace for the CR of a line that is exactly as long as it may be.
            let end = buffer.strip_suffix(b"\r").map_or(buffer.len(), <[u8]>::len);
            if end > LINE_BYTES_MAX {
                return Err(Error::LineTooLong { limit: LINE_BYTES_MAX });
            }
            Ok(None)
        }
    }
}

/// Takes what is there as a request without a line end, if it is short enough to be one.
pub fn take_silent(buffer: &mut BytesMut) -> Option<Bytes> {
    if buffer.len() <= SILENT_BYTES_MAX { take_last(buffer) } else { None }
}

/// Takes what is there as a request without a line end, at the end of a connection. Of a CRLF the first half may have come.
pub fn take_last(buffer: &mut BytesMut) -> Option<Bytes> {
    let mut line = buffer.split().freeze();
    if line.is_empty() {
        return None;
    }
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    Some(line)
}

/// A line as text.
///
/// # Errors
///
/// [`Error::BadByte`] for control bytes other than tab, [`Error::NotUtf8`].
pub fn text(line: &[u8]) -> Result<&str> {
    check_bytes(line)?;
    let text = std::str::from_utf8(line).map_err(|_| Error::NotUtf8)?;
    if let Some(c) = text.chars().find(|c| c.is_control() && *c != '\t') {
        // C1 controls are two bytes of valid UTF-8; the second one is the control's number.
        return Err(Error::BadByte { byte: u8::try_from(u32::from(c)).unwrap_or(u8::MAX) });
    }
    Ok(text)
}

/// A line as the text of a request in words.
///
/// # Errors
///
/// As [`text`], and [`Error::ForeignProtocol`] for a line that a browser could have sent: a web page must not be able to
/// reach the daemon by posting to its port.
pub fn request_text(line: &[u8]) -> Result<&str> {
    let text = text(line)?;
    if is_http(text) { Err(Error::ForeignProtocol("HTTP")) } else { Ok(text) }
}

fn check_bytes(bytes: &[u8]) -> Result<()> {
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return Err(Error::ForeignProtocol("TLS"));
    }
    let is_bad = |b: u8| (b < 0x20 && !matches!(b, b'\t' | b'\r')) || b == 0x7f;
    // All of them first, many at a time: nearly always there is none to be found.
    if !bytes.iter().fold(false, |bad, b| bad | is_bad(*b)) {
        return Ok(());
    }
    match bytes.iter().find(|b| is_bad(**b)) {
        Some(byte) => Err(Error::BadByte { byte: *byte }),
        None => Ok(()),
    }
}

/// A request line (`GET / HTTP/1.1`) or a header (`Host: …`), whatever blanks are around it; no request of ours looks like
/// either.
fn is_http(line: &str) -> bool {
    // Servers of HTTP overlook blanks too (RFC 9112, section 3), so some client sends them.
    let last = line.split_whitespace().next_back().unwrap_or_default();
    if last.strip_prefix("HTTP/").is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit())) {
        return true;
    }
    let first = line.split_whitespace().next().unwrap_or_default();
    first.split_once(':').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(is_token))
}

/// What the name of a header is made of (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use proptest::prelude::*;

    fn lines(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut buffer = BytesMut::from(bytes);
        let mut out = vec![];
        while let Some(line) = take_line(&mut buffer)? {
            out.push(line.to_vec());
        }
        Ok(out)
    }

    #[test]
    fn both_line_ends_are_understood() {
        assert_eq!(lines(b"list\nping\r\n\n").unwrap(), [b"list".to_vec(), b"ping".to_vec(), b"".to_vec()]);
    }

    #[test]
    fn a_line_of_the_limit_passes_and_one_more_byte_does_not() {
        for end in ["\n", "\r\n"] {
            let just = format!("{}{end}", "x".repeat(LINE_BYTES_MAX));
            assert_eq!(lines(just.as_bytes()).unwrap()[0].len(), LINE_BYTES_MAX);
            let over = format!("{}{end}", "x".repeat(LINE_BYTES_MAX + 1));
            assert!(matches!(lines(over.as_bytes()), Err(Error::LineTooLong { .. })));
        }
        assert!(matches!(lines(&vec![b'x'; LINE_BYTES_MAX + 1]), Err(Error::LineTooLong { .. })));
        assert!(lines(&[vec![b'x'; LINE_BYTES_MAX], vec![b'\r']].concat()).unwrap().is_empty());
    }

    /// What came in one piece was called too long, and bad when its end came a moment later.
    #[test]
    fn a_line_that_is_too_long_and_bad_is_refused_alike_in_pieces() {
        let line = |bad: usize, end: &str| {
            let mut line = vec![b'x'; LINE_BYTES_MAX + 1];
            line[bad] = 1;
            [&line[..], end.as_bytes()].concat()
        };
        for end in ["", "\n", "x\n", "\x01\n"] {
            assert!(matches!(lines(&line(LINE_BYTES_MAX, end)), Err(Error::BadByte { byte: 1 })), "{end:?}");
            assert!(matches!(lines(&line(0, end)), Err(Error::BadByte { byte: 1 })), "{end:?}");
        }
        for end in ["\x01", "\x01\n", "x\x01\n", "\r\x01\n"] {
            let good = [&[b'x'; LINE_BYTES_MAX + 1][..], end.as_bytes()].concat();
            assert!(matches!(lines(&good), Err(Error::LineTooLong { .. })), "{end:?}: as without what is behind");
        }
    }

    #[test]
    fn other_protocols_are_recognised() {
        for line in [
            "GET / HTTP/1.1",
            "POST /run HTTP/1.0",
            "Host: localhost",
            "host:x",
            "Content-Type: text/plain",
            "run x HTTP/2",
            "GET / HTTP/1.1 ",
            "GET / HTTP/1.1 \t ",
            "GET /\tHTTP/1.1",
            "POST / HTTP/1.1\u{a0}",
            "X_Api_Key: x",
            "_: x",
            "!#$%&'*+-.^_`|~: x",
            " Host: x",
            "PRI * HTTP/2.0",
        ] {
            assert!(matches!(request_text(line.as_bytes()), Err(Error::ForeignProtocol("HTTP"))), "{line}");
        }
        assert!(matches!(lines(b"\x16\x03\x01\x02\x00"), Err(Error::ForeignProtocol("TLS"))));
        for line in [
            "run hello HTTP/",
            "run hello a:b",
            "run -e A=http://x/ hello",
            "list",
            "run hello HTTP/x",
            "run hello HTTP/1.1 x",
            ": x",
            "(a): x",
            " ",
            ":x",
        ] {
            assert!(request_text(line.as_bytes()).is_ok(), "{line}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        for bytes in [&b"li\0st"[..], b"run \x1b[2J", b"\x7f", b"run \xc2\x9b2J", b"run \xff"] {
            assert_eq!(text(bytes).unwrap_err().code(), crate::Code::BadByte, "{bytes:?}");
        }
        assert_eq!(text("run\thello 🛶".as_bytes()).unwrap(), "run\thello 🛶");
    }

    #[test]
    fn silence_completes_short_requests_only() {
        assert_eq!(take_silent(&mut BytesMut::from(&b"list"[..])).unwrap(), "list");
        assert!(take_silent(&mut BytesMut::new()).is_none());
        assert!(take_silent(&mut BytesMut::from(&vec![b'x'; SILENT_BYTES_MAX][..])).is_some());
        assert!(take_silent(&mut BytesMut::from(&vec![b'x'; SILENT_BYTES_MAX + 1][..])).is_none());
        assert_eq!(take_silent(&mut BytesMut::from(&b"list\r"[..])).unwrap(), "list", "its LF is on the way");
        assert_eq!(take_last(&mut BytesMut::from(&b"\r"[..])).unwrap(), "");
        assert!(take_last(&mut BytesMut::new()).is_none());
    }

    proptest! {
        /// However the network cuts the bytes, the same lines come out.
        #[test]
        fn framing_does_not_depend_on_the_split(
            padding in prop_oneof![Just(0u16), 0x8000 + 8170u16..0x8000 + 8200],
            cuts in any::<[u8; 6]>(),
            parts in prop::collection::vec("[a-z ]{0,20}(\r|\x01|\u{9b}|é)?\n?", 0..12),
        ) {
            check::framing(&[&padding.to_be_bytes()[..], &cuts, parts.concat().as_bytes()].concat());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check::framing(&bytes);
            check::requests(&bytes);
        }
    }
}
