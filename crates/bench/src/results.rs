//! Figures that are kept: one JSON object a line, with where they come from.

use anyhow::Context;
use serde::Serialize;
use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A run with more stolen time than this is disturbed.
pub(crate) const STEAL_MAX: f64 = 0.02;

/// One figure, of several runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) median: f64,
    /// Highest minus lowest.
    pub(crate) spread: f64,
    pub(crate) runs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<String>,
    /// Highest share of stolen time in any of the runs.
    pub(crate) steal: f64,
    pub(crate) commit: String,
    pub(crate) machine: String,
    /// Where it stands, if it is a line of a table of its own.
    #[serde(flatten)]
    pub(crate) cells: Option<Cells>,
}

/// A line of a table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cells {
    /// The table's title.
    pub(crate) table: String,
    pub(crate) line: String,
    /// Head and contents, in the order in which they stand.
    pub(crate) columns: Vec<(String, String)>,
}

/// Prints the rows: for people, or as the JSON lines that are kept.
pub(crate) fn print(rows: &[Row], json: bool) -> anyhow::Result<()> {
    for row in rows {
        if json {
            println!("{}", serde_json::to_string(row)?);
        } else {
            let goal = row.goal.as_ref().map_or_else(String::new, |goal| format!(" (goal {goal})"));
            println!("{}: {} {}, spread {}{goal}", row.name, row.median, row.unit, row.spread);
        }
    }
    Ok(())
}

impl Row {
    pub(crate) fn new(name: &str, unit: &'static str, goal: Option<&str>, values: &[f64], steal: f64) -> Self {
        let mut sorted = values.to_vec();
        let median = quantile(&mut sorted, 0.5);
        let spread = sorted.last().zip(sorted.first()).map_or(0.0, |(highest, lowest)| highest - lowest);
        Self {
            name: name.into(),
            unit,
            median: round(median),
            spread: round(spread),
            runs: values.len(),
            goal: goal.map(str::to_owned),
            steal: (steal * 1e4).round() / 1e4,
            commit: commit(),
            machine: machine(),
            cells: None,
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The value below or at which this share of the values lies. Sorts them.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// Appends rows to bench/results/FILE of the repository in which this program is started.
pub(crate) fn keep(file: &str, rows: &[Row]) -> anyhow::Result<PathBuf> {
    let folder = folder(&std::env::current_dir()?)
        .context("no folder bench/results here or above: start this inside the repository, or with --no-keep")?;
    let path = folder.join(file);
    let mut out = OpenOptions::new().create(true).append(true).open(&path)?;
    for row in rows {
        writeln!(out, "{}", serde_json::to_string(row)?)?;
    }
    Ok(path)
}

fn folder(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|place| place.join("bench/results")).find(|place| place.is_dir())
}

fn commit() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".into() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", "crates", "Cargo.lock"]);
    if changed.is_none_or(|changes| !changes.is_empty()) { format!("{commit}+") } else { commit }
}

/// Kind and number of processors, system.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} x {}, {}", model.unwrap_or("unknown processor"), std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let mut values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert!((quantile(&mut values, 0.5) - 3.0).abs() < 1e-9);
        assert!((quantile(&mut values, 0.99) - 5.0).abs() < 1e-9);
        assert!((quantile(&mut values, 0.0) - 1.0).abs() < 1e-9);
        assert!(quantile(&mut [], 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_row_says_where_it_comes_from() {
        let row = Row::new("x", "us", Some("<= 5"), &[3.0, 1.0, 2.0], 0.01);
        assert!((row.median - 2.0).abs() < 1e-9 && (row.spread - 2.0).abs() < 1e-9);
        let line = serde_json::to_string(&row).unwrap();
        for key in ["name", "unit", "median", "spread", "runs", "goal", "steal", "commit", "machine"] {
            assert!(line.contains(&format!("\"{key}\":")), "{line}");
        }
    }

    #[test]
    fn results_are_kept_in_the_repository_around() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(folder(&inner), None);
        std::fs::create_dir_all(place.path().join("bench/results")).unwrap();
        assert_eq!(folder(&inner), Some(place.path().join("bench/results")));
    }
}
