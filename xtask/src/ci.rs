//! The one command before a change lands. Stops at the first step that fails and says which.

use anyhow::{Context as _, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

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
        "a liar",
        &["run", "--release", "--quiet", "-p", "unisono-bench", "--", "faults", "liar", "--rounds", "1", "--json"],
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
        step(name, begin, || cargo(root, arguments, &[]))?;
    }
    step("interleavings", begin, || interleavings(root))?;
    println!("ci: everything passed in {} s", begin.elapsed().as_secs());
    Ok(())
}

fn step(name: &str, begin: Instant, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("ci: {name} (at {} s)", begin.elapsed().as_secs());
    work().with_context(|| format!("ci step `{name}` failed"))
}

/// The executor's hand-overs, with shuttle's threads in place of the system's. Other flags mean other builds of everything,
/// so they get a place of their own.
fn interleavings(root: &Path) -> anyhow::Result<()> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("shuttle");
    let variables = [("RUSTFLAGS", OsString::from("--cfg shuttle")), ("CARGO_TARGET_DIR", target.into())];
    cargo(root, &["test", "--release", "-p", "unisono-execution", "--test", "shuttle"], &variables)
}

fn cargo(root: &Path, arguments: &[&str], variables: &[(&str, OsString)]) -> anyhow::Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let variables = variables.iter().map(|(name, value)| (*name, value));
    let status = Command::new(cargo).args(arguments).envs(variables).current_dir(root).status()?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}
