//! The one task of a client: commands and link events in, frames and outcomes out.

use super::{Command, Completion, ConnectError, InvokeError, Pace, Request, SESSIONS_MAX, Slot};
use crate::transport::{Dialed, LinkEvent};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{mpsc, oneshot};
use unisono_client::{Client as Core, Input, Output, Settings};
use unisono_types::{ClientMessage, Membership, ReplicaId, Reply, RequestNumber, Signer, Time, decode, encode};

/// Commands or events that are handled before the other side has its turn.
const TURN_MAX: usize = 4096;

/// How long a closing client waits for the replicas to close its sessions. They do so by themselves later.
const FAREWELL: Duration = Duration::from_millis(500);

/// The links to all replicas, by their numbers, and what happens on them.
pub(super) struct Replicas {
    pub(super) links: Vec<Dialed>,
    pub(super) events: mpsc::Receiver<(ReplicaId, LinkEvent)>,
}

/// One session with its callers.
struct Lane {
    core: Core,
    pace: Pace,
    /// Numbers of the core's requests that have no outcome yet.
    waiting: BTreeMap<RequestNumber, (Completion, Slot)>,
    /// Microseconds of the driver's clock.
    timer: Option<u64>,
    /// Something was queued since the last flush.
    dirty: bool,
    opened: bool,
    /// It takes no more requests and goes when the replicas have closed it.
    closing: bool,
}

pub(super) struct Driver {
    membership: Membership,
    signer: Signer,
    nonce: u64,
    replicas: Replicas,
    up: Vec<bool>,
    began: Instant,
    /// By the order in which they were made; the newest one of a pace is used first.
    lanes: BTreeMap<u64, Lane>,
    next_lane: u64,
    /// Who waits for the first session.
    opening: Vec<oneshot::Sender<Result<(), ConnectError>>>,
    outputs: Vec<Output>,
}

impl Driver {
    pub(super) fn new(membership: Membership, signer: Signer, nonce: u64, replicas: Replicas) -> Self {
        let up = vec![false; membership.len()];
        Self {
            membership,
            signer,
            nonce,
            replicas,
            up,
            began: Instant::now(),
            lanes: BTreeMap::new(),
            next_lane: 0,
            opening: Vec::new(),
            outputs: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut batch = Vec::new();
        let mut events = Vec::new();
        self.new_lane(Pace::Usual);
        let closed = loop {
            let timer = self.lanes.values().filter_map(|lane| lane.timer).min();
            tokio::select! {
                count = commands.recv_many(&mut batch, TURN_MAX) => {
                    if count == 0 {
                        break None; // all callers are gone
                    }
                    // Whoever is ready to ask now may still do so before the signature.
                    tokio::task::yield_now().await;
                    while batch.len() < TURN_MAX && let Ok(command) = commands.try_recv() {
                        batch.push(command);
                    }
                    let mut close = None;
                    for command in batch.drain(..) {
                        match command {
                            Command::Invoke(request) => self.invoke(request),
                            Command::Opened(sender) => self.tell_opened(sender),
                            Command::Close(sender) => close = Some(sender),
                        }
                    }
                    self.flush();
                    if let Some(sender) = close {
                        break Some(sender);
                    }
                }
                count = self.replicas.events.recv_many(&mut events, TURN_MAX) => {
                    if count == 0 {
                        break None; // without links there is nothing left to do
                    }
                    for (from, event) in events.drain(..) {
                        self.event(from, event);
                    }
                }
                () = sleep_until(self.began, timer) => self.timeouts(),
            }
        };
        self.close().await;
        if let Some(sender) = closed {
            let _ = sender.send(());
        }
    }

    fn now(&self) -> Time {
        let monotonic = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |wall| wall.as_micros());
        Time { monotonic, wall: u64::try_from(wall).unwrap_or(u64::MAX) }
    }

    /// Opens one more session.
    fn new_lane(&mut self, pace: Pace) -> u64 {
        let id = self.next_lane;
        self.next_lane += 1;
        let settings =
            Settings { membership: self.membership.clone(), signer: self.signer.clone(), jitter: self.nonce ^ id };
        // A session that is lost is opened again with the next nonce: leave each lane room for that.
        let core = Core::new(settings, self.nonce.wrapping_add(id << 32));
        let waiting = BTreeMap::new();
        self.lanes.insert(id, Lane { core, pace, waiting, timer: None, dirty: false, opened: false, closing: false });
        for replica in self.membership.clone().ids() {
            let up = self.up[usize::from(replica.0)];
            self.handle(id, Input::Link { replica, up });
        }
        self.handle(id, Input::Start);
        id
    }

    /// The session for the next request of this pace: the newest that has room in its window, a new one otherwise.
    fn lane_for(&mut self, pace: Pace) -> Option<u64> {
        let fits = |lane: &Lane| lane.pace == pace && !lane.closing && lane.core.room() > 0;
        match self.lanes.iter().rev().find(|(_, lane)| fits(lane)) {
            Some((id, _)) => Some(*id),
            None if self.lanes.len() < SESSIONS_MAX => Some(self.new_lane(pace)),
            None => None,
        }
    }

    fn invoke(&mut self, request: Request) {
        let Some(id) = self.lane_for(request.pace) else {
            let limit = SESSIONS_MAX * self.membership.configuration().limits.window as usize;
            return request.completion.complete(Err(InvokeError::TooManyOutstanding { limit }));
        };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.waiting.insert(lane.core.next_number(), (request.completion, request.slot));
        lane.dirty = true;
        self.handle(id, Input::Invoke { operation: request.operation });
    }

