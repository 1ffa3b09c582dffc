//! How `top` looks: only what is in sight is put into words, however many rows there are.
//!
//! ```text
//!  daemon in two lines, a spark line of its processor time
//!  NAME  STATE  CPU %  …            head
//!  rows
//!  ─ log of NAME ─                  if there is room
//!  keys, a question, or a notice
//! ```

use super::state::{Mode, Row, Sort, Top};
use crate::cli::colour::Paint;
use crate::cli::show::{size, span};
use crate::cli::table::cut;
use crate::cli::usage::percent;
use crate::model::escape;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use std::collections::VecDeque;
use unicode_width::UnicodeWidthStr;

/// The least rows of instances that are worth a pane for the log below.
const ROWS_LEAST: usize = 5;
const HEAD: usize = 3;

/// Draws it. `colour`: or in one.
pub(super) fn draw(frame: &mut Frame<'_>, top: &mut Top, colour: bool) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let pen = Pen { colour };
    let mut lines = head(top, width, pen);
    // The last line is for keys.
    let body = height.saturating_sub(HEAD + 1);
    let log = if top.log_shown && body >= ROWS_LEAST + 4 { (body / 3).max(4) } else { 0 };
    let room = body - log;
    if top.mode == Mode::Help {
        lines.extend(help().into_iter().take(body));
        lines.resize(HEAD + body, Line::default());
    } else {
        let window = top.window(room);
        let at = top.selected().map(|(at, _)| at);
        let columns = Columns::of(width);
        lines.extend(window.clone().map(|i| row(&top.rows[i], at == Some(i), &columns, pen)));
        if top.rows.is_empty() && top.lost.is_none() && top.daemon.is_some() && room > 0 {
            lines.push(pen.line(" nothing is alive; `coracle run -d clock` would be", Paint::Faint));
        }
        lines.resize(HEAD + room, Line::default());
        if log > 0 {
            lines.extend(log_pane(top, width, log, pen));
        }
    }
    lines.truncate(height.saturating_sub(1));
    lines.push(foot(top, width, pen));
    put(buffer, area, &lines);
}

fn put(buffer: &mut Buffer, area: Rect, lines: &[Line<'_>]) {
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        buffer.set_line(area.x, y, line, area.width);
    }
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Pen {
    colour: bool,
}

impl Pen {
    fn style(self, paint: Paint) -> Style {
        let style = Style::new();
        match paint {
            Paint::Head => style.add_modifier(Modifier::BOLD),
            Paint::Faint => style.add_modifier(Modifier::DIM),
            _ if !self.colour => style,
            Paint::Good => style.fg(Color::Green),
            Paint::Waiting => style.fg(Color::Cyan),
            Paint::Bad => style.fg(Color::Red),
            Paint::Error => style.fg(Color::Red).add_modifier(Modifier::BOLD),
            Paint::Doubt => style.fg(Color::Yellow).add_modifier(Modifier::BOLD),
            Paint::Ended => style.fg(Color::Magenta),
        }
    }

    fn line(self, text: &str, paint: Paint) -> Line<'static> {
        Line::styled(text.to_owned(), self.style(paint))
    }
}

fn head(top: &Top, width: usize, pen: Pen) -> Vec<Line<'static>> {
    let first = match (&top.daemon, &top.lost) {
        (_, Some(why)) => pen.line(&cut(&format!(" {} (it is tried again)", escape::line(why)), width), Paint::Bad),
        (None, None) => pen.line(" connecting", Paint::Faint),
        (Some(usage), None) => {
            let stats = &usage.stats;
            let rss = stats.rss_bytes.map(|rss| format!("   resident {}", size(rss))).unwrap_or_default();
            let text = format!(
                " coracle   alive {}/{}   memory {}/{}{rss}   up {}",
                stats.live,
                stats.live_max,
                size(stats.memory_bytes),
                size(stats.memory_bytes_max),
                span(stats.at_us),
            );
            pen.line(&cut(&text, width), Paint::Head)
        }
    };
    let second = match &top.daemon {
        Some(usage) => {
            let text = format!(
                " CPU {:>6} of {}, {} its own  ",
                percent(usage.cpu_percent),
                usage.stats.processors,
                percent(usage.own_percent)
            );
            let most = usage.stats.processors.saturating_mul(100);
            let spark = sparks(&top.history, width.saturating_sub(text.width() + 1), most);
            Line::from(vec![Span::raw(text), Span::styled(spark, pen.style(Paint::Waiting))])
        }
        None => Line::default(),
    };
    vec![first, second, columns_head(top, width)]
}

