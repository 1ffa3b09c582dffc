//! Colours for people: on a terminal, unless `NO_COLOR` says otherwise (<https://no-color.org>). Nothing is said by a colour alone.

use std::io::IsTerminal;

/// What a colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// It goes well.
    Good,
    /// It is on its way, or about to.
    Waiting,
    /// It failed.
    Bad,
    /// It was made to end.
    Ended,
    /// It is over, or matters less.
    Faint,
    /// The head of something.
    Head,
    /// The word before what failed.
    Error,
    /// The word before what may fail.
    Doubt,
}

impl Paint {
    /// Of a state, with the exit code of one that is over.
    pub(super) fn of_state(state: &str, exit_code: Option<u8>) -> Paint {
        match (state, exit_code) {
            ("running" | "started", _) => Paint::Good,
            ("created" | "restarting" | "resumed" | "stop-requested", _) => Paint::Waiting,
            ("exited", Some(0)) | ("stopped" | "removed" | "restart-cancelled", _) => Paint::Faint,
            ("killed" | "timed-out", _) => Paint::Ended,
            _ => Paint::Bad,
        }
    }

    /// Select Graphic Rendition (ECMA-48, 8.3.117): the eight colours that every palette has.
    fn sgr(self) -> &'static str {
        match self {
            Paint::Good => "32",
            Paint::Waiting => "36",
            Paint::Bad => "31",
            Paint::Ended => "35",
            Paint::Faint => "2",
            Paint::Head => "1",
            Paint::Error => "1;31",
            Paint::Doubt => "1;33",
        }
    }

    /// Text in this colour; `on`: or as it is.
    pub(super) fn paint(self, text: &str, on: bool) -> String {
        if on && !text.is_empty() { format!("\x1b[{}m{text}\x1b[0m", self.sgr()) } else { text.to_owned() }
    }
}

/// Paints the words before texts, for a stream that is a terminal; for any other it does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Brush(bool);

impl Brush {
    /// For what is written to this stream.
    pub(super) fn on(stream: &impl IsTerminal) -> Brush {
        Brush(stream.is_terminal() && wanted())
    }

    pub(super) fn bad(self, text: &str) -> String {
        Paint::Error.paint(text, self.0)
    }

    pub(super) fn doubtful(self, text: &str) -> String {
        Paint::Doubt.paint(text, self.0)
    }

    pub(super) fn good(self, text: &str) -> String {
        Paint::Good.paint(text, self.0)
    }

    pub(super) fn advice(self, text: &str) -> String {
        Paint::Waiting.paint(text, self.0)
    }

    #[cfg(test)]
    pub(super) fn wet() -> Brush {
        Brush(true)
    }
}

/// Whether a terminal is to be sent colours.
pub(super) fn wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_ends_where_its_text_does() {
        assert_eq!(Paint::Bad.paint("lost", true), "\x1b[31mlost\x1b[0m");
        assert_eq!(Paint::Bad.paint("lost", false), "lost");
        assert_eq!(Paint::Bad.paint("", true), "");
    }

    #[test]
    fn every_state_has_a_colour() {
        for (state, code, paint) in [
            ("created", None, Paint::Waiting),
            ("running", None, Paint::Good),
            ("restarting", Some(1), Paint::Waiting),
            ("exited", Some(0), Paint::Faint),
            ("exited", Some(1), Paint::Bad),
            ("trapped", Some(134), Paint::Bad),
            ("stopped", Some(143), Paint::Faint),
            ("killed", Some(137), Paint::Ended),
            ("timed-out", Some(124), Paint::Ended),
            ("failed", Some(126), Paint::Bad),
            ("lost", Some(125), Paint::Bad),
            ("of-a-later-version", None, Paint::Bad),
        ] {
            assert_eq!(Paint::of_state(state, code), paint, "{state}");
        }
    }
}
