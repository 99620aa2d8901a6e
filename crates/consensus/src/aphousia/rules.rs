//! The rules as pure functions: what a valid block is, from a header, its parent's header and the membership; and the
//! figures of the policies (stamps, time-outs, bounds) that a test may replace ([`Rules`]). No state, no clock.
//!
//! ```text
//!   L(v, 1)      members[v mod n]: the epoch and v alone decide
//!   L(v, s > 1)  the floor((s-1)/R)-th after L(v, 1) in cyclic order without those penalised as of the PARENT
//!   base         q ViewChanges for this view: the GREATEST last, bound to its header's own (view, step);
//!                lower lasts are not looked at; an invalid greatest one voids the set
//! ```
//! Source: the design's section on Aphousia. Each rule was found necessary by model checking; plausible variants fork.

use super::TIMEOUT_MICROS_MAX;
use super::block::{Header, Justification, Penalty};
use alloc::vec::Vec;
use core::{fmt::Debug, hash::Hash};
use unisono_types::bounds::CHAIN_HEADER_BYTES;
use unisono_types::{Digest, Membership, Quorum, ReplicaId, SequenceNumber, Step, Timestamp, View, ViewChange};

/// From here on further penalties last no longer: 2^16 heights.
const PENALTIES_MAX: u8 = 16;

/// Views without a decision that double the time-out each.
pub(super) const QUICK_DOUBLINGS: u32 = 4;

/// The decisions of the protocol that a test may replace by a wrong one, to see whether it is found. What ships is the
/// default of each method, with [`Standard`].
pub trait Rules: Clone + PartialEq + Eq + Hash + Debug + 'static {
    /// q: how many certificates decide a block.
    fn commit_quorum(&self, quorum: Quorum) -> usize {
        quorum.commit()
    }

    /// Those of a NewView's view changes among whose lasts its base is looked for: all of them. May reorder them.
    fn looked_at<'a>(&self, changes: &'a mut [ViewChange]) -> &'a [ViewChange] {
        changes
    }

    /// Whether frames of blocks that a view change made void wait again.
    fn void_frames_wait_again(&self) -> bool {
        true
    }

    /// Whether everybody is shown what waits here for long: the leader may not know of it.
    fn shows_what_waits(&self) -> bool {
        true
    }

    /// A leader's stamp: its clock unless that is below the parent's stamp, else `resumed` (agreed time that goes on
    /// at half speed from the newest decision), but never below the parent's.
    fn stamp(&self, clock: Timestamp, parent: Timestamp, resumed: Timestamp) -> Timestamp {
        if clock >= parent { clock } else { parent.max(resumed) }
    }

    /// How long a vote waits for a stamp that is so far beyond what my clock allows, and so far beyond what the time
    /// since the newest decision allows, both in microseconds. One of them is enough.
    fn wait_for_stamp(&self, by_clock: u64, by_agreed: u64) -> u64 {
        by_clock.min(by_agreed)
    }

    /// k, the own time-outs since the newest decision, after a view is entered that lies `skipped` views further on:
    /// unchanged, since others can make me skip as many as they like.
    fn time_outs_after(&self, time_outs: u32, skipped: u32) -> u32 {
        let _ = skipped;
        time_outs
    }

    /// Whether agreed time that is behind my clock, and went on by `advanced` while mine went on by `elapsed`, is too
    /// slow: a leader that holds it back.
    fn time_is_slow(&self, advanced: u64, elapsed: u64) -> bool {
        advanced < elapsed / 4
    }

    /// The shortest time-out, of what is set and what the measured distance asks for.
    fn base_timeout(&self, least: u64, needed: u64) -> u64 {
        least.max(needed)
    }

    /// How often the time-out is doubled after so many views without a decision: at each of the first few, then once for
    /// as many as there are members. So it grows without end while nothing is decided, and yet a few leaders in a row
    /// that are faulty do not cost minutes when trouble is over.
    fn doublings(&self, fruitless: u32, members: u32) -> u32 {
        fruitless.min(QUICK_DOUBLINGS) + fruitless.saturating_sub(QUICK_DOUBLINGS) / members
    }

    /// How far a time-out may be doubled, in microseconds.
    fn timeout_max(&self) -> u64 {
        TIMEOUT_MICROS_MAX
    }

    /// How much longer a leader may take when so many bytes wait or were decided before what is waited for: at 8 MB/s,
    /// which the slowest network that this is made for carries.
    fn transfer_micros(&self, bytes: u64) -> u64 {
        bytes / 8
    }

    /// Whether a piece of decided blocks, of which there are `bytes`, ends before a block of `next` bytes.
    fn ends_piece(&self, bytes: usize, next: usize, piece: usize) -> bool {
        bytes + next > piece
    }

    /// Whether an undecided chain of so many blocks, whose headers take so many bytes, is too long to be followed.
    fn is_too_long(&self, blocks: usize, header_bytes: usize) -> bool {
        let _ = blocks;
        header_bytes > CHAIN_HEADER_BYTES
    }

    /// Whether what `other` has sent takes room from `peer`: only its own does.
    fn shares_room(&self, peer: ReplicaId, other: ReplicaId) -> bool {
        peer == other
    }

    /// Whether this replica is so far behind that it only catches up: `ahead` peers say so, one of them correct.
    fn steps_aside(&self, ahead: usize, quorum: Quorum) -> bool {
        ahead >= quorum.one_correct()
    }

    /// Whether a peer that is asked for decided blocks, `fruitless` times without use, has had its time.
    fn is_turn_over(&self, elapsed_micros: u64, turn_micros: u64) -> bool {
        elapsed_micros >= turn_micros
    }

    /// Whether the patience for the oldest entry starts anew now that something was decided: only when that entry was.
    fn patience_is_renewed(&self, oldest_decided: bool) -> bool {
        oldest_decided
    }

    /// Whether a leader's turn takes too long.
    fn turn_is_slow(&self, turn: u64, excused: u64) -> bool {
        turn > excused
    }
}

