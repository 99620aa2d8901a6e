//! The votes on one request's outcome: one per replica, f+1 equal ones decide.
//!
//! A replica votes with the whole outcome or with its digest. f+1 equal digests say what the outcome is; to have it,
//! one of those who vouch for it must have sent it whole.

use alloc::vec::Vec;
use unisono_types::{Digest, Outcome, ReplicaId, ReplyBody};

/// How often a replica must repeat a mere digest, after the request was repeated often enough, until we believe that it
/// has nothing else: correct ones answer a repetition with all that they have.
const REPEATED_MIN: u8 = 3;

/// The votes on one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Votes(Vec<Vote>);

#[derive(Clone, Debug)]
struct Vote {
    from: ReplicaId,
    body: ReplyBody,
    digest: Option<Digest>,
    repeated: u8,
}

/// What the votes come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tally {
    /// Not enough agree.
    Open,
    /// Enough agree on a digest, nobody of them has sent the outcome.
    DigestOnly {
        /// Whether every replica has voted, so that no outcome is on its way.
        complete: bool,
        /// How many of those who agree seem to have nothing else.
        exhausted: usize,
    },
    /// Enough agree.
    Decided(Outcome),
}

/// Bytes that a vote keeps.
fn bytes_of(body: &ReplyBody) -> u64 {
    match body {
        ReplyBody::Full(Ok(bytes)) => bytes.len() as u64,
        _ => 0,
    }
}

impl Votes {
    /// Takes `from`'s vote. A whole outcome is kept if at most `room` bytes; otherwise its digest is, which votes as
    /// well. `repeatedly` tells that the request was repeated often enough for [`REPEATED_MIN`] to count.
    pub(crate) fn vote(
        &mut self,
        from: ReplicaId,
        body: ReplyBody,
        room: u64,
        repeatedly: bool,
        enough: usize,
        members: usize,
    ) -> Tally {
        let mut vote = Vote { from, body, digest: None, repeated: 0 };
        let before = self.0.iter().position(|known| known.from == from).map(|index| self.0.swap_remove(index));
        if let Some(mut before) = before
            && matches!(vote.body, ReplyBody::Digest(_))
            && before.agrees(&mut vote)
        {
            // The same again, without the outcome: what was whole stays so.
            before.repeated = before.repeated.saturating_add(u8::from(repeatedly));
            vote = before;
        }
        let mut agreeing = 1;
        let mut whole = matches!(vote.body, ReplyBody::Full(_)).then(|| vote.body.clone());
        let mut exhausted = vote.is_exhausted();
        for other in &mut self.0 {
            if other.agrees(&mut vote) {
                agreeing += 1;
                exhausted += other.is_exhausted();
                whole = whole.or_else(|| matches!(other.body, ReplyBody::Full(_)).then(|| other.body.clone()));
            }
        }
        if agreeing >= enough
            && let Some(ReplyBody::Full(outcome)) = whole
        {
            return Tally::Decided(outcome);
        }
        if bytes_of(&vote.body) > room {
            vote.body = ReplyBody::Digest(vote.digest());
        }
        self.0.push(vote);
        if agreeing < enough { Tally::Open } else { Tally::DigestOnly { complete: self.0.len() == members, exhausted } }
    }

    /// Bytes kept of `from`'s vote.
    pub(crate) fn bytes(&self, from: ReplicaId) -> u64 {
        self.0.iter().find(|vote| vote.from == from).map_or(0, |vote| bytes_of(&vote.body))
    }

    /// Bytes kept, by replica.
    pub(crate) fn all_bytes(&self) -> impl Iterator<Item = (ReplicaId, u64)> + '_ {
        self.0.iter().map(|vote| (vote.from, bytes_of(&vote.body)))
    }
}

impl Vote {
    /// Two whole outcomes are compared as they are: hashing is for those who sent only a digest.
    fn agrees(&mut self, other: &mut Self) -> bool {
        match (&self.body, &other.body) {
            (ReplyBody::Full(own), ReplyBody::Full(other)) => own == other,
            _ => self.digest() == other.digest(),
        }
    }

