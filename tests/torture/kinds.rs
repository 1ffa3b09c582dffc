//! What a guest may be doing when it is stopped.

/// A state of a guest, and how it is brought about.
pub struct Kind {
    /// What the table calls it; names of instances begin with it.
    pub name: &'static str,
    pub module: &'static str,
    /// Options of `run`.
    pub options: &'static [&'static str],
    /// How it is known that it has come so far.
    pub ready: Ready,
    /// States that `stop` may answer with.
    pub ends: &'static [&'static str],
    /// It takes all the memory that it may have.
    pub greedy: bool,
    /// Its steps are as long as its memory is large, and cannot be interrupted.
    pub bulk: bool,
    /// Clients that stop each instance at once.
    pub clients: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// It is in guest code.
    Running,
    /// It has printed something.
    Output,
    /// It has ended by itself.
    Ended,
    /// Its policy has run it again, twice.
    Restarted,
    /// It is in guest code, with a client that sends no input.
    Attached,
    /// Its module is being compiled; each instance has one of its own.
    Compiling,
    /// Nothing is known: it is stopped while it starts.
    Starting,
}

const STOPPED: &[&str] = &["stopped"];
/// What a stop of a module that traps at once may meet: the pause, or a run.
const TRAPPED: &[&str] = &["trapped", "stopped"];
const PREVENTED: &[&str] = &["never-started", "stopped"];

impl Kind {
    const fn of(name: &'static str, module: &'static str, ready: Ready) -> Kind {
        Kind { name, module, options: &[], ready, ends: STOPPED, greedy: false, bulk: false, clients: 1 }
    }

    const fn greedy(name: &'static str, module: &'static str) -> Kind {
        Kind { greedy: true, ..Kind::of(name, module, Ready::Output) }
    }

    const fn bulk(name: &'static str, module: &'static str) -> Kind {
        Kind { bulk: true, ..Kind::greedy(name, module) }
    }

    const fn again_and_again(name: &'static str, module: &'static str) -> Kind {
        Kind { options: &["--restart", "always"], ends: TRAPPED, ..Kind::of(name, module, Ready::Restarted) }
    }

    /// Whether it writes a file `data`.
    pub fn writes_file(&self) -> bool {
        self.module == "huge_file"
    }

    /// Whether its directory is filled with entries first.
    pub fn lists_directory(&self) -> bool {
        self.module == "huge_directory"
    }
}

pub const KINDS: &[Kind] = &[
    Kind::of("tight-loop", "spin", Ready::Running),
    Kind::of("host-calls", "host_calls", Ready::Running),
    Kind::of("recursion", "recurse", Ready::Running),
    Kind { ends: &["trapped"], ..Kind::of("stack-overflow", "overflow", Ready::Ended) },
    Kind::bulk("memory-fill", "fill_all"),
    Kind::bulk("memory-copy", "copy_all"),
    Kind::bulk("table-fill", "table_fill"),
    Kind::greedy("memory-growth", "grow_storm"),
    Kind::greedy("table-growth", "table_storm"),
    Kind::of("sleep", "sleep_longest", Ready::Output),
    Kind::of("many-clocks", "many_clocks", Ready::Output),
    Kind::of("stdin", "cat", Ready::Attached),
    Kind { options: &["--disk", "128g"], ..Kind::of("huge-file", "huge_file", Ready::Output) },
    Kind::of("huge-directory", "huge_directory", Ready::Output),
    Kind::of("output", "flood", Ready::Output),
    Kind::of("short-lines", "chatty", Ready::Output),
    Kind::again_and_again("trap-loop", "trap"),
    Kind::again_and_again("start-traps", "start_traps"),
    Kind::again_and_again("bad-instance", "bad_instance"),
    Kind::of("start-loops", "start_loops", Ready::Running),
    Kind { ends: PREVENTED, ..Kind::of("compiling", "", Ready::Compiling) },
    Kind { ends: PREVENTED, ..Kind::of("starting", "spin", Ready::Starting) },
    Kind { clients: 16, ..Kind::of("many-clients", "spin", Ready::Running) },
];
