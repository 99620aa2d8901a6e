//! `faults`: what clients notice when replicas are killed or stopped under load, and whether anything was lost.
//!
//! ```text
//!   load ────────────────────────────────────────────────────────────────────────────>
//!   round    | settled | fault            | start again | caught up | ...
//!   gap                 <── longest time that some client goes without an answer ──>
//! ```
//! Kinds that are held against phases without faults stand in modules of their own (`experiment`, `phases`).

mod away;
mod disks;
mod experiment;
mod lies;
mod phases;

use crate::{
    cluster::Cluster,
    history::{self, Verdicts},
    results::quantile,
    workload::{Seeing, Workload},
};
use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use rustix::process::Signal;
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub(crate) struct FaultsArguments {
    /// What happens in each round.
    kind: Kind,
    /// Rounds.
    #[arg(long, value_name = "N", default_value_t = 20)]
    rounds: usize,
    /// Replicas of the cluster.
    #[arg(long, value_name = "N", default_value_t = 3)]
    replicas: usize,
    /// Clients, each with one operation outstanding.
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients: usize,
    /// Seconds of a phase, calm or faulty.
    #[arg(long, value_name = "N", default_value_t = 3)]
    seconds: u64,
    /// returning: for how many seconds the follower is stopped.
    #[arg(long, value_name = "N", default_value_t = 30)]
    stopped: u64,
    /// big-values: how many values each client writes in each phase.
    #[arg(long, value_name = "N", default_value_t = 1)]
    sets: usize,
    /// liar: only this strategy, in each round.
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// liar: seed of the first round's lies.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    /// kill -9 of each replica in turn, started again after a second.
    KillEach,
    /// kill -9 of the leader, started again after a second.
    KillLeader,
    /// SIGSTOP for ten seconds, of the leader and of others in turn.
    Stop,
    /// kill -9 of all at once, started again at once.
    KillAll,
    /// A Byzantine replica: another strategy in each round, as a follower and as the leader.
    Liar,
    /// A leader that is stopped for nine tenths of the time, or sends everything late.
    SlowLeader,
    /// Eight clients write values of 14 MB, with all replicas and while one is away.
    BigValues,
    /// A replica comes back with its data directory emptied, older, cut short or foreign.
    Amnesia,
    /// A follower is stopped for long under load and goes on.
    Returning,
    /// The wall clocks of all replicas jump, and jump back.
    Clock,
}

/// How long a killed replica stays away.
const AWAY: Duration = Duration::from_secs(1);

/// How long a stopped one is stopped.
const STOPPED: Duration = Duration::from_secs(10);

/// Load between a round's end and the next fault, so that each is seen alone.
const SETTLED: Duration = Duration::from_millis(500);

/// A replica that has not caught up after this long will not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Debug)]
struct Report {
    rounds: usize,
    operations: usize,
    lost: u64,
    doubled: u64,
    errors: u64,
    outage_p50_ms: f64,
    outage_p99_ms: f64,
    outage_max_ms: f64,
    rejoin_max_s: f64,
    roots_equal: bool,
}

pub(crate) async fn execute(arguments: FaultsArguments) -> anyhow::Result<()> {
    if arguments.rounds == 0 || arguments.replicas < 3 || arguments.clients == 0 {
        bail!("an experiment has at least one round, three replicas and one client");
    }
    match arguments.kind {
        Kind::Liar => lies::liar(&arguments).await,
        Kind::SlowLeader => lies::slow_leader(&arguments).await,
        Kind::Clock => lies::clock(&arguments).await,
        Kind::BigValues => away::big_values(&arguments).await,
        Kind::Returning => away::returning(&arguments).await,
        Kind::Amnesia => disks::amnesia(&arguments).await,
        Kind::KillEach | Kind::KillLeader | Kind::Stop | Kind::KillAll => outages(arguments).await,
    }
}

/// Replicas that end or stop, one fault in each round.
async fn outages(arguments: FaultsArguments) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(arguments.replicas).await?;
    let workload = Workload::start(cluster.redis, arguments.clients);
    workload.all_answered(PATIENCE).await?;
    let mut outages = Vec::new();
    let mut rejoins = Vec::new();
    for round in 0..arguments.rounds {
        tokio::time::sleep(SETTLED).await;
        let moment = workload.watch_gaps();
        let rejoined = fault(&mut cluster, arguments.kind, round).await.with_context(|| format!("round {round}"))?;
        workload.all_answered(PATIENCE).await.with_context(|| format!("round {round}"))?;
        let outage = workload.longest_gap(moment);
        eprintln!(
            "round {:>2}: outage {:>6.1} ms, {:.2} s after the fault, rejoined after {:.2} s, {} operations",
            round + 1,
            outage.length.as_secs_f64() * 1e3,
            outage.after.as_secs_f64(),
            rejoined.as_secs_f64(),
            workload.answered()
        );
        outages.push(outage.length.as_secs_f64() * 1e3);
        rejoins.push(rejoined.as_secs_f64());
    }
    let Ended { seeing, verdicts, roots_equal } = Ended::of(workload, cluster).await?;
    let report = Report {
        rounds: arguments.rounds,
        operations: seeing.answered(),
        lost: verdicts.lost,
        doubled: verdicts.doubled,
        errors: seeing.errors,
        outage_p50_ms: rounded(quantile(&mut outages, 0.5)),
        outage_p99_ms: rounded(quantile(&mut outages, 0.99)),
        outage_max_ms: rounded(quantile(&mut outages, 1.0)),
        rejoin_max_s: rounded(quantile(&mut rejoins, 1.0)),
        roots_equal,
    };
    print(&report, arguments.json, report.lost + report.doubled == 0 && report.roots_equal)
}

