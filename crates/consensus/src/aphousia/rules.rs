//! The rules that decide what a valid block is: pure functions of a header, its parent's header and the membership.
//! No state, no clock, no opinion. The voting policy (when to wait) is elsewhere.
//!
//! ```text
//!   L(v, 1)      members[v mod n]: the epoch and v alone decide
//!   L(v, s > 1)  the floor((s-1)/R)-th after L(v, 1) in cyclic order without those penalised as of the PARENT
//!   base         q ViewChanges for this view: the GREATEST last, bound to its header's own (view, step);
//!                lower lasts are not looked at; an invalid greatest one voids the set
//! ```
//! Source: the design's section on Aphousia. Each rule was found necessary by model checking; plausible variants fork.

use super::block::{Header, Justification, Penalty};
use alloc::vec::Vec;
use unisono_types::{Digest, Membership, ReplicaId, SequenceNumber, Step, View, ViewChange};

/// From here on further penalties last no longer: 2^16 heights.
const PENALTIES_MAX: u8 = 16;

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

/// The place of the greatest last: the only one that is looked at.
pub(super) fn greatest_place<'a>(changes: impl IntoIterator<Item = &'a ViewChange>) -> (View, Step) {
    changes.into_iter().map(last_place).max().unwrap_or((View(0), Step(0)))
}

/// Whether `parent` (a valid header named `parent_hash`) is the base of this justification.
///
/// Among the lasts the greatest place counts; at a tie the one that is valid, which is `parent` if it is named there
/// and says exactly this place. A checkpoint is stable, so it lies on every valid later chain: it is either the base
/// itself, standing at or above all lasts, or below it.
fn is_base(justification: &Justification, parent: &Header, parent_hash: Digest, epoch_base: Digest) -> bool {
    let Justification { changes, checkpoint } = justification;
    let greatest = greatest_place(changes);
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
    membership: &Membership,
    header: &Header,
    parent: &Header,
    parent_hash: Digest,
    epoch_base: Digest,
    forgotten_greatest: bool,
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
            let remembered = if forgotten_greatest { forget_greatest(justification) } else { justification.clone() };
            if parent.view >= header.view || !is_base(&remembered, parent, parent_hash, epoch_base) {
                return Err("a new view that does not stand on the greatest last vote");
            }
        }
    }
    if header.penalties != penalties(membership, header.view, header.step, parent) {
        return Err("penalties that do not follow from the chain");
    }
    Ok(leader(membership, header.view, header.step, parent))
}

/// The planted bug: the greatest vote is left out when the base is chosen.
pub(super) fn forget_greatest(justification: &Justification) -> Justification {
    let mut changes = justification.changes.clone();
    if let Some(greatest) = changes.iter().enumerate().max_by_key(|(_, change)| last_place(change)).map(|(i, _)| i)
        && changes.len() > 1
    {
        changes.remove(greatest);
    }
    Justification { changes, checkpoint: justification.checkpoint.clone() }
}
