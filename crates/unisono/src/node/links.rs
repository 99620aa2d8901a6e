//! Who is connected: one dialed link to each peer, what peers dialed, clients.

use crate::config::ReplicaConfig;
use crate::transport::{Accepted, Budget, Dialed, Dialer, Inlet, Link, LinkEvent, LinkKind, Outbox, Role, Target};
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use unisono_replica::ConnectionId;
use unisono_types::{PublicKey, ReplicaId, Reply, encode};

/// Client connections at once; one more is closed.
const CLIENTS_MAX: usize = 4096;

/// Bytes received from clients and not yet handled.
const CLIENT_BYTES_MAX: usize = 64 << 20;

/// Events that wait, of either kind.
const EVENTS_MAX: usize = 4096;

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Source {
    /// Our own link to a peer.
    Dialed(ReplicaId),
    /// A link that a peer has dialed, and its number here.
    Peer(ReplicaId, u64),
    /// A client's link.
    Client(ConnectionId),
}

/// An event of a link.
pub(super) type Arrival = (Source, LinkEvent);

/// What waits in front of the event loop.
pub(super) struct Arrivals {
    pub(super) peers: mpsc::Receiver<Arrival>,
    pub(super) clients: mpsc::Receiver<Arrival>,
}

struct Peer {
    dialed: Dialed,
    up: bool,
    /// The newest link that it dialed; an older one is closed.
    accepted: Option<(u64, Outbox)>,
}

struct Client {
    key: PublicKey,
    outbox: Outbox,
}

/// All links of a replica.
pub(super) struct Links {
    peers: BTreeMap<ReplicaId, Peer>,
    clients: BTreeMap<ConnectionId, Client>,
    next: u64,
    peer_inlet: (mpsc::Sender<Arrival>, Budget),
    client_inlet: (mpsc::Sender<Arrival>, Budget),
    reply_outbox_bytes: usize,
}

impl Links {
    /// Begins to dial all peers.
    pub(super) fn start(config: &ReplicaConfig) -> (Self, Arrivals) {
        let membership = &config.cluster.membership;
        let (peer_sender, peers) = mpsc::channel(EVENTS_MAX);
        let (client_sender, clients) = mpsc::channel(EVENTS_MAX);
        let bounds = membership.bounds();
        let peer_budget = Budget::new(bounds.inbox);
        let dialer = Dialer::new(config.host.clone(), LinkKind::Peer, membership.clone());
        let dialed = membership.configuration().members.iter().filter(|member| member.id != config.id).map(|member| {
            let tag = Source::Dialed(member.id);
            let inlet = Inlet { tag, sender: peer_sender.clone(), budget: peer_budget.clone() };
            let dialed = dialer.keep(Target::from(member), Outbox::new(bounds.outbox), inlet);
            (member.id, Peer { dialed, up: false, accepted: None })
        });
        let links = Self {
            peers: dialed.collect(),
            clients: BTreeMap::new(),
            next: 0,
            peer_inlet: (peer_sender.clone(), peer_budget.clone()),
            client_inlet: (client_sender, Budget::new(CLIENT_BYTES_MAX)),
            // Two of the largest answers: one that is being written and one that waits.
            reply_outbox_bytes: 2 * LinkKind::Client.answer_bytes_max(&membership.configuration().limits),
        };
        (links, Arrivals { peers, clients })
    }

    /// A link was let in.
    pub(super) fn accepted(&mut self, accepted: Accepted) {
        self.next += 1;
        let number = self.next;
        match accepted.role {
            Role::Peer(id) => {
                let Some(peer) = self.peers.get_mut(&id) else { return };
                let outbox = Outbox::new(0);
                if let Some((_, older)) = peer.accepted.replace((number, outbox.clone())) {
                    older.close();
                }
                // It has just come up, so our own link to it will do, too.
                if !peer.up {
                    peer.dialed.nudge();
                }
                serve(accepted.link, outbox, Source::Peer(id, number), &self.peer_inlet);
            }
            Role::Client(key) => {
                if self.clients.len() >= CLIENTS_MAX {
                    metrics::counter!("unisono_links_refused_total", "reason" => "too_many_clients").increment(1);
                    return;
                }
                let outbox = Outbox::new(self.reply_outbox_bytes);
                let connection = ConnectionId(number);
                self.clients.insert(connection, Client { key, outbox: outbox.clone() });
                serve(accepted.link, outbox, Source::Client(connection), &self.client_inlet);
            }
            // Served where it was accepted.
            Role::Admin => {}
        }
    }

    /// Whether a peer's link changed its state.
    pub(super) fn dialed(&mut self, id: ReplicaId, up: bool) -> bool {
        self.peers.get_mut(&id).is_some_and(|peer| std::mem::replace(&mut peer.up, up) != up)
    }

    /// The key of a client's connection, while there is one.
    pub(super) fn client_key(&self, connection: ConnectionId) -> Option<PublicKey> {
        self.clients.get(&connection).map(|client| client.key)
    }

    /// A link has ended, or must: it said something that no correct program says.
    pub(super) fn end(&mut self, source: Source) {
        match source {
            Source::Dialed(_) => {}
            Source::Peer(id, number) => {
                let peer = self.peers.get_mut(&id);
                if let Some((_, outbox)) = peer.and_then(|peer| peer.accepted.take_if(|(newest, _)| *newest == number))
                {
                    outbox.close();
                }
            }
            Source::Client(connection) => {
                if let Some(client) = self.clients.remove(&connection) {
                    client.outbox.close();
                }
            }
        }
    }

    pub(super) fn send(&self, to: ReplicaId, message: Bytes) {
        let Some(peer) = self.peers.get(&to) else { return };
        if !peer.dialed.outbox.push(message) {
            metrics::counter!("unisono_peer_messages_dropped_total", "peer" => to.to_string()).increment(1);
        }
    }

    pub(super) fn broadcast(&self, message: &Bytes) {
        for id in self.peers.keys() {
            self.send(*id, message.clone());
        }
    }

    /// A client that does not take its answers is closed: it asks again when it is back.
    pub(super) fn reply(&self, connection: ConnectionId, reply: &Reply) {
        let Some(client) = self.clients.get(&connection) else { return };
        if !client.outbox.push(Bytes::from(encode(reply))) {
            metrics::counter!("unisono_links_closed_total", "kind" => "client", "reason" => "slow").increment(1);
            client.outbox.close();
        }
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn peers_up(&self) -> usize {
        self.peers.values().filter(|peer| peer.up).count()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.clients.values().for_each(|client| client.outbox.close());
        self.peers.values().filter_map(|peer| peer.accepted.as_ref()).for_each(|(_, outbox)| outbox.close());
    }
}

fn serve(link: Link, outbox: Outbox, tag: Source, (sender, budget): &(mpsc::Sender<Arrival>, Budget)) {
    let inlet = Inlet { tag, sender: sender.clone(), budget: budget.clone() };
    tokio::spawn(async move { link.serve(&outbox, &inlet).await });
}
