//! The gateway's sockets: one small task per connection, bounds before every read.
//!
//! ```text
//!            readable, bounds hold                 Action::Invoke
//!   socket ────────────────────────> input ──> Connection ──────────> Submit (the cluster client's one driver)
//!   socket <──────── output <── Action::Write ──┘   ^
//!            writable                               └── Inbox <── outcomes of this connection
//! ```
//! An idle connection owns no buffer: a few hundred bytes of task, socket and inbox.

use super::{Action, Bytes, BytesMut, Connection, INVOCATIONS_MAX, InvokeError, OUTPUT_BYTES_MAX, Outcome, Protocol};
use crate::client::{Completion, Pace, Submit};
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

/// Connections served at once: as many as Redis accepts by default, and some.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Unparsed bytes of one connection: one operation of the largest size and what surrounds it. A connection that fills
/// this without making a complete command is closed.
pub const INPUT_BYTES_MAX: usize = 20 << 20;

/// Unparsed bytes that a connection may have waiting while an invocation is outstanding: what is behind it cannot be
/// used before, so it stays with the kernel.
const INPUT_WAITING_MAX: usize = 256 << 10;

/// Read at once from one socket before others have their turn.
const READ_BYTES: usize = 64 << 10;

/// Buffers written with one system call.
const WRITE_BUFFERS: usize = 32;

/// An invocation that took longer than this waited inside the service; its connection's next one is expected to.
const PARKED: Duration = Duration::from_millis(100);

/// How long a peer that has closed its side, or shall be closed, is still served what it is owed.
const LINGER: Duration = Duration::from_secs(2);

/// Wait after the system refused a connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and serves `protocol` on them, until `stop` is ready.
pub async fn serve<P: Protocol>(
    listener: TcpListener,
    protocol: Arc<P>,
    cluster: impl Submit,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stop => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    metrics::counter!("unisono_gateway_connections_total").increment(1);
                    connections.spawn(Session::new(stream, protocol.connect(), cluster.clone()).run());
                }
                Ok(_) => closed(Closed::TooMany),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        metrics::gauge!("unisono_gateway_connections").set(connections.len() as f64);
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Closed {
    /// The peer closed it.
    ByPeer,
    /// The protocol closed it.
    ByProtocol,
    /// A socket error.
    Broken,
    /// Its input grew to the bound without a complete command.
    InputTooLarge,
    /// As many connections as may be are open.
    TooMany,
}

fn closed(reason: Closed) {
    let reason = match reason {
        Closed::ByPeer => "by_peer",
        Closed::ByProtocol => "by_protocol",
        Closed::Broken => "broken",
        Closed::InputTooLarge => "input_too_large",
        Closed::TooMany => "too_many",
    };
    metrics::counter!("unisono_gateway_closed_total", "reason" => reason).increment(1);
}

/// Outcomes of one connection, put in by the cluster client's driver. Bounded by [`INVOCATIONS_MAX`].
#[derive(Default)]
pub(crate) struct Inbox {
    answers: Mutex<Vec<(u64, Result<Outcome, InvokeError>)>>,
    filled: Notify,
}

impl Inbox {
    pub(crate) fn put(&self, ticket: u64, answer: Result<Outcome, InvokeError>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((ticket, answer));
        self.filled.notify_one();
    }

    fn take(&self) -> Vec<(u64, Result<Outcome, InvokeError>)> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What waits to be written.
#[derive(Default)]
struct Output {
    /// Invariant: none is empty.
    buffers: VecDeque<Bytes>,
    /// Invariant: the sum of their lengths.
    bytes: usize,
}

impl Output {
    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.buffers.push_back(bytes);
        }
    }

    fn written(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(first) = self.buffers.front_mut() {
            if count < first.len() {
                bytes::Buf::advance(first, count);
                return;
            }
            count -= first.len();
            self.buffers.pop_front();
        }
        self.buffers.shrink_to_fit();
    }
}

struct Session<C, S> {
    stream: TcpStream,
    connection: C,
    cluster: S,
    inbox: Arc<Inbox>,
    /// Ticket and begin of what is outstanding. Invariant: at most [`INVOCATIONS_MAX`].
    outstanding: Vec<(u64, Instant)>,
    /// What one read asked for beyond the bounds. Invariant: made of bytes of one read.
    waiting: VecDeque<(u64, Bytes)>,
    pace: Pace,
    input: BytesMut,
    output: Output,
    /// The protocol has closed, or the peer will send nothing more: until when it is still served.
    ends: Option<(Closed, Instant)>,
}

impl<C: Connection, S: Submit> Session<C, S> {
    fn new(stream: TcpStream, connection: C, cluster: S) -> Self {
        let _ = stream.set_nodelay(true); // a hint; answers are whole already
        Self {
            stream,
            connection,
            cluster,
            inbox: Arc::default(),
            outstanding: Vec::new(),
            waiting: VecDeque::new(),
            pace: Pace::Usual,
            input: BytesMut::new(),
            output: Output::default(),
            ends: None,
        }
    }

