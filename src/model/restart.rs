//! Restart policies, with docker's semantics: when a run is followed by another, how soon, and what comes back with the
//! daemon.

use crate::model::escape;
use crate::model::instance::{ExitStatus, Record, State};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What happens when a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    No,
    /// It is run again if it failed: any end but exit code 0.
    OnFailure {
        /// At most this many times; `None` for no bound.
        retries_max: Option<u32>,
    },
    /// It is run again, and comes back with the daemon even if an operator had stopped it.
    Always,
    /// It is run again, and comes back with the daemon unless an operator had stopped it.
    UnlessStopped,
}

impl RestartPolicy {
    /// Whether a run that ended by itself is followed by another; `restarts` is how often that happened already.
    pub fn runs_again(self, status: ExitStatus, restarts: u32) -> bool {
        match self {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { retries_max } => {
                status != ExitStatus::Exited(0) && retries_max.is_none_or(|max| restarts < max)
            }
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        }
    }

    /// Whether an instance runs again when the daemon starts. One that was alive when the daemon died has not been marked as
    /// lost yet; one that an orderly end of the daemon stopped has the reason `shutdown`.
    pub fn comes_back(self, record: &Record) -> bool {
        match self {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !record.stop_requested,
            RestartPolicy::OnFailure { .. } => {
                !record.stop_requested
                    && match &record.state {
                        State::Created | State::Running | State::Restarting(_) => true,
                        State::Ended(ended) => ended.reason == SHUTDOWN,
                    }
            }
        }
    }
}

/// The reason of an end that the daemon's own orderly end brought.
pub const SHUTDOWN: &str = "shutdown";

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartPolicy::No => f.write_str("no"),
            RestartPolicy::OnFailure { retries_max: None } => f.write_str("on-failure"),
            RestartPolicy::OnFailure { retries_max: Some(max) } => write!(f, "on-failure:{max}"),
            RestartPolicy::Always => f.write_str("always"),
            RestartPolicy::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = String;

    /// As docker: `on-failure:0` has no bound.
    fn from_str(s: &str) -> Result<RestartPolicy, String> {
        let bad = || format!("'{}' is not one of no, on-failure[:N], always, unless-stopped", escape::short(s, 40));
        match s {
            "no" => Ok(RestartPolicy::No),
            "always" => Ok(RestartPolicy::Always),
            "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
            "on-failure" => Ok(RestartPolicy::OnFailure { retries_max: None }),
            _ => {
                let digits = s.strip_prefix("on-failure:").filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
                let max = digits.and_then(|n| n.parse::<u32>().ok()).ok_or_else(bad)?;
                Ok(RestartPolicy::OnFailure { retries_max: (max > 0).then_some(max) })
            }
        }
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> String {
        policy.to_string()
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = String;

    fn try_from(s: String) -> Result<RestartPolicy, String> {
        s.parse()
    }
}

/// How long to wait before the next run: 100 ms, doubled each time up to a minute, and begun anew by a run that lived 10 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackOff {
    last: Option<Duration>,
}

impl BackOff {
    /// The first pause.
    pub const FIRST: Duration = Duration::from_millis(100);
    /// The longest.
    pub const LONGEST: Duration = Duration::from_secs(60);
    /// A run that lived this long was no failure to start.
    pub const LIFE: Duration = Duration::from_secs(10);

    /// The pause after a run that lived for `life`.
    pub fn after(&mut self, life: Duration) -> Duration {
        let pause = match self.last {
            Some(last) if life < Self::LIFE => (last * 2).min(Self::LONGEST),
            _ => Self::FIRST,
        };
        self.last = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_spelled_as_docker_spells_them() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            let policy: RestartPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
            let json = format!("\"{text}\"");
            assert_eq!(serde_json::to_string(&policy).unwrap(), json);
            assert_eq!(serde_json::from_str::<RestartPolicy>(&json).unwrap(), policy);
        }
        assert_eq!("on-failure:0".parse(), Ok(RestartPolicy::OnFailure { retries_max: None }));
        for bad in ["", "never", "on-failure:", "on-failure:-1", "on-failure:+1", "on-failure:99999999999", "Always"] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_failures_are_retried_and_only_so_often() {
        let three = RestartPolicy::OnFailure { retries_max: Some(3) };
        assert!(!three.runs_again(ExitStatus::Exited(0), 0));
        for failure in [ExitStatus::Exited(1), ExitStatus::Trapped, ExitStatus::TimedOut, ExitStatus::Failed] {
            assert!(three.runs_again(failure, 2) && !three.runs_again(failure, 3));
        }
        assert!(RestartPolicy::Always.runs_again(ExitStatus::Exited(0), 1_000_000));
        assert!(!RestartPolicy::No.runs_again(ExitStatus::Trapped, 0));
    }

    #[test]
    fn the_pause_doubles_to_a_minute_and_begins_anew_after_ten_seconds_of_life() {
        let mut back_off = BackOff::default();
        let pauses: Vec<u128> = (0..12).map(|_| back_off.after(Duration::from_secs(9)).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        assert_eq!(back_off.after(Duration::from_secs(10)).as_millis(), 100);
        assert_eq!(back_off.after(Duration::ZERO).as_millis(), 200);
    }
}
