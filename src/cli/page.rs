//! An instance as a page to read: `inspect` for people.

use super::colour::Paint;
use super::show::{ago, span, why};
use super::table::{Cell, Column, table, wrapped};
use super::terminal::Look;
use crate::model::escape;
use crate::model::reply::{Inspection, InstanceView, RunView};
use std::time::Duration;
use unicode_width::UnicodeWidthStr;

/// Columns of what stands before a value.
const LABEL: usize = 14;

/// The page, each line with its end.
pub(super) fn of(inspection: &Inspection, look: Look) -> String {
    let view = &inspection.instance;
    let mut page = Page { text: String::new(), look };
    page.title(view);
    state(&mut page, view);
    page.section("Program");
    page.line("Module", view.module.as_str());
    page.line("SHA-256", &view.digest);
    page.line("Arguments", &words(&view.args));
    page.line("Environment", &view.env.join(" "));
    page.line("Labels", &view.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "));
    page.line("Restart", &view.restart);
    if view.remove {
        page.line("Removed", "when it has ended");
    }
    limits(&mut page, view);
    page.section("Directories");
    page.line("/", &view.directory);
    for mount in &view.mounts {
        let read_only = if mount.read_only { " (to read only)" } else { "" };
        page.line(&mount.guest, &format!("{}{read_only}", mount.host));
    }
    page.section("Runs");
    page.text.push_str(&runs(&inspection.runs, look));
    page.text
}

fn state(page: &mut Page, view: &InstanceView) {
    page.section("State");
    page.painted("State", &view.status(), Paint::of_state(&view.state, view.exit_code));
    if let Some(reason) = &view.reason {
        page.line("Reason", reason);
    }
    page.line("Why", view.message.as_deref().unwrap_or_default());
    if let (Some(code), true) = (view.exit_code, view.state != "exited") {
        page.line("Exit code", &code.to_string());
    }
    if let Some(stopped) = &view.stopped {
        let how = match serde_json::to_value(stopped.rung).ok().as_ref().and_then(|rung| rung.as_str()) {
            Some("tick") => "while it was computing",
            Some("host-call") => "while it was waiting",
            _ => "it left by itself in the time that it was given",
        };
        page.line("Stopped", &format!("within {}, {how}", time(Duration::from_micros(stopped.took_us))));
    }
    if view.stop_requested && view.is_live() {
        page.line("Asked to end", "yes");
    }
    page.line("Run", &view.run.to_string());
    if view.restarts > 0 {
        page.line("Restarts", &view.restarts.to_string());
    }
    page.moment("Created", Some(&view.created_at));
    page.moment("Started", view.started_at.as_ref());
    page.moment("Ended", view.ended_at.as_ref());
    page.line("CPU time", &view.cpu_us.map(span).unwrap_or_default());
}

fn limits(page: &mut Page, view: &InstanceView) {
    let size = |bytes: usize| bytesize::ByteSize(u64::try_from(bytes).unwrap_or(u64::MAX)).to_string();
    let or_none = |ms: Option<u64>| ms.map_or_else(|| "none".to_owned(), |ms| time(Duration::from_millis(ms)));
    page.section("Limits");
    page.line("Memory", &size(view.memory_bytes_max));
    page.line("Disk", &format!("{}, {} files", size(view.disk_bytes_max), view.files_max));
    page.line("CPU time", &or_none(view.cpu_time_ms));
    page.line("Time", &or_none(view.timeout_ms));
    let most = view.share.cpus_milli.map(|milli| format!(", {}.{:03} at most", milli / 1000, milli % 1000));
    page.line("Processors", &format!("weight {}{}", view.share.weight, most.unwrap_or_default()));
}

fn runs(runs: &[RunView], look: Look) -> String {
    const COLUMNS: [Column; 6] = [
        Column::new("  RUN").right(),
        Column::new("STATE"),
        Column::new("CREATED").shrinks(10),
        Column::new("LASTED").right().spare(1),
        Column::new("CPU TIME").right().spare(2),
        Column::new("WHY").shrinks(10).spare(3),
    ];
    let rows = runs.iter().map(|run| {
        let status = match (run.state.as_str(), run.exit_code) {
            ("exited", Some(code)) => format!("exited ({code})"),
            (state, _) => state.to_owned(),
        };
        [
            run.run.to_string().into(),
            Cell::painted(&status, Paint::of_state(&run.state, run.exit_code)),
            ago(&run.created_at).into(),
            lasted(run).unwrap_or_else(|| "-".to_owned()).into(),
            run.cpu_us.map_or_else(|| "-".to_owned(), span).into(),
            why(run.reason.as_deref(), run.message.as_deref()).into(),
        ]
    });
    table(&COLUMNS, rows, look)
}

/// From the entry into guest code to the end.
fn lasted(run: &RunView) -> Option<String> {
    let at = |time: Option<&String>| humantime::parse_rfc3339(time?).ok();
    let life = at(run.ended_at.as_ref())?.duration_since(at(run.started_at.as_ref())?).ok()?;
    Some(span(u64::try_from(life.as_micros()).unwrap_or(u64::MAX)))
}

/// Words that a shell would take as they were.
fn words(words: &[String]) -> String {
    let quoted =
        words.iter().map(|word| shlex::try_quote(word).map_or_else(|_| word.clone(), |quoted| quoted.into_owned()));
    quoted.collect::<Vec<_>>().join(" ")
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

struct Page {
    text: String,
    look: Look,
}

impl Page {
    fn title(&mut self, view: &InstanceView) {
        self.text.push_str(&Paint::Head.paint(view.name.as_str(), self.look.colour));
        self.text.push('\n');
    }

    fn section(&mut self, name: &str) {
        self.text.push_str(&format!("\n{}\n", Paint::Head.paint(name, self.look.colour)));
    }

    /// A value that is there; it goes on below rather than being cut.
    fn line(&mut self, label: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let label = escape::line(label);
        let value = escape::line(value);
        let pad = " ".repeat(LABEL.saturating_sub(label.width()).max(1));
        let indent = 2 + label.width() + pad.len();
        let room = self.look.width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(8));
        let lines = wrapped(&value, room);
        self.text.push_str(&format!("  {label}{pad}{}\n", lines.join(&format!("\n{}", " ".repeat(indent)))));
    }

    fn painted(&mut self, label: &str, value: &str, paint: Paint) {
        let value = paint.paint(&escape::line(value), self.look.colour);
        self.text.push_str(&format!("  {label:LABEL$}{value}\n"));
    }

    /// When, and how long ago that is.
    fn moment(&mut self, label: &str, at: Option<&String>) {
        if let Some(at) = at {
            let ago = ago(at);
            self.line(label, &if ago == *at { ago } else { format!("{at} ({ago})") });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::instance::{Ended, ExitStatus, Rung, State, Stopped, Timestamp};
    use crate::model::mount::Mount;
    use crate::model::registry::tests::record;

    fn inspection() -> Inspection {
        let mut web = record("web", &["tier=front"]);
        let mut ended = Ended::new(ExitStatus::Trapped, "trap:unreachable", Some("wasm \u{1b} in inner < main".into()));
        ended.cpu_us = Some(1_500);
        ended.stopped = Some(Stopped { rung: Rung::Tick, took_us: 310 });
        web.state = State::Ended(ended);
        web.created_at = Timestamp(1_000_000);
        web.started_at = Some(Timestamp(2_000_000));
        web.ended_at = Some(Timestamp(4_500_000));
        let mut instance = InstanceView::of(&web);
        instance.args = vec!["two words".to_owned(), "x".to_owned()];
        instance.env = vec!["KEY".to_owned(), "OTHER".to_owned()];
        instance.directory = "/tmp/web".to_owned();
        instance.digest = "ab".repeat(32);
        instance.memory_bytes_max = 256 << 20;
        instance.disk_bytes_max = 256 << 20;
        instance.files_max = 10_000;
        instance.timeout_ms = Some(90_000);
        instance.share.cpus_milli = Some(250);
        instance.mounts = vec![Mount { host: "/home/data".into(), guest: "/data".into(), read_only: true }];
        let run = RunView::of(&instance);
        Inspection { instance, runs: vec![run] }
    }

    #[test]
    fn a_page_has_what_there_is_to_know() {
        let text = of(&inspection(), Look::default());
        // How long ago that is changes by the day.
        let days = ago("1970-01-01T00:00:01.000000Z");
        let text = text.replace(&days, "D days ago");
        assert_eq!(
            text,
            "\
web

State
  State         trapped
  Reason        trap:unreachable
  Why           wasm \\x1b in inner < main
  Exit code     134
  Stopped       within 310us, while it was computing
  Run           1
  Created       1970-01-01T00:00:01.000000Z (D days ago)
  Started       1970-01-01T00:00:02.000000Z (D days ago)
  Ended         1970-01-01T00:00:04.500000Z (D days ago)
  CPU time      0.00s

Program
  Module        web
  SHA-256       abababababababababababababababababababababababababababababababab
  Arguments     'two words' x
  Environment   KEY OTHER
  Labels        tier=front
  Restart       no

Limits
  Memory        256.0 MiB
  Disk          256.0 MiB, 10000 files
  CPU time      none
  Time          1m 30s
  Processors    weight 100, 0.250 at most

Directories
  /             /tmp/web
  /data         /home/data (to read only)

Runs
  RUN  STATE    CREATED         LASTED  CPU TIME  WHY
    1  trapped  D days ago   2.50s     0.00s  wasm \\x1b in inner < main
"
        );
    }

    #[test]
    fn it_fits_a_terminal() {
        for width in [20, 40, 80] {
            let text = of(&inspection(), Look { width: Some(width), colour: false });
            for line in text.lines() {
                assert!(line.width() <= width.max(24), "{width}: {line}");
            }
            assert!(width < 80 || text.contains("0.250 at most"), "{text}");
        }
        assert!(of(&inspection(), Look { width: None, colour: true }).contains("\x1b[31mtrapped\x1b[0m"));
    }
}
