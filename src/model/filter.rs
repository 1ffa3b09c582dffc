//! `--filter KEY=VALUE`, as docker has it: values of one key are alternatives, keys (and labels) must all match.

use crate::error::{Error, Result};
use crate::model::escape;
use crate::model::event::EventView;
use crate::model::instance::{Record, Timestamp};
use crate::model::when::{Moment, parse_moment};
use std::collections::BTreeMap;

/// Values of `--filter` in a request; each is tried on every instance.
const FILTERS_MAX: usize = 64;

/// Labels of an instance.
pub type Labels = BTreeMap<String, String>;

/// States that `status=` knows, and kinds of events that `type=` knows: a slip should be told.
const STATES: [&str; 10] =
    ["created", "running", "restarting", "exited", "trapped", "stopped", "killed", "timed-out", "failed", "lost"];
const TYPES: [&str; 8] =
    ["created", "started", "stop-requested", "restarting", "restart-cancelled", "resumed", "ended", "removed"];

/// What is wanted; empty lets everything through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    names: Vec<String>,
    modules: Vec<String>,
    states: Vec<String>,
    types: Vec<String>,
    codes: Vec<u8>,
    labels: Vec<(String, Option<String>)>,
    until: Option<Moment>,
}

impl Filter {
    /// For `list`: `name` (a part of it), `module`, `status`, `exited` (a code), `label`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for another key or a value that cannot match.
    pub fn of_list(filters: &[String]) -> Result<Filter> {
        Filter::parse(filters, &["name", "module", "status", "exited", "label"])
    }

    /// For `prune`: `label`, `module`, `until` (ended before).
    ///
    /// # Errors
    ///
    /// As [`Filter::of_list`].
    pub fn of_prune(filters: &[String]) -> Result<Filter> {
        Filter::parse(filters, &["label", "module", "until"])
    }

    /// For `events`: `name`, `module`, `type`, `label`.
    ///
    /// # Errors
    ///
    /// As [`Filter::of_list`].
    pub fn of_events(filters: &[String]) -> Result<Filter> {
        Filter::parse(filters, &["name", "module", "type", "label"])
    }

    fn parse(filters: &[String], keys: &[&str]) -> Result<Filter> {
        if filters.len() > FILTERS_MAX {
            return Err(Error::Usage(format!("there are at most {FILTERS_MAX} values of --filter")));
        }
        let mut filter = Filter::default();
        for text in filters {
            let bad = |why: String| Error::Usage(format!("--filter {}: {why}", escape::short(text, 60)));
            let Some((key, value)) = text.split_once('=').filter(|(key, _)| keys.contains(key)) else {
                return Err(bad(format!("it is KEY=VALUE, with a key of {}", keys.join(", "))));
            };
            match key {
                "name" => filter.names.push(value.to_owned()),
                "module" => filter.modules.push(value.to_owned()),
                "status" => filter.states.push(one_of(value, &STATES).map_err(bad)?),
                "type" => filter.types.push(one_of(value, &TYPES).map_err(bad)?),
                "exited" => filter.codes.push(value.parse().map_err(|_| bad("it is a code from 0 to 255".into()))?),
                "until" => filter.until = Some(parse_moment(value).map_err(bad)?),
                _ => filter.labels.push(match value.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (value.to_owned(), None),
                }),
            }
        }
        Ok(filter)
    }

    /// Whether an instance is wanted.
    pub fn wants(&self, record: &Record, now: Timestamp) -> bool {
        any(&self.names, |n| record.name.as_str().contains(n.as_str()))
            && any(&self.modules, |m| record.launch.module.as_str() == m)
            && any(&self.states, |s| record.state.word() == s)
            && any(&self.codes, |c| record.state.ended().is_some_and(|e| e.status.exit_code() == *c))
            && self.wants_labels(&record.launch.labels)
            && self.until.is_none_or(|until| record.ended_at.is_some_and(|at| at <= until.resolve(now)))
    }

    /// Whether an event is wanted.
    pub fn wants_event(&self, event: &EventView) -> bool {
        any(&self.names, |n| event.name.as_str() == n)
            && any(&self.modules, |m| event.module.as_str() == m)
            && any(&self.types, |t| event.kind == *t)
            && self.wants_labels(&event.labels)
    }

    fn wants_labels(&self, labels: &Labels) -> bool {
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key).is_some_and(|has| value.as_ref().is_none_or(|wanted| wanted == has)))
    }
}

/// No wish is every wish.
fn any<T>(wanted: &[T], is: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(is)
}

fn one_of(value: &str, known: &[&str]) -> Result<String, String> {
    if known.contains(&value) { Ok(value.to_owned()) } else { Err(format!("it is one of {}", known.join(", "))) }
}

