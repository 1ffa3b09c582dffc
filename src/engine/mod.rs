//! The only folder that says `wasmtime`: the configured engine, compilation, the sandbox, and the one place where guest code runs.
//!
//! It knows nothing of sockets, names or the registry. Everything is blocking or a plain future; who runs it is `daemon/`'s choice.

mod compile;
mod configuration;
mod disk;
mod facts;
mod gauges;
mod pool;
mod precompiled;
mod program;
mod run;
mod sandbox;
#[cfg(target_os = "linux")]
mod slabs;
mod stdio;
pub(crate) mod structure;
mod ticker;
pub(crate) mod unroll;

pub use compile::{Compiler, NotCompiled};
pub use disk::{DiskBudget, Floor, Scan, Usage};
pub use facts::facts;
pub use gauges::Gauges;
pub use program::{Code, Needs, NotLoaded, Program, Reach};
pub use run::run;
pub use sandbox::{MemoryBudget, Sandbox};
pub use stdio::{Sink, StdinPipe};
pub use ticker::{Paced, set_turn_ticks, step_back_at_ticks};

use crate::config::fixed::{FILE_CALLS_EACH, POOL_PLACES};
use crate::error::{Error, Result};
use configuration::configuration;
use disk::{Files, Gate, Unfinished};
use pool::Pool;
use sandbox::Host;
use std::sync::Arc;
use ticker::Ticker;
use wasmtime_wasi::{I32Exit, p1, p2};

/// The version of the engine, for `hello`.
pub const VERSION: &str = "wasmtime 48";

/// A configured wasmtime engine with its linkers and its ticker. One for the daemon's life. It has no compiler: code comes
/// from a [`Compiler`] in a process of its own.
pub struct Engine {
    engine: wasmtime::Engine,
    modules: wasmtime::Linker<Host>,
    pool: Option<Pool>,
    components: wasmtime::component::Linker<Host>,
    ticker: Ticker,
    unfinished: Arc<Unfinished>,
    gate: Arc<Gate>,
    entries: Entries,
}

/// How an engine is set up.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// What a guest may have in its tables at most.
    pub table_entries_max: usize,
    /// As many guests as possible, and not each as fast as possible: memories reserve nothing, and code compares each address.
    pub dense: bool,
    /// Whether the thread ticks. Otherwise what computes goes on until [`Engine::tick`] is called.
    pub ticks: bool,
    /// Places that are used again; a dense engine has none.
    pub places: u32,
}

impl Setup {
    /// The ordinary one.
    pub fn new(table_entries_max: usize) -> Setup {
        Setup { table_entries_max, dense: false, ticks: true, places: POOL_PLACES }
    }
}

/// Entries of the process's memory map that a guest may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entries {
    /// For each memory.
    pub memory: usize,
    /// For its stack.
    pub stack: usize,
    /// For its code, which all who run it have together.
    pub code: usize,
}

impl Entries {
    /// Memories and stacks that are mappings each: the guard before a memory, what is accessible, and what is reserved behind
    /// that; a stack and its guard. Beside so many code is not charged for.
    pub const ORDINARY: Entries = Entries { memory: 3, stack: 2, code: 0 };
}

impl Engine {
    /// An engine with its ticker thread. `table_entries_max`: what a guest may have in its tables at most.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if this machine cannot run the configuration, or no thread can be had.
    pub fn new(table_entries_max: usize) -> Result<Engine> {
        Engine::start(Setup::new(table_entries_max))
    }

