//! The only folder that says `wasmtime`: the configured engine, compilation, the sandbox, and the one place where guest code runs.
//!
//! It knows nothing of sockets, names or the registry. Everything is blocking or a plain future; who runs it is `daemon/`'s choice.

mod disk;
mod program;
mod run;
mod sandbox;
mod stdio;
mod ticker;

pub use disk::{DiskBudget, Scan, Usage};
pub use program::{Needs, NotCompiled, Program};
pub use run::run;
pub use sandbox::{MemoryBudget, Sandbox};
pub use stdio::{Sink, StdinPipe};
pub use ticker::Paced;

use crate::config::fixed;
use crate::error::{Error, Result};
use disk::Files;
use sandbox::Host;
use ticker::Ticker;
use wasmtime::{Config, WasmBacktraceDetails, WasmFeatures};
use wasmtime_wasi::{I32Exit, p1, p2};

/// The version of the engine, for `hello`.
pub const VERSION: &str = "wasmtime 48";

/// A configured wasmtime engine with its linkers and its ticker. One for the daemon's life.
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
        .wasm_features(features_refused(), false);
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
        let engine = wasmtime::Engine::new(&configuration()).map_err(|e| internal("the engine cannot start", &e))?;
        let modules = module_linker(&engine).map_err(|e| internal("WASI preview 1 cannot be linked", &e))?;
        let components = component_linker(&engine).map_err(|e| internal("WASI preview 2 cannot be linked", &e))?;
        let ticker = Ticker::start(engine.weak()).map_err(|e| internal("the ticker thread cannot start", &e))?;
        Ok(Engine { engine, modules, components, ticker })
    }

    /// Ends the current tick at once, so that whoever computes is asked now whether it should go on.
    pub fn tick(&self) {
        self.ticker.tick(&self.engine);
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
mod tests {
    use super::*;

    /// One module for each proposal that is off.
    #[test]
    fn refused_features_are_refused() {
        let engine = Engine::new().unwrap();
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
            match engine.compile(&bytes, false) {
                Err(NotCompiled::Refused(why)) => assert!(why.len() > 10, "{feature}: {why}"),
                _ => panic!("{feature} is not refused"),
            }
        }
    }
}