/// The longest label, key and value together, in bytes, and the most labels of an instance.
const LABEL_BYTES_MAX: usize = 1024;
const LABELS_MAX: usize = 64;

/// Reads `KEY=VALUE` or `KEY` labels; of two with one key the later stands.
///
/// # Errors
///
/// [`Error::Usage`].
pub fn parse_labels(labels: &[String]) -> Result<Labels> {
    let mut all = Labels::new();
    for label in labels {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        if key.is_empty() || label.len() > LABEL_BYTES_MAX {
            return Err(Error::Usage(format!(
                "a label is KEY=VALUE, of at most {LABEL_BYTES_MAX} bytes: {}",
                escape::short(label, 60)
            )));
        }
        all.insert(key.to_owned(), value.to_owned());
    }
    if all.len() > LABELS_MAX {
        return Err(Error::Usage(format!("an instance has at most {LABELS_MAX} labels")));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::instance::{Ended, ExitStatus, State};
    use crate::model::registry::tests::record;

    fn texts(filters: &[&str]) -> Vec<String> {
        filters.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn alternatives_within_a_key_and_all_keys_together() {
        let mut web = record("web1", &["tier=front", "owner=ann"]);
        let wants =
            |record: &Record, filters: &[&str]| Filter::of_list(&texts(filters)).unwrap().wants(record, Timestamp(0));
        assert!(wants(&web, &[]) && wants(&web, &["name=web"]) && wants(&web, &["name=db", "name=eb1"]));
        assert!(!wants(&web, &["name=db"]) && !wants(&web, &["name=web", "status=running"]));
        assert!(wants(&web, &["label=tier"]) && wants(&web, &["label=tier=front", "label=owner=ann"]));
        assert!(!wants(&web, &["label=tier=front", "label=owner=bob"]) && !wants(&web, &["label=x"]));
        assert!(wants(&web, &["module=web1", "module=x"]) && !wants(&web, &["module=web"]));
        assert!(wants(&web, &["status=created"]) && !wants(&web, &["exited=0"]));
        web.state = State::Ended(Ended::new(ExitStatus::Exited(3), "exit", None));
        assert!(wants(&web, &["exited=3", "status=exited"]) && !wants(&web, &["exited=0"]));
    }

    #[test]
    fn events_are_chosen_by_whole_names_and_kinds() {
        let web = record("web1", &["tier=front"]);
        let event = crate::model::event::Event::of(&web, Timestamp(0), crate::model::event::EventKind::Started);
        let event = EventView::of(1, &event, &web);
        let wants = |filters: &[&str]| Filter::of_events(&texts(filters)).unwrap().wants_event(&event);
        assert!(wants(&[]) && wants(&["name=web1"]) && wants(&["type=started", "type=ended"]));
        assert!(wants(&["module=web1", "label=tier=front", "name=x", "name=web1"]));
        assert!(!wants(&["name=web1", "module=x"]) && !wants(&["type=ended", "name=web1"]));
        for none in ["name=web", "module=web", "type=ended", "label=owner", "label=tier=back"] {
            assert!(!wants(&[none]) && !wants(&[none, "label=tier"]), "{none}");
        }
    }

    #[test]
    fn slips_are_told() {
        for bad in ["web", "color=red", "status=runing", "exited=x", "exited=256", "until=10m"] {
            let error = Filter::of_list(&texts(&[bad])).unwrap_err();
            assert_eq!(error.code(), crate::Code::Usage, "{bad}");
        }
        assert!(Filter::of_prune(&texts(&["until=10m"])).is_ok());
        assert!(Filter::of_events(&texts(&["type=end"])).unwrap_err().to_string().contains("ended"));
    }

    #[test]
    fn only_what_ended_before_is_pruned_by_age() {
        let mut record = record("a", &[]);
        record.ended_at = Some(Timestamp(5_000_000));
        let filter = Filter::of_prune(&texts(&["until=10s"])).unwrap();
        assert!(filter.wants(&record, Timestamp(15_000_000)) && !filter.wants(&record, Timestamp(14_999_999)));
        record.ended_at = None;
        assert!(!filter.wants(&record, Timestamp(u64::MAX)));
    }

    #[test]
    fn labels_have_a_key_and_bounds() {
        let labels = parse_labels(&texts(&["a=1", "b", "a=2=3"])).unwrap();
        assert_eq!(labels.into_iter().collect::<Vec<_>>(), [("a".into(), "2=3".into()), ("b".into(), String::new())]);
        assert_eq!(parse_labels(&["x".repeat(1024)]).unwrap().len(), 1);
        assert!(parse_labels(&texts(&["=x"])).is_err() && parse_labels(&["x".repeat(1025)]).is_err());
        let many: Vec<String> = (0..65).map(|i| format!("k{i}")).collect();
        assert!(parse_labels(&many[..64]).is_ok() && parse_labels(&many).is_err());
    }
}
