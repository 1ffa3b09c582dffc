//! Stacks and memories for `--dense`, cut from a few large mappings: none of them takes an entry of the process's memory map,
//! whatever guests do, and none reserves more addresses than it needs.
//!
//! Linux lets a process have 65,530 entries by default. wasmtime's own memories and stacks are mappings each, which take three
//! and two of them; and what is unmapped in the middle of others leaves two where there was one. What is cut from a slab is not
//! unmapped by itself: its pages are given back to the system, and are zeros to whoever has the addresses next.
#![expect(unsafe_code, reason = "whoever hands out memory answers for it; see SAFETY")]

mod blocks;

use crate::config::fixed;
use blocks::{Block, Blocks, LARGEST};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wasmtime::{Config, LinearMemory, MemoryCreator, MemoryType, StackCreator, StackMemory};

/// At the lower end of each stack: a multiple of every system's pages.
const GUARD_BYTES: usize = 64 << 10;
/// A stack and its guard.
const STRIDE: usize = GUARD_BYTES + fixed::STACK_BYTES;
/// Stacks of a slab.
const STACKS: usize = 1024;
/// Memories of a slab, if they are as large as memories can be.
const MEMORIES: usize = 16;
const MEMORIES_BYTES: usize = MEMORIES << LARGEST;
/// A memory that moves is copied by so much at a time, and that is given back before the next: it is never there twice.
const COPIED_BYTES: usize = 1 << 20;
/// What is copied of that, unless there are only zeros.
const PIECE: [u8; 4096] = [0; 4096];

/// `MADV_GUARD_INSTALL` of madvise(2), since Linux 6.13: nobody may touch these pages, and the map has no entry for them.
const GUARD_INSTALL: c_int = 102;

unsafe extern "C" {
    /// The C library's: rustix does not know that advice yet.
    fn madvise(at: *mut c_void, bytes: usize, advice: c_int) -> c_int;
}

/// Gives a configuration its memories and stacks from slabs. What of the map each stack takes: nothing, or two entries where
/// the kernel is older than its marks for guards.
///
/// # Errors
///
/// The system does not give addresses that nothing stands behind (`ulimit -v`, `vm.overcommit_memory`).
pub(super) fn install(config: &mut Config) -> Result<usize, Errno> {
    let stacks = StackArea::new(true)?;
    let entries = stacks.entries();
    let memories = MemoryArea::default();
    memories.lock().enlarge()?;
    config.with_host_stack(Arc::new(Stacks(Arc::new(stacks)))).with_host_memory(Arc::new(Memories(Arc::new(memories))));
    Ok(entries)
}

/// Pages of zeros that take nothing until they are written to, for as long as this is there.
struct Mapping {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: it is addresses. What is at them belongs to whom they were handed out to, and nothing here looks at it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize) -> Result<Mapping, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, where the system has room.
        let base = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE | MapFlags::NORESERVE)?
        };
        let mapping = Mapping { base: base.cast(), bytes };
        // A stack of which two pages are used would be two megabytes. A kernel that has no such pages says so.
        // SAFETY: what is there is not changed by it.
        let _unless_there_are_none = unsafe { rustix::mm::madvise(base, bytes, Advice::LinuxNoHugepage) };
        Ok(mapping)
    }

    /// The address behind so many bytes.
    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.bytes, "within the mapping");
        self.base.wrapping_add(offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: whoever has a part of it holds the area that holds it.
        if let Err(e) = unsafe { rustix::mm::munmap(self.base.cast(), self.bytes) } {
            tracing::warn!("addresses cannot be given back: {e}");
        }
    }
}

/// Gives the pages back to the system; they are zeros from then on. `false`: it did not take them.
///
/// # Safety
///
/// Nobody else uses them.
unsafe fn discard(at: *mut u8, bytes: usize) -> bool {
    if bytes == 0 {
        return true;
    }
    // SAFETY: the caller's. Guards within stay (madvise(2), MADV_GUARD_INSTALL).
    match unsafe { rustix::mm::madvise(at.cast(), bytes, Advice::LinuxDontNeed) } {
        Ok(()) => true,
        Err(e) => {
            tracing::warn!("memory of a guest cannot be given back, and is not used again: {e}");
            false
        }
    }
}

/// Hands out stacks.
struct Stacks(Arc<StackArea>);

