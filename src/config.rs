//! Every limit of the daemon, with its unit, its default and its flag. The table in docs/guide.md is checked against
//! [`crate::config::limits`].

use crate::model::instance::FILES_DEFAULT;
use crate::model::request::{parse_count, parse_cpus, parse_duration, parse_size};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a daemon listens, and a client looks for it, unless told otherwise.
pub const ADDRESS_DEFAULT: &str = "127.0.0.1:8080";

/// Live instances at a time with `--dense`, unless told otherwise.
const INSTANCES_DENSE: &str = "100000";

/// What `coracle daemon` is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address to listen on; port 0 picks a free one. One that is not loopback needs --tls-cert and --tls-key
    #[arg(long, value_name = "ADDR", default_value = ADDRESS_DEFAULT)]
    pub listen: SocketAddr,
    /// Who may use the TCP port: `uid`, the daemon's user and root, as the kernel says, and who has the token; `token`, only
    /// who has the token; `none`, every user of this machine [default: uid on Linux, token elsewhere]
    #[arg(long, value_enum, value_name = "HOW")]
    pub tcp_auth: Option<TcpAuth>,
    /// Speak TLS on the TCP port, with this certificate (PEM, with its chain); everybody needs the token then
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve numbers for Prometheus at http://ADDR/metrics, on loopback only; port 0 picks a free one [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
    /// Who may read them: `own`, the daemon's user and root, as the kernel says; `all`, every user of this machine [default: own
    /// on Linux; elsewhere it has to be given]
    #[arg(long, value_enum, value_name = "WHO", requires = "metrics")]
    pub metrics_readers: Option<MetricsReaders>,
    /// Where stored modules and the daemon's records are kept [default: the platform's state directory]
    #[arg(long, value_name = "DIR", env = "CORACLE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the directories of instances are made
    #[arg(long, value_name = "DIR", env = "CORACLE_ROOT", default_value_os_t = root_default())]
    pub root: PathBuf,
    /// Look for NAME.wasm and NAME.wat here too; files may change while the daemon runs (repeatable)
    #[arg(long = "modules", value_name = "DIR")]
    pub module_dirs: Vec<PathBuf>,
    /// When a change is synced to the disk: `normal` syncs what has to survive a power failure before the reply and the rest
    /// within 200 ms, `full` syncs everything before the reply
    #[arg(long, value_enum, default_value_t)]
    pub durability: Durability,
    /// Priority of guests that compute, towards everything else on the machine (or in the daemon's cgroup): `idle` gives way to
    /// whatever else wants to run, at once; `low` as nice 10 does; `normal` not at all. New guests, and those that mostly wait,
    /// have a thread that does not step back
    #[arg(long, value_enum, default_value_t)]
    pub guest_priority: GuestPriority,
    /// Lend guests (run -v) only what is in this directory of the host (repeatable) [default: anything but the system's and the
    /// daemon's own]
    #[arg(long = "mount-root", value_name = "DIR")]
    pub mount_roots: Vec<PathBuf>,
    /// Room for 100,000 instances that sleep: their memories and stacks take no entries of the system's map and reserve no
    /// addresses, for which code compares each address, and none is used again (Linux)
    #[arg(long)]
    pub dense: bool,
    /// The kernel's fence around the daemon (Linux, landlock): `on` as far as there is one, `required` refuses to start with less
    #[arg(long, value_enum, default_value_t)]
    pub fence: FenceMode,
    /// What there is of it, as it was raised
    #[arg(skip)]
    pub fenced: Option<String>,
    /// Leaves the order of guests to the runtime, first in, first out: for benches that want to know what ours costs.
    #[arg(skip)]
    pub plain_queue: bool,
    /// What breaks on purpose: for tests of what that does to the rest.
    #[arg(skip)]
    pub faults: Faults,
    /// The program that compiles, for a daemon inside another program; otherwise it is the daemon's own
    #[arg(skip)]
    pub program: Option<PathBuf>,
    /// The limits
    #[command(flatten)]
    pub limits: Limits,
}

