//! The only folder that says `wasmtime`: the configured engine, compilation, the sandbox, and the one place where guest code runs.
//!
//! It knows nothing of sockets, names or the registry. Everything is blocking or a plain future; who runs it is `daemon/`'s choice.

mod compile;
mod configuration;
mod disk;
mod pool;
mod precompiled;
mod program;
mod run;
mod sandbox;
mod stdio;
pub(crate) mod structure;
mod ticker;
pub(crate) mod unroll;

pub use compile::{Compiler, NotCompiled};
pub use disk::{DiskBudget, Floor, Scan, Usage};
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
}

impl Engine {
    /// An engine with its ticker thread. `table_entries_max`: what a guest may have in its tables at most.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if this machine cannot run the configuration, or no thread can be had.
    pub fn new(table_entries_max: usize) -> Result<Engine> {
        Engine::with(table_entries_max, true, POOL_PLACES)
    }

    /// One whose thread never ticks: what computes then goes on until [`Engine::tick`] is called.
    ///
    /// # Errors
    ///
    /// As [`Engine::new`].
    pub fn without_ticks(table_entries_max: usize) -> Result<Engine> {
        Engine::with(table_entries_max, false, POOL_PLACES)
    }

    fn with(table_entries_max: usize, ticks: bool, places: u32) -> Result<Engine> {
        let internal = |what: &str, e: &dyn std::fmt::Display| Error::Internal(format!("{what}: {e}"));
        let mut config = configuration();
        config.enable_compiler(false);
        let engine = wasmtime::Engine::new(&config).map_err(|e| internal("the engine cannot start", &e))?;
        let modules = module_linker(&engine).map_err(|e| internal("WASI preview 1 cannot be linked", &e))?;
        let components = component_linker(&engine).map_err(|e| internal("WASI preview 2 cannot be linked", &e))?;
        let pool = Pool::start(config, table_entries_max, places);
        let engines = [&engine].into_iter().chain(pool.as_ref().map(Pool::engine)).map(wasmtime::Engine::weak);
        let ticker =
            Ticker::start(engines.collect(), ticks).map_err(|e| internal("the ticker thread cannot start", &e))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let gate = Arc::new(Gate::new(processors.saturating_mul(FILE_CALLS_EACH)));
        Ok(Engine { engine, modules, pool, components, ticker, unfinished: Arc::default(), gate })
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
        let code = Compiler::new().unwrap().compile(bytes, text).map_err(|e| match e {
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
