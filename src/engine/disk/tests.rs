//! What preview 2 can do and no preview 1 module does: streams that write while the guest goes on, and outlive descriptors.

use super::*;
use bytes::Bytes;
use tempfile::TempDir;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DirectoryEntryStream, ErrorCode, Host as _, HostDescriptor, HostDirectoryEntryStream,
    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, StreamError};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

struct World {
    directory: TempDir,
    ctx: WasiCtx,
    table: ResourceTable,
    disk: Disk,
}

struct Plain<'a>(&'a mut WasiCtx, &'a mut ResourceTable);

impl WasiView for Plain<'_> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: self.0, table: self.1 }
    }
}

/// Calls a function of the interface.
macro_rules! fs {
    ($world:ident, $fs:ident => $body:expr) => {{
        let mut plain = Plain(&mut $world.ctx, &mut $world.table);
        let mut $fs = Fs { view: plain.filesystem(), disk: &mut $world.disk };
        $body
    }};
}

fn floor(keep: u64) -> Arc<Floor> {
    Arc::new(Floor::new(std::env::temp_dir(), keep))
}

impl World {
    fn new(bytes: u64) -> World {
        let directory = tempfile::tempdir().unwrap();
        let ctx = WasiCtxBuilder::new().preopened_dir(directory.path(), "/", FsPerms::ReadWrite).unwrap().build();
        let memory = Arc::new(MemoryBudget::new(4 << 20));
        let disk = Disk::new(Usage::default(), Usage { bytes, files: 10 }, floor(0), memory, Arc::new(Gate::new(4)));
        World { directory, ctx, table: ResourceTable::new(), disk }
    }

    async fn create(&mut self, name: &str) -> Resource<Descriptor> {
        let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
        let top = fs!(self, fs => fs.view.get_directories().unwrap().remove(0).0);
        fs!(self, fs => fs.open_at(top, PathFlags::empty(), name.into(), OpenFlags::CREATE, flags).await.unwrap())
    }

    /// A new stream of the entries of the top directory.
    async fn list(&mut self) -> Resource<DirectoryEntryStream> {
        let top = fs!(self, fs => fs.view.get_directories().unwrap().remove(0).0);
        fs!(self, fs => fs.read_directory(top).await.unwrap())
    }

    async fn entry(&mut self, list: &Resource<DirectoryEntryStream>) -> Option<String> {
        let list = Resource::new_borrow(list.rep());
        fs!(self, fs => fs.read_directory_entry(list).await.unwrap()).map(|entry| entry.name)
    }

    async fn unlink(&mut self, name: &str) {
        let top = fs!(self, fs => fs.view.get_directories().unwrap().remove(0).0);
        fs!(self, fs => fs.unlink_file_at(top, name.into()).await.unwrap());
    }

    fn drop(&mut self, fd: Resource<Descriptor>) {
        fs!(self, fs => HostDescriptor::drop(&mut fs, fd).unwrap());
    }

    fn output(&mut self, fd: &Resource<Descriptor>, at: Option<u64>) -> Resource<DynOutputStream> {
        let fd = Resource::new_borrow(fd.rep());
        fs!(self, fs => match at {
            Some(at) => fs.write_via_stream(fd, at).unwrap(),
            None => fs.append_via_stream(fd).unwrap(),
        })
    }

    fn input(&mut self, fd: &Resource<Descriptor>) -> Resource<DynInputStream> {
        fs!(self, fs => fs.read_via_stream(Resource::new_borrow(fd.rep()), 0).unwrap())
    }

    fn reader(&mut self, stream: &Resource<DynInputStream>) -> &mut DynInputStream {
        self.table.get_mut(stream).unwrap()
    }

    fn stream(&mut self, stream: &Resource<DynOutputStream>) -> &mut DynOutputStream {
        self.table.get_mut(stream).unwrap()
    }

    fn used(&self) -> (u64, u64) {
        let used = self.disk.own.lock().used();
        (used.bytes, used.files)
    }

    fn size(&self, name: &str) -> u64 {
        self.directory.path().join(name).metadata().unwrap().len()
    }
}

fn bytes(n: usize) -> Bytes {
    vec![7; n].into()
}

