//! `coracle run`: attached, it is a program like any other: its output, its input, its exit code.

use super::daemon::Signals;
use super::failure::{Failure, complain};
use super::file::{self, ModuleFile};
use super::progress::Progress;
use super::{FAILED, Outcome, background, print, say, show, watch as watching};
use crate::client::{Client, Next, Receiver, Sender, Target};
use crate::model::name::Name;
use crate::model::reply::{InstanceView, StreamEvent};
use crate::model::request::RunArgs;
use std::io::Read;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// What a shell shows for a program that was ended by Ctrl-C before it began: as for a stop.
pub(super) const STOPPED: u8 = 143;
/// Time for the daemon to say what became of a run that is interrupted before it began.
const LAST_WORD: Duration = Duration::from_millis(300);

pub(super) async fn run(target: Target, mut args: RunArgs) -> Outcome {
    if args.watch {
        watching::check(&args)?;
    }
    resolve_environment(&mut args)?;
    for mount in args.volume.iter_mut().chain(&mut args.dir) {
        // The daemon has a directory of its own to begin at.
        let path = std::path::absolute(&mount.host).map_err(|e| Failure::new(mount.host.clone()).cause(e))?;
        mount.host = path.to_str().ok_or_else(|| Failure::new(format!("{} is not UTF-8", path.display())))?.to_owned();
    }
    let mut client = match args.no_autostart {
        true => Client::connect(target.clone()).await?,
        false => background::connect_or_start(&target).await?,
    };
    args.no_autostart = false;
    if args.watch {
        return watching::run(target, client, args).await;
    }
    if file::is_path(args.module()) {
        let module = ModuleFile::read(args.module())?;
        let name = module.name()?;
        module.send(&mut client, &name).await?;
        args.sha256 = Some(module.sha256);
        if let Some(first) = args.command.first_mut() {
            *first = name;
        }
    }
    if args.detach {
        let words = args.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut progress = Progress::default();
        progress.preparing(args.module());
        let created: crate::model::reply::Created = client.request(&words).await?;
        progress.clear();
        return print(&format!("{}\n", created.name));
    }
    args.attach = true;
    attached(target, client, &args).await
}

/// `-e KEY` takes the value from our environment, and files are read here: the daemon sees neither.
fn resolve_environment(args: &mut RunArgs) -> Result<(), Failure> {
    let mut entries = Vec::new();
    for path in std::mem::take(&mut args.env_file) {
        let text = std::fs::read_to_string(&path).map_err(|e| Failure::new(format!("cannot read {path}")).cause(e))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        entries.extend(lines.map(str::to_owned));
    }
    entries.append(&mut args.env);
    for entry in entries {
        if entry.contains('=') {
            args.env.push(entry);
        } else if let Ok(value) = std::env::var(&entry) {
            args.env.push(format!("{entry}={value}"));
        }
        // A variable that is not set is not passed on, as docker does it.
    }
    Ok(())
}

async fn attached(target: Target, mut client: Client, args: &RunArgs) -> Outcome {
    // Before the run is asked for, or a signal right behind that would end this program and leave the run to itself.
    let mut signals = Signals::new().map_err(|e| Failure::new("cannot listen for signals").cause(e))?;
    client.send(&args.words()).await?;
    let (receiver, sender) = client.split();
    // The name once the run exists: what Ctrl-C has to stop.
    let (created, exists) = watch::channel(None::<Name>);
    let interrupted = async {
        signals.next().await;
        if exists.borrow().is_none() {
            // It may be about to exist; after this it either does, or goes with our connection.
            let mut exists = exists.clone();
            if tokio::time::timeout(LAST_WORD, exists.wait_for(Option::is_some)).await.is_err() {
                return Ok(STOPPED);
            }
        }
        let name = exists.borrow().clone();
        let stopping = async {
            if let Some(name) = name {
                stop(&target, &name).await?;
            }
            // The stream ends by itself now.
            std::future::pending().await
        };
        tokio::select! {
            outcome = stopping => outcome,
            // A second signal waits for nothing.
            () = signals.next() => Ok(STOPPED),
        }
    };
    // Tasks of their own: a blocked standard output must not keep us from hearing signals.
    let mut input = JoinSet::new();
    if args.interactive {
        input.spawn(forward_input(sender));
    }
    let mut printing = JoinSet::new();
    printing.spawn(print_stream(target.clone(), receiver, created));
    tokio::select! {
        Some(outcome) = printing.join_next() => Ok(outcome.map_err(|e| Failure::new(e.to_string()))??.code),
        outcome = interrupted => outcome,
    }
}

