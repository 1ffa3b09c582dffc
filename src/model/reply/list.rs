//! `list`, put into words record by record: the longest reply that there is, of which nobody has to hold more than a piece.

use crate::model::escape;
use crate::model::instance::Record;
use crate::model::request::WireFormat;
use crate::model::view::InstanceView;
use serde::Serialize;

/// The words around and between the records of a list.
#[derive(Debug)]
pub struct Listing {
    format: WireFormat,
    quiet: bool,
    begun: bool,
}

impl Listing {
    /// A list in this format; `quiet`: names alone.
    pub fn new(format: WireFormat, quiet: bool) -> Listing {
        Listing { format, quiet, begun: false }
    }

    /// What stands before the first record.
    pub fn head(&self) -> &'static str {
        match (self.format, self.quiet) {
            (WireFormat::Plain, false) => "Available containers: [",
            (WireFormat::Plain, true) => "",
            (WireFormat::Json, false) => r#"{"ok":{"instances":["#,
            (WireFormat::Json, true) => r#"{"ok":{"names":["#,
        }
    }

    /// Appends the next record.
    pub fn push(&mut self, out: &mut String, record: &Record) {
        let first = !std::mem::replace(&mut self.begun, true);
        match (self.format, self.quiet) {
            (WireFormat::Plain, false) => {
                // Python's list of strings; names and states hold nothing that Python would escape.
                let comma = if first { "" } else { ", " };
                out.push_str(&format!("{comma}'{} - {}'", record.name, record.state));
            }
            (WireFormat::Plain, true) => super::dotted_line(out, record.name.as_str()),
            (WireFormat::Json, quiet) => {
                if !first {
                    out.push(',');
                }
                if quiet { push_json(out, &record.name) } else { push_json(out, &InstanceView::of(record)) }
            }
        }
    }

    /// What stands behind the last record, with the line end.
    pub fn tail(&self) -> &'static str {
        match (self.format, self.quiet) {
            (WireFormat::Plain, false) => "]\n",
            (WireFormat::Plain, true) => ".\n",
            (WireFormat::Json, _) => "]}}\n",
        }
    }
}

fn push_json<T: Serialize>(out: &mut String, value: &T) {
    let text = serde_json::to_string(value).expect("views have string keys and no failing serializers");
    out.push_str(&escape::json(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::instance::{Ended, ExitStatus, State};
    use crate::model::registry::tests::record;
    use crate::model::reply::{Line, json_line};

    fn list(format: WireFormat, quiet: bool, records: &[Record]) -> String {
        let mut listing = Listing::new(format, quiet);
        let mut text = listing.head().to_owned();
        records.iter().for_each(|record| listing.push(&mut text, record));
        text + listing.tail()
    }

    /// Whoever reads it need not know that it was put together.
    #[test]
    fn it_is_one_reply_like_any_other() {
        let mut web = record("web", &["tier=\u{202e}front"]);
        web.state = State::Ended(Ended::new(ExitStatus::Exited(3), "exit", Some("a\u{1b}\n\u{7f}".into())));
        let all = [record("a", &[]), web];
        for records in [&all[..0], &all[..1], &all] {
            let views: Vec<InstanceView> = records.iter().map(InstanceView::of).collect();
            let names: Vec<&str> = records.iter().map(|record| record.name.as_str()).collect();
            let whole = |key: &str, value: String| format!("{{\"ok\":{{\"{key}\":{value}}}}}\n");
            let text = list(WireFormat::Json, false, records);
            assert_eq!(text, whole("instances", json_line(&views).trim_end().to_owned()));
            assert!(serde_json::from_str::<Line<serde_json::Value>>(&text).is_ok());
            assert_eq!(list(WireFormat::Json, true, records), whole("names", json_line(&names).trim_end().to_owned()));
        }
        assert_eq!(list(WireFormat::Plain, false, &all), "Available containers: ['a - created', 'web - exited (3)']\n");
        assert_eq!(list(WireFormat::Plain, false, &[]), "Available containers: []\n");
        assert_eq!(list(WireFormat::Plain, true, &all), "a\nweb\n.\n");
    }
}
