//! From Marks to roots, from roots to stable checkpoints.
//!
//! ```text
//!   Mark walked      OrderedMark, waits for execution
//!   Done::Marked     root = H(objects, scheduler, sessions, grants, height, configuration)   barrier -> log
//!   Persisted        Signed<Checkpoint> to all
//!   f+1 equal        stable, when the own root is among them
//!   f+1 of others equal, the own root another:  this replica is wrong
//! ```
//! Invariant: nothing is signed before the log up to it is durable.
//!
//! Invariant: of one member at most [`RECENT_MAX`] checkpoints are kept, whatever it sends.

use crate::order::OrderedMark;
use crate::{Parts, divergence::Mismatch};
use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use unisono_consensus::StableCheckpoint;
use unisono_types::{Checkpoint, Digest, Epoch, MarkReport, Membership, ReplicaId, SequenceNumber, Signed};

/// Roots and checkpoints remembered: `status` shows as many, and two replicas that are compared must both know one
/// height. Marks are 5 s apart at the least under light load, so this is more than a minute.
pub(crate) const RECENT_MAX: usize = 16;

/// The state at a Mark, as this replica has computed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    /// The decision that holds the Mark.
    pub height: SequenceNumber,
    /// Root of the state.
    pub root: Digest,
    /// Grant-trace hash up to there.
    pub grants: Digest,
    /// Rounds up to there.
    pub round: u64,
    /// What the root was made from.
    pub parts: Parts,
    pub(crate) header: Digest,
}

#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    epoch: Epoch,
    configuration: Digest,
    enough: usize,
    ordered: VecDeque<OrderedMark>,
    recent: VecDeque<Root>,
    signed: BTreeMap<SequenceNumber, Signed<Checkpoint>>,
    votes: BTreeMap<ReplicaId, BTreeMap<SequenceNumber, Checkpoint>>,
    signatures: BTreeMap<(SequenceNumber, ReplicaId), Signed<Checkpoint>>,
    stable: SequenceNumber,
}

/// What a checkpoint brought about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Nothing,
    Stable(StableCheckpoint),
    Minority(Mismatch),
}

impl Checkpoints {
    pub(crate) fn new(membership: &Membership) -> Self {
        let configuration = membership.configuration();
        Self {
            epoch: configuration.epoch,
            configuration: configuration.digest(),
            enough: membership.quorum().one_correct(),
            ordered: VecDeque::new(),
            recent: VecDeque::new(),
            signed: BTreeMap::new(),
            votes: BTreeMap::new(),
            signatures: BTreeMap::new(),
            stable: SequenceNumber::ZERO,
        }
    }

    /// A Mark was walked; execution will report it.
    pub(crate) fn ordered(&mut self, mark: OrderedMark) {
        self.ordered.push_back(mark);
    }

    /// Execution reports the oldest Mark not yet reported. `sessions` finishes the digest of sessions from its ordered
    /// half.
    pub(crate) fn marked(&mut self, report: &MarkReport, sessions: impl FnOnce(&Digest) -> Digest) -> Root {
        let mark = self.ordered.pop_front().expect("execution reports only Marks that it was given");
        assert_eq!(mark.sequence, report.sequence, "execution reports Marks in their order");
        let MarkReport { objects, scheduler, grants, .. } = *report;
        let parts = Parts { objects, scheduler, sessions: sessions(&mark.sessions), grants };
        let root = Root {
            height: mark.sequence,
            root: root_of(&parts, mark.sequence, &self.configuration),
            grants,
            round: report.round,
            parts,
            header: mark.header,
        };
        self.recent.push_back(root);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        root
    }

    /// The statement about the Mark at `sequence`, if it is among the recent ones.
    pub(crate) fn statement(&self, sequence: SequenceNumber) -> Option<Checkpoint> {
        let root = self.root(sequence)?;
        Some(Checkpoint { epoch: self.epoch, sequence, header: root.header, root: root.root })
    }

