//! Bytes of links to checked messages and back. What may be refused cheaply is refused before a signature is checked.

use bytes::Bytes;
use unisono_replica::PeerMessage;
use unisono_types::{ClientMessage, Frame, Message, Rejected, Unverified, Verified, VerifyContext, decode};

/// Bytes around a frame in a client's message.
const CLIENT_OVERHEAD_BYTES: usize = 64;

/// What a peer sent, its signatures not checked yet.
///
/// # Errors
/// [`Rejected`]: form and bounds.
pub fn parse_peer<M: Message>(bytes: Bytes, context: &VerifyContext) -> Result<PeerMessage<M>, Rejected> {
    PeerMessage::parse(bytes, context)
}

/// What a client sent, its signature not checked yet.
///
/// # Errors
/// [`Rejected`]: form and bounds.
pub fn parse_client(bytes: &Bytes, context: &VerifyContext) -> Result<Frame, Rejected> {
    let limit = context.membership.configuration().limits.frame_bytes as usize;
    let ClientMessage::Frame(wire) = decode(bytes, limit + CLIENT_OVERHEAD_BYTES).map_err(|_| Rejected::Malformed)?;
    Frame::parse(context.cluster, wire, limit)
}

/// Checks the signatures of what a peer sent.
///
/// # Errors
/// [`Rejected`].
pub fn check_peer<M: Message>(
    message: PeerMessage<M>,
    context: &VerifyContext,
) -> Result<Verified<PeerMessage<M>>, Rejected> {
    Unverified::new(message).verify(context)
}

/// Checks the signature of what a client sent.
///
/// # Errors
/// [`Rejected`].
pub fn check_client(frame: Frame, context: &VerifyContext) -> Result<Verified<Frame>, Rejected> {
    Unverified::new(frame).verify(context)
}

/// A message as links carry it.
#[must_use]
pub fn encoded<M: Message>(message: &PeerMessage<M>) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    message.encode(&mut bytes);
    bytes.into()
}
