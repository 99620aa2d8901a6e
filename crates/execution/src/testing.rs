//! A service under many random schedules, compared. Needs no cluster.
//!
//! ```text
//!   operations ── record ──> log (requests, Marks, the Flushes and Ticks that a leader would add) and its trace
//!                             |
//!                             ├── replay, stepped: random picks, arrivals, start-ahead ──> trace ┐
//!                             ├── replay, 1 2 4 workers                                ──> trace ├─ all equal?
//!                             └── ...                                                            ┘
//! ```
//! Replies, roots, grant traces and the scheduler's state must be equal for one log under one scheduler. Two schedulers,
//! or one under two sets of parameters, are different agreements and may rightly differ.
//!
//! Everything follows from the seed, but for the luck of the operating system with workers.

use crate::context::Random;
use crate::executor::{Executor, Settings};
use crate::service::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Order, Parameters, Scheduler};
use unisono_types::{
    Bytes, Digest, Done, MarkReport, Outcome, Position, RequestNumber, SequenceNumber, SessionId, Timestamp, Work,
};

/// Entries that a recording adds at its end at most: handlers that wake up for ever must not record for ever.
const ADDED_ENTRIES_MAX: usize = 10_000;

/// Objects of the last Mark that a trace keeps to name a difference.
const LEAVES_MAX: usize = 100_000;

/// Agreed time between two requests of a recording, in microseconds.
const REQUEST_DISTANCE: u64 = 1_000;

/// Worker counts under which each log is replayed.
const WORKERS: [usize; 3] = [1, 2, 4];

/// A log, and what came of it in line.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The ordered work.
    pub log: Vec<Work>,
    /// What it came to.
    pub trace: Trace,
}

/// What a log came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// What each handler came to; those missing have not ended.
    pub outcomes: BTreeMap<Position, Outcome>,
    /// Each Mark with the handlers that had ended by then.
    pub marks: Vec<(MarkReport, BTreeSet<Position>)>,
    /// The objects at the last Mark.
    pub leaves: Vec<(String, Digest)>,
}

/// How a log is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Execution {
    /// As fast as it goes, in the calling thread.
    InLine,
    /// One poll at a time, arrivals and picks by this seed.
    Stepped(u64),
    /// By so many threads.
    Workers(usize),
}

/// Two executions of one log that are not equal: the service is not deterministic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The seed of the recording.
    pub seed: u64,
    /// What differs from the execution in line.
    pub execution: Execution,
    /// The first thing that differs.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {:?} and InLine differ: {}", self.seed, self.execution, self.what)
    }
}

impl std::error::Error for Difference {}

/// Runs `operations` of `S` under `seeds` random schedules and compares. `scheduler` makes the policy, each time the
/// same. Returns what came of the first seed.
///
/// # Errors
/// The first [`Difference`].
pub fn check<S: Service>(
    scheduler: impl Fn() -> Box<dyn Scheduler>,
    operations: &[Vec<u8>],
    seeds: std::ops::Range<u64>,
) -> Result<Recording, Difference> {
    let mut first = None;
    for seed in seeds {
        let recording = record::<S>(scheduler(), operations, seed);
        let stepped = (0..3).map(|run| Execution::Stepped(seed.wrapping_mul(31).wrapping_add(run)));
        let executions = stepped.chain(WORKERS.map(Execution::Workers)).chain([Execution::InLine]);
        for execution in executions {
            let trace = replay::<S>(scheduler(), &recording.log, execution);
            if let Some(what) = difference(&recording.trace, &trace) {
                return Err(Difference { seed, execution, what });
            }
        }
        first.get_or_insert(recording);
    }
    Ok(first.unwrap_or_else(|| record::<S>(scheduler(), &[], 0)))
}

