//! Joins the pure parts of one replica. See the crate.

use crate::ledger::{KeptRegister, Ledger, Promise};
use crate::log::{CommittedBlock, Group, LogReader, Lost, Recovered, StorageError, Ticket};
use crate::message::encoded;
use bytes::Bytes;
use std::collections::VecDeque;
use unisono_consensus::{Consensus, Provide, Record};
use unisono_execution::Executor;
use unisono_replica::{
    ConnectionId, GrantRecord, HaltReason, Input, Output, PeerMessage, Replica, Settings as ReplicaSettings, Timer,
};
use unisono_types::{CallId, Checkpoint, Done, ReplicaId, Reply, SequenceNumber, Signed, Time, VerifyContext, Work};

/// Bytes of the own log that are replayed at once.
const REPLAY_BYTES: usize = 4 << 20;

/// How handlers get to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drive {
    /// In the executor's own threads, or in line where it has none.
    Run,
    /// One step at a time, when the host says so ([`Node::step`]).
    Step,
}

/// What a node wants of its host.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send to one peer. May be lost.
    Send {
        /// The receiver.
        to: ReplicaId,
        /// An encoded [`PeerMessage`].
        bytes: Bytes,
    },
    /// Send to all peers, likewise. May be lost.
    Broadcast(Bytes),
    /// Send to a client.
    Reply {
        /// The client's.
        connection: ConnectionId,
        /// With the answers that are ready.
        reply: Reply,
    },
    /// (Re)start a timer, or stop it.
    SetTimer {
        /// Fired by [`Input::Timeout`].
        timer: Timer,
        /// Microseconds of the monotonic clock; `None` stops it.
        at: Option<u64>,
    },
    /// Ask somebody outside; answered by [`Input::Outside`].
    Ask {
        /// Named again in the answer.
        call: CallId,
        /// An oracle, or `cluster:NAME`.
        target: String,
        /// For the target to read; bytes of the handler.
        request: Bytes,
    },
    /// Read committed blocks from the log, beside everything else, and send what [`provided`] makes of them.
    Provide(Provide),
    /// The vote register is silent from now on. Say why.
    Silenced(Lost),
    /// This replica is faulty and does nothing any more. Say why.
    Halt(HaltReason),
    /// Evidence of a lie or a fault of a peer, for counters and people.
    Suspect {
        /// The one at fault.
        peer: ReplicaId,
        /// What it did.
        reason: &'static str,
    },
}

/// Sees what passes through a node: counters of the real host, checkers of the simulated one.
pub trait Probe {
    /// Given to execution, in this order.
    fn work(&mut self, work: &Work) {
        let _ = work;
    }
    /// Reported by execution.
    fn done(&mut self, done: &Done) {
        let _ = done;
    }
    /// Written.
    fn record(&mut self, record: &Record) {
        let _ = record;
    }
    /// Signed by this replica.
    fn checkpoint(&mut self, own: &Signed<Checkpoint>) {
        let _ = own;
    }
}

/// A replica: agreement `A` in its spine, its vote register `R`, its executor. Inputs in, effects out.
pub struct Node<A: Consensus, R, P> {
    id: ReplicaId,
    replica: Replica<A>,
    executor: Executor,
    ledger: Ledger<R>,
    probe: P,
    drive: Drive,
    inputs: Vec<Input<A::Message>>,
    outputs: Vec<Output<A::Message>>,
    done: Vec<Done>,
    executed: SequenceNumber,
    /// Replies to what is not durable yet, with what they wait for.
    held: VecDeque<(Ticket, ConnectionId, Reply)>,
    halted: bool,
}

impl<A: Consensus, R, P> std::fmt::Debug for Node<A, R, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Hosts report how much of a large message is here so often at most, in microseconds.
pub const PROGRESS_PAUSE: u64 = 50_000;

/// Bytes of a large message to report as arriving when `received` are here: a line of 8 MB/s brings no more than the rest of
/// this until the next report.
#[must_use]
pub const fn arriving_bytes(received: usize, total: usize) -> usize {
    const NEXT: usize = 512 << 10;
    if total.saturating_sub(received) < NEXT { total } else { received + NEXT }
}

