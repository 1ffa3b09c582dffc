//! `coracle run --watch`: the file is run again whenever it changes. What it has become is sent and compiled first; the run
//! before goes on until that is done, and if it cannot be compiled.
//!
//! The file is looked at, five times a second: that finds every way of replacing one (written in place, renamed over, linked
//! anew), also where a system tells of no changes, such as directories of other machines.

use super::daemon::Signals;
use super::file::{self, ModuleFile};
use super::run::{STOPPED, Seen, print_stream, stop};
use super::{Failure, Outcome, complain, say};
use crate::client::{Client, Target};
use crate::model::name::Name;
use crate::model::request::RunArgs;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often it is looked whether the file is another one.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a file that changes has to stay as it is before it is read: those who write it do so in pieces.
const QUIET: Duration = Duration::from_millis(100);

/// That there is something to watch, and that it can be.
pub(super) fn check(args: &RunArgs) -> Result<(), Failure> {
    let refused = if args.detach {
        "it stays attached, and does not go with -d"
    } else if args.interactive {
        "it does not go with -i: what one run has read is not there for the next"
    } else if args.restart.is_some() {
        "it does not go with --restart: it is what runs it again"
    } else if !file::is_path(args.module()) {
        "it needs a file, such as ./app.wasm"
    } else {
        return Ok(());
    };
    Err(Failure::new(format!("--watch: {refused}")))
}

/// Runs the file until a signal, or until nobody reads what it prints.
pub(super) async fn run(target: Target, mut client: Client, mut args: RunArgs) -> Outcome {
    (args.watch, args.attach) = (false, true);
    let path = args.module().to_owned();
    let mut signals = Signals::new().map_err(|e| Failure::new(format!("cannot listen for signals: {e}")))?;
    let mut watched = Watched { path: path.clone().into(), seen: None };
    // One that is not there at first is a slip.
    watched.seen = Stamp::of(&watched.path);
    let mut next = Some(ModuleFile::read(&path)?);
    let mut digest = String::new();
    let mut current: Option<Run> = None;
    loop {
        if let Some(module) = next.take() {
            module.sha256.clone_into(&mut digest);
            let sent = async {
                let name = module.name()?;
                module.send(&mut client, &name).await?;
                Ok::<_, Failure>(name)
            };
            let sent = tokio::select! {
                biased;
                () = signals.next() => return end(&target, current, &mut signals).await,
                sent = sent => sent,
            };
            match sent {
                Ok(name) => {
                    if let Some(run) = current.take() {
                        say(&format!("{path} has changed, and is run again"));
                        run.stop(&target).await;
                    }
                    args.sha256 = Some(digest.clone());
                    if let Some(first) = args.command.first_mut() {
                        *first = name;
                    }
                    current = Some(Run::begin(&target, &args).await?);
                }
                Err(failure) => {
                    complain(&failure);
                    let meanwhile = if current.is_some() { "; the run before goes on" } else { "" };
                    say(&format!("waiting for {path} to change{meanwhile}"));
                }
            }
        }
        tokio::select! {
            biased;
            () = signals.next() => return end(&target, current, &mut signals).await,
            ended = ended(&mut current) => {
                current = None;
                match ended {
                    Ok(Seen { code, unread: true }) => return Ok(code),
                    Ok(Seen { code, .. }) => say(&format!("it ended with {code}; waiting for {path} to change")),
                    Err(failure) => {
                        complain(&failure);
                        say(&format!("waiting for {path} to change"));
                    }
                }
            }
            module = watched.changed(&digest) => {
                // The daemon may be another one by now.
                match Client::connect(target.clone()).await {
                    Ok(connected) => (client, next) = (connected, Some(module)),
                    Err(e) => {
                        complain(&e.into());
                        module.sha256.clone_into(&mut digest);
                    }
                }
            }
        }
    }
}

/// A signal: what runs is stopped, and waited for unless there is another one.
async fn end(target: &Target, current: Option<Run>, signals: &mut Signals) -> Outcome {
    if let Some(run) = current {
        tokio::select! {
            () = run.stop(target) => {}
            () = signals.next() => {}
        }
    }
    Ok(STOPPED)
}

/// The end of what runs; never, if nothing does.
async fn ended(current: &mut Option<Run>) -> Result<Seen, Failure> {
    match current {
        Some(run) => run.ended().await,
        None => std::future::pending().await,
    }
}

/// A run, whose output is printed.
struct Run {
    /// A task of its own: it goes on printing while the next one is compiled.
    printing: JoinHandle<Result<Seen, Failure>>,
    /// The name, once it exists.
    exists: watch::Receiver<Option<Name>>,
}

impl Run {
    async fn begin(target: &Target, args: &RunArgs) -> Result<Run, Failure> {
        let mut client = Client::connect(target.clone()).await?;
        client.send(&args.words()).await?;
        let (receiver, sender) = client.split();
        let (created, exists) = watch::channel(None);
        let target = target.clone();
        let printing = async move {
            let seen = print_stream(target, receiver, created).await;
            // Until then: to close is to leave.
            drop(sender);
            seen
        };
        #[expect(clippy::disallowed_methods, reason = "its handle is kept, and waited for or left with the program")]
        Ok(Run { printing: tokio::spawn(printing), exists })
    }

    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn ended(&mut self) -> Result<Seen, Failure> {
        (&mut self.printing).await.map_err(|e| Failure::new(e.to_string()))?
    }

    /// Stops it, and returns when it is over and its name free.
    async fn stop(mut self, target: &Target) {
        // None: it is over already, or was refused.
        let name = self.exists.wait_for(Option::is_some).await.ok().and_then(|name| name.clone());
        if let Some(name) = name
            && let Err(failure) = stop(target, &name).await
            && !self.printing.is_finished()
        {
            complain(&failure);
        }
        if let Err(failure) = self.ended().await {
            complain(&failure);
        }
    }
}

/// A file that is looked at.
struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// What tells that a file is another one, or has other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<std::time::SystemTime>,
    /// Device, inode, and when that changed: of a file with the old times, put in the place of the other.
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl Stamp {
    /// `None`: there is none now.
    fn of(path: &std::path::Path) -> Option<Stamp> {
        let meta = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Stamp {
            bytes: meta.len(),
            modified: meta.modified().ok(),
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt;
                (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec())
            },
        })
    }
}

impl Watched {
    /// Returns when the file has other bytes than those of `digest`, and has been left alone for a moment. One that is gone is
    /// waited for, and so is one that is empty: somebody is about to write it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn changed(&mut self, digest: &str) -> ModuleFile {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut now = Stamp::of(&self.path);
            if now == self.seen {
                continue;
            }
            loop {
                tokio::time::sleep(QUIET).await;
                let later = Stamp::of(&self.path);
                if later == now {
                    break;
                }
                now = later;
            }
            if now.is_some_and(|stamp| stamp.bytes == 0) {
                continue;
            }
            let read = ModuleFile::read(&self.path.to_string_lossy());
            // What was replaced while it was read is looked at again.
            if Stamp::of(&self.path) != now {
                continue;
            }
            self.seen = now;
            match read {
                Ok(module) if module.sha256 != digest => return module,
                // Touched, or gone for now.
                Ok(_) | Err(_) => {}
            }
        }
    }
}
