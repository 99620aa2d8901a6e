//! Being written.

pub mod client;
pub mod gateway;
