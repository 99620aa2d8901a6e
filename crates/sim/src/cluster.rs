//! A service in the simulator: a whole cluster that a test can talk to.
//!
//! ```text
//!   let mut cluster = Cluster::<MyService>::new(Plan::calm(7, 3));
//!   let client = cluster.client();
//!   let outcome = cluster.call(client, operation)?;      // virtual time runs until it is answered
//!   cluster.crash(0); cluster.run_for(SECOND); cluster.restart(0);
//!   cluster.settle()?;                                   // all replicas equal, nothing outstanding
//! ```
//! Every promise of the simulator's checkers is watched meanwhile; the first one broken is the error of the next call.

use crate::core::{Actor, ActorEffect, ActorInput, Moment};
use crate::node::{REPLY_BYTES_MAX, digest_of_operation};
use crate::{
    Checker, Fault, Identities, LIVENESS_LIMIT, Parts, Plan, Progress, Property, Random, ReplicaFactory, Trace,
    Violation, World,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::rc::Rc;
use unisono_client::{Client, Input as ClientInput, InvokeError, Output as ClientOutput, Settings};
use unisono_consensus::aphousia::Aphousia;
use unisono_execution::Service;
use unisono_types::{Outcome, Reply, ReplyBody, RequestNumber, SessionId, decode, encode};

/// Steps of virtual time in which a call looks for its answer.
const CALL_INTERVAL: u64 = 1_000;

/// A simulated cluster of service `S`.
pub struct Cluster<S: Service> {
    world: World,
    identities: Identities,
    random: Random,
    clients: Vec<Rc<RefCell<Desk>>>,
    service: PhantomData<fn() -> S>,
}

/// Names a client of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(usize);

impl<S: Service> Cluster<S> {
    /// A cluster as the plan says: its size, network, liars, and faults if it has any.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let identities = Identities::new(&plan);
        let factory = Box::new(ReplicaFactory::<S, Aphousia>::new(identities.clone(), &plan));
        let checked = identities.checked.clone();
        let parts = Parts { factory, registers: identities.registers.clone(), actors: Vec::new(), checked };
        let random = Random::new(plan.seed ^ 0xc1e4);
        let world = World::new(plan, parts, Trace::new(false));
        Self { world, identities, random, clients: Vec::new(), service: PhantomData }
    }

    /// One more client, with a session of its own.
    pub fn client(&mut self) -> ClientId {
        let number = self.clients.len();
        let desk = Rc::new(RefCell::new(Desk::default()));
        let signer = self.identities.clients[number].clone();
        let membership = self.identities.membership().clone();
        let settings = Settings { membership, signer, jitter: self.random.next_u64() };
        let clerk = Clerk {
            client: Client::new(settings, self.random.next_u64()),
            desk: Rc::clone(&desk),
            session: None,
            outbox: Vec::new(),
        };
        self.clients.push(desk);
        self.world.join(Box::new(clerk));
        ClientId(number)
    }

    /// Asks for something and does not wait. What it comes to: [`Cluster::outcome`] under this number, which counts
    /// this client's requests.
    pub fn invoke(&mut self, client: ClientId, operation: Vec<u8>) -> usize {
        let ticket = {
            let desk = &mut *self.clients[client.0].borrow_mut();
            desk.asked.push(operation);
            desk.tickets += 1;
            desk.tickets - 1
        };
        self.world.wake(client.0);
        ticket
    }

    /// What a request has come to, if it has.
    #[must_use]
    pub fn outcome(&self, client: ClientId, ticket: usize) -> Option<Outcome> {
        self.clients[client.0].borrow().answered.get(&ticket).cloned()
    }

    /// Asks for something and runs the world until it is answered.
    ///
    /// # Errors
    /// The first violation, or a lack of liveness when no answer comes within [`LIVENESS_LIMIT`].
    pub fn call(&mut self, client: ClientId, operation: Vec<u8>) -> Result<Outcome, Violation> {
        let ticket = self.invoke(client, operation);
        let deadline = self.world.now() + LIVENESS_LIMIT;
        loop {
            if let Some(outcome) = self.outcome(client, ticket) {
                return Ok(outcome);
            }
            if self.world.now() >= deadline {
                let text = format!("client {}: request {ticket} was not answered in time", client.0);
                return Err(Violation { property: Property::Liveness, text });
            }
            self.run_for(CALL_INTERVAL)?;
        }
    }

    /// Lets virtual time pass.
    ///
    /// # Errors
    /// The first violation.
    pub fn run_for(&mut self, microseconds: u64) -> Result<(), Violation> {
        self.world.run_until(self.world.now() + microseconds);
        self.world.checker().violation().map_or(Ok(()), |violation| Err(violation.clone()))
    }

    /// Runs until nothing is outstanding and all replicas are equally far.
    ///
    /// # Errors
    /// The first violation, or a lack of liveness when that takes longer than [`LIVENESS_LIMIT`].
    pub fn settle(&mut self) -> Result<(), Violation> {
        let deadline = self.world.now() + LIVENESS_LIMIT;
        while !self.world.is_settled() {
            if self.world.now() >= deadline {
                return Err(Violation { property: Property::Liveness, text: "the cluster does not settle".into() });
            }
            self.run_for(CALL_INTERVAL)?;
        }
        Ok(())
    }

    /// Power loss of a replica.
    pub fn crash(&mut self, replica: usize) {
        self.world.power_off(replica);
    }

    /// Starts a replica that is down, from what its disk holds.
    pub fn restart(&mut self, replica: usize) {
        self.world.restart(replica);
    }

    /// Lets something go wrong.
    pub fn inflict(&mut self, fault: &Fault) {
        self.world.inflict(fault);
    }

    /// Ends all faults: everybody is up and reaches everybody.
    pub fn heal(&mut self) {
        self.world.heal();
    }

    /// How far a replica is.
    #[must_use]
    pub fn progress(&self, replica: usize) -> Progress {
        self.world.progress(replica)
    }

    /// What the checkers saw.
    #[must_use]
    pub fn checker(&self) -> &Checker {
        self.world.checker()
    }

    /// Virtual time in microseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.world.now()
    }
}

