//! The bytes of a module, for a client that asks for them: read a piece at a time, as fast as they are taken.

use super::{Input, Modules, Source, files};
use crate::daemon::blocking;
use crate::error::Result;
use crate::model::name::Name;
use std::fs::File;
use std::io::Read;

/// Bytes of a piece: in base64 and with its envelope, one that is sent at a time.
const PIECE_BYTES: usize = 48 * 1024;

/// An open module.
pub struct OpenModule {
    file: Option<File>,
    left: u64,
    name: Name,
    text: bool,
}

impl Modules {
    /// Opens the module called `name`.
    ///
    /// # Errors
    ///
    /// As [`Modules::load`], but for what a compiler says.
    pub(crate) async fn open_content(&self, name: &Name) -> Result<OpenModule> {
        let source = self.find(name).await?;
        let text = match &source {
            Source::Stored(row) => row.text,
            Source::File(path) => files::is_text(path),
            Source::BuiltIn(_) => true,
        };
        let (this, module) = (self.clone(), name.clone());
        let mut file = blocking(move || this.open_input(&module, Input::Of(source))).await?;
        let failed = |e: std::io::Error| crate::Error::io(format!("module '{name}' cannot be read"), &e);
        // What was just written for this stands at its end.
        std::io::Seek::rewind(&mut file).map_err(failed)?;
        let left = file.metadata().map_err(failed)?.len();
        Ok(OpenModule { file: Some(file), left, name: name.clone(), text })
    }
}

impl OpenModule {
    /// Whether it is WebAssembly text.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// The next piece; none behind the last one. A file that grows meanwhile is read as far as it was there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.file.take().filter(|_| self.left > 0) else { return Ok(None) };
        let most = self.left.min(u64::try_from(PIECE_BYTES).expect("a small number"));
        let (file, read) = blocking(move || {
            let mut piece = Vec::new();
            let read = (&mut file).take(most).read_to_end(&mut piece).map(|_| piece);
            (file, read)
        })
        .await;
        let piece = read.map_err(|e| crate::Error::io(format!("module '{}' cannot be read", self.name), &e))?;
        if piece.is_empty() {
            return Ok(None);
        }
        self.left = self.left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self.file = Some(file);
        Ok(Some(piece))
    }
}
