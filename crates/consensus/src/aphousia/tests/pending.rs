//! What waits: shares, turns, blocks that are waited for, and how often it is shown to the others.

use crate::aphousia::block::CertifiedBlock;
use crate::aphousia::block::{Block, Header, inline_digest};
use crate::aphousia::message::Message;
use crate::aphousia::pending::Pending;
use crate::aphousia::{Aphousia, Recovered, Settings, share};
use crate::conformance::{Cluster, Conditions, Network};
use crate::{Consensus, Input, Output};
use proptest::prelude::*;
use std::collections::BTreeMap;
use unisono_types::{
    Bytes, CallId, ClusterId, Epoch, Frame, FrameBody, Position, PublicKey, ReplicaId, RequestNumber, SequenceNumber,
    SessionId, Signer, Step as BlockStep, SystemEntry, Time, Verified,
};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const ROOM: usize = 1 << 20;
const BATCH: usize = 16 << 10;

fn signer(client: u64) -> Signer {
    Signer::keyed(1, 100 + client)
}

fn key(client: u64) -> PublicKey {
    signer(client).public_key()
}

fn frame(client: u64, number: u64, bytes: usize) -> Frame {
    let body = FrameBody::Requests {
        session: SessionId(client),
        lowest_unacknowledged: RequestNumber(1),
        requests: vec![(RequestNumber(number), Bytes::from(vec![1; bytes]))],
    };
    Frame::sign(CLUSTER, &signer(client), body)
}

fn entry(member: u64, nonce: u64) -> Frame {
    Frame::sign(CLUSTER, &signer(member), FrameBody::System { entry: SystemEntry::Mark, nonce })
}

/// What a member was told outside.
fn word(member: u64, bytes: usize) -> Frame {
    let call = CallId { position: Position(1), path: vec![], call: 0 };
    let answer = Ok(Bytes::from(vec![1; bytes]));
    Frame::sign(CLUSTER, &signer(member), FrameBody::Called { call, answer })
}

fn block(height: u64, frames: &[Frame]) -> Block {
    let header = Header { height: SequenceNumber(height), inline: inline_digest(frames), ..Header::genesis(Epoch(0)) };
    Block::new(CLUSTER, header, frames.to_vec())
}

/// Client and number of each frame.
fn names(frames: &[Frame]) -> Vec<(u64, u64)> {
    let name = |frame: &Frame| match frame.body() {
        FrameBody::Requests { session, requests, .. } => (session.0, requests[0].0.0),
        other => panic!("{other:?}"),
    };
    frames.iter().map(name).collect()
}

#[test]
fn two_to_the_sixteen_frames_of_one_key_leave_room_and_a_turn_for_another() {
    let mut pending = Pending::new(256 << 20);
    for number in 0..1 << 16 {
        pending.add(&frame(1, number, 1));
    }
    let full = pending.len();
    assert!(full > 1 << 15 && full < 1 << 16, "there is an end to it: {full}");
    assert!(!pending.add(&frame(1, 1 << 16, 1)), "who has the greatest share gets no more");
    assert!(pending.add(&frame(2, 1, 1)), "and gives way to others");
    assert_eq!(pending.len(), full);
    assert!(pending.take_batch(BATCH, ROOM).contains(&frame(2, 1, 1)), "whose turn comes in the next block");
    assert!(pending.take_batch(BATCH, ROOM).len() > 10, "the rest of the room is the first one's");
    pending.invariants();
}

#[test]
fn who_gives_way_loses_its_last_and_who_has_little_loses_nothing() {
    let mut pending = Pending::new(ROOM);
    let room = ROOM - ROOM / 4;
    let large = room / 10;
    (0..8).for_each(|number| assert!(pending.add(&frame(1, number, large - 200))));
    (0..2).for_each(|number| assert!(pending.add(&frame(2, number, large - 200))));
    assert!(!pending.add(&frame(1, 8, large)));
    assert!(pending.add(&frame(3, 0, large)));
    assert!(pending.add(&frame(2, 2, large)), "a third one is still less than the first one has");
    let mut all = names(&pending.take_batch(ROOM, ROOM));
    all.sort_unstable();
    let first = (0..6).map(|number| (1, number));
    let expected: Vec<_> = first.chain([(2, 0), (2, 1), (2, 2), (3, 0)]).collect();
    assert_eq!(all, expected);
}

