//! SipHash-2-4 with 128 bits of output: row keys become lock ids, positions become seeds.
//!
//! Written out here, because the hasher of the standard library may change with the compiler while these values must
//! be equal on all replicas. The key is the cluster's id: no secret, it only makes equal programs of different
//! clusters differ. Two rows whose hashes collide share a lock, which is slower and nothing worse: rows themselves
//! are told apart by their whole key. Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF".

use unisono_types::ClusterId;

/// The key of the hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashKey {
    low: u64,
    high: u64,
}

impl HashKey {
    pub(crate) fn of(cluster: ClusterId) -> Self {
        Self { low: word(&cluster.0[..8]), high: word(&cluster.0[8..]) }
    }

    /// The 128-bit hash of `bytes`.
    pub(crate) fn hash(self, bytes: &[u8]) -> u128 {
        let mut state = [
            self.low ^ 0x736f_6d65_7073_6575,
            self.high ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            self.low ^ 0x6c79_6765_6e65_7261,
            self.high ^ 0x7465_6462_7974_6573,
        ];
        let mut words = bytes.chunks_exact(8);
        for chunk in &mut words {
            absorb(&mut state, word(chunk));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        last[7] = bytes.len() as u8; // the length modulo 256, as the specification has it
        absorb(&mut state, u64::from_le_bytes(last));

        state[2] ^= 0xee;
        let low = squeeze(&mut state);
        state[1] ^= 0xdd;
        let high = squeeze(&mut state);
        (u128::from(high) << 64) | u128::from(low)
    }
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

fn squeeze(state: &mut [u64; 4]) -> u64 {
    (0..4).for_each(|_| round(state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *c = c.wrapping_add(*d);
    *b = b.rotate_left(13) ^ *a;
    *d = d.rotate_left(16) ^ *c;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*b);
    *a = a.wrapping_add(*d);
    *b = b.rotate_left(17) ^ *c;
    *d = d.rotate_left(21) ^ *a;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the reference implementation: key 00 01 .. 0f, input 00 01 .. of the given length.
    #[test]
    fn the_vectors_of_the_reference_implementation() {
        let key = HashKey::of(ClusterId(std::array::from_fn(|i| i as u8)));
        let input: Vec<u8> = (0..64).collect();
        let expect = |length: usize, bytes: [u8; 16]| {
            assert_eq!(key.hash(&input[..length]).to_le_bytes(), bytes, "length {length}");
        };
        expect(0, [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93]);
        expect(1, [0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45]);
    }

    #[test]
    fn another_cluster_hashes_differently() {
        assert_ne!(HashKey::of(ClusterId([1; 16])).hash(b"k"), HashKey::of(ClusterId([2; 16])).hash(b"k"));
    }
}
