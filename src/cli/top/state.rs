//! What `top` shows and what keys do, without a terminal, a daemon or a clock: inputs go in, and what is to be done comes out.

use crate::cli::usage::{DaemonUsage, InstanceUsage, Usage};
use crate::model::stats::Sample;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// Shares that are remembered of each instance, and of the daemon.
pub(super) const HISTORY: usize = 60;
/// Lines of the log that are remembered.
pub(super) const LOG_LINES: usize = 200;
/// For how many samples a notice stays.
const NOTICE: u8 = 5;

/// What happens to it.
#[derive(Debug)]
pub(super) enum Input {
    Key(KeyEvent),
    /// The terminal has another size; it is to be drawn anew.
    Resized,
    Sample(Box<Sample>),
    /// There is no daemon, and why.
    Lost(String),
    /// Lines of the log of an instance.
    Log(String, Vec<String>),
    /// Something that was asked for is done, or was refused.
    Done(Result<String, String>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    /// Ask the daemon for it.
    Ask(Act, String),
    /// Follow this log, or none.
    Follow(Option<String>),
    /// Samples with ended instances, or without.
    All(bool),
}

/// What can be done to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Stop,
    Restart,
    Remove,
}

impl Act {
    /// The words of the request, before the name.
    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            Act::Stop => &["stop"],
            Act::Restart => &["restart"],
            Act::Remove => &["rm", "--force"],
        }
    }

    fn question(self, name: &str) -> String {
        match self {
            Act::Stop => format!("Stop '{name}'?"),
            Act::Restart => format!("Restart '{name}'?"),
            Act::Remove => format!("End '{name}' and remove it with its log? (its directory stays)"),
        }
    }

    /// What is told when it was done.
    pub(super) fn done(self, name: &str) -> String {
        match self {
            Act::Stop => format!("'{name}' is stopped"),
            Act::Restart => format!("'{name}' is restarted"),
            Act::Remove => format!("'{name}' is removed"),
        }
    }
}

/// By what rows are ordered; names decide between equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Cpu,
    Memory,
    Age,
    Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Browsing,
    Help,
    Confirming(Act, String),
}

/// An instance.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) usage: InstanceUsage,
    /// Shares of one processor in percent, oldest first.
    pub(super) history: VecDeque<u16>,
}

impl Row {
    pub(super) fn name(&self) -> &str {
        self.usage.stats.name.as_str()
    }
}

/// A line that is shown for a while.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) bad: bool,
    left: u8,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) rows: Vec<Row>,
    pub(super) daemon: Option<DaemonUsage>,
    /// Shares of the daemon, guests included.
    pub(super) history: VecDeque<u16>,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) mode: Mode,
    pub(super) notice: Option<Notice>,
    /// Why there is no daemon.
    pub(super) lost: Option<String>,
    /// Whether ended instances are shown too.
    pub(super) all: bool,
    pub(super) log_shown: bool,
    pub(super) log: VecDeque<String>,
    /// Whose log is followed.
    following: Option<String>,
    before: Option<Sample>,
    selected: Option<String>,
    /// The row of the selected one.
    at: usize,
    /// The first row in sight.
    offset: usize,
    /// How many were in sight when it was drawn last.
    page: usize,
}

impl Default for Top {
    fn default() -> Top {
        Top {
            rows: vec![],
            daemon: None,
            history: VecDeque::new(),
            sort: Sort::Cpu,
            reversed: false,
            mode: Mode::Browsing,
            notice: None,
            lost: None,
            all: false,
            log_shown: true,
            log: VecDeque::new(),
            following: None,
            before: None,
            selected: None,
            at: 0,
            offset: 0,
            page: 1,
        }
    }
}

