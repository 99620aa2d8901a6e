//! Random programs on the real executor: one log under many schedules must come to one result.
//!
//! ```text
//!   seed ──> Programs, parameters ──record, in line──> log: requests, Flushes, Ticks, Marks, changes, answers
//!                                                       ├── stepped: picks, arrivals, start-ahead by seed   x 8
//!                                                       ├── 1 to 16 workers                                      ├─ equal?
//!                                                       └── workers and start-ahead that change while it runs
//! ```
//! Equal are the replies, the roots, the grant-trace hashes and the scheduler's state at each Mark, and all requests come
//! to their end. The programs are those of a service ([`Interpreter`]) that takes its handlers from its requests and has
//! every primitive that execution has; each value read decides what comes next, so any difference in the order of grants
//! spreads.
//!
//! A run is a function of its seed, but for the luck of the operating system with the schedules that have workers.

mod interpreter;
mod narrator;
mod planted;
mod program;

pub(crate) use interpreter::change;
pub use interpreter::{Interpreter, Tally};
pub use planted::{PLANTED, Search, search};
pub use program::{Action, Foretold, Program, programs};

use crate::Random;
use narrator::{Lines, Narrator};
use serde::Serialize;
use std::sync::Arc;
use unisono_execution::Service;
use unisono_execution::testing::{self, Execution, Options, Recording};
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::{Planted, Uds};
use unisono_scheduler::{Order, Parameters, Predicate, Scheduler};
use unisono_types::{Work, borsh, encode};

/// Stepped schedules of each log; besides, one with workers and one with a number of them that changes.
const STEPPED: u64 = 8;

/// Schedules of each log.
pub const SCHEDULES: u64 = STEPPED + 2;

/// The most workers of a schedule.
const WORKERS_MAX: u64 = 16;

/// One in so many seeds is also run with grants in the order of arrival.
const CONTROL_EVERY: u64 = 4;

/// What many seeds came to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Verdict {
    /// Schedules compared, each with a recording in line.
    pub schedules: u64,
    /// Requests of all schedules.
    pub requests: u64,
    /// Schedules that came to something else.
    pub mismatches: u64,
    /// Schedules, or recordings, that did not come to their end.
    pub hangs: u64,
    /// Waits on a condition.
    pub waits: u64,
    /// Waits, locks, permits and calls whose time was up.
    pub timeouts: u64,
    /// Children born.
    pub spawns: u64,
    /// Tries.
    pub tries: u64,
    /// Outside calls.
    pub calls: u64,
    /// Operations that would have been a deadlock.
    pub deadlocks: u64,
    /// Changes of the schedule's parameters, by handlers and in the order.
    pub reconfigurations: u64,
    /// Requests of the declared lane.
    pub declared: u64,
    /// Schedules of the same programs with grants in the order of arrival, and how many of them came to something else.
    pub control_schedules: u64,
    /// See there. None would mean that nothing here can see anything.
    pub control_mismatches: u64,
    /// Seeds with a mismatch or a hang.
    pub failing_seeds: Vec<u64>,
}

/// One seed's programs and how they are scheduled.
pub struct Case {
    seed: u64,
    parameters: Option<Parameters>,
    operations: Vec<Vec<u8>>,
}

