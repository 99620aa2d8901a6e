//! Stories about what comes from outside: entries of the administrator, and answers to calls of handlers.

use super::world;
use super::world::World;
use crate::testing::{admin_signer, client_signer, host_signer};
use crate::{Input, PeerMessage};
use unisono_types::{
    AdminEntry, Answer, Bytes, CallAnswer, CallId, CallRefused, Fault, Frame, FrameBody, Position, ReplicaId,
    ReplyBody, ScheduleChange, SequenceNumber, SessionId, Verified,
};

fn change(primaries: u32) -> FrameBody {
    let change = ScheduleChange { primaries: Some(primaries), ..ScheduleChange::default() };
    let entry = AdminEntry::Reconfigure(change);
    FrameBody::Admin { entry, nonce: u64::from(primaries), recent: SequenceNumber(0) }
}

/// Sent to some replicas over the administrator's links.
fn administer(world: &mut World, to: &[u16], body: FrameBody) {
    let frame = Frame::sign(world.membership.configuration().cluster, &admin_signer(), body);
    for id in to {
        world.input(ReplicaId(*id), Input::Admin(Verified::own(frame.clone())));
    }
    world.pass(100_000);
}

/// What each replica's execution was told to change.
fn changes(world: &World) -> Vec<Vec<u32>> {
    let numbers = |changes: &[ScheduleChange]| changes.iter().filter_map(|change| change.primaries).collect();
    world.nodes.iter().map(|node| numbers(&node.executor.changes)).collect()
}

#[test]
fn the_administrator_changes_the_schedule_everywhere_once() {
    let mut world = world(1);
    administer(&mut world, &[0, 1, 2], change(5));
    administer(&mut world, &[2], change(6));
    assert_eq!(changes(&world), [[5, 6], [5, 6], [5, 6]], "through any replica");
    let place = world.nodes[0].replica.administered_at(5).unwrap();
    assert!(world.nodes.iter().all(|node| node.replica.administered_at(5) == Some(place)));
    let height = world.nodes[0].replica.status().height;
    administer(&mut world, &[1], change(5));
    assert_eq!(world.nodes[0].replica.status().height, height, "what took effect is not even ordered again");
    // By a leader that does not look.
    world.order(1, &admin_signer(), change(5));
    world.pass(100_000);
    assert!(world.nodes[0].replica.status().height > height);
    assert_eq!(changes(&world), [[5, 6], [5, 6], [5, 6]]);
}

#[test]
fn others_cannot_pass_for_the_administrator() {
    let mut world = world(2);
    world.open(0, 7);
    let cluster = world.membership.configuration().cluster;
    let before = world.nodes[0].replica.status().height;
    let key = client_signer(0).public_key();
    let as_client = Frame::sign(cluster, &client_signer(0), change(5));
    let connection = crate::ConnectionId(0);
    world.input(ReplicaId(0), Input::Client { connection, key, frame: Verified::own(as_client) });
    let close = Frame::sign(cluster, &admin_signer(), FrameBody::Close { session: SessionId(1) });
    world.input(ReplicaId(0), Input::Admin(Verified::own(close)));
    world.pass(100_000);
    let status = world.nodes[0].replica.status();
    assert_eq!((status.height, status.counters.foreign_frames), (before, 2));
}

/// A world in which client 0 has asked for a call of `target`, and its session.
fn calling(seed: u64, target: &str, outside: fn(ReplicaId, &str) -> Option<CallAnswer>) -> (World, SessionId) {
    let mut world = world(seed);
    world.outside = outside;
    let session = world.open(0, 7);
    call(&mut world, session, 1, target);
    (world, session)
}

fn call(world: &mut World, session: SessionId, number: u64, target: &str) {
    let operation = format!("park call {target}");
    let frame = world.requests(0, session, number, &[(number, operation.as_str())]);
    world.send_frame(0, &[0, 1, 2], &frame);
    world.pass(100_000);
}

fn outcomes(world: &mut World) -> Vec<Result<Bytes, Fault>> {
    let body = |answer| match answer {
        Answer::Executed { body: ReplyBody::Full(outcome), .. } => Some(outcome),
        _ => None,
    };
    world.take_answers(0).into_iter().filter_map(|(_, answer)| body(answer)).collect()
}

#[test]
fn a_call_is_asked_by_everyone_and_answered_once() {
    let (mut world, session) = calling(3, "noon", |_, target| Some(Ok(Bytes::copy_from_slice(target.as_bytes()))));
    assert_eq!(outcomes(&mut world), vec![Ok(Bytes::from_static(b"noon")); 3]);
    assert_eq!(world.asked.len(), 3);
    call(&mut world, session, 2, "one");
    assert_eq!(outcomes(&mut world), vec![Ok(Bytes::from_static(b"one")); 3]);
    for node in &world.nodes {
        let status = node.replica.status();
        assert_eq!((node.executor.answers, status.calls_queued, status.calls_open), (2, 0, 0));
    }
}

#[test]
fn a_liar_alone_answers_nothing() {
    let (mut world, _) = calling(4, "noon", |id, _| match id.0 {
        0 => Some(Ok(Bytes::from_static(b"midnight"))),
        1 => Some(Err(CallRefused::Unknown)),
        _ => None,
    });
    let asked = world.asked[0].1.clone();
    // It repeats itself, with other words too, and speaks about calls that never were.
    for (sequence, word) in [(1, "midnight"), (1, "noon"), (1, "one"), (1 << 30, "two")] {
        let call =
            if sequence == 1 { asked.clone() } else { CallId { position: Position(sequence << 24), ..asked.clone() } };
        let answer = Ok(Bytes::copy_from_slice(word.as_bytes()));
        world.order(0, &host_signer(0), FrameBody::Called { call, answer });
        world.pass(50_000);
    }
    assert!(outcomes(&mut world).is_empty());
    assert!(world.nodes.iter().all(|node| node.executor.answers == 0));
    world.order(2, &host_signer(2), FrameBody::Called { call: asked, answer: Err(CallRefused::Unknown) });
    world.pass(100_000);
    assert_eq!(outcomes(&mut world).len(), 3, "two correct ones agree");
}

