//! Stories about what is let into the order, over the real algorithm: whatever peers show, and however often.

use super::MARKS;
use super::instant::Instant;
use super::world::{Order, World};
use crate::testing::{client_signer, context, host_signer, membership, membership_with};
use crate::{Input, Output, PeerMessage};
use unisono_consensus::aphousia::{Aphousia, Message};
use unisono_types::{
    Done, Frame, FrameBody, ReplicaId, RequestNumber, SequenceNumber, SessionId, SystemEntry, Timestamp, Unverified,
    Verified,
};

fn world(seed: u64) -> World<Aphousia> {
    World::new(seed, membership(3), MARKS)
}

fn runs<C: Order>(world: &World<C>, session: SessionId, number: u64) -> Vec<u32> {
    let of = |node: &super::world::Node<C>| node.executor.runs.get(&(session, RequestNumber(number))).copied();
    world.nodes.iter().map(|node| of(node).unwrap_or(0)).collect()
}

/// How often a frame stands in the order of replica `id`.
fn places<C: Order>(world: &World<C>, id: u16, frame: &Frame) -> usize {
    let decisions = world.decisions(id);
    decisions.iter().flat_map(|decision| &decision.frames).filter(|ordered| *ordered == frame).count()
}

/// Replica `from` shows these frames to the leader, verified as a host verifies what is not stale. Whether it was.
fn show(world: &mut World<Aphousia>, from: u16, frames: &[Frame]) -> bool {
    let message = PeerMessage::Consensus(Message::Frames(frames.to_vec()));
    let stale = !world.nodes[0].replica.is_wanted(ReplicaId(1), &message);
    let message = Unverified::new(message).verify(&context(&world.membership)).unwrap();
    world.input(ReplicaId(0), Input::Peer { from: ReplicaId(from), message });
    stale
}

#[test]
fn what_was_ordered_once_is_not_ordered_again_however_often_a_peer_shows_it() {
    let mut world = world(1);
    let open = world.frame(0, FrameBody::Open { nonce: 7, recent: SequenceNumber(0) });
    let session = world.open(0, 7);
    let request = world.requests(0, session, 1, &[(1, "a")]);
    let cluster = world.membership.configuration().cluster;
    let body = FrameBody::System { entry: SystemEntry::Flush, nonce: 5 };
    let entry = Frame::sign(cluster, &host_signer(2), body);
    assert!(!show(&mut world, 2, &[request.clone(), entry.clone()]), "new, so it must be checked");
    world.pass(50_000);
    for _ in 0..5 {
        for frame in [&open, &request, &entry] {
            assert!(show(&mut world, 2, std::slice::from_ref(frame)), "worth no signature check: {frame:?}");
            world.pass(1_100_000);
        }
    }
    for frame in [&open, &request, &entry] {
        assert_eq!(places(&world, 0, frame), 1, "{frame:?}");
    }
    assert_eq!(runs(&world, session, 1), [1; 3]);
    assert_eq!(world.nodes[0].replica.status().counters.useless_offers, 15);
}

#[test]
fn a_tick_that_is_not_later_than_the_last_is_not_let_in() {
    let mut world = world(9);
    let cluster = world.membership.configuration().cluster;
    let tick = |time, nonce| {
        let body = FrameBody::System { entry: SystemEntry::Tick(Timestamp(time)), nonce };
        Frame::sign(cluster, &host_signer(2), body)
    };
    for (time, nonce, places_after) in [(100, 1, 1), (100, 2, 0), (99, 3, 0), (101, 4, 1)] {
        let frame = tick(time, nonce);
        show(&mut world, 2, std::slice::from_ref(&frame));
        world.pass(50_000);
        assert_eq!(places(&world, 0, &frame), places_after, "{frame:?}");
    }
}

