//! The commands that every service gets: `dev`, `init`, `replica`, `gateway`, `status`, `reconfigure`, `tune`, `trace`,
//! `bench`.
//!
//! ```text
//!   main::<S>()              a service on its own
//!   main_with::<S>(setup)    a service whose handlers ask oracles
//!   cli::run::<S, P>(make)   a service and the protocol that its gateway speaks
//! ```
//! A command prints what it was asked for on standard output, everything else on standard error. Exit codes: 0 done,
//! 1 failed (the message says what to do), 2 the command line cannot be understood.

mod bench;
mod processes;
mod reconfigure;
mod status;
mod trace;
mod tune;

use crate::{
    client::Client,
    config::{InitOptions, Schedule, init},
    dev::{self, DevOptions, GatewayAddress},
    gateway::{Bytes, Protocol, Setup},
    oracle::Oracles,
};
use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::{ffi::OsString, future::Future, net::SocketAddr, path::PathBuf, pin::Pin, process::ExitCode, sync::Arc};
use tokio::net::TcpListener;
use unisono_execution::Service;

/// Where the gateway of `dev` listens if nobody says otherwise: where Redis clients look.
const REDIS_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 6379);

/// Runs the command line of a program for service `S`. Does not return if the command failed.
pub fn main<S: Service>() {
    end(start(&Application::of::<S>(), program(), std::env::args_os().skip(1).collect()));
}

/// Runs the command line of a program for service `S`, whose handlers may call what `setup` registers. Does not return
/// if the command failed.
///
/// ```no_run
/// # use unisono::{Context, Objects, Service, State, UnknownOperation};
/// # struct Weather;
/// # impl State for Weather { fn create(_: &mut Objects, _: &str) -> Self { Weather } }
/// # impl Service for Weather {
/// #     async fn execute<'a>(&'a self, _: &'a Context, _: &'a [u8]) -> Result<Vec<u8>, UnknownOperation> {
/// #         Err(UnknownOperation)
/// #     }
/// #     fn handler(_: &[u8]) -> &'static str { "" }
/// # }
/// unisono::main_with::<Weather>(|replica| {
///     replica.oracle("echo", |_call, request| async move { Ok(request.to_vec()) });
/// });
/// ```
pub fn main_with<S: Service>(setup: impl FnOnce(&mut Oracles)) {
    let application = Application::of::<S>().with_oracles(setup);
    end(start(&application, program(), std::env::args_os().skip(1).collect()));
}

/// Like [`main_with`], for a program that has these commands behind words of its own: `program` is how it is started
/// again (the executable and those words), `arguments` what follows them.
#[must_use]
pub fn main_within<S: Service>(
    setup: impl FnOnce(&mut Oracles),
    program: Vec<OsString>,
    arguments: Vec<OsString>,
) -> ExitCode {
    start(&Application::of::<S>().with_oracles(setup), program, arguments).into()
}

/// Runs the command line of a program for service `S` with a gateway for the protocol that `make` makes. Does not
/// return if the command failed.
pub fn run<S: Service, P: Protocol>(make: fn(&Setup) -> P) {
    let application = Application::of::<S>().with_gateway(make);
    end(start(&application, program(), std::env::args_os().skip(1).collect()));
}

/// Like [`run`], for a program that has these commands behind words of its own: `program` is how it is started again
/// (the executable and those words), `arguments` what follows them.
#[must_use]
pub fn run_within<S: Service, P: Protocol>(
    make: fn(&Setup) -> P,
    program: Vec<OsString>,
    arguments: Vec<OsString>,
) -> ExitCode {
    start(&Application::of::<S>().with_gateway(make), program, arguments).into()
}

fn program() -> Vec<OsString> {
    // Its own file, so that `dev` starts the same build again whatever lies in PATH.
    std::env::current_exe().map(OsString::from).into_iter().collect()
}

fn end(code: u8) {
    if code != DONE {
        std::process::exit(code.into());
    }
}

const DONE: u8 = 0;
const FAILED: u8 = 1;
const NOT_UNDERSTOOD: u8 = 2;

