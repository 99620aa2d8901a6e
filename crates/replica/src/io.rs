//! What goes into a replica and what comes out: closed enums, data only, so a run can be recorded and replayed.

use crate::{GrantRecord, PeerMessage};
use alloc::{boxed::Box, string::String, vec::Vec};
use unisono_consensus::{Contradiction, PersistId, Provide, Record, RegisterAnswer, TimerId};
use unisono_types::{
    Bytes, CallAnswer, CallId, Digest, Done, Frame, Membership, PublicKey, RegisterView, ReplicaId, Reply,
    SequenceNumber, Signer, Step, Verified, Work,
};

/// Names one timer of a replica; setting it again replaces it. Those of consensus and of the replica share one space.
pub type Timer = TimerId;

/// The host's name for one authenticated client connection. Never reused within the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// Names one question to the executor ([`Output::QueryLeaves`], [`Output::QueryGrants`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueryId(pub u64);

/// What a replica is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which member this is.
    pub id: ReplicaId,
    /// Its host key: signs its system entries and checkpoints.
    pub signer: Signer,
    /// The epoch's members, keys and limits.
    pub membership: Membership,
    /// When a Mark takes effect. The same on every replica, since it decides what an ordered entry does.
    pub marks: MarkRule,
}

/// When an ordered Mark takes effect: this far behind the last effective one, by either measure.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MarkRule {
    /// Decisions.
    pub decisions: u64,
    /// Microseconds of agreed time.
    pub microseconds: u64,
}

impl Default for MarkRule {
    /// 4 096 decisions or 5 s: what is lost by starting from the last Mark is executed again in well under a second,
    /// and hashing what changed is a small part of the work in between.
    fn default() -> Self {
        Self { decisions: 4_096, microseconds: 5_000_000 }
    }
}

/// What happens to a replica.
#[derive(Clone, Debug)]
pub enum Input<M> {
    /// Once, after the own log was replayed and before any peer or client is heard.
    Start,
    /// From a peer whose link is authenticated.
    Peer {
        /// The peer.
        from: ReplicaId,
        /// What it says.
        message: Verified<PeerMessage<M>>,
    },
    /// From a client.
    Client {
        /// The connection.
        connection: ConnectionId,
        /// The key that its link proved to hold. A frame of another key is not this client's to send.
        key: PublicKey,
        /// What it sent.
        frame: Verified<Frame>,
    },
    /// From the administrator's link.
    Admin(Verified<Frame>),
    /// What the outside said, the answer to [`Output::Ask`]; each is answered once.
    Outside {
        /// The call.
        call: CallId,
        /// What was said.
        answer: CallAnswer,
    },
    /// A client connection is gone.
    Disconnected(ConnectionId),
    /// A timer that was set has come.
    Timeout(Timer),
    /// A write is durable.
    Persisted(PersistId),
    /// The vote register's answer, durable.
    Answered(RegisterAnswer),
    /// Execution reports.
    Done(Done),
    /// Every request of this decision and all before it has finished or is parked.
    Executed(SequenceNumber),
    /// A large message from a peer is on its way.
    Arriving {
        /// The peer.
        from: ReplicaId,
        /// Bytes of it that are here or about to be.
        bytes: usize,
    },
    /// The link to a peer went down or came up.
    Link {
        /// The peer.
        peer: ReplicaId,
        /// Whether it is up.
        up: bool,
    },
    /// The executor's answer to [`Output::QueryLeaves`].
    Leaves {
        /// The question.
        query: QueryId,
        /// Names and digests of objects, as of the last Mark, in the executor's order.
        leaves: Vec<(String, Digest)>,
    },
    /// The executor's answer to [`Output::QueryGrants`].
    Grants {
        /// The question.
        query: QueryId,
        /// Grants of rounds that have ended, ascending.
        grants: Vec<GrantRecord>,
    },
}

