//! The reply to a verb with several names, put together name by name: each is told on its own.

use super::{Line, Reply, json_error, json_line, plain_error};
use crate::error::Error;
use crate::model::request::WireFormat;

/// The words around and between what came of each name.
#[derive(Debug)]
pub struct Several {
    format: WireFormat,
    begun: bool,
}

impl Several {
    /// A reply in this format.
    pub fn new(format: WireFormat) -> Several {
        Several { format, begun: false }
    }

    /// What stands before the first name.
    pub fn head(&self) -> &'static str {
        match self.format {
            WireFormat::Plain => "",
            WireFormat::Json => r#"{"ok":{"each":["#,
        }
    }

    /// Appends what came of the next name.
    pub fn push(&mut self, out: &mut String, result: &Result<Reply, Error>) {
        let first = !std::mem::replace(&mut self.begun, true);
        match (self.format, result) {
            (WireFormat::Plain, Ok(reply)) => out.push_str(&reply.plain()),
            (WireFormat::Plain, Err(error)) => out.push_str(&plain_error(error)),
            (WireFormat::Json, result) => {
                if !first {
                    out.push(',');
                }
                let line = match result {
                    Ok(reply) => json_line(&Line::Ok(reply.json_value())),
                    Err(error) => json_error(error),
                };
                out.push_str(line.trim_end_matches('\n'));
            }
        }
    }

    /// What stands behind the last name, with the line end.
    pub fn tail(&self) -> &'static str {
        match self.format {
            WireFormat::Plain => ".\n",
            WireFormat::Json => "]}}\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: WireFormat, results: &[Result<Reply, Error>]) -> String {
        let mut several = Several::new(format);
        let mut text = several.head().to_owned();
        results.iter().for_each(|result| several.push(&mut text, result));
        text + several.tail()
    }

    #[test]
    fn each_name_is_told_on_its_own() {
        let removed = |name: &str| Ok(Reply::Removed(name.parse().unwrap()));
        let results = [removed("a"), Err(Error::NotFound("b\u{1b}".into())), removed("c")];
        assert_eq!(
            text(WireFormat::Plain, &results),
            "Container 'a' removed\nContainer not found\nContainer 'c' removed\n.\n"
        );
        let json = text(WireFormat::Json, &results);
        assert_eq!(json.matches(['\n', '\u{1b}']).count(), 1, "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let each = value["ok"]["each"].as_array().unwrap();
        assert_eq!(each[0], serde_json::json!({ "ok": { "removed": "a" } }));
        assert_eq!((each[1]["error"]["code"].as_str(), each.len()), (Some("not-found"), 3));
    }
}
