//! The one place that reads the wall clock. Deadlines are tokio's, on the monotonic clock.

use crate::model::ageing::Clocks;
use crate::model::instance::{LogTime, Timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock now; 1970 if it is set before that, and [`Timestamp::MAX`] if after.
pub fn now() -> Timestamp {
    Timestamp(u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX)).min(Timestamp::MAX)
}

/// The wall clock, and one that nobody sets.
pub(super) fn both() -> Clocks {
    Clocks { wall: now(), steady: steady() }
}

/// Time since the machine started, with what it slept: a sleep of a night is no step of the wall clock.
#[cfg(unix)]
fn steady() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    // clock_gettime(2): only this one counts sleep on Linux; elsewhere the other does.
    #[cfg(target_os = "linux")]
    let time = clock_gettime(ClockId::Boottime);
    #[cfg(not(target_os = "linux"))]
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Time since this was asked first.
#[cfg(not(unix))]
fn steady() -> Duration {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(std::time::Instant::now).elapsed()
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