pub(super) async fn stop(target: &Target, name: &Name) -> Result<(), Failure> {
    let mut client = Client::connect(target.clone()).await?;
    client.request::<serde_json::Value>(&["stop", name.as_str()]).await?;
    Ok(())
}

/// How an attached run came to its end.
pub(super) struct Seen {
    pub(super) code: u8,
    /// Nobody reads our output any more.
    pub(super) unread: bool,
}

/// Prints what a run prints, until it is over.
pub(super) async fn print_stream(
    target: Target,
    mut receiver: Receiver,
    created: watch::Sender<Option<Name>>,
) -> Result<Seen, Failure> {
    let mut progress = Progress::default();
    let mut stopping = false;
    loop {
        match receiver.next::<InstanceView>().await? {
            Next::Event(StreamEvent::Compiling { module, queued, elapsed_ms }) => match queued {
                Some(place) => progress.queued(module.as_str(), place),
                None => progress.compiling(module.as_str(), Duration::from_millis(elapsed_ms)),
            },
            Next::Event(StreamEvent::Created(run)) => {
                progress.clear();
                created.send_replace(Some(run.name));
            }
            Next::Event(StreamEvent::Output(output)) if !stopping => {
                let Some(bytes) = output.data.into_bytes() else { continue };
                match show::write(output.stream, &bytes) {
                    Ok(()) => {}
                    Err(e) => {
                        // Nobody would see the rest: a program of our own would get SIGPIPE, or fail.
                        stopping = true;
                        let name = created.borrow().clone();
                        if let Some(name) = name {
                            stop(&target, &name).await?;
                        }
                        // A reader that left is not worth a word.
                        if e.kind() != std::io::ErrorKind::BrokenPipe {
                            return Err(e.into());
                        }
                    }
                }
            }
            Next::Event(_) => {}
            Next::End(view) => return Ok(Seen { code: told(&view), unread: stopping }),
        }
    }
}

/// The exit code; an end that was not the guest's own is told on standard error.
fn told(view: &InstanceView) -> u8 {
    let code = view.exit_code.unwrap_or(FAILED);
    if view.state == "restarting" {
        if view.reason.as_deref() == Some("restart") {
            say(&format!("'{}' was restarted, and goes on without us", view.name));
            return code;
        }
        say(&format!("'{}' ended with {code} and runs again (--restart {})", view.name, view.restart));
        return code;
    }
    let why = view.message.as_deref();
    if view.state == "exited" {
        // What it was refused is what it mostly failed for.
        if let Some(why) = why.filter(|_| code != 0) {
            say(&format!("'{}' ended with {code}; {why}", view.name));
        }
    } else if view.reason.as_deref() != Some("stop") {
        let why = why.or(view.reason.as_deref()).unwrap_or_default();
        let mut failure = Failure::new(format!("'{}' {}: {why}", view.name, view.state));
        failure.hints = hints(view);
        complain(&failure);
    }
    code
}

/// What helps against an end like this one.
fn hints(view: &InstanceView) -> Vec<String> {
    const MIB: usize = 1 << 20;
    let why = view.message.as_deref().unwrap_or_default();
    let mut hints = vec![];
    if why.contains("(-m)") {
        let more = view.memory_bytes_max.saturating_mul(2).div_ceil(MIB);
        hints.push(format!("give it more memory, such as -m {more}m"));
    }
    match view.reason.as_deref() {
        Some("timeout") => hints.push("give it more time: --timeout TIME".to_owned()),
        Some("cpu-time") => hints.push("give it more processor time: --cpu-time TIME".to_owned()),
        _ => {}
    }
    let by_itself = matches!(view.state.as_str(), "trapped" | "timed-out" | "killed" | "failed" | "lost")
        && view.reason.as_deref() != Some("kill");
    // With --rm it is gone by now.
    if by_itself && !view.remove {
        hints.push(format!("coracle logs {0} shows what it printed, coracle inspect {0} how it ended", view.name));
    }
    hints
}

/// Standard input to the guest, until its end or ours.
async fn forward_input(mut sender: Sender) {
    const CHUNK: usize = 16 * 1024;
    let (send, mut receive) = mpsc::channel::<Vec<u8>>(1);
    // A thread that is not waited for: a read of a terminal cannot be interrupted.
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut stdin = std::io::stdin().lock();
        while let Ok(n) = stdin.read(&mut buffer)
            && n > 0
            && send.blocking_send(buffer[..n].to_vec()).is_ok()
        {}
    });
    while let Some(bytes) = receive.recv().await {
        if sender.input(&bytes).await.is_err() {
            return;
        }
    }
    if sender.end_of_input().await.is_ok() {
        // The connection stays open for the output.
        std::future::pending::<()>().await;
    }
}
