//! The stories.

use super::cluster::{Cluster, Manner, Random, membership, outcome_of};
use crate::{Input, InvokeError, Output};
use unisono_types::{
    Answer, FrameBody, Limits, Refusal, ReplicaId, ReplyBody, RequestNumber, SequenceNumber, SessionId,
};

fn ok(operation: &str) -> Result<unisono_types::Outcome, InvokeError> {
    Ok(outcome_of(operation.as_bytes()))
}

#[test]
fn what_is_flushed_at_once_is_one_frame_to_the_leader() {
    let mut cluster = Cluster::opened(1);
    let numbers = ["a", "b", "c"].map(|operation| cluster.invoke(operation));
    assert_eq!(numbers, [1, 2, 3].map(RequestNumber));
    cluster.input(Input::Flush);
    cluster.pass(20_000);
    assert_eq!(cluster.sent, 1);
    assert_eq!(cluster.frames_to(0), [[1, 2, 3]]);
    assert_eq!(cluster.completed[&RequestNumber(2)], ok("b"));
    assert_eq!((cluster.completed.len(), cluster.client.outstanding()), (3, 0));
}

#[test]
fn requests_made_before_the_session_is_open_follow_once_it_is() {
    let mut cluster = Cluster::new(2);
    let early = cluster.call("early");
    cluster.input(Input::Start);
    let soon = cluster.call("soon");
    cluster.pass(50_000);
    assert_eq!((&cluster.completed[&early], &cluster.completed[&soon]), (&ok("early"), &ok("soon")));
    assert!(matches!(cluster.other.as_slice(), [Output::Opened(_)]));
}

#[test]
fn a_silent_leader_costs_one_time_out_and_is_left() {
    let mut cluster = Cluster::opened(3);
    for _ in 0..20 {
        cluster.call("a");
        cluster.pass(10_000);
    }
    cluster.peers[0].manner = Manner::Silent;
    let started = cluster.now.monotonic;
    let number = cluster.call("b");
    while !cluster.completed.contains_key(&number) {
        cluster.pass(1_000);
        assert!(cluster.now.monotonic < started + 100_000, "the time-out follows the round trip");
    }
    assert_ne!(cluster.client.leader(), Some(ReplicaId(0)), "two replicas name another one");
    let before = cluster.sent;
    cluster.call("c");
    cluster.pass(20_000);
    assert_eq!(cluster.sent, before + 1, "straight to the new leader");
}

#[test]
fn a_replica_that_calls_itself_the_leader_draws_nothing_to_itself() {
    let mut cluster = Cluster::opened(20);
    cluster.peers[2].leader = ReplicaId(2);
    for _ in 0..20 {
        cluster.call("a");
        cluster.pass(10_000);
    }
    assert_eq!((cluster.client.leader(), cluster.completed.len()), (Some(ReplicaId(0)), 20));
    assert!(cluster.peers[2].frames.is_empty());
}

#[test]
fn when_the_link_to_the_leader_goes_down_nobody_waits_for_the_time_out() {
    let mut cluster = Cluster::opened(4);
    cluster.peers[0].manner = Manner::Silent;
    let number = cluster.call("a");
    cluster.pass(3_000);
    cluster.input(Input::Link { replica: ReplicaId(0), up: false });
    cluster.pass(10_000);
    assert_eq!(cluster.completed[&number], ok("a"));
}

#[test]
fn a_replica_that_comes_back_is_told_where_we_are() {
    let mut cluster = Cluster::opened(5);
    for up in [false, true] {
        cluster.input(Input::Link { replica: ReplicaId(2), up });
    }
    cluster.pass(10_000);
    assert_eq!(cluster.frames_to(2), [Vec::<u64>::new()], "an empty frame");
    assert_eq!(cluster.frames_to(1), Vec::<Vec<u64>>::new());
}

#[test]
fn a_parked_request_holds_up_nobody_and_is_repeated_ever_more_rarely() {
    let mut cluster = Cluster::opened(6);
    let parked = cluster.call("park");
    for _ in 0..1_000 {
        cluster.call("a");
        cluster.pass(10_000);
    }
    assert_eq!(cluster.completed.len(), 1_000, "in ten seconds");
    let repeated = cluster.frames_to(1).len();
    assert!((5..=20).contains(&repeated), "about once a second, {repeated} times, and nothing else goes to followers");
    cluster.call("wake");
    cluster.pass(50_000);
    assert_eq!(cluster.completed[&parked], ok("park"));
}