impl Top {
    /// Takes what happened, and says what is to be done.
    pub(super) fn input(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = vec![];
        match input {
            Input::Key(key) => effects.extend(self.key(key)),
            Input::Resized => {}
            Input::Sample(sample) => {
                self.age_notice();
                self.lost = None;
                self.sample(*sample);
            }
            Input::Lost(why) => {
                self.age_notice();
                self.lost = Some(why);
                // What comes then may be another daemon, whose time is its own.
                self.before = None;
            }
            Input::Log(name, lines) if self.following.as_ref() == Some(&name) => {
                self.log.extend(lines);
                let surplus = self.log.len().saturating_sub(LOG_LINES);
                self.log.drain(..surplus);
            }
            // Of one that was selected before.
            Input::Log(..) => {}
            Input::Done(Ok(text)) => self.notify(text, false),
            Input::Done(Err(text)) => self.notify(text, true),
        }
        let follow = self.selected.clone().filter(|_| self.log_shown);
        if follow != self.following {
            self.log.clear();
            self.following.clone_from(&follow);
            effects.push(Effect::Follow(follow));
        }
        effects
    }

    fn notify(&mut self, text: String, bad: bool) {
        self.notice = Some(Notice { text, bad, left: NOTICE });
    }

    fn age_notice(&mut self) {
        self.notice = self.notice.take().filter(|notice| notice.left > 1).map(|n| Notice { left: n.left - 1, ..n });
    }

    fn sample(&mut self, sample: Sample) {
        let usage = Usage::between(self.before.as_ref(), &sample);
        let mut before: HashMap<String, Row> = self.rows.drain(..).map(|row| (row.name().to_owned(), row)).collect();
        let rows = usage.instances.into_iter().map(|usage| {
            let same = before.remove(usage.stats.name.as_str()).filter(|row| row.usage.stats.run == usage.stats.run);
            let mut history = same.map(|row| row.history).unwrap_or_default();
            remember(&mut history, usage.cpu_percent);
            Row { usage, history }
        });
        self.rows = rows.collect();
        remember(&mut self.history, usage.daemon.cpu_percent);
        self.daemon = Some(usage.daemon);
        self.before = Some(sample);
        self.order();
    }

    /// Sorts, and finds the selected one in its new place. If it is gone, whoever has its place is selected.
    fn order(&mut self) {
        let (sort, reversed) = (self.sort, self.reversed);
        self.rows.sort_by(|a, b| {
            let order = compare(sort, &a.usage, &b.usage);
            let order = if reversed { order.reverse() } else { order };
            order.then_with(|| a.name().cmp(b.name()))
        });
        let found = self.selected.as_ref().and_then(|name| self.rows.iter().position(|row| row.name() == name));
        self.select(found.unwrap_or(self.at));
    }

    fn select(&mut self, at: usize) {
        self.at = at.min(self.rows.len().saturating_sub(1));
        self.selected = self.rows.get(self.at).map(|row| row.name().to_owned());
    }

    /// The row that is selected, if there is any.
    pub(super) fn selected(&self) -> Option<(usize, &Row)> {
        self.rows.get(self.at).map(|row| (self.at, row))
    }

    /// The rows in sight where there is room for so many: the selected one is always among them.
    pub(super) fn window(&mut self, room: usize) -> Range<usize> {
        self.page = room.max(1);
        let last = self.rows.len().saturating_sub(room);
        let first = (self.at + 1).saturating_sub(room).min(self.at);
        self.offset = self.offset.clamp(first, self.at).min(last);
        self.offset..(self.offset + room).min(self.rows.len())
    }

