//! The pure half: names, the request grammar, framing, replies, the registry's state machine.
//!
//! Nothing here knows tokio, wasmtime, files, sockets or the clock; `tests/it/tidy.rs` holds it to that.

pub mod ageing;
pub mod alike;
pub mod auth;
pub mod escape;
pub mod event;
pub mod explain;
pub mod exposition;
pub mod filter;
pub mod frame;
pub mod hex;
pub mod instance;
pub mod limit;
pub mod mount;
pub mod name;
pub mod registry;
pub mod reply;
pub mod request;
pub mod restart;
pub mod run_args;
pub mod showing;
pub mod stats;
pub mod template;
pub mod view;
pub mod wasi;
pub mod when;
