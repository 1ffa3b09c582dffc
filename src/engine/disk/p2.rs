//! `wasi:filesystem/types` with an account: wasmtime-wasi's implementation, and before and after what it does, the budget.
//!
//! Preview 1 comes here too for everything that has a path. One guest makes one call at a time, so nothing of its own
//! comes between a look at a path and the call that it is for; who else changes the directory can make the account wrong.

use super::listing::Listing;
use super::{Disk, Numbers, OverBudget, Target, Usage, stream};
use crate::config::fixed::{PATH_BYTES_MAX, WRITE_CHARGED_BYTES};
use std::sync::Arc;
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream, ErrorCode, Host,
    HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

type Fd = Resource<Descriptor>;

pub(super) const NAME: Usage = Usage { bytes: 0, files: 1 };

impl OverBudget {
    fn code(self) -> ErrorCode {
        match self {
            OverBudget::Bytes(_) | OverBudget::Files(_) => ErrorCode::Quota,
            OverBudget::Room(_) => ErrorCode::InsufficientSpace,
        }
    }
}

impl From<OverBudget> for FsError {
    fn from(over: OverBudget) -> FsError {
        over.code().into()
    }
}

/// What opening may change. Whether it made the file, and how long that was before it was cut off, cannot be told
/// afterwards; so it is first opened as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    Nothing,
    /// It makes a file, or fails.
    New,
    Perhaps,
}

impl Changes {
    pub(super) fn of(creates: bool, truncates: bool, exclusive: bool, directory: bool) -> Changes {
        match (creates, truncates) {
            // With the others `directory` is refused.
            _ if directory => Changes::Nothing,
            (false, false) => Changes::Nothing,
            (true, _) if exclusive => Changes::New,
            _ => Changes::Perhaps,
        }
    }
}

/// Says to the linker what the interface is called with.
pub(in crate::engine) struct Files;

impl HasData for Files {
    type Data<'a> = Fs<'a>;
}

/// A store's file system, for one call.
pub(in crate::engine) struct Fs<'a> {
    pub(in crate::engine) view: WasiFilesystemCtxView<'a>,
    pub(in crate::engine) disk: &'a mut Disk,
}

impl Numbers {
    /// wasmtime-wasi's upper half says the same as its lower one.
    fn of_hash(&self, hash: &MetadataHashValue) -> MetadataHashValue {
        MetadataHashValue { lower: self.of(hash.lower), upper: self.of(hash.upper) }
    }
}

/// Longer ones are not even copied.
fn short(path: &str) -> Result<(), ErrorCode> {
    if path.len() > PATH_BYTES_MAX { Err(ErrorCode::NameTooLong) } else { Ok(()) }
}

fn again(fd: &Fd) -> Fd {
    Resource::new_borrow(fd.rep())
}

