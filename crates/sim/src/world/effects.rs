//! What replicas and clients want of a world: messages, writes, the register's answers, timers.

use super::World;
use super::event::Event;
use crate::core::{Abuse, ActorEffect, Effect, Input, Observation};
use crate::{Liar, PIECE_BYTES, RegisterCall, outside};
use unisono_node::{PROGRESS_PAUSE, arriving_bytes};
use unisono_trusted::RegisterState;
use unisono_types::{Bytes, CallId, ReplicaId, VotePosition};

impl World {
    pub(super) fn effect(&mut self, replica: usize, core: usize, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } => self.send(replica, core, usize::from(to.0), bytes),
            Effect::Reply { connection, bytes } => self.reply(replica, core, connection, bytes),
            Effect::Write(group) => self.write(replica, core, group),
            Effect::SetTimer { timer, at } => self.set_timer(replica, core, timer, at),
            Effect::Provide(provide) => self.provide(replica, core, provide),
            Effect::Ask { call, target, request } => self.ask(replica, core, call, &target, &request),
            Effect::Observe(observation) => {
                self.trace.line(self.now, || format!("replica {replica}: {observation:?}"));
                match &observation {
                    Observation::Rejected(reason) => {
                        self.counts.rejected += 1;
                        if let Some(speaker) = self.speaker {
                            self.accuse(replica, speaker, &reason.to_string());
                        }
                    }
                    Observation::Suspected { peer, reason } => {
                        self.counts.suspected += 1;
                        self.accuse(replica, usize::from(peer.0), reason);
                    }
                    Observation::Timed(timestamp) if self.hosts[replica].liar.is_none() => {
                        self.note_agreed_time(replica, *timestamp);
                    }
                    Observation::Requested { session, number, .. } if self.hosts[replica].liar.is_none() => {
                        self.note_ordered(*session, *number);
                    }
                    Observation::Committed { sequence, .. } if self.hosts[replica].liar.is_none() => {
                        self.bounds.decides(self.now, replica, *sequence);
                        if *sequence > self.checker.decided() {
                            self.decided_at = self.now;
                        }
                    }
                    Observation::Written { hash, bytes } => {
                        if let Some(liar) = &mut self.hosts[replica].liar {
                            liar.notice_block(*hash, bytes);
                        }
                    }
                    Observation::Spoke { replica: speaker, place } if usize::from(speaker.0) == replica => {
                        let host = &mut self.hosts[replica];
                        host.spoken = host.spoken.max(*place);
                    }
                    _ => {}
                }
                let forgot = matches!(observation, Observation::Silenced) && self.hosts[replica].lost;
                if self.hosts[replica].liar.is_none() && !forgot {
                    self.checker.observe(replica, observation);
                }
            }
        }
    }

    pub(super) fn send(&mut self, replica: usize, core: usize, to: usize, bytes: Bytes) {
        let now = self.now;
        if to >= self.hosts.len() || to == replica {
            return;
        }
        let Some(mut liar) = self.hosts[replica].liar.take() else {
            return self.transmit(self.leaves_at(replica), replica, to, bytes);
        };
        if liar.core_for(now, to) == core {
            self.counts.faults.byzantine += 1;
            liar.remember(&bytes);
            for (bytes, later) in self.prepare(&mut liar, to, bytes) {
                let factory = &self.factory;
                let said =
                    liar.say(now, to, bytes.clone(), |random| factory.forge(ReplicaId(replica as u16), &bytes, random));
                for said in said {
                    self.transmit(now + later + said.delay, replica, said.to, said.bytes);
                }
            }
            self.abuse_register(replica, &mut liar);
        }
        self.hosts[replica].liar = Some(liar);
    }

    /// A liar may have its register vote for what it likes, as far as an honest register goes along.
    pub(super) fn abuse_register(&mut self, replica: usize, liar: &mut Liar) {
        let RegisterState { view, step, .. } = self.hosts[replica].register.state();
        let register = &self.hosts[replica].register;
        let signed = match liar.abuse(view, step) {
            Some(RegisterCall::Certify(view, step, hash)) => {
                register.sign(VotePosition { view, step, hash }).map(Abuse::Vote)
            }
            // A register that runs ahead of the views takes part in none of them: who keeps its seat does not.
            Some(RegisterCall::Advance(_)) if liar.plan().keeps_seat => return,
            Some(RegisterCall::Advance(view)) => register.leave(view).map(Abuse::Departure),
            None => return,
        };
        let Ok(signed) = signed else { return };
        // Behind the cores' back: it does not count as taking part.
        self.hosts[replica].stood = self.hosts[replica].register.state();
        for bytes in self.factory.show(ReplicaId(replica as u16), &signed, liar.random()) {
            for to in (0..self.hosts.len()).filter(|to| *to != replica) {
                if liar.random().chance(700) {
                    self.transmit(self.now, replica, to, bytes.clone());
                }
            }
        }
    }

    pub(super) fn reply(&mut self, replica: usize, core: usize, connection: u64, bytes: Bytes) {
        let (client, life) = ((connection >> 32) as usize, connection & u64::from(u32::MAX));
        let node = self.hosts.len() + client;
        let mut bytes = bytes;
        let (now, leaves) = (self.now, self.leaves_at(replica));
        if let Some(liar) = &mut self.hosts[replica].liar {
            if liar.core_for(now, node) != core || liar.plan().mute {
                return;
            }
            if liar.answers_wrongly() {
                let Some(wrong) = self.factory.wrong_reply(&bytes, liar.random()) else { return };
                bytes = wrong;
            }
        }
        for at in self.network.carry(leaves, replica, node, bytes.len(), &mut self.random).into_iter().flatten() {
            self.schedule(at, Event::ToClient { client, from: replica, life, bytes: bytes.clone() });
        }
    }

    pub(super) fn transmit(&mut self, at: u64, from: usize, to: usize, bytes: Bytes) {
        if !self.fits(from, to, bytes.len()) {
            return;
        }
        if let Some(vote) = self.factory.vote(&bytes) {
            let factory = &self.factory;
            self.checker.voted(&vote, || factory.is_signed(&vote));
        }
        let copies = self.network.carry(at, from, to, bytes.len(), &mut self.random);
        if let [Some(at), _] = copies {
            self.announce(at, from, to, bytes.len());
        }
        for at in copies.into_iter().flatten() {
            self.schedule(at, Event::ToReplica { replica: to, from, life: 0, bytes: bytes.clone() });
        }
    }

    /// A large message comes in pieces, and its receiver sees them.
    fn announce(&mut self, arrives: u64, from: usize, to: usize, total: usize) {
        if total <= PIECE_BYTES || self.hosts[to].liar.is_some() || self.network.bandwidth_between(from, to).is_none() {
            return;
        }
        let life = self.hosts[to].life;
        let earliest = std::mem::replace(self.announced.entry((from, to)).or_default(), arrives);
        let portions = self.network.portions(from, to, total, PROGRESS_PAUSE);
        let portions = portions.map(|(before, received)| (before, arriving_bytes(received, total)));
        for (before, bytes) in portions.chain([(0, 0)]) {
            let input = Box::new(Input::Arriving { from: ReplicaId(from as u16), bytes });
            let event = Event::Inner { replica: to, core: 0, life, input };
            self.schedule(arrives.saturating_sub(before).max(earliest), event);
        }
    }

    pub(super) fn set_timer(&mut self, replica: usize, core: usize, timer: u64, at: Option<u64>) {
        let host = &mut self.hosts[replica];
        match at {
            None => {
                host.timers.remove(&(core, timer));
            }
            Some(monotonic) => {
                let at = host.clock.when(monotonic);
                let setting = self.scheduled;
                host.timers.insert((core, timer), setting);
                self.schedule(at, Event::Timer { replica, core, timer, setting });
            }
        }
    }

    /// Somebody outside is asked, and answers late or never, or is misquoted by a liar.
    fn ask(&mut self, replica: usize, core: usize, call: CallId, target: &str, request: &[u8]) {
        let (low, high) = self.plan.outside;
        let delay = self.random.between(low, high);
        let said = outside::answer(target, request, replica, self.now);
        let mut said = said.map(|(later, answer)| (later + delay, answer));
        let host = &mut self.hosts[replica];
        let life = host.life;
        if host.asked.insert(call.clone(), life).is_some_and(|before| before != life) {
            self.counts.outside.asked_again += 1;
        }
        outside::count(target, said.as_ref(), &mut self.counts.outside);
        if let Some(liar) = &mut host.liar
            && liar.misquotes()
        {
            said = Some((delay, outside::lie(liar.random())));
            self.counts.outside.lies += 1;
            if liar.random().chance(500) {
                self.contradict(replica, &call);
            }
        }
        if let Some((delay, answer)) = said {
            let input = Box::new(Input::Outside { call, answer });
            self.schedule(self.now + delay, Event::Inner { replica, core, life, input });
        }
    }

    /// A liar submits something else again, to each of the others.
    fn contradict(&mut self, replica: usize, call: &CallId) {
        let Some(mut liar) = self.hosts[replica].liar.take() else { return };
        for to in (0..self.hosts.len()).filter(|to| *to != replica) {
            let answer = outside::lie(liar.random());
            if let Some(bytes) = self.factory.submission(ReplicaId(replica as u16), call, answer) {
                self.transmit(self.now, replica, to, bytes);
            }
        }
        self.counts.outside.contradictions += 1;
        self.hosts[replica].liar = Some(liar);
    }

    pub(super) fn client_effect(&mut self, client: usize, effect: ActorEffect) {
        match effect {
            ActorEffect::Send { to, bytes } => {
                let (node, life) = (self.hosts.len() + client, self.actors[client].life);
                let to = usize::from(to.0);
                for at in self.network.carry(self.now, node, to, bytes.len(), &mut self.random).into_iter().flatten() {
                    self.schedule(at, Event::ToReplica { replica: to, from: node, life, bytes: bytes.clone() });
                }
            }
            ActorEffect::SetTimer { at } => {
                let machine = &mut self.actors[client];
                machine.timer += 1;
                let (at, setting) = (machine.clock.when(at), machine.timer);
                self.schedule(at, Event::ClientTimer { client, setting });
            }
            ActorEffect::Invoked { session, number, operation } => {
                self.trace.line(self.now, || format!("client {client}: {session:?} {number:?} asks"));
                self.counts.client_operations += 1;
                self.awaited_since = self.now;
                self.note_asked(session, number);
                self.checker.invoked(session, number, operation);
            }
            ActorEffect::Completed { session, number, outcome } => {
                self.trace
                    .line(self.now, || format!("client {client}: {session:?} {number:?} is answered {outcome:?}"));
                self.checker.completed(session, number, outcome);
            }
            ActorEffect::Violated(property, text) => self.checker.report(property, text),
        }
    }
}
