//! What is written down: `state.db` in the state directory (SQLite, WAL), held by one daemon at a time.
//!
//! Changes go to one thread that commits them in groups ([`writer`]); questions have a connection of their own. A change
//! that was answered survives the death of the daemon, and one that has to come back also that of the machine.

mod rows;
pub(super) mod schema;
mod writer;

use crate::config::{Durability, Limits, fixed};
use crate::daemon::{blocking, removal};
use crate::error::{Error, Result};
use crate::model::event::{Event, EventView};
use crate::model::exposition::{Exposition, Kind};
use crate::model::instance::{InstanceId, Record, Timestamp};
use crate::model::reply::RunView;
use crate::state_dir;
use rusqlite::Connection;
use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, broadcast, oneshot};
use writer::{Health, Job, Shared, Writer};

/// Questions that are asked at a time: one is answered, and one is on its way.
const QUESTIONS_MAX: usize = 2;

/// Directories of files that rows know: what no row knows goes.
const FOLDERS: [&str; 4] = ["modules", "incoming", "logs", "compiled"];

/// A stored module's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModuleRow {
    /// Its name, as it was spelled.
    pub name: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// Whether it is WebAssembly text.
    pub text: bool,
}

/// Which directory a path led to when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// `st_dev`, as it was when the directory was last opened.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `stx_btime`, in nanoseconds since 1970: a directory that is removed and made anew gets its inode again on many file
    /// systems. 0: not known.
    pub born: u64,
}

impl Identity {
    /// Written down before a directory is made: no directory is this one.
    pub(super) const INTENDED: Identity = Identity { device: 0, inode: 0, born: 0 };

    /// Whether both are one directory, as far as is known of them. Many file systems get another device number when they are
    /// mounted again (btrfs, overlayfs, NFS), so it counts only where the birth does not tell.
    pub(super) fn is(self, other: Identity) -> bool {
        match self.born == 0 || other.born == 0 {
            true => (self.device, self.inode) == (other.device, other.inode),
            false => (self.inode, self.born) == (other.inode, other.born),
        }
    }
}

/// A directory that is being removed: the tombstone that a removal leaves until it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    /// Where it was moved to, or is about to be.
    pub grave: String,
    /// Where it was.
    pub path: String,
    /// Its `st_dev`.
    pub device: u64,
    /// Its `st_ino`.
    pub inode: u64,
}

/// What can be written down.
#[derive(Debug)]
pub(super) enum Change {
    /// Something happened to an instance.
    Event {
        /// What.
        event: Event,
        /// As it is shown.
        view: Box<EventView>,
        /// The place among the ends, if it was one.
        ended_order: Option<u64>,
        /// A new run: the values of its environment.
        env: Vec<(String, String)>,
    },
    /// A name leads to a stored file.
    PutModule(ModuleRow),
    /// A name is forgotten.
    ForgetModule(String),
    /// A directory was made, or with [`Identity::INTENDED`] is about to be.
    PutWorkspace(String, Identity),
    /// Directories are forgotten, or that they were going to be made.
    ForgetWorkspaces(Vec<String>),
    /// A directory is going to be removed.
    PutRemoval(Removal),
    /// It is gone.
    ForgetRemoval(String),
}

/// A change that was handed over. Dropped, the change is made all the same.
#[must_use = "a change is only sure once it was recorded"]
pub(super) struct Ticket(oneshot::Receiver<Result<()>>);

impl Ticket {
    /// Waits until the change is in the file.
    ///
    /// # Errors
    ///
    /// [`Error::StateRefuses`]: it is not; [`Error::NotWrittenYet`]: an event that is not, and will be if it can.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn recorded(self) -> Result<()> {
        self.0.await.unwrap_or_else(|_| Err(closed()))
    }

    /// [`Ticket::recorded`] for a thread that may block.
    ///
    /// # Errors
    ///
    /// As there.
    pub(super) fn wait(self) -> Result<()> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(closed()))
    }
}

fn closed() -> Error {
    Error::StateRefuses("the daemon is ending".to_owned())
}

/// What an earlier daemon left.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Every instance with its newest run, in the order of ids.
    pub records: Vec<Record>,
    /// The smallest id that was never used.
    pub id_next: u64,
    /// The number of the next event.
    pub seq_next: u64,
}

/// The open store. Its lock goes with it.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    shared: Arc<Shared>,
    durability: Durability,
    /// `None` once it is closed.
    jobs: Mutex<Option<Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    reader: Mutex<Option<Connection>>,
    /// Turns to ask.
    questions: Arc<Semaphore>,
    loaded: Mutex<Option<Loaded>>,
    lock: Mutex<Option<File>>,
}