#[test]
fn of_one_key_what_comes_first_is_kept_however_late_it_is_here() {
    let room = |pending: &Pending| pending.bytes();
    let mut pending = Pending::new(ROOM);
    let sent = (2..100).filter(|number| pending.add(&frame(1, *number, 100_000))).count();
    let full = room(&pending);
    assert!(sent > 3, "the first of those found room");
    assert!(!pending.add(&frame(1, 200, 100_000)), "what comes behind them does not");
    assert!(pending.add(&frame(1, 1, 100_000)), "what comes before them does");
    assert_eq!(room(&pending), full);
    let kept: Vec<u64> = std::iter::from_fn(|| Some(pending.take_batch(BATCH, ROOM)).filter(|batch| !batch.is_empty()))
        .flat_map(|batch| names(&batch))
        .map(|(_, number)| number)
        .collect();
    assert!(kept.contains(&1) && !kept.contains(&(sent as u64 + 1)), "the last one gave way: {kept:?}");
}

#[test]
fn what_stands_in_a_block_is_not_dropped() {
    let mut pending = Pending::new(ROOM);
    let large = (ROOM - ROOM / 4) / 4;
    (0..3).for_each(|number| assert!(pending.add(&frame(1, number, large))));
    assert_eq!(pending.take_batch(ROOM, ROOM).len(), 3);
    assert!(!pending.add(&frame(2, 0, large)));
    pending.forget_proposed();
    assert!(pending.add(&frame(2, 0, large)));
}

#[test]
fn clients_take_no_room_of_members_and_a_member_has_few_entries_on_its_way() {
    let mut pending = Pending::new(ROOM);
    (0..200).for_each(|client| {
        pending.add(&frame(100 + client, 0, 10_000));
    });
    let clients = pending.len();
    assert!(clients < 200 && pending.add(&word(8, 20_000)), "more than any client has, and there is room for it");
    let taken: Vec<bool> = (0..20).map(|nonce| pending.add(&entry(8, nonce))).collect();
    assert_eq!(taken.iter().filter(|taken| **taken).count(), share::SYSTEM_MAX);
    assert!(taken[0] && !taken[19] && pending.add(&entry(9, 0)), "another member has its own");
    assert_eq!(pending.len(), clients + share::SYSTEM_MAX + 2, "no client gave way");
    pending.decided(&block(1, &[entry(8, 0)]));
    assert!(pending.add(&entry(8, 19)), "one is ordered, so there is room for one");
}

#[test]
fn keys_take_turns_and_each_keeps_its_order() {
    let mut pending = Pending::new(ROOM);
    for client in 1..=3 {
        (0..100).for_each(|number| assert!(pending.add(&frame(client, number, 1_000))));
    }
    let mut numbers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for _ in 0..3 {
        let batch = pending.take_batch(BATCH, ROOM);
        names(&batch).into_iter().for_each(|(client, number)| numbers.entry(client).or_default().push(number));
    }
    for taken in numbers.values() {
        assert!(taken.iter().copied().eq(0..taken.len() as u64), "{taken:?}");
        assert!((10..=18).contains(&taken.len()), "about a third each: {numbers:?}");
    }
    assert_eq!(numbers.len(), 3);
}

#[test]
fn a_frame_larger_than_what_is_left_of_a_block_is_first_in_the_next() {
    let mut pending = Pending::new(ROOM);
    let [small, large] = [frame(1, 0, 100), frame(2, 0, BATCH)];
    assert!(pending.add(&small) && pending.add(&large));
    (1..1_000).for_each(|number| assert!(pending.add(&frame(1, number, 100))));
    let mut blocks = Vec::new();
    while !blocks.contains(&large) {
        blocks = pending.take_batch(BATCH, ROOM);
        assert!(!blocks.is_empty());
    }
    assert_eq!(blocks.first(), Some(&large));
}

#[test]
fn a_block_is_waited_for_like_an_entry_and_gives_back_what_does_not_wait_here() {
    let mut pending = Pending::new(ROOM);
    let [mine, theirs, later] = [frame(1, 0, 1), frame(2, 0, 1), frame(1, 1, 1)];
    let [first, second] = [block(1, &[mine.clone(), theirs.clone()]), block(2, &[frame(3, 0, 1)])];
    pending.wait_for(&first);
    pending.wait_for(&second);
    assert_eq!((pending.len(), pending.oldest()), (0, Some(0)), "its frames take no room");
    assert!(pending.add(&mine) && pending.add(&later));
    assert_eq!(pending.give_back(|hash| *hash == second.hash()), [theirs]);
    assert_eq!(pending.oldest(), Some(1), "the second block");
    assert_eq!(pending.decided(&second), 0);
    assert_eq!(pending.oldest(), Some(2), "the first entry, whose block is void");
    pending.wait_for(&block(3, &[]));
    pending.decided(&block(4, &[mine, later]));
    assert_eq!(pending.oldest(), None, "a block without frames is nothing to wait for");
}

