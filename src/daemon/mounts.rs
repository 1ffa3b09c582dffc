//! Directories of the host that a run is lent because its client named them: opened, looked at, and lent as open handles.
//!
//! Whoever names one may do with it what the daemon's user may. But no guest gets at what the daemon itself lives by: its state
//! directory, or the systems of files that are not files (`/proc`, `/sys`, `/dev`).

use crate::config::Config;
use crate::daemon::blocking;
use crate::error::{Error, Result};
use crate::model::mount::Mount;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Runs whose directories are opened at a time: each may hang, and takes a thread with it.
const OPENING_MAX: usize = 16;
/// How long a run waits for its directories.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// What may be lent.
#[derive(Debug)]
pub(super) struct Mounts {
    state_dir: PathBuf,
    /// Only what is in these, if there are any.
    roots: Vec<PathBuf>,
    opening: Arc<Semaphore>,
}

/// A directory that was looked at; the handle keeps it the same one.
#[derive(Debug)]
pub(super) struct Mounted {
    #[cfg(target_os = "linux")]
    handle: rustix::fd::OwnedFd,
    #[cfg(not(target_os = "linux"))]
    path: PathBuf,
    pub(super) guest: String,
    pub(super) read_only: bool,
}

impl Mounted {
    /// A path that opens exactly this directory, as long as this lives.
    pub(super) fn lend(&self) -> PathBuf {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
        }
        #[cfg(not(target_os = "linux"))]
        {
            self.path.clone()
        }
    }
}

fn refused(mount: &Mount, why: &str) -> Error {
    Error::Denied(format!("'{}' is not lent to a guest: {why}", mount.host))
}

impl Mounts {
    /// For a daemon with this state directory.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a `--mount-root` is not there.
    pub(super) fn new(config: &Config, state_dir: &Path) -> Result<Mounts> {
        let real =
            |path: &Path| path.canonicalize().map_err(|e| Error::io(format!("cannot look at {}", path.display()), &e));
        let roots = config.mount_roots.iter().map(|root| real(root)).collect::<Result<_>>()?;
        Ok(Mounts { state_dir: real(state_dir)?, roots, opening: Arc::new(Semaphore::new(OPENING_MAX)) })
    }

    /// [`Mounts::open`], for somebody who cannot block, and does not wait for ever: a directory may be one of a server that is
    /// gone.
    ///
    /// # Errors
    ///
    /// As there; [`Error::Io`] if it takes too long.
    pub(super) async fn lend(self: &Arc<Mounts>, mounts: &[Mount]) -> Result<Vec<Mounted>> {
        let (this, wanted) = (Arc::clone(self), mounts.to_vec());
        self.in_turn(OPEN_WITHIN, move || this.open(&wanted)).await
    }

