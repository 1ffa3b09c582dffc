//! What `stats` tells: numbers of one moment. Shares are for whoever has two of them.

use crate::model::instance::{Record, Share, State};
use crate::model::name::Name;
use serde::{Deserialize, Serialize};

/// What one instance uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStats {
    /// Its name.
    pub name: Name,
    /// The module it runs.
    pub module: Name,
    /// Which run, from 1.
    pub run: u32,
    /// The word of the contract: `created`, `running`, `exited`, …
    pub state: String,
    /// Once over: what a shell would see.
    pub exit_code: Option<u8>,
    /// How often the restart policy has run it again.
    pub restarts: u32,
    /// When the run was accepted (RFC 3339).
    pub created_at: String,
    /// When guest code was entered.
    pub started_at: Option<String>,
    /// Time since guest code was entered, in microseconds, or until the run was over; null if it was not entered.
    pub age_us: Option<u64>,
    /// The moment of these numbers: microseconds since the daemon began.
    pub at_us: u64,
    /// CPU time of the run, in microseconds; null of one that has not begun, or was lost.
    pub cpu_us: Option<u64>,
    /// What it may use of the processors.
    #[serde(flatten)]
    pub share: Share,
    /// All memories and tables together now, in bytes; null unless a run is alive.
    pub memory_bytes: Option<u64>,
    /// The most of it in this run.
    pub memory_peak_bytes: Option<u64>,
    /// The most that it may have.
    pub memory_bytes_max: u64,
    /// Files in its directory, in bytes; null unless a run is alive whose program can use files.
    pub disk_bytes: Option<u64>,
    /// Names in its directory; null likewise.
    pub files: Option<u64>,
    /// The most bytes that it may have there.
    pub disk_bytes_max: u64,
    /// The most names.
    pub files_max: u64,
    /// Bytes in the files of its log; null unless it is alive, and of an earlier daemon's until something is written.
    pub log_bytes: Option<u64>,
    /// Bytes that it has printed since this daemon runs it, over its restarts; null unless it is alive.
    pub output_bytes: Option<u64>,
}

/// What there is of an instance only while it is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LiveStats {
    /// CPU time of the run, in microseconds.
    pub cpu_us: Option<u64>,
    /// See [`InstanceStats::memory_bytes`].
    pub memory_bytes: Option<u64>,
    /// See [`InstanceStats::memory_peak_bytes`].
    pub memory_peak_bytes: Option<u64>,
    /// See [`InstanceStats::disk_bytes`].
    pub disk_bytes: Option<u64>,
    /// See [`InstanceStats::files`].
    pub files: Option<u64>,
    /// See [`InstanceStats::log_bytes`].
    pub log_bytes: Option<u64>,
    /// See [`InstanceStats::output_bytes`].
    pub output_bytes: Option<u64>,
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl InstanceStats {
    /// What is told of a record, `now` (microseconds since 1970), at `at_us` of the daemon's own time.
    pub fn of(record: &Record, live: LiveStats, now: u64, at_us: u64) -> InstanceStats {
        let ended = match &record.state {
            State::Ended(ended) | State::Restarting(ended) => Some(ended),
            State::Created | State::Running => None,
        };
        let until = record.ended_at.map_or(now, |at| at.0);
        let launch = &record.launch;
        InstanceStats {
            name: record.name.clone(),
            module: launch.module.clone(),
            run: record.run,
            state: record.state.word().to_owned(),
            exit_code: ended.map(|e| e.status.exit_code()),
            restarts: record.restarts,
            created_at: record.created_at.to_string(),
            started_at: record.started_at.map(|t| t.to_string()),
            age_us: record.started_at.map(|at| until.saturating_sub(at.0)),
            at_us,
            cpu_us: ended.map_or(live.cpu_us, |e| e.cpu_us),
            share: launch.share,
            memory_bytes: live.memory_bytes,
            memory_peak_bytes: live.memory_peak_bytes,
            memory_bytes_max: wide(launch.memory_bytes_max),
            disk_bytes: live.disk_bytes,
            files: live.files,
            disk_bytes_max: wide(launch.disk_bytes_max),
            files_max: wide(launch.files_max),
            log_bytes: live.log_bytes,
            output_bytes: live.output_bytes,
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let mut line = format!("{} - {} run={}", self.name, self.status(), self.run);
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                line.push_str(&format!(" {key}={value}"));
            }
        };
        let of = |used: Option<u64>, max: u64| used.map(|used| format!("{used}/{max}"));
        add("age", self.age_us.map(seconds));
        add("cpu", self.cpu_us.map(seconds));
        add("memory", of(self.memory_bytes, self.memory_bytes_max));
        add("peak", self.memory_peak_bytes.map(|n| n.to_string()));
        add("disk", of(self.disk_bytes, self.disk_bytes_max));
        add("files", of(self.files, self.files_max));
        add("log", self.log_bytes.map(|n| n.to_string()));
        add("output", self.output_bytes.map(|n| n.to_string()));
        add("restarts", Some(self.restarts.to_string()));
        line
    }

    /// As [`InstanceView::status`](crate::model::view::InstanceView::status).
    pub fn status(&self) -> String {
        match (self.state.as_str(), self.exit_code) {
            ("exited", Some(code)) => format!("exited ({code})"),
            (state, _) => state.to_owned(),
        }
    }

    /// The part of one processor that it used since `before`, in percent: 250 is two and a half. `None`: there is no telling, for
    /// it is another run, or no time has passed.
    pub fn cpu_percent_since(&self, before: &InstanceStats) -> Option<f64> {
        let same = self.run == before.run && self.name == before.name && self.created_at == before.created_at;
        let used = self.cpu_us?.checked_sub(before.cpu_us.unwrap_or(0))?;
        percent(used, self.at_us.checked_sub(before.at_us)?).filter(|_| same)
    }
}

