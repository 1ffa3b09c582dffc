//! Shows on a terminal that something goes on which takes longer than a moment, and leaves nothing behind.

use crate::model::escape;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc;
use std::time::Duration;

/// How long something may take before a person wants to see that it goes on.
const PATIENCE: Duration = Duration::from_millis(500);

/// At most one bar at a time; none where standard error is no terminal.
#[derive(Default)]
pub(super) struct Progress(Option<Shown>);

struct Shown {
    bar: ProgressBar,
    /// Whether it only shows that something goes on.
    spins: bool,
    /// Dropped before [`PATIENCE`] is over, the bar never appears.
    _shown: mpsc::Sender<()>,
}

impl Progress {
    /// A transfer of `bytes` bytes begins.
    pub(super) fn transfer(&mut self, what: &str, bytes: usize) {
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {eta}");
        let bar = ProgressBar::hidden().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_length(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.show(bar, escape::line(what).into_owned(), false);
    }

    /// This many more bytes went.
    pub(super) fn advance(&self, bytes: usize) {
        if let Some(shown) = &self.0 {
            shown.bar.inc(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }

    /// A compilation goes on for so long already; nobody knows how long it takes.
    pub(super) fn compiling(&mut self, module: &str, elapsed: Duration) {
        self.spin("{spinner} {msg} ({elapsed})", elapsed, format!("compiling {}", escape::line(module)));
    }

    /// A run is being made ready, which mostly is compiling: nobody tells whoever does not stay with it.
    pub(super) fn preparing(&mut self, module: &str) {
        self.spin("{spinner} {msg} ({elapsed})", Duration::ZERO, format!("preparing {}", escape::line(module)));
    }

    /// A module waits to be compiled; 1 is next.
    pub(super) fn queued(&mut self, module: &str, place: usize) {
        let what = format!("{} waits to be compiled, place {place} in the queue", escape::line(module));
        self.spin("{spinner} {msg}", Duration::ZERO, what);
    }

    fn spin(&mut self, template: &str, elapsed: Duration, what: String) {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
        match &self.0 {
            // What is shown already goes on: one that is cleared would have to wait for its time anew.
            Some(Shown { bar, spins: true, .. }) => {
                bar.set_style(style);
                bar.set_message(what);
                if elapsed.is_zero() {
                    bar.reset_elapsed();
                }
            }
            _ => self.show(ProgressBar::hidden().with_style(style).with_elapsed(elapsed), what, true),
        }
    }

    fn show(&mut self, bar: ProgressBar, what: String, spins: bool) {
        self.clear();
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = bar.with_message(what);
        let (shown, dropped) = mpsc::channel::<()>();
        let late = bar.clone();
        std::thread::spawn(move || {
            if dropped.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                late.set_draw_target(ProgressDrawTarget::stderr());
                late.enable_steady_tick(Duration::from_millis(100));
            }
        });
        self.0 = Some(Shown { bar, spins, _shown: shown });
    }

    /// It is over.
    pub(super) fn clear(&mut self) {
        if let Some(shown) = self.0.take() {
            shown.bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
