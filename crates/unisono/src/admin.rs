//! What the administrator asks of replicas, over links that only the admin key opens.
//!
//! ```text
//!   Status   how are you?                                  one replica's word
//!   Tune     local parameters, set while it runs           this replica only
//!   Record   write the schedule down; Recording: give it   this replica only
//!   Submit   an entry signed with the admin key ──> the order ──> all replicas; asked again: what became of it
//! ```
//! One request, one answer, both JSON and bounded. The link's handshake is the signature: the replica has seen proof
//! that the admin key asks, and the administrator has seen proof that the member of that number answers.
//!
//! What concerns the whole cluster is believed when f+1 replicas say the same.

use crate::config::{AdminConfig, ConfigError, from_hex};
use crate::schedule::{self, Schedule};
use crate::transport::{Dialer, Link, LinkError, LinkKind, Target};
use crate::tuning::Tuning;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use unisono_execution::recording::Recording;
use unisono_types::{AdminEntry, Digest, Frame, FrameBody, Member, ReplicaId, ScheduleChange, SequenceNumber, decode};

/// A replica that has not answered by then counts as unreachable.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// An entry that is not ordered by then will hardly be: too few replicas are up.
const ORDER_DEADLINE: Duration = Duration::from_secs(30);

/// After it was ordered, how long to wait until it holds; if it does not then, something later has changed it again.
const HOLD_DEADLINE: Duration = Duration::from_secs(3);

/// Between two looks at what became of an entry.
const LOOK: Duration = Duration::from_millis(10);

/// A question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How are you?
    Status,
    /// Set local parameters.
    Tune(Tuning),
    /// Put this entry into the order, unless it is there, and say where it took effect and what holds now.
    Submit {
        /// The signed frame's bytes, hexadecimal.
        frame: String,
    },
    /// From now on, write down the schedule: the last so many events.
    Record {
        /// How many.
        events: usize,
    },
    /// A piece of what was written down, in canonical bytes; the first piece ends the recording.
    Recording {
        /// Where the piece begins.
        from: usize,
    },
}

/// Bytes of a recording in one answer: half of what an answer may have, since they are sent as digits.
pub(crate) const RECORDING_PIECE_BYTES: usize = 256 << 10;

/// A recording of more bytes than this is none that a correct replica keeps.
const RECORDING_BYTES_MAX: usize = 256 << 20;

/// Asks every replica how it is; in the order of their numbers. One that is unreachable has only its number and
/// `"reachable": false`.
///
/// # Errors
/// [`ConfigError`] when `admin_directory` is no admin directory.
pub async fn query_status(admin_directory: impl AsRef<Path>) -> Result<Vec<Value>, ConfigError> {
    Ok(status_of(&AdminConfig::load(admin_directory)?).await)
}

/// [`query_status`] with a directory that is loaded already.
pub async fn status_of(config: &AdminConfig) -> Vec<Value> {
    Administrator::new(config.clone()).ask_all(&Request::Status).await
}

/// Asks all replicas, over links that stay open between two questions.
#[derive(Debug)]
pub struct Administrator {
    config: AdminConfig,
    links: Vec<Option<Link>>,
}

/// A change of the schedule that took effect.
#[derive(Clone, PartialEq, Debug)]
pub struct Reconfigured {
    /// The decision it was ordered in.
    pub height: u64,
    /// How many replicas say so, and have these parameters.
    pub replicas: usize,
    /// The parameters in force.
    pub parameters: Value,
    /// Whether they are as wanted. Otherwise a handler or a later entry has changed them meanwhile.
    pub holds: bool,
}

/// Why a change did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum ReconfigureError {
    /// There is nothing to change.
    #[error("this cluster was made with --schedule {0}, which has no parameters: make one with another schedule")]
    NoParameters(&'static str),
    /// Too few answer.
    #[error("only {reachable} of {members} replicas answer, {needed} must: start them, then try again")]
    Unreachable {
        /// How many answer.
        reachable: usize,
        /// How many there are.
        members: usize,
        /// How many must.
        needed: usize,
    },
    /// A replica refused the entry.
    #[error("the replicas refuse it: {0}")]
    Refused(String),
    /// Not ordered.
    #[error("it was not ordered within {} seconds: is a quorum of replicas up? See `unisono status`", ORDER_DEADLINE.as_secs())]
    NotOrdered,
    /// No nonce.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// No answer.
    #[error("no answer from replica {0}: start it, then try again")]
    Unreachable(ReplicaId),
    /// It is none.
    #[error("what replica {0} sends is no recording: is it of this version?")]
    Malformed(ReplicaId),
}