#[test]
fn frames_of_strangers_and_of_closed_sessions_take_no_room() {
    let mut world = world(2);
    let session = world.open(0, 7);
    let close = world.frame(0, FrameBody::Close { session });
    world.send_frame(0, &[0, 1, 2], &close);
    world.pass(50_000);
    let height = world.nodes[0].replica.status().height;
    let mut foreign: Vec<Frame> = (0..200).map(|number| world.requests(50 + number, session, 1, &[(1, "x")])).collect();
    foreign.extend((0..200).map(|nonce| world.frame(50 + nonce, FrameBody::Open { nonce, recent: SequenceNumber(0) })));
    foreign.push(world.requests(0, session, 1, &[(1, "of the closed session")]));
    assert!(show(&mut world, 2, &foreign));
    assert_eq!(world.nodes[0].replica.status().pending_frames, 0);
    world.pass(1_000_000);
    let status = world.nodes[0].replica.status();
    assert_eq!((status.height, status.counters.useless_offers), (height, 401));
    assert_eq!(status.leader, ReplicaId(0), "and nobody waits for them");
}

/// A client says one thing to the followers and another under the same number to the leader, again and again. The views
/// that pass meanwhile.
fn views_of_a_two_faced_client(to_followers: &[&str]) -> u32 {
    let mut world = world(10);
    let session = world.open(0, 7);
    for number in 1..40 {
        let to_leader = world.requests(0, session, number, &[(number, "a")]);
        let said: Vec<(u64, &str)> = to_followers.iter().map(|operation| (number, *operation)).collect();
        let to_followers = world.requests(0, session, number, &said);
        world.send_frame(0, &[1, 2], &to_followers);
        world.pass(4_000);
        world.send_frame(0, &[0], &to_leader);
        world.pass(400_000);
    }
    assert_eq!(runs(&world, session, 39), [1; 3]);
    world.nodes.iter().map(|node| node.replica.status().view.0).max().unwrap()
}

#[test]
fn a_client_that_says_one_thing_to_followers_and_another_to_the_leader_deposes_nobody() {
    assert_eq!(views_of_a_two_faced_client(&["b"]), 0, "another operation");
    assert_eq!(views_of_a_two_faced_client(&[]), 0, "nothing, which only acknowledges");
}

#[test]
fn a_client_that_floods_leaves_the_next_block_to_another() {
    let many = 1 << 13;
    let change = |limits: &mut unisono_types::Limits| limits.window = 2 * many;
    let mut world: World<Aphousia> = World::new(3, membership_with(3, change), MARKS);
    let [flooding, modest] = [world.open(0, 7), world.open(1, 7)];
    // Nothing is decided, so the leader has its blocks in flight and the rest waits.
    world.crash(ReplicaId(1));
    world.crash(ReplicaId(2));
    for number in 1..=u64::from(many) {
        let operation = format!("{:0>500}", number);
        let frame = world.requests(0, flooding, 1, &[(number, operation.as_str())]);
        world.send_frame(0, &[0], &frame);
    }
    let frame = world.requests(1, modest, 1, &[(1, "a")]);
    world.send_frame(1, &[0], &frame);
    assert!(world.nodes[0].replica.status().pending_frames > 6_000);
    let height = world.nodes[0].replica.status().height;
    world.restart(ReplicaId(1));
    world.restart(ReplicaId(2));
    world.pass(400_000);
    let holds = |decision: &unisono_consensus::Decision| decision.frames.contains(&frame);
    let decision = world.decisions(0).into_iter().find(holds).expect("it is ordered");
    assert_eq!(decision.sequence, SequenceNumber(height.0 + 3), "two were in flight before it came");
    assert_eq!(runs(&world, modest, 1), [1; 3]);
}

#[test]
fn a_session_opens_and_requests_run_when_only_a_follower_is_asked() {
    let mut world = world(4);
    let open = world.frame(0, FrameBody::Open { nonce: 7, recent: SequenceNumber(0) });
    world.send_frame(0, &[1], &open);
    world.pass(500_000);
    let session = SessionId(unisono_types::Position::new(SequenceNumber(1), 0).unwrap().0);
    let frame = world.requests(0, session, 1, &[(1, "a")]);
    world.send_frame(0, &[2], &frame);
    world.pass(500_000);
    assert_eq!(runs(&world, session, 1), [1; 3]);
    assert_eq!(world.nodes[1].replica.status().view.0, 0, "the leader was told in time");
}

