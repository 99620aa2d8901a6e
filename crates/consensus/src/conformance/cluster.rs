//! A cluster of simulated keys, and what a replica's disk holds.

use crate::{ClockReading, Record};
use std::{collections::BTreeMap, string::String, vec::Vec};
use unisono_trusted::{Register, RegisterState, register_id};
use unisono_types::{
    Bytes, Checkpoint, ClusterId, Configuration, Digest, Epoch, Frame, FrameBody, Incarnation, Limits, Member,
    Membership, RegisterView, ReplicaId, RequestNumber, SequenceNumber, SessionId, Signed, Signer, Step, Verifier,
    VerifyContext,
};

const UNIVERSE: u64 = 1;

/// Members with their keys, and a client.
#[derive(Clone, Debug)]
pub struct Cluster {
    membership: Membership,
    variant: usize,
}

impl Cluster {
    /// `members` replicas, the leader changing every `rotation` steps (0: only when it fails).
    #[must_use]
    pub fn new(members: u16, rotation: u64) -> Self {
        let configuration = Configuration {
            cluster: ClusterId([7; 16]),
            epoch: Epoch(0),
            members: (0..members)
                .map(|index| Member {
                    id: ReplicaId(index),
                    address: String::new(),
                    host_key: host_signer(ReplicaId(index)).public_key(),
                    register_key: register_signer(ReplicaId(index)).public_key(),
                    incarnation: Incarnation(0),
                })
                .collect(),
            client_keys: std::vec![client_signer().public_key()],
            admin_key: Signer::keyed(UNIVERSE, 4_000).public_key(),
            algorithm: "under test".into(),
            rotation,
            limits: Limits { operation_bytes: 4_096, frame_bytes: 8_192, block_bytes: 65_536, ..Limits::default() },
        };
        let membership = Membership::new(configuration).expect("members are numbered and have keys of their own");
        Self { membership, variant: 0 }
    }

    /// The same members running another variant of their algorithm ([`RunOptions::variant`](super::RunOptions)).
    #[must_use]
    pub const fn of_variant(mut self, variant: usize) -> Self {
        self.variant = variant;
        self
    }

    /// The same members with other limits.
    ///
    /// # Panics
    /// When they are limits that no cluster may have.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        let configuration = Configuration { limits, ..self.membership.configuration().clone() };
        self.membership = Membership::new(configuration).expect("limits grow from operation to block");
        self
    }

    /// Which variant they run.
    #[must_use]
    pub const fn variant(&self) -> usize {
        self.variant
    }

    /// The members.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// All that checking needs.
    #[must_use]
    pub fn context(&self) -> VerifyContext {
        VerifyContext {
            cluster: self.membership.configuration().cluster,
            verifier: Verifier::keyed(UNIVERSE),
            membership: self.membership.clone(),
        }
    }

    /// A replica's host key.
    #[must_use]
    pub fn host_signer(&self, id: ReplicaId) -> Signer {
        host_signer(id)
    }

    /// A replica's register, in the given state.
    #[must_use]
    pub fn register(&self, id: ReplicaId, state: RegisterState) -> Register {
        let name = register_id(&self.membership, id).expect("only members have registers");
        Register::restore(name, register_signer(id), state)
    }

    /// The client's frame with this number and payload.
    #[must_use]
    pub fn frame(&self, number: u64, payload: &[u8]) -> Frame {
        let body = FrameBody::Requests {
            session: SessionId(1),
            lowest_unacknowledged: RequestNumber(1),
            requests: std::vec![(RequestNumber(number), Bytes::copy_from_slice(payload))],
        };
        Frame::sign(self.membership.configuration().cluster, &client_signer(), body)
    }

    /// A member's statement that its state at this decision has a root (here a function of the decision).
    #[must_use]
    pub fn checkpoint(&self, id: ReplicaId, sequence: SequenceNumber, header: Digest) -> Signed<Checkpoint> {
        let root = Digest::of("root under test", &[&header.0]);
        let statement = Checkpoint { epoch: Epoch(0), sequence, header, root };
        Signed::sign(self.membership.configuration().cluster, id, &host_signer(id), statement)
    }
}

fn host_signer(id: ReplicaId) -> Signer {
    Signer::keyed(UNIVERSE, 1_000 + u64::from(id.0))
}

fn register_signer(id: ReplicaId) -> Signer {
    Signer::keyed(UNIVERSE, 2_000 + u64::from(id.0))
}

fn client_signer() -> Signer {
    Signer::keyed(UNIVERSE, 3_000)
}

/// What is durable at one replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// The register's state. Invariant: never older than an answer that left.
    pub register: RegisterState,
    /// Block records by place and hash, the newest of each.
    pub blocks: BTreeMap<(SequenceNumber, Digest), Bytes>,
    /// Commit records: place, hash, proof.
    pub commits: BTreeMap<SequenceNumber, (Digest, Bytes)>,
    /// What was decided up to the newest commit record, in order: place and hash.
    pub decided: BTreeMap<SequenceNumber, Digest>,
    /// Of the last clock record.
    pub clock: ClockReading,
}

impl Default for Disk {
    fn default() -> Self {
        let register = RegisterState { view: RegisterView(0), step: Step(0), ..RegisterState::default() };
        Self {
            register,
            blocks: BTreeMap::new(),
            commits: BTreeMap::new(),
            decided: BTreeMap::new(),
            clock: ClockReading::default(),
        }
    }
}

impl Disk {
    /// A record becomes durable.
    pub fn write(&mut self, record: Record) {
        match record {
            Record::Block { sequence, hash, bytes } => {
                self.blocks.insert((sequence, hash), bytes);
            }
            Record::Commit { sequence, hash, proof } => {
                self.commits.insert(sequence, (hash, proof));
            }
            Record::Clock(clock) => self.clock = clock,
            Record::Barrier => {}
        }
    }

    /// The newest commit record: place, hash, the block's bytes, proof.
    #[must_use]
    pub fn committed(&self) -> Option<(SequenceNumber, Digest, Bytes, Bytes)> {
        let (sequence, (hash, proof)) = self.commits.last_key_value()?;
        let bytes = self.blocks.get(&(*sequence, *hash))?;
        Some((*sequence, *hash, bytes.clone(), proof.clone()))
    }

    /// Block records above the newest commit record.
    #[must_use]
    pub fn above(&self) -> Vec<Bytes> {
        let committed = self.commits.last_key_value().map_or(SequenceNumber(0), |(sequence, _)| *sequence);
        self.blocks.iter().filter(|((sequence, _), _)| *sequence > committed).map(|(_, bytes)| bytes.clone()).collect()
    }

    /// At most about `bytes` of decided blocks from `from` on, ending with one that has a proof.
    #[must_use]
    pub fn decided_from(&self, from: SequenceNumber, bytes: usize) -> Option<(Vec<Bytes>, Bytes)> {
        let mut run = Vec::new();
        let mut size = 0;
        let mut proven = None;
        let mut expected = from;
        for (sequence, hash) in self.decided.range(from..) {
            let block = self.blocks.get(&(*sequence, *hash)).filter(|_| *sequence == expected)?;
            size += block.len();
            if size > bytes && proven.is_some() {
                break;
            }
            run.push(block.clone());
            expected = expected.next();
            if let Some((_, proof)) = self.commits.get(sequence).filter(|(committed, _)| committed == hash) {
                proven = Some((run.len(), proof.clone()));
            }
        }
        let (length, proof) = proven?;
        run.truncate(length);
        Some((run, proof))
    }
}
