//! The checkers against algorithms that are known to be right or wrong: a checker that cannot fail is worth nothing.

use crate::{Abuse, Algorithm, Identities, Plan, Planted, Property, Random, SECOND, Scope, run_plan};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use unisono_consensus::{Complaints, Consensus, Decision, Input, Output, PersistId, Record, Status, TimerId};
use unisono_node::log::Recovered;
use unisono_types::{
    Bytes, ClusterId, Digest, Frame, Membership, Rejected, ReplicaId, SequenceNumber, Signer, Time, Timestamp, Verify,
    VerifyContext, decode, encode,
};

/// How a toy orders, and what is wrong with it.
trait Habit: 'static {
    /// Decides in the order in which frames come in, not in the leader's.
    const ARRIVAL_ORDER: bool = false;
    /// Tells clients before anything is on disk.
    const FORGETS: bool = false;
    /// Decides every tenth frame twice.
    const INVENTS: bool = false;
    /// Panics at the tenth decision.
    const PANICS: bool = false;
    /// Decides at times that are so far from the leader's clock.
    const TIME_OFF: i64 = 0;
    /// Sends more than a link takes.
    const SHOUTS: bool = false;
    /// Suspects its neighbour.
    const ACCUSES: bool = false;
    /// Passes on what does not hold.
    const GARBLES: bool = false;
}

struct Right;
impl Habit for Right {}
struct ArrivalOrder;
impl Habit for ArrivalOrder {
    const ARRIVAL_ORDER: bool = true;
}
struct Forgets;
impl Habit for Forgets {
    const FORGETS: bool = true;
}
struct Invents;
impl Habit for Invents {
    const INVENTS: bool = true;
}
struct Panics;
impl Habit for Panics {
    const PANICS: bool = true;
}

struct Hurries;
impl Habit for Hurries {
    const TIME_OFF: i64 = 70 * SECOND as i64;
}
struct Dawdles;
impl Habit for Dawdles {
    const TIME_OFF: i64 = -70 * SECOND as i64;
}
struct Shouts;
impl Habit for Shouts {
    const SHOUTS: bool = true;
}
struct Accuses;
impl Habit for Accuses {
    const ACCUSES: bool = true;
}
struct Garbles;
impl Habit for Garbles {
    const GARBLES: bool = true;
}

/// Replica 0 orders, for ever; everybody repeats everything now and then. Right as long as nobody lies and replica 0
/// comes back.
struct Toy<H> {
    id: ReplicaId,
    membership: Membership,
    /// Name, agreed time and bytes.
    log: Vec<(Digest, u64, Bytes)>,
    durable: usize,
    decided: usize,
    known: BTreeSet<Digest>,
    pending: BTreeMap<Digest, Frame>,
    habit: PhantomData<H>,
}

#[derive(Clone, Debug)]
enum Say {
    Frame(Frame),
    Ordered(u64, u64, Frame),
    WhatIs(u64),
    Shout,
    Garble,
}

impl Verify for Say {
    fn verify(&self, context: &VerifyContext) -> Result<(), Rejected> {
        match self {
            Self::Frame(frame) | Self::Ordered(_, _, frame) => frame.verify(context),
            Self::WhatIs(_) | Self::Shout => Ok(()),
            Self::Garble => Err(Rejected::Inconsistent),
        }
    }
}

impl unisono_types::Message for Say {
    fn encode(&self, out: &mut Vec<u8>) {
        let (place, time, wire): (u64, u64, &[u8]) = match self {
            Self::Frame(frame) => (u64::MAX, 0, frame.wire()),
            Self::Ordered(place, time, frame) => (*place, *time, frame.wire()),
            Self::WhatIs(place) => (*place, 0, &[]),
            Self::Shout => (0, 0, &[0; 40 << 20]),
            Self::Garble => (0, 1, &[]),
        };
        out.extend_from_slice(&encode(&(place, time)));
        out.extend_from_slice(wire);
    }

    fn parse(bytes: Bytes, context: &VerifyContext) -> Result<Self, Rejected> {
        let head = bytes.get(..16).ok_or(Rejected::Malformed)?;
        let (place, time): (u64, u64) = decode(head, 16).map_err(|_| Rejected::Malformed)?;
        if bytes.len() == 16 {
            return Ok(if time == 0 { Self::WhatIs(place) } else { Self::Garble });
        }
        let frame = Frame::parse(context.cluster, bytes.slice(16..), 1 << 16)?;
        Ok(if place == u64::MAX { Self::Frame(frame) } else { Self::Ordered(place, time, frame) })
    }
}

const REPEAT: TimerId = TimerId(0);

impl<H: Habit> Consensus for Toy<H> {
    type Message = Say;

