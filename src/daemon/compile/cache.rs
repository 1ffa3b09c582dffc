//! `compiled/` in the state directory: machine code that was made before. A file is called `KEY-SHA256.cwasm`: what it was
//! made of and by what, and the digest of the file itself, which is compared each time before it is used.
//!
//! A file is made aside, renamed once, and never written to again; whoever has it mapped keeps it when it is removed.

use crate::daemon::digest;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::fs::{File, FileTimes};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tempfile::NamedTempFile;

const EXTENSION: &str = ".cwasm";
/// Length of a SHA-256 in hex.
const DIGEST_LENGTH: usize = 64;

/// The directory. All of it blocks.
pub(super) struct Cache {
    directory: PathBuf,
    bytes_max: u64,
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Clone)]
struct Entry {
    sha256: String,
    bytes: u64,
    used: SystemTime,
}

/// Why code that is known is not open.
enum NotOpened {
    /// It is not what was written: it goes.
    Wrong(&'static str),
    /// This machine could not open or read it now: it stays.
    Failed(std::io::Error),
}

impl Cache {
    /// Looks at what an earlier daemon left, and removes what it had not finished.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn open(directory: PathBuf, bytes_max: usize) -> Result<Cache> {
        let mut entries: HashMap<String, Entry> = HashMap::new();
        let read = std::fs::read_dir(&directory).map_err(|e| failed("cannot read", &directory, &e))?;
        for file in read.flatten() {
            let (name, path) = (file.file_name(), file.path());
            let known = name.to_str().and_then(parse);
            match (known, file.metadata()) {
                (Some((key, sha256)), Ok(meta)) if meta.is_file() && !entries.contains_key(key) => {
                    let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    let entry = Entry { sha256: sha256.to_owned(), bytes: meta.len(), used };
                    entries.insert(key.to_owned(), entry);
                }
                (_, Ok(meta)) if meta.is_dir() => {}
                _ => remove(&path, "it is no compiled code of ours"),
            }
        }
        let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let cache = Cache { directory, bytes_max, entries: Mutex::new(entries) };
        cache.evict(&mut cache.lock(), "");
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // A map that a panic in between leaves whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().values().map(|e| e.bytes).sum()
    }

    /// The code under a key, open, with the bytes that were written then. What has others is removed.
    pub(super) fn get(&self, key: &str) -> Option<File> {
        let entry = self.lock().get(key).cloned()?;
        match self.open_checked(key, &entry) {
            Ok(file) => {
                // The next daemon wants to know what was used last. If it cannot, it removes another file first.
                let now = crate::daemon::clock::system_time();
                let _dated = file.set_times(FileTimes::new().set_modified(now));
                if let Some(entry) = self.lock().get_mut(key) {
                    entry.used = now;
                }
                Some(file)
            }
            Err(NotOpened::Wrong(why)) => {
                self.remove(key, why);
                None
            }
            // Want of descriptors, say: that is nothing of the file's, which the next one may open.
            Err(NotOpened::Failed(e)) => {
                tracing::warn!(path = %self.path(key, &entry.sha256).display(), "compiled code cannot be read: {e}");
                None
            }
        }
    }

