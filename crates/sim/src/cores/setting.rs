//! How a load can be run, and a search for what suits it best.

use super::free::FreeMutexes;
use super::machine::{Machine, Run};
use super::profile::Script;
use std::fmt;
use unisono_execution::Settings;
use unisono_scheduler::presets::Preset;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Lane, Order, Parameters};

/// Of the fastest settings, those within this share count as equal; the smallest of them is taken.
const EQUAL: f64 = 0.995;

/// How a load is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Setting {
    /// One request after the other.
    Sequential,
    /// A pool of so many threads, and mutexes without any order: not deterministic, the bound for the others.
    Free(usize),
    /// The same as a policy of the executor: what is missing to `Free` is the executor's cost, not the order's.
    FreeInExecutor,
    /// Rounds and steps, with so many threads ahead.
    Uds(Parameters, usize),
    /// All requests declare their locks.
    Declared,
    /// As it ships under this name.
    Preset(Preset),
}

/// The smallest of the fastest settings.
#[derive(Clone, PartialEq, Debug)]
pub struct Best {
    /// Which.
    pub setting: Setting,
    /// What came of it.
    pub run: Run,
}

impl Setting {
    /// Pools of free threads; more threads hide waiting, but where locks are nested they also hold more of them.
    #[must_use]
    pub fn pools(cores: usize) -> Vec<Self> {
        [1, 2, 4, 8, 16].into_iter().map(|factor| Self::Free(factor * cores)).collect()
    }

    /// Primaries and start-ahead as multiples of the cores, ascending.
    #[must_use]
    pub fn grid(cores: usize) -> Vec<Self> {
        let mut settings = Vec::new();
        for primaries in [4, 8, 16, 32].map(|factor| factor * cores) {
            for steps in [1, 2, 4, 8] {
                for order in [Order::RoundRobin, Order::Quantum(2), Order::Quantum(4)] {
                    for ahead in [primaries / 2, primaries, 2 * primaries, 4 * primaries] {
                        let primaries = primaries as u32;
                        let parameters = Parameters { primaries, steps, order: order.clone(), ..Parameters::uds() };
                        settings.push(Self::Uds(parameters, ahead));
                    }
                }
            }
        }
        settings
    }

    /// Runs the load.
    #[must_use]
    pub fn run(&self, machine: &Machine, scripts: &[Script]) -> Run {
        match self {
            Self::Sequential => machine.run(Box::new(Sequential::new()), 0, Lane::Undeclared, scripts),
            Self::Free(threads) => {
                let pool = Machine { outstanding: *threads, ..*machine };
                pool.run(Box::new(FreeMutexes::default()), usize::MAX, Lane::Undeclared, scripts)
            }
            Self::FreeInExecutor => {
                machine.run(Box::new(FreeMutexes::default()), usize::MAX, Lane::Undeclared, scripts)
            }
            Self::Uds(parameters, ahead) => {
                machine.run(Box::new(Uds::new(parameters.clone())), *ahead, Lane::Undeclared, scripts)
            }
            Self::Declared => machine.run(Box::new(Uds::new(Parameters::uds())), 0, Lane::Declared, scripts),
            Self::Preset(preset) => {
                let ahead = if preset.start_ahead { Settings::START_AHEAD } else { 0 };
                machine.run(preset.scheduler(), ahead, Lane::Undeclared, scripts)
            }
        }
    }
}

impl Best {
    /// The first of `settings` that is as good as the fastest.
    #[must_use]
    pub fn of(settings: &[Setting], machine: &Machine, scripts: &[Script]) -> Option<Self> {
        let runs: Vec<Run> = settings.iter().map(|setting| setting.run(machine, scripts)).collect();
        let fastest = runs.iter().map(|run| run.speed_up).fold(0.0, f64::max);
        let place = runs.iter().position(|run| run.speed_up >= fastest * EQUAL)?;
        Some(Self { setting: settings[place].clone(), run: runs[place] })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequential => f.write_str("sequential"),
            Self::Free(threads) => write!(f, "{threads} free threads"),
            Self::FreeInExecutor => f.write_str("free in the executor"),
            Self::Declared => f.write_str("declared"),
            Self::Preset(preset) => f.write_str(preset.name),
            Self::Uds(Parameters { primaries, steps, order, .. }, ahead) => {
                write!(f, "n={primaries} s={steps} order=")?;
                match order {
                    Order::RoundRobin => f.write_str("round-robin")?,
                    Order::Quantum(quantum) => write!(f, "quantum:{quantum}")?,
                    Order::Explicit(vector) => write!(f, "explicit:{vector:?}")?,
                }
                write!(f, " start-ahead={ahead}")
            }
        }
    }
}
