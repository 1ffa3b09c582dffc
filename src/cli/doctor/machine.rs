//! The limits of this machine and of this process, which a daemon that is started from here has too.

use super::Finding;
use crate::config::Config;
use crate::daemon::checkup::{self, Room};
use bytesize::ByteSize;
use std::path::Path;

/// Instances that open what they may, below which there is a warning.
const INSTANCES_FEW: usize = 16;
/// Room on a disk below which there is a warning, and nothing works.
const DISK_FEW: u64 = 256 << 20;
const DISK_NONE: u64 = 16 << 20;
/// Memory below which there is a warning: what one instance may have.
const MEMORY_FEW: u64 = 256 << 20;

pub(super) fn look(state_dir: Option<&Path>, root: &Path, findings: &mut Vec<Finding>) {
    let limits = Config::new(([127, 0, 0, 1], 0).into(), "state".into(), "root".into()).limits;
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        let limit = getrlimit(Resource::Nofile);
        // A daemon raises the soft one.
        let hard = limit.maximum.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let room = checkup::room(&limits, hard);
        findings.push(open_files(hard, room));
        if cfg!(target_os = "linux") {
            findings.push(mappings(room.mapped));
        }
        findings.push(addresses(getrlimit(Resource::As).current));
    }
    if let Some(available) = memory_available() {
        findings.push(memory(available));
    }
    findings.extend(state_dir.and_then(|directory| disk("state disk", directory)));
    findings.extend(disk("root disk", root));
}

fn open_files(hard: usize, room: Room) -> Finding {
    const CHECK: &str = "open files";
    let todo = format!("raise it: ulimit -Hn {}", room.files_kept + 100 * 260);
    match room.opening {
        0 => Finding::fail(CHECK, format!("{hard} are allowed, which is too few for one instance"), todo),
        few @ 1..INSTANCES_FEW => {
            Finding::warn(CHECK, format!("{hard} are allowed: {few} instances that open files fit at a time"), todo)
        }
        many if hard == usize::MAX => Finding::ok(CHECK, format!("no limit ({many} instances)")),
        many => Finding::ok(CHECK, format!("{hard} are allowed: {many} instances that open files fit at a time")),
    }
}

fn mappings(mapped: usize) -> Finding {
    const CHECK: &str = "mappings";
    let todo = "raise it: sysctl vm.max_map_count=262144";
    match mapped {
        0 => Finding::fail(CHECK, "vm.max_map_count is too small for one instance", todo),
        few @ 1..100 => {
            Finding::warn(CHECK, format!("vm.max_map_count: {few} instances fit at a time, without --dense"), todo)
        }
        many => Finding::ok(CHECK, format!("vm.max_map_count: {many} instances fit at a time, without --dense")),
    }
}

/// Each memory reserves what a 32-bit address can reach, whatever it uses of it.
fn addresses(limit: Option<u64>) -> Finding {
    const CHECK: &str = "addresses";
    const EACH: u64 = 5 << 30;
    let todo = "lift it: ulimit -v unlimited";
    match limit {
        None => Finding::ok(CHECK, "no limit (ulimit -v)"),
        Some(bytes) if bytes < 2 * EACH => Finding::fail(
            CHECK,
            format!("{} are allowed (ulimit -v), and each memory reserves 4 GiB", ByteSize(bytes)),
            todo,
        ),
        Some(bytes) => {
            let fit = bytes / EACH;
            Finding::warn(CHECK, format!("{} are allowed (ulimit -v): about {fit} memories fit", ByteSize(bytes)), todo)
        }
    }
}

/// What programs can have without others being swapped out; none where the system does not say.
fn memory_available() -> Option<u64> {
    // proc_meminfo(5)
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

fn memory(available: u64) -> Finding {
    const CHECK: &str = "memory";
    let what = format!("{} are available", ByteSize(available));
    match available < MEMORY_FEW {
        true => Finding::warn(CHECK, what, "end something, or give instances less: coracle daemon --memory SIZE"),
        false => Finding::ok(CHECK, what),
    }
}

/// Room on the file system that a directory is on, or will be.
#[cfg(unix)]
fn disk(check: &'static str, directory: &Path) -> Option<Finding> {
    let there = directory.ancestors().find(|path| path.is_dir())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    // Some file systems do not count files: they say that there is none at all.
    let files = (stat.f_files > 0).then_some(stat.f_favail);
    Some(room(check, directory, free, files))
}

#[cfg(not(unix))]
fn disk(_: &'static str, _: &Path) -> Option<Finding> {
    None
}

#[cfg(unix)]
fn room(check: &'static str, directory: &Path, free: u64, files: Option<u64>) -> Finding {
    let what = format!("{} are free for {}", ByteSize(free), directory.display());
    let todo = "make room: `coracle prune -v` removes what has ended, with its files";
    match (free, files) {
        (_, Some(0)) => Finding::fail(check, format!("no file can be made any more for {}", directory.display()), todo),
        (0..DISK_NONE, _) => Finding::fail(check, what, todo),
        (DISK_NONE..DISK_FEW, _) => Finding::warn(check, what, todo),
        _ => Finding::ok(check, what),
    }
}

/// What there is of the kernel's fence: as the daemon tells it, or else what this kernel has.
pub(super) fn fence(told: Option<&str>) -> Finding {
    const CHECK: &str = "fence";
    match told {
        Some(told) if told.starts_with("landlock: ") => Finding::ok(CHECK, told),
        Some(told) => Finding::warn(CHECK, told, "use Linux 6.12 or later, with landlock on, and no --fence off"),
        None => match std::fs::read_to_string("/sys/kernel/security/lsm") {
            Ok(list) if list.contains("landlock") => Finding::ok(CHECK, "this kernel has landlock"),
            Ok(_) => Finding::warn(CHECK, "this kernel has landlock off", "boot with lsm=landlock,…"),
            Err(_) => Finding::ok(CHECK, "a daemon tells what there is of it, once it runs"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn each_limit_of_the_machine_has_its_grades() {
        let limits = Config::new(([127, 0, 0, 1], 0).into(), "state".into(), "root".into()).limits;
        let files = |hard| open_files(hard, checkup::room(&limits, hard)).level;
        assert_eq!(
            [files(1024), files(6000), files(1 << 20), files(usize::MAX)],
            [Level::Fail, Level::Warn, Level::Ok, Level::Ok]
        );
        assert_eq!([0, 1, 99, 100].map(|n| mappings(n).level), [Level::Fail, Level::Warn, Level::Warn, Level::Ok]);
        let of = |limit| addresses(limit).level;
        assert_eq!([of(None), of(Some(1 << 40)), of(Some(8 << 30))], [Level::Ok, Level::Warn, Level::Fail]);
        assert_eq!([memory(100 << 20).level, memory(1 << 30).level], [Level::Warn, Level::Ok]);
        #[cfg(unix)]
        {
            let disk = |free, files| room("disk", Path::new("/x"), free, files).level;
            assert_eq!(
                [disk(1 << 20, None), disk(100 << 20, None), disk(1 << 30, Some(9))],
                [Level::Fail, Level::Warn, Level::Ok]
            );
            assert_eq!(disk(1 << 40, Some(0)), Level::Fail);
        }
    }

    #[test]
    fn a_fence_that_is_not_whole_is_told() {
        let of = |told: &str| fence(Some(told)).level;
        assert_eq!(of("landlock: paths, execution, TCP, signals"), Level::Ok);
        assert_eq!(of("landlock, as far as this kernel has it: paths"), Level::Warn);
        assert_eq!(of("none: --fence off"), Level::Warn);
    }
}