/// The rules as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Standard;

impl Rules for Standard {}

/// Why a header is invalid although its form is right.
pub(super) type Invalid = &'static str;

/// L(v, 1).
pub(super) fn first_leader(membership: &Membership, view: View) -> ReplicaId {
    ReplicaId((u64::from(view.0) % membership.len() as u64) as u16)
}

/// L(v, s) of a block at `step` of `view` whose parent is `parent`.
pub(super) fn leader(membership: &Membership, view: View, step: Step, parent: &Header) -> ReplicaId {
    let first = first_leader(membership, view);
    let rotation = membership.configuration().rotation;
    if rotation == 0 || step <= Step(1) {
        return first;
    }
    let height = parent.height.next();
    let active = parent.penalties.iter().rev().filter(|penalty| penalty.until >= height);
    let excluded: Vec<ReplicaId> = active.take(membership.quorum().faulty()).map(|penalty| penalty.member).collect();
    let members = membership.len() as u16;
    let ring: Vec<ReplicaId> = (0..members)
        .map(|place| ReplicaId((first.0 + place) % members))
        .filter(|member| *member == first || !excluded.contains(member))
        .collect();
    let turn = (step.0 - 1) / rotation;
    ring[(turn % ring.len() as u64) as usize]
}

/// The penalties as of a block at (`view`, `step`) on `parent`: a NewView(w) on (v, s) penalises L(v, s+1) and
/// L(u, 1) for v < u < w, for 2^k heights, k counting this one.
pub(super) fn penalties(membership: &Membership, view: View, step: Step, parent: &Header) -> Vec<Penalty> {
    let mut penalties = parent.penalties.clone();
    if view == parent.view || step != Step(1) {
        return penalties;
    }
    let height = parent.height.next();
    penalise(&mut penalties, leader(membership, parent.view, parent.step.next(), parent), height);
    // Once everyone has the largest count, more rounds over the members change nothing.
    let views = (u32::from(PENALTIES_MAX) + 1) * membership.len() as u32;
    let from = parent.view.0.saturating_add(1).max(view.0.saturating_sub(views));
    for skipped in from..view.0 {
        penalise(&mut penalties, first_leader(membership, View(skipped)), height);
    }
    penalties
}

