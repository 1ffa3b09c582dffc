//! The one function in which guest code executes.

use super::disk::OverBudget;
use super::program::Kind;
use super::sandbox::{Host, Refused, World};
use super::{Engine, Program, Reach, Sandbox};
use crate::config::fixed;
use crate::model::instance::{Ended, ExitStatus};
use bytesize::ByteSize;
use std::fmt::Write;
use wasmtime::component::ResourceTableError;
use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;

/// Runs `program` in a store of its own until the guest returns, exits or traps.
///
/// # Cancel safety
///
/// To drop the future is to end the guest, wherever it is: wasmtime unwinds its stack and the store goes with it.
pub async fn run(engine: &Engine, program: &Program, mut sandbox: Sandbox) -> Ended {
    let limits = (sandbox.memory_bytes_max, sandbox.table_entries_max);
    let world = match program.kind {
        Kind::Module { .. } => World::Module,
        Kind::Component(_) => World::Component,
    };
    let used = match program.needs().reach {
        Reach::Files => {
            if let Some(directory) = &sandbox.directory {
                engine.unfinished.over(directory).await;
            }
            sandbox.disk.used().await.map(Some)
        }
        Reach::Directory | Reach::Nothing => Ok(None),
    };
    let used = match used {
        Ok(used) => used,
        Err(e) => return failed("io", format!("cannot see how much is in its directory: {e}")),
    };
    let place = match (&program.kind, &engine.pool) {
        (Kind::Module { pooled: Some(pre), .. }, Some(pool)) if sandbox.brief => {
            pool.place().map(|place| (pre, pool, place))
        }
        _ => None,
    };
    let of = place.as_ref().map_or(&engine.engine, |(_, pool, _)| pool.engine());
    // It goes before its place does.
    let mut store = match sandbox.into_store(engine, of, world, used) {
        Ok(store) => store,
        Err(e) => return failed("io", e.to_string()),
    };
    let result = match &program.kind {
        Kind::Module { pre, .. } => run_module(&mut store, place.as_ref().map_or(pre, |(pooled, ..)| *pooled)).await,
        Kind::Component(pre) => run_component(&mut store, pre).await,
    };
    // The next run begins with what is in the directory.
    store.data_mut().written().await;
    let refused = refusals(store.data(), limits);
    match result {
        Ok(code) => exited(code, refused),
        Err(error) => ended_by(&error, refused, store.data().was_entered()),
    }
}

async fn run_module(store: &mut Store<Host>, pre: &wasmtime::InstancePre<Host>) -> wasmtime::Result<u8> {
    let instance = pre.instantiate_async(&mut *store).await?;
    store.data_mut().enter();
    instance.get_typed_func::<(), ()>(&mut *store, "_start")?.call_async(store, ()).await?;
    Ok(0)
}

async fn run_component(store: &mut Store<Host>, pre: &CommandPre<Host>) -> wasmtime::Result<u8> {
    let command = pre.instantiate_async(&mut *store).await?;
    store.data_mut().enter();
    Ok(u8::from(command.wasi_cli_run().call_run(store).await?.is_err()))
}

/// A guest that fails after something was refused mostly fails for that.
fn exited(code: u8, refused: Option<String>) -> Ended {
    Ended::new(ExitStatus::Exited(code), "exit", refused.filter(|_| code != 0))
}

fn failed(reason: &str, message: String) -> Ended {
    Ended::new(ExitStatus::Failed, reason, Some(message))
}

/// What an error out of wasmtime means for the run.
fn ended_by(error: &wasmtime::Error, refused: Option<String>, entered: bool) -> Ended {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        // Both worlds hand out the low eight bits.
        return exited(u8::try_from(exit.0 & 0xff).expect("eight bits fit a byte"), refused);
    }
    let trap = error.downcast_ref::<Trap>();
    let mut message = match trap {
        Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        None => host_call(error),
    };
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        message.push_str(&frames(backtrace));
    }
    match (trap, refused) {
        // Its memories or tables are larger than it may have from the start: no guest code ran.
        (None, Some(refused)) if !entered => Ended::new(ExitStatus::Killed, "memory", Some(refused)),
        (None, None) if !entered => failed("instantiate", message),
        (trap, refused) => {
            if let Some(refused) = refused {
                // First what a person can do something about: where there is little room, the rest is cut.
                message.insert_str(0, &format!("{refused}; then "));
            }
            let kind = trap.map_or("host-call", |t| trap_word(*t));
            Ended::new(ExitStatus::Trapped, format!("trap:{kind}"), Some(message))
        }
    }
}