/// What a client of the TCP port has to be, or to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TcpAuth {
    /// The daemon's user or root, as the kernel says; or the token.
    Uid,
    /// The token.
    Token,
    /// Nothing.
    None,
}

/// Who may read the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsReaders {
    /// The daemon's user and root.
    Own,
    /// Every user of this machine.
    All,
}

impl Default for TcpAuth {
    fn default() -> TcpAuth {
        if cfg!(target_os = "linux") { TcpAuth::Uid } else { TcpAuth::Token }
    }
}

/// Whether there is to be a fence of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum FenceMode {
    /// As far as the kernel has one.
    #[default]
    On,
    /// Whole, or the daemon does not start.
    Required,
    /// None.
    Off,
}

/// What breaks on purpose.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Instances, by name, whose task panics when it enters guest code.
    pub panics_at_entry: Vec<String>,
    /// Instances, by name, whose task panics in the call of the host that prints.
    pub panics_at_output: Vec<String>,
    /// Instances, by name, whose task panics before there is a guest.
    pub panics_in_task: Vec<String>,
    /// The clock of pre-emption stands still.
    pub no_ticks: bool,
}

/// How far guests that compute step back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum GuestPriority {
    /// Only when nothing else wants the processor.
    #[default]
    Idle,
    /// Less than others.
    Low,
    /// Like others; answers then wait for a slice of theirs at times.
    Normal,
}

/// When changes are synced. Both survive the death of the daemon; this is about the death of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Durability {
    /// What has to come back is synced before its reply, the rest within 200 ms.
    #[default]
    Normal,
    /// Everything is synced before its reply.
    Full,
    /// Nothing is written at all: for benches that want to know what writing costs.
    #[value(skip)]
    Off,
}

