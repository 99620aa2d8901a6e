//! Wrong rules, each found wrong by a model or by an attack. Run in place of the right ones to see whether the checkers
//! find them; nothing that ships knows of them.

use super::rules::{greatest, last_place};
use super::{Header, Penalty, Rules, Standard};
use alloc::vec::Vec;
use unisono_types::{Membership, Quorum, ReplicaId, Step, Timestamp, View, ViewChange};

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
    /// A vote is given whatever the stamp.
    AnyStamp,
    /// Only the own clock says whether a stamp is timely.
    ClockAlone,
    /// A leader whose clock was set back repeats its parent's stamp.
    StampStands,
    /// Views that others made me skip count as own time-outs.
    SkippedViewsCount,
    /// Agreed time may be held back.
    SlowTimeExcused,
    /// Time-outs are doubled five times at most, and follow no measured distance.
    ShortTimeouts,
    /// Bytes that wait earn no patience.
    SizeAccuses,
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
    /// Whatever is decided renews the patience for the oldest entry.
    AnyDecisionRenews,
    /// A slow leader keeps its place as long as each entry is decided within its time-out.
    SlowLeaderExcused,
}

impl Planted {
    /// Those that a search by seed tries.
    pub const ALL: [Self; 15] = [
        Self::QuorumOffByOne,
        Self::GreatestLastForgotten,
        Self::VoidFramesForgotten,
        Self::ShownToNobody,
        Self::AnyStamp,
        Self::ClockAlone,
        Self::StampStands,
        Self::SkippedViewsCount,
        Self::SlowTimeExcused,
        Self::ShortTimeouts,
        Self::SizeAccuses,
        Self::OneWordBelieved,
        Self::TurnsNeverEnd,
        Self::AnyDecisionRenews,
        Self::SlowLeaderExcused,
    ];
    /// Those that take sizes and times that the storms do not reach: each is found by a story.
    pub const STORIES: [Self; 3] = [Self::GroupsUncut, Self::AheadCounted, Self::SharesInCommon];

    /// Whether time-outs stay short. A count of blocks ahead does harm only together with them: by the right time-outs
    /// so many views without a decision take hours.
    fn hurries(self) -> bool {
        matches!(self, Self::ShortTimeouts | Self::AheadCounted)
    }

    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QuorumOffByOne => "quorum-off-by-one",
            Self::GreatestLastForgotten => "view-change-forgets-greatest-vote",
            Self::VoidFramesForgotten => "void-frames-forgotten",
            Self::ShownToNobody => "waiting-frames-shown-to-nobody",
            Self::AnyStamp => "any-stamp-is-voted-for",
            Self::ClockAlone => "timely-by-clock-alone",
            Self::StampStands => "agreed-time-stands",
            Self::SkippedViewsCount => "skipped-views-count",
            Self::SlowTimeExcused => "slow-time-excused",
            Self::ShortTimeouts => "short-timeouts",
            Self::SizeAccuses => "size-accuses",
            Self::OneWordBelieved => "catch-up-believes-one-word",
            Self::TurnsNeverEnd => "catch-up-turn-never-ends",
            Self::GroupsUncut => "catch-up-hands-on-whole-groups",
            Self::AheadCounted => "blocks-ahead-counted",
            Self::SharesInCommon => "undecided-blocks-share-one-bound",
            Self::AnyDecisionRenews => "any-decision-renews-patience",
            Self::SlowLeaderExcused => "slow-leader-excused",
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
            Self::AnyStamp => "a vote waits until its block is timely",
            Self::ClockAlone => "what the time since the newest decision allows is timely",
            Self::StampStands => "agreed time ahead of the clocks goes on at half speed",
            Self::SkippedViewsCount => "only own time-outs widen the tolerance",
            Self::SlowTimeExcused => "a leader that holds time back is replaced",
            Self::ShortTimeouts => "time-outs follow the measured distance, up to a minute",
            Self::SizeAccuses => "time-outs follow the bytes that wait",
            Self::OneWordBelieved => "a replica steps aside only when f+1 peers say that it is far behind",
            Self::TurnsNeverEnd => "no peer keeps another from being asked for decided blocks",
            Self::GroupsUncut => "decided runs of any length travel in pieces of bounded size",
            Self::AheadCounted => "views that decide nothing do not stop correct replicas",
            Self::SharesInCommon => "what f members send takes no room from a correct proposer",
            Self::AnyDecisionRenews => "patience starts anew only when the oldest entry is decided",
            Self::SlowLeaderExcused => "a leader that is slower than others were is replaced",
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

    fn stamp(&self, clock: Timestamp, parent: Timestamp, resumed: Timestamp) -> Timestamp {
        if *self == Self::StampStands { clock.max(parent) } else { Standard.stamp(clock, parent, resumed) }
    }

    fn wait_for_stamp(&self, by_clock: u64, by_agreed: u64) -> u64 {
        match self {
            Self::AnyStamp => 0,
            Self::ClockAlone => by_clock,
            _ => Standard.wait_for_stamp(by_clock, by_agreed),
        }
    }

    fn time_outs_after(&self, time_outs: u32, skipped: u32) -> u32 {
        time_outs + if *self == Self::SkippedViewsCount { skipped } else { 0 }
    }

    fn time_is_slow(&self, advanced: u64, elapsed: u64) -> bool {
        *self != Self::SlowTimeExcused && Standard.time_is_slow(advanced, elapsed)
    }

    fn base_timeout(&self, least: u64, needed: u64) -> u64 {
        if self.hurries() { least } else { Standard.base_timeout(least, needed) }
    }

    fn timeout_max(&self) -> u64 {
        if self.hurries() { 4_800_000 } else { Standard.timeout_max() }
    }

    fn transfer_micros(&self, bytes: u64) -> u64 {
        if *self == Self::SizeAccuses { 0 } else { Standard.transfer_micros(bytes) }
    }

    fn ends_piece(&self, bytes: usize, next: usize, piece: usize) -> bool {
        *self != Self::GroupsUncut && Standard.ends_piece(bytes, next, piece)
    }

    fn is_too_long(&self, blocks: usize, header_bytes: usize) -> bool {
        if *self == Self::AheadCounted { blocks > 16 } else { Standard.is_too_long(blocks, header_bytes) }
    }

    fn shares_room(&self, peer: ReplicaId, other: ReplicaId) -> bool {
        *self == Self::SharesInCommon || Standard.shares_room(peer, other)
    }

    fn steps_aside(&self, ahead: usize, quorum: Quorum) -> bool {
        if *self == Self::OneWordBelieved { ahead > 0 } else { Standard.steps_aside(ahead, quorum) }
    }

    fn is_turn_over(&self, elapsed_micros: u64, turn_micros: u64) -> bool {
        *self != Self::TurnsNeverEnd && Standard.is_turn_over(elapsed_micros, turn_micros)
    }

    fn patience_is_renewed(&self, oldest_decided: bool) -> bool {
        *self == Self::AnyDecisionRenews || Standard.patience_is_renewed(oldest_decided)
    }

    fn turn_is_slow(&self, turn: u64, excused: u64) -> bool {
        *self != Self::SlowLeaderExcused && Standard.turn_is_slow(turn, excused)
    }
}

/// The penalties as of a block at (`view`, `step`) on `parent`, as the rules compute them: for who makes up blocks that
/// are wrong in one respect only.
#[must_use]
pub fn penalties(membership: &Membership, view: View, step: Step, parent: &Header) -> Vec<Penalty> {
    super::rules::penalties(membership, view, step, parent)
}
