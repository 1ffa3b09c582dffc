//! One compilation in a process of its own: started, bounded, listened to, ended.
//!
//! Its standard input is the module's file, its standard output an empty file for the code, and on standard error it says in
//! one line what came of it ([`Said`]). It has no environment and no other descriptor, and ends when the other end of
//! standard error is gone: with this daemon, however that ends.

use super::Unavailable;
use crate::config::{Limits, fixed};
use crate::model::escape;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};

/// The hidden verb of the command line.
const VERB: &str = "compile-module";

/// The longest reason that is passed on.
const REASON_BYTES_MAX: usize = 400;

/// What the process says last, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "why")]
pub enum Said {
    /// The code is written.
    Done,
    /// The module cannot run here: one line.
    Refused(String),
    /// There was not enough memory.
    Memory,
    /// The file is not the one that the daemon looked at.
    Changed,
    /// This machine could not do it now.
    Failed(String),
}

/// What is to be compiled, and how. Both files are given away: their offsets are shared.
pub(super) struct Task<'a> {
    /// The program to start; `None`: this one.
    pub program: Option<&'a PathBuf>,
    pub module: File,
    pub code: File,
    /// SHA-256 of the module, in hex.
    pub digest: &'a str,
    pub text: bool,
    /// Whether it is for a dense engine.
    pub dense: bool,
    pub limits: &'a Limits,
}

/// Compiles, within the limits.
///
/// # Errors
///
/// [`Unavailable`]: why there is no code. What was written is to be thrown away then.
///
/// # Cancel safety
///
/// Cancel safe: the process is killed.
pub(super) async fn compile(task: Task<'_>) -> Result<(), Unavailable> {
    let limits = task.limits;
    let mut child = match command(&task).stdin(task.module).stdout(task.code).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(e) => return Err(Unavailable::Failed(format!("its compiler cannot be started: {e}"))),
    };
    let stderr = child.stderr.take();
    let ended = tokio::time::timeout(limits.compile_time, async {
        let said = listen(stderr).await;
        (said, child.wait().await)
    });
    match ended.await {
        Ok((said, Ok(status))) => judge(&said, status, limits),
        Ok((_, Err(e))) => Err(Unavailable::Failed(format!("its compiler was lost: {e}"))),
        Err(_) => {
            if let Err(e) = child.kill().await {
                tracing::warn!("a compiler that took too long cannot be ended: {e}");
            }
            let limit = humantime::format_duration(limits.compile_time);
            Err(Unavailable::Overrun(format!("compiling it takes longer than {limit} (--compile-time)")))
        }
    }
}

fn command(task: &Task<'_>) -> Command {
    // This program as it was started, also when its file has been replaced by a newer one since.
    let own = || if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() };
    let program = task.program.cloned().map_or_else(own, Ok).unwrap_or_else(|_| PathBuf::from("coracle"));
    let mut command = Command::new(program);
    command
        .arg(VERB)
        .args(["--sha256", task.digest])
        .args(["--module-size", &task.limits.module_bytes_max.to_string()])
        .args(["--memory", &task.limits.compile_bytes_max.to_string()])
        .args(["--cpu", &whole_seconds(task.limits.compile_cpu).to_string()])
        .args(["--code-size", &task.limits.compiled_bytes_max.to_string()])
        .args(task.text.then_some("--wat"))
        .args(task.dense.then_some("--dense"))
        .env_clear()
        .kill_on_drop(true);
    #[cfg(unix)]
    // Ctrl-C at the daemon's terminal is for the daemon.
    command.arg0("coracle").current_dir("/").process_group(0);
    command
}

/// Of a limit in seconds, at least one.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1)
}

/// The first bytes of what it says, which tell what went wrong, and the last, which tell what came of it. What is between is
/// read and forgotten, so that it never waits for us.
async fn listen(stderr: Option<ChildStderr>) -> Vec<u8> {
    let Some(mut stderr) = stderr else { return vec![] };
    let (mut said, mut chunk) = (vec![], [0; 4096]);
    // What cannot be read was not said.
    while let Ok(n @ 1..) = stderr.read(&mut chunk).await {
        said.extend_from_slice(&chunk[..n]);
        abridge(&mut said);
    }
    said
}

/// Leaves the beginning and the end of what was said.
fn abridge(said: &mut Vec<u8>) {
    const EACH: usize = fixed::COMPILE_SAID_BYTES_MAX;
    if said.len() > 2 * EACH {
        said.drain(EACH..said.len() - EACH);
    }
}

