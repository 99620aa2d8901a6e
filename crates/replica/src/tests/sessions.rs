//! Stories about sessions, requests and replies.

use super::instant::Instant;
use super::world::{World, outcome_of};
use super::{MARKS, world};
use crate::testing::{client_signer, host_signer, membership_with};
use crate::{ConnectionId, Input};
use unisono_types::{
    Answer, Bytes, Done, Frame, FrameBody, Position, Refusal, ReplicaId, ReplyBody, RequestNumber, SequenceNumber,
    SessionId, SystemEntry, Verified,
};

fn executed(session: SessionId, number: u64, operation: &str) -> Answer {
    let body = ReplyBody::Full(outcome_of(operation.as_bytes()));
    Answer::Executed { session, number: RequestNumber(number), body }
}

fn runs(world: &World, session: SessionId, number: u64) -> Vec<u32> {
    let of = |node: &super::world::Node| node.executor.runs.get(&(session, RequestNumber(number))).copied();
    world.nodes.iter().map(|node| of(node).unwrap_or(0)).collect()
}

#[test]
fn a_request_is_answered_by_all_and_again_from_the_store() {
    let mut world = world(1);
    let session = world.open(0, 7);
    let frame = world.requests(0, session, 1, &[(1, "a"), (2, "b")]);
    world.send_frame(0, &[0], &frame);
    world.pass(50_000);
    let answers = world.take_answers(0);
    assert_eq!(answers.len(), 6, "two requests, three replicas, though only one was asked: {answers:?}");
    assert!(answers.contains(&(ReplicaId(2), executed(session, 2, "b"))));
    let height = world.nodes[0].replica.status().height;
    world.send_frame(0, &[1], &frame);
    world.pass(50_000);
    let again = [1, 2].map(|number| (ReplicaId(1), executed(session, number, ["a", "b"][number as usize - 1])));
    assert_eq!(world.take_answers(0), again);
    assert_eq!(world.nodes[0].replica.status().height, height, "nothing new was ordered");
    assert_eq!((runs(&world, session, 1), runs(&world, session, 2)), (vec![1; 3], vec![1; 3]));
}

#[test]
fn a_number_ordered_in_two_frames_runs_once() {
    let mut world = world(2);
    let session = world.open(0, 7);
    let first = world.requests(0, session, 1, &[(1, "a")]);
    let second = world.requests(0, session, 1, &[(1, "a"), (2, "b")]);
    // Both reach the order before either is walked by the replica that takes them in.
    world.send_frame(0, &[1], &first);
    world.send_frame(0, &[2], &second);
    world.pass(50_000);
    assert_eq!(world.nodes[0].replica.status().height, SequenceNumber(3), "the Open and both frames");
    assert_eq!((runs(&world, session, 1), runs(&world, session, 2)), (vec![1; 3], vec![1; 3]));
}

#[test]
fn numbers_outside_the_window_and_acknowledged_ones_never_run() {
    let mut world = World::<Instant>::new(3, membership_with(3, |limits| limits.window = 4), MARKS);
    let session = world.open(0, 7);
    for (lowest, number) in [(1, 5), (1, u64::MAX), (3, 3), (1, 2), (1, 4)] {
        let frame = world.requests(0, session, lowest, &[(number, "x")]);
        // As a leader that lets everything in would order it.
        let decided = Input::Peer {
            from: ReplicaId(1),
            message: Verified::own(crate::PeerMessage::Consensus(super::instant::Said::Submit(frame))),
        };
        world.input(ReplicaId(0), decided);
        world.pass(20_000);
    }
    let ran: Vec<u64> = world.nodes[2].executor.runs.keys().map(|(_, number)| number.0).collect();
    assert_eq!(ran, [3, 4], "5 and the huge one were beyond, 2 was acknowledged by lowest = 3");
}

#[test]
fn the_absence_of_a_session_is_told_only_where_it_is_proven() {
    let mut world = world(4);
    let session = world.open(0, 7);
    let height = world.nodes[1].replica.status().height;
    let never = SessionId(Position::new(height, 99).unwrap().0);
    let later = SessionId(Position::new(SequenceNumber(height.0 + 1), 0).unwrap().0);
    for unknown in [never, later] {
        let frame = world.requests(0, unknown, 1, &[(1, "a")]);
        world.send_frame(0, &[1], &frame);
    }
    let others = world.requests(1, session, 1, &[(1, "a")]);
    world.send_frame(1, &[1], &others);
    assert_eq!(world.take_answers(0), [(ReplicaId(1), Answer::NoSession { session: never })]);
    assert_eq!(world.take_answers(1), [(ReplicaId(1), Answer::NoSession { session })], "of another key");
    world.pass(50_000);
    assert_eq!(world.nodes[0].replica.status().height, height, "nothing of it was ordered");
}

