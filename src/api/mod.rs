//! Front doors of the daemon. They translate, call the supervisor and translate back; they decide nothing.

mod ahead;
mod connection;
pub mod door;
mod guard;
pub mod metrics;
mod several;
mod streams;
pub mod text;