    fn open_checked(&self, key: &str, entry: &Entry) -> Result<File, NotOpened> {
        let mut options = File::options();
        options.read(true);
        #[cfg(unix)]
        {
            use rustix::fs::OFlags;
            let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
            std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, i32::try_from(flags).unwrap_or(0));
        }
        let file = options.open(self.path(key, &entry.sha256)).map_err(|e| match e.kind() {
            ErrorKind::NotFound => NotOpened::Wrong("it is gone"),
            _ => NotOpened::Failed(e),
        })?;
        let meta = file.metadata().map_err(NotOpened::Failed)?;
        if !meta.is_file() || meta.len() != entry.bytes {
            return Err(NotOpened::Wrong("it has another size than it had"));
        }
        match digest::of(&file).map_err(NotOpened::Failed)? {
            (digest, _) if digest == entry.sha256 => Ok(file),
            _ => Err(NotOpened::Wrong("its digest is not that of its name")),
        }
    }

    /// A file for a compiler to write to; dropped, it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn begin(&self) -> Result<NamedTempFile> {
        NamedTempFile::new_in(&self.directory).map_err(|e| failed("cannot write to", &self.directory, &e))
    }

    /// Keeps what a compiler wrote, and opens it. The oldest used go for it, if there is too much.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn keep(&self, key: &str, written: NamedTempFile) -> Result<File> {
        let io = |e: &std::io::Error| failed("cannot keep compiled code in", &self.directory, e);
        let file = File::open(written.path()).map_err(|e| io(&e))?;
        let (sha256, bytes) = digest::of(&file).map_err(|e| io(&e))?;
        let path = self.path(key, &sha256);
        written.persist(&path).map_err(|e| io(&e.error))?;
        let mut entries = self.lock();
        let entry = Entry { sha256: sha256.clone(), bytes, used: crate::daemon::clock::system_time() };
        if let Some(old) = entries.insert(key.to_owned(), entry)
            && old.sha256 != sha256
        {
            remove(&self.path(key, &old.sha256), "it was compiled anew");
        }
        self.evict(&mut entries, key);
        Ok(file)
    }

    /// Takes something out that cannot be used.
    pub(super) fn remove(&self, key: &str, why: &str) {
        if let Some(entry) = self.lock().remove(key) {
            remove(&self.path(key, &entry.sha256), why);
        }
    }

    /// The oldest used go until the rest fits; `kept` stays.
    fn evict(&self, entries: &mut HashMap<String, Entry>, kept: &str) {
        let mut bytes: u64 = entries.values().map(|e| e.bytes).sum();
        while bytes > self.bytes_max {
            let oldest = entries.iter().filter(|(key, _)| *key != kept).min_by_key(|(_, e)| e.used);
            let Some((key, entry)) = oldest.map(|(key, entry)| (key.clone(), entry.clone())) else { return };
            entries.remove(&key);
            bytes -= entry.bytes;
            let path = self.path(&key, &entry.sha256);
            if let Err(e) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), "cannot remove compiled code that is too much: {e}");
            }
        }
    }

    fn path(&self, key: &str, sha256: &str) -> PathBuf {
        self.directory.join(format!("{key}-{sha256}{EXTENSION}"))
    }
}

/// What is kept in a directory, by whoever looks at it from outside.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// Files of ours.
    pub(crate) files: usize,
    /// Of those, what is not what was written.
    pub(crate) damaged: Vec<PathBuf>,
    /// Of those, what was not read: it would have been too much.
    pub(crate) left_out: usize,
}

/// Compares the files of a directory with their names, and changes nothing. At most `bytes_max` bytes are read.
///
/// # Errors
///
/// The directory cannot be read.
pub(crate) fn look(directory: &Path, bytes_max: u64) -> std::io::Result<Looked> {
    let (mut looked, mut left) = (Looked::default(), bytes_max);
    for entry in std::fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        let Some((_, sha256)) = name.to_str().and_then(parse) else { continue };
        // A daemon may have removed it since.
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        looked.files += 1;
        if !meta.is_file() {
            looked.damaged.push(entry.path());
        } else if meta.len() > left {
            looked.left_out += 1;
        } else {
            left -= meta.len();
            let Ok(file) = File::open(entry.path()) else { continue };
            if digest::of(&file).is_ok_and(|(digest, _)| digest != sha256) {
                looked.damaged.push(entry.path());
            }
        }
    }
    Ok(looked)
}

/// Key and digest of a file's name.
fn parse(name: &str) -> Option<(&str, &str)> {
    let (key, sha256) = name.strip_suffix(EXTENSION)?.split_once('-')?;
    let is_digest = |s: &str| s.len() == DIGEST_LENGTH && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (is_digest(key) && is_digest(sha256)).then_some((key, sha256))
}