    /// An engine that is set up in another way.
    ///
    /// # Errors
    ///
    /// As [`Engine::new`]; and [`Error::Denied`] if this machine has nothing for a dense one.
    pub fn start(setup: Setup) -> Result<Engine> {
        let Setup { table_entries_max, dense, ticks, places } = setup;
        let internal = |what: &str, e: &dyn std::fmt::Display| Error::Internal(format!("{what}: {e}"));
        let mut config = configuration(dense);
        config.enable_compiler(false);
        let entries = if dense { cut_from_slabs(&mut config)? } else { Entries::ORDINARY };
        let engine = wasmtime::Engine::new(&config).map_err(|e| internal("the engine cannot start", &e))?;
        let modules = module_linker(&engine).map_err(|e| internal("WASI preview 1 cannot be linked", &e))?;
        let components = component_linker(&engine).map_err(|e| internal("WASI preview 2 cannot be linked", &e))?;
        let pool = if dense { None } else { Pool::start(config, table_entries_max, places) };
        let engines = [&engine].into_iter().chain(pool.as_ref().map(Pool::engine)).map(wasmtime::Engine::weak);
        let ticker =
            Ticker::start(engines.collect(), ticks).map_err(|e| internal("the ticker thread cannot start", &e))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let gate = Arc::new(Gate::new(processors.saturating_mul(FILE_CALLS_EACH)));
        Ok(Engine { engine, modules, pool, components, ticker, unfinished: Arc::default(), gate, entries })
    }

    /// What a guest may take of the process's memory map.
    pub fn entries(&self) -> Entries {
        self.entries
    }

    /// Ends the current tick at once, so that whoever computes is asked now whether it should go on.
    pub fn tick(&self) {
        self.ticker.interrupt();
    }

    /// Lets the ticker run while `future` is being polled, and only then.
    pub fn paced<F: Future>(&self, future: F) -> Paced<F> {
        self.ticker.paced(future)
    }
}

#[cfg(target_os = "linux")]
fn cut_from_slabs(config: &mut wasmtime::Config) -> Result<Entries> {
    let stack = slabs::install(config).map_err(|e| {
        Error::Denied(format!(
            "--dense needs addresses that no memory is kept for, and the system gives none (ulimit -v, vm.overcommit_memory): {e}"
        ))
    })?;
    // Of code: what can be executed, and what is before and behind that; one for what the allocator maps for it.
    Ok(Entries { memory: 0, stack, code: 4 })
}

#[cfg(not(target_os = "linux"))]
fn cut_from_slabs(_: &mut wasmtime::Config) -> Result<Entries> {
    Err(Error::Denied("--dense is for Linux only".to_owned()))
}

fn module_linker(engine: &wasmtime::Engine) -> wasmtime::Result<wasmtime::Linker<Host>> {
    let mut linker = wasmtime::Linker::new(engine);
    p1::wasi_snapshot_preview1::add_to_linker(&mut linker, |host: &mut Host| host.wasi_p1())?;
    // wasmtime-wasi refuses statuses of 126 and above, which other hosts pass on; a process's status is its low eight bits
    // (WASI preview 1 `proc_exit`; exit(3)).
    linker.allow_shadowing(true);
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |status: i32| -> wasmtime::Result<()> {
        Err(I32Exit(status & 0xff).into())
    })?;
    Ok(linker)
}

fn component_linker(engine: &wasmtime::Engine) -> wasmtime::Result<wasmtime::component::Linker<Host>> {
    let mut linker = wasmtime::component::Linker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    // In the place of wasmtime-wasi's own, which knows no budget.
    linker.allow_shadowing(true);
    p2::bindings::filesystem::types::add_to_linker::<Host, Files>(&mut linker, Host::files)?;
    Ok(linker)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Compiles in this process, which no daemon does, and loads what came of it.
    pub(crate) fn program(engine: &Engine, bytes: &[u8], text: bool) -> Result<Program, String> {
        use std::io::{Seek as _, Write as _};
        let dense = engine.entries != Entries::ORDINARY;
        let code = Compiler::new(dense).unwrap().compile(bytes, text).map_err(|e| match e {
            NotCompiled::Refused(why) => why,
            other => format!("{other:?}"),
        })?;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&code).unwrap();
        file.rewind().unwrap();
        engine.load(file).map_err(|e| match e {
            NotLoaded::Refused(why) | NotLoaded::Unusable(why) => why,
        })
    }

    #[test]
    fn the_daemons_engine_cannot_compile() {
        let engine = Engine::new(100_000).unwrap();
        let refused = wasmtime::Module::new(&engine.engine, "(module)").err().unwrap();
        assert!(format!("{refused:#}").contains("compil"), "{refused:#}");
    }
}
