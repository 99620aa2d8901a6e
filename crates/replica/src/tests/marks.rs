//! Stories about Marks, roots, checkpoints, restarts, and what replicas put into the order by themselves.

use super::instant::Instant;
use super::world::{Random, World};
use super::{MARKS, world};
use crate::testing::{context, membership, membership_with};
use crate::{Difference, HaltReason, Input, MarkRule, PeerMessage, Root};
use unisono_consensus::PersistId;
use unisono_types::{
    Bytes, Done, FrameBody, Message, Rejected, ReplicaId, SequenceNumber, SessionId, SystemEntry, Timestamp,
};

/// Requests of one session, one frame each, `from..to`.
fn load(world: &mut World, client: u64, session: SessionId, numbers: core::ops::Range<u64>) {
    for number in numbers {
        let operation = format!("op {number}");
        let lowest = number.saturating_sub(5).max(1);
        let frame = world.requests(client, session, lowest, &[(number, operation.as_str())]);
        world.send_frame(client, &[0, 1, 2], &frame);
        world.pass(1_000);
    }
}

fn roots(world: &World) -> Vec<Vec<Root>> {
    world.nodes.iter().map(|node| node.replica.status().recent_roots).collect()
}

/// At every height that two replicas list, they list the same.
fn assert_equal_roots(roots: &[Vec<Root>], story: &str) {
    for other in roots {
        for (mine, theirs) in roots[0].iter().flat_map(|mine| other.iter().map(move |theirs| (mine, theirs))) {
            assert!(mine.height != theirs.height || mine == theirs, "{story}: {mine:?} {theirs:?}");
        }
    }
}

#[test]
fn a_mark_every_so_many_decisions_becomes_stable_everywhere() {
    let mut world = world(1);
    let session = world.open(0, 7);
    load(&mut world, 0, session, 1..50);
    world.pass(200_000);
    let all = roots(&world);
    assert_eq!(all[0].len(), 2, "{all:?}");
    assert!(all.iter().all(|roots| *roots == all[0]));
    let last = all[0].last().unwrap().height;
    for node in &world.nodes {
        assert_eq!(node.replica.status().stable, last);
        assert_eq!(node.replica.consensus().stable.last(), Some(&last), "consensus was told");
        assert_eq!(node.replica.consensus().executed, node.replica.status().height);
    }
}

#[test]
fn a_mark_comes_after_some_seconds_and_none_when_nothing_happened() {
    let mut world = world(2);
    world.open(0, 7);
    world.pass(6_000_000);
    assert_eq!(roots(&world)[0].len(), 1);
    let height = world.nodes[0].replica.status().height;
    world.pass(60_000_000);
    assert_eq!(roots(&world)[1].len(), 1, "an idle cluster orders nothing");
    assert_eq!(world.nodes[0].replica.status().height, height);
}

#[test]
fn a_root_covers_sessions_ticks_and_outcomes() {
    let root_after = |change: fn(&mut World<Instant>)| {
        let mut world = world(14);
        let session = world.open(0, 7);
        load(&mut world, 0, session, 1..3);
        change(&mut world);
        world.pass(8_000_000);
        roots(&world)[0][0].parts
    };
    let plain = root_after(|_| ());
    assert_eq!(plain, root_after(|_| ()), "a function of the story");
    let opened = root_after(|world| {
        world.open(1, 7);
    });
    let ticked = root_after(|world| world.system(0, SystemEntry::Tick(Timestamp(5)), 0));
    let wrong = root_after(|world| {
        world.nodes.iter_mut().for_each(|node| node.executor.outcome_fault = true);
        let frame = world.requests(0, SessionId(1 << 24), 3, &[(3, "op")]);
        world.send_frame(0, &[0], &frame);
    });
    for (name, other) in [("session", opened), ("tick", ticked), ("outcome", wrong)] {
        assert_ne!(plain.sessions, other.sessions, "{name}");
    }
    assert_eq!(plain.objects, ticked.objects);
}

#[test]
fn a_mark_that_is_not_due_does_nothing_wherever_it_comes_from() {
    let mut world = world(3);
    world.open(0, 7);
    for nonce in 0..10 {
        world.system(1, SystemEntry::Mark, nonce);
        world.pass(10_000);
    }
    assert_eq!(world.nodes[0].replica.status().height, SequenceNumber(11), "they were ordered");
    assert!(roots(&world)[0].is_empty());
}

