//! Slowness, size and clocks: what a machine has to work for, what a link has to carry, and how far time may bend.
//!
//! ```text
//!   event ──> busy? ── inbox ──(free)──> handled, which takes so long for its signatures and bytes ──> what it sends
//! ```

use super::World;
use super::event::Event;
use crate::plan::SECOND;
use crate::{Property, SpeedPlan};
use unisono_types::Bounds;
use unisono_types::bounds::MEMBERS_MAX;

/// How far it may lag behind the smallest one when everything has healed and entries are decided.
const BEHIND_MAX: u64 = 30 * SECOND;

impl World {
    /// The replica is at work: this waits.
    pub(super) fn enqueue(&mut self, replica: usize, event: Event) {
        self.counts.stress.queued_events += 1;
        let host = &mut self.hosts[replica];
        host.inbox.push(event);
        if !host.waking {
            host.waking = true;
            let at = host.busy_until;
            self.schedule(at, Event::Free { replica });
        }
    }

    /// The replica has done what it was given: the next.
    pub(super) fn work_off(&mut self, replica: usize) {
        self.hosts[replica].waking = false;
        if self.hosts[replica].paused {
            let mut waiting = std::mem::take(&mut self.hosts[replica].inbox);
            self.hosts[replica].backlog.splice(0..0, std::iter::from_fn(|| waiting.pop()));
            return;
        }
        while self.hosts[replica].busy_until <= self.now {
            let Some(event) = self.hosts[replica].inbox.pop() else { return };
            self.happen(event);
        }
        if !self.hosts[replica].inbox.is_empty() && !self.hosts[replica].waking {
            self.hosts[replica].waking = true;
            let at = self.hosts[replica].busy_until;
            self.schedule(at, Event::Free { replica });
        }
    }

    /// When something that this replica sends now leaves it: behind the work that it comes from.
    pub(super) fn leaves_at(&self, replica: usize) -> u64 {
        self.now.max(self.hosts[replica].busy_until)
    }

    /// Whether a message between replicas may travel. Correct replicas send none that may not.
    pub(super) fn fits(&mut self, from: usize, to: usize, bytes: usize) -> bool {
        let limit = Bounds::new(&self.plan.limits, MEMBERS_MAX).link;
        if bytes > limit && self.hosts[from].liar.is_none() {
            let text = format!("replica {from} sends {bytes} bytes to replica {to}, whose link takes {limit}");
            self.checker.report(Property::MessageLimits, text);
        }
        bytes <= limit
    }

    /// Whether this run counts what machines and links take.
    #[must_use]
    pub fn takes_time(&self) -> bool {
        self.plan.speed != SpeedPlan::default()
    }

    /// Wall clocks jump.
    pub(super) fn jump(&mut self, replicas: u64, by: i64) {
        self.counts.stress.clock_jumps += 1;
        self.remember_clocks();
        for replica in (0..self.hosts.len()).filter(|replica| replicas & (1 << replica) != 0) {
            self.hosts[replica].jumped += by;
            self.hosts[replica].clock.shift(by);
        }
    }

    /// Before a clock is set.
    pub(super) fn remember_clocks(&mut self) {
        self.greatest_clock = (self.greatest_correct_clock(), self.now);
    }

    pub(super) fn greatest_correct_clock(&self) -> u64 {
        let clocks = self.correct().map(|replica| self.hosts[replica].clock.read(self.now).wall);
        // Agreed time may go on from where clocks that were set back had taken it.
        let before = self.greatest_clock.0 + (self.now - self.greatest_clock.1);
        clocks.max().unwrap_or_default().max(before)
    }

    /// At the end of a run: entries that were decided just now stand at the time of now.
    pub(super) fn check_agreed_time_follows(&mut self) {
        let clocks = self.correct().map(|replica| self.hosts[replica].clock.read(self.now).wall);
        let smallest = clocks.min().unwrap_or_default();
        let recent = self.agreed > 0 && self.decided_at + SECOND >= self.now;
        if recent && self.agreed + BEHIND_MAX < smallest {
            let behind = (smallest - self.agreed) / SECOND;
            let text = format!("agreed time is {behind} s behind every correct clock, although entries are decided");
            self.checker.report(Property::AgreedTime, text);
        }
    }

    /// A correct replica refuses what another one sent, or suspects it.
    pub(super) fn accuse(&mut self, replica: usize, accused: usize, reason: &str) {
        let silenced = replica == accused && self.hosts[replica].lost;
        if !silenced && self.hosts[replica].liar.is_none() && self.hosts[accused].liar.is_none() {
            let text = format!("replica {replica} accuses replica {accused}, which is correct: {reason}");
            self.checker.report(Property::NoFalseAccusation, text);
        }
    }
}
