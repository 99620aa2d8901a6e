//! Handing decided blocks on and taking them in: what is kept was checked, sizes fit, nobody's turn lasts for ever.

use crate::aphousia::block::{Block, CertifiedBlock, Header, inline_digest};
use crate::aphousia::message::{Decided, Message, Position, Proof};
use crate::aphousia::planted::Planted;
use crate::aphousia::{Instance, Recovered, Rules, Settings, Standard};
use crate::conformance::{Cluster, Conditions, Network};
use crate::{Consensus, Contradiction, Input, Output, RegisterAnswer, StableCheckpoint};
use unisono_trusted::{RegisterState, VoteRegister};
use unisono_types::{
    Certificate, Digest, Epoch, Frame, Message as _, Rejected, ReplicaId, SequenceNumber, Signed, Step, Time,
    Timestamp, Unverified, Verified, View, Wish,
};

const WALL: u64 = 1_000_000;

struct Replica<R: Rules> {
    cluster: Cluster,
    instance: Instance<R>,
    now: u64,
}

impl<R: Rules> Replica<R> {
    fn new(cluster: &Cluster, id: u16, rules: R) -> Self {
        let id = ReplicaId(id);
        let settings = Settings::new(id, cluster.host_signer(id), cluster.membership().clone());
        let instance = Instance::with_rules(rules, settings, Recovered::default());
        let mut replica = Self { cluster: cluster.clone(), instance, now: 0 };
        replica.input(Input::Start);
        replica
    }

    fn input(&mut self, input: Input<Message>) -> Vec<Output<Message>> {
        let mut outbox = Vec::new();
        self.instance.handle(Time { monotonic: self.now, wall: WALL + self.now }, input, &mut outbox);
        outbox
    }

    /// What a peer says, over the wire.
    fn hears(&mut self, from: u16, message: &Message) -> Result<Vec<Output<Message>>, Rejected> {
        let message = receive(&self.cluster, message)?;
        Ok(self.input(Input::Message { from: ReplicaId(from), message }))
    }

    fn is_told_height(&mut self, from: u16, height: u64) -> Vec<Output<Message>> {
        self.hears(from, &Message::Status(Position { view: View(0), committed: SequenceNumber(height) })).unwrap()
    }

    fn height(&self) -> u64 {
        self.instance.status().committed.0
    }
}

fn receive(cluster: &Cluster, message: &Message) -> Result<Verified<Message>, Rejected> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    assert!(bytes.len() <= cluster.membership().bounds().link, "{} bytes in one message", bytes.len());
    let context = cluster.context();
    Unverified::new(Message::parse(bytes.into(), &context)?).verify(&context)
}

fn asked(outputs: &[Output<Message>]) -> Vec<u16> {
    let to = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message: Message::Ask(_) } => Some(to.0),
        _ => None,
    });
    to.collect()
}

fn certifies(outputs: &[Output<Message>]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Certify { .. } | Output::Advance { .. }))
}

fn contradiction(outputs: &[Output<Message>]) -> Option<&Contradiction> {
    outputs.iter().find_map(|output| match output {
        Output::Contradiction(contradiction) => Some(contradiction),
        _ => None,
    })
}

/// The blocks 1, 2, ... of view 0 with these frames.
fn chain(cluster: &Cluster, frames: Vec<Vec<Frame>>) -> Vec<Block> {
    let mut parent = cluster.membership().configuration().digest();
    let mut blocks = Vec::new();
    for (frames, number) in frames.into_iter().zip(1..) {
        let header = Header {
            step: Step(number),
            height: SequenceNumber(number),
            parent,
            timestamp: Timestamp(WALL),
            inline: inline_digest(&frames),
            ..Header::genesis(Epoch(0))
        };
        let block = Block::new(cluster.membership().configuration().cluster, header, frames);
        parent = block.hash();
        blocks.push(block);
    }
    blocks
}

fn certificate(cluster: &Cluster, replica: u16, block: &Block) -> Certificate {
    let mut register = cluster.register(ReplicaId(replica), RegisterState::default());
    let vote = block.position();
    register.certify(vote.view, vote.step, vote.hash).unwrap()
}

/// Each with the certificate of `proposer`.
fn certified(cluster: &Cluster, blocks: &[Block], proposer: u16) -> Vec<CertifiedBlock> {
    let certified = blocks.iter().map(|block| CertifiedBlock {
        certificate: Some(certificate(cluster, proposer, block)),
        ..CertifiedBlock::bare(block.clone())
    });
    certified.collect()
}

/// The blocks as decided by r0 and r1 in favour of the last.
fn decided(cluster: &Cluster, blocks: &[CertifiedBlock]) -> Message {
    let last = &blocks.last().unwrap().block;
    let certificates = vec![certificate(cluster, 0, last), certificate(cluster, 1, last)];
    let proof = Proof { certificates, headers: vec![] };
    let committed = last.header().height;
    Message::Decided(Decided::new(committed, blocks.iter().map(CertifiedBlock::to_bytes).collect(), proof.to_bytes()))
}

fn frames(cluster: &Cluster, numbers: std::ops::RangeInclusive<u64>) -> Vec<Vec<Frame>> {
    numbers.map(|number| vec![cluster.frame(number, &[1; 10])]).collect()
}

