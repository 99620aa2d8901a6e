//! What waits for the disk: the vote register's answers, writes that agreement waits for, and replies.
//!
//! ```text
//!   Persist, Certify, Advance ──> [ entries | promises ] ──group, ticket──> log ──durable──> Persisted, Answered
//!   Reply to what a block brought that is not on the disk yet ── held ────────────────────> sent
//! ```
//! Invariant: an answer of the register is given to nobody before the group with its record is durable.
//!
//! Invariant: no reply leaves before every decided block at or below it is durable here.

use crate::log::{Entry, Group, Lost, Ticket};
use std::collections::VecDeque;
use unisono_consensus::{PersistId, Record, RegisterAnswer};
use unisono_trusted::{Register, RegisterRecord, RegisterState, VoteRegister};
use unisono_types::{Digest, RegisterId, RegisterView, SequenceNumber, Step};

/// A vote register of which the host keeps the state.
pub trait KeptRegister: VoteRegister {
    /// Its name.
    fn id(&self) -> RegisterId;
    /// What must be durable before its newest answer leaves.
    fn state(&self) -> RegisterState;
    /// What an answer has become by the time it is durable: a register beside this process may answer meanwhile.
    fn released(&mut self, answer: RegisterAnswer) -> RegisterAnswer {
        answer
    }
}

impl KeptRegister for Register {
    fn id(&self) -> RegisterId {
        self.id()
    }

    fn state(&self) -> RegisterState {
        self.state()
    }
}

/// What a group lets happen once it is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// A write is durable.
    Persisted(PersistId),
    /// The register's answer may be used.
    Answered(RegisterAnswer),
}

/// See the module.
#[derive(Debug)]
pub struct Ledger<R> {
    register: R,
    lost: Option<Lost>,
    /// Of the group that is being gathered.
    ticket: Ticket,
    entries: Vec<Entry>,
    promises: Vec<Promise>,
    urgent: bool,
    /// Groups on their way to the disk.
    waiting: VecDeque<(Ticket, Vec<Promise>)>,
    /// Blocks that are not durable yet, in the order of their groups.
    blocks: VecDeque<(Ticket, SequenceNumber)>,
}

impl<R: KeptRegister> Ledger<R> {
    /// Around a register as its newest record says. A register that is `lost` is never asked.
    #[must_use]
    pub const fn new(register: R, lost: Option<Lost>) -> Self {
        Self {
            register,
            lost,
            ticket: 1,
            entries: Vec::new(),
            promises: Vec::new(),
            urgent: false,
            waiting: VecDeque::new(),
            blocks: VecDeque::new(),
        }
    }

    /// The register.
    pub const fn register(&self) -> &R {
        &self.register
    }

    /// Why the register is silent, if it is.
    #[must_use]
    pub const fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// A write; its promise comes with its group.
    pub fn persist(&mut self, id: PersistId, record: Record) {
        // Neither a commit, which can be derived again, nor the clock is waited for.
        self.urgent |= !matches!(record, Record::Commit { .. } | Record::Clock(_));
        match record {
            Record::Block { sequence, hash, bytes } => {
                self.blocks.push_back((self.ticket, sequence));
                self.entries.push(Entry::Block { sequence, hash, bytes });
            }
            Record::Commit { sequence, hash, proof } => self.entries.push(Entry::Commit { sequence, hash, proof }),
            Record::Clock(clock) => self.entries.push(Entry::Clock(clock)),
            Record::Barrier => {}
        }
        self.promises.push(Promise::Persisted(id));
    }

    /// Votes, behind everything written before.
    pub fn certify(&mut self, view: RegisterView, step: Step, hash: Digest) {
        self.ask(|register| {
            register.certify(view, step, hash).map_or(RegisterAnswer::Refused, RegisterAnswer::Certificate)
        });
    }

    /// Enters a view, likewise.
    pub fn advance(&mut self, view: RegisterView) {
        self.ask(|register| register.advance(view).map_or(RegisterAnswer::Refused, RegisterAnswer::ViewChange));
    }

    /// Says where the register stands, likewise.
    pub fn attest(&mut self, nonce: [u8; 32]) {
        self.ask(|register| RegisterAnswer::Attestation(register.attest(nonce)));
    }

    /// The register must not be used any more, now and after every start.
    pub fn silence(&mut self, lost: Lost) {
        self.lost.get_or_insert(lost);
        self.entries.push(Entry::Lost(lost));
        self.urgent = true;
    }

    fn ask(&mut self, ask: impl FnOnce(&mut R) -> RegisterAnswer) {
        let mut answer = RegisterAnswer::Refused;
        if self.lost.is_none() {
            answer = ask(&mut self.register);
            let record = RegisterRecord { id: self.register.id(), state: self.register.state() };
            self.entries.push(Entry::Register(record));
        }
        self.promises.push(Promise::Answered(answer));
        self.urgent = true;
    }

