//! Random modules, through the daemon and plainly through wasmtime: both end alike and print the same, `explain` knew whether
//! they run, and the daemon is afterwards what it was before.
//!
//! `CORACLE_RANDOM_MODULES` says how many, `CORACLE_RANDOM_SEED` which: each module has the seed of the one before it, plus one.

use crate::support::{Cli, Foreground, soon};
use arbitrary::Unstructured;
use coracle::client::{Client, ClientError, Next};
use coracle::error::Code;
use coracle::model::explain::Report;
use coracle::model::reply::{InstanceView, StreamEvent};
use coracle::model::request::StdStream;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};
use wasmparser::WasmFeatures as Flags;
use wasmtime::{Config, Engine, Linker, Module, ResourceLimiter, Store, Trap, WasmFeatures};
use wasmtime_wasi::p1::{WasiP1Ctx, wasi_snapshot_preview1};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

const MEMORY_BYTES: usize = 16 << 20;
const TABLE_ENTRIES: usize = 100_000;
const WASM_STACK_BYTES: usize = 512 << 10;
/// Output beyond this is not compared.
const OUTPUT_BYTES: usize = 64 << 10;
/// After so many modules every cache of the daemon has been filled.
const WARM: u64 = 20;

/// What the engine has on; a module that needs more is as good as any other here, as long as both refuse it.
const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::EXTENDED_CONST)
    .difference(WasmFeatures::GC_TYPES);

/// Calls whose results depend on nothing but what was called before.
const CALLS: &[(&str, &str)] = &[
    ("args_get", "(param i32 i32)"),
    ("args_sizes_get", "(param i32 i32)"),
    ("environ_get", "(param i32 i32)"),
    ("environ_sizes_get", "(param i32 i32)"),
    ("fd_advise", "(param i32 i64 i64 i32)"),
    ("fd_close", "(param i32)"),
    ("fd_fdstat_get", "(param i32 i32)"),
    ("fd_prestat_get", "(param i32 i32)"),
    ("fd_prestat_dir_name", "(param i32 i32 i32)"),
    ("fd_read", "(param i32 i32 i32 i32)"),
    ("fd_renumber", "(param i32 i32)"),
    ("fd_seek", "(param i32 i64 i32 i32)"),
    ("fd_tell", "(param i32 i32)"),
    ("fd_write", "(param i32 i32 i32 i32)"),
    ("path_create_directory", "(param i32 i32 i32)"),
    ("path_open", "(param i32 i32 i32 i32 i32 i64 i64 i32 i32)"),
    ("path_unlink_file", "(param i32 i32 i32)"),
    ("sched_yield", ""),
];

/// How a run ended, as far as both can tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Not compiled, or not linked.
    Refused,
    /// Larger than it may be.
    Memory,
    /// Not instantiated.
    Failed,
    Exited(u8),
    Trapped(String),
    /// Ended for the time that it took.
    Time,
}

#[derive(Debug, PartialEq, Eq)]
struct Ran {
    end: End,
    out: Vec<u8>,
    err: Vec<u8>,
}

/// Bytes that a seed stands for (SplitMix64).
fn bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..n.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect()
}

/// A program that is valid, mostly within the limits, and does whatever it does. If it can print, it prints at its end what is
/// in its memory.
fn module(seed: u64) -> Vec<u8> {
    // References to functions come with those to whatever a host has, which are refused: where they are on, until there are none.
    let tries = if seed.is_multiple_of(3) { 30 } else { 1 };
    let mut modules = (0..tries).map(|i| generate(seed.wrapping_add(i << 32)));
    let mut last = modules.next().unwrap();
    while wasmparser::Validator::new_with_features(Flags::from_bits_truncate(FEATURES.bits()))
        .validate_all(&last)
        .is_err()
    {
        let Some(next) = modules.next() else { break };
        last = next;
    }
    printing(&last).unwrap_or(last)
}

