//! All open sessions, and the nonces that opened them.
//!
//! ```text
//!   sessions          id -> Session                     at most limits.sessions
//!   nonces            (key, nonce) -> id                the newest NONCES_MAX; `floor` = place of the newest forgotten
//!   digest at a Mark  H( sum over sessions of ordered leaf, sum over nonces, floor | sum over all finishes so far )
//!                        `---------- as of the Mark's place in the order ---------´  `-- as of the Mark's round --´
//! ```
//! The first half is taken when the Mark is walked, the second when execution reports it: finishes of rounds up to the
//! Mark's come before that report, all others behind it. So both halves are equal on all replicas however commits and
//! finishes interleave. Cost: one leaf per session changed since the Mark before, one addition per finish.
//!
//! Why a known nonce needs no expiry date: a frame that opens a session must name a decision older than its own place
//! (`recent < sequence`). When the entry at `sequence` is forgotten, `floor` becomes `sequence`, and the frame's
//! `recent` lies below it: [`Refusal::TooOld`], for ever.

use crate::accumulator::Accumulator;
use crate::session::{Place, Session};
use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use unisono_types::{
    Digest, Limits, Membership, Outcome, Position, PublicKey, Refusal, ReplyBody, RequestNumber, SequenceNumber,
    SessionId, Timestamp, encode,
};

/// Nonces remembered: enough that a client is told `TooOld` only if this many sessions were opened while its request
/// was on its way; about 8 MiB.
pub(crate) const NONCES_MAX: usize = 1 << 16;

/// Bytes of whole outcomes stored over all sessions. `limits.reply_bytes` bounds one session; a client with many must
/// not take all memory. Beyond it only digests are kept, as beyond the session's own bound.
pub(crate) const STORED_BYTES_MAX: u64 = 1 << 30;

/// The table of sessions.
#[derive(Clone, Debug)]
pub(crate) struct SessionTable {
    membership: Membership,
    sessions: BTreeMap<SessionId, Session>,
    nonces: BTreeMap<(PublicKey, u64), SessionId>,
    nonce_order: VecDeque<(PublicKey, u64, SequenceNumber)>,
    nonces_max: usize,
    floor: SequenceNumber,
    /// Sessions changed since the last Mark.
    changed: Vec<SessionId>,
    leaves: Accumulator,
    nonce_leaves: Accumulator,
    finishes: Accumulator,
    stored_bytes: u64,
}

impl SessionTable {
    pub(crate) fn new(membership: Membership) -> Self {
        Self::with_nonces(membership, NONCES_MAX)
    }

    fn with_nonces(membership: Membership, nonces_max: usize) -> Self {
        Self {
            membership,
            sessions: BTreeMap::new(),
            nonces: BTreeMap::new(),
            nonce_order: VecDeque::new(),
            nonces_max,
            floor: SequenceNumber::ZERO,
            changed: Vec::new(),
            leaves: Accumulator::default(),
            nonce_leaves: Accumulator::default(),
            finishes: Accumulator::default(),
            stored_bytes: 0,
        }
    }

    fn limits(&self) -> &Limits {
        &self.membership.configuration().limits
    }

    /// Sessions open.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes of whole outcomes stored.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The session, if it is open and this key's.
    pub(crate) fn of(&self, id: SessionId, key: &PublicKey) -> Option<&Session> {
        self.sessions.get(&id).filter(|session| session.key == *key)
    }

    /// Likewise, to change where its client is heard.
    pub(crate) fn of_mut(&mut self, id: SessionId, key: &PublicKey) -> Option<&mut Session> {
        self.sessions.get_mut(&id).filter(|session| session.key == *key)
    }