    fn key(&mut self, key: KeyEvent) -> Option<Effect> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Effect::Quit);
        }
        match std::mem::replace(&mut self.mode, Mode::Browsing) {
            Mode::Confirming(act, name) => match key.code {
                KeyCode::Char('y' | 'Y') => Some(Effect::Ask(act, name)),
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => None,
                _ => {
                    // Neither: it is asked still.
                    self.mode = Mode::Confirming(act, name);
                    None
                }
            },
            // Any key leaves it.
            Mode::Help => None,
            Mode::Browsing => self.browse(key.code),
        }
    }

    fn browse(&mut self, code: KeyCode) -> Option<Effect> {
        match code {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Up | KeyCode::Char('k') => self.select(self.at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.at + 1),
            KeyCode::PageUp => self.select(self.at.saturating_sub(self.page)),
            KeyCode::PageDown => self.select(self.at + self.page),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Char('c') => self.sort_by(Sort::Cpu),
            KeyCode::Char('m') => self.sort_by(Sort::Memory),
            KeyCode::Char('a') => self.sort_by(Sort::Age),
            KeyCode::Char('n') => self.sort_by(Sort::Name),
            KeyCode::Char('s') => self.confirm(Act::Stop),
            KeyCode::Char('r') => self.confirm(Act::Restart),
            KeyCode::Char('d') | KeyCode::Delete => self.confirm(Act::Remove),
            KeyCode::Char('l') => self.log_shown = !self.log_shown,
            KeyCode::Char('e') => {
                self.all = !self.all;
                return Some(Effect::All(self.all));
            }
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            _ => {}
        }
        None
    }

    /// By something else; by the same thing again, the other way round.
    fn sort_by(&mut self, sort: Sort) {
        self.reversed = self.sort == sort && !self.reversed;
        self.sort = sort;
        self.order();
    }

    fn confirm(&mut self, act: Act) {
        if let Some(name) = self.selected.clone() {
            self.mode = Mode::Confirming(act, name);
        }
    }

    /// What is asked, if something is.
    pub(super) fn question(&self) -> Option<String> {
        match &self.mode {
            Mode::Confirming(act, name) => Some(act.question(name)),
            _ => None,
        }
    }
}

/// The largest first; names from A.
fn compare(sort: Sort, a: &InstanceUsage, b: &InstanceUsage) -> Ordering {
    match sort {
        Sort::Cpu => b.cpu_percent.unwrap_or(-1.0).total_cmp(&a.cpu_percent.unwrap_or(-1.0)),
        Sort::Memory => b.stats.memory_bytes.cmp(&a.stats.memory_bytes),
        Sort::Age => b.stats.age_us.cmp(&a.stats.age_us),
        Sort::Name => a.stats.name.as_str().cmp(b.stats.name.as_str()),
    }
}