struct StackArea {
    /// Whether the kernel marks pages as guards.
    marks: bool,
    slabs: Mutex<StackSlabs>,
}

#[derive(Default)]
struct StackSlabs {
    /// By their addresses.
    all: BTreeMap<usize, StackSlab>,
    /// Those where a stack is free: the lowest goes first, so that others become empty.
    free: BTreeSet<usize>,
}

struct StackSlab {
    mapping: Mapping,
    /// Stacks that were used, and are not now.
    free: Vec<usize>,
    /// How many have their guard.
    cut: usize,
    used: usize,
}

/// A stack, until it is dropped.
struct Stack {
    area: Arc<StackArea>,
    slab: usize,
    index: usize,
    bottom: *mut u8,
}

// SAFETY: its addresses are nobody else's.
unsafe impl Send for Stack {}
// SAFETY: as above.
unsafe impl Sync for Stack {}

impl StackArea {
    /// `marks`: whether to try what the kernel may not know.
    fn new(marks: bool) -> Result<StackArea, Errno> {
        let mut slab = StackSlab::new()?;
        let marks = marks && slab.guard(true).is_ok();
        if !marks {
            slab.guard(false)?;
        }
        slab.free.push(0);
        slab.cut = 1;
        let base = slab.mapping.base.addr();
        let slabs = StackSlabs { all: BTreeMap::from([(base, slab)]), free: BTreeSet::from([base]) };
        Ok(StackArea { marks, slabs: Mutex::new(slabs) })
    }

    /// Entries of the map that a stack takes.
    fn entries(&self) -> usize {
        if self.marks { 0 } else { 2 }
    }

    fn lock(&self) -> MutexGuard<'_, StackSlabs> {
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<StackArea>) -> Result<Stack, Errno> {
        let mut slabs = self.lock();
        let StackSlabs { all, free } = &mut *slabs;
        let base = match free.first() {
            Some(base) => *base,
            None => {
                let slab = StackSlab::new()?;
                let base = slab.mapping.base.addr();
                all.insert(base, slab);
                free.insert(base);
                base
            }
        };
        let slab = all.get_mut(&base).expect("those where one is free are among all");
        let index = match slab.free.pop() {
            Some(index) => index,
            None => {
                slab.guard(self.marks)?;
                slab.cut += 1;
                slab.cut - 1
            }
        };
        slab.used += 1;
        if slab.used == STACKS {
            free.remove(&base);
        }
        let bottom = slab.mapping.at(index * STRIDE + GUARD_BYTES);
        Ok(Stack { area: Arc::clone(self), slab: base, index, bottom })
    }
}

impl StackSlab {
    fn new() -> Result<StackSlab, Errno> {
        Ok(StackSlab { mapping: Mapping::new(STACKS * STRIDE)?, free: vec![], cut: 0, used: 0 })
    }

    /// Makes the guard of the stack that is cut next.
    fn guard(&self, marks: bool) -> Result<(), Errno> {
        assert!(self.cut < STACKS, "no more than there is room for");
        let at = self.mapping.at(self.cut * STRIDE).cast();
        if marks {
            // SAFETY: within the mapping, where nothing is yet.
            match unsafe { madvise(at, GUARD_BYTES, GUARD_INSTALL) } {
                0 => Ok(()),
                _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
            }
        } else {
            // SAFETY: as above.
            unsafe { rustix::mm::mprotect(at, GUARD_BYTES, MprotectFlags::empty()) }
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // Before anybody else can have it.
        // SAFETY: the guest and its host calls are gone: wasmtime drops a stack behind what ran on it.
        let clean = unsafe { discard(self.bottom, fixed::STACK_BYTES) };
        let mut slabs = self.area.lock();
        let StackSlabs { all, free } = &mut *slabs;
        let slab = all.get_mut(&self.slab).expect("a slab stays while a stack of it is used");
        if !clean {
            return;
        }
        slab.used -= 1;
        slab.free.push(self.index);
        free.insert(self.slab);
        // One is kept, so that not each run maps it anew. What a slab takes when it is empty is its page tables.
        let empty = if slab.used == 0 && free.len() > 1 { all.remove(&self.slab) } else { None };
        if empty.is_some() {
            free.remove(&self.slab);
        }
        drop(slabs);
        drop(empty);
    }
}

// SAFETY: stacks are whole pages of zeros that are nobody else's, with a guard below; they are there until they are dropped.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        if size != fixed::STACK_BYTES {
            return Err(wasmtime::Error::msg(format!("stacks have {} bytes, and not {size}", fixed::STACK_BYTES)));
        }
        let stack = self.0.take().map_err(|e| wasmtime::Error::from(e).context("no room for a stack"))?;
        Ok(Box::new(stack))
    }
}

