//! The durable form of a register's state. One copy fits a sector; the host writes two, into two sectors, one after
//! the other, so that a torn write destroys at most one.
//!
//! ```text
//!   "univote1" 8 | cluster 16 | group 1 | replica 2 | incarnation 4 | key 32 | view 8 | step 8
//!                | last: view 8 step 8 hash 32 | BLAKE3 of all before, 32                          = 159 bytes
//! ```

use crate::RegisterState;
use unisono_types::{
    ClusterId, Digest, Incarnation, PublicKey, RegisterId, RegisterView, ReplicaId, Step, VotePosition,
};

/// A register's state together with its name, so that a copy of another register is never taken for this one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RegisterRecord {
    /// Whose.
    pub id: RegisterId,
    /// What.
    pub state: RegisterState,
}

/// Why bytes are no record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum RecordError {
    /// Too short, or not begun like a record.
    #[error("no vote register record")]
    NotARecord,
    /// Torn or damaged.
    #[error("the checksum of the vote register record does not match")]
    Checksum,
}

const MAGIC: [u8; 8] = *b"univote1";
const CHECKED_BYTES: usize = RegisterRecord::BYTES - 32;

impl RegisterRecord {
    /// Length of a copy.
    pub const BYTES: usize = 8 + 16 + 1 + 2 + 4 + 32 + 64 + 32;

    /// One copy.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let RegisterState { view, step, last } = self.state;
        let fields: [&[u8]; 11] = [
            &MAGIC,
            &self.id.cluster.0,
            &[self.id.group],
            &self.id.replica.0.to_le_bytes(),
            &self.id.incarnation.0.to_le_bytes(),
            &self.id.key.0,
            &view.0.to_le_bytes(),
            &step.0.to_le_bytes(),
            &last.view.0.to_le_bytes(),
            &last.step.0.to_le_bytes(),
            &last.hash.0,
        ];
        let mut at = 0;
        for field in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        let checksum = checksum(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum.0);
        bytes
    }

    /// Reads one copy; bytes behind it (the rest of a sector) are ignored.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let bytes: &[u8; Self::BYTES] = bytes.first_chunk().ok_or(RecordError::NotARecord)?;
        let mut rest = Fields(bytes);
        if rest.take::<8>()? != MAGIC {
            return Err(RecordError::NotARecord);
        }
        if checksum(&bytes[..CHECKED_BYTES]).0 != bytes[CHECKED_BYTES..] {
            return Err(RecordError::Checksum);
        }
        let id = RegisterId {
            cluster: ClusterId(rest.take()?),
            group: u8::from_le_bytes(rest.take()?),
            replica: ReplicaId(u16::from_le_bytes(rest.take()?)),
            incarnation: Incarnation(u32::from_le_bytes(rest.take()?)),
            key: PublicKey(rest.take()?),
        };
        let view = RegisterView(u64::from_le_bytes(rest.take()?));
        let step = Step(u64::from_le_bytes(rest.take()?));
        let last = VotePosition {
            view: RegisterView(u64::from_le_bytes(rest.take()?)),
            step: Step(u64::from_le_bytes(rest.take()?)),
            hash: Digest(rest.take()?),
        };
        Ok(Self { id, state: RegisterState { view, step, last } })
    }

    /// The newest valid copy of the register `id`, or `None`: then the register is lost, and must not be used again.
    #[must_use]
    pub fn newest<'a>(id: &RegisterId, copies: impl IntoIterator<Item = &'a [u8]>) -> Option<RegisterState> {
        let valid = copies.into_iter().filter_map(|copy| Self::decode(copy).ok());
        // (view, step) never decreases, so the greatest is the newest.
        valid.filter(|record| record.id == *id).map(|record| record.state).max_by_key(|state| (state.view, state.step))
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError::NotARecord)?;
        self.0 = rest;
        Ok(*field)
    }
}

fn checksum(bytes: &[u8]) -> Digest {
    Digest::of("unisono register record 1", &[bytes])
}
