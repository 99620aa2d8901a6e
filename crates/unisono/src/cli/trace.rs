//! `trace`: the schedule of a running replica, as a page.

use crate::admin::{Administrator, Request};
use crate::config::AdminConfig;
use crate::trace;
use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use std::{path::PathBuf, time::Duration};
use unisono_types::ReplicaId;

/// Records what a replica's scheduler does and draws it as a page for a browser, which needs nothing else. The replica
/// goes on meanwhile, some per cent slower. Other replicas grant the same locks in the same rounds, at other times.
#[derive(Args, Debug)]
pub(super) struct TraceArguments {
    /// The cluster's directory: its part `admin` holds the key that replicas answer to.
    dir: PathBuf,
    /// The page to write.
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
    /// Which replica.
    #[arg(long, value_name = "I", default_value_t = 0)]
    replica: u16,
    /// For how long.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    seconds: f64,
    /// The last so many events are kept: more than some ten thousand make a page that browsers are slow with.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    events: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(arguments: TraceArguments) -> anyhow::Result<()> {
    let TraceArguments { dir, html, replica, seconds, events, json } = arguments;
    if !(seconds > 0.0 && seconds <= 3_600.0) || events == 0 {
        bail!("--seconds must be above 0 and at most 3600, --events at least 1");
    }
    let config = AdminConfig::load(dir.join("admin"))?;
    let id = ReplicaId(replica);
    if config.cluster.membership.member(id).is_none() {
        let members = config.cluster.membership.len();
        bail!("there is no replica {id}: this cluster has {members} of them, numbered from 0");
    }
    let mut administrator = Administrator::new(config);
    let answers = administrator.ask_some(&[id], &Request::Record { events }).await;
    if !answers.iter().any(super::status::is_reachable) {
        bail!("no answer from replica {id}: start it, then try again");
    }
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let recording = administrator.recording(id).await?;
    let cluster = dir.display().to_string();
    std::fs::write(&html, trace::page(&recording, replica, &cluster))
        .with_context(|| format!("cannot write {}", html.display()))?;
    let (threads, events) = (recording.threads.len(), recording.events.len());
    let rounds = recording.events.iter().filter(|event| event.thread.is_none()).count();
    if json {
        println!(
            "{}",
            json!({ "html": html, "replica": replica, "threads": threads, "rounds": rounds, "events": events })
        );
    } else {
        println!("{}: {threads} threads, {rounds} rounds, {events} events of replica {replica}", html.display());
    }
    Ok(())
}
