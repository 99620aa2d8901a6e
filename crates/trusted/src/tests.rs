//! The register's stories: one vote per place, no way back, nothing hidden, nothing lost.

use super::*;
use proptest::prelude::*;
use unisono_types::{
    ClusterId, Configuration, Epoch, Incarnation, Limits, Member, Membership, PublicKey, Rejected, ReplicaId, Verifier,
    VerifyContext, View,
};

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn context() -> VerifyContext {
    let members = (0..3u16).map(|index| Member {
        id: ReplicaId(index),
        address: String::new(),
        host_key: Signer::keyed(1, 100 + u64::from(index)).public_key(),
        register_key: Signer::keyed(1, u64::from(index)).public_key(),
        incarnation: Incarnation(0),
    });
    let configuration = Configuration {
        cluster: CLUSTER,
        epoch: Epoch(0),
        members: members.collect(),
        client_keys: vec![],
        admin_key: PublicKey([250; 32]),
        algorithm: "aphousia".into(),
        rotation: 0,
        limits: Limits::default(),
    };
    VerifyContext {
        cluster: CLUSTER,
        verifier: Verifier::keyed(1),
        membership: Membership::new(configuration).unwrap(),
    }
}

fn register(replica: u16) -> Register {
    let id = register_id(&context().membership, ReplicaId(replica)).unwrap();
    Register::new(id, Signer::keyed(1, u64::from(replica)))
}

fn view(number: u32) -> RegisterView {
    RegisterView::new(Epoch(0), View(number))
}

fn hash(number: u8) -> Digest {
    Digest([number; 32])
}

#[test]
fn one_vote_for_each_step_and_the_newest_is_repeated() {
    let mut register = register(0);
    let vote = register.certify(view(0), Step(1), hash(1)).unwrap();
    assert_eq!(register.certify(view(0), Step(1), hash(1)), Ok(vote), "the newest answer again");
    assert_eq!(register.certify(view(0), Step(1), hash(2)), Err(Refused::StepNotNewer), "no second vote");
    assert!(register.certify(view(0), Step(5), hash(3)).is_ok(), "steps may skip");
    assert_eq!(register.certify(view(0), Step(1), hash(1)), Err(Refused::StepNotNewer), "only the newest");
    assert_eq!(register.certify(view(0), Step(4), hash(4)), Err(Refused::StepNotNewer));
}

#[test]
fn who_left_a_view_votes_there_no_more_and_shows_its_last_vote() {
    let mut register = register(1);
    register.certify(view(0), Step(3), hash(3)).unwrap();
    let change = register.advance(view(2)).unwrap();
    assert_eq!(change.last, VotePosition { view: view(0), step: Step(3), hash: hash(3) });
    assert_eq!(register.certify(view(0), Step(3), hash(3)), Err(Refused::AnotherView), "not even the same vote");
    assert_eq!(register.certify(view(1), Step(9), hash(9)), Err(Refused::AnotherView), "skipped views are left too");
    assert_eq!(register.certify(view(3), Step(1), hash(9)), Err(Refused::AnotherView), "later ones are not entered");
    assert_eq!(register.advance(view(2)), Ok(change), "the newest answer again");
    register.certify(view(2), Step(1), hash(4)).unwrap();
    assert_eq!(register.advance(view(2)), Err(Refused::AlreadyVoted), "its last would be another one now");
    assert_eq!(register.advance(view(1)), Err(Refused::AnotherView));
}

#[test]
fn a_refusal_changes_nothing() {
    let mut register = register(0);
    register.certify(view(0), Step(2), hash(2)).unwrap();
    let before = register.clone();
    assert!(register.certify(view(0), Step(2), hash(3)).is_err());
    assert!(register.certify(view(1), Step(3), hash(3)).is_err());
    assert!(register.advance(view(0)).is_err());
    assert_eq!(register, before);
}

#[test]
fn signatures_convince_for_exactly_what_they_say() {
    let context = context();
    let mut register = register(2);
    let vote = register.certify(view(0), Step(1), hash(1)).unwrap();
    let change = register.advance(view(1)).unwrap();
    let attestation = register.attest([5; 32]);
    assert_eq!(verify_certificate(&vote, &context), Ok(()));
    assert_eq!(verify_view_change(&change, &context), Ok(()));
    assert_eq!(verify_attestation(&attestation, &context), Ok(()));

    let mut other = vote;
    other.vote.step = Step(2);
    assert_eq!(verify_certificate(&other, &context), Err(Rejected::BadSignature));
    let other = Certificate { replica: ReplicaId(1), ..vote };
    assert_eq!(verify_certificate(&other, &context), Err(Rejected::BadSignature), "another one's vote");
    let other = ViewChange { last: VotePosition::default(), ..change };
    assert_eq!(verify_view_change(&other, &context), Err(Rejected::BadSignature), "a hidden vote");
    let other = Attestation { nonce: [6; 32], ..attestation };
    assert_eq!(verify_attestation(&other, &context), Err(Rejected::BadSignature), "an old answer");
    let stranger = Certificate { replica: ReplicaId(9), ..vote };
    assert_eq!(verify_certificate(&stranger, &context), Err(Rejected::NotAMember));
}

