//! A cluster under a checked load, and its phases.

use super::{
    Ended, FaultsArguments, PATIENCE, SETTLED, caught_up, leader,
    phases::{self, Figures, Kind, Phase, Summary},
};
use crate::{
    cluster::{Build, Cluster, ReplicaStatus},
    workload::Workload,
};
use anyhow::Context;
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What every kind of fault reports.
#[derive(Serialize, Debug)]
pub(super) struct Report {
    lost: u64,
    doubled: u64,
    roots_equal: bool,
    operations: usize,
    worst_gap_ms: f64,
    views: u64,
    views_calm: u64,
    throughput_pct: f64,
    throughput_min_pct: f64,
    p99_calm_ms: f64,
    p99_faulty_ms: f64,
    rounds: usize,
    errors: u64,
    /// What this kind of fault alone has.
    #[serde(flatten)]
    more: BTreeMap<&'static str, Value>,
    phases: Vec<Figures>,
}

/// A phase that has begun.
pub(super) struct Open {
    name: String,
    kind: Kind,
    begin: u64,
    before: Leading,
}

/// Who led, and what was said against it.
struct Leading {
    /// The highest view of those replicas that can be reached.
    view: u64,
    complaints: BTreeMap<(usize, String), u64>,
}

pub(super) struct Experiment {
    pub(super) cluster: Cluster,
    pub(super) workload: Workload,
    /// Length of a phase.
    pub(super) length: Duration,
    phases: Vec<Phase>,
    /// Acknowledged outside the checked load, and not there.
    pub(super) lost: u64,
    pub(super) more: BTreeMap<&'static str, Value>,
}

impl Experiment {
    pub(super) async fn start(arguments: &FaultsArguments, build: Build) -> anyhow::Result<Self> {
        let cluster = Cluster::start_as(arguments.replicas, build).await?;
        let workload = Workload::start(cluster.redis, arguments.clients);
        workload.all_answered(PATIENCE).await?;
        let length = Duration::from_secs(arguments.seconds);
        Ok(Self { cluster, workload, length, phases: Vec::new(), lost: 0, more: BTreeMap::new() })
    }

    /// Begins a phase. Returns at the very moment, so that a fault may begin with it.
    pub(super) async fn begin(&self, name: &str, kind: Kind) -> anyhow::Result<Open> {
        let before = leading(&self.cluster.ask_all().await?)?;
        Ok(Open { name: name.into(), kind, begin: self.workload.now_us(), before })
    }

    pub(super) async fn end(&mut self, open: Open) -> anyhow::Result<()> {
        let Open { name, kind, begin, before } = open;
        let end = self.workload.now_us();
        let after = leading(&self.cluster.ask_all().await?)?;
        let views = after.view.saturating_sub(before.view);
        let mut complaints = BTreeMap::new();
        for ((replica, reason), count) in after.complaints {
            let earlier = before.complaints.get(&(replica, reason.clone())).copied().unwrap_or(0);
            // One that was started anew counts from 0.
            let new = if count < earlier { count } else { count - earlier };
            if new > 0 {
                *complaints.entry(reason).or_default() += new;
            }
        }
        self.phases.push(Phase { name, kind, begin, end, views, complaints });
        Ok(())
    }

    /// A phase in which nothing changes.
    pub(super) async fn phase(&mut self, name: &str, kind: Kind) -> anyhow::Result<()> {
        let open = self.begin(name, kind).await?;
        tokio::time::sleep(self.length).await;
        self.end(open).await
    }

    /// Waits until everybody is served and up to date again, then a phase without faults.
    pub(super) async fn calm(&mut self) -> anyhow::Result<()> {
        self.settled().await?;
        self.phase("calm", Kind::Calm).await
    }

    /// Waits until every client is served and every replica is where the foremost was.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        self.workload.all_answered(PATIENCE).await?;
        let all: Vec<usize> = (0..self.cluster.replicas).collect();
        let height = super::highest(&self.cluster).await?;
        caught_up(&self.cluster, &all, height, Instant::now()).await?;
        tokio::time::sleep(SETTLED).await;
        Ok(())
    }

    /// The leader, and a follower that differs from round to round.
    pub(super) async fn leader_and_follower(&self, round: usize) -> anyhow::Result<(usize, usize)> {
        let leader = leader(&self.cluster).await?;
        let replicas = self.cluster.replicas;
        Ok((leader, (leader + 1 + round % (replicas - 1)) % replicas))
    }

    pub(super) async fn stop_for(&self, replica: usize, time: Duration) -> anyhow::Result<()> {
        self.cluster.signal(replica, Signal::STOP)?;
        tokio::time::sleep(time).await;
        self.cluster.signal(replica, Signal::CONT)
    }

    /// Ends it, prints what was seen, and fails when that is not what a correct store shows.
    pub(super) async fn finish(self, arguments: &FaultsArguments) -> anyhow::Result<()> {
        let Ended { seeing, verdicts, roots_equal } = Ended::of(self.workload, self.cluster).await?;
        let (phases, summary) = phases::evaluate(&seeing.events, &self.phases);
        let Summary { worst_gap_ms, views, views_calm, throughput_pct, .. } = summary;
        let Summary { throughput_min_pct, p99_calm_ms, p99_faulty_ms, .. } = summary;
        let report = Report {
            lost: verdicts.lost + self.lost,
            doubled: verdicts.doubled,
            roots_equal,
            operations: seeing.answered(),
            worst_gap_ms,
            views,
            views_calm,
            throughput_pct,
            throughput_min_pct,
            p99_calm_ms,
            p99_faulty_ms,
            rounds: arguments.rounds,
            errors: seeing.errors,
            more: self.more,
            phases,
        };
        super::print(&report, arguments.json, report.lost + report.doubled == 0 && report.roots_equal)
    }
}

fn leading(status: &[ReplicaStatus]) -> anyhow::Result<Leading> {
    let reachable = || status.iter().filter(|replica| replica.reachable);
    let view = reachable().map(|replica| replica.view).max().context("no replica can be reached")?;
    let of_replica = |replica: &ReplicaStatus| {
        let id = replica.id;
        replica.complaints.clone().into_iter().map(move |(reason, count)| ((id, reason), count))
    };
    Ok(Leading { view, complaints: reachable().flat_map(of_replica).collect() })
}
