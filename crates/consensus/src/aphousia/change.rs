//! Leaving a view: patience, wishes, view changes. A wish is a plain signature; only the register makes leaving count.
//!
//! The timer runs iff an entry that this replica knows is undecided, or its view has decided nothing yet. It starts
//! anew only when the OLDEST of these entries is decided: what trickles past it does not excuse a leader.

use super::message::{EnteredView, Message};
use super::{DOUBLINGS_MAX, Instance, Rules, TIMEOUT_MICROS_MIN, timers};
use crate::{Complaints, Output};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use unisono_types::{Digest, RegisterView, ReplicaId, Signed, Time, View, ViewChange, VotePosition, Wish};

/// Longest retry interval, however long the round trips: a healed partition is noticed within this time.
const RETRY_MICROS_MAX: u64 = 5_000_000;

/// What replicas said about leaving. One wish and one view change each: the newest. Bounded by the membership.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Changes {
    /// With when they were last heard.
    wishes: BTreeMap<ReplicaId, (Signed<Wish>, u64)>,
    changes: BTreeMap<ReplicaId, ViewChange>,
    /// Peers whose link is down.
    down: BTreeSet<ReplicaId>,
    /// Bytes of the large message that is on its way from each peer, and when that was last said.
    arriving: BTreeMap<ReplicaId, (usize, u64)>,
    /// Views entered without a decision, for [`Rules::doublings`]. A decision brings it to three at most and then takes
    /// one away each time.
    backoff: u32,
    /// The longest time-out, not doubled, since it was doubled last.
    backoff_from: u64,
    /// Repetitions since the last progress.
    retries: u32,
    pub(super) complaints: Complaints,
}

/// From here on a timer that fires late shows a replica that did not run, and not the grain of its host.
const PAUSE_MICROS_MIN: u64 = 20_000;

/// A wish to leave the present view that is not repeated for so long has lost its reason, two repetitions at their slowest. Else a
/// slow moment of one replica and one of another a day later would replace a leader.
const WISH_MICROS: u64 = 2 * RETRY_MICROS_MAX;

/// A message of which nothing has come for so long is not on its way: its link may be gone.
const ARRIVING_MICROS: u64 = 1_000_000;

/// The wait for the oldest entry.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Patience {
    pub(super) since: u64,
    /// Arrival of the entry that is waited for; `None` while only the view is unfinished.
    pub(super) subject: Option<u64>,
    forwarded: bool,
    lost: bool,
    /// Bytes of the first blocks decided meanwhile, and how many blocks that were.
    passed_bytes: usize,
    passed: usize,
    /// Bytes of large messages that have come from the leader meanwhile: what is in them may not be decided yet.
    arrived_bytes: usize,
}

impl Changes {
    /// `from`: who sends it.
    pub(super) fn add_wish(&mut self, from: ReplicaId, wish: Signed<Wish>, now: u64) {
        if self.is_new_wish(from, &wish, now) {
            self.wishes.insert(wish.replica, (wish, now));
        }
    }

    pub(super) fn add_change(&mut self, from: ReplicaId, entered: EnteredView, now: u64) {
        entered.wishes.into_iter().for_each(|wish| self.add_wish(from, wish, now));
        let change = entered.change;
        if self.changes.get(&change.replica).is_none_or(|known| known.view < change.view) {
            self.changes.insert(change.replica, change);
        }
    }

    /// Whether [`Self::add_wish`] would keep it: it is for a later view, or repeated after a while by who signed it.
    pub(super) fn is_new_wish(&self, from: ReplicaId, wish: &Signed<Wish>, now: u64) -> bool {
        self.wishes.get(&wish.replica).is_none_or(|(known, heard)| {
            let same = known.statement.view == wish.statement.view && from == wish.replica;
            known.statement.view < wish.statement.view || (same && now.saturating_sub(*heard) > WISH_MICROS / 20)
        })
    }

