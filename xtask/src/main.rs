//! All automation of the project: `cargo xtask ci`, `tidy`, `bench-report`. Nothing here ships.

mod bench_report;
mod ci;
mod tidy;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's automation")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that has to pass before a change lands
    Ci,
    /// Crate arrows, purity, headers, links and commands in docs, leftovers, licences
    Tidy,
    /// Rewrites the tables of docs/internals/performance.md from bench/results
    BenchReport,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let done = root().and_then(|root| match command {
        Command::Ci => ci::run(&root),
        Command::Tidy => tidy::run(&root),
        Command::BenchReport => bench_report::run(&root),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> anyhow::Result<PathBuf> {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?);
    Ok(here.parent().context("xtask lies below the workspace root")?.to_path_buf())
}
