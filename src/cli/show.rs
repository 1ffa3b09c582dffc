//! How lists and logs look to a person.

use super::colour::Paint;
use super::table::{Cell, Column, cut, table, wrapped};
use super::terminal::Look;
use crate::daemon::clock;
use crate::model::escape;
use crate::model::event::EventView;
use crate::model::limit::LimitViews;
use crate::model::reply::{InstanceView, LineAssembler, ModuleView, Output};
use crate::model::request::StdStream;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};
use unicode_width::UnicodeWidthStr;

/// Instances in aligned columns.
pub(super) fn instances(views: &[InstanceView], look: Look) -> String {
    const COLUMNS: [Column; 6] = [
        Column::new("NAME").shrinks(8),
        Column::new("MODULE").shrinks(6).spare(3),
        Column::new("STATE"),
        Column::new("SINCE").shrinks(6).spare(1),
        Column::new("RUN").spare(2),
        Column::new("WHY").shrinks(10).spare(4),
    ];
    let rows = views.iter().map(|v| {
        let since = v.ended_at.as_ref().or(v.started_at.as_ref()).unwrap_or(&v.created_at);
        let state = Cell::painted(&v.status(), Paint::of_state(&v.state, v.exit_code));
        let why = why(v.reason.as_deref(), v.message.as_deref());
        [
            v.name.as_str().into(),
            v.module.as_str().into(),
            state,
            ago(since).into(),
            v.run.to_string().into(),
            why.into(),
        ]
    });
    table(&COLUMNS, rows, look)
}

/// Why a run ended, where its state does not say it already.
pub(super) fn why(reason: Option<&str>, message: Option<&str>) -> String {
    match (reason, message) {
        (_, Some(message)) => message.to_owned(),
        (Some("exit" | "stop" | "kill" | "timeout") | None, None) => String::new(),
        (Some(reason), None) => reason.to_owned(),
    }
}

/// Modules in aligned columns.
pub(super) fn modules(views: &[ModuleView], look: Look) -> String {
    const COLUMNS: [Column; 4] = [
        Column::new("NAME").shrinks(8),
        Column::new("SIZE"),
        Column::new("SHA-256").spare(1),
        Column::new("SOURCE").shrinks(8),
    ];
    let rows = views.iter().map(|v| {
        let digest = v.digest.as_deref().map_or("-", |d| d.get(..12).unwrap_or(d));
        let source = v.path.as_deref().unwrap_or(&v.source);
        [v.name.as_str().into(), bytesize::ByteSize(v.bytes).to_string().into(), digest.into(), source.into()]
    });
    table(&COLUMNS, rows, look)
}

/// Limits in aligned columns. What each bounds is the point of it: it goes on below rather than being cut.
pub(super) fn limits(all: &LimitViews, look: Look) -> String {
    const COLUMNS: [Column; 5] = [
        Column::new("LIMIT"),
        Column::new("VALUE"),
        Column::new("DEFAULT").spare(1),
        Column::new("USED"),
        Column::new("BOUNDS").wraps(28).spare(2),
    ];
    let rows = all.limits.iter().map(|v| {
        let default = if v.default.is_empty() { "of the machine" } else { &v.default };
        let used = v.used_text().unwrap_or_else(|| "-".to_owned());
        [v.flag.as_str().into(), v.value_text().into(), default.into(), used.into(), v.what.as_str().into()]
    });
    let table = table(&COLUMNS, rows, look);
    let fence = format!("Kernel fence: {}", escape::line(&all.fence));
    let fence = look.width.map_or_else(|| fence.clone(), |width| wrapped(&fence, width).join("\n"));
    format!("{table}\n{fence}\n")
}

/// An event as a person reads it: the time of day in front and the rest in words, for which a terminal has columns.
pub(super) fn event(event: &EventView, look: Look) -> String {
    let at = event.at.to_string();
    // To the millisecond; `2026-11-24 20:50:20.611`.
    let at = at.get(..23).unwrap_or(&at).replace('T', " ");
    let paint = Paint::of_state(event.state.as_deref().unwrap_or(&event.kind), event.exit_code);
    let what = match (event.state.as_deref(), event.exit_code) {
        (Some("exited"), Some(code)) => format!("{} (exited with {code})", event.kind),
        (Some(state), _) => format!("{} ({state})", event.kind),
        _ => event.kind.clone(),
    };
    let mut rest = vec![format!("module {}, run {}", event.module, event.run)];
    rest.extend(event.delay_ms.map(|ms| format!("next in {ms} ms")));
    rest.push(why(event.reason.as_deref(), event.message.as_deref()));
    rest.extend(event.labels.iter().map(|(key, value)| format!("{key}={value}")));
    rest.retain(|part| !part.is_empty());
    let rest = format!("  {}", escape::line(&rest.join("; ")));
    let head = format!("{at}Z  {:26}  {}", escape::line(&what), event.name);
    // What matters less is what is cut.
    let room = look.width.unwrap_or(usize::MAX);
    let head = cut(&head, room);
    let rest = cut(&rest, room.saturating_sub(head.width()));
    format!("{}{}\n", paint.paint(&head, look.colour), Paint::Faint.paint(&rest, look.colour))
}

/// `3 minutes ago`; a time that cannot be read, or is yet to come, stands as it is.
pub(super) fn ago(time: &str) -> String {
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

/// `1.5M`, in at most five columns: powers of 1,024, as flags spell them.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "K", "M", "G", "T", "P", "E"];
    let (mut unit, mut scale) = (0, 1_u128);
    let bytes = u128::from(bytes);
    while bytes / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let tenths = (bytes * 10 + scale / 2) / scale;
    match (unit, tenths) {
        (0, _) => format!("{bytes}B"),
        (_, 0..100) => format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{}{}", (bytes + scale / 2) / scale, UNITS[unit]),
    }
}

/// A span of time, in at most six columns: `0.25s`, `59.9s`, `4m05s`, `3h07m`, `12d03h`.
pub(super) fn span(us: u64) -> String {
    let seconds = us / 1_000_000;
    match seconds {
        0..10 => format!("{seconds}.{:02}s", us % 1_000_000 / 10_000),
        10..60 => format!("{seconds}.{}s", us % 1_000_000 / 100_000),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
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
    fn numbers_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (10 * 1024, "10K"),
            (256 << 20, "256M"),
            ((1 << 20) - 1, "1024K"),
            (1 << 30, "1.0G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        for (us, text) in [
            (0, "0.00s"),
            (250_000, "0.25s"),
            (59_950_000, "59.9s"),
            (245_000_000, "4m05s"),
            (11_220_000_000, "3h07m"),
            (1_047_600_000_000, "12d03h"),
        ] {
            assert_eq!(span(us), text, "{us}");
        }
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