#[test]
fn what_is_left_of_several_frames_is_repeated_in_one() {
    let mut cluster = Cluster::opened(7);
    for _ in 0..10 {
        for operation in ["park", "a"] {
            cluster.invoke(operation);
        }
        cluster.input(Input::Flush);
    }
    cluster.pass(5_000_000);
    let repeated = cluster.frames_to(2);
    let parked: Vec<u64> = (0..10).map(|index| 2 * index + 1).collect();
    assert_eq!(repeated.last(), Some(&parked), "one signature for all that is parked");
    let first = cluster.peers[2].frames.last().unwrap().id();
    cluster.pass(2_000_000);
    assert_eq!(cluster.peers[2].frames.last().unwrap().id(), first, "and the same frame from then on");
}

#[test]
fn long_outcomes_come_whole_from_one_replica_and_from_another_if_that_one_lies() {
    for liar in 0..3 {
        let mut cluster = Cluster::opened(8);
        cluster.peers[liar].manner = Manner::Liar;
        let numbers: Vec<RequestNumber> = (0..6).map(|_| cluster.call("long")).collect();
        cluster.pass(1_000_000);
        for number in numbers {
            assert_eq!(cluster.completed.get(&number), Some(&ok("long")), "liar {liar}");
        }
    }
}

#[test]
fn an_outcome_of_which_only_digests_are_left_is_an_error_and_not_silence() {
    let mut cluster = Cluster::opened(9);
    cluster.forgetful = true;
    let number = cluster.call("long");
    cluster.pass(30_000_000);
    assert_eq!(cluster.completed[&number], Err(InvokeError::OutcomeLost));
}

#[test]
fn a_lost_session_fails_what_was_sent_and_keeps_what_was_not() {
    let mut cluster = Cluster::opened(10);
    let first = cluster.client.session().unwrap();
    let parked = cluster.call("park");
    cluster.pass(10_000);
    let kept = cluster.invoke("kept");
    cluster.expire(first);
    cluster.pass(3_000_000); // the repetition tells
    assert_eq!(cluster.completed[&parked], Err(InvokeError::SessionLost));
    let second = cluster.client.session().unwrap();
    assert_ne!(first, second);
    cluster.pass(20_000);
    assert_eq!(cluster.completed[&kept], ok("kept"));
    assert_eq!(cluster.runs.get(&(second, parked)), None, "what may have run is never sent again");
    assert!(matches!(cluster.other.as_slice(), [Output::Opened(_), Output::Opened(again)] if *again == second));
}

#[test]
fn one_replica_alone_cannot_end_a_session() {
    let mut cluster = Cluster::opened(11);
    let session = cluster.client.session().unwrap();
    for _ in 0..3 {
        cluster.say(ReplicaId(2), vec![Answer::NoSession { session }]);
    }
    cluster.pass(10_000);
    assert_eq!(cluster.client.session(), Some(session));
}

#[test]
fn an_idle_session_is_kept_alive() {
    let mut cluster = Cluster::with(12, membership(3, |limits| limits.session_idle = 40_000_000));
    cluster.input(Input::Start);
    cluster.pass(1_000_000);
    cluster.peers.iter_mut().for_each(|peer| peer.frames.clear());
    cluster.pass(100_000_000);
    assert_eq!(cluster.frames_to(1), vec![Vec::<u64>::new(); 10]);
}

#[test]
fn refusals_end_the_client_with_a_reason_that_says_what_to_do() {
    for refusal in [Refusal::UnknownKey, Refusal::TooManySessions] {
        let mut cluster = Cluster::new(13);
        cluster.refusal = Some(refusal);
        let queued = cluster.call("a");
        cluster.input(Input::Start);
        cluster.pass(100_000);
        assert_eq!(cluster.other, [Output::Failed(refusal)]);
        assert_eq!(cluster.completed[&queued], Err(InvokeError::Refused(refusal)));
        cluster.completed.clear();
        let later = cluster.call("b");
        assert_eq!(cluster.completed[&later], Err(InvokeError::Refused(refusal)));
        assert!(!refusal.to_string().is_empty());
    }
}

