//! Preview 1 with an account. wasmtime-wasi has no seam for it but the trait that its linker is generated for, which its own
//! context implements: here it is implemented once more, around that context.
//!
//! The context keeps to itself which of its descriptors leads to which resource, so a second table of them is kept here. A
//! call with a path goes to [`Fs`] as preview 2's would; the others go to the context, with growth charged before.

mod poll;

use super::listing::{Entry, Reader, blocking};
use super::p2::{Changes, NAME};
use super::{Disk, Fs, Numbers, OverBudget};
use crate::config::fixed::PATH_BYTES_MAX;
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use wasmtime::component::Resource;
use wasmtime_wasi::WasiView;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::{self, Errno, Error, Fd, Fdflags, Filetype, Lookupflags, Oflags, Rights, Size};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorType, ErrorCode, HostDescriptor};
use wiggle::{GuestMemory, GuestPtr};

type Result<T> = std::result::Result<T, Error>;

/// The descriptor that the first directory gets that was given to the guest, behind the three standard streams; the others come
/// behind it.
const PREOPENED: u32 = 3;

/// A guest's preview 1, with its disk budget.
pub(in crate::engine) struct P1 {
    ctx: WasiP1Ctx,
    pub(in crate::engine) disk: Disk,
    /// Descriptors of files and directories. `None` until the first call that has to do with one.
    known: Option<HashMap<u32, Known>>,
    /// Host memory that the call under way may still take, in bytes.
    fuel: usize,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// In the resource table.
    handle: u32,
    directory: bool,
    append: bool,
}

impl P1 {
    pub(in crate::engine) fn new(ctx: WasiP1Ctx, disk: Disk) -> P1 {
        P1 { ctx, disk, known: None, fuel: 0 }
    }

    pub(in crate::engine) fn ctx(&mut self) -> &mut WasiP1Ctx {
        &mut self.ctx
    }

