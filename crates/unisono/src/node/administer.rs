//! The administrator's links, and the node's answers.

use super::core::{Node, Notice};
use crate::admin::{self, RECORDING_PIECE_BYTES, Request, to_hex};
use crate::config::from_hex;
use crate::schedule;
use crate::transport::{Accepted, Link, LinkError, Role};
use crate::tuning::Tuning;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};
use unisono_consensus::Consensus as _;
use unisono_replica::Input;
use unisono_types::{Frame, FrameBody, Rejected, Unverified, Verified, encode};

/// What becomes of an accepted connection.
pub(super) async fn admit(result: Result<Accepted, LinkError>, notify: mpsc::UnboundedSender<Notice>) {
    match result {
        Ok(Accepted { role: Role::Admin, link }) => serve(link, &notify).await,
        Ok(accepted) => drop(notify.send(Notice::Accepted(accepted))),
        Err(error) => {
            metrics::counter!("unisono_links_refused_total", "reason" => error.label()).increment(1);
            tracing::debug!("refused a connection: {error}");
        }
    }
}

async fn serve(mut link: Link, notify: &mpsc::UnboundedSender<Notice>) {
    while let Ok(bytes) = link.read().await {
        let Ok(request) = serde_json::from_slice(&bytes) else {
            metrics::counter!("unisono_rejected_total", "kind" => "admin", "reason" => "malformed").increment(1);
            return;
        };
        let (answer, answered) = oneshot::channel();
        if notify.send(Notice::Admin(request, answer)).is_err() {
            return;
        }
        let Ok(answer) = answered.await else { return };
        let bytes = serde_json::to_vec(&answer).expect("a JSON value has a JSON form");
        if link.write(&bytes).await.is_err() {
            return;
        }
    }
}

impl Node {
    /// Does what the administrator asks, and answers.
    pub(super) fn administer(&mut self, request: Request) -> Value {
        let mut answer = match request {
            Request::Status => self.describe(),
            Request::Tune(tuning) => self.tune(tuning),
            Request::Submit { frame } => match self.admin_frame(&frame) {
                Ok(frame) => self.submit(frame),
                Err(reason) => json!({ "refused": reason.to_string() }),
            },
            Request::Record { events } => {
                self.ring.executor().record(events);
                self.recorded = Bytes::new();
                json!({ "recording": events })
            }
            Request::Recording { from } => self.recorded_piece(from),
        };
        answer["id"] = self.config.id.0.into();
        answer
    }

    fn describe(&self) -> Value {
        let mut answer = admin::describe(&self.ring.replica().status(), self.describe_register(), std::process::id());
        answer["schedule"] = self.config.cluster.schedule.name().into();
        answer["parameters"] = self.parameters();
        answer["halted"] = self.halt_text.clone().map_or(Value::Null, Value::String);
        let consensus = self.ring.replica().consensus().status();
        answer["clock_skew_seconds"] = (consensus.clock_skew_micros as f64 / 1e6).into();
        answer["complaints"] = consensus.complaints.by_reason().into_iter().collect();
        let unisono_scheduler::Status { threads, parked, .. } = self.ring.executor().status();
        answer["threads"] = threads.into();
        answer["parked"] = parked.into();
        answer["workers"] = self.ring.executor().workers().into();
        answer["start_ahead"] = self.ring.executor().start_ahead().into();
        answer
    }

    fn describe_register(&self) -> Value {
        let ledger = self.ring.ledger();
        let mut register =
            json!({ "backend": "in-process", "incarnation": ledger.register().id().incarnation.0, "mode": "durable" });
        if let Some(lost) = ledger.lost() {
            register["mode"] = "lost".into();
            register["lost"] = lost.to_string().into();
        }
        register
    }

    fn parameters(&self) -> Value {
        self.ring.executor().parameters().as_ref().map_or(Value::Null, schedule::describe)
    }

    /// Local parameters, until the process ends. Waits for threads that are too many, each until its handler waits.
    fn tune(&self, tuning: Tuning) -> Value {
        let Tuning { workers, start_ahead } = match tuning.check() {
            Ok(tuning) => tuning,
            Err(reason) => return json!({ "refused": reason.to_string() }),
        };
        if let Some(workers) = workers {
            let workers = self.ring.executor().set_workers(workers);
            self.threaded.store(workers > 0, Ordering::Release);
        }
        if let Some(start_ahead) = start_ahead {
            self.ring.executor().set_start_ahead(start_ahead);
        }
        json!({ "workers": self.ring.executor().workers(), "start_ahead": self.ring.executor().start_ahead() })
    }

    /// The first piece ends the recording, and the last one its memory.
    fn recorded_piece(&mut self, from: usize) -> Value {
        if from == 0 {
            self.recorded = encode(&self.ring.executor().recording()).into();
            self.ring.executor().record(0);
        }
        let bytes = self.recorded.len();
        let end = bytes.min(from.saturating_add(RECORDING_PIECE_BYTES));
        let piece = self.recorded.get(from..end).map(to_hex).unwrap_or_default();
        if end == bytes {
            self.recorded = Bytes::new();
        }
        json!({ "bytes": bytes, "piece": piece })
    }

    fn admin_frame(&self, hex: &str) -> Result<Verified<Frame>, Rejected> {
        let bytes = from_hex(hex).ok_or(Rejected::Malformed)?;
        let limit = self.context.membership.configuration().limits.frame_bytes as usize;
        let frame = Frame::parse(self.context.cluster, bytes.into(), limit)?;
        Unverified::new(frame).verify(&self.context)
    }

    fn submit(&mut self, frame: Verified<Frame>) -> Value {
        let FrameBody::Admin { nonce, .. } = frame.body() else {
            return json!({ "refused": Rejected::WrongSender.to_string() });
        };
        let ordered_at = self.ring.replica().administered_at(*nonce);
        if ordered_at.is_none() {
            self.ring.push(Input::Admin(frame));
        }
        json!({
            "ordered_at": ordered_at.map(|sequence| sequence.0),
            "executed": self.ring.replica().status().executed.0,
            "parameters": self.parameters(),
        })
    }
}