    /// Signs and sends what was queued, one frame per session.
    fn flush(&mut self) {
        let dirty: Vec<u64> = self.lanes.iter().filter(|(_, lane)| lane.dirty).map(|(id, _)| *id).collect();
        for id in dirty {
            self.handle(id, Input::Flush);
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.dirty = false;
            }
        }
    }

    fn event(&mut self, from: ReplicaId, event: LinkEvent) {
        match event {
            LinkEvent::Up => self.link(from, true),
            LinkEvent::Down(reason) => {
                tracing::debug!(replica = from.0, %reason, "link down");
                self.link(from, false);
            }
            LinkEvent::Progress { .. } => {}
            LinkEvent::Message(message) => {
                let Ok(reply) = decode::<Reply>(&message.bytes, message.bytes.len()) else {
                    metrics::counter!("unisono_client_malformed_replies_total").increment(1);
                    return;
                };
                let ids: Vec<u64> = self.lanes.keys().copied().collect();
                // Most of the time there is one session, and nothing is copied.
                let Some((last, others)) = ids.split_last() else { return };
                for id in others {
                    self.handle(*id, Input::Reply { from, reply: reply.clone() });
                }
                self.handle(*last, Input::Reply { from, reply });
            }
        }
    }

    fn link(&mut self, replica: ReplicaId, up: bool) {
        if std::mem::replace(&mut self.up[usize::from(replica.0)], up) != up {
            for id in self.lanes.keys().copied().collect::<Vec<_>>() {
                self.handle(id, Input::Link { replica, up });
            }
        }
    }

    fn timeouts(&mut self) {
        let now = self.now().monotonic;
        let due = |lane: &Lane| lane.timer.is_some_and(|at| at <= now);
        let ids: Vec<u64> = self.lanes.iter().filter(|(_, lane)| due(lane)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.timer = None;
            }
            self.handle(id, Input::Timeout);
        }
    }

    /// One step of one session, and what it wants done.
    fn handle(&mut self, id: u64, input: Input) {
        let now = self.now();
        let mut outputs = std::mem::take(&mut self.outputs);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.core.handle(now, input, &mut outputs);
        }
        for output in outputs.drain(..) {
            match output {
                Output::Send { to, message } => self.send(to, &message),
                Output::Completed { number, outcome } => {
                    let lane = self.lanes.get_mut(&id);
                    if let Some((completion, _slot)) = lane.and_then(|lane| lane.waiting.remove(&number)) {
                        completion.complete(outcome);
                    }
                }
                Output::SetTimer { at } => {
                    if let Some(lane) = self.lanes.get_mut(&id) {
                        lane.timer = Some(at);
                    }
                }
                Output::Opened(_) => {
                    if let Some(lane) = self.lanes.get_mut(&id) {
                        lane.opened = true;
                    }
                    for sender in self.opening.drain(..) {
                        let _ = sender.send(Ok(())); // who asked may have gone
                    }
                }
                Output::Failed(refusal) => {
                    tracing::warn!(%refusal, "no session");
                    self.lanes.remove(&id);
                    for sender in self.opening.drain(..) {
                        let _ = sender.send(Err(ConnectError::Refused(refusal))); // who asked may have gone
                    }
                }
                Output::Closed => drop(self.lanes.remove(&id)),
            }
        }
        self.outputs = outputs;
        self.retire(id);
    }

    fn send(&self, to: ReplicaId, message: &ClientMessage) {
        let Some(link) = self.replicas.links.get(usize::from(to.0)) else { return };
        metrics::counter!("unisono_client_messages_total").increment(1);
        if !link.outbox.push(Bytes::from(encode(message))) {
            // Retransmission makes up for it.
            metrics::counter!("unisono_client_dropped_messages_total").increment(1);
        }
    }

    fn tell_opened(&mut self, sender: oneshot::Sender<Result<(), ConnectError>>) {
        if self.lanes.values().any(|lane| lane.opened) {
            let _ = sender.send(Ok(())); // who asked may have gone
        } else {
            self.opening.push(sender);
        }
    }

    /// Closes a session that nobody waits in, when a newer one of its pace has taken its place.
    fn retire(&mut self, id: u64) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.closing || !lane.opened || !lane.waiting.is_empty() {
            return;
        }
        let pace = lane.pace;
        if self.lanes.range(id + 1..).any(|(_, newer)| newer.pace == pace && newer.opened && !newer.closing) {
            self.close_lane(id);
        }
    }

    fn close_lane(&mut self, id: u64) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.closing = true;
            self.handle(id, Input::Close);
        }
    }

    /// Closes the sessions, which answers what is outstanding, and gives the replicas a moment to agree.
    async fn close(&mut self) {
        for id in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.close_lane(id);
        }
        let closed = async {
            while !self.lanes.is_empty() {
                let timer = self.lanes.values().filter_map(|lane| lane.timer).min();
                tokio::select! {
                    event = self.replicas.events.recv() => match event {
                        Some((from, event)) => self.event(from, event),
                        None => return,
                    },
                    () = sleep_until(self.began, timer) => self.timeouts(),
                }
            }
        };
        let _ = tokio::time::timeout(FAREWELL, closed).await;
        for link in &self.replicas.links {
            link.outbox.close();
        }
        // The sockets end with a farewell of their own; nobody may hold them up by not taking their events.
        let drained = async { while self.replicas.events.recv().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, drained).await;
    }
}

async fn sleep_until(began: Instant, timer: Option<u64>) {
    match timer {
        Some(at) => tokio::time::sleep_until((began + Duration::from_micros(at)).into()).await,
        None => std::future::pending().await,
    }
}
