//! The walk: what one decision does, entry by entry, in order. A function of the decisions so far and of nothing else,
//! so it is the same on every replica and in every replay.
//!
//! ```text
//!   Decision ──frames──> Requests  new, in the window, of an open session of that key   -> Work::Request
//!                        Open Close Expire                                               -> the table of sessions
//!                        Tick      later than the last, at most the decision's time      -> Work::Tick
//!                        Flush                                                           -> Work::Flush
//!                        Mark      far enough behind the last effective one              -> Work::Mark
//!                        Admin     the admin key's, never taken before                   -> Work::Reconfigure
//!                        Called    the f+1-th equal one of distinct members              -> Work::Answer
//! ```
//! Invariant: bytes of stored replies, arrival times and what has finished never enter here: they differ between
//! replicas. A session over `limits.reply_bytes` is held back before its frames are ordered; what is ordered all the
//! same (by a leader that does not hold it back) runs like anything else, and only its digest is kept.

use crate::admin::AdminEntries;
use crate::table::SessionTable;
use crate::tally::Tallies;
use crate::{ConnectionId, MarkRule};
use alloc::{collections::BTreeMap, vec::Vec};
use unisono_consensus::Decision;
use unisono_types::{
    AdminEntry, CallAnswer, CallId, Digest, Frame, FrameBody, Membership, Position, PublicKey, Refusal, ReplicaId,
    SequenceNumber, SessionId, SystemEntry, Timestamp, Work,
};

/// What walking a decision brings about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// For execution.
    Work(Work),
    /// A Mark took effect: its [`Work::Mark`] comes next.
    Mark(OrderedMark),
    /// An Open opened a session, or had opened it before.
    Opened { key: PublicKey, nonce: u64, session: SessionId },
    /// An Open opened nothing.
    NotOpened { key: PublicKey, nonce: u64, reason: Refusal },
    /// A session was closed or expired; where its client was last heard.
    Closed { session: SessionId, connection: Option<ConnectionId> },
    /// A member's word about an outside call was ordered. If it made the answer, its [`Work::Answer`] comes next.
    Voted { member: ReplicaId, call: CallId },
}

/// What the order alone says about a Mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OrderedMark {
    /// The decision that holds it.
    pub(crate) sequence: SequenceNumber,
    /// That decision's hash.
    pub(crate) header: Digest,
    /// The ordered half of the digest of sessions at this place.
    pub(crate) sessions: Digest,
}

/// The state of the walk.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) table: SessionTable,
    pub(crate) tallies: Tallies,
    pub(crate) admin: AdminEntries,
    membership: Membership,
    rule: MarkRule,
    height: SequenceNumber,
    timestamp: Timestamp,
    tick: Timestamp,
    mark: LastMark,
    /// The last decision with a request in it that runs.
    last_request: SequenceNumber,
    /// The greatest nonce among each member's ordered entries. For hints only: what it repeats is not let in.
    entries: BTreeMap<ReplicaId, u64>,
}

/// The last effective Mark, and whether there is anything to mark since.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LastMark {
    /// Its decision; zero before the first.
    pub(crate) sequence: SequenceNumber,
    /// Its agreed time; before the first: that of the first decision.
    pub(crate) timestamp: Timestamp,
    /// Whether something other than Marks was ordered since.
    pub(crate) followed: bool,
}

impl Order {
    pub(crate) fn new(membership: Membership, rule: MarkRule) -> Self {
        Self {
            tallies: Tallies::new(membership.quorum().one_correct()),
            admin: AdminEntries::default(),
            table: SessionTable::new(membership.clone()),
            membership,
            rule,
            height: SequenceNumber::ZERO,
            timestamp: Timestamp(0),
            tick: Timestamp(0),
            mark: LastMark::default(),
            last_request: SequenceNumber::ZERO,
            entries: BTreeMap::new(),
        }
    }

    /// The last decision walked.
    pub(crate) fn height(&self) -> SequenceNumber {
        self.height
    }

    /// Agreed time of the last decision.
    pub(crate) fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Time of the last effective Tick.
    pub(crate) fn tick(&self) -> Timestamp {
        self.tick
    }

    /// The last decision that has a request which runs.
    pub(crate) fn last_request(&self) -> SequenceNumber {
        self.last_request
    }

    /// The members and limits.
    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The greatest nonce of an ordered entry of this member.
    pub(crate) fn last_entry(&self, member: ReplicaId) -> Option<u64> {
        self.entries.get(&member).copied()
    }

    /// The last effective Mark.
    pub(crate) fn last_mark(&self) -> LastMark {
        self.mark
    }

    /// Walks the next decision.
    pub(crate) fn walk(&mut self, decision: &Decision, effects: &mut Vec<Effect>) {
        assert_eq!(decision.sequence, self.height.next(), "consensus decides 1, 2, 3, ... without gaps");
        if self.height == SequenceNumber::ZERO {
            self.mark.timestamp = decision.timestamp;
        }
        self.height = decision.sequence;
        self.timestamp = decision.timestamp;
        let mut index = 0u32;
        for frame in &decision.frames {
            self.frame(decision, frame, index, effects);
            index = index.saturating_add(u32::try_from(frame.entries()).unwrap_or(u32::MAX));
        }
    }

