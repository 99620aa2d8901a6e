//! Who takes part, and what counts as enough of them.

use crate::bounds::{Bounds, MEMBERS_MAX};
use crate::{ClusterId, Digest, Epoch, Incarnation, PublicKey, ReplicaId, encode};
use alloc::{collections::BTreeSet, string::String, sync::Arc, vec::Vec};
use borsh::{BorshDeserialize, BorshSerialize};

/// One replica as everyone knows it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Member {
    /// Its number.
    pub id: ReplicaId,
    /// HOST:PORT where it listens.
    pub address: String,
    /// Authenticates its links and signs its statements.
    pub host_key: PublicKey,
    /// Its vote register's key.
    pub register_key: PublicKey,
    /// Which life of its vote register.
    pub incarnation: Incarnation,
}

/// Bounds that all replicas must share, since they decide what is valid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Limits {
    /// Bytes of one operation (a Redis value is a little smaller).
    pub operation_bytes: u32,
    /// Bytes of one signed frame.
    pub frame_bytes: u32,
    /// Bytes of one block's frames together.
    pub block_bytes: u32,
    /// Sessions open at once in the whole cluster.
    pub sessions: u32,
    /// Requests of one session between its lowest unacknowledged number and its highest.
    pub window: u32,
    /// Bytes of stored replies of one session: beyond it, its new requests are refused until it acknowledges.
    pub reply_bytes: u32,
    /// Microseconds of agreed time after which a session that sent nothing is closed.
    pub session_idle: u64,
}

impl Limits {
    /// What a cluster has that says nothing else.
    pub const DEFAULT: Self = {
        const MIB: u32 = 1 << 20;
        Self {
            operation_bytes: 17 * MIB, // a value of 16 MiB, its key and its command
            frame_bytes: 20 * MIB,
            block_bytes: 24 * MIB,
            sessions: 10_000,
            window: 4_096,
            reply_bytes: 64 * MIB,
            session_idle: 3_600_000_000,
        }
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is fixed within an epoch. Its digest is what the first block of the cluster stands on.
#[derive(Clone, PartialEq, Eq, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct Configuration {
    /// The cluster.
    pub cluster: ClusterId,
    /// The epoch.
    pub epoch: Epoch,
    /// The replicas, in the order of their numbers.
    pub members: Vec<Member>,
    /// Keys that may open sessions.
    pub client_keys: Vec<PublicKey>,
    /// Key of the administrator.
    pub admin_key: PublicKey,
    /// Name of the agreement algorithm.
    pub algorithm: String,
    /// Steps for which one leader leads before the next takes over; 0: until it fails.
    pub rotation: u64,
    /// Bounds.
    pub limits: Limits,
}

/// Why a configuration cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// No members, or more than this version supports.
    #[error("{0} members: a cluster has 1 to 64")]
    MemberCount(usize),
    /// Members must be numbered 0, 1, 2, ...
    #[error("members must be numbered 0, 1, 2, ... without gaps, but one is numbered {0}")]
    MemberNumber(ReplicaId),
    /// Two members or clients with one key.
    #[error("key {0} is used twice: every member and register needs a key of its own")]
    SharedKey(PublicKey),
    /// No sessions, or sessions without a request.
    #[error("limits sessions and window must not be 0")]
    Limits,
    /// Sizes that contradict each other: the relation that does not hold.
    #[error("limits contradict each other: {0}")]
    Bounds(&'static str),
}

impl Configuration {
    /// The digest that names this configuration.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of("unisono configuration 1", &[&encode(self)])
    }
}

/// A checked configuration, cheap to share.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Membership(Arc<Configuration>);