impl Store {
    /// Opens the state directory, made if it is missing (mode 0700), and takes it for this daemon.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if another daemon has it, others may write to it, or its contents are not ours or newer than this
    /// program; [`Error::Io`]. Nothing is ever replaced by something empty.
    pub(super) fn open(directory: &Path, durability: Durability, limits: &Limits) -> Result<Store> {
        let io = |what: &str, e: &dyn std::fmt::Display| Error::io(format!("{what} {}", directory.display()), e);
        state_dir::make(directory).map_err(|e| io("cannot make the state directory", &e))?;
        check_private(directory)?;
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(directory.join("lock")).map_err(|e| io("cannot open the lock in", &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Denied(format!(
                    "another daemon uses the state directory {}; stop it, or give this one another --state-dir",
                    directory.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(io("cannot lock", &e)),
        }
        let connection = schema::open(directory)?;
        for folder in FOLDERS {
            state_dir::make(&directory.join(folder)).map_err(|e| io("cannot make a directory in", &e))?;
        }
        let loaded = read(&connection).map_err(|e| {
            let path = schema::path(directory);
            Error::Denied(format!("{} is damaged: {e}; see docs/operations.md (it was left as it is)", path.display()))
        })?;
        let error = |e: rusqlite::Error| io("cannot write the state in", &e);
        let shared = Arc::new(Shared::new(directory, loaded.seq_next - 1));
        if let Err(e) = schema::settle(&connection) {
            // The reserve is for this too.
            if e.sqlite_error_code() != Some(rusqlite::ErrorCode::DiskFull) || !shared.free_reserve() {
                return Err(error(e));
            }
            schema::settle(&connection).map_err(error)?;
        }
        if !shared.fill_reserve() {
            shared.set_health(Health::Full);
        }
        let (jobs, queue) = mpsc::channel();
        let again = schema::open_again(directory)?;
        // It is there: the settling was written to it.
        let log = File::options().write(true).open(schema::log_path(directory));
        let log = log.map_err(|e| io("cannot open the log of the database in", &e))?;
        let (writer, syncer) =
            Writer::new(connection, Arc::clone(&shared), durability, limits, again, log).map_err(error)?;
        let writer = thread("store", move || {
            // It ends with the writer, and before it: the connection that closes last tidies up.
            let syncer = match thread("store-sync", move || syncer.run()) {
                Ok(syncer) => syncer,
                Err(e) => return tracing::error!("cannot start a thread: {e}"),
            };
            writer.run(&queue, syncer);
        })
        .map_err(|e| Error::io("cannot start a thread", &e))?;
        let store = Store {
            directory: directory.to_owned(),
            shared,
            durability,
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(writer)),
            reader: Mutex::new(Some(schema::open_reader(directory)?)),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            loaded: Mutex::new(Some(loaded)),
            lock: Mutex::new(Some(lock)),
        };
        store.clear_incoming();
        Ok(store)
    }

    /// What an earlier daemon was still receiving when it died.
    fn clear_incoming(&self) {
        let Ok(entries) = std::fs::read_dir(self.incoming()) else { return };
        for entry in entries.flatten() {
            if let Err(e) = std::fs::remove_file(entry.path()) {
                tracing::warn!(path = %entry.path().display(), "cannot remove a leftover: {e}");
            }
        }
    }

    /// Whether a directory, told by its real path, is the state directory or lies in it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn holds(&self, real: &Path) -> Result<bool> {
        let ours = self.directory.canonicalize();
        let ours = ours.map_err(|e| Error::io(format!("cannot look at {}", self.directory.display()), &e))?;
        Ok(real.starts_with(ours))
    }

    /// Where transfers are received.
    pub(super) fn incoming(&self) -> PathBuf {
        self.directory.join("incoming")
    }

    /// Where logs are.
    pub(super) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// Where compiled code is.
    pub(super) fn compiled(&self) -> PathBuf {
        self.directory.join("compiled")
    }

    /// The file of a stored module.
    pub(super) fn module_path(&self, sha256: &str) -> PathBuf {
        self.directory.join("modules").join(sha256)
    }

    /// Whether something new may be begun.
    ///
    /// # Errors
    ///
    /// [`Error::StateRefuses`] after a write that failed.
    pub(super) fn accepting(&self) -> Result<()> {
        self.shared.accepting()
    }

    /// Whether something may be removed: also on a full disk, since it makes room.
    ///
    /// # Errors
    ///
    /// [`Error::StateRefuses`] after a write that failed otherwise.
    pub(super) fn accepting_removals(&self) -> Result<()> {
        self.shared.accepting_removals()
    }

    /// Set while the disk is full, and what room is left is for ends.
    pub(super) fn full(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.full)
    }

