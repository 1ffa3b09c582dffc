//! Aligned columns for people. Cells are escaped, widths are those of a terminal's columns, and where a line has to fit, columns
//! that can shrink are cut with `…`, and those that one can do without are left out.

use super::colour::Paint;
use super::terminal::Look;
use crate::model::escape;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: usize = 2;

/// What a column is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    head: &'static str,
    right: bool,
    /// The least columns of a terminal that are left of it. `None`: it is whole or not there.
    least: Option<usize>,
    /// The higher, the sooner it is left out where there is no room. 0: never.
    spare: u8,
    /// What does not fit goes on in the next line.
    wraps: bool,
}

impl Column {
    pub(super) const fn new(head: &'static str) -> Column {
        Column { head, right: false, least: None, spare: 0, wraps: false }
    }

    /// Numbers stand at its right side.
    pub(super) const fn right(self) -> Column {
        Column { right: true, ..self }
    }

    /// It can be cut, to this.
    pub(super) const fn shrinks(self, least: usize) -> Column {
        Column { least: Some(least), ..self }
    }

    /// It can be left out; those with higher numbers go first.
    pub(super) const fn spare(self, spare: u8) -> Column {
        Column { spare, ..self }
    }

    /// The last column: its text goes on in the next line, unless there is less room than this.
    pub(super) const fn wraps(self, least: usize) -> Column {
        Column { wraps: true, least: Some(least), ..self }
    }
}

/// A cell of a table.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    /// A cell in a colour.
    pub(super) fn painted(text: &str, paint: Paint) -> Cell {
        Cell { paint: Some(paint), ..Cell::from(text) }
    }
}

/// Every cell is escaped: whoever answers may be no daemon of ours.
impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell { text: escape::line(text).into_owned(), paint: None }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::from(text.as_str())
    }
}

/// A table with its head and its rows, each line with its end.
pub(super) fn table<const N: usize>(
    columns: &[Column; N],
    rows: impl IntoIterator<Item = [Cell; N]>,
    look: Look,
) -> String {
    let rows: Vec<[Cell; N]> = rows.into_iter().collect();
    let mut widths = columns.map(|column| column.head.width());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.width());
        }
    }
    let shown = fit(columns, &mut widths, look.width);
    let mut out = String::new();
    let head = columns.map(|column| Cell { text: column.head.to_owned(), paint: Some(Paint::Head) });
    for row in std::iter::once(&head).chain(&rows) {
        push_row(&mut out, columns, &widths, &shown, row, look);
    }
    out
}

/// Narrows the columns so that a line fits, and says which of them are shown.
fn fit<const N: usize>(columns: &[Column; N], widths: &mut [usize; N], room: Option<usize>) -> [bool; N] {
    let mut shown = [true; N];
    let Some(room) = room else { return shown };
    let gaps = |shown: &[bool; N]| GAP * shown.iter().filter(|shown| **shown).count().saturating_sub(1);
    let least =
        |i: usize, width: usize| columns[i].least.map_or(width, |least| least.max(columns[i].head.width()).min(width));
    loop {
        let needed: usize = (0..N).filter(|i| shown[*i]).map(|i| least(i, widths[i])).sum();
        if needed + gaps(&shown) <= room {
            break;
        }
        let spare = (0..N).filter(|i| shown[*i] && columns[*i].spare > 0).max_by_key(|i| columns[*i].spare);
        match spare {
            Some(spare) => shown[spare] = false,
            None => break,
        }
    }
    loop {
        let all: usize = (0..N).filter(|i| shown[*i]).map(|i| widths[i]).sum::<usize>() + gaps(&shown);
        // The widest gives the most. One that wraps loses nothing by it.
        let widest = (0..N)
            .filter(|i| shown[*i] && least(*i, widths[*i]) < widths[*i])
            .max_by_key(|i| (columns[*i].wraps, widths[*i]));
        match widest {
            Some(widest) if all > room => {
                let others =
                    (0..N).filter(|i| *i != widest && shown[*i] && columns[*i].least.is_some() && !columns[*i].wraps);
                let next = if columns[widest].wraps { 0 } else { others.map(|i| widths[i]).max().unwrap_or(0) };
                // Down to the next widest, or by one where several are equally wide.
                let to = widths[widest].saturating_sub(all - room).max(next).min(widths[widest] - 1);
                widths[widest] = to.max(least(widest, widths[widest]));
            }
            _ => return shown,
        }
    }
}

