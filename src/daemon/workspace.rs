//! The directory of an instance: made by the daemon, never adopted, never followed through a link, lent as an open handle.

use crate::daemon::removal;
use crate::daemon::store::{Change, Identity, Removal, Store};
#[cfg(unix)]
use crate::daemon::usage;
use crate::engine::Scan;
use crate::error::{Code, Error, Result};
use crate::model::name::Name;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Directories that are kept at hand; behind that the store is asked again.
const KNOWN_MAX: usize = 65_536;

/// Names to which a directory that is to be removed may be moved, before that is given up.
const GRAVES_TRIED_MAX: u32 = 8;

/// Makes and opens the directories below one root.
#[derive(Debug)]
pub(super) struct Workspaces {
    root: PathBuf,
    store: Arc<Store>,
    /// Directories that this daemon has used: what the store says of them, at hand.
    known: Mutex<HashMap<PathBuf, Identity>>,
}

/// An instance's directory, verified and open. The handle keeps it the same directory, whatever its path leads to later.
#[derive(Debug)]
pub(super) struct Workspace {
    /// Whether it was made just now.
    pub(super) made: bool,
    #[cfg(target_os = "linux")]
    handle: Arc<rustix::fd::OwnedFd>,
    #[cfg(all(unix, not(target_os = "linux")))]
    path: PathBuf,
}

impl Workspace {
    /// A path that opens exactly this directory, as long as the handle lives. `None` on Windows: there a guest gets no
    /// directory until an escape by drive prefixes is known to be closed in this version of the engine.
    pub(super) fn lend(&self) -> Option<PathBuf> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            // proc_pid_fd(5): opening this link opens the same inode, with no path in between.
            Some(PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd())))
        }
        #[cfg(all(unix, not(target_os = "linux")))]
        {
            Some(self.path.clone())
        }
        #[cfg(not(unix))]
        {
            None
        }
    }
}

impl Workspace {
    /// Counts what is in it. `None`: nothing is, for it was made just now.
    pub(super) fn scan(&self) -> Option<Scan> {
        if self.made {
            return None;
        }
        #[cfg(target_os = "linux")]
        {
            let handle = Arc::clone(&self.handle);
            Some(Box::new(move |unwanted| Ok(usage::count(&handle, unwanted)?)))
        }
        #[cfg(all(unix, not(target_os = "linux")))]
        {
            let path = self.path.clone();
            Some(Box::new(move |unwanted| {
                let top = rustix::fs::open(&path, removal::READ, rustix::fs::Mode::empty())?;
                Ok(usage::count(&top, unwanted)?)
            }))
        }
        #[cfg(not(unix))]
        {
            None
        }
    }
}

impl Workspaces {
    /// Directories below `root`.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if others could swap what is in `root`: it has to be ours, or sticky like `/tmp`; or if its path is not
    /// UTF-8; [`Error::Io`].
    pub(super) fn new(root: &Path, store: Arc<Store>) -> Result<Workspaces> {
        let root = std::path::absolute(root).map_err(|e| Error::io(format!("no such root {}", root.display()), &e))?;
        if root.to_str().is_none() {
            return Err(Error::Denied(format!(
                "the root {} is not UTF-8, and the state holds paths as text; give another --root",
                root.display()
            )));
        }
        std::fs::create_dir_all(&root)
            .map_err(|e| Error::io(format!("cannot make the root {}", root.display()), &e))?;
        check_root(&root)?;
        store.forget_lost_workspaces()?;
        Ok(Workspaces { root, store, known: Mutex::default() })
    }