#[test]
fn a_client_speaks_only_for_its_own_key_and_never_as_a_replica() {
    let mut world = world(5);
    let session = world.open(0, 7);
    let stolen = world.requests(0, session, 1, &[(1, "a")]);
    let cluster = world.membership.configuration().cluster;
    let entry = FrameBody::System { entry: SystemEntry::Expire, nonce: 0 };
    let system = Frame::sign(cluster, &host_signer(1), entry);
    for (key, frame) in [(client_signer(1).public_key(), stolen), (host_signer(1).public_key(), system)] {
        let connection = ConnectionId(1);
        world.input(ReplicaId(0), Input::Client { connection, key, frame: Verified::own(frame) });
    }
    world.pass(50_000);
    assert_eq!(world.take_answers(1), []);
    assert_eq!(world.nodes[0].replica.status().counters.foreign_frames, 2);
    assert_eq!(world.nodes[0].replica.status().height, SequenceNumber(1));
}

#[test]
fn what_one_call_has_to_say_travels_in_one_reply() {
    let mut world = world(6);
    world.executing = false;
    let session = world.open(0, 7);
    let many: Vec<(u64, String)> = (1..=100).map(|number| (number, format!("op {number}"))).collect();
    let many: Vec<(u64, &str)> = many.iter().map(|(number, operation)| (*number, operation.as_str())).collect();
    let frame = world.requests(0, session, 1, &many);
    world.send_frame(0, &[0], &frame);
    let done: Vec<_> = (1..=100)
        .map(|number| {
            let position = Position::new(SequenceNumber(2), number - 1).unwrap();
            let (number, outcome) = (RequestNumber(u64::from(number)), Ok(Bytes::from_static(b"1")));
            Input::Done(Done::Executed { position, session, number, outcome })
        })
        .collect();
    let mut out = Vec::new();
    let now = world.now;
    world.nodes[0].replica.handle_all(now, done, &mut out);
    let [crate::Output::Reply { reply, .. }] = out.as_slice() else { panic!("one reply: {out:?}") };
    assert_eq!(reply.answers.len(), 100);
}

#[test]
fn a_long_outcome_comes_whole_from_one_and_from_all_when_asked_again() {
    let mut world = world(7);
    let session = world.open(0, 7);
    let frame = world.requests(0, session, 1, &[(1, "L5000"), (2, "L5000"), (3, "L5000")]);
    world.send_frame(0, &[0], &frame);
    world.pass(50_000);
    let whole = |answers: &[(ReplicaId, Answer)]| -> Vec<(u16, u64)> {
        let mut whole: Vec<(u16, u64)> = answers
            .iter()
            .filter_map(|(id, answer)| match answer {
                Answer::Executed { number, body: ReplyBody::Full(_), .. } => Some((id.0, number.0)),
                _ => None,
            })
            .collect();
        whole.sort_unstable();
        whole
    };
    let first = world.take_answers(0);
    assert_eq!(first.len(), 9);
    let senders = whole(&first);
    assert_eq!(senders.len(), 3, "each number whole from one: {senders:?}");
    assert_eq!(senders.iter().map(|(id, _)| *id).collect::<Vec<u16>>(), [0, 1, 2], "and they take turns");
    let digest = ReplyBody::digest_of(&outcome_of(b"L5000"));
    let agree =
        |(_, answer): &(ReplicaId, Answer)| matches!(answer, Answer::Executed { body, .. } if body.digest() == digest);
    assert!(first.iter().all(agree), "digests are those of the whole");
    world.send_frame(0, &[0, 1, 2], &frame);
    assert_eq!(whole(&world.take_answers(0)).len(), 9);
}

#[test]
fn a_session_with_too_many_bytes_stored_is_held_back_until_it_acknowledges() {
    let mut world = World::<Instant>::new(8, membership_with(3, |limits| limits.reply_bytes = 10_000), MARKS);
    let session = world.open(0, 7);
    // Ordered all the same, more than fits: runs, and what finds no room keeps its digest.
    let frame = world.requests(0, session, 1, &[(1, "L6000"), (2, "L6000")]);
    world.send_frame(0, &[0, 1, 2], &frame);
    world.pass(50_000);
    assert_eq!((runs(&world, session, 1), runs(&world, session, 2)), (vec![1; 3], vec![1; 3]));
    world.take_answers(0);
    world.send_frame(0, &[0], &frame);
    let again = world.take_answers(0);
    let digests =
        again.iter().filter(|(_, answer)| matches!(answer, Answer::Executed { body: ReplyBody::Digest(_), .. }));
    assert_eq!((again.len(), digests.count()), (2, 1));
    // New ones wait ...
    let height = world.nodes[0].replica.status().height;
    let next = world.requests(0, session, 1, &[(3, "a")]);
    world.send_frame(0, &[0, 1, 2], &next);
    world.pass(50_000);
    assert_eq!(world.nodes[0].replica.status().height, height);
    assert_eq!(world.nodes[0].replica.status().counters.held_back_frames, 1);
    // ... until the client acknowledges, which the same frame may do.
    let next = world.requests(0, session, 3, &[(3, "a")]);
    world.send_frame(0, &[0, 1, 2], &next);
    world.pass(50_000);
    assert_eq!(runs(&world, session, 3), [1; 3]);
    assert!(world.nodes[0].replica.status().stored_reply_bytes < 100);
}

