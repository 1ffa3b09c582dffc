//! The database file: how it is made, recognised, brought to this version, and refused.
//!
//! Each version's schema is what the migrations up to it make; they only ever go forward, in one transaction. A file of each
//! version is kept in `tests/state/`, and a test opens them all.

use crate::error::{Error, Result};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `PRAGMA application_id` of our files: "crcl".
const APPLICATION_ID: i32 = 0x6372_636c;

/// What makes a database of version 1 out of nothing, of version 2 out of one of version 1, and so on.
const MIGRATIONS: [&str; 4] = [
    "CREATE TABLE module (
        name   TEXT PRIMARY KEY COLLATE NOCASE,
        sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
        bytes  INTEGER NOT NULL CHECK (bytes >= 0),
        text   INTEGER NOT NULL CHECK (text IN (0, 1))
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE workspace (
        path   TEXT PRIMARY KEY,
        device INTEGER NOT NULL,
        inode  INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;",
    // AUTOINCREMENT: an id is never used twice, also when the row that had it is gone. (Of events the newest is always kept.)
    // No index but those that a change needs: each would be one page more to write with it.
    "CREATE TABLE instance (
        id             INTEGER PRIMARY KEY AUTOINCREMENT,
        name           TEXT NOT NULL UNIQUE COLLATE NOCASE,
        run            INTEGER NOT NULL CHECK (run >= 1),
        restarts       INTEGER NOT NULL CHECK (restarts >= 0),
        stop_requested INTEGER NOT NULL CHECK (stop_requested IN (0, 1)),
        -- 1 between two runs
        restarting     INTEGER NOT NULL CHECK (restarting IN (0, 1)),
        -- the order of ends; null while it is alive
        ended_order    INTEGER,
        -- names and values of environment variables, for the next run
        env            TEXT NOT NULL CHECK (json_valid(env))
    ) STRICT;
    CREATE TABLE run (
        instance   INTEGER NOT NULL,
        run        INTEGER NOT NULL,
        state      TEXT NOT NULL,
        exit_code  INTEGER,
        reason     TEXT,
        message    TEXT,
        -- microseconds since 1970
        created_at INTEGER NOT NULL,
        started_at INTEGER,
        ended_at   INTEGER,
        -- what it was given: module, digest, args, …
        launch     TEXT NOT NULL CHECK (json_valid(launch)),
        PRIMARY KEY (instance, run)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE event (
        seq    INTEGER PRIMARY KEY,
        at     INTEGER NOT NULL,
        detail TEXT NOT NULL CHECK (json_valid(detail))
    ) STRICT;
    -- directories that are being removed
    CREATE TABLE removal (
        grave  TEXT PRIMARY KEY,
        path   TEXT NOT NULL,
        device INTEGER NOT NULL,
        inode  INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;",
    "-- CPU time used, in microseconds
    ALTER TABLE run ADD COLUMN cpu_us INTEGER CHECK (cpu_us >= 0);
    -- on which rung of the ladder it was ended, and how long that took
    ALTER TABLE run ADD COLUMN stopped TEXT CHECK (json_valid(stopped));",
    "-- when the directory was made, in nanoseconds since 1970; 0: not known
    ALTER TABLE workspace ADD COLUMN born INTEGER NOT NULL DEFAULT 0;",
];

/// `PRAGMA user_version`: the schema that this program writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// The database of a state directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join("state.db")
}

/// Opens the database, made if the directory is a new one, and brings it to this version.
///
/// # Errors
///
/// [`Error::Denied`] for what is damaged, empty, foreign, newer than this program, or missing where there should be one: it
/// is left as it is. [`Error::Io`].
pub(super) fn open(directory: &Path) -> Result<Connection> {
    let path = path(directory);
    let (refuse, failed) = (|why: &str| refusal(&path, why), |e: rusqlite::Error| failure(&path, &e));
    match path.symlink_metadata() {
        Ok(meta) if !meta.is_file() => return Err(refuse("is not a file")),
        Ok(meta) if meta.len() == 0 => return Err(refuse("is empty")),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if let Some(left) = left_behind(directory) {
                return Err(missing(&path, &left));
            }
            make(directory).map_err(failed)?;
        }
        Err(e) => return Err(Error::io(format!("cannot look at {}", path.display()), &e)),
    }
    let mut connection =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(failed)?;
    let version = recognise(&connection, &path)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    // An operator's shell may hold it for a moment.
    connection.busy_timeout(Duration::from_secs(1)).map_err(failed)?;
    // Values of environments do not stay in what is free. FAST would leave whole pages as they are, and a long value has some.
    connection.pragma_update(None, "secure_delete", "ON").map_err(failed)?;
    migrate(&mut connection, version).map_err(failed)?;
    Ok(connection)
}

fn missing(path: &Path, left: &Path) -> Error {
    Error::Denied(format!(
        "{} is missing, but there is {}; put it back (docs/operations.md), or give another --state-dir: a new one has none of \
         that",
        path.display(),
        left.display()
    ))
}

fn refusal(path: &Path, why: &str) -> Error {
    Error::Denied(format!("{} {why}; move it away or give another --state-dir (it was left as it is)", path.display()))
}

fn failure(path: &Path, e: &rusqlite::Error) -> Error {
    match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            refusal(path, "is damaged or no database")
        }
        _ => {
            // SQLite quotes what it was asked to do, which may be a page.
            let text = e.to_string();
            Error::io(format!("cannot open {}", path.display()), &text.lines().next().unwrap_or_default())
        }
    }
}

