//! A cluster of one in memory: connections of the gateway's protocol over the service on an executor, without network,
//! threads or clocks. Time passes when a test says so.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use unisono::gateway::{Action, Bytes, BytesMut, Connection as _, Protocol};
use unisono_execution::{Executor, Settings};
use unisono_redis::{Gateway, Redis, gateway};
use unisono_scheduler::{Parameters, Scheduler, sequential::Sequential, uds::Uds};
use unisono_types::{Done, Outcome, Position, RequestNumber, SequenceNumber, SessionId, Timestamp, Work};

/// Rounds of answers and operations before a test is stuck.
const ROUNDS_MAX: usize = 100_000;

/// Which scheduler, and who chooses what runs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Schedule {
    /// One request after the other.
    Sequential,
    /// UDS, tasks picked by this seed.
    Uds(u64),
}

impl Schedule {
    pub(crate) fn scheduler(self) -> Box<dyn Scheduler> {
        match self {
            Self::Sequential => Box::new(Sequential::new()),
            // A few primaries with a few steps each: rounds end in the middle of things.
            Self::Uds(_) => Box::new(Uds::new(Parameters { primaries: 4, ..Parameters::uds() })),
        }
    }
}

/// SplitMix64: a sequence of numbers from a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.number() % bound as u64) as usize }
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// An application's end of a connection.
struct Application {
    connection: gateway::Connection,
    input: BytesMut,
    output: Vec<u8>,
    closed: bool,
    gone: bool,
}

/// Gateway, service and the order between them.
pub(crate) struct Cluster {
    gateway: Gateway,
    executor: Executor,
    random: Random,
    stepped: bool,
    applications: Vec<Application>,
    waiting: BTreeMap<Position, (usize, u64)>,
    sequence: SequenceNumber,
    requests: u64,
    now: u64,
    pub(crate) operations: usize,
}

