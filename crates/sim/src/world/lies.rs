//! A liar's seat: its cores and its lies share one register, and the liar stays whom others trust.
//!
//! ```text
//!   core ── certify(B) ──> bent? ── certify(B') ──> shown to some;   the core is told that B was certified
//!                           └─ no ── certify(B) ──> the answer, or an answer of the liar's own making
//! ```
//! A core whose register refuses falls silent for good, since a correct one knows that it must not go on. A liar's core
//! is told that all is well instead: what it then says is not signed and convinces nobody, and with the next view or
//! step it is back. A core that has lost the thread (it decided what nobody else did) is made anew from nothing and
//! catches up. The register itself stays honest throughout, and loses nothing in a crash.

use super::World;
use super::event::Event;
use crate::lies::{Bent, Flood, Hearsay, Kind};
use crate::plan::SECOND;
use crate::seat::Asked;
use crate::{Disk, Feeding, Liar};
use unisono_consensus::RegisterAnswer;
use unisono_trusted::RegisterState;
use unisono_types::{Bytes, Certificate, Digest, RegisterView, ReplicaId, Signature, Step, ViewChange, VotePosition};

/// A liar that has not certified for this long while others decide is made anew.
const LOST_AFTER: u64 = 1_500_000;

/// How far the clocks of who pushes time are set, in microseconds.
const PUSHES: [i64; 9] = [
    0,
    499_000,
    -499_000,
    1_990_000,
    7_990_000,
    31_000_000,
    59_000_000,
    60 * 86_400 * SECOND as i64,
    -60 * 86_400 * SECOND as i64,
];

impl World {
    /// Answers what a liar's core asked of its register.
    pub(super) fn answer_core(&mut self, replica: usize, core: usize) {
        let Some(seat) = self.hosts[replica].seats.get(core).cloned() else { return };
        if self.hosts[replica].liar.is_none() {
            return;
        }
        for asked in seat.asked() {
            seat.answer(match asked {
                Asked::Certify(vote) => RegisterAnswer::Certificate(self.certify_lie(replica, vote)),
                Asked::Advance(view) => RegisterAnswer::ViewChange(self.advance_lie(replica, view)),
            });
        }
        let host = &mut self.hosts[replica];
        let state = host.register.state();
        if std::mem::replace(&mut host.stood, state) != state {
            host.spoke = self.now;
        }
    }

    pub(super) fn keeps_seat(&self, replica: usize) -> bool {
        self.hosts[replica].liar.as_ref().is_some_and(|liar| liar.plan().keeps_seat)
    }

    fn certify_lie(&mut self, replica: usize, vote: VotePosition) -> Certificate {
        let wished = Certificate { replica: ReplicaId(replica as u16), vote, signature: Signature([0; 64]) };
        if self.bend(replica, &vote) {
            return wished;
        }
        let Ok(certificate) = self.hosts[replica].register.sign(vote) else { return wished };
        self.hosts[replica].spoke = self.now;
        certificate
    }

    /// Certifies something else in place of this block, if the liar feels like it; whether it did.
    fn bend(&mut self, replica: usize, vote: &VotePosition) -> bool {
        let Some(mut liar) = self.hosts[replica].liar.take() else { return false };
        let bent = self.bent(replica, &mut liar, vote);
        let signed = bent.and_then(|(name, Bent { view, step, hash, show })| {
            let certificate = self.hosts[replica].register.sign(VotePosition { view, step, hash }).ok()?;
            *self.counts.bends.entry(name).or_default() += 1;
            self.hosts[replica].spoke = self.now;
            Some(show(certificate))
        });
        let bends = signed.is_some();
        for bytes in signed.into_iter().flatten() {
            self.show(replica, &mut liar, &bytes);
        }
        self.hosts[replica].liar = Some(liar);
        bends
    }

