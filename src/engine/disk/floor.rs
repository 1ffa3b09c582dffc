//! Room that guests leave free on the file system of their directories: for what else lives there, and so that a guest within its
//! own budget cannot fill a disk that the daemon's state is on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much may be written between two looks, at most: what several guests write at the same time may go that far below.
const LOOK_EVERY_BYTES: u64 = 8 << 20;
/// What a new name costs: at least a block.
pub(super) const NAME_BYTES: u64 = 4096;

/// One for all instances.
#[derive(Debug)]
pub struct Floor {
    directory: PathBuf,
    keep: u64,
    /// Bytes that may be written before somebody looks again.
    allowance: AtomicU64,
}

impl Floor {
    /// Keeps so many bytes free where this directory is.
    pub fn new(directory: PathBuf, keep: u64) -> Floor {
        Floor { directory, keep, allowance: AtomicU64::new(0) }
    }

    /// Whether so much more may be written. Looks at the file system at times (statvfs(3)), which takes a microsecond; where it
    /// does not say, nothing is refused.
    pub(super) fn allows(&self, bytes: u64) -> bool {
        if self.allowance.try_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok() {
            return true;
        }
        let Some(free) = free_bytes(&self.directory) else { return true };
        let Some(left) = free.checked_sub(self.keep.saturating_add(bytes)) else { return false };
        // A part of what is left, so that the nearer the floor is the more often it is looked for.
        self.allowance.store((left / 8).min(LOOK_EVERY_BYTES), Relaxed);
        true
    }
}

#[cfg(unix)]
fn free_bytes(directory: &std::path::Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &std::path::Path) -> Option<u64> {
    None
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_would_go_below_the_floor_is_refused_and_what_is_above_is_not() {
        let directory = std::env::temp_dir();
        let free = free_bytes(&directory).unwrap();
        let above = Floor::new(directory.clone(), free / 2);
        assert!(above.allows(1) && above.allows(free / 4));
        assert!(!above.allows(free));
        assert!(!Floor::new(directory, free.saturating_mul(2)).allows(1));
        assert!(Floor::new("/nowhere/at/all".into(), u64::MAX).allows(1), "nothing is known");
    }
}
