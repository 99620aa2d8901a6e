//! Signed frames: what is put into the order, whole, so that everyone can check it.
//!
//! ```text
//!   wire = key (32) | signature (64) | body (canonical FrameBody)
//!   id   = H("unisono frame 1", cluster, key, body)         the signature is on id
//! ```
//! A frame covers cluster and session, never recipient, epoch or view: it outlives both and may travel through any
//! replica. Everything a client flushes at once is one frame, so signatures cost per flush, not per request.
//! Whether the key may do what the body says is decided at execution, in order, the same everywhere.

use crate::{
    CallAnswer, CallId, ClusterId, Digest, PublicKey, Rejected, RequestNumber, ScheduleChange, SequenceNumber,
    SessionId, Signature, Signer, Timestamp, Verify, VerifyContext, call, codec,
};
use alloc::{sync::Arc, vec::Vec};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use core::fmt;

const HEADER_BYTES: usize = 32 + 64;

/// What a frame says.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub enum FrameBody {
    /// Requests of one session.
    Requests {
        /// The session, opened by the same key.
        session: SessionId,
        /// Every request below this number has its answer at the client: stored replies below it may go.
        lowest_unacknowledged: RequestNumber,
        /// Number and operation, numbers strictly ascending, none below `lowest_unacknowledged`.
        requests: Vec<(RequestNumber, Bytes)>,
    },
    /// Opens a session for the signing key, whose id is this entry's position.
    Open {
        /// Chosen by the client; one key opens at most one session with one nonce.
        nonce: u64,
        /// A decision the client has heard of: a frame older than the table of nonces opens nothing.
        recent: SequenceNumber,
    },
    /// Closes a session of the signing key.
    Close {
        /// The session.
        session: SessionId,
    },
    /// An entry of a replica, signed with its host key.
    System {
        /// The entry.
        entry: SystemEntry,
        /// Makes two entries of one replica two frames.
        nonce: u64,
    },
    /// An entry of the administrator, signed with the admin key.
    Admin {
        /// The entry.
        entry: AdminEntry,
        /// Chosen by the administrator; one nonce takes effect at most once.
        nonce: u64,
        /// A decision the administrator has heard of: a frame older than the table of nonces does nothing.
        recent: SequenceNumber,
    },
    /// What the outside said to a replica about a call, signed with its host key.
    Called {
        /// The call.
        call: CallId,
        /// What was said.
        answer: CallAnswer,
    },
}

/// What the administrator puts into the order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub enum AdminEntry {
    /// Global parameters of the schedule change.
    Reconfigure(ScheduleChange),
}

/// What replicas themselves put into the order. Each takes effect by rules on ordered data alone, so one that a liar
/// repeats, withholds or invents does nothing that a correct one would not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub enum SystemEntry {
    /// The executor has used up the log with threads left that are not parked: more rounds, please.
    Flush,
    /// Agreed time moves on to this, at the most to the timestamp of the decision it stands in.
    Tick(Timestamp),
    /// Compare state: takes effect 4 096 decisions or 5 s of agreed time after the Mark before.
    Mark,
    /// Close the sessions that have been idle for longer than the limit.
    Expire,
}

/// Why bytes are no frame.
pub type FrameError = Rejected;

/// A frame as it travels, with its body already decoded. Its signature is checked by [`Verify`].
#[derive(Clone)]
pub struct Frame(Arc<Parts>);

struct Parts {
    wire: Bytes,
    id: Digest,
    key: PublicKey,
    body: FrameBody,
}

impl Frame {
    /// Signs `body`.
    #[must_use]
    pub fn sign(cluster: ClusterId, signer: &Signer, body: FrameBody) -> Self {
        let key = signer.public_key();
        let encoded = codec::encode(&body);
        let id = frame_id(cluster, &key, &encoded);
        let signature = signer.sign(&id.0);
        let mut wire = Vec::with_capacity(HEADER_BYTES + encoded.len());
        wire.extend_from_slice(&key.0);
        wire.extend_from_slice(&signature.0);
        wire.extend_from_slice(&encoded);
        Self(Arc::new(Parts { wire: wire.into(), id, key, body }))
    }

