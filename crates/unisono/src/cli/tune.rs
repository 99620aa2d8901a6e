//! `tune`: local parameters of running replicas.

use super::status::{is_reachable, to_table};
use crate::admin::{Administrator, Request};
use crate::config::AdminConfig;
use crate::tuning::{Tuning, TuningError};
use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use unisono_types::ReplicaId;

/// Sets or shows local parameters of running replicas. They change no result, only speed, and may differ between
/// replicas. A restart returns to what `process.toml` says (workers = 2, start_ahead = 128).
#[derive(Args, Debug)]
pub(super) struct TuneArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Set them, until the replica ends.
    #[command(after_help = "\
Parameters:
  workers=NUMBER      threads that run handlers; 0: the event loop runs them, the best for handlers of microseconds
  start-ahead=NUMBER  handlers that may compute before the scheduler lets them lock; helps when handlers compute first

Example: unisono tune set workers=2 start-ahead=128 DIR --replica 1")]
    Set {
        /// Parameters to set, see below.
        #[arg(value_name = "NAME=NUMBER", required = true, num_args = 1.., value_parser = word)]
        words: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Show them.
    Show {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args, Debug)]
struct Place {
    /// The cluster's directory: its part `admin` holds the key that replicas answer to.
    dir: PathBuf,
    /// Only this replica [default: all].
    #[arg(long, value_name = "I")]
    replica: Option<u16>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Refuses a wrong word before anything else is looked at.
fn word(text: &str) -> Result<String, TuningError> {
    Tuning::of_words([text]).map(|_| text.to_owned())
}

pub(super) async fn execute(arguments: TuneArguments) -> anyhow::Result<()> {
    let (tuning, place) = match arguments.action {
        Action::Set { words, place } => (Tuning::of_words(&words)?, place),
        Action::Show { place } => (Tuning::default(), place),
    };
    let config = AdminConfig::load(place.dir.join("admin"))?;
    let members: Vec<ReplicaId> = config.cluster.membership.ids().collect();
    let ids = match place.replica.map(ReplicaId) {
        None => members,
        Some(id) if members.contains(&id) => vec![id],
        Some(id) => bail!("there is no replica {id}: this cluster has {} of them, numbered from 0", members.len()),
    };
    let answers = Administrator::new(config).ask_some(&ids, &Request::Tune(tuning)).await;
    if place.json {
        println!("{}", json!({ "replicas": answers }));
    } else {
        print!("{}", to_table(&[("workers", "workers"), ("start-ahead", "start_ahead")], &answers));
    }
    if let Some(reason) = answers.iter().find_map(|answer| answer["refused"].as_str()) {
        bail!("refused: {reason}");
    }
    let silent: Vec<String> =
        answers.iter().filter(|one| !is_reachable(one)).map(|one| one["id"].to_string()).collect();
    if !silent.is_empty() {
        bail!("no answer from replica {}: start it, then try again", silent.join(" and "));
    }
    let fewer =
        |answer: &&Value| tuning.workers.is_some_and(|wanted| answer["workers"].as_u64() != Some(wanted as u64));
    if let Some(answer) = answers.iter().find(fewer) {
        bail!("replica {} could start only {} threads: the system gives no more", answer["id"], answer["workers"]);
    }
    Ok(())
}