/// Numbers that bound what the daemon holds. Reaching one is an ordinary refusal that names its flag.
#[derive(Debug, Clone, clap::Args)]
pub struct Limits {
    /// Memories and tables of one instance together, unless its run says otherwise with -m
    #[arg(long = "memory", value_name = "SIZE", value_parser = parse_size, default_value = "256m")]
    pub memory_bytes_max: usize,
    /// The most that a run may ask for with -m
    #[arg(long = "memory-max", value_name = "SIZE", value_parser = parse_size, default_value = "4g")]
    pub memory_bytes_ceiling: usize,
    /// Memories and tables of all instances together [default: half of the machine's memory]
    #[arg(long = "memory-total", value_name = "SIZE", value_parser = parse_size)]
    pub memory_bytes_total: Option<usize>,
    /// The most that an instance may use of the processors, such as 0.5, unless its run says otherwise
    #[arg(long = "cpus", value_name = "N", value_parser = or_none(parse_cpus), default_value = "none")]
    pub cpus_milli: OrNone<u32>,
    /// Part of an instance where others compute too, from 1 to 10000, unless its run says otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), default_value = "100")]
    pub cpu_weight: u32,
    /// CPU time of a run, unless it says otherwise
    #[arg(long, value_name = "TIME", value_parser = or_none(parse_duration), default_value = "none")]
    pub cpu_time: OrNone<Duration>,
    /// Time of a run, from its entry into guest code, unless it says otherwise
    #[arg(long, value_name = "TIME", value_parser = or_none(parse_duration), default_value = "none")]
    pub timeout: OrNone<Duration>,
    /// Files in the directory of one instance, in bytes of their sizes, unless its run says otherwise with --disk
    #[arg(long = "disk", value_name = "SIZE", value_parser = parse_size, default_value = "256m")]
    pub disk_bytes_max: usize,
    /// Files, links and directories in the directory of one instance, unless its run says otherwise with --files
    #[arg(long = "files", value_name = "N", default_value_t = FILES_DEFAULT, value_parser = parse_count::<1_000_000_000>)]
    pub files_max: usize,
    /// The most that a run may ask for with --disk
    #[arg(long = "disk-max", value_name = "SIZE", value_parser = parse_size, default_value = "64g")]
    pub disk_bytes_ceiling: usize,
    /// The most that a run may ask for with --files
    #[arg(long = "files-max", value_name = "N", default_value_t = 1_000_000, value_parser = parse_count::<1_000_000_000>)]
    pub files_ceiling: usize,
    /// Room that guests leave free on the file system of their directories
    #[arg(long = "disk-free", value_name = "SIZE", value_parser = parse_size, default_value = "64m")]
    pub disk_free_bytes: usize,
    /// Entries of all tables of one instance
    #[arg(long = "table-entries", value_name = "N", default_value_t = 100_000, value_parser = parse_count::<1_000_000_000>)]
    pub table_entries_max: usize,
    /// Live instances at a time
    #[arg(long = "instances", value_name = "N", default_value_t = 4096, default_value_if("dense", "true", INSTANCES_DENSE), value_parser = parse_count::<1_000_000>)]
    pub instances_max: usize,
    /// Ended instances whose record and log are kept
    #[arg(long = "keep", value_name = "N", default_value_t = 10_000, value_parser = parse_count::<1_000_000>)]
    pub ended_max: usize,
    /// Time that the record and the log of an ended instance are kept
    #[arg(long = "keep-for", value_name = "TIME", value_parser = parse_duration, default_value = "7d")]
    pub ended_for: Duration,
    /// Runs of one instance that are kept for `inspect`
    #[arg(long = "keep-runs", value_name = "N", default_value_t = 100, value_parser = parse_count::<100_000>)]
    pub runs_max: usize,
    /// Events that are kept for `events --since`
    #[arg(long = "keep-events", value_name = "N", default_value_t = 100_000, value_parser = parse_count::<100_000_000>)]
    pub events_max: usize,
    /// Log of one instance, on disk in two files; the oldest output goes first
    #[arg(long = "log", value_name = "SIZE", value_parser = parse_size, default_value = "10m")]
    pub log_bytes_max: usize,
    /// Output of one instance that its log keeps, in bytes a second, and as many at once; what is beyond is dropped and counted
    #[arg(long = "log-rate", value_name = "SIZE", value_parser = parse_size, default_value = "16m")]
    pub log_bytes_per_second: usize,
    /// Connections at a time
    #[arg(long = "connections", value_name = "N", default_value_t = 1024, value_parser = parse_count::<1_000_000>)]
    pub connections_max: usize,
    /// Connections at a time of clients that have not shown who they are
    #[arg(long = "unproved", value_name = "N", default_value_t = 64, value_parser = parse_count::<1_000_000>)]
    pub unproved_max: usize,
    /// Time for a client to show who it is
    #[arg(long = "prove", value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub prove: Duration,
    /// Time for a new connection to send its first request
    #[arg(long = "first-request", value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub first_request: Duration,
    /// Time for a peer to send the rest of a line or a transfer that it began, and to take a reply
    #[arg(long = "stall", value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    pub stall: Duration,
    /// Size of a module
    #[arg(long = "module-size", value_name = "SIZE", value_parser = parse_size, default_value = "128m")]
    pub module_bytes_max: usize,
    /// Modules that are on their way in with `put`, all together
    #[arg(long = "uploads", value_name = "SIZE", value_parser = parse_size, default_value = "512m")]
    pub uploads_bytes_max: usize,
    /// Modules stored with `put`
    #[arg(long = "stored-modules", value_name = "N", default_value_t = 1000, value_parser = parse_count::<1_000_000>)]
    pub stored_modules_max: usize,
    /// Compiled modules kept in memory
    #[arg(long = "module-cache", value_name = "N", default_value_t = 64, value_parser = parse_count::<1_000_000>)]
    pub module_cache_max: usize,
    /// Compiled modules kept on disk, and the largest of them; the oldest used go first
    #[arg(long = "compiled-cache", value_name = "SIZE", value_parser = parse_size, default_value = "1g")]
    pub compiled_bytes_max: usize,
    /// Memory that the compilation of one module may take, in a process of its own
    #[arg(long = "compile-memory", value_name = "SIZE", value_parser = parse_size, default_value = "2g")]
    pub compile_bytes_max: usize,
    /// Processor time that the compilation of one module may take, in whole seconds, all threads together
    #[arg(long = "compile-cpu", value_name = "TIME", value_parser = parse_duration, default_value = "120s")]
    pub compile_cpu: Duration,
    /// Time that the compilation of one module may take, once it has its turn
    #[arg(long = "compile-time", value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    pub compile_time: Duration,
    /// Modules that wait for their turn to be compiled
    #[arg(long = "compile-queue", value_name = "N", default_value_t = 64, value_parser = parse_count::<10_000>)]
    pub compile_queue_max: usize,
    /// Open files, directories and streams of one instance
    #[arg(long = "handles", value_name = "N", default_value_t = 256, value_parser = parse_count::<1_000_000>)]
    pub handles_max: usize,
    /// Open files of all instances together: what each may open, if its module can open files, and its directory [default:
    /// what the system allows the daemon, less what connections need]
    #[arg(long = "open-files", value_name = "N", value_parser = parse_count::<1_000_000_000>)]
    pub open_files_max: Option<usize>,
    /// Entries of the system's map for all instances together: three for each memory, two for each stack; with --dense four
    /// for each code, and nothing else where the kernel is 6.13 or newer [default: what the system allows the daemon]
    #[arg(long = "mappings", value_name = "N", value_parser = parse_count::<1_000_000_000>)]
    pub mappings_max: Option<usize>,
    /// Random bytes that a guest gets in one call; filling more is a long step that nothing can interrupt
    #[arg(long = "random-size", value_name = "SIZE", value_parser = parse_size, default_value = "64k")]
    pub random_bytes_max: usize,
    /// Host memory that one call of a guest may take for its arguments and results
    #[arg(long = "hostcall-memory", value_name = "SIZE", value_parser = parse_size, default_value = "32m")]
    pub hostcall_bytes_max: usize,
}