    fn fs(&mut self) -> Fs<'_> {
        Fs { view: self.ctx.filesystem(), disk: &mut self.disk }
    }

    /// The second table. The first time nothing but the standard streams and the directories that were given is there.
    fn known(&mut self, mem: &mut GuestMemory<'_>) -> &mut HashMap<u32, Known> {
        if self.known.is_none() {
            let mut known = HashMap::new();
            // The context makes its table at the first call.
            let given = (PREOPENED..).take_while(|fd| self.ctx.fd_prestat_get(mem, (*fd).into()).is_ok()).count();
            let table = self.ctx.ctx().table;
            let most = u32::try_from(table.max_capacity()).unwrap_or(u32::MAX);
            // Both tables were filled in the same order.
            let handles = (0..most).filter(|handle| table.get(&descriptor(*handle)).is_ok()).take(given);
            let entry = |handle| Known { handle, directory: true, append: false };
            known.extend((PREOPENED..).zip(handles.map(entry)));
            self.known = Some(known);
        }
        self.known.as_mut().expect("it was just made")
    }

    fn directory(&mut self, mem: &mut GuestMemory<'_>, fd: Fd) -> Result<Resource<Descriptor>> {
        match self.known(mem).get(&fd.into()) {
            Some(known) if known.directory => Ok(descriptor(known.handle)),
            _ => Err(Errno::Badf.into()),
        }
    }

    fn file(&mut self, mem: &mut GuestMemory<'_>, fd: Fd) -> Option<Known> {
        self.known(mem).get(&fd.into()).filter(|known| !known.directory).copied()
    }

    /// A path out of guest memory.
    fn text(&mut self, mem: &GuestMemory<'_>, text: GuestPtr<str>) -> Result<String> {
        short(text)?;
        let bytes = usize::try_from(text.len())?;
        self.fuel = self.fuel.checked_sub(bytes).ok_or(Errno::Nomem)?;
        Ok(mem.as_cow_str(text)?.into_owned())
    }

    /// How much the context will write: the first of the buffers that is not empty. `None`: the call will fail.
    fn to_write(&self, mem: &GuestMemory<'_>, buffers: types::CiovecArray) -> Option<u64> {
        let list = usize::try_from(buffers.len()).ok()?.checked_mul(size_of::<(u32, u32)>())?;
        if list > self.fuel {
            return None;
        }
        for buffer in buffers.iter() {
            let bytes = mem.read(buffer.ok()?).ok()?.buf_len;
            if bytes > 0 {
                return Some(bytes.into());
            }
        }
        Some(0)
    }

    async fn write(
        &mut self,
        mem: &mut GuestMemory<'_>,
        fd: Fd,
        buffers: types::CiovecArray,
        offset: Option<u64>,
    ) -> Result<Size> {
        let file = self.file(mem, fd).zip(self.to_write(mem, buffers));
        let pin = file.and_then(|(file, _)| self.disk.open.get(&file.handle));
        let change = match file.zip(pin) {
            Some(((file, bytes), pin)) => {
                let at = match offset {
                    // As pwrite(2) on Linux, wasmtime-wasi then takes no notice of the offset.
                    _ if file.append => None,
                    Some(offset) => Some(offset),
                    None => Some(self.ctx.fd_tell(mem, fd)?),
                };
                Some(pin.write(at, bytes).map_err(|over| match over {
                    OverBudget::Bytes(_) | OverBudget::Files(_) => Errno::Dquot,
                    OverBudget::Room(_) => Errno::Nospc,
                })?)
            }
            None => None,
        };
        let written = match offset {
            Some(offset) => self.disk.gate.pass(self.ctx.fd_pwrite(mem, fd, buffers, offset)).await,
            None if change.is_some() => self.disk.gate.pass(self.ctx.fd_write(mem, fd, buffers)).await,
            // A standard stream may have no room for days.
            None => self.ctx.fd_write(mem, fd, buffers).await,
        };
        drop(change);
        written
    }

    /// [`Fs::check_kind`] of a path that the context opens.
    async fn check_kind(
        &mut self,
        mem: &GuestMemory<'_>,
        dir: &Resource<Descriptor>,
        lookup: Lookupflags,
        path: GuestPtr<str>,
    ) -> Result<()> {
        if self.fs().is_lent(dir) {
            let text = self.text(mem, path)?;
            self.fs().check_kind(dir, lookup.into(), &text).await?;
        }
        Ok(())
    }

    /// A file's status with the inode that the guest knows it by. Standard streams have none.
    fn numbered(&self, stat: types::Filestat) -> types::Filestat {
        let ino = if stat.ino == 0 { 0 } else { self.disk.numbers.of(stat.ino) };
        types::Filestat { ino, ..stat }
    }

    /// Opens, and begins to account for what was opened.
    async fn open(&mut self, mem: &mut GuestMemory<'_>, how: How) -> Result<Fd> {
        let How { dir, lookup, path, oflags, rights, inheriting, fdflags } = how;
        let Ok(directory) = self.directory(mem, dir) else {
            // It fails, as it should: every directory is known.
            return self.ctx.path_open(mem, dir, lookup, path, oflags, rights, inheriting, fdflags).await;
        };
        self.check_kind(mem, &directory, lookup, path).await?;
        let handle = next_handle(&mut self.ctx);
        let open = self.ctx.path_open(mem, dir, lookup, path, oflags, rights, inheriting, fdflags);
        let opened = self.disk.gate.pass(open).await?;
        let mut known = self.opened(&directory, handle)?;
        known.append = fdflags.contains(Fdflags::APPEND);
        self.known(mem).insert(opened.into(), known);
        Ok(opened)
    }

    /// A file, made and open.
    async fn create(&mut self, mem: &mut GuestMemory<'_>, how: How) -> Result<Fd> {
        let Ok(directory) = self.directory(mem, how.dir) else { return self.open(mem, how).await };
        self.fs().take(&directory, NAME)?;
        let opened = self.open(mem, how).await;
        self.fs().made(&directory, NAME, opened)
    }

    /// The resource that the context put into the table, if it is where it has to be.
    fn opened(&mut self, dir: &Resource<Descriptor>, handle: Option<u32>) -> Result<Known> {
        let odd = || Error::trap(wasmtime::format_err!("an opened file is not where it should be"));
        let handle = handle.ok_or_else(odd)?;
        let opened = descriptor(handle);
        let directory = match self.ctx.ctx().table.get(&opened) {
            Ok(Descriptor::Dir(_)) => true,
            Ok(Descriptor::File(_)) => false,
            Err(_) => return Err(odd()),
        };
        self.fs().opened(dir, &opened)?;
        Ok(Known { handle, directory, append: false })
    }
}