impl<A: Consensus, R: KeptRegister, P: Probe> Node<A, R, P> {
    /// A node that has not followed its log yet ([`Node::replay`]).
    #[must_use]
    pub fn new(
        settings: ReplicaSettings,
        consensus: A,
        register: (R, Option<Lost>),
        executor: Executor,
        drive: Drive,
        probe: P,
    ) -> Self {
        Self {
            id: settings.id,
            replica: Replica::new(settings, consensus),
            executor,
            ledger: Ledger::new(register.0, register.1),
            probe,
            drive,
            inputs: Vec::new(),
            outputs: Vec::new(),
            done: Vec::new(),
            executed: SequenceNumber(0),
            held: VecDeque::new(),
            halted: false,
        }
    }

    /// Executes the own log again, from its beginning to its last committed block.
    ///
    /// # Errors
    /// [`StorageError`], also when the log holds something else than it said.
    pub fn replay(
        &mut self,
        now: Time,
        recovered: &Recovered,
        reader: &LogReader,
        context: &VerifyContext,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let last = recovered.committed.as_ref().map_or(SequenceNumber(0), |block| block.sequence);
        let mut next = SequenceNumber(1);
        while next <= last {
            let blocks = reader.committed(next, REPLAY_BYTES)?;
            if blocks.is_empty() {
                return Err(StorageError::Unreadable(next.0));
            }
            for block in blocks {
                let decision = A::decision(&block.bytes, context);
                let decision = decision.map_err(|_| StorageError::Unreadable(block.sequence.0))?;
                next = block.sequence.next();
                self.replica.replay(&decision, &mut self.outputs);
                self.take_outputs(effects);
            }
            if self.drive == Drive::Run && self.executor.workers() > 0 {
                self.executor.wait_idle();
            }
            self.turn(now, effects);
        }
        Ok(())
    }

    /// Something happened. It is looked at in the next [`Node::turn`].
    pub fn push(&mut self, input: Input<A::Message>) {
        self.inputs.push(input);
    }

    /// Everything up to this ticket is durable.
    pub fn durable(&mut self, ticket: Ticket, effects: &mut Vec<Effect>) {
        let promises = self.ledger.durable(ticket);
        self.inputs.extend(promises.into_iter().map(|promise| match promise {
            Promise::Persisted(id) => Input::Persisted(id),
            Promise::Answered(answer) => Input::Answered(answer),
        }));
        while let Some((_, connection, reply)) = self.held.pop_front_if(|(waits, ..)| *waits <= ticket) {
            effects.push(Effect::Reply { connection, reply });
        }
    }

    /// Takes everything that was pushed, and what execution makes of it, until nothing is left.
    pub fn turn(&mut self, now: Time, effects: &mut Vec<Effect>) {
        loop {
            if !self.inputs.is_empty() && !self.halted {
                let mut inputs = std::mem::take(&mut self.inputs);
                self.replica.handle_all(now, inputs.drain(..), &mut self.outputs);
                self.take_outputs(effects);
                // Questions may have been answered at once.
                inputs.append(&mut self.inputs);
                self.inputs = inputs;
            }
            if self.halted {
                self.inputs.clear();
                break;
            }
            if self.drive == Drive::Run && self.executor.workers() == 0 {
                self.executor.run_until_idle();
            }
            self.collect();
            if self.inputs.is_empty() {
                break;
            }
        }
    }

    /// Lets one of the handlers that can go on take its next step.
    pub fn step(&mut self, pick: u64) {
        let runnable = self.executor.runnable();
        if runnable > 0 {
            self.executor.step((pick % runnable as u64) as usize);
        }
    }

    /// What was gathered for the log.
    pub fn group(&mut self) -> Option<Group> {
        self.ledger.group()
    }

