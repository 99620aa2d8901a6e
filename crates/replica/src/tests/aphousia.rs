//! Stories over the real algorithm: what only shows when a decision takes messages, writes and a register.

use super::world::{Order, World, outcome_of};
use super::{MARKS, instant::Instant};
use crate::testing::{context, host_signer, membership};
use std::collections::BTreeMap;
use unisono_consensus::{
    Consensus, Record,
    aphousia::{Aphousia, CertifiedBlock, Recovered, Settings},
};
use unisono_trusted::Register;
use unisono_types::{
    Answer, Bytes, Digest, Membership, ReplicaId, ReplyBody, RequestNumber, SequenceNumber, SessionId, VerifyContext,
};

impl Order for Aphousia {
    fn create(
        id: ReplicaId,
        membership: &Membership,
        committed: &BTreeMap<SequenceNumber, Bytes>,
        log: &[Record],
        register: &Register,
    ) -> Self {
        let tip = committed.last_key_value().map_or(SequenceNumber(0), |(sequence, _)| *sequence);
        let mut recovered = Recovered { register: register.state(), ..Recovered::default() };
        for record in log {
            match record {
                Record::Block { sequence, bytes, .. } if *sequence > tip => recovered.blocks.push(bytes.clone()),
                Record::Commit { sequence, hash, proof } if *sequence == tip => {
                    recovered.committed = Some((*sequence, *hash, committed[sequence].clone()));
                    recovered.proof = Some(proof.clone());
                }
                _ => {}
            }
        }
        Self::new(Settings::new(id, host_signer(id.0), membership.clone()), recovered)
    }

    fn parent(bytes: &Bytes, context: &VerifyContext) -> Digest {
        CertifiedBlock::parse_all(bytes, context).unwrap().block.header().parent
    }
}

fn world(seed: u64) -> World<Aphousia> {
    World::new(seed, membership(3), MARKS)
}

/// Sends requests `from..to`, one frame each, and repeats what two replicas have not answered equally.
fn run<C: Order>(world: &mut World<C>, session: SessionId, numbers: core::ops::Range<u64>) {
    for number in numbers {
        let operation = format!("op {number}");
        let frame = world.requests(0, session, number, &[(number, operation.as_str())]);
        let body = ReplyBody::Full(outcome_of(operation.as_bytes()));
        let answer = Answer::Executed { session, number: RequestNumber(number), body };
        let mut from: Vec<ReplicaId> = Vec::new();
        for _ in 0..200 {
            world.send_frame(0, &[0, 1, 2], &frame);
            world.pass(20_000);
            let answers = world.take_answers(0).into_iter().filter(|(_, given)| *given == answer);
            from.extend(answers.map(|(id, _)| id));
            from.sort_unstable();
            from.dedup();
            if from.len() >= 2 {
                break;
            }
        }
        assert!(from.len() >= 2, "request {number} is answered by f+1");
    }
}

fn assert_agree<C: Order>(world: &World<C>) {
    let statuses: Vec<_> = world.nodes.iter().map(|node| node.replica.status()).collect();
    for status in &statuses {
        assert_eq!(status.state_root(), statuses[0].state_root());
        assert_eq!(status.executed, status.height);
        assert_eq!(Some(status.stable), status.last_root().map(|root| root.height));
    }
    assert!(world.nodes.iter().flat_map(|node| node.executor.runs.values()).all(|runs| *runs == 1));
    assert!(world.nodes.iter().all(|node| node.halted.is_none()));
}

#[test]
fn the_same_story_over_both_orders_gives_the_same_answers() {
    fn story<C: Order>(mut world: World<C>) -> BTreeMap<String, u64> {
        let session = world.open(0, 7);
        run(&mut world, session, 1..60);
        world.pass(12_000_000);
        assert_agree(&world);
        assert!(world.nodes[0].replica.status().recent_roots.len() >= 2);
        std::mem::take(&mut world.nodes[2].executor.objects)
    }
    assert_eq!(story(world(1)), story(World::<Instant>::new(1, membership(3), MARKS)));
}

#[test]
fn each_replica_in_turn_dies_and_comes_back_and_nothing_is_lost_or_doubled() {
    for seed in 0..3 {
        let mut world = world(seed);
        world.loss = 20;
        let session = world.open(0, 7);
        let mut next = 1;
        for id in [0, 1, 2, 0] {
            run(&mut world, session, next..next + 12);
            world.crash(ReplicaId(id));
            run(&mut world, session, next + 12..next + 24);
            world.restart(ReplicaId(id));
            next += 24;
        }
        run(&mut world, session, next..next + 5);
        world.loss = 0;
        world.pass(60_000_000);
        assert_agree(&world);
        let heights: Vec<_> = world.nodes.iter().map(|node| node.replica.status().height).collect();
        assert!(heights.iter().all(|height| *height == heights[0]), "seed {seed}: {heights:?}");
    }
}

#[test]
fn all_die_at_once_and_everything_answered_is_there() {
    let mut world = world(4);
    let session = world.open(0, 7);
    run(&mut world, session, 1..40);
    let executed = world.nodes[1].replica.status().height;
    (0..3).for_each(|id| world.crash(ReplicaId(id)));
    (0..3).for_each(|id| world.restart(ReplicaId(id)));
    world.pass(3_000_000);
    assert!(world.nodes.iter().all(|node| node.replica.status().height >= executed));
    assert_eq!(world.nodes[0].replica.status().sessions, 1);
    run(&mut world, session, 39..60);
    world.pass(20_000_000);
    assert_agree(&world);
}

#[test]
fn its_status_shows_the_algorithm_below() {
    let mut world = world(5);
    world.open(0, 7);
    let status = world.nodes[1].replica.status();
    assert_eq!(status.leader, world.nodes[1].replica.consensus().status().leader);
    assert_eq!((status.members.len(), status.pending_frames, status.sessions), (3, 0, 1));
    assert!(Aphousia::decision(&Bytes::from_static(b"no block"), &context(&world.membership)).is_err());
}
