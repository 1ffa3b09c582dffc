//! What is counted for Prometheus, and the text of it. Counters are atomics that are only added to, also by those who hold no
//! lock; what is as it is now is asked for when somebody reads. No name of an instance or a module is in here: how many series
//! there are does not depend on what clients do.

use crate::config::fixed;
use crate::daemon::process;
use crate::daemon::supervisor::Supervisor;
use crate::engine;
use crate::model::event::EventKind;
use crate::model::exposition::{Exposition, Kind};
use crate::model::instance::{ExitStatus, InstanceId};
use crate::model::request::Request;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How a run can end, as `list` calls it.
const ENDS: [ExitStatus; 7] = [
    ExitStatus::Exited(0),
    ExitStatus::Trapped,
    ExitStatus::Stopped,
    ExitStatus::Killed,
    ExitStatus::TimedOut,
    ExitStatus::Failed,
    ExitStatus::Lost,
];
/// States of an instance that has not ended.
const LIVE: [&str; 3] = ["created", "running", "restarting"];
/// Bounds for how long a run takes to enter guest code, in seconds.
const START_BOUNDS: [f64; 9] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.25, 1.0];
/// And for how long it goes on.
const RUN_BOUNDS: [f64; 9] = [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0];

/// Why somebody who came in was sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// There is no place (`--connections`).
    Connections,
    /// There is no place for those who have not shown who they are (`--unproved`).
    Unproved,
    /// It comes from another machine.
    NotLocal,
    /// It did not come to TLS.
    Tls,
}

/// Through which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TCP.
    Tcp,
    /// TCP, with TLS.
    Tls,
    /// The socket in the state directory.
    Unix,
}

/// How often something took how long.
#[derive(Debug)]
struct Histogram<const N: usize> {
    bounds: [f64; N],
    /// Each once, at the smallest bound that it is within; behind the last: above all of them.
    buckets: [AtomicU64; N],
    above: AtomicU64,
    nanoseconds: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [f64; N]) -> Histogram<N> {
        Histogram {
            bounds,
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
        }
    }

    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound);
        bucket.map_or(&self.above, |index| &self.buckets[index]).fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(nanoseconds(took), Relaxed);
    }

    fn write(&self, text: &mut Exposition, name: &str, help: &str) {
        let mut count = 0;
        let bounds: Vec<(f64, u64)> = std::iter::zip(self.bounds, &self.buckets)
            .map(|(bound, bucket)| {
                count += bucket.load(Relaxed);
                (bound, count)
            })
            .collect();
        count += self.above.load(Relaxed);
        let sum = seconds(self.nanoseconds.load(Relaxed));
        text.family(name, Kind::Histogram, help).histogram(&bounds, count, sum);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "after a hundred days of nanoseconds the last of them does not matter")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// What was counted since the daemon started.
