//! The simulated network: directed links that lose, double, delay, reorder, clog and part.
//!
//! It decides when copies of a message arrive, never what is in them (that is a liar's business). Harsher than the
//! TCP links of the real host, which lose only with their connection: what survives here survives there.

use crate::{NetworkPlan, Random};

/// A machine: replicas first, clients behind them.
pub type Node = usize;

/// At most 64 machines, so that one word says whom a machine cannot reach.
pub const NODES_MAX: usize = 64;

/// Larger messages travel in pieces of this size, and smaller ones between these.
pub const PIECE_BYTES: usize = 64 << 10;

/// Bytes that wait in front of one link: more is dropped.
const QUEUE_BYTES_MAX: u64 = 64 << 20;

/// All links of a cluster.
#[derive(Debug)]
pub struct Network {
    plan: NetworkPlan,
    nodes: usize,
    cut: Vec<u64>,
    clogged_until: Vec<u64>,
    /// Of small messages and of large ones, which they overtake.
    newest_arrival: [Vec<u64>; 2],
    slow: Vec<u64>,
    /// How much longer everything takes.
    slow_everywhere: u64,
    /// Bytes that a machine's links carry in a millisecond; 0: as many as there are.
    bandwidth: Vec<u64>,
    /// Machines from this one on have links that carry as much as there is.
    unlimited_from: Node,
    /// When a link has sent what it was given.
    sent: Vec<u64>,
    healed: bool,
    /// Messages lost by chance.
    pub lost: u64,
    /// Messages doubled.
    pub doubled: u64,
    /// Messages that ran into a partition.
    pub cut_off: u64,
    /// Messages that waited for those before them to be sent.
    pub queued: u64,
    /// Messages that found no room in a link's queue.
    pub overflowed: u64,
}

impl Network {
    /// Links among `nodes` machines.
    ///
    /// # Panics
    /// With more than [`NODES_MAX`] of them: a mistake of the simulation's author.
    #[must_use]
    pub fn new(plan: NetworkPlan, nodes: usize) -> Self {
        assert!(nodes <= NODES_MAX, "{nodes} machines, at most {NODES_MAX} are possible");
        Self {
            plan,
            nodes,
            cut: vec![0; nodes],
            clogged_until: vec![0; nodes * nodes],
            newest_arrival: [vec![0; nodes * nodes], vec![0; nodes * nodes]],
            slow: vec![0; nodes],
            slow_everywhere: 0,
            bandwidth: vec![0; nodes],
            unlimited_from: usize::MAX,
            sent: vec![0; nodes * nodes],
            healed: false,
            lost: 0,
            doubled: 0,
            cut_off: 0,
            queued: 0,
            overflowed: 0,
        }
    }

    /// One more machine; its number.
    pub fn join(&mut self) -> Node {
        let (old, new) = (self.nodes, self.nodes + 1);
        assert!(new <= NODES_MAX, "at most {NODES_MAX} machines are possible");
        let widen = |table: &[u64]| {
            let mut wide = vec![0; new * new];
            for from in 0..old {
                wide[from * new..from * new + old].copy_from_slice(&table[from * old..(from + 1) * old]);
            }
            wide
        };
        self.clogged_until = widen(&self.clogged_until);
        self.newest_arrival = self.newest_arrival.each_ref().map(|arrivals| widen(arrivals));
        self.sent = widen(&self.sent);
        self.cut.push(0);
        self.slow.push(0);
        self.bandwidth.push(0);
        self.nodes = new;
        old
    }

    /// From now on the links of `node` carry so many bytes in a millisecond; 0: as many as there are.
    pub fn limit(&mut self, node: Node, bytes_per_millisecond: u64) {
        self.bandwidth[node] = bytes_per_millisecond;
    }

    /// What `node` and those behind it send and are sent needs no bandwidth.
    pub const fn unlimit_from(&mut self, node: Node) {
        self.unlimited_from = node;
    }

    /// When the copies of a message of so many bytes sent now arrive: none, one or two of them.
    pub fn carry(&mut self, now: u64, from: Node, to: Node, bytes: usize, random: &mut Random) -> [Option<u64>; 2] {
        match self.send(now, from, to, bytes) {
            Some(sent) => self.route(sent, from, to, bytes, random),
            None => [None; 2],
        }
    }