impl Administrator {
    /// One that has asked nobody yet.
    #[must_use]
    pub fn new(config: AdminConfig) -> Self {
        let links = config.cluster.membership.ids().map(|_| None).collect();
        Self { config, links }
    }

    /// Asks every replica; in the order of their numbers. One that is unreachable has only its number and
    /// `"reachable": false`.
    pub async fn ask_all(&mut self, request: &Request) -> Vec<Value> {
        let ids: Vec<ReplicaId> = self.config.cluster.membership.ids().collect();
        self.ask_some(&ids, request).await
    }

    /// Asks these replicas; in the order given.
    pub async fn ask_some(&mut self, ids: &[ReplicaId], request: &Request) -> Vec<Value> {
        let membership = self.config.cluster.membership.clone();
        let dialer = Dialer::new(self.config.key.clone(), LinkKind::Admin, membership.clone());
        let question = serde_json::to_vec(request).expect("a request has a JSON form");
        let mut asked = Vec::new();
        for id in ids {
            let Some(member) = membership.member(*id).cloned() else { continue };
            let link = self.links[usize::from(id.0)].take();
            let (dialer, question) = (dialer.clone(), question.clone());
            let ask =
                async move { tokio::time::timeout(ANSWER_DEADLINE, ask(link, &dialer, &member, &question)).await };
            asked.push((*id, tokio::spawn(ask)));
        }
        let mut answers = Vec::new();
        for (id, question) in asked {
            let answer = match question.await {
                Ok(Ok(Ok((link, answer)))) => {
                    self.links[usize::from(id.0)] = Some(link);
                    reachable(answer, id.0)
                }
                _ => None,
            };
            answers.push(answer.unwrap_or_else(|| json!({ "id": id.0, "reachable": false })));
        }
        answers
    }

    /// Has the cluster change its schedule, and waits until f+1 replicas say that it did.
    ///
    /// # Errors
    /// [`ReconfigureError`]; its texts say what to do.
    pub async fn reconfigure(&mut self, change: ScheduleChange) -> Result<Reconfigured, ReconfigureError> {
        let schedule = self.config.cluster.schedule.clone();
        if schedule.parameters().is_none() {
            return Err(ReconfigureError::NoParameters(schedule.name()));
        }
        let recent = self.recent().await?;
        let wanted = named(&change);
        let frame = self.sign(AdminEntry::Reconfigure(change), recent)?;
        let submit = Request::Submit { frame };
        let begin = Instant::now();
        let mut ordered = None;
        loop {
            let answers = self.ask_all(&submit).await;
            if let Some(text) = self.agreed(&answers, |answer| answer["refused"].as_str().map(str::to_owned)) {
                return Err(ReconfigureError::Refused(text.0));
            }
            let place = |answer: &Value| Some((answer["ordered_at"].as_u64()?, answer["parameters"].clone()));
            let settled = |answer: &Value| place(answer).filter(|(at, _)| answer["executed"].as_u64() >= Some(*at));
            if let Some(((height, parameters), replicas)) = self.agreed(&answers, settled) {
                let holds = wanted.iter().all(|(name, value)| parameters[*name] == *value);
                let since = *ordered.get_or_insert_with(Instant::now);
                // Once it is executed, the round that it closes has still to end.
                if holds || since.elapsed() > HOLD_DEADLINE {
                    return Ok(Reconfigured { height, replicas, parameters, holds });
                }
            }
            if begin.elapsed() > ORDER_DEADLINE {
                return Err(ReconfigureError::NotOrdered);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What a replica has written down since it was asked to; it stops writing.
    ///
    /// # Errors
    /// [`RecordingError`] when it does not answer, or with what is no recording.
    pub async fn recording(&mut self, id: ReplicaId) -> Result<Recording, RecordingError> {
        let mut bytes = Vec::new();
        loop {
            let answers = self.ask_some(&[id], &Request::Recording { from: bytes.len() }).await;
            let answer = answers.first().filter(|answer| answer["reachable"] == true);
            let answer = answer.ok_or(RecordingError::Unreachable(id))?;
            let total = answer["bytes"].as_u64().and_then(|total| usize::try_from(total).ok());
            let total = total.filter(|total| *total <= RECORDING_BYTES_MAX).ok_or(RecordingError::Malformed(id))?;
            let piece = answer["piece"].as_str().and_then(from_hex).ok_or(RecordingError::Malformed(id))?;
            let empty = piece.is_empty();
            bytes.extend(piece);
            if bytes.len() == total {
                return decode(&bytes, total).map_err(|_| RecordingError::Malformed(id));
            }
            if empty || bytes.len() > total {
                return Err(RecordingError::Malformed(id));
            }
        }
    }

    /// A decision that a correct replica has heard of: of f+1 replicas at this height or above, one is correct.
    async fn recent(&mut self) -> Result<SequenceNumber, ReconfigureError> {
        let mut heights: Vec<u64> =
            self.ask_all(&Request::Status).await.iter().filter_map(|one| one["height"].as_u64()).collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = self.config.cluster.membership.quorum();
        let needed = quorum.commit().max(quorum.one_correct());
        if heights.len() < needed {
            let members = self.config.cluster.membership.len();
            return Err(ReconfigureError::Unreachable { reachable: heights.len(), members, needed });
        }
        Ok(SequenceNumber(heights[quorum.one_correct() - 1]))
    }

    fn sign(&self, entry: AdminEntry, recent: SequenceNumber) -> Result<String, ReconfigureError> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|error| ReconfigureError::Random(error.to_string()))?;
        let body = FrameBody::Admin { entry, nonce: u64::from_le_bytes(nonce), recent };
        let cluster = self.config.cluster.membership.configuration().cluster;
        let frame = Frame::sign(cluster, self.config.key.signer(), body);
        Ok(to_hex(frame.wire()))
    }

    /// What f+1 answers have in common, and how many have it.
    fn agreed<T: PartialEq>(&self, answers: &[Value], of: impl Fn(&Value) -> Option<T>) -> Option<(T, usize)> {
        let enough = self.config.cluster.membership.quorum().one_correct();
        let said: Vec<T> = answers.iter().filter_map(of).collect();
        let count = |what: &T| said.iter().filter(|other| *other == what).count();
        let most = said.iter().map(count).max().filter(|most| *most >= enough)?;
        let index = said.iter().position(|what| count(what) == most)?;
        said.into_iter().nth(index).map(|what| (what, most))
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let digit = |half: u8| char::from_digit(half.into(), 16).expect("half a byte is a digit");
        text.extend([digit(byte >> 4), digit(byte & 15)]);
        text
    })
}