/// Why a call of the host failed for good; where a limit of ours is behind it, with its flag.
fn host_call(error: &wasmtime::Error) -> String {
    let cause = error.root_cause().to_string();
    let full = error.chain().any(|e| matches!(e.downcast_ref(), Some(ResourceTableError::Full)))
        // wasmtime's words for a component's own numbers.
        || cause.ends_with("store handle limit exceeded");
    match cause.starts_with("requested len ") {
        _ if full => "it has as many files, directories, streams and resources open as it may (--handles)".to_owned(),
        // wasmtime-wasi's words for random bytes: how many, and the limit.
        true => format!("random bytes: {cause} (--random-size)"),
        false => cause,
    }
}

/// What the guest was last refused of memory and of disk.
fn refusals(host: &Host, limits: (usize, usize)) -> Option<String> {
    let memory = host.refused().map(|refused| refusal(refused, limits));
    let disk = host.disk_refused().map(|(over, max)| match over {
        OverBudget::Bytes(wanted) => {
            format!("it was refused {} of disk; its limit is {} (--disk)", ByteSize(wanted), ByteSize(max.bytes))
        }
        OverBudget::Files(wanted) => format!("it was refused {wanted} files; its limit is {} (--files)", max.files),
        OverBudget::Room(wanted) => {
            format!("it was refused {} on the disk, which would be too full then (--disk-free)", ByteSize(wanted))
        }
    });
    match (memory, disk) {
        (Some(memory), Some(disk)) => Some(format!("{memory}; {disk}")),
        (memory, disk) => memory.or(disk),
    }
}

fn refusal(refused: Refused, limits: (usize, usize)) -> String {
    let (memory_bytes_max, entries_max) = limits;
    let size = |bytes: usize| ByteSize(u64::try_from(bytes).unwrap_or(u64::MAX));
    match refused {
        Refused::Memory(wanted) => {
            format!("it was refused {} of memory; its limit is {} (-m)", size(wanted), size(memory_bytes_max))
        }
        Refused::MemoryOfAll(wanted) => format!(
            "it was refused {} of memory, because all instances together are at their limit (--memory-total)",
            size(wanted)
        ),
        Refused::MemoryOfSystem(wanted) => {
            format!("it was refused {} of memory by the system, which has no more for the daemon", size(wanted))
        }
        Refused::Entries(wanted) => {
            format!("it was refused {wanted} table entries; its limit is {entries_max} (--table-entries)")
        }
    }
}

/// A name from a module, which is as long as its author likes, is cut here before anything is done with it.
const NAME_BYTES_MAX: usize = 1024;

/// What the frames take of a message, in bytes; a refusal that came before the trap stands behind them.
const FRAMES_BYTES_MAX: usize = 256;

/// The frames nearest to the trap, one behind the other: `in inner < outer < _start`.
fn frames(backtrace: &WasmBacktrace) -> String {
    let all = backtrace.frames();
    let mut out = String::new();
    for (i, frame) in all.iter().take(fixed::BACKTRACE_FRAMES_MAX).enumerate() {
        out.push_str(if i == 0 { " in " } else { " < " });
        match frame.func_name() {
            Some(name) => {
                let name = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
                let end = out.len() + FRAMES_BYTES_MAX;
                // What is left out is cut below.
                let _cut = write!(Short { out: &mut out, end }, "{:#}", rustc_demangle::demangle(name));
            }
            None => {
                let _infallible = write!(out, "function {}", frame.func_index());
            }
        }
    }
    if all.len() > fixed::BACKTRACE_FRAMES_MAX {
        let _infallible = write!(out, " < {} more", all.len() - fixed::BACKTRACE_FRAMES_MAX);
    }
    crate::model::escape::short(&out, FRAMES_BYTES_MAX)
}

/// Takes no more text behind a point, and stops whoever has more: a mangled name can stand for a megabyte, and take seconds to
/// be spelled out.
struct Short<'a> {
    out: &'a mut String,
    end: usize,
}

impl Write for Short<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.end.saturating_sub(self.out.len());
        self.out.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() <= room { Ok(()) } else { Err(std::fmt::Error) }
    }
}

