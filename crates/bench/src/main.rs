//! Experiments on real processes: faults under a checked load, speed, comparison with a plain Redis.
//!
//! ```text
//!   unisono-bench faults KIND ──> dev (this program again, behind the word `unisono`) ──> replicas, gateway
//!        │                                                          ▲
//!        ├── clients over RESP, history kept ───────────────────────┤
//!        └── kill, stop, start again by pid ────────────────────────┘
//! ```
//! A figure is kept with the commit, the machine, its spread and what was stolen from the machine meanwhile; a
//! disturbed run is run again, and said so when it stays disturbed.

mod cluster;
mod compare;
mod faults;
mod history;
mod reconfigure;
mod results;
mod scheduler;
mod speed;
mod workload;

use clap::{Parser, Subcommand};
use std::{ffi::OsString, process::ExitCode};
use unisono::gateway::Setup;
use unisono_redis::{Gateway, Redis, gateway::Settings};

/// The word behind which this program is the `unisono` program, so that a cluster can be started from it.
const UNISONO: &str = "unisono";

/// Experiments with a cluster of real processes.
#[derive(Parser, Debug)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Subcommand, Debug)]
enum Experiment {
    /// Kill or stop replicas under load and check what the clients saw.
    Faults(faults::FaultsArguments),
    /// Change the schedule's parameters again and again under load and check what the clients saw.
    Reconfigure(reconfigure::ReconfigureArguments),
    /// Measure the figures of the goals and keep them.
    Speed(speed::SpeedArguments),
    /// The same load against the gateway and a plain redis-server, in turn.
    CompareRedis(compare::CompareArguments),
    /// What deterministic multithreading costs and gains, on this machine's cores or on virtual ones.
    Scheduler(scheduler::SchedulerArguments),
}

fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == UNISONO) {
        let arguments = words.split_off(1);
        return match cluster::program() {
            Ok(program) => unisono::cli::run_within::<Redis, Gateway>(gateway, program, arguments),
            Err(error) => fail(&error),
        };
    }
    let result = match CommandLine::parse().experiment {
        Experiment::Faults(arguments) => block_on(faults::execute(arguments)),
        Experiment::Reconfigure(arguments) => block_on(reconfigure::execute(arguments)),
        Experiment::Speed(arguments) => block_on(speed::execute(arguments)),
        Experiment::CompareRedis(arguments) => block_on(compare::execute(arguments)),
        Experiment::Scheduler(arguments) => scheduler::execute(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn gateway(setup: &Setup) -> Gateway {
    let settings = Settings { operation_bytes: setup.operation_bytes, ..Settings::default() };
    Gateway::new(settings, setup.nonce)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// On one thread: the kernel binds the children to the thread that started them, so it must not end before the program.
fn block_on(experiment: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(experiment)
}