    fn handle(&mut self, now: Time, input: Input<Say>, outbox: &mut Vec<Output<Say>>) {
        match input {
            Input::Submit(frame) => self.learn(now, frame.into_inner(), outbox),
            Input::Message { from, message } => match message.into_inner() {
                Say::Frame(frame) => self.learn(now, frame, outbox),
                Say::Ordered(place, time, frame) if place == self.log.len() as u64 && !H::ARRIVAL_ORDER => {
                    self.append(time, &frame, outbox);
                }
                Say::WhatIs(place) if self.id.0 == 0 && place < self.durable as u64 => {
                    let (_, time, bytes) = self.log[place as usize].clone();
                    let frame = Frame::parse(self.membership.configuration().cluster, bytes, 1 << 16).unwrap();
                    outbox.push(Output::Send { to: from, message: Say::Ordered(place, time, frame) });
                }
                _ => {}
            },
            Input::Persisted(PersistId(count)) => {
                self.durable = self.durable.max(count as usize);
                self.decide(self.durable, outbox);
            }
            Input::Start | Input::Timeout(_) => {
                self.decide(self.durable, outbox);
                outbox.push(Output::Broadcast(Say::WhatIs(self.log.len() as u64)));
                outbox.extend(self.pending.values().take(20).map(|frame| Output::Broadcast(Say::Frame(frame.clone()))));
                if self.id.0 == 1 {
                    let peer = ReplicaId(2);
                    outbox.extend(H::SHOUTS.then_some(Output::Send { to: peer, message: Say::Shout }));
                    outbox.extend(H::GARBLES.then_some(Output::Send { to: peer, message: Say::Garble }));
                    outbox.extend(H::ACCUSES.then_some(Output::Suspect { peer, reason: "its colour" }));
                }
                outbox.push(Output::SetTimer { timer: REPEAT, at: Some(now.monotonic + 10_000) });
            }
            _ => {}
        }
    }

    fn provide(_: SequenceNumber, _: Vec<Bytes>, _: Bytes) -> Say {
        Say::WhatIs(0)
    }

    fn decision(bytes: &Bytes, context: &VerifyContext) -> Result<Decision, Rejected> {
        let mut log = chain(bytes, context.cluster);
        let (hash, time, wire) = log.pop().ok_or(Rejected::Malformed)?;
        Ok(decision(log.len(), time, hash, vec![Frame::parse(context.cluster, wire, 1 << 16)?]))
    }

    fn status(&self) -> Status {
        Status {
            view: unisono_types::RegisterView(0),
            leader: ReplicaId(0),
            committed: SequenceNumber(self.decided as u64),
            pending: self.pending.len(),
            clock_skew_micros: 0,
            clock_waits: 0,
            complaints: Complaints::default(),
        }
    }
}

/// The frames of a block and of all below it, by name.
fn chain(block: &Bytes, cluster: ClusterId) -> Vec<(Digest, u64, Bytes)> {
    let log: Vec<(u64, Vec<u8>)> = decode(&block[32..], 1 << 24).unwrap();
    let named = |(time, wire): (u64, Vec<u8>)| {
        let wire = Bytes::from(wire);
        (Frame::parse(cluster, wire.clone(), 1 << 16).unwrap().id(), time, wire)
    };
    log.into_iter().map(named).collect()
}

fn decision(place: usize, time: u64, hash: Digest, frames: Vec<Frame>) -> Decision {
    Decision { sequence: SequenceNumber(place as u64 + 1), hash, timestamp: Timestamp(time), frames }
}

impl<H: Habit> Toy<H> {
    fn learn(&mut self, now: Time, frame: Frame, outbox: &mut Vec<Output<Say>>) {
        if self.known.contains(&frame.id()) {
            return;
        }
        if self.id.0 == 0 || H::ARRIVAL_ORDER {
            self.append(now.wall.saturating_add_signed(H::TIME_OFF), &frame, outbox);
        }
        if self.pending.insert(frame.id(), frame.clone()).is_none() {
            outbox.push(Output::Broadcast(Say::Frame(frame)));
        }
    }

    fn append(&mut self, time: u64, frame: &Frame, outbox: &mut Vec<Output<Say>>) {
        self.known.insert(frame.id());
        self.pending.remove(&frame.id());
        let (sequence, hash) = (SequenceNumber(self.log.len() as u64 + 1), frame.id());
        let mut bytes = self.log.last().map_or(Digest::ZERO, |(parent, ..)| *parent).0.to_vec();
        self.log.push((hash, time, frame.wire().clone()));
        let log: Vec<(u64, Vec<u8>)> = self.log.iter().map(|(_, time, wire)| (*time, wire.to_vec())).collect();
        bytes.extend_from_slice(&encode(&log));
        let id = PersistId(self.log.len() as u64);
        outbox.push(Output::Persist { id, record: Record::Block { sequence, hash, bytes: bytes.into() } });
        if H::FORGETS {
            self.durable = self.log.len();
            self.decide(self.durable, outbox);
        }
    }

