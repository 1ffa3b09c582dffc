//! A module's file on its way to the daemon.

use super::failure::Failure;
use crate::cli::progress::Progress;
use crate::client::{Client, PutProgress};
use crate::model::alike;
use crate::model::name::{NAME_BYTES_MAX, Name};
use crate::model::reply::ModuleView;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Entries of a directory that are looked at for a module.
const ENTRIES_MAX: usize = 1000;

/// A file with its content.
pub(super) struct ModuleFile {
    path: PathBuf,
    bytes: Vec<u8>,
    /// SHA-256 in hex.
    pub(super) sha256: String,
}

/// Whether a MODULE of the command line means a file.
pub(super) fn is_path(module: &str) -> bool {
    // `.` is no name; whoever runs it means the directory, and is told what is in it.
    matches!(module, "." | "..")
        || module.contains(['/', '\\'])
        || module.ends_with(".wasm")
        || module.ends_with(".wat")
}

impl ModuleFile {
    pub(super) fn read(path: &str) -> Result<ModuleFile, Failure> {
        ModuleFile::read_up_to(path, usize::MAX)
    }

    pub(super) fn read_up_to(path: &str, bytes_max: usize) -> Result<ModuleFile, Failure> {
        let path = PathBuf::from(path);
        let failed = |e: &std::io::Error| Failure::new(format!("cannot read {}", path.display())).cause(e);
        let meta = path.metadata().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => not_there(&path, failed(&e).code(super::NO_SUCH_MODULE)),
            _ => failed(&e),
        })?;
        if meta.is_dir() {
            let failure = Failure::new(format!("{} is a directory, and not a regular file", path.display()));
            return Err(failure.code(super::CANNOT_RUN).hint(in_directory(&path)));
        }
        if !meta.is_file() {
            let failure = Failure::new(format!("{} is not a regular file", path.display()));
            return Err(failure.code(super::CANNOT_RUN));
        }
        if meta.len() > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
            let most = bytesize::ByteSize(u64::try_from(bytes_max).unwrap_or(u64::MAX));
            return Err(Failure::new(format!("{} has more than {most}", path.display())).code(super::CANNOT_RUN));
        }
        let bytes = std::fs::read(&path).map_err(|e| failed(&e))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        Ok(ModuleFile { path, bytes, sha256 })
    }

    /// The name that the file's own suggests.
    pub(super) fn name(&self) -> Result<String, Failure> {
        name_of(&self.path).map(String::from).ok_or_else(|| {
            Failure::new(format!("no name can be made of {}", self.path.display())).hint("give one with --name")
        })
    }

    /// Its bytes, and whether they are WebAssembly text.
    pub(super) fn content(&self) -> (&[u8], bool) {
        (&self.bytes, self.is_text())
    }

    fn is_text(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "wat")
    }

    /// Sends it, unless the daemon has it already.
    pub(super) async fn send(&self, client: &mut Client, name: &str) -> Result<ModuleView, Failure> {
        let text = self.is_text();
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

/// The name that a file's own suggests.
pub(super) fn name_of(path: &Path) -> Option<Name> {
    suggested_name(&path.file_stem().unwrap_or_default().to_string_lossy())
}

/// What was meant by a file that is not there: one beside it that is called nearly so, or a module without a path.
fn not_there(path: &Path, failure: Failure) -> Failure {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = modules_in(directory);
    let asked = path.file_name().unwrap_or_default().to_string_lossy();
    match alike::closest(&asked, files.iter().map(String::as_str)) {
        Some(meant) => failure.hint(format!("did you mean {}?", directory.join(meant).display())),
        None => failure.hint("a module of the daemon's is run by its name alone; `coracle modules` lists them"),
    }
}

/// What to do about a directory in the place of a module.
pub(super) fn in_directory(directory: &Path) -> String {
    let built = directory.join("target/wasm32-wasip1/release");
    let places = [directory, &built];
    let found = places.iter().find_map(|place| modules_in(place).first().map(|file| place.join(file)));
    match found {
        Some(file) => format!("there is a module in it: coracle run {}", file.display()),
        None if directory.join("Cargo.toml").is_file() => {
            "build it (`cargo build --release --target wasm32-wasip1`), and run what is in target/wasm32-wasip1/release"
                .to_owned()
        }
        None => "give a file that ends in .wasm or .wat; `coracle run -v DIR:/dir MODULE` lends a directory".to_owned(),
    }
}

/// Names of files that look like modules, in their order.
fn modules_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".wasm") || name.ends_with(".wat")).collect();
    names.sort_unstable();
    names
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
