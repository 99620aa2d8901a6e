//! `reconfigure`: the schedule's global parameters, changed by an entry in the order while the cluster runs.

use super::status::in_words;
use crate::admin::{Administrator, Reconfigured};
use crate::config::AdminConfig;
use crate::schedule::{WordError, change_of};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Changes the schedule's parameters on all replicas at the same place of the order, while they run. Takes effect with
/// the next round; what is not named stays. They decide how fast requests are executed, and which of those that come at
/// the same time gets a lock first; whatever they are, all replicas come to the same.
#[derive(Args, Debug)]
#[command(after_help = "\
Parameters:
  n=NUMBER|all             threads that are primary at once: they may lock; more than cores, as some wait
  steps=NUMBER|unlimited   locks that each may take in a round
  order=round-robin        who takes the next lock: each one in turn,
  order=quantum:NUMBER     each so many times in turn,
  order=explicit:0,1,1,2   or by this list of slots; slots that are missing come last
  flush-rounds=NUMBER      rounds that waiting threads get before new requests are looked at
  predicate=all            who may be primary: everybody,
  predicate=future-locks   who wants no lock that an older thread may still want,
  predicate=classes:C/E/P  or a class C of requests in every E-th round, from round P on; several with commas

Example: unisono reconfigure n=64 steps=4 order=quantum:8 DIR")]
pub(super) struct ReconfigureArguments {
    /// Parameters to change, see below.
    #[arg(value_name = "NAME=VALUE", required = true, num_args = 1.., value_parser = word)]
    words: Vec<String>,
    /// The cluster's directory: its part `admin` holds the key that signs the change.
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Refuses a wrong word before anything else is looked at.
fn word(text: &str) -> Result<String, WordError> {
    change_of([text]).map(|_| text.to_owned())
}

pub(super) async fn execute(arguments: ReconfigureArguments) -> anyhow::Result<()> {
    let change = change_of(&arguments.words)?;
    let config = AdminConfig::load(arguments.dir.join("admin"))?;
    let members = config.cluster.membership.len();
    let Reconfigured { height, replicas, parameters, holds } = Administrator::new(config).reconfigure(change).await?;
    if arguments.json {
        println!("{}", json!({ "height": height, "replicas": replicas, "holds": holds, "parameters": parameters }));
    } else {
        println!("ordered at height {height}; {replicas} of {members} replicas have now");
        println!("  {}", in_words(&parameters));
    }
    if !holds {
        eprintln!("that is not what was asked for: a handler or a later entry has changed it again");
    }
    Ok(())
}