/// What a replica wants.
#[derive(Clone, Debug)]
pub enum Output<M> {
    /// Send to one peer. May be lost.
    Send {
        /// The peer.
        to: ReplicaId,
        /// What to say.
        message: PeerMessage<M>,
    },
    /// Send to all peers (not to oneself). May be lost.
    Broadcast(PeerMessage<M>),
    /// Send to a client: everything that one call had to say to one connection.
    Reply {
        /// The connection.
        connection: ConnectionId,
        /// What to say.
        reply: Reply,
    },
    /// Write to the log; answered by [`Input::Persisted`].
    Persist {
        /// To be answered with.
        id: PersistId,
        /// What to write.
        record: Record,
    },
    /// Call `certify` of the register, its record behind all earlier writes; answered by [`Input::Answered`].
    Certify {
        /// View.
        view: RegisterView,
        /// Step.
        step: Step,
        /// Header hash.
        hash: Digest,
    },
    /// Call `advance` of the register, likewise.
    Advance {
        /// The view to enter.
        view: RegisterView,
    },
    /// Call `attest` of the register, likewise.
    Attest {
        /// Nonce of who asks.
        nonce: [u8; 32],
    },
    /// (Re)start a timer to fire at `at` microseconds of the monotonic clock; `None` stops it.
    SetTimer {
        /// Which.
        timer: Timer,
        /// When.
        at: Option<u64>,
    },
    /// Give to the executor, in this order.
    Execute(Work),
    /// Ask somebody outside, beside everything else, and give up after some time; answered by [`Input::Outside`]. At
    /// most 256 are asked at once. A call may be asked more than once: after a restart, and by every replica.
    Ask {
        /// The call; the outside may know repetitions by it.
        call: CallId,
        /// Whom.
        target: String,
        /// What.
        request: Bytes,
    },
    /// Read committed records from the log and send them to a peer that is far behind.
    Provide(Provide),
    /// Ask the executor for objects behind the one named `after` (or the first ones), as of its last Mark, at most
    /// `limit`. Everything it reported done before goes in before the answer [`Input::Leaves`].
    QueryLeaves {
        /// To be answered with.
        query: QueryId,
        /// The last one known.
        after: Option<String>,
        /// How many at most.
        limit: usize,
    },
    /// Ask the executor for its last grants, with a number of `from` or more, at most `limit`; answered by
    /// [`Input::Grants`].
    QueryGrants {
        /// To be answered with.
        query: QueryId,
        /// The first number.
        from: u64,
        /// How many at most.
        limit: usize,
    },
    /// The vote register must stay silent for ever: a peer has shown a vote of it that it does not know.
    Silence,
    /// This replica is faulty and does nothing any more. Stop the process and say why.
    Halt(HaltReason),
    /// Evidence of a lie or a fault of a peer, for counters and people.
    Suspect {
        /// The peer.
        peer: ReplicaId,
        /// What it did.
        reason: &'static str,
    },
}

/// Why a replica had to stop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HaltReason {
    /// f+1 others agree on another state.
    #[error(
        "the state of this replica differs from that of {witnesses} others at height {sequence}: {first} \
         (own root {own}, theirs {theirs}). Its memory, disk or program is faulty: check the machine, then start the \
         replica again from an intact log"
    )]
    MinorityRoot {
        /// The Mark at which it showed.
        sequence: SequenceNumber,
        /// Own root.
        own: Digest,
        /// The others' root.
        theirs: Digest,
        /// How many others agree.
        witnesses: usize,
        /// Where the states differ first.
        first: Difference,
    },
    /// Another history is proven than the one this replica has.
    #[error(
        "two histories are proven at height {sequence}: {own} was decided here, {theirs} elsewhere. More than f replicas          are faulty, or a vote register's key was used again after its state was lost. This replica certifies nothing          more. Compare the logs of all replicas before any of them goes on: acknowledged writes may differ",
        sequence = .0.sequence, own = .0.ours, theirs = .0.theirs,
    )]
    TwoHistories(Contradiction),
}

/// Where two states differ first.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Difference {
    /// An object of the service.
    #[error("object {0:?} differs")]
    Object(String),
    /// A grant of a lock. A handler did something else than on the other replicas: it iterated over a hash map, read a
    /// clock, or kept something outside of the service's objects.
    #[error(
        "grant {number} differs{latest}: here {own}; there {theirs}. The handler of that request, or one before it, is \
         not deterministic, unless the machine is at fault",
        number = own.number,
        latest = if *is_first { "" } else { " (or one before it that is not kept any more)" },
    )]
    Grant {
        /// As it was here.
        own: Box<GrantRecord>,
        /// As it was there.
        theirs: Box<GrantRecord>,
        /// Whether all grants before were equal.
        is_first: bool,
    },
    /// Grants, and the first one that differs is not kept any more.
    #[error("the grants of locks differ; which ones is not kept any more")]
    Grants,
    /// The scheduler's state.
    #[error("the scheduler's state differs")]
    Scheduler,
    /// The table of sessions.
    #[error("the table of sessions differs")]
    Sessions,
    /// The decision itself: the logs are not the same.
    #[error("the decisions differ")]
    Decision,
    /// No peer could be compared with in time.
    #[error("which object differs could not be found out in time")]
    Unknown,
}