/// Longer paths are not even copied.
fn short(path: GuestPtr<str>) -> Result<()> {
    if usize::try_from(path.len())? > PATH_BYTES_MAX { Err(Errno::Nametoolong.into()) } else { Ok(()) }
}

/// What and how to open.
#[derive(Clone, Copy)]
struct How {
    dir: Fd,
    lookup: Lookupflags,
    path: GuestPtr<str>,
    oflags: Oflags,
    rights: Rights,
    inheriting: Rights,
    fdflags: Fdflags,
}

impl How {
    /// As it would be opened, but neither made nor cut off.
    fn as_it_is(mut self) -> How {
        self.oflags.remove(Oflags::CREAT | Oflags::TRUNC);
        // wasmtime-wasi opens for writing what it may create or truncate, and for reading what is not said to be written.
        if !self.rights.contains(Rights::FD_WRITE) {
            self.rights |= Rights::FD_READ | Rights::FD_WRITE;
        }
        self
    }
}

/// Entries of a directory, as `fd_readdir` hands them over.
struct Dirents {
    bytes: Vec<u8>,
    /// The most that the guest has room for.
    room: usize,
    numbers: Numbers,
}

impl Dirents {
    /// Those behind the first `cookie`, as far as there is room; the last one may be cut off. `most`: bytes of host memory.
    fn read(
        mut self,
        directory: &File,
        cookie: u64,
        most: usize,
    ) -> std::io::Result<std::result::Result<Vec<u8>, Errno>> {
        let here = super::key(&directory.metadata()?);
        // As in wasmtime-wasi, both lead here.
        for (at, name) in [".", ".."].into_iter().enumerate().skip(usize::try_from(cookie).unwrap_or(usize::MAX)) {
            let next = if at == 0 { 1 } else { 2 };
            self.push(next, &Entry { name: name.into(), kind: DescriptorType::Directory, key: here });
        }
        let mut reader = Reader::open(directory)?;
        reader.skip(cookie.saturating_sub(2))?;
        let mut next = cookie.max(2);
        while self.bytes.len() < self.room {
            let Some(entry) = reader.next()? else { break };
            if std::str::from_utf8(&entry.name).is_err() {
                return Ok(Err(Errno::Ilseq));
            }
            next = next.saturating_add(1);
            self.push(next, &entry);
            if self.bytes.len() > most {
                return Ok(Err(Errno::Nomem));
            }
        }
        Ok(Ok(self.bytes))
    }

    /// WASI preview 1 `dirent`, and the name behind it.
    fn push(&mut self, next: u64, entry: &Entry) {
        let kind = match entry.kind {
            DescriptorType::RegularFile => Filetype::RegularFile,
            DescriptorType::Directory => Filetype::Directory,
            DescriptorType::SymbolicLink => Filetype::SymbolicLink,
            DescriptorType::BlockDevice => Filetype::BlockDevice,
            DescriptorType::CharacterDevice => Filetype::CharacterDevice,
            _ => Filetype::Unknown,
        };
        // A name is as long as the file system allows, some hundred bytes.
        let name_bytes = u32::try_from(entry.name.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&next.to_le_bytes());
        self.bytes.extend_from_slice(&self.numbers.of(entry.key).to_le_bytes());
        self.bytes.extend_from_slice(&name_bytes.to_le_bytes());
        self.bytes.extend_from_slice(&u32::from(kind as u8).to_le_bytes());
        self.bytes.extend_from_slice(&entry.name);
        self.bytes.truncate(self.room);
    }
}

fn descriptor(handle: u32) -> Resource<Descriptor> {
    Resource::new_borrow(handle)
}

/// The number that the next entry of the table gets: numbers are given again in the reverse order, and else in order.
fn next_handle(ctx: &mut WasiP1Ctx) -> Option<u32> {
    let table = ctx.ctx().table;
    let probe = table.push(()).ok()?;
    let handle = probe.rep();
    table.delete(probe).ok()?;
    Some(handle)
}

