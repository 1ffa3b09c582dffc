//! Something that is shown again and again: in place on a terminal, otherwise below each other. Ctrl-C is its ordinary end.

use super::daemon::Signals;
use super::{Failure, terminal};
use crate::client::{Client, Next};
use crate::model::escape;
use crate::model::reply::StreamEvent;
use serde::Serialize;
use serde_json::Value;
use std::io::Write;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where it is shown.
pub(super) struct Screen {
    in_place: bool,
    signals: Signals,
}

const CLEAR: &str = "\x1b[2J";
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";

impl Screen {
    /// Begins; `in_place` if it is a terminal.
    pub(super) fn begin(in_place: bool) -> Result<Screen, Failure> {
        let signals = Signals::new().map_err(|e| Failure::new(format!("cannot listen for signals: {e}")))?;
        let in_place = in_place && terminal::is_terminal();
        let screen = Screen { in_place, signals };
        if in_place {
            write(&format!("{HIDE_CURSOR}{CLEAR}"))?;
        }
        Ok(screen)
    }

    /// Whether each text takes the place of the last.
    pub(super) fn in_place(&self) -> bool {
        self.in_place
    }

    /// Shows a text of whole lines. False: nobody reads it any more.
    pub(super) fn show(&self, text: &str) -> Result<bool, Failure> {
        if !self.in_place {
            return write(text);
        }
        let rows = terminal::size().map_or(usize::MAX, |(_, rows)| rows);
        write(&frame(text, rows))
    }

    /// Waits. False: a signal came.
    pub(super) async fn pause(&mut self, time: Duration) -> bool {
        self.pause_until(tokio::time::sleep(time)).await
    }

    /// Waits for something. False: a signal came.
    pub(super) async fn pause_until(&mut self, something: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = self.signals.next() => false,
            () = something => true,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.in_place {
            // If it cannot be told, nobody is there.
            let _told = write(SHOW_CURSOR);
        }
    }
}

/// One picture: from the first row on, each line with nothing left of the last picture behind it, and nothing below. What has no
/// room is counted in the last row.
fn frame(text: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    // The cursor stands below the last line.
    let room = rows.saturating_sub(1).max(1);
    let mut out = String::from("\x1b[H");
    let fits = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
    for line in &lines[..fits] {
        out.push_str(line);
        out.push_str("\x1b[K\r\n");
    }
    if fits < lines.len() {
        out.push_str(&format!("… and {} more\x1b[K\r\n", lines.len() - fits));
    }
    out.push_str("\x1b[J");
    out
}

fn write(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// JSON on one line, for who reads it line by line.
pub(super) fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::new(format!("cannot be JSON: {e}")))?;
    Ok(format!("{}\n", escape::json(text)))
}

/// Tells when something happens to instances.
pub(super) struct Happenings {
    seen: watch::Receiver<()>,
    _task: JoinSet<()>,
}

impl Happenings {
    /// Listens on a connection of its own.
    pub(super) async fn listen(mut client: Client) -> Result<Happenings, Failure> {
        let (tell, seen) = watch::channel(());
        client.send(&["events", "--since", "0s"]).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Its end is seen by whoever asks next.
            while let Ok(Next::Event(event)) = client.next::<Value>().await {
                if matches!(event, StreamEvent::Registry { .. } | StreamEvent::Lost { .. }) {
                    tell.send_replace(());
                }
            }
        });
        Ok(Happenings { seen, _task: task })
    }

    /// Returns when something has happened, or after `most`, and not before `least`: what comes at once is shown once.
    pub(super) async fn next(&mut self, least: Duration, most: Duration) {
        tokio::time::sleep(least).await;
        let rest = most.saturating_sub(least);
        let happened = async {
            // Without anybody who tells there is the time.
            if self.seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        // Either will do.
        let _timeout = tokio::time::timeout(rest, happened).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_covers_the_last_one_and_fits() {
        assert_eq!(frame("a\nb\n", 24), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J");
        assert_eq!(frame("a\nb\nc\n", 4), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\nc\x1b[K\r\n\x1b[J");
        assert_eq!(frame("a\nb\nc\nd\n", 4), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n… and 2 more\x1b[K\r\n\x1b[J");
        assert_eq!(frame("a\nb\n", 1), "\x1b[H… and 2 more\x1b[K\r\n\x1b[J");
    }
}