    /// One frame, whose first entry stands at `index`. Entries beyond what a [`Position`] can name do nothing.
    fn frame(&mut self, decision: &Decision, frame: &Frame, index: u32, effects: &mut Vec<Effect>) {
        let key = frame.key();
        let Decision { sequence, timestamp, .. } = *decision;
        if !matches!(frame.body(), FrameBody::System { entry: SystemEntry::Mark, .. }) {
            self.mark.followed = true;
        }
        match frame.body() {
            FrameBody::Requests { session, lowest_unacknowledged, requests } => {
                if !self.table.hear(*session, &key, *lowest_unacknowledged, timestamp) {
                    return;
                }
                for (index, (number, operation)) in (index..).zip(requests) {
                    let Some(position) = Position::new(sequence, index) else { return };
                    if self.table.begin(*session, *number) {
                        let (session, number, operation) = (*session, *number, operation.clone());
                        let request = Work::Request { position, timestamp, session, number, operation };
                        effects.push(Effect::Work(request));
                        self.last_request = sequence;
                    }
                }
            }
            FrameBody::Open { nonce, recent } => {
                let Some(position) = Position::new(sequence, index) else { return };
                effects.push(match self.table.open(key, *nonce, *recent, position, timestamp) {
                    Ok(session) => Effect::Opened { key, nonce: *nonce, session },
                    Err(reason) => Effect::NotOpened { key, nonce: *nonce, reason },
                });
            }
            FrameBody::Close { session } => {
                if let Some(closed) = self.table.close(*session, &key) {
                    effects.push(Effect::Closed { session: *session, connection: closed.connection });
                }
            }
            FrameBody::System { entry, nonce } => {
                if let Some(member) = self.membership.member_by_host_key(&key) {
                    let last = self.entries.entry(member.id).or_default();
                    *last = (*last).max(*nonce);
                }
                self.system(decision, *entry, effects);
            }
            FrameBody::Admin { entry, nonce, recent } => {
                let is_admin = key == self.membership.configuration().admin_key;
                if is_admin && self.admin.take(*nonce, *recent, sequence) {
                    let AdminEntry::Reconfigure(change) = entry;
                    effects.push(Effect::Work(Work::Reconfigure(change.clone())));
                }
            }
            FrameBody::Called { call, answer } => {
                if let Some(member) = self.membership.member_by_host_key(&key) {
                    self.called(decision, member.id, call, answer, effects);
                }
            }
        }
    }

    fn called(
        &mut self,
        decision: &Decision,
        member: ReplicaId,
        call: &CallId,
        answer: &CallAnswer,
        effects: &mut Vec<Effect>,
    ) {
        if call.position.sequence() >= decision.sequence {
            return; // that request is not even ordered
        }
        let answered = self.tallies.vote(member, call, answer);
        effects.push(Effect::Voted { member, call: call.clone() });
        if answered {
            let CallId { position, path, call } = call.clone();
            let (timestamp, answer) = (decision.timestamp, answer.clone());
            effects.push(Effect::Work(Work::Answer { position, path, call, timestamp, answer }));
        }
    }

    fn system(&mut self, decision: &Decision, entry: SystemEntry, effects: &mut Vec<Effect>) {
        match entry {
            SystemEntry::Flush => effects.push(Effect::Work(Work::Flush)),
            SystemEntry::Tick(time) => {
                let time = time.min(decision.timestamp);
                if time > self.tick {
                    self.tick = time;
                    effects.push(Effect::Work(Work::Tick(time)));
                }
            }
            SystemEntry::Mark => {
                if self.mark_is_due(decision.sequence, decision.timestamp) {
                    let Decision { sequence, timestamp, hash: header, .. } = *decision;
                    self.mark = LastMark { sequence, timestamp, followed: false };
                    let sessions = self.ordered_digest();
                    effects.push(Effect::Mark(OrderedMark { sequence, header, sessions }));
                    effects.push(Effect::Work(Work::Mark(sequence)));
                }
            }
            SystemEntry::Expire => {
                let expired = self.table.expire(decision.timestamp);
                effects.extend(
                    expired
                        .into_iter()
                        .map(|(session, closed)| Effect::Closed { session, connection: closed.connection }),
                );
            }
        }
    }

    /// Whether a Mark in this decision takes effect.
    fn mark_is_due(&self, sequence: SequenceNumber, timestamp: Timestamp) -> bool {
        let decisions = sequence.0 - self.mark.sequence.0;
        let microseconds = timestamp.0.saturating_sub(self.mark.timestamp.0);
        self.mark.followed && (decisions >= self.rule.decisions || microseconds >= self.rule.microseconds)
    }

    /// Whether a Mark in the next decision would take effect by number, and at what agreed time it would by time.
    pub(crate) fn mark_due(&self) -> Option<(bool, Timestamp)> {
        let decisions = self.height.next().0 - self.mark.sequence.0;
        let by_time = self.mark.timestamp.after(self.rule.microseconds);
        self.mark.followed.then_some((decisions >= self.rule.decisions, by_time))
    }

    fn ordered_digest(&mut self) -> Digest {
        let table = self.table.ordered_digest();
        let (admin, tallies) = (self.admin.digest(), self.tallies.digest());
        Digest::of("unisono order 2", &[&table.0, &self.tick.0.to_le_bytes(), &admin.0, &tallies])
    }

    /// Whether the session is proven not to be open: its opening place lies behind us, and it is not in the table.
    pub(crate) fn proves_absence(&self, session: SessionId, key: &PublicKey) -> bool {
        Position(session.0).sequence() <= self.height && self.table.of(session, key).is_none()
    }
}
