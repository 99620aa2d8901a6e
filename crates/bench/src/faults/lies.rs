//! Faults by order: replicas that lie, a leader that is slow, clocks that jump. The replicas are those of a test build.

use super::{
    FaultsArguments, PATIENCE,
    experiment::Experiment,
    phases::{Kind, rounded},
};
use crate::{cluster::Build, results::quantile};
use anyhow::Context;
use serde_json::json;
use std::time::{Duration, Instant};
use unisono::node::liar::{Orders, Strategy};

/// How long a laggard is away while somebody waits to feed it garbage.
const LAGGARD_AWAY: Duration = Duration::from_secs(1);

/// Of a leader that is stopped again and again: nine tenths of the time it does nothing.
const DUTY_STOPPED: Duration = Duration::from_millis(90);
const DUTY_RUNNING: Duration = Duration::from_millis(10);

/// How often to look who leads.
const LOOK: Duration = Duration::from_millis(25);

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// How far all clocks jump, and then back.
const JUMPS: [(&str, i64); 4] =
    [("5 s back", -5_000), ("60 s back", -60_000), ("10 min back", -600_000), ("a day ahead", DAY_MS)];

/// One replica lies, in each round by another strategy: first as a follower, then as the leader.
pub(super) async fn liar(arguments: &FaultsArguments) -> anyhow::Result<()> {
    let mut experiment = Experiment::start(arguments, Build::Liar).await?;
    for round in 0..arguments.rounds {
        let strategy = strategy_of(round, arguments.strategy.as_deref())?;
        let orders = Orders { strategy, seed: arguments.seed + round as u64, wall_ms: 0 };
        for leads in [false, true] {
            let role = if leads { "leader" } else { "follower" };
            let name = format!("{} {role}", strategy.name());
            lie(&mut experiment, orders, leads, &name)
                .await
                .with_context(|| format!("round {round}: {name}, {orders:?}"))?;
        }
    }
    experiment.finish(arguments).await
}

fn strategy_of(round: usize, only: Option<&str>) -> anyhow::Result<Strategy> {
    match only {
        None => Ok(Strategy::LIES[round % Strategy::LIES.len()]),
        Some(name) => {
            let named = Strategy::LIES.into_iter().find(|strategy| strategy.name() == name);
            named.with_context(|| {
                format!("no strategy {name}: there are {}", Strategy::LIES.map(Strategy::name).join(", "))
            })
        }
    }
}

async fn lie(experiment: &mut Experiment, orders: Orders, leads: bool, name: &str) -> anyhow::Result<()> {
    experiment.calm().await?;
    let (leader, follower) = experiment.leader_and_follower(orders.seed as usize).await?;
    let liar = if leads { leader } else { follower };
    let directory = experiment.cluster.replica_directory(liar);
    let phase = experiment.begin(name, Kind::Faulty).await?;
    orders.give(&directory)?;
    if orders.strategy == Strategy::FeedLaggards {
        let laggard = (0..experiment.cluster.replicas).find(|id| ![liar, leader].contains(id));
        let laggard = laggard.context("nobody else is there to lag")?;
        experiment.stop_for(laggard, LAGGARD_AWAY).await?;
    }
    tokio::time::sleep(experiment.length).await;
    experiment.end(phase).await?;
    eprintln!("{name}: replica {liar}, seed {}, {} operations so far", orders.seed, experiment.workload.answered());
    Orders::default().give(&directory)?;
    Ok(())
}

/// The leader becomes slow: stopped for nine tenths of the time, or everything it sends comes late.
pub(super) async fn slow_leader(arguments: &FaultsArguments) -> anyhow::Result<()> {
    let mut experiment = Experiment::start(arguments, Build::Liar).await?;
    let (mut replaced, mut never) = (Vec::new(), 0);
    for round in 0..arguments.rounds {
        let after = slow(&mut experiment, round).await.with_context(|| format!("round {round}"))?;
        eprintln!("round {:>2}: replaced after {after:?}", round + 1);
        match after {
            Some(after) => replaced.push(after.as_secs_f64() * 1e3),
            None => never += 1,
        }
    }
    experiment.more.insert("replaced_ms", json!(rounded(quantile(&mut replaced, 1.0))));
    experiment.more.insert("replaced_p50_ms", json!(rounded(quantile(&mut replaced, 0.5))));
    experiment.more.insert("never_replaced", json!(never));
    experiment.finish(arguments).await
}

