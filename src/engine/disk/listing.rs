//! Directories as guests read them: some entries at a time, so that a listing takes a few kilobytes of the daemon's memory
//! whatever is in the directory. wasmtime-wasi reads the whole of it, for each handle anew.

use super::{Gate, Key};
use crate::config::fixed::LISTING_ENTRIES_AHEAD;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Result;
use std::sync::Arc;
use wasmtime_wasi::p2::bindings::filesystem::types::DescriptorType;

/// What a directory has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: DescriptorType,
    pub(super) key: Key,
}

/// Preview 2's stream of the entries of a directory. It takes a descriptor of its own.
pub(super) struct Listing {
    /// `None` while it is being read, and at the end.
    reader: Option<Reader>,
    ahead: VecDeque<Entry>,
}

impl Listing {
    /// # Errors
    ///
    /// What the system says.
    pub(super) async fn open(directory: Arc<File>) -> Result<Listing> {
        let reader = blocking(move || Reader::open(&directory)).await?;
        Ok(Listing { reader: Some(reader), ahead: VecDeque::new() })
    }

    /// The next entry; `None` at the end, and again behind it.
    ///
    /// # Errors
    ///
    /// What the system says; then that is the end.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it is at its end.
    pub(super) async fn next(&mut self, gate: &Arc<Gate>) -> Result<Option<Entry>> {
        if self.ahead.is_empty()
            && let Some(mut reader) = self.reader.take()
        {
            let read = blocking(move || {
                let mut ahead = VecDeque::with_capacity(LISTING_ENTRIES_AHEAD);
                while ahead.len() < LISTING_ENTRIES_AHEAD {
                    let Some(entry) = reader.next()? else { return Ok((None, ahead)) };
                    ahead.push_back(entry);
                }
                Ok((Some(reader), ahead))
            });
            (self.reader, self.ahead) = gate.pass(read).await?;
        }
        Ok(self.ahead.pop_front())
    }

    #[cfg(test)]
    pub(super) fn ahead(&self) -> usize {
        self.ahead.len()
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
}

/// Reads a directory from its beginning. Blocks on the disk.
#[cfg(unix)]
pub(super) struct Reader(rustix::fs::Dir);

#[cfg(unix)]
impl Reader {
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn open(directory: &File) -> Result<Reader> {
        use rustix::fs::{Mode, OFlags};
        // A guest's handle may be one that only leads there (`O_PATH`, open(2)).
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Reader(rustix::fs::Dir::new(rustix::fs::openat(directory, c".", flags, Mode::empty())?)?))
    }

    /// Passes over so many entries, as far as there are so many.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn skip(&mut self, entries: u64) -> Result<()> {
        for _ in 0..entries {
            if self.named()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// # Errors
    ///
    /// What the system says.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        use rustix::fs::{AtFlags, FileType, statat};
        while let Some(entry) = self.named()? {
            let stat = match statat(self.0.fd()?, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                // Removed since.
                Err(rustix::io::Errno::NOENT) => continue,
                stat => stat?,
            };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => DescriptorType::RegularFile,
                FileType::Directory => DescriptorType::Directory,
                FileType::Symlink => DescriptorType::SymbolicLink,
                FileType::BlockDevice => DescriptorType::BlockDevice,
                FileType::CharacterDevice => DescriptorType::CharacterDevice,
                _ => DescriptorType::Unknown,
            };
            #[allow(clippy::unnecessary_cast, reason = "not a u64 on every system")]
            let key = super::key_of(stat.st_dev as u64, stat.st_ino as u64);
            return Ok(Some(Entry { name: entry.file_name().to_bytes().to_vec(), kind, key }));
        }
        Ok(None)
    }

    fn named(&mut self) -> Result<Option<rustix::fs::DirEntry>> {
        let dots = |entry: &rustix::fs::DirEntry| entry.file_name() == c"." || entry.file_name() == c"..";
        let next = self.0.find(|entry| !entry.as_ref().is_ok_and(dots));
        Ok(next.transpose()?)
    }
}

/// No guest gets a directory there yet.
#[cfg(not(unix))]
pub(super) struct Reader;

#[cfg(not(unix))]
impl Reader {
    pub(super) fn open(_: &File) -> Result<Reader> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(super) fn skip(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        Ok(None)
    }
}
