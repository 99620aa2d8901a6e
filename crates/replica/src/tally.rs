//! What members say about outside calls, counted in the order. The ordered half; what this replica asks is in `calls`.
//!
//! ```text
//!   Called{call, answer} of a member ──> its vote ──(f+1 equal)──> the answer, once; then votes for the call are void
//! ```
//! The order cannot know whether a call was performed: that depends on how far execution has come. So votes for calls
//! that never were (a liar's) or that ended otherwise (by their time-out) are forgotten by number. Not by age: a member
//! votes once, and a call without a time-out waits for as long as it takes.
//!
//! Invariant: f+1 equal votes hold a correct member's, so an answer is what the outside said to a correct replica.
//!
//! Invariant: of one member at most [`VOTES_MAX`] votes are kept, whatever is ordered; its oldest goes first, so one
//! member never takes another's place. A vote is a name and a digest.
//!
//! What is forgotten and said again can bring about an answer again: it has no effect, as the call is over.

use crate::accumulator::Accumulator;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use unisono_types::{CallAnswer, CallId, Digest, ReplicaId, encode};

/// Votes of one member for calls without an answer: more than it asks at once (see `calls`), so that a correct one
/// loses none but of calls that have ended otherwise.
const VOTES_MAX: usize = 1 << 12;

/// Answered calls remembered, so that the votes of slower members open nothing: about 8 MiB.
const ANSWERED_MAX: usize = 1 << 16;

/// The votes for calls that have no answer.
#[derive(Clone, Debug)]
pub(crate) struct Tallies {
    enough: usize,
    votes: BTreeMap<CallId, BTreeMap<ReplicaId, Vote>>,
    /// Invariant: the same votes, of each member in the order in which they came.
    order: BTreeMap<ReplicaId, BTreeMap<u64, CallId>>,
    next: u64,
    answered: BTreeSet<CallId>,
    answered_order: VecDeque<CallId>,
    /// Of all votes, and of all calls answered.
    sum: Accumulator,
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    answer: Digest,
    /// Its place in `order`.
    number: u64,
    leaf: Digest,
}

impl Tallies {
    /// `enough`: f+1.
    pub(crate) fn new(enough: usize) -> Self {
        Self {
            enough,
            votes: BTreeMap::new(),
            order: BTreeMap::new(),
            next: 0,
            answered: BTreeSet::new(),
            answered_order: VecDeque::new(),
            sum: Accumulator::default(),
        }
    }

    /// Ordered: `member` was told `answer`. Whether that is the call's answer now. A member's first word counts.
    pub(crate) fn vote(&mut self, member: ReplicaId, call: &CallId, answer: &CallAnswer) -> bool {
        if self.answered.contains(call) || self.has_vote(member, call) {
            return false;
        }
        self.make_room(member);
        let answer = Digest::of("unisono call answer 1", &[&encode(answer)]);
        let number = self.next;
        self.next += 1;
        let leaf = Digest::of("unisono vote 2", &[&encode(&(member, call, answer))]);
        let tally = self.votes.entry(call.clone()).or_default();
        tally.insert(member, Vote { answer, number, leaf });
        let equal = tally.values().filter(|vote| vote.answer == answer).count();
        self.order.entry(member).or_default().insert(number, call.clone());
        self.sum.add(&leaf);
        if equal < self.enough {
            return false;
        }
        self.answer(call);
        true
    }

    /// Whether the order holds all that this member has to say: its vote, or the answer.
    pub(crate) fn is_settled(&self, member: ReplicaId, call: &CallId) -> bool {
        self.answered.contains(call) || self.has_vote(member, call)
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.sum.bytes()
    }

    fn has_vote(&self, member: ReplicaId, call: &CallId) -> bool {
        self.votes.get(call).is_some_and(|tally| tally.contains_key(&member))
    }

    fn answer(&mut self, call: &CallId) {
        for (member, vote) in self.votes.remove(call).into_iter().flatten() {
            self.sum.subtract(&vote.leaf);
            if let Some(order) = self.order.get_mut(&member) {
                order.remove(&vote.number);
            }
        }
        if self.answered_order.len() >= ANSWERED_MAX
            && let Some(oldest) = self.answered_order.pop_front()
        {
            self.answered.remove(&oldest);
            self.sum.subtract(&answered_leaf(&oldest));
        }
        self.answered.insert(call.clone());
        self.answered_order.push_back(call.clone());
        self.sum.add(&answered_leaf(call));
    }

