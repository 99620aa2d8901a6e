//! The command `determinism`: many seeds of random programs on all cores of this machine.
//!
//! It watches the clock, as nothing in the library does: a seed that takes longer than [`PATIENCE`] hangs.

use clap::Args;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use unisono_sim::determinism::{Case, PLANTED, SCHEDULES, Search, Verdict, search};

/// A seed takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often somebody looks for seeds that hang.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub(crate) struct DeterminismArguments {
    /// How many schedules, ten of each seed.
    #[arg(long, default_value_t = 10_000)]
    schedules: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Only this one.
    #[arg(long, conflicts_with_all = ["schedules", "start"])]
    seed: Option<u64>,
    /// Print its programs, its log and what differs.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Switch wrong rules of the scheduler on, one after the other, and look for each within so many schedules.
    #[arg(long, conflicts_with = "seed")]
    planted: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl DeterminismArguments {
    pub(crate) const fn trace(&self) -> bool {
        self.trace
    }
}

/// True if every schedule came to the same result and its end, and the control did not.
pub(crate) fn execute(arguments: &DeterminismArguments) -> bool {
    if arguments.planted {
        return search_planted(arguments.schedules, arguments.json);
    }
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.start..arguments.start + arguments.schedules.div_ceil(SCHEDULES),
    };
    let verdict = run(seeds, arguments.trace);
    if arguments.json {
        println!("{}", serde_json::to_string(&verdict).expect("numbers"));
    } else {
        print(&verdict);
    }
    let seen = verdict.control_schedules == 0 || verdict.control_mismatches > 0;
    if !seen {
        eprintln!("grants in the order of arrival were not told from the others: the harness sees nothing");
    }
    verdict.mismatches == 0 && verdict.hangs == 0 && seen
}

fn run(seeds: std::ops::Range<u64>, trace: bool) -> Verdict {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Verdict::default());
    let under_way: Mutex<BTreeMap<u64, Instant>> = Mutex::default();
    let (ended, watched) = mpsc::channel::<()>();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            under_way.lock().expect("nobody panics with it").insert(seed, Instant::now());
            let case = Case::of_seed(seed);
            if trace {
                case.narrate(&mut |line| println!("{line}"));
            }
            let mut wrong = Vec::new();
            let verdict = case.run(&mut |line| wrong.push(line));
            under_way.lock().expect("nobody panics with it").remove(&seed);
            if let Some(first) = wrong.first() {
                eprintln!("seed {seed}: {first}\n  {}", replay_command(seed));
            }
            total.lock().expect("nobody panics with it").add(&verdict);
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let under_way = &under_way;
        scope.spawn(move || {
            while watched.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let late = |began: &Instant| began.elapsed() > PATIENCE;
                let stuck = under_way
                    .lock()
                    .expect("nobody panics with it")
                    .iter()
                    .find(|(_, began)| late(began))
                    .map(|(seed, _)| *seed);
                if let Some(seed) = stuck {
                    eprintln!("seed {seed} hangs\n  {}", replay_command(seed));
                    std::process::exit(1); // its threads cannot be ended
                }
            }
        });
        workers.into_iter().for_each(|worker| worker.join().expect("panics of programs are caught"));
        drop(ended);
    });
    total.into_inner().expect("nobody panicked with it")
}

fn search_planted(schedules: u64, json: bool) -> bool {
    let searches: Vec<Search> = PLANTED.into_iter().map(|(planted, name)| search(planted, name, schedules)).collect();
    if json {
        println!("{}", serde_json::to_string(&searches).expect("names and numbers"));
    } else {
        for Search { name, after, by, .. } in &searches {
            match (after, by) {
                (Some(after), Some(by)) => println!("{name}: found after {after} schedules by {by}"),
                _ => println!("{name}: not found in {schedules} schedules"),
            }
        }
    }
    searches.iter().all(|search| search.found)
}

/// The one command that runs a failing seed again.
fn replay_command(seed: u64) -> String {
    format!("cargo run --release -p unisono-sim -- determinism --seed {seed} --trace")
}

fn print(verdict: &Verdict) {
    println!(
        "{} schedules of {} requests: {} mismatches, {} hangs; {} waits, {} time-outs, {} children, {} tries, {} outside \
         calls, {} deadlocks, {} changes of parameters, {} declared requests; in the order of arrival {} of {} mismatch",
        verdict.schedules,
        verdict.requests,
        verdict.mismatches,
        verdict.hangs,
        verdict.waits,
        verdict.timeouts,
        verdict.spawns,
        verdict.tries,
        verdict.calls,
        verdict.deadlocks,
        verdict.reconfigurations,
        verdict.declared,
        verdict.control_mismatches,
        verdict.control_schedules
    );
}