/// The refusal, as the guest is told.
fn is_quota(world: &mut World, result: Result<(), StreamError>) -> bool {
    let Err(StreamError::LastOperationFailed(error)) = result else { return false };
    let error = world.table.push(error).unwrap();
    fs!(world, fs => fs.filesystem_error_code(error).unwrap()) == Some(ErrorCode::Quota)
}

#[tokio::test]
async fn what_a_stream_writes_in_the_background_is_charged_before_it_is_written() {
    let mut world = World::new(1000);
    let fd = world.create("a").await;
    let (one, two) = (world.output(&fd, Some(0)), world.output(&fd, None));
    world.stream(&one).write(bytes(600)).unwrap();
    assert_eq!(world.used(), (600, 1));
    // Behind what may be there by then.
    let refused = world.stream(&two).write(bytes(401));
    assert!(is_quota(&mut world, refused));
    world.stream(&two).write(bytes(400)).unwrap();
    let early = world.stream(&one).write(bytes(1));
    assert!(matches!(early, Err(StreamError::Trap(_))), "the last one is not over: {early:?}");
    world.stream(&one).ready().await;
    world.stream(&two).ready().await;
    assert_eq!(world.used(), (world.size("a"), 1));
    assert_eq!(world.stream(&one).check_write().unwrap(), 64 * 1024, "it writes on");
    let place = world.size("a") - 600;
    world.stream(&one).blocking_write_and_flush(bytes(usize::try_from(place).unwrap())).await.unwrap();
    assert_eq!(world.used(), (world.size("a"), 1), "it went on where it was, over what was there");
}

/// What a stream is given waits in the daemon's memory.
#[tokio::test]
async fn a_stream_takes_no_more_at_a_time_than_check_write_allows() {
    let mut world = World::new(1 << 30);
    let fd = world.create("a").await;
    for _ in 0..100 {
        let stream = world.output(&fd, Some(0));
        let large = world.stream(&stream).write(bytes(64 * 1024 + 1));
        assert!(matches!(large, Err(StreamError::Trap(_))), "{large:?}");
    }
    assert_eq!((world.used(), world.size("a")), ((0, 1), 0));
    let stream = world.output(&fd, Some(0));
    let allowed = world.stream(&stream).check_write().unwrap();
    world.stream(&stream).write(bytes(allowed)).unwrap();
    world.stream(&stream).ready().await;
    assert_eq!(world.size("a"), 64 * 1024);
}

/// Whether something waits when it is first asked.
async fn waits(ready: impl Future<Output = ()>) -> bool {
    tokio::select! {
        biased;
        () = ready => false,
        () = std::future::ready(()) => true,
    }
}

/// The threads that read and write are shared by all guests.
#[test]
fn few_reads_and_writes_of_one_guest_are_under_way_and_the_others_wait() {
    use crate::config::fixed::STREAMS_BUSY_MAX;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(1000);
        let fd = world.create("a").await;
        let places: Vec<u64> = (0..20).collect();
        let streams: Vec<_> = places.iter().map(|at| world.output(&fd, Some(*at))).collect();
        let (one_more, input) = (world.output(&fd, None), world.input(&fd));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holds = tokio::task::spawn_blocking(move || held.recv());
        for stream in &streams[..STREAMS_BUSY_MAX] {
            assert_eq!(world.stream(stream).check_write().unwrap(), 64 * 1024);
            world.stream(stream).write(bytes(1)).unwrap();
        }
        for stream in &streams[STREAMS_BUSY_MAX..] {
            assert_eq!(world.stream(stream).check_write().unwrap(), 0);
            // Perhaps it was allowed before.
            world.stream(stream).write(bytes(1)).unwrap();
        }
        assert_eq!(world.disk.own.places.available_permits(), 0);
        assert!(waits(world.stream(&one_more).ready()).await);
        assert_eq!(world.reader(&input).read(10).unwrap(), Bytes::new());
        assert!(waits(world.reader(&input).ready()).await);
        // One that is over makes room for the next, whether anybody has looked or not.
        release.send(()).unwrap();
        holds.await.unwrap().unwrap();
        for stream in streams.iter().rev() {
            world.stream(stream).ready().await;
            world.stream(stream).flush().unwrap();
        }
        assert_eq!(world.reader(&input).blocking_read(100).await.unwrap(), bytes(20));
        world.stream(&one_more).ready().await;
        assert_eq!(world.stream(&one_more).check_write().unwrap(), 64 * 1024);
        assert_eq!((world.used(), world.disk.own.places.available_permits()), ((20, 1), STREAMS_BUSY_MAX));
    });
}

