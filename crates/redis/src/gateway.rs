//! The gateway's side of one application's connection: requests in, operations to the cluster, replies out.
//!
//! ```text
//!   input ──> requests ──> answered here (PING, HELLO, CLIENT ...)  ────────────────┐
//!                |                                                                  v
//!                |──> batch: all that is complete in the input ──> operation ──> replies, in order
//!                |──> MULTI ... queue ... EXEC ──────────────────> operation ──/
//!                |──> WATCH ─────────────────────────────────────> versions, kept
//!                └──> BLPOP, BRPOP: alone, they may take long ───> operation
//! ```
//! Invariants:
//! * One operation of a connection is outstanding at a time; what comes meanwhile stays in the input. So replies are in
//!   the order of the requests, and a burst of requests is one operation.
//! * An answer known here that belongs behind commands of the batch travels with the batch, as a literal.
//! * Memory is bounded: by the decoder's limits, by [`BATCH_BYTES`], by the size of an operation for a transaction and
//!   for what is watched; and after [`LOCAL_REPLY_BYTES`] of answers of its own the connection waits for the cluster
//!   once.

use crate::command::{Command, Place};
use crate::local::{self, Registry, Session};
use crate::operation::{self, Encoder, Token};
use crate::resp::{Decoder, Incoming, Limits, Reply, Request, Version};
use crate::shard::Changes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use unisono::gateway::{Action, Bytes, BytesMut, InvokeError, Outcome, Protocol};

/// A batch is sent when it has so many bytes, though more commands may be complete.
const BATCH_BYTES: usize = 256 << 10;
/// A batch is sent when it has so many commands.
const BATCH_COMMANDS: usize = 1_024;
/// Answers of the gateway's own before it waits for the cluster once, and so for the application to read them.
const LOCAL_REPLY_BYTES: usize = 1 << 20;
/// What an operation has beside its commands, at most.
const OPERATION_FRAME_BYTES: usize = 64 << 10;
/// What each argument costs beside its bytes, at most: its length in the operation, its place in memory.
const ARGUMENT_FRAME_BYTES: usize = 16;
/// What each watched key costs beside its bytes, at most.
const WATCHED_FRAME_BYTES: usize = 64;
/// Bytes of the keys that one connection watches.
const WATCHED_BYTES_MAX: usize = 1 << 20;

/// The protocol of Redis, for the gateway's host.
pub struct Gateway {
    settings: Settings,
    nonce: [u8; 8],
    next_connection: AtomicU64,
    /// Blocked pops of all connections, numbered.
    next_block: Arc<AtomicU64>,
    registry: Arc<Registry>,
}

/// What a gateway is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Bytes of one operation, the cluster's limit.
    pub operation_bytes: usize,
    /// Bytes of one value.
    pub value_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { operation_bytes: 17 << 20, value_bytes: crate::failure::VALUE_BYTES_MAX }
    }
}

impl Settings {
    /// Bytes of the commands in one operation.
    fn commands_bytes(self) -> usize {
        self.operation_bytes.saturating_sub(OPERATION_FRAME_BYTES)
    }

    fn limits(self) -> Limits {
        // an argument's frame is shorter in an operation than in a request, so what came in fits
        let request = self.commands_bytes();
        Limits { argument: self.value_bytes.min(request), request }
    }
}

impl Gateway {
    /// A gateway's protocol. `nonce` makes the names of its blocked pops differ from those of other gateways and of
    /// its own earlier lives: eight random bytes.
    #[must_use]
    pub fn new(settings: Settings, nonce: [u8; 8]) -> Self {
        Self {
            settings,
            nonce,
            next_connection: AtomicU64::new(1),
            next_block: Arc::default(),
            registry: Arc::default(),
        }
    }
}

impl Protocol for Gateway {
    type Connection = Connection;

    fn connect(&self) -> Connection {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let session = Session::new(id, self.settings.value_bytes);
        self.registry.update(&session);
        Connection {
            decoder: Decoder::new(self.settings.limits()),
            settings: self.settings,
            nonce: self.nonce,
            next_block: Arc::clone(&self.next_block),
            registry: Arc::clone(&self.registry),
            session,
            transaction: None,
            watched: Watched::default(),
            deferred: None,
            outstanding: None,
            next_ticket: 0,
            closing: false,
        }
    }
}

/// One application's connection.
pub struct Connection {
    decoder: Decoder,
    settings: Settings,
    nonce: [u8; 8],
    next_block: Arc<AtomicU64>,
    registry: Arc<Registry>,
    session: Session,
    transaction: Option<Transaction>,
    watched: Watched,
    /// Taken from the input, but it comes behind what is outstanding.
    deferred: Option<(Command, Request)>,
    /// Invariant: while something is outstanding, no request is taken from the input.
    outstanding: Option<(u64, Outstanding)>,
    next_ticket: u64,
    /// The connection ends behind what was written, and behind what is outstanding.
    closing: bool,
}

