//! Who is connected: one dialed link to each peer, what peers dialed, clients.

use super::checking::{Account, Sender};
use crate::config::ReplicaConfig;
use crate::transport::{Accepted, Budget, Dialed, Dialer, Inlet, Link, LinkEvent, LinkKind, Outbox, Role, Target};
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use unisono_replica::ConnectionId;
use unisono_types::bounds::{INBOX_LARGE_MESSAGES, INBOX_SMALL_BYTES, MEMBERS_MAX, OUTBOX_SMALL_BYTES};
use unisono_types::{Bounds, PublicKey, ReplicaId, Reply, encode};

/// Client connections at once; for one more, the oldest of the key that has most is closed.
const CLIENTS_MAX: usize = 4096;

/// Small messages received from the clients of one key and not yet handled, and the largest messages of theirs.
const CLIENT_SMALL_BYTES: usize = 2 << 20;
const CLIENT_MEDIUM_BYTES: usize = 2 << 20;
const CLIENT_LARGE_MESSAGES: usize = 1;

/// The same for all clients together. Up to 1 MiB it takes half of the keys that `init` makes to keep others waiting.
const CLIENTS_SMALL_BYTES: usize = 64 << 20;
const CLIENTS_MEDIUM_BYTES: usize = 64 << 20;
const CLIENTS_LARGE_MESSAGES: usize = 3;

/// Events that wait, for each link of a peer or for all clients: more than the messages of a peer that its budget lets
/// in, so that none waits for another peer's.
const EVENTS_MAX: usize = 4096;

const _: () = assert!(INBOX_SMALL_BYTES / 1024 + INBOX_LARGE_MESSAGES < EVENTS_MAX);
const _: () = assert!(CLIENT_SMALL_BYTES < CLIENTS_SMALL_BYTES && CLIENT_MEDIUM_BYTES < CLIENTS_MEDIUM_BYTES);
const _: () = assert!(CLIENT_LARGE_MESSAGES < CLIENTS_LARGE_MESSAGES);

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

impl Source {
    /// In metrics.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Dialed(_) | Self::Peer(..) => "peer",
            Self::Client(_) => "client",
        }
    }
}

/// An event of a link.
pub(super) type Arrival = (Source, LinkEvent);

/// What waits in front of the event loop.
pub(super) struct Arrivals {
    pub(super) peers: mpsc::Receiver<Arrival>,
    pub(super) clients: mpsc::Receiver<Arrival>,
}

/// Bytes of messages between us and all peers that have not arrived, in either direction.
#[derive(Default)]
pub(super) struct UnderWay {
    /// Queued here and not yet handed to the socket.
    pub(super) outgoing: usize,
    /// What is missing of the large messages that peers are sending.
    pub(super) incoming: usize,
}

struct Peer {
    dialed: Dialed,
    /// For all links that it dials, so that a new one brings nothing new.
    budget: Budget,
    /// Bytes missing of the large message that comes from it.
    incoming: usize,
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
    peer_sender: mpsc::Sender<Arrival>,
    client_sender: mpsc::Sender<Arrival>,
    /// Of all clients, and the parts of the keys that have been here: registered ones, so there is an end to them.
    client_budget: Budget,
    key_budgets: BTreeMap<PublicKey, Budget>,
    client_message_bytes: usize,
    reply_outbox_bytes: usize,
    #[cfg(feature = "liar")]
    liar: Option<std::sync::Arc<super::liar::Liar>>,
}