    /// What was gathered since the last call, for the log.
    pub fn group(&mut self) -> Option<Group> {
        if self.promises.is_empty() && self.entries.is_empty() {
            return None;
        }
        let ticket = self.ticket;
        self.ticket += 1;
        self.waiting.push_back((ticket, std::mem::take(&mut self.promises)));
        Some(Group { ticket, entries: std::mem::take(&mut self.entries), urgent: std::mem::take(&mut self.urgent) })
    }

    /// Whether something was gathered that something waits for.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Everything up to `ticket` is durable: what happens now.
    pub fn durable(&mut self, ticket: Ticket) -> Vec<Promise> {
        while self.blocks.front().is_some_and(|(waits, _)| *waits <= ticket) {
            self.blocks.pop_front();
        }
        let mut kept = Vec::new();
        while let Some((_, promises)) = self.waiting.pop_front_if(|(waits, _)| *waits <= ticket) {
            kept.extend(promises.into_iter().map(|promise| match promise {
                Promise::Answered(answer) => Promise::Answered(self.register.released(answer)),
                Promise::Persisted(_) => promise,
            }));
        }
        kept
    }

    /// The ticket that a reply waits for which follows from decisions up to `height`.
    #[must_use]
    pub fn reply_waits_for(&self, height: SequenceNumber) -> Option<Ticket> {
        self.blocks.iter().rev().find(|(_, sequence)| *sequence <= height).map(|(ticket, _)| *ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::{Bytes, ClusterId, Incarnation, ReplicaId, Signer};

    const VIEW: RegisterView = RegisterView(0);

    fn ledger(lost: Option<Lost>) -> Ledger<Register> {
        let signer = Signer::keyed(1, 1);
        let id = RegisterId {
            cluster: ClusterId([1; 16]),
            group: 0,
            replica: ReplicaId(0),
            incarnation: Incarnation(0),
            key: signer.public_key(),
        };
        Ledger::new(Register::new(id, signer), lost)
    }

    fn block(ledger: &mut Ledger<Register>, sequence: u64) {
        let sequence = SequenceNumber(sequence);
        let record = Record::Block { sequence, hash: Digest([1; 32]), bytes: Bytes::new() };
        ledger.persist(PersistId(sequence.0), record);
    }

    #[test]
    fn an_answer_comes_with_its_group_and_in_order() {
        let mut ledger = ledger(None);
        block(&mut ledger, 1);
        ledger.certify(VIEW, Step(1), Digest([1; 32]));
        let first = ledger.group().unwrap();
        assert!(first.urgent && matches!(first.entries[..], [Entry::Block { .. }, Entry::Register(_)]));
        ledger.certify(VIEW, Step(2), Digest([2; 32]));
        let second = ledger.group().unwrap();
        assert_eq!((ledger.group(), ledger.durable(first.ticket - 1)), (None, Vec::new()));
        let kept = ledger.durable(second.ticket);
        assert!(matches!(
            kept[..],
            [
                Promise::Persisted(PersistId(1)),
                Promise::Answered(RegisterAnswer::Certificate(_)),
                Promise::Answered(RegisterAnswer::Certificate(_))
            ]
        ));
    }

    #[test]
    fn a_lost_register_signs_nothing_and_writes_nothing() {
        let mut ledger = ledger(Some(Lost::Empty));
        ledger.certify(VIEW, Step(1), Digest([1; 32]));
        ledger.advance(RegisterView(3));
        ledger.attest([0; 32]);
        let group = ledger.group().unwrap();
        assert_eq!(group.entries, []);
        assert_eq!(ledger.durable(group.ticket), [Promise::Answered(RegisterAnswer::Refused); 3]);
        assert_eq!(ledger.register().state(), RegisterState::default());
    }

    #[test]
    fn a_reply_waits_for_the_blocks_at_and_below_its_decision_and_for_no_other() {
        let mut ledger = ledger(None);
        block(&mut ledger, 1);
        let first = ledger.group().unwrap().ticket;
        block(&mut ledger, 2);
        let second = ledger.group().unwrap().ticket;
        assert_eq!(ledger.reply_waits_for(SequenceNumber(0)), None);
        assert_eq!(ledger.reply_waits_for(SequenceNumber(1)), Some(first));
        assert_eq!(ledger.reply_waits_for(SequenceNumber(9)), Some(second));
        ledger.durable(first);
        assert_eq!(ledger.reply_waits_for(SequenceNumber(1)), None);
        ledger.durable(second);
        assert_eq!(ledger.reply_waits_for(SequenceNumber(9)), None);
    }
}