impl Case {
    /// That of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6465_7465_726d_0000);
        let parameters = (!random.chance(80)).then(|| parameters(&mut random));
        let operations = programs(&mut random).iter().map(encode).collect();
        Self { seed, parameters, operations }
    }

    fn scheduler(&self) -> Box<dyn Scheduler> {
        match &self.parameters {
            None => Box::new(Sequential::new()),
            Some(parameters) => Box::new(Uds::new(parameters.clone())),
        }
    }

    fn planted(&self, planted: Planted) -> Box<dyn Scheduler> {
        let parameters = self.parameters.clone().unwrap_or(Parameters { primaries: 8, ..Parameters::uds() });
        Box::new(Uds::planted(parameters, planted))
    }

    /// All its schedules, in order.
    fn executions(&self) -> impl Iterator<Item = Execution> {
        let mut random = Random::new(self.seed ^ 0x7363_6865_6475_6c65);
        let stepped = (0..STEPPED).map(|_| Execution::Stepped(random.next_u64())).collect::<Vec<_>>();
        let workers = Execution::Workers(random.between(1, WORKERS_MAX) as usize);
        stepped.into_iter().chain([workers, Execution::Changing(random.next_u64())])
    }

    fn record(&self, scheduler: Box<dyn Scheduler>) -> Recording {
        testing::record_with::<Interpreter>(&Options::default(), scheduler, &self.operations, self.seed)
    }

    /// Its programs and its parameters, and all that its scheduler is asked and grants while the log is recorded.
    pub fn narrate(&self, say: &mut dyn FnMut(String)) {
        say(format!("parameters {:?}", self.parameters));
        for operation in &self.operations {
            let program = borsh::from_slice::<Program>(operation);
            say(format!("request {}: {program:?}", Interpreter::handler(operation)));
        }
        let lines = Lines::default();
        self.record(Box::new(Narrator { inner: self.scheduler(), lines: Arc::clone(&lines) }));
        let lines = std::mem::take(&mut *lines.lock().expect("nobody panics with it"));
        lines.into_iter().for_each(say);
    }

    /// Runs all its schedules. `say` hears what is wrong.
    pub fn run(&self, say: &mut dyn FnMut(String)) -> Verdict {
        let mut verdict = Verdict::default();
        let recording = self.record(self.scheduler());
        let missing = self.operations.len().saturating_sub(recording.trace.outcomes.len());
        if missing > 0 {
            say(format!("recorded in line, {missing} of {} requests do not come to their end", self.operations.len()));
            verdict.hangs += 1;
        }
        for execution in self.executions() {
            let trace = testing::replay::<Interpreter>(self.scheduler(), &recording.log, execution);
            verdict.schedules += 1;
            let Some(difference) = testing::difference::<Interpreter>(self.seed, &recording, execution, &trace) else {
                continue;
            };
            say(format!("{execution:?}: {difference}"));
            if trace.outcomes.len() < recording.trace.outcomes.len() {
                verdict.hangs += 1;
            } else {
                verdict.mismatches += 1;
            }
        }
        self.count(&recording, &mut verdict);
        if self.seed.is_multiple_of(CONTROL_EVERY) {
            let recording = self.record(self.planted(Planted::ArrivalOrder));
            for execution in self.executions().take(STEPPED as usize) {
                verdict.control_schedules += 1;
                verdict.control_mismatches += u64::from(self.strays(Planted::ArrivalOrder, &recording, execution));
            }
        }
        if verdict.mismatches + verdict.hangs > 0 {
            verdict.failing_seeds.push(self.seed);
        }
        verdict
    }

    /// What the schedules contained.
    fn count(&self, recording: &Recording, verdict: &mut Verdict) {
        let mut tally = Tally::default();
        for outcome in recording.trace.outcomes.values() {
            if let Ok(reply) = outcome
                && let Ok(part) = borsh::from_slice(reply)
            {
                tally.add(&part);
            }
        }
        let changes = recording.log.iter().filter(|work| matches!(work, Work::Reconfigure(_))).count() as u64;
        let declared = self.operations.iter().filter(|operation| Interpreter::is_declared(operation)).count() as u64;
        verdict.requests += self.operations.len() as u64 * SCHEDULES;
        verdict.waits += tally.waits * SCHEDULES;
        verdict.timeouts += tally.timeouts * SCHEDULES;
        verdict.spawns += tally.spawns * SCHEDULES;
        verdict.tries += tally.tries * SCHEDULES;
        verdict.calls += tally.calls * SCHEDULES;
        verdict.deadlocks += tally.deadlocks * SCHEDULES;
        verdict.reconfigurations += (tally.reconfigurations + changes) * SCHEDULES;
        verdict.declared += declared * SCHEDULES;
    }

    /// Whether a schedule under this bug is told from the recording under it.
    fn strays(&self, planted: Planted, recording: &Recording, execution: Execution) -> bool {
        let trace = testing::replay::<Interpreter>(self.planted(planted), &recording.log, execution);
        testing::difference::<Interpreter>(self.seed, recording, execution, &trace).is_some()
    }
}

impl Verdict {
    /// Both.
    pub fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.requests += other.requests;
        self.mismatches += other.mismatches;
        self.hangs += other.hangs;
        self.waits += other.waits;
        self.timeouts += other.timeouts;
        self.spawns += other.spawns;
        self.tries += other.tries;
        self.calls += other.calls;
        self.deadlocks += other.deadlocks;
        self.reconfigurations += other.reconfigurations;
        self.declared += other.declared;
        self.control_schedules += other.control_schedules;
        self.control_mismatches += other.control_mismatches;
        self.failing_seeds.extend_from_slice(&other.failing_seeds);
        self.failing_seeds.sort_unstable();
    }
}

fn parameters(random: &mut Random) -> Parameters {
    let order = match random.below(3) {
        0 => Order::RoundRobin,
        1 => Order::Quantum(random.between(1, 4) as u32),
        _ => Order::Explicit((0..random.below(8)).map(|_| random.below(8) as u16).collect()),
    };
    Parameters {
        primaries: random.pick(&[1, 2, 3, 5, 8, 16, 64]),
        steps: random.pick(&[1, 1, 2, 4, u32::MAX]),
        order,
        flush_rounds: random.pick(&[1, 2, 16]),
        predicate: if random.chance(250) { Predicate::FutureLocks } else { Predicate::All },
    }
}
