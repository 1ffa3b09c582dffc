//! Bytes become machine code. It runs in a process of its own, which its limits may end at any moment: nothing here knows
//! files, names or the daemon.

use super::configuration::{VERSION_OF_CODE, configuration};
use super::{structure, unroll};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;

/// Why there is no machine code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCompiled {
    /// The bytes cannot run here: one line, which may quote the module.
    Refused(String),
    /// It needs more memory than there is for it.
    Memory,
    /// This machine could not do it now, whatever the bytes are.
    Failed(String),
}

impl From<String> for NotCompiled {
    fn from(why: String) -> NotCompiled {
        NotCompiled::Refused(why)
    }
}

/// The longest reason that is passed on; parsers like to quote.
pub(super) const REASON_BYTES_MAX: usize = 400;

/// An engine that only compiles.
pub struct Compiler(wasmtime::Engine);

impl Compiler {
    /// A compiler for the daemon's engine, which is a dense one or is not.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if this machine cannot run the configuration.
    pub fn new(dense: bool) -> Result<Compiler> {
        let engine = wasmtime::Engine::new(&configuration(dense));
        Ok(Compiler(engine.map_err(|e| Error::Internal(format!("the compiler cannot start: {e}")))?))
    }

    /// What code has to have in common to be interchangeable, in hex: the versions, the settings, the processor. Two different
    /// builds never have the same one.
    pub fn fingerprint(&self) -> String {
        struct Sha(Sha256);
        impl Hasher for Sha {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
            fn finish(&self) -> u64 {
                0
            }
        }
        let mut sha = Sha(Sha256::new_with_prefix(VERSION_OF_CODE));
        self.0.precompile_compatibility_hash().hash(&mut sha);
        sha.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Compiles `bytes`, which takes from a millisecond to minutes, and memory without a bound of its own. `text` says that they
    /// are WebAssembly text; bytes are never guessed to be text.
    ///
    /// # Errors
    ///
    /// [`NotCompiled`].
    pub fn compile(&self, bytes: &[u8], text: bool) -> Result<Vec<u8>, NotCompiled> {
        let translated;
        let wasm = if text {
            let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned())?;
            translated = wat::parse_str(text).map_err(|e| wat_reason(&e))?;
            &translated
        } else {
            bytes
        };
        check_header(wasm)?;
        structure::check(wasm)?;
        // What is wrong is told of the bytes that somebody wrote, and with their offsets.
        if let Some(code) = unroll::unroll(wasm).and_then(|unrolled| self.precompile(&unrolled).ok()) {
            return Ok(code);
        }
        self.precompile(wasm).map_err(|e| not_compiled(&e))
    }

    fn precompile(&self, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
        if is_component(wasm) { self.0.precompile_component(wasm) } else { self.0.precompile_module(wasm) }
    }
}

/// The first eight bytes: the magic number, then version and layer (WebAssembly core specification, 5.5.16).
pub(super) fn check_header(wasm: &[u8]) -> Result<(), String> {
    const MAGIC: &[u8] = b"\0asm";
    const ELF: &[u8] = b"\x7fELF";
    if wasm.is_empty() {
        return Err("it is empty".to_owned());
    }
    if wasm.starts_with(ELF) {
        return Err("it is a native object, not WebAssembly; precompiled modules are not accepted".to_owned());
    }
    if !wasm.starts_with(MAGIC) {
        return Err(
            "it does not begin as a WebAssembly binary does; text modules are accepted from files that end in .wat"
                .to_owned(),
        );
    }
    if wasm.len() < 8 {
        return Err("it is cut off after its first bytes".to_owned());
    }
    Ok(())
}

fn is_component(wasm: &[u8]) -> bool {
    wasm.get(6) == Some(&1)
}

/// An error of the system below (no memory for the code, no thread) says nothing of the module.
fn not_compiled(error: &wasmtime::Error) -> NotCompiled {
    #[cfg(unix)]
    if error.chain().any(|e| e.downcast_ref::<rustix::io::Errno>() == Some(&rustix::io::Errno::NOMEM)) {
        return NotCompiled::Memory;
    }
    if error.chain().any(|e| e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfMemory)) {
        return NotCompiled::Memory;
    }
    if of_the_system(error) { NotCompiled::Failed(reason(error)) } else { NotCompiled::Refused(reason(error)) }
}

/// Whether it was the system that refused something.
pub(super) fn of_the_system(error: &wasmtime::Error) -> bool {
    #[cfg(unix)]
    if error.chain().any(|e| e.is::<rustix::io::Errno>()) {
        return true;
    }
    error.chain().any(|e| e.is::<std::io::Error>())
}

pub(super) fn reason(error: &wasmtime::Error) -> String {
    let all: Vec<String> = error.chain().map(ToString::to_string).collect();
    cut(&all.join(": "))
}

pub(super) fn wat_reason(error: &wat::Error) -> String {
    // "message\n     --> <anon>:1:2\n ...": the message, and where.
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim);
    let message = lines.next().unwrap_or_default();
    let place = lines.find_map(|l| l.strip_prefix("--> <anon>:").or_else(|| l.strip_prefix("-->")));
    match place {
        Some(place) => cut(&format!("line {}: {message}", place.trim().replacen(':', ", column ", 1))),
        None => cut(message),
    }
}

pub(super) fn cut(text: &str) -> String {
    crate::model::escape::short(text, REASON_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_same_each_time() {
        let one = Compiler::new(false).unwrap().fingerprint();
        assert_eq!((one.len(), &one), (64, &Compiler::new(false).unwrap().fingerprint()));
        let other = Compiler(
            wasmtime::Engine::new(configuration(false).max_wasm_stack(1 << 16).epoch_interruption(false)).unwrap(),
        );
        assert_ne!(one, other.fingerprint(), "other settings make other code");
        assert_ne!(one, Compiler::new(true).unwrap().fingerprint(), "that of a dense engine too");
    }

    #[test]
    fn what_is_wrong_is_told_of_the_bytes_as_they_came() {
        let wasm = wat::parse_str("(module (func (loop $l br $l)) (func (result i32) i64.const 1))").unwrap();
        assert!(unroll::unroll(&wasm).is_some());
        let error = wasmparser::Validator::new().validate_all(&wasm).err().unwrap();
        let Err(NotCompiled::Refused(why)) = Compiler::new(false).unwrap().compile(&wasm, false) else { panic!() };
        assert!(why.contains(&format!("at offset {}", error.offset())), "{why}");
    }
}
