//! What standard output is: a terminal of some size, which is shown colours and lines that fit; or something else, which gets
//! plain text in full.

use super::colour;
use ratatui::crossterm::terminal;
use std::io::IsTerminal;

/// How something is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Look {
    /// Columns that a line may have. `None`: as many as it needs.
    pub(super) width: Option<usize>,
    /// Whether there are colours.
    pub(super) colour: bool,
}

impl Look {
    /// As standard output is now. `in_full`: nothing is cut.
    pub(super) fn of_stdout(in_full: bool) -> Look {
        if !is_terminal() {
            return Look::default();
        }
        Look { width: size().map(|(columns, _)| columns).filter(|_| !in_full), colour: colour::wanted() }
    }
}

/// Whether a person looks at standard output.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Columns and rows of the terminal. `None`: it does not know, as one that nobody has given a size.
pub(super) fn size() -> Option<(usize, usize)> {
    let (columns, rows) = terminal::size().ok()?;
    (columns > 0 && rows > 0).then_some((columns.into(), rows.into()))
}