/// Commands between MULTI and EXEC.
#[derive(Default)]
struct Transaction {
    queued: Vec<(Command, Request)>,
    bytes: usize,
    /// A command was refused when it was queued: EXEC will refuse all.
    spoiled: bool,
}

/// Keys that are watched, with the versions they had at first.
#[derive(Default)]
struct Watched {
    keys: BTreeMap<Vec<u8>, Changes>,
    bytes: usize,
}

/// What the answer of the cluster is for.
enum Outstanding {
    /// So many commands; kept to send again what a long reply leaves over.
    Batch { commands: usize, operation: Bytes },
    /// The versions of these keys.
    Watch(Vec<Vec<u8>>),
    /// One reply; the session as it was before, if it is not to be.
    Transaction(Session),
    /// One reply, which may take long.
    Block(Token),
    /// Nothing: the connection wanted to wait.
    Pause,
}

/// What a command came to at the gateway.
enum Carried {
    /// Its reply.
    Known(Vec<u8>),
    /// The cluster runs it.
    Ask,
    /// The cluster runs it with this argument.
    AskWith(String),
}

/// What one pass over the input came to: replies known at once, then a batch.
struct Burst {
    replies: Vec<u8>,
    batch: Encoder,
}

impl Burst {
    fn new() -> Self {
        Self { replies: Vec::new(), batch: Encoder::batch() }
    }

    /// A reply that is known: now, or in its place among the others.
    fn reply(&mut self, reply: &[u8]) {
        if self.batch.is_empty() { self.replies.extend_from_slice(reply) } else { self.batch.literal(reply) }
    }

    fn ok(&mut self) {
        self.reply(b"+OK\r\n");
    }

    fn error(&mut self, text: &str) {
        self.reply(&Reply::of(Version::Two, |reply| reply.error(text)));
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_BYTES
            || self.batch.commands() >= BATCH_COMMANDS
            || self.replies.len() >= LOCAL_REPLY_BYTES
    }
}

impl unisono::gateway::Connection for Connection {
    fn receive(&mut self, input: &mut BytesMut, actions: &mut Vec<Action>) {
        let mut burst = Burst::new();
        while self.outstanding.is_none() && self.deferred.is_none() && !self.closing && !burst.is_full() {
            match self.decoder.next(input) {
                Ok(None) => break,
                Ok(Some(Incoming::Request(request))) => self.request(request, &mut burst, actions),
                Ok(Some(Incoming::TooLarge { bytes, limit })) => {
                    let text =
                        format!("ERR a value or command of {bytes} bytes exceeds the cluster's limit of {limit}");
                    self.refuse(text.as_bytes(), &mut burst);
                }
                Err(error) => {
                    self.refuse(error.to_string().as_bytes(), &mut burst);
                    self.closing = true;
                }
            }
        }
        self.flush(burst, actions);
    }

    fn answer(&mut self, ticket: u64, outcome: Result<Outcome, InvokeError>, actions: &mut Vec<Action>) {
        let Some((_, outstanding)) = self.outstanding.take_if(|(expected, _)| *expected == ticket) else { return };
        match outcome {
            Ok(Ok(result)) => self.succeeded(outstanding, &result, actions),
            Ok(Err(fault)) => self.failed(outstanding, &format!("ERR {fault}"), actions),
            Err(error) => self.failed(outstanding, &format!("ERR {error}"), actions),
        }
        if self.outstanding.is_none() {
            let mut burst = Burst::new();
            if let Some((command, request)) = self.deferred.take() {
                self.perform(command, request, &mut burst, actions);
            }
            self.flush(burst, actions);
        }
    }

    fn disconnected(&mut self, actions: &mut Vec<Action>) {
        self.registry.remove(self.session.id);
        self.deferred = None;
        self.closing = true;
        if let Some((_, Outstanding::Block(token))) = self.outstanding.take() {
            actions.push(Action::Invoke { ticket: self.next_ticket, operation: Encoder::cancel(token) });
            self.next_ticket += 1;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.registry.remove(self.session.id);
    }
}

impl Connection {
    /// Sends what a burst came to.
    fn flush(&mut self, burst: Burst, actions: &mut Vec<Action>) {
        let much = burst.replies.len() >= LOCAL_REPLY_BYTES;
        if !burst.replies.is_empty() {
            actions.push(Action::Write(burst.replies.into()));
        }
        if !burst.batch.is_empty() {
            let commands = burst.batch.commands();
            let operation = burst.batch.finish();
            self.invoke(operation.clone(), Outstanding::Batch { commands, operation }, actions);
        } else if self.outstanding.is_none() && self.closing {
            actions.push(Action::Close);
        } else if self.outstanding.is_none() && much {
            // more may be complete in the input; it is looked at again after this answer
            self.invoke(Encoder::batch().finish(), Outstanding::Pause, actions);
        }
    }

