//! A recorded log executed again: in line, stepped, by workers, by a changing number of them.

use crate::context::Random;
use crate::executor::{Executor, GrantRecord, Settings};
use crate::service::Service;
use crate::witness::{EarlierTime, Journals, Witness};
use std::collections::{BTreeMap, BTreeSet};
use unisono_scheduler::{LockId, Scheduler};
use unisono_types::{Bytes, Digest, Done, MarkReport, Outcome, Position, Timestamp, Work};

/// Objects of the last Mark that a trace keeps to name a difference.
const LEAVES_MAX: usize = 100_000;

/// Grants that a trace keeps, from the first on.
const GRANTS_MAX: usize = 10_000;

/// How a log is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Execution {
    /// As fast as it goes, in the calling thread.
    InLine,
    /// One poll at a time; arrivals, picks and how many run ahead by this seed.
    Stepped(u64),
    /// By so many threads.
    Workers(usize),
    /// By threads, whose number and start-ahead change while they run, by this seed.
    Changing(u64),
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
    /// The first grants.
    pub(super) grants: Vec<GrantRecord>,
    /// What each thread learnt and did.
    pub(super) journals: Journals,
    /// The first thread, in the order of the log, that wrote a time below one that it had read.
    pub(super) earlier: Option<EarlierTime>,
    /// The locks that occur in the journals.
    pub(super) names: BTreeMap<LockId, String>,
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
                if random.below(32) == 0 {
                    run.executor.set_start_ahead(random.below(5));
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
        Execution::Changing(seed) => {
            let mut random = Random::new(seed);
            let run = Run::new::<S>(scheduler, random.below(4), random.below(5));
            for work in log {
                run.executor.submit(work.clone());
                match random.below(16) {
                    0 => drop(run.executor.set_workers(random.below(5))),
                    1 => run.executor.set_start_ahead(random.below(9)),
                    2 if run.executor.workers() == 0 => run.executor.run_until_idle(),
                    _ => {}
                }
            }
            run.finish()
        }
    }
}

/// A performed outside call.
pub(super) struct Called {
    pub(super) position: Position,
    pub(super) path: Vec<u16>,
    pub(super) call: u32,
    pub(super) target: String,
    pub(super) request: Bytes,
}

/// An execution under way.
pub(super) struct Run {
    pub(super) executor: Executor,
    trace: Trace,
    done: Vec<Done>,
    pub(super) starved: Option<(bool, Option<Timestamp>)>,
    pub(super) called: Vec<Called>,
}

impl Run {
    pub(super) fn new<S: Service>(scheduler: Box<dyn Scheduler>, workers: usize, start_ahead: usize) -> Self {
        let settings = Settings { workers, start_ahead, ..Settings::default() };
        let executor = Executor::watched::<S>(scheduler, settings);
        Self { executor, trace: Trace::default(), done: Vec::new(), starved: None, called: Vec::new() }
    }

    pub(super) fn settle(&mut self) {
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
                Done::Called { position, path, call, target, request } => {
                    self.called.push(Called { position, path, call, target, request });
                }
                Done::Starved { flush, tick } => self.starved = Some((flush, tick)),
            }
        }
    }

    pub(super) fn finish(mut self) -> Trace {
        self.settle();
        self.trace.leaves = self.executor.leaves(None, LEAVES_MAX);
        self.trace.grants = self.executor.grants(0, GRANTS_MAX);
        let Self { executor, mut trace, .. } = self;
        let (witness, names) = executor.into_witness();
        let Witness { journals, earlier, .. } = witness;
        (trace.journals, trace.earlier, trace.names) = (journals, earlier, names);
        trace
    }
}
