//! One client session: which numbers are known, and the replies that its client has not acknowledged.
//!
//! ```text
//!   acknowledged   |  lowest                          lowest + window |
//!   gone, never    |  Finished Running New Finished New ...           |  beyond: dropped
//!   runs again     |<------------- slots ------------->               |
//! ```
//! Two kinds of state live here. What ordered entries decide (key, activity, lowest, which numbers are known) is equal
//! on every replica at the same place of the order. What has finished, and what is stored of it, depends on how far
//! execution has come, and never decides anything about the order.
//!
//! Invariant: a number leaves `New` once and never returns, so its request runs at most once.
//!
//! Invariant: whole outcomes stored here take at most `limits.reply_bytes`; beyond it only digests are kept.

use crate::ConnectionId;
use alloc::{boxed::Box, collections::VecDeque, vec};
use unisono_types::{Digest, Outcome, PublicKey, ReplyBody, RequestNumber, SessionId, Timestamp, encode};

/// What is known of one number.
#[derive(Clone, Debug)]
enum Slot {
    New,
    Running,
    Finished(Box<Stored>),
}

/// A reply that waits to be acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// The outcome, unless it found no room.
    pub(crate) outcome: Option<Outcome>,
    /// Its digest.
    pub(crate) digest: Digest,
}

/// Where a number stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place<'a> {
    /// The client has its answer.
    Acknowledged,
    /// Ordered, not finished.
    Running,
    /// Finished, not acknowledged.
    Finished(&'a Stored),
    /// Never ordered, and it may be.
    New,
    /// Too far ahead.
    Beyond,
}

/// An open session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Who may speak for it.
    pub(crate) key: PublicKey,
    /// Agreed time of its last ordered frame.
    pub(crate) active: Timestamp,
    /// Where its client was last heard. Local.
    pub(crate) connection: Option<ConnectionId>,
    /// Its leaf in the table's digest, as of the last Mark that found it changed.
    pub(crate) leaf: Option<Digest>,
    /// Whether the table has it in the list of those changed since the last Mark.
    pub(crate) listed: bool,
    lowest: RequestNumber,
    slots: VecDeque<Slot>,
    stored_bytes: u64,
}

impl Session {
    pub(crate) fn new(key: PublicKey, active: Timestamp) -> Self {
        Self {
            key,
            active,
            connection: None,
            leaf: None,
            listed: false,
            lowest: RequestNumber(1),
            slots: VecDeque::new(),
            stored_bytes: 0,
        }
    }

    /// The lowest number that is not acknowledged.
    pub(crate) fn lowest(&self) -> RequestNumber {
        self.lowest
    }

    /// Bytes of whole outcomes stored.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Bytes that would stay stored once everything below `lowest` is acknowledged.
    pub(crate) fn stored_bytes_from(&self, lowest: RequestNumber) -> u64 {
        let acknowledged = usize::try_from(lowest.0.saturating_sub(self.lowest.0)).unwrap_or(usize::MAX);
        let freed: u64 = self.slots.iter().take(acknowledged).map(Slot::bytes).sum();
        self.stored_bytes - freed
    }

