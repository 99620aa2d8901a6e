//! A secret key of a file: it signs, and it authenticates links.

use super::{ConfigError, files};
use std::{fmt, path::Path, sync::Arc};
use unisono_types::{PublicKey, Signer};

/// Bytes of a key file.
const KEY_BYTES: usize = 32;

/// An Ed25519 key pair. Shared, not copied; printed without the secret.
#[derive(Clone)]
pub struct KeyPair(Arc<Parts>);

struct Parts {
    seed: [u8; KEY_BYTES],
    signer: Signer,
    public: PublicKey,
}

impl KeyPair {
    /// The key made from 32 secret random bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; KEY_BYTES]) -> Self {
        let signer = Signer::ed25519(&seed);
        let public = signer.public_key();
        Self(Arc::new(Parts { seed, signer, public }))
    }

    /// A new random key.
    ///
    /// # Errors
    /// [`ConfigError::Random`].
    pub fn generate() -> Result<Self, ConfigError> {
        let mut seed = [0; KEY_BYTES];
        getrandom::fill(&mut seed).map_err(|error| ConfigError::Random(error.to_string()))?;
        Ok(Self::from_seed(seed))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`ConfigError::ReadableKey`] when group or others may read it, and what else can be wrong with a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = files::read_secret(path)?;
        let seed = bytes
            .as_slice()
            .try_into()
            .map_err(|_| ConfigError::KeyLength { path: path.into(), length: bytes.len() })?;
        Ok(Self::from_seed(seed))
    }

    pub(super) fn write_new(&self, path: &Path) -> Result<(), ConfigError> {
        files::write_new(path, &self.0.seed)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.0.public
    }

    /// Signs with it.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.0.signer
    }

    /// The secret, for the TLS stack.
    pub(crate) fn seed(&self) -> &[u8; KEY_BYTES] {
        &self.0.seed
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?})", self.0.public)
    }
}