    /// The root at `sequence`, if it is among the recent ones.
    pub(crate) fn root(&self, sequence: SequenceNumber) -> Option<&Root> {
        self.recent.iter().find(|root| root.height == sequence)
    }

    /// Recent roots, oldest first.
    pub(crate) fn recent(&self) -> &VecDeque<Root> {
        &self.recent
    }

    /// The newest root.
    pub(crate) fn last(&self) -> Option<&Root> {
        self.recent.back()
    }

    /// The newest stable checkpoint's place.
    pub(crate) fn stable(&self) -> SequenceNumber {
        self.stable
    }

    /// Our own checkpoint of `sequence`, once signed.
    pub(crate) fn own(&self, sequence: SequenceNumber) -> Option<&Signed<Checkpoint>> {
        self.signed.get(&sequence)
    }

    /// Our newest own checkpoint.
    pub(crate) fn last_own(&self) -> Option<&Signed<Checkpoint>> {
        self.signed.last_key_value().map(|(_, signed)| signed)
    }

    /// We have signed.
    pub(crate) fn signed(&mut self, own: Signed<Checkpoint>) -> Verdict {
        self.signed.insert(own.statement.sequence, own);
        if self.signed.len() > RECENT_MAX {
            self.signed.pop_first();
        }
        self.count(own);
        self.judge(own.statement.sequence)
    }

    /// A member has signed.
    pub(crate) fn received(&mut self, own: ReplicaId, signed: Signed<Checkpoint>) -> Verdict {
        let sequence = signed.statement.sequence;
        if signed.replica == own || sequence <= self.stable {
            return Verdict::Nothing;
        }
        self.count(signed);
        self.judge(sequence)
    }

    fn count(&mut self, signed: Signed<Checkpoint>) {
        let sequence = signed.statement.sequence;
        let votes = self.votes.entry(signed.replica).or_default();
        votes.insert(sequence, signed.statement);
        self.signatures.insert((sequence, signed.replica), signed);
        if votes.len() > RECENT_MAX
            && let Some((oldest, _)) = votes.pop_first()
        {
            self.signatures.remove(&(oldest, signed.replica));
        }
    }

    /// What the checkpoints of `sequence` come to, once this replica has a root there itself.
    pub(crate) fn judge(&mut self, sequence: SequenceNumber) -> Verdict {
        let Some(mine) = self.statement(sequence).filter(|_| sequence > self.stable) else { return Verdict::Nothing };
        let votes = || {
            self.signatures.range((sequence, ReplicaId(0))..=(sequence, ReplicaId(u16::MAX))).map(|(_, signed)| signed)
        };
        let equal: Vec<Signed<Checkpoint>> = votes().filter(|signed| signed.statement == mine).copied().collect();
        if equal.len() >= self.enough {
            self.settle(sequence);
            let signatures = equal.into_iter().take(self.enough).collect();
            return Verdict::Stable(StableCheckpoint { checkpoint: mine, signatures });
        }
        for other in votes().filter(|signed| signed.statement != mine) {
            let witnesses: Vec<ReplicaId> =
                votes().filter(|signed| signed.statement == other.statement).map(|signed| signed.replica).collect();
            if witnesses.len() >= self.enough {
                return Verdict::Minority(Mismatch { own: mine, theirs: other.statement, witnesses });
            }
        }
        Verdict::Nothing
    }

    fn settle(&mut self, sequence: SequenceNumber) {
        self.stable = sequence;
        for votes in self.votes.values_mut() {
            *votes = votes.split_off(&sequence.next());
        }
        self.signatures = self.signatures.split_off(&(sequence.next(), ReplicaId(0)));
    }
}

