//! What a liar says in the words of an algorithm: the vocabulary that the world and an algorithm share.
//!
//! The world knows when a liar speaks and what its register allows; an algorithm knows what can be said. A [`Bent`] is a
//! statement that is not yet certified: the world asks the liar's register, and only what it signs is shown.

use crate::Random;
use unisono_types::{Bytes, Certificate, Digest, RegisterView, Step, View};

/// What a message between replicas is about, as far as a liar treats it in a way of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A block that is not decided yet.
    Block,
    /// A vote.
    Vote,
    /// Frames on their way to a leader.
    Frames,
    /// A question for a block by its name.
    Fetch,
    /// Where its sender stands.
    Status,
    /// A question for decided blocks.
    Ask,
    /// Decided blocks.
    Decided,
    /// Anything else.
    Other,
}

/// How a liar changes what it is about to certify.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bend {
    /// The same frames in another order.
    FramesReversed,
    /// Some of the frames.
    FramesLeftOut,
    /// Every frame twice.
    FramesDoubled,
    /// Well-signed frames of nobody's.
    FramesOfStrangers,
    /// A time at the edge of what others tolerate, or far ahead of it.
    TimeAhead,
    /// The time of its parent, or one before it.
    TimeBack,
    /// A parent that nobody has.
    ParentUnknown,
    /// The block before its parent as its parent.
    ParentSkipped,
    /// Another height.
    Height,
    /// A later step.
    StepSkipped,
    /// Penalties that do not follow from the chain.
    Penalties,
    /// Fewer, doubled or no view changes behind a new view.
    Justification,
    /// A new view on the block below its base, in itself consistent.
    BaseLowered,
    /// A checkpoint behind a new view that the liar alone has signed.
    CheckpointForged,
    /// The place of this block with the hash of another one.
    HashOfAnother,
    /// The place of this block with the hash of nothing.
    HashOfNothing,
}

impl Bend {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::FramesReversed,
        Self::FramesLeftOut,
        Self::FramesDoubled,
        Self::FramesOfStrangers,
        Self::TimeAhead,
        Self::TimeBack,
        Self::ParentUnknown,
        Self::ParentSkipped,
        Self::Height,
        Self::StepSkipped,
        Self::Penalties,
        Self::Justification,
        Self::BaseLowered,
        Self::CheckpointForged,
        Self::HashOfAnother,
        Self::HashOfNothing,
    ];

    /// Its name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FramesReversed => "frames-reversed",
            Self::FramesLeftOut => "frames-left-out",
            Self::FramesDoubled => "frames-doubled",
            Self::FramesOfStrangers => "frames-of-strangers",
            Self::TimeAhead => "time-ahead",
            Self::TimeBack => "time-back",
            Self::ParentUnknown => "parent-unknown",
            Self::ParentSkipped => "parent-skipped",
            Self::Height => "height",
            Self::StepSkipped => "step-skipped",
            Self::Penalties => "penalties",
            Self::Justification => "justification",
            Self::BaseLowered => "base-lowered",
            Self::CheckpointForged => "checkpoint-forged",
            Self::HashOfAnother => "hash-of-another",
            Self::HashOfNothing => "hash-of-nothing",
        }
    }
}

/// Makes the messages that show what was certified.
pub type Show = Box<dyn FnOnce(Certificate) -> Vec<Bytes>>;

/// A statement that waits for the register's signature.
pub struct Bent {
    /// Where it is certified.
    pub view: RegisterView,
    /// Where it is certified.
    pub step: Step,
    /// What is certified.
    pub hash: Digest,
    /// The messages that show it.
    pub show: Show,
}

/// What a flood consists of. Each message is as cheap for the liar, and as costly for its peers, as its keys allow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flood {
    /// Wishes for later views.
    Wishes,
    /// The smallest frames that can be signed, by keys that nobody knows.
    StrangersFrames,
    /// Entries of its own, signed with its host key.
    OwnEntries,
    /// Frames that were ordered long ago.
    OldFrames,
    /// Blocks far above what is decided.
    FarBlocks,
    /// Unproven blocks close above what is decided.
    NearBlocks,
    /// Questions for blocks that do not exist.
    Fetches,
    /// Questions for everything that was ever decided.
    Asks,
    /// Claims to be far ahead.
    Boasts,
    /// What it and others said before.
    Duplicates,
}

impl Flood {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Wishes,
        Self::StrangersFrames,
        Self::OwnEntries,
        Self::OldFrames,
        Self::FarBlocks,
        Self::NearBlocks,
        Self::Fetches,
        Self::Asks,
        Self::Boasts,
        Self::Duplicates,
    ];
}

/// What a liar knows of the cluster when it makes something up.
pub struct Hearsay<'a> {
    /// The view it is in.
    pub view: View,
    /// A block that its log holds.
    pub block: Option<&'a Bytes>,
    /// Blocks by name, as its log holds them.
    pub known: &'a dyn Fn(&Digest) -> Option<Bytes>,
    /// Chance.
    pub random: &'a mut Random,
}
