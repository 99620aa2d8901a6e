//! The simulator's command line: many seeds, one seed as a trace, a search for planted bugs, or many schedules of random
//! programs on the executor alone.
//!
//! It prints one JSON value (or a few lines for people) on standard output; what is wrong with a seed, and the command
//! that runs it again, on standard error. It ends with 1 when something was wrong.

mod schedules;

use clap::{Parser, Subcommand};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;
use unisono_consensus::aphousia::Aphousia;
use unisono_sim::{Algorithm, Outcome, Plan, Planted, Property, Report, Scope, run_planted, run_seed};

/// Runs whole clusters by seed.
#[derive(Parser, Debug)]
#[command(name = "unisono-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Only this one.
    #[arg(long, conflicts_with_all = ["seeds", "start"])]
    seed: Option<u64>,
    /// Print one line per event.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Which agreement algorithm; `all` for each in turn.
    #[arg(long, default_value = "aphousia")]
    algorithm: String,
    /// Agreement alone, on a log of numbers.
    #[arg(long)]
    numbers: bool,
    /// Run every seed twice and compare.
    #[arg(long)]
    replay: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Switches planted bugs on and looks for them with the ordinary checkers.
    Planted {
        /// How many seeds to try for each.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Only these bugs, by name; all if none is named.
        #[arg(long)]
        only: Vec<String>,
        /// Print one line per event of the runs with the bug.
        #[arg(long)]
        trace: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs random programs on the real executor, each log under many schedules, and compares.
    Determinism(schedules::DeterminismArguments),
}

/// What became of one planted bug.
#[derive(Serialize, Debug)]
struct Search {
    name: &'static str,
    rule: &'static str,
    found: bool,
    /// Tried, that which showed it included.
    seeds: u64,
    seconds: f64,
    property: Option<Property>,
}

type Run = fn(u64, Scope, bool) -> Outcome;