fn root_of(parts: &Parts, height: SequenceNumber, configuration: &Digest) -> Digest {
    let Parts { objects, scheduler, sessions, grants } = parts;
    let height = height.0.to_le_bytes();
    Digest::of("unisono root 2", &[&objects.0, &scheduler.0, &sessions.0, &grants.0, &height, &configuration.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{host_signer, membership};

    fn marked(checkpoints: &mut Checkpoints, sequence: u64, objects: u8) -> Root {
        let sequence = SequenceNumber(sequence);
        checkpoints.ordered(OrderedMark { sequence, header: Digest([1; 32]), sessions: Digest::ZERO });
        let report = MarkReport {
            sequence,
            objects: Digest([objects; 32]),
            scheduler: Digest::ZERO,
            grants: Digest::ZERO,
            round: 1,
        };
        checkpoints.marked(&report, |ordered| *ordered)
    }

    /// What member `id` says, having computed the same as a table with these objects.
    fn statement(id: u16, sequence: u64, objects: u8) -> Signed<Checkpoint> {
        let membership = membership(3);
        let mut theirs = Checkpoints::new(&membership);
        marked(&mut theirs, sequence, objects);
        let statement = theirs.statement(SequenceNumber(sequence)).unwrap();
        Signed::sign(membership.configuration().cluster, ReplicaId(id), &host_signer(id), statement)
    }

    const ME: ReplicaId = ReplicaId(0);

    #[test]
    fn f_plus_one_equal_roots_are_stable_once_ours_is_among_them() {
        let mut checkpoints = Checkpoints::new(&membership(3));
        assert_eq!(checkpoints.received(ME, statement(1, 5, 7)), Verdict::Nothing);
        assert_eq!(checkpoints.received(ME, statement(1, 5, 7)), Verdict::Nothing, "said twice is said once");
        marked(&mut checkpoints, 5, 7);
        let Verdict::Stable(stable) = checkpoints.signed(statement(0, 5, 7)) else { panic!("two of three agree") };
        let signers: Vec<ReplicaId> = stable.signatures.iter().map(|signed| signed.replica).collect();
        assert_eq!(signers, [ReplicaId(0), ReplicaId(1)]);
        assert_eq!(checkpoints.stable(), SequenceNumber(5));
        assert!(checkpoints.signatures.is_empty());
        assert_eq!(checkpoints.received(ME, statement(2, 5, 7)), Verdict::Nothing, "settled");
    }

    #[test]
    fn two_others_with_another_root_prove_us_wrong_and_one_does_not() {
        let mut checkpoints = Checkpoints::new(&membership(3));
        marked(&mut checkpoints, 5, 7);
        assert_eq!(checkpoints.received(ME, statement(1, 5, 8)), Verdict::Nothing, "it may be the liar");
        let Verdict::Minority(mismatch) = checkpoints.received(ME, statement(2, 5, 8)) else { panic!("both differ") };
        assert_eq!(mismatch.witnesses, [ReplicaId(1), ReplicaId(2)]);
        assert_ne!(mismatch.own.root, mismatch.theirs.root);
    }

    #[test]
    fn a_member_that_sends_many_checkpoints_takes_a_bounded_place() {
        let mut checkpoints = Checkpoints::new(&membership(3));
        for sequence in (1..500).rev().chain([u64::MAX]) {
            checkpoints.received(ME, statement(1, sequence, 7));
        }
        assert_eq!(checkpoints.votes[&ReplicaId(1)].len(), RECENT_MAX);
        assert_eq!(checkpoints.signatures.len(), RECENT_MAX);
    }

    #[test]
    fn roots_differ_with_each_part_and_the_height() {
        let root = |objects, height| {
            let mut checkpoints = Checkpoints::new(&membership(3));
            marked(&mut checkpoints, height, objects).root
        };
        assert_eq!(root(1, 5), root(1, 5));
        assert_ne!(root(1, 5), root(2, 5));
        assert_ne!(root(1, 5), root(1, 6));
    }

    #[test]
    fn only_recent_roots_are_kept() {
        let mut checkpoints = Checkpoints::new(&membership(3));
        (1..=40).for_each(|sequence| {
            marked(&mut checkpoints, sequence, 7);
        });
        assert_eq!(checkpoints.recent().len(), RECENT_MAX);
        assert!(checkpoints.root(SequenceNumber(24)).is_none());
        assert!(checkpoints.root(SequenceNumber(25)).is_some());
    }
}
