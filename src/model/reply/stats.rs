//! `stats`, put into words instance by instance, as a list is: nobody has to hold more than a piece.

use crate::model::escape;
use crate::model::request::WireFormat;
use crate::model::stats::{DaemonStats, InstanceStats};

/// The words around and between what instances use.
#[derive(Debug)]
pub struct Sampling {
    format: WireFormat,
    begun: bool,
}

impl Sampling {
    /// A sample in this format.
    pub fn new(format: WireFormat) -> Sampling {
        Sampling { format, begun: false }
    }

    /// What stands before the first instance: the daemon.
    pub fn head(&self, daemon: &DaemonStats) -> String {
        match self.format {
            WireFormat::Plain => {
                let mut line = String::new();
                super::dotted_line(&mut line, &daemon.line());
                line
            }
            WireFormat::Json => format!(r#"{{"ok":{{"daemon":{},"instances":["#, json(daemon)),
        }
    }

    /// Appends the next instance.
    pub fn push(&mut self, out: &mut String, stats: &InstanceStats) {
        let first = !std::mem::replace(&mut self.begun, true);
        match self.format {
            WireFormat::Plain => super::dotted_line(out, &stats.line()),
            WireFormat::Json => {
                if !first {
                    out.push(',');
                }
                out.push_str(&json(stats));
            }
        }
    }

    /// What stands behind the last instance, with the line end.
    pub fn tail(&self) -> &'static str {
        match self.format {
            WireFormat::Plain => ".\n",
            WireFormat::Json => "]}}\n",
        }
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    escape::json(serde_json::to_string(value).expect("views have string keys and no failing serializers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::registry::tests::record;
    use crate::model::reply::{Line, json_line};
    use crate::model::stats::{LiveStats, Sample};

    /// Whoever reads it need not know that it was put together.
    #[test]
    fn it_is_one_reply_like_any_other() {
        let daemon = DaemonStats { live: 2, ..DaemonStats::default() };
        let of = |name| InstanceStats::of(&record(name, &[]), LiveStats::default(), 0, 1);
        let all = vec![of("a"), of("web")];
        let text = |format, instances: &[InstanceStats]| {
            let mut sampling = Sampling::new(format);
            let mut text = sampling.head(&daemon);
            instances.iter().for_each(|stats| sampling.push(&mut text, stats));
            text + sampling.tail()
        };
        for instances in [&all[..0], &all[..1], &all] {
            let json = text(WireFormat::Json, instances);
            assert_eq!(json, json_line(&Line::Ok(Sample { daemon, instances: instances.to_vec() })));
        }
        let plain = text(WireFormat::Plain, &all);
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!((lines.len(), lines[1], lines[3]), (4, "a - created run=1 restarts=0", "."), "{plain}");
        assert!(lines[0].starts_with("daemon - age=") && lines[2].starts_with("web - "), "{plain}");
    }
}
