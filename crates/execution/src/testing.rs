//! A service under many random schedules, compared. Needs no cluster.
//!
//! ```text
//!   operations ── record ──> log (requests, Marks, the Flushes and Ticks that a leader would add, answers of a pretended
//!                             |   outside, changes of the schedule) and its trace
//!                             |
//!                             ├── replay, stepped: random picks, arrivals, start-ahead ──> trace ┐
//!                             ├── replay, 1 2 4 workers                                ──> trace ├─ all equal?
//!                             ├── replay, workers and start-ahead changed while it runs ─> trace |
//!                             └── ...                                                            ┘
//! ```
//! Agreed time is part of the log: it stands still between some decisions and takes small and large steps between others.
//! Replies, roots, grant traces and the scheduler's state must be equal for one log under one scheduler. Two schedulers,
//! or one under two sets of parameters, are different agreements and may rightly differ.
//!
//! When something differs, [`Difference`] names the handler that went astray: the one that, having learnt the same, did
//! something else; or the one that wrote a time below one that it had read: a closure was given a `Timestamp` that its
//! thread had as `cx.now()` before others owned the lock. Everything follows from the seed, but for the luck of the operating system with workers, and for what
//! the service itself takes from elsewhere.

mod log;
mod replay;
mod report;

pub use log::{Oracle, Recording, pretend, record, record_with};
pub use replay::{Execution, Trace, replay};
pub use report::{Culprit, Defect, Difference, difference};

use crate::context::Random;
use crate::service::Service;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Order, Parameters, Predicate, Scheduler};

/// Worker counts under which each log is replayed.
const WORKERS: [usize; 3] = [1, 2, 4];

/// Stepped replays of each log.
const STEPPED: u64 = 3;

/// How a service is tested. The default suits most.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What the outside says to calls.
    pub oracle: Oracle,
    /// Whether every other seed changes the schedule's parameters while it runs.
    pub reconfigure: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { oracle: pretend, reconfigure: true }
    }
}

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
    check_with::<S>(&Options::default(), scheduler, operations, seeds)
}

/// [`check`], otherwise than by default.
///
/// # Errors
/// The first [`Difference`].
pub fn check_with<S: Service>(
    options: &Options,
    scheduler: impl Fn() -> Box<dyn Scheduler>,
    operations: &[Vec<u8>],
    seeds: std::ops::Range<u64>,
) -> Result<Recording, Difference> {
    let mut first = None;
    for seed in seeds {
        let recording = record_with::<S>(options, scheduler(), operations, seed);
        let stepped = (0..STEPPED).map(|run| Execution::Stepped(seed.wrapping_mul(31).wrapping_add(run)));
        let workers = WORKERS.map(Execution::Workers);
        for execution in stepped.chain(workers).chain([Execution::Changing(seed), Execution::InLine]) {
            let trace = replay::<S>(scheduler(), &recording.log, execution);
            if let Some(difference) = report::difference::<S>(seed, &recording, execution, &trace) {
                return Err(difference);
            }
        }
        first.get_or_insert(recording);
    }
    Ok(first.unwrap_or_else(|| record_with::<S>(options, scheduler(), &[], 0)))
}

/// The policies under which [`check_all`] looks: in line; one primary and many; one step and many; all orders; by the
/// locks that requests declare.
#[must_use]
pub fn policies() -> Vec<(&'static str, Option<Parameters>)> {
    let uds = |primaries, steps, order| Some(Parameters { primaries, steps, order, ..Parameters::uds() });
    let future_locks =
        Parameters { primaries: 4, steps: u32::MAX, predicate: Predicate::FutureLocks, ..Parameters::uds() };
    vec![
        ("sequential", None),
        ("one primary", uds(1, u32::MAX, Order::RoundRobin)),
        ("two primaries, one step", uds(2, 1, Order::RoundRobin)),
        ("four primaries by quantum", uds(4, 2, Order::Quantum(2))),
        ("three primaries in an explicit order", uds(3, 4, Order::Explicit(vec![2, 0, 0, 1]))),
        ("four primaries by future locks", Some(future_locks)),
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
    let check = |(name, parameters): (&'static str, Option<Parameters>)| {
        check::<S>(|| policy(parameters.as_ref()), operations, seeds.clone())
            .map_err(|difference| Difference { policy: name, ..difference })
    };
    policies().into_iter().map(check).collect()
}

/// Sample operations of `S`.
#[must_use]
pub fn samples<S: Service>(count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    (0..count).map(|_| S::sample_operation(random.next_number())).collect()
}