    /// Where the directories are.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of an instance's directory, for display.
    pub(super) fn path(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// Whether a directory, told by its real path, is one that was made for an instance, or lies in one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn holds(&self, real: &Path) -> Result<bool> {
        let root = self.root.canonicalize();
        let root = root.map_err(|e| Error::io(format!("cannot look at the root {}", self.root.display()), &e))?;
        let name = real.strip_prefix(root).ok().and_then(|below| below.components().next());
        match name {
            // Written down by the path that the root was given as.
            Some(name) => Ok(self.store.workspace(&self.root.join(name))?.is_some()),
            None => Ok(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Identity>> {
        // A map that no statement leaves half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a directory that this daemon has used before. `None`: it has not, or the directory is gone.
    ///
    /// # Errors
    ///
    /// As [`Workspaces::open`].
    pub(super) fn open_known(&self, name: &Name) -> Result<Option<Workspace>> {
        let path = self.path(name);
        let Some(known) = self.known().get(&path).copied() else { return Ok(None) };
        match self.open_checked(&path)? {
            Some((workspace, identity)) if identity.is(known) => Ok(Some(workspace)),
            Some(_) => Err(not_ours(&path)),
            None => Ok(None),
        }
    }

    /// Opens the directory of `name`, made and written down if it is missing. May block on the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if something that is not ours stands there; it is not touched. [`Error::Io`].
    pub(super) fn open(&self, name: &Name) -> Result<Workspace> {
        let path = self.path(name);
        let known = self.store.workspace(&path)?;
        if known.is_none() {
            // The intent first: whatever ends us before the rest is written, the directory is known to be ours.
            self.store.submit(put(&path, Identity::INTENDED), false).wait()?;
        }
        // Waited for: whoever comes next must not find the intent, and take what stands here by then for ours.
        let forget_intent = || match known {
            None | Some(Identity::INTENDED) => self.store.submit(forget(&path), false).wait(),
            Some(_) => Ok(()),
        };
        let made = match make_directory(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(e) => {
                forget_intent()?;
                return Err(Error::io(format!("cannot make {}", path.display()), &e));
            }
        };
        if !made && known.is_none() {
            forget_intent()?;
            return Err(not_ours(&path));
        }
        let Some((mut workspace, identity)) = self.open_checked(&path)? else {
            forget_intent()?;
            return Err(Error::io(format!("cannot open {}", path.display()), &"it was removed at the same moment"));
        };
        match known {
            Some(known) if !made && known == Identity::INTENDED => {
                // Ours, from a daemon that died in between; then nobody has used it yet.
                if !is_empty(&path)? {
                    return Err(not_ours(&path));
                }
                self.store.note(put(&path, identity));
            }
            Some(known) if !made && !known.is(identity) => return Err(not_ours(&path)),
            // An earlier version did not write the birth down.
            Some(known) if !made && (known.born != 0 || identity.born == 0) => {}
            // Before the run that it is for, in the same queue.
            _ => self.store.note(put(&path, identity)),
        }
        workspace.made = made;
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(path, identity);
        Ok(workspace)
    }

    /// Moves the directory of `name` out of the way, to a name that no instance can have, after it was written down that it is
    /// to be removed. `None`: there is none. May block on the disk. The name is reserved meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if what stands there is not the daemon's: it is not touched. [`Error::Io`], [`Error::StateRefuses`].
    pub(super) fn bury(&self, name: &Name) -> Result<Option<Removal>> {
        self.bury_in(name, || format!(".coracle-removed-{:016x}", RandomState::new().hash_one(0)))
    }

    /// [`Workspaces::bury`], with names to try in turn. Nobody may foresee them: in a directory like `/tmp` whoever takes the
    /// name first would keep the directory from being removed.
    fn bury_in(&self, name: &Name, mut grave_name: impl FnMut() -> String) -> Result<Option<Removal>> {
        let path = self.path(name);
        let text = path.to_string_lossy().into_owned();
        let Some(identity) = self.store.workspace(&path)? else { return Ok(None) };
        self.known().remove(&path);
        match self
            .open_checked(&path)
            .map_err(|e| if e.code() == Code::Denied { not_ours_to_remove(&path) } else { e })?
        {
            Some((_, found)) if found.is(identity) => {}
            // Made for a run that did not come to it.
            Some(_) if identity == Identity::INTENDED && is_empty(&path)? => {
                std::fs::remove_dir(&path).map_err(|e| Error::io(format!("cannot remove {text}"), &e))?;
                self.store.note(forget(&path));
                return Ok(None);
            }
            Some(_) => return Err(not_ours_to_remove(&path)),
            None => {
                self.store.note(forget(&path));
                return Ok(None);
            }
        }
        let Identity { device, inode, .. } = identity;
        for _ in 0..GRAVES_TRIED_MAX {
            let grave = self.root.join(grave_name());
            let removal = Removal { grave: grave.to_string_lossy().into_owned(), path: text.clone(), device, inode };
            self.store.submit(Change::PutRemoval(removal.clone()), false).wait()?;
            let moved = removal::set_aside(&path, &grave, device, inode);
            if matches!(moved, Ok(true)) {
                self.store.note(forget(&path));
                return Ok(Some(removal));
            }
            // Waited for: the next daemon must not find a row that leads to something of a stranger's.
            self.store.submit(Change::ForgetRemoval(removal.grave), false).wait()?;
            match moved {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                // No error of the system's: something else stands there since we looked.
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && e.raw_os_error().is_none() => {
                    return Err(not_ours_to_remove(&path));
                }
                Err(e) => return Err(Error::io(format!("cannot remove {text}"), &e)),
                Ok(_) => {
                    self.store.note(forget(&path));
                    return Ok(None);
                }
            }
        }
        Err(Error::io(format!("cannot remove {text}"), &"every name that it could be moved to is taken"))
    }

    /// Removes what was buried, with everything in it. Takes as long as it takes; what is left when it fails is tried again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn dig(&self, removal: &Removal) -> Result<()> {
        let Removal { grave, device, inode, .. } = removal;
        let failed = |e: std::io::Error| Error::io(format!("cannot remove {grave}"), &e);
        // If nothing is there, a daemon died before it moved the directory, and before it answered: then the instance has it
        // still. What is at its old path now is never looked for: the inode may be another directory's by now.
        removal::remove_tree(Path::new(grave), *device, *inode).map_err(failed)?;
        self.store.note(Change::ForgetRemoval(grave.clone()));
        Ok(())
    }

    /// Opens without following a link, and checks what was opened. `None`: there is nothing.
    #[cfg(target_os = "linux")]
    fn open_checked(&self, path: &Path) -> Result<Option<(Workspace, Identity)>> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let handle = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => return Err(not_ours(path)),
            Err(e) => return Err(Error::io(format!("cannot open {}", path.display()), &e)),
        };
        let stat =
            rustix::fs::fstat(&handle).map_err(|e| Error::io(format!("cannot look at {}", path.display()), &e))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            return Err(not_ours(path));
        }
        let identity = Identity { device: stat.st_dev, inode: stat.st_ino, born: born(&handle) };
        Ok(Some((Workspace { made: false, handle: Arc::new(handle) }, identity)))
    }