    /// Whether [`Self::add_change`] would keep anything of it.
    pub(super) fn is_new_change(&self, from: ReplicaId, entered: &EnteredView, now: u64) -> bool {
        let known = self.changes.get(&entered.change.replica);
        known.is_none_or(|known| known.view < entered.change.view)
            || entered.wishes.iter().any(|wish| self.is_new_wish(from, wish, now))
    }

    pub(super) fn of_view(&self, view: RegisterView) -> Vec<ViewChange> {
        self.changes.values().filter(|change| change.view == view).copied().collect()
    }

    /// Whether a view change names this as the last vote.
    pub(super) fn is_last(&self, position: &VotePosition) -> bool {
        self.changes.values().any(|change| change.last == *position)
    }

    /// The replicas whose view change names this block as its last vote.
    pub(super) fn last_voters(&self, hash: &Digest) -> impl Iterator<Item = ReplicaId> {
        self.changes.values().filter(move |change| change.last.hash == *hash).map(|change| change.replica)
    }

    /// Whether another replica than `me` wishes to leave this view.
    pub(super) fn another_wishes_on(&self, me: ReplicaId, view: View, now: u64) -> bool {
        let stands = |(wish, heard): &(Signed<Wish>, u64)| {
            wish.replica != me && wish.statement.view > view && now.saturating_sub(*heard) <= WISH_MICROS
        };
        self.wishes.values().any(stands)
    }

    /// The greatest view that `count` replicas wish for or beyond, with those wishes. Those for views up to `entered` have had
    /// their effect and stay.
    fn wished(&self, count: usize, entered: View, now: u64) -> Option<(View, Vec<Signed<Wish>>)> {
        let stands = |(wish, heard): &&(Signed<Wish>, u64)| {
            wish.statement.view <= entered || now.saturating_sub(*heard) <= WISH_MICROS
        };
        let mut wishes: Vec<Signed<Wish>> = self.wishes.values().filter(stands).map(|(wish, _)| *wish).collect();
        wishes.sort_by_key(|wish| core::cmp::Reverse(wish.statement.view));
        wishes.truncate(count);
        let least = wishes.last().filter(|_| wishes.len() == count)?.statement.view;
        wishes.sort_by_key(|wish| wish.replica);
        Some((least, wishes))
    }
}

impl<R: Rules> Instance<R> {
    /// The view to be in: f+1 wishes, a valid NewView, or a decision of a later view; never an opinion alone.
    pub(super) fn target_view(&self) -> View {
        let wished = self.wished().map(|(view, _)| view);
        let valid = self.chain.views().first().copied();
        let decided = self.chain.root().header.view;
        decided.max(wished.unwrap_or_default()).max(valid.unwrap_or_default())
    }

    fn wished(&self) -> Option<(View, Vec<Signed<Wish>>)> {
        self.changes.wished(self.settings.membership.quorum().one_correct(), self.seat.view, self.seen)
    }

    /// The register has left all views below.
    pub(super) fn enter_view(&mut self, now: Time, view: View, change: ViewChange, outbox: &mut Vec<Output<Message>>) {
        if view > self.seat.view {
            let skipped = view.0 - self.seat.view.0;
            let base = self.base_timeout_micros(now);
            let before = if self.changes.backoff == 0 { 0 } else { self.changes.backoff_from };
            self.changes.backoff_from = before.max(base);
            self.changes.backoff = self.changes.backoff.saturating_add(1);
            self.time.skipped(&self.rules, skipped);
        }
        self.seat.view = view;
        self.seat.step = unisono_types::Step(0);
        self.seat.last = change.last;
        self.patience = None;
        self.changes.arriving.clear();
        self.watch.enter(now);
        self.changes.retries = 0;
        self.catchup.want_now();
        self.changes.changes.insert(self.me(), change);
        // Own blocks that the register never stood by are nothing now; their frames are.
        let me = self.me();
        let void: Vec<_> = self
            .chain
            .nodes
            .values()
            .filter(|node| node.proposer == Some(me) && !node.is_valid() && node.header().view < view)
            .map(|node| node.block.hash())
            .collect();
        for hash in void {
            self.chain.remove_with_descendants(&hash);
        }
        self.forget_proposed();
        if let Some(tip) = self.chain.tip(view).map(|node| node.block.hash()) {
            self.mark_proposed(&tip);
        }
        self.broadcast_change(outbox);
    }