/// A limit that there may be none of; `none` on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrNone<T>(pub Option<T>);

fn or_none<T>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<OrNone<T>, String> + Clone + Send + Sync + 'static
where
    T: 'static,
{
    move |s| match s {
        "none" => Ok(OrNone(None)),
        some => parse(some).map(|value| OrNone(Some(value))),
    }
}

/// Limits that are part of the contract and have no flag.
pub mod fixed {
    use std::time::Duration;

    /// Epoch tick: how soon a guest that computes notices that it should end, or that its turn is over.
    pub const TICK: Duration = Duration::from_millis(1);
    /// Ticks that a guest may compute for where others wait for their turn.
    pub const TURN_TICKS: u64 = 5;
    /// The same for one that is new, or mostly waits, and is served before others.
    pub const TURN_TICKS_QUICK: u64 = 1;
    /// Stack of WebAssembly code; deeper recursion traps.
    pub const WASM_STACK_BYTES: usize = 512 * 1024;
    /// Stack of a guest with its host calls; what is above [`WASM_STACK_BYTES`] is the host code's.
    pub const STACK_BYTES: usize = 2 * 1024 * 1024;
    /// Addresses reserved for each memory: all that 32 bits can name.
    pub const MEMORY_ADDRESSES: u64 = 4 << 30;
    /// Addresses before and behind each memory that nothing is ever at.
    pub const MEMORY_GUARD_BYTES: u64 = 32 << 20;
    /// Core instances and tables within one component instance.
    pub const CORE_INSTANCES_MAX: usize = 256;
    /// Memories of one instance: each reserves 4 GiB of addresses, however small it is.
    pub const MEMORIES_MAX: usize = 16;
    /// Functions of a module; like what follows, the sum over all modules of a component.
    pub const MODULE_FUNCTIONS_MAX: u64 = 250_000;
    /// Types of a module.
    pub const MODULE_TYPES_MAX: u64 = 100_000;
    /// Imports and aliases of a module.
    pub const MODULE_IMPORTS_MAX: u64 = 100_000;
    /// Exports of a module.
    pub const MODULE_EXPORTS_MAX: u64 = 100_000;
    /// Globals of a module.
    pub const MODULE_GLOBALS_MAX: u64 = 100_000;
    /// Data and element segments of a module.
    pub const MODULE_SEGMENTS_MAX: u64 = 250_000;
    /// Entries of all tables of a module at the start, each table counted up to as many as a compiler writes out.
    pub const MODULE_TABLE_ENTRIES_MAX: u64 = 1_000_000;
    /// Bytes that the instances of a module or component take of the host besides its memories and tables.
    pub const INSTANCES_HOST_BYTES_MAX: u64 = 64 << 20;
    /// Modules, components and instances within a component.
    pub const MODULE_NESTED_MAX: u64 = 1_000;
    /// Bytes of one function.
    pub const FUNCTION_BYTES_MAX: usize = 4 << 20;
    /// Locals of one function, without its parameters: compilers need memory for each in each block.
    pub const FUNCTION_LOCALS_MAX: u64 = 10_000;
    /// How long a compilation may hold up others: then it has to make room for them.
    pub const COMPILE_QUICK: Duration = Duration::from_secs(2);
    /// What is kept of what a compiling process says: so much of its beginning, and of its end.
    pub const COMPILE_SAID_BYTES_MAX: usize = 4096;
    /// Frames of a backtrace.
    pub const BACKTRACE_FRAMES_MAX: usize = 8;
    /// Output that waits for an attached client before the guest has to wait.
    pub const ATTACHED_BYTES_MAX: usize = 256 * 1024;
    /// Input that waits for a guest before the client has to wait.
    pub const STDIN_BYTES_MAX: usize = 64 * 1024;
    /// Silence that completes a short request without a line end.
    pub const SILENCE: Duration = Duration::from_millis(50);
    /// Requests refused in a row, for their form, before the connection is closed.
    pub const REFUSALS_MAX: u32 = 10;
    /// Requests refused because of who asks, before the connection is closed.
    pub const AUTH_FAILURES_MAX: u32 = 5;
    /// How long the first of these is made to wait for its answer; each further one so much longer.
    pub const AUTH_DELAY: Duration = Duration::from_millis(200);
    /// Time for guests to be gone when the daemon ends.
    pub const DRAIN: Duration = Duration::from_secs(5);
    /// The same with `--dense`, for so many.
    pub const DRAIN_DENSE: Duration = Duration::from_secs(30);
    /// Time for answers on their way, after that. With it, and what a disk that hangs may take ([`CLOSE`], twice), the daemon is
    /// gone within ten seconds, if it is not a dense one.
    pub const FAREWELL: Duration = Duration::from_millis(1500);
    /// Time for the last output and for the last changes to be written.
    pub const CLOSE: Duration = Duration::from_millis(1500);
    /// How long a change that was acknowledged may be unsynced, unless it was synced before.
    pub const SYNC_WITHIN: Duration = Duration::from_millis(200);
    /// Changes that are committed together at most.
    pub const GROUP_MAX: usize = 1024;
    /// Events that a follower may be behind before it loses some.
    pub const EVENTS_BEHIND_MAX: usize = 4096;
    /// How often old records are looked for, and removals that failed are tried again.
    pub const TIDY_EVERY: Duration = Duration::from_secs(60);
    /// Bytes that are kept free beside the database, so that ends can be recorded on a full disk.
    pub const RESERVE_BYTES: u64 = 4 << 20;
    /// Requests of a client that has not shown who it is.
    pub const UNPROVED_REQUESTS_MAX: u32 = 16;
    /// The least that a transfer brings within `--stall`, on average; a slower one ends.
    pub const TRANSFER_BYTES_MIN: u64 = 1024 * 1024;
    /// Instances that a list looks at under the registry's lock at a time: up to so many are as they were at one moment.
    pub const LIST_PAGE: usize = 256;
    /// Text of a long reply that is put together before it is sent.
    pub const REPLY_PIECE_BYTES: usize = 64 * 1024;
    /// A path of a guest's: as long as the system takes it (`PATH_MAX` on Linux).
    pub const PATH_BYTES_MAX: usize = 4096;
    /// Bytes that a component hands over to be written from which on they are charged to `--memory-total` meanwhile.
    pub const WRITE_CHARGED_BYTES: usize = 1 << 20;
    /// Reads and writes of a component's streams, and files that are freed, under way at a time; others wait for their turn.
    pub const STREAMS_BUSY_MAX: usize = 8;
    /// Places for stores whose memory, table and stack are used again. More runs at a time are given their own.
    pub const POOL_PLACES: u32 = 256;
    /// Bytes of a memory, a table and a stack that stay resident in a free place.
    pub const POOL_MEMORY_KEPT_BYTES: usize = 64 * 1024;
    /// See [`POOL_MEMORY_KEPT_BYTES`].
    pub const POOL_TABLE_KEPT_BYTES: usize = 16 * 1024;
    /// See [`POOL_MEMORY_KEPT_BYTES`].
    pub const POOL_STACK_KEPT_BYTES: usize = 16 * 1024;
    /// How long a client that sends requests ahead is answered without a pause.
    pub const AHEAD_MAX: Duration = Duration::from_millis(1);
    /// And how long that pause is.
    pub const AHEAD_PAUSE: Duration = Duration::from_millis(4);
    /// Calls of all guests that work on files at a time, for each processor; but who takes longer than [`FILE_CALL_LATE`] no
    /// longer counts.
    pub const FILE_CALLS_EACH: usize = 2;
    /// How long others wait for a call that works on a file. Most take some ten microseconds.
    pub const FILE_CALL_LATE: Duration = Duration::from_millis(10);
    /// Entries of a directory that are read ahead for a guest that lists it.
    pub const LISTING_ENTRIES_AHEAD: usize = 32;
    /// Entries of a modules directory that are looked at for a listing.
    pub const DIRECTORY_ENTRIES_MAX: usize = 10_000;
}

