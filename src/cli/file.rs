//! A module's file on its way to the daemon.

use super::Failure;
use crate::cli::progress::Progress;
use crate::client::{Client, PutProgress};
use crate::model::name::{NAME_BYTES_MAX, Name};
use crate::model::reply::ModuleView;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// A file with its content.
pub(super) struct ModuleFile {
    path: PathBuf,
    bytes: Vec<u8>,
    /// SHA-256 in hex.
    pub(super) sha256: String,
}

/// Whether a MODULE of the command line means a file.
pub(super) fn is_path(module: &str) -> bool {
    module.contains(['/', '\\']) || module.ends_with(".wasm") || module.ends_with(".wat")
}

impl ModuleFile {
    pub(super) fn read(path: &str) -> Result<ModuleFile, Failure> {
        let path = PathBuf::from(path);
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("cannot read {}: {e}", path.display()));
        let meta = path.metadata().map_err(|e| {
            let mut failure = failed(&e);
            if e.kind() == std::io::ErrorKind::NotFound {
                failure.code = super::NO_SUCH_MODULE;
            }
            failure
        })?;
        if !meta.is_file() {
            let mut failure = failed(&"it is not a regular file");
            failure.code = super::CANNOT_RUN;
            return Err(failure);
        }
        let bytes = std::fs::read(&path).map_err(|e| failed(&e))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        Ok(ModuleFile { path, bytes, sha256 })
    }

    /// The name that the file's own suggests.
    pub(super) fn name(&self) -> Result<String, Failure> {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        suggested_name(&stem).map(String::from).ok_or_else(|| {
            Failure::new(format!("no name can be made of {}", self.path.display())).hint("give one with --name")
        })
    }

    /// Sends it, unless the daemon has it already.
    pub(super) async fn send(&self, client: &mut Client, name: &str) -> Result<ModuleView, Failure> {
        let text = self.path.extension().is_some_and(|e| e == "wat");
        let mut progress = Progress::default();
        progress.transfer(&self.path.to_string_lossy(), self.bytes.len());
        let sent = client.put(name, &self.bytes, &self.sha256, text, |step| match step {
            PutProgress::Sent(bytes) => progress.advance(bytes),
            PutProgress::Compiling(elapsed) => progress.compiling(name, elapsed),
            PutProgress::Queued(place) => progress.queued(name, place),
        });
        // Dropped behind the transfer, the bar leaves nothing on the terminal.
        Ok(sent.await?)
    }
}

/// A valid name that is close to `stem`.
fn suggested_name(stem: &str) -> Option<Name> {
    let plain: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' }).collect();
    let mut plain = plain.trim_matches(['.', '-', '_']).to_owned();
    while plain.contains("..") {
        plain = plain.replace("..", ".");
    }
    plain.truncate(NAME_BYTES_MAX - 2);
    let plain = plain.trim_end_matches('.');
    if plain.is_empty() {
        return None;
    }
    // A verb or a device name becomes an ordinary name with a letter in front.
    plain.parse().or_else(|_| format!("m-{plain}").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_name_suggests_a_valid_name() {
        for (stem, name) in [
            ("app", "app"),
            ("My App (1)", "My-App--1"),
            ("..x..y", "x.y"),
            ("run", "m-run"),
            ("con", "m-con"),
            ("ünïcode", "n-code"),
            (&"x".repeat(300), &"x".repeat(61)),
        ] {
            assert_eq!(suggested_name(stem).unwrap().as_str(), name);
        }
        assert!(suggested_name("").is_none() && suggested_name("…").is_none());
    }

    #[test]
    fn a_path_is_told_from_a_name() {
        assert!(is_path("./app") && is_path("app.wasm") && is_path("dir/app.wat") && is_path("C:\\x.wasm"));
        assert!(!is_path("app") && !is_path("app.v1"));
    }
}
