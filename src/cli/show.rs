//! How lists and logs look to a person.

use crate::daemon::clock;
use crate::model::escape;
use crate::model::limit::LimitViews;
use crate::model::reply::{InstanceView, LineAssembler, ModuleView, Output};
use crate::model::request::StdStream;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

/// Instances in aligned columns.
pub(super) fn instances(views: &[InstanceView]) -> String {
    let rows = views.iter().map(|v| {
        let since = v.ended_at.as_ref().or(v.started_at.as_ref()).unwrap_or(&v.created_at);
        [v.name.to_string(), v.module.to_string(), v.status(), ago(since), v.run.to_string()]
    });
    table(["NAME", "MODULE", "STATE", "SINCE", "RUN"], rows)
}

/// Modules in aligned columns.
pub(super) fn modules(views: &[ModuleView]) -> String {
    let rows = views.iter().map(|v| {
        let digest = v.digest.as_deref().map_or("-", |d| d.get(..12).unwrap_or(d));
        let source = v.path.as_deref().unwrap_or(&v.source);
        [v.name.to_string(), bytesize::ByteSize(v.bytes).to_string(), digest.to_owned(), source.to_owned()]
    });
    table(["NAME", "SIZE", "SHA-256", "SOURCE"], rows)
}

/// Limits in aligned columns.
pub(super) fn limits(all: &LimitViews) -> String {
    let rows = all.limits.iter().map(|v| {
        let default = if v.default.is_empty() { "of the machine" } else { &v.default };
        let used = v.used_text().unwrap_or_else(|| "-".to_owned());
        [v.flag.clone(), v.value_text(), default.to_owned(), used, v.what.clone()]
    });
    let table = table(["LIMIT", "VALUE", "DEFAULT", "USED", "BOUNDS"], rows);
    format!("{table}\nKernel fence: {}\n", escape::line(&all.fence))
}

/// Every cell is escaped: whoever answers may be no daemon of ours.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows = rows.map(|row| row.map(|cell| escape::line(&cell).into_owned()));
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `3 minutes ago`; a time that cannot be read, or is yet to come, stands as it is.
fn ago(time: &str) -> String {
    let now = UNIX_EPOCH + Duration::from_micros(clock::now().0);
    let Some(passed) = humantime::parse_rfc3339(time).ok().and_then(|then| now.duration_since(then).ok()) else {
        return time.to_owned();
    };
    let seconds = passed.as_secs();
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
}

/// Prints a log: standard output and standard error of the guest to ours. Where one of ours is a terminal, line by line and
/// escaped, because a stored log is read later and by others; otherwise byte for byte.
pub(super) struct LogPrinter {
    timestamps: bool,
    /// Which of our streams is to be escaped.
    escaped: [bool; 2],
    lines: [LineAssembler; 2],
    last: Option<Output>,
}

impl LogPrinter {
    pub(super) fn new(timestamps: bool, escaped: [bool; 2]) -> LogPrinter {
        LogPrinter { timestamps, escaped, lines: Default::default(), last: None }
    }

    pub(super) fn output(&mut self, output: Output) -> std::io::Result<()> {
        let Some(bytes) = output.data.clone().into_bytes() else { return Ok(()) };
        let stream = output.stream;
        let escaped = self.escaped[index(stream)];
        if !self.timestamps && !escaped {
            return write(stream, &bytes);
        }
        if self.last.as_ref().is_some_and(|last| last.run != output.run) {
            // No line goes on in the next run.
            self.finish()?;
        }
        let mut text = Vec::new();
        let (timestamps, at) = (self.timestamps, output.at);
        self.lines[index(stream)].push(&bytes, |line| push_line(&mut text, timestamps.then_some(at), escaped, line));
        self.last = Some(output);
        write(stream, &text)
    }

    /// What is left of unfinished lines.
    pub(super) fn finish(&mut self) -> std::io::Result<()> {
        for stream in [StdStream::Stdout, StdStream::Stderr] {
            let at = self.last.as_ref().map(|o| o.at).filter(|_| self.timestamps);
            let escaped = self.escaped[index(stream)];
            let mut text = Vec::new();
            self.lines[index(stream)].finish(|line| push_line(&mut text, at, escaped, line));
            write(stream, &text)?;
        }
        Ok(())
    }
}

fn index(stream: StdStream) -> usize {
    usize::from(stream == StdStream::Stderr)
}

fn push_line(text: &mut Vec<u8>, at: Option<crate::model::instance::LogTime>, escaped: bool, line: &[u8]) {
    if let Some(at) = at {
        text.extend_from_slice(format!("{at} ").as_bytes());
    }
    if escaped {
        text.extend_from_slice(escape::line_of_bytes(line).as_bytes());
    } else {
        text.extend_from_slice(line);
    }
    text.push(b'\n');
}

/// To our own stream of the same name, at once.
pub(super) fn write(stream: StdStream, bytes: &[u8]) -> std::io::Result<()> {
    match stream {
        StdStream::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        StdStream::Stderr => std::io::stderr().lock().write_all(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["web".to_owned(), "exited (0)".to_owned()], ["a-long-name".to_owned(), "running".to_owned()]];
        assert_eq!(
            table(["NAME", "STATE"], rows.into_iter()),
            "NAME         STATE\nweb          exited (0)\na-long-name  running\n"
        );
        let hostile = [["a\nb".to_owned(), "\u{202e}".to_owned()]];
        assert_eq!(table(["NAME", "STATE"], hostile.into_iter()), "NAME  STATE\na\\nb  \\u{202e}\n");
    }

    #[test]
    fn times_are_told_in_one_unit() {
        let now = UNIX_EPOCH + Duration::from_micros(clock::now().0);
        for (seconds, says) in
            [(1, "1 second ago"), (61, "1 minute ago"), (7300, "2 hours ago"), (200_000, "2 days ago")]
        {
            let then = humantime::format_rfc3339_micros(now - Duration::from_secs(seconds)).to_string();
            assert_eq!(ago(&then), says);
        }
        assert_eq!(ago("never"), "never");
        let to_come = humantime::format_rfc3339_micros(now + Duration::from_secs(60)).to_string();
        assert_eq!(ago(&to_come), to_come, "no negative age after a clock was set back");
    }
}