// SAFETY: as above.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.bottom.wrapping_add(fixed::STACK_BYTES)
    }

    fn range(&self) -> Range<usize> {
        self.bottom.addr()..self.top().addr()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        self.bottom.wrapping_sub(GUARD_BYTES)..self.bottom
    }
}

/// Hands out memories.
struct Memories(Arc<MemoryArea>);

#[derive(Default)]
struct MemoryArea(Mutex<MemorySlabs>);

#[derive(Default)]
struct MemorySlabs {
    /// One behind the other in the space of blocks.
    all: Vec<Mapping>,
    blocks: Blocks,
}

/// A memory, until it is dropped.
struct Memory {
    place: Place,
    /// What the guest may touch of it: compiled code compares each address with this. What is beyond was never written to.
    bytes: usize,
}

/// Addresses of a memory, all of them zeros when it gets them.
struct Place {
    area: Arc<MemoryArea>,
    block: Block,
    base: *mut u8,
    /// How much of it may be anything else, from the beginning.
    dirty: usize,
}

// SAFETY: its addresses are nobody else's.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl MemorySlabs {
    fn enlarge(&mut self) -> Result<(), Errno> {
        self.all.push(Mapping::new(MEMORIES_BYTES)?);
        self.blocks.add(MEMORIES);
        Ok(())
    }
}

impl MemoryArea {
    fn lock(&self) -> MutexGuard<'_, MemorySlabs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<MemoryArea>, bytes: usize) -> Result<Place, Errno> {
        let mut slabs = self.lock();
        let block = match slabs.blocks.take(bytes) {
            Some(block) => block,
            None => {
                slabs.enlarge()?;
                slabs.blocks.take(bytes).ok_or(Errno::NOMEM)?
            }
        };
        // None crosses the end of a slab: they lie on multiples of their size, as slabs do.
        let base = slabs.all[block.at / MEMORIES_BYTES].at(block.at % MEMORIES_BYTES);
        Ok(Place { area: Arc::clone(self), block, base, dirty: 0 })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before anybody else can have it.
        // SAFETY: the guest is gone, or has its memory elsewhere now.
        if unsafe { discard(self.base, self.dirty) } {
            self.area.lock().blocks.give_back(self.block);
        }
    }
}

impl Place {
    /// Takes over what is in the other, piece by piece, for a memory of so many bytes.
    fn take_over(&mut self, from: &mut Place, bytes: usize) {
        assert!(bytes <= from.block.bytes() && bytes <= self.block.bytes() && self.dirty == 0);
        self.dirty = bytes;
        for at in (0..bytes).step_by(COPIED_BYTES) {
            let end = bytes.min(at + COPIED_BYTES);
            for piece in (at..end).step_by(PIECE.len()) {
                let length = PIECE.len().min(end - piece);
                // SAFETY: both are within their blocks, which are nobody else's and do not overlap.
                unsafe {
                    let source = from.base.add(piece);
                    // To read what nothing was written to takes no memory.
                    if std::slice::from_raw_parts(source, length) != &PIECE[..length] {
                        ptr::copy_nonoverlapping(source, self.base.add(piece), length);
                    }
                }
            }
            // What is not taken now is once more when its place is dropped.
            // SAFETY: the memory is here now.
            let _tried = unsafe { discard(from.base.wrapping_add(at), end - at) };
        }
    }
}

// SAFETY: memories are zeros that are nobody else's and stay where they are until they grow or are dropped. They have no guards,
// and more is accessible than they have: only an engine that compares each address may use them, which is what `new_memory` sees
// to.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _type: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        if reserved.unwrap_or(0) != 0 || guard != 0 {
            return Err("memories of slabs are for code that compares each address".to_owned());
        }
        let place = self.0.take(minimum).map_err(|e| format!("no room for a memory: {e}"))?;
        Ok(Box::new(Memory::new(place, minimum)))
    }
}

impl Memory {
    fn new(mut place: Place, bytes: usize) -> Memory {
        place.dirty = bytes;
        Memory { place, bytes }
    }
}

