//! On this machine's cores: what the executor makes of the same load under each setting, in turn, so that all see the
//! same machine.

use super::load::{Load, Plain, calibrate, operation};
use super::{Figures, Measured, RESULTS, SchedulerArguments, cost};
use crate::results::{Row, keep};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use unisono::load::machine::MachineTime;
use unisono_execution::{
    Bytes, Done, Executor, Position, RequestNumber, SequenceNumber, SessionId, Settings, Timestamp, Work,
};
use unisono_scheduler::presets::Preset;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Order, Parameters, Scheduler};
use unisono_sim::cores::{FreeMutexes, Profile, Script, Setting};

/// C in microseconds.
const C_US: [u64; 5] = [0, 5, 20, 250, 1_000];
const C_US_SMALL: [u64; 2] = [0, 20];

/// Where presets are measured, too.
const C_US_PRESETS: u64 = 20;

/// What one thread needs for a run.
const RUN: Duration = Duration::from_millis(300);
const RUN_SMALL: Duration = Duration::from_millis(20);

/// Requests of a run: enough for some rounds, and not more than fit into memory with ease.
const REQUESTS_MIN: usize = 320;
const REQUESTS_MAX: usize = 60_000;

/// What a request costs beside what it computes, to guess how many fit into a run.
const OVERHEAD_NS: u64 = 2_000;

/// Requests of one decision.
pub(super) const DECISION: usize = 256;

/// What a deterministic setting has to reach where free threads reach the second figure. With C = 0 there is nothing to
/// share out: the figures for that are those of a pair of lock and unlock.
const GOAL: f64 = 1.8;
const GOAL_APPLIES_FROM: f64 = 1.9;

pub(super) fn execute(arguments: &SchedulerArguments, profiles: &[Profile]) -> anyhow::Result<()> {
    let here = thread::available_parallelism().map_or(1, usize::from);
    let workers = arguments.cores.unwrap_or(here).max(1);
    calibrate();
    let cost = cost::measure(arguments.runs, arguments.small);
    let all: &[u64] = if arguments.small { &C_US_SMALL } else { &C_US };
    let mut figures = Vec::new();
    for profile in profiles {
        for c_us in all.iter().copied().filter(|c_us| arguments.c_us.is_none_or(|only| only == *c_us)) {
            let measured = measure(profile, c_us, workers, arguments);
            let goal = (workers == 2 && c_us > 0).then_some(GOAL);
            let mut of_profile = measured.figures();
            of_profile.goal = goal.filter(|_| of_profile.free >= GOAL_APPLIES_FROM);
            if !arguments.json {
                of_profile.print(&line(&of_profile));
            }
            figures.push(of_profile);
        }
    }
    if arguments.json {
        let mut value = serde_json::to_value(&cost)?;
        value["cores"] = workers.into();
        value["profiles"] = json!(figures);
        println!("{value}");
    } else {
        cost.print();
    }
    if arguments.keep {
        let table = format!("{workers} cores");
        let rows: Vec<Row> = figures.iter().map(|figures| figures.row(&table, line(figures))).collect();
        keep(RESULTS, &cost.rows())?;
        eprintln!("kept in {}", keep(RESULTS, &rows)?.display());
    }
    Ok(())
}

fn line(figures: &Figures) -> String {
    format!("{}, C = {} us", figures.name, figures.c_us)
}

/// What is tried: primaries as multiples of the workers, and what ships.
fn settings(workers: usize, presets: bool) -> Vec<Setting> {
    let uds = |primaries: usize, steps, order| {
        let parameters = Parameters { primaries: primaries as u32, steps, order, ..Parameters::uds() };
        Setting::Uds(parameters, 2 * primaries)
    };
    let mut settings = vec![
        Setting::Free(workers),
        Setting::Free(8 * workers),
        Setting::FreeInExecutor,
        uds(16 * workers, 4, Order::RoundRobin),
        uds(64 * workers, 1, Order::RoundRobin),
        uds(64 * workers, u32::MAX, Order::Quantum(2)),
        Setting::Declared,
    ];
    if presets {
        settings.extend(Preset::NAMES.iter().filter_map(|name| Preset::named(name)).map(Setting::Preset));
    }
    settings
}

fn measure(profile: &Profile, c_us: u64, workers: usize, arguments: &SchedulerArguments) -> Measured {
    let length = if arguments.small { RUN_SMALL } else { RUN };
    let sample = profile.scripts(1_000, c_us * 1_000, 1);
    let mean = OVERHEAD_NS + sample.iter().map(Script::computes).sum::<u64>() / sample.len() as u64;
    let least = if arguments.small { REQUESTS_MIN / 10 } else { REQUESTS_MIN };
    let count = (length.as_nanos() as u64 / mean) as usize;
    let scripts = profile.scripts(count.clamp(least, REQUESTS_MAX), c_us * 1_000, 1);
    let operations: Vec<Bytes> = scripts.iter().map(|script| operation(script, false).into()).collect();
    let declared: Vec<Bytes> = scripts.iter().map(|script| operation(script, true).into()).collect();

    let settings = settings(workers, c_us == C_US_PRESETS);
    let mut measured = Measured {
        profile: *profile,
        c_us,
        sequential: Vec::new(),
        settings: settings.into_iter().map(|setting| (setting, Vec::new())).collect(),
        steal: 0.0,
    };
    for _ in 0..arguments.runs.max(1) {
        let before = MachineTime::now();
        let alone = run(&Setting::Sequential, workers, &operations);
        measured.sequential.push(operations.len() as f64 / alone.as_secs_f64());
        for (setting, runs) in &mut measured.settings {
            let operations = if *setting == Setting::Declared { &declared } else { &operations };
            runs.push(alone.as_secs_f64() / run(setting, workers, operations).as_secs_f64());
        }
        measured.steal = measured.steal.max(MachineTime::now().steal_since(&before));
    }
    measured
}