    fn broadcast_change(&mut self, outbox: &mut Vec<Output<Message>>) {
        let Some(change) = self.changes.changes.get(&self.me()).copied() else { return };
        let wishes =
            self.wished().filter(|(view, _)| *view >= change.view.view()).map_or_else(Vec::new, |(_, wishes)| wishes);
        if wishes.is_empty() {
            // After a restart the reason is forgotten, but it was a good one: wish for it again.
            self.wish(change.view.view(), outbox);
        }
        outbox.push(Output::Broadcast(Message::ViewChange(EnteredView { change, wishes })));
    }

    pub(super) fn wish(&mut self, view: View, outbox: &mut Vec<Output<Message>>) {
        if view > self.seat.view && self.is_far_behind() {
            return; // what it does not see decided is its own lateness
        }
        let known = self.changes.wishes.get(&self.me()).map(|(wish, _)| *wish);
        let wish = known.filter(|wish| wish.statement.view >= view).unwrap_or_else(|| {
            let cluster = self.settings.membership.configuration().cluster;
            Signed::sign(cluster, self.me(), &self.settings.signer, Wish { epoch: self.epoch(), view })
        });
        self.changes.add_wish(self.me(), wish, self.seen);
        outbox.push(Output::Broadcast(Message::Wish(wish)));
    }

    /// The view has decided nothing yet.
    fn view_unfinished(&self) -> bool {
        self.chain.root().header.view < self.seat.view
    }

    /// The time-out that distance alone asks for.
    fn base_timeout_micros(&self, now: Time) -> u64 {
        let least = self.settings.tuning.timeout_micros.max(TIMEOUT_MICROS_MIN);
        self.rules.base_timeout(least, self.distance.needed_micros(now))
    }

    /// How long the oldest entry may wait.
    pub(super) fn timeout_micros(&self, now: Time) -> u64 {
        let doubled = self.base_timeout_micros(now).saturating_mul(1 << self.doublings());
        doubled.min(self.rules.timeout_max()).saturating_add(self.transfer_micros(now))
    }

    /// The time that bytes need which wait here or come from the leader just now, up to a block of them each, or were
    /// decided before what is waited for. A leader that answers no probe sends none of them.
    fn transfer_micros(&self, now: Time) -> u64 {
        if !self.distance.is_answered_by(self.next_leader(), now) {
            return 0;
        }
        let block = self.settings.membership.configuration().limits.block_bytes as usize;
        let passed = self.patience.as_ref().map_or(0, |patience| patience.passed_bytes);
        let arrived = self.patience.as_ref().map_or(0, |patience| patience.arrived_bytes);
        let arriving = arrived.saturating_add(self.arriving());
        self.micros_to_followers(self.pending.bytes().min(block) + arriving.min(block) + passed)
    }

    /// So many bytes of a large message from this peer are here or about to be; 0 when none is on its way any more.
    pub(super) fn set_arriving(&mut self, from: ReplicaId, bytes: usize) {
        let from_leader = if from == self.next_leader() { self.arriving() } else { 0 };
        self.changes.arriving.insert(from, (bytes, self.seen));
        if let Some(patience) = self.patience.as_mut().filter(|_| bytes == 0) {
            patience.arrived_bytes = patience.arrived_bytes.saturating_add(from_leader);
        }
    }

    /// Bytes of a large message that are on their way from the leader.
    fn arriving(&self) -> usize {
        let said = self.changes.arriving.get(&self.next_leader());
        said.filter(|(_, at)| self.seen.saturating_sub(*at) < ARRIVING_MICROS).map_or(0, |(bytes, _)| *bytes)
    }

    /// Whether what is missing here may be on its way from the leader: it is not asked for meanwhile. Who draws that out
    /// gains no more than by silence, since the leader changes.
    pub(super) fn is_receiving(&self) -> bool {
        self.arriving() > 0
    }