/// The block with another signature of its first frame.
fn signed_otherwise(cluster: &Cluster, block: &Block) -> Block {
    let mut wire = block.frames()[0].wire().to_vec();
    wire[40] ^= 1;
    let id = cluster.membership().configuration().cluster;
    let frame = Frame::parse(id, wire.into(), 8_192).unwrap();
    assert_eq!(frame.id(), block.frames()[0].id());
    Block::new(id, block.header().clone(), vec![frame])
}

#[test]
fn the_proof_of_decided_blocks_covers_the_signatures_of_their_frames() {
    let cluster = Cluster::new(3, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=2));
    let good = certified(&cluster, &blocks, 0);
    assert!(receive(&cluster, &decided(&cluster, &good)).is_ok());
    let other = CertifiedBlock { block: signed_otherwise(&cluster, &blocks[0]), ..good[0].clone() };
    let verdict = receive(&cluster, &decided(&cluster, &[other, good[1].clone()]));
    assert_eq!(verdict, Err(Rejected::Inconsistent), "the header names another signature");
}

#[test]
fn certificates_that_come_with_decided_blocks_are_not_believed_kept_or_handed_on() {
    let cluster = Cluster::new(3, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=3));
    let mut forged = certified(&cluster, &blocks, 1); // r1 did not propose them
    let mut unchecked = certificate(&cluster, 0, &blocks[0]);
    unchecked.signature.0[0] ^= 1;
    forged[0].certificate = Some(unchecked);
    forged[1].parent_certificate = Some(unchecked);
    let mut laggard = Replica::new(&cluster, 2, Standard);
    laggard.is_told_height(1, 3);
    let outputs = laggard.hears(1, &decided(&cluster, &forged)).unwrap();
    assert_eq!(laggard.height(), 3);
    let context = cluster.context();
    let stored: Vec<CertifiedBlock> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Persist { record: crate::Record::Block { bytes, .. }, .. } => Some(bytes),
            _ => None,
        })
        .map(|bytes| CertifiedBlock::parse_all(bytes, &context).unwrap())
        .collect();
    assert_eq!(stored.len(), 3);
    assert!(stored.iter().all(|block| block.certificate.is_none() && block.parent_certificate.is_none()));
    // By name it is not handed on: nobody could build on it. Where this replica stands tells the asker what to do.
    let answer = laggard.hears(0, &Message::Fetch(blocks[1].hash())).unwrap();
    let stands = Position { view: View(0), committed: SequenceNumber(3) };
    let said = |output: &Output<Message>| matches!(output, Output::Send { to: ReplicaId(0), message: Message::Status(at) } if *at == stands);
    assert!(answer.iter().any(said), "{answer:?}");
}

#[test]
fn decided_blocks_follow_the_rules() {
    let cluster = Cluster::new(3, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=3));
    let verdict = |blocks: &[CertifiedBlock]| {
        let mut laggard = Replica::new(&cluster, 2, Standard);
        assert_eq!(asked(&laggard.is_told_height(1, 3)), [1]);
        let outputs = laggard.hears(1, &decided(&cluster, blocks)).unwrap();
        let suspected = outputs.iter().any(|output| matches!(output, Output::Suspect { .. }));
        (laggard.height(), suspected)
    };
    assert_eq!(verdict(&certified(&cluster, &blocks, 0)), (3, false));
    let bare: Vec<CertifiedBlock> = blocks.iter().cloned().map(CertifiedBlock::bare).collect();
    assert_eq!(verdict(&bare), (3, false));
    let mut header = blocks[2].header().clone();
    header.timestamp = Timestamp(WALL - 1);
    let backwards = Block::new(cluster.membership().configuration().cluster, header, blocks[2].frames().to_vec());
    let invalid = [blocks[0].clone(), blocks[1].clone(), backwards];
    assert_eq!(verdict(&certified(&cluster, &invalid, 0)), (0, true), "time runs backwards");
}

#[test]
fn what_is_served_passes_the_checks_of_who_receives_it() {
    let cluster = Cluster::new(3, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=3));
    let mut server = Replica::new(&cluster, 2, Standard);
    for block in certified(&cluster, &blocks, 0) {
        server.hears(0, &Message::Block(block.clone())).unwrap();
        server.hears(1, &Message::Vote(certificate(&cluster, 1, &block.block))).unwrap();
    }
    assert_eq!(server.height(), 3);
    let outputs = server.hears(0, &Message::Ask(SequenceNumber(0))).unwrap();
    let fetched = server.hears(0, &Message::Fetch(blocks[1].hash())).unwrap();
    let mut served = 0;
    for output in outputs.iter().chain(&fetched) {
        if let Output::Send { message: message @ (Message::Decided(_) | Message::Block(_)), .. } = output {
            assert!(receive(&cluster, message).is_ok());
            served += 1;
        }
    }
    assert_eq!(served, 2);
}

