//! The state directory and the directories of instances, as they lie there.

use super::Finding;
use crate::daemon::{checkup, clock};
use crate::transport::token;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Compiled code that is compared with its digests.
const COMPILED_BYTES_MAX: u64 = 256 << 20;
/// Directories of instances that are looked at.
const DIRECTORIES_MAX: usize = 1000;
/// Clocks of file systems and machines differ by this much without being wrong.
const CLOCK_SLACK: Duration = Duration::from_secs(120);

/// The state directory; `directories`: those of instances that its database knows, if no daemon has it.
pub(super) fn look(directory: &Path, answers: bool, findings: &mut Vec<Finding>, directories: &mut Vec<PathBuf>) {
    let shown = directory.display();
    let meta = match directory.metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return findings.push(Finding::ok("state", format!("{shown} is made when a daemon starts")));
        }
        Err(e) => {
            let todo = "make it readable, or give another --state-dir";
            return findings.push(Finding::fail("state", format!("{shown}: {e}"), todo));
        }
    };
    if !meta.is_dir() {
        let todo = "move it away, or give another --state-dir";
        return findings.push(Finding::fail("state", format!("{shown} is no directory"), todo));
    }
    findings.push(privacy(directory, &meta));
    let holder = holder(directory);
    findings.push(match &holder {
        Some(who) if answers => Finding::ok("lock", format!("held by {who}")),
        Some(who) => Finding::fail(
            "lock",
            format!("held by {who}, and no daemon answers where one was looked for"),
            "it listens elsewhere (--host), or hangs: look at its log, or end it",
        ),
        None => Finding::ok("lock", "nobody holds the state directory"),
    });
    findings.push(match &holder {
        Some(_) => Finding::ok("database", "in use by the daemon, which looked at it when it started"),
        None => match checkup::database(directory, DIRECTORIES_MAX) {
            Ok(Some((version, known))) => {
                directories.extend(known);
                Finding::ok("database", format!("sound (version {version} of its schema)"))
            }
            Ok(None) => Finding::ok("database", "none yet: it is made when a daemon starts"),
            Err(e) => Finding::fail("database", e.to_string(), "docs/operations.md says how to restore one"),
        },
    });
    findings.push(token(directory));
    findings.push(compiled(directory));
    findings.push(dated(directory));
}

#[cfg(unix)]
fn privacy(directory: &Path, meta: &std::fs::Metadata) -> Finding {
    use std::os::unix::fs::MetadataExt;
    const CHECK: &str = "state";
    let (shown, ours) = (directory.display(), rustix::process::geteuid().as_raw());
    let mode = meta.mode() & 0o7777;
    if meta.uid() != ours {
        let what = format!("{shown} belongs to the user with the number {}, and this is {ours}", meta.uid());
        return Finding::fail(CHECK, what, "run coracle as that user, or give another --state-dir");
    }
    if mode & 0o022 != 0 {
        let what = format!("others may write to {shown} (mode {mode:04o}): a daemon refuses it");
        return Finding::fail(CHECK, what, format!("chmod 700 {shown}"));
    }
    if mode & 0o077 != 0 {
        let what = format!("others may look into {shown} (mode {mode:04o})");
        return Finding::warn(CHECK, what, format!("chmod 700 {shown}"));
    }
    Finding::ok(CHECK, format!("{shown} is its user's alone (mode {mode:04o})"))
}

#[cfg(not(unix))]
fn privacy(directory: &Path, _: &std::fs::Metadata) -> Finding {
    Finding::ok("state", format!("{} is there", directory.display()))
}

/// Who holds the lock, told by the kernel: to try it would be in the way of a daemon that starts (proc_locks(5)).
#[cfg(target_os = "linux")]
fn holder(directory: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let inode = directory.join("lock").metadata().ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // "1: FLOCK ADVISORY WRITE 123 00:2e:456 0 EOF"; one that waits has an arrow in the second place.
        let file = fields.get(5)?;
        let is_it = fields.get(1) == Some(&"FLOCK") && file.rsplit(':').next()?.parse() == Ok(inode);
        is_it.then(|| fields.get(4).map(|pid| (*pid).to_owned())).flatten()
    })?;
    let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(match program.trim() {
        "" => "a process that is not seen from here".to_owned(),
        program => format!("{program}, process {pid}"),
    })
}

/// Elsewhere only the lock itself tells, and it is let go again at once.
#[cfg(not(target_os = "linux"))]
fn holder(directory: &Path) -> Option<String> {
    let file = std::fs::File::open(directory.join("lock")).ok()?;
    match file.try_lock_shared() {
        Ok(()) => None,
        Err(_) => Some("another process".to_owned()),
    }
}

fn token(directory: &Path) -> Finding {
    const CHECK: &str = "token";
    let path = token::path(directory);
    if path.symlink_metadata().is_err() {
        return Finding::ok(CHECK, "made when a daemon starts");
    }
    match token::read(&path) {
        Ok(_) => Finding::ok(CHECK, "for its user alone"),
        Err(e) => Finding::fail(
            CHECK,
            e.to_string(),
            format!(
                "chmod 600 {0}, if nobody has read it; or remove it, and the daemon makes a new one",
                path.display()
            ),
        ),
    }
}

