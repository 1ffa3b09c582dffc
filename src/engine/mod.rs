//! The only folder that says `wasmtime`: the configured engine, compilation, the sandbox, and the one place where guest code runs.
//!
//! It knows nothing of sockets, names or the registry. Everything is blocking or a plain future; who runs it is `daemon/`'s choice.

mod compile;
mod disk;
mod precompiled;
mod program;
mod run;
mod sandbox;
mod stdio;
mod structure;
mod ticker;

pub use compile::{Compiler, NotCompiled};
pub use disk::{DiskBudget, Floor, Scan, Usage};
pub use program::{Needs, NotLoaded, Program};
pub use run::run;
pub use sandbox::{MemoryBudget, Sandbox};
pub use stdio::{Sink, StdinPipe};
pub use ticker::{Paced, set_turn_ticks, step_back_at_ticks};

use crate::config::fixed;
use crate::error::{Error, Result};
use disk::Files;
use sandbox::Host;
use ticker::Ticker;
use wasmtime::{Config, ModuleVersionStrategy, WasmBacktraceDetails, WasmFeatures};
use wasmtime_wasi::{I32Exit, p1, p2};

/// The version of the engine, for `hello`.
pub const VERSION: &str = "wasmtime 48";

/// The engine to the last digit, and ours. wasmtime itself compares the first number only, and would run code that a
/// release with a flaw has compiled.
const VERSION_OF_CODE: &str = concat!("wasmtime 48.0.8, coracle ", env!("CARGO_PKG_VERSION"));

/// A configured wasmtime engine with its linkers and its ticker. One for the daemon's life. It has no compiler: code comes
/// from a [`Compiler`] in a process of its own.
pub struct Engine {
    engine: wasmtime::Engine,
    modules: wasmtime::Linker<Host>,
    components: wasmtime::component::Linker<Host>,
    ticker: Ticker,
}

/// The one place that configures the engine.
fn configuration() -> Config {
    let mut config = Config::new();
    config
        // A loop without calls has no other place where it could be left.
        .epoch_interruption(true)
        .max_wasm_stack(fixed::WASM_STACK_BYTES)
        .async_stack_size(fixed::STACK_BYTES)
        // Component-model async is off, and so is what it costs each run of a component.
        .concurrency_support(false)
        // Names come from the module's name section; files and lines would mean parsing DWARF that a stranger wrote.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_features(features_refused(), false)
        .module_version(ModuleVersionStrategy::Custom(VERSION_OF_CODE.to_owned()))
        .expect("the version is short");
    config
}

/// Proposals that stay off: rare, young or costly to bound. A module that needs one is refused when it is compiled.
fn features_refused() -> WasmFeatures {
    WasmFeatures::THREADS
        | WasmFeatures::SHARED_EVERYTHING_THREADS
        | WasmFeatures::MEMORY64
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::GC
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::LEGACY_EXCEPTIONS
        | WasmFeatures::STACK_SWITCHING
        | WasmFeatures::CUSTOM_PAGE_SIZES
        | WasmFeatures::WIDE_ARITHMETIC
        | WasmFeatures::CM_ASYNC
}

impl Engine {
    /// An engine with its ticker thread.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if this machine cannot run the configuration, or no thread can be had.
    pub fn new() -> Result<Engine> {
        let internal = |what: &str, e: &dyn std::fmt::Display| Error::Internal(format!("{what}: {e}"));
        let mut config = configuration();
        config.enable_compiler(false);
        let engine = wasmtime::Engine::new(&config).map_err(|e| internal("the engine cannot start", &e))?;
        let modules = module_linker(&engine).map_err(|e| internal("WASI preview 1 cannot be linked", &e))?;
        let components = component_linker(&engine).map_err(|e| internal("WASI preview 2 cannot be linked", &e))?;
        let ticker = Ticker::start(engine.weak()).map_err(|e| internal("the ticker thread cannot start", &e))?;
        Ok(Engine { engine, modules, components, ticker })
    }

    /// Ends the current tick at once, so that whoever computes is asked now whether it should go on.
    pub fn tick(&self) {
        self.ticker.interrupt(&self.engine);
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
        let engine = Engine::new().unwrap();
        let refused = wasmtime::Module::new(&engine.engine, "(module)").err().unwrap();
        assert!(format!("{refused:#}").contains("compil"), "{refused:#}");
    }

    #[test]
    fn the_version_of_code_is_that_of_the_engine() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
        let version = lock.split("name = \"wasmtime\"\nversion = \"").nth(1).unwrap().split('"').next().unwrap();
        assert!(VERSION_OF_CODE.starts_with(&format!("wasmtime {version}, ")), "{version}");
    }

    /// One module for each proposal that is off.
    #[test]
    fn refused_features_are_refused() {
        let compiler = Compiler::new().unwrap();
        for (feature, text) in [
            ("threads", "(module (memory 1 1 shared))"),
            ("memory64", "(module (memory i64 1))"),
            ("tail calls", "(module (func return_call 0))"),
            ("gc", "(module (type (struct)))"),
            ("function references", "(module (type $t (func)) (func (param (ref $t))))"),
            ("exceptions", "(module (tag))"),
            ("custom page sizes", "(module (memory 1 (pagesize 1)))"),
            (
                "wide arithmetic",
                "(module (func (param i64 i64 i64 i64) (result i64 i64)
                local.get 0 local.get 1 local.get 2 local.get 3 i64.add128))",
            ),
        ] {
            let bytes = wat::parse_str(text).unwrap();
            match compiler.compile(&bytes, false) {
                Err(NotCompiled::Refused(why)) => assert!(why.len() > 10, "{feature}: {why}"),
                _ => panic!("{feature} is not refused"),
            }
        }
    }
}