#[test]
fn another_history_that_is_proven_ends_certifying_for_good() {
    let cluster = Cluster::new(3, 0);
    let ours = chain(&cluster, frames(&cluster, 1..=2));
    let theirs = chain(&cluster, frames(&cluster, 11..=13));
    for length in 1..=3 {
        let mut replica = Replica::new(&cluster, 2, Standard);
        replica.is_told_height(1, 2);
        replica.hears(1, &decided(&cluster, &certified(&cluster, &ours, 0))).unwrap();
        assert_eq!(replica.height(), 2);
        assert!(!asked(&replica.is_told_height(0, 9)).is_empty());
        let shown = decided(&cluster, &certified(&cluster, &theirs[..length], 0));
        let outputs = replica.hears(0, &shown).unwrap();
        let found = contradiction(&outputs).expect("a contradiction");
        assert_eq!((found.sequence, found.from), (SequenceNumber(1), Some(ReplicaId(0))));
        assert_eq!((found.ours, found.theirs), (ours[0].hash(), theirs[0].hash()));
        let three = chain(&cluster, frames(&cluster, 1..=3)).pop().unwrap();
        let next = certified(&cluster, &[three], 0).pop().unwrap();
        assert!(!certifies(&replica.hears(0, &Message::Block(next)).unwrap()), "it votes no more");
        replica.now += 10_000_000;
        assert!(contradiction(&replica.is_told_height(0, 9)).is_none(), "told once");
    }
}

#[test]
fn a_run_that_stands_on_another_block_than_ours_is_a_contradiction_too() {
    let cluster = Cluster::new(3, 0);
    let ours = chain(&cluster, frames(&cluster, 1..=1));
    let theirs = chain(&cluster, frames(&cluster, 11..=12));
    let mut replica = Replica::new(&cluster, 2, Standard);
    replica.is_told_height(1, 1);
    replica.hears(1, &decided(&cluster, &certified(&cluster, &ours, 0))).unwrap();
    replica.is_told_height(0, 9);
    let outputs = replica.hears(0, &decided(&cluster, &certified(&cluster, &theirs[1..], 0))).unwrap();
    let found = contradiction(&outputs).expect("a contradiction");
    assert_eq!((found.sequence, found.theirs), (SequenceNumber(1), theirs[0].hash()));
}

#[test]
fn a_stable_checkpoint_of_another_history_is_a_contradiction() {
    let cluster = Cluster::new(3, 0);
    let ours = chain(&cluster, frames(&cluster, 1..=1));
    let mut replica = Replica::new(&cluster, 2, Standard);
    replica.is_told_height(1, 1);
    replica.hears(1, &decided(&cluster, &certified(&cluster, &ours, 0))).unwrap();
    let signed = [0, 1].map(|id| cluster.checkpoint(ReplicaId(id), SequenceNumber(1), Digest([5; 32])));
    let stable = StableCheckpoint { checkpoint: signed[0].statement, signatures: signed.to_vec() };
    let outputs = replica.input(Input::Stable(stable));
    let found = contradiction(&outputs).expect("a contradiction");
    assert_eq!((found.ours, found.theirs, found.from), (ours[0].hash(), Digest([5; 32]), None));
}

/// r2 decides blocks of the greatest size together, by the votes of r0 and r1 for the last, and r1 catches up from it.
fn hand_on_large_group<R: Rules>(rules: R, count: u64) -> Result<u64, Rejected> {
    let cluster = Cluster::new(3, 0);
    let large = (0..count).map(|block| (1..=16).map(|n| cluster.frame(block * 16 + n, &[7; 3_900])).collect());
    let blocks = chain(&cluster, large.collect());
    let mut server = Replica::new(&cluster, 2, rules.clone());
    for block in certified(&cluster, &blocks, 0) {
        server.hears(0, &Message::Block(block)).unwrap();
    }
    let last = blocks.last().unwrap();
    server.hears(1, &Message::Vote(certificate(&cluster, 1, last))).unwrap();
    assert_eq!(server.height(), count, "decided together");
    let mut laggard = Replica::new(&cluster, 1, rules);
    let mut question = asked(&laggard.is_told_height(2, count)).len();
    while question > 0 {
        let after = SequenceNumber(laggard.height());
        let answer = server.hears(1, &Message::Ask(after)).unwrap();
        let Some(Output::Send { message, .. }) = answer.first() else { break };
        let outputs = laggard.hears(2, message)?;
        question = asked(&outputs).len();
    }
    Ok(laggard.height())
}

#[test]
fn large_blocks_decided_together_are_handed_on_in_pieces() {
    assert_eq!(hand_on_large_group(Standard, 3), Ok(3));
    assert_eq!(hand_on_large_group(Planted::GroupsUncut, 3), Err(Rejected::TooLarge));
}

#[test]
fn a_piece_is_proven_by_the_headers_above_it_and_nothing_less() {
    let cluster = Cluster::new(3, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=3));
    let certificates = vec![certificate(&cluster, 0, &blocks[2]), certificate(&cluster, 1, &blocks[2])];
    let proof = Proof { certificates, headers: vec![] };
    let context = cluster.context();
    assert_eq!(proof.of_ancestor(&[&blocks[1], &blocks[2]]).verify(&blocks[0], &context), Ok(()));
    assert_eq!(proof.of_ancestor(&[&blocks[2]]).verify(&blocks[1], &context), Ok(()));
    assert_eq!(proof.of_ancestor(&[&blocks[2]]).verify(&blocks[0], &context), Err(Rejected::Inconsistent), "a gap");
    assert_eq!(proof.verify(&blocks[1], &context), Err(Rejected::Inconsistent));
}