impl Fs<'_> {
    /// Whether a directory is one of the host's, or below one.
    pub(super) fn is_lent(&self, dir: &Fd) -> bool {
        match self.view.table.get(dir) {
            Ok(Descriptor::Dir(directory)) => self.disk.is_lent(dir.rep(), &directory.dir),
            _ => false,
        }
    }

    /// Charges what is about to be made in a directory.
    pub(super) fn take(&self, dir: &Fd, what: Usage) -> FsResult<()> {
        Ok(self.disk.account(self.is_lent(dir)).take(what)?)
    }

    /// Gives back what was charged for something that then was not made.
    pub(super) fn made<T, E>(&self, dir: &Fd, what: Usage, made: Result<T, E>) -> Result<T, E> {
        made.inspect_err(|_| self.disk.account(self.is_lent(dir)).lock().give_back(what))
    }

    /// What is neither a file nor a directory is not opened in directories of the host: to open a FIFO takes a thread for as long
    /// as nobody else opens it, and a device may do anything. In its own directory a guest cannot make one. To set times opens
    /// too, where links are followed.
    pub(super) async fn check_kind(&mut self, dir: &Fd, path_flags: PathFlags, path: &str) -> FsResult<()> {
        if !self.is_lent(dir) {
            return Ok(());
        }
        // What is not there may be made; what cannot be looked at is refused by who opens it.
        let Ok(stat) = self.disk.gate.pass(self.view.stat_at(again(dir), path_flags, path.to_owned())).await else {
            return Ok(());
        };
        match stat.type_ {
            DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink => Ok(()),
            _ => Err(ErrorCode::NotPermitted.into()),
        }
    }

    /// Nothing is moved between accounts.
    fn within_one(&self, dir: &Fd, other: &Fd) -> FsResult<()> {
        if self.is_lent(dir) == self.is_lent(other) { Ok(()) } else { Err(ErrorCode::CrossDevice.into()) }
    }

    /// What would lose this name. `None`: there is nothing, or nothing that may be seen.
    async fn look(&mut self, dir: &Fd, path: &str) -> Option<Target> {
        let nofollow = PathFlags::empty();
        let stat = self.disk.gate.pass(self.view.stat_at(again(dir), nofollow, path.to_owned())).await.ok()?;
        if stat.type_ == DescriptorType::Directory || stat.link_count > 1 {
            return Some(Target::Shared);
        }
        let mut key = None;
        let has_open = self.disk.account(self.is_lent(dir)).lock().is_open(None);
        if stat.type_ == DescriptorType::RegularFile && has_open {
            let hash = self.view.metadata_hash_at(again(dir), nofollow, path.to_owned());
            key = Some(self.disk.gate.pass(hash).await.ok()?.lower);
        }
        Some(Target::File { key, bytes: stat.size })
    }

    /// Opens, and begins to account for what was opened.
    async fn open(
        &mut self,
        dir: &Fd,
        path_flags: PathFlags,
        path: &str,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        self.check_kind(dir, path_flags, path).await?;
        let open = self.view.open_at(again(dir), path_flags, path.to_owned(), open_flags, flags);
        let opened = self.disk.gate.pass(open).await?;
        match self.opened(dir, &opened) {
            Ok(()) => Ok(opened),
            Err(e) => {
                HostDescriptor::drop(self, opened).map_err(FsError::trap)?;
                Err(e)
            }
        }
    }

    /// Begins to account for a descriptor that was opened in `dir`.
    pub(super) fn opened(&mut self, dir: &Fd, fd: &Fd) -> FsResult<()> {
        let is_lent = self.is_lent(dir);
        match self.view.table.get(fd)? {
            Descriptor::File(file) => self.disk.opened(fd.rep(), &file.file, is_lent)?,
            Descriptor::Dir(_) => self.disk.opened_directory(fd.rep(), is_lent),
        }
        Ok(())
    }

    /// `path` opened if there is something: as `flags` would open it, but neither made nor cut off.
    async fn open_as_it_is(
        &mut self,
        dir: &Fd,
        path_flags: PathFlags,
        path: &str,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        // wasmtime-wasi opens for writing what it may create or truncate, and for reading what is not said to be written.
        let read_too = if flags.contains(DescriptorFlags::WRITE) { flags } else { flags | DescriptorFlags::READ };
        self.open(dir, path_flags, path, OpenFlags::empty(), read_too | DescriptorFlags::WRITE).await
    }

    /// A file, made and open.
    async fn create(
        &mut self,
        dir: &Fd,
        path_flags: PathFlags,
        path: &str,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        self.take(dir, NAME)?;
        let opened = self.open(dir, path_flags, path, open_flags, flags).await;
        self.made(dir, NAME, opened)
    }

    /// Truncates what was opened. What is not in the account is no regular file, and then nothing happens (open(2)).
    pub(super) async fn cut_off(&mut self, fd: &Fd) -> FsResult<()> {
        if !self.disk.open.contains_key(&fd.rep()) {
            return Ok(());
        }
        self.set_size(again(fd), 0).await
    }

    /// Puts a stream of ours in the place of wasmtime-wasi's, which was not refused.
    fn output(
        &mut self,
        fd: &Fd,
        inner: Resource<DynOutputStream>,
        at: Option<u64>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let Some(pin) = self.disk.open.get(&fd.rep()) else { return Ok(inner) };
        let output = stream::Output::new(Arc::clone(pin), at);
        self.view.table.delete(inner)?;
        Ok(self.view.table.push(Box::new(output) as DynOutputStream)?)
    }
}

impl Host for Fs<'_> {
    fn convert_error_code(&mut self, err: FsError) -> wasmtime::Result<ErrorCode> {
        self.view.convert_error_code(err)
    }

    fn filesystem_error_code(&mut self, err: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        if let Some(over) = self.view.table.get(&err)?.downcast_ref::<OverBudget>() {
            return Ok(Some(over.code()));
        }
        self.view.filesystem_error_code(err)
    }
}