impl Cluster {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self::with(schedule, gateway::Settings::default())
    }

    pub(crate) fn with(schedule: Schedule, settings: gateway::Settings) -> Self {
        let start_ahead = if schedule == Schedule::Sequential { 0 } else { 8 };
        let execution = Settings { workers: 0, start_ahead, ..Settings::default() };
        Self {
            gateway: Gateway::new(settings, [7; 8]),
            executor: Executor::new::<Redis>(schedule.scheduler(), execution),
            random: Random(if let Schedule::Uds(seed) = schedule { seed } else { 0 }),
            stepped: schedule != Schedule::Sequential,
            applications: Vec::new(),
            waiting: BTreeMap::new(),
            sequence: SequenceNumber(0),
            requests: 0,
            now: 1_000_000_000,
            operations: 0,
        }
    }

    /// Somebody connects; the answer is his number.
    pub(crate) fn connect(&mut self) -> usize {
        let connection = self.gateway.connect();
        let (input, output) = (BytesMut::new(), Vec::new());
        self.applications.push(Application { connection, input, output, closed: false, gone: false });
        self.applications.len() - 1
    }

    /// Bytes from an application arrive at the gateway. Nothing is executed yet.
    pub(crate) fn arrive(&mut self, who: usize, bytes: impl AsRef<[u8]>) {
        let application = &mut self.applications[who];
        application.input.extend_from_slice(bytes.as_ref());
        self.look(who);
    }

    /// Bytes arrive, everything that can be done is done; the answer is what came back.
    pub(crate) fn send(&mut self, who: usize, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        self.arrive(who, bytes);
        self.settle();
        self.take(who)
    }

    /// [`Cluster::send`] of an inline command, answered by text.
    pub(crate) fn ask(&mut self, who: usize, line: &str) -> String {
        String::from_utf8_lossy(&self.send(who, format!("{line}\r\n"))).into_owned()
    }

    /// What came back since the last time.
    pub(crate) fn take(&mut self, who: usize) -> Vec<u8> {
        std::mem::take(&mut self.applications[who].output)
    }

    pub(crate) fn taken(&mut self, who: usize) -> String {
        String::from_utf8_lossy(&self.take(who)).into_owned()
    }

    pub(crate) fn closed(&self, who: usize) -> bool {
        self.applications[who].closed
    }

    /// Bytes that the gateway left in the input.
    pub(crate) fn left(&self, who: usize) -> usize {
        self.applications[who].input.len()
    }

    /// The application is gone without a word.
    pub(crate) fn vanish(&mut self, who: usize) {
        self.applications[who].gone = true;
        let mut actions = Vec::new();
        self.applications[who].connection.disconnected(&mut actions);
        self.act(who, actions);
        self.settle();
    }

    /// So much agreed time passes.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds * 1_000;
        self.settle();
        self.submit(Work::Tick(Timestamp(self.now)));
        self.settle();
    }

    /// Agreed time is at least this.
    pub(crate) fn time_is(&mut self, microseconds: u64) {
        self.now = self.now.max(microseconds);
    }

    /// Operations that have not come to an end.
    pub(crate) fn parked(&self) -> usize {
        self.waiting.len()
    }

    /// An operation of somebody's own making.
    pub(crate) fn execute(&mut self, operation: &[u8]) -> Outcome {
        let position = self.submit_request(Bytes::copy_from_slice(operation));
        let mut outcome = None;
        self.settle_and(|done_at, result| {
            if done_at == position {
                outcome = Some(result.clone());
            }
        });
        outcome.expect("an operation that does not wait comes to an end")
    }

    /// Digests of all objects as of now.
    pub(crate) fn leaves(&mut self) -> Vec<(String, unisono_types::Digest)> {
        self.sequence = self.sequence.next();
        self.submit(Work::Mark(self.sequence));
        self.settle();
        self.executor.leaves(None, 100_000)
    }

    /// Everything that can be done is done.
    pub(crate) fn settle(&mut self) {
        self.settle_and(|_, _| {});
    }

    fn settle_and(&mut self, mut see: impl FnMut(Position, &Outcome)) {
        for _ in 0..ROUNDS_MAX {
            self.run();
            let mut all_done = Vec::new();
            self.executor.take_done(&mut all_done);
            if all_done.is_empty() {
                return;
            }
            for done in all_done {
                match done {
                    Done::Executed { position, outcome, .. } => {
                        see(position, &outcome);
                        self.answer(position, outcome);
                    }
                    Done::Starved { flush: true, .. } => self.submit(Work::Flush),
                    Done::Starved { flush: false, tick: Some(deadline) } if deadline.0 <= self.now => {
                        self.submit(Work::Tick(Timestamp(self.now)));
                    }
                    Done::Starved { .. } | Done::Marked(_) => {}
                    Done::Called { .. } => unreachable!("no command asks the outside"),
                }
            }
        }
        panic!("the cluster does not come to rest");
    }

    fn run(&mut self) {
        if !self.stepped {
            return self.executor.run_until_idle();
        }
        while self.executor.runnable() > 0 {
            let pick = self.random.below(self.executor.runnable());
            self.executor.step(pick);
        }
        self.executor.run_until_idle();
    }

    fn answer(&mut self, position: Position, outcome: Outcome) {
        let Some((who, ticket)) = self.waiting.remove(&position) else { return };
        if self.applications[who].gone {
            return;
        }
        let mut actions = Vec::new();
        self.applications[who].connection.answer(ticket, Ok(outcome), &mut actions);
        self.act(who, actions);
        self.look(who);
    }

    /// As the host does: what is left is shown again after each answer.
    fn look(&mut self, who: usize) {
        let application = &mut self.applications[who];
        if application.input.is_empty() || application.closed {
            return;
        }
        let mut actions = Vec::new();
        application.connection.receive(&mut application.input, &mut actions);
        self.act(who, actions);
    }

    fn act(&mut self, who: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Write(bytes) => {
                    assert!(!self.applications[who].closed, "nothing is written behind Close");
                    self.applications[who].output.extend_from_slice(&bytes);
                }
                Action::Close => self.applications[who].closed = true,
                Action::Invoke { ticket, operation } => {
                    let position = self.submit_request(operation);
                    self.waiting.insert(position, (who, ticket));
                }
            }
        }
    }

    fn submit_request(&mut self, operation: Bytes) -> Position {
        self.operations += 1;
        self.sequence = self.sequence.next();
        self.requests += 1;
        let position = Position::new(self.sequence, 0).expect("a test is short");
        self.submit(Work::Request {
            position,
            timestamp: Timestamp(self.now),
            session: SessionId(1),
            number: RequestNumber(self.requests),
            operation,
        });
        position
    }

    fn submit(&mut self, work: Work) {
        self.executor.submit(work);
    }
}

/// A request as an array of bulk strings.
pub(crate) fn array<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.as_ref().len()).as_bytes());
        bytes.extend_from_slice(word.as_ref());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
