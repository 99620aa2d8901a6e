//! A follower that is away and comes back: under small operations, and under the largest there are.

use super::{
    FaultsArguments, PATIENCE, caught_up,
    experiment::Experiment,
    highest,
    phases::{Kind, rounded},
};
use crate::{cluster::Build, results::quantile};
use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::json;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use unisono::load::resp::{RespClient, Value};

/// Bytes of a large value.
const BIG_BYTES: usize = 14_000_000;

/// How many clients write them.
const BIG_CLIENTS: usize = 8;

/// The returning replica may disturb this long.
const AT_FIRST: Duration = Duration::from_secs(1);

/// A follower is stopped for long and goes on.
pub(super) async fn returning(arguments: &FaultsArguments) -> anyhow::Result<()> {
    let mut experiment = Experiment::start(arguments, Build::Plain).await?;
    let mut caught_up_s = Vec::new();
    for round in 0..arguments.rounds {
        let after = comes_back(&mut experiment, round, Duration::from_secs(arguments.stopped));
        caught_up_s.push(after.await.with_context(|| format!("round {round}"))?.as_secs_f64());
    }
    experiment.more.insert("caught_up_s", json!(rounded(quantile(&mut caught_up_s, 1.0))));
    experiment.finish(arguments).await
}

async fn comes_back(experiment: &mut Experiment, round: usize, stopped: Duration) -> anyhow::Result<Duration> {
    experiment.calm().await?;
    let (_, follower) = experiment.leader_and_follower(round).await?;
    let phase = experiment.begin("a follower is stopped", Kind::Aside).await?;
    experiment.stop_for(follower, stopped).await?;
    experiment.end(phase).await?;
    let (height, began) = (highest(&experiment.cluster).await?, Instant::now());
    let phase = experiment.begin("its first second", Kind::Aside).await?;
    tokio::time::sleep(AT_FIRST).await;
    experiment.end(phase).await?;
    experiment.phase("after its first second", Kind::Faulty).await?;
    let after = caught_up(&experiment.cluster, &[follower], height, began).await?;
    eprintln!("round {:>2}: replica {follower} had caught up {:.2} s after it went on", round + 1, after.as_secs_f64());
    Ok(after)
}

/// Values of 14 MB from all sides, with all replicas and while one is away: stopped, or killed.
pub(super) async fn big_values(arguments: &FaultsArguments) -> anyhow::Result<()> {
    let mut experiment = Experiment::start(arguments, Build::Plain).await?;
    let (mut caught_up_s, mut calm, mut faulty) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        let one = big_round(&mut experiment, round, arguments.sets).await.with_context(|| format!("round {round}"))?;
        eprintln!(
            "round {:>2}: {:.2} values/s with all replicas, {:.2} with one away, which had caught up after {:.1} s",
            round + 1,
            one.calm,
            one.faulty,
            one.caught_up.as_secs_f64()
        );
        caught_up_s.push(one.caught_up.as_secs_f64());
        calm.push(one.calm);
        faulty.push(one.faulty);
    }
    let (calm, faulty) = (quantile(&mut calm, 0.5), quantile(&mut faulty, 0.5));
    experiment.more.insert("caught_up_s", json!(rounded(quantile(&mut caught_up_s, 1.0))));
    experiment.more.insert("big_values_per_s_calm", json!(rounded(calm)));
    experiment.more.insert("big_values_per_s_faulty", json!(rounded(faulty)));
    experiment.more.insert("big_values_pct", json!(rounded(100.0 * faulty / calm.max(1e-9))));
    experiment.finish(arguments).await
}

struct BigRound {
    /// Values written per second.
    calm: f64,
    faulty: f64,
    caught_up: Duration,
}

async fn big_round(experiment: &mut Experiment, round: usize, sets: usize) -> anyhow::Result<BigRound> {
    experiment.settled().await?;
    let redis = experiment.cluster.redis;
    let phase = experiment.begin("big values, all replicas", Kind::Calm).await?;
    let calm = write_all(redis, 2 * round, sets).await?;
    experiment.end(phase).await?;
    experiment.settled().await?;

    let (_, follower) = experiment.leader_and_follower(round).await?;
    let killed = !round.is_multiple_of(2);
    let name = if killed { "big values, a follower killed" } else { "big values, a follower stopped" };
    let phase = experiment.begin(name, Kind::Faulty).await?;
    experiment.cluster.signal(follower, if killed { Signal::KILL } else { Signal::STOP })?;
    let faulty = write_all(redis, 2 * round + 1, sets).await?;
    experiment.end(phase).await?;
    let phase = experiment.begin("it returns", Kind::Aside).await?;
    let (height, began) = (highest(&experiment.cluster).await?, Instant::now());
    if killed {
        experiment.cluster.restart(follower).await?;
    } else {
        experiment.cluster.signal(follower, Signal::CONT)?;
    }
    let caught_up = caught_up(&experiment.cluster, &[follower], height, began).await?;
    experiment.end(phase).await?;
    experiment.lost += missing(redis, 2 * round + 1).await?;
    Ok(BigRound { calm, faulty, caught_up })
}

/// Every client writes `sets` values, one after the other. How many values a second.
async fn write_all(redis: SocketAddr, turn: usize, sets: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    let clients: Vec<_> = (0..BIG_CLIENTS)
        .map(|client| {
            tokio::spawn(async move {
                let connection = RespClient::connect(redis).await?;
                let (key, value) = (key(client), big_value(client, turn));
                let words = [b"SET", key.as_bytes(), &value];
                for _ in 0..sets {
                    let set = connection.command(&words);
                    match tokio::time::timeout(2 * PATIENCE, set).await.context("a large value is not written")?? {
                        Value::Simple(_) => {}
                        other => bail!("a large value was answered with {other:?}"),
                    }
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    Ok((BIG_CLIENTS * sets) as f64 / began.elapsed().as_secs_f64())
}

/// How many of the acknowledged values are not there, whole.
async fn missing(redis: SocketAddr, turn: usize) -> anyhow::Result<u64> {
    let connection = RespClient::connect(redis).await?;
    let mut missing = 0;
    for client in 0..BIG_CLIENTS {
        let expected = big_value(client, turn);
        let found = connection.command(&[b"GET", key(client).as_bytes()]).await?;
        let whole = found == Value::Bulk(Some(expected));
        missing += u64::from(!whole);
    }
    Ok(missing)
}

fn key(client: usize) -> String {
    format!("big:{client}")
}

/// Different for each client and turn, from its first bytes on.
fn big_value(client: usize, turn: usize) -> Vec<u8> {
    let mut value = format!("{client:>16}{turn:>16}").into_bytes();
    value.resize(BIG_BYTES, b'x');
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_large_and_told_apart_by_their_beginning() {
        let value = big_value(3, 1);
        assert_eq!(value.len(), BIG_BYTES);
        assert_ne!(value[..32], big_value(3, 2)[..32]);
        assert_ne!(value[..32], big_value(2, 1)[..32]);
    }
}