/// The policies under which [`check_all`] looks: in line; one primary and many; one step and many; all orders.
#[must_use]
pub fn policies() -> Vec<(&'static str, Option<Parameters>)> {
    let uds = |primaries, steps, order| Some(Parameters { primaries, steps, order, flush_rounds: 16 });
    vec![
        ("sequential", None),
        ("one primary", uds(1, u32::MAX, Order::RoundRobin)),
        ("two primaries, one step", uds(2, 1, Order::RoundRobin)),
        ("four primaries by quantum", uds(4, 2, Order::Quantum(2))),
        ("three primaries in an explicit order", uds(3, 4, Order::Explicit(vec![2, 0, 0, 1]))),
        ("sixteen primaries", uds(16, 4, Order::RoundRobin)),
    ]
}

/// The policy with these parameters; without any, the sequential one.
#[must_use]
pub fn policy(parameters: Option<&Parameters>) -> Box<dyn Scheduler> {
    match parameters {
        None => Box::new(Sequential::new()),
        Some(parameters) => Box::new(Uds::new(parameters.clone())),
    }
}

/// [`check`] under each of the [`policies`]. Returns what came of the first seed under each.
///
/// # Errors
/// The first [`Difference`], which names the policy.
pub fn check_all<S: Service>(
    operations: &[Vec<u8>],
    seeds: std::ops::Range<u64>,
) -> Result<Vec<Recording>, Difference> {
    let check = |(name, parameters): (&str, Option<Parameters>)| {
        check::<S>(|| policy(parameters.as_ref()), operations, seeds.clone())
            .map_err(|difference| Difference { what: format!("{} ({name})", difference.what), ..difference })
    };
    policies().into_iter().map(check).collect()
}

/// Sample operations of `S`.
#[must_use]
pub fn samples<S: Service>(count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    (0..count).map(|_| S::sample_operation(random.next_number())).collect()
}

/// Executes `operations` in line. As a leader would, it adds Flushes and Ticks when nothing else can move what is left,
/// now and then at once, else at the end; and a Mark now and then, and last.
pub fn record<S: Service>(scheduler: Box<dyn Scheduler>, operations: &[Vec<u8>], seed: u64) -> Recording {
    let mut random = Random::new(seed);
    let mut run = Run::new::<S>(scheduler, 0, 0);
    let mut log = Log::default();
    let mut rest = operations;
    while !rest.is_empty() {
        let (decision, behind) = rest.split_at((1 + random.below(6)).min(rest.len()));
        rest = behind;
        let works = log.decision(decision, random.next_number());
        run.executor.submit_all(works);
        run.settle();
        if random.below(4) == 0 {
            run.executor.submit(log.mark());
            run.settle();
        }
        if random.below(2) == 0
            && let Some(work) = run.starved.take().and_then(|starved| log.entry_for(starved))
        {
            run.executor.submit(work);
            run.settle();
        }
    }
    for _ in 0..ADDED_ENTRIES_MAX {
        let Some(work) = run.starved.take().and_then(|starved| log.entry_for(starved)) else { break };
        run.executor.submit(work);
        run.settle();
    }
    run.executor.submit(log.mark());
    Recording { trace: run.finish(), log: log.works }
}

/// Executes a recorded log.
pub fn replay<S: Service>(scheduler: Box<dyn Scheduler>, log: &[Work], execution: Execution) -> Trace {
    match execution {
        Execution::InLine => {
            let mut run = Run::new::<S>(scheduler, 0, 0);
            for work in log {
                run.executor.submit(work.clone());
                run.settle();
            }
            run.finish()
        }
        Execution::Stepped(seed) => {
            let mut random = Random::new(seed);
            let run = Run::new::<S>(scheduler, 0, random.below(5));
            let mut arriving = log.iter();
            let eagerness = 1 + random.below(8); // some runs meet a long log, some a short one
            loop {
                let runnable = run.executor.runnable();
                if random.below(eagerness) == 0 || runnable == 0 {
                    match arriving.next() {
                        Some(work) => run.executor.submit(work.clone()),
                        None if runnable == 0 => return run.finish(),
                        None => {}
                    }
                }
                run.executor.step(random.below(run.executor.runnable()));
            }
        }
        Execution::Workers(workers) => {
            let run = Run::new::<S>(scheduler, workers, 2 * workers);
            for work in log {
                run.executor.submit(work.clone());
            }
            run.finish()
        }
    }
}