#[test]
fn decided_blocks_that_were_not_asked_for_are_not_looked_at() {
    let cluster = Cluster::new(3, 0);
    let message = decided(&cluster, &certified(&cluster, &chain(&cluster, frames(&cluster, 1..=1)), 0));
    let mut replica = Replica::new(&cluster, 2, Standard);
    assert!(!replica.instance.is_wanted(ReplicaId(1), &message));
    replica.hears(1, &message).unwrap();
    assert_eq!(replica.height(), 0);
    replica.is_told_height(1, 1);
    assert!(replica.instance.is_wanted(ReplicaId(1), &message));
    assert!(!replica.instance.is_wanted(ReplicaId(0), &message), "another was asked");
    replica.hears(1, &message).unwrap();
    assert_eq!(replica.height(), 1);
    assert!(!replica.instance.is_wanted(ReplicaId(1), &message), "answered");
}

#[test]
fn what_is_known_past_or_of_a_stranger_is_not_wanted() {
    let cluster = Cluster::new(3, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=2));
    let certified = certified(&cluster, &blocks, 0);
    let mut replica = Replica::new(&cluster, 2, Standard);
    let block = Message::Block(certified[0].clone());
    assert!(replica.instance.is_wanted(ReplicaId(0), &block));
    assert!(!replica.instance.is_wanted(ReplicaId(1), &block), "r1 does not propose in view 0");
    assert!(!replica.instance.is_wanted(ReplicaId(7), &block));
    assert!(!replica.instance.is_wanted(ReplicaId(2), &block), "itself");
    replica.hears(0, &block).unwrap();
    assert!(!replica.instance.is_wanted(ReplicaId(0), &block), "known");
    let vote = Message::Vote(certificate(&cluster, 1, &blocks[1]));
    assert!(replica.instance.is_wanted(ReplicaId(1), &vote));
    replica.hears(1, &vote).unwrap();
    assert!(!replica.instance.is_wanted(ReplicaId(1), &vote), "kept for its block");
    let (id, peer) = (cluster.membership().configuration().cluster, ReplicaId(1));
    let wish = Wish { epoch: Epoch(0), view: View(1) };
    let wish = Message::Wish(Signed::sign(id, peer, &cluster.host_signer(peer), wish));
    assert!(replica.instance.is_wanted(peer, &wish));
    replica.hears(1, &wish).unwrap();
    assert!(!replica.instance.is_wanted(peer, &wish), "heard");
    let asked_for = Message::Block(certified[1].clone());
    assert!(replica.instance.is_wanted(ReplicaId(1), &asked_for), "fetched by name from who voted for it");
    replica.is_told_height(1, 2);
    replica.hears(1, &decided(&cluster, &certified)).unwrap();
    assert_eq!(replica.height(), 2);
    assert!(!replica.instance.is_wanted(ReplicaId(1), &vote) && !replica.instance.is_wanted(ReplicaId(0), &block));
}

#[test]
fn signatures_are_counted_before_any_is_checked() {
    let cluster = Cluster::new(3, 0);
    let blocks = certified(&cluster, &chain(&cluster, frames(&cluster, 1..=2)), 0);
    let count = |message: &Message| Instance::<Standard>::signatures(receive(&cluster, message).unwrap().get());
    assert_eq!(count(&Message::Block(blocks[0].clone())), 2, "certificate, frame");
    assert_eq!(count(&decided(&cluster, &blocks)), 2, "those of the proof");
    assert_eq!(count(&Message::Fetch(Digest::ZERO)), 0);
}

#[test]
fn a_peer_that_says_it_is_ahead_and_never_answers_keeps_nobody_from_being_asked() {
    let cluster = Cluster::new(5, 0);
    let mut laggard = Replica::new(&cluster, 4, Standard);
    assert_eq!(asked(&laggard.is_told_height(0, u64::MAX)), [0]);
    assert!(asked(&laggard.is_told_height(1, 5)).is_empty(), "one turn at a time");
    let mut of_liar = 0;
    for _ in 0..100 {
        laggard.now += 90_000;
        of_liar += asked(&laggard.is_told_height(0, u64::MAX)).len();
    }
    assert!(of_liar <= 6, "asked {of_liar} times in 9 s");
    assert_eq!(asked(&laggard.is_told_height(1, 5)), [1]);
}

#[test]
fn an_answer_makes_nobodys_turn_longer() {
    let cluster = Cluster::new(3, 0);
    let blocks = certified(&cluster, &chain(&cluster, frames(&cluster, 1..=3)), 0);
    let mut laggard = Replica::new(&cluster, 2, Standard);
    assert_eq!(asked(&laggard.is_told_height(0, 3)), [0]);
    laggard.is_told_height(1, 3);
    // r0 gives away as little as it can.
    assert_eq!(asked(&laggard.hears(0, &decided(&cluster, &blocks[..1])).unwrap()), [1], "the next in line");
    assert_eq!(asked(&laggard.hears(1, &decided(&cluster, &blocks[..2])).unwrap()), [0]);
    assert_eq!(laggard.height(), 2);
}