    /// Elsewhere the handle cannot be lent: the parent, which only we can change, has to vouch for the path.
    #[cfg(all(unix, not(target_os = "linux")))]
    fn open_checked(&self, path: &Path) -> Result<Option<(Workspace, Identity)>> {
        use std::os::unix::fs::MetadataExt;
        let Some(meta) = look_at(path)? else { return Ok(None) };
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(not_ours(path));
        }
        let born = meta.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let born = born.map_or(0, |at| u64::try_from(at.as_nanos()).unwrap_or(0));
        let identity = Identity { device: meta.dev(), inode: meta.ino(), born };
        Ok(Some((Workspace { made: false, path: path.to_owned() }, identity)))
    }

    /// Without inode numbers in the standard library only the kind can be checked.
    #[cfg(not(unix))]
    fn open_checked(&self, path: &Path) -> Result<Option<(Workspace, Identity)>> {
        let Some(meta) = look_at(path)? else { return Ok(None) };
        if !meta.is_dir() {
            return Err(not_ours(path));
        }
        Ok(Some((Workspace { made: false }, Identity { device: 0, inode: 0, born: 0 })))
    }
}

/// When a directory was made, in nanoseconds since 1970. 0: the kernel or the file system does not say (statx(2), `stx_mask`).
#[cfg(target_os = "linux")]
fn born(handle: &rustix::fd::OwnedFd) -> u64 {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let Ok(found) = statx(handle, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME) else { return 0 };
    if found.stx_mask & StatxFlags::BTIME.bits() == 0 {
        return 0;
    }
    let seconds = u64::try_from(found.stx_btime.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(found.stx_btime.tv_nsec.into())
}

#[cfg(not(target_os = "linux"))]
fn look_at(path: &Path) -> Result<Option<std::fs::Metadata>> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("cannot look at {}", path.display()), &e)),
    }
}