    /// Whether something gathered for the log is waited for.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        self.ledger.is_urgent()
    }

    /// What execution has to report.
    fn collect(&mut self) {
        self.executor.take_done(&mut self.done);
        self.done.iter().for_each(|done| self.probe.done(done));
        self.inputs.extend(self.done.drain(..).map(Input::Done));
        let executed = self.executor.executed();
        if executed > self.executed {
            self.executed = executed;
            self.inputs.push(Input::Executed(executed));
        }
    }

    fn take_outputs(&mut self, effects: &mut Vec<Effect>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.drain(..).for_each(|output| self.output(output, effects));
        self.outputs = outputs;
    }

    fn output(&mut self, output: Output<A::Message>, effects: &mut Vec<Effect>) {
        match output {
            Output::Send { to, message } => effects.push(Effect::Send { to, bytes: encoded(&message) }),
            Output::Broadcast(message) => {
                if let PeerMessage::Checkpoint(signed) = &message
                    && signed.replica == self.id
                {
                    self.probe.checkpoint(signed);
                }
                effects.push(Effect::Broadcast(encoded(&message)));
            }
            Output::Reply { connection, reply } => match self.ledger.reply_waits_for(self.replica.height()) {
                Some(ticket) => self.held.push_back((ticket, connection, reply)),
                None => effects.push(Effect::Reply { connection, reply }),
            },
            Output::Persist { id, record } => {
                self.probe.record(&record);
                self.ledger.persist(id, record);
            }
            Output::Certify { view, step, hash } => self.ledger.certify(view, step, hash),
            Output::Advance { view } => self.ledger.advance(view),
            Output::Attest { nonce } => self.ledger.attest(nonce),
            Output::SetTimer { timer, at } => effects.push(Effect::SetTimer { timer, at }),
            Output::Execute(work) => {
                self.probe.work(&work);
                self.executor.submit(work);
            }
            Output::Ask { call, target, request } => effects.push(Effect::Ask { call, target, request }),
            Output::Provide(provide) => effects.push(Effect::Provide(provide)),
            Output::QueryLeaves { query, after, limit } => {
                // Everything reported done before goes in before the answer.
                self.collect();
                let leaves = self.executor.leaves(after.as_deref(), limit);
                self.inputs.push(Input::Leaves { query, leaves });
            }
            Output::QueryGrants { query, from, limit } => {
                let grants = self.executor.grants(from, limit).into_iter().map(grant_record).collect();
                self.inputs.push(Input::Grants { query, grants });
            }
            Output::Silence if self.ledger.lost().is_some() => {} // told before
            Output::Silence => {
                self.ledger.silence(Lost::Witnessed);
                effects.push(Effect::Silenced(Lost::Witnessed));
            }
            Output::Halt(reason) => {
                self.halt();
                effects.push(Effect::Halt(reason));
            }
            Output::Suspect { peer, reason } => effects.push(Effect::Suspect { peer, reason }),
        }
    }

    /// The spine.
    #[must_use]
    pub const fn replica(&self) -> &Replica<A> {
        &self.replica
    }

    /// The executor.
    #[must_use]
    pub const fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The register and what waits for the disk.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger<R> {
        &self.ledger
    }

    /// The last decision of which the executor has reported every request.
    #[must_use]
    pub const fn executed(&self) -> SequenceNumber {
        self.executed
    }

    /// From now on it does nothing any more.
    pub fn halt(&mut self) {
        self.halted = true;
        self.held.clear();
    }

    /// Whether it does nothing any more.
    #[must_use]
    pub const fn is_halted(&self) -> bool {
        self.halted
    }

    /// What watches it.
    pub const fn probe_mut(&mut self) -> &mut P {
        &mut self.probe
    }
}

/// The message that carries committed blocks of the log to a peer that is far behind, by a replica that is at `committed`.
#[must_use]
pub fn provided<A: Consensus>(committed: SequenceNumber, blocks: Vec<CommittedBlock>) -> Option<Bytes> {
    let proof = blocks.last()?.proof.clone();
    let blocks = blocks.into_iter().map(|block| block.bytes).collect();
    Some(encoded(&PeerMessage::Consensus(A::provide(committed, blocks, proof))))
}

/// A grant as `execution` names it, for `replica`, which does not know that.
fn grant_record(grant: unisono_execution::GrantRecord) -> GrantRecord {
    let unisono_execution::GrantRecord { number, round, position, path, lock, write, writers_before } = grant;
    GrantRecord { number, round, position, path, lock, write, writers_before }
}
