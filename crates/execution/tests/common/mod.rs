//! A service under an executor in the test's own thread, and a scheduler that writes down what it was told.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::{Arc, Mutex};
use unisono_execution::{Executor, Invoke, InvokeError, Service, Settings};
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{
    Event, Grant, GrantRecord, Operation, Order, Parameters, Scheduler, Standing, Status, ThreadIndex,
};
use unisono_types::{
    Bytes, Done, Fault, MarkReport, Outcome, Position, RequestNumber, SequenceNumber, SessionId, Timestamp, Work,
};

pub fn sequential() -> Box<dyn Scheduler> {
    Box::new(Sequential::new())
}

pub fn uds(primaries: u32, steps: u32, order: Order) -> Box<dyn Scheduler> {
    Box::new(Uds::new(Parameters { primaries, steps, order, ..Parameters::uds() }))
}

/// Panics that a test wants are not printed.
pub fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload_as_str().is_some_and(|message| message.contains("deliberate")) {
                print(info);
            }
        }));
    });
}

/// Writes down the operations that reach the scheduler.
pub struct Recorder {
    inner: Box<dyn Scheduler>,
    operations: Arc<Mutex<Vec<Operation>>>,
}

impl Scheduler for Recorder {
    fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
        if let Event::Operation { operation, .. } = &event {
            self.operations.lock().unwrap().push(operation.clone());
        }
        self.inner.handle(event, grants);
    }

    fn status(&self) -> Status {
        self.inner.status()
    }

    fn grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        self.inner.grants(from, limit)
    }

    fn observe(&mut self, on: bool) {
        self.inner.observe(on);
    }

    fn standing(&self, thread: ThreadIndex) -> Standing {
        self.inner.standing(thread)
    }
}

/// One executor, one decision per request.
pub struct Bench {
    pub executor: Executor,
    pub operations: Arc<Mutex<Vec<Operation>>>,
    pub sequence: SequenceNumber,
    pub timestamp: u64,
    pub outcomes: Mutex<Vec<(SequenceNumber, Outcome)>>,
    pub marks: Vec<MarkReport>,
    pub starved: Vec<(bool, Option<u64>)>,
    pub called: Vec<Called>,
}

/// A performed outside call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    pub position: Position,
    pub path: Vec<u16>,
    pub call: u32,
    pub target: String,
    pub request: Bytes,
}

impl Bench {
    pub fn new<S: Service>() -> Self {
        Self::with::<S>(sequential(), Settings::default())
    }

    pub fn with<S: Service>(scheduler: Box<dyn Scheduler>, settings: Settings) -> Self {
        let operations = Arc::default();
        let recorder = Recorder { inner: scheduler, operations: Arc::clone(&operations) };
        Self {
            executor: Executor::new::<S>(Box::new(recorder), settings),
            operations,
            sequence: SequenceNumber::ZERO,
            timestamp: 1_000_000,
            outcomes: Mutex::default(),
            marks: Vec::new(),
            starved: Vec::new(),
            called: Vec::new(),
        }
    }

    pub fn request(&mut self, operation: Vec<u8>) -> SequenceNumber {
        self.sequence = self.sequence.next();
        self.executor.submit(Work::Request {
            position: Position::new(self.sequence, 0).unwrap(),
            timestamp: Timestamp(self.timestamp),
            session: SessionId(1),
            number: RequestNumber(self.sequence.0),
            operation: Bytes::from(operation),
        });
        self.sequence
    }

    pub fn tick(&mut self, microseconds: u64) {
        self.timestamp += microseconds;
        self.executor.submit(Work::Tick(Timestamp(self.timestamp)));
    }

    pub fn flush(&mut self) {
        self.executor.submit(Work::Flush);
    }

    pub fn mark(&mut self) -> MarkReport {
        self.sequence = self.sequence.next();
        self.executor.submit(Work::Mark(self.sequence));
        self.run();
        *self.marks.last().expect("the Mark took effect")
    }

    /// Runs what can run; gives what ended since the last time.
    pub fn run(&mut self) -> Vec<(SequenceNumber, Outcome)> {
        self.executor.run_until_idle();
        let mut done = Vec::new();
        self.executor.take_done(&mut done);
        let mut ended = std::mem::take(self.outcomes.get_mut().unwrap());
        for done in done {
            match done {
                Done::Executed { position, outcome, .. } => ended.push((position.sequence(), outcome)),
                Done::Marked(report) => self.marks.push(report),
                Done::Called { position, path, call, target, request } => {
                    self.called.push(Called { position, path, call, target, request });
                }
                Done::Starved { flush, tick } => self.starved.push((flush, tick.map(|tick| tick.0))),
            }
        }
        ended
    }

    /// Runs one request to its end, with as many Flushes as it wants.
    pub fn call(&mut self, operation: Vec<u8>) -> Outcome {
        let sequence = self.request(operation);
        for _ in 0..100 {
            if let Some((_, outcome)) = self.run().into_iter().find(|(ended, _)| *ended == sequence) {
                return outcome;
            }
            self.flush();
        }
        panic!("{sequence:?} does not end");
    }

    pub fn take_operations(&self) -> Vec<Operation> {
        std::mem::take(&mut self.operations.lock().unwrap())
    }
}

/// A typed client's way to a service in the same thread.
pub struct Local(pub Mutex<Bench>);

impl Invoke for Local {
    type Error = Fault;

    async fn invoke(&self, operation: Vec<u8>) -> Result<Vec<u8>, Fault> {
        self.0.lock().unwrap().call(operation).map(|bytes| bytes.to_vec())
    }
}

/// Runs a client's future, which never waits for anything but [`Local`].
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).as_mut().poll(&mut cx) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("a local call does not wait"),
    }
}

/// What a call of a typed client came to, its fault or its value.
pub fn value<T>(result: Result<T, InvokeError<Fault>>) -> Result<T, Fault> {
    result.map_err(|error| match error {
        InvokeError::Invoke(fault) => fault,
        InvokeError::Malformed => panic!("a reply of another type"),
    })
}

pub fn decode<T: unisono_execution::borsh::BorshDeserialize>(outcome: &Outcome) -> T {
    let bytes = outcome.as_ref().expect("a result");
    unisono_types::decode(bytes, bytes.len()).expect("of this type")
}
