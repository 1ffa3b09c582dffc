//! Numbers in the text format of Prometheus (version 0.0.4): families with their help and type, samples below them.

use std::fmt::{Display, Write};

/// What a family counts, as Prometheus types it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from the start of the daemon on; its name ends in `_total`.
    Counter,
    /// As it is now.
    Gauge,
    /// How often something took how long.
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A text that is being put together.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// A family: what follows are its samples.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        self.line(format_args!("# HELP {name} {}", help.replace('\\', "\\\\").replace('\n', "\\n")));
        self.line(format_args!("# TYPE {name} {}", kind.word()));
        Family { text: self, name }
    }

    /// A family of one sample without labels.
    pub fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // To a string nothing fails.
        let _written = writeln!(self.0, "{line}");
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// Samples of one family.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut Exposition,
    name: &'a str,
}

impl Family<'_> {
    /// A sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let name = self.name;
        self.text.line(format_args!("{name}{} {value}", Labels(labels)));
        self
    }

    /// The samples of a histogram: how many were at most as long as each bound, and in all; and their sum.
    pub fn histogram(&mut self, bounds: &[(f64, u64)], count: u64, sum: f64) {
        let name = self.name;
        for (bound, within) in bounds {
            self.text.line(format_args!("{name}_bucket{} {within}", Labels(&[("le", &bound.to_string())])));
        }
        self.text.line(format_args!("{name}_bucket{} {count}", Labels(&[("le", "+Inf")])));
        self.text.line(format_args!("{name}_sum {sum}"));
        self.text.line(format_args!("{name}_count {count}"));
    }
}

struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{}{name}=\"{value}\"", if index == 0 { '{' } else { ',' })?;
        }
        f.write_str(if self.0.is_empty() { "" } else { "}" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_look_as_the_format_has_them() {
        let mut text = Exposition::default();
        text.one("a_bytes", Kind::Gauge, "Bytes of \\ and\nmore", 7);
        text.family("b_total", Kind::Counter, "B")
            .sample(&[("x", "1"), ("y", "a\"b\\\n")], 1)
            .sample(&[("x", "2"), ("y", "")], 0.25);
        text.family("c_seconds", Kind::Histogram, "C").histogram(&[(0.001, 1), (2.5, 3)], 4, 9.5);
        let wanted = r#"# HELP a_bytes Bytes of \\ and\nmore
# TYPE a_bytes gauge
a_bytes 7
# HELP b_total B
# TYPE b_total counter
b_total{x="1",y="a\"b\\\n"} 1
b_total{x="2",y=""} 0.25
# HELP c_seconds C
# TYPE c_seconds histogram
c_seconds_bucket{le="0.001"} 1
c_seconds_bucket{le="2.5"} 3
c_seconds_bucket{le="+Inf"} 4
c_seconds_sum 9.5
c_seconds_count 4
"#;
        assert_eq!(text.finish(), wanted);
    }
}