    fn invoke(&mut self, operation: Bytes, outstanding: Outstanding, actions: &mut Vec<Action>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.outstanding = Some((ticket, outstanding));
        actions.push(Action::Invoke { ticket, operation });
    }

    /// A request that cannot be carried out; a transaction with one fails whole.
    fn refuse(&mut self, text: &[u8], burst: &mut Burst) {
        if let Some(transaction) = &mut self.transaction {
            transaction.spoiled = true;
        }
        burst.reply(&Reply::of(Version::Two, |reply| reply.error(text)));
    }

    fn request(&mut self, request: Request, burst: &mut Burst, actions: &mut Vec<Action>) {
        match local::check(&request) {
            Err(refusal) => self.refuse(&refusal, burst),
            Ok(command) => self.perform(command, request, burst, actions),
        }
    }

    fn perform(&mut self, command: Command, request: Request, burst: &mut Burst, actions: &mut Vec<Action>) {
        let acts_at_once =
            matches!(command, Command::Exec | Command::Discard | Command::Multi | Command::Watch | Command::Quit);
        if self.transaction.is_some() && !acts_at_once {
            return self.queue(command, request, burst);
        }
        let alone = command.blocks() || matches!(command, Command::Watch | Command::Exec);
        let fits = burst.batch.len() + room(&request) <= self.settings.commands_bytes();
        if !burst.batch.is_empty() && (alone || !fits) {
            self.deferred = Some((command, request)); // the batch goes first
            return;
        }
        match command {
            Command::Multi => self.multi(burst),
            Command::Discard => self.discard(burst),
            Command::Unwatch => {
                self.watched = Watched::default();
                burst.ok();
            }
            Command::Watch => self.watch(&request, burst, actions),
            Command::Exec => self.execute(burst, actions),
            _ if command.blocks() => self.block(command, &request, actions),
            _ => match self.carry_out(command, &request) {
                Carried::Known(reply) => burst.reply(&reply),
                Carried::Ask => burst.batch.command(command, &request, self.session.version),
                Carried::AskWith(text) => burst.batch.command_with(command, text.as_bytes(), self.session.version),
            },
        }
    }

    /// Runs what is the gateway's own, and says what the cluster is to be asked.
    fn carry_out(&mut self, command: Command, request: &Request) -> Carried {
        match command.facts().place {
            Place::Service if command == Command::Info => {
                let info = local::info(&self.registry, request);
                let version = self.session.version;
                if info.keyspace {
                    Carried::AskWith(info.text)
                } else {
                    Carried::Known(Reply::of(version, |reply| reply.verbatim(&info.text)))
                }
            }
            Place::Service => Carried::Ask,
            Place::Gateway | Place::Transaction => {
                self.closing |= command == Command::Quit;
                let reply = local::run(&mut self.session, &self.registry, command, request);
                self.registry.update(&self.session);
                Carried::Known(reply)
            }
        }
    }

    fn queue(&mut self, command: Command, request: Request, burst: &mut Burst) {
        let Some(transaction) = &mut self.transaction else { return };
        let bytes = transaction.bytes + room(&request);
        if bytes > self.settings.commands_bytes() {
            let limit = self.settings.commands_bytes();
            return self
                .refuse(format!("ERR the transaction exceeds the cluster's limit of {limit} bytes").as_bytes(), burst);
        }
        transaction.bytes = bytes;
        // a copy of its own, so that a short command does not keep a long buffer
        transaction.queued.push((command, Request::from_arguments(request.arguments())));
        burst.reply(b"+QUEUED\r\n");
    }

    fn multi(&mut self, burst: &mut Burst) {
        if self.transaction.is_some() {
            return burst.error("ERR MULTI calls can not be nested");
        }
        self.transaction = Some(Transaction::default());
        burst.ok();
    }

    fn discard(&mut self, burst: &mut Burst) {
        if self.transaction.take().is_none() {
            return burst.error("ERR DISCARD without MULTI");
        }
        self.watched = Watched::default();
        burst.ok();
    }

    fn watch(&mut self, request: &Request, burst: &mut Burst, actions: &mut Vec<Action>) {
        if self.transaction.is_some() {
            return burst.error("ERR WATCH inside MULTI is not allowed");
        }
        let keys: Vec<_> = request.arguments().skip(1).map(<[u8]>::to_vec).collect();
        let bytes: usize = keys.iter().map(|key| key.len() + WATCHED_FRAME_BYTES).sum();
        if self.watched.bytes + bytes > WATCHED_BYTES_MAX {
            return burst.error("ERR too many keys are watched at once");
        }
        self.watched.bytes += bytes;
        let operation = Encoder::watch(keys.iter().map(Vec::as_slice));
        self.invoke(operation, Outstanding::Watch(keys), actions);
    }