/// The parameters that a change names, as `status` would show them.
fn named(change: &ScheduleChange) -> Vec<(&'static str, Value)> {
    let changed = Schedule::default().changed(change.clone());
    let shown = changed.parameters().map(schedule::describe).unwrap_or_default();
    let ScheduleChange { primaries, steps, order, flush_rounds, predicate } = change;
    [
        ("n", primaries.is_some()),
        ("steps", steps.is_some()),
        ("order", order.is_some()),
        ("flush_rounds", flush_rounds.is_some()),
        ("predicate", predicate.is_some()),
    ]
    .into_iter()
    .filter(|(_, is_named)| *is_named)
    .map(|(name, _)| (name, shown[name].clone()))
    .collect()
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

/// Asks over the link that is open, or over a new one: the replica may have been started again meanwhile.
async fn ask(
    link: Option<Link>,
    dialer: &Dialer,
    member: &Member,
    question: &[u8],
) -> Result<(Link, Value), LinkError> {
    if let Some(mut link) = link
        && let Ok(answer) = exchange(&mut link, question).await
    {
        return Ok((link, answer));
    }
    let mut link = dialer.dial(&Target::from(member)).await?;
    let answer = exchange(&mut link, question).await?;
    Ok((link, answer))
}

async fn exchange(link: &mut Link, question: &[u8]) -> Result<Value, LinkError> {
    link.write(question).await?;
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
        "calls": json!({ "queued": status.calls_queued, "open": status.calls_open }),
        "register": register,
        "pid": pid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_survive_the_wire_and_strange_ones_are_refused() {
        let tune = Request::Tune(Tuning { workers: Some(2), start_ahead: None });
        for request in [
            Request::Status,
            tune,
            Request::Submit { frame: "00ff".into() },
            Request::Record { events: 7 },
            Request::Recording { from: 7 },
        ] {
            let bytes = serde_json::to_vec(&request).unwrap();
            assert_eq!(serde_json::from_slice::<Request>(&bytes).unwrap(), request);
        }
        for text in ["{}", r#"{"command":"fly"}"#, r#"{"command":"tune","wings":2}"#, r#"{"command":"submit"}"#] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_change_names_is_shown_as_status_shows_it() {
        let change = schedule::change_of(["order=quantum:8", "n=all"]).unwrap();
        assert_eq!(named(&change), [("n", json!("all")), ("order", json!("quantum:8"))]);
    }
}
