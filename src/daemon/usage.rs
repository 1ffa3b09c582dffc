//! How much is in a guest's directory: one walk before a run, off the command path.
//!
//! A guest made the tree, perhaps to break whoever walks it. So it is walked without recursion, with two descriptors however
//! deep it is: down by name, and back up by `..`, to where the directory was left. No link is followed, no mount crossed,
//! nothing changed. Memory is a few bytes for each level.

use super::removal::{READ, entry};
use crate::engine::Usage;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, fstat, openat, statat};
use rustix::io::{Errno, Result};
use std::collections::HashSet;
use tokio_util::sync::CancellationToken;

/// Files with several names that are remembered; of more, each name is charged as a file of its own.
const SHARED_MAX: usize = 100_000;

/// A directory that is being read.
struct Level {
    inode: u64,
    /// Behind the entry that was read last.
    at: i64,
}

/// What is below `top`. What the daemon may not open, no guest can either: it is one name. `unwanted` ends it early.
///
/// # Errors
///
/// What the system says; [`Errno::STALE`] if the tree is changed meanwhile so that the way back up is lost.
pub(super) fn count(top: impl AsFd, unwanted: &CancellationToken) -> Result<Usage> {
    let stat = fstat(&top)?;
    let device = stat.st_dev;
    let mut dir = Dir::read_from(&top)?;
    let mut here = Level { inode: stat.st_ino, at: 0 };
    let mut above: Vec<Level> = vec![];
    let mut shared = HashSet::new();
    let mut usage = Usage::default();
    loop {
        if unwanted.is_cancelled() {
            return Err(Errno::CANCELED);
        }
        let Some(entry) = entry(&mut dir)? else {
            let Some(up) = above.pop() else { return Ok(usage) };
            let parent = openat(dir.fd()?, c"..", READ, Mode::empty())?;
            let stat = fstat(&parent)?;
            if stat.st_dev != device || stat.st_ino != up.inode {
                return Err(Errno::STALE);
            }
            dir = Dir::new(parent)?;
            resume(&mut dir, &up)?;
            here = up;
            continue;
        };
        advance(&mut here, &entry);
        let stat = match statat(dir.fd()?, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        usage.files += 1;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if stat.st_dev == device => {
                let Ok(sub) = openat(dir.fd()?, entry.file_name(), READ, Mode::empty()) else { continue };
                let stat = fstat(&sub)?;
                if stat.st_dev == device {
                    dir = Dir::new(sub)?;
                    above.push(std::mem::replace(&mut here, Level { inode: stat.st_ino, at: 0 }));
                }
            }
            FileType::RegularFile | FileType::Symlink => {
                let again = stat.st_nlink > 1 && shared.len() < SHARED_MAX && !shared.insert(stat.st_ino);
                if !again {
                    usage.bytes = usage.bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
                }
            }
            _ => {}
        }
    }
}

/// Linux's positions hold for every handle on a directory (getdents64(2), `d_off`).
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn advance(level: &mut Level, entry: &rustix::fs::DirEntry) {
    level.at = entry.offset();
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn resume(dir: &mut Dir, level: &Level) -> Result<()> {
    dir.seek(level.at)
}

/// Elsewhere they hold for one handle, and entries are counted.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn advance(level: &mut Level, _: &rustix::fs::DirEntry) {
    level.at += 1;
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn resume(dir: &mut Dir, level: &Level) -> Result<()> {
    for _ in 0..level.at {
        entry(dir)?;
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::fs::File;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn counted(path: &Path) -> Usage {
        count(File::open(path).unwrap(), &CancellationToken::new()).unwrap()
    }

    #[test]
    fn an_empty_directory_is_nothing() {
        assert_eq!(counted(tempfile::tempdir().unwrap().path()), Usage::default());
    }

    #[test]
    fn sizes_are_those_that_files_show_and_one_file_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/ten"), [0; 10]).unwrap();
        std::fs::hard_link(at("a/b/ten"), at("again")).unwrap();
        File::create(at("sparse")).unwrap().set_len(1 << 30).unwrap();
        symlink("/etc", at("link")).unwrap();
        symlink("a", at("a/up")).unwrap();
        // a, b, ten, again, sparse, link, up; the targets "/etc" and "a".
        assert_eq!(counted(dir.path()), Usage { bytes: 10 + (1 << 30) + 4 + 1, files: 7 });
    }

    /// What lies beside a way down is found on the way up.
    #[test]
    fn a_wide_tree_with_something_in_each_directory_is_counted_whole() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..300 {
            let sub = dir.path().join(format!("{i:0100}"));
            std::fs::create_dir(&sub).unwrap();
            std::fs::write(sub.join("x"), "1234567").unwrap();
            std::fs::write(dir.path().join(format!("file{i}")), "123").unwrap();
        }
        assert_eq!(counted(dir.path()), Usage { bytes: 300 * 10, files: 900 });
    }

    #[test]
    fn a_tree_deeper_than_a_path_may_be_long_is_counted_whole() {
        let dir = tempfile::tempdir().unwrap();
        let name = "d".repeat(100);
        let mut at = rustix::fd::OwnedFd::from(File::open(dir.path()).unwrap());
        for _ in 0..1000 {
            mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = openat(&at, name.as_str(), READ, Mode::empty()).unwrap();
        }
        openat(&at, "end", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, Mode::RWXU).unwrap();
        assert_eq!(counted(dir.path()), Usage { bytes: 0, files: 1001 });
        let meta = std::os::unix::fs::MetadataExt::dev(&dir.path().metadata().unwrap());
        let inode = std::os::unix::fs::MetadataExt::ino(&dir.path().metadata().unwrap());
        // Nothing of the standard library's can.
        crate::daemon::removal::remove_tree(dir.path(), meta, inode).unwrap();
    }

    #[test]
    fn nobody_waits_for_a_count_that_is_unwanted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), "x").unwrap();
        let unwanted = CancellationToken::new();
        unwanted.cancel();
        assert_eq!(count(File::open(dir.path()).unwrap(), &unwanted), Err(Errno::CANCELED));
    }
}