/// How many columns there can be, and which of them is the state.
const COLUMNS: usize = 11;
const STATE: usize = 2;

/// Which columns there are, by the width of the screen, and how wide the names are.
struct Columns {
    name: usize,
    sparks: usize,
    module: bool,
    age: bool,
    peak: bool,
    disk: bool,
    log: bool,
    restarts: bool,
}

impl Columns {
    fn of(width: usize) -> Columns {
        let mut columns = Columns {
            name: 0,
            sparks: if width >= 100 { 20 } else { 10 },
            module: width >= 118,
            age: width >= 50,
            peak: width >= 74,
            disk: width >= 92,
            log: width >= 104,
            restarts: width >= 110,
        };
        if width < 62 {
            columns.sparks = 0;
        }
        let taken: usize = columns.widths().iter().filter(|(shown, ..)| *shown).map(|(_, width, _)| width + 1).sum();
        columns.name = width.saturating_sub(taken).clamp(8, 64);
        columns
    }

    /// Of each column whether there is one, how wide it is, and whether its text stands at the right.
    fn widths(&self) -> [(bool, usize, bool); COLUMNS] {
        [
            (true, self.name, false),
            (self.module, 12, false),
            (true, 11, false),
            (true, 7, true),
            (self.sparks > 0, self.sparks, false),
            (true, 10, true),
            (self.peak, 5, true),
            (self.disk, 10, true),
            (self.log, 5, true),
            (self.restarts, 8, true),
            (self.age, 6, true),
        ]
    }

    /// The texts of those that there are, each as wide as its column and a blank; with its number.
    fn cells(&self, texts: [String; COLUMNS]) -> Vec<(usize, String)> {
        let padded = |text: &str, width: usize, right: bool| {
            let text = cut(text, width);
            let pad = " ".repeat(width - text.width());
            if right { format!("{pad}{text} ") } else { format!("{text}{pad} ") }
        };
        let cells = texts.iter().zip(self.widths()).enumerate().filter(|(_, (_, (shown, ..)))| *shown);
        cells.map(|(i, (text, (_, width, right)))| (i, padded(text, width, right))).collect()
    }
}

fn columns_head(top: &Top, width: usize) -> Line<'static> {
    let mark = |sort: Sort, text: &str| match top.sort == sort {
        true => format!("{text}{}", if top.reversed == (sort == Sort::Name) { "▼" } else { "▲" }),
        false => text.to_owned(),
    };
    let columns = Columns::of(width);
    let texts = [
        mark(Sort::Name, "NAME"),
        "MODULE".to_owned(),
        "STATE".to_owned(),
        mark(Sort::Cpu, "CPU %"),
        String::new(),
        mark(Sort::Memory, "MEMORY"),
        "PEAK".to_owned(),
        "DISK".to_owned(),
        "LOG".to_owned(),
        "RESTARTS".to_owned(),
        mark(Sort::Age, "AGE"),
    ];
    let text: String = columns.cells(texts).into_iter().map(|(_, text)| text).collect();
    Line::styled(format!("{:width$}", cut(&text, width)), Style::new().add_modifier(Modifier::REVERSED))
}

