//! Signatures as values: who holds a [`Signer`] can sign, and the host chooses which kind.
//!
//! Ed25519 by `verify_strict`, one by one: every replica must give the same verdict on the same bytes, which batch
//! verification does not promise. In simulation a keyed BLAKE3 tag stands in, 100 times as fast; a simulated liar holds
//! only its own `Signer`, so it cannot sign for others although the verifier could.

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc};
use borsh::{BorshDeserialize, BorshSerialize};
use core::{fmt, hash};

/// A public key; also the name of a client, a host or a register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key ")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A 64-byte signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sig ")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A secret key. Compared and hashed by its public key; printed without the secret.
#[derive(Clone)]
pub struct Signer(Secret);

#[derive(Clone)]
enum Secret {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    #[cfg(feature = "simulation")]
    Keyed {
        public: PublicKey,
        key: [u8; 32],
    },
}

impl Signer {
    /// The Ed25519 key made from 32 secret random bytes.
    #[must_use]
    pub fn ed25519(seed: &[u8; 32]) -> Self {
        Self(Secret::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(seed))))
    }

    /// Simulation only: a keyed-hash key. `universe` is shared by all of one simulation (see [`Verifier::keyed`]).
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn keyed(universe: u64, seed: u64) -> Self {
        let public = PublicKey(*blake3::hash(&seed.to_le_bytes()).as_bytes());
        Self(Secret::Keyed { public, key: keyed_secret(universe, &public) })
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        match &self.0 {
            Secret::Ed25519(key) => PublicKey(key.verifying_key().to_bytes()),
            #[cfg(feature = "simulation")]
            Secret::Keyed { public, .. } => *public,
        }
    }

    /// Signs `message`. Deterministic: the same message gives the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        match &self.0 {
            Secret::Ed25519(key) => {
                use ed25519_dalek::Signer as _;
                Signature(key.sign(message).to_bytes())
            }
            #[cfg(feature = "simulation")]
            Secret::Keyed { key, .. } => keyed_tag(key, message),
        }
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.public_key() == other.public_key()
    }
}

impl Eq for Signer {}

impl hash::Hash for Signer {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.public_key().hash(state);
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.public_key())
    }
}

/// How signatures are checked in this cluster.
#[derive(Clone, Debug)]
pub struct Verifier(Scheme);

#[derive(Clone, Debug)]
enum Scheme {
    Ed25519 {
        known: Arc<BTreeMap<PublicKey, ed25519_dalek::VerifyingKey>>,
    },
    #[cfg(feature = "simulation")]
    Keyed {
        universe: u64,
        checked: Option<Arc<core::sync::atomic::AtomicU64>>,
    },
}

impl Verifier {
    /// Ed25519, strict (small-order keys and non-canonical points are refused).
    #[must_use]
    pub fn ed25519() -> Self {
        Self(Scheme::Ed25519 { known: Arc::default() })
    }

    /// The same, with the points of these keys computed once and not again with each signature: a sixth of its work.
    /// Verdicts are the same. A key that is none is left out, and refused when it comes to it.
    #[must_use]
    pub fn ed25519_knowing(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let point = |key: PublicKey| Some((key, ed25519_dalek::VerifyingKey::from_bytes(&key.0).ok()?));
        Self(Scheme::Ed25519 { known: Arc::new(keys.into_iter().filter_map(point).collect()) })
    }

    /// Simulation only: tags of [`Signer::keyed`] of the same universe.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub const fn keyed(universe: u64) -> Self {
        Self(Scheme::Keyed { universe, checked: None })
    }

    /// The same, which counts the signatures that it checks: a simulated machine pays for them with its time.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub const fn counting(universe: u64, checked: Arc<core::sync::atomic::AtomicU64>) -> Self {
        Self(Scheme::Keyed { universe, checked: Some(checked) })
    }

    /// Whether `signature` is `key`'s on `message`.
    #[must_use]
    pub fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        match &self.0 {
            Scheme::Ed25519 { known } => {
                let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
                let strictly = |key: &ed25519_dalek::VerifyingKey| key.verify_strict(message, &signature).is_ok();
                match known.get(key) {
                    Some(key) => strictly(key),
                    None => ed25519_dalek::VerifyingKey::from_bytes(&key.0).is_ok_and(|key| strictly(&key)),
                }
            }
            #[cfg(feature = "simulation")]
            Scheme::Keyed { universe, checked } => {
                if let Some(checked) = checked {
                    checked.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
                }
                keyed_tag(&keyed_secret(*universe, key), message) == *signature
            }
        }
    }
}

#[cfg(feature = "simulation")]
fn keyed_secret(universe: u64, public: &PublicKey) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&universe.to_le_bytes()).update(&public.0);
    *hasher.finalize().as_bytes()
}

#[cfg(feature = "simulation")]
fn keyed_tag(key: &[u8; 32], message: &[u8]) -> Signature {
    let tag = *blake3::keyed_hash(key, message).as_bytes();
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&tag);
    Signature(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_convinces_for_its_key_and_message_only() {
        let (alice, bob) = (Signer::ed25519(&[1; 32]), Signer::ed25519(&[2; 32]));
        let signature = alice.sign(b"m");
        let small_order = PublicKey([0; 32]);
        let knowing = Verifier::ed25519_knowing([alice.public_key(), small_order, PublicKey([2; 32])]);
        for verifier in [Verifier::ed25519(), knowing] {
            assert!(verifier.verify(&alice.public_key(), b"m", &signature));
            assert!(!verifier.verify(&bob.public_key(), b"m", &signature));
            assert!(!verifier.verify(&alice.public_key(), b"n", &signature));
            assert!(!verifier.verify(&small_order, b"m", &Signature([0; 64])));
            assert!(!verifier.verify(&PublicKey([2; 32]), b"m", &signature), "no point at all");
        }
    }

    #[cfg(feature = "simulation")]
    #[test]
    fn a_simulated_liar_cannot_sign_for_others() {
        let (alice, mallory) = (Signer::keyed(7, 1), Signer::keyed(7, 2));
        let verifier = Verifier::keyed(7);
        assert!(verifier.verify(&alice.public_key(), b"m", &alice.sign(b"m")));
        assert!(!verifier.verify(&alice.public_key(), b"m", &mallory.sign(b"m")));
        assert!(!Verifier::keyed(8).verify(&alice.public_key(), b"m", &alice.sign(b"m")));
    }
}
