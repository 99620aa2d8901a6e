//! What the administrator asks of replicas, over links that only the admin key opens.
//!
//! One request, one answer, both JSON. The link's handshake is the signature: the replica has seen proof that the admin
//! key asks, and the administrator has seen proof that the member of that number answers.

use crate::config::{AdminConfig, ConfigError};
use crate::transport::{Dialer, LinkError, LinkKind, Target};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use unisono_types::{Digest, Member};

/// A replica that has not answered by then counts as unreachable.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How are you?
    Status,
}

/// Asks every replica how it is; in the order of their numbers. One that is unreachable has only its number and
/// `"reachable": false`.
///
/// # Errors
/// [`ConfigError`] when `admin_directory` is no admin directory.
pub async fn query_status(admin_directory: impl AsRef<Path>) -> Result<Vec<Value>, ConfigError> {
    let config = AdminConfig::load(admin_directory)?;
    Ok(status_of(&config).await)
}

/// [`query_status`] with a directory that is loaded already.
pub async fn status_of(config: &AdminConfig) -> Vec<Value> {
    let membership = &config.cluster.membership;
    let dialer = Dialer::new(config.key.clone(), LinkKind::Admin, membership.clone());
    let asked: Vec<_> = membership
        .configuration()
        .members
        .iter()
        .map(|member| {
            let (dialer, member) = (dialer.clone(), member.clone());
            tokio::spawn(async move { tokio::time::timeout(ANSWER_DEADLINE, ask(&dialer, &member)).await })
        })
        .collect();
    let mut answers = Vec::new();
    for (question, id) in asked.into_iter().zip(membership.ids()) {
        let answer = match question.await {
            Ok(Ok(Ok(answer))) => reachable(answer, id.0),
            _ => None,
        };
        answers.push(answer.unwrap_or_else(|| json!({ "id": id.0, "reachable": false })));
    }
    answers
}

/// The answer, if it is one of the replica that was asked.
fn reachable(mut answer: Value, id: u16) -> Option<Value> {
    let fields = answer.as_object_mut()?;
    if fields.get("id")?.as_u64()? != u64::from(id) {
        return None;
    }
    fields.insert("reachable".into(), true.into());
    Some(answer)
}

async fn ask(dialer: &Dialer, member: &Member) -> Result<Value, LinkError> {
    let mut link = dialer.dial(&Target::from(member)).await?;
    let request = serde_json::to_vec(&Request::Status).expect("a request has a JSON form");
    link.write(&request).await?;
    let answer = link.read().await?;
    serde_json::from_slice(&answer).map_err(|error| LinkError::Io(error.into()))
}

/// The replica's part of an answer.
pub(crate) fn describe(status: &unisono_replica::Status, register: Value, pid: u32) -> Value {
    let last = status.last_root();
    let hex = |digest: &Digest| digest.to_string();
    json!({
        "id": status.id.0,
        "algorithm": status.algorithm,
        "epoch": status.epoch.0,
        "view": status.view.0,
        "leader": status.leader.0,
        "members": status.members.iter().map(|id| id.0).collect::<Vec<_>>(),
        "height": status.height.0,
        "executed": status.executed.0,
        "stable": status.stable.0,
        "round": last.map_or(0, |root| root.round),
        "grant_hash": last.map_or_else(|| hex(&Digest::ZERO), |root| hex(&root.grants)),
        "state_root": hex(&status.state_root()),
        "root_height": last.map_or(0, |root| root.height.0),
        "recent_roots": status.recent_roots.iter().map(|root| json!([root.height.0, hex(&root.root)])).collect::<Vec<_>>(),
        "sessions": status.sessions,
        "register": register,
        "pid": pid,
    })
}
