//! The rules of validity, each with the smallest chain that shows it.

use crate::aphousia::block::{Header, Justification, Penalty};
use crate::aphousia::rules::{Standard, check_header, first_leader, leader, penalties};
use crate::conformance::Cluster;
use unisono_trusted::{RegisterState, VoteRegister};
use unisono_types::{
    Digest, Epoch, Membership, RegisterView, ReplicaId, SequenceNumber, Step, Timestamp, View, ViewChange,
};

fn membership(members: u16, rotation: u64) -> Membership {
    Cluster::new(members, rotation).membership().clone()
}

fn view(view: u32) -> RegisterView {
    RegisterView::new(Epoch(0), View(view))
}

fn named(number: u8) -> Digest {
    Digest([number; 32])
}

fn header(view: u32, step: u64, height: u64, parent: Digest) -> Header {
    Header { view: View(view), step: Step(step), height: SequenceNumber(height), parent, ..Header::genesis(Epoch(0)) }
}

/// The view change into `into` of a replica whose register voted for `last`.
fn change(cluster: &Cluster, replica: u16, last: Option<(u32, u64, Digest)>, into: u32) -> ViewChange {
    let mut register = cluster.register(ReplicaId(replica), RegisterState::default());
    if let Some((in_view, step, hash)) = last {
        register.advance(view(in_view)).unwrap();
        register.certify(view(in_view), Step(step), hash).unwrap();
    }
    register.advance(view(into)).unwrap()
}

fn new_view(into: u32, parent: &Header, parent_hash: Digest, changes: Vec<ViewChange>) -> Header {
    let membership = membership(3, 0);
    Header {
        penalties: penalties(&membership, View(into), Step(1), parent),
        justification: Some(Justification { changes, checkpoint: vec![] }),
        ..header(into, 1, parent.height.0 + 1, parent_hash)
    }
}

const EPOCH_BASE: Digest = Digest([0xE0; 32]);

fn check(header: &Header, parent: &Header, parent_hash: Digest) -> Result<ReplicaId, &'static str> {
    check_header(&Standard, &membership(3, 0), header, parent, parent_hash, EPOCH_BASE)
}

const NOT_THE_BASE: Result<ReplicaId, &str> = Err("a new view that does not stand on the greatest last vote");

#[test]
fn the_first_leader_of_a_view_follows_from_the_view_alone() {
    let membership = membership(3, 1);
    let mut parent = header(0, 1, 1, EPOCH_BASE);
    parent.penalties = vec![Penalty { member: ReplicaId(1), count: 1, until: SequenceNumber(99) }];
    assert_eq!(first_leader(&membership, View(4)), ReplicaId(1));
    assert_eq!(leader(&membership, View(4), Step(1), &parent), ReplicaId(1), "penalised or not");
}

#[test]
fn later_steps_rotate_and_leave_out_the_penalised_for_as_long_as_the_penalty_lasts() {
    let membership = membership(3, 2);
    let mut parent = header(0, 1, 1, EPOCH_BASE);
    let leaders =
        |parent: &Header| (1..=7).map(|s| leader(&membership, View(0), Step(s), parent).0).collect::<Vec<_>>();
    assert_eq!(leaders(&parent), [0, 0, 1, 1, 2, 2, 0], "two steps each");
    parent.penalties = vec![Penalty { member: ReplicaId(1), count: 1, until: SequenceNumber(2) }];
    assert_eq!(leaders(&parent), [0, 0, 2, 2, 0, 0, 2], "height 2 is not over");
    parent.height = SequenceNumber(2);
    assert_eq!(leaders(&parent), [0, 0, 1, 1, 2, 2, 0], "height 3 is behind it");
}

#[test]
fn at_most_f_are_left_out_the_oldest_penalty_ends_first() {
    let membership = membership(5, 1);
    let mut parent = header(0, 1, 1, EPOCH_BASE);
    let penalty = |member| Penalty { member: ReplicaId(member), count: 9, until: SequenceNumber(500) };
    parent.penalties = vec![penalty(1), penalty(2), penalty(3)];
    let leaders: Vec<u16> = (1..=4).map(|step| leader(&membership, View(0), Step(step), &parent).0).collect();
    assert_eq!(leaders, [0, 1, 4, 0], "2 and 3 are out, 1 is back");
}

#[test]
fn a_new_view_penalises_who_should_have_led_and_everyone_skipped() {
    let membership = membership(5, 0);
    let parent = header(0, 3, 3, named(2));
    let after = penalties(&membership, View(3), Step(1), &parent);
    let found: Vec<(u16, u8, u64)> = after.iter().map(|p| (p.member.0, p.count, p.until.0)).collect();
    assert_eq!(found, [(0, 1, 6), (1, 1, 6), (2, 1, 6)], "for two heights behind the NewView at 4");
    let again = penalties(&membership, View(5), Step(1), &Header { penalties: after, ..header(0, 3, 3, named(2)) });
    let found: Vec<(u16, u8)> = again.iter().map(|p| (p.member.0, p.count)).collect();
    assert_eq!(found, [(0, 2), (1, 2), (2, 2), (3, 1), (4, 1)]);
}

