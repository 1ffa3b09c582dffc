//! The disk budget of an instance: bytes and files in its directory, held where the guest writes.
//!
//! Both worlds' calls come through here before they reach wasmtime-wasi: growth is charged before the call, and after it
//! the account is set to what the file really is. So the budget is never overrun, whatever comes of a call.
//! ```text
//! preview 1 ─► p1 ──(write, append)──────────┐
//!               └──(paths, sizes)─► p2 ──────┼─► Pin, Disk ─► account
//! preview 2 ──────────────────────► p2 ─► stream ┘
//! ```
//!
//! What others do in the directory is not charged until the next run looks at it; they are not guests.
//!
//! Directories of the host that are lent besides (`run -v`) have an account of their own, which begins with nothing: what a run
//! adds to them is bounded too, and what it removes from them makes no room in its own directory. Nothing is moved or linked
//! between the two, as between two file systems.

mod account;
mod floor;
mod gate;
mod listing;
mod p1;
mod p2;
mod stream;
#[cfg(test)]
#[cfg(unix)]
mod tests;
mod unfinished;

pub(super) use account::OverBudget;
pub use account::Usage;
pub use floor::Floor;
pub(super) use gate::Gate;
pub(super) use p1::P1;
pub(super) use p2::{Files, Fs};
pub(super) use unfinished::Unfinished;

use super::Gauges;
use super::sandbox::MemoryBudget;
use crate::config::fixed::STREAMS_BUSY_MAX;
use account::{Account, Key};
use floor::Grant;
use std::any::Any;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use unfinished::Held;

/// What a run may have in its directory.
pub struct DiskBudget {
    /// The most that there may be.
    pub max: Usage,
    /// What all guests leave free where the directory is.
    pub floor: Arc<Floor>,
    /// Looks what is there, once, before guest code; blocks on the disk. `None`: the directory is empty.
    pub scan: Option<Scan>,
}

/// Counts what is in a directory. Cancelled, it may end early with whatever result.
pub type Scan = Box<dyn FnOnce(&CancellationToken) -> std::io::Result<Usage> + Send>;

impl DiskBudget {
    /// What is in the directory now.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the scan is told that nobody waits for it.
    pub(super) async fn used(&mut self) -> std::io::Result<Usage> {
        let Some(scan) = self.scan.take() else { return Ok(Usage::default()) };
        let unwanted = CancellationToken::new();
        let _dropped = unwanted.clone().drop_guard();
        tokio::task::spawn_blocking(move || scan(&unwanted)).await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
    }
}

/// The accounts of one store, and which of its handles lead to which file.
pub(super) struct Disk {
    own: Shared,
    /// `None`: nothing is lent but its own directory.
    lent: Option<Lent>,
    /// By the handle's number in the resource table. Only regular files: nothing else can grow.
    open: HashMap<u32, Arc<Pin>>,
    /// What all instances share.
    memory: Arc<MemoryBudget>,
    /// Makes the numbers that the guest knows its files by.
    numbers: Numbers,
    /// Where all instances' calls that work on files go through.
    gate: Arc<Gate>,
}

/// Numbers of files for a guest, one's own for each store: equal for equal files, and nothing can be told from them of the host's
/// inodes, which a hash with a key that everybody knows would be found out from by trying.
#[derive(Debug, Clone, Default)]
struct Numbers(RandomState);

impl Numbers {
    fn of(&self, key: Key) -> u64 {
        self.0.hash_one(key)
    }
}

/// Directories of the host.
struct Lent {
    account: Shared,
    /// Which they are.
    roots: Vec<Key>,
    /// Directories that the guest has opened, by their handles: whether they are below one of those.
    below: HashMap<u32, bool>,
}

/// Streams write while the guest goes on.
#[derive(Debug, Clone)]
struct Shared {
    account: Arc<Mutex<Account>>,
    floor: Option<Arc<Floor>>,
    /// One store's, for what it has threads do while its guest goes on. All guests share them, so none may have many.
    places: Arc<Semaphore>,
    /// All stores', for the same.
    gate: Arc<Gate>,
}

impl Shared {
    fn new(used: Usage, max: Usage, floor: Option<Arc<Floor>>, gate: Arc<Gate>, places: Arc<Semaphore>) -> Shared {
        Shared { account: Arc::new(Mutex::new(Account::new(used, max))), floor, places, gate }
    }