/// The algorithms that can be run, by name.
const ALGORITHMS: [(&str, Run); 1] = [(<Aphousia as Algorithm>::NAME, run_seed::<Aphousia>)];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chatty = match &arguments.command {
        Some(Command::Determinism(determinism)) => determinism.trace(),
        Some(Command::Planted { trace, .. }) => *trace,
        _ => arguments.trace,
    };
    std::panic::set_hook(Box::new(move |panic| {
        // Panics of handlers and broken promises are caught and reported with their seed.
        if chatty {
            eprintln!("{panic}");
        }
    }));
    let clean = match arguments.command {
        Some(Command::Planted { seeds, start, only, trace, json }) => {
            search_planted(start..start + seeds, &only, trace, json)
        }
        Some(Command::Determinism(arguments)) => schedules::execute(&arguments),
        None => match chosen(&arguments.algorithm) {
            Ok(runs) => run_seeds(&arguments, &runs),
            Err(text) => {
                eprintln!("{text}");
                false
            }
        },
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn chosen(name: &str) -> Result<Vec<(&'static str, Run)>, String> {
    let runs: Vec<_> = ALGORITHMS.into_iter().filter(|(known, _)| name == "all" || name == *known).collect();
    if runs.is_empty() {
        let known: Vec<&str> = ALGORITHMS.iter().map(|(known, _)| *known).collect();
        return Err(format!("there is no algorithm {name}: choose one of {}, or all", known.join(", ")));
    }
    Ok(runs)
}

fn run_seeds(arguments: &Arguments, runs: &[(&'static str, Run)]) -> bool {
    let scope = if arguments.numbers { Scope::Numbers } else { Scope::Whole };
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.start..arguments.start + arguments.seeds,
    };
    let mut report = Report::default();
    let mut seconds = 0.0;
    for (name, run) in runs {
        for seed in seeds.clone() {
            let begun = thread_seconds();
            let outcome = run(seed, scope, arguments.trace);
            seconds += thread_seconds() - begun;
            report.add(&outcome);
            if let Some(violation) = &outcome.violation {
                eprintln!("seed {seed}: {:?}: {}", violation.property, violation.text);
                eprintln!("  {}", replay_command(name, seed, arguments.numbers));
            }
            if arguments.replay {
                let again = run(seed, scope, false);
                if again.trace_hash != outcome.trace_hash || again.violation != outcome.violation {
                    report.mismatch(seed);
                    eprintln!("seed {seed}: its second run went another way");
                    eprintln!("  {}", replay_command(name, seed, arguments.numbers));
                }
            }
        }
    }
    report.events_per_s = if seconds > 0.0 { (report.events as f64 / seconds) as u64 } else { 0 };
    print_report(&report, arguments.json);
    report.violations == 0 && report.replay_mismatches == 0
}

/// Time that this thread has spent on its core: what other programs take does not count.
fn thread_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// The one command that runs a failing seed again.
fn replay_command(algorithm: &str, seed: u64, numbers: bool) -> String {
    let numbers = if numbers { " --numbers" } else { "" };
    format!("cargo run --release -p unisono-sim -- --seed {seed} --algorithm {algorithm}{numbers} --trace")
}

fn print_report(report: &Report, json: bool) {
    if json {
        println!("{}", serde_json::to_string(report).expect("numbers and lists of numbers"));
        return;
    }
    println!(
        "{} runs, {} violations, {} replay mismatches; {} events ({} per second), {} decisions, {} view changes, \
         {} client operations, {} histories checked, {} changes of start-ahead",
        report.runs,
        report.violations,
        report.replay_mismatches,
        report.events,
        report.events_per_s,
        report.decisions,
        report.view_changes,
        report.client_operations,
        report.histories_checked,
        report.start_ahead
    );
    let list = |counts: &BTreeMap<&str, u64>| -> String {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    println!("ordered: {}", list(&report.ordered));
    println!("used: {}", list(&report.uses));
    println!("outside: {:?}", report.outside);
    println!("faults: {:?}", report.faults);
}

fn search_planted(seeds: Range<u64>, only: &[String], trace: bool, json: bool) -> bool {
    let unknown = |name: &&String| Planted::all().all(|bug| bug.name() != name.as_str());
    if let Some(name) = only.iter().find(unknown) {
        eprintln!("there is no planted bug {name}");
        return false;
    }
    let chosen = |bug: &Planted| only.is_empty() || only.iter().any(|name| name == bug.name());
    let searches: Vec<Search> = Planted::all().filter(chosen).map(|bug| search(bug, seeds.clone(), trace)).collect();
    if json {
        println!("{}", serde_json::to_string(&searches).expect("names and numbers"));
    } else {
        for Search { name, rule, seeds, seconds, property, .. } in &searches {
            match property {
                Some(property) => println!("{name} ({rule}): found by {property:?} after {seeds} seeds, {seconds} s"),
                None => println!("{name} ({rule}): not found in {seeds} seeds, {seconds} s"),
            }
        }
    }
    searches.iter().all(|search| search.found)
}

/// The first seed that shows the bug: with it something is violated, without it nothing is.
fn search(bug: Planted, seeds: Range<u64>, trace: bool) -> Search {
    let begun = Instant::now();
    let violated = |seed: u64| {
        let plan = Plan::of_seed(seed);
        let planted = Plan { planted: Some(bug), ..plan.clone() };
        let violation = run_planted(&planted, Scope::Whole, trace).violation?;
        let clean = run_planted(&plan, Scope::Whole, false).violation.is_none();
        clean.then_some((seed, violation.property))
    };
    let found = seeds.clone().find_map(violated);
    Search {
        name: bug.name(),
        rule: bug.rule(),
        found: found.is_some(),
        seeds: found.map_or(seeds.end, |(seed, _)| seed + 1) - seeds.start,
        seconds: (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        property: found.map(|(_, property)| property),
    }
}