    fn digest(&mut self) -> Digest {
        *self.digest.get_or_insert_with(|| self.body.digest())
    }

    fn is_exhausted(&self) -> usize {
        usize::from(self.repeated >= REPEATED_MIN && matches!(self.body, ReplyBody::Digest(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::{Bytes, Fault};

    fn outcome(byte: u8) -> Outcome {
        Ok(Bytes::from(vec![byte; 10]))
    }

    fn full(byte: u8) -> ReplyBody {
        ReplyBody::Full(outcome(byte))
    }

    fn digest(byte: u8) -> ReplyBody {
        ReplyBody::Digest(ReplyBody::digest_of(&outcome(byte)))
    }

    /// Three replicas, two enough.
    fn tally(votes: &[(u16, ReplyBody)]) -> Tally {
        let mut all = Votes::default();
        votes.iter().map(|(from, body)| all.vote(ReplicaId(*from), body.clone(), 1_000, true, 2, 3)).last().unwrap()
    }

    const OPEN: Tally = Tally::Open;

    #[test]
    fn two_of_three_decide_whole_or_by_digest() {
        assert_eq!(tally(&[(0, full(1))]), OPEN);
        assert_eq!(tally(&[(0, full(1)), (1, full(1))]), Tally::Decided(outcome(1)));
        assert_eq!(tally(&[(0, full(1)), (1, digest(1))]), Tally::Decided(outcome(1)));
        assert_eq!(tally(&[(0, digest(1)), (1, full(1))]), Tally::Decided(outcome(1)));
        assert_eq!(tally(&[(0, digest(1)), (1, digest(1))]), Tally::DigestOnly { complete: false, exhausted: 0 });
    }

    #[test]
    fn one_replica_is_one_vote_however_often_it_speaks() {
        assert_eq!(tally(&[(0, full(1)), (0, full(1)), (0, digest(1)), (0, full(1))]), OPEN);
        assert_eq!(tally(&[(0, full(2)), (0, full(1)), (1, full(2))]), OPEN, "the last word counts");
    }

    #[test]
    fn a_liar_is_outvoted_and_its_whole_outcome_never_stands_for_another_digest() {
        let lied = [(0, full(9)), (1, digest(1)), (2, digest(1))];
        assert_eq!(tally(&lied), Tally::DigestOnly { complete: true, exhausted: 0 });
        assert_eq!(tally(&[(0, full(9)), (1, digest(1)), (2, full(1))]), Tally::Decided(outcome(1)));
    }

    #[test]
    fn faults_are_outcomes_too() {
        let fault = ReplyBody::Full(Err(Fault::UnknownOperation));
        assert_eq!(tally(&[(0, fault.clone()), (1, fault)]), Tally::Decided(Err(Fault::UnknownOperation)));
    }

    #[test]
    fn a_digest_behind_the_whole_outcome_takes_nothing_away() {
        assert_eq!(tally(&[(0, full(1)), (0, digest(1)), (1, digest(1))]), Tally::Decided(outcome(1)));
    }

    #[test]
    fn without_room_a_whole_outcome_is_kept_as_its_digest_and_still_decides_when_it_comes_last() {
        let mut votes = Votes::default();
        assert_eq!(votes.vote(ReplicaId(0), full(1), 5, false, 2, 3), OPEN);
        assert_eq!(votes.bytes(ReplicaId(0)), 0);
        assert!(matches!(votes.vote(ReplicaId(1), digest(1), 5, false, 2, 3), Tally::DigestOnly { .. }));
        assert_eq!(votes.vote(ReplicaId(2), full(1), 0, false, 2, 3), Tally::Decided(outcome(1)));
    }

    #[test]
    fn replicas_that_repeat_a_digest_have_nothing_else() {
        let mut votes = Votes::default();
        let mut last = OPEN;
        for _ in 0..=REPEATED_MIN {
            for from in 0..2 {
                last = votes.vote(ReplicaId(from), digest(1), 1_000, true, 2, 3);
            }
        }
        assert_eq!(last, Tally::DigestOnly { complete: false, exhausted: 2 });
    }
}
