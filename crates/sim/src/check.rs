//! The checkers that watch a run: what correct replicas did must agree, and be what clients asked for, once.
//!
//! They see only what leaves a replica (what it gives to execution, commits, signs, answers), never its inside, so
//! a bug cannot hide by being shared between the code and its checker.
//!
//! Invariant: a liar's own observations are never given to them.

use crate::Observation;
use std::collections::{BTreeMap, BTreeSet};
use unisono_types::{
    Certificate, Digest, MarkReport, RegisterView, ReplicaId, RequestNumber, SequenceNumber, SessionId, Step,
    VotePosition,
};

/// What must never happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// Two correct replicas follow different orders.
    EqualLogs,
    /// Something was ordered that no client asked for.
    Validity,
    /// A request ran twice.
    ExactlyOnce,
    /// One request, two outcomes.
    EqualOutcomes,
    /// Different lock grants at one height.
    EqualGrants,
    /// Different states at one height.
    EqualState,
    /// A client accepted what no correct replica answered, or a write that was acknowledged is gone.
    TrueReplies,
    /// A history that no order of operations explains.
    Linearizability,
    /// Something outstanding was not done in time after everything healed.
    Liveness,
    /// A correct replica has forgotten what it said, or cannot read what it wrote.
    Durability,
    /// A register, be it a liar's, signed two votes for one place.
    OneVote,
    /// A correct replica took itself for faulty.
    NoFalseHalt,
    /// Agreed time left the clocks of correct replicas behind, or stayed behind them.
    AgreedTime,
    /// Requests waited for long although links, disks and most replicas were in order: a leader was not replaced.
    PromptService,
    /// A leader was replaced although nobody lied and everything was in order.
    LastingLeaders,
    /// A correct replica was refused or suspected by another one: it passed on what it had not verified.
    NoFalseAccusation,
    /// A correct replica sent what no link takes.
    MessageLimits,
    /// The code broke a promise of its own.
    NoPanic,
}

/// One violation.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Violation {
    /// Of what.
    pub property: Property,
    /// What happened, for people.
    pub text: String,
}

type RequestName = (SessionId, RequestNumber);

/// Watches one run. It stops at the first violation: what follows is noise.
#[derive(Debug)]
pub struct Checker {
    order: Vec<Digest>,
    commits: BTreeMap<SequenceNumber, Digest>,
    invoked: BTreeMap<RequestName, Digest>,
    outcomes: BTreeMap<RequestName, Digest>,
    accepted: BTreeMap<RequestName, Digest>,
    marks: BTreeMap<SequenceNumber, MarkReport>,
    roots: BTreeMap<SequenceNumber, Digest>,
    kinds: BTreeMap<&'static str, u64>,
    votes: BTreeMap<(ReplicaId, RegisterView, Step), Digest>,
    lives: Vec<Life>,
    violation: Option<Violation>,
}

/// What one replica did since it was last started.
#[derive(Clone, Default, Debug)]
struct Life {
    ordered: usize,
    requested: BTreeSet<RequestName>,
    executed: BTreeSet<RequestName>,
}

impl Checker {
    /// Of a cluster of so many replicas.
    #[must_use]
    pub fn new(replicas: usize) -> Self {
        Self {
            order: Vec::new(),
            commits: BTreeMap::new(),
            invoked: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            accepted: BTreeMap::new(),
            marks: BTreeMap::new(),
            roots: BTreeMap::new(),
            kinds: BTreeMap::new(),
            votes: BTreeMap::new(),
            lives: vec![Life::default(); replicas],
            violation: None,
        }
    }

    /// The first violation.
    #[must_use]
    pub const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes a violation found by somebody else.
    pub fn report(&mut self, property: Property, text: String) {
        self.violation.get_or_insert(Violation { property, text });
    }

