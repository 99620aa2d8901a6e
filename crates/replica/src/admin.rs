//! Which entries of the administrator took effect: at most once each, whoever repeats their frames.
//!
//! Like the nonces of sessions (see `table`): the newest [`NONCES_MAX`] are remembered, `floor` is the place of the
//! newest forgotten one, and a frame must name a decision at or above `floor` and below its own place. One that is
//! forgotten cannot.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use unisono_types::{Digest, SequenceNumber, encode};

/// An administrator waits for what was ordered before the next one: this is far more than can be on the way at once.
const NONCES_MAX: usize = 1 << 10;

#[derive(Clone, Debug, Default)]
pub(crate) struct AdminEntries {
    /// Nonce and the decision it took effect in.
    taken: BTreeMap<u64, SequenceNumber>,
    order: VecDeque<u64>,
    floor: SequenceNumber,
}

impl AdminEntries {
    /// Whether this nonce is neither taken nor forgotten.
    pub(crate) fn may_take(&self, nonce: u64, recent: SequenceNumber) -> bool {
        !self.taken.contains_key(&nonce) && recent >= self.floor
    }

    /// Ordered at the decision `sequence`. Whether it takes effect.
    pub(crate) fn take(&mut self, nonce: u64, recent: SequenceNumber, sequence: SequenceNumber) -> bool {
        if !self.may_take(nonce, recent) || recent >= sequence {
            return false;
        }
        if self.order.len() >= NONCES_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(sequence) = self.taken.remove(&oldest)
        {
            self.floor = sequence;
        }
        self.taken.insert(nonce, sequence);
        self.order.push_back(nonce);
        true
    }

    /// The decision that the entry with this nonce took effect in, among those remembered.
    pub(crate) fn place(&self, nonce: u64) -> Option<SequenceNumber> {
        self.taken.get(&nonce).copied()
    }

    pub(crate) fn digest(&self) -> Digest {
        let taken: Vec<(u64, SequenceNumber)> =
            self.order.iter().filter_map(|nonce| Some((*nonce, self.place(*nonce)?))).collect();
        Digest::of("unisono admin entries 1", &[&encode(&(self.floor, taken))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_effect_once_and_a_forgotten_one_never_again() {
        let mut entries = AdminEntries::default();
        let at = SequenceNumber;
        assert!(entries.take(7, at(0), at(1)));
        assert!(!entries.take(7, at(0), at(2)), "the same frame again");
        assert!(!entries.take(8, at(3), at(3)), "it has heard of its own place");
        assert_eq!((entries.place(7), entries.place(8)), (Some(at(1)), None));
        let before = entries.digest();
        for nonce in 0..NONCES_MAX as u64 {
            assert!(entries.take(1_000 + nonce, at(nonce + 1), at(nonce + 2)));
        }
        assert_eq!((entries.taken.len(), entries.place(7)), (NONCES_MAX, None), "forgotten");
        assert!(!entries.take(7, at(0), at(5_000)), "and too old for ever");
        assert_ne!(entries.digest(), before);
    }
}
