//! What a guest that was dropped in the middle of something has left to threads: nothing takes it back, it lands when it lands.
//! Who counts what is in the directory has to count behind it, or the next run would be charged for less than there will be.

use super::{Key, key};
use std::any::Any;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How often it is looked at. Nobody tells that it is over: most of it is wasmtime-wasi's, and only lets go of its file.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Something that what is under way holds, and nobody else once the store is gone.
pub(in crate::engine) type Held = Weak<dyn Any + Send + Sync>;

/// One for all instances.
#[derive(Default)]
pub(in crate::engine) struct Unfinished {
    directories: Mutex<HashMap<Key, Vec<Held>>>,
}

impl Unfinished {
    /// Takes over what may be left of a run in this directory.
    pub(in crate::engine) fn add(&self, directory: &Path, left: Vec<Held>) {
        let Some(directory) = identity(directory) else { return };
        let mut all = self.lock();
        // What is over is not kept for a run that may never come.
        all.retain(|_, left| {
            left.retain(|held| held.strong_count() > 0);
            !left.is_empty()
        });
        all.entry(directory).or_default().extend(left);
    }

    /// Returns when nothing is left in this directory.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(in crate::engine) async fn over(&self, directory: &Path) {
        while self.is_left(directory) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(in crate::engine) fn is_left(&self, directory: &Path) -> bool {
        let all = self.lock();
        // The usual case costs no look at the directory.
        let left = if all.is_empty() { None } else { identity(directory).and_then(|directory| all.get(&directory)) };
        left.is_some_and(|left| left.iter().any(|held| held.strong_count() > 0))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Held>>> {
        // A map that no statement leaves half changed.
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None`: there is no such directory, so nothing is counted in it either.
fn identity(directory: &Path) -> Option<Key> {
    Some(key(&std::fs::metadata(directory).ok()?))
}