impl Links {
    /// Begins to dial all peers.
    pub(super) fn start(config: &ReplicaConfig) -> (Self, Arrivals) {
        let membership = &config.cluster.membership;
        let limits = &membership.configuration().limits;
        let (peer_sender, peers) = mpsc::channel(EVENTS_MAX * membership.len());
        let (client_sender, clients) = mpsc::channel(EVENTS_MAX);
        let bounds = Bounds::new(limits, MEMBERS_MAX);
        let client_message_bytes = LinkKind::Client.message_bytes_max(limits);
        let dialer = Dialer::new(config.host.clone(), LinkKind::Peer, membership.clone());
        let dialed = membership.configuration().members.iter().filter(|member| member.id != config.id).map(|member| {
            let budget = Budget::new(INBOX_SMALL_BYTES, bounds.inbox);
            let inlet = Inlet { tag: Source::Dialed(member.id), sender: peer_sender.clone(), budget: budget.clone() };
            let outbox = Outbox::overtaking(OUTBOX_SMALL_BYTES, bounds.outbox);
            let dialed = dialer.keep(Target::from(member), outbox, inlet);
            (member.id, Peer { dialed, budget, incoming: 0, up: false, accepted: None })
        });
        let links = Self {
            peers: dialed.collect(),
            clients: BTreeMap::new(),
            next: 0,
            peer_sender: peer_sender.clone(),
            client_sender,
            client_budget: Budget::new(CLIENTS_SMALL_BYTES, CLIENTS_LARGE_MESSAGES * client_message_bytes)
                .with_medium(CLIENTS_MEDIUM_BYTES),
            key_budgets: BTreeMap::new(),
            client_message_bytes,
            // Two of the largest answers: one that is being written and one that waits.
            reply_outbox_bytes: 2 * LinkKind::Client.answer_bytes_max(limits),
            #[cfg(feature = "liar")]
            liar: None,
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
                peer.incoming = 0;
                let inlet = Inlet {
                    tag: Source::Peer(id, number),
                    sender: self.peer_sender.clone(),
                    budget: peer.budget.clone(),
                };
                serve(accepted.link, outbox, inlet);
            }
            Role::Client(key) => {
                if self.clients.len() >= CLIENTS_MAX
                    && let Some(oldest) = oldest_of_most(&self.clients)
                {
                    metrics::counter!("unisono_links_closed_total", "kind" => "client", "reason" => "too_many")
                        .increment(1);
                    self.end(Source::Client(oldest));
                }
                let outbox = Outbox::new(self.reply_outbox_bytes);
                let connection = ConnectionId(number);
                self.clients.insert(connection, Client { key, outbox: outbox.clone() });
                let budget = self.key_budget(key);
                let inlet = Inlet { tag: Source::Client(connection), sender: self.client_sender.clone(), budget };
                serve(accepted.link, outbox, inlet);
            }
            // Served where it was accepted.
            Role::Admin => {}
        }
    }

    /// All links of a key have one budget.
    fn key_budget(&mut self, key: PublicKey) -> Budget {
        let large = CLIENT_LARGE_MESSAGES * self.client_message_bytes;
        let part = || self.client_budget.part(CLIENT_SMALL_BYTES, large).with_medium(CLIENT_MEDIUM_BYTES);
        self.key_budgets.entry(key).or_insert_with(part).clone()
    }

    /// A large message comes from a peer; nothing is missing when it is there. The peer, if this is its newest link.
    pub(super) fn progress(&mut self, source: Source, missing: usize) -> Option<ReplicaId> {
        let Source::Peer(id, number) = source else { return None };
        let peer = self.peers.get_mut(&id)?;
        let is_newest = peer.accepted.as_ref().is_some_and(|(newest, _)| *newest == number);
        is_newest.then(|| {
            peer.incoming = missing;
            id
        })
    }

    pub(super) fn under_way(&self) -> UnderWay {
        self.peers.values().fold(UnderWay::default(), |sum, peer| UnderWay {
            outgoing: sum.outgoing + peer.dialed.outbox.bytes(),
            incoming: sum.incoming + peer.incoming,
        })
    }

    /// Whether a peer's link changed its state.
    pub(super) fn dialed(&mut self, id: ReplicaId, up: bool) -> bool {
        self.peers.get_mut(&id).is_some_and(|peer| std::mem::replace(&mut peer.up, up) != up)
    }

    /// The key of a client's connection, while there is one.
    pub(super) fn client_key(&self, connection: ConnectionId) -> Option<PublicKey> {
        self.clients.get(&connection).map(|client| client.key)
    }

    /// Who pays for what comes on a link, while there is such a link.
    pub(super) fn sender(&self, source: Source) -> Option<Sender> {
        let account = match source {
            Source::Dialed(id) | Source::Peer(id, _) => Account::Peer(id),
            Source::Client(connection) => Account::Client(self.client_key(connection)?),
        };
        Some(Sender { source, account })
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
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.incoming = 0;
                    }
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
        #[cfg(feature = "liar")]
        if let Some(liar) = &self.liar {
            return self.send_lies(liar.lie(to, message));
        }
        self.queue(to, message);
    }

    fn queue(&self, to: ReplicaId, message: Bytes) {
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

    pub(super) fn reply(&self, connection: ConnectionId, reply: &Reply) {
        #[cfg(feature = "liar")]
        if let Some(liar) = &self.liar {
            return self.reply_lies(connection, liar.reply(reply));
        }
        self.queue_reply(connection, reply);
    }

    /// A client that does not take its answers is closed: it asks again when it is back.
    fn queue_reply(&self, connection: ConnectionId, reply: &Reply) {
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

/// Lies, in place of what the core said.
#[cfg(feature = "liar")]
impl Links {
    pub(super) fn lie(&mut self, liar: Option<std::sync::Arc<super::liar::Liar>>) {
        self.liar = liar;
        let Some(liar) = self.liar.clone() else { return };
        let outboxes: BTreeMap<_, _> = self.peers.iter().map(|(id, peer)| (*id, peer.dialed.outbox.clone())).collect();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(super::liar::FLOOD).await;
                for (_, to, message) in liar.flood() {
                    let _ = outboxes[&to].push(message); // a flood that overflows is one all the same
                }
            }
        });
    }

    fn send_lies(&self, sent: super::liar::Sent) {
        for (later, to, message) in sent {
            let Some(peer) = self.peers.get(&to).filter(|_| !later.is_zero()) else {
                self.queue(to, message);
                continue;
            };
            push_later(later, peer.dialed.outbox.clone(), message);
        }
    }

    fn reply_lies(&self, connection: ConnectionId, reply: Option<(std::time::Duration, Reply)>) {
        match reply {
            None => {}
            Some((later, reply)) if later.is_zero() => self.queue_reply(connection, &reply),
            Some((later, reply)) => {
                let Some(client) = self.clients.get(&connection) else { return };
                push_later(later, client.outbox.clone(), Bytes::from(encode(&reply)));
            }
        }
    }
}

