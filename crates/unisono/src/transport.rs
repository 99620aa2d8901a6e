//! Links between processes: TCP with TLS 1.3, both ends known by pinned Ed25519 keys (RFC 7250 raw public keys).
//!
//! ```text
//!   dialer ── TLS, exact key of the member ──────────────> acceptor: a member's, a client's or the admin's key
//!          ── hello: magic, version, kind, cluster ──────> kind must be what the key may be
//!          <─ whole messages, pieces of large ones  (either direction) ──>
//!
//!   Outbox ── small ones first, one write ──> socket ──> messages, bounded by a byte budget ──> Inlet
//! ```
//! Each replica dials every other and sends on the links it dialed; what it accepted it only reads. Clients send and
//! are answered on one link.
//!
//! Never: a certificate authority, a default key, resumption; a byte is read as a message before both keys and the
//! hello were checked; memory is allocated because of a length that was only claimed.
//!
//! Invariant: an unauthenticated connection costs one task, at most 64 KiB and 5 s, and there are at most
//! [`UNAUTHENTICATED_MAX`] of them; those of whoever opens many give way to those of others.
//! Invariant: what a link holds is bounded, outgoing by its [`Outbox`], incoming by its [`Budget`], which a large message
//! takes from when it begins and every message until it was handled.

mod accept;
mod budget;
mod dial;
mod framing;
mod outbox;
mod pieces;
mod tls;

pub use accept::{Accepted, Acceptor, HANDSHAKE_DEADLINE, UNAUTHENTICATED_MAX, listen};
pub use budget::{Budget, Share};
pub use dial::{Dialed, Dialer, Target};
pub use framing::Link;
pub use outbox::Outbox;

use bytes::Bytes;
use std::io;
use tokio::sync::mpsc;
use unisono_types::bounds::MEMBERS_MAX;
use unisono_types::{Bounds, Limits, PublicKey, ReplicaId};

/// What a link is for. Said in its first bytes, and held against the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LinkKind {
    /// From replica to replica; carries messages in one direction.
    Peer,
    /// From a client to a replica.
    Client,
    /// From the administrator to a replica.
    Admin,
}

impl LinkKind {
    /// Bytes of the largest message that is read from a dialer of this kind.
    #[must_use]
    pub const fn message_bytes_max(self, limits: &Limits) -> usize {
        match self {
            // The table bounds what agreement says by it; for the members of the largest cluster.
            Self::Peer => Bounds::new(limits, MEMBERS_MAX).link,
            Self::Client => limits.frame_bytes as usize + ENVELOPE_BYTES,
            Self::Admin => ENVELOPE_BYTES,
        }
    }

    /// Bytes of the largest message that the dialer reads.
    #[must_use]
    pub const fn answer_bytes_max(self, limits: &Limits) -> usize {
        match self {
            Self::Peer => 0,
            Self::Client => limits.reply_bytes as usize + ENVELOPE_BYTES,
            Self::Admin => ENVELOPE_BYTES,
        }
    }
}

/// Room for everything around a frame or a reply, and for a status report.
const ENVELOPE_BYTES: usize = 1 << 20;

/// Whom an accepted link's key belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// A member.
    Peer(ReplicaId),
    /// A registered client key.
    Client(PublicKey),
    /// The administrator.
    Admin,
}

/// What happens on a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// It is up: both ends are who they should be.
    Up,
    /// A message.
    Message(Inbound),
    /// A large message is under way: so much of it has come. Now and then only, and never waited for.
    Progress {
        /// Bytes that are there.
        received: usize,
        /// Bytes that it has.
        total: usize,
    },
    /// It is down. More may follow if it was dialed: it is tried again.
    Down(LinkError),
}

/// A received message, with the share of the budget that it takes while it waits.
#[derive(Debug)]
pub struct Inbound {
    /// The message.
    pub bytes: Bytes,
    share: Share,
}

impl Inbound {
    /// It came in pieces, and [`LinkEvent::Progress`] told of it.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.bytes.len() > pieces::PIECE_BYTES
    }

    /// The share, for whoever keeps the message longer than this value: it is free when the share is dropped.
    #[must_use]
    pub fn take_share(&mut self) -> Share {
        std::mem::take(&mut self.share)
    }
}

/// Why a link ended, or never was.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address cannot be reached, or the connection broke.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// TLS failed, most often because of a key that is not the expected one.
    #[error("handshake: {0}")]
    Handshake(io::Error),
    /// The handshake took too long.
    #[error("no handshake within the deadline")]
    HandshakeTimeout,
    /// The handshake gave way to a newer connection, since too many were under way.
    #[error("gave way to a newer connection, since too many were in their handshake")]
    Crowded,
    /// The key belongs to nobody here.
    #[error("the key is none of this cluster's")]
    UnknownKey,
    /// The first bytes are no hello of this protocol, version and cluster.
    #[error("no hello of this protocol, version and cluster")]
    BadHello,
    /// The key may not open a link of that kind.
    #[error("the key may not open a link of that kind")]
    WrongKind,
    /// A message longer than allowed was announced.
    #[error("a message of {length} bytes was announced, {limit} are allowed")]
    Oversized {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A piece that belongs to no message, or is not what is missing.
    #[error("a piece that belongs to no message, or is not what is missing")]
    BadPiece,
    /// A message was begun and does not go on.
    #[error("a message was begun and does not go on")]
    Stalled,
    /// The other end takes nothing although much is queued for it.
    #[error("the other end does not read what is sent to it")]
    NotReading,
    /// The other end closed.
    #[error("closed by the other end")]
    Closed,
    /// We closed: shutdown, a newer link of the same peer, a bad message.
    #[error("closed here")]
    ClosedHere,
}

impl LinkError {
    /// A short fixed name, for a counter's label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Io(_) => "connection",
            Self::Handshake(_) => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Crowded => "crowded",
            Self::UnknownKey => "unknown_key",
            Self::BadHello => "bad_hello",
            Self::WrongKind => "wrong_kind",
            Self::Oversized { .. } => "oversized",
            Self::BadPiece => "bad_piece",
            Self::Stalled => "stalled",
            Self::NotReading => "not_reading",
            Self::Closed => "closed",
            Self::ClosedHere => "closed_here",
        }
    }
}

/// Where a link's events go: a bounded queue, and a tag by which the receiver knows the link.
#[derive(Clone, Debug)]
pub struct Inlet<T> {
    /// Told with each event.
    pub tag: T,
    /// The queue.
    pub sender: mpsc::Sender<(T, LinkEvent)>,
    /// What waits in it.
    pub budget: Budget,
}

impl<T: Clone> Inlet<T> {
    /// Passes an event on; false when nobody listens any more.
    async fn send(&self, event: LinkEvent) -> bool {
        self.sender.send((self.tag.clone(), event)).await.is_ok()
    }

    /// Passes an event on if there is room: the next one of its kind says more.
    fn offer(&self, event: LinkEvent) {
        let _ = self.sender.try_send((self.tag.clone(), event));
    }
}

#[cfg(test)]
mod tests;
