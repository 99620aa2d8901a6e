//! Every decoder of the vocabulary against bytes from someone who means harm: no panic, no acceptance of what was not
//! signed, and what is accepted encodes to exactly the bytes that were read.

use proptest::{collection::vec, prelude::*};
use unisono_types::{
    AdminEntry, Answer, Bytes, CallId, CallRefused, ClientMessage, ClusterId, Configuration, Digest, Epoch, Frame,
    FrameBody, Outcome, Position, ReplicaId, Reply, ReplyBody, RequestNumber, ScheduleChange, ScheduleOrder,
    SchedulePredicate, SequenceNumber, SessionId, Signer, decode, encode,
};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const LIMIT: usize = 1 << 16;

/// Reads `bytes` as every type there is; whatever is accepted must be canonical.
fn read_as_everything(bytes: &[u8]) {
    fn canonical<T: borsh::BorshSerialize + borsh::BorshDeserialize>(bytes: &[u8]) {
        if let Ok(value) = decode::<T>(bytes, LIMIT) {
            assert_eq!(encode(&value), bytes, "two encodings of one value");
        }
    }
    canonical::<FrameBody>(bytes);
    canonical::<Reply>(bytes);
    canonical::<Answer>(bytes);
    canonical::<ClientMessage>(bytes);
    canonical::<Configuration>(bytes);
    canonical::<Outcome>(bytes);
    if let Ok(frame) = Frame::parse(CLUSTER, Bytes::copy_from_slice(bytes), LIMIT) {
        assert_eq!(frame.wire().as_ref(), bytes);
    }
}

fn a_frame(operations: &[Vec<u8>]) -> Frame {
    let requests = operations.iter().zip(1..).map(|(op, n)| (RequestNumber(n), Bytes::copy_from_slice(op))).collect();
    let body = FrameBody::Requests { session: SessionId(9), lowest_unacknowledged: RequestNumber(1), requests };
    Frame::sign(CLUSTER, &Signer::ed25519(&[3; 32]), body)
}

fn entries() -> [Frame; 2] {
    let signer = Signer::ed25519(&[3; 32]);
    let change = ScheduleChange {
        primaries: Some(64),
        order: Some(ScheduleOrder::Explicit(vec![0, 1, 1])),
        predicate: Some(SchedulePredicate::FutureLocks),
        ..ScheduleChange::default()
    };
    let entry = AdminEntry::Reconfigure(change);
    let call = CallId { position: Position(7), path: vec![1, 2], call: 3 };
    [
        FrameBody::Admin { entry, nonce: 5, recent: SequenceNumber(4) },
        FrameBody::Called { call, answer: Err(CallRefused::Failed("no".into())) },
    ]
    .map(|body| Frame::sign(CLUSTER, &signer, body))
}

fn a_reply(result: &[u8]) -> Reply {
    let full = ReplyBody::Full(Ok(Bytes::copy_from_slice(result)));
    let digest = ReplyBody::Digest(Digest::of("d", &[result]));
    let answer = |number, body| Answer::Executed { session: SessionId(9), number: RequestNumber(number), body };
    Reply {
        epoch: Epoch(0),
        leader: ReplicaId(1),
        executed: SequenceNumber(4),
        answers: vec![answer(1, full), answer(2, digest), Answer::Opened { nonce: 3, session: SessionId(9) }],
    }
}

proptest! {
    #[test]
    fn random_bytes_harm_nobody(bytes in vec(any::<u8>(), 0..600)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_values_harm_nobody(
        operations in vec(vec(any::<u8>(), 0..40), 1..5),
        flips in vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let entries = entries().map(|frame| frame.wire().to_vec());
        for valid in [a_frame(&operations).wire().to_vec(), encode(&a_reply(&operations[0]))].into_iter().chain(entries) {
            read_as_everything(&valid);
            read_as_everything(&valid[..cut.index(valid.len())]);
            let mut damaged = valid;
            for (index, flip) in &flips {
                let index = index.index(damaged.len());
                damaged[index] ^= flip;
            }
            read_as_everything(&damaged);
        }
    }

    #[test]
    fn a_reply_is_the_same_for_who_gets_it_whole_and_who_gets_its_digest(result in vec(any::<u8>(), 0..100)) {
        let outcome: Outcome = Ok(result.into());
        let full = ReplyBody::Full(outcome.clone());
        prop_assert_eq!(full.digest(), ReplyBody::Digest(ReplyBody::digest_of(&outcome)).digest());
    }
}
