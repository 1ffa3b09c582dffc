//! The directory of an instance: made by the daemon, never adopted, never followed through a link, lent as an open handle.

use crate::daemon::removal;
use crate::daemon::store::{Change, Identity, Removal, Store};
#[cfg(unix)]
use crate::daemon::usage;
use crate::engine::Scan;
use crate::error::{Code, Error, Result};
use crate::model::name::Name;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
    /// Names, folded, whose directories are being made or moved away. Not the supervisor's reservation: that goes with its
    /// client, and a thread that waits for the disk goes on.
    busy: Mutex<HashSet<String>>,
    idle: Condvar,
}

/// The only one who changes what a name leads to.
struct Turn<'a> {
    workspaces: &'a Workspaces,
    folded: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.workspaces.busy().remove(&self.folded);
        self.workspaces.idle.notify_all();
    }
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
    /// Whether nothing is in it. Where no handle vouches for it, what `path` leads to.
    fn is_empty(&self, path: &Path) -> Result<bool> {
        let entries = std::fs::read_dir(self.lend().as_deref().unwrap_or(path));
        let mut entries = entries.map_err(|e| Error::io(format!("cannot read {}", path.display()), &e))?;
        Ok(entries.next().is_none())
    }

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
    /// [`Error::Denied`] if others could swap what is in `root`: it has to be ours or root's, and sticky like `/tmp` if others
    /// write to it; or if its path is not UTF-8; [`Error::Io`].
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
        Ok(Workspaces { root, store, known: Mutex::default(), busy: Mutex::default(), idle: Condvar::new() })
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

    fn busy(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set that no statement leaves half changed.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else changes what `name` leads to.
    fn turn(&self, name: &Name) -> Turn<'_> {
        let folded = name.folded();
        let mut busy = self.busy();
        while !busy.insert(folded.clone()) {
            busy = self.idle.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { workspaces: self, folded }
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
        self.open_or_make(name, make_directory)
    }

    /// [`Workspaces::open`], made by `make`.
    fn open_or_make(&self, name: &Name, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<Workspace> {
        let path = self.path(name);
        let _turn = self.turn(name);
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
        let made = match make(&path) {
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
        if made && !workspace.is_empty(&path)? {
            // Not what was made a moment ago.
            forget_intent()?;
            return Err(not_ours(&path));
        }
        match known {
            Some(known) if !made && known == Identity::INTENDED => {
                // Ours, from a daemon that died in between; then nobody has used it yet.
                if !workspace.is_empty(&path)? {
                    return Err(not_ours(&path));
                }
                self.store.note(put(&path, identity));
            }
            Some(known) if !made && !known.is(identity) => return Err(not_ours(&path)),
            // An earlier version did not write the birth down, and a file system may have another device number by now. A birth
            // that is known is not forgotten.
            Some(known) if !made && (known == identity || identity.born == 0) => {}
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
        let _turn = self.turn(name);
        let text = path.to_string_lossy().into_owned();
        let Some(identity) = self.store.workspace(&path)? else { return Ok(None) };
        self.known().remove(&path);
        let Identity { device, inode, .. } = match self
            .open_checked(&path)
            .map_err(|e| if e.code() == Code::Denied { not_ours_to_remove(&path) } else { e })?
        {
            Some((_, found)) if found.is(identity) => found,
            // Made for a run that did not come to it.
            Some((found, _)) if identity == Identity::INTENDED && found.is_empty(&path)? => {
                std::fs::remove_dir(&path).map_err(|e| Error::io(format!("cannot remove {text}"), &e))?;
                self.store.note(forget(&path));
                return Ok(None);
            }
            Some(_) => return Err(not_ours_to_remove(&path)),
            None => {
                if identity == Identity::INTENDED || removal::is_on(path.parent(), identity.device) {
                    self.store.note(forget(&path));
                }
                return Ok(None);
            }
        };
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
        if removal::remove_tree(Path::new(grave), *device, *inode).map_err(failed)? {
            self.store.note(Change::ForgetRemoval(grave.clone()));
        } else {
            tracing::debug!(grave, "the file system that it is on is not mounted");
        }
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
        // Sticky keeps everybody from it but the owner of the root (inode(7)).
        let ours = meta.uid() == rustix::process::geteuid().as_raw() || meta.uid() == 0;
        let sticky = meta.mode() & 0o1000 != 0;
        if !(ours && (sticky || meta.mode() & 0o022 == 0)) {
            return Err(Error::Denied(format!(
                "others could swap directories in the root {}; it has to be yours or root's, and for nobody else to write to \
                 or sticky as /tmp is (chmod +t)",
                root.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
