//! Memories, tables and stacks that are used again: to map and unmap them for each run is most of what a short run costs, and
//! on several processors each unmapping interrupts the others.
//!
//! wasmtime has this as another engine, with the same code and places of fixed sizes. Who wants to run briefly takes a place if
//! one is free, and if the module fits one; all others are given memory of their own, as everywhere but on Linux. To a guest
//! both are the same: what a place had of the guest before is taken away before the next has it, and the limits that are
//! asked about growth are those of the store.

use super::module_linker;
use super::precompiled::{self, Code};
use super::sandbox::Host;
use crate::config::fixed;
use std::fs::File;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, PoolingAllocationConfig};

/// The other engine, and its places.
pub(super) struct Pool {
    engine: Engine,
    modules: Linker<Host>,
    places: Arc<Semaphore>,
}

/// A place for one store. To be dropped after the store.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// `None` where it would be of no use, or where the system does not give the addresses for it (`ulimit -v`): then it is
    /// done without. `configuration`: how the engine is set up otherwise. `table_entries_max`: what a guest may have.
    pub(super) fn start(mut configuration: Config, table_entries_max: usize, places: u32) -> Option<Pool> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(places)
            .total_memories(places)
            .total_tables(places)
            .total_stacks(places)
            // Modules only: components have parts of too many sizes.
            .total_component_instances(0)
            .max_memories_per_module(1)
            .max_tables_per_module(1)
            // A growth beyond it fails, whatever the limiter says.
            .table_elements(table_entries_max)
            .max_memory_size(usize::try_from(fixed::MEMORY_ADDRESSES).ok()?)
            // What is written over with zeros instead of being given back to the system, and so stays resident in a free place.
            .linear_memory_keep_resident(fixed::POOL_MEMORY_KEPT_BYTES)
            .table_keep_resident(fixed::POOL_TABLE_KEPT_BYTES)
            .async_stack_keep_resident(fixed::POOL_STACK_KEPT_BYTES)
            .pagemap_scan(Enabled::Auto);
        configuration
            // No guest sees another one's stack; but one that went deep would leave all of it resident.
            .async_stack_zeroing(true)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let started = Engine::new(&configuration).and_then(|engine| Ok((module_linker(&engine)?, engine)));
        match started {
            Ok((modules, engine)) => {
                let places = usize::try_from(places).expect("a number of places fits");
                Some(Pool { engine, modules, places: Arc::new(Semaphore::new(places)) })
            }
            Err(e) => {
                tracing::info!("runs begin more slowly, without memory that is used again: {e:#}");
                None
            }
        }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A module that was loaded before, once more for this engine. `None`: it does not fit.
    pub(super) fn load(&self, file: File) -> Option<InstancePre<Host>> {
        match precompiled::load(&self.engine, file) {
            Ok(Code::Module(module)) => self.modules.instantiate_pre(&module).ok(),
            Ok(Code::Component(_)) => None,
            Err(e) => {
                tracing::debug!("a module has no place among memory that is used again: {e:#}");
                None
            }
        }
    }

    /// A place, if one is free.
    pub(super) fn place(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.places.available_permits()
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::super::sandbox::tests::bare;
    use super::super::tests::program;
    use super::super::{Engine, Program, Sandbox, Setup, run};
    use crate::model::instance::Ended;

    const PLACES: u32 = 1;

    fn engine() -> Engine {
        Engine::start(Setup { places: PLACES, ..Setup::new(1000) }).unwrap()
    }

    fn free(engine: &Engine) -> usize {
        engine.pool.as_ref().unwrap().free()
    }

    fn end_of(engine: &Engine, program: &Program) -> Ended {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sandbox = Sandbox { memory_bytes_max: 4 << 20, table_entries_max: 1000, ..bare() };
        runtime.block_on(engine.paced(run(engine, program, sandbox)))
    }

    /// Looks at all of its memory and its table, leaves with 1 or 2 if something is there that is not its own, and writes all
    /// over them. `to`: pages that it grows to. `data`: where it has bytes of its own.
    fn leaves_everything(to: usize, data: usize, own: u8) -> String {
        format!(
            "(module
               (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
               (memory (export \"memory\") 2) (table 10 funcref) (elem (i32.const 3) $f) (data (i32.const {data}) \"\\{own:02x}\")
               (global $kept (mut i32) (i32.const 7)) (func $f)
               (func (export \"_start\") (local $at i32) (local $end i32)
                 (drop (memory.grow (i32.const {}))) (drop (table.grow (ref.null func) (i32.const 100)))
                 (if (i32.ne (global.get $kept) (i32.const 7)) (then (call $exit (i32.const 3))))
                 (global.set $kept (i32.const 8))
                 (if (i32.ne (i32.load8_u (i32.const {data})) (i32.const {own})) (then (call $exit (i32.const 4))))
                 (i32.store8 (i32.const {data}) (i32.const 0))
                 (local.set $end (i32.mul (memory.size) (i32.const 65536)))
                 (loop $next
                   (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (call $exit (i32.const 1))))
                   (local.set $at (i32.add (local.get $at) (i32.const 8)))
                   (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
                 (memory.fill (i32.const 0) (i32.const 0xaa) (local.get $end))
                 (local.set $at (i32.const 0))
                 (loop $next
                   (if (i32.ne (ref.is_null (table.get (local.get $at))) (i32.ne (local.get $at) (i32.const 3)))
                     (then (call $exit (i32.const 2))))
                   (local.set $at (i32.add (local.get $at) (i32.const 1)))
                   (br_if $next (i32.lt_u (local.get $at) (i32.const 110))))
                 (table.fill (i32.const 0) (ref.func $f) (i32.const 110))))",
            to - 2
        )
    }

    /// One place, which all have one after the other: the same module again, and others that are larger, smaller, and have
    /// bytes of their own elsewhere.
    #[test]
    fn nothing_of_a_guest_is_there_for_the_next_in_its_place() {
        let engine = engine();
        let guests: Vec<Program> = [(2, 0, 1), (40, 65_536 + 8, 2), (3, 131_000, 3), (2, 64, 4)]
            .map(|(to, data, own)| program(&engine, leaves_everything(to, data, own).as_bytes(), true).unwrap())
            .into();
        for guest in [0, 0, 1, 1, 0, 2, 3, 1, 3, 2, 2, 0] {
            let ended = end_of(&engine, &guests[guest]);
            assert_eq!((ended.reason.as_str(), ended.status.exit_code()), ("exit", 0), "{guest}: {ended:?}");
        }
        // Each had the place: nobody has memory of the engine's own, which always is new.
        assert!(
            guests
                .iter()
                .all(|guest| matches!(guest.kind, super::super::program::Kind::Module { pooled: Some(_), .. }))
        );
    }

    #[test]
    fn who_finds_no_place_runs_all_the_same() {
        let engine = engine();
        let text = leaves_everything(2, 0, 1);
        let brief = program(&engine, text.as_bytes(), true).unwrap();
        let waits = "(module (import \"wasi_snapshot_preview1\" \"poll_oneoff\" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export \"memory\") 1) (data (i32.const 24) \"\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\7f\")
            (func (export \"_start\") (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))";
        let waits = program(&engine, waits.as_bytes(), true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut asleep = Box::pin(engine.paced(run(&engine, &waits, bare())));
            let early = tokio::time::timeout(std::time::Duration::from_millis(10), &mut asleep).await;
            assert!(early.is_err(), "{early:?}");
            assert_eq!(free(&engine), 0);
            let sandbox = Sandbox { memory_bytes_max: 4 << 20, table_entries_max: 1000, ..bare() };
            assert_eq!(engine.paced(run(&engine, &brief, sandbox)).await.status.exit_code(), 0);
            // A guest that is dropped leaves its place too.
            drop(asleep);
            assert_eq!(free(&engine), 1);
            // One that is to stay has none.
            let mut stays = Box::pin(engine.paced(run(&engine, &waits, Sandbox { brief: false, ..bare() })));
            let early = tokio::time::timeout(std::time::Duration::from_millis(10), &mut stays).await;
            assert!(early.is_err() && free(&engine) == 1, "{early:?}");
        });
    }

    /// More memories, more tables, a table that is larger than any may become.
    #[test]
    fn what_fits_no_place_runs_all_the_same() {
        let engine = engine();
        for parts in ["(memory 1) (memory 1)", "(table 1 funcref) (table 1 funcref)", "(table 1000 funcref)"] {
            let module = format!("(module {parts} (func (export \"_start\")))");
            let ended = end_of(&engine, &program(&engine, module.as_bytes(), true).unwrap());
            assert_eq!((ended.reason.as_str(), ended.status.exit_code()), ("exit", 0), "{parts}: {ended:?}");
        }
        let large = program(&engine, b"(module (table 1001 funcref) (func (export \"_start\")))", true).unwrap();
        assert_eq!(end_of(&engine, &large).reason, "memory");
    }

    /// Its limits are the store's, as without a place.
    #[test]
    fn a_place_is_no_way_around_a_limit() {
        let engine = engine();
        let grows = |what: &str| {
            let text = format!(
                "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
                   (memory (export \"memory\") 1) (table 1 funcref) (func (export \"_start\") (call $exit ({what}))))"
            );
            end_of(&engine, &program(&engine, text.as_bytes(), true).unwrap()).status.exit_code()
        };
        assert_eq!(grows("i32.eq (i32.const -1) (memory.grow (i32.const 60))"), 0);
        assert_eq!(grows("i32.eq (i32.const -1) (memory.grow (i32.const 64))"), 1);
        assert_eq!(grows("i32.eq (i32.const -1) (table.grow (ref.null func) (i32.const 999))"), 0);
        assert_eq!(grows("i32.eq (i32.const -1) (table.grow (ref.null func) (i32.const 1000))"), 1);
    }

    /// As under `ulimit -v`: more addresses than there are.
    #[test]
    fn where_the_system_gives_no_addresses_it_is_done_without() {
        let engine = Engine::start(Setup { places: 1_000_000, ..Setup::new(1000) }).unwrap();
        assert!(engine.pool.is_none());
        let brief = program(&engine, leaves_everything(2, 0, 1).as_bytes(), true).unwrap();
        assert_eq!(end_of(&engine, &brief).status.exit_code(), 0);
    }
}
