//! What all instances share besides memory and cannot be given back by asking: open files, and mappings of addresses.
//!
//! Each run is charged with the most that it could ever take, before it begins. So no guest can take what the daemon needs
//! to answer, or what another guest was promised; and a module that cannot open files is not charged for them.

use crate::config::Limits;
use crate::daemon::compile;
use crate::engine::{Code, Entries, Needs, Program, Reach};
use crate::error::{Error, Result};
use crate::model::instance::InstanceId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Descriptors of code that instances run: wasmtime keeps the file of mapped code open, for each of its engines.
pub(super) const DESCRIPTORS_CODE: usize = 2;
/// And of its directory, lent and opened.
const DESCRIPTORS_DIRECTORY: usize = 2;
/// Descriptors that it takes to count what is in the directory of an instance. That is before its guest has opened anything.
const DESCRIPTORS_COUNT: usize = 2;
/// Descriptors of a connection: its socket, and what a request holds at most. A `put` has the file that it receives into, and
/// in the end the directory that it goes to; `logs` two files; a `run` the module or its code, and the directory, until it is
/// charged for them; `rm -v` the directory and its parent.
const DESCRIPTORS_CONNECTION: usize = 3;
/// Descriptors of a compilation: the module and the code twice each, and while its process starts a pipe for what it says, a
/// pipe of the standard library's that tells whether it has started, and a handle on it.
const DESCRIPTORS_COMPILER: usize = 9;
/// Descriptors that the removal of a tree takes; one goes on at a time.
const DESCRIPTORS_REMOVAL: usize = 4;
/// Descriptors for all the rest: standard streams, listener, 64 connections that are told that they are too many, those who read
/// metrics and what that looks at, database (9) and lock, the log that is being written, what the threads' runtimes wait with,
/// and what the tasks of restart policies open before a run is charged for it.
const DESCRIPTORS_REST: usize = 256;
/// Entries of the memory map that are kept back: code, heaps, stacks of threads.
pub(super) const MAPS_KEPT: usize = 8_192;
/// Memories that fit the 47 bits of addresses of a process with 4 GiB for each, and a fifth of the room left over.
const MEMORIES_OF_ADDRESSES: usize = 26_000;
/// `vm.max_map_count` where it cannot be read.
const MAPS_GUESS: usize = 65_530;

/// What is promised to the instances that live.
#[derive(Debug)]
pub(super) struct Budget {
    handles_max: usize,
    entries: Entries,
    files: Account,
    mappings: Account,
    /// What the present run of each instance was promised.
    held: HashMap<InstanceId, Promise>,
    /// How many of those run each code, which all of them have together.
    codes: HashMap<Code, usize>,
}

#[derive(Debug)]
struct Account {
    promised: usize,
    max: usize,
}

#[derive(Debug)]
struct Promise {
    files: usize,
    mappings: usize,
    code: Code,
}

impl Budget {
    /// The budget of a daemon with these limits on this machine. `entries`: of the process's map, for each instance.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if not even one instance fits.
    pub(super) fn new(limits: &Limits, entries: Entries) -> Result<Budget> {
        let kept = || descriptors_kept(limits, compile::processes_max());
        let files = limits.open_files_max.unwrap_or_else(|| descriptors().saturating_sub(kept()));
        // As if all were memories, however many stacks there are. What takes no entries reserves no addresses either.
        let of_addresses = match entries.memory {
            0 => usize::MAX,
            each => MEMORIES_OF_ADDRESSES * each,
        };
        let mappings = limits.mappings_max.unwrap_or_else(|| maps().saturating_sub(MAPS_KEPT).min(of_addresses));
        let one = most_files(limits.handles_max).saturating_add(DESCRIPTORS_CODE);
        if files < one {
            return Err(Error::Denied(format!(
                "the system allows too few open files for one instance: {files} are left of them, and it may need {one}; raise \
                 the limit (ulimit -n), or lower --handles or --connections"
            )));
        }
        let account = |max| Account { promised: 0, max };
        Ok(Budget {
            handles_max: limits.handles_max,
            entries,
            files: account(files),
            mappings: account(mappings),
            held: HashMap::new(),
            codes: HashMap::new(),
        })
    }

    /// Promises the next run of an instance what it may need; given back with [`Budget::release`].
    ///
    /// # Errors
    ///
    /// [`Error::Limit`]; nothing is promised then.
    pub(super) fn promise(&mut self, id: InstanceId, program: &Program, mounts: usize) -> Result<()> {
        self.promise_for(id, program.code(), program.needs(), mounts)
    }

