//! What the simulated world runs: replicas as bytes in, bytes out.
//!
//! The world knows machines, not protocols. A [`Core`] stands for one replica's process without its clock, network
//! and disk; an [`Actor`] for one client's process. Messages cross as encoded bytes, so that every codec and every
//! signature check is exercised, and an algorithm that the simulator has never heard of can run in it.

use crate::lies::{Bend, Bent, Flood, Hearsay, Kind};
use crate::{Property, Random, Seat};
use unisono_consensus::Provide;
use unisono_node::log::{CommittedBlock, Group, LogReader, Recovered, Ticket};
use unisono_types::{
    Bytes, CallAnswer, CallId, Certificate, Digest, MarkReport, RegisterView, Rejected, ReplicaId, RequestNumber,
    SequenceNumber, SessionId, Step, Time, Timestamp, View, ViewChange,
};

/// Makes the processes of replicas, at the first start and after each crash, from what their disks hold.
pub trait Factory {
    /// The process of `replica` on its opened log, not yet started.
    fn create(&self, replica: ReplicaId, log: Log) -> Box<dyn Core>;

    /// Reads the hash of the block before from a block's bytes as its log holds them.
    fn parent(&self) -> fn(&Bytes) -> Option<Digest>;

    /// Bytes of committed blocks in one answer to a peer that is far behind.
    fn piece_bytes(&self) -> usize;

    /// What a message between replicas says, for traces.
    fn describe(&self, bytes: &Bytes) -> String {
        format!("{} bytes", bytes.len())
    }

    /// What a liar can make of a message that it is about to send: other messages, well-formed, signed with the
    /// liar's own keys where they need a signature.
    fn forge(&self, liar: ReplicaId, bytes: &Bytes, random: &mut Random) -> Vec<Bytes> {
        let _ = (liar, bytes, random);
        Vec::new()
    }

    /// Messages that show what a liar had its register sign.
    fn show(&self, liar: ReplicaId, signed: &Abuse, random: &mut Random) -> Vec<Bytes> {
        let _ = (liar, signed, random);
        Vec::new()
    }

    /// A liar's word about an outside call, as a message of its own.
    fn submission(&self, liar: ReplicaId, call: &CallId, answer: CallAnswer) -> Option<Bytes> {
        let _ = (liar, call, answer);
        None
    }

    /// Whose register signed the vote or view change that a message shows.
    fn speaker(&self, bytes: &Bytes) -> Option<ReplicaId>;

    /// The vote that a message between replicas is, its signature unchecked.
    fn vote(&self, bytes: &Bytes) -> Option<Certificate>;

    /// Whether a register signed this.
    fn is_signed(&self, vote: &Certificate) -> bool;

    /// What a message between replicas is about.
    fn kind(&self, bytes: &Bytes) -> Kind {
        let _ = bytes;
        Kind::Other
    }

    /// What a liar certifies in place of `block`, as its log holds it.
    fn bend(&self, liar: ReplicaId, block: &Bytes, bend: Bend, hearsay: &mut Hearsay<'_>) -> Option<Bent> {
        let _ = (liar, block, bend, hearsay);
        None
    }

    /// The same message with signatures and certificates in it that a receiver should not take on trust.
    fn tamper(&self, bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
        let _ = (bytes, random);
        None
    }

    /// One message of a flood.
    fn flood(&self, liar: ReplicaId, flood: Flood, hearsay: &mut Hearsay<'_>) -> Option<Bytes> {
        let _ = (liar, flood, hearsay);
        None
    }

    /// Whether a message, from a client or from a peer, brings frames of this client.
    fn mentions(&self, bytes: &Bytes, client: usize) -> bool {
        let _ = (bytes, client);
        false
    }

    /// A wrong answer to a client in place of this one.
    fn wrong_reply(&self, bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
        let _ = (bytes, random);
        None
    }
}

/// What a process finds when it starts.
#[derive(Debug)]
pub struct Log {
    /// What its log held.
    pub recovered: Recovered,
    /// Reads it.
    pub reader: LogReader,
    /// Its vote register, as its log says.
    pub register: Seat,
}

/// What a register signed for a liar.
#[derive(Clone, Copy, Debug)]
pub enum Abuse {
    /// A vote for a position and hash of the liar's choice.
    Vote(Certificate),
    /// An early departure into a view of the liar's choice.
    Departure(ViewChange),
}

/// One replica's process.
pub trait Core {
    /// The one entry point.
    fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>);

    /// How many of its tasks could take a step.
    fn runnable(&self) -> usize;

    /// What it has come to.
    fn progress(&self) -> Progress;

    /// What it is doing, for people.
    fn describe(&self) -> String {
        String::new()
    }
}

/// How far a replica is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Last committed decision.
    pub committed: SequenceNumber,
    /// Last decision of which everything is finished or parked.
    pub executed: SequenceNumber,
    /// Its view.
    pub view: View,
}

/// What happens to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// Once, before everything else.
    Start,
    /// Bytes from a peer whose link is authenticated.
    Peer {
        /// The peer.
        from: ReplicaId,
        /// What it says.
        bytes: Bytes,
    },
    /// Bytes from a client.
    Client {
        /// Which client: its number among the clients.
        client: usize,
        /// Which of its connections.
        connection: u64,
        /// What it says.
        bytes: Bytes,
    },
    /// A client's connection is gone.
    Disconnected(u64),
    /// A timer has come.
    Timeout(u64),
    /// Everything up to this ticket of its log is durable.
    Durable(Ticket),
    /// Let one of the runnable tasks go on; the number chooses which.
    Step(u64),
    /// A large message from a peer is on its way.
    Arriving {
        /// The peer.
        from: ReplicaId,
        /// Bytes of it that are here or about to be.
        bytes: usize,
    },
    /// A link to a peer went down or came up.
    Link {
        /// The peer.
        peer: ReplicaId,
        /// Whether it is up.
        up: bool,
    },
    /// What the outside said to a call.
    Outside {
        /// Which.
        call: CallId,
        /// What was said.
        answer: CallAnswer,
    },
    /// From now on so many handlers may run ahead of the scheduler: a local matter, which must not show.
    StartAhead(usize),
    /// What the log holds for a peer that is far behind.
    Provided {
        /// What was asked for.
        provide: Provide,
        /// Consecutive committed blocks.
        blocks: Vec<CommittedBlock>,
    },
}