/// The module with another `_start` around its own, unless it cannot print.
fn printing(wasm: &[u8]) -> Option<Vec<u8>> {
    let text = wasmprinter::print_bytes(wasm).unwrap();
    let behind = |before: &str| Some(text.split(before).nth(1)?.split([')', ';']).next()?.to_owned());
    let write = behind("\"wasi_snapshot_preview1\" \"fd_write\" (func (;")?;
    let (start, memory) = (behind("(export \"_start\" (func ")?, behind("(export \"memory\" (memory ")?);
    let module = text.trim_end().strip_suffix(')')?.replace("(export \"_start\"", "(export \"start\"");
    let around = format!(
        "(func (export \"_start\") call {start}
           i32.const 0 i32.const 32 i32.store {memory}
           i32.const 4 i32.const 60000 i32.store {memory}
           i32.const 1 i32.const 0 i32.const 1 i32.const 8 call {write} drop)"
    );
    Some(wat::parse_str(module + &around + ")").unwrap())
}

fn generate(seed: u64) -> Vec<u8> {
    let calls: String = CALLS
        .iter()
        .map(|(name, params)| format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func {params} (result i32)))"))
        .chain(["(import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i32)))".to_owned()])
        .collect();
    let text = |text: &str| Some(wat::parse_str(text).unwrap());
    let bytes = bytes(seed, 4096 + (seed % 8) as usize * 2048);
    // Of ten: six call the host, three import nothing, and one whatever comes.
    let kind = seed % 10;
    let config = wasm_smith::Config {
        available_imports: if kind < 6 { text(&format!("(module {calls})")) } else { None },
        max_imports: if kind == 9 { 3 } else { 0 },
        exports: text("(module (memory (export \"memory\") 1) (func (export \"_start\")))"),
        reference_types_enabled: seed.is_multiple_of(3),
        max_memories: 3,
        max_memory32_bytes: 24 << 20,
        max_tables: 3,
        max_table_elements: 120_000,
        bulk_memory_enabled: true,
        custom_page_sizes_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        shared_everything_threads_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        ..wasm_smith::Config::default()
    };
    let mut module = wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)).unwrap();
    // One in sixteen may go on for ever.
    if seed % 16 != 15 {
        module.ensure_termination(20_000).unwrap();
    }
    module.to_bytes()
}

/// The limits of the daemon, told again.
#[derive(Default)]
struct Limits {
    bytes: usize,
    entries: usize,
    refused: bool,
}

impl Limits {
    fn grow(&mut self, bytes: usize, entries: usize, within: bool) -> bool {
        let (bytes, entries) = (self.bytes.saturating_add(bytes), self.entries.saturating_add(entries));
        let fits = within && bytes <= MEMORY_BYTES && entries <= TABLE_ENTRIES;
        if fits {
            (self.bytes, self.entries) = (bytes, entries);
        }
        self.refused |= within && !fits;
        fits
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired - current, 0, maximum.is_none_or(|max| desired <= max)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let delta = desired - current;
        Ok(self.grow(delta.saturating_mul(8), delta, maximum.is_none_or(|max| desired <= max)))
    }
}

struct Host {
    wasi: WasiP1Ctx,
    limits: Limits,
    /// Whether guest code has begun: a start function calls the host before there is an instance.
    entered: bool,
}

impl Host {
    fn wasi(&mut self) -> &mut WasiP1Ctx {
        self.entered = true;
        &mut self.wasi
    }
}

/// wasmtime, with nothing of ours.
struct Plain {
    engine: Engine,
    linker: Linker<Host>,
}

impl Plain {
    fn new() -> Plain {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(WASM_STACK_BYTES)
            .async_stack_size(2 << 20)
            .wasm_features(FEATURES.complement(), false)
            .wasm_features(FEATURES, true);
        let engine = Engine::new(&config).unwrap();
        let mut linker = Linker::new(&engine);
        wasi_snapshot_preview1::add_to_linker(&mut linker, Host::wasi).unwrap();
        linker.allow_shadowing(true);
        let exit = |status: i32| -> wasmtime::Result<()> { Err(I32Exit(status & 0xff).into()) };
        linker.func_wrap("wasi_snapshot_preview1", "proc_exit", exit).unwrap();
        let weak = engine.weak();
        // It ends with the engine.
        std::thread::spawn(move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        Plain { engine, linker }
    }

    async fn run(&self, wasm: &[u8], name: &str) -> Ran {
        let (out, err) = (MemoryOutputPipe::new(64 << 20), MemoryOutputPipe::new(64 << 20));
        let directory = tempfile::tempdir().unwrap();
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(&[name]).stdout(out.clone()).stderr(err.clone());
        // What can get at nothing in a directory is lent none; it would hear another errno there.
        let reaches =
            |import: &str| import.starts_with("path_") || import.starts_with("fd_prestat_") || import == "fd_readdir";
        let module = Module::new(&self.engine, wasm);
        if module.as_ref().is_ok_and(|module| module.imports().any(|import| reaches(import.name()))) {
            wasi.preopened_dir(directory.path(), "/", FsPerms::ReadWrite).unwrap();
        }
        let host = Host { wasi: wasi.build_p1(), limits: Limits::default(), entered: false };
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.limits);
        store.set_hostcall_fuel(32 << 20);
        // One tick is under way.
        store.set_epoch_deadline(11);
        let end = self.end(&mut store, module).await;
        drop(store);
        Ran { end, out: out.contents().to_vec(), err: err.contents().to_vec() }
    }