#[test]
fn a_peer_may_only_speak_for_itself_and_about_calls() {
    let mut world = world(9);
    world.open(0, 7);
    let cluster = world.membership.configuration().cluster;
    let call = CallId { position: Position(1 << 24), path: vec![], call: 0 };
    let called = || FrameBody::Called { call: call.clone(), answer: Ok(Bytes::new()) };
    let flush = FrameBody::System { entry: unisono_types::SystemEntry::Flush, nonce: 1 };
    let before = world.nodes[0].replica.status().height;
    for (signer, body) in [(2, called()), (1, flush), (1, called())] {
        let frame = Frame::sign(cluster, &host_signer(signer), body);
        let message = Verified::own(PeerMessage::Submission(frame));
        world.input(ReplicaId(0), Input::Peer { from: ReplicaId(1), message });
    }
    world.pass(50_000);
    let status = world.nodes[0].replica.status();
    assert_eq!((status.height.0, status.counters.foreign_frames), (before.0 + 1, 2));
}

#[test]
fn after_a_restart_only_what_has_no_answer_and_no_word_of_ours_is_asked_again() {
    let (mut world, session) = calling(5, "answered", |id, target| match (target, id.0) {
        ("answered", _) => Some(Ok(Bytes::new())),
        ("said by us", 1) => Some(Ok(Bytes::new())),
        _ => None,
    });
    call(&mut world, session, 2, "said by us");
    call(&mut world, session, 3, "silent");
    assert_eq!(outcomes(&mut world).len(), 3, "of the first one");
    world.crash(ReplicaId(1));
    world.pass(50_000);
    world.asked.clear();
    world.outside = |_, _| Some(Ok(Bytes::from_static(b"late")));
    world.restart(ReplicaId(1));
    world.pass(200_000);
    assert_eq!(world.asked.len(), 1, "{:?}", world.asked);
    world.crash(ReplicaId(2));
    world.restart(ReplicaId(2));
    world.pass(200_000);
    assert_eq!(outcomes(&mut world), [Ok(Bytes::from_static(b"late"))], "by the one that the client is connected to");
    // Of the second one, one word is in the order for ever: nobody asked again.
    assert!(world.nodes.iter().all(|node| node.executor.answers == 2));
}

#[test]
fn a_word_that_is_lost_on_its_way_is_said_again() {
    let (mut world, session) = calling(6, "first", |_, _| Some(Ok(Bytes::new())));
    outcomes(&mut world);
    world.executing = false;
    call(&mut world, session, 2, "second");
    world.loss = 1_000; // nothing of what followers say arrives
    world.executing = true;
    world.pass(100_000);
    world.loss = 0;
    world.pass(3_000_000);
    assert_eq!(outcomes(&mut world).len(), 3);
}

#[test]
fn room_that_a_needless_answer_leaves_is_used() {
    // Replica 2 hears nothing from outside for a while; the others answer its calls.
    let mut world = world(10);
    world.outside = |id, _| (id.0 != 2).then(|| Ok(Bytes::new()));
    let session = world.open(0, 7);
    let calls = crate::calls::OF_ONE_TARGET_MAX as u64 + 1;
    for number in 1..calls {
        call(&mut world, session, number, "noon");
    }
    let asked: Vec<CallId> = world.asked.iter().filter(|(id, _)| id.0 == 2).map(|(_, call)| call.clone()).collect();
    assert_eq!(asked.len() as u64, calls - 1, "all of them still count");
    world.outside = |_, _| None;
    call(&mut world, session, calls, "noon");
    let by_the_last = |world: &World| world.asked.iter().filter(|(id, _)| id.0 == 2).count() as u64;
    assert_eq!(by_the_last(&world), calls - 1, "no room");
    world.input(ReplicaId(2), Input::Outside { call: asked[0].clone(), answer: Ok(Bytes::new()) });
    assert_eq!(by_the_last(&world), calls, "the answer is of no use, its room is");
}

#[test]
fn what_is_too_large_or_too_wordy_is_cut_to_what_may_travel() {
    let (mut world, session) = calling(7, "large", |_, target| match target {
        "large" => Some(Ok(Bytes::from(vec![0; unisono_types::CALL_ANSWER_BYTES_MAX + 1]))),
        _ => Some(Err(CallRefused::Failed("x".repeat(10_000)))),
    });
    call(&mut world, session, 2, "wordy");
    assert_eq!(outcomes(&mut world).len(), 6, "both were refused");
}

#[test]
fn a_replica_that_is_behind_asks_nothing_that_was_answered() {
    let mut world = world(8);
    let session = world.open(0, 7);
    world.crash(ReplicaId(2));
    for number in 1..=5 {
        call(&mut world, session, number, "noon");
    }
    assert_eq!(outcomes(&mut world).len(), 10);
    world.asked.clear();
    world.executing = false; // its execution is behind its order
    world.restart(ReplicaId(2));
    world.pass(500_000);
    world.executing = true;
    world.pass(100_000);
    assert!(world.asked.is_empty(), "{:?}", world.asked);
    assert_eq!(world.nodes[2].executor.runs, world.nodes[0].executor.runs);
    assert_eq!(world.nodes[2].executor.answers, 5);
}