/// What needs no account.
macro_rules! as_it_is {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&mut self, mem: &mut GuestMemory<'_>, $($arg: $type),*) -> $result {
            self.ctx.$name(mem, $($arg),*)
        })*
    };
    (async $(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(async fn $name(&mut self, mem: &mut GuestMemory<'_>, $($arg: $type),*) -> $result {
            self.disk.gate.pass(self.ctx.$name(mem, $($arg),*)).await
        })*
    };
}

impl WasiSnapshotPreview1 for P1 {
    fn set_hostcall_fuel(&mut self, fuel: usize) {
        self.fuel = fuel;
        self.ctx.set_hostcall_fuel(fuel);
    }

    as_it_is! {
        fn args_get(argv: GuestPtr<GuestPtr<u8>>, buf: GuestPtr<u8>) -> Result<()>;
        fn args_sizes_get() -> Result<(Size, Size)>;
        fn environ_get(environ: GuestPtr<GuestPtr<u8>>, buf: GuestPtr<u8>) -> Result<()>;
        fn environ_sizes_get() -> Result<(Size, Size)>;
        fn clock_res_get(id: types::Clockid) -> Result<types::Timestamp>;
        fn clock_time_get(id: types::Clockid, precision: types::Timestamp) -> Result<types::Timestamp>;
        // It allocates nothing: wasmtime-wasi always refuses.
        fn fd_allocate(fd: Fd, offset: u64, len: u64) -> Result<()>;
        fn fd_fdstat_set_rights(fd: Fd, base: Rights, inheriting: Rights) -> Result<()>;
        fn fd_prestat_get(fd: Fd) -> Result<types::Prestat>;
        fn fd_prestat_dir_name(fd: Fd, path: GuestPtr<u8>, path_max_len: Size) -> Result<()>;
        fn fd_tell(fd: Fd) -> Result<u64>;
        fn proc_exit(status: types::Exitcode) -> wasmtime::Error;
        fn proc_raise(signal: types::Signal) -> Result<()>;
        fn sched_yield() -> Result<()>;
        fn random_get(buf: GuestPtr<u8>, buf_len: Size) -> Result<()>;
        fn sock_accept(fd: Fd, flags: Fdflags) -> Result<Fd>;
        fn sock_recv(fd: Fd, data: types::IovecArray, flags: types::Riflags) -> Result<(Size, types::Roflags)>;
        fn sock_send(fd: Fd, data: types::CiovecArray, flags: types::Siflags) -> Result<Size>;
        fn sock_shutdown(fd: Fd, how: types::Sdflags) -> Result<()>;
    }

    as_it_is! {
        async
        fn fd_advise(fd: Fd, offset: u64, len: u64, advice: types::Advice) -> Result<()>;
        fn fd_datasync(fd: Fd) -> Result<()>;
        fn fd_fdstat_get(fd: Fd) -> Result<types::Fdstat>;
        fn fd_filestat_set_times(fd: Fd, atim: u64, mtim: u64, flags: types::Fstflags) -> Result<()>;
        fn fd_pread(fd: Fd, iovs: types::IovecArray, offset: u64) -> Result<Size>;
        fn fd_seek(fd: Fd, offset: i64, whence: types::Whence) -> Result<u64>;
        fn fd_sync(fd: Fd) -> Result<()>;
    }

    async fn fd_read(&mut self, mem: &mut GuestMemory<'_>, fd: Fd, iovs: types::IovecArray) -> Result<Size> {
        match self.file(mem, fd) {
            Some(_) => self.disk.gate.pass(self.ctx.fd_read(mem, fd, iovs)).await,
            // A standard stream may have nothing for days.
            None => self.ctx.fd_read(mem, fd, iovs).await,
        }
    }

    async fn poll_oneoff(
        &mut self,
        mem: &mut GuestMemory<'_>,
        subs: GuestPtr<types::Subscription>,
        events: GuestPtr<types::Event>,
        n: Size,
    ) -> Result<Size> {
        self.poll(mem, subs, events, n).await
    }

    async fn fd_write(&mut self, mem: &mut GuestMemory<'_>, fd: Fd, iovs: types::CiovecArray) -> Result<Size> {
        self.write(mem, fd, iovs, None).await
    }

    async fn fd_pwrite(
        &mut self,
        mem: &mut GuestMemory<'_>,
        fd: Fd,
        iovs: types::CiovecArray,
        offset: u64,
    ) -> Result<Size> {
        self.write(mem, fd, iovs, Some(offset)).await
    }