#[test]
fn an_open_that_is_too_old_is_made_again_with_a_decision_that_f_plus_one_know() {
    let mut cluster = Cluster::new(14);
    (cluster.height, cluster.floor) = (500, 400);
    cluster.peers[0].manner = Manner::Liar; // claims decisions that nobody has made
    cluster.input(Input::Start);
    cluster.pass(2_000_000);
    assert!(cluster.client.session().is_some());
    let recents: Vec<u64> = cluster.peers[1]
        .frames
        .iter()
        .filter_map(|frame| match frame.body() {
            FrameBody::Open { recent: SequenceNumber(recent), .. } => Some(*recent),
            _ => None,
        })
        .collect();
    assert_eq!((recents[0], *recents.last().unwrap()), (0, 500));
}

#[test]
fn limits_are_told_before_anything_is_sent() {
    let mut cluster = Cluster::with(
        15,
        membership(3, |limits| (limits.operation_bytes, limits.frame_bytes, limits.window) = (100, 300, 3)),
    );
    cluster.input(Input::Start);
    cluster.pass(50_000);
    let large = cluster.call(&"x".repeat(101));
    assert_eq!(cluster.completed.remove(&large), Some(Err(InvokeError::TooLarge { bytes: 101, limit: 100 })));
    assert_eq!(cluster.client.room(), 3);
    (0..3).for_each(|_| {
        cluster.invoke(&"p".repeat(80));
    });
    assert_eq!(cluster.client.room(), 0);
    let more = cluster.invoke("a");
    assert_eq!(cluster.completed.remove(&more), Some(Err(InvokeError::TooManyOutstanding { limit: 3 })));
    cluster.peers[0].frames.clear();
    cluster.input(Input::Flush);
    cluster.pass(50_000);
    assert_eq!(cluster.frames_to(0), [vec![1], vec![2], vec![3]], "frames within their limit");
    assert_eq!((cluster.completed.len(), cluster.client.room()), (3, 3));
}

/// An open session where one operation of 2 000 bytes fills most of a block.
fn of_small_blocks(seed: u64) -> Cluster {
    let limits = |limits: &mut Limits| {
        (limits.operation_bytes, limits.frame_bytes, limits.block_bytes) = (2_000, 2_500, 3_000);
    };
    let mut cluster = Cluster::with(seed, membership(3, limits));
    cluster.input(Input::Start);
    cluster.pass(50_000);
    cluster
}

#[test]
fn large_operations_wait_here_until_there_is_room_for_them() {
    let mut cluster = of_small_blocks(19);
    let large = "x".repeat(2_000);
    let numbers: Vec<RequestNumber> = (0..10).map(|_| cluster.invoke(&large)).collect();
    cluster.peers.iter_mut().for_each(|peer| (peer.manner, _) = (Manner::Silent, peer.frames.clear()));
    cluster.input(Input::Flush);
    cluster.pass(20_000);
    assert_eq!(cluster.frames_to(0), [[numbers[0].0], [numbers[1].0], [numbers[2].0]], "two blocks are 6 000 bytes");
    cluster.peers.iter_mut().for_each(|peer| peer.manner = Manner::Correct);
    cluster.pass(2_000_000);
    assert!(numbers.iter().all(|number| cluster.completed[number] == ok(&large)));
}

#[test]
fn a_large_operation_that_waits_inside_the_service_does_not_hold_back_what_it_waits_for() {
    let mut cluster = of_small_blocks(20);
    let parks = format!("park{}", " ".repeat(1_900));
    let parked: Vec<RequestNumber> = (0..4).map(|_| cluster.call(&parks)).collect();
    let wakes = cluster.call("wake");
    cluster.pass(30_000_000);
    assert_eq!(cluster.completed[&wakes], ok("wake"));
    assert!(parked.iter().all(|number| cluster.completed.contains_key(number)));
}

#[test]
fn closing_ends_everything_in_order() {
    let mut cluster = Cluster::opened(16);
    let parked = cluster.call("park");
    cluster.pass(10_000);
    let queued = cluster.invoke("never sent");
    cluster.input(Input::Close);
    assert_eq!(cluster.completed[&parked], Err(InvokeError::Closed));
    assert_eq!(cluster.completed[&queued], Err(InvokeError::Closed));
    cluster.pass(50_000);
    assert_eq!(cluster.other.last(), Some(&Output::Closed));
    assert!(cluster.open.is_empty(), "the cluster's session is closed too");
    cluster.input(Input::Close);
    let late = cluster.call("late");
    assert_eq!(cluster.completed[&late], Err(InvokeError::Closed));
    assert_eq!(cluster.other.iter().filter(|output| **output == Output::Closed).count(), 1);
}

