//! What is told of a limit: its value, its default, its use.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A limit of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// The flag of `coracle daemon` that sets it.
    pub flag: String,
    /// What it is without the flag, as the flag spells it; empty where that depends on the machine.
    pub default: String,
    /// What `value` and `used` count.
    pub unit: Unit,
    /// What it is; null is none.
    pub value: Option<u64>,
    /// What is used of it now, where it is one for all together.
    pub used: Option<u64>,
    /// What it bounds.
    pub what: String,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// Thousandths of a second.
    Milliseconds,
    /// Thousandths of a processor.
    MilliCpus,
}

impl LimitView {
    /// The value, for people.
    pub fn value_text(&self) -> String {
        self.value.map_or_else(|| "none".to_owned(), |value| self.unit.text(value))
    }

    /// What is used, for people.
    pub fn used_text(&self) -> Option<String> {
        self.used.map(|used| self.unit.text(used))
    }
}

impl Unit {
    fn text(self, n: u64) -> String {
        match self {
            Unit::Bytes => bytesize::ByteSize(n).to_string(),
            Unit::Count => n.to_string(),
            Unit::Milliseconds => humantime::format_duration(Duration::from_millis(n)).to_string(),
            Unit::MilliCpus => format!("{}.{:03}", n / 1000, n % 1000),
        }
    }
}

/// What `limits` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitViews {
    /// All of them, in the order of `coracle daemon --help`.
    pub limits: Vec<LimitView>,
    /// What there is of the kernel's fence around the daemon.
    pub fence: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_in_their_units() {
        let view = |unit, value| LimitView {
            flag: "--x".into(),
            default: String::new(),
            unit,
            value,
            used: Some(0),
            what: String::new(),
        };
        for (unit, value, text) in [
            (Unit::Bytes, Some(256 << 20), "256.0 MiB"),
            (Unit::Count, Some(100), "100"),
            (Unit::Milliseconds, Some(90_000), "1m 30s"),
            (Unit::MilliCpus, Some(250), "0.250"),
            (Unit::MilliCpus, None, "none"),
        ] {
            assert_eq!(view(unit, value).value_text(), text);
            let used = LimitView { used: value, ..view(unit, None) };
            assert_eq!(used.used_text().unwrap_or("none".to_owned()), text);
        }
    }
}
