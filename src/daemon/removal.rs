//! Removal of a guest's directory: set aside under a name that no guest is given, then taken apart there.
//!
//! A guest made what is inside, perhaps to break whoever removes it: deeper than a path may be long, wider than memory,
//! with links that lead outside. So nothing here uses a path below the grave, keeps a list, or recurses into a tree:
//! ```text
//! grave/a/b/c  --b moves up-->  grave/{a, .tag-0/c}  --a goes, c moves up-->  grave/{.tag-0, .tag-1}  -->  nothing
//! ```
//!
//! That takes four descriptors, constant stack and constant memory, follows no link, opens nothing but directories, and
//! stays on one device. What cannot go does not keep the rest. Both functions block on the disk: off the command path.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Renames the directory `path` to `grave` beside it, if it is ours with this device and inode. `false`: nothing there.
///
/// # Errors
///
/// [`ErrorKind::PermissionDenied`] if something else stands at `path`, [`ErrorKind::AlreadyExists`] if anything is at
/// `grave`: all stays as it is. Else what the system says.
pub(super) fn set_aside(path: &Path, grave: &Path, device: u64, inode: u64) -> Result<bool> {
    if path.parent() != grave.parent() {
        return Err(Error::new(ErrorKind::InvalidInput, "a grave lies beside what it is for"));
    }
    match imp::set_aside(path, grave, device, inode) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        renamed => renamed.map(|()| true),
    }
}

/// Removes the directory `grave`, if it is ours with this device and inode, and all below it. `false`: it is not there, and
/// neither is the device that it would be on, so nothing is known of it.
///
/// # Errors
///
/// [`ErrorKind::PermissionDenied`] if something else stands at `grave`: it stays as it is. Else what could not go, and
/// why (a mount point, another owner, entries that kept appearing): the rest is gone, and a later call goes on there.
pub(super) fn remove_tree(grave: &Path, device: u64, inode: u64) -> Result<bool> {
    match imp::remove_tree(grave, device, inode) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(is_on(grave.parent(), device)),
        removed => removed.map(|()| true),
    }
}

/// Whether nothing is at `path`.
pub(super) fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound)
}

/// Whether a directory is there, and on this device: what is missing in it is gone, and not only not mounted.
pub(super) fn is_on(directory: Option<&Path>, device: u64) -> bool {
    let Some(meta) = directory.and_then(|directory| directory.metadata().ok()) else { return false };
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::dev(&meta) == device;
    #[cfg(not(unix))]
    return meta.is_dir() && device == 0;
}

fn not_ours(path: &Path) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("{}: not the directory that this daemon made", path.display()))
}

#[cfg(unix)]
pub(super) use imp::{READ, entry};

#[cfg(unix)]
mod imp {
    use super::{Error, Path, not_ours};
    use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
    use rustix::fs::{
        AtFlags, Dir, DirEntry, FileType, Mode, OFlags, Stat, fchmod, fstat, openat, renameat, statat, unlinkat,
    };
    use rustix::io::{Errno, Result};
    use rustix::path::Arg;
    use std::ffi::{CStr, CString, OsStr};
    use std::hash::{BuildHasher, RandomState};

    /// Rounds without any progress after which an obstacle, or entries that keep appearing, end a removal.
    const ROUNDS_IDLE_MAX: u32 = 8;
    const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;
    pub(in crate::daemon) const READ: OFlags =
        OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    /// Holds a file without reading it: that needs no permission on it, and wakes no device and no FIFO.
    #[cfg(target_os = "linux")]
    const HOLD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    #[cfg(not(target_os = "linux"))]
    const HOLD: OFlags = READ;

    pub(super) fn set_aside(path: &Path, grave: &Path, device: u64, inode: u64) -> super::Result<()> {
        let (from, to) = path.file_name().zip(grave.file_name()).ok_or(Errno::INVAL)?;
        let rename = |parent: OwnedFd| {
            // As long as this handle is open, no other file can get this inode number.
            let held = openat(&parent, from, HOLD, Mode::empty())?;
            check(&fstat(&held)?, device, Some(inode))?;
            rename_to_new(&parent, from, to)?;
            // The name may have been given to something else between the look and the rename.
            let moved = statat(&parent, to, NOFOLLOW).and_then(|stat| check(&stat, device, Some(inode)));
            if moved.is_err() {
                rename_to_new(&parent, to, from).inspect_err(|e| tracing::warn!(?grave, %e, "a stranger was moved"))?;
            }
            moved
        };
        open_parent(path).and_then(rename).map_err(|e| refused(if e == Errno::EXIST { grave } else { path }, e))
    }