    async fn end(&self, store: &mut Store<Host>, module: wasmtime::Result<Module>) -> End {
        let pre = module.and_then(|module| self.linker.instantiate_pre(&module));
        let Ok(pre) = pre else { return End::Refused };
        let run = async {
            let instance = pre.instantiate_async(&mut *store).await?;
            store.data_mut().entered = true;
            instance.get_typed_func::<(), ()>(&mut *store, "_start")?.call_async(&mut *store, ()).await
        };
        let Err(error) = run.await else { return End::Exited(0) };
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return End::Exited((exit.0 & 0xff) as u8);
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => End::Time,
            Some(trap) => End::Trapped(word(*trap).to_owned()),
            None if store.data().entered => End::Trapped("host-call".to_owned()),
            None if store.data().limits.refused => End::Memory,
            None => End::Failed,
        }
    }
}

/// As in a reason of the daemon's.
fn word(trap: Trap) -> &'static str {
    match trap {
        Trap::StackOverflow => "stack-overflow",
        Trap::MemoryOutOfBounds => "memory-out-of-bounds",
        Trap::TableOutOfBounds => "table-out-of-bounds",
        Trap::IndirectCallToNull => "null-call",
        Trap::BadSignature => "bad-signature",
        Trap::IntegerOverflow => "integer-overflow",
        Trap::IntegerDivisionByZero => "integer-division-by-zero",
        Trap::BadConversionToInteger => "bad-conversion",
        Trap::UnreachableCodeReached => "unreachable",
        other => panic!("a trap that no such module has: {other}"),
    }
}

/// Through the daemon, attached.
async fn run(client: &mut Client, name: &str) -> Ran {
    let (mut out, mut err) = (vec![], vec![]);
    client.send(&["run", "--attach", "--rm", "--timeout", "1s", "--cpu-time", "1s", name]).await.unwrap();
    let end = soon("the end of the run", async {
        loop {
            match client.next::<InstanceView>().await {
                Ok(Next::Event(StreamEvent::Output(output))) => {
                    let to = if output.stream == StdStream::Stdout { &mut out } else { &mut err };
                    to.extend_from_slice(&output.data.into_bytes().unwrap());
                }
                Ok(Next::Event(_)) => {}
                Ok(Next::End(view)) => return end_of(&view),
                Err(ClientError::Refused(refusal)) if refusal.code == Code::BadModule => return End::Refused,
                Err(e) => panic!("{name}: {e}"),
            }
        }
    });
    Ran { end: end.await, out, err }
}

fn end_of(view: &InstanceView) -> End {
    let reason = view.reason.as_deref().unwrap();
    match (view.state.as_str(), reason) {
        ("exited", _) => End::Exited(view.exit_code.unwrap()),
        ("trapped", trap) => End::Trapped(trap.strip_prefix("trap:").unwrap().to_owned()),
        ("killed", "memory") => End::Memory,
        ("killed", "cpu-time") | ("timed-out", _) => End::Time,
        ("failed", "instantiate") => End::Failed,
        other => panic!("an end that no such module has: {other:?}"),
    }
}