#[test]
fn nothing_is_signed_before_the_log_up_to_it_is_durable() {
    let mut world = world(4);
    let session = world.open(0, 7);
    let signed =
        |world: &World| world.sent.iter().any(|(id, sent)| id.0 == 0 && matches!(sent, PeerMessage::Checkpoint(_)));
    let mut barrier = None;
    let now = world.now;
    for number in 1..25 {
        let frame = world.requests(0, session, number, &[(number, "x")]);
        world.send_frame(0, &[0], &frame);
    }
    let node = &mut world.nodes[0];
    let (mut done, mut out, mut random) = (Vec::new(), Vec::new(), Random(1));
    while node.executor.step(&mut random, &mut done) {}
    for done in done {
        node.replica.handle(now, Input::Done(done), &mut out);
    }
    for output in &out {
        match output {
            crate::Output::Persist { id, .. } => barrier = Some(*id),
            crate::Output::Broadcast(PeerMessage::Checkpoint(_)) => panic!("signed before the barrier"),
            _ => {}
        }
    }
    assert!(!signed(&world));
    let barrier: PersistId = barrier.expect("a Mark was executed");
    world.input(ReplicaId(0), Input::Persisted(barrier));
    assert!(signed(&world));
}

#[test]
fn lost_checkpoints_are_asked_for_until_they_are_stable() {
    let mut world = world(5);
    let session = world.open(0, 7);
    load(&mut world, 0, session, 1..18);
    world.loss = 500; // half of everything
    load(&mut world, 0, session, 18..22);
    world.pass(10_000_000);
    world.loss = 0;
    world.pass(70_000_000);
    for node in &world.nodes {
        assert_eq!(Some(node.replica.status().stable), node.replica.status().last_root().map(|root| root.height));
    }
}

#[test]
fn roots_are_equal_in_any_interleaving() {
    for seed in 0..40 {
        let membership = membership_with(3, |limits| limits.session_idle = 2_000_000);
        let mut world = World::<Instant>::new(seed, membership, MARKS);
        world.loss = seed % 4 * 50;
        let mut random = Random(seed ^ 0xabcd);
        let mut sessions: Vec<(u64, SessionId, u64)> = Vec::new();
        for step in 0..150 {
            match random.below(12) {
                0 => {
                    let client = random.below(4);
                    let frame = world.frame(client, FrameBody::Open { nonce: step, recent: SequenceNumber(0) });
                    world.send_frame(client, &[0, 1, 2], &frame);
                    world.pass(100_000);
                    for (_, answer) in world.take_answers(client) {
                        if let unisono_types::Answer::Opened { session, nonce } = answer
                            && nonce == step
                            && !sessions.iter().any(|(_, known, _)| *known == session)
                        {
                            sessions.push((client, session, 0));
                        }
                    }
                }
                1 if sessions.len() > 2 => {
                    let (client, session, _) = sessions.swap_remove(random.below(3) as usize);
                    let frame = world.frame(client, FrameBody::Close { session });
                    world.send_frame(client, &[0, 1, 2], &frame);
                }
                2 => world.pass(random.below(400_000)),
                3 => world.system(random.below(3) as u16, SystemEntry::Mark, step),
                4 => world.system(random.below(3) as u16, SystemEntry::Expire, step),
                _ if sessions.is_empty() => {}
                _ => {
                    let picked = random.below(sessions.len() as u64) as usize;
                    let (client, session, last) = &mut sessions[picked];
                    *last += 1;
                    let operation = ["park", "wake", "add 1", "add 2", "add 3", "L4000"][random.below(6) as usize];
                    // Acknowledges what it may have no answer to: its own affair, and the same everywhere.
                    let lowest = last.saturating_sub(random.below(6)).max(1);
                    let frame = world.requests(*client, *session, lowest, &[(*last, operation)]);
                    let to = [&[0, 1, 2][..], &[0], &[1, 2]][random.below(3) as usize];
                    world.send_frame(*client, to, &frame);
                    world.pass(random.below(5_000));
                }
            }
        }
        world.loss = 0;
        world.pass(12_000_000);
        let all = roots(&world);
        assert!(all[0].len() >= 3, "seed {seed}: Marks took effect");
        assert_equal_roots(&all, &format!("seed {seed}"));
        let last: Vec<_> = all.iter().map(|roots| roots.last().unwrap().height).collect();
        assert!(last.iter().all(|height| *height == last[0]), "seed {seed}: all came to the end: {last:?}");
        assert!(world.nodes.iter().all(|node| node.halted.is_none()), "seed {seed}");
        let twice = world.nodes.iter().flat_map(|node| node.executor.runs.values()).any(|runs| *runs != 1);
        assert!(!twice, "seed {seed}: every request ran once");
    }
}