fn remember(history: &mut VecDeque<u16>, percent: Option<f64>) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between these bounds")]
    let percent = percent.unwrap_or_default().clamp(0.0, f64::from(u16::MAX)).round() as u16;
    history.push_back(percent);
    if history.len() > HISTORY {
        history.pop_front();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::instance::Share;
    use crate::model::stats::{DaemonStats, InstanceStats};

    /// A sample at this second, of instances with a name, CPU time in milliseconds, memory in KiB and an age in seconds.
    pub(in crate::cli::top) fn sample(second: u64, all: &[(&str, u64, u64, u64)]) -> Input {
        let at_us = second * 1_000_000;
        let stats = |(name, cpu_ms, memory_kib, age_s): &(&str, u64, u64, u64)| InstanceStats {
            name: name.parse().unwrap(),
            module: "app".parse().unwrap(),
            run: 1,
            state: "running".to_owned(),
            exit_code: None,
            restarts: 0,
            created_at: "2026-11-24T10:00:00Z".to_owned(),
            started_at: Some("2026-11-24T10:00:00Z".to_owned()),
            age_us: Some(age_s * 1_000_000),
            at_us,
            cpu_us: Some(cpu_ms * 1000),
            share: Share::default(),
            memory_bytes: Some(memory_kib << 10),
            memory_peak_bytes: Some(memory_kib << 10),
            memory_bytes_max: 256 << 20,
            disk_bytes: Some(0),
            files: Some(0),
            disk_bytes_max: 256 << 20,
            files_max: 10_000,
            log_bytes: None,
            output_bytes: Some(0),
        };
        let cpu_us = all.iter().map(|(_, cpu_ms, ..)| cpu_ms * 1000).sum();
        let daemon = DaemonStats {
            at_us,
            cpu_us: Some(cpu_us + at_us / 50),
            guests_cpu_us: cpu_us,
            rss_bytes: Some(45 << 20),
            memory_bytes: all.iter().map(|(_, _, kib, _)| kib << 10).sum(),
            memory_bytes_max: 8 << 30,
            live: all.len() as u64,
            live_max: 4096,
            instances: all.len() as u64,
            processors: 2,
        };
        Input::Sample(Box::new(Sample { daemon, instances: all.iter().map(stats).collect() }))
    }

    pub(in crate::cli::top) fn press(top: &mut Top, keys: &str) -> Vec<Effect> {
        keys.chars().flat_map(|c| top.input(Input::Key(KeyEvent::from(KeyCode::Char(c))))).collect()
    }

    fn names(top: &Top) -> Vec<&str> {
        top.rows.iter().map(Row::name).collect()
    }

    fn selected(top: &Top) -> &str {
        top.selected().unwrap().1.name()
    }

    /// Three instances, each the first by something.
    fn three() -> Top {
        let mut top = Top::default();
        top.input(sample(1, &[("busy", 0, 64, 20), ("large", 0, 900, 10), ("old", 0, 128, 99)]));
        top.input(sample(2, &[("busy", 900, 64, 21), ("large", 10, 900, 11), ("old", 500, 128, 100)]));
        top
    }

    #[test]
    fn rows_are_in_the_order_that_was_asked_for() {
        let mut top = three();
        assert_eq!(names(&top), ["busy", "old", "large"], "by share, to begin with");
        for (key, order) in [
            ("m", ["large", "old", "busy"]),
            ("a", ["old", "busy", "large"]),
            ("n", ["busy", "large", "old"]),
            ("n", ["old", "large", "busy"]),
            ("c", ["busy", "old", "large"]),
            ("c", ["large", "old", "busy"]),
            ("c", ["busy", "old", "large"]),
        ] {
            press(&mut top, key);
            assert_eq!(names(&top), order, "{key}");
        }
        // Equals are by name, whatever way round.
        let mut top = Top::default();
        top.input(sample(1, &[("b", 0, 1, 1), ("a", 0, 1, 1)]));
        assert_eq!(names(&top), ["a", "b"]);
        press(&mut top, "c");
        assert_eq!(names(&top), ["a", "b"]);
    }

    #[test]
    fn the_selection_is_an_instance_and_no_row() {
        let mut top = three();
        assert_eq!(selected(&top), "busy");
        press(&mut top, "jj");
        assert_eq!(selected(&top), "large");
        press(&mut top, "j");
        assert_eq!(selected(&top), "large", "there is nothing below");
        top.input(sample(3, &[("busy", 900, 64, 22), ("large", 999, 900, 12), ("old", 600, 128, 101)]));
        assert_eq!((names(&top)[0], selected(&top)), ("large", "large"), "it has moved up, and is selected still");
        press(&mut top, "m");
        assert_eq!(selected(&top), "large");
        // It goes: who has its place is next.
        top.input(sample(4, &[("busy", 900, 64, 23), ("old", 700, 128, 102)]));
        assert_eq!((names(&top), selected(&top)), (vec!["old", "busy"], "old"));
        top.input(sample(5, &[]));
        assert!(top.selected().is_none());
        assert_eq!(press(&mut top, "sy"), [], "there is nothing to stop");
        top.input(sample(6, &[("new", 0, 64, 0)]));
        assert_eq!(selected(&top), "new");
    }

    #[test]
    fn the_selected_row_is_always_in_sight() {
        let mut top = Top::default();
        let many: Vec<String> = (0..100).map(|i| format!("i{i:03}")).collect();
        let all: Vec<(&str, u64, u64, u64)> = many.iter().map(|name| (name.as_str(), 0, 64, 1)).collect();
        top.input(sample(1, &all));
        assert_eq!(top.window(10), 0..10);
        let key = |code| Input::Key(KeyEvent::from(code));
        for (code, at, window) in [
            (KeyCode::PageDown, 10, 1..11),
            (KeyCode::Up, 9, 1..11),
            (KeyCode::End, 99, 90..100),
            (KeyCode::PageUp, 89, 89..99),
            (KeyCode::Home, 0, 0..10),
        ] {
            top.input(key(code));
            assert_eq!((top.selected().unwrap().0, top.window(10)), (at, window), "{code:?}");
        }
        top.input(key(KeyCode::End));
        assert_eq!(top.window(10), 90..100);
        assert_eq!(top.window(30), 70..100, "more room shows more");
        top.input(sample(2, &all[..5]));
        assert_eq!((top.window(30), top.selected().unwrap().0), (0..5, 4));
        assert_eq!(top.window(0).len(), 0);
    }

    #[test]
    fn nothing_is_done_without_a_yes() {
        let mut top = three();
        for (key, act) in [("s", Act::Stop), ("r", Act::Restart), ("d", Act::Remove)] {
            for no in ["n", "N", "q"] {
                assert_eq!(press(&mut top, key), []);
                assert!(top.question().unwrap().contains("'busy'"), "{key}");
                assert_eq!(press(&mut top, no), [], "{key}{no}");
                assert_eq!(top.question(), None);
            }
            assert_eq!(press(&mut top, &format!("{key}xj")), [], "neither yes nor no");
            // Rows move meanwhile; it is the one that was asked about.
            top.input(sample(3, &[("busy", 900, 64, 22), ("large", 999, 900, 12), ("old", 600, 128, 101)]));
            assert_eq!(press(&mut top, "y"), [Effect::Ask(act, "busy".to_owned())]);
            top = three();
        }
        press(&mut top, "s");
        assert_eq!(top.input(Input::Key(KeyEvent::from(KeyCode::Esc))), []);
        assert_eq!(top.mode, Mode::Browsing);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        press(&mut top, "s");
        assert_eq!(top.input(Input::Key(control_c)), [Effect::Quit], "also while something is asked");
        assert_eq!(press(&mut top, "nq"), [Effect::Quit]);
    }

    #[test]
    fn the_log_is_that_of_the_selected_one() {
        let mut top = Top::default();
        let follow = |name: &str| Effect::Follow(Some(name.to_owned()));
        assert_eq!(top.input(sample(1, &[("a", 0, 1, 1), ("b", 0, 1, 1)])), [follow("a")]);
        assert_eq!(top.input(sample(2, &[("a", 0, 1, 1), ("b", 0, 1, 1)])), [], "it is followed already");
        let log = |name: &str, line: &str| Input::Log(name.to_owned(), vec![line.to_owned()]);
        top.input(log("a", "one"));
        assert_eq!(press(&mut top, "j"), [follow("b")]);
        assert!(top.log.is_empty());
        top.input(log("a", "late"));
        top.input(log("b", "two"));
        assert_eq!(top.log, ["two"], "what comes late of another is not its");
        top.input(Input::Log("b".to_owned(), (0..500).map(|i| i.to_string()).collect()));
        assert_eq!((top.log.len(), top.log.back().unwrap().as_str()), (LOG_LINES, "499"));
        assert_eq!(press(&mut top, "l"), [Effect::Follow(None)]);
        assert_eq!(press(&mut top, "l"), [follow("b")]);
    }

    #[test]
    fn shares_are_remembered_and_a_lost_daemon_is_told() {
        let mut top = three();
        assert_eq!((&top.rows[0].history, &top.history), (&VecDeque::from([0, 90]), &VecDeque::from([0, 143])));
        top.input(Input::Lost("gone".to_owned()));
        assert_eq!((top.lost.as_deref(), top.rows.len()), (Some("gone"), 3), "what was known stays in sight");
        // The next daemon begins its time anew.
        top.input(sample(1, &[("busy", 5, 64, 1)]));
        assert_eq!((&top.lost, top.rows[0].usage.cpu_percent), (&None, None));
        for second in 2..200 {
            top.input(sample(second, &[("busy", 5, 64, 1)]));
        }
        assert_eq!((top.rows[0].history.len(), top.history.len()), (HISTORY, HISTORY));
    }

    #[test]
    fn what_was_done_is_told_for_a_while() {
        let mut top = three();
        top.input(Input::Done(Err("no".to_owned())));
        assert!(top.notice.as_ref().is_some_and(|notice| notice.bad && notice.text == "no"));
        for second in 3..8 {
            assert!(top.notice.is_some());
            top.input(sample(second, &[]));
        }
        assert!(top.notice.is_none());
        assert_eq!(press(&mut top, "e"), [Effect::All(true)]);
        assert_eq!(press(&mut top, "?"), []);
        assert_eq!(top.mode, Mode::Help);
        assert_eq!(press(&mut top, "q"), [], "any key leaves the help");
        assert_eq!(press(&mut top, "q"), [Effect::Quit]);
    }
}
