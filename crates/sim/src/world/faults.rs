//! Faults of a world: how they begin, how they end, and who notices.

use super::event::Event;
use super::{World, connection, draw_drift, draw_skew};
use crate::core::{ActorInput, Input};
use crate::{Clock, Fault, Liar};
use unisono_types::ReplicaId;

impl World {
    pub(super) fn start(&mut self, replica: usize) {
        self.trace.line(self.now, || format!("replica {replica} starts"));
        let count = self.hosts[replica].liar.as_ref().map_or(1, Liar::cores);
        let life_start = self.random.below(1 << 40);
        let drift = draw_drift(&self.plan, &mut self.random);
        let skew = draw_skew(&self.plan, &mut self.random);
        self.remember_clocks();
        let host = &mut self.hosts[replica];
        host.life += 1;
        host.up = true;
        host.steps_pending = [false; 2];
        host.clock = Clock::starting_at(self.now, life_start, drift, skew + host.jumped);
        host.busy_until = self.now;
        host.seated = self.now;
        if self.plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::LoseLog { .. })) {
            let image = host.disk.image(0);
            host.older = std::mem::replace(&mut host.newest, image);
        }
        for core in 0..count {
            if let Err(error) = self.open_core(replica, core) {
                return self.storage_failed(replica, &error);
            }
        }
        self.checker.started(replica);
        for core in 0..count {
            self.input(replica, core, Input::Start);
        }
        self.links_changed(replica, true);
    }

    /// Power loss.
    pub(super) fn crash(&mut self, replica: usize) {
        if self.hosts[replica].up {
            self.counts.faults.crash += 1;
            self.end_process(replica, true);
        }
    }

    /// The process ends, by a loss of power or by itself; what it wrote and did not sync the system still has then.
    pub(super) fn end_process(&mut self, replica: usize, power: bool) {
        if power {
            self.lose_power(replica);
        }
        let host = &mut self.hosts[replica];
        self.counts.outside.interrupted += host.asked.values().filter(|life| **life == host.life).count() as u64;
        host.up = false;
        host.paused = false;
        host.backlog.clear();
        host.inbox.clear();
        host.cores.clear();
        host.stores.clear();
        host.timers.clear();
        self.links_changed(replica, false);
    }

    /// Somebody puts an older copy in place of a replica's log, or nothing.
    fn lose_log(&mut self, replica: usize, older: bool) {
        self.crash(replica);
        self.counts.faults.lost_log += 1;
        let host = &mut self.hosts[replica];
        let image = if older { host.older.clone() } else { Default::default() };
        host.disk.replace(0, image);
    }

    /// The process is killed, and somebody puts a copy of its log back that was made before.
    fn put_back(&mut self, replica: usize) {
        // What a loss of power took from the mark is not there when the copy is looked at.
        if !self.hosts[replica].up {
            return;
        }
        self.counts.faults.lost_log += 1;
        self.end_process(replica, false);
        let host = &self.hosts[replica];
        host.disk.replace(0, host.copy.clone());
    }

    pub(super) fn resume(&mut self, replica: usize) {
        let host = &mut self.hosts[replica];
        host.paused = false;
        for event in std::mem::take(&mut host.backlog) {
            self.schedule(self.now, event);
        }
    }

    /// Everybody who has a connection to `replica`, and it itself, notices that it went down or came up.
    pub(super) fn links_changed(&mut self, replica: usize, up: bool) {
        if !self.plan.link_hints {
            return;
        }
        for peer in 0..self.hosts.len() {
            let both_up = self.hosts[peer].up && self.hosts[replica].up;
            if peer == replica || (up && !both_up) {
                continue;
            }
            self.link_hint(peer, replica, up);
            if self.hosts[replica].up {
                self.link_hint(replica, peer, up);
            }
        }
        for client in 0..self.actors.len() {
            let at = self.notices_at(self.hosts.len() + client, replica);
            self.schedule(at, Event::ClientLink { client, replica, up });
        }
    }

    /// When a node notices what becomes of its link to a replica: in the order in which it happens.
    fn notices_at(&mut self, node: usize, replica: usize) -> u64 {
        let at = self.now + self.random.between(100, 5_000);
        let latest = self.noticed.entry((node, replica)).or_default();
        *latest = at.max(*latest);
        *latest
    }

    pub(super) fn link_hint(&mut self, at_replica: usize, peer: usize, up: bool) {
        let host = &self.hosts[at_replica];
        let (life, cores) = (host.life, host.cores.len());
        let at = self.notices_at(at_replica, peer);
        for core in 0..cores {
            let input = Box::new(Input::Link { peer: ReplicaId(peer as u16), up });
            self.schedule(at, Event::Inner { replica: at_replica, core, life, input });
        }
    }

    pub(super) fn begin(&mut self, fault: &Fault) {
        self.trace.line(self.now, || format!("fault begins: {fault:?}"));
        let members = |set: u64, count: usize| (0..count).filter(move |index| set & (1 << index) != 0);
        let length = match fault {
            Fault::Crash { replicas, down } => {
                members(*replicas, self.hosts.len()).for_each(|replica| self.crash(replica));
                *down
            }
            Fault::LoseLog { replica, older, down } => {
                self.lose_log(*replica, *older);
                *down
            }
            Fault::CopyLog { replica } => {
                let host = &mut self.hosts[*replica];
                host.copy = host.disk.image(0);
                return;
            }
            Fault::PutBack { replica, down } => {
                self.put_back(*replica);
                *down
            }
            Fault::Pause { replica, length } => {
                self.counts.faults.pause += 1;
                self.hosts[*replica].paused = true;
                *length
            }
            Fault::Partition { side, one_way, length } => {
                self.counts.faults.partition += 1;
                for (from, to) in self.divided(*side) {
                    self.network.cut(from, to);
                    if !one_way {
                        self.network.cut(to, from);
                    }
                    if self.plan.link_hints && from < self.hosts.len() && to < self.hosts.len() {
                        self.link_hint(to, from, false);
                    }
                }
                *length
            }
            Fault::Clog { from, to, length } => {
                self.network.clog(*from, *to, self.now + length);
                return;
            }
            Fault::SlowLinks { node, delay, length } => {
                self.network.slow_down(*node, *delay);
                *length
            }
            Fault::SlowDisk { replica, delay, length } => {
                self.hosts[*replica].disk_slowness = *delay;
                *length
            }
            Fault::WallClock { replica, skew } => {
                self.remember_clocks();
                let host = &mut self.hosts[*replica];
                host.clock.set_skew(*skew + host.jumped);
                return;
            }
            Fault::ClockJump { replicas, by, length } => {
                self.jump(*replicas, *by);
                if *length == 0 {
                    return;
                }
                *length
            }
            Fault::SlowNetwork { delay, length } => {
                self.counts.stress.slow_network_seconds += length / crate::SECOND;
                self.network.slow_everything_down(*delay);
                *length
            }
            Fault::ClientCrash { client } => {
                self.crash_client(*client);
                return;
            }
        };
        self.schedule(self.now + length, Event::End(fault.clone()));
    }

    pub(super) fn end(&mut self, fault: &Fault) {
        self.trace.line(self.now, || format!("fault ends: {fault:?}"));
        match fault {
            Fault::Crash { replicas, .. } => {
                for replica in (0..self.hosts.len()).filter(|index| replicas & (1 << index) != 0) {
                    if !self.hosts[replica].up {
                        self.start(replica);
                    }
                }
            }
            Fault::LoseLog { replica, .. } | Fault::PutBack { replica, .. } => self.restart(*replica),
            Fault::Pause { replica, .. } => self.resume(*replica),
            Fault::Partition { side, .. } => {
                for (from, to) in self.divided(*side) {
                    self.network.mend(from, to);
                    self.network.mend(to, from);
                    if self.plan.link_hints && from < self.hosts.len() && to < self.hosts.len() {
                        self.link_hint(to, from, true);
                    }
                }
            }
            Fault::SlowLinks { node, .. } => self.network.slow_down(*node, 0),
            Fault::ClockJump { replicas, by, .. } => self.jump(*replicas, -by),
            Fault::SlowNetwork { .. } => self.network.slow_everything_down(0),
            Fault::SlowDisk { replica, .. } => self.hosts[*replica].disk_slowness = 0,
            Fault::CopyLog { .. } | Fault::Clog { .. } | Fault::WallClock { .. } | Fault::ClientCrash { .. } => {}
        }
    }

    pub(super) fn divided(&self, side: u64) -> Vec<(usize, usize)> {
        let nodes = self.hosts.len() + self.actors.len();
        let inside = |node: &usize| side & (1 << node) != 0;
        let pairs = (0..nodes)
            .filter(inside)
            .flat_map(|from| (0..nodes).filter(move |to| !inside(to)).map(move |to| (from, to)));
        pairs.collect()
    }

    pub(super) fn crash_client(&mut self, client: usize) {
        self.counts.faults.client_crash += 1;
        self.actors[client].timer += 1;
        let old = connection(client, self.actors[client].life);
        self.actors[client].life += 1;
        for replica in 0..self.hosts.len() {
            let (life, cores) = (self.hosts[replica].life, self.hosts[replica].cores.len());
            for core in 0..cores {
                let at = self.now + self.random.between(100, 5_000);
                self.schedule(at, Event::Inner { replica, core, life, input: Box::new(Input::Disconnected(old)) });
            }
        }
        self.client_input(client, ActorInput::Crash);
    }

    /// Begins a fault now; it ends as it says. For tests that write their own story.
    pub fn inflict(&mut self, fault: &Fault) {
        self.begin(fault);
    }

    /// Power loss of one replica, until [`World::restart`].
    pub fn power_off(&mut self, replica: usize) {
        self.crash(replica);
    }

    /// Starts a replica that is down.
    pub fn restart(&mut self, replica: usize) {
        if !self.hosts[replica].up {
            self.start(replica);
        }
    }
}
