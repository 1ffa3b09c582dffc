//! The daemon under test: the real binary, watched from outside by what Linux tells of its process (proc(5)).

use coracle::client::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tokio::time::{sleep, timeout};

/// How long anything may take before it counts as hung; machines that test are busy ones.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long an orderly end may take.
const ORDERLY: Duration = Duration::from_secs(10);
/// A process counts as quiet if all its threads together computed for less than this part of a window.
const QUIET: u32 = 10;

/// Fails the test if something does not happen.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// A life of the daemon, which ends with this at the latest.
pub struct Daemon {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
    /// Open until the daemon is gone.
    _stdout: BufReader<ChildStdout>,
}

impl Daemon {
    /// One for at most `instances` at a time, with just what a round of them needs: what the last round has not given back is
    /// refused to the next.
    pub fn spawn(directory: &Path, instances: usize) -> Daemon {
        let torture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/guests");
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
        let path = |name: &str| directory.join(name);
        std::fs::create_dir_all(path("modules")).unwrap();
        let log = std::fs::File::options().append(true).create(true).open(path("stderr")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.args(["daemon", "--listen", "127.0.0.1:0", "--memory-total", "1100m", "--module-cache", "32"]);
        command.args(["--compile-queue", &instances.max(64).to_string()]);
        command.args(["--instances", &instances.to_string(), "--connections", &(4 * instances + 64).to_string()]);
        command.args(["--handles", "128", "--disk-max", "128g"]);
        command.arg("--state-dir").arg(path("state")).arg("--root").arg(path("root"));
        for modules in [&torture, &guests, &path("modules")] {
            command.arg("--modules").arg(modules);
        }
        for variable in ["CORACLE_LOG", "CORACLE_STATE_DIR", "CORACLE_ROOT", "CORACLE_HOST"] {
            command.env_remove(variable);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").map(|address| address.parse().unwrap());
        let address = address.unwrap_or_else(|| panic!("no daemon: {}", end_of_log(directory)));
        Daemon { child, address, directory: directory.to_owned(), _stdout: stdout }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await.unwrap()
    }

    /// Where a module can be put as a file.
    pub fn modules(&self) -> PathBuf {
        self.directory.join("modules")
    }

    /// What `name` has as `/`.
    pub fn directory_of(&self, name: &str) -> PathBuf {
        self.directory.join("root").join(name)
    }

    /// Now, by the clock that stamps the files of guests.
    pub fn file_clock(&self) -> SystemTime {
        let file = self.directory.join("root/.clock");
        std::fs::write(&file, "").unwrap();
        std::fs::metadata(&file).unwrap().modified().unwrap()
    }

    /// Bytes in all log files.
    pub fn log_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.directory.join("state/logs")).unwrap();
        // One that is gone by now has no bytes.
        entries.map(|entry| entry.unwrap().metadata().map_or(0, |metadata| metadata.len())).sum()
    }

    /// Memory that the process has, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect(&status);
        line.trim().strip_suffix(" kB").expect(line).parse::<u64>().unwrap() * 1024
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }

    fn proc(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.child.id()))
    }

    /// Time that each thread has computed so far.
    fn computed(&self) -> HashMap<std::ffi::OsString, Duration> {
        let threads = std::fs::read_dir(self.proc("task")).unwrap().map(|entry| entry.unwrap());
        let time = |thread: std::fs::DirEntry| {
            // A thread may end in between.
            let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let nanoseconds = stat.split(' ').next().unwrap().parse().unwrap();
            Some((thread.file_name(), Duration::from_nanos(nanoseconds)))
        };
        threads.filter_map(time).collect()
    }

    /// Waits for a window of time in which the daemon all but rests and `seen` does not change, and says how long it took to
    /// begin. What would go on for ever never lets this return.
    pub async fn quiet<T: PartialEq>(&self, window: Duration, what: &str, seen: impl Fn() -> T) -> Duration {
        let asked = Instant::now();
        soon(&format!("quiet after {what}"), async {
            loop {
                let (began, before, then) = (Instant::now(), self.computed(), seen());
                sleep(window).await;
                let since = |(thread, time): (_, Duration)| {
                    time.saturating_sub(before.get(&thread).copied().unwrap_or_default())
                };
                let computed: Duration = self.computed().into_iter().map(since).sum();
                if computed < began.elapsed() / QUIET && seen() == then {
                    return began.duration_since(asked);
                }
            }
        })
        .await
    }

    pub fn terminate(&self) {
        kill_process(Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    }

    /// Waits until it has ended in order, after it was told to.
    pub async fn ended(mut self) {
        let told = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(told.elapsed() < ORDERLY, "no orderly end within {ORDERLY:?}");
            sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(status.code(), Some(0), "the daemon's end: {status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            super::say(&end_of_log(&self.directory));
        }
    }
}

fn end_of_log(directory: &Path) -> String {
    let log = std::fs::read(directory.join("stderr")).unwrap_or_default();
    format!("the daemon's log ends:\n{}", String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]))
}
