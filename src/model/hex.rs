//! Hexadecimal digits: of digests, of tokens.

use std::fmt::Write as _;

/// Two lower-case digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _infallible = write!(out, "{byte:02x}");
        out
    })
}

/// Exactly 64 digits, of either case. `None`: it is something else.
pub fn decode_32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_64_digits_are_32_bytes() {
        let digits = "aF0".repeat(30);
        assert_eq!(decode_32(&digits[..64]).unwrap()[..3], [0xaf, 0x0a, 0xf0]);
        for length in [0, 2, 62, 63, 65, 66] {
            assert_eq!(decode_32(&digits[..length]), None, "{length}");
        }
        for bad in ["+", "-", " ", "g", "/", ":", "@"] {
            assert_eq!(decode_32(&format!("{bad}{}", &digits[..63])), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(decode_32(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}|[0-9a-fA-F]{62,66}|[0-9a-fA-F+]{62,66}") {
            let fits = text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
            prop_assert_eq!(decode_32(&text).is_some(), fits);
        }
    }
}
