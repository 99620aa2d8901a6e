//! `reconfigure`: the schedule's parameters changed again and again under load, and what clients notice of it.
//!
//! ```text
//!   load     ──────────────────────────────────────────────────────────────>   checked history
//!   windows  | calm | n, steps, order change | calm | they change | ...        in turn, equally long
//! ```
//! Latencies of operations that were asked for in calm windows are held against those of the others: both kinds meet the
//! same machine.

use crate::{
    cluster::Cluster,
    faults::{PATIENCE, roots_equal},
    history::{self, Event},
    results::quantile,
    workload::Workload,
};
use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Serialize;
use std::{ops::Range, time::Duration};
use unisono::{admin::Administrator, config::AdminConfig, schedule};

#[derive(Args, Debug)]
pub(crate) struct ReconfigureArguments {
    /// Changes in all.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    changes: usize,
    /// Pairs of windows: a calm one, and one with changes.
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: usize,
    /// Clients, each with one operation outstanding.
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients: usize,
    /// Between two changes, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pause: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What the parameters change to, in turn: few and many primaries, steps that run out and do not, every order.
const CHANGES: [&[&str]; 8] = [
    &["n=1", "steps=1"],
    &["n=64", "steps=4", "order=quantum:8"],
    &["n=8", "order=round-robin"],
    &["order=explicit:0,1,1,2"],
    &["n=256", "steps=2"],
    &["n=3", "order=quantum:1"],
    &["steps=unlimited", "n=16"],
    &["n=64", "steps=4", "order=round-robin"],
];

#[derive(Serialize, Debug)]
struct Report {
    changes: usize,
    /// Of them, how many were seen in force before something else changed.
    seen: usize,
    operations: usize,
    lost: u64,
    doubled: u64,
    errors: u64,
    p999_calm_us: f64,
    p999_changing_us: f64,
    /// The second over the first.
    ratio: f64,
    p50_calm_us: f64,
    p50_changing_us: f64,
    roots_equal: bool,
    grants_equal: bool,
}

pub(crate) async fn execute(arguments: ReconfigureArguments) -> anyhow::Result<()> {
    let ReconfigureArguments { changes, rounds, clients, pause, json } = arguments;
    ensure!(rounds > 0 && changes >= rounds && clients > 0, "at least one round, a change for each, and one client");
    let cluster = Cluster::start(3).await?;
    let mut administrator = Administrator::new(AdminConfig::load(cluster.directory().join("admin"))?);
    let workload = Workload::start(cluster.redis, clients);
    workload.all_answered(PATIENCE).await?;
    let (mut calm, mut changing) = (Vec::new(), Vec::new());
    let mut seen = 0;
    for round in 0..rounds {
        let begin = workload.now_us();
        for change in (round..changes).step_by(rounds) {
            let change = schedule::change_of(CHANGES[change % CHANGES.len()])?;
            let changed = administrator.reconfigure(change).await.with_context(|| format!("round {round}"))?;
            seen += usize::from(changed.holds);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let end = workload.now_us();
        changing.push(begin..end);
        tokio::time::sleep(Duration::from_micros(end - begin)).await;
        calm.push(end..workload.now_us());
        eprintln!(
            "round {:>2}: {:.1} s each, {} operations",
            round + 1,
            (end - begin) as f64 / 1e6,
            workload.answered()
        );
    }
    let seeing = workload.finish().await?;
    let roots_equal = roots_equal(&cluster).await?;
    let grants_equal = grants_equal(&cluster).await?;
    cluster.end().await?;
    let verdicts = history::check(&seeing.events, &seeing.read_back);
    for detail in verdicts.details.iter().chain(&seeing.first_error) {
        eprintln!("{detail}");
    }
    let (mut calm, mut changing) = (latencies(&seeing.events, &calm), latencies(&seeing.events, &changing));
    let (p999_calm_us, p999_changing_us) = (quantile(&mut calm, 0.999), quantile(&mut changing, 0.999));
    let report = Report {
        changes,
        seen,
        operations: seeing.events.iter().filter(|event| event.returned.is_some()).count(),
        lost: verdicts.lost,
        doubled: verdicts.doubled,
        errors: seeing.errors,
        p999_calm_us,
        p999_changing_us,
        ratio: (100.0 * p999_changing_us / p999_calm_us.max(1.0)).round() / 100.0,
        p50_calm_us: quantile(&mut calm, 0.5),
        p50_changing_us: quantile(&mut changing, 0.5),
        roots_equal,
        grants_equal,
    };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report:#?}");
    }
    if report.lost + report.doubled > 0 || !report.roots_equal || !report.grants_equal {
        bail!("the replicas or the history are not what they must be");
    }
    Ok(())
}

/// Of the operations that were asked for in these windows.
fn latencies(events: &[Event], windows: &[Range<u64>]) -> Vec<f64> {
    let in_windows = |event: &&Event| windows.iter().any(|window| window.contains(&event.called));
    let latency = |event: &Event| event.returned.as_ref().map(|(returned, _)| (returned - event.called) as f64);
    events.iter().filter(in_windows).filter_map(latency).collect()
}

/// Whether replicas with the same last root have the same grants behind them; two at least must be at one height.
async fn grants_equal(cluster: &Cluster) -> anyhow::Result<bool> {
    for _ in 0..300 {
        let status = cluster.status().await?;
        let mut heights: Vec<u64> = status.iter().map(|replica| replica.root_height).collect();
        heights.dedup();
        if heights.len() == 1 {
            return Ok(status.iter().all(|replica| replica.grant_hash == status[0].grant_hash));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("the replicas never showed the same height")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answered, Asked};

    #[test]
    fn an_operation_belongs_to_the_window_in_which_it_was_asked_for() {
        let event = |called, returned| Event {
            client: 0,
            called,
            asked: Asked::Increment,
            returned: Some((returned, Answered::Number(1))),
        };
        let unanswered = Event { returned: None, ..event(12, 0) };
        let events = [event(5, 8), event(10, 40), unanswered, event(20, 21), event(31, 33)];
        assert_eq!(latencies(&events, &[10..20, 30..40]), [30.0, 2.0]);
    }

    #[test]
    fn every_change_can_be_said() {
        for words in CHANGES {
            schedule::change_of(words).unwrap();
        }
    }
}
