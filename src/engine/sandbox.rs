//! What one guest may touch, and the one way to build a store for it.

use super::compile::of_the_system;
#[cfg(test)]
use super::disk::Floor;
use super::disk::{Disk, DiskBudget, Fs, OverBudget, P1, Unfinished, Usage};
use super::stdio::{Sink, StdinPipe, Stdout};
use super::{Engine, Gauges};
use crate::config::fixed;
use crate::error::{Error, Result};
use crate::model::request::StdStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::filesystem::WasiFilesystemView;
use wasmtime_wasi::p2::DynOutputStream;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// Everything that is lent to one run. What is not in here, the guest does not have.
pub struct Sandbox {
    /// `argv`, with the program's name first.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The directory lent as `/`: a path that leads to the verified directory and to nothing else (`/proc/self/fd/N` on
    /// Linux). It is opened once, while the store is built. `None`: no directory at all.
    pub directory: Option<PathBuf>,
    /// Directories of the host that are lent besides: a path as above, the guest's path, and whether it may only read.
    pub mounts: Vec<(PathBuf, String, bool)>,
    /// What there may be in it.
    pub disk: DiskBudget,
    /// Standard input; `None` is closed.
    pub stdin: Option<StdinPipe>,
    /// Where standard output and standard error go.
    pub sink: Arc<dyn Sink>,
    /// All memories and tables together, in bytes.
    pub memory_bytes_max: usize,
    /// Entries of all tables together.
    pub table_entries_max: usize,
    /// What all instances share.
    pub memory_total: Arc<MemoryBudget>,
    /// Where it is shown what the run uses.
    pub gauges: Arc<Gauges>,
    /// Open files, directories and streams.
    pub handles_max: usize,
    /// Random bytes that one call may ask for.
    pub random_bytes_max: usize,
    /// Host memory that one call may take, in bytes.
    pub hostcall_bytes_max: usize,
    /// Whether it is to end by itself, and probably soon: then it may have a place that is used again.
    pub brief: bool,
    /// Called once, when guest code is entered.
    pub on_enter: Box<dyn FnOnce() + Send>,
}

/// A number of bytes that all instances share.
#[derive(Debug)]
pub struct MemoryBudget {
    used: AtomicUsize,
    max: usize,
}

impl MemoryBudget {
    /// A budget of `max` bytes.
    pub fn new(max: usize) -> MemoryBudget {
        MemoryBudget { used: AtomicUsize::new(0), max }
    }

    /// Bytes that are taken now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.max)
        });
        taken.is_ok()
    }

    /// Bytes for as long as what is returned lives.
    pub(super) fn hold(self: &Arc<MemoryBudget>, bytes: usize) -> Option<HeldBytes> {
        self.take(bytes).then(|| HeldBytes { budget: Arc::clone(self), bytes })
    }
}

/// What a call of a guest's has taken of the host's memory.
pub(super) struct HeldBytes {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The memory of one store: all memories and tables in one sum, which wasmtime's own limiter does not offer.
pub(super) struct Memory {
    used: usize,
    max: usize,
    total: Arc<MemoryBudget>,
    gauges: Arc<Gauges>,
    /// Entries of all tables. They have a limit of their own besides: they are on the host's heap, which gives back what it
    /// wants to.
    entries: usize,
    entries_max: usize,
    /// The growth of a memory that was counted last.
    last: usize,
    /// What was last refused.
    refused: Option<Refused>,
}

/// A growth that was refused: what there would have been of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Bytes of all memories and tables.
    Memory(usize),
    /// The same; it was the budget of all instances together that forbade it.
    MemoryOfAll(usize),
    /// The same; it was the system that had no more.
    MemoryOfSystem(usize),
    /// Entries of all tables.
    Entries(usize),
}

impl Memory {
    fn new(max: usize, entries_max: usize, total: Arc<MemoryBudget>, gauges: Arc<Gauges>) -> Memory {
        Memory { used: 0, max, total, gauges, entries: 0, entries_max, last: 0, refused: None }
    }