/// What a peer draws in ten seconds by asking every 10 ms, for ever new places or always the same: answers and readings.
fn draw(places: impl Fn(u64) -> u64) -> usize {
    let cluster = Cluster::new(3, 0);
    let blocks = certified(&cluster, &chain(&cluster, frames(&cluster, 1..=40)), 0);
    let mut server = Replica::new(&cluster, 2, Standard);
    server.is_told_height(1, 40);
    server.hears(1, &decided(&cluster, &blocks)).unwrap();
    // Everything is in the log only, but for the last.
    server.instance.chain.truncate(SequenceNumber(40));
    let mut served = 0;
    for round in 0..1_000 {
        server.now += 10_000;
        let outputs = server.hears(0, &Message::Ask(SequenceNumber(places(round)))).unwrap();
        served += outputs.iter().filter(|output| matches!(output, Output::Provide(_))).count();
    }
    served
}

#[test]
fn a_peer_draws_only_so_much_from_the_log() {
    let all = draw(|round| round % 39);
    assert!((160..200).contains(&all), "{all} readings in 10 s: 16 a second, and the first second's");
    let same = draw(|_| 3);
    assert!(same <= 12, "{same} readings of the same place");
}

#[test]
fn a_replica_that_is_far_behind_says_nothing_but_that_it_is() {
    let cluster = Cluster::new(3, 0);
    let blocks = certified(&cluster, &chain(&cluster, frames(&cluster, 1..=1)), 0);
    let mut laggard = Replica::new(&cluster, 2, Standard);
    laggard.input(Input::Submit(Verified::own(cluster.frame(9, b"waits here"))));
    laggard.is_told_height(0, 10_000);
    assert!(certifies(&laggard.hears(0, &Message::Block(blocks[0].clone())).unwrap()), "one word is not enough");
    let mut laggard = Replica::new(&cluster, 2, Standard);
    laggard.input(Input::Submit(Verified::own(cluster.frame(9, b"waits here"))));
    laggard.is_told_height(0, 10_000);
    laggard.is_told_height(1, 10_000);
    let far = chain(&cluster, frames(&cluster, 1..=2));
    let mut outputs = laggard.hears(0, &Message::Block(blocks[0].clone())).unwrap();
    outputs.extend(laggard.hears(1, &Message::Vote(certificate(&cluster, 1, &far[1]))).unwrap());
    for timer in 0..6 {
        laggard.now += 20_000_000;
        outputs.extend(laggard.input(Input::Timeout(crate::TimerId(timer))));
    }
    let says = |message: &Message| matches!(message, Message::Wish(_) | Message::Fetch(_) | Message::Vote(_));
    for output in &outputs {
        match output {
            Output::Send { message, .. } | Output::Broadcast(message) => assert!(!says(message), "{message:?}"),
            _ => {}
        }
    }
    assert!(!certifies(&outputs));
    assert!(!asked(&outputs).is_empty());
    // Near again, it takes part again.
    laggard.is_told_height(0, 1);
    assert!(certifies(&laggard.hears(0, &Message::Block(blocks[0].clone())).unwrap()));
}

#[test]
fn a_follower_that_returns_catches_up_first_and_deposes_nobody() {
    let mut network: Network<Instance<Standard>> = Network::new(Cluster::new(3, 0), 1, Conditions::CALM);
    network.ids().for_each(|id| network.start(id));
    let late = ReplicaId(2);
    network.cut(late, ReplicaId(0));
    network.cut(late, ReplicaId(1));
    let mut number = 0;
    let mut load = |network: &mut Network<Instance<Standard>>, decisions: u64| {
        for _ in 0..decisions {
            number += 1;
            let frame = network.cluster().frame(number, &[1; 3_000]);
            network.submit(ReplicaId(0), frame, "");
            network.run(5_000);
        }
    };
    load(&mut network, 600);
    let (behind, ahead) = (network.checks.height_of(late), network.checks.height());
    assert!(ahead.0 - behind.0 > 500);
    network.mend();
    network.trace = Some(Vec::new());
    load(&mut network, 200);
    let trace = network.trace.take().unwrap();
    let near = trace.iter().position(|line| line.contains("r2 certifies")).expect("it votes again");
    assert!(trace[..near].iter().filter(|line| line.contains("r2 decides")).count() > 300, "only when it is near");
    let says = |what: &str| trace[..near].iter().filter(|line| line.contains("r2 to") && line.contains(what)).count();
    assert!(says("wish") == 0 && says("fetch") <= 4, "{} blocks fetched before it knew", says("fetch"));
    let behind = network.checks.height().0 - network.checks.height_of(late).0;
    assert!(behind <= 2, "{behind} behind after a second");
    for id in network.ids() {
        assert_eq!(network.instance(id).unwrap().status().view.view(), View(0));
    }
    network.verdict().unwrap();
}