fn row(row: &Row, selected: bool, columns: &Columns, pen: Pen) -> Line<'static> {
    let stats = &row.usage.stats;
    let of = |used: Option<u64>, max: u64| match used {
        Some(used) => format!("{}/{}", size(used), size(max)),
        None => "-".to_owned(),
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let texts = [
        escape::line(row.name()).into_owned(),
        escape::line(stats.module.as_str()).into_owned(),
        escape::line(&stats.status()).into_owned(),
        percent(row.usage.cpu_percent),
        sparks(&row.history, columns.sparks, 100),
        of(stats.memory_bytes, stats.memory_bytes_max),
        or_dash(stats.memory_peak_bytes.map(size)),
        of(stats.disk_bytes, stats.disk_bytes_max),
        or_dash(stats.log_bytes.map(size)),
        stats.restarts.to_string(),
        or_dash(stats.age_us.map(span)),
    ];
    let state = pen.style(Paint::of_state(&stats.state, stats.exit_code));
    let span = |(i, text)| Span::styled(text, if i == STATE { state } else { Style::new() });
    let line = Line::from(columns.cells(texts).into_iter().map(span).collect::<Vec<_>>());
    if selected { line.style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
}

/// The newest shares at the right, against the most that there may be.
fn sparks(history: &VecDeque<u16>, width: usize, most: u64) -> String {
    const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = history.len().min(width);
    let mut text = " ".repeat(width - shown);
    text.extend(history.iter().skip(history.len() - shown).map(|share| {
        let level = (u64::from(*share) * 8).div_ceil(most.max(1)).min(8);
        LEVELS[usize::try_from(level).unwrap_or(8)]
    }));
    text
}

fn log_pane(top: &Top, width: usize, height: usize, pen: Pen) -> Vec<Line<'static>> {
    let title = match top.selected() {
        Some((_, row)) => format!("── log of {} ", escape::line(row.name())),
        None => String::new(),
    };
    let rule = format!("{title}{}", "─".repeat(width.saturating_sub(title.width())));
    let mut lines = vec![pen.line(&cut(&rule, width), Paint::Faint)];
    let room = height - 1;
    let surplus = top.log.len().saturating_sub(room);
    lines.extend(top.log.iter().skip(surplus).map(|line| Line::raw(cut(line, width))));
    lines.resize(height, Line::default());
    lines
}

fn foot(top: &Top, width: usize, pen: Pen) -> Line<'static> {
    if let Some(question) = top.question() {
        // The answer has to be in sight, whatever the name is.
        let question = cut(&format!(" {question}"), width.saturating_sub(15));
        return pen.line(&format!("{question}  y yes  n no"), Paint::Head);
    }
    if let Some(notice) = &top.notice {
        let paint = if notice.bad { Paint::Bad } else { Paint::Good };
        return pen.line(&cut(&format!(" {}", escape::line(&notice.text)), width), paint);
    }
    let keys = match top.mode {
        Mode::Help => " any key goes back",
        _ => " q quit  ? help  c cpu  m mem  a age  n name  s stop  r restart  d remove  l log",
    };
    pen.line(&cut(keys, width), Paint::Faint)
}

fn help() -> Vec<Line<'static>> {
    [
        "",
        " ↑ ↓  k j         the instance above, below",
        " PgUp PgDn        a screen of them",
        " Home End  g G    the first, the last",
        "",
        " c m a n          by processor time, memory, age, name; again: the other way round",
        " e                ended instances too, or not",
        " l                the log of the selected instance, or more room for the list",
        "",
        " s                stop it",
        " r                restart it",
        " d  Del           end it and remove it with its log; its directory stays",
        "",
        " q  Ctrl-C        leave",
        "",
        " CPU is of one processor; the line of the daemon is of all, guests included.",
    ]
    .into_iter()
    .map(Line::raw)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::state::Input;
    use super::super::state::tests::{press, sample};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(top: &mut Top, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, top, true)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    const SMALL: &str = "
 coracle   alive 2/4096   memory 2.1M/8.0G   resident 45M   up 4.00s
 CPU  92.0% of 2, 2.0% its own                                              ▂▄▄
NAME                     STATE        CPU %▼                MEMORY  PEAK    AGE
worker                   running       90.0%        ▂▆█  2.0M/256M  2.0M  1h01m
web                      running        0.0%             128K/256M  128K  1m10s












── log of web ──────────────────────────────────────────────────────────────────
GET /
GET /a



 q quit  ? help  c cpu  m mem  a age  n name  s stop  r restart  d remove  l log
";

    const LARGE: &str = "
 coracle   alive 2/4096   memory 2.1M/8.0G   resident 45M   up 4.00s
 CPU  92.0% of 2, 2.0% its own                                                                                      ▂▄▄
NAME            MODULE       STATE        CPU %▼                          MEMORY  PEAK       DISK   LOG RESTARTS    AGE
worker          app          running       90.0%                  ▂▆█  2.0M/256M  2.0M    0B/256M     -        0  1h01m
web             app          running        0.0%                       128K/256M  128K    0B/256M     -        0  1m10s






















