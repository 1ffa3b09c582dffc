//! What a run uses at the moment, for whoever wants to see it: numbers that are written by the run and read by anybody, without a
//! lock. They decide nothing.

use super::Usage;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The gauges of one instance, over its runs. Each number is right by itself; two of them may be of two moments.
#[derive(Debug)]
pub struct Gauges {
    memory: AtomicU64,
    memory_peak: AtomicU64,
    disk_bytes: AtomicU64,
    files: AtomicU64,
}

/// What is not counted.
const UNKNOWN: u64 = u64::MAX;

impl Default for Gauges {
    fn default() -> Gauges {
        Gauges {
            memory: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
            disk_bytes: AtomicU64::new(UNKNOWN),
            files: AtomicU64::new(UNKNOWN),
        }
    }
}

impl Gauges {
    /// Bytes of all memories and tables of the present run; 0 between two runs.
    pub fn memory(&self) -> u64 {
        self.memory.load(Relaxed)
    }

    /// The most of it in the present run, or in the last one.
    pub fn memory_peak(&self) -> u64 {
        self.memory_peak.load(Relaxed)
    }

    /// What is in its directory. `None`: its program has no use for files, or it was not looked yet.
    pub fn disk(&self) -> Option<Usage> {
        let usage = Usage { bytes: self.disk_bytes.load(Relaxed), files: self.files.load(Relaxed) };
        (usage.bytes != UNKNOWN && usage.files != UNKNOWN).then_some(usage)
    }

    /// A run begins, with nothing.
    pub(super) fn begin(&self) {
        self.memory.store(0, Relaxed);
        self.memory_peak.store(0, Relaxed);
        self.disk_bytes.store(UNKNOWN, Relaxed);
        self.files.store(UNKNOWN, Relaxed);
    }

    pub(super) fn set_memory(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.memory.store(bytes, Relaxed);
        // One store at a time writes here: that of the present run.
        if bytes > self.memory_peak.load(Relaxed) {
            self.memory_peak.store(bytes, Relaxed);
        }
    }

    pub(super) fn set_disk(&self, used: Usage) {
        self.disk_bytes.store(used.bytes, Relaxed);
        self.files.store(used.files, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_stays_until_the_next_run() {
        let gauges = Gauges::default();
        gauges.set_memory(100);
        gauges.set_memory(300);
        gauges.set_memory(0);
        assert_eq!((gauges.memory(), gauges.memory_peak(), gauges.disk()), (0, 300, None));
        gauges.set_disk(Usage { bytes: 5, files: 1 });
        assert_eq!(gauges.disk(), Some(Usage { bytes: 5, files: 1 }));
        gauges.begin();
        assert_eq!((gauges.memory(), gauges.memory_peak(), gauges.disk()), (0, 0, None));
    }
}
