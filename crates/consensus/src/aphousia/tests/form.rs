//! Messages as bytes: what is sent is what is read, anything changed is noticed, nothing makes a reader panic.

use crate::aphousia::block::{
    Block, CertifiedBlock, FRAME_OVERHEAD_BYTES, Header, Justification, Penalty, inline_digest,
};
use crate::aphousia::message::{Decided, EnteredView, Message, Position, Proof};
use crate::conformance::Cluster;
use proptest::prelude::*;
use unisono_trusted::{RegisterState, VoteRegister};
use unisono_types::bounds::HEADER_CHARGE_BYTES;
use unisono_types::{
    Bytes, Certificate, Digest, Epoch, Limits, Message as _, RegisterView, Rejected, ReplicaId, SequenceNumber, Signed,
    Step, Unverified, View, Wish,
};

fn cluster() -> Cluster {
    Cluster::new(3, 0)
}

fn block(cluster: &Cluster, step: u64, parent: Digest, frames: u64) -> Block {
    let frames: Vec<_> = (0..frames).map(|number| cluster.frame(step * 100 + number + 1, b"operation")).collect();
    let header = Header {
        step: Step(step),
        height: SequenceNumber(step),
        parent,
        inline: inline_digest(&frames),
        ..Header::genesis(Epoch(0))
    };
    Block::new(cluster.membership().configuration().cluster, header, frames)
}

fn certificate(cluster: &Cluster, replica: u16, block: &Block) -> Certificate {
    let mut register = cluster.register(ReplicaId(replica), RegisterState::default());
    let vote = block.position();
    register.certify(vote.view, vote.step, vote.hash).unwrap()
}

fn bytes(message: &Message) -> Bytes {
    let mut out = Vec::new();
    message.encode(&mut out);
    out.into()
}

fn receive(cluster: &Cluster, bytes: Bytes) -> Result<Message, Rejected> {
    let context = cluster.context();
    Ok(Unverified::new(Message::parse(bytes, &context)?).verify(&context)?.into_inner())
}

#[test]
fn a_block_may_be_as_large_as_the_limits_say_and_no_larger() {
    let cluster = cluster();
    let block = block(&cluster, 1, Digest([1; 32]), 2);
    let frames = block.frames().iter().map(|frame| frame.wire().len() + FRAME_OVERHEAD_BYTES).sum::<usize>() as u32;
    let read = |block_bytes| {
        let limits = Limits { operation_bytes: 100, frame_bytes: frames / 2, block_bytes, ..Limits::default() };
        let context = cluster.clone().with_limits(limits).context();
        CertifiedBlock::parse_all(&CertifiedBlock::bare(block.clone()).to_bytes(), &context).map(drop)
    };
    assert_eq!(read(frames), Ok(()));
    assert_eq!(read(frames - 1), Err(Rejected::TooLarge));
}

/// Two decided blocks; r0 voted for a third above them, so the proof needs its header.
fn decided(cluster: &Cluster) -> (Vec<Block>, Proof) {
    let one = block(cluster, 1, Digest([1; 32]), 2);
    let two = block(cluster, 2, one.hash(), 1);
    let three = block(cluster, 3, two.hash(), 0);
    let certificates = vec![certificate(cluster, 1, &two), certificate(cluster, 0, &three)];
    let proof = Proof { certificates, headers: vec![three.header_bytes().clone()] };
    (vec![one, two], proof)
}

fn decided_message(blocks: &[Block], proof: &Proof) -> Message {
    let blocks = blocks.iter().map(|block| CertifiedBlock::bare(block.clone()).to_bytes()).collect();
    Message::Decided(Decided::new(SequenceNumber(0), blocks, proof.to_bytes()))
}