    /// Bytes that the link carries in a millisecond, if that is limited.
    pub fn bandwidth_between(&self, from: Node, to: Node) -> Option<u64> {
        let narrow = [self.bandwidth[from], self.bandwidth[to]].into_iter().filter(|limit| *limit > 0).min();
        narrow.filter(|_| from.max(to) < self.unlimited_from)
    }

    /// How much of a message of so many bytes has been sent how long before its end, at these intervals.
    pub fn portions(
        &self,
        from: Node,
        to: Node,
        bytes: usize,
        interval: u64,
    ) -> impl Iterator<Item = (u64, usize)> + use<> {
        let narrow = self.bandwidth_between(from, to).unwrap_or(u64::MAX);
        let length = bytes as u64 * 1_000 / narrow;
        (0..length).step_by(interval as usize).map(move |time| (length - time, (time * narrow / 1_000) as usize))
    }

    /// When the last byte is on its way; nothing if the queue is full.
    fn send(&mut self, now: u64, from: Node, to: Node, bytes: usize) -> Option<u64> {
        let Some(narrow) = self.bandwidth_between(from, to) else { return Some(now) };
        let sent = &mut self.sent[from * self.nodes + to];
        let waits = sent.saturating_sub(now);
        if waits * narrow / 1_000 > QUEUE_BYTES_MAX {
            self.overflowed += 1;
            return None;
        }
        self.queued += u64::from(waits > 0);
        let own = bytes as u64 * 1_000 / narrow;
        *sent = now + waits + own;
        let piece = PIECE_BYTES as u64 * 1_000 / narrow;
        Some(now + own + if bytes <= PIECE_BYTES { waits.min(piece) } else { waits })
    }

    /// When the copies of a message that is on its way now arrive: none, one or two of them.
    pub fn route(&mut self, now: u64, from: Node, to: Node, bytes: usize, random: &mut Random) -> [Option<u64>; 2] {
        if self.cut[from] & (1 << to) != 0 {
            self.cut_off += 1;
            return [None; 2];
        }
        if !self.healed && random.chance(self.plan.loss_permille) {
            self.lost += 1;
            return [None; 2];
        }
        let first = Some(self.arrival(now, from, to, bytes, random));
        if self.healed || !random.chance(self.plan.duplication_permille) {
            return [first, None];
        }
        self.doubled += 1;
        [first, Some(self.arrival(now, from, to, bytes, random))]
    }

    fn arrival(&mut self, now: u64, from: Node, to: Node, bytes: usize, random: &mut Random) -> u64 {
        let link = from * self.nodes + to;
        let plan = &self.plan;
        let mut delay = random.between(plan.delay_min, plan.delay_max) + self.slow[from] + self.slow[to];
        delay += self.slow_everywhere;
        if !self.healed && random.chance(plan.straggler_permille) {
            delay += random.below(plan.straggler_delay);
        }
        let mut at = (now + delay).max(self.clogged_until[link]);
        if !plan.reorder {
            let newest = &mut self.newest_arrival[usize::from(bytes > PIECE_BYTES)][link];
            at = at.max(*newest);
            *newest = at;
        }
        at
    }

    /// From now on nothing goes from `from` to `to`.
    pub fn cut(&mut self, from: Node, to: Node) {
        self.cut[from] |= 1 << to;
    }

    /// From now on messages go from `from` to `to` again.
    pub fn mend(&mut self, from: Node, to: Node) {
        self.cut[from] &= !(1 << to);
    }

    /// Whether nothing goes from `from` to `to`.
    #[must_use]
    pub fn is_cut(&self, from: Node, to: Node) -> bool {
        self.cut[from] & (1 << to) != 0
    }

    /// All partitions end.
    pub fn join_all(&mut self) {
        self.cut.fill(0);
    }

    /// What is sent from `from` to `to` is held back until `until`.
    pub fn clog(&mut self, from: Node, to: Node, until: u64) {
        self.clogged_until[from * self.nodes + to] = until;
    }

    /// Everything from and to `node` takes this much longer.
    pub fn slow_down(&mut self, node: Node, delay: u64) {
        self.slow[node] = delay;
    }