    /// Has its turn of those who open at a time, and waits for that and for the opening no longer than `within`.
    async fn in_turn<T: Send + 'static>(
        &self,
        within: Duration,
        open: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let opened = async {
            let late = || Error::Internal("nobody closes it".to_owned());
            let turn = Arc::clone(&self.opening).acquire_owned().await.map_err(|_| late())?;
            // The turn is not over before the thread is free again, or threads that hang would be as many as there are.
            blocking(move || {
                let opened = open();
                drop(turn);
                opened
            })
            .await
        };
        match tokio::time::timeout(within, opened).await {
            Ok(opened) => opened,
            Err(_) => {
                let late = humantime::format_duration(within);
                Err(Error::io("cannot open the directories of -v", &format!("it took more than {late}")))
            }
        }
    }

    /// Opens what a run is to be lent. May block on the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`], [`Error::Io`].
    pub(super) fn open(&self, mounts: &[Mount]) -> Result<Vec<Mounted>> {
        mounts.iter().map(|mount| self.open_one(mount)).collect()
    }

    #[cfg(target_os = "linux")]
    fn open_one(&self, mount: &Mount) -> Result<Mounted> {
        use rustix::fs::{Mode, OFlags};
        let io = |e: rustix::io::Errno| Error::io(format!("cannot open the directory '{}'", mount.host), &e);
        if !Path::new(&mount.host).is_absolute() {
            return Err(refused(mount, "its path has to be absolute here"));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Links are followed: whoever names it means what they lead to, and what was opened is what is looked at.
        let handle = rustix::fs::open(&mount.host, flags, Mode::empty()).map_err(io)?;
        // proc_pid_fd(5): where the open directory is.
        let path = rustix::fs::readlink(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle)), vec![]);
        let path = path.map_err(io)?;
        self.check(mount, Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path.as_bytes())))?;
        let state = rustix::fs::open(&self.state_dir, flags, Mode::empty()).map_err(io)?;
        // By what they are and not by what they are called: one directory may have several paths (mount(8), --bind).
        if is_within(&handle, &state).map_err(io)? || is_within(&state, &handle).map_err(io)? {
            return Err(refused(mount, "the daemon's state is in it, or it is in the daemon's state"));
        }
        Ok(Mounted { handle, guest: mount.guest.clone(), read_only: mount.read_only })
    }

    /// Elsewhere the handle cannot be lent, and the path has to do.
    #[cfg(not(target_os = "linux"))]
    fn open_one(&self, mount: &Mount) -> Result<Mounted> {
        let path = Path::new(&mount.host);
        if !path.is_absolute() {
            return Err(refused(mount, "its path has to be absolute here"));
        }
        let io = |e: &dyn std::fmt::Display| Error::io(format!("cannot open the directory '{}'", mount.host), e);
        let path = path.canonicalize().map_err(|e| io(&e))?;
        if !path.is_dir() {
            return Err(io(&"it is not a directory"));
        }
        self.check(mount, &path)?;
        if path.starts_with(&self.state_dir) || self.state_dir.starts_with(&path) {
            return Err(refused(mount, "the daemon's state is in it, or it is in the daemon's state"));
        }
        Ok(Mounted { path, guest: mount.guest.clone(), read_only: mount.read_only })
    }

    /// `path`: where it really is.
    fn check(&self, mount: &Mount, path: &Path) -> Result<()> {
        if cfg!(windows) {
            return Err(refused(mount, "on Windows no guest is lent a directory yet"));
        }
        if ["/proc", "/sys", "/dev"].iter().any(|system| path.starts_with(system)) {
            return Err(refused(mount, "it is the system's, and not made of files"));
        }
        if !self.roots.is_empty() && !self.roots.iter().any(|root| path.starts_with(root)) {
            return Err(refused(mount, "it is in none of the directories that may be (--mount-root)"));
        }
        Ok(())
    }
}