fn push_row<const N: usize>(
    out: &mut String,
    columns: &[Column; N],
    widths: &[usize; N],
    shown: &[bool; N],
    row: &[Cell; N],
    look: Look,
) {
    let last = (0..N).rfind(|i| shown[*i]).unwrap_or(0);
    let mut more = vec![];
    let mut line = Line { room: look.width, ..Line::default() };
    for i in (0..N).filter(|i| shown[*i]) {
        let cell = &row[i];
        let room = look.width.map_or(usize::MAX, |room| room.saturating_sub(line.width)).min(widths[i]);
        let wraps = columns[i].wraps && columns[i].least.is_some_and(|least| least <= room);
        let text = if wraps && cell.text.width() > room {
            more = wrapped(&cell.text, room);
            more.remove(0)
        } else {
            cut(&cell.text, widths[i])
        };
        let pad = widths[i].saturating_sub(text.width());
        let at = line.width;
        line.blanks(if columns[i].right { pad } else { 0 });
        line.push(&text, cell.paint.filter(|_| look.colour));
        if i != last {
            line.blanks(if columns[i].right { 0 } else { pad } + GAP);
        } else {
            more = more.iter().map(|text| format!("{}{text}", " ".repeat(at))).collect();
        }
    }
    out.push_str(&line.end());
    for text in more {
        out.push_str(text.trim_end());
        out.push('\n');
    }
}

/// A line that is being put together, of which nothing is shown beyond its room.
#[derive(Default)]
struct Line {
    text: String,
    width: usize,
    pending: usize,
    room: Option<usize>,
}

impl Line {
    /// Blanks, unless nothing comes behind them.
    fn blanks(&mut self, n: usize) {
        self.pending += n;
        self.width += n;
    }

    fn push(&mut self, text: &str, paint: Option<Paint>) {
        let room = self.room.map_or(usize::MAX, |room| room.saturating_sub(self.width));
        let text = cut(text, room);
        if text.is_empty() {
            return;
        }
        self.text.push_str(&" ".repeat(std::mem::take(&mut self.pending)));
        self.width += text.width();
        match paint {
            Some(paint) => self.text.push_str(&paint.paint(&text, true)),
            None => self.text.push_str(&text),
        }
    }

    fn end(mut self) -> String {
        self.text.push('\n');
        self.text
    }
}

/// Text of at most `room` columns of a terminal, with `…` at its end if there was more.
pub(super) fn cut(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut width = 0;
    for c in text.chars() {
        let more = c.width().unwrap_or(0);
        // One for the mark.
        if width + more + 1 > room {
            break;
        }
        width += more;
        out.push(c);
    }
    if room > 0 {
        out.push('…');
    }
    out
}

