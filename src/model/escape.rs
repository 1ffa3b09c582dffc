//! The one place that makes text of guests, modules and clients safe for a terminal, a log or a reply.

use std::borrow::Cow;
use std::fmt::Write;

/// Characters that move the cursor, change colours, reorder text or break a line: C0, DEL, C1, the bidirectional
/// controls, the line and paragraph separators, zero-width characters and the byte order mark.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line of printable text: whatever moves a cursor, reorders text or breaks a line becomes an escape of ASCII (`\n`, `\x1b`, `\u{202e}`).
///
/// A backslash stays as it is: the result is for reading, not for parsing back.
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_unsafe(c) && u32::from(c) < 0x100 => {
                write!(out, "\\x{:02x}", u32::from(c)).expect("a String takes all")
            }
            c if is_unsafe(c) => write!(out, "\\u{{{:x}}}", u32::from(c)).expect("a String takes all"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// JSON in which nothing is left that a terminal or a framing rule would act on: the same text with `\u` escapes (RFC 8259,
/// section 7). Line ends between tokens stay; within strings JSON has escaped them already.
pub fn json(text: String) -> String {
    if !text.contains(|c| is_unsafe(c) && c != '\n') {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("a String takes all");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// [`line()`] for bytes: what is not UTF-8 becomes `\xNN`.
pub fn line_of_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&line(chunk.valid()));
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("a String takes all");
        }
    }
    out
}

/// [`line()`], cut to at most `bytes_max` bytes of result; a cut is marked by `…`.
pub fn short(text: &str, bytes_max: usize) -> String {
    // Escaping only ever lengthens, so more input than this cannot appear in the result.
    let head = &text[..text.floor_char_boundary(bytes_max.saturating_add(1))];
    let escaped = line(head);
    if escaped.len() <= bytes_max && head.len() == text.len() {
        return escaped.into_owned();
    }
    let room = escaped.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8()));
    format!("{}…", &escaped[..room])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_and_reordering_characters_become_visible() {
        assert_eq!(line("a\x1b[31mb\r\n\u{202e}\u{85}"), "a\\x1b[31mb\\r\\n\\u{202e}\\x85");
        assert_eq!(line("Grüße 🛶 \\o/"), "Grüße 🛶 \\o/");
        assert_eq!(json("[\"\u{7f}\u{202e}\u{e0041}\"]\n".into()), "[\"\\u007f\\u202e\\udb40\\udc41\"]\n");
        assert_eq!(line_of_bytes(b"ok \xff\xfe\x00"), "ok \\xff\\xfe\\x00");
    }

    #[test]
    fn a_cut_is_marked_and_stays_within_its_room() {
        assert_eq!(short("hello", 5), "hello");
        assert_eq!(short("hello!", 5), "he…");
        assert!(short(&"\x1b".repeat(500), 64).len() <= 64);
    }

    proptest! {
        #[test]
        fn escaped_text_is_one_printable_line(s in any::<String>(), max in 8usize..300) {
            prop_assert!(!line(&s).contains(is_unsafe));
            let cut = short(&s, max);
            prop_assert!(cut.len() <= max);
            prop_assert!(!cut.contains(is_unsafe));
            prop_assert!(!line_of_bytes(s.as_bytes()).contains(is_unsafe));
            let text = json(serde_json::to_string(&s).unwrap());
            prop_assert!(!text.contains(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<String>(&text).unwrap(), s);
        }
    }
}