/// A gateway at work, until it is dropped.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// Serves one protocol on a listener.
type Serve = Box<dyn Fn(TcpListener, Client, &Setup) -> Serving>;

/// What the commands need of a service and its protocol.
struct Application {
    replica: fn(processes::ReplicaArguments, Oracles) -> anyhow::Result<()>,
    oracles: Oracles,
    gateway: Option<Serve>,
    sample: fn(u64) -> Vec<u8>,
}

impl Application {
    fn of<S: Service>() -> Self {
        Self {
            replica: processes::replica::<S>,
            oracles: Oracles::default(),
            gateway: None,
            sample: S::sample_operation,
        }
    }

    fn with_oracles(mut self, setup: impl FnOnce(&mut Oracles)) -> Self {
        setup(&mut self.oracles);
        self
    }

    fn with_gateway<P: Protocol>(self, make: fn(&Setup) -> P) -> Self {
        let serve = move |listener, client, setup: &Setup| -> Serving {
            Box::pin(crate::gateway::serve(listener, Arc::new(make(setup)), client, std::future::pending()))
        };
        Self { gateway: Some(Box::new(serve)), ..self }
    }
}

/// Replicated services that survive crashes and lies.
#[derive(Parser, Debug)]
#[command(version, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a whole cluster on this machine, each replica a process of its own.
    Dev(DevArguments),
    /// Make the directories and keys of a new cluster.
    Init(InitArguments),
    /// Run one replica in the foreground.
    Replica(processes::ReplicaArguments),
    /// Serve applications that speak the service's protocol: vote on the cluster's answers for them.
    Gateway(processes::GatewayArguments),
    /// Ask every replica how it is.
    Status(status::StatusArguments),
    /// Change the schedule's parameters while the cluster runs: n, steps, order and others.
    Reconfigure(reconfigure::ReconfigureArguments),
    /// Set or show local parameters of running replicas: threads, handlers that run ahead.
    Tune(tune::TuneArguments),
    /// Record the schedule of a running replica and draw it: rounds, threads, waits and locks.
    Trace(trace::TraceArguments),
    /// Measure operations per second and latency.
    Bench(bench::BenchArguments),
}

/// What a cluster is made of.
#[derive(Args, Debug)]
struct ClusterArguments {
    /// Agreement algorithm.
    #[arg(long, value_name = "NAME")]
    algorithm: Option<String>,
    /// How requests are executed: uds (in parallel), sequential (one after the other), or one of the algorithms that
    /// uds imitates: sat, mat, pmat, pds1, pds2, round-robin. `reconfigure` changes its parameters later.
    #[arg(long, value_name = "NAME")]
    schedule: Option<Schedule>,
}

/// Whom handlers may call beyond what the program registers.
#[derive(Args, Debug)]
struct CallArguments {
    /// Another cluster that handlers may call as cluster:NAME, by its client directory. May be given several times.
    #[arg(long = "call", value_name = "NAME=DIR/client", value_parser = named_directory)]
    clusters: Vec<(String, PathBuf)>,
}

fn named_directory(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, directory)) if !name.is_empty() && !directory.is_empty() => Ok((name.into(), directory.into())),
        _ => Err("write NAME=DIR/client".into()),
    }
}

