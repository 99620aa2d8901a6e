//! A machine of m virtual cores over the real scheduler: what a policy makes of a load, whatever machine this is.
//!
//! ```text
//!   Profile ── seed ──> Scripts: compute, lock, unlock, finish
//!                          │
//!   Feeding ── entries ──> │ Scheduler (the one that ships) ── grants ──> ready ──> m cores ── virtual ns ──> Run
//!                          └──────────────── operations <────────────────────────────┘
//! ```
//! A discrete-event simulation: the cores take what is ready in the order of the grants, else a thread that may run ahead,
//! as the workers of the executor do; nothing costs time but what a script computes and a fixed price per operation.
//! [`FreeMutexes`] is the same machine under no order at all, the bound that no deterministic policy can pass by much.
//!
//! It measures waiting, not the scheduler's own cost: `bench` does that on real cores.
//!
//! Invariant: a run is a function of its arguments. No clock is read.
//!
//! Source of the profiles: Hauck, Habiger, Domaschka, SRDS 2016, as listed in docs/internals/scheduler.md.

mod free;
mod machine;
mod profile;
mod setting;

pub use free::FreeMutexes;
pub use machine::{Feeding, Machine, Run};
pub use profile::{Profile, Script, Step};
pub use setting::{Best, Setting};
