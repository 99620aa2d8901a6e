//! Plans with one theme in a world that is otherwise calm.
//!
//! Faults of one kind hide those of another: a leader that is a little slow is not seen among partitions, and no view
//! change is one too many where links lose messages. In these plans links and disks are in order, one thing is not, and
//! the run is long enough for it to matter. So the bounds of calm worlds hold (`world/bounds.rs`).

use crate::plan::{MILLISECOND, SECOND};
use crate::{Fault, LiarPlan, NetworkPlan, Plan, Random, Schedule, SpeedPlan, StoragePlan};
use unisono_types::Limits;

/// One seed in so many has such a plan, those with this remainder.
const FOCUS_EVERY: u64 = 5;
const FOCUS_REMAINDER: u64 = 3;

/// One seed in so many has a world where all are far from each other, those with this remainder.
const FAR_EVERY: u64 = 50;
const FAR_REMAINDER: u64 = 1;

/// What a plan is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Theme {
    /// Leaders change within milliseconds, and a liar's clock is far off when its turn comes.
    Clocks,
    /// The first leader's clock is slow.
    HeldTime,
    /// Large values on narrow links, and nobody lies.
    Sizes,
    /// The first leader ignores one client, which reaches all replicas or one other.
    Neglect,
    /// The first leader is slower than it need be.
    SlowLeader,
}

impl Theme {
    const ALL: [Self; 5] = [Self::Clocks, Self::HeldTime, Self::Sizes, Self::Neglect, Self::SlowLeader];
}

/// The plan of a seed that has one of these.
pub(crate) fn plan(seed: u64) -> Option<Plan> {
    let mut random = Random::new(seed ^ 0x0066_6f63_7573);
    let r = &mut random;
    if seed % FAR_EVERY == FAR_REMAINDER {
        return Some(far(seed, r));
    }
    if seed % FOCUS_EVERY != FOCUS_REMAINDER {
        return None;
    }
    let mut plan = calm(seed, r);
    match r.pick(&Theme::ALL) {
        Theme::Clocks => clocks(&mut plan, r),
        Theme::HeldTime => {
            plan.heal_at = 20 * SECOND;
            plan.think = r.pick(&[200, 400]) * MILLISECOND;
            plan.liars = vec![LiarPlan { clock_permille: Some(r.pick(&[50, 100])), ..leader() }];
        }
        Theme::Sizes => sizes(&mut plan, r),
        Theme::Neglect => neglect(&mut plan, r),
        Theme::SlowLeader => slow_leader(&mut plan, r),
    }
    Some(plan)
}

/// The cluster and the clients of this seed, without anything that goes wrong.
fn calm(seed: u64, r: &mut Random) -> Plan {
    let (delay_min, delay_max) = r.pick(&[(50, 150), (100, 500)]);
    Plan {
        ed25519: false,
        rotation: 0,
        network: NetworkPlan { delay_min, delay_max, ..NetworkPlan::calm() },
        disk: r.pick(&[(20, 80), (100, 400)]),
        storage: StoragePlan::default(),
        clocks: r.pick(&[(0, 0), (5 * MILLISECOND, 100)]),
        liars: Vec::new(),
        faults: Vec::new(),
        speed: SpeedPlan::default(),
        linear_clients: 2,
        busy_clients: 1,
        after_calm: true,
        ..Plan::wide(seed)
    }
}

/// Every message takes seconds, for minutes, and nothing else is wrong.
fn far(seed: u64, r: &mut Random) -> Plan {
    let (begin, length) = (SECOND, 300 * SECOND);
    let delay = r.between(2, 6) * SECOND;
    let (faults, heal_at) = (vec![(begin, Fault::SlowNetwork { delay, length })], begin + length);
    Plan { faults, heal_at, think: SECOND, ..calm(seed, r) }
}

/// A liar that leads first.
fn leader() -> LiarPlan {
    let (interval, behaves_until) = (20 * MILLISECOND, SECOND / 2);
    LiarPlan { replica: 0, keeps_seat: true, interval, behaves_until, ..LiarPlan::default() }
}