    /// Hands a change over, behind those that were handed over before. `synced`: it is answered when it would survive a power
    /// failure.
    pub(super) fn submit(&self, change: Change, synced: bool) -> Ticket {
        let (done, ticket) = oneshot::channel();
        self.send(Job { change, synced, done: [Some(done), None] });
        Ticket(ticket)
    }

    /// [`Store::submit`], for two who wait: neither has to be woken by the other.
    pub(super) fn submit_for_two(&self, change: Change, synced: bool) -> (Ticket, Ticket) {
        let (first, second) = (oneshot::channel(), oneshot::channel());
        self.send(Job { change, synced, done: [Some(first.0), Some(second.0)] });
        (Ticket(first.1), Ticket(second.1))
    }

    /// Returns when all that was handed over before is in the file, and would survive a power failure.
    ///
    /// # Errors
    ///
    /// [`Error::StateRefuses`].
    pub(super) async fn settled(&self) -> Result<()> {
        // A change of nothing, behind the others.
        self.submit(Change::ForgetWorkspaces(vec![]), true).recorded().await
    }

    /// What there is to tell of it in numbers.
    pub(super) fn write_metrics(&self, text: &mut Exposition) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let what = "Groups of changes that were committed to the database";
        text.one("coracle_store_commits_total", Kind::Counter, what, count(&self.shared.commits));
        text.one("coracle_store_syncs_total", Kind::Counter, "Syncs of the database", count(&self.shared.syncs));
        let what = "Changes that wait to be committed";
        text.one("coracle_store_queue", Kind::Gauge, what, count(&self.shared.queued));
        let health = self.shared.health_word();
        let what = "1 for how the database is: full and held pass, broken does not";
        let mut family = text.family("coracle_store_health", Kind::Gauge, what);
        for word in Health::WORDS {
            family.sample(&[("state", word)], u8::from(word == health));
        }
    }

    /// Hands over a change that nobody waits for.
    pub(super) fn note(&self, change: Change) {
        self.send(Job { change, synced: false, done: [None, None] });
    }

    fn send(&self, job: Job) {
        if self.durability == Durability::Off
            && let Job { change: Change::Event { view, .. }, done, .. } = job
        {
            self.shared.publish(*view);
            for done in done.into_iter().flatten() {
                // Whoever asked may have gone.
                let _unheard = done.send(Ok(()));
            }
            return;
        }
        let jobs = lock(&self.jobs);
        if let Some(jobs) = &*jobs {
            // Before it is handed over: it may be answered at once.
            self.shared.queued.fetch_add(1, Ordering::Relaxed);
            if jobs.send(job).is_err() {
                tracing::error!("the thread that writes the state is gone");
            }
        }
    }

    /// Writes what is left, closes the database, and lets another daemon have the directory. At most a moment, for a disk may
    /// hang.
    pub(super) fn close(&self) {
        // First the connection for questions: the writer's, as the last, tidies up.
        drop(lock(&self.reader).take());
        drop(lock(&self.jobs).take());
        if let Some(writer) = lock(&self.writer).take() {
            let (done, waited) = mpsc::channel();
            let joined = thread("store-close", move || {
                // A panic there was told by its own message; and nobody may be waiting any more.
                let _told = writer.join();
                let _unheard = done.send(());
            });
            if joined.is_err() || waited.recv_timeout(fixed::CLOSE).is_err() {
                // The lock stays: what is still being written must not meet another daemon.
                tracing::warn!("the state is still being written; left behind");
                return;
            }
        }
        // Not by closing alone: a process that was forked and has not come to its exec yet has this handle as well, and
        // flock(2) is of the open file, whoever has it.
        if let Some(Err(e)) = lock(&self.lock).take().map(|file| file.unlock()) {
            tracing::warn!("cannot let go of the lock of {}: {e}", self.directory.display());
        }
    }

    /// Asks something on a thread that may block. There is one connection for questions, and who waits for it waits here: not
    /// with a thread that others need.
    ///
    /// # Errors
    ///
    /// Those of the question.
    pub(super) async fn answer<T: Send + 'static>(
        self: &Arc<Store>,
        question: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.questions).acquire_owned().await.map_err(|_| closed())?;
        let store = Arc::clone(self);
        // The turn goes with the work, and not with whoever gives up waiting for it.
        blocking(move || {
            let answer = question(&store);
            drop(turn);
            answer
        })
        .await
    }

    fn ask<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let reader = lock(&self.reader);
        question(reader.as_ref().ok_or_else(closed)?)
            .map_err(|e| Error::io(format!("the state in {}", self.directory.display()), &e))
    }

    /// Everything that an earlier daemon left of its instances, as it was read when the store was opened; once.
    pub(super) fn loaded(&self) -> Loaded {
        lock(&self.loaded).take().expect("asked once, by the one who opened it")
    }

    /// The values that the newest run of an instance was given. `None`: it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn environment(&self, id: InstanceId) -> Result<Option<Vec<(String, String)>>> {
        self.ask(|c| rows::environment(c, id))
    }

    /// The known runs of an instance, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn runs(&self, id: InstanceId) -> Result<Vec<RunView>> {
        self.ask(|c| rows::runs(c, id))
    }

    /// The number of the newest event that is written down.
    pub(super) fn newest_event(&self) -> u64 {
        self.shared.newest.load(Ordering::Acquire)
    }

    /// Events as they are written down, from now on.
    pub(super) fn follow(&self) -> broadcast::Receiver<Arc<EventView>> {
        self.shared.followers.subscribe()
    }

    /// Events that were written down, from `seq` on, at most `max` or as many as have `bytes_max`, and whether there are more.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn events(&self, seq: u64, max: usize, bytes_max: usize) -> Result<(Vec<EventView>, bool)> {
        self.ask(|c| rows::events(c, seq, max, bytes_max))
    }

    /// The number of the first event at or after a time; that of the next one if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn event_at(&self, at: Timestamp) -> Result<u64> {
        let newest = self.newest_event();
        self.ask(|c| rows::event_at(c, at)).map(|seq| seq.unwrap_or(newest + 1))
    }

    /// The number of the oldest event that is kept; that of the next one if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn oldest_event(&self) -> Result<u64> {
        let newest = self.newest_event();
        self.ask(rows::oldest_event).map(|seq| seq.unwrap_or(newest + 1))
    }

    /// Every stored module.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn modules(&self) -> Result<Vec<ModuleRow>> {
        self.ask(rows::modules)
    }

    /// Removes files that no name leads to: what a daemon had stored when it died, before it was recorded.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn remove_unused_modules(&self) -> Result<()> {
        let used: HashSet<String> = self.modules()?.into_iter().map(|row| row.sha256).collect();
        let directory = self.directory.join("modules");
        let entries =
            std::fs::read_dir(&directory).map_err(|e| Error::io(format!("cannot read {}", directory.display()), &e))?;
        for entry in entries.flatten() {
            let unused = entry.file_name().to_str().is_none_or(|name| !used.contains(name));
            if unused && let Err(e) = std::fs::remove_file(entry.path()) {
                tracing::warn!(path = %entry.path().display(), "cannot remove an unused module: {e}");
            }
        }
        Ok(())
    }

    /// Which directory a path led to when this daemon or an earlier one made it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn workspace(&self, path: &Path) -> Result<Option<Identity>> {
        self.ask(|c| rows::workspace(c, &path.to_string_lossy()))
    }

    /// Forgets directories that are no longer there, so that what is written down does not grow for ever; and not those of a
    /// file system that is not mounted.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn forget_lost_workspaces(&self) -> Result<()> {
        let lost = self.ask(rows::workspaces)?.into_iter().filter(|(path, identity)| {
            let path = Path::new(path);
            removal::is_missing(path)
                && (*identity == Identity::INTENDED || removal::is_on(path.parent(), identity.device))
        });
        let paths: Vec<String> = lost.map(|(path, _)| path).collect();
        tracing::debug!(forgotten = paths.len(), "directories that are gone");
        if !paths.is_empty() {
            self.note(Change::ForgetWorkspaces(paths));
        }
        Ok(())
    }

    /// Directories that are being removed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn removals(&self) -> Result<Vec<Removal>> {
        self.ask(rows::removals)
    }

    /// Looks whether a full disk has room again.
    pub(super) fn look_for_room(&self) {
        if self.accepting().is_err() {
            // Any change makes the writer look.
            self.note(Change::ForgetWorkspaces(vec![]));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

fn read(connection: &Connection) -> rusqlite::Result<Loaded> {
    let (id_next, seq_next) = rows::next_numbers(connection)?;
    Ok(Loaded { records: rows::records(connection)?, id_next, seq_next })
}

/// What these locks guard is whole after each statement, also if somebody panicked between two.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses a state directory that somebody else could have written to.
fn check_private(directory: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let private = File::open(directory).and_then(|directory| state_dir::is_private(&directory));
        if !private.map_err(|e| Error::io(format!("cannot look at {}", directory.display()), &e))? {
            return Err(Error::Denied(format!(
                "others may write to the state directory {}; make it yours alone (chmod 700) or give another --state-dir",
                directory.display()
            )));
        }
    }
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

#[cfg(test)]
mod tests;