#[test]
fn an_open_is_answered_at_once_when_the_answer_is_certain() {
    let mut world = World::<Instant>::new(9, membership_with(3, |limits| limits.sessions = 1), MARKS);
    let session = world.open(0, 7);
    let height = world.nodes[0].replica.status().height;
    let open = |nonce| FrameBody::Open { nonce, recent: SequenceNumber(0) };
    let again = world.frame(0, open(7));
    let more = world.frame(0, open(8));
    let stranger = world.frame(77, open(1));
    for (client, frame) in [(0, again), (0, more), (77, stranger)] {
        world.send_frame(client, &[1], &frame);
    }
    let expected =
        [Answer::Opened { nonce: 7, session }, Answer::NotOpened { nonce: 8, reason: Refusal::TooManySessions }];
    assert_eq!(world.take_answers(0), expected.map(|answer| (ReplicaId(1), answer)));
    let refused = Answer::NotOpened { nonce: 1, reason: Refusal::UnknownKey };
    assert_eq!(world.take_answers(77), [(ReplicaId(1), refused)]);
    world.pass(50_000);
    assert_eq!(world.nodes[0].replica.status().height, height);
}

#[test]
fn one_key_holds_many_sessions_and_a_closed_one_is_gone_for_ever() {
    let mut world = world(10);
    let (first, second) = (world.open(0, 1), world.open(0, 2));
    let close = world.frame(0, FrameBody::Close { session: first });
    world.send_frame(0, &[0, 1, 2], &close);
    world.pass(50_000);
    let closed: Vec<Answer> = world.take_answers(0).into_iter().map(|(_, answer)| answer).collect();
    assert_eq!(closed, vec![Answer::NoSession { session: first }; 3]);
    let [to_first, to_second] = [first, second].map(|session| world.requests(0, session, 1, &[(1, "a")]));
    world.send_frame(0, &[0], &to_first);
    world.send_frame(0, &[0], &to_second);
    world.pass(50_000);
    let answers: Vec<Answer> = world.take_answers(0).into_iter().map(|(_, answer)| answer).collect();
    assert!(answers.contains(&Answer::NoSession { session: first }));
    assert!(answers.contains(&executed(second, 1, "a")));
    assert_eq!(runs(&world, first, 1), [0; 3]);
}

#[test]
fn an_idle_session_expires_and_an_empty_frame_keeps_another_alive() {
    const IDLE: u64 = 10_000_000;
    let mut world = World::<Instant>::new(11, membership_with(3, |limits| limits.session_idle = IDLE), MARKS);
    let (idle, kept) = (world.open(0, 1), world.open(1, 1));
    for _ in 0..8 {
        world.pass(IDLE / 4);
        let alive = world.requests(1, kept, 1, &[]);
        world.send_frame(1, &[0, 1, 2], &alive);
    }
    assert_eq!(world.take_answers(1), []);
    let told: Vec<Answer> = world.take_answers(0).into_iter().map(|(_, answer)| answer).collect();
    assert_eq!(told, vec![Answer::NoSession { session: idle }; 3]);
    assert_eq!(world.nodes[2].replica.status().sessions, 1);
}

#[test]
fn replies_follow_the_client_to_its_new_connection() {
    let mut world = world(12);
    world.executing = false;
    let session = world.open(0, 7);
    let frame = world.requests(0, session, 1, &[(1, "a")]);
    world.send_frame(0, &[0], &frame);
    world.pass(50_000);
    let key = client_signer(0).public_key();
    for id in 0..3 {
        world.input(ReplicaId(id), Input::Disconnected(ConnectionId(0)));
    }
    let hello = Verified::own(world.requests(0, session, 1, &[]));
    world.input(ReplicaId(1), Input::Client { connection: ConnectionId(50), key, frame: hello });
    world.execute_all();
    assert_eq!(world.take_answers(0), [], "nobody is there");
    assert_eq!(world.take_answers(50), [(ReplicaId(1), executed(session, 1, "a"))]);
}

#[test]
fn a_replica_that_walks_the_open_late_still_knows_where_its_client_is() {
    let mut world = world(13);
    let frame = world.frame(0, FrameBody::Open { nonce: 7, recent: SequenceNumber(0) });
    world.send_frame(0, &[0], &frame);
    let session = SessionId(Position::new(SequenceNumber(1), 0).unwrap().0);
    let hello = world.requests(0, session, 1, &[]);
    world.send_frame(0, &[2], &hello);
    world.pass(50_000);
    let told: Vec<ReplicaId> = world.take_answers(0).into_iter().map(|(id, _)| id).collect();
    assert_eq!(told, [ReplicaId(0), ReplicaId(2)]);
}