    /// Where `number` stands once everything below `lowest` is acknowledged.
    pub(crate) fn place<'a>(&self, session: &'a Session, number: RequestNumber, lowest: RequestNumber) -> Place<'a> {
        session.place(number, lowest, self.limits().window)
    }

    /// What an Open would come to at the decision `sequence`: the session it opened before, or whether it may open one.
    pub(crate) fn opening(
        &self,
        key: &PublicKey,
        nonce: u64,
        recent: SequenceNumber,
        sequence: SequenceNumber,
    ) -> Result<Option<SessionId>, Refusal> {
        if let Some(id) = self.nonces.get(&(*key, nonce)) {
            return Ok(Some(*id));
        }
        if !self.membership.is_client(key) {
            return Err(Refusal::UnknownKey);
        }
        if recent < self.floor || recent >= sequence {
            return Err(Refusal::TooOld);
        }
        if self.sessions.len() >= self.limits().sessions as usize {
            return Err(Refusal::TooManySessions);
        }
        Ok(None)
    }

    /// Ordered: Open at `position`.
    pub(crate) fn open(
        &mut self,
        key: PublicKey,
        nonce: u64,
        recent: SequenceNumber,
        position: Position,
        timestamp: Timestamp,
    ) -> Result<SessionId, Refusal> {
        if let Some(known) = self.opening(&key, nonce, recent, position.sequence())? {
            return Ok(known);
        }
        let id = SessionId(position.0);
        self.sessions.insert(id, Session::new(key, timestamp));
        self.touch(id);
        if self.nonce_order.len() >= self.nonces_max {
            self.forget_oldest_nonce();
        }
        self.nonces.insert((key, nonce), id);
        self.nonce_order.push_back((key, nonce, position.sequence()));
        self.nonce_leaves.add(&nonce_leaf(&key, nonce, id));
        Ok(id)
    }

    fn forget_oldest_nonce(&mut self) {
        let Some((key, nonce, sequence)) = self.nonce_order.pop_front() else { return };
        self.floor = sequence;
        if let Some(id) = self.nonces.remove(&(key, nonce)) {
            self.nonce_leaves.subtract(&nonce_leaf(&key, nonce, id));
        }
    }

    /// Ordered: Close. Returns the session as it was.
    pub(crate) fn close(&mut self, id: SessionId, key: &PublicKey) -> Option<Session> {
        self.of(id, key)?;
        self.remove(id)
    }

    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.stored_bytes -= session.stored_bytes();
        if let Some(leaf) = &session.leaf {
            self.leaves.subtract(leaf);
        }
        Some(session)
    }

    /// Ordered: Expire at agreed time `timestamp`. Returns those closed, by number.
    pub(crate) fn expire(&mut self, timestamp: Timestamp) -> Vec<(SessionId, Session)> {
        let idle = self.limits().session_idle;
        let expired: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.active.after(idle) < timestamp)
            .map(|(id, _)| *id)
            .collect();
        expired.into_iter().filter_map(|id| Some((id, self.remove(id)?))).collect()
    }

    /// Whether an Expire at this time would close anything. Time: one step per session, so asked rarely.
    pub(crate) fn has_idle(&self, timestamp: Timestamp) -> bool {
        let idle = self.limits().session_idle;
        self.sessions.values().any(|session| session.active.after(idle) < timestamp)
    }

    /// Ordered: a frame of this session, acknowledging everything below `lowest`. Whether the session is open and the
    /// key's; `false` means that the frame does nothing.
    pub(crate) fn hear(&mut self, id: SessionId, key: &PublicKey, lowest: RequestNumber, timestamp: Timestamp) -> bool {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.key == *key) else { return false };
        session.active = timestamp;
        self.stored_bytes -= session.acknowledge(lowest);
        self.touch(id);
        true
    }

    /// Ordered: a request of a session that was just heard. Whether it begins.
    pub(crate) fn begin(&mut self, id: SessionId, number: RequestNumber) -> bool {
        let window = self.limits().window;
        self.sessions.get_mut(&id).is_some_and(|session| session.begin(number, window))
    }

    /// Execution: a request finished. Returns its session if the client still waits for the answer.
    pub(crate) fn finish(
        &mut self,
        id: SessionId,
        number: RequestNumber,
        outcome: &Outcome,
        digest: Digest,
    ) -> Option<&Session> {
        self.finishes.add(&Digest::of("unisono finish 1", &[&id.0.to_le_bytes(), &number.0.to_le_bytes(), &digest.0]));
        let room = u64::from(self.limits().reply_bytes);
        let left = STORED_BYTES_MAX.saturating_sub(self.stored_bytes);
        let session = self.sessions.get_mut(&id)?;
        let room = room.min(session.stored_bytes().saturating_add(left));
        self.stored_bytes += session.finish(number, outcome, digest, room)?;
        Some(session)
    }

    fn touch(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !session.listed
        {
            session.listed = true;
            self.changed.push(id);
        }
    }

    /// The ordered half of the digest, at this place of the order.
    pub(crate) fn ordered_digest(&mut self) -> Digest {
        for id in core::mem::take(&mut self.changed) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let leaf = session.ordered_digest(id);
            session.listed = false;
            if let Some(old) = session.leaf.replace(leaf) {
                self.leaves.subtract(&old);
            }
            self.leaves.add(&leaf);
        }
        Digest::of(
            "unisono sessions ordered 1",
            &[&self.leaves.bytes(), &self.nonce_leaves.bytes(), &self.floor.0.to_le_bytes()],
        )
    }

    /// The whole digest: an ordered half and the finishes so far.
    pub(crate) fn digest(&self, ordered: &Digest) -> Digest {
        Digest::of("unisono sessions 1", &[&ordered.0, &self.finishes.bytes()])
    }
}

