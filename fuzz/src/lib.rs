//! The rooms of the daemon that `check` looks at, compiled from where they stand: without wasmtime and SQLite a target is
//! built in a minute.

#![allow(dead_code, missing_docs, reason = "the rest of the daemon, which uses it, is not here")]

#[path = "../../src/check/mod.rs"]
pub mod check;
#[path = "../../src/config.rs"]
pub mod config;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/model/mod.rs"]
pub mod model;

#[path = "../../src/daemon"]
mod daemon {
    #[path = "logs"]
    pub(crate) mod logs {
        pub(crate) mod record;
    }
}

#[path = "../../src/engine"]
mod engine {
    pub(crate) mod structure;
    pub(crate) mod unroll;
}

pub use error::{Code, Error};