#[derive(Args, Debug)]
struct DevArguments {
    /// Number of replicas; three tolerate one faulty one [default: 3].
    #[arg(long, value_name = "N")]
    replicas: Option<u16>,
    /// The cluster's directory. An existing one is resumed [default: a new temporary directory].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where the gateway listens [default: 127.0.0.1:6379, or the next free port].
    #[arg(long, value_name = "ADDR:PORT")]
    redis: Option<SocketAddr>,
    /// Where the metrics of all processes can be read, at /metrics [default: any free port].
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    calls: CallArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

#[derive(Args, Debug)]
struct InitArguments {
    /// The directory to make; it must not exist, or be empty.
    dir: PathBuf,
    /// Number of replicas; three tolerate one faulty one.
    #[arg(long, value_name = "N", default_value_t = 3)]
    replicas: u16,
    /// Where each replica listens, in the order of their numbers [default: free ports of this machine].
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    hosts: Option<Vec<String>>,
    #[command(flatten)]
    cluster: ClusterArguments,
}

fn start(application: &Application, program: Vec<OsString>, arguments: Vec<OsString>) -> u8 {
    let words = std::iter::once(OsString::from("unisono")).chain(arguments);
    let shape = CommandLine::command();
    let shape = match application.gateway {
        Some(_) => shape,
        None => shape.mut_subcommand("gateway", |gateway| gateway.hide(true)),
    };
    let parsed = shape.try_get_matches_from(words).and_then(|matches| CommandLine::from_arg_matches(&matches));
    let command = match parsed {
        Ok(line) => line.command,
        Err(error) => {
            let _ = error.print(); // there is nobody left to tell
            return u8::try_from(error.exit_code()).unwrap_or(NOT_UNDERSTOOD);
        }
    };
    let result = execute(application, program, command);
    match result {
        Ok(()) => DONE,
        Err(error) => {
            eprintln!("error: {error:#}");
            FAILED
        }
    }
}

fn execute(application: &Application, program: Vec<OsString>, command: Command) -> anyhow::Result<()> {
    dev::bind_to_parent()?;
    match command {
        Command::Dev(arguments) => block_on(dev::run(arguments.options(application, program)))?,
        Command::Init(arguments) => arguments.execute(),
        Command::Replica(arguments) => (application.replica)(arguments, application.oracles.clone()),
        Command::Gateway(arguments) => {
            let serve = application
                .gateway
                .as_ref()
                .context("this service has no protocol for a gateway: its clients use the library, see the guide")?;
            block_on(processes::gateway(arguments, serve))?
        }
        Command::Status(arguments) => block_on(status::execute(arguments))?,
        Command::Reconfigure(arguments) => block_on(reconfigure::execute(arguments))?,
        Command::Tune(arguments) => block_on(tune::execute(arguments))?,
        Command::Trace(arguments) => block_on(trace::execute(arguments))?,
        Command::Bench(arguments) => block_on(bench::execute(arguments, application.sample))?,
    }
}

/// Runs on one thread: what happens within one wake-up is then handled together, which is what makes batches.
fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background(); // what is left has nothing more to say
    Ok(result)
}

impl DevArguments {
    fn options(self, application: &Application, program: Vec<OsString>) -> DevOptions {
        let gateway = application.gateway.as_ref().map(|_| match self.redis {
            Some(address) => GatewayAddress::Exactly(address),
            None => GatewayAddress::OrNextFree(REDIS_ADDRESS),
        });
        DevOptions {
            program,
            replicas: self.replicas,
            directory: self.dir,
            gateway,
            metrics: self.metrics,
            clusters: self.calls.clusters,
            algorithm: self.cluster.algorithm,
            schedule: self.cluster.schedule,
        }
    }
}

impl InitArguments {
    fn execute(self) -> anyhow::Result<()> {
        let defaults = InitOptions::default();
        let options = InitOptions {
            replicas: self.replicas,
            hosts: self.hosts,
            algorithm: self.cluster.algorithm.unwrap_or_else(|| defaults.algorithm.clone()),
            schedule: self.cluster.schedule.unwrap_or(defaults.schedule),
            ..defaults
        };
        let membership = init(&self.dir, &options)?;
        let directory = self.dir.display();
        println!("cluster {} in {directory}", membership.configuration().cluster);
        for member in &membership.configuration().members {
            println!("  {directory}/replica-{} listens on {}: copy it to that machine", member.id, member.address);
        }
        println!(
            "  {directory}/client is for gateways and clients, {directory}/admin for `unisono status {directory}`"
        );
        Ok(())
    }
}

/// A service's operation that carries `size` bytes, if the service can make them that large.
fn sample(make: fn(u64) -> Vec<u8>, seed: u64, size: usize) -> Bytes {
    make(crate::load::sized_seed(seed, size)).into()
}

#[cfg(test)]
mod tests;
