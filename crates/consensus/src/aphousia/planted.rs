//! Wrong rules, each found wrong by a model or by an attack. Run in place of the right ones to see whether the checkers
//! find them; nothing that ships knows of them.

use super::rules::{greatest, last_place};
use super::{Rules, Standard};
use unisono_types::{Quorum, ViewChange};

/// One wrong rule; all others are right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Planted {
    /// Decisions are made with one certificate too few.
    QuorumOffByOne,
    /// The greatest last vote is left out when a new view's base is chosen, by all replicas alike.
    GreatestLastForgotten,
    /// One peer's word is enough to stop voting and to catch up.
    OneWordBelieved,
    /// A peer that was asked for decided blocks has its turn for as long as it does not answer.
    TurnsNeverEnd,
    /// Blocks decided together are handed on together, however large they are.
    GroupsUncut,
    /// Undecided blocks are bounded by their number above the last decided one.
    AheadCounted,
    /// One bound for the blocks that all peers have sent together.
    SharesInCommon,
}

impl Planted {
    /// Those that ordinary storms find.
    pub const ALL: [Self; 4] =
        [Self::QuorumOffByOne, Self::GreatestLastForgotten, Self::OneWordBelieved, Self::TurnsNeverEnd];
    /// Those that take sizes and times that the storms do not reach: each is found by a story.
    pub const STORIES: [Self; 3] = [Self::GroupsUncut, Self::AheadCounted, Self::SharesInCommon];

    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QuorumOffByOne => "quorum-off-by-one",
            Self::GreatestLastForgotten => "view-change-forgets-greatest-vote",
            Self::OneWordBelieved => "catch-up-believes-one-word",
            Self::TurnsNeverEnd => "catch-up-turn-never-ends",
            Self::GroupsUncut => "catch-up-hands-on-whole-groups",
            Self::AheadCounted => "blocks-ahead-counted",
            Self::SharesInCommon => "undecided-blocks-share-one-bound",
        }
    }

    /// The rule that it breaks.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::QuorumOffByOne => "q certificates of one view decide",
            Self::GreatestLastForgotten => "the base of a NewView is the greatest last vote",
            Self::OneWordBelieved => "a replica steps aside only when f+1 peers say that it is far behind",
            Self::TurnsNeverEnd => "no peer keeps another from being asked for decided blocks",
            Self::GroupsUncut => "decided runs of any length travel in pieces of bounded size",
            Self::AheadCounted => "views that decide nothing do not stop correct replicas",
            Self::SharesInCommon => "what f members send takes no room from a correct proposer",
        }
    }
}

impl Rules for Planted {
    fn commit_quorum(&self, quorum: Quorum) -> usize {
        quorum.commit() - usize::from(*self == Self::QuorumOffByOne)
    }

    fn looked_at<'a>(&self, changes: &'a mut [ViewChange]) -> &'a [ViewChange] {
        if *self == Self::GreatestLastForgotten && changes.len() > 1 {
            let forgotten = greatest(changes).map_or((Default::default(), Default::default()), last_place);
            changes.sort_by_key(|change| last_place(change) == forgotten);
            let last = changes.len() - 1;
            return &changes[..last];
        }
        changes
    }

    fn ends_piece(&self, bytes: usize, next: usize, piece: usize) -> bool {
        *self != Self::GroupsUncut && Standard.ends_piece(bytes, next, piece)
    }

    fn is_too_long(&self, blocks: usize, header_bytes: usize) -> bool {
        if *self == Self::AheadCounted { blocks > 16 } else { Standard.is_too_long(blocks, header_bytes) }
    }

    fn is_share_full(&self, of_peer: usize, of_all: usize, share: usize) -> bool {
        let of_peer = if *self == Self::SharesInCommon { of_all } else { of_peer };
        Standard.is_share_full(of_peer, of_all, share)
    }

    fn steps_aside(&self, ahead: usize, quorum: Quorum) -> bool {
        if *self == Self::OneWordBelieved { ahead > 0 } else { Standard.steps_aside(ahead, quorum) }
    }

    fn is_turn_over(&self, elapsed_micros: u64, turn_micros: u64) -> bool {
        *self != Self::TurnsNeverEnd && Standard.is_turn_over(elapsed_micros, turn_micros)
    }
}
