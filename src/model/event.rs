//! What happened, in the past tense. Events are the only way to change the [`Registry`](crate::model::registry::Registry).

use crate::model::instance::{Ended, InstanceId, Launch, Timestamp};
use crate::model::name::Name;
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
    /// It is over.
    Ended(Ended),
    /// The record was removed.
    Removed,
}