#[tokio::test]
async fn a_stream_reads_on_from_its_place_to_the_end() {
    let mut world = World::new(1 << 20);
    let fd = world.create("a").await;
    let text: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
    std::fs::write(world.directory.path().join("a"), &text).unwrap();
    let input = world.input(&fd);
    let mut all = vec![];
    loop {
        // In the background, some at once, and waited for.
        world.reader(&input).ready().await;
        match world.reader(&input).read(1000) {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(StreamError::Closed) => break,
            Err(e) => panic!("{e}"),
        }
        match world.reader(&input).blocking_read(70_000).await {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(StreamError::Closed) => break,
            Err(e) => panic!("{e}"),
        }
        assert_eq!(world.reader(&input).read(0).unwrap(), Bytes::new());
    }
    assert!(all == text, "{} bytes", all.len());
    assert!(matches!(world.reader(&input).read(1), Err(StreamError::Closed)));
    let input = world.input(&fd);
    assert_eq!(world.reader(&input).read(5).unwrap(), Bytes::new(), "it is only begun");
    world.reader(&input).cancel().await;
    assert!(matches!(world.reader(&input).read(1), Err(StreamError::Closed)));
}

#[tokio::test]
async fn zeros_are_charged_as_well_and_a_refused_stream_can_go_on() {
    let mut world = World::new(1000);
    let fd = world.create("a").await;
    let stream = world.output(&fd, Some(0));
    let refused = world.stream(&stream).blocking_write_and_flush(bytes(1001)).await;
    assert!(is_quota(&mut world, refused));
    let refused = world.stream(&stream).write_zeroes(1001);
    assert!(is_quota(&mut world, refused));
    assert_eq!((world.used(), world.size("a")), ((0, 1), 0));
    world.stream(&stream).write_zeroes(1000).unwrap();
    world.stream(&stream).ready().await;
    assert_eq!((world.used(), world.size("a")), ((1000, 1), 1000));
    world.stream(&stream).check_write().unwrap();
    let top = world.output(&fd, Some(0));
    fs!(world, fs => fs.set_size(Resource::new_borrow(fd.rep()), 0).await.unwrap());
    world.stream(&top).write(bytes(300)).unwrap();
    // Whether it was still to begin or not.
    world.stream(&top).cancel().await;
    assert_eq!(world.used(), (world.size("a"), 1));
}

#[tokio::test]
async fn a_file_without_a_name_is_charged_as_long_as_a_stream_holds_it() {
    let mut world = World::new(1000);
    let fd = world.create("a").await;
    fs!(world, fs => fs.write(Resource::new_borrow(fd.rep()), vec![7; 900], 0).await.unwrap());
    let output = world.output(&fd, None);
    let input = world.input(&fd);
    world.unlink("a").await;
    world.drop(fd);
    assert_eq!(world.used(), (900, 1));
    world.table.delete::<DynOutputStream>(output).unwrap();
    assert_eq!(world.used(), (900, 1));
    assert_eq!(world.reader(&input).blocking_read(10).await.unwrap(), bytes(10));
    world.table.delete(input).unwrap();
    assert_eq!(world.used(), (0, 0));
}

