//! What comes before the closing object of a reply that goes on for a while.

use super::{Created, Output};
use crate::model::event::EventView;
use crate::model::name::Name;
use serde::{Deserialize, Serialize};

/// A line of a stream, before the closing object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum StreamEvent {
    /// The module is being compiled, which can take minutes, or waits for that.
    Compiling {
        /// The module.
        module: Name,
        /// Its place among those that wait, 1 for the next; without it, it is being compiled.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queued: Option<usize>,
        /// For how long it has been compiled already, in milliseconds.
        #[serde(default, skip_serializing_if = "is_zero")]
        elapsed_ms: u64,
    },
    /// The run was accepted.
    Created(Created),
    /// The guest printed.
    Output(Output),
    /// The daemon is ready for this many bytes, raw.
    Ready {
        /// How many.
        bytes: u64,
    },
    /// A piece of a module's bytes, in base64.
    Content {
        /// The piece.
        base64: String,
    },
    /// A slow reader missed this much of the log.
    Dropped {
        /// How many bytes.
        bytes: u64,
    },
    /// Something happened to an instance.
    Registry {
        /// What.
        event: Box<EventView>,
    },
    /// Events that a follower was too slow for, or that are no longer kept.
    Lost {
        /// How many.
        events: u64,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it like this")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