#[test]
fn penalties_are_bounded_however_many_views_were_skipped() {
    let membership = membership(3, 0);
    let far = penalties(&membership, View(u32::MAX), Step(1), &header(0, 1, 1, EPOCH_BASE));
    assert!(far.len() == 3 && far.iter().all(|penalty| penalty.count == 16));
    let near = penalties(&membership, View(600), Step(1), &header(0, 1, 1, EPOCH_BASE));
    let members = |found: &[Penalty]| found.iter().map(|penalty| penalty.member.0).collect::<Vec<_>>();
    assert_eq!(members(&near), [0, 1, 2], "the last skipped, 599, stands last");
}

#[test]
fn the_greatest_last_is_the_base_and_lower_ones_may_be_garbage() {
    let cluster = Cluster::new(3, 0);
    let (low, high) = (header(0, 1, 1, EPOCH_BASE), header(0, 2, 2, named(1)));
    let changes = |greatest| vec![change(&cluster, 0, Some((0, 1, named(0xFF))), 1), greatest];
    let greatest = change(&cluster, 1, Some((0, 2, named(2))), 1);
    assert_eq!(check(&new_view(1, &high, named(2), changes(greatest)), &high, named(2)), Ok(ReplicaId(1)));
    assert_eq!(check(&new_view(1, &low, named(1), changes(greatest)), &low, named(1)), NOT_THE_BASE);
}

#[test]
fn a_greatest_last_that_is_invalid_voids_the_set_and_is_never_skipped() {
    let cluster = Cluster::new(3, 0);
    let valid = header(0, 2, 2, named(1));
    let garbage = change(&cluster, 2, Some((0, 7, named(0xFF))), 1);
    let changes = vec![change(&cluster, 1, Some((0, 2, named(2))), 1), garbage];
    assert_eq!(check(&new_view(1, &valid, named(2), changes), &valid, named(2)), NOT_THE_BASE);
}

#[test]
fn a_last_counts_only_with_its_headers_own_place() {
    let cluster = Cluster::new(3, 0);
    let old = header(0, 1, 1, EPOCH_BASE);
    // The register certified the hash of an old block at a later step.
    let changes = vec![change(&cluster, 1, Some((0, 2, named(2))), 1), change(&cluster, 2, Some((0, 99, named(1))), 1)];
    assert_eq!(check(&new_view(1, &old, named(1), changes), &old, named(1)), NOT_THE_BASE);
}

#[test]
fn at_a_tie_the_valid_one_is_the_base() {
    let cluster = Cluster::new(3, 0);
    let valid = header(0, 2, 2, named(1));
    let changes =
        vec![change(&cluster, 0, Some((0, 2, named(0xFF))), 1), change(&cluster, 1, Some((0, 2, named(2))), 1)];
    assert_eq!(check(&new_view(1, &valid, named(2), changes), &valid, named(2)), Ok(ReplicaId(1)));
}

#[test]
fn who_never_voted_stands_on_the_epoch() {
    let cluster = Cluster::new(3, 0);
    let genesis = Header::genesis(Epoch(0));
    let changes = vec![change(&cluster, 1, None, 1), change(&cluster, 2, None, 1)];
    assert_eq!(check(&new_view(1, &genesis, EPOCH_BASE, changes), &genesis, EPOCH_BASE), Ok(ReplicaId(1)));
}

#[test]
fn a_stable_checkpoint_is_the_base_or_below_it() {
    let cluster = Cluster::new(3, 0);
    let base = header(0, 2, 2, named(1));
    let changes = vec![change(&cluster, 1, Some((0, 2, named(2))), 1), change(&cluster, 2, None, 1)];
    let with = |sequence, hash| {
        let mut header = new_view(1, &base, named(2), changes.clone());
        let signed = [0, 1].map(|id| cluster.checkpoint(ReplicaId(id), SequenceNumber(sequence), hash));
        header.justification.as_mut().unwrap().checkpoint = signed.to_vec();
        check(&header, &base, named(2))
    };
    assert_eq!(with(2, named(2)), Ok(ReplicaId(1)), "the base itself");
    assert_eq!(with(1, named(1)), Ok(ReplicaId(1)), "below the base");
    assert_eq!(with(2, named(9)), NOT_THE_BASE, "beside the base");
    assert_eq!(with(3, named(9)), NOT_THE_BASE, "above the base, and not it");
}

#[test]
fn steps_views_heights_time_and_penalties_follow_the_parent() {
    let parent = Header { timestamp: Timestamp(10), ..header(0, 1, 1, EPOCH_BASE) };
    let good = Header { timestamp: Timestamp(10), ..header(0, 2, 2, named(1)) };
    assert_eq!(check(&good, &parent, named(1)), Ok(ReplicaId(0)));
    for (wrong, why) in [
        (Header { step: Step(3), ..good.clone() }, "a skipped step"),
        (Header { view: View(1), ..good.clone() }, "a step of another view"),
        (Header { height: SequenceNumber(3), ..good.clone() }, "a skipped height"),
        (Header { timestamp: Timestamp(9), ..good.clone() }, "time runs backwards"),
        (Header { parent: named(7), ..good.clone() }, "another parent"),
        (
            Header {
                penalties: vec![Penalty { member: ReplicaId(2), count: 1, until: SequenceNumber(9) }],
                ..good.clone()
            },
            "a penalty out of nowhere",
        ),
    ] {
        assert!(check(&wrong, &parent, named(1)).is_err(), "{why}");
    }
    let first = header(0, 1, 1, named(5));
    assert!(check(&first, &Header::genesis(Epoch(0)), named(5)).is_err(), "a first block beside the epoch's base");
}