/// What the end of the process means.
fn judge(said: &[u8], status: ExitStatus, limits: &Limits) -> Result<(), Unavailable> {
    let size = |bytes: usize| bytesize::ByteSize(u64::try_from(bytes).unwrap_or(u64::MAX));
    let memory = || {
        let limit = size(limits.compile_bytes_max);
        Unavailable::Overrun(format!("compiling it takes more memory than {limit} (--compile-memory)"))
    };
    // What is before it says something of the machine, as that a limit is not known there.
    let last = said.trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or_default();
    if status.success()
        && let Ok(said) = serde_json::from_slice::<Said>(last)
    {
        return match said {
            Said::Done => Ok(()),
            Said::Refused(why) => Err(Unavailable::Refused(escape::short(&why, REASON_BYTES_MAX))),
            Said::Memory => Err(memory()),
            Said::Changed => Err(Unavailable::Changed),
            Said::Failed(why) => Err(Unavailable::Failed(escape::short(&why, REASON_BYTES_MAX))),
        };
    }
    let text = escape::line_of_bytes(said.trim_ascii());
    // The standard library's last words before it aborts.
    if text.contains("memory allocation of ") {
        return Err(memory());
    }
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        use rustix::process::Signal;
        return Err(if signal == Signal::XCPU.as_raw() {
            let limit = humantime::format_duration(Duration::from_secs(whole_seconds(limits.compile_cpu)));
            Unavailable::Overrun(format!("compiling it takes more processor time than {limit} (--compile-cpu)"))
        } else if signal == Signal::XFSZ.as_raw() {
            let limit = size(limits.compiled_bytes_max);
            Unavailable::Overrun(format!("its compiled form is larger than {limit} (--compiled-cache, ulimit -f)"))
        } else if [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::ILL].iter().any(|s| s.as_raw() == signal) {
            crashed(&text)
        } else {
            Unavailable::Failed(format!("its compiler was killed by signal {signal}; try again"))
        });
    }
    Err(crashed(&text))
}

/// It may be the machine or the module: nobody knows, so it is not held against the module for ever.
fn crashed(said: &str) -> Unavailable {
    let said = if said.is_empty() { "it said nothing" } else { said };
    Unavailable::Overrun(format!("the compiler crashed on it: {}", escape::short(said, REASON_BYTES_MAX)))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn limits() -> Limits {
        crate::config::Config::new(([127, 0, 0, 1], 0).into(), "s".into(), "r".into()).limits
    }

    fn judged(said: &str, raw_status: i32) -> String {
        format!("{:?}", judge(said.as_bytes(), ExitStatus::from_raw(raw_status), &limits()))
    }

    #[test]
    fn every_end_of_a_compiler_is_understood() {
        const KILL: i32 = 9;
        const XCPU: i32 = 24;
        const XFSZ: i32 = 25;
        for (said, status, expected) in [
            ("{\"outcome\":\"done\"}\n", 0, "Ok(())"),
            ("{\"outcome\":\"refused\",\"why\":\"no\"}\n", 0, "Err(Refused(\"no\"))"),
            ("{\"outcome\":\"changed\"}\n", 0, "Err(Changed)"),
            ("{\"outcome\":\"memory\"}\n", 0, "--compile-memory"),
            ("no limit on memory: Invalid argument\n{\"outcome\":\"done\"}\n", 0, "Ok(())"),
            ("{\"outcome\":\"done\"}\nand more\n", 0, "Err(Overrun(\"the compiler crashed on it: {"),
            ("memory allocation of 123 bytes failed\n", 6, "more memory than 2.0 GiB (--compile-memory)"),
            ("", XCPU, "more processor time than 2m (--compile-cpu)"),
            ("", XFSZ, "larger than 1.0 GiB (--compiled-cache, ulimit -f)"),
            ("{\"outcome\":\"done\"}\n", KILL, "Err(Failed(\"its compiler was killed by signal 9; try again\"))"),
            ("{\"outcome\":\"done\"}\n", 1 << 8, "Err(Overrun(\"the compiler crashed on it: {"),
            ("", 0, "Err(Overrun(\"the compiler crashed on it: it said nothing\"))"),
            ("thread 'main' has overflowed its stack\n", 6, "crashed on it: thread 'main' has overflowed its stack"),
        ] {
            let got = judged(said, status);
            assert!(got.contains(expected), "{said} {status}: {got}");
        }
    }

    #[test]
    fn what_it_says_is_bounded_and_does_nothing_to_a_terminal() {
        let hostile = format!("\u{1b}[2J\n{}", "x".repeat(10_000));
        for said in [hostile.clone(), serde_json::to_string(&Said::Refused(hostile.clone())).unwrap()] {
            match judge(said.as_bytes(), ExitStatus::from_raw(0), &limits()) {
                Err(Unavailable::Refused(why) | Unavailable::Overrun(why)) => {
                    assert!(why.len() < 500 && !why.contains(['\u{1b}', '\n']), "{why}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_it_says_last_is_heard_however_much_it_said_before() {
        let mut said = b"first".to_vec();
        for _ in 0..10_000 {
            said.extend_from_slice(b"noise\n");
            abridge(&mut said);
        }
        said.extend_from_slice(b"{\"outcome\":\"done\"}\n");
        abridge(&mut said);
        assert!(said.starts_with(b"first") && said.len() <= 2 * fixed::COMPILE_SAID_BYTES_MAX);
        assert!(judge(&said, ExitStatus::from_raw(0), &limits()).is_ok());
    }

    #[test]
    fn processor_time_is_counted_in_whole_seconds() {
        let seconds = |ms| whole_seconds(Duration::from_millis(ms));
        assert_eq!([seconds(0), seconds(1), seconds(1000), seconds(1001)], [1, 1, 1, 2]);
    }
}
