//! SHA-256 of what is too large to be in memory.

use crate::model::hex::encode as hex;
use sha2::{Digest, Sha256};
use std::io::{Read, Result};

/// Bytes that are hashed at a time.
const CHUNK: usize = 64 * 1024;

/// The digest of all that can be read, in hex, and its length.
///
/// # Errors
///
/// What the system says.
pub(super) fn of(mut bytes: impl Read) -> Result<(String, u64)> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        match bytes.read(&mut chunk)? {
            0 => return Ok((hex(&hash.finalize()), length)),
            n => {
                hash.update(&chunk[..n]);
                length += n as u64;
            }
        }
    }
}