    fn promise_for(&mut self, id: InstanceId, code: &Code, needs: Needs, mounts: usize) -> Result<()> {
        // Each directory of the host is lent and opened, as its own is.
        let files = 2 * mounts
            + match needs.reach {
                Reach::Nothing => 0,
                Reach::Directory => DESCRIPTORS_DIRECTORY,
                Reach::Files => most_files(self.handles_max),
            };
        let of_code = if self.codes.contains_key(code) { 0 } else { DESCRIPTORS_CODE };
        let maps_of_code = if self.codes.contains_key(code) { 0 } else { self.entries.code };
        let mappings = needs.memories.saturating_mul(self.entries.memory).saturating_add(self.entries.stack);
        self.files.take(files.saturating_add(of_code)).map_err(|max| Error::Limit {
            what: "the number of files that all instances may open",
            limit: max.to_string(),
            name: "--open-files, --handles, ulimit -n",
        })?;
        self.mappings.take(mappings.saturating_add(maps_of_code)).map_err(|max| {
            self.files.promised -= files + of_code;
            Error::Limit {
                what: match self.entries {
                    Entries::ORDINARY => {
                        "the number of mappings (three for a memory, two for a stack) of all instances"
                    }
                    _ => "the number of mappings (four for code, two for a stack of an older kernel) of all instances",
                },
                limit: max.to_string(),
                name: "--mappings, vm.max_map_count",
            }
        })?;
        *self.codes.entry(code.clone()).or_default() += 1;
        let before = self.held.insert(id, Promise { files, mappings, code: code.clone() });
        assert!(before.is_none(), "an instance has one run at a time");
        Ok(())
    }

    /// Open files: promised, and how many there are to promise.
    pub(super) fn files(&self) -> (usize, usize) {
        (self.files.promised, self.files.max)
    }

    /// Mappings, as [`Budget::files`].
    pub(super) fn mappings(&self) -> (usize, usize) {
        (self.mappings.promised, self.mappings.max)
    }

    /// The run of an instance is over, however it came to its end.
    pub(super) fn release(&mut self, id: InstanceId) {
        if let Some(promise) = self.held.remove(&id) {
            self.files.promised -= promise.files;
            self.mappings.promised -= promise.mappings;
            if let Entry::Occupied(mut of_code) = self.codes.entry(promise.code) {
                *of_code.get_mut() -= 1;
                if *of_code.get() == 0 {
                    of_code.remove();
                    self.files.promised -= DESCRIPTORS_CODE;
                    self.mappings.promised -= self.entries.code;
                }
            }
        }
    }
}

impl Account {
    /// The error is the limit.
    fn take(&mut self, n: usize) -> Result<(), usize> {
        match self.promised.checked_add(n).filter(|sum| *sum <= self.max) {
            Some(sum) => {
                self.promised = sum;
                Ok(())
            }
            None => Err(self.max),
        }
    }
}

/// Descriptors of an instance that opens what it may, but for those of its code.
pub(super) fn most_files(handles_max: usize) -> usize {
    handles_max.max(DESCRIPTORS_COUNT).saturating_add(DESCRIPTORS_DIRECTORY)
}

/// Descriptors that are kept back for the daemon itself, at the most that it could need at one time.
pub(super) fn descriptors_kept(limits: &Limits, compilers: usize) -> usize {
    [
        limits.connections_max.saturating_mul(DESCRIPTORS_CONNECTION),
        compilers.saturating_mul(DESCRIPTORS_COMPILER),
        // A module that waits to be compiled is an open file, and the code of one that is kept in memory is as often as above.
        limits.compile_queue_max,
        limits.module_cache_max.saturating_mul(DESCRIPTORS_CODE),
        DESCRIPTORS_REMOVAL,
        DESCRIPTORS_REST,
    ]
    .into_iter()
    .fold(0, usize::saturating_add)
}

/// Descriptors that this process may have open.
fn descriptors() -> usize {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        // No limit is `None`.
        limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
    }
    #[cfg(not(unix))]
    {
        usize::MAX
    }
}

