//! Whose share of the room a waiting frame takes, and who gives way when there is none left.
//!
//! ```text
//!   pot of clients   three quarters of the bytes   key A ████████████   key B ███   key C █
//!   pot of members   one quarter                   r0 █   r1 ██   administrator █
//! ```
//! A pot that is full takes a frame of a small share in by dropping the last frames of the greatest one. So whoever
//! stays below an equal share loses nothing, whatever all others send. When no share is greater, a frame takes the room of
//! those of its own key that come behind it. Clients never take the room of members' entries.

use alloc::collections::BTreeSet;
use unisono_types::{Frame, FrameBody, PublicKey};

/// Frames of clients that may wait. A client that is not served sends again, so what does not fit is dropped.
const CLIENT_FRAMES_MAX: usize = 15 << 12;
/// Frames of members and of the administrator: what members were told outside is at most 256 frames of each.
const MEMBER_FRAMES_MAX: usize = 1 << 14;
/// System entries of one member: there are four kinds, and one of each may be on its way once more.
pub(super) const SYSTEM_MAX: usize = 8;

/// Who signed a frame, and so pays for the room that it takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Owner {
    /// A member's host key, or the administrator's: the verification of frames says so.
    Member(PublicKey),
    /// Anybody else.
    Client(PublicKey),
}

impl Owner {
    pub(super) fn of(frame: &Frame) -> Self {
        match frame.body() {
            FrameBody::System { .. } | FrameBody::Called { .. } | FrameBody::Admin { .. } => Self::Member(frame.key()),
            FrameBody::Requests { .. } | FrameBody::Open { .. } | FrameBody::Close { .. } => Self::Client(frame.key()),
        }
    }
}

/// Whether this is an entry that a replica makes of its own accord.
pub(super) fn is_system(frame: &Frame) -> bool {
    matches!(frame.body(), FrameBody::System { .. })
}

/// What one key has here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Share {
    pub(super) frames: usize,
    pub(super) bytes: usize,
    /// System entries among them.
    pub(super) system: usize,
    /// Arrivals of those that stand in no block of the chain.
    pub(super) waiting: BTreeSet<u64>,
    /// Rank and arrival of the same.
    ranked: BTreeSet<(u64, u64)>,
}

impl Share {
    pub(super) fn waits(&mut self, arrival: u64, rank: u64) {
        self.waiting.insert(arrival);
        self.ranked.insert((rank, arrival));
    }

    pub(super) fn waits_no_more(&mut self, arrival: u64, rank: u64) {
        self.waiting.remove(&arrival);
        self.ranked.remove(&(rank, arrival));
    }

    /// Rank and arrival of the frame that is dropped first.
    pub(super) fn last(&self) -> Option<(u64, u64)> {
        self.ranked.last().copied()
    }
}

/// How far a frame's first request lies above what its session has acknowledged. The frames that lie furthest are dropped
/// first: so replicas keep nearly the same ones, and one that is sent again takes the room of those behind it.
pub(super) fn rank(frame: &Frame) -> u64 {
    match frame.body() {
        FrameBody::Requests { lowest_unacknowledged, requests, .. } => {
            requests.first().map_or(0, |(first, _)| first.0.saturating_sub(lowest_unacknowledged.0))
        }
        _ => 0,
    }
}

/// Room for some of the owners.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Pot {
    frames: usize,
    bytes: usize,
    frames_max: usize,
    bytes_max: usize,
    /// Who has how much, the greatest last.
    loads: BTreeSet<(usize, Owner)>,
}

impl Pot {
    const fn new(frames_max: usize, bytes_max: usize) -> Self {
        Self { frames: 0, bytes: 0, frames_max, bytes_max, loads: BTreeSet::new() }
    }

    /// The pots of members and of clients, out of `bytes` in all.
    pub(super) const fn split(bytes: usize) -> (Self, Self) {
        (Self::new(MEMBER_FRAMES_MAX, bytes / 4), Self::new(CLIENT_FRAMES_MAX, bytes - bytes / 4))
    }

    pub(super) const fn frames(&self) -> usize {
        self.frames
    }

    pub(super) const fn has_room(&self, bytes: usize) -> bool {
        self.frames < self.frames_max && self.bytes + bytes <= self.bytes_max
    }

    /// What frames and bytes weigh together: a pot full of either weighs the same.
    fn load(&self, frames: usize, bytes: usize) -> usize {
        bytes + frames * (self.bytes_max / self.frames_max).max(1)
    }

    /// Whose shares are greater than `share` would be with one more frame of `bytes`, the greatest first.
    pub(super) fn greater(&self, share: &Share, bytes: usize) -> impl Iterator<Item = Owner> + '_ {
        let load = self.load(share.frames + 1, share.bytes + bytes);
        self.loads.iter().rev().take_while(move |(other, _)| *other > load).map(|(_, owner)| *owner)
    }

    /// `owner` has `after` now instead of `before` (frames and bytes each).
    pub(super) fn account(&mut self, owner: Owner, before: (usize, usize), after: (usize, usize)) {
        self.frames = self.frames + after.0 - before.0;
        self.bytes = self.bytes + after.1 - before.1;
        if before.0 > 0 {
            self.loads.remove(&(self.load(before.0, before.1), owner));
        }
        if after.0 > 0 {
            self.loads.insert((self.load(after.0, after.1), owner));
        }
    }

    pub(super) fn invariants(&self) {
        assert!(self.frames <= self.frames_max && self.bytes <= self.bytes_max, "bounded");
    }
}
