//! Files of the `--modules` directories: what they hold now, read only if it may have changed.

use super::{Content, Modules};
use crate::daemon::{blocking, digest};
use crate::error::{Error, Result};
use crate::model::name::Name;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Files that are read whole at a time. More would take the disk and the processors from each other.
pub(super) const HASHED_MAX: usize = 2;

/// A file that was changed this recently may change again without its times showing it, so it is read again.
const TIMESTAMP_GRAIN: Duration = Duration::from_secs(2);

/// What changes when a file does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// When anything of it changed, its times too: nobody sets this one (inode(7), ctime).
    changed: Option<SystemTime>,
    identity: (u64, u64),
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Stamp {
        #[cfg(unix)]
        let identity = (std::os::unix::fs::MetadataExt::dev(meta), std::os::unix::fs::MetadataExt::ino(meta));
        #[cfg(not(unix))]
        let identity = (0, 0);
        Stamp { bytes: meta.len(), modified: meta.modified().ok(), changed: changed(meta), identity }
    }

    /// Whether the same stamp later means the same bytes.
    pub(super) fn is_settled(&self) -> bool {
        let last = self.modified.map(|modified| self.changed.unwrap_or(modified).max(modified));
        last.and_then(|last| last.elapsed().ok()).is_some_and(|age| age > TIMESTAMP_GRAIN)
    }
}

#[cfg(unix)]
fn changed(meta: &Metadata) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt;
    let since = Duration::new(u64::try_from(meta.ctime()).ok()?, u32::try_from(meta.ctime_nsec()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> Option<SystemTime> {
    None
}

impl Modules {
    /// What the file holds.
    ///
    /// # Errors
    ///
    /// [`Error::NoModule`], [`Error::BadModule`], [`Error::Io`], [`Error::Limit`] for one that is too large.
    pub(super) async fn file_content(&self, name: &Name, path: &Path) -> Result<Content> {
        let (this, owned, at) = (self.clone(), name.clone(), path.to_owned());
        if let Ok(content) = blocking(move || this.look(&owned, &at)).await? {
            return Ok(content);
        }
        // Nothing is open while it waits.
        let turn = Arc::clone(&self.0.hashing).acquire_owned().await;
        let turn = turn.map_err(|_| Error::Internal("files are no longer read".to_owned()))?;
        let (this, name, path) = (self.clone(), name.clone(), path.to_owned());
        // The turn goes with the work, and not with whoever gives up waiting for it.
        blocking(move || {
            let _turn = turn;
            match this.look(&name, &path)? {
                // Whoever was before read it.
                Ok(content) => Ok(content),
                Err((file, stamp)) => this.hash(&path, &file, stamp),
            }
        })
        .await
    }

    /// What is known of the file, or the file, which has to be read.
    fn look(&self, name: &Name, path: &Path) -> Result<std::result::Result<Content, (File, Stamp)>> {
        let file = open_regular(name, path)?;
        let stamp = Stamp::of(&file.metadata().map_err(|e| read_error(path, &e))?);
        let known =
            self.lock().files.get(path).filter(|(known, _)| *known == stamp).map(|(_, content)| content.clone());
        Ok(known.ok_or((file, stamp)))
    }

    fn hash(&self, path: &Path, file: &File, stamp: Stamp) -> Result<Content> {
        let max = u64::try_from(self.0.limits.module_bytes_max).unwrap_or(u64::MAX);
        // In pieces, for many may ask at a time; the compiler has a memory of its own.
        let (digest, bytes) = digest::of(file.take(max.saturating_add(1))).map_err(|e| read_error(path, &e))?;
        if bytes > max {
            return Err(self.too_large());
        }
        let text = is_text(path);
        let content = Content { digest: digest.into(), text };
        let mut state = self.lock();
        if stamp.is_settled() {
            state.files.insert(path.to_owned(), (stamp, content.clone()));
        } else {
            state.files.remove(path);
        }
        Ok(content)
    }
}

/// Whether a file of a `--modules` directory is WebAssembly text: its name says so.
pub(super) fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "wat")
}

/// Opens a file without waiting for a writer of a FIFO, and refuses everything that is not a regular file.
pub(super) fn open_regular(name: &Name, path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0),
    );
    let file = match options.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NoModule { name: name.to_string(), hint: String::new() });
        }
        Err(e) => return Err(read_error(path, &e)),
    };
    let meta = file.metadata().map_err(|e| read_error(path, &e))?;
    if !meta.is_file() {
        let why = format!("{} is not a regular file", path.display());
        return Err(Error::BadModule { name: name.to_string(), why });
    }
    Ok(file)
}

pub(super) fn read_error(path: &Path, e: &std::io::Error) -> Error {
    Error::io(format!("cannot read {}", path.display()), e)
}

/// Removes a stored file that does not hold what its name says: gone, the next `put` of the module brings it again. `false`: it
/// holds that.
///
/// # Errors
///
/// What the system says; it stays then.
pub(super) fn remove_damaged(path: &Path, sha256: &str) -> std::io::Result<bool> {
    let (digest, _) = digest::of(File::open(path)?)?;
    if digest == sha256 {
        return Ok(false);
    }
    std::fs::remove_file(path).map(|()| true)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    /// By a build that wants its times to be those of its sources, say.
    #[test]
    fn a_file_that_is_written_over_with_its_times_put_back_has_changed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        let old = crate::daemon::clock::system_time() - Duration::from_secs(3600);
        file.set_modified(old).unwrap();
        let before = Stamp::of(&file.metadata().unwrap());
        assert!(!before.is_settled(), "it may change again in the same moment");
        let mut after = before.clone();
        // Times are those of the kernel's clock, which goes in steps of some milliseconds.
        for _ in 0..1000 {
            file.write_all_at(b"behind", 0).unwrap();
            file.set_modified(old).unwrap();
            after = Stamp::of(&file.metadata().unwrap());
            if after != before {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        assert_eq!((after.bytes, after.modified, after.identity), (before.bytes, before.modified, before.identity));
        assert_ne!(after, before);
    }
}