#[test]
fn requests_survive_their_leader_whoever_knew_of_them() {
    // One follower was told; or only the leader, whose block came, but never its certificate.
    for told in [1, 0] {
        let mut world = world(5);
        let session = world.open(0, 7);
        let frame = world.requests(0, session, 1, &[(1, "a"), (2, "b")]);
        world.send_frame(0, &[told], &frame);
        world.crash(ReplicaId(0));
        world.pass(2_000_000);
        assert_eq!(
            (runs(&world, session, 1)[1..].to_vec(), runs(&world, session, 2)[1..].to_vec()),
            (vec![1; 2], vec![1; 2])
        );
        assert_eq!(places(&world, 1, &frame), 1);
        world.restart(ReplicaId(0));
        world.pass(2_000_000);
        assert_eq!(runs(&world, session, 2), [1; 3]);
        assert_eq!(places(&world, 0, &frame), 1);
        assert!(world.nodes.iter().all(|node| node.replica.status().pending_frames == 0));
    }
}

#[test]
fn a_frame_that_is_ahead_of_its_replica_waits_for_its_session() {
    let mut world = world(6);
    world.crash(ReplicaId(2));
    let session = world.open(0, 7);
    world.restart(ReplicaId(2));
    let frame = world.requests(0, session, 1, &[(1, "a")]);
    world.send_frame(0, &[2], &frame);
    assert_eq!((world.nodes[2].replica.status().height.0, world.nodes[2].replica.status().pending_frames), (0, 0));
    world.pass(2_000_000);
    assert_eq!(runs(&world, session, 1), [1; 3], "though its client sent it once, to the one that was behind");
}

#[test]
fn a_replica_whose_clock_was_set_back_is_not_taken_for_a_repetition() {
    let mut world: World<Instant> = World::new(7, membership(3), MARKS);
    let flush = Input::Done(Done::Starved { flush: true, tick: None });
    let mut nonces = Vec::new();
    for _ in 0..2 {
        world.input(ReplicaId(0), flush.clone());
        world.pass(50_000);
        let decisions = world.decisions(0);
        let FrameBody::System { nonce, .. } = decisions.last().unwrap().frames[0].body() else { panic!("a Flush") };
        nonces.push(*nonce);
        world.crash(ReplicaId(0));
        world.now.wall -= 300_000_000;
        world.restart(ReplicaId(0));
    }
    assert!(nonces[0] < nonces[1], "{nonces:?}");
}

#[test]
fn a_members_word_is_let_in_until_it_is_settled_and_others_words_never() {
    let mut world = world(8);
    let session = world.open(0, 7);
    let frame = world.requests(0, session, 1, &[(1, "park call t")]);
    world.send_frame(0, &[0, 1, 2], &frame);
    world.pass(2_000_000);
    assert!(world.nodes.iter().all(|node| node.executor.answers == 1));
    let decisions = world.decisions(0);
    let frames = decisions.iter().flat_map(|decision| &decision.frames);
    let words: Vec<Frame> = frames.filter(|frame| matches!(frame.body(), FrameBody::Called { .. })).cloned().collect();
    assert!(words.len() >= 2, "f+1 equal ones made the answer");
    let height = world.nodes[0].replica.status().height;
    for frame in &words {
        let from = world.membership.member_by_host_key(&frame.key()).unwrap().id;
        let message = Verified::own(PeerMessage::Submission(frame.clone()));
        world.input(ReplicaId(0), Input::Peer { from, message });
        assert!(show(&mut world, 2, std::slice::from_ref(frame)));
    }
    let stolen = Frame::sign(world.membership.configuration().cluster, &client_signer(0), words[0].body().clone());
    let mut out = Vec::new();
    let message = Verified::own(PeerMessage::Consensus(Message::Frames(vec![stolen])));
    world.nodes[0].replica.handle(world.now, Input::Peer { from: ReplicaId(2), message }, &mut out);
    assert!(!out.iter().any(|output| matches!(output, Output::Broadcast(_))), "no block: {out:?}");
    world.pass(100_000);
    assert_eq!(world.nodes[0].replica.status().height, height);
}