    /// Charges what is about to be made, if there is room for it on the disk too.
    fn take(&self, what: Usage) -> Result<(), OverBudget> {
        self.lock().take(what)?;
        let bytes = what.bytes.saturating_add(what.files.saturating_mul(floor::NAME_BYTES));
        match self.room(bytes) {
            // A name is small enough to be made in the meantime.
            Ok(_grant) => Ok(()),
            Err(over) => {
                self.lock().give_back(what);
                Err(over)
            }
        }
    }

    fn room(&self, bytes: u64) -> Result<Option<Grant>, OverBudget> {
        match &self.floor {
            Some(floor) if bytes > 0 => floor.grant(bytes).map(Some).ok_or_else(|| self.lock().no_room(bytes)),
            _ => Ok(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        // Numbers that no statement leaves half changed.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    pub(super) fn new(used: Usage, max: Usage, floor: Arc<Floor>, memory: Arc<MemoryBudget>, gate: Arc<Gate>) -> Disk {
        let places = Arc::new(Semaphore::new(STREAMS_BUSY_MAX));
        let own = Shared::new(used, max, Some(floor), Arc::clone(&gate), places);
        Disk { own, lent: None, open: HashMap::new(), memory, numbers: Numbers::default(), gate }
    }

    /// From now on it is seen there what is in the instance's own directory.
    pub(super) fn show(&self, gauges: Arc<Gauges>) {
        self.own.lock().show(gauges);
    }

    /// Directories that are lent besides.
    ///
    /// # Errors
    ///
    /// One of them cannot be looked at.
    pub(super) fn lend(&mut self, directories: &[PathBuf]) -> std::io::Result<()> {
        if directories.is_empty() {
            return Ok(());
        }
        let roots =
            directories.iter().map(|path| Ok(key(&std::fs::metadata(path)?))).collect::<std::io::Result<_>>()?;
        // Where they are is the client's choice, and so is what is left there.
        let (gate, places) = (Arc::clone(&self.gate), Arc::clone(&self.own.places));
        let account = Shared::new(Usage::default(), self.own.lock().max(), None, gate, places);
        self.lent = Some(Lent { account, roots, below: HashMap::new() });
        Ok(())
    }

    /// What is held by whatever may be under way in a file of its own directory: the file, or by a stream the account. Names are
    /// left out, for to open a FIFO that somebody has put there may take for ever; so one more name may come to be.
    pub(in crate::engine) fn held(&self) -> Vec<Held> {
        let own = &self.own.account;
        let pins = self.open.values().filter(|pin| Arc::ptr_eq(&pin.account.account, own));
        let files = pins.filter_map(|pin| pin.file.clone()).map(|file| file as Arc<dyn Any + Send + Sync>);
        files.chain([Arc::clone(own) as _]).map(|held| Arc::downgrade(&held)).collect()
    }

    /// What was last refused, and the limits.
    pub(super) fn refused(&self) -> Option<(OverBudget, Usage)> {
        let lent = self.lent.iter().map(|lent| &lent.account);
        [&self.own].into_iter().chain(lent).find_map(|account| {
            let account = account.lock();
            account.refused().map(|over| (over, account.max()))
        })
    }

    /// Whether a directory is of the host's. One that the guest has not opened was given to it.
    fn is_lent(&self, handle: u32, directory: &Arc<File>) -> bool {
        let Some(lent) = &self.lent else { return false };
        match lent.below.get(&handle) {
            Some(below) => *below,
            None => directory.metadata().is_ok_and(|meta| lent.roots.contains(&key(&meta))),
        }
    }

    fn account(&self, is_lent: bool) -> &Shared {
        match &self.lent {
            Some(lent) if is_lent => &lent.account,
            _ => &self.own,
        }
    }

    /// A file was opened, as this handle.
    fn opened(&mut self, handle: u32, file: &Arc<File>, is_lent: bool) -> std::io::Result<()> {
        if let Some(pin) = Pin::new(self.account(is_lent), file)? {
            self.open.insert(handle, Arc::new(pin));
        }
        Ok(())
    }

    /// A directory was opened, as this handle.
    fn opened_directory(&mut self, handle: u32, is_lent: bool) {
        if let Some(lent) = &mut self.lent {
            lent.below.insert(handle, is_lent);
        }
    }

    fn closed(&mut self, handle: u32) {
        self.open.remove(&handle);
        if let Some(lent) = &mut self.lent {
            lent.below.remove(&handle);
        }
    }

    /// The name that led to `target` is gone.
    fn unnamed(&self, target: &Target, is_lent: bool) {
        let mut account = self.account(is_lent).lock();
        match target {
            Target::Shared => account.give_back(Usage { bytes: 0, files: 1 }),
            // With its last handle it goes.
            Target::File { key: Some(key), .. } if account.is_open(Some(*key)) => {}
            Target::File { bytes, .. } => account.give_back(Usage { bytes: *bytes, files: 1 }),
        }
    }
}

/// What a name leads to.
#[derive(Debug)]
enum Target {
    /// A directory, or a file with other names: only the name goes.
    Shared,
    /// Its last name. The key is `None` if there is no open file that it could be.
    File { key: Option<Key>, bytes: u64 },
}

/// A handle on a regular file, as the account knows it, for all who hold it. Closed when it is dropped.
#[derive(Debug)]
struct Pin {
    account: Shared,
    key: Key,
    /// `None` only while it is dropped.
    file: Option<Arc<File>>,
}

impl Pin {
    /// `None` for what is not a regular file. Here and below, `fstat` of an open file takes a fraction of a microsecond, and
    /// a hop to a thread that may block ten of them.
    fn new(account: &Shared, file: &Arc<File>) -> std::io::Result<Option<Pin>> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(None);
        }
        let key = key(&meta);
        account.lock().opened(key, meta.len());
        Ok(Some(Pin { account: account.clone(), key, file: Some(Arc::clone(file)) }))
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("it is there until it is dropped")
    }

    fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.account.places)
    }

    /// Charges a size that the file is about to have.
    fn change(self: &Arc<Pin>, size: u64) -> Result<Change, OverBudget> {
        self.account.lock().change(self.key, size)?;
        Ok(Change { pin: Arc::clone(self), _room: None })
    }

    /// Charges a write, at an offset or (`None`) at the end.
    fn write(self: &Arc<Pin>, at: Option<u64>, bytes: u64) -> Result<Change, OverBudget> {
        let mut change = match at {
            // Writes nothing, wherever that is.
            _ if bytes == 0 => return self.change(0),
            Some(at) => self.change(at.saturating_add(bytes))?,
            None => {
                self.account.lock().append(self.key, bytes)?;
                Change { pin: Arc::clone(self), _room: None }
            }
        };
        // There has to be room on the disk too, also for what is written over a hole. If there is none, what was charged is set
        // right, as after a change that did not happen.
        change._room = self.account.room(bytes)?;
        Ok(change)
    }
}

/// A change of a file, or what is to be one, that was charged. Dropped when it is over: then the account is set right,
/// whatever came of it.
#[derive(Debug)]
struct Change {
    pin: Arc<Pin>,
    _room: Option<Grant>,
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut account = self.pin.account.lock();
        match self.pin.file().metadata() {
            Ok(meta) => account.changed(self.pin.key, meta.len()),
            // `fstat` of an open file fails if the file system does; what was charged stays charged.
            Err(_) => account.unknown(self.pin.key),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let nameless = self.file().metadata().is_ok_and(|meta| links(&meta) == 0);
        self.account.lock().closed(self.key, nameless);
        // To close the last handle of such a file frees what it had on the disk before close(2) returns, however much that is.
        // Ours is the last one: what else holds the file goes before. Who has closed many at once has to wait for the next.
        if nameless
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && let Ok(place) = self.places().try_acquire_owned()
        {
            let file = self.file.take();
            runtime.spawn_blocking(move || drop((file, place)));
        }
    }
}

/// The same number as wasmtime-wasi's `metadata-hash` of the file (its lower half), which is all that it tells of a path.
/// Two files of one directory share a number with a chance of one in 2^64; then the smaller one would not be charged.
#[cfg(unix)]
fn key(meta: &std::fs::Metadata) -> Key {
    use std::os::unix::fs::MetadataExt;
    key_of(meta.dev(), meta.ino())
}

#[cfg(unix)]
fn key_of(device: u64, inode: u64) -> Key {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (device, inode).hash(&mut hasher);
    hasher.finish()
}

#[cfg(unix)]
fn links(meta: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(meta)
}

/// No guest gets a directory there yet.
#[cfg(not(unix))]
fn key(_: &std::fs::Metadata) -> Key {
    0
}

#[cfg(not(unix))]
fn links(_: &std::fs::Metadata) -> u64 {
    1
}
