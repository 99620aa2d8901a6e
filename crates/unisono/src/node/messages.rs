//! What links send, and what is sent on them: bytes to checked messages and back.

use super::links::Source;
use crate::transport::Inbound;
use unisono_consensus::Consensus;
use unisono_consensus::aphousia::Aphousia;
use unisono_node::message;
use unisono_replica::PeerMessage;
use unisono_types::{Frame, Rejected, ReplicaId, Verified, VerifyContext};

/// What the pure core is run with in this version.
pub(super) type Algorithm = Aphousia;
pub(super) type AlgorithmMessage = <Algorithm as Consensus>::Message;

/// What a link sent, before the check of signatures.
pub(super) enum Received {
    Peer(ReplicaId, PeerMessage<AlgorithmMessage>),
    Client(Frame),
}

/// What a link sent, behind it.
pub(super) enum Checked {
    Peer(ReplicaId, Verified<PeerMessage<AlgorithmMessage>>),
    Client(Verified<Frame>),
}

/// Reads one message. Its share of the budget is free again afterwards: what the core keeps, it bounds.
pub(super) fn parse(source: Source, message: Inbound, context: &VerifyContext) -> Result<Received, Rejected> {
    let bytes = message.bytes.clone();
    match source {
        Source::Dialed(peer) | Source::Peer(peer, _) => Ok(Received::Peer(peer, message::parse_peer(bytes, context)?)),
        Source::Client(_) => Ok(Received::Client(message::parse_client(&bytes, context)?)),
    }
}

/// Checks the signatures of one message.
pub(super) fn check(message: Received, context: &VerifyContext) -> Result<Checked, Rejected> {
    match message {
        Received::Peer(peer, message) => Ok(Checked::Peer(peer, message::check_peer(message, context)?)),
        Received::Client(frame) => Ok(Checked::Client(message::check_client(frame, context)?)),
    }
}

pub(super) const fn label(reason: Rejected) -> &'static str {
    match reason {
        Rejected::Malformed => "malformed",
        Rejected::TooLarge => "too_large",
        Rejected::BadSignature => "bad_signature",
        Rejected::NotAMember => "not_a_member",
        Rejected::WrongSender => "wrong_sender",
        Rejected::Foreign => "foreign",
        Rejected::Inconsistent => "inconsistent",
    }
}