    async fn fd_readdir(
        &mut self,
        mem: &mut GuestMemory<'_>,
        fd: Fd,
        buf: GuestPtr<u8>,
        buf_len: Size,
        cookie: u64,
    ) -> Result<Size> {
        let fd = self.directory(mem, fd)?;
        let Descriptor::Dir(directory) = self.ctx.ctx().table.get(&fd)? else { return Err(Errno::Badf.into()) };
        let directory = Arc::clone(&directory.dir);
        let dirents = Dirents { bytes: vec![], room: usize::try_from(buf_len)?, numbers: self.disk.numbers.clone() };
        let most = self.fuel;
        let read = self.disk.gate.pass(blocking(move || dirents.read(&directory, cookie, most))).await;
        let dirents = read.map_err(ErrorCode::from)??;
        let bytes = Size::try_from(dirents.len())?;
        mem.copy_from_slice(&dirents, buf.as_array(bytes))?;
        Ok(bytes)
    }

    async fn fd_filestat_set_size(&mut self, mem: &mut GuestMemory<'_>, fd: Fd, size: u64) -> Result<()> {
        let file = self.file(mem, fd).ok_or(Errno::Badf)?;
        Ok(self.fs().set_size(descriptor(file.handle), size).await?)
    }

    fn fd_fdstat_set_flags(&mut self, mem: &mut GuestMemory<'_>, fd: Fd, flags: Fdflags) -> Result<()> {
        self.ctx.fd_fdstat_set_flags(mem, fd, flags)?;
        if let Some(known) = self.known(mem).get_mut(&fd.into()) {
            known.append = flags.contains(Fdflags::APPEND);
        }
        Ok(())
    }

    async fn fd_close(&mut self, mem: &mut GuestMemory<'_>, fd: Fd) -> Result<()> {
        self.known(mem);
        self.ctx.fd_close(mem, fd).await?;
        if let Some(known) = self.known(mem).remove(&fd.into()) {
            self.disk.closed(known.handle);
        }
        Ok(())
    }

    async fn fd_renumber(&mut self, mem: &mut GuestMemory<'_>, fd: Fd, to: Fd) -> Result<()> {
        self.known(mem);
        self.ctx.fd_renumber(mem, fd, to).await?;
        let (fd, to) = (u32::from(fd), u32::from(to));
        if fd == to {
            return Ok(());
        }
        let known = self.known(mem);
        let moved = known.remove(&fd);
        let closed = match moved {
            Some(moved) => known.insert(to, moved),
            None => known.remove(&to),
        };
        if let Some(closed) = closed {
            self.disk.closed(closed.handle);
        }
        Ok(())
    }

    async fn path_open(
        &mut self,
        mem: &mut GuestMemory<'_>,
        fd: Fd,
        dirflags: Lookupflags,
        path: GuestPtr<str>,
        oflags: Oflags,
        fs_rights_base: Rights,
        fs_rights_inheriting: Rights,
        fdflags: Fdflags,
    ) -> Result<Fd> {
        short(path)?;
        let (rights, inheriting) = (fs_rights_base, fs_rights_inheriting);
        let how = How { dir: fd, lookup: dirflags, path, oflags, rights, inheriting, fdflags };
        let (creates, truncates) = (oflags.contains(Oflags::CREAT), oflags.contains(Oflags::TRUNC));
        let changes =
            Changes::of(creates, truncates, oflags.contains(Oflags::EXCL), oflags.contains(Oflags::DIRECTORY));
        let opened = match changes {
            Changes::Nothing => return self.open(mem, how).await,
            Changes::New => return self.create(mem, how).await,
            Changes::Perhaps => match self.open(mem, how.as_it_is()).await {
                Err(e) if creates && e.downcast_ref() == Some(&Errno::Noent) => return self.create(mem, how).await,
                opened => opened?,
            },
        };
        if truncates
            && let Some(file) = self.file(mem, opened)
            && let Err(e) = self.fs().cut_off(&descriptor(file.handle)).await
        {
            self.fd_close(mem, opened).await?;
            return Err(e.into());
        }
        Ok(opened)
    }