/// What the daemon itself uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DaemonStats {
    /// The moment of these numbers: microseconds since it began.
    pub at_us: u64,
    /// CPU time of its process, guests included, in microseconds; null where the system does not tell.
    pub cpu_us: Option<u64>,
    /// CPU time of all guests that it has run so far, in microseconds.
    pub guests_cpu_us: u64,
    /// Memory of its process that is resident, guests included, in bytes; null where the system does not tell.
    pub rss_bytes: Option<u64>,
    /// Memories and tables of all instances together, in bytes.
    pub memory_bytes: u64,
    /// The most that there may be.
    pub memory_bytes_max: u64,
    /// Instances that are alive.
    pub live: u64,
    /// The most that may be.
    pub live_max: u64,
    /// Instances that are known.
    pub instances: u64,
    /// Processors of the machine that it may use.
    pub processors: u64,
}

impl DaemonStats {
    /// One line for people.
    pub fn line(&self) -> String {
        let mut line = format!("daemon - age={}", seconds(self.at_us));
        if let Some(cpu) = self.cpu_us {
            line.push_str(&format!(" cpu={}", seconds(cpu)));
        }
        line.push_str(&format!(" guests_cpu={}", seconds(self.guests_cpu_us)));
        if let Some(rss) = self.rss_bytes {
            line.push_str(&format!(" rss={rss}"));
        }
        line.push_str(&format!(
            " memory={}/{} live={}/{} instances={} processors={}",
            self.memory_bytes, self.memory_bytes_max, self.live, self.live_max, self.instances, self.processors
        ));
        line
    }

    /// The part of one processor that the process used since `before`, guests included, in percent.
    pub fn cpu_percent_since(&self, before: &DaemonStats) -> Option<f64> {
        let used = self.cpu_us?.checked_sub(before.cpu_us?)?;
        percent(used, self.at_us.checked_sub(before.at_us)?)
    }

    /// What of that was not of guests.
    pub fn own_percent_since(&self, before: &DaemonStats) -> Option<f64> {
        let used = self.cpu_us?.checked_sub(before.cpu_us?)?;
        let guests = self.guests_cpu_us.checked_sub(before.guests_cpu_us)?;
        percent(used.saturating_sub(guests), self.at_us.checked_sub(before.at_us)?)
    }
}

/// What `stats` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// The daemon.
    pub daemon: DaemonStats,
    /// The instances, in order of creation; in the order of the names where names were given.
    pub instances: Vec<InstanceStats>,
}

