//! Clients of the simulated store: the client core that ships, and somebody behind it who wants things.
//!
//! ```text
//!   Customer ── Invoke ──> Client ── frames ──> replicas
//!      |   <── Completed ──   <───── replies ──
//!      └──> History: when each operation was called, when it returned, and with what
//! ```
//! A linear customer has one operation under way at a time: its history is checked for linearizability. A busy one has
//! many: each must run once, whatever is lost, doubled, sent again or answered late.

use crate::core::{Actor, ActorEffect, ActorInput, Moment};
use crate::linear::{self, Verdict};
use crate::node::{REPLY_BYTES_MAX, digest_of_operation};
use crate::store::{StoreAnswer, StoreModel, StoreOperation, USES};
use crate::{Identities, Plan, Property, Random, Violation};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use unisono_client::{Client, Input as ClientInput, InvokeError, Output as ClientOutput, Settings};
use unisono_types::{Fault, Outcome, Reply, ReplyBody, RequestNumber, SessionId, borsh, decode, encode};

/// One operation and, once it is known, its answer.
pub type Recorded = linear::Operation<StoreOperation, StoreAnswer>;

/// What all customers of one run saw; operations of linear ones only.
#[derive(Clone, Default, Debug)]
pub struct History {
    operations: Vec<Recorded>,
    uses: BTreeMap<&'static str, u64>,
    /// Large operations that were answered, and their bytes.
    pub(crate) large: (u64, u64),
    /// Sessions that agreed time passed by.
    pub(crate) sessions_ended: u64,
}

impl History {
    /// How often a request came to its end that had used this, for all of [`USES`].
    #[must_use]
    pub fn uses(&self) -> BTreeMap<&'static str, u64> {
        USES.iter().map(|name| (*name, self.uses.get(name).copied().unwrap_or_default())).collect()
    }

    /// Checks every part. How many parts, how many of them could not be decided, and the first violation.
    #[must_use]
    pub fn check(&self) -> (u64, u64, Option<Violation>) {
        let mut parts: BTreeMap<(u8, u32), Vec<Recorded>> = BTreeMap::new();
        for operation in &self.operations {
            let leaves_trace = |(_, answer): &(u64, _)| !operation.input.left_no_trace(answer);
            if let Some(part) = operation.input.part()
                && operation.returned.as_ref().is_none_or(leaves_trace)
            {
                parts.entry(part).or_default().push(operation.clone());
            }
        }
        let (mut checked, mut undecided) = (0, 0);
        for history in parts.values() {
            match linear::check::<StoreModel>(history) {
                Verdict::Linearizable => checked += 1,
                Verdict::Undecided => undecided += 1,
                Verdict::Violated(text) => {
                    return (checked, undecided, Some(Violation { property: Property::Linearizability, text }));
                }
            }
        }
        (checked, undecided, None)
    }
}

/// How a customer behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// One operation at a time.
    Linear,
    /// Many at a time.
    Busy,
}

/// Requests that a busy customer has under way at once.
const BUSY_MAX: usize = 12;

/// How many of 1 000 operations are of those that were thought of later.
const MORE_PERMILLE: u64 = 300;

/// A client's process.
pub struct Customer {
    identities: Identities,
    number: usize,
    manner: Manner,
    everything: bool,
    plain: bool,
    think: u64,
    random: Random,
    history: Rc<RefCell<History>>,
    client: Client,
    outbox: Vec<ClientOutput>,
    session: Option<SessionId>,
    /// By number: what was asked, and its place in the history if it has one.
    waiting: BTreeMap<RequestNumber, (StoreOperation, Option<usize>)>,
    /// Values written so far: each is written once.
    written: u64,
    next_at: u64,
    client_at: u64,
    /// Large operations still to be asked for, and the greatest size.
    large: (u64, usize),
    large_permille: u64,
    /// Agreed time may pass a session by.
    sessions_may_end: bool,
    after_calm: bool,
    /// Reads for the end of the history.
    last_words: Vec<StoreOperation>,
    finishing: bool,
}

impl Customer {
    /// Client `number` of this plan's cluster.
    #[must_use]
    pub fn new(
        identities: Identities,
        plan: &Plan,
        number: usize,
        mut random: Random,
        history: Rc<RefCell<History>>,
    ) -> Self {
        let client = connect(&identities, number, &mut random);
        let manner = if number < plan.linear_clients { Manner::Linear } else { Manner::Busy };
        Self {
            identities,
            number,
            manner,
            everything: plan.everything,
            plain: plan.plain,
            think: plan.think,
            random,
            history,
            client,
            outbox: Vec::new(),
            session: None,
            waiting: BTreeMap::new(),
            written: 0,
            next_at: 0,
            client_at: u64::MAX,
            large: (if manner == Manner::Busy { plan.large } else { 0 }, plan.limits.operation_bytes as usize),
            large_permille: plan.large_permille,
            sessions_may_end: plan.sessions_may_end(),
            after_calm: plan.after_calm,
            last_words: Vec::new(),
            finishing: false,
        }
    }