#[derive(Debug)]
pub struct Metrics {
    started_at: f64,
    created: AtomicU64,
    started: AtomicU64,
    restarted: AtomicU64,
    ended: [AtomicU64; ENDS.len()],
    start_seconds: Histogram<{ START_BOUNDS.len() }>,
    run_seconds: Histogram<{ RUN_BOUNDS.len() }>,
    accepted: [AtomicU64; 3],
    turned: [AtomicU64; 4],
    unproved: AtomicU64,
    requests: [AtomicU64; Request::VERBS.len()],
    bad_requests: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Metrics {
            started_at: crate::daemon::clock::now().seconds(),
            created: AtomicU64::new(0),
            started: AtomicU64::new(0),
            restarted: AtomicU64::new(0),
            ended: std::array::from_fn(|_| AtomicU64::new(0)),
            start_seconds: Histogram::new(START_BOUNDS),
            run_seconds: Histogram::new(RUN_BOUNDS),
            accepted: std::array::from_fn(|_| AtomicU64::new(0)),
            turned: std::array::from_fn(|_| AtomicU64::new(0)),
            unproved: AtomicU64::new(0),
            requests: zeros(),
            bad_requests: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Somebody came in.
    pub fn accepted(&self, way: Way) {
        self.accepted[way as usize].fetch_add(1, Relaxed);
    }

    /// Somebody was sent away.
    pub fn turned(&self, why: Turned) {
        self.turned[why as usize].fetch_add(1, Relaxed);
    }

    /// A request was refused because of who asked.
    pub fn not_for_you(&self) {
        self.unproved.fetch_add(1, Relaxed);
    }

    /// A request was read.
    pub fn request(&self, request: &Request) {
        let verb = request.verb();
        if let Some(index) = Request::VERBS.iter().position(|known| *known == verb) {
            self.requests[index].fetch_add(1, Relaxed);
        }
    }

    /// What was read was no request.
    pub fn bad_request(&self) {
        self.bad_requests.fetch_add(1, Relaxed);
    }

    /// The registry was changed.
    pub(super) fn event(&self, kind: &EventKind) {
        let ended = |status: ExitStatus| {
            if let Some(index) = ENDS.iter().position(|end| end.word() == status.word()) {
                self.ended[index].fetch_add(1, Relaxed);
            }
        };
        match kind {
            EventKind::Created(_) => drop(self.created.fetch_add(1, Relaxed)),
            EventKind::Started => drop(self.started.fetch_add(1, Relaxed)),
            EventKind::Ended(end) => ended(end.status),
            EventKind::Restarting { ended: end, .. } => {
                ended(end.status);
                self.restarted.fetch_add(1, Relaxed);
            }
            EventKind::StopRequested | EventKind::RestartCancelled | EventKind::Resumed | EventKind::Removed => {}
        }
    }

    /// Guest code was entered so long after the run was accepted.
    pub(super) fn entered(&self, after: Duration) {
        self.start_seconds.observe(after);
    }

    /// A run was over after so long.
    pub(super) fn ran(&self, for_so_long: Duration) {
        self.run_seconds.observe(for_so_long);
    }

    fn write_runs(&self, text: &mut Exposition) {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        text.one("coracle_runs_created_total", Kind::Counter, "Runs that were accepted", count(&self.created));
        text.one("coracle_runs_started_total", Kind::Counter, "Runs that entered guest code", count(&self.started));
        let mut ended = text.family("coracle_runs_ended_total", Kind::Counter, "Runs that are over, by how they ended");
        for (end, counter) in std::iter::zip(ENDS, &self.ended) {
            ended.sample(&[("result", end.word())], count(counter));
        }
        let what = "Ends of runs that another one follows, by a restart policy or a restart";
        text.one("coracle_restarts_total", Kind::Counter, what, count(&self.restarted));
        let what = "Time from a run being accepted, with its module ready, to guest code";
        self.start_seconds.write(text, "coracle_run_start_seconds", what);
        self.run_seconds.write(text, "coracle_run_duration_seconds", "Time from a run being accepted to its end");
    }

    fn write_clients(&self, text: &mut Exposition) {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let what = "Connections that came in, by the door that they came through";
        let mut accepted = text.family("coracle_connections_accepted_total", Kind::Counter, what);
        for (way, name) in [(Way::Tcp, "tcp"), (Way::Tls, "tls"), (Way::Unix, "unix")] {
            accepted.sample(&[("door", name)], count(&self.accepted[way as usize]));
        }
        let what = "Connections that were closed before a request, by why";
        let mut turned = text.family("coracle_connections_refused_total", Kind::Counter, what);
        let reasons = [
            (Turned::Connections, "connections"),
            (Turned::Unproved, "unproved"),
            (Turned::NotLocal, "not-local"),
            (Turned::Tls, "tls"),
        ];
        for (why, name) in reasons {
            turned.sample(&[("reason", name)], count(&self.turned[why as usize]));
        }
        let mut requests = text.family("coracle_requests_total", Kind::Counter, "Requests, by verb");
        for (verb, counter) in std::iter::zip(Request::VERBS, &self.requests) {
            requests.sample(&[("verb", verb)], count(counter));
        }
        let what = "Lines that were read and are no request";
        text.one("coracle_bad_requests_total", Kind::Counter, what, count(&self.bad_requests));
        let what = "Requests that were refused because of who asked";
        text.one("coracle_unproved_requests_total", Kind::Counter, what, count(&self.unproved));
    }
}

impl Supervisor {
    /// Where what happens is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// All numbers as Prometheus reads them. Looks at files, so it is not for threads that answer.
    pub fn metrics_text(&self) -> String {
        let mut text = Exposition::default();
        text.family("coracle_build_info", Kind::Gauge, "Always 1; the program's version and its engine")
            .sample(&[("version", env!("CARGO_PKG_VERSION")), ("engine", engine::VERSION)], 1);
        let mut instances = text.family("coracle_instances", Kind::Gauge, "Instances that are known, by state");
        let states = self.states();
        for state in LIVE.into_iter().chain(ENDS.iter().map(|end| end.word())) {
            instances.sample(&[("state", state)], states.get(state).copied().unwrap_or(0));
        }
        self.metrics().write_runs(&mut text);
        self.write_guests(&mut text);
        self.metrics().write_clients(&mut text);
        let limit = self.limits().connections_max;
        let open = limit.saturating_sub(self.connections().available_permits());
        text.one("coracle_connections_open", Kind::Gauge, "Connections that are open", open);
        text.one("coracle_connections_limit", Kind::Gauge, "Connections that may be open (--connections)", limit);
        self.0.store.write_metrics(&mut text);
        self.0.modules.write_metrics(&mut text);
        self.write_room(&mut text);
        process(&mut text, self.metrics().started_at);
        text.finish()
    }

    /// How many are in each state; looked at in pages, so that nobody waits long for the lock.
    fn states(&self) -> BTreeMap<&'static str, u64> {
        let mut states = BTreeMap::new();
        let (mut from, to) = (InstanceId(0), self.lock().registry.id_next());
        while from < to {
            let state = self.lock();
            let mut records = state.registry.records_between(from, to);
            for record in records.by_ref().take(fixed::LIST_PAGE) {
                *states.entry(record.state.word()).or_default() += 1;
            }
            from = records.next().map_or(to, |record| record.id);
        }
        states
    }