/// The version of a database that is ours and sound.
fn recognise(connection: &Connection, path: &Path) -> Result<usize> {
    let (refuse, failed) = (|why: &str| refusal(path, why), |e: rusqlite::Error| failure(path, &e));
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    if id != APPLICATION_ID {
        return Err(refuse("is not Coracle's"));
    }
    let version = version(connection).map_err(failed)?;
    if version > VERSION {
        return Err(refuse("was written by a newer Coracle"));
    }
    let sound: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(failed)?;
    if sound != "ok" {
        return Err(refuse("is damaged"));
    }
    Ok(version)
}

/// Looks at a database that no daemon has, and changes nothing: its version, and the directories of instances that it knows, at
/// most `directories_max` of them. None where there is none, as in a new state directory.
///
/// # Errors
///
/// As [`open`].
pub(crate) fn look(directory: &Path, directories_max: usize) -> Result<Option<(usize, Vec<PathBuf>)>> {
    let path = path(directory);
    match path.symlink_metadata() {
        Ok(meta) if !meta.is_file() => return Err(refusal(&path, "is not a file")),
        Ok(meta) if meta.len() == 0 => return Err(refusal(&path, "is empty")),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return left_behind(directory).map_or(Ok(None), |left| Err(missing(&path, &left)));
        }
        Err(e) => return Err(Error::io(format!("cannot look at {}", path.display()), &e)),
    }
    let failed = |e: rusqlite::Error| failure(&path, &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Without a log it is whole by itself, and read without a lock or a file of SQLite's beside it (uri.html, `immutable`).
    let alone = log_path(directory).metadata().map_or(true, |meta| meta.len() == 0);
    let connection = match alone {
        true => Connection::open_with_flags(immutable(&path), flags | OpenFlags::SQLITE_OPEN_URI),
        false => Connection::open_with_flags(&path, flags),
    };
    let connection = connection.map_err(failed)?;
    let version = recognise(&connection, &path)?;
    let known = || {
        let mut asked = connection.prepare("SELECT path FROM workspace LIMIT ?1")?;
        let rows =
            asked.query_map([i64::try_from(directories_max).unwrap_or(i64::MAX)], |row| row.get::<_, String>(0))?;
        rows.map(|path| path.map(PathBuf::from)).collect::<rusqlite::Result<Vec<_>>>()
    };
    Ok(Some((version, known().map_err(failed)?)))
}

/// A path as a URI of SQLite's.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}

/// The first write, after everything was read and found right.
pub(super) fn settle(connection: &Connection) -> rusqlite::Result<()> {
    // A commit that SQLite syncs also makes the name of the log file durable; later syncs of it need not.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "user_version", i32::try_from(VERSION).expect("a handful of versions"))
}

/// The log that commits go to until a checkpoint brings them into the database.
pub(super) fn log_path(directory: &Path) -> PathBuf {
    directory.join("state.db-wal")
}

/// A further connection that writes, for checkpoints.
pub(super) fn open_again(directory: &Path) -> Result<Connection> {
    let path = path(directory);
    Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|e| Error::io(format!("cannot open {}", path.display()), &e))
}

/// A second connection, for questions: they do not wait for the writer, nor the writer for them.
pub(super) fn open_reader(directory: &Path) -> Result<Connection> {
    let path = path(directory);
    Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|e| Error::io(format!("cannot open {}", path.display()), &e))
}

/// Something that a new state directory does not have: a daemon with a database put it there, or somebody else did. Either
/// way it would be removed or written over as what no row knows.
fn left_behind(directory: &Path) -> Option<PathBuf> {
    let files = ["state.db-wal", "state.db-shm", "state.db-journal", "reserve"].map(|file| directory.join(file));
    if let Some(file) = files.into_iter().find(|file| file.symlink_metadata().is_ok()) {
        return Some(file);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let socket = crate::transport::socket_path(directory);
        if socket.symlink_metadata().is_ok_and(|meta| !meta.file_type().is_socket()) {
            return Some(socket);
        }
    }
    super::FOLDERS
        .iter()
        .map(|folder| directory.join(folder))
        .find(|folder| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()))
}

/// Makes the file under another name first, so that a daemon that dies meanwhile leaves no half of one. A name that nothing
/// else has: what is in the directory may be somebody's.
fn make(directory: &Path) -> rusqlite::Result<()> {
    let unnamed = |e: std::io::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(e));
    // For its owner alone, and SQLite gives its other files the mode of this one.
    let unfinished =
        tempfile::Builder::new().prefix("state-").suffix(".new").tempfile_in(directory).map_err(unnamed)?;
    let mut connection = Connection::open(unfinished.path())?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrate(&mut connection, 0)?;
    connection.close().map_err(|(_, e)| e)?;
    unfinished.persist_noclobber(path(directory)).map_err(|e| unnamed(e.error))?;
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // One that cannot be is newer than all that are.
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Brings a database of version `from` to this one; of version 0 there is nothing in it.
pub(super) fn migrate(connection: &mut Connection, from: usize) -> rusqlite::Result<()> {
    if from == VERSION {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for migration in &MIGRATIONS[from..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", i32::try_from(VERSION).expect("a handful of versions"))?;
    transaction.commit()
}
