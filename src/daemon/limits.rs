//! Every limit with its value and what is used of it: what `limits` shows.

use crate::config::{self, Limits};
use crate::daemon::supervisor::Supervisor;
use crate::model::limit::{LimitView, LimitViews, Unit};
use std::time::Duration;

/// A value in its unit, and what all instances, clients or modules together use of it now.
type Row = (Unit, Option<u64>, Option<u64>);

fn bytes(n: usize) -> Row {
    (Unit::Bytes, Some(wide(n)), None)
}

fn count(n: usize) -> Row {
    (Unit::Count, Some(wide(n)), None)
}

fn time(time: impl Into<Option<Duration>>) -> Row {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    (Unit::Milliseconds, time.into().map(milliseconds), None)
}

fn of(used: usize, (unit, value, _): Row) -> Row {
    (unit, value, Some(wide(used)))
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Supervisor {
    /// Every limit that has a flag, in the order of `coracle daemon --help`. Use is told where it is of all together; what one
    /// instance uses is its own.
    pub fn limit_views(&self) -> LimitViews {
        let rows = config::limits().into_iter().map(|limit| {
            let (unit, value, used) = self.limit(&limit.flag, self.limits());
            // The help text has the default once more, where it is the machine's.
            let what = limit.what.split(" [default").next().unwrap_or_default().to_owned();
            LimitView { flag: limit.flag, default: limit.default, unit, value, used, what }
        });
        LimitViews { limits: rows.collect(), fence: self.0.fence.clone() }
    }

    fn limit(&self, flag: &str, limits: &Limits) -> Row {
        match flag {
            "--memory" => bytes(limits.memory_bytes_max),
            "--memory-max" => bytes(limits.memory_bytes_ceiling),
            "--memory-total" => of(self.memory_bytes_used(), bytes(limits.memory_bytes_total())),
            "--cpus" => (Unit::MilliCpus, limits.cpus_milli.0.map(u64::from), None),
            "--cpu-weight" => (Unit::Count, Some(limits.cpu_weight.into()), None),
            "--cpu-time" => time(limits.cpu_time.0),
            "--timeout" => time(limits.timeout.0),
            "--disk" => bytes(limits.disk_bytes_max),
            "--files" => count(limits.files_max),
            "--disk-max" => bytes(limits.disk_bytes_ceiling),
            "--files-max" => count(limits.files_ceiling),
            "--disk-free" => bytes(limits.disk_free_bytes),
            "--table-entries" => count(limits.table_entries_max),
            "--instances" => of(self.live(), count(limits.instances_max)),
            "--keep" => of(self.len() - self.live(), count(limits.ended_max)),
            "--keep-for" => time(limits.ended_for),
            "--keep-runs" => count(limits.runs_max),
            "--keep-events" => count(limits.events_max),
            "--log" => bytes(limits.log_bytes_max),
            "--log-rate" => bytes(limits.log_bytes_per_second),
            "--connections" => {
                let free = self.connections().available_permits();
                of(limits.connections_max - free, count(limits.connections_max))
            }
            "--unproved" => count(limits.unproved_max),
            "--prove" => time(limits.prove),
            "--first-request" => time(limits.first_request),
            "--stall" => time(limits.stall),
            "--module-size" => bytes(limits.module_bytes_max),
            "--uploads" => {
                (Unit::Bytes, Some(wide(limits.uploads_bytes_max)), Some(self.0.modules.bytes_on_their_way()))
            }
            "--stored-modules" => of(self.0.modules.stored(), count(limits.stored_modules_max)),
            "--module-cache" => of(self.0.modules.compiled_in_memory(), count(limits.module_cache_max)),
            "--compiled-cache" => {
                (Unit::Bytes, Some(wide(limits.compiled_bytes_max)), Some(self.0.modules.compilers().bytes_kept()))
            }
            "--compile-memory" => bytes(limits.compile_bytes_max),
            "--compile-cpu" => time(limits.compile_cpu),
            "--compile-time" => time(limits.compile_time),
            "--compile-queue" => of(self.0.modules.compilers().waiting(), count(limits.compile_queue_max)),
            "--handles" => count(limits.handles_max),
            "--open-files" => {
                let (used, max) = self.lock().budget.files();
                of(used, count(max))
            }
            "--mappings" => {
                let (used, max) = self.lock().budget.mappings();
                of(used, count(max))
            }
            "--random-size" => bytes(limits.random_bytes_max),
            "--hostcall-memory" => bytes(limits.hostcall_bytes_max),
            _ => unreachable!("a test goes through all of them"),
        }
    }
}