/// What changes neither sizes nor names.
macro_rules! as_it_is {
    ($(async fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(async fn $name(&mut self, $($arg: $type),*) -> $result {
            self.disk.gate.pass(self.view.$name($($arg),*)).await
        })*
    };
}

impl HostDescriptor for Fs<'_> {
    as_it_is! {
        async fn advise(fd: Fd, offset: u64, len: u64, advice: Advice) -> FsResult<()>;
        async fn sync_data(fd: Fd) -> FsResult<()>;
        async fn get_flags(fd: Fd) -> FsResult<DescriptorFlags>;
        async fn get_type(fd: Fd) -> FsResult<DescriptorType>;
        async fn set_times(fd: Fd, access: NewTimestamp, modification: NewTimestamp) -> FsResult<()>;
        async fn read(fd: Fd, len: u64, offset: u64) -> FsResult<(Vec<u8>, bool)>;
        async fn sync(fd: Fd) -> FsResult<()>;
        async fn stat(fd: Fd) -> FsResult<DescriptorStat>;
        async fn is_same_object(fd: Fd, other: Fd) -> wasmtime::Result<bool>;
    }

    async fn stat_at(&mut self, fd: Fd, path_flags: PathFlags, path: String) -> FsResult<DescriptorStat> {
        short(&path)?;
        self.disk.gate.pass(self.view.stat_at(fd, path_flags, path)).await
    }

    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        short(&path)?;
        self.disk.gate.pass(self.view.readlink_at(fd, path)).await
    }

    async fn metadata_hash_at(&mut self, fd: Fd, path_flags: PathFlags, path: String) -> FsResult<MetadataHashValue> {
        short(&path)?;
        let hash = self.disk.gate.pass(self.view.metadata_hash_at(fd, path_flags, path)).await?;
        Ok(self.disk.numbers.of_hash(&hash))
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<MetadataHashValue> {
        let hash = self.disk.gate.pass(self.view.metadata_hash(fd)).await?;
        Ok(self.disk.numbers.of_hash(&hash))
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        path_flags: PathFlags,
        path: String,
        access: NewTimestamp,
        modification: NewTimestamp,
    ) -> FsResult<()> {
        short(&path)?;
        self.check_kind(&fd, path_flags, &path).await?;
        self.disk.gate.pass(self.view.set_times_at(fd, path_flags, path, access, modification)).await
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<DirectoryEntryStream>> {
        let Descriptor::Dir(directory) = self.view.table.get(&fd)? else { return Err(ErrorCode::NotDirectory.into()) };
        let listing = self.disk.gate.pass(Listing::open(Arc::clone(&directory.dir))).await?;
        // The table has ours in the place of what wasmtime-wasi calls a stream of entries, which nobody else can make.
        Ok(Resource::new_own(self.view.table.push(listing)?.rep()))
    }

    async fn set_size(&mut self, fd: Fd, size: u64) -> FsResult<()> {
        let Some(pin) = self.disk.open.get(&fd.rep()) else {
            return self.disk.gate.pass(self.view.set_size(fd, size)).await;
        };
        let _change = pin.change(size)?;
        self.disk.gate.pass(self.view.set_size(fd, size)).await
    }

    async fn write(&mut self, fd: Fd, buf: Vec<u8>, offset: u64) -> FsResult<u64> {
        // Until it is written, which may take a while where many write.
        let large = Some(buf.len()).filter(|bytes| *bytes >= WRITE_CHARGED_BYTES);
        let _charged = self.disk.memory.hold(large.unwrap_or(0)).ok_or(ErrorCode::InsufficientMemory)?;
        let Some(pin) = self.disk.open.get(&fd.rep()) else {
            return self.disk.gate.pass(self.view.write(fd, buf, offset)).await;
        };
        let _change = pin.write(Some(offset), u64::try_from(buf.len()).unwrap_or(u64::MAX))?;
        self.disk.gate.pass(self.view.write(fd, buf, offset)).await
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        short(&path)?;
        self.take(&fd, NAME)?;
        let made = self.disk.gate.pass(self.view.create_directory_at(again(&fd), path)).await;
        self.made(&fd, NAME, made)
    }

    async fn link_at(&mut self, fd: Fd, flags: PathFlags, from: String, new_fd: Fd, to: String) -> FsResult<()> {
        short(&from).and(short(&to))?;
        self.within_one(&fd, &new_fd)?;
        self.take(&fd, NAME)?;
        let made = self.disk.gate.pass(self.view.link_at(again(&fd), flags, from, new_fd, to)).await;
        self.made(&fd, NAME, made)
    }

    async fn symlink_at(&mut self, fd: Fd, target: String, path: String) -> FsResult<()> {
        short(&target).and(short(&path))?;
        let link = Usage { bytes: u64::try_from(target.len()).unwrap_or(u64::MAX), files: 1 };
        self.take(&fd, link)?;
        let made = self.disk.gate.pass(self.view.symlink_at(again(&fd), target, path)).await;
        self.made(&fd, link, made)
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        short(&path)?;
        let has = |flag| open_flags.contains(flag);
        let (creates, truncates) = (has(OpenFlags::CREATE), has(OpenFlags::TRUNCATE));
        let opened = match Changes::of(creates, truncates, has(OpenFlags::EXCLUSIVE), has(OpenFlags::DIRECTORY)) {
            Changes::Nothing => return self.open(&fd, path_flags, &path, open_flags, flags).await,
            Changes::New => return self.create(&fd, path_flags, &path, open_flags, flags).await,
            Changes::Perhaps => match self.open_as_it_is(&fd, path_flags, &path, flags).await {
                Err(e) if creates && e.downcast_ref() == Some(&ErrorCode::NoEntry) => {
                    return self.create(&fd, path_flags, &path, open_flags, flags).await;
                }
                opened => opened?,
            },
        };
        if truncates && let Err(e) = self.cut_off(&opened).await {
            HostDescriptor::drop(self, opened).map_err(FsError::trap)?;
            return Err(e);
        }
        Ok(opened)
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        let handle = fd.rep();
        HostDescriptor::drop(&mut self.view, fd)?;
        self.disk.closed(handle);
        Ok(())
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        short(&path)?;
        self.disk.gate.pass(self.view.remove_directory_at(again(&fd), path)).await?;
        self.disk.unnamed(&Target::Shared, self.is_lent(&fd));
        Ok(())
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        short(&path)?;
        let target = self.look(&fd, &path).await;
        self.disk.gate.pass(self.view.unlink_file_at(again(&fd), path)).await?;
        if let Some(target) = target {
            self.disk.unnamed(&target, self.is_lent(&fd));
        }
        Ok(())
    }

    async fn rename_at(&mut self, fd: Fd, from: String, new_fd: Fd, to: String) -> FsResult<()> {
        short(&from).and(short(&to))?;
        self.within_one(&fd, &new_fd)?;
        let target = self.look(&new_fd, &to).await;
        let (old_fd, old_path) = (again(&fd), from.clone());
        self.disk.gate.pass(self.view.rename_at(fd, from, new_fd, to)).await?;
        // Two names of one file: then rename(2) does nothing, and both stay.
        if let Some(target) = target
            && self.look(&old_fd, &old_path).await.is_none()
        {
            self.disk.unnamed(&target, self.is_lent(&old_fd));
        }
        Ok(())
    }

    fn read_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynInputStream>> {
        let inner = self.view.read_via_stream(again(&fd), offset)?;
        let Some(pin) = self.disk.open.get(&fd.rep()) else { return Ok(inner) };
        let input = stream::Input::new(Arc::clone(pin), offset);
        self.view.table.delete(inner)?;
        Ok(self.view.table.push(Box::new(input) as DynInputStream)?)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynOutputStream>> {
        let inner = self.view.write_via_stream(again(&fd), offset)?;
        self.output(&fd, inner, Some(offset))
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        let inner = self.view.append_via_stream(again(&fd))?;
        self.output(&fd, inner, None)
    }
}

impl HostDirectoryEntryStream for Fs<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let listing: &mut Listing = self.view.table.get_mut(&Resource::new_borrow(stream.rep()))?;
        let Some(entry) = listing.next(&self.disk.gate).await? else { return Ok(None) };
        let name = String::from_utf8(entry.name).map_err(|_| ErrorCode::IllegalByteSequence)?;
        Ok(Some(DirectoryEntry { type_: entry.kind, name }))
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.view.table.delete(Resource::<Listing>::new_own(stream.rep()))?;
        Ok(())
    }
}