    fn bent(&self, replica: usize, liar: &mut Liar, vote: &VotePosition) -> Option<(&'static str, Bent)> {
        let bend = liar.bends()?;
        let block = liar.block(&vote.hash)?;
        let mut random = liar.random().fork();
        let known = |hash: &Digest| liar.block(hash);
        let view = vote.view.view();
        let mut hearsay = Hearsay { view, block: Some(&block), known: &known, random: &mut random };
        let bent = self.factory.bend(ReplicaId(replica as u16), &block, bend, &mut hearsay)?;
        Some((bend.name(), bent))
    }

    /// Shows something to most peers.
    fn show(&mut self, replica: usize, liar: &mut Liar, bytes: &Bytes) {
        for to in (0..self.hosts.len()).filter(|to| *to != replica) {
            let withheld = self.factory.kind(bytes) == Kind::Block && liar.withholds(bytes, to);
            if !withheld && liar.random().chance(850) {
                self.transmit(self.now, replica, to, bytes.clone());
            }
        }
    }

    fn advance_lie(&mut self, replica: usize, view: RegisterView) -> ViewChange {
        let host = &mut self.hosts[replica];
        let RegisterState { view: current, step, last } = host.register.state();
        if view > current
            && let Some(liar) = &mut host.liar
            && liar.hides()
        {
            // Its last vote is for what nobody has, and stands above everybody's.
            let random = liar.random();
            let above = random.pick(&[1, 1, 2, 5, u64::MAX - step.0]);
            let hash = Digest::of("a liar's garbage", &[&random.next_u64().to_le_bytes()]);
            let vote = VotePosition { view: current, step: Step(step.0 + above), hash };
            if host.register.sign(vote).is_ok() {
                self.counts.lies.hidden += 1;
            }
        }
        match host.register.leave(view) {
            Ok(change) => {
                host.spoke = self.now;
                change
            }
            Err(_) => ViewChange { replica: ReplicaId(replica as u16), view, last, signature: Signature([0; 64]) },
        }
    }

    /// What a liar says to one peer in place of this, before its habits come in.
    pub(super) fn prepare(&mut self, liar: &mut Liar, to: usize, bytes: Bytes) -> Vec<(Bytes, u64)> {
        let factory = &self.factory;
        match factory.kind(&bytes) {
            Kind::Block if liar.withholds(&bytes, to) => {
                self.counts.lies.withheld += 1;
                Vec::new()
            }
            Kind::Decided if liar.plan().feeds != Feeding::Honest => {
                self.counts.lies.meals += 1;
                let copy = bytes.clone();
                liar.feed(bytes, |random| factory.tamper(&copy, random))
            }
            Kind::Block if liar.plan().feeds == Feeding::Tampered => {
                // A block of somebody else, asked for by its name: its own would only be refused.
                let tampered = if liar.random().chance(300) { factory.tamper(&bytes, liar.random()) } else { None };
                vec![(tampered.unwrap_or(bytes), 0)]
            }
            _ => vec![(bytes, 0)],
        }
    }

    /// Whether a liar does not let this in.
    pub(super) fn is_ignored(&mut self, replica: usize, from_client: bool, bytes: &Bytes) -> bool {
        let factory = &self.factory;
        let Some(liar) = &mut self.hosts[replica].liar else { return false };
        let plan = liar.plan();
        if plan.censors.is_none() && plan.ignores == 0 {
            return false;
        }
        let ignored =
            liar.ignores(self.now, from_client, factory.kind(bytes), |client| factory.mentions(bytes, client));
        self.counts.lies.ignored += u64::from(ignored);
        ignored
    }

    /// Whether this shows a liar what its register signed behind its cores' back: they need not know.
    pub(super) fn accuses_itself(&self, replica: usize, bytes: &Bytes) -> bool {
        self.hosts[replica].liar.is_some()
            && self.factory.kind(bytes) == Kind::Vote
            && self.factory.speaker(bytes).is_some_and(|speaker| usize::from(speaker.0) == replica)
    }