#[test]
fn a_restarted_replica_knows_its_sessions_and_computes_the_same_roots() {
    let mut world = world(6);
    let session = world.open(0, 7);
    load(&mut world, 0, session, 1..30);
    world.pass(200_000);
    world.take_answers(0);
    let before = world.nodes[1].replica.status();
    world.crash(ReplicaId(1));
    load(&mut world, 0, session, 30..60);
    world.pass(1_000_000); // everything that was said meanwhile is lost, checkpoints too
    world.restart(ReplicaId(1));
    assert!(world.replies.iter().all(|(id, ..)| *id != ReplicaId(1)), "nobody is told again what was said before");
    world.pass(3_000_000);
    let all = roots(&world);
    assert_eq!(all[1], all[0]);
    assert!(all[1].len() > before.recent_roots.len());
    let frame = world.requests(0, session, 55, &[(59, "op 59")]);
    world.take_answers(0);
    world.send_frame(0, &[1], &frame);
    assert_eq!(world.take_answers(0).len(), 1, "the stored reply is there again");
    assert_eq!(world.nodes[1].replica.status().stable, world.nodes[0].replica.status().stable);
}

fn difference(world: &World, id: usize) -> Difference {
    match world.nodes[id].halted.as_ref().expect("it stopped") {
        HaltReason::MinorityRoot { first, witnesses: 2, .. } => first.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_replica_whose_object_differs_stops_and_names_it() {
    let mut world = world(7);
    let session = world.open(0, 7);
    load(&mut world, 0, session, 1..10);
    *world.nodes[2].executor.objects.get_mut("object 3").unwrap() ^= 1 << 40;
    load(&mut world, 0, session, 10..30);
    world.pass(3_000_000);
    assert_eq!(difference(&world, 2), Difference::Object("object 3".into()));
    let said = world.nodes[2].halted.as_ref().unwrap().to_string();
    assert!(said.contains("object \"object 3\" differs") && said.contains("check the machine"), "{said}");
    assert!(world.nodes[0].halted.is_none() && world.nodes[1].halted.is_none());
    load(&mut world, 0, session, 30..60);
    world.pass(200_000);
    assert_eq!(world.nodes[0].replica.status().stable, roots(&world)[0].last().unwrap().height, "the others go on");
}

#[test]
fn a_replica_whose_grants_differ_names_the_first_one_and_the_request() {
    let mut world = world(15);
    let session = world.open(0, 7);
    world.nodes[2].executor.grants_fault = Some(13);
    *world.nodes[2].executor.objects.entry("object 3".into()).or_default() ^= 1 << 40; // what came of it
    load(&mut world, 0, session, 1..30);
    world.pass(3_000_000);
    let Difference::Grant { own, theirs, is_first: true } = difference(&world, 2) else {
        panic!("{:?}", world.nodes[2].halted);
    };
    assert_eq!((own.number, own.lock.as_str(), theirs.lock.as_str()), (13, "rows[0]", "rows[13]"));
    let said = world.nodes[2].halted.as_ref().unwrap().to_string();
    let expected =
        "grant 13 differs: here lock rows[0] for writing behind 0 writers, in round 1, to request 13.0; there";
    assert!(said.contains(expected) && said.contains("not deterministic"), "{said}");
    assert!(world.nodes[0].halted.is_none() && world.nodes[1].halted.is_none());
}

#[test]
fn a_replica_whose_scheduler_or_outcomes_differ_names_that_part() {
    for (scheduler, expected) in [(true, Difference::Scheduler), (false, Difference::Sessions)] {
        let mut world = world(8);
        let session = world.open(0, 7);
        let executor = &mut world.nodes[1].executor;
        executor.scheduler_fault = u8::from(scheduler);
        executor.outcome_fault = !scheduler;
        load(&mut world, 0, session, 1..30);
        world.pass(3_000_000);
        assert_eq!(difference(&world, 1), expected);
    }
}

#[test]
fn a_lone_liar_stops_nobody() {
    let mut world = world(9);
    let session = world.open(0, 7);
    world.nodes[2].executor.outcome_fault = true;
    load(&mut world, 0, session, 1..30);
    world.pass(3_000_000);
    assert!(world.nodes[0].halted.is_none() && world.nodes[1].halted.is_none());
    assert!(world.nodes[2].halted.is_some());
}

#[test]
fn a_single_replica_is_its_own_quorum() {
    let mut world = World::<Instant>::new(10, membership(1), MARKS);
    let frame = world.frame(0, FrameBody::Open { nonce: 7, recent: SequenceNumber(0) });
    world.send_frame(0, &[0], &frame);
    world.pass(6_000_000);
    assert_eq!(world.nodes[0].replica.status().stable, roots(&world)[0].last().unwrap().height);
}

#[test]
fn the_leader_flushes_and_ticks_when_execution_asks() {
    let mut world = world(11);
    world.open(0, 7);
    let deadline = Timestamp(world.now.wall + 500_000);
    for id in 0..3 {
        let starved = Done::Starved { flush: true, tick: Some(deadline) };
        world.input(ReplicaId(id), Input::Done(starved));
    }
    world.pass(30_000);
    assert!(world.nodes.iter().all(|node| node.executor.flushes == 1), "one Flush is enough for all");
    assert!(world.nodes.iter().all(|node| node.executor.ticks.is_empty()));
    world.pass(600_000);
    for node in &world.nodes {
        assert!(matches!(node.executor.ticks.as_slice(), [tick] if *tick >= deadline), "{:?}", node.executor.ticks);
    }
}

#[test]
fn others_flush_and_tick_when_the_leader_withholds_it() {
    let membership = membership(3);
    let mut world = World::<Instant>::new(12, membership, MarkRule { decisions: 1_000, microseconds: u64::MAX });
    world.open(0, 7);
    // Replica 0 never asks for anything itself.
    let deadline = Timestamp(world.now.wall + 10_000);
    for id in 1..3 {
        world.input(ReplicaId(id), Input::Done(Done::Starved { flush: true, tick: Some(deadline) }));
    }
    world.pass(300_000);
    for node in &world.nodes {
        assert_eq!(node.executor.flushes, 1, "the first of the others, and then it is not needed any more");
        assert_eq!(node.executor.ticks.len(), 1);
    }
}

#[test]
fn ticks_never_run_back_nor_ahead_of_the_decision() {
    let mut world = world(13);
    let wall = world.now.wall;
    for (nonce, time) in [wall + 5, wall + 5, wall - 7, u64::MAX].into_iter().enumerate() {
        world.pass(10_000);
        world.system(1, SystemEntry::Tick(Timestamp(time)), nonce as u64);
    }
    world.pass(10_000);
    let ticks = &world.nodes[2].executor.ticks;
    assert_eq!((ticks.len(), ticks[0]), (2, Timestamp(wall + 5)));
    assert!(ticks[1].0 <= world.now.wall, "the liar's far future became the decision's time");
}

#[test]
fn what_is_no_message_is_refused_before_anything_is_made_of_it() {
    let context = context(&membership(3));
    let parse = |bytes: Vec<u8>| PeerMessage::<super::instant::Said>::parse(Bytes::from(bytes), &context);
    assert_eq!(parse(Vec::new()).unwrap_err(), Rejected::Malformed);
    assert_eq!(parse(vec![9]).unwrap_err(), Rejected::Malformed);
    assert_eq!(parse(vec![1; 20]).unwrap_err(), Rejected::Malformed);
    assert_eq!(parse(vec![4; 1 << 20]).unwrap_err(), Rejected::TooLarge);
    let mut bytes = Vec::new();
    PeerMessage::<super::instant::Said>::CheckpointWanted(SequenceNumber(7)).encode(&mut bytes);
    assert!(matches!(parse(bytes.clone()), Ok(PeerMessage::CheckpointWanted(SequenceNumber(7)))));
    bytes.push(0);
    assert_eq!(parse(bytes).unwrap_err(), Rejected::Malformed, "trailing bytes");
}
