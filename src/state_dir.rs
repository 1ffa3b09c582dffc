//! The state directory as a place: made for its user alone, and used only if nobody else can change what is in it. What is in
//! it is the business of those who write it.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes it, with all that leads to it, for its user alone (mode 0700). What is there already stays as it is.
///
/// # Errors
///
/// What the system says.
pub(crate) fn make(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Whether an open directory is ours, and nobody else may change what is in it.
///
/// # Errors
///
/// What the system says.
#[cfg(unix)]
pub(crate) fn is_private(directory: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let meta = directory.metadata()?;
    Ok(meta.is_dir() && is_ours(&meta) && meta.mode() & 0o022 == 0)
}

#[cfg(unix)]
fn is_ours(meta: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(meta) == rustix::process::geteuid().as_raw()
}

/// Opens a file of it to append to, made if it is missing. For whoever has no daemon that looked at the directory yet: no link
/// is followed, for another user may have put it there.
///
/// # Errors
///
/// [`io::ErrorKind::PermissionDenied`] if others may change what is in the directory, or the file is not a regular one of ours;
/// what the system says.
#[cfg(unix)]
pub(crate) fn append(directory: &Path, name: &str) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open, openat};
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    let whole = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = File::from(open(directory, whole, Mode::empty())?);
    if !is_private(&held)? {
        return Err(refused());
    }
    // Not waiting for the reader of a FIFO.
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&held, name, flags, Mode::RUSR | Mode::WUSR)?);
    let meta = file.metadata()?;
    if meta.is_file() && is_ours(&meta) { Ok(file) } else { Err(refused()) }
}

/// Opens a file of it to append to, made if it is missing.
///
/// # Errors
///
/// What the system says.
#[cfg(not(unix))]
pub(crate) fn append(directory: &Path, name: &str) -> io::Result<File> {
    File::options().create(true).append(true).open(directory.join(name))
}
