//! Total order as an exchangeable part. Pure: no clock, thread, socket, file or randomness.
//!
//! ```text
//!                    Input                                    Output
//!   host ── Message Submit Timeout ──>  ┌───────────┐ ── Send Broadcast ───────────> peers
//!           Persisted Answered          │ algorithm │ ── Persist Certify Advance ──> log and vote register
//!           Executed Stable Blocks      └───────────┘ ── SetTimer Decide Provide ──> clock, replica, log
//! ```
//!
//! The contract, the same for every algorithm:
//! * `handle` is a function of the state, the time given and the input: recorded and replayed at will.
//! * Outputs take effect in their order. A [`Output::Persist`] and the register calls behind it may share one log
//!   write; their answers ([`Input::Persisted`], [`Input::Answered`]) come only when everything up to them is durable.
//!   A send that depends on durability is emitted by the algorithm after the answer, never before.
//! * An algorithm owns its leader change; nobody outside asks which fault model it has.
//! * Only verified messages come in ([`unisono_types::Verified`]); a verified message may still be a lie.
//! * Only admitted frames are submitted. Frames that are decided twice all the same, or of strangers, because a leader
//!   lied, are the business of who executes.
#![cfg_attr(not(any(test, feature = "conformance")), no_std)]
extern crate alloc;

pub mod aphousia;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use alloc::vec::Vec;
use unisono_types::{
    Attestation, Bytes, Certificate, Checkpoint, Digest, Frame, Message, RegisterView, Rejected, ReplicaId,
    SequenceNumber, Signed, Step, Time, Timestamp, Verified, VerifyContext, ViewChange,
};

/// An agreement algorithm.
pub trait Consensus {
    /// What its instances say to each other.
    type Message: Message;

    /// The one entry point.
    fn handle(&mut self, now: Time, input: Input<Self::Message>, outbox: &mut Vec<Output<Self::Message>>);

    /// The message that carries decided blocks, as the log holds them, to a peer that is far behind: `blocks` are the
    /// bytes of consecutive [`Record::Block`]s, `proof` is that of a [`Record::Commit`] of the last of them.
    /// `committed`: how far the sender is itself.
    fn provide(committed: SequenceNumber, blocks: Vec<Bytes>, proof: Bytes) -> Self::Message;

    /// The decision that the bytes of a [`Record::Block`] of our own log make when they are decided.
    ///
    /// # Errors
    /// [`Rejected`] when the bytes are no block.
    fn decision(bytes: &Bytes, context: &VerifyContext) -> Result<Decision, Rejected>;

    /// Whether `handle` could make anything of this message, by its place, its sender and what was asked for. Cheap,
    /// and asked before any signature in it is checked: what comes too late, twice or unasked costs nothing.
    fn is_wanted(&self, from: ReplicaId, message: &Self::Message) -> bool {
        let _ = (from, message);
        true
    }

    /// Whether frames of clients are of any use now: to a replica that only catches up they are not. Their clients have the
    /// others, and send again what is not answered.
    fn wants_frames(&self) -> bool {
        true
    }

    /// The frame that has waited longest here, unless it stands in a block. Asked after each decision: what was decided
    /// may have made it useless.
    fn oldest_waiting(&self) -> Option<&Frame> {
        None
    }

    /// A frame that waits here would do nothing any more if it were ordered: nobody else waits for it, so neither does
    /// this replica.
    fn withdraw(&mut self, frame: &Digest) {
        let _ = frame;
    }

    /// How many signatures have to be checked in this message: what a host counts against its sender beforehand.
    fn signatures(message: &Self::Message) -> usize {
        let _ = message;
        1
    }

    /// The frames that this message shows and nothing else, if that is what it is for: [`Output::Offer`] would hand
    /// them out. Asked before its signatures are checked, so that frames which would not be admitted cost nothing.
    fn offered(message: &Self::Message) -> &[Frame] {
        let _ = message;
        &[]
    }

    /// A view of itself for people and hints; never for a decision.
    fn status(&self) -> Status;
}

/// What `status` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Current view.
    pub view: RegisterView,
    /// Whom this instance takes for the leader.
    pub leader: ReplicaId,
    /// Last committed decision.
    pub committed: SequenceNumber,
    /// Frames known and not yet committed.
    pub pending: usize,
    /// Agreed time minus this replica's clock when the last decision was made, in microseconds. A few milliseconds
    /// below 0 at rest; beyond about half a second some clock is wrong. Old decisions that are caught up with show as
    /// far below 0 until that is done.
    pub clock_skew_micros: i64,
    /// How often a vote had to wait for this replica's clock since it started. Grows while clocks differ too much.
    pub clock_waits: u64,
    /// How often this replica wished for another leader since it started.
    pub complaints: Complaints,
}

/// Why a replica wished for another leader, and how often. Counted when the wish arises, not when it is repeated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Complaints {
    /// The oldest entry was not decided in time.
    pub time_out: u64,
    /// Entries were decided in time, and much slower than they could be.
    pub slow: u64,
    /// Agreed time was held back.
    pub time_held_back: u64,
    /// The link to the leader was down.
    pub link_down: u64,
}

