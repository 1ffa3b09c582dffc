//! The one place that reads the wall clock. Deadlines are tokio's, on the monotonic clock.

use crate::model::instance::{LogTime, Timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock now; 1970 if it is set before that, and [`Timestamp::MAX`] if after.
pub fn now() -> Timestamp {
    Timestamp(u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX)).min(Timestamp::MAX)
}

/// The wall clock now, as precise as it is.
pub(super) fn now_in_nanos() -> LogTime {
    LogTime(u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX))
}

/// The wall clock now, as the times of files have it.
#[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
pub(super) fn system_time() -> SystemTime {
    SystemTime::now()
}

fn since_1970() -> Duration {
    system_time().duration_since(UNIX_EPOCH).unwrap_or_default()
}