/// The word behind `trap:` in a reason.
fn trap_word(trap: Trap) -> &'static str {
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
        Trap::Interrupt => "interrupt",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::super::sandbox::tests::bare;
    use super::super::{DiskBudget, Scan, Usage};
    use super::*;
    use crate::model::instance::MESSAGE_BYTES_MAX;

    fn run_text(text: &str) -> Ended {
        let engine = Engine::new(100_000).unwrap();
        let program = super::super::tests::program(&engine, text.as_bytes(), true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(engine.paced(run(&engine, &program, bare())))
    }

    fn start(body: &str) -> String {
        format!(
            "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32))) (memory (export \"memory\") 1)
               (table 1 funcref) (func $inner {body}) (func $main (export \"_start\") call $inner))"
        )
    }

    #[test]
    fn exit_codes_are_the_guests_own() {
        assert_eq!(run_text(&start("")).status, ExitStatus::Exited(0));
        for code in [0, 1, 7, 125, 126, 200, 255] {
            let ended = run_text(&start(&format!("i32.const {code} call $exit")));
            assert_eq!((ended.status, ended.reason.as_str()), (ExitStatus::Exited(code), "exit"));
        }
        // As a process: the low eight bits.
        assert_eq!(run_text(&start("i32.const 256 call $exit")).status, ExitStatus::Exited(0));
        assert_eq!(run_text(&start("i32.const -1 call $exit")).status, ExitStatus::Exited(255));
    }

    #[test]
    fn a_trap_names_its_kind_and_where_it_was() {
        for (body, kind, says) in [
            ("unreachable", "trap:unreachable", "in inner < main"),
            ("i32.const 1 i32.const 0 i32.div_u drop", "trap:integer-division-by-zero", "divide by zero in inner"),
            ("i32.const -1 i32.load drop", "trap:memory-out-of-bounds", "out of bounds memory access in inner"),
            ("i32.const 0 call_indirect", "trap:null-call", "uninitialized element"),
            ("call $inner", "trap:stack-overflow", "more"),
        ] {
            let ended = run_text(&start(body));
            assert_eq!((ended.status, ended.reason.as_str()), (ExitStatus::Trapped, kind), "{ended:?}");
            let message = ended.message.unwrap();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn a_program_larger_than_its_memory_never_starts_and_one_page_less_does() {
        let module = |pages: u32| format!("(module (memory (export \"memory\") {pages}) (func (export \"_start\")))");
        assert_eq!(run_text(&module(16)).status, ExitStatus::Exited(0));
        let ended = run_text(&module(17));
        assert_eq!((ended.status, ended.reason.as_str()), (ExitStatus::Killed, "memory"), "{ended:?}");
        assert!(ended.message.unwrap().contains("-m"));
        let tables = "(module (memory (export \"memory\") 15) (table 8193 funcref) (func (export \"_start\")))";
        assert_eq!(run_text(tables).reason, "memory", "memories and tables are one sum");
        let entries = |n: u32| format!("(module (table {n} funcref) (func (export \"_start\")))");
        assert_eq!(run_text(&entries(100_000)).status, ExitStatus::Exited(0));
        assert!(run_text(&entries(100_001)).message.unwrap().contains("its limit is 100000 (--table-entries)"));
        let two = |pages: u32| format!("(module (memory 8) (memory {pages}) (func (export \"_start\")))");
        assert_eq!(run_text(&two(8)).status, ExitStatus::Exited(0));
        assert_eq!(run_text(&two(9)).reason, "memory", "and so are several memories");
    }

    #[test]
    fn a_refused_growth_is_minus_one_to_the_guest_and_named_when_it_traps() {
        let exit = start("i32.const 16 memory.grow i32.const 0xff i32.and call $exit");
        assert_eq!(run_text(&exit).status, ExitStatus::Exited(255));
        let ended = run_text(&start("i32.const 16 memory.grow drop unreachable"));
        assert_eq!(ended.reason, "trap:unreachable");
        assert!(ended.message.unwrap().contains("its limit is 1.0 MiB (-m)"));
    }

    /// A name section that is long, moves the cursor, reorders text and breaks lines.
    #[test]
    fn what_a_module_calls_its_functions_is_bounded_and_printable() {
        let hostile = "\u{1b}[2J\u{202e}\n.\r\u{9b}31m\u{2028}\u{0}";
        let long = hostile.repeat(20_000);
        for name in [hostile, &long, "_ZN4evil17h0123456789abcdefE", &"é".repeat(100_000)] {
            let quoted: String = name.bytes().map(|byte| format!("\\{byte:02x}")).collect();
            let text = format!(
                "(module (func $a (@name \"{quoted}\") i32.const 2 memory.grow drop unreachable) (memory 15)
                   (func (@name \"{quoted}\") (export \"_start\") call $a))"
            );
            let ended = run_text(&text);
            assert_eq!(ended.reason, "trap:unreachable");
            let message = ended.message.unwrap();
            assert!(message.len() <= MESSAGE_BYTES_MAX, "{} bytes", message.len());
            assert_eq!(crate::model::escape::line(&message), message);
            assert!(
                message.contains("its limit is 1.0 MiB (-m); then wasm `unreachable`"),
                "what it was refused is told all the same: {message}"
            );
            assert!(message.contains(" in "), "{message}");
        }
    }

    /// References back into a name make it as long as one likes, for those who go along with it.
    #[test]
    fn a_name_that_stands_for_a_megabyte_is_not_spelled_out() {
        fn base_62(n: usize) -> String {
            let digits = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
            let (mut left, mut out) = (n - 1, vec![b'_']);
            loop {
                out.insert(0, digits[left % 62]);
                left /= 62;
                if left == 0 {
                    return String::from_utf8(out).unwrap();
                }
            }
        }
        let mut name = format!("IC0{}C0{}", "Nt".repeat(225), "0".repeat(225));
        let mut level = 3;
        for _ in 0..6 {
            let next = name.len();
            name.push_str(&format!("T{}E", format!("B{}", base_62(level)).repeat(12)));
            level = next;
        }
        let name = format!("_R{name}E");
        assert!(name.len() < NAME_BYTES_MAX && rustc_demangle::try_demangle(&name).is_ok());
        let begun = std::time::Instant::now();
        let mut spelled = String::new();
        write!(Short { out: &mut spelled, end: FRAMES_BYTES_MAX }, "{:#}", rustc_demangle::demangle(&name))
            .unwrap_err();
        assert_eq!(spelled.len(), FRAMES_BYTES_MAX);
        let bounded = begun.elapsed();
        let begun = std::time::Instant::now();
        let mut whole = String::new();
        let _too_long = write!(whole, "{:#}", rustc_demangle::demangle(&name));
        assert!(whole.len() > 1000 * FRAMES_BYTES_MAX, "{} bytes", whole.len());
        // Side by side, or a slow machine would decide.
        assert!(bounded * 20 < begun.elapsed(), "{bounded:?} of {:?}", begun.elapsed());
    }

    /// Holds the one thread that may block from the first byte that is printed on.
    struct Holds {
        released: std::sync::Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    }

    #[async_trait::async_trait]
    impl super::super::Sink for Holds {
        fn room(&self) -> usize {
            4096
        }
        async fn ready(&self) {}
        fn write(&self, _: crate::model::request::StdStream, _: bytes::Bytes) {
            let released = self.released.lock().unwrap().take().unwrap();
            tokio::task::spawn_blocking(move || released.recv());
        }
    }

    /// It may land at any time, and what is in the directory is counted behind it.
    #[test]
    fn what_a_dropped_guest_has_left_to_a_thread_is_waited_for() {
        let text = "(module
            (import \"wasi_snapshot_preview1\" \"path_open\"
              (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export \"memory\") 1)
            (data (i32.const 0) \"file\") (data (i32.const 8) \"\\00\\00\\00\\00\\04\\00\\00\\00\")
            (func (export \"_start\")
              (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4)
                (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 16)))
              (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 20)))
              (drop (call $write (i32.load (i32.const 16)) (i32.const 8) (i32.const 1) (i32.const 20)))))";
        let engine = Engine::new(100_000).unwrap();
        let program = super::super::tests::program(&engine, text.as_bytes(), true).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().max_blocking_threads(1).build().unwrap().block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let (release, released) = std::sync::mpsc::channel();
            let sink = std::sync::Arc::new(Holds { released: std::sync::Mutex::new(Some(released)) });
            let sandbox = Sandbox { directory: Some(directory.path().to_owned()), sink: sink.clone(), ..bare() };
            let mut guest = Box::pin(engine.paced(run(&engine, &program, sandbox)));
            // A few turns more than it takes to come to the write behind it.
            let mut turns = 0;
            while turns < 10 {
                tokio::select! {
                    biased;
                    ended = &mut guest => panic!("{ended:?}"),
                    () = tokio::task::yield_now() => {}
                }
                if sink.released.lock().unwrap().is_none() {
                    turns += 1;
                }
            }
            assert!(!engine.unfinished.is_left(directory.path()));
            drop(guest);
            assert!(engine.unfinished.is_left(directory.path()));
            let scan: Scan = Box::new(|_| Ok(Usage { bytes: 1 << 20, files: 0 }));
            let disk = DiskBudget { scan: Some(scan), ..bare().disk };
            let sandbox = Sandbox { directory: Some(directory.path().to_owned()), disk, ..bare() };
            let mut next = Box::pin(engine.paced(run(&engine, &program, sandbox)));
            let early = tokio::time::timeout(std::time::Duration::from_millis(20), &mut next).await;
            assert!(early.is_err(), "{early:?}");
            release.send(()).unwrap();
            assert_eq!(next.await.status, ExitStatus::Exited(0));
            assert!(!engine.unfinished.is_left(directory.path()));
        });
    }

    #[test]
    fn a_start_function_that_traps_is_a_trap() {
        let ended = run_text("(module (func $s unreachable) (start $s) (func (export \"_start\")))");
        assert_eq!(ended.reason, "trap:unreachable");
    }
}
