//! `compile-module`, which the daemon starts for each module that it needs compiled: standard input is the module,
//! standard output an empty file for the code, and the last line on standard error says what came of it.
//!
//! The limits are taken on before a byte of the module is read, by this process on itself.

use super::Outcome;
use crate::daemon::CompilerSaid;
use crate::engine::{Compiler, NotCompiled};
use clap::Args;
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Read, Write};

/// Arguments of `compile-module`.
#[derive(Debug, Clone, Args)]
pub(super) struct CompileArgs {
    /// The module is WebAssembly text
    #[arg(long)]
    wat: bool,
    /// For an engine that compares each address
    #[arg(long)]
    dense: bool,
    /// SHA-256 of the module that is meant, in hex
    #[arg(long)]
    sha256: String,
    /// Bytes that the module may have
    #[arg(long)]
    module_size: u64,
    /// Bytes of memory
    #[arg(long)]
    memory: u64,
    /// Seconds of processor time
    #[arg(long)]
    cpu: u64,
    /// Bytes of code
    #[arg(long)]
    code_size: u64,
}

/// Compiles, and says what came of it. The exit code is 0 whenever it was said.
pub(super) fn child(args: &CompileArgs) -> Outcome {
    let said = match prepare(args) {
        Ok(()) => compile(args),
        Err(why) => CompilerSaid::Failed(format!("a compiler cannot be limited: {why}")),
    };
    let line = serde_json::to_string(&said).unwrap_or_default();
    writeln!(std::io::stderr().lock(), "{line}")?;
    Ok(0)
}

fn compile(args: &CompileArgs) -> CompilerSaid {
    let mut module = Vec::new();
    // A byte more than it may have had: then it has grown.
    if let Err(e) = std::io::stdin().lock().take(args.module_size.saturating_add(1)).read_to_end(&mut module) {
        return match e.kind() {
            ErrorKind::OutOfMemory => CompilerSaid::Memory,
            _ => CompilerSaid::Failed(format!("the module cannot be read: {e}")),
        };
    }
    let digest: String = Sha256::digest(&module).iter().map(|b| format!("{b:02x}")).collect();
    if digest != args.sha256 {
        return CompilerSaid::Changed;
    }
    let compiler = match Compiler::new(args.dense) {
        Ok(compiler) => compiler,
        Err(e) => return CompilerSaid::Failed(e.to_string()),
    };
    match compiler.compile(&module, args.wat) {
        Ok(code) => {
            let mut out = std::io::stdout().lock();
            match out.write_all(&code).and_then(|()| out.flush()) {
                Ok(()) => CompilerSaid::Done,
                Err(e) => CompilerSaid::Failed(format!("the code cannot be written: {e}")),
            }
        }
        Err(NotCompiled::Refused(why)) => CompilerSaid::Refused(why),
        Err(NotCompiled::Memory) => CompilerSaid::Memory,
        Err(NotCompiled::Failed(why)) => CompilerSaid::Failed(why),
    }
}

#[cfg(not(unix))]
fn prepare(_: &CompileArgs) -> std::io::Result<()> {
    // The daemon's clock is the only limit here.
    Ok(())
}

/// Takes on the limits, steps back behind everything else, and sees to it that this process ends with the daemon.
#[cfg(unix)]
fn prepare(args: &CompileArgs) -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit};
    // As guests have it. The lowest would starve on a machine that is busy with something else, up to the limit on time.
    const NICE: i32 = 10;
    let limit = |resource, soft: u64, hard: u64| {
        // Whoever started the daemon may have set a lower one, which cannot be raised (setrlimit(2), EPERM).
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) })
    };
    // No core of what may hold anything; nothing on the disk but the code.
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, args.code_size, args.code_size)?;
    // One second between SIGXCPU, which tells the daemon why, and SIGKILL (setrlimit(2)).
    limit(Resource::Cpu, args.cpu, args.cpu.saturating_add(1))?;
    // What is written to counts, not the addresses that allocators reserve: those would need a limit of their own guess
    // (setrlimit(2), RLIMIT_DATA since Linux 4.7).
    #[cfg(target_os = "linux")]
    limit(Resource::Data, args.memory, args.memory)?;
    #[cfg(not(target_os = "linux"))]
    if let Err(e) = limit(Resource::As, args.memory, args.memory) {
        // macOS knows the limit and does not take it everywhere; the daemon's clock remains.
        let _said = writeln!(std::io::stderr(), "no limit on memory: {e}");
    }
    if getpriority_process(None)? < NICE {
        setpriority_process(None, NICE)?;
    }
    end_with_the_daemon()
}

/// The daemon reads standard error for as long as it lives. PR_SET_PDEATHSIG would look at the thread that started us, which
/// may end before its process (prctl(2)).
#[cfg(unix)]
fn end_with_the_daemon() -> std::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    std::thread::Builder::new().name("watch".to_owned()).spawn(|| {
        let stderr = std::io::stderr();
        loop {
            // Nothing is asked for: an error on a pipe without a reader is always told (poll(2), POLLERR).
            let mut watched = [PollFd::new(&stderr, PollFlags::empty())];
            match poll(&mut watched, None) {
                Ok(_) if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => std::process::abort(),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Without a watch we go on: the daemon kills us if it can.
                Err(_) => return,
            }
        }
    })?;
    Ok(())
}