#[test]
fn what_stands_in_the_chain_is_not_taken_in_again_until_the_chain_is_another() {
    let mut pending = Pending::new(ROOM);
    let [early, late] = [frame(1, 0, 1), frame(1, 1, 1)];
    let valid = block(1, &[early.clone(), late.clone()]);
    assert!(pending.add(&early));
    pending.proposed(&valid);
    assert!(!pending.has_unproposed() && !pending.add(&late) && pending.knows(&late.id()));
    pending.forget_proposed();
    assert!(pending.has_unproposed() && pending.add(&late));
    pending.decided(&valid);
    assert!(pending.len() == 0 && !pending.knows(&early.id()) && !pending.knows(&late.id()));
}

#[test]
fn what_is_shown_begins_with_the_oldest_and_takes_one_of_each_key() {
    let mut pending = Pending::new(ROOM);
    (0..50).for_each(|number| assert!(pending.add(&frame(2, number, 100))));
    assert!(pending.add(&frame(1, 0, 100)));
    assert_eq!(names(&pending.show(0)), [(2, 0)], "one at least");
    assert_eq!(names(&pending.show(1_000))[..3], [(2, 0), (1, 0), (2, 1)]);
    let shown = block(1, &[frame(2, 0, 100), frame(2, 40, 100)]);
    assert_eq!(pending.decided(&shown), frame(2, 0, 100).wire().len(), "the other one was not shown");
}

/// Times and numbers of frames of what r1 showed to the others.
fn shown(network: &mut Network<Aphousia>) -> Vec<(f64, usize)> {
    let lines = network.trace.replace(Vec::new()).unwrap_or_default();
    let of_frames = lines.iter().filter(|line| line.contains("r1 to all: frames ["));
    let read = |line: &String| {
        let time = line.split_whitespace().next().and_then(|time| time.parse().ok());
        (time.expect("a line begins with its time"), line.matches('x').count())
    };
    of_frames.map(read).collect()
}

#[test]
fn a_replica_that_gets_nothing_done_shows_less_and_less_and_then_as_much_as_is_decided() {
    let mut network: Network<Aphousia> = Network::new(Cluster::new(3, 0), 1, Conditions::CALM);
    network.trace = Some(Vec::new());
    network.start(ReplicaId(1));
    for number in 1..=200 {
        let frame = network.cluster().frame(number, &[1; 500]);
        network.submit(ReplicaId(1), frame, "x");
    }
    network.trace = Some(Vec::new());
    network.run(30_000_000);
    let alone = shown(&mut network);
    let frames: usize = alone.iter().map(|(_, frames)| frames).sum();
    assert!(alone[0].1 > 50 && frames < 3 * alone[0].1, "half as many each time, all in all {frames}: {alone:?}");
    let [.., (before, _), (last, one)] = alone[..] else { panic!("{alone:?}") };
    assert!(one == 1 && last - before > 4_000.0 && alone.len() < 16, "less and less often: {alone:?}");
    for id in [0, 2] {
        network.start(ReplicaId(id));
        network.tell_link(ReplicaId(id), true);
    }
    network.run(20_000_000);
    assert_eq!(network.verdict(), Ok(()));
    assert_eq!(network.instance(ReplicaId(1)).map(|instance| instance.pending.len()), Some(0), "all is decided");
}

/// The first block of view 0, which r0 leads, and the frame in it.
fn first_block(cluster: &Cluster) -> (Block, Frame) {
    let frame = cluster.frame(1, b"x");
    let configuration = cluster.membership().configuration();
    let header = Header {
        step: BlockStep(1),
        height: SequenceNumber(1),
        parent: configuration.digest(),
        inline: inline_digest(std::slice::from_ref(&frame)),
        ..Header::genesis(Epoch(0))
    };
    (Block::new(configuration.cluster, header, vec![frame.clone()]), frame)
}

fn instance(cluster: &Cluster, id: u16, recovered: Recovered) -> (Aphousia, Vec<Output<Message>>) {
    let settings = Settings::new(ReplicaId(id), cluster.host_signer(ReplicaId(id)), cluster.membership().clone());
    let mut instance = Aphousia::new(settings, recovered);
    let mut outbox = Vec::new();
    instance.handle(Time { monotonic: 1, wall: 1 }, Input::Start, &mut outbox);
    (instance, outbox)
}

fn offered(outputs: &[Output<Message>]) -> Vec<Frame> {
    let frames = outputs.iter().filter_map(|output| match output {
        Output::Offer(frames) => Some(frames.clone()),
        _ => None,
    });
    frames.flatten().collect()
}

#[test]
fn only_a_block_that_came_from_its_proposer_is_waited_for() {
    let cluster = Cluster::new(3, 0);
    for (from, waits) in [(2, false), (0, true)] {
        let (mut instance, mut outbox) = instance(&cluster, 1, Recovered::default());
        let block = Message::Block(CertifiedBlock::bare(first_block(&cluster).0));
        let message = Verified::own(block);
        let now = Time { monotonic: 2, wall: 2 };
        instance.handle(now, Input::Message { from: ReplicaId(from), message }, &mut outbox);
        assert_eq!(instance.pending.oldest().is_some(), waits, "from r{from}");
        assert_eq!(instance.status().pending, 0);
    }
}