async fn slow(experiment: &mut Experiment, round: usize) -> anyhow::Result<Option<Duration>> {
    experiment.calm().await?;
    let (leader, _) = experiment.leader_and_follower(round).await?;
    let by_signals = round.is_multiple_of(2);
    let name = if by_signals { "leader stopped 90 of 100 ms" } else { "leader sends late" };
    let phase = experiment.begin(name, Kind::Faulty).await?;
    let length = experiment.length;
    let replaced = if by_signals {
        let (stops, replaced) = tokio::join!(duty(experiment, leader, length), replaced(experiment, leader, length));
        stops?;
        replaced?
    } else {
        let directory = experiment.cluster.replica_directory(leader);
        Orders { strategy: Strategy::Slow, seed: 1 + round as u64, wall_ms: 0 }.give(&directory)?;
        let after = replaced(experiment, leader, length).await?;
        Orders::default().give(&directory)?;
        after
    };
    experiment.end(phase).await?;
    Ok(replaced)
}

/// Stops the replica again and again.
async fn duty(experiment: &Experiment, replica: usize, length: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < length {
        experiment.stop_for(replica, DUTY_STOPPED).await?;
        tokio::time::sleep(DUTY_RUNNING).await;
    }
    Ok(())
}

/// When all others had another leader, within `length`, which passes in any case.
async fn replaced(experiment: &Experiment, leader: usize, length: Duration) -> anyhow::Result<Option<Duration>> {
    let began = Instant::now();
    let others: Vec<usize> = (0..experiment.cluster.replicas).filter(|id| *id != leader).collect();
    let mut replaced = None;
    while began.elapsed() < length {
        let status = experiment.cluster.ask(&others).await?;
        let all = status.iter().all(|replica| replica.reachable && replica.leader != leader);
        if all && replaced.is_none() {
            replaced = Some(began.elapsed());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(replaced)
}

/// All clocks jump at once, and back.
pub(super) async fn clock(arguments: &FaultsArguments) -> anyhow::Result<()> {
    let mut experiment = Experiment::start(arguments, Build::Liar).await?;
    let mut skews: Vec<f64> = Vec::new();
    for round in 0..arguments.rounds {
        let (name, wall_ms) = JUMPS[round % JUMPS.len()];
        for (name, wall_ms) in [(name.to_owned(), wall_ms), (format!("{name}, and restored"), 0)] {
            experiment.calm().await.with_context(|| format!("round {round}"))?;
            let phase = experiment.begin(&name, Kind::Faulty).await?;
            for replica in 0..experiment.cluster.replicas {
                Orders { wall_ms, ..Orders::default() }.give(&experiment.cluster.replica_directory(replica))?;
            }
            tokio::time::sleep(experiment.length).await;
            experiment.end(phase).await?;
            let status = experiment.cluster.ask_all().await?;
            skews.extend(status.iter().map(|replica| replica.clock_skew_seconds.abs()));
            experiment
                .workload
                .all_answered(PATIENCE)
                .await
                .with_context(|| format!("round {round}: clocks {name}"))?;
            let skew = skews.last().copied().unwrap_or_default();
            eprintln!("round {:>2}: clocks {name}, agreed time {skew:.1} s away from them", round + 1);
        }
    }
    experiment.more.insert("clock_skew_max_s", json!(rounded(quantile(&mut skews, 1.0))));
    experiment.finish(arguments).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_take_the_strategies_in_turn_and_one_can_be_named() {
        let first: Vec<_> = (0..Strategy::LIES.len()).map(|round| strategy_of(round, None).unwrap()).collect();
        assert_eq!(first, Strategy::LIES);
        assert_eq!(strategy_of(Strategy::LIES.len(), None).unwrap(), Strategy::LIES[0]);
        assert_eq!(strategy_of(3, Some("wrong-replies")).unwrap(), Strategy::WrongReplies);
        assert!(strategy_of(0, Some("kind")).unwrap_err().to_string().contains("feed-laggards"));
    }
}
