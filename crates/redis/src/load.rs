//! Operations for load generators: GET and SET on keys drawn from a seed.

use crate::command::Command;
use crate::operation::Encoder;
use crate::resp::{Request, Version};

/// What a load consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mix {
    /// Different keys.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// SETs among 100 operations; the others are GETs.
    pub sets_percent: u64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { keys: 10_000, value_bytes: 100, sets_percent: 50 }
    }
}

impl Mix {
    /// The default mix with values of the size that a load generator asks for in its seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let default = Self::default();
        match unisono::load::size_of_seed(seed) {
            0 => default,
            // A generator asks for what it likes; more than the cluster takes is refused there, not made here.
            value_bytes => Self { value_bytes: value_bytes.min(VALUE_BYTES_MAX), ..default },
        }
    }
}

/// No sample is larger: a seed drawn at random must not fill the memory of who draws it.
const VALUE_BYTES_MAX: usize = 64 << 20;

/// One operation of the mix. Equal seeds give equal operations.
#[must_use]
pub fn sample(seed: u64, mix: Mix) -> Vec<u8> {
    let drawn = crate::shard::hash(&seed.to_le_bytes());
    let key = format!("key:{}", drawn % mix.keys.max(1));
    let mut batch = Encoder::batch();
    if (drawn >> 32) % 100 < mix.sets_percent {
        let letter = b'a' + (drawn >> 48) as u8 % 26;
        let value = vec![letter; mix.value_bytes];
        let request = Request::from_arguments([b"SET".as_slice(), key.as_bytes(), &value]);
        batch.command(Command::Set, &request, Version::Two);
    } else {
        batch.command(Command::Get, &Request::from_arguments(["GET", &key]), Version::Two);
    }
    batch.finish().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;

    #[test]
    fn a_load_generator_chooses_the_size() {
        assert_eq!(Mix::of_seed(unisono::load::sized_seed(5, 1_000)).value_bytes, 1_000);
        assert_eq!(Mix::of_seed(5), Mix::default());
    }

    #[test]
    fn samples_are_operations_of_the_mix() {
        let mix = Mix { keys: 10, value_bytes: 7, sets_percent: 30 };
        let mut sets = 0;
        for seed in 0..1_000 {
            let bytes = sample(seed, mix);
            assert_eq!(bytes, sample(seed, mix));
            let Ok(Operation::Batch(calls)) = Operation::decode(&bytes) else { panic!("no batch") };
            let call = calls.iter().next().unwrap();
            assert!(call.arguments[0].starts_with(b"key:"));
            sets += usize::from(call.command == Some(Command::Set) && call.arguments[1].len() == 7);
        }
        assert!((200..400).contains(&sets), "{sets}");
    }
}