impl Input {
    /// Bytes that somebody sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Peer { bytes, .. } | Self::Client { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }
}

/// What a replica wants.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send to a peer.
    Send {
        /// The peer.
        to: ReplicaId,
        /// What.
        bytes: Bytes,
    },
    /// Answer a client.
    Reply {
        /// On which connection.
        connection: u64,
        /// What.
        bytes: Bytes,
    },
    /// Write.
    Write(Group),
    /// Set or stop a timer of the monotonic clock.
    SetTimer {
        /// Which.
        timer: u64,
        /// When.
        at: Option<u64>,
    },
    /// Read the log for a peer.
    Provide(Provide),
    /// Ask somebody outside; answered by [`Input::Outside`].
    Ask {
        /// To be answered with.
        call: CallId,
        /// Whom.
        target: String,
        /// What.
        request: Bytes,
    },
    /// For the checkers.
    Observe(Observation),
}

/// What a replica did, for the checkers. Of correct replicas all of it must agree.
#[derive(Clone, Debug)]
pub enum Observation {
    /// The next item of the order that it follows, from its beginning in this life.
    Ordered {
        /// Its kind, for people.
        kind: &'static str,
        /// Digest of all of it.
        digest: Digest,
    },
    /// A request was given to execution.
    Requested {
        /// Whose.
        session: SessionId,
        /// Which.
        number: RequestNumber,
        /// Digest of the operation.
        operation: Digest,
    },
    /// A block is written.
    Written {
        /// Its hash.
        hash: Digest,
        /// Its bytes.
        bytes: Bytes,
    },
    /// What its register signed leaves it.
    Spoke {
        /// Whose register.
        replica: ReplicaId,
        /// Where that register stands with it.
        place: (RegisterView, Step),
    },
    /// A block is decided.
    Committed {
        /// Its place.
        sequence: SequenceNumber,
        /// Its hash.
        hash: Digest,
    },
    /// A request came to its end.
    Executed {
        /// Whose.
        session: SessionId,
        /// Which.
        number: RequestNumber,
        /// Digest of the outcome.
        outcome: Digest,
    },
    /// The state at a Mark.
    Marked(MarkReport),
    /// The root that it signed for a Mark.
    Root {
        /// The Mark's decision.
        sequence: SequenceNumber,
        /// The root.
        root: Digest,
    },
    /// Execution has used up the order and waits for an entry of this kind.
    Starved {
        /// For a Flush.
        flush: bool,
        /// For a Tick, with this time.
        tick: Option<Timestamp>,
    },
    /// An entry with this agreed time was given to execution.
    Timed(Timestamp),
    /// It was shown votes of its register that this does not know.
    Silenced,
    /// It found itself faulty.
    Halted(String),
    /// It did not let something in.
    Rejected(Rejected),
    /// It suspects a peer.
    Suspected {
        /// The peer.
        peer: ReplicaId,
        /// Why.
        reason: &'static str,
    },
}

/// A point in time: clocks for the protocol, and a number that grows with every event for histories.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// What the machine's clocks read.
    pub time: Time,
    /// Place among all events of the run.
    pub order: u64,
}

/// One client's process.
pub trait Actor {
    /// The one entry point.
    fn handle(&mut self, now: Moment, input: ActorInput, effects: &mut Vec<ActorEffect>);

    /// Whether it waits for nothing any more.
    fn is_done(&self) -> bool;

    /// What it waits for, for people.
    fn waits_for(&self) -> String;
}

/// What happens to a client.
#[derive(Clone, Debug)]
pub enum ActorInput {
    /// Once, before everything else.
    Start,
    /// Bytes from a replica.
    Reply {
        /// The replica.
        from: ReplicaId,
        /// What it says.
        bytes: Bytes,
    },
    /// The timer has come.
    Timeout,
    /// A link to a replica went down or came up.
    Link {
        /// The replica.
        replica: ReplicaId,
        /// Whether it is up.
        up: bool,
    },
    /// Somebody put something down for it.
    Wake,
    /// The process ends and starts anew; what was outstanding stays unknown.
    Crash,
    /// Everything is healed: come to an end.
    Finish,
}

/// What a client wants.
#[derive(Clone, Debug)]
pub enum ActorEffect {
    /// Send to a replica.
    Send {
        /// The replica.
        to: ReplicaId,
        /// What.
        bytes: Bytes,
    },
    /// Set the timer of the monotonic clock.
    SetTimer {
        /// When.
        at: u64,
    },
    /// It called: from now on the order may hold this request.
    Invoked {
        /// Its session.
        session: SessionId,
        /// Its number.
        number: RequestNumber,
        /// Digest of the operation.
        operation: Digest,
    },
    /// It got an outcome.
    Completed {
        /// Its session.
        session: SessionId,
        /// Its number.
        number: RequestNumber,
        /// Digest of the outcome.
        outcome: Digest,
    },
    /// It saw something that must not happen.
    Violated(Property, String),
}