/// Whether a directory is another one, or below it.
#[cfg(target_os = "linux")]
fn is_within(
    directory: &rustix::fd::OwnedFd,
    other: &rustix::fd::OwnedFd,
) -> std::result::Result<bool, rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags, fstat, openat};
    let which = |handle: &rustix::fd::OwnedFd| fstat(handle).map(|stat| (stat.st_dev, stat.st_ino));
    let wanted = which(other)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(directory, ".", flags, Mode::empty())?;
    loop {
        let here = which(&at)?;
        if here == wanted {
            return Ok(true);
        }
        let above = openat(&at, "..", flags, Mode::empty())?;
        // The root is its own parent.
        if which(&above)? == here {
            return Ok(false);
        }
        at = above;
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::runtime::{Builder, Handle};
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    fn mount(host: &Path) -> Mount {
        Mount { host: host.to_str().unwrap().to_owned(), guest: "/data".into(), read_only: false }
    }

    #[test]
    fn what_the_daemon_lives_by_is_not_lent_by_whatever_path() {
        let dir = tempfile::tempdir().unwrap();
        let (state, data) = (dir.path().join("state"), dir.path().join("data"));
        for made in [&state, &data, &state.join("logs")] {
            std::fs::create_dir(made).unwrap();
        }
        std::os::unix::fs::symlink(&state, dir.path().join("link")).unwrap();
        let config = Config::new(([127, 0, 0, 1], 0).into(), state.clone(), data.clone());
        let mounts = Mounts::new(&config, &state).unwrap();
        assert_eq!(mounts.open(&[mount(&data)]).unwrap().len(), 1);
        for refused in
            [&state, &state.join("logs"), dir.path(), &dir.path().join("link"), &data.join("../state"), Path::new("/")]
        {
            let error = mounts.open(&[mount(refused)]).unwrap_err();
            assert!(error.to_string().contains("daemon's state"), "{error}");
        }
        for system in ["/proc", "/proc/self", "/sys", "/dev"] {
            let error = mounts.open(&[mount(Path::new(system))]).unwrap_err();
            assert!(error.to_string().contains("the system's"), "{error}");
        }
        std::fs::write(data.join("file"), "").unwrap();
        for missing in [data.join("file"), data.join("nothing")] {
            assert!(matches!(mounts.open(&[mount(&missing)]), Err(Error::Io { .. })));
        }
        assert!(mounts.open(&[mount(Path::new("data"))]).unwrap_err().to_string().contains("absolute"));
    }

    #[test]
    fn with_roots_only_what_is_in_them_is_lent() {
        let dir = tempfile::tempdir().unwrap();
        for made in ["state", "a", "a/b", "ab"] {
            std::fs::create_dir(dir.path().join(made)).unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("ab"), dir.path().join("a/out")).unwrap();
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), dir.path().join("state"), dir.path().into());
        config.mount_roots.push(dir.path().join("a"));
        let mounts = Mounts::new(&config, &dir.path().join("state")).unwrap();
        for lent in ["a", "a/b"] {
            mounts.open(&[mount(&dir.path().join(lent))]).unwrap();
        }
        for refused in ["ab", "a/out", "a/../ab"] {
            let error = mounts.open(&[mount(&dir.path().join(refused))]).unwrap_err();
            assert!(error.to_string().contains("--mount-root"), "{error}");
        }
    }

    /// Threads that open in a directory of a server that is gone hang, for as long as it is gone: a few of those that others
    /// need do, and nobody waits for ever.
    #[test]
    fn directories_that_hang_take_few_threads_and_are_not_waited_for() {
        const THREADS: usize = OPENING_MAX + 2;
        const PATIENCE: Duration = Duration::from_secs(60);
        let dir = tempfile::tempdir().unwrap();
        for made in ["state", "data"] {
            std::fs::create_dir(dir.path().join(made)).unwrap();
        }
        let config = Config::new(([127, 0, 0, 1], 0).into(), dir.path().join("state"), dir.path().into());
        let mounts = Arc::new(Mounts::new(&config, &dir.path().join("state")).unwrap());
        let threads = Builder::new_current_thread().enable_all().max_blocking_threads(THREADS).build();
        threads.unwrap().block_on(async {
            let (hanging, back) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
            // Also where this test fails, or its end would wait for them.
            let comes_back = back.clone().drop_guard();
            // Those that hang keep their turns when nobody waits for them any more: the second time there are none left.
            for _ in 0..2 {
                let mut waiting = JoinSet::new();
                for _ in 0..3 * THREADS {
                    let (mounts, hanging, back) = (Arc::clone(&mounts), Arc::clone(&hanging), back.clone());
                    waiting.spawn(async move {
                        let open = move || {
                            hanging.fetch_add(1, Ordering::Relaxed);
                            Handle::current().block_on(back.cancelled());
                            Ok(())
                        };
                        mounts.in_turn(Duration::from_millis(100), open).await
                    });
                }
                let all = tokio::time::timeout(PATIENCE, waiting.join_all());
                for late in all.await.expect("nobody waits for ever") {
                    assert!(late.unwrap_err().to_string().contains("it took more than 100ms"));
                }
            }
            let other = tokio::time::timeout(PATIENCE, blocking(|| ()));
            other.await.expect("there are threads left for others");
            assert!(hanging.load(Ordering::Relaxed) <= OPENING_MAX);
            drop(comes_back);
            let wanted = [mount(&dir.path().join("data"))];
            let lent = tokio::time::timeout(PATIENCE, mounts.lend(&wanted)).await;
            assert_eq!(lent.expect("turns come back").unwrap().len(), 1);
        });
    }
}