    fn decide(&mut self, until: usize, outbox: &mut Vec<Output<Say>>) {
        for place in self.decided..until {
            let (hash, time, wire) = self.log[place].clone();
            assert!(!(H::PANICS && place == 10), "the toy breaks its promise");
            let frame = Frame::parse(self.membership.configuration().cluster, wire, 1 << 16).unwrap();
            let mut frames = vec![frame];
            if H::INVENTS && place % 10 == 9 {
                let mallory = Signer::keyed(1, 1);
                let body = unisono_types::FrameBody::Requests {
                    session: unisono_types::SessionId(1),
                    lowest_unacknowledged: unisono_types::RequestNumber(0),
                    requests: vec![(unisono_types::RequestNumber(1 << 40), Bytes::new())],
                };
                frames.push(Frame::sign(self.membership.configuration().cluster, &mallory, body));
            }
            let sequence = SequenceNumber(place as u64 + 1);
            let record = Record::Commit { sequence, hash, proof: Bytes::from_static(b"proven") };
            outbox.push(Output::Persist { id: PersistId(0), record });
            outbox.push(Output::Decide(decision(place, time, hash, frames)));
        }
        self.decided = self.decided.max(until);
    }
}

impl<H: Habit> Algorithm for Toy<H> {
    const NAME: &'static str = "toy";

    fn create(
        replica: ReplicaId,
        _: Signer,
        membership: Membership,
        recovered: &Recovered,
        _: Option<Planted>,
    ) -> Self {
        // Blocks of a toy hold all blocks below them: it is that small.
        let newest = recovered.blocks.iter().chain(recovered.committed.as_ref().map(|block| &block.bytes));
        let newest = newest.max_by_key(|bytes| bytes.len());
        let log = newest.map_or_else(Vec::new, |bytes| chain(bytes, membership.configuration().cluster));
        let known = log.iter().map(|(hash, ..)| *hash).collect();
        let decided = recovered.committed.as_ref().map_or(0, |block| block.sequence.0 as usize);
        let durable = log.len();
        Self { id: replica, membership, durable, decided, log, known, pending: BTreeMap::new(), habit: PhantomData }
    }

    fn parent(bytes: &Bytes) -> Option<Digest> {
        bytes.first_chunk().map(|parent| Digest(*parent))
    }

    fn forge(_: &Identities, _: ReplicaId, _: &Bytes, _: &mut Random) -> Vec<Bytes> {
        Vec::new()
    }

    fn show(_: &Identities, _: ReplicaId, _: &Abuse, _: &mut Random) -> Vec<Bytes> {
        Vec::new()
    }
}

/// What is found in this many seeds without liars.
fn found<H: Habit>(seeds: u64) -> BTreeSet<Property> {
    let outcomes = (1..=seeds).map(|seed| {
        let plan = Plan { liars: Vec::new(), ed25519: false, ..Plan::wide(seed) };
        run_plan::<Toy<H>>(&plan, Scope::Numbers, false)
    });
    outcomes
        .filter_map(|outcome| {
            if let Some(violation) = &outcome.violation {
                println!("seed {}: {violation:?}", outcome.seed);
            }
            outcome.violation.map(|violation| violation.property)
        })
        .collect()
}

#[test]
fn an_algorithm_that_is_right_shows_nothing() {
    assert_eq!(found::<Right>(8), BTreeSet::new());
}

#[test]
fn each_way_of_being_wrong_is_found_by_the_checker_for_it() {
    assert!(found::<ArrivalOrder>(2).contains(&Property::EqualLogs));
    assert!(found::<Forgets>(8).iter().any(|property| [Property::TrueReplies, Property::EqualLogs].contains(property)));
    assert!(found::<Invents>(2).contains(&Property::Validity));
    assert!(found::<Panics>(2).contains(&Property::NoPanic));
    assert!(found::<Hurries>(2).contains(&Property::AgreedTime));
    assert!(found::<Dawdles>(8).contains(&Property::AgreedTime));
    assert!(found::<Shouts>(1).contains(&Property::MessageLimits));
    assert!(found::<Accuses>(1).contains(&Property::NoFalseAccusation));
    assert!(found::<Garbles>(2).contains(&Property::NoFalseAccusation));
}

#[test]
fn a_leader_that_never_comes_back_is_a_lack_of_liveness() {
    let mut plan = Plan { liars: Vec::new(), faults: Vec::new(), ..Plan::hard(3) };
    plan.liars.push(crate::LiarPlan { replica: 0, silent: 1_000, ..crate::LiarPlan::default() });
    let outcome = run_plan::<Toy<Right>>(&plan, Scope::Numbers, false);
    assert_eq!(outcome.violation.map(|violation| violation.property), Some(Property::Liveness));
}

#[test]
fn a_seed_runs_the_same_twice_and_unlike_another_seed() {
    let hash =
        |seed| run_plan::<Toy<Right>>(&Plan { ed25519: false, ..Plan::hard(seed) }, Scope::Numbers, false).trace_hash;
    assert_eq!(hash(5), hash(5));
    assert_ne!(hash(5), hash(6));
}
