//! Room that guests leave free on the file system of their directories: for what else lives there, and so that a guest within its
//! own budget cannot fill a disk that the daemon's state is on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much may be written between two looks, at most: what several guests begin to write at the same time may go that far below.
const LOOK_EVERY_BYTES: u64 = 8 << 20;
/// What a new name costs: at least a block.
pub(super) const NAME_BYTES: u64 = 4096;

/// Files that others can still make, at the most.
const FILES_KEPT_MAX: u64 = 10_000;

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

    /// Bytes that are free on the file system, for users as ours. `None`: it does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        Space::of(&self.directory).map(|space| space.bytes)
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
        let Some(space) = Space::of(&self.directory) else { return Some(grant) };
        let left = space.left(self.keep.saturating_add(granted))?;
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

/// What a file system has left.
#[derive(Debug, Clone, Copy)]
struct Space {
    bytes: u64,
    /// Files that may still be made, and how many there may be in all; 0 where they are not counted.
    files: (u64, u64),
}

impl Space {
    #[cfg(unix)]
    fn of(directory: &std::path::Path) -> Option<Space> {
        let stat = rustix::fs::statvfs(directory).ok()?;
        let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        Some(Space { bytes, files: (stat.f_favail, stat.f_files) })
    }

    #[cfg(not(unix))]
    fn of(_: &std::path::Path) -> Option<Space> {
        None
    }

    /// Bytes above the floor. Empty files take no bytes, but each is one of so many, and without one nobody writes anything new:
    /// a hundredth of them is kept too.
    fn left(self, keep: u64) -> Option<u64> {
        let bytes = self.bytes.checked_sub(keep)?;
        match self.files {
            (_, 0) => Some(bytes),
            (free, all) => {
                let files = free.checked_sub((all / 100).min(FILES_KEPT_MAX))?;
                Some(bytes.min(files.saturating_mul(NAME_BYTES)))
            }
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn floor(directory: PathBuf, keep: u64) -> Arc<Floor> {
        Arc::new(Floor::new(directory, keep))
    }

    fn free_bytes(directory: &std::path::Path) -> Option<u64> {
        Space::of(directory).map(|space| space.bytes)
    }

    #[test]
    fn files_are_left_too_where_they_are_counted() {
        let left = |free: u64, all: u64| Space { bytes: 1 << 40, files: (free, all) }.left(1 << 39);
        assert_eq!(left(0, 0), Some(1 << 39), "btrfs does not count them");
        assert_eq!(left(1 << 30, 1 << 31), Some(1 << 39));
        assert_eq!((left(80, 8000), left(79, 8000)), (Some(0), None));
        assert_eq!(left(10_003, 1 << 31), Some(3 * NAME_BYTES));
        assert_eq!(left(9_999, 1 << 31), None);
        assert_eq!(Space { bytes: 5, files: (1 << 30, 1 << 31) }.left(6), None);
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
