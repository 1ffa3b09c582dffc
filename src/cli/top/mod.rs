//! `coracle top`: a live screen of what runs. `state` is what it knows and what keys do, `draw` how that looks, `screen` the
//! terminal; here is what brings the samples, the log and the keys, and does what was asked for.
//!
//! ```text
//! keys (a thread) ──┐
//! samples (a task) ─┼─► inputs ─► state ─► effects ─► requests (a task each), the log (a task), the end
//! log (a task) ─────┘               └────► draw
//! ```

mod draw;
mod screen;
mod state;

use super::daemon::Signals;
use super::{Failure, Outcome, colour, terminal, usage};
use crate::client::{Client, ClientError, Next, Target};
use crate::model::escape;
use crate::model::reply::{LineAssembler, StreamEvent};
use crate::model::request::StdStream;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::Value;
use state::{Effect, Input, Top};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How much of the processor samples may take of us: of a daemon with many instances there are fewer.
const SHARE: u32 = 10;
/// How long somebody who goes through the list may stay at an instance before its log is asked for.
const LINGER: Duration = Duration::from_millis(150);
/// What a shell sees of a program that was ended by SIGTERM.
const TERMINATED: u8 = 143;

pub(super) async fn run(target: Target) -> Outcome {
    if !terminal::is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new("`coracle top` is for a terminal").hint("`coracle stats` shows the same elsewhere"));
    }
    // What is wrong from the start is told in an ordinary way.
    let client = Client::connect(target.clone()).await?;
    let mut signals = Signals::new().map_err(|e| Failure::new(format!("cannot listen for signals: {e}")))?;
    let (inputs, mut received) = mpsc::channel(64);
    let (all, all_wanted) = watch::channel(false);
    let (follow, followed) = watch::channel(None);
    let mut screen = screen::Screen::take().map_err(|e| Failure::new(format!("cannot use the terminal: {e}")))?;
    let mut tasks = JoinSet::new();
    tasks.spawn(samples(client, target.clone(), all_wanted, inputs.clone()));
    tasks.spawn(logs(target.clone(), followed, inputs.clone()));
    keys(inputs.clone());
    let mut top = Top::default();
    loop {
        screen.terminal.draw(|frame| draw::draw(frame, &mut top, colour::wanted()))?;
        let input = tokio::select! {
            biased;
            () = signals.next() => return Ok(TERMINATED),
            Some(ended) = tasks.join_next() => match ended {
                Ok(()) => continue,
                // It has been told; the terminal is as it was by then.
                Err(e) => return Err(Failure::new(format!("a defect of coracle: {e}"))),
            },
            input = received.recv() => input,
        };
        let mut next = input;
        // All that is there before it is drawn again.
        while let Some(input) = next {
            for effect in top.input(input) {
                match effect {
                    Effect::Quit => return Ok(0),
                    Effect::All(wanted) => {
                        all.send_replace(wanted);
                    }
                    Effect::Follow(name) => {
                        follow.send_replace(name);
                    }
                    Effect::Ask(act, name) => {
                        tasks.spawn(ask(target.clone(), act, name, inputs.clone()));
                    }
                }
            }
            next = received.try_recv().ok();
        }
    }
}

/// Reads the terminal on a thread that is not waited for: a read cannot be interrupted.
fn keys(inputs: mpsc::Sender<Input>) {
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let input = match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => Input::Key(key),
                Event::Resize(..) => Input::Resized,
                _ => continue,
            };
            if inputs.blocking_send(input).is_err() {
                return;
            }
        }
    });
}

/// Samples, one after the other, from whatever daemon is there.
async fn samples(client: Client, target: Target, mut all: watch::Receiver<bool>, inputs: mpsc::Sender<Input>) {
    let mut connected = Some(client);
    loop {
        let begun = Instant::now();
        let wanted = *all.borrow_and_update();
        let sample = async {
            let mut client = match connected.take() {
                Some(client) => client,
                None => Client::connect(target.clone()).await?,
            };
            let sample = client.stats(&[], wanted).await?;
            connected = Some(client);
            Ok::<_, ClientError>(sample)
        };
        let input = match sample.await {
            Ok(sample) => Input::Sample(Box::new(sample)),
            Err(error) => Input::Lost(error.to_string()),
        };
        if inputs.send(input).await.is_err() {
            return;
        }
        let pause = usage::EVERY.max(begun.elapsed() * SHARE);
        // Somebody who wants to see others does not want to wait.
        let _either = tokio::time::timeout(pause, all.changed()).await;
    }
}

/// The log of whoever is selected, until another one is.
async fn logs(target: Target, mut followed: watch::Receiver<Option<String>>, inputs: mpsc::Sender<Input>) {
    loop {
        let name = followed.borrow_and_update().clone();
        let follow = async {
            if let Some(name) = name {
                tokio::time::sleep(LINGER).await;
                // Its end, whatever it is, says nothing that the list does not say.
                let _ended = follow(&target, &name, &inputs).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            changed = followed.changed() => if changed.is_err() { return },
            () = follow => {}
        }
    }
}

async fn follow(target: &Target, name: &str, inputs: &mpsc::Sender<Input>) -> Result<(), ClientError> {
    let mut client = Client::connect(target.clone()).await?;
    client.send(&["logs", "--follow", &format!("--tail={}", state::LOG_LINES), name]).await?;
    let mut assemblers: [LineAssembler; 2] = Default::default();
    while let Next::Event(event) = client.next::<Value>().await? {
        let mut lines = vec![];
        match event {
            StreamEvent::Output(output) => {
                let assembler = &mut assemblers[usize::from(output.stream == StdStream::Stderr)];
                if let Some(bytes) = output.data.into_bytes() {
                    assembler.push(&bytes, |line| lines.push(escape::line_of_bytes(line)));
                }
            }
            StreamEvent::Dropped { bytes } => lines.push(format!("[{bytes} bytes of output were dropped]")),
            _ => {}
        }
        if !lines.is_empty() && inputs.send(Input::Log(name.to_owned(), lines)).await.is_err() {
            break;
        }
    }
    let mut lines = vec![];
    assemblers.iter_mut().for_each(|rest| rest.finish(|line| lines.push(escape::line_of_bytes(line))));
    // If nobody wants it, we are about to end.
    let _unheard = inputs.send(Input::Log(name.to_owned(), lines)).await;
    Ok(())
}

/// Does what was asked for, and tells what came of it.
async fn ask(target: Target, act: state::Act, name: String, inputs: mpsc::Sender<Input>) {
    let done = async {
        let mut client = Client::connect(target).await?;
        let words = [act.words(), &[name.as_str()]].concat();
        client.request::<Value>(&words).await
    };
    let told = done.await.map(|_| act.done(&name)).map_err(|e| e.to_string());
    // If nobody wants to know, we are about to end.
    let _unheard = inputs.send(Input::Done(told)).await;
}