/// What a test put down for its client, and what came back.
#[derive(Default, Debug)]
struct Desk {
    asked: Vec<Vec<u8>>,
    tickets: usize,
    answered: BTreeMap<usize, Outcome>,
}

/// The client's process.
struct Clerk {
    client: Client,
    desk: Rc<RefCell<Desk>>,
    session: Option<SessionId>,
    outbox: Vec<ClientOutput>,
}

impl Clerk {
    fn pass(&mut self, now: Moment, input: ClientInput, effects: &mut Vec<ActorEffect>) {
        let mut outbox = std::mem::take(&mut self.outbox);
        self.client.handle(now.time, input, &mut outbox);
        for output in outbox.drain(..) {
            match output {
                ClientOutput::Send { to, message } => {
                    effects.push(ActorEffect::Send { to, bytes: encode(&message).into() })
                }
                ClientOutput::SetTimer { at } => effects.push(ActorEffect::SetTimer { at }),
                ClientOutput::Closed => {}
                ClientOutput::Opened(session) => self.session = Some(session),
                ClientOutput::Completed { number, outcome } => self.completed(number, outcome, effects),
                ClientOutput::Failed(reason) => {
                    effects.push(ActorEffect::Violated(Property::Liveness, format!("a client was refused: {reason}")));
                }
            }
        }
        self.outbox = outbox;
    }

    fn completed(
        &mut self,
        number: RequestNumber,
        outcome: Result<Outcome, InvokeError>,
        effects: &mut Vec<ActorEffect>,
    ) {
        let Some(session) = self.session else { return };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let text = format!("{session:?} {number:?}: {error}");
                return effects.push(ActorEffect::Violated(Property::TrueReplies, text));
            }
        };
        effects.push(ActorEffect::Completed { session, number, outcome: ReplyBody::digest_of(&outcome) });
        // Numbers of a session count from 1 and tickets from 0, in the same order.
        self.desk.borrow_mut().answered.insert(number.0 as usize - 1, outcome);
    }

    fn ask(&mut self, now: Moment, effects: &mut Vec<ActorEffect>) {
        let Some(session) = self.session else { return };
        let asked = std::mem::take(&mut self.desk.borrow_mut().asked);
        if asked.is_empty() {
            return;
        }
        for operation in asked {
            let number = self.client.next_number();
            effects.push(ActorEffect::Invoked { session, number, operation: digest_of_operation(&operation) });
            self.pass(now, ClientInput::Invoke { operation: operation.into() }, effects);
        }
        self.pass(now, ClientInput::Flush, effects);
    }
}

impl Actor for Clerk {
    fn handle(&mut self, now: Moment, input: ActorInput, effects: &mut Vec<ActorEffect>) {
        match input {
            ActorInput::Start => self.pass(now, ClientInput::Start, effects),
            ActorInput::Reply { from, bytes } => {
                if let Ok(reply) = decode::<Reply>(&bytes, REPLY_BYTES_MAX) {
                    self.pass(now, ClientInput::Reply { from, reply }, effects);
                }
            }
            ActorInput::Timeout => self.pass(now, ClientInput::Timeout, effects),
            ActorInput::Link { replica, up } => self.pass(now, ClientInput::Link { replica, up }, effects),
            ActorInput::Wake | ActorInput::Crash | ActorInput::Finish => {}
        }
        self.ask(now, effects);
    }

    fn is_done(&self) -> bool {
        let desk = self.desk.borrow();
        desk.asked.is_empty() && desk.answered.len() == desk.tickets
    }

    fn waits_for(&self) -> String {
        let desk = self.desk.borrow();
        format!("{} of {} answers", desk.tickets - desk.answered.len(), desk.tickets)
    }
}
