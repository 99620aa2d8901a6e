//! Keys and memberships for tests.

use unisono_types::{
    ClusterId, Configuration, Epoch, Incarnation, Limits, Member, Membership, ReplicaId, Signer, Verifier,
    VerifyContext,
};

const UNIVERSE: u64 = 1;

pub(crate) fn host_signer(id: u16) -> Signer {
    Signer::keyed(UNIVERSE, 1_000 + u64::from(id))
}

pub(crate) fn register_signer(id: u16) -> Signer {
    Signer::keyed(UNIVERSE, 3_000 + u64::from(id))
}

pub(crate) fn client_signer(index: u64) -> Signer {
    Signer::keyed(UNIVERSE, 2_000 + index)
}

pub(crate) fn admin_signer() -> Signer {
    Signer::keyed(UNIVERSE, 4_000)
}

pub(crate) fn membership(members: u16) -> Membership {
    membership_with(members, |_| ())
}

/// Four client keys, and limits of one's own.
pub(crate) fn membership_with(members: u16, change: impl FnOnce(&mut Limits)) -> Membership {
    let mut limits = Limits::default();
    change(&mut limits);
    let member = |index: u16| Member {
        id: ReplicaId(index),
        address: String::new(),
        host_key: host_signer(index).public_key(),
        register_key: register_signer(index).public_key(),
        incarnation: Incarnation(0),
    };
    Membership::new(Configuration {
        cluster: ClusterId([7; 16]),
        epoch: Epoch(0),
        members: (0..members).map(member).collect(),
        client_keys: (0..4).map(|index| client_signer(index).public_key()).collect(),
        admin_key: admin_signer().public_key(),
        algorithm: "instant".into(),
        rotation: 0,
        limits,
    })
    .unwrap()
}

pub(crate) fn context(membership: &Membership) -> VerifyContext {
    VerifyContext {
        cluster: membership.configuration().cluster,
        verifier: Verifier::keyed(UNIVERSE),
        membership: membership.clone(),
    }
}
