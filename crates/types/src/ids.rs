//! A type for every number, so that a view is never passed where a step is meant.

use borsh::{BorshDeserialize, BorshSerialize};
use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
        pub struct $name(pub $inner);

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);

            /// The value behind this one. Saturates, so that a number taken from a peer cannot overflow.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The value before this one, or `None` at zero.
            #[must_use]
            pub const fn previous(self) -> Option<Self> {
                match self.0.checked_sub(1) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// A replica's place among the members of its cluster. Stable for the life of the member.
    ReplicaId(u16), "r"
);
number!(
    /// The time during which members, keys, limits and the algorithm are fixed.
    Epoch(u32), "e"
);
number!(
    /// A leader's term within an epoch.
    View(u32), "v"
);
number!(
    /// A block's place within its view, from 1.
    Step(u64), "s"
);
number!(
    /// A decision's place in the total order, from 1; the height of its block in the chain.
    SequenceNumber(u64), "#"
);
number!(
    /// A client session: the [`Position`] of the ordered entry that opened it, so it is never reused.
    SessionId(u64), "session "
);
number!(
    /// A request's number within its session, from 1.
    RequestNumber(u64), "n"
);
number!(
    /// Which life of a vote register: a new key is a new incarnation.
    Incarnation(u32), "i"
);

/// `epoch << 32 | view`: the view a vote register knows. Ordered like (epoch, view).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct RegisterView(pub u64);

impl RegisterView {
    /// View `view` of epoch `epoch`.
    #[must_use]
    pub const fn new(epoch: Epoch, view: View) -> Self {
        Self(((epoch.0 as u64) << 32) | view.0 as u64)
    }

    /// The epoch's part.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }

    /// The view's part.
    #[must_use]
    pub const fn view(self) -> View {
        View(self.0 as u32)
    }
}

impl fmt::Debug for RegisterView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{:?}", self.epoch(), self.view())
    }
}

/// An ordered entry's place in the log: the decision's sequence number and the entry's index within it.
///
/// 40 bits of sequence number, 24 of index: a block of the largest permitted size holds fewer than 2^24 entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Position(pub u64);

impl Position {
    /// Bits of the index within one decision.
    pub const INDEX_BITS: u32 = 24;

    /// Entry `index` of decision `sequence`. `None` when either does not fit.
    #[must_use]
    pub const fn new(sequence: SequenceNumber, index: u32) -> Option<Self> {
        if index >> Self::INDEX_BITS != 0 || sequence.0 >> (64 - Self::INDEX_BITS) != 0 {
            return None;
        }
        Some(Self((sequence.0 << Self::INDEX_BITS) | index as u64))
    }

    /// The decision that holds the entry.
    #[must_use]
    pub const fn sequence(self) -> SequenceNumber {
        SequenceNumber(self.0 >> Self::INDEX_BITS)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> Self::INDEX_BITS, self.0 & ((1 << Self::INDEX_BITS) - 1))
    }
}

/// Agreed time: microseconds since the Unix epoch, as decided by the order. Never read from a clock by a replica's
/// execution.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// `microseconds` later. Saturates.
    #[must_use]
    pub const fn after(self, microseconds: u64) -> Self {
        Self(self.0.saturating_add(microseconds))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// What a replica's own clocks say just now; an argument of every `handle`. Not agreed, so it never reaches execution.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time {
    /// Microseconds of the monotonic clock since an arbitrary start. Timers are set on this one.
    pub monotonic: u64,
    /// Microseconds since the Unix epoch by the wall clock. A leader proposes timestamps from this one.
    pub wall: u64,
}

impl Time {
    /// The wall clock as a timestamp to propose.
    #[must_use]
    pub const fn timestamp(self) -> Timestamp {
        Timestamp(self.wall)
    }
}

/// Names one cluster; every signature covers it, so nothing of one cluster is worth anything in another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_views_order_by_epoch_first() {
        let late = RegisterView::new(Epoch(1), View(0));
        let early = RegisterView::new(Epoch(0), View(u32::MAX));
        assert!(late > early);
        assert_eq!((late.epoch(), late.view()), (Epoch(1), View(0)));
    }

    #[test]
    fn a_position_refuses_what_it_cannot_hold() {
        assert_eq!(Position::new(SequenceNumber(7), 3).unwrap().sequence(), SequenceNumber(7));
        assert!(Position::new(SequenceNumber(7), 1 << 24).is_none());
        assert!(Position::new(SequenceNumber(1 << 40), 0).is_none());
        assert!(Position::new(SequenceNumber(1), 9) < Position::new(SequenceNumber(2), 0));
    }

    #[test]
    fn numbers_of_a_peer_cannot_overflow() {
        assert_eq!(View(u32::MAX).next(), View(u32::MAX));
        assert_eq!(Step::ZERO.previous(), None);
    }
}
