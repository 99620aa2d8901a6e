//! Checking what registers signed. Pure; the name of the register is rebuilt from the membership, so that a signature
//! of another cluster, incarnation or group is worth nothing.

use crate::statement::Statement;
use unisono_types::{
    Attestation, Certificate, Membership, RegisterId, RegisterView, Rejected, ReplicaId, Signature, VerifyContext,
    ViewChange,
};

/// The register that serves `replica` in this membership (group 0: the only one that Aphousia uses).
#[must_use]
pub fn register_id(membership: &Membership, replica: ReplicaId) -> Option<RegisterId> {
    let member = membership.member(replica)?;
    Some(RegisterId {
        cluster: membership.configuration().cluster,
        group: 0,
        replica,
        incarnation: member.incarnation,
        key: member.register_key,
    })
}

/// Whether a member's register signed this vote, in this epoch.
///
/// # Errors
/// [`Rejected::NotAMember`], [`Rejected::Foreign`] for another epoch, [`Rejected::BadSignature`].
pub fn verify_certificate(certificate: &Certificate, context: &VerifyContext) -> Result<(), Rejected> {
    let id = name(certificate.replica, certificate.vote.view, context)?;
    check(&id, &Statement::certificate(&id, &certificate.vote), &certificate.signature, context)
}

/// Whether a member's register entered this view of this epoch with this last vote.
///
/// # Errors
/// As [`verify_certificate`].
pub fn verify_view_change(change: &ViewChange, context: &VerifyContext) -> Result<(), Rejected> {
    let id = name(change.replica, change.view, context)?;
    check(&id, &Statement::view_change(&id, change.view, &change.last), &change.signature, context)
}

/// Whether a member's register stood here when it was asked with this nonce.
///
/// # Errors
/// As [`verify_certificate`].
pub fn verify_attestation(attestation: &Attestation, context: &VerifyContext) -> Result<(), Rejected> {
    let Attestation { replica, nonce, view, step, last, signature } = attestation;
    let id = name(*replica, *view, context)?;
    check(&id, &Statement::attestation(&id, nonce, *view, *step, last), signature, context)
}

fn name(replica: ReplicaId, view: RegisterView, context: &VerifyContext) -> Result<RegisterId, Rejected> {
    let id = register_id(&context.membership, replica).ok_or(Rejected::NotAMember)?;
    if view.epoch() == context.membership.configuration().epoch { Ok(id) } else { Err(Rejected::Foreign) }
}

fn check(
    id: &RegisterId,
    statement: &Statement,
    signature: &Signature,
    context: &VerifyContext,
) -> Result<(), Rejected> {
    if context.verifier.verify(&id.key, statement.bytes(), signature) { Ok(()) } else { Err(Rejected::BadSignature) }
}