#[tokio::test]
async fn what_failed_is_given_back() {
    let mut world = World::new(1 << 40);
    let fd = world.create("a").await;
    let refused = fs!(world, fs => fs.set_size(Resource::new_borrow(fd.rep()), u64::MAX).await);
    assert_eq!(refused.unwrap_err().downcast().unwrap(), ErrorCode::Quota);
    let top = fs!(world, fs => fs.view.get_directories().unwrap().remove(0).0);
    let dir = || Resource::new_borrow(top.rep());
    for path in ["a", "none/x", "../x"] {
        assert!(fs!(world, fs => fs.create_directory_at(dir(), path.into()).await).is_err(), "{path}");
        assert!(fs!(world, fs => fs.symlink_at(dir(), "target".into(), path.into()).await).is_err(), "{path}");
        assert!(fs!(world, fs => fs.link_at(dir(), PathFlags::empty(), "a".into(), dir(), path.into()).await).is_err());
        let exclusive = OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
        let opened = fs!(world, fs => fs.open_at(dir(), PathFlags::empty(), path.into(), exclusive, DescriptorFlags::WRITE).await);
        assert!(opened.is_err(), "{path}");
    }
    assert!(fs!(world, fs => fs.unlink_file_at(dir(), "none".into()).await).is_err());
    assert!(fs!(world, fs => fs.remove_directory_at(dir(), "a".into()).await).is_err());
    assert!(fs!(world, fs => fs.rename_at(dir(), "none".into(), dir(), "a".into()).await).is_err());
    assert_eq!(world.used(), (0, 1));
    let read_only = fs!(world, fs => {
        fs.open_at(dir(), PathFlags::empty(), "a".into(), OpenFlags::empty(), DescriptorFlags::READ).await.unwrap()
    });
    assert!(fs!(world, fs => fs.write(read_only, vec![7; 100], 0).await).is_err());
    assert_eq!(world.used(), (0, 1));
}

#[tokio::test]
async fn what_is_long_is_refused_and_what_is_large_is_charged_as_memory() {
    let mut world = World::new(1 << 30);
    let fd = world.create("a").await;
    let top = fs!(world, fs => fs.view.get_directories().unwrap().remove(0).0);
    let dir = || Resource::new_borrow(top.rep());
    let (nofollow, read) = (PathFlags::empty(), DescriptorFlags::READ);
    // The same file, by a path that is as long as it may be, and one that is longer.
    let just = format!("{}a", "./".repeat(2047));
    let long = format!("{}a", "./".repeat(2048));
    fs!(world, fs => fs.stat_at(dir(), nofollow, just.clone()).await.unwrap());
    let name = || long.clone();
    macro_rules! refused {
        ($($call:ident($($arg:expr),*);)*) => {$({
            let result = fs!(world, fs => fs.$call(dir(), $($arg),*).await);
            let error = result.err().expect(stringify!($call));
            assert_eq!(error.downcast().unwrap(), ErrorCode::NameTooLong, stringify!($call));
        })*};
    }
    refused! {
        stat_at(nofollow, name());
        metadata_hash_at(nofollow, name());
        readlink_at(name());
        set_times_at(nofollow, name(), NewTimestamp::Now, NewTimestamp::Now);
        open_at(nofollow, name(), OpenFlags::empty(), read);
        create_directory_at(name());
        remove_directory_at(name());
        unlink_file_at(name());
        symlink_at(name(), "link".into());
        symlink_at("a".into(), name());
        link_at(nofollow, name(), dir(), "link".into());
        link_at(nofollow, "a".into(), dir(), name());
        rename_at(name(), dir(), "b".into());
        rename_at("a".into(), dir(), name());
    }
    let memory = Arc::clone(&world.disk.memory);
    let others = memory.hold(3 << 20).unwrap();
    let write = async |world: &mut World, bytes| fs!(world, fs => fs.write(Resource::new_borrow(fd.rep()), vec![7; bytes], 0).await);
    assert_eq!(write(&mut world, 1 << 20).await.unwrap(), 1 << 20);
    let refused = write(&mut world, (1 << 20) + 1).await;
    assert_eq!(refused.unwrap_err().downcast().unwrap(), ErrorCode::InsufficientMemory);
    drop(others);
    assert_eq!(write(&mut world, 2 << 20).await.unwrap(), 2 << 20);
    assert_eq!(memory.used(), 0);
    let all = memory.hold(4 << 20).unwrap();
    assert_eq!(write(&mut world, (1 << 20) - 1).await.unwrap(), (1 << 20) - 1, "what is small needs no room");
    drop(all);
}