fn nonce_leaf(key: &PublicKey, nonce: u64, id: SessionId) -> Digest {
    Digest::of("unisono nonce 1", &[&encode(&(*key, nonce, id))])
}

/// The digest that everything here calls an outcome's.
pub(crate) fn outcome_digest(outcome: &Outcome) -> Digest {
    ReplyBody::digest_of(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{client_signer, membership, membership_with};
    use unisono_types::Bytes;

    const T0: Timestamp = Timestamp(1_000);

    fn key() -> PublicKey {
        client_signer(0).public_key()
    }

    fn position(sequence: u64, index: u32) -> Position {
        Position::new(SequenceNumber(sequence), index).unwrap()
    }

    #[test]
    fn one_nonce_opens_one_session_and_many_nonces_many() {
        let mut table = SessionTable::new(membership(3));
        let first = table.open(key(), 5, SequenceNumber(0), position(1, 0), T0).unwrap();
        assert_eq!(first, SessionId(position(1, 0).0));
        assert_eq!(table.open(key(), 5, SequenceNumber(0), position(2, 0), T0), Ok(first), "a replay");
        let second = table.open(key(), 6, SequenceNumber(0), position(2, 1), T0).unwrap();
        assert_ne!(first, second);
        assert!(table.close(first, &key()).is_some());
        assert_eq!(table.open(key(), 5, SequenceNumber(0), position(3, 0), T0), Ok(first), "opens nothing again");
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn strangers_full_tables_and_the_future_are_refused() {
        let mut table = SessionTable::new(membership_with(3, |limits| limits.sessions = 1));
        let stranger = client_signer(99).public_key();
        assert_eq!(table.open(stranger, 1, SequenceNumber(0), position(1, 0), T0), Err(Refusal::UnknownKey));
        assert_eq!(table.open(key(), 1, SequenceNumber(1), position(1, 0), T0), Err(Refusal::TooOld), "own place");
        assert!(table.open(key(), 1, SequenceNumber(0), position(1, 0), T0).is_ok());
        assert_eq!(table.open(key(), 2, SequenceNumber(0), position(1, 1), T0), Err(Refusal::TooManySessions));
    }

    #[test]
    fn a_forgotten_nonce_is_too_old_for_ever() {
        let mut table = SessionTable::with_nonces(membership(3), 2);
        for (nonce, sequence) in [(1, 10), (2, 20), (3, 30)] {
            let opened = table.open(key(), nonce, SequenceNumber(sequence - 1), position(sequence, 0), T0);
            table.close(opened.unwrap(), &key());
        }
        let replay = table.open(key(), 1, SequenceNumber(9), position(40, 0), T0);
        assert_eq!(replay, Err(Refusal::TooOld));
        assert!(table.open(key(), 2, SequenceNumber(19), position(41, 0), T0).is_ok(), "remembered: the same session");
        assert_eq!((table.len(), table.nonces.len()), (0, 2), "and nothing was opened");
    }

    #[test]
    fn only_the_owner_closes_and_only_the_idle_expire() {
        let mut table = SessionTable::new(membership_with(3, |limits| limits.session_idle = 100));
        let [quiet, busy] =
            [1, 2].map(|nonce| table.open(key(), nonce, SequenceNumber(0), position(1, nonce as u32), T0).unwrap());
        assert!(table.close(quiet, &client_signer(1).public_key()).is_none());
        assert!(table.hear(busy, &key(), RequestNumber(1), Timestamp(1_050)));
        assert!(!table.has_idle(Timestamp(1_100)));
        assert!(table.has_idle(Timestamp(1_101)));
        let expired: Vec<SessionId> = table.expire(Timestamp(1_101)).into_iter().map(|(id, _)| id).collect();
        assert_eq!((expired, table.len()), (vec![quiet], 1));
    }

    #[test]
    fn the_digest_at_a_mark_is_the_same_however_commits_and_finishes_interleave() {
        let ok: Outcome = Ok(Bytes::from_static(b"1"));
        let digest = outcome_digest(&ok);
        let id = SessionId(position(1, 0).0);
        let start = || {
            let mut table = SessionTable::new(membership(3));
            table.open(key(), 1, SequenceNumber(0), position(1, 0), T0).unwrap();
            table.hear(id, &key(), RequestNumber(1), T0);
            (1..=2).for_each(|number| assert!(table.begin(id, RequestNumber(number))));
            table
        };
        // Execution keeps up: both requests finish before the Mark is walked, the next one after it was reported.
        let mut prompt = start();
        prompt.finish(id, RequestNumber(1), &ok, digest);
        prompt.finish(id, RequestNumber(2), &ok, digest);
        let ordered = prompt.ordered_digest();
        let at_mark = prompt.digest(&ordered);
        // Execution lags: the order is far ahead when they finish, the session even closed.
        let mut late = start();
        let ordered = late.ordered_digest();
        late.hear(id, &key(), RequestNumber(3), T0);
        late.begin(id, RequestNumber(3));
        late.close(id, &key());
        late.finish(id, RequestNumber(2), &ok, digest);
        late.finish(id, RequestNumber(1), &ok, digest);
        assert_eq!(late.digest(&ordered), at_mark);
        late.finish(id, RequestNumber(3), &ok, digest);
        assert_ne!(late.digest(&ordered), at_mark, "a finish of a later round shows");
        assert_eq!(late.stored_bytes(), 0);
    }

    #[test]
    fn a_table_that_returned_to_nothing_digests_like_an_empty_one_but_for_its_nonces() {
        let mut table = SessionTable::new(membership(3));
        let empty = table.ordered_digest();
        let id = table.open(key(), 1, SequenceNumber(0), position(1, 0), T0).unwrap();
        let opened = table.ordered_digest();
        table.hear(id, &key(), RequestNumber(4), T0);
        assert_ne!(table.ordered_digest(), opened);
        table.close(id, &key());
        let closed = table.ordered_digest();
        assert!(empty != opened && opened != closed && closed != empty);
        assert_eq!(table.leaves, Accumulator::default());
    }
}
