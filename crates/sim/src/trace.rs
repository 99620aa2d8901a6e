//! What happened, as a hash and, on request, as one line per event.
//!
//! The hash covers every event with its time and every byte that was delivered: two runs of one seed that differ in
//! anything a replica could see differ in it. It is a fast mixing hash, not a cryptographic one; nobody forges it.

/// The record of one run.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    print: bool,
}

impl Trace {
    /// An empty trace; `print`: one line per event on standard output.
    #[must_use]
    pub const fn new(print: bool) -> Self {
        Self { hash: 0x6a09_e667_f3bc_c908, print }
    }

    /// Takes in one number.
    pub fn number(&mut self, value: u64) {
        let mixed = (self.hash ^ value).wrapping_mul(0x9fb2_1c65_1e98_df25);
        self.hash = mixed ^ (mixed >> 29);
    }

    /// Takes in bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.number(u64::from_le_bytes(*chunk));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.number(u64::from_le_bytes(last));
    }

    /// Prints a line when lines are wanted; `line` is not evaluated otherwise.
    pub fn line(&self, at: u64, line: impl FnOnce() -> String) {
        if self.print {
            println!("{:>5}.{:06} {}", at / 1_000_000, at % 1_000_000, line());
        }
    }

    /// Whether lines are printed.
    #[must_use]
    pub const fn prints(&self) -> bool {
        self.print
    }

    /// The hash so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_length_and_every_byte_count() {
        let hash = |parts: &[&[u8]]| {
            let mut trace = Trace::new(false);
            parts.iter().for_each(|part| trace.bytes(part));
            trace.hash()
        };
        assert_eq!(hash(&[b"abc", b"d"]), hash(&[b"abc", b"d"]));
        assert_ne!(hash(&[b"abc", b"d"]), hash(&[b"d", b"abc"]));
        assert_ne!(hash(&[b"abc"]), hash(&[b"abc\0"]));
        assert_ne!(hash(&[b"0123456789abcdef"]), hash(&[b"0123456789abcdeg"]));
    }
}