/// However many are open, and whatever is in it.
#[tokio::test]
async fn a_listing_holds_little_of_a_large_directory() {
    let mut world = World::new(1000);
    let names: Vec<String> = (0..500).map(|i| format!("{i:0200}")).collect();
    for name in &names {
        std::fs::write(world.directory.path().join(name), "").unwrap();
    }
    let mut lists = vec![];
    for _ in 0..100 {
        let list = world.list().await;
        assert!(world.entry(&list).await.is_some());
        let listing: &listing::Listing = world.table.get(&Resource::new_borrow(list.rep())).unwrap();
        assert!(listing.ahead() < crate::config::fixed::LISTING_ENTRIES_AHEAD);
        lists.push(list);
    }
    let list = world.list().await;
    let mut listed = vec![];
    while let Some(name) = world.entry(&list).await {
        listed.push(name);
    }
    assert_eq!(world.entry(&list).await, None);
    listed.sort_unstable();
    assert_eq!(listed, names);
    for list in lists.into_iter().chain([list]) {
        fs!(world, fs => HostDirectoryEntryStream::drop(&mut fs, list).unwrap());
    }
    let fd = world.create("a").await;
    let refused = fs!(world, fs => fs.read_directory(fd).await);
    assert_eq!(refused.unwrap_err().downcast().unwrap(), ErrorCode::NotDirectory);
}

/// What a large one had on the disk is freed by whoever closes it last, and nothing interrupts that.
#[test]
fn a_file_without_a_name_is_closed_on_a_thread_that_may_block() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(1000);
        let (fd, named) = (world.create("a").await, world.create("b").await);
        world.unlink("a").await;
        let weak = |world: &World, fd: &Resource<Descriptor>| {
            Arc::downgrade(world.disk.open[&fd.rep()].file.as_ref().unwrap())
        };
        let (nameless, other) = (weak(&world, &fd), weak(&world, &named));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holds = tokio::task::spawn_blocking(move || held.recv());
        world.drop(fd);
        world.drop(named);
        assert_eq!(world.used(), (0, 1), "it counts no more");
        assert!(nameless.upgrade().is_some() && other.upgrade().is_none());
        release.send(()).unwrap();
        holds.await.unwrap().unwrap();
        // Behind it in the queue of the one thread.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert!(nameless.upgrade().is_none());
    });
}

/// The account knows open files by `fstat`, and paths by what wasmtime-wasi tells of them.
#[tokio::test]
async fn a_key_is_wasmtimes_metadata_hash() {
    let mut world = World::new(1000);
    let fd = world.create("a").await;
    let hash = fs!(world, fs => fs.view.metadata_hash(Resource::new_borrow(fd.rep())).await.unwrap());
    assert_eq!(world.disk.open[&fd.rep()].key, hash.lower);
}

#[tokio::test]
async fn a_guest_knows_its_files_by_numbers_that_are_nobody_elses() {
    let mut world = World::new(1000);
    let (a, b) = (world.create("a").await, world.create("b").await);
    std::fs::hard_link(world.directory.path().join("a"), world.directory.path().join("again")).unwrap();
    let halves = |hash: MetadataHashValue| [hash.lower, hash.upper];
    let number = async |world: &mut World, fd: &Resource<Descriptor>| {
        halves(fs!(world, fs => fs.metadata_hash(Resource::new_borrow(fd.rep())).await.unwrap()))
    };
    let (of_a, of_b) = (number(&mut world, &a).await, number(&mut world, &b).await);
    assert!(of_a[0] != of_b[0] && of_a[1] != of_b[1] && of_a[0] != of_a[1]);
    let host = halves(fs!(world, fs => fs.view.metadata_hash(Resource::new_borrow(a.rep())).await.unwrap()));
    assert!(!of_a.iter().any(|half| host.contains(half)));
    let top = fs!(world, fs => fs.view.get_directories().unwrap().remove(0).0);
    let again = fs!(world, fs => fs.metadata_hash_at(top, PathFlags::empty(), "again".into()).await.unwrap());
    assert_eq!(halves(again), of_a, "two names of one file");
    // The next run of it.
    world.disk.numbers = Numbers::default();
    assert_ne!(number(&mut world, &a).await[0], of_a[0]);
}

/// What the host does to a file is known at the next change of the guest's.
#[tokio::test]
async fn the_account_follows_what_others_do_to_an_open_file() {
    let mut world = World::new(1000);
    let fd = world.create("a").await;
    let write = async |world: &mut World, at| fs!(world, fs => fs.write(Resource::new_borrow(fd.rep()), vec![7; 100], at).await);
    write(&mut world, 800).await.unwrap();
    std::fs::write(world.directory.path().join("a"), "").unwrap();
    write(&mut world, 0).await.unwrap();
    assert_eq!(world.used(), (100, 1));
}
