//! The one place that reads the wall clock. Deadlines are tokio's, on the monotonic clock.

use crate::model::instance::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock now; 1970 if it is set before that.
#[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
