//! What replicas and clients want of a world: messages, writes, the register's answers, timers.

use super::event::Event;
use super::{PROVIDED_BYTES_MAX, World};
use crate::core::{Abuse, ActorEffect, Effect, Input, Observation};
use crate::disk::{Entry, Promise};
use crate::{Liar, RegisterCall, outside};
use unisono_consensus::{Provide, RegisterAnswer};
use unisono_trusted::{RegisterState, VoteRegister};
use unisono_types::{Bytes, CallId, ReplicaId};

impl World {
    pub(super) fn effect(&mut self, replica: usize, core: usize, effect: Effect) {
        let Some(effect) = self.bend_effect(replica, core, effect) else { return };
        match effect {
            Effect::Send { to, bytes } => self.send(replica, core, usize::from(to.0), bytes),
            Effect::Reply { connection, bytes } => self.reply(replica, core, connection, bytes),
            Effect::Persist { id, record } => self.write(replica, core, Entry::Record(record), Promise::Persisted(id)),
            Effect::Certify { view, step, hash } => {
                let answer = self.hosts[replica].register.certify(view, step, hash);
                if answer.is_ok() {
                    self.hosts[replica].spoke = self.now;
                }
                self.trace.line(self.now, || {
                    format!("replica {replica}: certify {view:?} {step:?} {hash:?}: {}", answer.is_ok())
                });
                self.answer(replica, core, answer.map_or(RegisterAnswer::Refused, RegisterAnswer::Certificate));
            }
            Effect::Advance { view } => {
                let answer = self.hosts[replica].register.advance(view);
                self.trace.line(self.now, || format!("replica {replica}: advance {view:?}: {}", answer.is_ok()));
                self.answer(replica, core, answer.map_or(RegisterAnswer::Refused, RegisterAnswer::ViewChange));
            }
            Effect::Attest { nonce } => {
                let attestation = self.hosts[replica].register.attest(nonce);
                self.answer(replica, core, RegisterAnswer::Attestation(attestation));
            }
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
                    Observation::Committed { sequence, .. }
                        if *sequence > self.checker.decided() && self.hosts[replica].liar.is_none() =>
                    {
                        self.decided_at = self.now;
                    }
                    _ => {}
                }
                if self.hosts[replica].liar.is_none() {
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
        let register = &mut self.hosts[replica].register;
        let signed = match liar.abuse(view, step) {
            Some(RegisterCall::Certify(view, step, hash)) => register.certify(view, step, hash).map(Abuse::Vote),
            // A register that runs ahead of the views takes part in none of them: who keeps its seat does not.
            Some(RegisterCall::Advance(_)) if liar.plan().keeps_seat => return,
            Some(RegisterCall::Advance(view)) => register.advance(view).map(Abuse::Departure),
            None => return,
        };
        let Ok(signed) = signed else { return };
        let register = &self.hosts[replica].register;
        let state = register.state();
        self.write(replica, usize::MAX, Entry::Register(state), Promise::Answered(RegisterAnswer::Refused));
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
            if liar.core_for(now, node) != core {
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
        let copies = self.network.carry(at, from, to, bytes.len(), &mut self.random);
        for at in copies.into_iter().flatten() {
            self.schedule(at, Event::ToReplica { replica: to, from, life: 0, bytes: bytes.clone() });
        }
    }

    pub(super) fn answer(&mut self, replica: usize, core: usize, answer: RegisterAnswer) {
        let state = self.hosts[replica].register.state();
        self.write(replica, core, Entry::Register(state), Promise::Answered(answer));
    }

    pub(super) fn write(&mut self, replica: usize, writer: usize, entry: Entry, promise: Promise) {
        if self.hosts[replica].disk.append(writer, entry, promise) {
            self.begin_sync(replica);
        }
    }

    pub(super) fn begin_sync(&mut self, replica: usize) {
        let (low, high) = self.plan.disk;
        let host = &self.hosts[replica];
        let at = self.now + self.random.between(low, high) + host.disk_slowness;
        let life = host.life;
        self.schedule(at, Event::Synced { replica, life });
    }

    pub(super) fn synced(&mut self, replica: usize) {
        let (promises, more) = self.hosts[replica].disk.synced();
        if more {
            self.begin_sync(replica);
        }
        for (writer, promise) in promises {
            let input = match promise {
                Promise::Persisted(id) => Input::Persisted(id),
                Promise::Answered(answer) => Input::Answered(answer),
            };
            self.input(replica, writer, input);
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

    /// Reads the log on behalf of a peer that is far behind, as far as one message may carry: up to a block with a
    /// proof (blocks decided together share that of the last).
    pub(super) fn provide(&mut self, replica: usize, core: usize, provide: Provide) {
        let factory = &self.factory;
        let decided = self.hosts[replica].disk.decided(provide.from, |block| factory.parent(block));
        let (mut blocks, mut proven, mut proof, mut size) = (Vec::new(), 0, Bytes::new(), 0);
        for block in decided {
            if size > PROVIDED_BYTES_MAX && proven > 0 {
                break;
            }
            size += block.bytes.len();
            blocks.push(block.bytes);
            if let Some(certificate) = block.proof {
                (proven, proof) = (blocks.len(), certificate);
            }
        }
        blocks.truncate(proven);
        if blocks.is_empty() {
            return;
        }
        let life = self.hosts[replica].life;
        let at = self.now + self.random.between(20, 500);
        let input = Box::new(Input::Provided { to: provide.to, blocks, proof });
        self.schedule(at, Event::Inner { replica, core, life, input });
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
