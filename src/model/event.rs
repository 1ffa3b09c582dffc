//! What happened, in the past tense. Events are the only way to change the [`Registry`](crate::model::registry::Registry);
//! an [`EventView`] is what is written down of one and what followers see.

use crate::model::filter::Labels;
use crate::model::instance::{Ended, InstanceId, Launch, Record, Timestamp};
use crate::model::name::Name;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One change of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whose.
    pub id: InstanceId,
    /// Its name.
    pub name: Name,
    /// Which run of it.
    pub run: u32,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A run was accepted.
    Created(Arc<Launch>),
    /// Guest code was entered.
    Started,
    /// An operator asked for its end.
    StopRequested,
    /// The run is over, and another one follows.
    Restarting {
        /// How it ended.
        ended: Ended,
        /// How often the restart policy has run it again, with this one.
        restarts: u32,
        /// The pause before the next run, in milliseconds.
        delay_ms: u64,
    },
    /// The run that was to follow is not going to.
    RestartCancelled,
    /// What had ended runs again, because the daemon came back.
    Resumed,
    /// It is over.
    Ended(Ended),
    /// The record was removed.
    Removed,
}

impl EventKind {
    /// The word on the wire and on disk.
    pub fn word(&self) -> &'static str {
        match self {
            EventKind::Created(_) => "created",
            EventKind::Started => "started",
            EventKind::StopRequested => "stop-requested",
            EventKind::Restarting { .. } => "restarting",
            EventKind::RestartCancelled => "restart-cancelled",
            EventKind::Resumed => "resumed",
            EventKind::Ended(_) => "ended",
            EventKind::Removed => "removed",
        }
    }
}

/// An event as it is shown and written down. Never holds a value of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number: the next event has the next one, over all daemons that used this state directory.
    pub seq: u64,
    /// When (RFC 3339).
    pub at: Timestamp,
    /// What: `created`, `started`, `stop-requested`, `restarting`, `restart-cancelled`, `resumed`, `ended`, `removed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whose.
    pub name: Name,
    /// Which run of it.
    pub run: u32,
    /// The module that it runs.
    pub module: Name,
    /// `ended` and `restarting`: the word for how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// `ended` and `restarting`: what a shell would see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// `ended` and `restarting`: why, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `ended` and `restarting`: why, for people. Text of the guest's may be in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `restarting`: the pause before the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Labels of the instance.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl EventView {
    /// What is told of `event`, which made `record` what it is (or removed it).
    pub fn of(seq: u64, event: &Event, record: &Record) -> EventView {
        let (ended, delay_ms) = match &event.kind {
            EventKind::Ended(ended) => (Some(ended), None),
            EventKind::Restarting { ended, delay_ms, .. } => (Some(ended), Some(*delay_ms)),
            _ => (None, None),
        };
        EventView {
            seq,
            at: event.at,
            kind: event.kind.word().to_owned(),
            name: event.name.clone(),
            run: event.run,
            module: record.launch.module.clone(),
            state: ended.map(|e| e.status.word().to_owned()),
            exit_code: ended.map(|e| e.status.exit_code()),
            reason: ended.map(|e| e.reason.clone()),
            message: ended.and_then(|e| e.message.clone()),
            delay_ms,
            labels: record.launch.labels.clone(),
        }
    }

    /// One line for people, unescaped: number, time, kind, name, and what else there is to know.
    pub fn line(&self) -> String {
        let mut line =
            format!("{} {} {} {} run={} module={}", self.seq, self.at, self.kind, self.name, self.run, self.module);
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                line.push_str(&format!(" {key}={value}"));
            }
        };
        add("state", self.state.clone());
        add("exit_code", self.exit_code.map(|c| c.to_string()));
        add("reason", self.reason.clone());
        add("delay", self.delay_ms.map(|ms| format!("{ms}ms")));
        for (key, value) in &self.labels {
            line.push_str(&format!(" {key}={value}"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::instance::ExitStatus;
    use crate::model::registry::tests::record;

    #[test]
    fn an_event_is_one_line_with_what_there_is_to_know() {
        let web = record("web", &["tier=front"]);
        let ended = Ended::new(ExitStatus::Exited(3), "exit", Some("why".into()));
        let line = |kind| {
            let view = EventView::of(7, &Event::of(&web, Timestamp(5_000_000), kind), &web);
            assert_eq!(serde_json::to_value(&view).unwrap()["type"], view.kind);
            view.line()
        };
        let about = "web run=1 module=web";
        let at = "7 1970-01-01T00:00:05.000000Z";
        for (kind, word, rest) in [
            (EventKind::Created(web.launch.clone()), "created", ""),
            (EventKind::Started, "started", ""),
            (EventKind::StopRequested, "stop-requested", ""),
            (EventKind::RestartCancelled, "restart-cancelled", ""),
            (EventKind::Resumed, "resumed", ""),
            (EventKind::Removed, "removed", ""),
            (EventKind::Ended(ended.clone()), "ended", " state=exited exit_code=3 reason=exit"),
            (
                EventKind::Restarting { ended, restarts: 1, delay_ms: 100 },
                "restarting",
                " state=exited exit_code=3 reason=exit delay=100ms",
            ),
        ] {
            assert_eq!(line(kind), format!("{at} {word} {about}{rest} tier=front"));
        }
    }
}
