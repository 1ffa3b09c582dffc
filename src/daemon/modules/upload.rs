//! A module on its way in: received into a file of its own, compiled, and stored if it can run.

use super::{Content, Input, Modules};
use crate::daemon::compile::Compiling;
use crate::daemon::store::ModuleRow;
use crate::daemon::{blocking, hex};
use crate::error::{Error, Result};
use crate::model::name::Name;
use crate::model::reply::ModuleView;
use sha2::{Digest as _, Sha256};
#[cfg(unix)]
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A module on its way in. Dropped before [`Upload::finish`], it leaves nothing behind.
pub struct Upload {
    pub(super) modules: Modules,
    pub(super) name: Name,
    pub(super) text: bool,
    pub(super) file: tempfile::NamedTempFile,
    pub(super) hash: Sha256,
    pub(super) missing: u64,
    pub(super) bytes: u64,
    pub(super) place: Place,
}

/// Room for what was announced, given back when it is dropped.
pub(super) struct Place {
    pub(super) all: Arc<AtomicU64>,
    pub(super) bytes: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Upload {
    /// Bytes that are still to come.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Takes the next bytes, at most [`Upload::missing`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub async fn write(mut self, bytes: bytes::Bytes) -> Result<Upload> {
        self.missing = self.missing.checked_sub(bytes.len() as u64).expect("no more than what is missing");
        blocking(move || {
            self.hash.update(&bytes);
            self.file.write_all(&bytes).map_err(|e| Error::io("cannot store the module", &e))?;
            Ok(self)
        })
        .await
    }

    /// Compiles what came, and stores it if it can run. `sha256` is what the sender says that it sent.
    ///
    /// # Errors
    ///
    /// [`Error::BadModule`], [`Error::Usage`] if the digests differ, [`Error::Io`].
    pub async fn finish(self, sha256: Option<&str>, compiling: impl FnMut(Compiling)) -> Result<ModuleView> {
        assert!(self.missing == 0, "an upload is finished when all is there");
        let Upload { modules, name, text, file, hash, bytes, place, .. } = self;
        let digest = hex(&hash.finalize());
        if sha256.is_some_and(|said| said != digest) {
            return Err(Error::Usage(format!("what arrived has the SHA-256 {digest}, not the one that was announced")));
        }
        let content = Content { digest: digest.as_str().into(), text };
        // Not by its path, which goes with this client: others may have begun to wait for what comes of it.
        let open = file.reopen().map_err(|e| Error::io("cannot read the module again", &e))?;
        let input = Input::Open(Arc::new(open));
        modules.program(&name, content, input, compiling).await?;
        let row = ModuleRow { name: name.to_string(), sha256: digest, bytes, text };
        // A task of its own: a client that goes away now must not leave it half done.
        let tracker = modules.0.tracker.clone();
        let stored = tracker.spawn(async move {
            let _changing = modules.0.changing.lock().await;
            let path = modules.0.store.module_path(&row.sha256);
            blocking(move || persist(file, &path)).await?;
            drop(place);
            let sha256 = row.sha256.clone();
            let recorded = modules.record(&name, row).await;
            if recorded.is_err() {
                modules.remove_unused(&sha256).await;
            }
            recorded
        });
        stored.await.map_err(|e| Error::Internal(format!("storing the module ended early: {e}")))?
    }
}

/// Puts a received file in its place, synced: the name that will point to it survives a power cut, so the bytes have to.
fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    let io = |e: &dyn std::fmt::Display| Error::io(format!("cannot store {}", path.display()), e);
    file.as_file().sync_all().map_err(|e| io(&e))?;
    file.persist(path).map_err(|e| io(&e))?;
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        File::open(directory).and_then(|d| d.sync_all()).map_err(|e| io(&e))?;
    }
    Ok(())
}