#[test]
fn a_replica_that_was_stopped_checks_little_of_what_has_come_meanwhile_and_accuses_nobody() {
    let cluster = Cluster::new(3, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=1_000));
    let mut late = Replica::new(&cluster, 2, Standard);
    late.is_told_height(0, 2);
    late.is_told_height(1, 2);
    late.input(Input::Submit(Verified::own(cluster.frame(9_999, b"waits here"))));
    // The first blocks never came. What follows in its links is old, and what it asks for overtakes it.
    let answers = certified(&cluster, &blocks[..100], 0);
    let mut checked = 0;
    for (index, block) in blocks.iter().enumerate().skip(2) {
        let votes = [0, 1].map(|id| (id, Message::Vote(certificate(&cluster, id, block))));
        let proposal = (0, Message::Block(CertifiedBlock::bare(block.clone())));
        for (from, message) in core::iter::once(proposal).chain(votes) {
            if late.instance.is_wanted(ReplicaId(from), &message) {
                checked += 1;
                late.hears(from, &message).unwrap();
            }
        }
        // First r0 answers, then r1: each is at 1 000.
        for (number, from) in [(20, 0), (30, 1)] {
            if index == number {
                late.now += 110_000; // the turn of the other is over
                late.is_told_height(from, 50);
                let run = &answers[late.height() as usize..2 * number];
                let Message::Decided(run) = decided(&cluster, run) else { unreachable!() };
                let run = Decided::new(SequenceNumber(1_000), run.blocks().to_vec(), run.proof().clone());
                late.hears(from, &Message::Decided(run)).unwrap();
                assert_eq!(late.height(), 2 * number as u64);
            }
        }
    }
    assert!(checked < 300, "{checked} of 3 000");
    assert!(!late.instance.wants_frames());
    let mut outputs = Vec::new();
    for _ in 0..10 {
        late.now += 1_000_000;
        outputs.extend((0..7).flat_map(|timer| late.input(Input::Timeout(crate::TimerId(timer)))));
    }
    assert!(!outputs.iter().any(is_wish), "it knows how far the others are");
    assert_eq!(late.instance.status().complaints.by_reason().iter().map(|(_, count)| count).sum::<u64>(), 0);
    assert!(!asked(&outputs).is_empty());
}

fn is_wish(output: &Output<Message>) -> bool {
    matches!(output, Output::Broadcast(Message::Wish(_)))
}

#[test]
fn steps_far_above_are_looked_at_until_their_sender_says_that_it_has_decided_more() {
    let cluster = Cluster::new(3, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=101));
    let mut late = Replica::new(&cluster, 2, Standard);
    let vote = Message::Vote(certificate(&cluster, 0, &blocks[100]));
    let block = Message::Block(CertifiedBlock::bare(blocks[100].clone()));
    assert!(late.instance.is_wanted(ReplicaId(0), &vote));
    assert!(late.instance.is_wanted(ReplicaId(0), &block));
    assert_eq!(asked(&late.hears(0, &block).unwrap()), [0], "at once");
    late.is_told_height(0, 100);
    let vote = Message::Vote(certificate(&cluster, 0, &blocks[90]));
    let block = Message::Block(CertifiedBlock::bare(blocks[90].clone()));
    assert!(!late.instance.is_wanted(ReplicaId(0), &vote) && !late.instance.is_wanted(ReplicaId(0), &block));
    let near = Message::Vote(certificate(&cluster, 0, &blocks[60]));
    assert!(late.instance.is_wanted(ReplicaId(0), &near));
}

#[test]
fn a_wish_that_stands_is_repeated_while_everything_else_is_decided() {
    let cluster = Cluster::new(3, 0);
    let mut replica = Replica::new(&cluster, 2, Standard);
    replica.input(Input::Submit(Verified::own(cluster.frame(9_999, b"held back"))));
    let blocks = chain(&cluster, frames(&cluster, 1..=1_000));
    let mut register = cluster.register(ReplicaId(2), RegisterState::default());
    let (mut wishes, mut probed) = (0, 1);
    for block in certified(&cluster, &blocks, 0) {
        replica.now += 12_000; // no pause
        let mut outputs = replica.hears(1, &Message::Echo(probed)).unwrap();
        outputs.extend(replica.hears(0, &Message::Block(block.clone())).unwrap());
        outputs.extend(replica.hears(1, &Message::Vote(certificate(&cluster, 1, &block.block))).unwrap());
        outputs.extend((0..7).flat_map(|timer| replica.input(Input::Timeout(crate::TimerId(timer)))));
        while !outputs.is_empty() {
            for output in std::mem::take(&mut outputs) {
                match output {
                    Output::Broadcast(Message::Wish(_)) => wishes += 1,
                    Output::Broadcast(Message::Probe(at)) => probed = at,
                    Output::Certify { view, step, hash } => {
                        let answer = RegisterAnswer::Certificate(register.certify(view, step, hash).unwrap());
                        outputs.extend(replica.input(Input::Answered(answer)));
                    }
                    _ => {}
                }
            }
        }
    }
    assert_eq!(replica.height(), 1_000);
    assert!(wishes >= 10, "{wishes} in 12 s");
    assert_eq!(replica.instance.status().complaints.time_out, 1);
}