    /// The time that a leader needs to send so many bytes to each follower.
    pub(super) fn micros_to_followers(&self, bytes: usize) -> u64 {
        let followers = self.settings.membership.len() - 1;
        self.rules.transfer_micros((followers * bytes) as u64)
    }

    fn doublings(&self) -> u32 {
        let members = self.settings.membership.len() as u32;
        self.rules.doublings(self.changes.backoff, members).min(DOUBLINGS_MAX)
    }

    /// Round trips have become much shorter: doublings from before no longer apply.
    pub(super) fn calm_down(&mut self, now: Time) {
        let base = self.base_timeout_micros(now);
        if self.changes.backoff > 0 && base.saturating_mul(4) <= self.changes.backoff_from {
            self.changes.backoff = 0;
            self.changes.backoff_from = base;
        }
    }

    /// Time in which this replica did not run, stopped or short of a processor, accuses nobody: what it waits for may lie
    /// in its own sockets.
    pub(super) fn excuse_pause(&mut self, now: Time) {
        let since = core::mem::replace(&mut self.seen, now.monotonic);
        let paused = self.timers.overdue_micros(now).min(now.monotonic.saturating_sub(since));
        if paused < PAUSE_MICROS_MIN {
            return;
        }
        self.watch.excuse(paused);
        self.distance.excuse(paused);
        // And then it needs the time to read them.
        let excused = paused + paused.min(self.distance.needed_micros(now));
        if let Some(patience) = &mut self.patience {
            patience.since += excused;
        }
        [timers::REPLACE, timers::FORWARD, timers::TELL]
            .into_iter()
            .for_each(|timer| self.timers.postpone(timer, excused));
    }

    /// The oldest entry did not commit in time.
    pub(super) fn lose_patience(&mut self, outbox: &mut Vec<Output<Message>>) {
        if self.is_far_behind() {
            self.patience = None; // and waits anew: what it does not see decided is its own lateness
        } else if let Some(patience) = &mut self.patience {
            patience.lost = true;
            self.time.timed_out();
            self.changes.complaints.time_out += 1;
            self.wish(self.seat.view.next(), outbox);
        }
    }

    /// Half the time is over: perhaps the leader was never told. Else an entry shown to me alone accuses a correct one.
    pub(super) fn forward(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        if let Some(patience) = &mut self.patience {
            patience.forwarded = true;
        }
        self.show_waiting(now, outbox);
    }

    pub(super) fn link_changed(&mut self, now: Time, peer: ReplicaId, up: bool, outbox: &mut Vec<Output<Message>>) {
        if up {
            self.changes.down.remove(&peer);
            outbox.push(Output::Send { to: peer, message: self.position() });
            if let Some(newest) = self.newest.get(&peer) {
                outbox.push(Output::Send { to: peer, message: Message::Vote(*newest) });
            }
            self.probe(now, outbox);
        } else if self.settings.membership.member(peer).is_some() && peer != self.me() {
            self.changes.down.insert(peer);
            self.set_arriving(peer, 0);
            self.watch_link(now, outbox);
        }
    }

    /// A leader whose link is down is given up soon; a local opinion that shortens a wait and nothing else.
    fn watch_link(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        let down = self.changes.down.contains(&self.next_leader());
        if !down || self.is_far_behind() {
            self.timers.want(timers::LINK, None, outbox);
        } else if !self.timers.is_wanted(timers::LINK) && !self.wishes_onward() {
            let at = now.monotonic + self.settings.tuning.link_grace_micros;
            self.timers.want(timers::LINK, Some(at), outbox);
        }
    }

    pub(super) fn give_up_unlinked_leader(&mut self, outbox: &mut Vec<Output<Message>>) {
        if self.changes.down.contains(&self.next_leader()) {
            self.changes.complaints.link_down += 1;
            self.wish(self.seat.view.next(), outbox);
        }
    }

    /// Whether this replica has wished to leave the view it is in.
    fn wishes_onward(&self) -> bool {
        self.changes.wishes.get(&self.me()).is_some_and(|(wish, _)| wish.statement.view > self.seat.view)
    }

