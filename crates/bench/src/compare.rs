//! `compare-redis`: the same load against the gateway and against a plain redis-server, in turn, so that both see the
//! same machine.

use crate::{
    cluster::Cluster,
    results::{Row, STEAL_MAX, keep, print},
    speed::{Measured, measure},
};
use anyhow::{Context, bail};
use clap::Args;
use std::{
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};
use unisono::load::resp::{RespClient, Value};

#[derive(Args, Debug)]
pub(crate) struct CompareArguments {
    /// Runs against each.
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Seconds of each run.
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 50)]
    clients: usize,
    /// Commands that each has outstanding.
    #[arg(long, value_name = "N", default_value_t = 4)]
    outstanding: usize,
    /// Only print, do not append to bench/results/compare-redis.jsonl.
    #[arg(long)]
    no_keep: bool,
    /// Print the rows as JSON lines.
    #[arg(long)]
    json: bool,
}

/// A plain Redis. Killed when dropped.
struct Redis {
    address: SocketAddr,
    _child: Child,
    _place: tempfile::TempDir,
}

impl Redis {
    async fn start(durable: bool) -> anyhow::Result<Self> {
        let place = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(place.path());
        if durable {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start redis-server: install Redis")?;
        let began = Instant::now();
        loop {
            if let Ok(client) = RespClient::connect(address).await
                && client.command(&[b"PING"]).await.ok() == Some(Value::Simple("PONG".into()))
            {
                return Ok(Self { address, _child: child, _place: place });
            }
            if began.elapsed() > Duration::from_secs(10) {
                bail!("redis-server does not answer on {address}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) async fn execute(arguments: CompareArguments) -> anyhow::Result<()> {
    let cluster = Cluster::start(3).await?;
    let (plain, durable) = (Redis::start(false).await?, Redis::start(true).await?);
    let contenders = [
        ("unisono, 3 replicas, durable, through the gateway", cluster.redis),
        ("redis-server, fsync always", durable.address),
        ("redis-server, not durable", plain.address),
    ];
    let mut measured: [Vec<Measured>; 3] = Default::default();
    for _ in 0..arguments.runs {
        for ((_, address), runs) in contenders.iter().zip(&mut measured) {
            let words = format!(
                "--redis {address} --clients {} --outstanding {} --size 100 --seconds {}",
                arguments.clients, arguments.outstanding, arguments.seconds
            );
            let run = measure(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).await?;
            if run.steal <= STEAL_MAX {
                runs.push(run);
            } else {
                eprintln!("a run stayed disturbed and is discarded (steal {:.3})", run.steal);
            }
        }
    }
    cluster.end().await?;
    let mut rows = Vec::new();
    for ((name, _), runs) in contenders.iter().zip(&measured) {
        if runs.is_empty() {
            bail!("every run against {name} was disturbed: try again when the machine is calm");
        }
        let steal = runs.iter().map(|run| run.steal).fold(0.0, f64::max);
        let values = |value: fn(&Measured) -> f64| runs.iter().map(value).collect::<Vec<_>>();
        rows.push(Row::new(&format!("{name}: SET throughput"), "op/s", None, &values(|run| run.ops_per_s), steal));
        rows.push(Row::new(&format!("{name}: SET p50"), "us", None, &values(|run| run.p50_us), steal));
        rows.push(Row::new(&format!("{name}: SET p99"), "us", None, &values(|run| run.p99_us), steal));
    }
    print(&rows, arguments.json)?;
    if !arguments.no_keep {
        eprintln!("kept in {}", keep("compare-redis.jsonl", &rows)?.display());
    }
    Ok(())
}
