//! Keys and membership of a simulated cluster: all from one number, keyed tags or real Ed25519.

use crate::Plan;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use unisono_types::{
    ClusterId, Configuration, Epoch, Incarnation, Member, Membership, PublicKey, RegisterId, ReplicaId, Signer,
    Verifier, VerifyContext,
};

/// Who is who in one simulated cluster.
#[derive(Clone, Debug)]
pub struct Identities {
    /// What checking needs.
    pub context: VerifyContext,
    /// Host keys, by replica.
    pub hosts: Vec<Signer>,
    /// Identities and keys of the vote registers, by replica.
    pub registers: Vec<(RegisterId, Signer)>,
    /// Keys of clients, by client.
    pub clients: Vec<Signer>,
    /// The administrator's key.
    pub administrator: Signer,
    /// What keyed tags have in common; `None` with real Ed25519.
    pub universe: Option<u64>,
    /// Signatures checked so far by anybody, with keyed tags.
    pub checked: Arc<AtomicU64>,
}

/// Client keys in a configuration: as many as a simulation may have clients.
pub const CLIENTS_MAX: usize = 48;

impl Identities {
    /// Those of a plan's cluster.
    ///
    /// # Panics
    /// Never: the configuration made here is one that can be used.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let key = |kind: u64, index: usize| {
            let number = plan.seed.wrapping_mul(1 << 20) ^ kind << 16 ^ index as u64;
            if plan.ed25519 {
                let mut seed = [0x5a; 32];
                seed[..8].copy_from_slice(&number.to_le_bytes());
                Signer::ed25519(&seed)
            } else {
                Signer::keyed(plan.seed, number)
            }
        };
        let all = |kind, count| (0..count).map(|index| key(kind, index)).collect::<Vec<Signer>>();
        let (hosts, register_keys, clients) = (all(1, plan.replicas), all(2, plan.replicas), all(3, CLIENTS_MAX));
        let administrator = key(4, 0);
        let mut cluster = [0x51; 16];
        cluster[..8].copy_from_slice(&plan.seed.to_le_bytes());
        let cluster = ClusterId(cluster);
        let member = |index: usize| Member {
            id: ReplicaId(index as u16),
            address: String::new(),
            host_key: hosts[index].public_key(),
            register_key: register_keys[index].public_key(),
            incarnation: Incarnation(0),
        };
        let configuration = Configuration {
            cluster,
            epoch: Epoch(0),
            members: (0..plan.replicas).map(member).collect(),
            client_keys: clients.iter().map(Signer::public_key).collect(),
            admin_key: administrator.public_key(),
            algorithm: "aphousia".into(),
            rotation: plan.rotation,
            limits: plan.limits,
        };
        let membership = Membership::new(configuration).expect("members are numbered and keys are distinct");
        let checked = Arc::new(AtomicU64::new(0));
        let verifier =
            if plan.ed25519 { Verifier::ed25519() } else { Verifier::counting(plan.seed, Arc::clone(&checked)) };
        let universe = (!plan.ed25519).then_some(plan.seed);
        let register = |index: usize| {
            let signer = register_keys[index].clone();
            let (replica, key) = (ReplicaId(index as u16), signer.public_key());
            (RegisterId { cluster, group: 0, replica, incarnation: Incarnation(0), key }, signer)
        };
        let registers = (0..plan.replicas).map(register).collect();
        Self {
            context: VerifyContext { cluster, verifier, membership },
            hosts,
            registers,
            clients,
            administrator,
            universe,
            checked,
        }
    }

    /// The membership.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.context.membership
    }

    /// The public key of a client.
    #[must_use]
    pub fn client_key(&self, client: usize) -> PublicKey {
        self.clients[client].public_key()
    }
}