impl Limits {
    /// The budget of all instances together, in bytes.
    pub fn memory_bytes_total(&self) -> usize {
        self.memory_bytes_total.unwrap_or_else(|| machine_memory_bytes() / 2)
    }
}

/// One limit, as the table in docs/guide.md shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The flag of `coracle daemon`.
    pub flag: String,
    /// Its default; empty where it depends on the machine.
    pub default: String,
    /// What it bounds.
    pub what: String,
}

/// Every limit that has a flag, from the definitions that the command line is built of.
pub fn limits() -> Vec<Limit> {
    let command = <Limits as clap::Args>::augment_args(clap::Command::new("limits"));
    command
        .get_arguments()
        .filter_map(|arg| {
            Some(Limit {
                flag: format!("--{}", arg.get_long()?),
                default: arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect(),
                what: arg.get_help().map(ToString::to_string).unwrap_or_default(),
            })
        })
        .collect()
}

/// Where the directories of instances are made unless told otherwise.
pub fn root_default() -> PathBuf {
    if cfg!(unix) { PathBuf::from("/tmp") } else { std::env::temp_dir() }
}

/// Physical memory, in bytes; 4 GiB is assumed where the system does not say.
fn machine_memory_bytes() -> usize {
    #[cfg(target_os = "linux")]
    {
        // sysinfo(2): totalram counts units of mem_unit bytes.
        let info = rustix::system::sysinfo();
        let total = u128::from(info.totalram) * u128::from(info.mem_unit);
        usize::try_from(total).unwrap_or(usize::MAX)
    }
    #[cfg(not(target_os = "linux"))]
    {
        4 << 30
    }
}