#[test]
fn an_own_block_that_was_never_certified_gives_its_frames_back_after_a_restart() {
    let cluster = Cluster::new(3, 0);
    let (block, frame) = first_block(&cluster);
    let blocks = vec![CertifiedBlock::bare(block).to_bytes()];
    let recovered = Recovered { blocks, ..Recovered::default() };
    assert_eq!(offered(&instance(&cluster, 0, recovered.clone()).1), [frame]);
    assert_eq!(offered(&instance(&cluster, 1, recovered).1), [], "the leader may still stand by it");
}

#[test]
fn frames_that_are_shown_are_offered_once_and_then_not_even_checked() {
    let cluster = Cluster::new(3, 0);
    let (mut instance, mut outbox) = instance(&cluster, 1, Recovered::default());
    let [one, other] = [1, 2].map(|number| cluster.frame(number, b"x"));
    let shown = Message::Frames(vec![one.clone(), other.clone()]);
    let now = Time { monotonic: 2, wall: 2 };
    instance.handle(now, Input::Submit(Verified::own(one.clone())), &mut outbox);
    assert!(instance.is_wanted(ReplicaId(2), &shown));
    let input = Input::Message { from: ReplicaId(2), message: Verified::own(shown.clone()) };
    instance.handle(now, input, &mut outbox);
    assert_eq!((offered(&outbox), Aphousia::offered(&shown)), (vec![other.clone()], [one, other.clone()].as_slice()));
    instance.handle(now, Input::Admitted(Verified::own(other)), &mut outbox);
    assert!(!instance.is_wanted(ReplicaId(2), &shown));
}

#[test]
fn who_leads_in_turn_is_told_of_what_a_client_gave_and_not_of_what_all_were_shown() {
    let cluster = Cluster::new(3, 1);
    let (mut instance, _) = instance(&cluster, 1, Recovered::default());
    let now = Time { monotonic: 2, wall: 2 };
    for (number, told) in [(1, true), (2, false)] {
        let frame = Verified::own(cluster.frame(number, b"x"));
        let mut outbox = Vec::new();
        instance.handle(now, if told { Input::Submit(frame) } else { Input::Admitted(frame) }, &mut outbox);
        let sent = outbox.iter().any(|output| matches!(output, Output::Send { message: Message::Frames(_), .. }));
        assert_eq!(sent, told);
    }
    assert_eq!(instance.status().pending, 2);
}

#[derive(Clone, Debug)]
enum Step {
    Add { client: u64, number: u64, bytes: usize },
    Take,
    Decide,
    Void,
}

fn step() -> impl Strategy<Value = Step> {
    let add = (0..5u64, 0..40u64, 1..3_000usize);
    prop_oneof![
        8 => add.prop_map(|(client, number, bytes)| Step::Add { client, number, bytes }),
        1 => Just(Step::Take),
        1 => Just(Step::Decide),
        1 => Just(Step::Void),
    ]
}

proptest! {
    /// Whatever happens, what is kept about shares is what is there, and nobody loses a frame for another's while its
    /// share is not above all others'.
    #[test]
    fn shares_are_kept_exactly_and_only_the_greatest_lose(steps in proptest::collection::vec(step(), 1..200)) {
        let mut pending = Pending::new(32 << 10);
        let mut proposed: Vec<Frame> = Vec::new();
        for step in steps {
            let before = pending.counted();
            match step {
                Step::Add { client, number, bytes } => {
                    let frame = frame(client, number, bytes);
                    let known = pending.knows(&frame.id());
                    let added = pending.add(&frame);
                    prop_assert!(!(known && added));
                    let after = pending.counted();
                    let own = after.get(&key(client)).map_or(0, |(_, bytes)| *bytes);
                    for (owner, (frames, bytes)) in &before {
                        let left = after.get(owner).copied().unwrap_or_default();
                        let lost = left.0 < *frames;
                        // A little slack: frames weigh beside bytes. Of its own, a key loses what comes behind.
                        prop_assert!(!lost || *owner == key(client) || bytes + 64 > own, "{owner:?}");
                    }
                }
                Step::Take => proposed.extend(pending.take_batch(4 << 10, 8 << 10)),
                Step::Decide => drop(pending.decided(&block(1, &std::mem::take(&mut proposed)))),
                Step::Void => {
                    proposed.clear();
                    pending.forget_proposed();
                }
            }
            pending.invariants();
            pending.counted();
        }
    }
}