// SAFETY: as above.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.bytes
    }

    fn byte_capacity(&self) -> usize {
        self.place.block.bytes()
    }

    fn grow_to(&mut self, bytes: usize) -> wasmtime::Result<()> {
        if bytes > self.byte_capacity() {
            let mut larger = self.place.area.take(bytes)?;
            larger.take_over(&mut self.place, self.bytes);
            self.place = larger;
        }
        self.bytes = bytes;
        self.place.dirty = bytes;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.place.base
    }
}

#[cfg(test)]
mod tests {
    use super::super::sandbox::tests::bare;
    use super::super::tests::program;
    use super::super::{Engine, Entries, NotLoaded, Sandbox, Setup, run};
    use super::*;
    use crate::model::instance::Ended;
    use std::os::unix::fs::FileExt;

    fn area(marks: bool) -> Arc<StackArea> {
        Arc::new(StackArea::new(marks).unwrap())
    }

    /// What is at an address; `None`: nobody may touch it. The kernel looks, so that nothing faults.
    fn look(at: *mut u8, bytes: usize) -> Option<Vec<u8>> {
        let mut there = vec![0xee; bytes];
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        memory.read_exact_at(&mut there, at.addr().try_into().unwrap()).ok().map(|()| there)
    }

    /// Access to an address as the map has it, and how many entries the map has.
    fn map_at(at: *mut u8) -> (String, usize) {
        let map = std::fs::read_to_string("/proc/self/maps").unwrap();
        let within = |line: &&str| {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(from)..number(to)).contains(&at.addr())
        };
        let access = map.lines().find(within).unwrap().split(' ').nth(1).unwrap().to_owned();
        (access, map.lines().count())
    }

    /// Writes all over a stack, as a guest that goes as deep as it can.
    fn write_all_over(stack: &Stack) {
        // SAFETY: the test has it, and nobody else looks.
        unsafe { ptr::write_bytes(stack.bottom, 0xaa, fixed::STACK_BYTES) };
    }

    #[test]
    fn a_stack_that_is_used_again_has_nothing_of_before() {
        let area = area(true);
        let first = area.take().unwrap();
        let bottom = first.bottom.addr();
        write_all_over(&first);
        assert!(look(first.bottom, fixed::STACK_BYTES).unwrap().iter().all(|byte| *byte == 0xaa));
        drop(first);
        let again = area.take().unwrap();
        assert_eq!(again.bottom.addr(), bottom, "it is the same one");
        assert_eq!(look(again.bottom, fixed::STACK_BYTES).unwrap(), vec![0; fixed::STACK_BYTES]);
    }

    /// Also when it has been used before, and between two that are used.
    #[test]
    fn nobody_may_touch_what_is_below_a_stack() {
        let area = area(true);
        let stacks = [(); 3].map(|()| area.take().unwrap());
        let before = map_at(stacks[0].bottom).1;
        let second = stacks[1].bottom.addr();
        assert_eq!(stacks[2].guard_range().start, stacks[1].top(), "they lie beside each other");
        let [first, middle, last] = stacks;
        drop(middle);
        let middle = area.take().unwrap();
        assert_eq!(middle.bottom.addr(), second);
        for stack in [&first, &middle, &last] {
            write_all_over(stack);
            for at in [stack.bottom.wrapping_sub(1), stack.guard_range().start] {
                assert!(look(at, 1).is_none() || map_at(at).0 == "---p");
            }
        }
        // Other tests map and unmap beside this one; a thousand entries they do not.
        let many: Vec<Stack> = (0..1000).map(|_| area.take().unwrap()).collect();
        let taken = map_at(many[0].bottom).1.saturating_sub(before);
        assert_eq!(taken > 1000, area.entries() > 0, "{taken} entries");
    }

    #[test]
    fn an_older_kernel_has_guards_that_take_entries() {
        let area = area(false);
        assert_eq!(area.entries(), 2);
        let stacks = [(); 2].map(|()| area.take().unwrap());
        for stack in &stacks {
            write_all_over(stack);
            assert_eq!(map_at(stack.bottom.wrapping_sub(1)).0, "---p");
            assert_eq!(map_at(stack.guard_range().start).0, "---p");
            assert_eq!(map_at(stack.bottom).0, "rw-p");
        }
    }

    #[test]
    fn a_slab_that_is_empty_goes_but_for_one() {
        let area = area(true);
        let mut stacks: Vec<Stack> = (0..2 * STACKS + 1).map(|_| area.take().unwrap()).collect();
        let addresses: BTreeSet<usize> = stacks.iter().map(|stack| stack.bottom.addr()).collect();
        assert_eq!((addresses.len(), area.lock().all.len()), (stacks.len(), 3), "each has its own");
        stacks.truncate(1);
        assert!(area.lock().all.len() <= 2, "that of the one that is left, and one more");
        stacks.clear();
        let slabs = area.lock();
        assert_eq!((slabs.all.len(), slabs.free.len()), (1, 1));
        assert!(slabs.all.values().all(|slab| slab.used == 0 && slab.free.len() == slab.cut));
    }

    #[test]
    fn a_memory_keeps_what_is_in_it_when_it_moves_and_leaves_nothing() {
        let memories = Memories(Arc::default());
        let mut memory = Memory::new(memories.0.take(3 << 20).unwrap(), 3 << 20);
        let (old, capacity) = (memory.as_ptr(), memory.byte_capacity());
        assert_eq!(capacity, 4 << 20);
        // SAFETY: within the memory, which the test has.
        unsafe {
            ptr::write_bytes(old, 1, 10);
            ptr::write_bytes(old.add((3 << 20) - 10), 2, 10);
        }
        memory.grow_to(capacity).unwrap();
        assert_eq!(memory.as_ptr(), old, "there was room");
        memory.grow_to(capacity + (64 << 10)).unwrap();
        assert_ne!(memory.as_ptr(), old);
        let mut expected = vec![0; memory.byte_size()];
        expected[..10].fill(1);
        expected[(3 << 20) - 10..3 << 20].fill(2);
        assert!(look(memory.as_ptr(), memory.byte_size()).unwrap() == expected);
        assert!(look(old, capacity).unwrap() == vec![0; capacity], "nothing is left in the old place");
        let (last, bytes) = (memory.as_ptr(), memory.byte_size());
        drop(memory);
        assert!(look(last, bytes).unwrap() == vec![0; bytes]);
        assert_eq!(memories.0.take(1 << 32).unwrap().base, old, "all of it is there for the next");
    }

    #[test]
    fn memories_are_for_code_that_compares_each_address_only() {
        let memories = Memories(Arc::default());
        let kind = || MemoryType::new(1, None);
        for (reserved, guard) in [(Some(1 << 32), 0), (None, 4096), (Some(1 << 32), 4096)] {
            assert!(memories.new_memory(kind(), 65_536, None, reserved, guard).is_err());
        }
        assert_eq!(memories.new_memory(kind(), 65_536, None, Some(0), 0).unwrap().byte_size(), 65_536);
        let largest = memories.new_memory(kind(), 1 << 32, None, None, 0).unwrap();
        assert_eq!(largest.byte_capacity(), 1 << 32);
        assert!(memories.new_memory(kind(), (1 << 32) + 1, None, None, 0).is_err());
    }

    fn dense() -> Engine {
        Engine::start(Setup { dense: true, ..Setup::new(1000) }).unwrap()
    }

    fn end_of(engine: &Engine, text: &str) -> Ended {
        let program = program(engine, text.as_bytes(), true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sandbox = Sandbox { memory_bytes_max: 4 << 20, table_entries_max: 1000, ..bare() };
        runtime.block_on(engine.paced(run(engine, &program, sandbox)))
    }

    fn start(body: &str) -> String {
        format!(
            "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
               (memory (export \"memory\") 1) (data (i32.const 65532) \"last\")
               (func $deep (param i64) (result i64) (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (local.get 0)))
               (func (export \"_start\") {body}))"
        )
    }

    /// There is room behind each memory, and nobody comes there: not by one byte, not by an offset, not in bulk.
    #[test]
    fn whoever_leaves_a_memory_traps() {
        let engine = dense();
        assert!(engine.pool.is_none());
        for body in [
            "(drop (i32.load8_u (i32.const 65536)))",
            "(drop (i32.load (i32.const 65533)))",
            "(drop (i64.load offset=65529 (i32.const 0)))",
            "(drop (i64.load offset=4294967295 (i32.const 4294967295)))",
            "(drop (v128.load (i32.const 65521)))",
            "(i32.store8 (i32.const 65536) (i32.const 1))",
            "(i32.store8 (i32.const -1) (i32.const 1))",
            "(memory.fill (i32.const 65535) (i32.const 1) (i32.const 2))",
            "(memory.copy (i32.const 65535) (i32.const 0) (i32.const 2))",
            "(drop (memory.grow (i32.const 2))) (i32.store8 (i32.const 196608) (i32.const 1))",
        ] {
            let ended = end_of(&engine, &start(body));
            assert_eq!(ended.reason, "trap:memory-out-of-bounds", "{body}: {ended:?}");
        }
        let within = "(if (i64.ne (i64.load (i32.const 65528)) (i64.const 0x7473616c00000000)) (then unreachable))
            (drop (v128.load offset=65519 (i32.const 1))) (memory.fill (i32.const 65535) (i32.const 1) (i32.const 1))
            (drop (memory.grow (i32.const 2))) (i32.store8 (i32.const 196607) (i32.const 1))";
        let ended = end_of(&engine, &start(within));
        assert_eq!((ended.reason.as_str(), ended.status.exit_code()), ("exit", 0), "{ended:?}");
    }

    #[test]
    fn a_memory_grows_up_to_its_limit() {
        let engine = dense();
        let ended =
            end_of(&engine, &start("(drop (memory.grow (i32.const 63))) (call $exit (memory.grow (i32.const 1)))"));
        assert_eq!(ended.status.exit_code(), 255);
        let by_one = "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
            (i32.store (i32.const 4194300) (i32.const 1)) (call $exit (memory.size))";
        assert_eq!(end_of(&engine, &start(by_one)).status.exit_code(), 64);
        let with_what_it_has = "(drop (memory.grow (i32.const 40)))
            (if (i32.ne (i32.load (i32.const 65532)) (i32.const 0x7473616c)) (then unreachable))";
        assert_eq!(end_of(&engine, &start(with_what_it_has)).status.exit_code(), 0);
    }

    /// The stack of a guest that went as deep as it may, and then that of one that looks for what it can find in its memory.
    #[test]
    fn nothing_is_left_of_a_guest_that_overflowed_its_stack() {
        let area = area(true);
        let mut config = super::super::configuration(true);
        config
            .with_host_stack(Arc::new(Stacks(Arc::clone(&area))))
            .with_host_memory(Arc::new(Memories(Arc::default())));
        let engine = wasmtime::Engine::new(&config).unwrap();
        let bottom = area.take().unwrap().bottom;
        let deep = "(module (func $deep (export \"deep\") (param i64) (result i64)
            (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (i64.xor (local.get 0) (i64.const 0x5a5a5a5a5a5a)))))";
        let module = wasmtime::Module::new(&engine, wat::parse_str(deep).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut store = wasmtime::Store::new(&engine, ());
            store.set_epoch_deadline(1 << 40);
            let linker = wasmtime::Linker::new(&engine);
            let instance = linker.instantiate_async(&mut store, &module).await.unwrap();
            let deep = instance.get_typed_func::<i64, i64>(&mut store, "deep").unwrap();
            let trap = deep.call_async(&mut store, 0x5a5a_0000_0000).await.unwrap_err();
            assert_eq!(trap.downcast_ref(), Some(&wasmtime::Trap::StackOverflow));
            let kept = look(bottom, fixed::STACK_BYTES).unwrap();
            assert!(kept.iter().filter(|byte| **byte == 0x5a).count() > 1000, "it was this stack");
        });
        assert!(look(bottom, fixed::STACK_BYTES).unwrap() == vec![0; fixed::STACK_BYTES]);
        assert_eq!(area.take().unwrap().bottom, bottom);
        let ended = end_of(&dense(), &start("(drop (call $deep (i64.const 0)))"));
        assert_eq!(ended.reason, "trap:stack-overflow");
    }

    #[test]
    fn neither_engine_takes_the_others_code() {
        use std::io::{Seek as _, Write as _};
        let engines = [Engine::new(1000).unwrap(), dense()];
        assert_eq!(engines[0].entries(), Entries::ORDINARY);
        assert_eq!(engines[1].entries().memory, 0);
        for (engine, own) in engines.iter().zip([false, true]) {
            let code = super::super::Compiler::new(!own).unwrap().compile(start("").as_bytes(), true).unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&code).unwrap();
            file.rewind().unwrap();
            assert!(matches!(engine.load(file), Err(NotLoaded::Unusable(_))));
        }
    }
}