/// Links that go down for a moment, some at once, make replicas leave views before any time-out.
fn clocks(plan: &mut Plan, r: &mut Random) {
    (plan.link_hints, plan.think, plan.heal_at) = (true, 20 * MILLISECOND, 6 * SECOND);
    let replica = r.index(plan.replicas);
    plan.liars = vec![LiarPlan { replica, pushes_time: true, interval: 5 * MILLISECOND, ..leader() }];
    let mut at = SECOND / 2;
    while at < plan.heal_at {
        for _ in 0..r.between(1, 4) {
            let (side, length) = (1 << r.index(plan.replicas), r.between(5, 40) * MILLISECOND);
            plan.faults.push((at, Fault::Partition { side, one_way: false, length }));
            at += r.between(1, 10) * MILLISECOND;
        }
        at += r.between(100, 400) * MILLISECOND;
    }
}

/// Clients that are near ask for more than the links between replicas carry: blocks wait in front of them, votes overtake
/// their pieces, and rooms are full.
fn sizes(plan: &mut Plan, r: &mut Random) {
    const KIB: u32 = 1 << 10;
    plan.limits =
        Limits { operation_bytes: 256 * KIB, frame_bytes: 320 * KIB, block_bytes: 384 * KIB, ..Limits::default() };
    (plan.speed.bandwidth, plan.speed.clients_near) = (r.between(8_000, 12_500), true);
    (plan.busy_clients, plan.large, plan.large_permille) = (3, 100, 900);
    (plan.think, plan.heal_at) = (20 * MILLISECOND, 4 * SECOND);
}

/// All replicas know each request, since the leader answers no client, and there is one at a time: none waits for a block
/// before its own, and each is decided just before the shortest time-out.
fn slow_leader(plan: &mut Plan, r: &mut Random) {
    (plan.schedule, plan.everything, plan.administrator) = (Schedule::Sequential, false, None);
    (plan.linear_clients, plan.busy_clients, plan.plain) = (1, 0, true);
    plan.marks = (4_096, 5 * SECOND);
    (plan.think, plan.heal_at) = (0, 6 * SECOND);
    plan.liars = vec![LiarPlan { drags: r.between(118, 135) * MILLISECOND, mute: true, ..leader() }];
}

fn neglect(plan: &mut Plan, r: &mut Random) {
    (plan.think, plan.heal_at) = (20 * MILLISECOND, 8 * SECOND);
    let client = r.index(plan.linear_clients + plan.busy_clients);
    plan.liars = vec![LiarPlan { censors: Some(client), ..leader() }];
    if r.chance(500) {
        let (from, heard) = (plan.replicas + client, r.between(1, plan.replicas as u64 - 1) as usize);
        let (at, length) = (SECOND / 2, plan.heal_at - SECOND / 2);
        let unheard = (1..plan.replicas).filter(|to| *to != heard);
        plan.faults.extend(unheard.map(|to| (at, Fault::Clog { from, to, length })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_theme_is_drawn_often_in_a_world_that_stays_within_its_bounds() {
        let (far, plans): (Vec<Plan>, Vec<Plan>) = (0..500).filter_map(plan).partition(Plan::is_far);
        assert_eq!((far.len(), plans.len()), (10, 100));
        let often = |what: fn(&Plan) -> bool| assert!(plans.iter().filter(|plan| what(plan)).count() >= 10);
        often(|plan| plan.liars.iter().any(|liar| liar.pushes_time) && !plan.is_calm());
        often(|plan| plan.liars.iter().any(|liar| liar.clock_permille.is_some()) && plan.is_calm());
        often(|plan| plan.liars.is_empty() && plan.large > 0 && plan.is_calm());
        often(|plan| plan.liars.iter().any(|liar| liar.censors.is_some()) && plan.is_calm());
        often(|plan| plan.liars.iter().any(|liar| liar.drags > 0) && plan.is_calm());
        assert!(plans.iter().all(|plan| plan.faults.is_sorted_by_key(|(at, _)| *at)));
    }
}