impl Complaints {
    /// Each reason's name in output, and its count.
    #[must_use]
    pub const fn by_reason(&self) -> [(&'static str, u64); 4] {
        [
            ("time-out", self.time_out),
            ("slow", self.slow),
            ("time-held-back", self.time_held_back),
            ("link-down", self.link_down),
        ]
    }
}

/// Names one timer; setting it again replaces it. The enclosing replica sets the top bit in its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimerId(pub u32);

/// Names one write. The enclosing replica sets the top bit in its own; an algorithm counts from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PersistId(pub u64);

/// What happens to an algorithm.
#[derive(Clone, Debug)]
pub enum Input<M> {
    /// Once, before everything else, also after a restart.
    Start,
    /// From a peer whose link is authenticated, its signatures checked.
    Message {
        /// The peer.
        from: ReplicaId,
        /// What it says.
        message: Verified<M>,
    },
    /// A frame that shall be ordered, admitted by who knows what may be: from a client, or our own entry.
    Submit(Verified<Frame>),
    /// A frame of an [`Output::Offer`] that may be ordered. Others know of it, so it is not passed on as it comes.
    Admitted(Verified<Frame>),
    /// A timer that was set has come.
    Timeout(TimerId),
    /// A write is durable.
    Persisted(PersistId),
    /// The vote register's answer, durable.
    Answered(RegisterAnswer),
    /// Everything up to here was executed (or is parked).
    Executed(SequenceNumber),
    /// f+1 equal checkpoints: agreement may stand on this one and forget what is below.
    Stable(StableCheckpoint),
    /// A large message from a peer is on its way: stands for what was said about this peer before. A hint: bytes that come
    /// excuse a leader for the time that they take.
    Arriving {
        /// The peer.
        from: ReplicaId,
        /// Bytes of it that are here or about to be; 0 when it is here, or will not be.
        bytes: usize,
    },
    /// The link to a peer went down or came up. A hint: it may shorten a wait, nothing else.
    Link {
        /// The peer.
        peer: ReplicaId,
        /// Whether it is up.
        up: bool,
    },
}

/// What the vote register answered. A refusal is a value: the algorithm asked for something it may not have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RegisterAnswer {
    /// To [`Output::Certify`].
    Certificate(Certificate),
    /// To [`Output::Advance`].
    ViewChange(ViewChange),
    /// To [`Output::Attest`].
    Attestation(Attestation),
    /// To any of them.
    Refused,
}

/// f+1 signatures on one checkpoint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StableCheckpoint {
    /// What they signed.
    pub checkpoint: Checkpoint,
    /// The signatures, of distinct members, ascending.
    pub signatures: Vec<Signed<Checkpoint>>,
}

/// What an algorithm wants.
#[derive(Clone, Debug)]
pub enum Output<M> {
    /// Send to one peer. May be lost.
    Send {
        /// The peer.
        to: ReplicaId,
        /// What to say.
        message: M,
    },
    /// Send to all peers (not to oneself). May be lost.
    Broadcast(M),
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
        timer: TimerId,
        /// When.
        at: Option<u64>,
    },
    /// The next decision. Sequence numbers are 1, 2, 3, ... without gaps.
    Decide(Decision),
    /// Read committed records from the log, from `from` on and at most `bytes` of them, and send them to `to` in
    /// messages made by the algorithm's `provide` (see [`Provide`]). The peer is far behind.
    Provide(Provide),
    /// Frames that nobody here has submitted, and that might be ordered: a peer waits for them, or they stood in a
    /// block that is void. Whoever knows which may be ordered gives those back ([`Input::Admitted`]).
    Offer(Vec<Frame>),
    /// A peer has shown a vote of the own register that the register does not know: its state is older than what its key
    /// has said, and it must stay silent for ever. No call of it follows.
    Silence,
    /// Evidence of a lie or a fault of a peer, for counters and people.
    Suspect {
        /// The peer.
        peer: ReplicaId,
        /// What it did.
        reason: &'static str,
    },
    /// Proof that another history was decided than ours: more than f faults, or a register's key that spoke twice. The
    /// instance certifies nothing more; its replica stops until a person acts. Emitted once.
    Contradiction(Contradiction),
}

/// Two decisions for one place, both proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contradiction {
    /// The place.
    pub sequence: SequenceNumber,
    /// Hash of what was decided here.
    pub ours: Digest,
    /// Hash of what was decided elsewhere.
    pub theirs: Digest,
    /// Who showed it; `None` for a checkpoint that f+1 members signed.
    pub from: Option<ReplicaId>,
    /// What proves the other one: the transferable commit certificate, or the signed checkpoints, encoded.
    pub evidence: Bytes,
}

/// One write to the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A block that may be decided: its header's hash, its place and its bytes (as the algorithm encodes them).
    Block {
        /// Its place if it is decided.
        sequence: SequenceNumber,
        /// Names it.
        hash: Digest,
        /// All that is needed to check and execute it again.
        bytes: Bytes,
    },
    /// This block and all before it are decided. Need not be durable (it can be derived again), saves work at a start.
    Commit {
        /// Its place.
        sequence: SequenceNumber,
        /// Its hash.
        hash: Digest,
        /// The transferable commit certificate, as the algorithm encodes it.
        proof: Bytes,
    },
    /// What the replica's clock has shown: kept beside the register's next state. Without it a replica that restarts after
    /// its clock was set back may vote later, by up to that step; nothing else is lost.
    Clock(ClockReading),
    /// Nothing: answered when everything before it is durable.
    Barrier,
}

/// What a replica's clock has shown at best since its newest decision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClockReading {
    /// Place of that decision.
    pub after: SequenceNumber,
    /// Microseconds since 1970.
    pub micros: u64,
}

/// A request to read the log on behalf of a peer that is far behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Provide {
    /// The peer.
    pub to: ReplicaId,
    /// Its next decision.
    pub from: SequenceNumber,
    /// Our last one.
    pub committed: SequenceNumber,
}

/// One decided batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Its place in the order.
    pub sequence: SequenceNumber,
    /// Names the block.
    pub hash: Digest,
    /// Agreed time; never smaller than the decision's before.
    pub timestamp: Timestamp,
    /// What was ordered, in order.
    pub frames: Vec<Frame>,
}