    /// A liar strikes: by itself, whatever its cores do.
    pub(super) fn act(&mut self, replica: usize) {
        let Some(mut liar) = self.hosts[replica].liar.take() else { return };
        self.schedule(self.now + liar.plan().interval, Event::Act { replica });
        if self.hosts[replica].up && !self.hosts[replica].paused {
            self.flood(replica, &mut liar);
            self.depose(replica, &mut liar);
            if liar.plan().pushes_time && liar.random().chance(20) {
                let skew = liar.random().pick(&PUSHES);
                let host = &mut self.hosts[replica];
                host.clock.set_skew(skew + host.jumped);
                self.counts.lies.pushes += 1;
            }
        }
        self.hosts[replica].liar = Some(liar);
        self.look_after_cores(replica);
    }

    fn flood(&mut self, replica: usize, liar: &mut Liar) {
        let Some((flood, messages)) = liar.plan().floods else { return };
        for _ in 0..messages {
            let bytes = match flood {
                Flood::Duplicates => liar.memory(),
                flood => self.made_up(replica, liar, flood),
            };
            let Some(bytes) = bytes else { continue };
            for to in (0..self.hosts.len()).filter(|to| *to != replica) {
                self.counts.lies.flooded += 1;
                self.transmit(self.now, replica, to, bytes.clone());
            }
        }
    }

    fn made_up(&self, replica: usize, liar: &mut Liar, flood: Flood) -> Option<Bytes> {
        let view = self.progress(replica).view;
        let block = liar.newest_block();
        let mut random = liar.random().fork();
        let known = |hash: &Digest| liar.block(hash);
        let mut hearsay = Hearsay { view, block: block.as_ref(), known: &known, random: &mut random };
        self.factory.flood(ReplicaId(replica as u16), flood, &mut hearsay)
    }

    fn depose(&mut self, replica: usize, liar: &mut Liar) {
        if !liar.plan().deposes {
            return;
        }
        if let Some(wish) = self.made_up(replica, liar, Flood::Wishes) {
            self.counts.lies.deposing += 1;
            for to in (0..self.hosts.len()).filter(|to| *to != replica) {
                self.transmit(self.now, replica, to, wish.clone());
            }
        }
        if self.plan.link_hints && liar.random().chance(50) {
            let up = liar.random().chance(500);
            for peer in (0..self.hosts.len()).filter(|peer| *peer != replica) {
                self.link_hint(peer, replica, up);
            }
        }
    }

    /// Cores that broke, and cores that go nowhere while others decide, are made anew.
    fn look_after_cores(&mut self, replica: usize) {
        if !self.keeps_seat(replica) || !self.hosts[replica].up || self.hosts[replica].paused {
            return;
        }
        let host = &self.hosts[replica];
        let broke = host.cores.is_empty();
        let silent = self.now.saturating_sub(host.spoke.max(host.seated)) > LOST_AFTER;
        let behind = self.progress(replica).committed < self.checker.decided().previous().unwrap_or_default();
        if broke || (silent && behind) {
            self.counts.lies.reseated += 1;
            self.reseat(replica);
        }
    }

    /// New cores with an empty log; the register stays.
    fn reseat(&mut self, replica: usize) {
        self.trace.line(self.now, || format!("liar {replica} begins anew"));
        let host = &mut self.hosts[replica];
        host.up = false;
        host.cores.clear();
        host.timers.clear();
        host.disk = Disk::default();
        self.start(replica);
    }

    /// Liars, and those of them that certified in the last second in which something was decided.
    pub(super) fn liars(&self) -> (u64, u64) {
        let liars = self.hosts.iter().filter(|host| host.liar.is_some());
        let active = liars.clone().filter(|host| host.spoke > 0 && host.spoke + SECOND >= self.decided_at);
        (liars.count() as u64, active.count() as u64)
    }
}
