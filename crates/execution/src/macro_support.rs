//! What the code written by `#[service]` and `#[derive(State)]` names. Not for use by hand.

pub use crate::declared::{Reads, Row, Whole, Writes};
pub use crate::service::{Arguments, Invoke, InvokeError, Service, State, UnknownOperation};
pub use crate::value::Input;
pub use crate::{Context, DeclaredContext, Objects};
pub use unisono_scheduler::{Declaration, DeclaredLock, Lane};
pub use unisono_types::{Timestamp, decode, encode};