#[test]
fn another_cluster_incarnation_group_or_epoch_is_worth_nothing() {
    let context = context();
    let id = register(0).id();
    let signer = || Signer::keyed(1, 0);
    for foreign in [
        RegisterId { cluster: ClusterId([8; 16]), ..id },
        RegisterId { incarnation: Incarnation(1), ..id },
        RegisterId { group: 1, ..id },
        RegisterId { replica: ReplicaId(1), ..id },
    ] {
        let vote = Register::new(foreign, signer()).certify(view(0), Step(1), hash(1)).unwrap();
        let vote = Certificate { replica: ReplicaId(0), ..vote };
        assert_eq!(verify_certificate(&vote, &context), Err(Rejected::BadSignature), "{foreign:?}");
    }
    let later = RegisterView::new(Epoch(1), View(0));
    let change = register(0).advance(later).unwrap();
    assert_eq!(verify_view_change(&change, &context), Err(Rejected::Foreign));
}

#[test]
fn a_restored_register_goes_on_and_repeats_its_newest_answer() {
    let mut register = register(0);
    let vote = register.certify(view(0), Step(4), hash(4)).unwrap();
    let record = RegisterRecord { id: register.id(), state: register.state() };
    let state = RegisterRecord::decode(&record.encode()).unwrap().state;
    let mut restored = Register::restore(register.id(), Signer::keyed(1, 0), state);
    assert_eq!(restored.certify(view(0), Step(4), hash(4)), Ok(vote));
    assert_eq!(restored.certify(view(0), Step(4), hash(5)), Err(Refused::StepNotNewer));
}

#[test]
fn a_record_is_laid_out_as_its_format_says() {
    let id = RegisterId {
        cluster: ClusterId([0xc1; 16]),
        group: 0xc2,
        replica: ReplicaId(0xc3c4),
        incarnation: Incarnation(0xc5c6_c7c8),
        key: PublicKey([0xc9; 32]),
    };
    let last = VotePosition { view: RegisterView(3), step: Step(4), hash: Digest([0xd1; 32]) };
    let state = RegisterState { view: RegisterView(1), step: Step(2), last };
    let record = RegisterRecord { id, state };
    let fields: [&[u8]; 11] = [
        b"univote1",
        &[0xc1; 16],
        &[0xc2],
        &[0xc4, 0xc3],
        &[0xc8, 0xc7, 0xc6, 0xc5],
        &[0xc9; 32],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0],
        &[4, 0, 0, 0, 0, 0, 0, 0],
        &[0xd1; 32],
    ];
    let checked = fields.concat();
    let checksum = Digest::of("unisono register record 1", &[&checked]);
    assert_eq!(record.encode()[..], [&checked[..], &checksum.0].concat());
    assert_eq!(RegisterRecord::decode(&record.encode()), Ok(record));
}

#[test]
fn a_torn_copy_never_brings_back_an_older_state_as_long_as_one_is_whole() {
    let mut register = register(0);
    let id = register.id();
    register.certify(view(0), Step(1), hash(1)).unwrap();
    let old = RegisterRecord { id, state: register.state() }.encode();
    register.certify(view(0), Step(2), hash(2)).unwrap();
    let new = RegisterRecord { id, state: register.state() }.encode();

    assert_eq!(RegisterRecord::newest(&id, [&old[..], &new[..]]).unwrap().step, Step(2), "in any order");
    assert_eq!(RegisterRecord::newest(&id, [&new[..], &old[..]]).unwrap().step, Step(2));
    for byte in 0..new.len() {
        let mut torn = new;
        torn[byte] ^= 0x40;
        assert!(RegisterRecord::decode(&torn).is_err(), "byte {byte}");
        assert_eq!(RegisterRecord::newest(&id, [&torn[..], &new[..]]).unwrap().step, Step(2));
        assert_eq!(RegisterRecord::newest(&id, [&torn[..], &torn[..]]), None, "lost, not older");
    }
    assert_eq!(RegisterRecord::decode(&new[..100]), Err(RecordError::NotARecord));
    let another = RegisterId { replica: ReplicaId(1), ..id };
    assert_eq!(RegisterRecord::newest(&another, [&new[..]]), None, "a copy of another register");
}

proptest! {
    /// Whatever a host asks for: no two votes at one place, (view, step) only grows, a ViewChange shows every vote
    /// of the views it leaves, and nothing panics.
    #[test]
    fn no_host_can_make_it_lie(calls in prop::collection::vec((0u8..3, 0u32..4, 0u64..4, 0u8..3), 1..60)) {
        let mut register = register(0);
        let mut votes: Vec<VotePosition> = vec![];
        for (call, v, s, h) in calls {
            let before = register.state();
            match call {
                0 | 1 => if let Ok(certificate) = register.certify(view(v), Step(s), hash(h)) {
                    let vote = certificate.vote;
                    prop_assert!(votes.iter().all(|old| (old.view, old.step) != (vote.view, vote.step) || *old == vote));
                    votes.push(vote);
                },
                _ => if let Ok(change) = register.advance(view(v)) {
                    let newest = votes.iter().filter(|vote| vote.view < change.view).max_by_key(|vote| (vote.view, vote.step));
                    prop_assert_eq!(change.last, newest.copied().unwrap_or_default());
                },
            }
            let after = register.state();
            prop_assert!((after.view, after.step) >= (before.view, before.step));
        }
    }

    #[test]
    fn no_bytes_make_the_record_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(RegisterRecord::decode(&bytes).is_err());
    }
}