    fn pass(&mut self, now: Moment, input: ClientInput, effects: &mut Vec<ActorEffect>) {
        let mut outbox = std::mem::take(&mut self.outbox);
        self.client.handle(now.time, input, &mut outbox);
        for output in outbox.drain(..) {
            match output {
                ClientOutput::Send { to, message } => {
                    effects.push(ActorEffect::Send { to, bytes: encode(&message).into() });
                }
                ClientOutput::Completed { number, outcome } => self.completed(now, number, outcome, effects),
                ClientOutput::SetTimer { at } => self.client_at = at,
                ClientOutput::Closed => {}
                ClientOutput::Opened(session) => {
                    self.session = Some(session);
                    // What was asked after the last session had ended, before it was known, is sent in this one.
                    effects.extend(self.waiting.iter().map(|(number, (operation, _))| ActorEffect::Invoked {
                        session,
                        number: *number,
                        operation: digest_of_operation(&encode(operation)),
                    }));
                    self.next_at = now.time.monotonic;
                }
                ClientOutput::Failed(reason) => {
                    effects.push(ActorEffect::Violated(
                        Property::Liveness,
                        format!("client {} was refused: {reason}", self.number),
                    ));
                }
            }
        }
        self.outbox = outbox;
    }

    fn completed(
        &mut self,
        now: Moment,
        number: RequestNumber,
        outcome: Result<Outcome, InvokeError>,
        effects: &mut Vec<ActorEffect>,
    ) {
        let Some(session) = self.session else { return };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(InvokeError::SessionLost) if self.sessions_may_end => {
                // Whether it ran is not known; another session will be opened.
                self.history.borrow_mut().sessions_ended += 1;
                self.waiting.remove(&number);
                return;
            }
            Err(error) => {
                // Nobody closes sessions here, none idles for an hour, and nobody asks for too much.
                let text = format!("client {}: {session:?} {number:?}: {error}", self.number);
                return effects.push(ActorEffect::Violated(Property::TrueReplies, text));
            }
        };
        let Some((operation, place)) = self.waiting.remove(&number) else {
            let text = format!("client {}: {session:?} {number:?} was answered twice", self.number);
            return effects.push(ActorEffect::Violated(Property::ExactlyOnce, text));
        };
        effects.push(ActorEffect::Completed { session, number, outcome: ReplyBody::digest_of(&outcome) });
        let answer = match outcome {
            // By the rule for deadlocks its youngest thread gives way, also one that owns nothing and only queues.
            Err(Fault::Deadlock { .. }) if operation.may_meet_deadlock() => Ok(StoreAnswer::Refused),
            Err(fault) => Err(fault),
            Ok(bytes) => match borsh::from_slice::<StoreAnswer>(&bytes) {
                Ok(answer) => Ok(answer),
                Err(_) => {
                    let text = format!("client {}: {operation:?} came to bytes that are no answer", self.number);
                    return effects.push(ActorEffect::Violated(Property::TrueReplies, text));
                }
            },
        };
        match (&operation, &answer) {
            (StoreOperation::Tally(_), Ok(StoreAnswer::Number(1))) => {}
            (StoreOperation::Tally(_), answer) => {
                let text = format!("client {}: {session:?} {number:?} ran {answer:?} times", self.number);
                effects.push(ActorEffect::Violated(Property::ExactlyOnce, text));
            }
            (operation, answer) if !operation.may_come_to(answer) => {
                let text = format!("client {}: {operation:?} came to {answer:?}", self.number);
                effects.push(ActorEffect::Violated(Property::TrueReplies, text));
            }
            _ => {}
        }
        let history = &mut *self.history.borrow_mut();
        if let StoreOperation::Carry(bytes) = &operation {
            history.large.0 += 1;
            history.large.1 += bytes.len() as u64;
        }
        for name in operation.uses(&answer) {
            *history.uses.entry(name).or_default() += 1;
        }
        if let (Some(place), Ok(answer)) = (place, answer) {
            history.operations[place].returned = Some((now.order, answer));
        }
        self.next_at = now.time.monotonic + self.random.below(self.think + 1);
    }

    fn invoke(&mut self, now: Moment, operation: StoreOperation, effects: &mut Vec<ActorEffect>) {
        let Some(session) = self.session else { return };
        let number = self.client.next_number();
        let bytes = encode(&operation);
        effects.push(ActorEffect::Invoked { session, number, operation: digest_of_operation(&bytes) });
        let place = (self.manner == Manner::Linear).then(|| {
            let operations = &mut self.history.borrow_mut().operations;
            let (client, called, input) = (self.number, now.order, operation.clone());
            operations.push(Recorded { client, called, input, returned: None });
            operations.len() - 1
        });
        self.waiting.insert(number, (operation, place));
        self.pass(now, ClientInput::Invoke { operation: bytes.into() }, effects);
    }

    fn want(&mut self) -> Option<StoreOperation> {
        if self.finishing {
            return self.last_words.pop();
        }
        let random = &mut self.random;
        if self.large.0 > 0 && random.chance(self.large_permille) {
            self.large.0 -= 1;
            return Some(StoreOperation::draw_large(random, self.large.1));
        }
        let more = self.everything && random.chance(MORE_PERMILLE);
        Some(match self.manner {
            Manner::Linear => {
                self.written += 1;
                let unique = (self.number as u64 + 1) << 32 | self.written;
                if self.plain {
                    return Some(StoreOperation::Write(0, unique));
                }
                let draw = if more { StoreOperation::draw_more } else { StoreOperation::draw };
                draw(random, unique)
            }
            Manner::Busy if more => StoreOperation::draw_more_busy(random),
            Manner::Busy => StoreOperation::draw_busy(random),
        })
    }

    fn act(&mut self, now: Moment, effects: &mut Vec<ActorEffect>) {
        let (room, burst) = match self.manner {
            Manner::Linear => (1, 1),
            Manner::Busy => (BUSY_MAX, self.random.between(1, 5)),
        };
        let mut invoked = false;
        for _ in 0..burst {
            if self.session.is_none() || self.waiting.len() >= room {
                break;
            }
            let Some(operation) = self.want() else { break };
            self.invoke(now, operation, effects);
            invoked = true;
        }
        if invoked {
            self.pass(now, ClientInput::Flush, effects);
        }
        self.next_at = match self.manner {
            Manner::Linear => u64::MAX,
            Manner::Busy => now.time.monotonic + self.random.between(1_000, self.think + 1_000),
        };
        if self.manner == Manner::Linear && self.waiting.is_empty() && !self.finishing {
            self.next_at = now.time.monotonic + 1_000;
        }
    }
}