fn samples(cluster: &Cluster) -> Vec<Message> {
    let block = block(cluster, 1, Digest([1; 32]), 3);
    let (blocks, proof) = decided(cluster);
    let id = cluster.membership().configuration().cluster;
    let wish = |replica| {
        let wish = Wish { epoch: Epoch(0), view: View(2) };
        Signed::sign(id, ReplicaId(replica), &cluster.host_signer(ReplicaId(replica)), wish)
    };
    let mut register = cluster.register(ReplicaId(2), RegisterState::default());
    let change = register.advance(RegisterView::new(Epoch(0), View(2))).unwrap();
    let certified =
        CertifiedBlock { certificate: Some(certificate(cluster, 0, &block)), ..CertifiedBlock::bare(block.clone()) };
    vec![
        Message::Block(CertifiedBlock::bare(block.clone())),
        Message::Block(certified),
        Message::Vote(certificate(cluster, 1, &block)),
        Message::Wish(wish(1)),
        Message::ViewChange(EnteredView { change, wishes: vec![wish(0), wish(1)] }),
        Message::Frames(block.frames().to_vec()),
        Message::Fetch(block.hash()),
        Message::Status(Position { view: View(3), committed: SequenceNumber(4) }),
        Message::Ask(SequenceNumber(5)),
        decided_message(&blocks, &proof),
    ]
}

#[test]
fn what_is_sent_is_what_is_read() {
    let cluster = cluster();
    for message in samples(&cluster) {
        assert_eq!(receive(&cluster, bytes(&message)), Ok(message));
    }
}

