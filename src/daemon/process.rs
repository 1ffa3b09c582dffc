//! The daemon as a process, as the system tells of it.

use std::time::Duration;

/// CPU time of all threads of this process, also of those that have ended. `None`: the system does not say.
pub(super) fn cpu() -> Option<Duration> {
    #[cfg(unix)]
    {
        // clock_gettime(2), CLOCK_PROCESS_CPUTIME_ID.
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
    }
    #[cfg(not(unix))]
    {
        cpu_time::ProcessTime::try_now().ok().map(|time| time.as_duration())
    }
}

/// What proc_pid_status(5) says; nothing where there is none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Status {
    /// Memory that is resident.
    pub(super) resident_bytes: Option<u64>,
    /// Addresses, most of them reserved for guests and never used.
    pub(super) virtual_bytes: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
}

/// Of this process. The kernel makes it from its counters; no disk is asked.
pub(super) fn status() -> Status {
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.split_whitespace().next()?.parse::<u64>().ok()
        };
        let bytes = |name: &str| field(name).map(|kibibytes| kibibytes.saturating_mul(1024));
        Status { resident_bytes: bytes("VmRSS"), virtual_bytes: bytes("VmSize"), threads: field("Threads") }
    }
    #[cfg(not(target_os = "linux"))]
    {
        Status::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_this_process() {
        let before = cpu().unwrap();
        let mut n = 0_u64;
        while cpu().unwrap() <= before {
            n = std::hint::black_box(n + 1);
        }
        #[cfg(target_os = "linux")]
        {
            let rss = status().resident_bytes.unwrap();
            assert!(rss > 1 << 20 && rss < 1 << 40, "{rss}");
        }
    }
}