    fn grow(&mut self, delta_bytes: usize) -> bool {
        let wanted = self.used.saturating_add(delta_bytes);
        let within = wanted <= self.max;
        if within && self.total.take(delta_bytes) {
            self.used = wanted;
            self.gauges.set_memory(self.used);
            return true;
        }
        self.refused = Some(if within { Refused::MemoryOfAll(wanted) } else { Refused::Memory(wanted) });
        false
    }

    fn give_back(&mut self, bytes: usize) {
        self.used -= bytes;
        self.gauges.set_memory(self.used);
        self.total.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn grow_table(&mut self, delta: usize) -> bool {
        let entries = self.entries.saturating_add(delta);
        if entries > self.entries_max {
            self.refused = Some(Refused::Entries(entries));
            return false;
        }
        let grown = self.grow(delta.saturating_mul(size_of::<usize>()));
        if grown {
            self.entries = entries;
        }
        grown
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.give_back(self.used);
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let delta = desired.saturating_sub(current);
        // Past the memory's own maximum wasmtime would refuse too, but only after the bytes were counted here.
        let grown = maximum.is_none_or(|max| desired <= max) && self.grow(delta);
        self.last = if grown { delta } else { 0 };
        Ok(grown)
    }

    /// Gives back what was counted and never came to be. wasmtime calls this too for a growth that it did not ask for here (past
    /// what 32 bits can address), when what was counted last is in use: only where the system refused is it the one that failed.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if of_the_system(&error) {
            let delta = std::mem::take(&mut self.last);
            self.refused = Some(Refused::MemoryOfSystem(self.used));
            self.give_back(delta);
        }
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Entries are on the heap: once they are allowed nothing fails any more that would let the daemon live.
        // A maximum that is not below the limit may be that of the pool's places, which is the limit: that refusal is ours to tell.
        let may = maximum.is_none_or(|max| desired <= max || max >= self.entries_max);
        Ok(may && self.grow_table(desired.saturating_sub(current)))
    }

    fn instances(&self) -> usize {
        fixed::CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        fixed::CORE_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        fixed::MEMORIES_MAX
    }
}

/// What a store holds for its guest.
pub(super) struct Host {
    wasi: Wasi,
    pub(super) memory: Memory,
    on_enter: Option<Box<dyn FnOnce() + Send>>,
    /// Its directory, and who takes over what it leaves there. `None`: nothing can be left.
    leaves: Option<(PathBuf, Arc<Unfinished>)>,
}

enum Wasi {
    P1(P1),
    P2 { p2: P2, disk: Disk },
}

struct P2 {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl WasiView for P2 {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.ctx, table: &mut self.table }
    }
}

impl Host {
    /// Preview 1, for a call of the guest's.
    pub(super) fn wasi_p1(&mut self) -> &mut P1 {
        // A start function that waits here has not computed for a tick, and is guest code all the same.
        self.enter();
        match &mut self.wasi {
            Wasi::P1(p1) => p1,
            Wasi::P2 { .. } => unreachable!("a core module is run in a store that was built for one"),
        }
    }

    /// The file system of a component, for a call of the guest's.
    pub(super) fn files(&mut self) -> Fs<'_> {
        self.enter();
        match &mut self.wasi {
            Wasi::P2 { p2, disk } => Fs { view: p2.filesystem(), disk },
            Wasi::P1(_) => unreachable!("a component is run in a store that was built for one"),
        }
    }

    pub(super) fn refused(&self) -> Option<Refused> {
        self.memory.refused
    }

    /// What the disk budget last refused, and that budget.
    pub(super) fn disk_refused(&self) -> Option<(OverBudget, Usage)> {
        match &self.wasi {
            Wasi::P1(p1) => p1.disk.refused(),
            Wasi::P2 { disk, .. } => disk.refused(),
        }
    }

    /// Returns when nothing is written any more that the guest began and did not wait for.
    pub(super) async fn written(&mut self) {
        for entry in self.table().iter_mut() {
            if let Some(stream) = (entry as &mut dyn std::any::Any).downcast_mut::<DynOutputStream>() {
                stream.cancel().await;
            }
        }
        self.leaves = None;
    }

    /// Guest code is being executed; whoever wants to know is told the first time.
    pub(super) fn enter(&mut self) {
        if let Some(tell) = self.on_enter.take() {
            tell();
        }
    }

    pub(super) fn was_entered(&self) -> bool {
        self.on_enter.is_none()
    }
}

