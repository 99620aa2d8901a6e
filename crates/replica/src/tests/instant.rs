//! The plainest total order: replica 0 decides each frame at once and tells the others. No faults, no view.

use super::world::Order;
use crate::testing::context;
use alloc::vec::Vec;
use std::collections::BTreeMap;
use unisono_consensus::{Complaints, Consensus, Decision, Input, Output, PersistId, Record, Status, TimerId};
use unisono_trusted::Register;
use unisono_types::{
    Bytes, Digest, Frame, Membership, Message, RegisterView, Rejected, ReplicaId, SequenceNumber, Time, Timestamp,
    Verify, VerifyContext, decode, encode,
};

const LEADER: ReplicaId = ReplicaId(0);
const TIMER: TimerId = TimerId(0);
const ASK_MICROSECONDS: u64 = 20_000;
const FRESH_MICROSECONDS: u64 = 50_000;
const BYTES_MAX: usize = 1 << 26;

#[derive(Clone, Debug)]
pub(super) struct Instant {
    id: ReplicaId,
    decided: BTreeMap<SequenceNumber, Decision>,
    next: SequenceNumber,
    /// What the replica told about checkpoints and execution.
    pub(super) stable: Vec<SequenceNumber>,
    pub(super) executed: SequenceNumber,
    last: Timestamp,
    /// Frames decided just now: a frame that comes from several replicas at once is ordered once.
    fresh: BTreeMap<Digest, u64>,
}

#[derive(Clone, Debug)]
pub(super) enum Said {
    Submit(Frame),
    Decided(Decision),
    Want(SequenceNumber),
}

impl Instant {
    fn new(id: ReplicaId, log: &[Decision]) -> Self {
        let decided: BTreeMap<_, _> = log.iter().map(|decision| (decision.sequence, decision.clone())).collect();
        Self {
            id,
            next: SequenceNumber(log.len() as u64 + 1),
            decided,
            stable: Vec::new(),
            executed: SequenceNumber(0),
            fresh: BTreeMap::new(),
            last: log.last().map_or(Timestamp(0), |decision| decision.timestamp),
        }
    }

    fn submit(&mut self, now: Time, frame: Frame, out: &mut Vec<Output<Said>>) {
        if self.id != LEADER {
            return out.push(Output::Send { to: LEADER, message: Said::Submit(frame) });
        }
        self.fresh.retain(|_, decided| *decided + FRESH_MICROSECONDS > now.monotonic);
        if self.fresh.insert(frame.id(), now.monotonic).is_some() {
            return;
        }
        self.last = self.last.max(now.timestamp());
        let hash = name_of(self.next);
        let decision = Decision { sequence: self.next, hash, timestamp: self.last, frames: vec![frame] };
        self.decided.insert(self.next, decision.clone());
        out.push(Output::Broadcast(Said::Decided(decision)));
        self.decide(out);
    }

    fn decide(&mut self, out: &mut Vec<Output<Said>>) {
        while let Some(decision) = self.decided.get(&self.next) {
            let mut bytes = Vec::new();
            Said::Decided(decision.clone()).encode(&mut bytes);
            let Decision { sequence, hash, .. } = *decision;
            let proof = Bytes::new();
            let block = Record::Block { sequence, hash, bytes: bytes.into() };
            let commit = Record::Commit { sequence, hash, proof };
            out.extend([block, commit].map(|record| Output::Persist { id: PersistId(sequence.0), record }));
            out.push(Output::Decide(decision.clone()));
            self.next = self.next.next();
        }
    }
}

impl Consensus for Instant {
    type Message = Said;

