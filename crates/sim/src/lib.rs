//! The simulated host: a whole cluster in one thread, from one seed.
//!
//! ```text
//!   seed ──> Plan (size, network, faults, liars) ──> World ──> trace hash, counts
//!                                                     │  machines: clock, disk, links, register
//!                                                     │  replicas: the cores that ship, as bytes in, bytes out
//!                                                     │  clients: the client core that ships
//!                                                     └──> checkers ──> first violation, with the seed that shows it
//! ```
//! What runs here is what the real host runs: the same consensus, replica, executor, register and client. Only the
//! world around them is made up: virtual clocks, a network that loses and parts, disks that forget what was not
//! synced, replicas that lie. Messages cross as bytes, so the codecs and signature checks run too.
//!
//! Invariant: a run is a function of its seed. Nothing here reads a clock, an environment, an address or the order of
//! a hash map (`run --replay` compares two runs of each seed).
//!
//! It never touches the real host, a socket, a file or a thread.

mod administrator;
mod algorithm;
mod aphousia;
mod check;
mod clock;
mod cluster;
mod core;
pub mod cores;
pub mod customer;
pub mod determinism;
mod disk;
mod focus;
mod identity;
mod liar;
mod lies;
pub mod linear;
mod network;
mod node;
pub mod numbers;
#[cfg(test)]
mod numbers_tests;
pub mod outside;
mod plan;
mod random;
mod report;
mod run;
mod seat;
pub mod store;
mod trace;
mod world;

pub use self::core::{
    Abuse, Actor, ActorEffect, ActorInput, Core, Effect, Factory, Input, Log, Moment, Observation, Progress,
};
pub use administrator::{Administrator, random_change};
pub use algorithm::Algorithm;
pub use check::{Checker, Property, Violation};
pub use clock::Clock;
pub use cluster::{ClientId, Cluster};
pub use disk::{Disk, Failure};
pub use identity::{CLIENTS_MAX, Identities};
pub use liar::{Liar, RegisterCall, Said};
pub use lies::{Bend, Bent, Flood, Hearsay, Kind, Show};
pub use network::{NODES_MAX, Network, Node, PIECE_BYTES};
pub use node::{ReplicaFactory, digest_of_operation};
pub use plan::{
    ED25519_EVERY, Fault, Feeding, LiarPlan, NetworkPlan, Plan, Planted, SECOND, Schedule, SpeedPlan, StoragePlan,
};
pub use random::Random;
pub use report::{Counts, FaultCounts, LieCounts, Outcome, OutsideCounts, Report, StressCounts};
pub use run::{Scope, run_plan, run_planted, run_seed};
pub use seat::Seat;
pub use trace::Trace;
pub use world::{LIVENESS_LIMIT, Parts, World};
