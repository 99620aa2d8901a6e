//! The administrator of a simulated cluster: changes the schedule's parameters while everything else goes on.
//!
//! Whether a change is ordered it does not know; it says each one twice, so most would take effect twice if replicas did
//! not know them by their nonces.

use crate::core::{Actor, ActorEffect, ActorInput, Moment};
use crate::{Identities, Random};
use unisono_types::{
    AdminEntry, Bytes, ClientMessage, Frame, FrameBody, ReplicaId, ScheduleChange, ScheduleClass, ScheduleOrder,
    SchedulePredicate, SequenceNumber, encode,
};

/// Its process.
pub struct Administrator {
    identities: Identities,
    /// Longest time between two words.
    pause: u64,
    random: Random,
    nonce: u64,
    /// What it said last, and how often.
    said: Option<(Bytes, u32)>,
    next_at: u64,
    finishing: bool,
}

impl Administrator {
    /// One that says something every `pause` at the latest.
    #[must_use]
    pub const fn new(identities: Identities, pause: u64, random: Random) -> Self {
        Self { identities, pause, random, nonce: 0, said: None, next_at: 0, finishing: false }
    }

    fn speak(&mut self, effects: &mut Vec<ActorEffect>) {
        let (bytes, times) = match self.said.take() {
            Some((bytes, 1)) => (bytes, 2),
            _ => (self.change(), 1),
        };
        let replicas = self.identities.hosts.len() as u16;
        effects.extend((0..replicas).map(|to| ActorEffect::Send { to: ReplicaId(to), bytes: bytes.clone() }));
        self.said = Some((bytes, times));
    }

    fn change(&mut self) -> Bytes {
        self.nonce += 1;
        let entry = AdminEntry::Reconfigure(random_change(&mut self.random));
        // As long as fewer than a thousand changes were made, the beginning of the log is recent enough.
        let body = FrameBody::Admin { entry, nonce: self.nonce, recent: SequenceNumber::ZERO };
        let frame = Frame::sign(self.identities.context.cluster, &self.identities.administrator, body);
        encode(&ClientMessage::Frame(frame.wire().clone())).into()
    }
}

/// Any change that a cluster of the simulator may get.
pub fn random_change(random: &mut Random) -> ScheduleChange {
    let mut change = ScheduleChange::default();
    if random.chance(600) {
        change.primaries = Some(random.pick(&[1, 2, 3, 4, 8, 64]));
    }
    if random.chance(600) {
        change.steps = Some(random.pick(&[1, 1, 2, 4, u32::MAX]));
    }
    if random.chance(300) {
        change.order = Some(match random.below(3) {
            0 => ScheduleOrder::RoundRobin,
            1 => ScheduleOrder::Quantum(random.between(1, 4) as u32),
            _ => ScheduleOrder::Explicit((0..random.below(8)).map(|_| random.below(8) as u16).collect()),
        });
    }
    if random.chance(300) {
        change.flush_rounds = Some(random.pick(&[1, 2, 16]));
    }
    if random.chance(300) {
        let class = |random: &mut Random| ScheduleClass {
            class: random.below(3) as u16,
            every: random.between(1, 3) as u32,
            phase: random.below(3) as u32,
        };
        change.predicate = Some(match random.below(3) {
            0 => SchedulePredicate::All,
            1 => SchedulePredicate::FutureLocks,
            _ => SchedulePredicate::Classes((0..random.below(3)).map(|_| class(random)).collect()),
        });
    }
    change
}

impl Actor for Administrator {
    fn handle(&mut self, now: Moment, input: ActorInput, effects: &mut Vec<ActorEffect>) {
        match input {
            // What it has just sent may be lost with it; the nonces go on.
            ActorInput::Crash => self.said = None,
            ActorInput::Finish => self.finishing = true,
            ActorInput::Start | ActorInput::Timeout if !self.finishing => {
                if self.next_at <= now.time.monotonic {
                    self.speak(effects);
                    self.next_at = now.time.monotonic + self.random.between(1_000, self.pause);
                }
                effects.push(ActorEffect::SetTimer { at: self.next_at });
            }
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        true
    }

    fn waits_for(&self) -> String {
        "nothing".into()
    }
}