fn compiled(directory: &Path) -> Finding {
    const CHECK: &str = "compiled";
    match checkup::compiled(directory, COMPILED_BYTES_MAX) {
        Err(e) if e.kind() == ErrorKind::NotFound => Finding::ok(CHECK, "no code is kept yet"),
        Err(e) => {
            Finding::warn(CHECK, format!("the compiled code cannot be read: {e}"), "see who owns compiled/ there")
        }
        Ok(looked) => match looked.damaged.first() {
            None if looked.left_out > 0 => {
                let (all, rest) = (looked.files, looked.left_out);
                Finding::ok(CHECK, format!("{} of {all} files are whole; {rest} are too large to look at", all - rest))
            }
            None => Finding::ok(CHECK, format!("{} files, all whole", looked.files)),
            Some(first) => Finding::warn(
                CHECK,
                format!("{} of {} files are damaged, such as {}", looked.damaged.len(), looked.files, first.display()),
                "remove them; a daemon does so too, and compiles anew. Look at the disk as well",
            ),
        },
    }
}

/// The clock, against what was written before.
fn dated(directory: &Path) -> Finding {
    const CHECK: &str = "clock";
    /// When this was written: no clock that is right shows less.
    const BEFORE: Duration = Duration::from_secs(1_764_000_000);
    let now = UNIX_EPOCH + Duration::from_micros(clock::now().0);
    let shown = humantime::format_rfc3339_seconds(now);
    if now < UNIX_EPOCH + BEFORE {
        return Finding::fail(CHECK, format!("it is {shown}, which is long ago"), "set the clock of this machine");
    }
    let written = ["state.db", "state.db-wal", "token"].iter().filter_map(|name| {
        let meta = directory.join(name).metadata().ok()?;
        meta.modified().ok()
    });
    match written.max() {
        Some(newest) if newest > now + CLOCK_SLACK => Finding::warn(
            CHECK,
            format!("it is {shown}, and the state was written at {}", humantime::format_rfc3339_seconds(newest)),
            "set the clock of this machine: it was ahead then, or is behind now",
        ),
        _ => Finding::ok(CHECK, format!("it is {shown}")),
    }
}

/// Where the directories of instances are made, and those that are known.
#[cfg(unix)]
pub(super) fn root(root: &Path, directories: &[PathBuf], findings: &mut Vec<Finding>) {
    use rustix::fs::{Access, access};
    use std::os::unix::fs::MetadataExt;
    const CHECK: &str = "root";
    let shown = root.display();
    let ours = rustix::process::geteuid().as_raw();
    findings.push(match root.metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Finding::ok(CHECK, format!("{shown} is made when a daemon starts"))
        }
        Err(e) => Finding::fail(CHECK, format!("{shown}: {e}"), "make it readable, or give another --root"),
        Ok(meta) if !meta.is_dir() => {
            Finding::fail(CHECK, format!("{shown} is no directory"), "move it away, or give another --root")
        }
        Ok(meta) if meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 => Finding::fail(
            CHECK,
            format!("others may replace what is in {shown} (mode {:04o}, not sticky)", meta.mode() & 0o7777),
            format!("chmod +t {shown}, or give another --root"),
        ),
        Ok(meta) if meta.uid() != ours && meta.uid() != 0 => Finding::warn(
            CHECK,
            format!("{shown} belongs to the user with the number {}, who may replace what is in it", meta.uid()),
            "give a --root of your own, or root's",
        ),
        Ok(_) if access(root, Access::WRITE_OK | Access::EXEC_OK).is_err() => {
            Finding::fail(CHECK, format!("{shown} cannot be written to"), "make it writable, or give another --root")
        }
        Ok(meta) => Finding::ok(CHECK, format!("{shown} (mode {:04o})", meta.mode() & 0o7777)),
    });
    let wrong: Vec<&PathBuf> = directories
        .iter()
        .take(DIRECTORIES_MAX)
        .filter(|path| {
            // What is not there is made when it is needed.
            path.symlink_metadata().is_ok_and(|meta| !meta.is_dir() || meta.uid() != ours || meta.mode() & 0o022 != 0)
        })
        .collect();
    findings.push(match wrong.first() {
        None => Finding::ok("directories", format!("{} known, none open to others", directories.len())),
        Some(first) => Finding::warn(
            "directories",
            format!("{} of instances are not their user's alone, such as {}", wrong.len(), first.display()),
            format!("ls -ld {}; a run there is refused until it is as the daemon made it", first.display()),
        ),
    });
}

#[cfg(not(unix))]
pub(super) fn root(root: &Path, _: &[PathBuf], findings: &mut Vec<Finding>) {
    findings.push(Finding::ok("root", root.display().to_string()));
}
