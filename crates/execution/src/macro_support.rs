//! What the code written by `#[service]` and `#[derive(State)]` names. Not for use by hand.

pub use crate::service::{Arguments, CallError, Invoke, Service, State, UnknownOperation};
pub use crate::value::Input;
pub use crate::{Context, Objects};
pub use unisono_types::{decode, encode};