#[cfg(feature = "liar")]
fn push_later(later: std::time::Duration, outbox: Outbox, message: Bytes) {
    tokio::spawn(async move {
        tokio::time::sleep(later).await;
        let _ = outbox.push(message); // what does not fit is lost, as on any link
    });
}

impl Drop for Links {
    fn drop(&mut self) {
        self.clients.values().for_each(|client| client.outbox.close());
        self.peers.values().filter_map(|peer| peer.accepted.as_ref()).for_each(|(_, outbox)| outbox.close());
    }
}

/// The oldest connection of the key that has most: whoever opens many closes its own.
fn oldest_of_most(clients: &BTreeMap<ConnectionId, Client>) -> Option<ConnectionId> {
    // Numbers grow, so the first one seen of a key is its oldest.
    let mut keys = BTreeMap::new();
    for (connection, client) in clients {
        keys.entry(client.key).or_insert((0, *connection)).0 += 1;
    }
    keys.into_values().max_by_key(|(count, _)| *count).map(|(_, oldest)| oldest)
}

fn serve(link: Link, outbox: Outbox, inlet: Inlet<Source>) {
    tokio::spawn(async move { link.serve(&outbox, &inlet).await });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_takes_all_links_makes_room_for_every_other_key() {
        let client = |key: u8| Client { key: PublicKey([key; 32]), outbox: Outbox::new(0) };
        let mut clients = BTreeMap::from([(ConnectionId(0), client(9))]);
        clients.extend((1..8).map(|number| (ConnectionId(number), client(1))));
        let oldest = oldest_of_most(&clients);
        assert_eq!(oldest, Some(ConnectionId(1)), "the oldest of those, not the oldest of all");
        clients.remove(&ConnectionId(1));
        clients.insert(ConnectionId(8), client(2));
        assert_eq!(oldest_of_most(&clients), Some(ConnectionId(2)));
    }
}