impl Config {
    /// The defaults, for a daemon inside another program.
    pub fn new(listen: SocketAddr, state_dir: PathBuf, root: PathBuf) -> Config {
        use clap::{Args, FromArgMatches};
        let command = Config::augment_args(clap::Command::new("daemon").no_binary_name(true));
        let matches =
            command.try_get_matches_from(Vec::<String>::new()).expect("every flag of the daemon has a default");
        let config = Config::from_arg_matches(&matches).expect("defaults parse");
        Config { listen, state_dir: Some(state_dir), root, ..config }
    }

    /// Time for guests to be gone when the daemon ends.
    pub fn drain(&self) -> Duration {
        if self.dense { fixed::DRAIN_DENSE } else { fixed::DRAIN }
    }

    /// The state directory, given or the platform's. `None`: the platform has none for this user.
    pub fn state_dir(&self) -> Option<PathBuf> {
        self.state_dir.clone().or_else(state_dir_default)
    }
}

/// `$XDG_STATE_HOME/coracle` on Linux; elsewhere the local data directory of the application.
pub fn state_dir_default() -> Option<PathBuf> {
    let dirs = directories::ProjectDirs::from("", "", "coracle")?;
    Some(dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_flag_and_says_what_it_bounds() {
        let all = limits();
        assert_eq!(all.len(), 39);
        for limit in all {
            assert!(!limit.what.is_empty(), "{limit:?}");
            let of_the_machine = ["--memory-total", "--open-files", "--mappings"].contains(&limit.flag.as_str());
            assert_eq!(limit.default.is_empty(), of_the_machine, "{limit:?}");
        }
    }

    /// As docs/guide.md tells them.
    #[test]
    fn the_limits_without_a_flag_are_those_of_the_contract() {
        use super::fixed::*;
        assert_eq!((WASM_STACK_BYTES, STACK_BYTES), (524_288, 2_097_152));
        assert_eq!((ATTACHED_BYTES_MAX, STDIN_BYTES_MAX), (262_144, 65_536));
        assert_eq!((FUNCTION_BYTES_MAX, RESERVE_BYTES), (4_194_304, 4_194_304));
        assert_eq!((TRANSFER_BYTES_MIN, REPLY_PIECE_BYTES), (1_048_576, 65_536));
    }

    #[test]
    fn what_is_left_out_comes_from_the_platform() {
        let mut limits = Config::new(([127, 0, 0, 1], 0).into(), "s".into(), "r".into()).limits;
        assert_eq!(limits.memory_bytes_total(), machine_memory_bytes() / 2);
        limits.memory_bytes_total = Some(7);
        assert_eq!(limits.memory_bytes_total(), 7);
        #[cfg(target_os = "linux")]
        {
            let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
            let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
            assert_eq!(machine_memory_bytes(), total.unwrap().parse::<usize>().unwrap() * 1024);
        }
        #[cfg(unix)]
        assert_eq!(root_default(), PathBuf::from("/tmp"));
        let config = Config { state_dir: None, ..Config::new(([127, 0, 0, 1], 0).into(), "s".into(), "r".into()) };
        assert_eq!(config.state_dir(), state_dir_default());
        assert!(state_dir_default().unwrap().to_string_lossy().contains("coracle"));
    }

    #[test]
    fn none_is_a_limit_too() {
        let parse = or_none(parse_duration);
        assert_eq!(parse("none"), Ok(OrNone(None)));
        assert_eq!(parse("30s"), Ok(OrNone(Some(Duration::from_secs(30)))));
        assert!(parse("nothing").is_err() && parse("").is_err());
    }

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        let config = Config::new(([127, 0, 0, 1], 0).into(), "s".into(), "r".into());
        assert_eq!(config.limits.memory_bytes_max, 256 << 20);
        assert_eq!(config.limits.disk_bytes_max, crate::model::instance::DISK_BYTES_DEFAULT);
        assert!(config.limits.memory_bytes_total() > 64 << 20);
        assert_eq!(config.state_dir(), Some("s".into()));
    }
}