impl Membership {
    /// Checks that the configuration can be used.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn new(configuration: Configuration) -> Result<Self, ConfigurationError> {
        let count = configuration.members.len();
        if count == 0 || count > MEMBERS_MAX {
            return Err(ConfigurationError::MemberCount(count));
        }
        let mut keys = BTreeSet::new();
        for (index, member) in configuration.members.iter().enumerate() {
            if usize::from(member.id.0) != index {
                return Err(ConfigurationError::MemberNumber(member.id));
            }
            for key in [member.host_key, member.register_key] {
                if !keys.insert(key) {
                    return Err(ConfigurationError::SharedKey(key));
                }
            }
        }
        for key in configuration.client_keys.iter().chain([&configuration.admin_key]) {
            if !keys.insert(*key) {
                return Err(ConfigurationError::SharedKey(*key));
            }
        }
        let limits = &configuration.limits;
        Bounds::new(limits, count).check().map_err(ConfigurationError::Bounds)?;
        if limits.window == 0 || limits.sessions == 0 {
            return Err(ConfigurationError::Limits);
        }
        Ok(Self(Arc::new(configuration)))
    }

    /// The configuration.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.0
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.members.len()
    }

    /// Never true: a membership has members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.members.is_empty()
    }

    /// The member with this number.
    #[must_use]
    pub fn member(&self, id: ReplicaId) -> Option<&Member> {
        self.0.members.get(usize::from(id.0))
    }

    /// All numbers, ascending.
    pub fn ids(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.0.members.iter().map(|member| member.id)
    }

    /// Whether `key` may open sessions.
    #[must_use]
    pub fn is_client(&self, key: &PublicKey) -> bool {
        self.0.client_keys.contains(key)
    }

    /// The member whose host key this is.
    #[must_use]
    pub fn member_by_host_key(&self, key: &PublicKey) -> Option<&Member> {
        self.0.members.iter().find(|member| member.host_key == *key)
    }

    /// How large things are.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds::new(&self.0.limits, self.len())
    }

    /// How many are enough.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        Quorum::hybrid(self.len())
    }
}

/// How many are enough, in the hybrid fault model (Byzantine replicas, correct vote registers).
///
/// Source: the design's section on Aphousia: q = floor(n/2)+1, f = n - q. For odd n `commit` and `one_correct` are
/// equal, for even n they are not, hence two names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quorum {
    commit: usize,
    faulty: usize,
}

impl Quorum {
    fn hybrid(members: usize) -> Self {
        let commit = members / 2 + 1;
        Self { commit, faulty: members - commit }
    }

    /// q: any two sets of this size share a register. Commits, NewViews, attestations.
    #[must_use]
    pub const fn commit(&self) -> usize {
        self.commit
    }

    /// f+1: any set of this size has a correct replica. Wishes, Closed, checkpoints, replies.
    #[must_use]
    pub const fn one_correct(&self) -> usize {
        self.faulty + 1
    }

    /// f: how many may be faulty.
    #[must_use]
    pub const fn faulty(&self) -> usize {
        self.faulty
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn configuration(members: u16) -> Configuration {
        let key = |kind: u8, index: u16| {
            let mut bytes = [kind; 32];
            bytes[..2].copy_from_slice(&index.to_le_bytes());
            PublicKey(bytes)
        };
        Configuration {
            cluster: ClusterId([9; 16]),
            epoch: Epoch(0),
            members: (0..members)
                .map(|index| Member {
                    id: ReplicaId(index),
                    address: String::new(),
                    host_key: key(1, index),
                    register_key: key(2, index),
                    incarnation: Incarnation(0),
                })
                .collect(),
            client_keys: alloc::vec![key(3, 0)],
            admin_key: key(4, 0),
            algorithm: "aphousia".into(),
            rotation: 0,
            limits: Limits::default(),
        }
    }

    #[test]
    fn quorums_intersect_and_one_correct_outnumbers_the_faulty() {
        for members in 1..=9usize {
            let quorum = Quorum::hybrid(members);
            assert!(2 * quorum.commit() > members, "two quorums of {members} share a register");
            assert!(quorum.commit() + quorum.faulty() <= members, "the correct ones of {members} suffice");
            assert_eq!(quorum.one_correct(), quorum.faulty() + 1);
        }
        assert_eq!((Quorum::hybrid(3).commit(), Quorum::hybrid(3).one_correct()), (2, 2));
        assert_eq!((Quorum::hybrid(4).commit(), Quorum::hybrid(4).one_correct()), (3, 2));
    }

    #[test]
    fn contradictions_are_named() {
        assert!(Membership::new(configuration(3)).is_ok());
        assert_eq!(Membership::new(configuration(0)), Err(ConfigurationError::MemberCount(0)));
        let mut shared = configuration(3);
        shared.members[1].register_key = shared.members[0].host_key;
        assert_eq!(Membership::new(shared.clone()), Err(ConfigurationError::SharedKey(shared.members[0].host_key)));
        let mut gap = configuration(3);
        gap.members[2].id = ReplicaId(5);
        assert_eq!(Membership::new(gap), Err(ConfigurationError::MemberNumber(ReplicaId(5))));
        let mut limits = configuration(3);
        limits.limits.block_bytes = 1;
        assert!(matches!(Membership::new(limits), Err(ConfigurationError::Bounds(_))));
    }
}