    /// Where `number` stands, seen with everything below `lowest` acknowledged too.
    pub(crate) fn place(&self, number: RequestNumber, lowest: RequestNumber, window: u32) -> Place<'_> {
        let lowest = lowest.max(self.lowest);
        let Some(ahead) = number.0.checked_sub(lowest.0) else { return Place::Acknowledged };
        if ahead >= u64::from(window) {
            return Place::Beyond;
        }
        match self.index(number).and_then(|index| self.slots.get(index)) {
            None | Some(Slot::New) => Place::New,
            Some(Slot::Running) => Place::Running,
            Some(Slot::Finished(stored)) => Place::Finished(stored),
        }
    }

    fn index(&self, number: RequestNumber) -> Option<usize> {
        usize::try_from(number.0.checked_sub(self.lowest.0)?).ok()
    }

    /// Ordered: everything below `lowest` is acknowledged. Returns the bytes freed. Time: one step per number known
    /// among them, so each number pays once.
    pub(crate) fn acknowledge(&mut self, lowest: RequestNumber) -> u64 {
        let before = self.stored_bytes;
        while self.lowest < lowest {
            match self.slots.pop_front() {
                Some(slot) => {
                    self.stored_bytes -= slot.bytes();
                    self.lowest = self.lowest.next();
                }
                None => self.lowest = lowest,
            }
        }
        before - self.stored_bytes
    }

    /// Ordered: `number` begins, if it is new and within the window. Returns whether it does.
    pub(crate) fn begin(&mut self, number: RequestNumber, window: u32) -> bool {
        if self.place(number, self.lowest, window) != Place::New {
            return false;
        }
        let index = self.index(number).expect("a number within the window is not below the lowest");
        while self.slots.len() <= index {
            self.slots.push_back(Slot::New);
        }
        self.slots[index] = Slot::Running;
        true
    }

    /// Execution: `number` came to `outcome`. Stored unless acknowledged meanwhile; whole if at most `room` bytes are
    /// then stored. Returns the bytes stored now for it, `None` if its client does not want it any more.
    pub(crate) fn finish(
        &mut self,
        number: RequestNumber,
        outcome: &Outcome,
        digest: Digest,
        room: u64,
    ) -> Option<u64> {
        let index = self.index(number)?;
        let slot = self.slots.get_mut(index)?;
        if !matches!(slot, Slot::Running) {
            return None;
        }
        let fits = outcome_bytes(outcome) <= room.saturating_sub(self.stored_bytes);
        *slot = Slot::Finished(Box::new(Stored { outcome: fits.then(|| outcome.clone()), digest }));
        let bytes = slot.bytes();
        self.stored_bytes += bytes;
        Some(bytes)
    }

    /// Digest of what ordered entries decided about this session. One bit per number within the window.
    pub(crate) fn ordered_digest(&self, id: SessionId) -> Digest {
        let mut known = vec![0u8; self.slots.len().div_ceil(8)];
        for (index, slot) in self.slots.iter().enumerate() {
            if !matches!(slot, Slot::New) {
                known[index / 8] |= 1 << (index % 8);
            }
        }
        Digest::of("unisono session 1", &[&encode(&(id, self.key, self.active, self.lowest)), &known])
    }
}

impl Slot {
    fn bytes(&self) -> u64 {
        match self {
            Self::Finished(stored) => stored.outcome.as_ref().map_or(0, outcome_bytes),
            Self::New | Self::Running => 0,
        }
    }
}

/// What an outcome counts: its bytes and a little for what holds it.
pub(crate) fn outcome_bytes(outcome: &Outcome) -> u64 {
    const HOLDER_BYTES: u64 = 64;
    HOLDER_BYTES + outcome.as_ref().map_or(0, |bytes| bytes.len() as u64)
}

