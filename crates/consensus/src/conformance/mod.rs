//! The conformance kit: what every agreement algorithm must pass, ours and a user's own. For tests; links std.
//!
//! ```text
//!   seed ──> Network<S>:  n instances of S, each with a vote register, a log and a clock
//!               │  loss, duplication, reordering, cuts, crash + restart from what was durable, liars
//!               └─> Checks:  agreement, total order, validity, integrity, liveness after healing
//!
//!   testdata/*.txt ──> script: the same network without chance, commands above `----`, what happened below
//! ```
//! Everything is a function of the seed or the script. Messages travel as bytes and are read, verified and handled as
//! in earnest; signatures are keyed tags, so a liar signs with its own keys only and asks an honest register.
//!
//! A new algorithm implements [`Subject`] and calls [`run_seed`] in a loop, and [`check_scripts`] on its stories.

mod aphousia;
mod checks;
mod cluster;
mod network;
mod random;
mod script;

pub use checks::{Checks, Violation};
pub use cluster::{Cluster, Disk};
pub use network::{Behaviour, Conditions, Network};
pub use random::{Random, Report, RunOptions, run_seed};
pub use script::check_scripts;

use crate::Consensus;
use std::{fmt::Debug, string::String};
use unisono_types::{Certificate, Digest, ReplicaId};

/// An algorithm under test.
pub trait Subject: Consensus<Message: Debug> + Sized {
    /// An instance as of what its disk holds.
    fn open(cluster: &Cluster, id: ReplicaId, disk: &Disk) -> Self;

    /// A lie: the message with something of it changed that its sender could have said, signatures of its own allowed.
    /// `None` when nothing of it can be changed.
    fn corrupt(cluster: &Cluster, message: &Self::Message, random: &mut Random) -> Option<Self::Message>;

    /// The message of one that always says it is far ahead, if it says where its sender stands.
    fn boast(message: &Self::Message) -> Option<Self::Message>;

    /// The hash of the block that a message proposes.
    fn proposed(message: &Self::Message) -> Option<Digest>;

    /// The message that shows a certificate to others.
    fn vote(certificate: Certificate) -> Self::Message;

    /// One line for a script's log, naming frames by `name`.
    fn describe(message: &Self::Message, name: &dyn Fn(Digest) -> String) -> String;
}
