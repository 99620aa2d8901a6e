//! `bench`: load against a cluster or against anything that speaks RESP.

use crate::{
    client::Client,
    config::ClientConfig,
    load::{self, CallError, Figures, Plan, Target, machine, resp::RespTarget},
};
use anyhow::{Context, bail};
use clap::Args;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Sessions and tasks have a price; beyond this a second process is the better load generator.
const CALLERS_MAX: usize = 100_000;

#[derive(Args, Debug)]
pub(super) struct BenchArguments {
    /// The cluster's directory: load by the native client.
    #[arg(long, value_name = "DIR", required_unless_present = "redis", conflicts_with = "redis")]
    cluster: Option<PathBuf>,
    /// A gateway, or any Redis: load over RESP.
    #[arg(long, value_name = "ADDR:PORT")]
    redis: Option<SocketAddr>,
    /// Callers.
    #[arg(long, value_name = "N", default_value_t = 50)]
    clients: usize,
    /// Operations that each caller has outstanding.
    #[arg(long, value_name = "N", default_value_t = 1)]
    outstanding: usize,
    /// Bytes that an operation carries.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    size: usize,
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    seconds: f64,
    /// Operations per second, whether or not answers come (open loop); without it every caller asks again when it is
    /// answered (closed loop).
    #[arg(long, value_name = "OPS")]
    rate: Option<f64>,
    /// Client keys that the callers are spread over; what callers of one key ask for at once shares a signature.
    #[arg(long, value_name = "N", default_value_t = 1)]
    keys: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl BenchArguments {
    fn plan(&self, measured_pids: Vec<u32>) -> anyhow::Result<Plan> {
        let callers = self.clients.saturating_mul(self.outstanding);
        if callers == 0 || callers > CALLERS_MAX {
            bail!("--clients times --outstanding must be from 1 to {CALLERS_MAX}, not {callers}");
        }
        if !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            bail!("--seconds must be above 0 and at most 86400");
        }
        if self.rate.is_some_and(|rate| !(0.001..=10_000_000.0).contains(&rate)) {
            bail!("--rate must be from 0.001 to 10000000 operations per second");
        }
        Ok(Plan {
            clients: self.clients,
            outstanding: self.outstanding,
            duration: Duration::from_secs_f64(self.seconds),
            rate: self.rate,
            measured_pids,
        })
    }
}

/// The service's own operations against a cluster: the callers are spread over one client per key.
#[derive(Clone)]
struct ClusterTarget {
    clients: Arc<Vec<Client>>,
    make: fn(u64) -> Vec<u8>,
    size: usize,
}

impl Target for ClusterTarget {
    async fn call(&self, client: usize, seed: u64) -> Result<(), CallError> {
        let operation = super::sample(self.make, seed, self.size);
        match self.clients[client % self.clients.len()].invoke(operation).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(fault)) => Err(CallError(fault.to_string())),
            Err(error) => Err(CallError(error.to_string())),
        }
    }
}

pub(super) async fn execute(arguments: BenchArguments, make: fn(u64) -> Vec<u8>) -> anyhow::Result<()> {
    super::processes::allow_many_files();
    let figures = match (&arguments.cluster, arguments.redis) {
        (Some(directory), _) => {
            let plan = arguments.plan(machine::replica_pids(&directory.join("run")))?;
            if make(load::sized_seed(1, arguments.size)).is_empty() {
                bail!("the service gives no `sample_operation`: implement it to say what load looks like");
            }
            let config = ClientConfig::load(directory.join("client"))?;
            let mut clients = Vec::new();
            for key in 0..arguments.keys.clamp(1, arguments.clients) {
                clients.push(Client::connect(&config, key).await?);
            }
            let target = ClusterTarget { clients: Arc::new(clients), make, size: arguments.size };
            let figures = load::run(target.clone(), &plan).await;
            for client in target.clients.iter() {
                client.close().await;
            }
            figures
        }
        (None, Some(address)) => {
            let plan = arguments.plan(machine::listening_pid(address).into_iter().collect())?;
            let target = RespTarget::connect(address, arguments.clients, arguments.size)
                .await
                .with_context(|| format!("cannot connect to {address}: start a gateway or a Redis there"))?;
            load::run(target, &plan).await
        }
        (None, None) => bail!("name a cluster with --cluster DIR or a server with --redis ADDR:PORT"),
    };
    print(&figures, arguments.json)
}

fn print(figures: &Figures, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(figures)?);
    } else {
        println!("operations per second  {:>12.1}", figures.ops_per_s);
        println!("latency p50            {:>12} us", figures.p50_us);
        println!("latency p99            {:>12} us", figures.p99_us);
        let cpu = figures.replica_cpu_us_per_op.map_or("not known".into(), |cpu| format!("{cpu:.1} us"));
        println!("server CPU per op      {cpu:>15}");
        println!("errors                 {:>12}", figures.errors);
        println!("steal                  {:>12.4}", figures.steal);
    }
    if let Some(first) = &figures.first_error {
        eprintln!("the first error: {first}");
    }
    if figures.ops_per_s <= 0.0 {
        bail!("no operation was answered");
    }
    Ok(())
}
