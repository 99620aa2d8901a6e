//! The bytes that a register signs: a domain, the register's name, the kind, then numbers of fixed size.
//!
//! ```text
//!   "unisono register 1" | cluster 16 | group 1 | replica 2 | incarnation 4 | key 32 | kind 1 | fields
//!   "C"  view 8 | step 8 | hash 32
//!   "V"  view 8 | last 48
//!   "A"  nonce 32 | view 8 | step 8 | last 48
//! ```
//! Every kind has one length, so no two statements share bytes. Nothing is allocated.

use unisono_types::{RegisterId, RegisterView, Step, VotePosition};

const DOMAIN: &[u8] = b"unisono register 1";
const NAME_BYTES: usize = 16 + 1 + 2 + 4 + 32;
const POSITION_BYTES: usize = 8 + 8 + 32;
/// The longest kind: an attestation.
const BYTES_MAX: usize = DOMAIN.len() + NAME_BYTES + 1 + 32 + 8 + 8 + POSITION_BYTES;

/// One statement, ready to be signed or checked.
pub(crate) struct Statement {
    bytes: [u8; BYTES_MAX],
    length: usize,
}

impl Statement {
    /// "I vote for this."
    pub(crate) fn certificate(id: &RegisterId, vote: &VotePosition) -> Self {
        Self::begin(id, b'C').position(vote)
    }

    /// "I have entered this view; this was my last vote."
    pub(crate) fn view_change(id: &RegisterId, view: RegisterView, last: &VotePosition) -> Self {
        Self::begin(id, b'V').put(&view.0.to_le_bytes()).position(last)
    }

    /// "I stand here."
    pub(crate) fn attestation(
        id: &RegisterId,
        nonce: &[u8; 32],
        view: RegisterView,
        step: Step,
        last: &VotePosition,
    ) -> Self {
        Self::begin(id, b'A').put(nonce).put(&view.0.to_le_bytes()).put(&step.0.to_le_bytes()).position(last)
    }

    /// What is signed.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }

    fn begin(id: &RegisterId, kind: u8) -> Self {
        Self { bytes: [0; BYTES_MAX], length: 0 }
            .put(DOMAIN)
            .put(&id.cluster.0)
            .put(&[id.group])
            .put(&id.replica.0.to_le_bytes())
            .put(&id.incarnation.0.to_le_bytes())
            .put(&id.key.0)
            .put(&[kind])
    }

    fn position(self, position: &VotePosition) -> Self {
        self.put(&position.view.0.to_le_bytes()).put(&position.step.0.to_le_bytes()).put(&position.hash.0)
    }

    /// Every chain of `put`s above fits [`BYTES_MAX`] (a test walks them all), so nothing is ever cut off.
    fn put(mut self, field: &[u8]) -> Self {
        let end = self.length.saturating_add(field.len());
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(field);
            self.length = end;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::{ClusterId, Incarnation, PublicKey, ReplicaId};

    #[test]
    fn every_kind_has_its_own_length_and_nothing_is_cut_off() {
        let id = RegisterId {
            cluster: ClusterId([1; 16]),
            group: 0,
            replica: ReplicaId(1),
            incarnation: Incarnation(2),
            key: PublicKey([3; 32]),
        };
        let base = DOMAIN.len() + NAME_BYTES + 1;
        let last = VotePosition::default();
        assert_eq!(Statement::certificate(&id, &last).bytes().len(), base + POSITION_BYTES);
        assert_eq!(Statement::view_change(&id, RegisterView(1), &last).bytes().len(), base + 8 + POSITION_BYTES);
        let attestation = Statement::attestation(&id, &[0; 32], RegisterView(1), Step(1), &last);
        assert_eq!(attestation.bytes().len(), BYTES_MAX);
    }
}