/// An execution under way.
struct Run {
    executor: Executor,
    trace: Trace,
    done: Vec<Done>,
    starved: Option<(bool, Option<Timestamp>)>,
}

impl Run {
    fn new<S: Service>(scheduler: Box<dyn Scheduler>, workers: usize, start_ahead: usize) -> Self {
        let settings = Settings { workers, start_ahead, ..Settings::default() };
        let executor = Executor::new::<S>(scheduler, settings);
        Self { executor, trace: Trace::default(), done: Vec::new(), starved: None }
    }

    fn settle(&mut self) {
        self.executor.wait_workers_or_run();
        self.executor.take_done(&mut self.done);
        for done in self.done.drain(..) {
            match done {
                Done::Executed { position, outcome, .. } => {
                    self.trace.outcomes.insert(position, outcome);
                }
                Done::Marked(report) => {
                    self.trace.marks.push((report, self.trace.outcomes.keys().copied().collect()));
                }
                Done::Starved { flush, tick } => self.starved = Some((flush, tick)),
            }
        }
    }

    fn finish(mut self) -> Trace {
        self.settle();
        self.trace.leaves = self.executor.leaves(None, LEAVES_MAX);
        self.trace
    }
}

/// A log in the making.
#[derive(Default)]
struct Log {
    works: Vec<Work>,
    sequence: SequenceNumber,
    timestamp: u64,
    requests: u64,
}

impl Log {
    fn decision(&mut self, operations: &[Vec<u8>], sessions: u64) -> Vec<Work> {
        self.sequence = self.sequence.next();
        let requests = operations.iter().zip(0..).map(|(operation, index)| {
            self.timestamp += REQUEST_DISTANCE;
            self.requests += 1;
            Work::Request {
                position: Position::new(self.sequence, index).expect("a recording is short"),
                timestamp: Timestamp(self.timestamp),
                session: SessionId(sessions % 3),
                number: RequestNumber(self.requests),
                operation: Bytes::from(operation.clone()),
            }
        });
        let requests: Vec<Work> = requests.collect();
        self.works.extend_from_slice(&requests);
        requests
    }

    fn mark(&mut self) -> Work {
        self.sequence = self.sequence.next();
        self.add(Work::Mark(self.sequence))
    }

    /// What a leader would add: a Flush while one is needed, else the Tick for the earliest deadline.
    fn entry_for(&mut self, (flush, tick): (bool, Option<Timestamp>)) -> Option<Work> {
        if flush {
            return Some(self.add(Work::Flush));
        }
        self.timestamp = self.timestamp.max(tick?.0);
        Some(self.add(Work::Tick(Timestamp(self.timestamp))))
    }

    fn add(&mut self, work: Work) -> Work {
        self.works.push(work.clone());
        work
    }
}

/// The first difference between two traces, in words.
fn difference(expected: &Trace, found: &Trace) -> Option<String> {
    let positions: BTreeSet<_> = expected.outcomes.keys().chain(found.outcomes.keys()).collect();
    for position in positions {
        let (expected, found) = (expected.outcomes.get(position), found.outcomes.get(position));
        if expected != found {
            return Some(format!("request {position:?} came to {found:?} instead of {expected:?}"));
        }
    }
    if expected.leaves != found.leaves {
        let expected: BTreeMap<_, _> = expected.leaves.iter().cloned().collect();
        let found: BTreeMap<_, _> = found.leaves.iter().cloned().collect();
        let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
        let name = names.into_iter().find(|name| expected.get(*name) != found.get(*name));
        return Some(format!("object {} differs at the end", name.map_or("(order)", String::as_str)));
    }
    if expected.marks.len() != found.marks.len() {
        return Some(format!("{} Marks instead of {}", found.marks.len(), expected.marks.len()));
    }
    for (expected, found) in expected.marks.iter().zip(&found.marks) {
        if expected != found {
            return Some(format!("a Mark reported {found:?} instead of {expected:?}"));
        }
    }
    None
}