/// Resident memory in KiB, and open descriptors.
#[cfg(target_os = "linux")]
fn holds(pid: u32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib = line.trim().trim_end_matches(" kB").parse().unwrap();
    (kib, std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

fn say(what: &str) {
    use std::io::Write as _;
    // Past the capture of the test's output, so that the seed of a run that hangs is seen too.
    let _printed = writeln!(std::io::stderr(), "{what}");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|n| n.parse().unwrap())
}

/// The difference, and the module beside it, for whoever looks into it.
fn differ(seed: u64, wasm: &[u8], why: &str) -> ! {
    let kept = std::env::temp_dir().join(format!("coracle-random-{seed}.wasm"));
    std::fs::write(&kept, wasm).unwrap();
    panic!("CORACLE_RANDOM_SEED={seed} CORACLE_RANDOM_MODULES=1: {why}; the module is {}", kept.display());
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn random_modules_end_as_they_do_in_plain_wasmtime() {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = number("CORACLE_RANDOM_SEED").unwrap_or(now);
    let modules = number("CORACLE_RANDOM_MODULES").unwrap_or(200);
    say(&format!("CORACLE_RANDOM_SEED={seed} CORACLE_RANDOM_MODULES={modules}"));
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(format!("{name}.wasm"));
    let cli = Cli::alone();
    let directory = directory.path().display().to_string();
    let daemon =
        Foreground::start(&cli, &[&["--listen", "127.0.0.1:0", "--modules", &directory], &DAEMON[..]].concat());
    let mut client = Client::connect(daemon.address()).await.unwrap();
    let plain = Plain::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut before = None;
    for i in 0..modules {
        let seed = seed.wrapping_add(i);
        let wasm = module(seed);
        let name = format!("r{seed}");
        replace(&path(&name), &wasm);
        let ours = run(&mut client, &name).await;
        std::fs::remove_file(path(&name)).unwrap();
        // What `explain` says before is what the run says.
        let told = Report::of(&name, &coracle::engine::facts(&wasm, false));
        if told.runs == (ours.end == End::Refused) {
            differ(seed, &wasm, &format!("{:?}, and `explain` says {told:?}", ours.end));
        }
        let theirs = plain.run(&wasm, &name).await;
        // How many frames fit on a stack depends on their size, which is another one with loops unrolled.
        let overflow = End::Trapped("stack-overflow".to_owned());
        let apart = [&ours, &theirs].iter().any(|ran| ran.end == End::Time || ran.end == overflow);
        let printed = theirs.out.len() + theirs.err.len();
        if !apart && ours.end != theirs.end {
            differ(seed, &wasm, &format!("{:?}, and in plain wasmtime {:?}", ours.end, theirs.end));
        }
        if !apart && printed <= OUTPUT_BYTES && ours != theirs {
            differ(seed, &wasm, &format!("it printed {ours:?}, and in plain wasmtime {theirs:?}"));
        }
        let kind = match &theirs.end {
            _ if apart => "time or stack".to_owned(),
            End::Exited(0) => "exited (0)".to_owned(),
            End::Exited(_) => "exited with a code".to_owned(),
            end => format!("{end:?}"),
        };
        *counts.entry(kind).or_default() += 1;
        if printed > 0 {
            *counts.entry("with output".to_owned()).or_default() += 1;
        }
        if i % 100 == 99 {
            soon("an answer", client.list()).await.unwrap();
        }
        if i == WARM {
            before = Some(holds(daemon.child.id()));
        }
    }
    say(&format!("{counts:?}"));
    if modules >= 200 {
        // Or they would prove little.
        let many = |kind: &str| counts.get(kind).copied().unwrap_or_default();
        assert!(
            many("exited (0)") * 10 > modules && many("with output") * 50 > modules,
            "CORACLE_RANDOM_SEED={seed}: {counts:?}"
        );
        assert!(many("Refused") * 4 < modules, "CORACLE_RANDOM_SEED={seed}: {counts:?}");
    }
    if let Some((memory, descriptors)) = before {
        let after = holds(daemon.child.id());
        say(&format!("{memory} KiB and {descriptors} descriptors before, {} KiB and {} after", after.0, after.1));
        assert!(after.0 <= memory + (64 << 10) && after.1 <= descriptors + 8);
    }
}

/// Tight limits: those that both sides have, and small caches.
const DAEMON: [&str; 10] =
    ["--memory", "16m", "--module-cache", "8", "--compiled-cache", "16m", "--log", "64k", "--guest-priority", "normal"];

/// Whole, for the daemon looks at any time.
fn replace(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("aside");
    std::fs::write(&aside, bytes).unwrap();
    std::fs::rename(&aside, path).unwrap();
}