fn remove(path: &Path, why: &str) {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), "{why}, and it cannot be removed: {e}");
        }
        _ => tracing::warn!(path = %path.display(), "removed: {why}"),
    }
}

fn failed(what: &str, directory: &Path, e: &std::io::Error) -> Error {
    Error::io(format!("{what} {}", directory.display()), e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::hex;
    use sha2::{Digest, Sha256};
    use std::io::{Read, Write};
    use std::time::Duration;

    fn key(n: u8) -> String {
        hex(&Sha256::digest([n]))
    }

    fn kept(cache: &Cache, n: u8, bytes: usize) {
        let mut file = cache.begin().unwrap();
        file.write_all(&vec![n; bytes]).unwrap();
        let mut text = vec![];
        let mut kept = cache.keep(&key(n), file).unwrap();
        std::io::Seek::rewind(&mut kept).unwrap();
        kept.read_to_end(&mut text).unwrap();
        assert_eq!(text, vec![n; bytes]);
    }

    fn has(cache: &Cache, n: u8) -> bool {
        cache.get(&key(n)).is_some()
    }

    fn files(directory: &Path) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn the_oldest_used_goes_first_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let open = |max| Cache::open(directory.path().to_owned(), max).unwrap();
        let cache = open(30);
        for n in 1..=3 {
            kept(&cache, n, 10);
        }
        assert!(has(&cache, 1), "used again");
        kept(&cache, 4, 10);
        assert_eq!([1, 2, 3, 4].map(|n| has(&cache, n)), [true, false, true, true], "just as much as fits");
        kept(&cache, 5, 11);
        assert_eq!([1, 3, 4, 5].map(|n| has(&cache, n)), [false, false, true, true], "one byte more, and two go");
        for (n, age) in [(4, 10), (5, 20)] {
            let time = crate::daemon::clock::system_time() - Duration::from_secs(age);
            cache.get(&key(n)).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
        }
        drop(cache);
        let cache = open(11);
        assert_eq!([4, 5].map(|n| has(&cache, n)), [true, false]);
        kept(&cache, 6, 50);
        assert_eq!((has(&cache, 6), files(directory.path())), (true, 1), "what is used now stays");
    }

    /// A link in place of want of descriptors: what fails then is the opening, and the file is as good as before.
    #[cfg(unix)]
    #[test]
    fn what_cannot_be_opened_now_is_opened_later() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path().to_owned(), 1000).unwrap();
        kept(&cache, 1, 100);
        let (path, away) = (cache.path(&key(1), &cache.lock()[&key(1)].sha256), directory.path().join("away"));
        std::fs::rename(&path, &away).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(!has(&cache, 1) && path.is_symlink());
        std::fs::rename(&away, &path).unwrap();
        assert!(has(&cache, 1));
    }

    #[test]
    fn what_is_damaged_is_removed_and_what_is_foreign_too() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path().to_owned(), 1000).unwrap();
        let path = |n| cache.path(&key(n), &cache.lock()[&key(n)].sha256);
        for n in 1..=4 {
            kept(&cache, n, 100);
        }
        let mut bytes = std::fs::read(path(1)).unwrap();
        bytes[50] ^= 1;
        std::fs::write(path(1), &bytes).unwrap();
        File::options().write(true).open(path(2)).unwrap().set_len(99).unwrap();
        std::fs::remove_file(path(3)).unwrap();
        assert_eq!([1, 2, 3, 4].map(|n| has(&cache, n)), [false, false, false, true]);
        assert_eq!(files(directory.path()), 1);
        #[cfg(unix)]
        {
            std::fs::rename(path(4), directory.path().join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", path(4)).unwrap();
            assert!(!has(&cache, 4), "a link is not followed");
        }
        std::fs::write(directory.path().join(".tmp123"), "begun").unwrap();
        std::fs::write(directory.path().join("x.cwasm"), "foreign").unwrap();
        Cache::open(directory.path().to_owned(), 1000).unwrap();
        assert_eq!(files(directory.path()), 0);
    }
}