    /// Whether the reason for that wish still stands.
    pub(super) fn wish_stands(&self) -> bool {
        let lost = self.patience.as_ref().is_some_and(|patience| patience.lost);
        let slow = self.watch.has_found(self.seat.view, self.seen.saturating_sub(WISH_MICROS));
        self.wishes_onward() && (lost || slow || self.changes.down.contains(&self.next_leader()))
    }

    /// A block was decided. What waits behind others may take longer for their bytes, but not behind ever more of them: an entry
    /// that was shown to the leader stands in the block after those in flight.
    pub(super) fn block_passed(&mut self, bytes: usize) {
        self.watch.block_decided(bytes);
        let in_flight = self.settings.tuning.in_flight;
        if let Some(patience) = self.patience.as_mut().filter(|patience| patience.passed <= in_flight) {
            patience.passed += 1;
            patience.passed_bytes += bytes;
        }
    }

    /// Something was decided.
    pub(super) fn made_progress(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        self.changes.retries = 0;
        self.changes.backoff = self.changes.backoff.min(super::rules::QUICK_DOUBLINGS).saturating_sub(1);
        let waits_for = self.patience.as_ref().map(|patience| patience.subject);
        let decided = waits_for.is_some_and(|subject| subject.is_none() || subject != self.pending.oldest());
        if decided {
            self.turn_ended(now, outbox);
        }
        if self.rules.patience_is_renewed(decided) {
            self.patience = None;
        }
        self.timers.want(timers::RETRY, None, outbox);
    }

    /// What was said and has not led on yet is said again.
    pub(super) fn retry(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        self.changes.retries = self.changes.retries.saturating_add(1);
        let root = self.chain.root().header.place();
        if let Some(certificate) = self.seat.certificate
            && (certificate.vote.view.view(), certificate.vote.step) > root
        {
            outbox.push(Output::Broadcast(Message::Vote(certificate)));
        }
        if self.view_unfinished() {
            self.broadcast_change(outbox);
        }
        if self.wish_stands() {
            self.wish(self.seat.view.next(), outbox);
            self.forward(now, outbox);
        }
        outbox.push(Output::Broadcast(self.position()));
        self.retry_wants(outbox);
        self.ask_anyone(now, outbox);
    }

    pub(super) fn arm_timers(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        let oldest = self.pending.oldest();
        if oldest.is_none() && !self.view_unfinished() {
            self.patience = None;
        } else {
            let fresh = Patience { since: now.monotonic, subject: oldest, ..Patience::default() };
            let patience = self.patience.get_or_insert(fresh);
            patience.subject = patience.subject.or(oldest);
        }
        self.watch_oldest(now, outbox);
        let timeout = self.timeout_micros(now);
        let patience = self.patience.as_ref();
        let replace = patience.filter(|patience| !patience.lost).map(|patience| patience.since + timeout);
        let forward = patience.filter(|patience| !patience.forwarded && oldest.is_some());
        let forward = forward.map(|patience| patience.since + timeout / 2);
        self.timers.want(timers::REPLACE, replace, outbox);
        self.timers.want(timers::FORWARD, forward, outbox);
        let unfinished = self.view_unfinished()
            || self.wish_stands()
            || !self.chain.nodes.is_empty()
            || self.catchup.has_work(self.chain.height());
        if !unfinished {
            self.timers.want(timers::RETRY, None, outbox);
        } else if !self.timers.is_wanted(timers::RETRY) {
            // A repetition that leaves before its answer can be here is of no use.
            let wait = self.settings.tuning.retry_micros << self.changes.retries.min(4);
            let wait = wait.max(self.distance.round_trip_micros().min(RETRY_MICROS_MAX));
            self.timers.want(timers::RETRY, Some(now.monotonic + wait), outbox);
        }
        let wake = self.time.take_wake();
        self.timers.want(timers::CLOCK, wake, outbox);
        self.watch_link(now, outbox);
    }
}