/// Entries that this process's memory map may have (proc_sys_vm(5), `max_map_count`).
pub(super) fn maps() -> usize {
    if !cfg!(target_os = "linux") {
        return usize::MAX;
    }
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(MAPS_GUESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn budget(files: usize, mappings: usize) -> Budget {
        let mut limits = Config::new(([127, 0, 0, 1], 0).into(), "s".into(), "r".into()).limits;
        limits.handles_max = 10;
        limits.open_files_max = Some(files);
        limits.mappings_max = Some(mappings);
        Budget::new(&limits, Entries::ORDINARY).unwrap()
    }

    #[test]
    fn what_was_promised_is_given_back_whole() {
        let mut budget = budget(30, 100);
        let (one, other) = (Code::default(), Code::default());
        let opens = Needs { reach: Reach::Files, memories: 1 };
        budget.promise_for(InstanceId(1), &one, opens, 0).unwrap();
        budget.promise_for(InstanceId(2), &other, opens, 0).unwrap();
        assert_eq!(budget.files.promised, 28);
        assert!(budget.promise_for(InstanceId(3), &one, opens, 0).unwrap_err().to_string().contains("--open-files"));
        let prints = Needs { reach: Reach::Nothing, memories: 1 };
        budget.promise_for(InstanceId(3), &one, prints, 0).unwrap();
        assert_eq!(budget.files.promised, 28, "code that somebody runs already takes nothing more");
        budget.promise_for(InstanceId(4), &Code::default(), prints, 0).unwrap();
        assert!(budget.promise_for(InstanceId(5), &Code::default(), prints, 0).is_err());
        budget.promise_for(InstanceId(5), &one, prints, 0).unwrap();
        for id in [1, 2, 3, 3] {
            budget.release(InstanceId(id));
        }
        assert_eq!(budget.files.promised, 4, "two codes that are run, and nothing else");
        budget.release(InstanceId(5));
        budget.release(InstanceId(4));
        assert_eq!((budget.files.promised, budget.mappings.promised, budget.codes.len()), (0, 0, 0));
    }

    /// However many sleep, and whatever their memories.
    #[test]
    fn dense_instances_take_entries_for_their_code_only() {
        let mut budget = budget(1000, 10);
        budget.entries = Entries { memory: 0, stack: 0, code: 4 };
        let (one, other) = (Code::default(), Code::default());
        let prints = Needs { reach: Reach::Nothing, memories: 16 };
        for id in 1..=100 {
            budget.promise_for(InstanceId(id), if id % 2 == 0 { &one } else { &other }, prints, 0).unwrap();
        }
        assert_eq!(budget.mappings(), (8, 10));
        let refused = budget.promise_for(InstanceId(101), &Code::default(), prints, 0).unwrap_err();
        assert!(refused.to_string().contains("--mappings"), "{refused}");
        assert_eq!(budget.mappings(), (8, 10));
        (1..=100).for_each(|id| budget.release(InstanceId(id)));
        assert_eq!((budget.mappings().0, budget.files().0), (0, 0));
    }

    #[test]
    fn what_the_daemon_itself_may_need_is_kept_back() {
        let mut limits = Config::new(([127, 0, 0, 1], 0).into(), "s".into(), "r".into()).limits;
        let standard = descriptors_kept(&limits, 3);
        assert_eq!(standard, 3 * 1024 + 3 * 9 + 64 + 2 * 64 + 4 + 256);
        limits.connections_max += 10;
        assert_eq!(descriptors_kept(&limits, 3) - standard, 30, "each may put a module, or read a log");
        limits.compile_queue_max += 1;
        limits.module_cache_max += 1;
        assert_eq!(descriptors_kept(&limits, 4) - standard, 30 + 3 + 9);
        limits.connections_max = usize::MAX;
        assert_eq!(descriptors_kept(&limits, usize::MAX), usize::MAX);
        assert!(Budget::new(&limits, Entries::ORDINARY).unwrap_err().to_string().contains("ulimit -n"));
    }

    /// Before a guest with few handles runs, its directory is counted.
    #[test]
    fn an_instance_is_promised_what_it_takes_to_count_its_directory() {
        assert_eq!(most_files(1), 2 + 2);
        assert_eq!(most_files(2), 2 + 2);
        assert_eq!(most_files(3), 3 + 2);
        assert_eq!(most_files(usize::MAX), usize::MAX);
    }

    #[test]
    fn a_refusal_promises_nothing() {
        let mut budget = budget(1000, 14);
        let large = Needs { reach: Reach::Files, memories: 4 };
        let code = Code::default();
        budget.promise_for(InstanceId(1), &code, large, 0).unwrap();
        for other in [&code, &Code::default()] {
            let refused = budget.promise_for(InstanceId(2), other, large, 0).unwrap_err();
            assert!(refused.to_string().contains("--mappings"), "{refused}");
            assert_eq!((budget.files.promised, budget.mappings.promised, budget.codes.len()), (14, 14, 1));
        }
        let endless = Needs { reach: Reach::Files, memories: usize::MAX };
        assert!(budget.promise_for(InstanceId(2), &code, endless, 0).is_err());
    }
}