fn put(path: &Path, identity: Identity) -> Change {
    Change::PutWorkspace(path.to_string_lossy().into_owned(), identity)
}

fn forget(path: &Path) -> Change {
    Change::ForgetWorkspaces(vec![path.to_string_lossy().into_owned()])
}

fn is_empty(path: &Path) -> Result<bool> {
    let mut entries = std::fs::read_dir(path).map_err(|e| Error::io(format!("cannot read {}", path.display()), &e))?;
    Ok(entries.next().is_none())
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    let builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    let builder = {
        let mut builder = builder;
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
    };
    builder.create(path)
}

fn not_ours(path: &Path) -> Error {
    Error::Denied(format!(
        "'{}' exists and was not made by this daemon, so it is not lent to a guest; move it away, or choose another --name",
        path.display()
    ))
}

fn not_ours_to_remove(path: &Path) -> Error {
    Error::Denied(format!(
        "'{}' is not the directory that this daemon made, so it is not removed; without -v only the record goes",
        path.display()
    ))
}

fn check_root(root: &Path) -> Result<()> {
    let meta = root.metadata().map_err(|e| Error::io(format!("cannot look at the root {}", root.display()), &e))?;
    if !meta.is_dir() {
        return Err(Error::Denied(format!("the root {} is not a directory", root.display())));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let ours = meta.uid() == rustix::process::geteuid().as_raw() || meta.uid() == 0;
        let sticky = meta.mode() & 0o1000 != 0;
        if !(sticky || ours && meta.mode() & 0o022 == 0) {
            return Err(Error::Denied(format!(
                "others could swap directories in the root {}; it has to be yours alone, or sticky as /tmp is (chmod +t)",
                root.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open_store(state: &Path) -> Store {
        let limits = crate::config::Config::new(([127, 0, 0, 1], 0).into(), "s".into(), "r".into()).limits;
        Store::open(state, crate::config::Durability::Normal, &limits).unwrap()
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        root: PathBuf,
        state: PathBuf,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            let (root, state) = (dir.path().join("root"), dir.path().join("state"));
            Fixture { _dir: dir, root, state }
        }

        fn open(&self) -> Workspaces {
            Workspaces::new(&self.root, Arc::new(open_store(&self.state))).unwrap()
        }
    }

    /// As a run does: what is known first.
    fn reopen(workspaces: &Workspaces, s: &str) -> Result<Workspace> {
        match workspaces.open_known(&name(s))? {
            Some(workspace) => Ok(workspace),
            None => workspaces.open(&name(s)),
        }
    }

    fn name(s: &str) -> Name {
        s.parse().unwrap()
    }

    /// What was noted is written down, as it is before a run is answered.
    fn settle(workspaces: &Workspaces) {
        workspaces.store.submit(Change::ForgetWorkspaces(vec![]), false).wait().unwrap();
    }

    #[test]
    fn a_directory_is_private_and_kept_over_daemons() {
        let fixture = Fixture::new();
        let workspace = fixture.open().open(&name("a")).unwrap();
        let path = fixture.root.join("a");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(workspace.lend().unwrap().join("kept"), "x").unwrap();
        drop(workspace);
        let again = fixture.open().open(&name("a")).unwrap();
        assert_eq!(std::fs::read_to_string(again.lend().unwrap().join("kept")).unwrap(), "x");
    }

    #[test]
    fn what_the_daemon_did_not_make_is_refused_and_left_alone() {
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        let precious = fixture.root.join("precious");
        std::fs::create_dir(&precious).unwrap();
        std::fs::write(precious.join("file"), "mine").unwrap();
        std::fs::write(fixture.root.join("regular"), "mine").unwrap();
        std::os::unix::fs::symlink(&precious, fixture.root.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", fixture.root.join("dangling")).unwrap();
        for n in ["precious", "regular", "link", "dangling"] {
            let error = workspaces.open(&name(n)).unwrap_err();
            assert!(matches!(error, Error::Denied(_)), "{n}: {error}");
        }
        assert_eq!(std::fs::read_to_string(precious.join("file")).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(&precious).unwrap().count(), 1);
        assert!(!fixture.root.join("nowhere").exists());
    }

    #[test]
    fn a_directory_that_was_swapped_or_opened_to_others_is_refused() {
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        let (a, b) = (fixture.root.join("a"), fixture.root.join("b"));
        drop(reopen(&workspaces, "a").unwrap());
        drop(reopen(&workspaces, "b").unwrap());
        std::fs::rename(&a, fixture.root.join("old")).unwrap();
        std::fs::create_dir(&a).unwrap();
        assert!(matches!(reopen(&workspaces, "a"), Err(Error::Denied(_))));
        std::fs::remove_dir(&a).unwrap();
        std::os::unix::fs::symlink(fixture.root.join("old"), &a).unwrap();
        assert!(
            matches!(reopen(&workspaces, "a"), Err(Error::Denied(_))),
            "a link to the right directory is still a link"
        );
        std::fs::set_permissions(&b, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(reopen(&workspaces, "b"), Err(Error::Denied(_))));
    }

    /// ext4 gives a new directory the inode of the last one that went: only its birth tells the two apart.
    #[test]
    fn a_directory_that_was_made_anew_in_the_place_of_ours_is_refused() {
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        drop(reopen(&workspaces, "a").unwrap());
        let path = fixture.root.join("a");
        let look = || workspaces.open_checked(&path).unwrap().unwrap().1;
        let ours = look();
        // Birth times are those of the kernel's clock, which goes in steps of some milliseconds.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
        let mut theirs = ours;
        while std::time::Instant::now() < until && (theirs.inode != ours.inode || theirs.born == ours.born) {
            std::fs::remove_dir_all(&path).unwrap();
            make_directory(&path).unwrap();
            std::fs::write(path.join("file"), "mine").unwrap();
            theirs = look();
        }
        // Where an inode does not come back, or nobody knows of births, the record is changed in place of the directory.
        if theirs.inode != ours.inode || theirs.born == ours.born {
            let another = Identity { born: theirs.born.max(1) + 1, ..theirs };
            workspaces.store.submit(put(&path, another), false).wait().unwrap();
            workspaces.known().insert(path.clone(), another);
        }
        if theirs.born == 0 {
            drop(reopen(&workspaces, "a").unwrap());
            return;
        }
        assert!(matches!(reopen(&workspaces, "a"), Err(Error::Denied(_))), "{ours:?} {theirs:?}");
        assert!(matches!(workspaces.bury(&name("a")), Err(Error::Denied(_))), "nor is it removed");
        drop(workspaces);
        assert!(matches!(fixture.open().open(&name("a")), Err(Error::Denied(_))), "nor does the next daemon take it");
        assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "mine");
    }

    /// What an earlier version wrote down has no birth, and gets one.
    #[test]
    fn a_directory_of_unknown_birth_is_ours_and_its_birth_is_written_down() {
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        drop(workspaces.open(&name("a")).unwrap());
        settle(&workspaces);
        let path = fixture.root.join("a");
        let known = workspaces.store.workspace(&path).unwrap().unwrap();
        workspaces.store.submit(put(&path, Identity { born: 0, ..known }), false).wait().unwrap();
        drop(workspaces.open(&name("a")).unwrap());
        settle(&workspaces);
        assert_eq!(workspaces.store.workspace(&path).unwrap(), Some(known));
    }

    /// Between the look and the guest: what is lent and counted is what was looked at, not what its path leads to by then.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_swap_after_the_check_changes_nothing() {
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        let at = |n: &str| fixture.root.join(n);
        drop(workspaces.open(&name("a")).unwrap());
        std::fs::write(at("a").join("own"), "1234567").unwrap();
        for swap in ["directory", "link"] {
            let workspace = reopen(&workspaces, "a").unwrap();
            std::fs::rename(at("a"), at("away")).unwrap();
            std::fs::create_dir_all(at("other")).unwrap();
            std::fs::write(at("other").join("precious"), "mine").unwrap();
            match swap {
                "directory" => std::fs::rename(at("other"), at("a")).unwrap(),
                _ => std::os::unix::fs::symlink(at("other"), at("a")).unwrap(),
            }
            let lent = workspace.lend().unwrap();
            assert!(lent.join("own").exists() && !lent.join("precious").exists(), "{swap}");
            std::fs::write(lent.join("own"), "12345678").unwrap();
            assert_eq!(std::fs::read_to_string(at("away").join("own")).unwrap(), "12345678", "{swap}");
            let usage = workspace.scan().unwrap()(&tokio_util::sync::CancellationToken::new()).unwrap();
            assert_eq!((usage.bytes, usage.files), (8, 1), "{swap}");
            assert!(reopen(&workspaces, "a").is_err(), "{swap}");
            std::fs::remove_file(at("a")).or_else(|_| std::fs::remove_dir_all(at("a"))).unwrap();
            std::fs::rename(at("away"), at("a")).unwrap();
        }
    }

    #[test]
    fn a_directory_that_was_removed_is_made_again() {
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        drop(reopen(&workspaces, "a").unwrap());
        std::fs::remove_dir(fixture.root.join("a")).unwrap();
        drop(reopen(&workspaces, "a").unwrap());
        drop(reopen(&workspaces, "a").unwrap());
    }

    /// Killed between making it and writing that down, or with a disk that failed in between.
    #[test]
    fn a_directory_that_was_about_to_be_made_is_ours_as_long_as_it_is_empty() {
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        for n in ["a", "b"] {
            workspaces.store.submit(put(&fixture.root.join(n), Identity::INTENDED), false).wait().unwrap();
            make_directory(&fixture.root.join(n)).unwrap();
        }
        std::fs::write(fixture.root.join("b/file"), "mine").unwrap();
        drop(workspaces.open(&name("a")).unwrap());
        drop(workspaces.open(&name("a")).unwrap());
        assert!(matches!(workspaces.open(&name("b")), Err(Error::Denied(_))));
        assert_eq!(std::fs::read_to_string(fixture.root.join("b/file")).unwrap(), "mine");
    }

    #[test]
    fn what_could_not_be_made_is_not_expected_to_be_ours_later() {
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        // Nobody, not even root, makes a directory there.
        std::fs::remove_dir(&fixture.root).unwrap();
        assert!(matches!(workspaces.open(&name("a")), Err(Error::Io { .. })));
        assert_eq!(workspaces.store.workspace(&fixture.root.join("a")).unwrap(), None);
        // And one that a daemon had meant to make when it died.
        workspaces.store.submit(put(&fixture.root.join("b"), Identity::INTENDED), false).wait().unwrap();
        assert!(matches!(workspaces.open(&name("b")), Err(Error::Io { .. })));
        std::fs::create_dir(&fixture.root).unwrap();
        for n in ["a", "b"] {
            make_directory(&fixture.root.join(n)).unwrap();
            assert!(matches!(workspaces.open(&name(n)), Err(Error::Denied(_))), "{n} is the user's");
            assert!(workspaces.bury(&name(n)).unwrap().is_none() && fixture.root.join(n).exists(), "{n} stays");
        }
    }

    /// Another user of a shared root may make anything there that is not there yet.
    #[test]
    fn nobody_keeps_a_directory_from_being_removed_by_taking_the_name_of_its_grave() {
        use std::os::unix::fs::MetadataExt;
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        let at = |n: &str| fixture.root.join(n);
        drop(workspaces.open(&name("a")).unwrap());
        settle(&workspaces);
        let meta = at("a").metadata().unwrap();
        // What it was called when everybody could know.
        let foreseen = at(&format!(".coracle-removed-{}-{}", meta.dev(), meta.ino()));
        std::fs::create_dir(&foreseen).unwrap();
        let first = workspaces.bury(&name("a")).unwrap().unwrap();
        drop(workspaces.open(&name("a")).unwrap());
        settle(&workspaces);
        let second = workspaces.bury(&name("a")).unwrap().unwrap();
        assert_ne!(first.grave, second.grave);
        for removal in [first, second] {
            workspaces.dig(&removal).unwrap();
            assert!(!Path::new(&removal.grave).exists());
        }
        assert!(foreseen.is_dir());
    }

    #[test]
    fn a_grave_that_is_taken_is_left_alone_and_another_one_is_tried() {
        let fixture = Fixture::new();
        let workspaces = fixture.open();
        let at = |n: &str| fixture.root.join(n);
        drop(workspaces.open(&name("a")).unwrap());
        settle(&workspaces);
        std::fs::write(at("a").join("file"), "x").unwrap();
        // Whatever it is: an empty directory and a dangling link could be renamed over.
        std::fs::create_dir(at(".0")).unwrap();
        std::fs::write(at(".1"), "theirs").unwrap();
        std::os::unix::fs::symlink("nowhere", at(".2")).unwrap();
        let taken = workspaces.bury_in(&name("a"), || ".0".to_owned()).unwrap_err();
        assert!(taken.to_string().contains("is taken"), "{taken}");
        assert!(at("a/file").exists() && workspaces.store.removals().unwrap().is_empty());
        let mut numbers = 0..;
        let removal = workspaces.bury_in(&name("a"), || format!(".{}", numbers.next().unwrap())).unwrap().unwrap();
        assert_eq!(removal.grave, at(".3").to_string_lossy());
        assert!(at(".3/file").exists() && !at("a").exists());
        assert_eq!(
            workspaces.store.removals().unwrap(),
            std::slice::from_ref(&removal),
            "and no row for what was only tried"
        );
        workspaces.dig(&removal).unwrap();
        assert!(at(".0").is_dir() && at(".1").is_file() && at(".2").is_symlink() && !at(".3").exists());
    }

    #[test]
    fn a_root_that_others_may_change_has_to_be_sticky() {
        let fixture = Fixture::new();
        let store = Arc::new(open_store(&fixture.state));
        std::fs::create_dir(&fixture.root).unwrap();
        let mode = |m| std::fs::set_permissions(&fixture.root, std::fs::Permissions::from_mode(m)).unwrap();
        mode(0o777);
        assert!(Workspaces::new(&fixture.root, Arc::clone(&store)).unwrap_err().to_string().contains("sticky"));
        mode(0o1777);
        Workspaces::new(&fixture.root, store).unwrap();
    }

    /// What could not be found again by its row would never be removed.
    #[test]
    fn a_root_that_no_row_can_hold_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let fixture = Fixture::new();
        let root = fixture.root.join(std::ffi::OsStr::from_bytes(b"r\xff"));
        let refused = Workspaces::new(&root, Arc::new(open_store(&fixture.state))).unwrap_err();
        assert!(refused.to_string().contains("UTF-8"), "{refused}");
        assert!(!root.exists());
    }
}