    /// Decisions committed so far.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.decided().0
    }

    /// The newest decision of a correct replica.
    #[must_use]
    pub fn decided(&self) -> SequenceNumber {
        self.commits.last_key_value().map_or(SequenceNumber(0), |(sequence, _)| *sequence)
    }

    /// Items of the order by kind.
    #[must_use]
    pub const fn kinds(&self) -> &BTreeMap<&'static str, u64> {
        &self.kinds
    }

    /// Marks compared so far.
    #[must_use]
    pub fn marks(&self) -> usize {
        self.marks.len()
    }

    /// A replica starts, again: it follows the order from its beginning.
    pub fn started(&mut self, replica: usize) {
        self.lives[replica] = Life::default();
    }

    /// A client asks.
    pub fn invoked(&mut self, session: SessionId, number: RequestNumber, operation: Digest) {
        self.invoked.insert((session, number), operation);
    }

    /// A client accepted an outcome.
    pub fn completed(&mut self, session: SessionId, number: RequestNumber, outcome: Digest) {
        let name = (session, number);
        self.accepted.insert(name, outcome);
        match self.outcomes.get(&name) {
            Some(executed) if *executed == outcome => {}
            Some(_) => self.report(Property::TrueReplies, format!("{name:?} was answered wrongly")),
            None => {
                self.report(Property::TrueReplies, format!("{name:?} was answered before any correct replica ran it"))
            }
        }
    }

    /// A vote that a register seems to have signed leaves a machine, a liar's too. `is_signed` is asked once for each statement.
    pub fn voted(&mut self, certificate: &Certificate, is_signed: impl FnOnce() -> bool) {
        let VotePosition { view, step, hash } = certificate.vote;
        let place = (certificate.replica, view, step);
        let known = self.votes.get(&place).copied();
        if known == Some(hash) || !is_signed() {
            return;
        }
        self.votes.insert(place, hash);
        if let Some(known) = known {
            let text = format!("the register of {:?} signed {known:?} and {hash:?} at {place:?}", place.0);
            self.report(Property::OneVote, text);
        }
    }

    /// A correct replica did something.
    pub fn observe(&mut self, replica: usize, observation: Observation) {
        match observation {
            Observation::Ordered { kind, digest } => self.ordered(replica, kind, digest),
            Observation::Requested { session, number, operation } => {
                self.requested(replica, (session, number), operation);
            }
            Observation::Committed { sequence, hash } => {
                let known = *self.commits.entry(sequence).or_insert(hash);
                if known != hash {
                    self.report(
                        Property::EqualLogs,
                        format!("replica {replica} committed {hash:?} at {sequence:?}, another one {known:?}"),
                    );
                }
            }
            Observation::Executed { session, number, outcome } => self.executed(replica, (session, number), outcome),
            Observation::Marked(report) => self.marked(replica, report),
            Observation::Root { sequence, root } => {
                let known = *self.roots.entry(sequence).or_insert(root);
                if known != root {
                    self.report(
                        Property::EqualState,
                        format!("replica {replica} signed root {root:?} at {sequence:?}, another one {known:?}"),
                    );
                }
            }
            Observation::Halted(reason) => {
                self.report(Property::NoFalseHalt, format!("replica {replica}, which is correct, stopped: {reason}"));
            }
            // The world looks at these: it knows the clocks, and who is correct.
            Observation::Silenced => {
                let text = format!("replica {replica} is shown votes of its register that this does not know");
                self.report(Property::Durability, text);
            }
            Observation::Timed(_)
            | Observation::Written { .. }
            | Observation::Spoke { .. }
            | Observation::Rejected(_)
            | Observation::Suspected { .. } => {}
            Observation::Starved { .. } => {}
        }
    }

    fn ordered(&mut self, replica: usize, kind: &'static str, digest: Digest) {
        let place = self.lives[replica].ordered;
        self.lives[replica].ordered += 1;
        match self.order.get(place) {
            None => {
                self.order.push(digest);
                *self.kinds.entry(kind).or_default() += 1;
            }
            Some(known) if *known == digest => {}
            Some(known) => {
                let text =
                    format!("replica {replica} follows {digest:?} as item {place} of the order, another one {known:?}");
                self.report(Property::EqualLogs, text);
            }
        }
    }

    fn requested(&mut self, replica: usize, name: RequestName, operation: Digest) {
        if !self.lives[replica].requested.insert(name) {
            self.report(Property::ExactlyOnce, format!("replica {replica} gave {name:?} to execution twice"));
        }
        if self.invoked.get(&name) != Some(&operation) {
            self.report(Property::Validity, format!("replica {replica} executes {name:?}, which no client asked for"));
        }
    }

    fn executed(&mut self, replica: usize, name: RequestName, outcome: Digest) {
        if !self.lives[replica].executed.insert(name) {
            self.report(Property::ExactlyOnce, format!("{name:?} came to its end twice on replica {replica}"));
        }
        let known = *self.outcomes.entry(name).or_insert(outcome);
        if known != outcome {
            self.report(Property::EqualOutcomes, format!("replica {replica} answers {name:?} unlike another one"));
        }
    }

    fn marked(&mut self, replica: usize, report: MarkReport) {
        let sequence = report.sequence;
        let known = *self.marks.entry(sequence).or_insert(report);
        if known.grants != report.grants {
            self.report(
                Property::EqualGrants,
                format!("replica {replica} granted locks otherwise before {sequence:?}"),
            );
        } else if known != report {
            self.report(
                Property::EqualState,
                format!("replica {replica} has another state at {sequence:?}: {report:?}, not {known:?}"),
            );
        }
    }

    /// At the end: what clients accepted must be in the order of every replica that has followed it all.
    pub fn finish(&mut self, correct: &[usize]) {
        for replica in correct {
            let lost = self.accepted.keys().find(|name| !self.lives[*replica].requested.contains(name));
            if let Some(name) = lost.copied() {
                self.report(
                    Property::TrueReplies,
                    format!("{name:?} was acknowledged, but replica {replica} never ran it"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::Signature;

    const SESSION: SessionId = SessionId(1);
    const NUMBER: RequestNumber = RequestNumber(1);

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn found(steps: &[(usize, Observation)]) -> Option<Property> {
        let mut checker = Checker::new(2);
        checker.invoked(SESSION, NUMBER, digest(9));
        steps.iter().for_each(|(replica, observation)| checker.observe(*replica, observation.clone()));
        checker.violation().map(|violation| violation.property)
    }

    #[test]
    fn a_prefix_is_no_violation_and_a_fork_is() {
        let item = |byte| Observation::Ordered { kind: "request", digest: digest(byte) };
        assert_eq!(found(&[(0, item(1)), (0, item(2)), (1, item(1))]), None);
        assert_eq!(found(&[(0, item(1)), (0, item(2)), (1, item(1)), (1, item(3))]), Some(Property::EqualLogs));
        let commit = |byte| Observation::Committed { sequence: SequenceNumber(4), hash: digest(byte) };
        assert_eq!(found(&[(0, commit(1)), (1, commit(1))]), None);
        assert_eq!(found(&[(0, commit(1)), (1, commit(2))]), Some(Property::EqualLogs));
    }

    #[test]
    fn what_nobody_asked_for_and_what_runs_twice_is_seen() {
        let run = |number, byte| Observation::Requested { session: SESSION, number, operation: digest(byte) };
        assert_eq!(found(&[(0, run(NUMBER, 9)), (1, run(NUMBER, 9))]), None);
        assert_eq!(found(&[(0, run(NUMBER, 8))]), Some(Property::Validity));
        assert_eq!(found(&[(0, run(RequestNumber(2), 9))]), Some(Property::Validity));
        assert_eq!(found(&[(0, run(NUMBER, 9)), (0, run(NUMBER, 9))]), Some(Property::ExactlyOnce));
    }

    #[test]
    fn outcomes_grants_states_and_roots_must_agree() {
        let end = |byte| Observation::Executed { session: SESSION, number: NUMBER, outcome: digest(byte) };
        assert_eq!(found(&[(0, end(1)), (1, end(1))]), None);
        assert_eq!(found(&[(0, end(1)), (1, end(2))]), Some(Property::EqualOutcomes));
        assert_eq!(found(&[(0, end(1)), (0, end(1))]), Some(Property::ExactlyOnce));
        let report = |grants, objects| {
            let (objects, grants) = (digest(objects), digest(grants));
            Observation::Marked(MarkReport {
                sequence: SequenceNumber(3),
                objects,
                scheduler: digest(0),
                grants,
                round: 1,
            })
        };
        assert_eq!(found(&[(0, report(1, 1)), (1, report(1, 1))]), None);
        assert_eq!(found(&[(0, report(1, 1)), (1, report(2, 1))]), Some(Property::EqualGrants));
        assert_eq!(found(&[(0, report(1, 1)), (1, report(1, 2))]), Some(Property::EqualState));
        let root = |byte| Observation::Root { sequence: SequenceNumber(3), root: digest(byte) };
        assert_eq!(found(&[(0, root(1)), (1, root(2))]), Some(Property::EqualState));
        assert_eq!(found(&[(0, Observation::Halted("minority".into()))]), Some(Property::NoFalseHalt));
    }

    #[test]
    fn two_votes_of_a_register_for_one_place_are_seen_and_what_it_did_not_sign_is_not_its_vote() {
        let vote = |step, byte| Certificate {
            replica: ReplicaId(1),
            vote: VotePosition { view: RegisterView(0), step: Step(step), hash: digest(byte) },
            signature: Signature([0; 64]),
        };
        let mut checker = Checker::new(2);
        for (vote, is_signed) in [(vote(1, 1), true), (vote(1, 1), true), (vote(1, 2), false), (vote(2, 2), true)] {
            checker.voted(&vote, || is_signed);
            assert_eq!(checker.violation(), None);
        }
        checker.voted(&vote(2, 3), || true);
        assert_eq!(checker.violation().unwrap().property, Property::OneVote);
    }

    #[test]
    fn an_answer_must_be_what_a_correct_replica_computed_and_stay_there() {
        let mut checker = Checker::new(1);
        checker.completed(SESSION, NUMBER, digest(1));
        assert_eq!(checker.violation().unwrap().property, Property::TrueReplies);

        let mut checker = Checker::new(1);
        checker.invoked(SESSION, NUMBER, digest(9));
        checker.observe(0, Observation::Executed { session: SESSION, number: NUMBER, outcome: digest(1) });
        checker.completed(SESSION, NUMBER, digest(1));
        assert_eq!(checker.violation(), None);
        checker.started(0);
        checker.finish(&[0]);
        assert_eq!(checker.violation().unwrap().property, Property::TrueReplies, "it was forgotten by a restart");
    }
}