    pub(super) fn remove_tree(grave: &Path, device: u64, inode: u64) -> super::Result<()> {
        let Some((what, e)) = take_apart(grave, device, inode).map_err(|e| refused(grave, e))? else { return Ok(()) };
        let hint = if matches!(e, Errno::BUSY | Errno::XDEV) { ": a mount point?" } else { "" };
        // Not with the kind of `e`: that something inside has vanished must not look as if the grave had.
        Err(Error::other(format!("cannot remove {what:?} inside {}: {e}{hint}", grave.display())))
    }

    /// Removes a grave, or tells what is in the way.
    fn take_apart(grave: &Path, device: u64, inode: u64) -> Result<Option<(CString, Errno)>> {
        let (name, parent) = (grave.file_name().ok_or(Errno::INVAL)?, open_parent(grave)?);
        let mut top = open_dir(&parent, name, device, Some(inode))?;
        let mut removal = Removal { device, tag: RandomState::new().hash_one(0), raised: 0, steps: 0, obstacle: None };
        let mut rounds_idle = 0;
        while rounds_idle < ROUNDS_IDLE_MAX {
            let steps_before = removal.steps;
            removal.round(&mut top)?;
            check(&statat(&parent, name, NOFOLLOW)?, device, Some(inode))?;
            match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                removed => return removed.map(|()| None),
            }
            rounds_idle = if removal.steps == steps_before { rounds_idle + 1 } else { 0 };
        }
        Ok(Some(removal.obstacle.unwrap_or((c"*".into(), Errno::NOTEMPTY))))
    }

    /// A removal under way.
    struct Removal {
        device: u64,
        /// Part of the names of raised directories: a guest cannot have planted them.
        tag: u64,
        /// Directories that moved up into the grave so far.
        raised: u64,
        /// Unlinked and raised so far: each brings the end nearer, so only a round without any is idle.
        steps: u64,
        /// The first thing in this round that could not go.
        obstacle: Option<(CString, Errno)>,
    }

    impl Removal {
        /// Reads the grave once. Deleting while reading may skip entries: only `rmdir` tells that nothing is left.
        fn round(&mut self, top: &mut Dir) -> Result<()> {
            self.obstacle = None;
            let mut turn = self.raised;
            top.rewind();
            while let Some((name, kind)) = next(top)? {
                self.clear(top.fd()?, &name, kind);
                // Found by number: neither a list to keep, nor another look at a grave that may be huge.
                while turn < self.raised {
                    self.clear(top.fd()?, &self.raised_name(turn), FileType::Directory);
                    turn += 1;
                }
            }
            Ok(())
        }

        /// Removes one entry of the grave, or notes why not.
        fn clear(&mut self, top: BorrowedFd<'_>, name: &CStr, kind: FileType) {
            if self.unlink(top, name, kind) {
                self.empty(top, name).unwrap_or_else(|e| self.note(name, e));
            }
        }

        /// Removes a directory of the grave; those in it that are not empty move up into the grave.
        fn empty(&mut self, top: BorrowedFd<'_>, name: &CStr) -> Result<()> {
            let mut dir = open_dir(top, name, self.device, None)?;
            loop {
                let steps_before = self.steps;
                while let Some((sub, kind)) = next(&mut dir)? {
                    let at = dir.fd()?;
                    if !self.unlink(at, &sub, kind) {
                        continue;
                    }
                    match self.raise(at, &sub, top) {
                        // No room in the grave for a name: make some further down. The next round comes by again.
                        Err(Errno::NOSPC | Errno::DQUOT | Errno::MLINK) => dir = open_dir(at, &sub, self.device, None)?,
                        raised => raised.unwrap_or_else(|e| self.note(&sub, e)),
                    }
                }
                if !self.unlink(top, name, FileType::Directory) || self.steps == steps_before {
                    return Ok(());
                }
                dir.rewind();
            }
        }

        /// Moves a directory up into the grave, under a name of its own.
        fn raise(&mut self, at: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>) -> Result<()> {
            let new = self.raised_name(self.raised);
            match renameat(at, name, top, &new) {
                // The move changes its `..`: that takes permission to write into it.
                Err(Errno::ACCESS) if loosen(at, name, self.device, None).is_ok() => renameat(at, name, top, &new)?,
                renamed => renamed?,
            }
            self.raised += 1;
            self.steps += 1;
            Ok(())
        }

        /// Unlinks `name`, whatever it is, or notes why not. `true`: it is a directory with something in it.
        fn unlink(&mut self, at: BorrowedFd<'_>, name: &CStr, kind: FileType) -> bool {
            // `rmdir` in doubt: it does nothing to a file, but `unlink` by root breaks a directory on some systems.
            let as_dir = matches!(kind, FileType::Directory | FileType::Unknown);
            match unlinkat(at, name, if as_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() }) {
                Ok(()) => self.steps += 1,
                Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => return true,
                Err(Errno::NOTDIR) if as_dir => return self.unlink(at, name, FileType::RegularFile),
                Err(e) => self.note(name, e),
            }
            false
        }

        fn raised_name(&self, number: u64) -> CString {
            CString::new(format!(".{:016x}-{number}", self.tag)).expect("digits hold no NUL")
        }

        fn note(&mut self, name: &CStr, e: Errno) {
            self.obstacle.get_or_insert_with(|| (name.to_owned(), e));
        }
    }

    /// The next entry but `.` and `..`; `None` at the end.
    pub(in crate::daemon) fn entry(dir: &mut Dir) -> Result<Option<DirEntry>> {
        let dots = |name: &CStr| name == c"." || name == c"..";
        dir.find(|entry| !entry.as_ref().is_ok_and(|entry| dots(entry.file_name()))).transpose()
    }

    fn next(dir: &mut Dir) -> Result<Option<(CString, FileType)>> {
        Ok(entry(dir)?.map(|entry| (entry.file_name().to_owned(), entry.file_type())))
    }

    /// The one directory opened by its path, and through links: the daemon chose it, and `/tmp` may be one.
    fn open_parent(path: &Path) -> Result<OwnedFd> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        rustix::fs::open(parent, READ.difference(OFlags::NOFOLLOW), Mode::empty())
    }

    /// Opens a directory to read it and unlink in it, after a [`check`].
    fn open_dir(at: impl AsFd, name: impl Arg + Copy, device: u64, inode: Option<u64>) -> Result<Dir> {
        let fd = match openat(&at, name, READ, Mode::empty()) {
            Err(Errno::ACCESS) if loosen(&at, name, device, inode).is_ok() => openat(&at, name, READ, Mode::empty())?,
            opened => opened?,
        };
        let stat = fstat(&fd)?;
        check(&stat, device, inode)?;
        if is_mine(&stat) && !Mode::from_raw_mode(stat.st_mode).contains(Mode::RWXU) {
            fchmod(&fd, Mode::RWXU)?;
        }
        Dir::new(fd)
    }

    /// Gives us all permissions on a directory of ours that we may not even open.
    fn loosen(at: impl AsFd, name: impl Arg + Copy, device: u64, inode: Option<u64>) -> Result<()> {
        #[cfg(target_os = "linux")]
        let (stat, held) = openat(at, name, HOLD, Mode::empty()).and_then(|held| Ok((fstat(&held)?, held)))?;
        #[cfg(not(target_os = "linux"))]
        let stat = statat(&at, name, NOFOLLOW)?;
        if !is_mine(&stat) || check(&stat, device, inode).is_err() {
            return Err(Errno::PERM);
        }
        // Linux before 6.6 has no `fchmodat` that spares links; proc_pid_fd(5) leads to just what we hold.
        #[cfg(target_os = "linux")]
        return rustix::fs::chmod(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held)), Mode::RWXU);
        #[cfg(not(target_os = "linux"))]
        rustix::fs::chmodat(at, name, Mode::RWXU, NOFOLLOW)
    }

    /// `XDEV` unless this is a directory on `device` and, where an inode is given, that one and ours.
    fn check(stat: &Stat, device: u64, inode: Option<u64>) -> Result<()> {
        #[allow(clippy::unnecessary_cast, reason = "not a u64 on every system")]
        let here = stat.st_dev as u64 == device && FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let that = inode.is_none_or(|inode| stat.st_ino == inode && is_mine(stat));
        if here && that { Ok(()) } else { Err(Errno::XDEV) }
    }

    fn is_mine(stat: &Stat) -> bool {
        stat.st_uid == rustix::process::geteuid().as_raw()
    }

    /// Renames unless there is something at `to`.
    fn rename_to_new(parent: &OwnedFd, from: &OsStr, to: &OsStr) -> Result<()> {
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        match rustix::fs::renameat_with(parent, from, parent, to, rustix::fs::RenameFlags::NOREPLACE) {
            // A kernel or a file system that does not know the flag: renameat2(2).
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return renamed,
        }
        match statat(parent, to, NOFOLLOW) {
            Err(Errno::NOENT) => renameat(parent, from, parent, to),
            looked => Err(looked.err().unwrap_or(Errno::EXIST)),
        }
    }

    /// What to say of a directory that could not be opened, renamed or removed. A link: ELOOP, on FreeBSD EMLINK.
    fn refused(path: &Path, e: Errno) -> Error {
        match e {
            Errno::NOTDIR | Errno::LOOP | Errno::MLINK | Errno::XDEV => not_ours(path),
            e => Error::new(Error::from(e).kind(), format!("{}: {e}", path.display())),
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use super::{ErrorKind, Path, Result, not_ours};

    pub(super) fn set_aside(path: &Path, grave: &Path, _device: u64, _inode: u64) -> Result<()> {
        match (path.symlink_metadata()?.is_dir(), grave.symlink_metadata()) {
            (false, _) => Err(not_ours(path)),
            (true, Ok(_)) => Err(ErrorKind::AlreadyExists.into()),
            (true, Err(_)) => std::fs::rename(path, grave),
        }
    }

    pub(super) fn remove_tree(grave: &Path, _device: u64, _inode: u64) -> Result<()> {
        if grave.symlink_metadata()?.is_dir() { std::fs::remove_dir_all(grave) } else { Err(not_ours(grave)) }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn guest() -> (tempfile::TempDir, std::path::PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("guest");
        fs::create_dir_all(path.join("inside")).unwrap();
        (root, path)
    }

    /// Removes a guest's directory with little stack, and counts meanwhile the descriptors that lead to its root.
    fn remove(path: &Path) {
        let (root, grave, meta) = (path.parent().unwrap(), path.with_file_name("grave"), fs::metadata(path).unwrap());
        assert!(set_aside(path, &grave, meta.dev(), meta.ino()).unwrap());
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        let removal = thread.spawn(move || assert!(remove_tree(&grave, meta.dev(), meta.ino()).unwrap())).unwrap();
        while !removal.is_finished() {
            let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
            assert!(open.filter(|to| to.starts_with(root)).count() <= 4);
            std::thread::park_timeout(std::time::Duration::from_micros(100));
        }
        removal.join().unwrap();
        assert!(path.symlink_metadata().is_err() && path.with_file_name("grave").symlink_metadata().is_err());
    }

    #[test]
    fn a_tree_deeper_than_a_path_goes() {
        let ((_root, path), name) = (guest(), "d".repeat(200));
        let top = openat(CWD, &path, OFlags::DIRECTORY, Mode::empty()).unwrap();
        drop((0..3_000).fold(top, |dir, _| {
            mkdirat(&dir, &*name, Mode::RWXU).unwrap();
            openat(&dir, &*name, OFlags::DIRECTORY, Mode::empty()).unwrap()
        }));
        remove(&path);
    }

    /// A line of `/proc/self/status`, in KiB.
    fn kib(line: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let value = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
        value.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse().unwrap()
    }

    /// What a variable says, so that a person may try more than a test suite has time for.
    fn size(variable: &str, default: usize) -> usize {
        std::env::var(variable).map_or(default, |text| text.parse().unwrap())
    }

    /// Counted and removed in a process that may open few files, in little memory.
    #[test]
    fn a_tree_of_any_size_takes_few_descriptors_and_little_memory() {
        const CHILD: &str = "CORACLE_TREE_CHILD";
        if std::env::var_os(CHILD).is_none() {
            let mut child = std::process::Command::new("sh");
            child.args(["-c", "ulimit -n 32; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
            child.args(["daemon::removal::tests::a_tree_of_any_size", "--nocapture"]).env(CHILD, "1");
            let output = child.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let (depth, files) = (size("CORACLE_TREE_DEPTH", 5_000), size("CORACLE_TREE_FILES", 20_000));
        let (_root, path) = guest();
        let top = openat(CWD, &path, OFlags::DIRECTORY, Mode::empty()).unwrap();
        drop((0..depth).fold(top, |dir, _| {
            mkdirat(&dir, "d", Mode::RWXU).unwrap();
            openat(&dir, "d", OFlags::DIRECTORY, Mode::empty()).unwrap()
        }));
        for n in 0..files {
            fs::write(path.join(format!("inside/{n}")), "1234567").unwrap();
        }
        // proc_pid_clear_refs(5): the peak begins anew.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let (before, begun) = (kib("VmRSS"), std::time::Instant::now());
        let top = fs::File::open(&path).unwrap();
        let usage = crate::daemon::usage::count(&top, &tokio_util::sync::CancellationToken::new()).unwrap();
        assert_eq!((usage.bytes, usage.files), (files as u64 * 7, (depth + files + 1) as u64));
        drop(top);
        let counted = begun.elapsed();
        remove(&path);
        let grown = kib("VmHWM").saturating_sub(before);
        let removed = begun.elapsed() - counted;
        let report = format!("{depth} deep, {files} files: {counted:?} to count, {removed:?} to remove, {grown} KiB");
        std::io::Write::write_all(&mut std::io::stderr(), format!("{report}\n").as_bytes()).unwrap();
        assert!(grown < 8 << 10, "{report}");
    }

    #[test]
    fn a_wide_tree_goes_while_it_still_grows() {
        let (_root, path) = guest();
        fs::write(path.join("file"), "").unwrap();
        for n in 0..20_000 {
            let nested = path.join(format!("dir{}/dir{}", n % 20, n % 400));
            fs::create_dir_all(&nested).unwrap();
            fs::hard_link(path.join("file"), nested.join(n.to_string())).unwrap();
            fs::hard_link(path.join("file"), path.join(n.to_string())).unwrap();
        }
        let top = openat(CWD, &path, OFlags::DIRECTORY, Mode::empty()).unwrap();
        // What fails comes after the end, or its parent is gone again already.
        let grow = move |n| [format!("late{n}"), format!("late{n}/in")].map(|name| mkdirat(&top, name, Mode::RWXU));
        let growing = std::thread::spawn(move || (0..5_000).map(grow).filter(|made| made[0].is_ok()).count());
        remove(&path);
        growing.join().unwrap();
    }

    #[test]
    fn links_pipes_and_closed_directories_go_and_what_is_outside_stays() {
        let (root, path) = guest();
        let (outside, file) = (root.path().join("outside"), root.path().join("outside/file"));
        fs::create_dir(&outside).unwrap();
        fs::write(&file, "kept").unwrap();
        let look = || [&outside, &file].map(|path| fs::metadata(path).map(|m| (m.mode(), m.nlink())).unwrap());
        let before = look();
        for (dir, mode) in [("a/b/c", 0), ("a/b", 0o500), ("a", 0), ("", 0o400)].map(|(to, m)| (path.join(to), m)) {
            fs::create_dir_all(&dir).unwrap();
            symlink(&outside, dir.join("to-dir")).unwrap();
            symlink(&file, dir.join("to-file")).unwrap();
            fs::hard_link(&file, dir.join("hard")).unwrap();
            mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
            fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        }
        remove(&path);
        assert_eq!((look(), fs::read_to_string(&file).unwrap()), (before, "kept".to_owned()));
    }

    #[test]
    fn what_is_not_the_guests_is_refused_and_stays() {
        let (root, path) = guest();
        let [grave, link, fifo, nothing] = ["grave", "link", "fifo", "nothing"].map(|name| root.path().join(name));
        let (device, inode) = fs::metadata(&path).map(|meta| (meta.dev(), meta.ino())).unwrap();
        let aside = |at, inode| set_aside(at, &grave, device, inode).map_err(|e| e.kind());
        symlink(&path, &link).unwrap();
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        for (at, inode) in [(&path, inode + 1), (&link, inode), (&fifo, inode)] {
            assert_eq!(aside(at, inode), Err(ErrorKind::PermissionDenied));
            assert_eq!(remove_tree(at, device, inode).unwrap_err().kind(), ErrorKind::PermissionDenied);
            assert!(at.symlink_metadata().is_ok() && path.join("inside").exists() && !grave.exists());
        }
        assert_eq!(aside(&nothing, inode), Ok(false));
        assert!(remove_tree(&nothing, device, inode).unwrap());
        assert!(
            !remove_tree(&nothing, device + 1, inode).unwrap()
                && !remove_tree(&nothing.join("x"), device, inode).unwrap()
        );
        fs::create_dir(&grave).unwrap();
        assert_eq!(aside(&path, inode), Err(ErrorKind::AlreadyExists));
        assert!(grave.is_dir() && fs::metadata(&path).unwrap().ino() == inode);
    }
}
