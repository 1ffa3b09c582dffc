//! The terminal as `top` has it: raw, with a screen of its own. However the program ends, it is given back as it was.

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use std::io::{Stdout, stdout};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Whether the terminal is ours now; so it is given back once.
static OURS: AtomicBool = AtomicBool::new(false);

/// Ours until it is dropped.
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// What the terminal says; it is as it was then.
    pub(super) fn take() -> std::io::Result<Screen> {
        // Before anything can panic: the message is to be read on the screen that was there before.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        OURS.store(true, SeqCst);
        let taken = enable_raw_mode()
            .and_then(|()| execute!(stdout(), EnterAlternateScreen, Hide))
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match taken {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(e) => {
                give_back();
                Err(e)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    if OURS.swap(false, SeqCst) {
        // Nobody is left to tell if the terminal does not listen.
        let _left = execute!(stdout(), LeaveAlternateScreen, Show);
        let _cooked = disable_raw_mode();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const PANICS: &str = "CORACLE_TEST_PANICS_ON_A_SCREEN";

    /// In a process of its own, on a terminal that script(1) gives it.
    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        if std::env::var_os(PANICS).is_some() {
            let _screen = Screen::take().unwrap();
            panic!("on purpose");
        }
        let program = std::env::current_exe().unwrap();
        let test = "cli::top::screen::tests::a_panic_gives_the_terminal_back_before_it_is_told";
        let command = format!("{} --exact {test} --nocapture", program.display());
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).env(PANICS, "1").stdin(Stdio::null());
        let output = match script.output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(_) => return assert!(std::env::var_os("CI").is_none(), "in CI nothing may be left out: script(1)"),
        };
        let at = |text: &str| output.find(text).unwrap_or_else(|| panic!("no {text:?} in {output:?}"));
        let (taken, left, shown, told) = (at("\x1b[?1049h"), at("\x1b[?1049l"), at("\x1b[?25h"), at("on purpose"));
        assert!(taken < left && left < shown && shown < told, "{output:?}");
        assert_eq!(output.matches("\x1b[?1049l").count(), 1, "given back once: {output:?}");
    }
}