#[test]
fn a_flipped_bit_in_anything_signed_is_noticed() {
    let cluster = cluster();
    for message in samples(&cluster) {
        if matches!(message, Message::Fetch(_) | Message::Status(_) | Message::Ask(_) | Message::Decided(_)) {
            continue; // nothing in them is believed
        }
        let whole = bytes(&message);
        for index in 0..whole.len() {
            let mut flipped = whole.to_vec();
            flipped[index] ^= 1;
            // A bare block's header is signed by nobody yet: it is another block, never the same one.
            match receive(&cluster, flipped.into()) {
                Ok(Message::Block(other)) => assert_ne!(Message::Block(other), message, "byte {index}"),
                Ok(other) => panic!("byte {index} of {message:?} gave {other:?}"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn a_proof_counts_certificates_of_q_members_at_or_above_the_block() {
    let cluster = cluster();
    let (blocks, proof) = decided(&cluster);
    let verdict =
        |blocks: &[Block], proof: &Proof| receive(&cluster, bytes(&decided_message(blocks, proof))).map(|_| ());
    assert_eq!(verdict(&blocks, &proof), Ok(()));
    let fewer = Proof { certificates: proof.certificates[..1].to_vec(), ..proof.clone() };
    assert_eq!(verdict(&blocks, &fewer), Err(Rejected::Inconsistent), "q - 1");
    let twice = Proof { certificates: vec![proof.certificates[0]; 2], ..proof.clone() };
    assert_eq!(verdict(&blocks, &twice), Err(Rejected::Inconsistent), "one member twice");
    let no_header = Proof { headers: vec![], ..proof.clone() };
    assert_eq!(verdict(&blocks, &no_header), Err(Rejected::Inconsistent), "a vote that cannot be placed");
    assert_eq!(verdict(&blocks[..1], &proof), Err(Rejected::Inconsistent), "the proof of another block");
    let below =
        Proof { certificates: vec![certificate(&cluster, 2, &blocks[0]), proof.certificates[0]], headers: vec![] };
    assert_eq!(verdict(&blocks, &below), Err(Rejected::Inconsistent), "a vote below the block");
    let mut forged = proof.clone();
    forged.certificates[0].signature.0[0] ^= 1;
    assert_eq!(verdict(&blocks, &forged), Err(Rejected::BadSignature));
    let reversed: Vec<Block> = blocks.iter().rev().cloned().collect();
    assert_eq!(verdict(&reversed, &proof), Err(Rejected::Inconsistent), "not consecutive");
}

#[test]
fn frames_that_the_header_does_not_name_are_refused() {
    let cluster = cluster();
    let named = block(&cluster, 1, Digest([1; 32]), 2);
    let lie = Block::new(
        cluster.membership().configuration().cluster,
        named.header().clone(),
        vec![cluster.frame(9, b"another")],
    );
    let message = Message::Block(CertifiedBlock::bare(lie));
    assert_eq!(receive(&cluster, bytes(&message)), Err(Rejected::Inconsistent));
}

#[test]
fn a_header_of_wrong_form_is_refused_before_anything_is_compared_with_it() {
    let cluster = cluster();
    let right = block(&cluster, 1, Digest([1; 32]), 0).header().clone();
    let received = |header: Header| {
        let block = Block::new(cluster.membership().configuration().cluster, header, Vec::new());
        receive(&cluster, bytes(&Message::Block(CertifiedBlock::bare(block)))).map(drop)
    };
    assert_eq!(received(right.clone()), Ok(()));
    let justification = Some(Justification { changes: Vec::new(), checkpoint: Vec::new() });
    let penalty = Penalty { member: ReplicaId(0), count: 1, until: SequenceNumber(9) };
    let wrong = |change: fn(&mut Header), why| {
        let mut header = right.clone();
        change(&mut header);
        assert_eq!(received(header.clone()), Err(why), "{header:?}");
    };
    wrong(|header| header.epoch = Epoch(1), Rejected::Foreign);
    wrong(|header| header.step = Step(0), Rejected::Inconsistent);
    wrong(|header| header.height = SequenceNumber(0), Rejected::Inconsistent);
    wrong(|header| header.view = View(1), Rejected::Inconsistent);
    let justified = |step| Header { step: Step(step), justification: justification.clone(), ..right.clone() };
    assert_eq!(received(justified(1)), Err(Rejected::Inconsistent), "in view 0");
    assert_eq!(
        received(Header { view: View(1), ..justified(2) }),
        Err(Rejected::Inconsistent),
        "in the middle of a view"
    );
    let penalised = |count| Header { penalties: vec![penalty; count], ..right.clone() };
    assert_eq!(received(penalised(3)), Ok(()));
    assert_eq!(received(penalised(4)), Err(Rejected::TooLarge), "more than there are members");
}

#[test]
fn a_header_counts_for_what_it_takes_in_a_proof() {
    let cluster = cluster();
    let small = block(&cluster, 1, Digest([1; 32]), 0);
    assert_eq!(small.header_charge(), HEADER_CHARGE_BYTES);
    let penalties = vec![Penalty { member: ReplicaId(0), count: 1, until: SequenceNumber(9) }; 200];
    let header = Header { penalties, ..small.header().clone() };
    let large = Block::new(cluster.membership().configuration().cluster, header, Vec::new());
    let proof = |headers| Proof { certificates: Vec::new(), headers }.to_bytes().len();
    assert_eq!(large.header_charge(), proof(vec![large.header_bytes().clone()]) - proof(Vec::new()));
}

#[test]
fn a_view_change_needs_f_plus_one_distinct_wishes_or_none() {
    let cluster = cluster();
    let Some(Message::ViewChange(entered)) =
        samples(&cluster).into_iter().find(|message| matches!(message, Message::ViewChange(_)))
    else {
        panic!("a sample");
    };
    let verdict = |wishes: Vec<_>| {
        receive(&cluster, bytes(&Message::ViewChange(EnteredView { wishes, ..entered.clone() }))).map(|_| ())
    };
    assert_eq!(verdict(vec![]), Ok(()), "after a restart");
    assert_eq!(verdict(entered.wishes[..1].to_vec()), Err(Rejected::Inconsistent));
    assert_eq!(verdict(vec![entered.wishes[0]; 2]), Err(Rejected::Inconsistent));
}

#[test]
fn a_claimed_count_allocates_nothing() {
    let cluster = cluster();
    for kind in 0..=255u8 {
        let mut claim = vec![kind];
        claim.extend_from_slice(&[0xFF; 12]);
        assert!(receive(&cluster, claim.into()).is_err(), "kind {kind}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(kind in 0u8..12, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![kind];
        bytes.extend(rest);
        let _ = receive(&cluster(), bytes.into());
    }

    #[test]
    fn no_mutation_of_a_real_message_makes_a_reader_panic(
        sample in 0usize..10, at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let cluster = cluster();
        let mut whole = bytes(&samples(&cluster)[sample]).to_vec();
        let index = at.index(whole.len());
        whole[index] = value;
        let _ = receive(&cluster, whole.clone().into());
        whole.truncate(cut.index(whole.len()));
        prop_assert!(receive(&cluster, whole.into()).is_err());
    }
}