#[test]
fn a_wish_that_is_not_repeated_lapses() {
    let cluster = Cluster::new(3, 0);
    let wish = |id: u16| {
        let of_one = Wish { epoch: Epoch(0), view: View(1) };
        let id = ReplicaId(id);
        Message::Wish(Signed::sign(cluster.membership().configuration().cluster, id, &cluster.host_signer(id), of_one))
    };
    let advances = |seconds: &[u64], last: u64| {
        let mut replica = Replica::new(&cluster, 2, Standard);
        for second in seconds {
            replica.now = second * 1_000_000;
            replica.input(Input::Timeout(crate::TimerId(3)));
            assert!(replica.instance.is_wanted(ReplicaId(0), &wish(0)));
            replica.hears(0, &wish(0)).unwrap();
        }
        replica.now = last * 1_000_000;
        let outputs = replica.hears(1, &wish(1)).unwrap();
        outputs.iter().any(|output| matches!(output, Output::Advance { .. }))
    };
    assert!(advances(&[1], 9), "two slow moments within seconds are one");
    assert!(!advances(&[1], 12));
    assert!(advances(&[1, 7, 13], 22), "one that stands is said again");
    let mut replica = Replica::new(&cluster, 2, Standard);
    replica.hears(0, &wish(0)).unwrap();
    assert!(!replica.instance.is_wanted(ReplicaId(0), &wish(0)), "not at once");
    replica.now = 9_000_000;
    replica.input(Input::Timeout(crate::TimerId(3)));
    assert!(!replica.instance.is_wanted(ReplicaId(1), &wish(0)), "r1 keeps nobody else's wish alive");
}

/// Seconds until something is decided after 100 views in which every message took six seconds.
fn seconds_to_recover<S: crate::conformance::Subject>(cluster: Cluster) -> Option<u64> {
    let slow = Conditions { delay: (6_000_000, 6_000_000), ..Conditions::CALM };
    let mut network: Network<S> = Network::new(cluster, 1, slow);
    network.ids().for_each(|id| network.start(id));
    for minute in 1..=200 {
        let frame = network.cluster().frame(minute, &[1; 100]);
        network.submit(ReplicaId((minute % 3) as u16), frame, "");
        network.run(60_000_000);
        let view = network.instance(ReplicaId(0)).map_or(0, |instance| instance.status().view.view().0);
        if view > 100 {
            break;
        }
    }
    let view = network.instance(ReplicaId(0)).map_or(0, |instance| instance.status().view.view().0);
    assert!(view > 100, "{view}: there was trouble");
    network.conditions = Conditions::CALM;
    let frame = network.cluster().frame(1_000, b"after the trouble");
    let id = frame.id();
    network.submit(ReplicaId(0), frame, "");
    // What is still on its way arrives, late.
    let recovered = (1..=60).find(|_| {
        network.run(1_000_000);
        network.checks.is_decided(&id)
    });
    network.verdict().unwrap();
    recovered
}

/// Whom a replica asks for the first block of the chain.
fn asked_for(outputs: &[Output<Message>], block: &Block) -> Vec<u16> {
    let asked = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message: Message::Fetch(hash) } if *hash == block.hash() => Some(to.0),
        _ => None,
    });
    asked.collect()
}

#[test]
fn a_block_that_is_missing_is_asked_for_where_it_must_be_and_of_everybody_else_in_turn() {
    let cluster = Cluster::new(4, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=3));
    let mut replica = Replica::new(&cluster, 3, Standard);
    let vote = Message::Vote(certificate(&cluster, 2, &blocks[0]));
    assert_eq!(asked_for(&replica.hears(2, &vote).unwrap(), &blocks[0]), [2], "who voted for it has it");
    assert_eq!(asked_for(&replica.hears(2, &vote).unwrap(), &blocks[0]), [], "once");
    let certified = certified(&cluster, &blocks, 0);
    let next = Message::Block(certified[1].clone());
    assert_eq!(asked_for(&replica.hears(0, &next).unwrap(), &blocks[0]), [0], "who builds on it has it, too");
    // Nobody answers.
    let mut asked = Vec::new();
    while asked.len() < 6 && replica.now < 20_000_000 {
        replica.now += 50_000;
        let outputs = replica.input(Input::Timeout(crate::aphousia::timers::RETRY));
        asked.extend(asked_for(&outputs, &blocks[0]).into_iter().map(|peer| (peer, replica.now / 100_000)));
    }
    let peers: Vec<u16> = asked.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(peers, [0, 1, 2, 0, 1, 2], "in turn, and nobody asks itself");
    assert!(asked[2].1 < 5, "everybody within half a second: {asked:?}");
}

#[test]
fn what_comes_from_the_leader_just_now_is_not_asked_for() {
    let cluster = Cluster::new(3, 0);
    let blocks = chain(&cluster, frames(&cluster, 1..=1));
    let asks = |from, bytes| {
        let mut replica = Replica::new(&cluster, 2, Standard);
        replica.input(Input::Arriving { from: ReplicaId(from), bytes });
        let vote = Message::Vote(certificate(&cluster, 1, &blocks[0]));
        !asked_for(&replica.hears(1, &vote).unwrap(), &blocks[0]).is_empty()
    };
    assert!(!asks(0, 100_000), "votes overtake the pieces of a block");
    assert!(asks(0, 0) && asks(1, 100_000), "from anybody else it may be anything");
    let ends: [fn() -> Option<Input<Message>>; 3] = [
        || Some(Input::Arriving { from: ReplicaId(0), bytes: 0 }),
        || Some(Input::Link { peer: ReplicaId(0), up: false }),
        || None, // nothing comes any more
    ];
    for end in ends {
        let mut replica = Replica::new(&cluster, 2, Standard);
        replica.input(Input::Arriving { from: ReplicaId(0), bytes: 100_000 });
        replica.hears(1, &Message::Vote(certificate(&cluster, 1, &blocks[0]))).unwrap();
        let again = |replica: &mut Replica<Standard>| {
            replica.now += 800_000;
            asked_for(&replica.input(Input::Timeout(crate::aphousia::timers::RETRY)), &blocks[0])
        };
        assert_eq!(again(&mut replica), [], "nor by a repetition");
        end().into_iter().for_each(|end| drop(replica.input(end)));
        assert_eq!(again(&mut replica), [1], "until it is here, or will not be");
    }
}