    fn write_guests(&self, text: &mut Exposition) {
        let used = self.0.scheduler.used().as_secs_f64();
        text.one(
            "coracle_guest_cpu_seconds_total",
            Kind::Counter,
            "CPU time of all guests, with those that ended",
            used,
        );
        let what = "Memories and tables of all guests";
        text.one("coracle_guest_memory_bytes", Kind::Gauge, what, self.memory_bytes_used());
        let what = "What they may come to (--memory-total)";
        text.one("coracle_guest_memory_limit_bytes", Kind::Gauge, what, self.limits().memory_bytes_total());
        text.one(
            "coracle_instances_limit",
            Kind::Gauge,
            "Live instances at a time (--instances)",
            self.limits().instances_max,
        );
        let (printed, dropped) = self.0.logs.counted();
        text.one("coracle_output_bytes_total", Kind::Counter, "Bytes that guests printed", printed);
        let what = "Bytes that guests printed and no log has, because they came too fast or could not be written";
        text.one("coracle_output_dropped_bytes_total", Kind::Counter, what, dropped);
    }

    fn write_room(&self, text: &mut Exposition) {
        let ((files, files_max), (mappings, mappings_max)) = {
            let state = self.lock();
            (state.budget.files(), state.budget.mappings())
        };
        let what = "Open files that are promised to the guests that live";
        text.one("coracle_descriptors_promised", Kind::Gauge, what, files);
        let what = "Open files that can be promised (--open-files)";
        text.one("coracle_descriptors_limit", Kind::Gauge, what, files_max);
        let what = "Entries of the memory map that are promised to the guests that live";
        text.one("coracle_mappings_promised", Kind::Gauge, what, mappings);
        let what = "Entries of the memory map that can be promised (--mappings)";
        text.one("coracle_mappings_limit", Kind::Gauge, what, mappings_max);
        let what = "Room that guests leave free where their directories are (--disk-free)";
        text.one("coracle_directories_reserved_bytes", Kind::Gauge, what, self.limits().disk_free_bytes);
        if let Some(free) = self.0.floor.free_bytes() {
            let what = "Room that is left on the file system of the directories of instances";
            text.one("coracle_directories_free_bytes", Kind::Gauge, what, free);
        }
    }
}

/// The daemon as a process, under the names that all programs have for it. What a system does not tell is left out.
fn process(text: &mut Exposition, started_at: f64) {
    let what = "When the daemon started, in seconds since 1970";
    text.one("process_start_time_seconds", Kind::Gauge, what, started_at);
    if let Some(cpu) = process::cpu() {
        let what = "CPU time of the daemon, with its guests and without its compilers";
        text.one("process_cpu_seconds_total", Kind::Counter, what, cpu.as_secs_f64());
    }
    #[cfg(unix)]
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        text.one("process_max_fds", Kind::Gauge, "Files that the daemon may have open", limit);
    }
    let process::Status { resident_bytes, virtual_bytes, threads } = process::status();
    if let Some(resident) = resident_bytes {
        text.one("process_resident_memory_bytes", Kind::Gauge, "Memory of the daemon that is resident", resident);
    }
    if let Some(addresses) = virtual_bytes {
        let what = "Addresses of the daemon, most of them reserved for guests and never used";
        text.one("process_virtual_memory_bytes", Kind::Gauge, what, addresses);
    }
    if let Some(threads) = threads {
        text.one("process_threads", Kind::Gauge, "Threads of the daemon", threads);
    }
    #[cfg(target_os = "linux")]
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the listing itself.
        let open = files.count().saturating_sub(1);
        text.one("process_open_fds", Kind::Gauge, "Files that the daemon has open", open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_counts_what_is_within_its_bound() {
        let histogram = Histogram::new([0.001, 1.0]);
        for milliseconds in [1, 2, 1000, 1001] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let mut text = Exposition::default();
        histogram.write(&mut text, "x_seconds", "X");
        let text = text.finish();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let wanted = [
            "x_seconds_bucket{le=\"0.001\"} 1",
            "x_seconds_bucket{le=\"1\"} 3",
            "x_seconds_bucket{le=\"+Inf\"} 4",
            "x_seconds_sum 2.004",
            "x_seconds_count 4",
        ];
        assert_eq!(samples, wanted);
    }

    #[test]
    fn every_end_of_a_run_is_counted_in_its_place() {
        let metrics = Metrics::default();
        for (index, end) in ENDS.into_iter().enumerate() {
            for _ in 0..=index {
                metrics.event(&EventKind::Ended(crate::model::instance::Ended::new(end, "x", None)));
            }
        }
        let counted: Vec<u64> = metrics.ended.iter().map(|counter| counter.load(Relaxed)).collect();
        assert_eq!(counted, [1, 2, 3, 4, 5, 6, 7]);
        metrics.event(&EventKind::Ended(crate::model::instance::Ended::new(ExitStatus::Exited(9), "exit", None)));
        assert_eq!(metrics.ended[0].load(Relaxed), 2, "whatever its code");
    }
}