    fn execute(&mut self, burst: &mut Burst, actions: &mut Vec<Action>) {
        let Some(transaction) = self.transaction.take() else { return burst.error("ERR EXEC without MULTI") };
        let watched = std::mem::take(&mut self.watched).keys;
        if transaction.spoiled {
            return burst.error("EXECABORT Transaction discarded because of previous errors.");
        }
        if transaction.queued.is_empty() && watched.is_empty() {
            return burst.reply(b"*0\r\n");
        }
        let before = self.session.clone();
        let seen = watched.iter().map(|(key, version)| (key.as_slice(), version.0));
        let mut encoder = Encoder::transaction(before.version, seen);
        for (command, request) in transaction.queued {
            match self.carry_out(command, &request) {
                Carried::Known(reply) => encoder.literal(&reply),
                Carried::Ask => encoder.command(command, &request, self.session.version),
                Carried::AskWith(text) => encoder.command_with(command, text.as_bytes(), self.session.version),
            }
        }
        if encoder.len() > self.settings.operation_bytes {
            self.restore(before);
            return burst.error("EXECABORT Transaction discarded because it exceeds the cluster's limit.");
        }
        self.invoke(encoder.finish(), Outstanding::Transaction(before), actions);
    }

    /// A transaction did not take place, so its HELLO or CLIENT SETNAME did not either.
    fn restore(&mut self, before: Session) {
        self.session = before;
        self.registry.update(&self.session);
    }

    fn block(&mut self, command: Command, request: &Request, actions: &mut Vec<Action>) {
        let mut token = Token::default();
        let number = self.next_block.fetch_add(1, Ordering::Relaxed);
        token.0[..8].copy_from_slice(&self.nonce);
        token.0[8..].copy_from_slice(&number.to_le_bytes());
        let operation = Encoder::block(token, command, request, self.session.version);
        self.invoke(operation, Outstanding::Block(token), actions);
    }

    fn succeeded(&mut self, outstanding: Outstanding, result: &Bytes, actions: &mut Vec<Action>) {
        match outstanding {
            Outstanding::Batch { commands, operation } => self.batch_done(commands, &operation, result, actions),
            Outstanding::Watch(keys) => {
                for (key, version) in keys.into_iter().zip(result.as_chunks::<8>().0) {
                    // watched again: what it was first counts
                    self.watched.keys.entry(key).or_insert(Changes(u64::from_le_bytes(*version)));
                }
                actions.push(Action::Write(Bytes::from_static(b"+OK\r\n")));
            }
            Outstanding::Transaction(before) => {
                if !result.starts_with(b"*") || result.starts_with(b"*-") {
                    self.restore(before);
                }
                actions.push(Action::Write(result.clone()));
            }
            Outstanding::Block(_) => actions.push(Action::Write(result.clone())),
            Outstanding::Pause => {}
        }
    }

    fn batch_done(&mut self, commands: usize, operation: &Bytes, result: &Bytes, actions: &mut Vec<Action>) {
        let done = result.split_last_chunk::<4>().map_or(0, |(_, done)| u32::from_le_bytes(*done) as usize);
        let rest = commands.saturating_sub(done);
        if done > 0 {
            actions.push(Action::Write(result.slice(..result.len() - 4)));
        }
        match operation::rest_of_batch(operation, done) {
            _ if rest == 0 => {}
            Some(operation) if done > 0 => {
                self.invoke(operation.clone(), Outstanding::Batch { commands: rest, operation }, actions);
            }
            _ => write_errors(rest, "ERR the cluster's answer is not one to this operation", actions),
        }
    }

    fn failed(&mut self, outstanding: Outstanding, text: &str, actions: &mut Vec<Action>) {
        match outstanding {
            Outstanding::Batch { commands, .. } => write_errors(commands, text, actions),
            Outstanding::Watch(_) | Outstanding::Block(_) => write_errors(1, text, actions),
            Outstanding::Transaction(before) => {
                self.restore(before);
                write_errors(1, text, actions);
            }
            Outstanding::Pause => {}
        }
    }
}

/// The same error for each of so many commands.
fn write_errors(commands: usize, text: &str, actions: &mut Vec<Action>) {
    let error = Reply::of(Version::Two, |reply| reply.error(text));
    actions.push(Action::Write(error.repeat(commands).into()));
}

/// Room that a command takes in an operation, at most.
fn room(request: &Request) -> usize {
    request.arguments().map(|argument| argument.len() + ARGUMENT_FRAME_BYTES).sum()
}