impl Stored {
    /// The body that answers with all that is known.
    pub(crate) fn body(&self) -> ReplyBody {
        match &self.outcome {
            Some(outcome) => ReplyBody::Full(outcome.clone()),
            None => ReplyBody::Digest(self.digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use unisono_types::Bytes;

    const WINDOW: u32 = 8;
    const ROOM: u64 = 1_000;

    fn session() -> Session {
        Session::new(PublicKey([1; 32]), Timestamp(0))
    }

    fn finish(session: &mut Session, number: u64, bytes: usize) -> Option<u64> {
        let outcome = Ok(Bytes::from(vec![7; bytes]));
        session.finish(RequestNumber(number), &outcome, ReplyBody::digest_of(&outcome), ROOM)
    }

    fn place(session: &Session, number: u64) -> Place<'_> {
        session.place(RequestNumber(number), session.lowest(), WINDOW)
    }

    #[test]
    fn a_number_runs_once_and_is_answered_until_acknowledged() {
        let mut session = session();
        assert_eq!(place(&session, 2), Place::New);
        assert!(session.begin(RequestNumber(2), WINDOW));
        assert!(!session.begin(RequestNumber(2), WINDOW), "running");
        assert_eq!(place(&session, 2), Place::Running);
        assert!(finish(&mut session, 2, 10).is_some());
        assert!(!session.begin(RequestNumber(2), WINDOW), "finished");
        assert!(matches!(place(&session, 2), Place::Finished(stored) if stored.outcome.is_some()));
        session.acknowledge(RequestNumber(3));
        assert!(!session.begin(RequestNumber(2), WINDOW), "acknowledged");
        assert_eq!((place(&session, 2), session.stored_bytes()), (Place::Acknowledged, 0));
    }

    #[test]
    fn the_window_holds_at_both_ends_and_for_huge_numbers() {
        let mut session = session();
        assert!(!session.begin(RequestNumber(0), WINDOW), "numbers start at 1");
        assert!(session.begin(RequestNumber(8), WINDOW));
        assert!(!session.begin(RequestNumber(9), WINDOW));
        assert!(!session.begin(RequestNumber(u64::MAX), WINDOW));
        session.acknowledge(RequestNumber(u64::MAX));
        assert!(session.begin(RequestNumber(u64::MAX), WINDOW));
        assert!(finish(&mut session, u64::MAX, 1).is_some());
        assert_eq!(session.slots.len(), 1, "a jump costs no memory");
    }

    #[test]
    fn what_finds_no_room_keeps_its_digest_only() {
        let mut session = session();
        for number in 1..=3 {
            assert!(session.begin(RequestNumber(number), WINDOW));
        }
        assert!(finish(&mut session, 1, 500).unwrap() > 500);
        assert_eq!(finish(&mut session, 2, 500), Some(0));
        assert!(matches!(place(&session, 2), Place::Finished(Stored { outcome: None, .. })));
        assert!(finish(&mut session, 3, 100).unwrap() > 100, "a small one still fits");
        assert_eq!(session.stored_bytes_from(RequestNumber(2)), 164);
        assert_eq!(session.acknowledge(RequestNumber(2)), 564);
        assert_eq!(session.stored_bytes(), 164);
    }

    #[test]
    fn a_finish_that_nobody_waits_for_stores_nothing() {
        let mut session = session();
        session.begin(RequestNumber(1), WINDOW);
        session.acknowledge(RequestNumber(2));
        assert_eq!(finish(&mut session, 1, 10), None, "acknowledged before it finished");
        assert_eq!(finish(&mut session, 7, 10), None, "never begun");
    }

    #[test]
    fn the_ordered_digest_sees_what_was_ordered_and_nothing_else() {
        let id = SessionId(7);
        let (mut early, mut late) = (session(), session());
        for session in [&mut early, &mut late] {
            session.begin(RequestNumber(1), WINDOW);
            session.begin(RequestNumber(3), WINDOW);
        }
        finish(&mut early, 3, 10);
        early.connection = Some(ConnectionId(4));
        assert_eq!(early.ordered_digest(id), late.ordered_digest(id));
        late.begin(RequestNumber(2), WINDOW);
        assert_ne!(early.ordered_digest(id), late.ordered_digest(id));
        assert_ne!(early.ordered_digest(id), early.ordered_digest(SessionId(8)));
    }

    proptest! {
        /// Against the plainest model: a set of numbers begun and a lowest number.
        #[test]
        fn agrees_with_a_set_of_numbers(steps in proptest::collection::vec((0..3u8, 0..30u64, 0..300usize), 1..200)) {
            let mut session = session();
            let (mut begun, mut finished, mut lowest) = (BTreeSet::new(), BTreeSet::new(), 1u64);
            for (kind, number, bytes) in steps {
                match kind {
                    0 => {
                        let new = number >= lowest && number < lowest + u64::from(WINDOW) && begun.insert(number);
                        prop_assert_eq!(session.begin(RequestNumber(number), WINDOW), new);
                    }
                    1 => {
                        let wanted = number >= lowest && begun.contains(&number) && finished.insert(number);
                        prop_assert_eq!(finish(&mut session, number, bytes).is_some(), wanted);
                    }
                    _ => {
                        session.acknowledge(RequestNumber(number));
                        lowest = lowest.max(number);
                    }
                }
                let stored: u64 = session.slots.iter().map(Slot::bytes).sum();
                prop_assert_eq!(session.stored_bytes(), stored);
                prop_assert!(stored <= ROOM);
                prop_assert!(session.slots.len() <= WINDOW as usize);
            }
        }
    }
}
