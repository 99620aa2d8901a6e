//! `scheduler`: what deterministic multithreading costs and gains, profile by profile, beside free mutexes and one thread.
//!
//! ```text
//!   --simulate: virtual cores over the scheduler that ships     waiting only, any number of cores, the same figures always
//!   else:       the executor that ships, on real cores          everything that it costs, on this machine
//! ```

mod cost;
mod load;
mod real;
mod simulated;

use crate::results::{Cells, Row, quantile};
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use unisono_sim::cores::{Profile, Setting};

/// Where its figures are kept.
const RESULTS: &str = "scheduler.jsonl";

#[derive(Args, Debug)]
pub(crate) struct SchedulerArguments {
    /// Virtual cores in place of this machine's.
    #[arg(long)]
    simulate: bool,
    /// How many cores (simulated: 16; else as many as there are).
    #[arg(long, value_name = "M")]
    cores: Option<usize>,
    /// Only this profile.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only this C, in microseconds (real cores).
    #[arg(long, value_name = "US", conflicts_with = "simulate")]
    c_us: Option<u64>,
    /// Runs of each figure; simulated: with other chance in each.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Few settings and short runs: whether it works, and roughly.
    #[arg(long)]
    small: bool,
    /// Append the figures to bench/results/scheduler.jsonl.
    #[arg(long)]
    keep: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A load and what came of it under each setting.
struct Measured {
    profile: Profile,
    c_us: u64,
    /// Requests per second of one thread, by run.
    sequential: Vec<f64>,
    /// Speed-ups over it, by run.
    settings: Vec<(Setting, Vec<f64>)>,
    steal: f64,
}

/// A profile's figures as they are printed: medians.
#[derive(Debug, Serialize)]
struct Figures {
    name: &'static str,
    c_us: u64,
    sequential: f64,
    free: f64,
    best: f64,
    best_setting: String,
    /// The best of rounds and steps.
    uds: f64,
    uds_setting: String,
    /// All locks declared.
    declared: f64,
    /// Free mutexes in the executor: what is missing to `free` is the executor's, not the order's.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_in_executor: Option<f64>,
    presets: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<f64>,
    /// The best setting again, with a log that agreement fills.
    #[serde(skip_serializing_if = "Option::is_none")]
    fed: Option<f64>,
    /// Highest minus lowest of the runs of the best setting.
    spread: f64,
    runs: usize,
    steal: f64,
}

pub(crate) fn execute(arguments: &SchedulerArguments) -> anyhow::Result<()> {
    let profiles: Vec<Profile> = match &arguments.profile {
        None => Profile::ALL.into(),
        Some(name) => vec![Profile::named(name).with_context(|| format!("there is no profile {name}"))?],
    };
    if arguments.simulate { simulated::execute(arguments, &profiles) } else { real::execute(arguments, &profiles) }
}

/// A setting with its median and its runs.
type Result<'a> = (&'a Setting, f64, &'a [f64]);

impl Measured {
    fn fastest(&self, kind: fn(&Setting) -> bool) -> Result<'_> {
        let kinds = self.settings.iter().filter(|(setting, _)| kind(setting));
        let results = kinds.map(|(setting, runs)| (setting, median(runs), runs.as_slice()));
        results.max_by(|one, other| one.1.total_cmp(&other.1)).expect("each kind of setting is measured")
    }

    fn uds(&self) -> Result<'_> {
        self.fastest(|setting| matches!(setting, Setting::Uds(..)))
    }

    fn declared(&self) -> Result<'_> {
        self.fastest(|setting| matches!(setting, Setting::Declared))
    }

    /// The better of both lanes.
    fn best(&self) -> Result<'_> {
        let (uds, declared) = (self.uds(), self.declared());
        if declared.1 > uds.1 { declared } else { uds }
    }

    fn figures(&self) -> Figures {
        let free = self.fastest(|setting| matches!(setting, Setting::Free(_)));
        let (uds, declared, best) = (self.uds(), self.declared(), self.best());
        let in_executor = self.settings.iter().find(|(setting, _)| *setting == Setting::FreeInExecutor);
        let presets = self.settings.iter().filter_map(|(setting, runs)| match setting {
            Setting::Preset(preset) => Some((preset.name, hundredths(median(runs)))),
            _ => None,
        });
        let highest = best.2.iter().copied().fold(f64::MIN, f64::max);
        let lowest = best.2.iter().copied().fold(f64::MAX, f64::min);
        Figures {
            name: self.profile.name,
            c_us: self.c_us,
            sequential: median(&self.sequential).round(),
            free: hundredths(free.1),
            best: hundredths(best.1),
            best_setting: best.0.to_string(),
            uds: hundredths(uds.1),
            uds_setting: uds.0.to_string(),
            declared: hundredths(declared.1),
            free_in_executor: in_executor.map(|(_, runs)| hundredths(median(runs))),
            presets: presets.collect(),
            goal: None,
            fed: None,
            spread: hundredths(highest - lowest),
            runs: best.2.len(),
            steal: self.steal,
        }
    }
}

impl Figures {
    const HEAD: [&str; 6] = ["one thread", "free", "best", "with", "best uds", "declared"];

    /// In the order of the head, then the presets.
    fn cells(&self) -> Vec<(String, String)> {
        let number = |value: f64| format!("{value:.2}");
        let cells = [
            format!("{:.0}/s", self.sequential),
            number(self.free),
            number(self.best),
            self.best_setting.clone(),
            number(self.uds),
            number(self.declared),
        ];
        let presets = self.presets.iter().map(|(name, value)| ((*name).to_owned(), number(*value)));
        Self::HEAD.map(str::to_owned).into_iter().zip(cells).chain(presets).collect()
    }

    /// As a line of a table on the scheduler's page.
    fn row(&self, table: &str, line: String) -> Row {
        let goal = self.goal.map(|goal| format!(">= {goal}"));
        let name = format!("scheduler, {table}: {line}");
        let cells = Cells { table: table.into(), line, columns: self.cells() };
        let row = Row::new(&name, "x", goal.as_deref(), &[self.best], self.steal);
        Row { spread: self.spread, runs: self.runs, cells: Some(cells), ..row }
    }

    fn print(&self, line: &str) {
        let goal = self.goal.map_or_else(String::new, |goal| format!(", goal {goal}"));
        println!(
            "{line}: free {:.2}, best {:.2} ({}{goal}), uds {:.2} ({}), declared {:.2}; one thread {:.0}/s",
            self.free, self.best, self.best_setting, self.uds, self.uds_setting, self.declared, self.sequential
        );
        let presets: Vec<String> = self.presets.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
        if !presets.is_empty() {
            println!("    {}", presets.join(", "));
        }
    }
}

fn median(values: &[f64]) -> f64 {
    quantile(&mut values.to_vec(), 0.5)
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