    async fn path_filestat_get(
        &mut self,
        mem: &mut GuestMemory<'_>,
        fd: Fd,
        flags: Lookupflags,
        path: GuestPtr<str>,
    ) -> Result<types::Filestat> {
        short(path)?;
        let stat = self.disk.gate.pass(self.ctx.path_filestat_get(mem, fd, flags, path)).await?;
        Ok(self.numbered(stat))
    }

    async fn fd_filestat_get(&mut self, mem: &mut GuestMemory<'_>, fd: Fd) -> Result<types::Filestat> {
        let stat = self.disk.gate.pass(self.ctx.fd_filestat_get(mem, fd)).await?;
        Ok(self.numbered(stat))
    }

    async fn path_readlink(
        &mut self,
        mem: &mut GuestMemory<'_>,
        fd: Fd,
        path: GuestPtr<str>,
        buf: GuestPtr<u8>,
        buf_len: Size,
    ) -> Result<Size> {
        short(path)?;
        self.disk.gate.pass(self.ctx.path_readlink(mem, fd, path, buf, buf_len)).await
    }

    async fn path_filestat_set_times(
        &mut self,
        mem: &mut GuestMemory<'_>,
        fd: Fd,
        flags: Lookupflags,
        path: GuestPtr<str>,
        atim: u64,
        mtim: u64,
        fst_flags: types::Fstflags,
    ) -> Result<()> {
        short(path)?;
        let directory = self.directory(mem, fd)?;
        self.check_kind(mem, &directory, flags, path).await?;
        self.disk.gate.pass(self.ctx.path_filestat_set_times(mem, fd, flags, path, atim, mtim, fst_flags)).await
    }

    async fn path_create_directory(&mut self, mem: &mut GuestMemory<'_>, fd: Fd, path: GuestPtr<str>) -> Result<()> {
        let (fd, path) = (self.directory(mem, fd)?, self.text(mem, path)?);
        Ok(self.fs().create_directory_at(fd, path).await?)
    }

    async fn path_link(
        &mut self,
        mem: &mut GuestMemory<'_>,
        old_fd: Fd,
        old_flags: Lookupflags,
        old_path: GuestPtr<str>,
        new_fd: Fd,
        new_path: GuestPtr<str>,
    ) -> Result<()> {
        let (old_fd, new_fd) = (self.directory(mem, old_fd)?, self.directory(mem, new_fd)?);
        let (old_path, new_path) = (self.text(mem, old_path)?, self.text(mem, new_path)?);
        Ok(self.fs().link_at(old_fd, old_flags.into(), old_path, new_fd, new_path).await?)
    }

    async fn path_remove_directory(&mut self, mem: &mut GuestMemory<'_>, fd: Fd, path: GuestPtr<str>) -> Result<()> {
        let (fd, path) = (self.directory(mem, fd)?, self.text(mem, path)?);
        Ok(self.fs().remove_directory_at(fd, path).await?)
    }

    async fn path_rename(
        &mut self,
        mem: &mut GuestMemory<'_>,
        fd: Fd,
        old_path: GuestPtr<str>,
        new_fd: Fd,
        new_path: GuestPtr<str>,
    ) -> Result<()> {
        let (fd, new_fd) = (self.directory(mem, fd)?, self.directory(mem, new_fd)?);
        let (old_path, new_path) = (self.text(mem, old_path)?, self.text(mem, new_path)?);
        Ok(self.fs().rename_at(fd, old_path, new_fd, new_path).await?)
    }

    async fn path_symlink(
        &mut self,
        mem: &mut GuestMemory<'_>,
        old_path: GuestPtr<str>,
        fd: Fd,
        new_path: GuestPtr<str>,
    ) -> Result<()> {
        let fd = self.directory(mem, fd)?;
        let (old_path, new_path) = (self.text(mem, old_path)?, self.text(mem, new_path)?);
        Ok(self.fs().symlink_at(fd, old_path, new_path).await?)
    }

    async fn path_unlink_file(&mut self, mem: &mut GuestMemory<'_>, fd: Fd, path: GuestPtr<str>) -> Result<()> {
        let (fd, path) = (self.directory(mem, fd)?, self.text(mem, path)?);
        Ok(self.fs().unlink_file_at(fd, path).await?)
    }
}
