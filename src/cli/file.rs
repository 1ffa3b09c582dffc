//! A module's file on its way to the daemon.

use super::Failure;
use crate::client::Client;
use crate::model::escape;
use crate::model::name::{NAME_BYTES_MAX, Name};
use crate::model::reply::ModuleView;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long something may take before a person wants to see that it goes on.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

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
        let mut progress = Progress::new(&self.path, self.bytes.len());
        let sent = client.put(name, &self.bytes, &self.sha256, text, |bytes| progress.advance(bytes)).await;
        progress.finish();
        Ok(sent?)
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

/// A bar on a terminal, once it takes longer than [`PATIENCE`].
struct Progress {
    bar: Option<ProgressBar>,
    since: Instant,
    sent: usize,
    total: usize,
    label: String,
}

impl Progress {
    fn new(path: &Path, total: usize) -> Progress {
        Progress {
            bar: None,
            since: Instant::now(),
            sent: 0,
            total,
            label: escape::line(&path.to_string_lossy()).into_owned(),
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.bar.is_none() && self.since.elapsed() > PATIENCE && std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(self.total as u64).with_style(style).with_message(self.label.clone());
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.sent as u64);
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
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