/// What was seen until the end, and whether it is right.
struct Ended {
    seeing: Seeing,
    verdicts: Verdicts,
    roots_equal: bool,
}

impl Ended {
    /// Ends the load and the cluster; tells in words what is wrong.
    async fn of(workload: Workload, cluster: Cluster) -> anyhow::Result<Self> {
        let seeing = workload.finish().await?;
        let roots_equal = roots_equal(&cluster).await?;
        cluster.end().await?;
        let verdicts = history::check(&seeing.events, &seeing.read_back);
        for detail in &verdicts.details {
            eprintln!("{detail}");
        }
        if let Some(first) = &seeing.first_error {
            eprintln!("the first error: {first}");
        }
        Ok(Self { seeing, verdicts, roots_equal })
    }
}

/// Prints the report. An error when what it says is wrong.
fn print(report: &(impl Serialize + std::fmt::Debug), json: bool, right: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{report:#?}");
    }
    ensure!(right, "the history is not that of a correct store");
    Ok(())
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// One round; how long after their start the replicas had caught up with where the others were then.
async fn fault(cluster: &mut Cluster, kind: Kind, round: usize) -> anyhow::Result<Duration> {
    let victims = match kind {
        Kind::KillEach => vec![round % cluster.replicas],
        Kind::KillLeader => vec![leader(cluster).await?],
        Kind::Stop if round.is_multiple_of(2) => vec![leader(cluster).await?],
        Kind::Stop => vec![(leader(cluster).await? + 1 + round / 2 % (cluster.replicas - 1)) % cluster.replicas],
        // All others have their own modules.
        _ => (0..cluster.replicas).collect(),
    };
    if kind == Kind::Stop {
        for victim in &victims {
            cluster.signal(*victim, Signal::STOP)?;
        }
        tokio::time::sleep(STOPPED).await;
        let height = highest(cluster).await?;
        let began = Instant::now();
        for victim in &victims {
            cluster.signal(*victim, Signal::CONT)?;
        }
        return caught_up(cluster, &victims, height, began).await;
    }
    for victim in &victims {
        cluster.signal(*victim, Signal::KILL)?;
    }
    let all = kind == Kind::KillAll;
    let height = if all {
        0 // nobody is left to tell
    } else {
        tokio::time::sleep(AWAY).await;
        highest(cluster).await?
    };
    let began = Instant::now();
    for victim in &victims {
        cluster.restart(*victim).await?;
    }
    let height = if all { highest(cluster).await? } else { height };
    caught_up(cluster, &victims, height, began).await
}

/// Whom most replicas take for the leader, by the highest view.
async fn leader(cluster: &Cluster) -> anyhow::Result<usize> {
    let status = cluster.status().await?;
    let reachable = status.iter().filter(|replica| replica.reachable);
    Ok(reachable.max_by_key(|replica| (replica.view, replica.height)).context("no replica can be reached")?.leader)
}

/// Decisions that a replica may be behind and count as up to date: those of some 30 ms under full load.
const NEAR: u64 = 100;

async fn highest(cluster: &Cluster) -> anyhow::Result<u64> {
    let status = cluster.status().await?;
    status.iter().filter(|replica| replica.reachable).map(|replica| replica.height).max().context("nobody is reachable")
}

/// Waits until these replicas are where the foremost is, which goes on meanwhile, and at `height` at least. How long that
/// took since `began`.
async fn caught_up(cluster: &Cluster, ids: &[usize], height: u64, began: Instant) -> anyhow::Result<Duration> {
    loop {
        let status = cluster.status().await?;
        let foremost = status.iter().map(|replica| replica.executed.saturating_sub(NEAR)).max().unwrap_or(0);
        let behind = |id: &usize| {
            let replica = status.iter().find(|replica| replica.id == *id);
            replica.is_none_or(|replica| replica.executed < height.max(foremost))
        };
        if !ids.iter().any(behind) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > PATIENCE {
            bail!("replicas {ids:?} have not come to height {height} within a minute: {status:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether replicas that list the same height list the same root. All must have one height in common.
pub(crate) async fn roots_equal(cluster: &Cluster) -> anyhow::Result<bool> {
    let began = Instant::now();
    loop {
        let status = cluster.status().await?;
        let mut all_have = 0;
        for (height, root) in status.iter().flat_map(|replica| &replica.recent_roots) {
            let others = status.iter().flat_map(|replica| &replica.recent_roots);
            let same_height: Vec<_> = others.filter(|(other, _)| other == height).collect();
            if same_height.iter().any(|(_, other)| other != root) {
                eprintln!("roots differ at height {height}: {status:#?}");
                return Ok(false);
            }
            all_have += usize::from(same_height.len() == cluster.replicas);
        }
        if all_have > 0 {
            return Ok(true);
        }
        if began.elapsed() > PATIENCE {
            bail!("the replicas have no height in common at which they list a root: {status:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
