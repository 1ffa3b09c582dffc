//! What is written down: `state.db` in the state directory (SQLite, WAL), held by one daemon at a time.
//!
//! So far the names of stored modules and the identity of each instance's directory. Calls block: they belong on a thread
//! that may. A commit survives the death of the daemon; a change of modules is also synced, so that it survives a power cut.

use crate::error::{Error, Result};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `PRAGMA application_id` of our files: "crcl".
const APPLICATION_ID: i32 = 0x6372_636c;
/// `PRAGMA user_version`: the schema that this program writes.
const SCHEMA_VERSION: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE module (
        name   TEXT PRIMARY KEY COLLATE NOCASE,
        sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
        bytes  INTEGER NOT NULL CHECK (bytes >= 0),
        text   INTEGER NOT NULL CHECK (text IN (0, 1))
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE workspace (
        path   TEXT PRIMARY KEY,
        device INTEGER NOT NULL,
        inode  INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

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
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

impl Identity {
    /// Written down before a directory is made: no directory is this one.
    pub(super) const INTENDED: Identity = Identity { device: 0, inode: 0 };
}

/// The open store. Its lock goes with it.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    connection: Mutex<Connection>,
    _lock: File,
}

impl Store {
    /// Opens the state directory, made if it is missing (mode 0700), and takes it for this daemon.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if another daemon has it, others may write to it, or its contents are not ours or newer than this
    /// program; [`Error::Io`]. Nothing is ever replaced by something empty.
    pub(super) fn open(directory: &Path) -> Result<Store> {
        let io = |what: &str, e: &dyn std::fmt::Display| Error::io(format!("{what} {}", directory.display()), e);
        make_private(directory).map_err(|e| io("cannot make the state directory", &e))?;
        check_private(directory)?;
        let lock_path = directory.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| io("cannot open the lock in", &e))?;
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
        let path = directory.join("state.db");
        let connection = open_database(&path)?;
        for sub in ["modules", "incoming"] {
            make_private(&directory.join(sub)).map_err(|e| io("cannot make a directory in", &e))?;
        }
        let store = Store { directory: directory.to_owned(), connection: Mutex::new(connection), _lock: lock };
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

    /// Where transfers are received.
    pub(super) fn incoming(&self) -> PathBuf {
        self.directory.join("incoming")
    }

    /// The file of a stored module.
    pub(super) fn module_path(&self, sha256: &str) -> PathBuf {
        self.directory.join("modules").join(sha256)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // SQLite rolls back what a panic interrupted.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, e: &rusqlite::Error) -> Error {
        Error::io(format!("the state in {}", self.directory.display()), e)
    }

    /// Every stored module.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn modules(&self) -> Result<Vec<ModuleRow>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("SELECT name, sha256, bytes, text FROM module ORDER BY name")
            .map_err(|e| self.error(&e))?;
        let rows = statement.query_map([], |row| {
            let bytes: i64 = row.get(2)?;
            Ok(ModuleRow { name: row.get(0)?, sha256: row.get(1)?, bytes: bytes.cast_unsigned(), text: row.get(3)? })
        });
        rows.and_then(Iterator::collect).map_err(|e| self.error(&e))
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

    /// Points a name at a stored file. Synced when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn put_module(&self, row: &ModuleRow) -> Result<()> {
        self.synced(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO module (name, sha256, bytes, text) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![row.name, row.sha256, row.bytes.cast_signed(), row.text])
        })
    }

    /// Forgets a name. Synced when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn forget_module(&self, name: &str) -> Result<()> {
        self.synced(|c| c.prepare_cached("DELETE FROM module WHERE name = ?1")?.execute([name]))
    }

    fn synced(&self, change: impl FnOnce(&Connection) -> rusqlite::Result<usize>) -> Result<()> {
        let connection = self.lock();
        // In WAL mode FULL syncs the log at each commit, NORMAL only at checkpoints (sqlite.org/pragma.html#pragma_synchronous).
        let result = connection.execute_batch("PRAGMA synchronous = FULL").and_then(|()| change(&connection));
        let back = connection.execute_batch("PRAGMA synchronous = NORMAL");
        result.map_err(|e| self.error(&e))?;
        back.map_err(|e| self.error(&e))
    }

    /// Which directory a path led to when this daemon or an earlier one made it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn workspace(&self, path: &Path) -> Result<Option<Identity>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("SELECT device, inode FROM workspace WHERE path = ?1")
            .map_err(|e| self.error(&e))?;
        // SQLite's integers are signed; the bits go through unchanged.
        statement
            .query_row([path.to_string_lossy()], |row| {
                Ok(Identity {
                    device: row.get::<_, i64>(0)?.cast_unsigned(),
                    inode: row.get::<_, i64>(1)?.cast_unsigned(),
                })
            })
            .optional()
            .map_err(|e| self.error(&e))
    }

    /// Forgets directories that are no longer there, so that what is written down does not grow for ever.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn forget_lost_workspaces(&self) -> Result<()> {
        let connection = self.lock();
        let lost = || -> rusqlite::Result<usize> {
            let mut all = connection.prepare("SELECT path FROM workspace")?;
            let paths: Vec<String> = all.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let gone = |path: &str| Path::new(path).symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound);
            let transaction = connection.unchecked_transaction()?;
            let mut forgotten = 0;
            for path in paths.iter().filter(|path| gone(path)) {
                forgotten += transaction.execute("DELETE FROM workspace WHERE path = ?1", [path])?;
            }
            transaction.commit()?;
            Ok(forgotten)
        };
        let forgotten = lost().map_err(|e| self.error(&e))?;
        tracing::debug!(forgotten, "directories that are gone");
        Ok(())
    }

    /// Forgets a directory, or that it was going to be made.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn forget_workspace(&self, path: &Path) -> Result<()> {
        let connection = self.lock();
        connection
            .prepare_cached("DELETE FROM workspace WHERE path = ?1")
            .and_then(|mut s| s.execute([path.to_string_lossy()]))
            .map(|_| ())
            .map_err(|e| self.error(&e))
    }

    /// Remembers a directory that was made, or with [`Identity::INTENDED`] that it is about to be.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn put_workspace(&self, path: &Path, identity: Identity) -> Result<()> {
        let connection = self.lock();
        connection
            .prepare_cached("INSERT OR REPLACE INTO workspace (path, device, inode) VALUES (?1, ?2, ?3)")
            .and_then(|mut s| {
                s.execute(params![path.to_string_lossy(), identity.device.cast_signed(), identity.inode.cast_signed()])
            })
            .map(|_| ())
            .map_err(|e| self.error(&e))
    }
}