/// Text in lines of at most `room` columns, broken between words where that can be.
pub(super) fn wrapped(text: &str, room: usize) -> Vec<String> {
    let room = room.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        let gap = usize::from(!line.is_empty());
        if line.width() + gap + word.width() <= room {
            line.push_str(if gap > 0 { " " } else { "" });
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(String::new());
        }
        for c in word.chars() {
            let line = lines.last_mut().expect("there is always one");
            if line.width() + c.width().unwrap_or(0) > room && !line.is_empty() {
                lines.push(c.to_string());
            } else {
                line.push(c);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COLUMNS: [Column; 3] =
        [Column::new("NAME").shrinks(6), Column::new("N").right().spare(1), Column::new("STATE").shrinks(5)];

    fn rows(all: &[[&str; 3]]) -> Vec<[Cell; 3]> {
        all.iter().map(|row| row.map(Cell::from)).collect()
    }

    fn at(width: usize, all: &[[&str; 3]]) -> String {
        table(&COLUMNS, rows(all), Look { width: Some(width), colour: false })
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let all = [["web", "1", "exited (0)"], ["a-long-name", "100", "running"]];
        let whole = "NAME           N  STATE\nweb            1  exited (0)\na-long-name  100  running\n";
        assert_eq!(table(&COLUMNS, rows(&all), Look::default()), whole);
        assert_eq!(at(28, &all), whole, "it just fits");
        assert_eq!(at(200, &all), whole);
        let hostile = [["a\nb", "", "\u{202e}"]];
        assert_eq!(table(&COLUMNS, rows(&hostile), Look::default()), "NAME  N  STATE\na\\nb     \\u{202e}\n");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_then_left_out() {
        let all = [["web", "1", "exited (0)"], ["a-long-name", "100", "running"]];
        assert_eq!(at(27, &all), "NAME          N  STATE\nweb           1  exited (0)\na-long-na…  100  running\n");
        assert_eq!(at(21, &all), "NAME       N  STATE\nweb        1  exited…\na-long…  100  running\n");
        assert_eq!(at(17, &all), "NAME      STATE\nweb       exited…\na-long-…  running\n", "without the numbers");
        for narrow in 1..15 {
            for line in at(narrow, &all).lines() {
                assert!(line.width() <= narrow, "{narrow}: {line}");
            }
        }
    }

    #[test]
    fn widths_are_those_of_a_terminal() {
        let all = [["漢字", "1", "x"], ["é", "2", "x"], ["e\u{301}", "3", "x"]];
        assert_eq!(
            table(&COLUMNS, rows(&all), Look::default()),
            "NAME  N  STATE\n漢字  1  x\né     2  x\ne\u{301}     3  x\n"
        );
        assert_eq!(cut("漢字漢字", 5), "漢字…");
        assert_eq!(cut("漢字漢字", 4), "漢…");
        assert_eq!(
            (cut("abc", 3), cut("abc", 2), cut("abc", 1), cut("abc", 0)),
            ("abc".into(), "a…".into(), "…".into(), String::new())
        );
    }

    #[test]
    fn colours_do_not_count() {
        let row = [Cell::painted("lost", Paint::Bad), Cell::from("1"), Cell::from("x")];
        assert_eq!(
            table(&COLUMNS, [row], Look { width: Some(80), colour: true }),
            "\x1b[1mNAME\x1b[0m  \x1b[1mN\x1b[0m  \x1b[1mSTATE\x1b[0m\n\x1b[31mlost\x1b[0m  1  x\n"
        );
    }

    #[test]
    fn the_last_column_may_go_on_below() {
        let columns = [Column::new("FLAG"), Column::new("BOUNDS").wraps(8)];
        let row = || [[Cell::from("-m"), Cell::from("all memories of an instance")]];
        let at = |width| table(&columns, row(), Look { width: Some(width), colour: false });
        assert_eq!(at(40), "FLAG  BOUNDS\n-m    all memories of an instance\n");
        assert_eq!(at(18), "FLAG  BOUNDS\n-m    all memories\n      of an\n      instance\n");
        assert_eq!(wrapped("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrapped("", 3), [""]);
    }

    proptest! {
        #[test]
        fn every_line_fits_whatever_is_in_it(
            cells in prop::collection::vec(["\\PC{0,30}", "[0-9]{0,5}", "\\PC{0,30}"], 0..5), width in 1_usize..60
        ) {
            let rows: Vec<[Cell; 3]> = cells.iter().map(|[a, b, c]| [a.as_str().into(), b.as_str().into(), c.as_str().into()]).collect();
            let text = table(&COLUMNS, rows.clone(), Look { width: Some(width), colour: false });
            prop_assert_eq!(text.lines().count(), cells.len() + 1);
            for line in text.lines() {
                prop_assert!(line.width() <= width, "{} columns: {}", line.width(), line);
            }
            let whole = table(&COLUMNS, rows, Look::default());
            prop_assert!(cells.iter().zip(whole.lines().skip(1)).all(|([_, n, _], line)| line.contains(n.as_str())));
        }
    }
}