    /// Everything takes this much longer.
    pub const fn slow_everything_down(&mut self, delay: u64) {
        self.slow_everywhere = delay;
    }

    /// From now on nothing is lost, doubled, parted, clogged or late.
    pub fn heal(&mut self) {
        self.healed = true;
        self.join_all();
        self.clogged_until.fill(0);
        self.slow.fill(0);
        self.slow_everywhere = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> NetworkPlan {
        NetworkPlan {
            loss_permille: 300,
            duplication_permille: 500,
            delay_max: 900,
            reorder: true,
            ..NetworkPlan::calm()
        }
    }

    #[test]
    fn chances_are_kept_and_healing_ends_them() {
        let mut random = Random::new(3);
        let mut network = Network::new(plan(), 2);
        let arrived = |network: &mut Network, random: &mut Random| {
            (0..2_000).map(|_| network.route(0, 0, 1, 1, random).iter().flatten().count()).sum::<usize>()
        };
        let harsh = arrived(&mut network, &mut random);
        assert!((1_950..2_250).contains(&harsh), "0.7 * 1.5 of 2 000, not {harsh}");
        assert!(network.lost > 500 && network.doubled > 500);
        network.heal();
        assert_eq!(arrived(&mut network, &mut random), 2_000);
    }

    #[test]
    fn a_one_way_partition_cuts_one_way() {
        let mut random = Random::new(3);
        let mut network = Network::new(NetworkPlan::calm(), 3);
        network.cut(0, 1);
        assert_eq!(network.route(0, 0, 1, 1, &mut random), [None, None]);
        assert!(network.route(0, 1, 0, 1, &mut random)[0].is_some());
        network.join_all();
        assert!(network.route(0, 0, 1, 1, &mut random)[0].is_some());
    }

    #[test]
    fn without_reordering_a_link_is_first_in_first_out_even_behind_a_clog() {
        let mut random = Random::new(3);
        let mut network = Network::new(NetworkPlan { delay_max: 5_000, ..NetworkPlan::calm() }, 2);
        network.clog(0, 1, 40_000);
        let mut last = 0;
        for now in (0..100_000).step_by(1_000) {
            let at = network.route(now, 0, 1, 1, &mut random)[0].unwrap();
            assert!(at >= last && at >= 40_000);
            last = at;
        }
    }

    #[test]
    fn a_narrow_link_sends_one_message_after_the_other_and_drops_what_it_cannot_queue() {
        let mut random = Random::new(3);
        let mut network = Network::new(NetworkPlan { delay_min: 7, delay_max: 7, ..NetworkPlan::calm() }, 2);
        network.limit(1, 1 << 16);
        let mut arrival = |network: &mut Network, from, to, bytes| network.carry(0, from, to, bytes, &mut random)[0];
        assert_eq!(arrival(&mut network, 0, 1, 1 << 17), Some(2_007));
        assert_eq!(arrival(&mut network, 0, 1, 1 << 18), Some(6_007), "behind the one before");
        assert_eq!(arrival(&mut network, 0, 1, 1 << 15), Some(1_507), "behind one piece of those before");
        assert_eq!(arrival(&mut network, 1, 0, 1 << 15), Some(507), "the other direction is another link");
        assert!(arrival(&mut network, 0, 1, 65 << 20).is_some(), "what is alone is taken");
        assert_eq!(arrival(&mut network, 0, 1, 1), None);
        assert_eq!((network.queued, network.overflowed), (3, 1));
        let portions: Vec<_> = network.portions(0, 1, 1 << 18, 2_500).collect();
        assert_eq!(portions, [(4_000, 0), (1_500, 5 << 15)], "how long before its end how much has come");
    }

    #[test]
    fn a_machine_that_joins_disturbs_nobody() {
        let mut network = Network::new(NetworkPlan::calm(), 2);
        network.clog(1, 0, 77_000);
        network.cut(0, 1);
        assert_eq!(network.join(), 2);
        let mut random = Random::new(3);
        assert_eq!(network.route(0, 1, 0, 1, &mut random)[0], Some(77_000));
        assert!(network.is_cut(0, 1) && !network.is_cut(2, 1));
    }
}