/// How long the load takes.
fn run(setting: &Setting, workers: usize, operations: &[Bytes]) -> Duration {
    match setting {
        Setting::Free(threads) => on_threads(*threads, operations),
        Setting::FreeInExecutor => on_workers(Box::new(FreeMutexes::default()), workers, usize::MAX, operations),
        Setting::Sequential => in_line(Box::new(Sequential::new()), operations),
        Setting::Uds(parameters, ahead) => {
            on_workers(Box::new(Uds::new(parameters.clone())), workers, *ahead, operations)
        }
        Setting::Declared => on_workers(Box::new(Uds::new(Parameters::uds())), workers, 0, operations),
        Setting::Preset(preset) => {
            let ahead = if preset.start_ahead { Settings::START_AHEAD } else { 0 };
            on_workers(preset.scheduler(), workers, ahead, operations)
        }
    }
}

/// Plain threads that take one request after the other.
fn on_threads(threads: usize, operations: &[Bytes]) -> Duration {
    let (plain, next) = (Plain::default(), AtomicUsize::new(0));
    let work = || {
        while let Some(operation) = operations.get(next.fetch_add(1, Ordering::Relaxed)) {
            plain.execute(operation);
        }
    };
    let begun = Instant::now();
    thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    begun.elapsed()
}

/// Everything in the calling thread, as a replica does with a sequential schedule.
fn in_line(scheduler: Box<dyn Scheduler>, operations: &[Bytes]) -> Duration {
    let executor = Executor::new::<Load>(scheduler, Settings { workers: 0, ..Settings::default() });
    let decisions = decisions(operations);
    let begun = Instant::now();
    let mut left = Left::new(operations.len());
    for decision in decisions {
        executor.submit_all(decision);
        executor.run_until_idle();
        left.take(&executor);
    }
    assert_eq!(left.requests, 0, "nothing waits in a sequential schedule");
    begun.elapsed()
}

/// The caller is the replica: it fills the log, and adds a Flush when one is asked for.
fn on_workers(scheduler: Box<dyn Scheduler>, workers: usize, start_ahead: usize, operations: &[Bytes]) -> Duration {
    let executor = Executor::new::<Load>(scheduler, Settings { workers, start_ahead, ..Settings::default() });
    let replica = thread::current();
    executor.set_notify(Arc::new(move || replica.unpark()));
    let decisions = decisions(operations);
    let begun = Instant::now();
    let mut left = Left::new(operations.len());
    for decision in decisions {
        executor.submit_all(decision);
    }
    while left.requests > 0 {
        thread::park();
        left.take(&executor);
    }
    begun.elapsed()
}

/// What is still to come out of an executor.
struct Left {
    requests: usize,
    done: Vec<Done>,
}

impl Left {
    const fn new(requests: usize) -> Self {
        Self { requests, done: Vec::new() }
    }

    fn take(&mut self, executor: &Executor) {
        executor.take_done(&mut self.done);
        let mut flush = false;
        for done in self.done.drain(..) {
            match done {
                Done::Executed { outcome, .. } => {
                    assert!(outcome.is_ok(), "no script fails: {outcome:?}");
                    self.requests -= 1;
                }
                Done::Starved { flush: needed, .. } => flush |= needed,
                Done::Marked(_) | Done::Called { .. } => {}
            }
        }
        if flush && self.requests > 0 {
            executor.submit(Work::Flush);
        }
    }
}

pub(super) fn decisions(operations: &[Bytes]) -> Vec<Vec<Work>> {
    let decision = |(place, operations): (usize, &[Bytes])| {
        let sequence = SequenceNumber(place as u64 + 1);
        let request = |(index, operation): (usize, &Bytes)| Work::Request {
            position: Position::new(sequence, index as u32).expect("a short log"),
            timestamp: Timestamp(sequence.0),
            session: SessionId(index as u64),
            number: RequestNumber(sequence.0),
            operation: operation.clone(),
        };
        operations.iter().enumerate().map(request).collect()
    };
    operations.chunks(DECISION).enumerate().map(decision).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of a test mean nothing; that all settings come to their end does.
    #[test]
    fn every_setting_runs_every_profile_to_its_end() {
        calibrate();
        for profile in Profile::ALL {
            let scripts = profile.scripts(150, 200, 1);
            for setting in settings(2, true) {
                let declared = setting == Setting::Declared;
                let operations: Vec<Bytes> = scripts.iter().map(|script| operation(script, declared).into()).collect();
                assert!(!run(&setting, 2, &operations).is_zero(), "{setting}");
            }
        }
    }
}
