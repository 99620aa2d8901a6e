//! How far the others and the disk are, as measured here. Time-outs follow it.
//!
//! ```text
//!   me  ── Probe(my monotonic time) ──>  peer         once a second and when a link comes up
//!       <──────── Echo(the same) ──────               round trip = now - that
//! ```
//! What counts is the round trip to a quorum: the (q-1)-th shortest. f liars cannot make it longer than the longest of a
//! correct peer, so a slow leader gains no patience by answering late. A probe without an answer counts with its age:
//! when no quorum answers, nobody's leadership can be judged. The own sync is measured because a leader's is likely to
//! be as long; a slow disk of my own makes me more patient and nothing else.
//! Integers only; an estimate moves half way to each new sample, so old conditions are forgotten within seconds.

use super::{Instance, Message, Rules};
use crate::Output;
use alloc::{collections::BTreeMap, vec::Vec};
use unisono_types::{ReplicaId, Time};

/// Rounds (a round trip and two syncs) that an entry may need: it is shown to the leader at half time, then proposed,
/// written and voted for behind what is being written.
const ROUNDS: u64 = 4;
/// A peer that leaves a probe without an answer for so long is taken to be down: twice the time between two probes.
const SILENT_MICROS: u64 = 2_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct RoundTrip {
    micros: u64,
    /// When the newest answered probe was sent. Older answers are about the past.
    answered: u64,
    /// When the oldest probe behind it was sent.
    waiting: Option<u64>,
}

impl RoundTrip {
    fn at(&self, now: u64) -> u64 {
        self.micros.max(self.waiting.map_or(0, |since| now.saturating_sub(since)))
    }
}

/// See the module. Bounded by the membership.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Distance {
    peers: BTreeMap<ReplicaId, RoundTrip>,
    /// When the first probe was sent. Echoes of earlier ones are for the process before this one, whose clock may have
    /// been another.
    first: Option<u64>,
    /// When the newest probe was sent.
    probed: u64,
    /// To a quorum, as of the newest probe or answer.
    round_trip: u64,
    /// From asking the register to its durable answer.
    sync: u64,
    asked: Option<u64>,
}

impl Distance {
    pub(super) const fn register_asked(&mut self, now: Time) {
        self.asked = Some(now.monotonic);
    }

    pub(super) fn register_answered(&mut self, now: Time) {
        if let Some(asked) = self.asked.take() {
            self.sync = half_way(self.sync, now.monotonic.saturating_sub(asked));
        }
    }

    /// This replica did not run for so long: answers may have come meanwhile.
    pub(super) fn excuse(&mut self, micros: u64) {
        for peer in self.peers.values_mut() {
            peer.waiting = peer.waiting.map(|since| since + micros);
        }
    }

    /// Whether this peer, or I myself, has answered a probe of late.
    pub(super) fn is_answered_by(&self, peer: ReplicaId, now: Time) -> bool {
        let silent = |peer: &RoundTrip| peer.at(now.monotonic) > SILENT_MICROS.max(2 * peer.micros);
        !self.peers.get(&peer).is_some_and(silent)
    }

    /// The round trip to a quorum.
    pub(super) const fn round_trip_micros(&self) -> u64 {
        self.round_trip
    }

    /// What is needed before anybody can be called slow.
    pub(super) fn needed_micros(&self, now: Time) -> u64 {
        let sync = self.sync.max(self.asked.map_or(0, |asked| now.monotonic.saturating_sub(asked)));
        ROUNDS.saturating_mul(self.round_trip.saturating_add(sync.saturating_mul(2)))
    }

    fn measure(&mut self, peers_needed: usize, now: Time) {
        let mut all: Vec<u64> = self.peers.values().map(|peer| peer.at(now.monotonic)).collect();
        all.sort_unstable();
        self.round_trip = peers_needed.checked_sub(1).and_then(|last| all.get(last).copied()).unwrap_or(0);
    }
}

const fn half_way(from: u64, to: u64) -> u64 {
    from / 2 + to / 2
}

impl<R: Rules> Instance<R> {
    /// Asks everyone for an echo.
    pub(super) fn probe(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        let at = now.monotonic.max(1);
        for peer in self.settings.membership.ids().filter(|peer| *peer != self.settings.id) {
            self.distance.peers.entry(peer).or_default().waiting.get_or_insert(at);
        }
        self.distance.first.get_or_insert(at);
        self.distance.probed = at;
        self.measure_distance(now);
        outbox.push(Output::Broadcast(Message::Probe(at)));
    }

    pub(super) fn receive_echo(&mut self, now: Time, from: ReplicaId, sent: u64) {
        let (first, newest) = (self.distance.first, self.distance.probed);
        let Some(peer) = self.distance.peers.get_mut(&from) else { return };
        let is_mine = first.is_some_and(|first| (first..=newest).contains(&sent));
        if sent <= peer.answered || !is_mine || sent > now.monotonic {
            return;
        }
        peer.micros = half_way(peer.micros, now.monotonic - sent);
        peer.answered = sent;
        peer.waiting = (sent < newest).then_some(sent + 1);
        self.measure_distance(now);
        self.calm_down(now);
    }

    fn measure_distance(&mut self, now: Time) {
        self.distance.measure(self.settings.membership.quorum().commit() - 1, now);
    }
}
