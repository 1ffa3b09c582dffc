//! Room that guests leave free on the file system of their directories: for what else lives there, and so that a guest within its
//! own budget cannot fill a disk that the daemon's state is on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much may be written between two looks, at most: what several guests begin to write at the same time may go that far below.
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
    /// Bytes that were granted and may still be written: a look does not see them.
    granted: AtomicU64,
}

/// Room for something that is about to be written. Dropped when it is written, or will not be.
#[derive(Debug)]
pub(super) struct Grant {
    floor: Arc<Floor>,
    bytes: u64,
}

impl Floor {
    /// Keeps so many bytes free where this directory is.
    pub fn new(directory: PathBuf, keep: u64) -> Floor {
        Floor { directory, keep, allowance: AtomicU64::new(0), granted: AtomicU64::new(0) }
    }

    /// Room for so much more, if there is. Looks at the file system at times (statvfs(3)), which takes a microsecond; where it
    /// does not say, nothing is refused.
    pub(super) fn grant(self: &Arc<Floor>, bytes: u64) -> Option<Grant> {
        // Before the look, so that of two who look at once at least one sees the other.
        let granted = self.granted.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let grant = Grant { floor: Arc::clone(self), bytes };
        if self.allowance.try_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok() {
            return Some(grant);
        }
        let Some(free) = free_bytes(&self.directory) else { return Some(grant) };
        let left = free.checked_sub(self.keep.saturating_add(granted))?;
        // A part of what is left, so that the nearer the floor is the more often it is looked for.
        self.allowance.store((left / 8).min(LOOK_EVERY_BYTES), Relaxed);
        Some(grant)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.floor.granted.fetch_sub(self.bytes, Relaxed);
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

    fn floor(directory: PathBuf, keep: u64) -> Arc<Floor> {
        Arc::new(Floor::new(directory, keep))
    }

    #[test]
    fn what_would_go_below_the_floor_is_refused_and_what_is_above_is_not() {
        let directory = std::env::temp_dir();
        let free = free_bytes(&directory).unwrap();
        let above = floor(directory.clone(), free / 2);
        assert!(above.grant(1).is_some() && above.grant(free / 4).is_some());
        assert!(above.grant(free).is_none());
        assert!(floor(directory, free.saturating_mul(2)).grant(1).is_none());
        assert!(floor("/nowhere/at/all".into(), u64::MAX).grant(1).is_some(), "nothing is known");
    }

    #[test]
    fn what_is_granted_and_not_yet_written_is_not_granted_again() {
        let directory = std::env::temp_dir();
        let free = free_bytes(&directory).unwrap();
        let floor = floor(directory, free / 2);
        // Others use the disk too, so nothing here is near its edge.
        let first = floor.grant(free / 3);
        assert!(first.is_some());
        assert!(floor.grant(free / 3).is_none());
        assert!(floor.grant(free / 3).is_none(), "what was refused is not granted");
        assert!(floor.grant(free / 16).is_some());
        drop(first);
        assert!(floor.grant(free / 3).is_some());
    }
}