    fn make_room(&mut self, member: ReplicaId) {
        let Some(order) = self.order.get_mut(&member).filter(|order| order.len() >= VOTES_MAX) else { return };
        let Some((_, call)) = order.pop_first() else { return };
        let Some(tally) = self.votes.get_mut(&call) else { return };
        if let Some(vote) = tally.remove(&member) {
            self.sum.subtract(&vote.leaf);
        }
        if tally.is_empty() {
            self.votes.remove(&call);
        }
    }
}

fn answered_leaf(call: &CallId) -> Digest {
    Digest::of("unisono answered 1", &[&encode(call)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unisono_types::{Bytes, Position};

    fn call(number: u32) -> CallId {
        CallId { position: Position(1), path: vec![], call: number }
    }

    fn says(text: &'static str) -> CallAnswer {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    fn vote(tallies: &mut Tallies, member: u16, number: u32, text: &'static str) -> bool {
        tallies.vote(ReplicaId(member), &call(number), &says(text))
    }

    #[test]
    fn the_second_equal_vote_of_another_member_is_the_answer_and_there_is_one() {
        let mut tallies = Tallies::new(2);
        assert!(!vote(&mut tallies, 0, 1, "noon"));
        assert!(!vote(&mut tallies, 0, 1, "noon"), "said twice is said once");
        assert!(!vote(&mut tallies, 1, 1, "one"), "something else");
        assert!(!vote(&mut tallies, 1, 1, "noon"), "its first word counts");
        assert!(vote(&mut tallies, 2, 1, "noon"));
        assert!(!vote(&mut tallies, 1, 1, "noon") && !vote(&mut tallies, 2, 1, "noon"), "over");
        assert!(tallies.votes.is_empty() && tallies.order.values().all(BTreeMap::is_empty));
        assert!(tallies.is_settled(ReplicaId(7), &call(1)) && !tallies.is_settled(ReplicaId(0), &call(2)));
    }

    #[test]
    fn a_member_that_invents_calls_takes_only_its_own_place() {
        let mut tallies = Tallies::new(2);
        assert!(!vote(&mut tallies, 0, 0, "yes"));
        for number in 1..=3 * VOTES_MAX as u32 {
            assert!(!vote(&mut tallies, 2, number, "lie"));
        }
        assert_eq!(tallies.order[&ReplicaId(2)].len(), VOTES_MAX);
        assert_eq!(tallies.votes.len(), VOTES_MAX + 1);
        assert!(vote(&mut tallies, 1, 0, "yes"), "the others are counted as before");
    }

    #[test]
    fn answered_calls_are_forgotten_by_number() {
        let mut tallies = Tallies::new(2);
        assert!(!vote(&mut tallies, 0, 1, "yes") && vote(&mut tallies, 1, 1, "yes"));
        for number in 2..=1 + ANSWERED_MAX as u32 {
            assert!(!vote(&mut tallies, 0, number, "yes") && vote(&mut tallies, 1, number, "yes"));
        }
        assert_eq!((tallies.answered.len(), tallies.answered_order.len()), (ANSWERED_MAX, ANSWERED_MAX));
        assert!(!tallies.is_settled(ReplicaId(0), &call(1)));
    }

    proptest! {
        /// The digest is a function of what is kept: it returns to the empty one when everything is forgotten.
        #[test]
        fn the_digest_follows_what_is_kept(votes in proptest::collection::vec((0..3u16, 0..5u32, 0..2usize), 1..60)) {
            let mut tallies = Tallies::new(2);
            for (member, number, word) in votes {
                vote(&mut tallies, member, number, ["a", "b"][word]);
            }
            let mut sum = Accumulator::default();
            tallies.votes.values().flat_map(BTreeMap::values).for_each(|vote| sum.add(&vote.leaf));
            tallies.answered.iter().for_each(|call| sum.add(&answered_leaf(call)));
            prop_assert_eq!(tallies.digest(), sum.bytes());
            let listed: usize = tallies.order.values().map(BTreeMap::len).sum();
            prop_assert_eq!(listed, tallies.votes.values().map(BTreeMap::len).sum::<usize>());
        }
    }
}
