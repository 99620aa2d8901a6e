//! The vote register in this process, made durable: each answer waits for the group commit that holds its record.

use super::NodeError;
use crate::config::ReplicaConfig;
use crate::storage::Entry;
use bytes::Bytes;
use serde_json::{Value, json};
use unisono_consensus::RegisterAnswer;
use unisono_trusted::{Register, RegisterRecord, RegisterState, VoteRegister, register_id};
use unisono_types::{Digest, RegisterView, Step};

/// The register and its records.
pub(super) struct DurableRegister(Register);

impl DurableRegister {
    /// As its newest record in the log says; a new one when the log has none, which is so only on the very first start.
    pub(super) fn restore(config: &ReplicaConfig, record: Option<&Bytes>) -> Result<Self, NodeError> {
        let id = register_id(&config.cluster.membership, config.id).expect("the configuration was checked");
        let signer = config.register.signer().clone();
        let Some(record) = record else { return Ok(Self(Register::new(id, signer))) };
        match RegisterRecord::newest(&id, [&record[..]]) {
            Some(state) => Ok(Self(Register::restore(id, signer, state))),
            None => Err(NodeError::ForeignRegister),
        }
    }

    pub(super) const fn state(&self) -> RegisterState {
        self.0.state()
    }

    pub(super) fn certify(&mut self, view: RegisterView, step: Step, hash: Digest) -> (RegisterAnswer, Entry) {
        let answer = self.0.certify(view, step, hash).map_or(RegisterAnswer::Refused, RegisterAnswer::Certificate);
        (answer, self.record())
    }

    pub(super) fn advance(&mut self, view: RegisterView) -> (RegisterAnswer, Entry) {
        let answer = self.0.advance(view).map_or(RegisterAnswer::Refused, RegisterAnswer::ViewChange);
        (answer, self.record())
    }

    pub(super) fn attest(&mut self, nonce: [u8; 32]) -> (RegisterAnswer, Entry) {
        (RegisterAnswer::Attestation(self.0.attest(nonce)), self.record())
    }

    fn record(&self) -> Entry {
        let record = RegisterRecord { id: self.0.id(), state: self.0.state() };
        Entry::Register(Bytes::copy_from_slice(&record.encode()))
    }

    /// For `status`.
    pub(super) fn describe(&self) -> Value {
        json!({ "backend": "in-process", "incarnation": self.0.id().incarnation.0, "mode": "durable" })
    }
}
