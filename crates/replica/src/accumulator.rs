//! A digest of a set, whatever the order in which its elements came: their digests added as 256-bit numbers.
//!
//! Good enough to compare what correct replicas computed from equal decisions, which is all that a root is for. Not
//! good enough to accept a set from somebody else: who may choose many elements can make two sets with one sum.

use unisono_types::Digest;

/// The sum of the digests of a set's elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Accumulator([u64; 4]);

impl Accumulator {
    /// Puts an element in.
    pub(crate) fn add(&mut self, element: &Digest) {
        let mut carry = false;
        for (own, other) in self.0.iter_mut().zip(limbs(element)) {
            let (sum, first) = own.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*own, carry) = (sum, first || second);
        }
    }

    /// Takes out an element that was put in before.
    pub(crate) fn subtract(&mut self, element: &Digest) {
        let mut borrow = false;
        for (own, other) in self.0.iter_mut().zip(limbs(element)) {
            let (rest, first) = own.overflowing_sub(other);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*own, borrow) = (rest, first || second);
        }
    }

    /// The sum's bytes.
    pub(crate) fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *chunk = limb.to_le_bytes();
        }
        bytes
    }
}

fn limbs(digest: &Digest) -> [u64; 4] {
    let mut limbs = [0; 4];
    for (limb, chunk) in limbs.iter_mut().zip(digest.0.as_chunks::<8>().0) {
        *limb = u64::from_le_bytes(*chunk);
    }
    limbs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_does_not_matter_and_what_was_added_can_be_taken_out(
            mut elements in proptest::collection::vec(any::<[u8; 32]>(), 1..20),
            rotate in 0..20usize,
        ) {
            let sum = |elements: &[[u8; 32]]| {
                let mut sum = Accumulator::default();
                elements.iter().for_each(|element| sum.add(&Digest(*element)));
                sum
            };
            let whole = sum(&elements);
            let steps = rotate % elements.len();
            elements.rotate_left(steps);
            prop_assert_eq!(sum(&elements), whole);
            let last = elements.pop().unwrap();
            let mut less = whole;
            less.subtract(&Digest(last));
            prop_assert_eq!(less, sum(&elements));
        }
    }

    #[test]
    fn carries_run_through_all_limbs() {
        let mut one = [0; 32];
        one[0] = 1;
        let mut sum = Accumulator::default();
        sum.add(&Digest([0xff; 32]));
        sum.add(&Digest(one));
        assert_eq!(sum, Accumulator::default());
        sum.subtract(&Digest(one));
        assert_eq!(sum.bytes(), [0xff; 32]);
    }
}