    fn handle(&mut self, now: Time, input: Input<Said>, out: &mut Vec<Output<Said>>) {
        match input {
            Input::Submit(frame) | Input::Admitted(frame) => self.submit(now, frame.into_inner(), out),
            Input::Message { from, message } => match message.into_inner() {
                Said::Submit(frame) if self.id == LEADER => self.submit(now, frame, out),
                Said::Submit(_) => {}
                Said::Decided(decision) => {
                    self.decided.entry(decision.sequence).or_insert(decision);
                    self.decide(out);
                }
                Said::Want(from_sequence) => {
                    let missing = self.decided.range(from_sequence..).take(50);
                    out.extend(
                        missing
                            .map(|(_, decision)| Output::Send { to: from, message: Said::Decided(decision.clone()) }),
                    );
                }
            },
            Input::Start | Input::Timeout(_) if self.id != LEADER => {
                out.push(Output::Send { to: LEADER, message: Said::Want(self.next) });
                out.push(Output::SetTimer { timer: TIMER, at: Some(now.monotonic + ASK_MICROSECONDS) });
            }
            Input::Executed(sequence) => {
                assert!(sequence > self.executed, "told once, growing");
                self.executed = sequence;
            }
            Input::Stable(stable) => self.stable.push(stable.checkpoint.sequence),
            _ => {}
        }
    }

    fn provide(_: SequenceNumber, _: Vec<Bytes>, _: Bytes) -> Said {
        panic!("this order asks for nobody's log")
    }

    fn decision(bytes: &Bytes, context: &VerifyContext) -> Result<Decision, Rejected> {
        match Said::parse(bytes.clone(), context)? {
            Said::Decided(decision) => Ok(decision),
            Said::Submit(_) | Said::Want(_) => Err(Rejected::Malformed),
        }
    }

    fn status(&self) -> Status {
        let committed = self.next.previous().unwrap_or_default();
        Status {
            view: RegisterView::default(),
            leader: LEADER,
            committed,
            pending: 0,
            clock_skew_micros: 0,
            clock_waits: 0,
            complaints: Complaints::default(),
        }
    }
}

type Wire = (u8, SequenceNumber, Digest, Timestamp, Vec<Bytes>);

impl Verify for Said {
    fn verify(&self, context: &VerifyContext) -> Result<(), Rejected> {
        match self {
            Self::Submit(frame) => frame.verify(context),
            Self::Decided(decision) => decision.frames.iter().try_for_each(|frame| frame.verify(context)),
            Self::Want(_) => Ok(()),
        }
    }
}

impl Message for Said {
    fn encode(&self, out: &mut Vec<u8>) {
        let wire: Wire = match self {
            Self::Submit(frame) => (0, SequenceNumber(0), Digest::ZERO, Timestamp(0), vec![frame.wire().clone()]),
            Self::Decided(decision) => {
                let frames = decision.frames.iter().map(|frame| frame.wire().clone()).collect();
                (1, decision.sequence, decision.hash, decision.timestamp, frames)
            }
            Self::Want(sequence) => (2, *sequence, Digest::ZERO, Timestamp(0), Vec::new()),
        };
        out.extend(encode(&wire));
    }

    fn parse(bytes: Bytes, context: &VerifyContext) -> Result<Self, Rejected> {
        let (kind, sequence, hash, timestamp, frames): Wire =
            decode(&bytes, BYTES_MAX).map_err(|_| Rejected::Malformed)?;
        let frames: Result<Vec<Frame>, Rejected> =
            frames.into_iter().map(|wire| Frame::parse(context.cluster, wire, BYTES_MAX)).collect();
        let mut frames = frames?;
        Ok(match kind {
            0 => Self::Submit(frames.pop().ok_or(Rejected::Malformed)?),
            1 => Self::Decided(Decision { sequence, hash, timestamp, frames }),
            _ => Self::Want(sequence),
        })
    }
}

impl Order for Instant {
    fn create(
        id: ReplicaId,
        membership: &Membership,
        committed: &BTreeMap<SequenceNumber, Bytes>,
        _: &[Record],
        _: &Register,
    ) -> Self {
        let context = context(membership);
        let log: Vec<Decision> = committed.values().map(|bytes| Self::decision(bytes, &context).unwrap()).collect();
        Self::new(id, &log)
    }

    fn parent(bytes: &Bytes, context: &VerifyContext) -> Digest {
        let decision = Self::decision(bytes, context).unwrap();
        decision.sequence.previous().map_or(Digest::ZERO, name_of)
    }
}

/// Blocks are named by their place: nobody forks here.
fn name_of(sequence: SequenceNumber) -> Digest {
    Digest::of("instant", &[&sequence.0.to_le_bytes()])
}
