//! Machine code from a file becomes a module or a component that can be instantiated: one of two places with `unsafe`.
#![expect(unsafe_code, reason = "wasmtime cannot check machine code; see SAFETY for why ours can be trusted")]

use std::fs::File;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

/// Compiled code that is in memory.
pub(super) enum Code {
    Module(Module),
    Component(Component),
}

/// Maps compiled code. The file is one that `daemon/compile` made: written by a compiler that the daemon started, into a
/// directory that only the daemon's user can write to, and on this very handle found to have the digest that it had then.
///
/// # Errors
///
/// It was made by another version or for another machine, or cannot be mapped.
pub(super) fn load(engine: &Engine, file: File) -> wasmtime::Result<Code> {
    #[cfg(target_os = "linux")]
    {
        // The handle and not a name: what was checked is what is mapped. Components are opened by a path only.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        match Engine::detect_precompiled_file(&path)? {
            Some(Precompiled::Component) => {
                // SAFETY: the bytes are what our own compiler wrote for this version of the engine: their digest, which names
                // the file, was compared on this handle before, and only processes of this user can change the file since.
                // Those are not defended against (README, "What it does not promise"). Nothing of the daemon writes to it:
                // it is made aside, renamed once, and later only unlinked. wasmtime compares versions and settings itself.
                Ok(Code::Component(unsafe { Component::deserialize_file(engine, &path) }?))
            }
            // SAFETY: as above.
            Some(Precompiled::Module) => Ok(Code::Module(unsafe { Module::deserialize_open_file(engine, file) }?)),
            None => Err(wasmtime::Error::msg("it is no compiled code")),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let mut bytes = Vec::new();
        let mut file = file;
        std::io::Seek::rewind(&mut file)?;
        std::io::Read::read_to_end(&mut file, &mut bytes)?;
        match Engine::detect_precompiled(&bytes) {
            // SAFETY: as above; the bytes are copied, so that nobody changes them later.
            Some(Precompiled::Component) => Ok(Code::Component(unsafe { Component::deserialize(engine, &bytes) }?)),
            // SAFETY: as above.
            Some(Precompiled::Module) => Ok(Code::Module(unsafe { Module::deserialize(engine, &bytes) }?)),
            None => Err(wasmtime::Error::msg("it is no compiled code")),
        }
    }
}
