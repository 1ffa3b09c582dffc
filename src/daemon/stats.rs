//! What instances and the daemon use now. Everything is read from what others publish as they go: no guest is asked, and nothing
//! of a guest's is waited for.

use crate::config::fixed;
use crate::daemon::clock;
use crate::daemon::live::Live;
use crate::daemon::process;
use crate::daemon::supervisor::Supervisor;
use crate::error::Result;
use crate::model::instance::{InstanceId, Record, State as RunState};
use crate::model::name::Name;
use crate::model::stats::{DaemonStats, InstanceStats, LiveStats};
use std::sync::Arc;
use std::time::Duration;

/// A sample that is taken in pages of a bounded size, as a list is: a page is of one moment, and each number of it has its time.
pub struct Samples {
    supervisor: Supervisor,
    of: Of,
}

enum Of {
    /// What is alive, or all, in order of creation, from here and before the second.
    Range { from: InstanceId, to: InstanceId, ended: bool },
    /// These, in reverse.
    Named(Vec<InstanceId>),
}

impl Samples {
    /// The next page, which may be empty. `None`: that was all.
    pub fn take(&mut self) -> Option<Vec<InstanceStats>> {
        let mut page: Vec<(Record, Option<Arc<Live>>)> = Vec::new();
        {
            let state = self.supervisor.lock();
            let mut push = |record: &Record| page.push((record.clone(), state.live.get(&record.id).cloned()));
            match &mut self.of {
                Of::Range { from, to, .. } if *from >= *to => return None,
                Of::Range { from, to, ended } => {
                    let mut left = fixed::LIST_PAGE;
                    let mut records = state.registry.records_between(*from, *to);
                    *from = loop {
                        let Some(record) = records.next() else { break *to };
                        if left == 0 {
                            break record.id;
                        }
                        left -= 1;
                        if *ended || record.state.is_live() {
                            push(record);
                        }
                    };
                }
                Of::Named(ids) if ids.is_empty() => return None,
                Of::Named(ids) => {
                    let rest = ids.len().saturating_sub(fixed::LIST_PAGE);
                    // What was removed meanwhile is left out.
                    ids.split_off(rest).into_iter().rev().filter_map(|id| state.registry.by_id(id)).for_each(&mut push);
                }
            }
        }
        // Put into words outside of the lock.
        let (now, at_us) = (clock::now().0, self.supervisor.age_us());
        let stats = |(record, live): (Record, Option<Arc<Live>>)| {
            let live = live.map_or(LiveStats::default(), |live| live.stats(&record));
            InstanceStats::of(&record, live, now, at_us)
        };
        Some(page.into_iter().map(stats).collect())
    }
}

impl Live {
    /// What it uses. What is of the last run is not told of the next one, nor of the pause between them.
    fn stats(&self, record: &Record) -> LiveStats {
        let running = record.state == RunState::Running;
        let alive = record.state.is_live();
        let disk = self.gauges.disk().filter(|_| running);
        LiveStats {
            cpu_us: running.then(|| micros(self.account.used())),
            memory_bytes: alive.then(|| self.gauges.memory()),
            memory_peak_bytes: alive.then(|| self.gauges.memory_peak()),
            disk_bytes: disk.map(|used| used.bytes),
            files: disk.map(|used| used.files),
            log_bytes: if alive { self.log.bytes() } else { None },
            output_bytes: alive.then(|| self.log.output()),
        }
    }
}

impl Supervisor {
    /// What instances use: those that are alive, with `ended` all of them, or these, alive or not.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NotFound`], [`crate::Error::BadName`].
    pub fn samples(&self, names: &[String], ended: bool) -> Result<Samples> {
        let of = if names.is_empty() {
            Of::Range { from: InstanceId(0), to: self.lock().registry.id_next(), ended }
        } else {
            let names: Vec<Name> = names.iter().map(|name| self.name(name)).collect::<Result<_>>()?;
            let mut ids = Vec::with_capacity(names.len());
            for page in names.chunks(fixed::LIST_PAGE) {
                let state = self.lock();
                for name in page {
                    ids.push(state.registry.get(name)?.id);
                }
            }
            ids.reverse();
            Of::Named(ids)
        };
        Ok(Samples { supervisor: self.clone(), of })
    }

    /// What the daemon uses.
    pub fn daemon_stats(&self) -> DaemonStats {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let (live, instances) = {
            let state = self.lock();
            (state.registry.live(), state.registry.len())
        };
        DaemonStats {
            at_us: self.age_us(),
            cpu_us: process::cpu().map(micros),
            guests_cpu_us: micros(self.0.scheduler.used()),
            rss_bytes: process::status().resident_bytes,
            memory_bytes: wide(self.memory_bytes_used()),
            memory_bytes_max: wide(self.limits().memory_bytes_total()),
            live: wide(live),
            live_max: wide(self.limits().instances_max),
            instances: wide(instances),
            processors: wide(std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    /// The daemon's own time.
    fn age_us(&self) -> u64 {
        micros(self.0.begun.elapsed())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
