//! Moments as people give them: a point in time, an age, or the number of an event.

use crate::model::escape;
use crate::model::instance::Timestamp;
use crate::model::request::parse_duration;
use std::time::{Duration, UNIX_EPOCH};

/// A moment, before or after now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This long ago.
    Ago(Duration),
    /// A point in time.
    At(Timestamp),
}

impl Moment {
    /// The point in time, seen from `now`.
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::Ago(age) => Timestamp(now.0.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))),
            Moment::At(at) => at,
        }
    }
}

/// `10m` (ago), `2026-11-24T10:00:00Z`, `2026-11-24 10:00:00` or a date (UTC).
///
/// # Errors
///
/// One line that says what a moment looks like.
pub fn parse_moment(s: &str) -> Result<Moment, String> {
    if let Ok(age) = parse_duration(s) {
        return Ok(Moment::Ago(age));
    }
    let day = if s.len() == "2026-11-24".len() { format!("{s}T00:00:00Z") } else { s.to_owned() };
    let time = humantime::parse_rfc3339_weak(&day).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let micros = time.and_then(|since| u64::try_from(since.as_micros()).ok());
    micros
        .map(|micros| Moment::At(Timestamp(micros)))
        .ok_or_else(|| format!("'{}' is not a time; try 10m (ago) or 2026-11-24T10:00:00Z", escape::short(s, 40)))
}

/// Where in the stream of events: a number, or a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The event with this number.
    Seq(u64),
    /// What happened at that moment.
    Moment(Moment),
}

/// A plain number is an event's; the rest is as for [`parse_moment`].
///
/// # Errors
///
/// One line that says what is wanted.
pub fn parse_position(s: &str) -> Result<Position, String> {
    if let Ok(seq) = s.parse::<u64>() {
        return Ok(Position::Seq(seq));
    }
    match parse_moment(s) {
        Ok(moment) => Ok(Position::Moment(moment)),
        Err(why) => Err(format!("{why}, or the number of an event")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_ages_or_points_in_time() {
        let now = Timestamp(1_800_000_000_000_000);
        assert_eq!(parse_moment("10m").unwrap().resolve(now).0, now.0 - 600_000_000);
        assert_eq!(parse_moment("5").unwrap().resolve(now).0, now.0 - 5_000_000);
        let at = Timestamp(1_700_000_000_000_000);
        for same in ["2023-11-14T22:13:20Z", "2023-11-14 22:13:20", "2023-11-14T22:13:20.000000Z"] {
            assert_eq!(parse_moment(same).unwrap(), Moment::At(at), "{same}");
        }
        assert_eq!(parse_moment("1970-01-02").unwrap(), Moment::At(Timestamp(86_400_000_000)));
        for bad in ["", "yesterday", "-5m", "2023-13-01", "1969-01-01", "23:00"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_plain_number_is_an_events() {
        assert_eq!(parse_position("17"), Ok(Position::Seq(17)));
        assert_eq!(parse_position("17s"), Ok(Position::Moment(Moment::Ago(Duration::from_secs(17)))));
        assert!(parse_position("x").unwrap_err().contains("number of an event"));
    }
}