fn penalise(penalties: &mut Vec<Penalty>, member: ReplicaId, height: SequenceNumber) {
    let before = penalties.iter().position(|penalty| penalty.member == member).map(|index| penalties.remove(index));
    let count = before.map_or(0, |penalty| penalty.count).saturating_add(1).min(PENALTIES_MAX);
    let until = SequenceNumber(height.0.saturating_add(1 << count));
    penalties.push(Penalty { member, count, until });
}

/// Where a last vote stands among the candidates for a base: its own (view, step), never that of a header.
/// A register that has not voted in this epoch stands on what the epoch stands on.
pub(super) fn last_place(change: &ViewChange) -> (View, Step) {
    if change.last.view.epoch() != change.view.epoch() || change.last.step == Step(0) {
        return (View(0), Step(0));
    }
    (change.last.view.view(), change.last.step)
}

/// The header that a last vote names.
pub(super) fn last_hash(change: &ViewChange, epoch_base: Digest) -> Digest {
    if last_place(change) == (View(0), Step(0)) { epoch_base } else { change.last.hash }
}

/// The greatest last: the only one that is looked at. At a tie the first one.
pub(super) fn greatest(changes: &[ViewChange]) -> Option<&ViewChange> {
    let place = changes.iter().map(last_place).max()?;
    changes.iter().find(|change| last_place(change) == place)
}

/// Whether `parent` (a valid header named `parent_hash`) is the base of this justification.
///
/// Among the lasts the greatest place counts; at a tie the one that is valid, which is `parent` if it is named there
/// and says exactly this place. A checkpoint is stable, so it lies on every valid later chain: it is either the base
/// itself, standing at or above all lasts, or below it.
fn is_base(
    rules: &impl Rules,
    justification: &Justification,
    parent: &Header,
    parent_hash: Digest,
    epoch_base: Digest,
) -> bool {
    let Justification { changes, checkpoint } = justification;
    let mut changes = changes.clone();
    let changes = rules.looked_at(&mut changes);
    let greatest = greatest(changes).map_or((View(0), Step(0)), last_place);
    if let Some(stable) = checkpoint.first().map(|signed| signed.statement) {
        if stable.header == parent_hash {
            return stable.sequence == parent.height && parent.place() >= greatest;
        }
        if stable.sequence >= parent.height {
            return false;
        }
    }
    let named = |change: &ViewChange| last_place(change) == greatest && last_hash(change, epoch_base) == parent_hash;
    parent.place() == greatest && changes.iter().any(named)
}

/// Whether `header` is valid on `parent`, which is valid; if so, whose certificate makes it so.
pub(super) fn check_header(
    rules: &impl Rules,
    membership: &Membership,
    header: &Header,
    parent: &Header,
    parent_hash: Digest,
    epoch_base: Digest,
) -> Result<ReplicaId, Invalid> {
    if header.parent != parent_hash || header.height != parent.height.next() {
        return Err("a block that does not follow its parent");
    }
    if header.timestamp < parent.timestamp {
        return Err("time that runs backwards");
    }
    match &header.justification {
        None if header.step == Step(1) => {
            if parent_hash != epoch_base {
                return Err("a first block that does not stand on its epoch");
            }
        }
        None => {
            if parent.view != header.view || parent.step.next() != header.step {
                return Err("a step that does not follow its parent's");
            }
        }
        Some(justification) => {
            if parent.view >= header.view || !is_base(rules, justification, parent, parent_hash, epoch_base) {
                return Err("a new view that does not stand on the greatest last vote");
            }
        }
    }
    if header.penalties != penalties(membership, header.view, header.step, parent) {
        return Err("penalties that do not follow from the chain");
    }
    Ok(leader(membership, header.view, header.step, parent))
}