── log of web ──────────────────────────────────────────────────────────────────────────────────────────────────────────
GET /
GET /a









 q quit  ? help  c cpu  m mem  a age  n name  s stop  r restart  d remove  l log
";

    fn two() -> Top {
        let mut top = Top::default();
        for (second, busy) in [(1, 0), (2, 250), (3, 1000), (4, 1900)] {
            top.input(sample(second, &[("web", 0, 128, 70), ("worker", busy, 2048, 3700)]));
        }
        top.input(Input::Log("web".to_owned(), vec!["GET /".to_owned(), "GET /a".to_owned()]));
        top
    }

    fn assert_screen(screen: &[String], expected: &str) {
        let expected: Vec<&str> = expected.lines().skip(1).collect();
        assert_eq!(screen, expected, "\n{}", screen.join("\n"));
    }

    #[test]
    fn on_a_small_screen() {
        let mut top = two();
        assert_screen(&screen(&mut top, 80, 24), SMALL);
    }

    #[test]
    fn on_a_large_screen() {
        let mut top = two();
        assert_screen(&screen(&mut top, 120, 40), LARGE);
    }

    #[test]
    fn a_question_and_the_help_take_the_place_of_other_things() {
        let mut top = two();
        press(&mut top, "d");
        let foot = |top: &mut Top, width: u16| screen(top, width, 24).pop().unwrap();
        assert_eq!(foot(&mut top, 80), " End 'web' and remove it with its log? (its directory stays)  y yes  n no");
        assert_eq!(foot(&mut top, 40), " End 'web' and remove it…  y yes  n no");
        press(&mut top, "n?");
        let shown = screen(&mut top, 80, 24);
        assert!(shown.iter().any(|line| line.contains("stop it")), "{shown:#?}");
        assert_eq!(shown[23], " any key goes back");
        press(&mut top, "x");
        top.input(Input::Done(Err("no instance named 'x'\u{1b}[2J".to_owned())));
        assert_eq!(screen(&mut top, 80, 24)[23], r" no instance named 'x'\x1b[2J");
        top.input(Input::Lost("no daemon answers on unix:/run/x".to_owned()));
        assert_eq!(screen(&mut top, 80, 24)[0], " no daemon answers on unix:/run/x (it is tried again)");
    }

    /// Whatever its size, the keys are in the last line, and nothing panics.
    #[test]
    fn on_a_screen_of_any_size() {
        let mut top = two();
        for (width, height) in [(1, 1), (5, 3), (20, 5), (40, 10), (79, 12), (300, 100)] {
            for keys in ["", "?", "s", "n", "l", "l"] {
                press(&mut top, keys);
                let shown = screen(&mut top, width, height);
                assert!(
                    shown.len() == usize::from(height) && !shown.last().unwrap().is_empty(),
                    "{width}x{height} {shown:?}"
                );
            }
        }
    }

    /// Ten thousand instances: what is not in sight is not put into words.
    #[test]
    fn only_what_is_in_sight_is_drawn() {
        let names: Vec<String> = (0..10_000).map(|i| format!("i{i:05}")).collect();
        let all: Vec<(&str, u64, u64, u64)> = names.iter().map(|name| (name.as_str(), 0, 64, 1)).collect();
        let mut top = Top::default();
        top.input(sample(1, &all));
        press(&mut top, "G");
        let shown = screen(&mut top, 80, 24);
        let rows: Vec<&String> = shown.iter().filter(|line| line.starts_with('i')).collect();
        assert!(rows.len() == 14 && rows.last().unwrap().starts_with("i09999 "), "{shown:#?}");
        let begun = std::time::Instant::now();
        for _ in 0..100 {
            screen(&mut top, 80, 24);
        }
        // Ten thousand rows would be some seconds without optimisation.
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn sparks_are_the_newest_at_the_right() {
        let history = VecDeque::from([0, 1, 50, 100, 400]);
        assert_eq!(sparks(&history, 7, 100), "   ▁▄██");
        assert_eq!(sparks(&history, 2, 100), "██");
        assert_eq!(sparks(&history, 5, 200), " ▁▂▄█");
        assert_eq!(sparks(&history, 0, 100), "");
    }
}