#[test]
fn any_number_of_views_that_decide_nothing_stops_nobody() {
    let cluster = Cluster::new(3, 0);
    let recovers = |rule: Planted| {
        let variant = Planted::ALL.into_iter().chain(Planted::STORIES).position(|other| other == rule).unwrap();
        seconds_to_recover::<Instance<Planted>>(cluster.clone().of_variant(variant))
    };
    // Time-outs as they should be let no such views come about.
    let recovered = recovers(Planted::ShortTimeouts);
    assert!(recovered.is_some_and(|seconds| seconds <= 30), "{recovered:?}");
    assert_eq!(recovers(Planted::AheadCounted), None);
}

/// Three of seven fill what they can; then the leader, r0, proposes a block of the greatest size.
fn leader_is_heard<R: Rules>(rules: R) -> bool {
    let cluster = Cluster::new(7, 0);
    let mut replica = Replica::new(&cluster, 3, rules);
    let mut number = 0;
    for view in (0..28u32).filter(|view| (4..7).contains(&(view % 7))) {
        let liar = (view % 7) as u16;
        for step in 2..6 {
            number += 16;
            let frames: Vec<Frame> = (0..16).map(|n| cluster.frame(number + n, &[1; 3_900])).collect();
            let header = Header {
                view: View(view),
                step: Step(step),
                height: SequenceNumber(step),
                parent: Digest([liar as u8; 32]),
                inline: inline_digest(&frames),
                ..Header::genesis(Epoch(0))
            };
            let block = Block::new(cluster.membership().configuration().cluster, header, frames);
            replica.hears(liar, &Message::Block(CertifiedBlock::bare(block))).unwrap();
        }
    }
    let bytes: usize = replica.instance.chain.nodes.values().map(|node| node.block.frame_bytes()).sum();
    assert!(bytes <= 3 * cluster.membership().bounds().share, "{bytes} bytes of three liars");
    let large = (0..16).map(|n| cluster.frame(10_000 + n, &[1; 3_900])).collect();
    let block = certified(&cluster, &chain(&cluster, vec![large]), 0).pop().unwrap();
    certifies(&replica.hears(0, &Message::Block(block)).unwrap())
}

#[test]
fn liars_take_no_room_from_a_correct_leader() {
    assert!(leader_is_heard(Standard));
    assert!(!leader_is_heard(Planted::SharesInCommon));
}

#[test]
fn a_full_chain_is_not_added_to() {
    // r0 leads alone for a while: nobody answers, and it has more to propose than a chain may hold.
    let cluster = Cluster::new(3, 0);
    let mut leader = Replica::new(&cluster, 0, Standard);
    leader.instance.settings.tuning.in_flight = 100;
    let mut register = cluster.register(ReplicaId(0), RegisterState::default());
    for number in 1..=60 {
        let outputs = leader.input(Input::Submit(Verified::own(cluster.frame(number, &[1; 4_000]))));
        for output in outputs {
            if let Output::Certify { view, step, hash } = output {
                let certificate = register.certify(view, step, hash).unwrap();
                leader.input(Input::Answered(RegisterAnswer::Certificate(certificate)));
            }
        }
    }
    let bounds = cluster.membership().bounds();
    let bytes: usize = leader.instance.chain.nodes.values().map(|node| node.block.frame_bytes()).sum();
    assert!(bytes >= bounds.chain && bytes <= bounds.vote, "{bytes}");
}

#[test]
fn the_encodings_stay_within_the_table() {
    let cluster = Cluster::new(7, 0);
    let bounds = cluster.membership().bounds();
    let id = cluster.membership().configuration().cluster;
    let mut registers: Vec<_> =
        cluster.membership().ids().map(|id| cluster.register(id, RegisterState::default())).collect();
    let view = unisono_types::RegisterView::new(Epoch(0), View(7));
    let changes = registers[..4].iter_mut().map(|register| register.advance(view).unwrap()).collect();
    let checkpoint = (0..4).map(|id| cluster.checkpoint(ReplicaId(id), SequenceNumber(1), Digest::ZERO)).collect();
    let penalties = (0..7)
        .map(|member| crate::aphousia::Penalty { member: ReplicaId(member), count: 1, until: SequenceNumber(9) })
        .collect();
    let header = Header {
        view: View(7),
        step: Step(1),
        height: SequenceNumber(2),
        inline: inline_digest(&[]),
        penalties,
        justification: Some(crate::aphousia::Justification { changes, checkpoint }),
        ..Header::genesis(Epoch(0))
    };
    let block = Block::new(id, header, vec![]);
    assert_eq!(block.header_bytes().len(), bounds.header);
    let vote = block.position();
    let both = Some(registers[0].certify(vote.view, vote.step, vote.hash).unwrap());
    let whole = CertifiedBlock { block: block.clone(), certificate: both, parent_certificate: both };
    assert!(whole.to_bytes().len() <= block.bytes());
}
