//! The one command before a change lands. Stops at the first step that fails and says which.

use anyhow::{Context as _, bail};
use std::{path::Path, process::Command, time::Instant};

const STEPS: &[(&str, &[&str])] = &[
    ("formatting", &["fmt", "--all", "--", "--check"]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ("tests", &["test", "--workspace"]),
    ("program", &["build", "--release"]),
    ("simulator", &["run", "--release", "--quiet", "-p", "unisono-sim", "--", "--seeds", "200", "--json"]),
    (
        "determinism",
        &["run", "--release", "--quiet", "-p", "unisono-sim", "--", "determinism", "--schedules", "2000", "--json"],
    ),
    (
        "faults",
        &[
            "run",
            "--release",
            "--quiet",
            "-p",
            "unisono-bench",
            "--",
            "faults",
            "kill-leader",
            "--rounds",
            "2",
            "--json",
        ],
    ),
    (
        "speed",
        &[
            "run",
            "--release",
            "--quiet",
            "-p",
            "unisono-bench",
            "--",
            "speed",
            "--runs",
            "1",
            "--seconds",
            "1",
            "--no-keep",
        ],
    ),
    (
        "reconfigure",
        &[
            "run",
            "--release",
            "--quiet",
            "-p",
            "unisono-bench",
            "--",
            "reconfigure",
            "--changes",
            "20",
            "--rounds",
            "2",
            "--json",
        ],
    ),
    (
        "virtual cores",
        &[
            "run",
            "--release",
            "--quiet",
            "-p",
            "unisono-bench",
            "--",
            "scheduler",
            "--simulate",
            "--small",
            "--runs",
            "1",
            "--json",
        ],
    ),
    (
        "real cores",
        &["run", "--release", "--quiet", "-p", "unisono-bench", "--", "scheduler", "--small", "--runs", "1", "--json"],
    ),
];

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let begin = Instant::now();
    step("tidy", begin, || crate::tidy::run(root))?;
    for (name, arguments) in STEPS {
        step(name, begin, || cargo(root, arguments))?;
    }
    println!("ci: everything passed in {} s", begin.elapsed().as_secs());
    Ok(())
}

fn step(name: &str, begin: Instant, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("ci: {name} (at {} s)", begin.elapsed().as_secs());
    work().with_context(|| format!("ci step `{name}` failed"))
}

fn cargo(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status = Command::new(cargo).args(arguments).current_dir(root).status()?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}
