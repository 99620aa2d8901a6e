//! The trusted computing base of Unisono: the vote register. Everything else of a replica may lie; this may not.
//!
//! ```text
//!   state (64 bytes)   view | step | last = (view, step, hash)          and a key, and a name
//!
//!   certify(v, s, h)   v == view and (s > step or (v, s, h) == last)    step = s; last = (v, s, h)
//!                      -> Certificate = Sig(name, "C", v, s, h)
//!   advance(w)         w > view or (w == view and step == 0)            view = w; step = 0
//!                      -> ViewChange  = Sig(name, "V", w, last)
//!   attest(nonce)      always
//!                      -> Attestation = Sig(name, "A", nonce, view, step, last)
//! ```
//!
//! What it gives: a host cannot vote twice at one (view, step), cannot vote in a view it has left, and cannot hide its
//! last vote when it changes views. Asking again for the newest answer gives the same answer, since signatures are
//! deterministic: a crash between signing and sending loses nothing.
//!
//! What it never does: read a block. (view, step) and hash are bound by who verifies: a certificate or a last counts
//! only if the header that hashes to `hash` says exactly (view, step). It does no IO, allocates nothing in its rules,
//! waits for nothing and never panics; a request that the rules forbid is a [`Refused`] value.
//!
//! Why no counter (USIG): a counter forbids two messages with one number, not two votes in one view; it forces
//! delivery without holes and view changes whose logs grow. Here `step` may skip, so a slow register votes only for
//! the newest block, and a ViewChange stays at about 120 bytes.
//!
//! Invariant: (view, step) never decreases, lexicographically. Invariant: `last.view <= view`, and
//! `last.step == step` while `last.view == view`.
//!
//! Durability is the host's duty, with [`RegisterRecord`]: the state is written twice, checksummed, behind everything
//! that was persisted before, and an answer leaves only when that is done. After a start the newest valid copy counts;
//! with none valid the register is lost, never restored from something older. This does not protect against a root
//! user who puts an old disk back.
//!
//! Source: the design's section on the trusted component.
#![cfg_attr(not(test), no_std)]

mod record;
mod statement;
mod verify;

pub use record::{RecordError, RegisterRecord};
pub use verify::{register_id, verify_attestation, verify_certificate, verify_view_change};

use statement::Statement;
use unisono_types::borsh::{BorshDeserialize, BorshSerialize};
use unisono_types::{
    Attestation, Certificate, Digest, RegisterId, RegisterView, Signer, Step, ViewChange, VotePosition,
};

/// The three calls. Backends: in-process ([`Register`]), later a process of its own and hardware.
pub trait VoteRegister {
    /// Votes for the header `hash` at (`view`, `step`), or repeats the newest vote.
    ///
    /// # Errors
    /// [`Refused`] when `view` is not the current one, or `step` is not newer and this is not the newest vote.
    fn certify(&mut self, view: RegisterView, step: Step, hash: Digest) -> Result<Certificate, Refused>;

    /// Enters `view` and gives up voting below it, or repeats that while nothing was voted for in it.
    ///
    /// # Errors
    /// [`Refused`] when `view` is below the current one, or is the current one and votes were cast in it.
    fn advance(&mut self, view: RegisterView) -> Result<ViewChange, Refused>;

    /// States where the register stands, for a reader that wants to know the newest vote.
    fn attest(&mut self, nonce: [u8; 32]) -> Attestation;
}

/// The rules forbid it. The state is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refused {
    /// Another view than the current one.
    #[error("the register is in another view")]
    AnotherView,
    /// A step at or below the newest vote, and not that vote.
    #[error("the register has already voted at or above this step")]
    StepNotNewer,
    /// Votes were already cast in the view to be entered.
    #[error("the register has already voted in this view")]
    AlreadyVoted,
}

/// The 64 bytes that decide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, BorshSerialize, BorshDeserialize)]
#[borsh(crate = "unisono_types::borsh")]
pub struct RegisterState {
    /// Current view. Invariant: never decreases.
    pub view: RegisterView,
    /// Newest step voted for in `view`; 0 when none.
    pub step: Step,
    /// Newest vote of all.
    pub last: VotePosition,
}

/// The register in this process: for tests, simulation, and replicas that trust their own process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Register {
    id: RegisterId,
    signer: Signer,
    state: RegisterState,
}

impl Register {
    /// A register that never voted.
    #[must_use]
    pub const fn new(id: RegisterId, signer: Signer) -> Self {
        Self { id, signer, state: RegisterState { view: RegisterView(0), step: Step(0), last: NEVER } }
    }

    /// A register as its newest durable record says.
    #[must_use]
    pub const fn restore(id: RegisterId, signer: Signer, state: RegisterState) -> Self {
        Self { id, signer, state }
    }

    /// What must be durable before the answer to the newest call leaves.
    #[must_use]
    pub const fn state(&self) -> RegisterState {
        self.state
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> RegisterId {
        self.id
    }
}

const NEVER: VotePosition = VotePosition { view: RegisterView(0), step: Step(0), hash: Digest::ZERO };

impl VoteRegister for Register {
    fn certify(&mut self, view: RegisterView, step: Step, hash: Digest) -> Result<Certificate, Refused> {
        let vote = VotePosition { view, step, hash };
        if view != self.state.view {
            return Err(Refused::AnotherView);
        }
        if step <= self.state.step && vote != self.state.last {
            return Err(Refused::StepNotNewer);
        }
        self.state.step = step;
        self.state.last = vote;
        let signature = self.signer.sign(Statement::certificate(&self.id, &vote).bytes());
        Ok(Certificate { replica: self.id.replica, vote, signature })
    }

    fn advance(&mut self, view: RegisterView) -> Result<ViewChange, Refused> {
        if view < self.state.view {
            return Err(Refused::AnotherView);
        }
        if view == self.state.view && self.state.step != Step(0) {
            return Err(Refused::AlreadyVoted);
        }
        self.state.view = view;
        self.state.step = Step(0);
        let last = self.state.last;
        let signature = self.signer.sign(Statement::view_change(&self.id, view, &last).bytes());
        Ok(ViewChange { replica: self.id.replica, view, last, signature })
    }

    fn attest(&mut self, nonce: [u8; 32]) -> Attestation {
        let RegisterState { view, step, last } = self.state;
        let signature = self.signer.sign(Statement::attestation(&self.id, &nonce, view, step, &last).bytes());
        Attestation { replica: self.id.replica, nonce, view, step, last, signature }
    }
}

#[cfg(test)]
mod tests;