/// A client core with a session of its own to open.
fn connect(identities: &Identities, number: usize, random: &mut Random) -> Client {
    let signer = identities.clients[number].clone();
    let settings = Settings { membership: identities.membership().clone(), signer, jitter: random.next_u64() };
    Client::new(settings, random.next_u64())
}

impl Actor for Customer {
    fn handle(&mut self, now: Moment, input: ActorInput, effects: &mut Vec<ActorEffect>) {
        match input {
            ActorInput::Start => self.pass(now, ClientInput::Start, effects),
            ActorInput::Reply { from, bytes } => {
                if let Ok(reply) = decode::<Reply>(&bytes, REPLY_BYTES_MAX) {
                    self.pass(now, ClientInput::Reply { from, reply }, effects);
                }
            }
            ActorInput::Timeout => {
                if self.client_at <= now.time.monotonic {
                    self.client_at = u64::MAX;
                    self.pass(now, ClientInput::Timeout, effects);
                }
            }
            ActorInput::Link { replica, up } => self.pass(now, ClientInput::Link { replica, up }, effects),
            ActorInput::Wake => {}
            ActorInput::Crash => {
                self.client = connect(&self.identities, self.number, &mut self.random);
                self.session = None;
                self.waiting.clear();
                self.client_at = u64::MAX;
                self.pass(now, ClientInput::Start, effects);
            }
            ActorInput::Finish => {
                self.finishing = true;
                if self.number == 0 && self.manner == Manner::Linear {
                    self.last_words = StoreOperation::reads();
                } else if self.after_calm {
                    self.last_words = vec![match self.manner {
                        Manner::Linear => StoreOperation::Sum(0),
                        Manner::Busy => StoreOperation::Tally(0),
                    }];
                }
            }
        }
        if self.session.is_some() && (self.next_at <= now.time.monotonic || self.finishing) {
            self.act(now, effects);
        }
        let at = self.client_at.min(if self.session.is_some() { self.next_at } else { u64::MAX });
        if at != u64::MAX {
            effects.push(ActorEffect::SetTimer { at });
        }
    }

    fn is_done(&self) -> bool {
        self.session.is_some() && self.waiting.is_empty() && self.last_words.is_empty()
    }

    fn waits_for(&self) -> String {
        match self.session {
            None => "a session".into(),
            Some(session) => {
                let waiting: Vec<String> =
                    self.waiting.iter().map(|(number, (operation, _))| format!("{number:?} {operation:?}")).collect();
                format!("{session:?}: {}", waiting.join(", "))
            }
        }
    }
}
