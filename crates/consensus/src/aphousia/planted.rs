//! Wrong rules, each found wrong by a model or by an attack. Run in place of the right ones to see whether the checkers
//! find them; nothing that ships knows of them.

use super::Rules;
use super::rules::{greatest, last_place};
use super::{Header, Penalty};
use alloc::vec::Vec;
use unisono_types::{Membership, Quorum, Step, View, ViewChange};

/// One wrong rule; all others are right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Planted {
    /// Decisions are made with one certificate too few.
    QuorumOffByOne,
    /// The greatest last vote is left out when a new view's base is chosen, by all replicas alike.
    GreatestLastForgotten,
    /// What stood in a block that a view change made void is taken for ordered.
    VoidFramesForgotten,
    /// What waits at one replica is shown to nobody.
    ShownToNobody,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::QuorumOffByOne, Self::GreatestLastForgotten, Self::VoidFramesForgotten, Self::ShownToNobody];

    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QuorumOffByOne => "quorum-off-by-one",
            Self::GreatestLastForgotten => "view-change-forgets-greatest-vote",
            Self::VoidFramesForgotten => "void-frames-forgotten",
            Self::ShownToNobody => "waiting-frames-shown-to-nobody",
        }
    }

    /// The rule that it breaks.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::QuorumOffByOne => "q certificates of one view decide",
            Self::GreatestLastForgotten => "the base of a NewView is the greatest last vote",
            Self::VoidFramesForgotten => "frames of blocks that a view change made void wait again",
            Self::ShownToNobody => "what waits for long is shown to everybody",
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

    fn void_frames_wait_again(&self) -> bool {
        *self != Self::VoidFramesForgotten
    }

    fn shows_what_waits(&self) -> bool {
        *self != Self::ShownToNobody
    }
}

/// The penalties as of a block at (`view`, `step`) on `parent`, as the rules compute them: for who makes up blocks that
/// are wrong in one respect only.
#[must_use]
pub fn penalties(membership: &Membership, view: View, step: Step, parent: &Header) -> Vec<Penalty> {
    super::rules::penalties(membership, view, step, parent)
}
