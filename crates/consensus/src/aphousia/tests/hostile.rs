//! One instance against a peer that says whatever it likes: bounded, unmoved, no panic.

use crate::aphousia::block::{Block, CertifiedBlock, Header, inline_digest};
use crate::aphousia::message::{Message, Position};
use crate::aphousia::{Instance, Recovered, Rules, Settings, Standard};
use crate::conformance::{Cluster, Random};
use crate::{Consensus, Input, Output};
use unisono_trusted::{RegisterState, VoteRegister};
use unisono_types::{Digest, Epoch, RegisterView, ReplicaId, SequenceNumber, Step, Time, Timestamp, Verified, View};

const LIAR: ReplicaId = ReplicaId(2);

pub(super) fn instance<R: Rules>(cluster: &Cluster, rules: R) -> Instance<R> {
    let id = ReplicaId(1);
    let settings = Settings::new(id, cluster.host_signer(id), cluster.membership().clone());
    let mut instance = Instance::with_rules(rules, settings, Recovered::default());
    instance.handle(Time { monotonic: 0, wall: 1_000_000 }, Input::Start, &mut Vec::new());
    instance
}

pub(super) fn says<R: Rules>(instance: &mut Instance<R>, at: u64, message: Message) -> Vec<Output<Message>> {
    let mut outbox = Vec::new();
    let now = Time { monotonic: at, wall: 1_000_000 + at };
    instance.handle(now, Input::Message { from: LIAR, message: Verified::own(message) }, &mut outbox);
    outbox
}

pub(super) fn block(cluster: &Cluster, header: Header, payload: usize) -> Block {
    let frames = vec![cluster.frame(header.step.0 * 7 + header.timestamp.0, &vec![1; payload])];
    let header = Header { inline: inline_digest(&frames), ..header };
    Block::new(cluster.membership().configuration().cluster, header, frames)
}

fn garbage(random: &mut Random, cluster: &Cluster) -> Message {
    let mut hash = Digest([0; 32]);
    hash.0[..8].copy_from_slice(&random.next().to_le_bytes());
    match random.below(5) {
        0 => {
            let mut register = cluster.register(LIAR, RegisterState::default());
            let view = RegisterView::new(Epoch(0), View(random.below(1 << 31) as u32));
            register.advance(view).unwrap();
            Message::Vote(register.certify(view, Step(1 + random.below(1 << 40)), hash).unwrap())
        }
        1 | 2 => {
            let header = Header {
                view: View(0),
                step: Step(1 + random.below(60)),
                height: SequenceNumber(1 + random.below(60)),
                parent: hash,
                timestamp: Timestamp(random.below(1 << 40)),
                ..Header::genesis(Epoch(0))
            };
            Message::Block(CertifiedBlock::bare(block(cluster, header, 4_000)))
        }
        3 => Message::Fetch(hash),
        _ => Message::Status(Position { view: View(u32::MAX), committed: SequenceNumber(u64::MAX) }),
    }
}

#[test]
fn whatever_one_peer_says_memory_stays_bounded_and_the_view_stays() {
    let cluster = Cluster::new(3, 0);
    let mut instance = instance(&cluster, Standard);
    let mut random = Random::new(1);
    let block_bytes = cluster.membership().configuration().limits.block_bytes as usize;
    let mut outputs = 0;
    for round in 0..5_000u64 {
        outputs += says(&mut instance, 1 + round, garbage(&mut random, &cluster)).len();
        let bytes: usize = instance.chain.nodes.values().map(|node| node.block.bytes()).sum();
        assert!(bytes <= 4 * block_bytes, "{bytes} bytes of blocks after {round} lies");
        assert!(instance.chain.nodes.len() <= 64 + 8);
        assert!(instance.early.values().map(Vec::len).sum::<usize>() <= 8);
    }
    assert!(outputs < 3 * 5_000, "no lie makes us shout: {outputs}");
    assert_eq!(instance.status().view, RegisterView::new(Epoch(0), View(0)));
    assert_eq!(instance.status().committed, SequenceNumber(0));
}

#[test]
fn a_lone_wish_moves_nobody_and_two_do() {
    let cluster = Cluster::new(3, 0);
    let mut instance = instance(&cluster, Standard);
    let id = cluster.membership().configuration().cluster;
    let wish = |replica| {
        let wish = unisono_types::Wish { epoch: Epoch(0), view: View(9) };
        let signer = cluster.host_signer(ReplicaId(replica));
        Message::Wish(unisono_types::Signed::sign(id, ReplicaId(replica), &signer, wish))
    };
    let advances = |outputs: &[Output<Message>]| outputs.iter().any(|output| matches!(output, Output::Advance { .. }));
    assert!(!advances(&says(&mut instance, 1, wish(2))));
    assert!(!advances(&says(&mut instance, 2, wish(2))), "twice the same");
    assert!(advances(&says(&mut instance, 3, wish(0))), "f+1 = 2: one of them is correct");
}

#[test]
fn time_from_the_future_makes_a_vote_wait_and_nothing_else() {
    let cluster = Cluster::new(3, 0);
    let mut instance = instance(&cluster, Standard);
    let base = cluster.membership().configuration().digest();
    // 0.8 s ahead of my clock, D = 0.5 s.
    let header = Header {
        step: Step(1),
        height: SequenceNumber(1),
        parent: base,
        timestamp: Timestamp(1_800_000),
        ..Header::genesis(Epoch(0))
    };
    let block = block(&cluster, header, 10);
    let mut register = cluster.register(ReplicaId(0), RegisterState::default());
    let vote = block.position();
    let certificate = Some(register.certify(vote.view, vote.step, vote.hash).unwrap());
    let certified = CertifiedBlock { certificate, ..CertifiedBlock::bare(block) };
    let mut outputs = Vec::new();
    let proposed = Input::Message { from: ReplicaId(0), message: Verified::own(Message::Block(certified)) };
    instance.handle(Time { monotonic: 0, wall: 1_000_000 }, proposed, &mut outputs);
    let certifies = |outputs: &[Output<Message>]| outputs.iter().any(|output| matches!(output, Output::Certify { .. }));
    assert!(!certifies(&outputs));
    let timer = outputs.iter().find_map(|output| match output {
        Output::SetTimer { timer, at: Some(at) } if *timer == crate::aphousia::timers::CLOCK => Some((*timer, *at)),
        _ => None,
    });
    let (timer, at) = timer.expect("it knows when to look again");
    assert!((300_000..310_000).contains(&at), "{at}");
    let mut outbox = Vec::new();
    instance.handle(Time { monotonic: at, wall: 1_000_000 + at }, Input::Timeout(timer), &mut outbox);
    assert!(certifies(&outbox), "waited for, not discarded");
}

#[test]
fn more_frames_than_there_is_room_for_are_dropped() {
    let cluster = Cluster::new(3, 0);
    let mut instance = instance(&cluster, Standard);
    for number in 1..500 {
        let mut outbox = Vec::new();
        let frame = cluster.frame(number, &[3; 4_000]);
        let now = Time { monotonic: number, wall: number };
        instance.handle(now, Input::Submit(Verified::own(frame)), &mut outbox);
    }
    let room = 4 * cluster.membership().configuration().limits.block_bytes as usize;
    assert!(instance.status().pending <= room / 4_000, "{}", instance.status().pending);
}
