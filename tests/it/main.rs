//! Features, end to end. Most tests boot the daemon in-process through the function that `main` uses; some run the binary.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that meets what cannot be fails, as it should"
)]
#![expect(unreachable_pub, reason = "one binary of test modules that share a harness; there is no outside")]

mod attached;
mod auth;
mod bad_input;
mod cli;
mod clients;
mod compile;
mod completions;
#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod dense;
mod directories;
#[cfg(unix)]
mod disk;
mod doctor;
#[cfg(unix)]
mod escape;
mod events;
mod examples;
mod explain;
mod fair;
mod faults;
#[cfg(unix)]
mod host_memory;
mod lifecycle;
mod limits;
mod logs;
mod manual;
mod messages;
mod metrics;
mod modules;
mod mounts;
mod papers;
mod people;
mod protocol;
#[cfg(target_os = "linux")]
mod random;
mod real_programs;
mod recovery;
mod rough;
mod sandbox;
#[cfg(unix)]
mod secrets;
mod service;
mod shown;
mod stats;
mod stop;
mod supply;
mod support;
mod tidy;
#[cfg(target_os = "linux")]
mod top;
mod tutorial;
mod watch;