    /// Reads a frame; the signature is not yet checked (see [`Verify`]).
    ///
    /// # Errors
    /// [`Rejected::TooLarge`] above `limit` bytes, [`Rejected::Malformed`] or [`Rejected::Inconsistent`] otherwise.
    pub fn parse(cluster: ClusterId, wire: Bytes, limit: usize) -> Result<Self, Rejected> {
        if wire.len() > limit {
            return Err(Rejected::TooLarge);
        }
        let (Some(key), Some(encoded)) = (wire.first_chunk::<32>(), wire.get(HEADER_BYTES..)) else {
            return Err(Rejected::Malformed);
        };
        let key = PublicKey(*key);
        let body: FrameBody = codec::decode(encoded, limit).map_err(|_| Rejected::Malformed)?;
        if let FrameBody::Requests { lowest_unacknowledged, requests, .. } = &body {
            let ascending = requests.windows(2).all(|pair| pair[0].0 < pair[1].0);
            let above = requests.first().is_none_or(|first| first.0 >= *lowest_unacknowledged);
            if !ascending || !above {
                return Err(Rejected::Inconsistent);
            }
        }
        let id = frame_id(cluster, &key, encoded);
        Ok(Self(Arc::new(Parts { wire, id, key, body })))
    }

    /// The bytes as they travel.
    #[must_use]
    pub fn wire(&self) -> &Bytes {
        &self.0.wire
    }

    /// Names the frame: the digest that is signed.
    #[must_use]
    pub fn id(&self) -> Digest {
        self.0.id
    }

    /// Who signed it.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.0.key
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &FrameBody {
        &self.0.body
    }

    /// How many entries of the order it makes: one per request, one for anything else.
    #[must_use]
    pub fn entries(&self) -> usize {
        match &self.0.body {
            FrameBody::Requests { requests, .. } => requests.len(),
            _ => 1,
        }
    }

    /// The signature by that key.
    #[must_use]
    pub fn signature(&self) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(&self.0.wire[32..HEADER_BYTES]);
        Signature(bytes)
    }
}

fn frame_id(cluster: ClusterId, key: &PublicKey, body: &[u8]) -> Digest {
    Digest::of("unisono frame 1", &[&cluster.0, &key.0, body])
}