fn open_database(path: &Path) -> Result<Connection> {
    let refuse = |why: &str| {
        Error::Denied(format!(
            "{} {why}; move it away or give another --state-dir (it was left as it is)",
            path.display()
        ))
    };
    let failed = |e: rusqlite::Error| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            refuse("is damaged or no database")
        }
        _ => Error::io(format!("cannot open {}", path.display()), &e),
    };
    let is_new = !path.exists();
    if !is_new && path.metadata().is_ok_and(|m| m.len() == 0) {
        return Err(refuse("is empty"));
    }
    let mut connection = Connection::open(path).map_err(failed)?;
    if is_new {
        connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    } else {
        let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
        let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if id != APPLICATION_ID {
            return Err(refuse("is not Coracle's"));
        }
        if version > SCHEMA_VERSION {
            return Err(refuse("was written by a newer Coracle"));
        }
        let sound: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(failed)?;
        if sound != "ok" {
            return Err(refuse("is damaged"));
        }
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if version == 0 {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(SCHEMA).map_err(failed)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(connection)
}

fn make_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Refuses a state directory that somebody else could have written to.
fn check_private(directory: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let meta =
            directory.metadata().map_err(|e| Error::io(format!("cannot look at {}", directory.display()), &e))?;
        if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
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
mod tests {
    use super::*;

    fn row(name: &str, text: bool) -> ModuleRow {
        ModuleRow { name: name.into(), sha256: "ab".repeat(32), bytes: 7, text }
    }

    #[test]
    fn what_was_stored_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let identity = Identity { device: u64::MAX, inode: 1 << 63 };
        {
            let store = Store::open(&state).unwrap();
            store.put_module(&row("app", false)).unwrap();
            store.put_module(&row("gone", false)).unwrap();
            store.put_module(&row("app", true)).unwrap();
            store.forget_module("gone").unwrap();
            store.put_workspace(Path::new("/tmp/x"), identity).unwrap();
        }
        let store = Store::open(&state).unwrap();
        assert_eq!(store.modules().unwrap(), [row("app", true)]);
        assert_eq!(store.workspace(Path::new("/tmp/x")).unwrap(), Some(identity));
        assert_eq!(store.workspace(Path::new("/tmp/y")).unwrap(), None);
        store.put_workspace(dir.path(), identity).unwrap();
        store.put_workspace(&dir.path().join("gone"), identity).unwrap();
        store.forget_lost_workspaces().unwrap();
        assert_eq!(store.workspace(dir.path()).unwrap(), Some(identity));
        assert_eq!(store.workspace(&dir.path().join("gone")).unwrap(), None);
    }

    #[test]
    fn a_directory_serves_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let second = Store::open(&dir.path().join("s")).unwrap_err();
        assert!(second.to_string().contains("another daemon"), "{second}");
        drop(store);
        Store::open(&dir.path().join("s")).unwrap();
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        std::fs::DirBuilder::new().recursive(true).create(dir.path()).unwrap();
        let foreign = dir.path().join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        let newer = dir.path().join("newer.db");
        let connection = Connection::open(&newer).unwrap();
        connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        connection.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        drop(connection);
        for (bytes, why) in [
            (vec![], "empty"),
            (b"garbage".repeat(1000), "damaged"),
            (std::fs::read(&foreign).unwrap(), "not Coracle's"),
            (std::fs::read(&newer).unwrap(), "newer"),
        ] {
            std::fs::write(&path, &bytes).unwrap();
            let error = Store::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "the file was touched");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Store::open(dir.path()).unwrap_err().to_string().contains("chmod 700"));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Store::open(dir.path()).unwrap();
    }
}