#[test]
fn a_close_that_nobody_answers_ends_all_the_same() {
    let mut cluster = Cluster::opened(17);
    cluster.peers.iter_mut().for_each(|peer| peer.manner = Manner::Silent);
    cluster.input(Input::Close);
    cluster.pass(60_000_000);
    assert_eq!(cluster.other.last(), Some(&Output::Closed));
}

#[test]
fn a_liar_that_votes_with_much_for_everything_finds_little_room() {
    let mut cluster = Cluster::opened(18);
    cluster.peers.iter_mut().for_each(|peer| peer.manner = Manner::Silent);
    let session = cluster.client.session().unwrap();
    let lie = unisono_types::Bytes::from(vec![0; 1 << 20]);
    for _ in 0..200 {
        let number = cluster.call("a");
        let body = ReplyBody::Full(Ok(lie.clone()));
        cluster.say(ReplicaId(2), vec![Answer::Executed { session, number, body }]);
    }
    cluster.pass(10_000);
    assert!(cluster.client.vote_bytes(ReplicaId(2)) <= 64 << 20);
    cluster.peers.iter_mut().for_each(|peer| peer.manner = Manner::Correct);
    cluster.pass(5_000_000);
    assert_eq!(cluster.completed.len(), 200);
    assert!(cluster.completed.values().all(|outcome| *outcome == ok("a")));
    assert_eq!(cluster.client.vote_bytes(ReplicaId(2)), 0, "and all is given back");
}

#[test]
fn replies_of_nobody_and_about_nothing_are_passed_over() {
    let mut cluster = Cluster::opened(19);
    let number = RequestNumber(u64::MAX);
    let body = ReplyBody::Full(outcome_of(b"a"));
    for from in [0, 1, 2, 3, u16::MAX] {
        for session in [cluster.client.session().unwrap(), SessionId(0)] {
            let answers = vec![Answer::Executed { session, number, body: body.clone() }];
            let reply = unisono_types::Reply {
                epoch: unisono_types::Epoch(u32::MAX),
                leader: ReplicaId(u16::MAX),
                executed: SequenceNumber(u64::MAX),
                answers,
            };
            cluster.input(Input::Reply { from: ReplicaId(from), reply });
        }
    }
    assert!(cluster.completed.is_empty());
    let number = cluster.call("a");
    cluster.pass(2_000_000);
    assert_eq!(cluster.completed[&number], ok("a"), "a leader who does not exist is nobody to send to");
}

#[test]
fn whatever_is_lost_repeated_late_or_a_lie_every_answer_is_right_and_comes() {
    for seed in 0..150 {
        let mut random = Random(seed ^ 0x5eed);
        let mut cluster = Cluster::new(seed);
        cluster.loss = random.below(4) * 60;
        cluster.delay = 200 << random.below(8);
        let faulty = random.below(4) as usize;
        if faulty < 3 {
            cluster.peers[faulty].manner = if random.below(3) == 0 { Manner::Silent } else { Manner::Liar };
        }
        cluster.input(Input::Start);
        let mut expected = Vec::new();
        for _ in 0..60 {
            match random.below(8) {
                0 => {
                    let replica = ReplicaId(random.below(3) as u16);
                    let up = random.below(3) != 0;
                    cluster.input(Input::Link { replica, up });
                }
                1 => cluster.pass(random.below(200_000)),
                2 => cluster.input(Input::Flush),
                _ => {
                    let operation = ["a", "b", "long 1", "long 2", "park", "wake"][random.below(6) as usize];
                    expected.push((cluster.invoke(operation), operation));
                }
            }
        }
        for replica in 0..3 {
            cluster.input(Input::Link { replica: ReplicaId(replica), up: true });
        }
        expected.push((cluster.call("wake"), "wake"));
        cluster.pass(30_000_000);
        cluster.call("wake");
        cluster.pass(30_000_000);
        for (number, operation) in expected {
            let outcome = cluster.completed.get(&number);
            assert_eq!(outcome, Some(&ok(operation)), "seed {seed}, {number:?} {operation}");
        }
        assert!(cluster.runs.values().all(|runs| *runs == 1), "seed {seed}");
        assert_eq!(cluster.client.outstanding(), 0, "seed {seed}");
    }
}