#[expect(clippy::cast_precision_loss, reason = "a share for people, of microseconds that fit")]
fn percent(used_us: u64, passed_us: u64) -> Option<f64> {
    (passed_us > 0).then(|| used_us as f64 * 100.0 / passed_us as f64)
}

/// `12.345s`
fn seconds(us: u64) -> String {
    format!("{}.{:03}s", us / 1_000_000, us % 1_000_000 / 1000)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::instance::{Ended, ExitStatus, Timestamp};
    use crate::model::registry::tests::record;

    fn live() -> LiveStats {
        LiveStats {
            cpu_us: Some(1_500_000),
            memory_bytes: Some(65_536),
            memory_peak_bytes: Some(131_072),
            disk_bytes: Some(5),
            files: Some(1),
            log_bytes: None,
            output_bytes: Some(7),
        }
    }

    #[test]
    fn a_sample_is_a_line_with_what_there_is_to_know() {
        let mut web = record("web", &[]);
        let of = |record: &Record, live| InstanceStats::of(record, live, 9_000_000, 1_000);
        let memory = web.launch.memory_bytes_max;
        assert_eq!(of(&web, LiveStats::default()).line(), "web - created run=1 restarts=0");
        web.state = State::Running;
        web.started_at = Some(Timestamp(6_500_000));
        let stats = of(&web, live());
        assert_eq!(
            stats.line(),
            format!(
                "web - running run=1 age=2.500s cpu=1.500s memory=65536/{memory} peak=131072 disk=5/{} files=1/{} output=7 restarts=0",
                web.launch.disk_bytes_max, web.launch.files_max
            )
        );
        assert_eq!(serde_json::from_str::<InstanceStats>(&serde_json::to_string(&stats).unwrap()).unwrap(), stats);
        let mut ended = Ended::new(ExitStatus::Exited(3), "exit", None);
        ended.cpu_us = Some(2_000);
        web.state = State::Ended(ended);
        web.ended_at = Some(Timestamp(7_000_000));
        let line = of(&web, LiveStats::default()).line();
        assert_eq!(line, "web - exited (3) run=1 age=0.500s cpu=0.002s restarts=0");
        let daemon = DaemonStats { at_us: 61_000_000, cpu_us: Some(2_500_000), live: 1, ..DaemonStats::default() };
        assert_eq!(
            daemon.line(),
            "daemon - age=61.000s cpu=2.500s guests_cpu=0.000s memory=0/0 live=1/0 instances=0 processors=0"
        );
    }

    #[test]
    fn a_share_is_of_one_run_and_of_the_time_between() {
        let mut web = record("web", &[]);
        web.state = State::Running;
        let at = |cpu_us, at_us, record: &Record| {
            InstanceStats::of(record, LiveStats { cpu_us, ..live() }, 9_000_000, at_us)
        };
        let before = at(Some(1_000_000), 5_000_000, &web);
        assert_eq!(at(Some(1_500_000), 6_000_000, &web).cpu_percent_since(&before), Some(50.0));
        assert_eq!(at(Some(3_000_000), 6_000_000, &web).cpu_percent_since(&before), Some(200.0));
        assert_eq!(at(Some(500_000), 6_000_000, &web).cpu_percent_since(&at(None, 5_000_000, &web)), Some(50.0));
        for never in [at(None, 6_000_000, &web), at(Some(1), 6_000_000, &web), at(Some(1_500_000), 5_000_000, &web)] {
            assert_eq!(never.cpu_percent_since(&before), None);
        }
        web.run = 2;
        assert_eq!(at(Some(1_500_000), 6_000_000, &web).cpu_percent_since(&before), None, "another run");
        let daemon =
            |at_us, cpu_us, guests_cpu_us| DaemonStats { at_us, cpu_us, guests_cpu_us, ..DaemonStats::default() };
        let (first, then) = (daemon(0, Some(10), 5), daemon(1000, Some(760), 505));
        assert_eq!((then.cpu_percent_since(&first), then.own_percent_since(&first)), (Some(75.0), Some(25.0)));
        assert_eq!(daemon(1000, None, 0).cpu_percent_since(&first), None);
    }
}