impl Host {
    fn table(&mut self) -> &mut ResourceTable {
        match &mut self.wasi {
            Wasi::P1(p1) => p1.ctx().ctx().table,
            Wasi::P2 { p2, .. } => &mut p2.table,
        }
    }
}

/// Before it is over: the guest is dropped wherever it is.
impl Drop for Host {
    fn drop(&mut self) {
        if let Some((directory, unfinished)) = self.leaves.take() {
            let held = match &self.wasi {
                Wasi::P1(p1) => p1.disk.held(),
                Wasi::P2 { disk, .. } => disk.held(),
            };
            unfinished.add(&directory, held);
        }
    }
}

impl WasiView for Host {
    /// Preview 2, for a call of the guest's.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.enter();
        match &mut self.wasi {
            Wasi::P1(p1) => p1.ctx().ctx(),
            Wasi::P2 { p2, .. } => p2.ctx(),
        }
    }
}

/// Which of WASI's two worlds a store is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum World {
    Module,
    Component,
}

impl Sandbox {
    /// Builds the store, in the engine's own engine or that of its pool. `used` is what is in the directory, if that is counted. Limits, deadline and the pre-emption at each tick are set before any guest code can run.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory cannot be opened.
    pub(super) fn into_store(
        self,
        engine: &Engine,
        of: &wasmtime::Engine,
        world: World,
        used: Option<Usage>,
    ) -> Result<Store<Host>> {
        self.gauges.begin();
        let mut builder = WasiCtxBuilder::new();
        builder
            .args(&self.args)
            .envs(&self.env)
            .stdout(Stdout::new(Arc::clone(&self.sink), StdStream::Stdout))
            .stderr(Stdout::new(self.sink, StdStream::Stderr))
            .max_random_size(u64::try_from(self.random_bytes_max).unwrap_or(u64::MAX));
        if let Some(stdin) = self.stdin {
            builder.stdin(stdin);
        }
        if let Some(directory) = &self.directory {
            builder
                .preopened_dir(directory, "/", FsPerms::ReadWrite)
                .map_err(|e| Error::io("the directory of the instance cannot be opened", &e))?;
        }
        for (directory, guest, read_only) in &self.mounts {
            let perms = if *read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
            builder
                .preopened_dir(directory, guest, perms)
                .map_err(|e| Error::io(format!("the directory for '{guest}' cannot be opened"), &e))?;
        }
        let (memory_total, gate) = (Arc::clone(&self.memory_total), Arc::clone(&engine.gate));
        let mut disk = Disk::new(used.unwrap_or_default(), self.disk.max, self.disk.floor, memory_total, gate);
        if used.is_some() {
            disk.show(Arc::clone(&self.gauges));
        }
        let lent: Vec<PathBuf> = self.mounts.into_iter().map(|(directory, ..)| directory).collect();
        disk.lend(&lent).map_err(|e| Error::io("a directory of the host cannot be looked at", &e))?;
        let wasi = match world {
            World::Module => Wasi::P1(P1::new(builder.build_p1(), disk)),
            World::Component => Wasi::P2 { p2: P2 { ctx: builder.build(), table: ResourceTable::new() }, disk },
        };
        let memory = Memory::new(self.memory_bytes_max, self.table_entries_max, self.memory_total, self.gauges);
        let leaves = self.directory.map(|directory| (directory, Arc::clone(&engine.unfinished)));
        let host = Host { wasi, memory, on_enter: Some(self.on_enter), leaves };
        let mut store = Store::new(of, host);
        store.data_mut().table().set_max_capacity(self.handles_max);
        store.limiter(|host| &mut host.memory);
        // A component's own numbers for them, and for resources that it makes without asking anybody. Each may be lent to a call
        // at the same time, as all are that are polled together.
        store.set_max_component_handles(self.handles_max.saturating_mul(2));
        store.set_hostcall_fuel(self.hostcall_bytes_max);
        store.set_epoch_deadline(1);
        // To yield, not to trap: whoever drives the future drops it when the guest should end, in a host call too.
        let turns = engine.ticker.turns();
        store.epoch_deadline_callback(move |mut store| {
            // A start function computes before instantiation is over; this is where that shows, if it asks the host for nothing.
            store.data_mut().enter();
            Ok(if turns.is_over() { UpdateDeadline::Yield(1) } else { UpdateDeadline::Continue(1) })
        });
        Ok(store)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    struct Nowhere;

    #[async_trait::async_trait]
    impl Sink for Nowhere {
        fn room(&self) -> usize {
            4096
        }
        async fn ready(&self) {}
        fn write(&self, _: StdStream, _: bytes::Bytes) {}
    }

    pub(in crate::engine) fn bare() -> Sandbox {
        Sandbox {
            args: vec!["test".into()],
            env: vec![],
            directory: Some(std::env::temp_dir()),
            mounts: vec![],
            disk: DiskBudget {
                max: Usage { bytes: 1 << 20, files: 10 },
                floor: Arc::new(Floor::new(std::env::temp_dir(), 0)),
                scan: None,
            },
            stdin: None,
            sink: Arc::new(Nowhere),
            memory_bytes_max: 1 << 20,
            memory_total: Arc::new(MemoryBudget::new(1 << 30)),
            gauges: Arc::default(),
            handles_max: 16,
            table_entries_max: 100_000,
            random_bytes_max: 64 << 10,
            hostcall_bytes_max: 32 << 20,
            brief: true,
            on_enter: Box::new(|| ()),
        }
    }

    fn memory(max: usize, total: &Arc<MemoryBudget>) -> Memory {
        Memory::new(max, 8, Arc::clone(total), Arc::default())
    }

    #[test]
    fn memories_and_tables_are_one_sum() {
        let total = Arc::new(MemoryBudget::new(1000));
        let mut a = memory(100, &total);
        assert!(a.memory_growing(0, 60, None).unwrap());
        assert!(a.table_growing(0, 5, None).unwrap(), "5 entries of 8 bytes just fit");
        assert!(!a.memory_growing(60, 61, None).unwrap());
        assert!(!a.table_growing(5, 6, None).unwrap());
        assert_eq!(total.used(), 100);
        let gauges = Arc::clone(&a.gauges);
        assert_eq!((gauges.memory(), gauges.memory_peak()), (100, 100), "what was refused is not shown");
        drop(a);
        assert_eq!((gauges.memory(), gauges.memory_peak()), (0, 100));
        assert_eq!(total.used(), 0);
    }

    #[test]
    fn tables_have_a_limit_of_entries_besides() {
        let total = Arc::new(MemoryBudget::new(1000));
        let mut a = memory(1000, &total);
        assert!(a.table_growing(0, 5, None).unwrap());
        assert!(!a.table_growing(0, 4, None).unwrap(), "of another table");
        assert_eq!(a.refused, Some(Refused::Entries(9)));
        assert!(a.table_growing(0, 3, None).unwrap(), "what was refused is not counted");
        assert_eq!(total.used(), 64);
    }

    #[test]
    fn a_growth_that_the_system_refuses_is_given_back_and_no_other() {
        let total = Arc::new(MemoryBudget::new(1000));
        let mut a = memory(100, &total);
        assert!(a.memory_growing(0, 40, None).unwrap());
        // Not asked for here at all: wasmtime saw by itself that 32 bits cannot address it.
        a.memory_grow_failed(wasmtime::Error::msg("memory growth exceeds memory type's limits")).unwrap();
        assert_eq!((a.used, total.used()), (40, 40), "what it has is counted");
        let system = || wasmtime::Error::from(std::io::Error::from(std::io::ErrorKind::OutOfMemory));
        assert!(a.memory_growing(40, 90, None).unwrap());
        a.memory_grow_failed(system().context("out of memory")).unwrap();
        assert_eq!((a.used, total.used()), (40, 40));
        assert_eq!(a.refused, Some(Refused::MemoryOfSystem(90)));
        a.memory_grow_failed(system()).unwrap();
        assert_eq!((a.used, total.used()), (40, 40), "once");
        assert!(!a.memory_growing(40, 101, None).unwrap());
        a.memory_grow_failed(system()).unwrap();
        assert_eq!((a.used, total.used()), (40, 40), "what was not counted is not given back");
        assert!(a.memory_growing(40, 100, None).unwrap());
        a.table_grow_failed(system()).unwrap();
        drop(a);
        assert_eq!(total.used(), 0);
        #[cfg(unix)]
        assert!(of_the_system(&wasmtime::Error::from(rustix::io::Errno::NOMEM)), "as mprotect(2) says it");
    }

    #[test]
    fn the_budget_of_all_is_shared_and_given_back() {
        let total = Arc::new(MemoryBudget::new(150));
        let (mut a, mut b) = (memory(100, &total), memory(100, &total));
        assert!(a.memory_growing(0, 100, None).unwrap());
        assert!(b.memory_growing(0, 50, None).unwrap());
        assert!(!b.memory_growing(50, 51, None).unwrap());
        assert_eq!(b.refused, Some(Refused::MemoryOfAll(51)));
        drop(a);
        assert!(b.memory_growing(50, 100, None).unwrap());
        assert!(!b.memory_growing(100, usize::MAX, None).unwrap());
        assert_eq!(b.refused, Some(Refused::Memory(usize::MAX)));
    }

    /// Preview 2 has sockets to ask for, and none that reaches anything. Preview 1 has no call to ask with.
    #[test]
    fn no_world_has_a_network() {
        use wasmtime::component::Resource;
        use wasmtime_wasi::p2::bindings::sockets::instance_network::Host as _;
        use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::Host as _;
        use wasmtime_wasi::p2::bindings::sockets::network::{
            ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress,
        };
        use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket as _;
        use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
        use wasmtime_wasi::p2::bindings::sockets::udp_create_socket::Host as _;
        use wasmtime_wasi::sockets::WasiSocketsView as _;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (127, 0, 0, 1) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine = Engine::new(100_000).unwrap();
            let mut store = bare().into_store(&engine, &engine.engine, World::Component, None).unwrap();
            let mut sockets = store.data_mut().sockets();
            let network = sockets.instance_network().unwrap();
            let again = || Resource::new_borrow(network.rep());
            let tcp = match sockets.create_tcp_socket(IpAddressFamily::Ipv4) {
                Ok(socket) => sockets.start_connect(socket, again(), address),
                Err(e) => Err(e),
            };
            assert_eq!(tcp.unwrap_err().downcast_ref(), Some(&ErrorCode::AccessDenied));
            let udp = sockets.create_udp_socket(IpAddressFamily::Ipv4).await;
            assert_eq!(udp.unwrap_err().downcast_ref(), Some(&ErrorCode::AccessDenied));
            let name = sockets.resolve_addresses(again(), "localhost".to_owned());
            assert!(matches!(
                name.unwrap_err().downcast_ref(),
                Some(ErrorCode::AccessDenied | ErrorCode::PermanentResolverFailure)
            ));
        });
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody came");
    }
}
