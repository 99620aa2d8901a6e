//! The canonical codec: borsh, one encoding per value, refused otherwise.
//!
//! Chosen because it refused every non-canonical input of 100 000 hostile ones where others did not
//! (docs/decisions/0001-canonical-codec.md). `decode` consumes everything or fails; a length prefix inside never
//! allocates more than the bytes that are left can fill.

use alloc::vec::Vec;
use borsh::{BorshDeserialize, BorshSerialize};

/// Why bytes are no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// More bytes than this kind of value may take.
    #[error("{length} bytes, at most {limit} allowed")]
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Cut short, trailing bytes, an unknown variant, or not canonical.
    #[error("malformed bytes")]
    Malformed,
}

/// The canonical bytes of `value`.
#[must_use]
pub fn encode<T: BorshSerialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    value.serialize(&mut bytes).expect("writing to a Vec does not fail, and no type here refuses to encode");
    bytes
}

/// The value whose canonical encoding is exactly `bytes`, at most `limit` of them.
///
/// # Errors
/// [`CodecError`] when there are more than `limit` bytes, or when they are not the encoding of a `T`.
pub fn decode<T: BorshDeserialize>(bytes: &[u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLong { length: bytes.len(), limit });
    }
    borsh::from_slice(bytes).map_err(|_| CodecError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn what_is_not_exactly_one_value_is_refused() {
        let bytes = encode(&(1u32, vec![2u8, 3]));
        assert_eq!(decode::<(u32, Vec<u8>)>(&bytes, 64), Ok((1, vec![2, 3])));
        assert_eq!(decode::<(u32, Vec<u8>)>(&bytes, 4), Err(CodecError::TooLong { length: bytes.len(), limit: 4 }));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode::<(u32, Vec<u8>)>(&longer, 64), Err(CodecError::Malformed));
        assert_eq!(decode::<(u32, Vec<u8>)>(&bytes[..bytes.len() - 1], 64), Err(CodecError::Malformed));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let claim = u32::MAX.to_le_bytes();
        assert_eq!(decode::<Vec<u64>>(&claim, 64), Err(CodecError::Malformed));
        assert_eq!(decode::<Vec<u8>>(&claim, 64), Err(CodecError::Malformed));
    }
}