    async fn run(mut self) {
        let reason = self.serve().await;
        closed(reason);
        let mut actions = Vec::new();
        self.connection.disconnected(&mut actions);
        for action in actions {
            if let Action::Invoke { operation, .. } = action {
                self.cluster.submit(operation, Pace::Usual, Completion::ignored());
            }
        }
    }

    async fn serve(&mut self) -> Closed {
        loop {
            if self.write().is_err() {
                return Closed::Broken;
            }
            self.submit_waiting();
            let idle = self.output.buffers.is_empty() && self.outstanding.is_empty() && self.waiting.is_empty();
            match self.ends {
                Some((Closed::ByProtocol, _)) if self.output.buffers.is_empty() => return Closed::ByProtocol,
                Some((reason, _)) if idle => return reason,
                _ => {}
            }
            let input_max = if self.outstanding.is_empty() { INPUT_BYTES_MAX } else { INPUT_WAITING_MAX };
            if self.outstanding.is_empty() && self.input.len() >= INPUT_BYTES_MAX {
                return Closed::InputTooLarge;
            }
            let reads = self.ends.is_none()
                && self.output.bytes < OUTPUT_BYTES_MAX
                && self.outstanding.len() < INVOCATIONS_MAX
                && self.waiting.is_empty()
                && self.input.len() < input_max;
            let ends = self.ends;
            tokio::select! {
                () = self.inbox.filled.notified(), if !self.outstanding.is_empty() => self.answers(),
                ready = self.stream.readable(), if reads => {
                    if ready.is_err() || self.read().is_err() {
                        return Closed::Broken;
                    }
                }
                ready = self.stream.writable(), if !self.output.buffers.is_empty() => {
                    if ready.is_err() {
                        return Closed::Broken;
                    }
                }
                reason = linger(ends), if ends.is_some() => return reason,
            }
        }
    }

    /// Reads what is there, as far as one turn goes, and lets the protocol see it.
    fn read(&mut self) -> io::Result<()> {
        thread_local!(static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]));
        let count = SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
            Ok(count) => {
                self.input.extend_from_slice(&scratch[..count]);
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        })?;
        match count {
            None => {}
            Some(0) => self.ends = Some((Closed::ByPeer, Instant::now() + LINGER)),
            Some(_) => self.receive(),
        }
        Ok(())
    }

    fn receive(&mut self) {
        let mut actions = Vec::new();
        self.connection.receive(&mut self.input, &mut actions);
        if self.input.is_empty() {
            self.input = BytesMut::new(); // an idle connection owns no buffer
        }
        self.act(actions);
    }

    fn answers(&mut self) {
        for (ticket, outcome) in self.inbox.take() {
            if let Some(index) = self.outstanding.iter().position(|(known, _)| *known == ticket) {
                let (_, began) = self.outstanding.swap_remove(index);
                self.pace = if began.elapsed() > PARKED { Pace::Parking } else { Pace::Usual };
            }
            if matches!(self.ends, Some((Closed::ByProtocol, _))) {
                continue;
            }
            let mut actions = Vec::new();
            self.connection.answer(ticket, outcome, &mut actions);
            self.act(actions);
            if !self.input.is_empty() {
                self.receive();
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            if matches!(self.ends, Some((Closed::ByProtocol, _))) {
                return;
            }
            match action {
                Action::Invoke { ticket, operation } => self.waiting.push_back((ticket, operation)),
                Action::Write(bytes) => self.output.push(bytes),
                Action::Close => self.ends = Some((Closed::ByProtocol, Instant::now() + LINGER)),
            }
        }
        self.submit_waiting();
    }

    fn submit_waiting(&mut self) {
        while self.outstanding.len() < INVOCATIONS_MAX && self.output.bytes < OUTPUT_BYTES_MAX {
            let Some((ticket, operation)) = self.waiting.pop_front() else { return };
            metrics::counter!("unisono_gateway_invocations_total").increment(1);
            self.outstanding.push((ticket, Instant::now()));
            self.cluster.submit(operation, self.pace, Completion::ticket(ticket, self.inbox.clone()));
        }
    }

    /// Writes what the socket takes without waiting.
    fn write(&mut self) -> io::Result<()> {
        while !self.output.buffers.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_BUFFERS];
            for (slice, buffer) in slices.iter_mut().zip(&self.output.buffers) {
                *slice = IoSlice::new(buffer);
            }
            let used = self.output.buffers.len().min(WRITE_BUFFERS);
            match self.stream.try_write_vectored(&slices[..used]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.output.written(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

async fn linger(ends: Option<(Closed, Instant)>) -> Closed {
    match ends {
        Some((reason, until)) => {
            tokio::time::sleep_until(until.into()).await;
            reason
        }
        None => std::future::pending().await,
    }
}