impl Verify for Frame {
    /// The signature, by the key that the frame names. Entries of replicas must be signed by a member's host key, those
    /// of the administrator by the admin key, and nothing may exceed its bounds.
    fn verify(&self, context: &VerifyContext) -> Result<(), Rejected> {
        let limits = &context.membership.configuration().limits;
        if self.0.wire.len() > limits.frame_bytes as usize {
            return Err(Rejected::TooLarge);
        }
        match &self.0.body {
            FrameBody::System { .. } | FrameBody::Called { .. }
                if context.membership.member_by_host_key(&self.0.key).is_none() =>
            {
                return Err(Rejected::NotAMember);
            }
            FrameBody::Called { call, .. } if !call.is_possible() => return Err(Rejected::Inconsistent),
            FrameBody::Called { answer, .. } if !call::is_bounded(answer) => return Err(Rejected::TooLarge),
            FrameBody::Admin { .. } if self.0.key != context.membership.configuration().admin_key => {
                return Err(Rejected::WrongSender);
            }
            FrameBody::Admin { entry: AdminEntry::Reconfigure(change), .. } if change.check().is_err() => {
                return Err(Rejected::Inconsistent);
            }
            FrameBody::Requests { requests, .. }
                if requests.iter().any(|(_, operation)| operation.len() > limits.operation_bytes as usize) =>
            {
                return Err(Rejected::TooLarge);
            }
            _ => {}
        }
        if context.verifier.verify(&self.0.key, &self.0.id.0, &self.signature()) {
            Ok(())
        } else {
            Err(Rejected::BadSignature)
        }
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Frame {}

impl PartialOrd for Frame {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Frame {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl core::hash::Hash for Frame {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.body {
            FrameBody::Requests { session, requests, .. } => match requests.as_slice() {
                [] => write!(f, "frame {:?} {session:?} nothing", self.0.id),
                [first, .., last] => write!(f, "frame {:?} {session:?} {:?}..{:?}", self.0.id, first.0, last.0),
                [only] => write!(f, "frame {:?} {session:?} {:?}", self.0.id, only.0),
            },
            other => write!(f, "frame {:?} {other:?}", self.0.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CALL_ANSWER_BYTES_MAX, CallRefused, Membership, Position, Unverified, Verifier,
        membership::tests::configuration,
    };

    const CLUSTER: ClusterId = ClusterId([9; 16]);

    fn context() -> VerifyContext {
        let membership = Membership::new(configuration(3)).unwrap();
        VerifyContext { cluster: CLUSTER, verifier: Verifier::ed25519(), membership }
    }

    fn requests(numbers: &[u64]) -> FrameBody {
        FrameBody::Requests {
            session: SessionId(5),
            lowest_unacknowledged: RequestNumber(1),
            requests: numbers.iter().map(|n| (RequestNumber(*n), Bytes::from_static(b"op"))).collect(),
        }
    }

    #[test]
    fn a_frame_survives_the_wire_and_any_flipped_byte_is_noticed() {
        let frame = Frame::sign(CLUSTER, &Signer::ed25519(&[1; 32]), requests(&[1, 2]));
        let parse = |bytes: Vec<u8>| Frame::parse(CLUSTER, bytes.into(), 1 << 20);
        let verify = |frame: Frame| Unverified::new(frame).verify(&context());
        let wire = frame.wire().to_vec();
        assert_eq!(verify(parse(wire.clone()).unwrap()).unwrap().get(), &frame);
        for index in 0..wire.len() {
            let mut flipped = wire.clone();
            flipped[index] ^= 1;
            assert!(parse(flipped).and_then(verify).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_frame_of_another_cluster_is_worth_nothing() {
        let frame = Frame::sign(ClusterId([8; 16]), &Signer::ed25519(&[1; 32]), requests(&[1]));
        let here = Frame::parse(CLUSTER, frame.wire().clone(), 1 << 20).unwrap();
        assert_eq!(Unverified::new(here).verify(&context()).unwrap_err(), Rejected::BadSignature);
    }

    #[test]
    fn numbers_must_grow_and_stand_above_the_acknowledged() {
        let signer = Signer::ed25519(&[1; 32]);
        for numbers in [&[2, 1][..], &[1, 1], &[0]] {
            let frame = Frame::sign(CLUSTER, &signer, requests(numbers));
            let parsed = Frame::parse(CLUSTER, frame.wire().clone(), 1 << 20);
            assert_eq!(parsed.unwrap_err(), Rejected::Inconsistent, "{numbers:?}");
        }
    }

    #[test]
    fn system_entries_are_for_members_only() {
        let body = FrameBody::System { entry: SystemEntry::Mark, nonce: 0 };
        let frame = Frame::sign(CLUSTER, &Signer::ed25519(&[1; 32]), body);
        assert_eq!(Unverified::new(frame).verify(&context()).unwrap_err(), Rejected::NotAMember);
    }

    #[test]
    fn what_the_outside_said_is_for_members_to_tell_and_bounded() {
        let member = Signer::ed25519(&[1; 32]);
        let mut configuration = configuration(3);
        configuration.members[1].host_key = member.public_key();
        let membership = Membership::new(configuration).unwrap();
        let context = VerifyContext { membership, ..context() };
        let judge = |signer: &Signer, path: &[u16], answer: CallAnswer| {
            let call = CallId { position: Position(1), path: path.to_vec(), call: 0 };
            Frame::sign(CLUSTER, signer, FrameBody::Called { call, answer }).verify(&context)
        };
        assert_eq!(judge(&member, &[1], Ok(Bytes::from_static(b"yes"))), Ok(()));
        assert_eq!(judge(&Signer::ed25519(&[2; 32]), &[1], Ok(Bytes::new())), Err(Rejected::NotAMember));
        assert_eq!(judge(&member, &[1; 9], Ok(Bytes::new())), Err(Rejected::Inconsistent));
        let long = Bytes::from(alloc::vec![0; CALL_ANSWER_BYTES_MAX + 1]);
        assert_eq!(judge(&member, &[], Ok(long)), Err(Rejected::TooLarge));
        assert_eq!(judge(&member, &[], Err(CallRefused::Failed("x".repeat(1_000)))), Err(Rejected::TooLarge));
    }

    #[test]
    fn the_administrator_alone_reconfigures_and_within_bounds() {
        let admin = Signer::ed25519(&[1; 32]);
        let mut configuration = configuration(3);
        configuration.admin_key = admin.public_key();
        let membership = Membership::new(configuration).unwrap();
        let context = VerifyContext { membership, ..context() };
        let judge = |signer: &Signer, primaries| {
            let entry = AdminEntry::Reconfigure(ScheduleChange { primaries, ..ScheduleChange::default() });
            let body = FrameBody::Admin { entry, nonce: 0, recent: SequenceNumber(0) };
            Frame::sign(CLUSTER, signer, body).verify(&context)
        };
        assert_eq!(judge(&admin, Some(3)), Ok(()));
        assert_eq!(judge(&Signer::ed25519(&[2; 32]), Some(3)), Err(Rejected::WrongSender));
        assert_eq!(judge(&admin, Some(0)), Err(Rejected::Inconsistent));
        assert_eq!(judge(&admin, None), Err(Rejected::Inconsistent), "a change that changes nothing");
    }

    #[test]
    fn short_and_long_bytes_are_refused_before_anything_is_decoded() {
        assert_eq!(Frame::parse(CLUSTER, Bytes::from_static(&[0; 95]), 1 << 20).unwrap_err(), Rejected::Malformed);
        assert_eq!(Frame::parse(CLUSTER, Bytes::from(alloc::vec![0; 200]), 100).unwrap_err(), Rejected::TooLarge);
    }
}
