//! Looks at what a daemon would need, for `coracle doctor`: without one, and without changing anything. A daemon that runs beside
//! it does not notice.

use super::budget::{self, DESCRIPTORS_CODE, MAPS_KEPT};
use super::compile::{cache, processes_max};
use super::store::schema;
use crate::config::Limits;
use crate::engine::Entries;
use crate::error::Result;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use cache::Looked;

/// How many instances fit the limits of this machine, as far as they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Instances that open as many files as they may.
    pub(crate) opening: usize,
    /// Open files that the daemon keeps back for itself.
    pub(crate) files_kept: usize,
    /// Instances with one memory each.
    pub(crate) mapped: usize,
}

/// The room that there is with so many descriptors.
pub(crate) fn room(limits: &Limits, descriptors: usize) -> Room {
    let files_kept = budget::descriptors_kept(limits, processes_max());
    let one = budget::most_files(limits.handles_max).saturating_add(DESCRIPTORS_CODE);
    Room {
        opening: descriptors.saturating_sub(files_kept) / one,
        files_kept,
        mapped: budget::maps().saturating_sub(MAPS_KEPT) / (Entries::ORDINARY.memory + Entries::ORDINARY.stack),
    }
}

/// The compiled code that is kept in a state directory; at most `bytes_max` of it are read.
///
/// # Errors
///
/// It cannot be read.
pub(crate) fn compiled(state_dir: &Path, bytes_max: u64) -> io::Result<Looked> {
    cache::look(&state_dir.join("compiled"), bytes_max)
}

/// The database of a state directory that no daemon has: its version, and directories of instances.
///
/// # Errors
///
/// What a daemon would say when it starts.
pub(crate) fn database(state_dir: &Path, directories_max: usize) -> Result<Option<(usize, Vec<PathBuf>)>> {
    schema::look(state_dir, directories_max)
}
