//! Coracle runs WebAssembly workloads in sandboxes, the way a container daemon runs containers.
//!
//! The map, one line a room; `ARCHITECTURE.md` says how a request walks through them. Arrows point one way:
//! `server -> api -> daemon -> engine -> model`, and `cli -> client -> model`.

/// The front doors: translate, call the supervisor, translate back.
pub mod api;
#[doc(hidden)]
pub mod check;
/// Every flag and subcommand; the only place that prints.
pub mod cli;
/// Speaks the protocol from the far side.
pub mod client;
/// Every limit, with its unit, default and flag.
pub mod config;
/// The shell: tasks, files, time.
pub mod daemon;
/// The only folder that says `wasmtime`.
pub mod engine;
/// What can go wrong, as a code to branch on and a line to read.
pub mod error;
/// Pure: no tokio, no wasmtime, no files, no sockets, no clock.
pub mod model;
/// A daemon with its doors.
pub mod server;
/// The directory that a daemon keeps its state in, as a place.
mod state_dir;
/// What carries a connection, and whose its other end is.
pub mod transport;

pub use error::{Code, Error};
