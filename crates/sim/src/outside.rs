//! The outside of a simulated cluster: whom handlers can call, and what they say to whom.
//!
//! | target | says |
//! |---|---|
//! | `oracle` | the same to everybody, as a function of the request |
//! | `dice` | something else to each replica: no answer is believed, the call has only its time-out |
//! | `closed` | no, to everybody |
//! | `mute` | what the oracle says, when everybody has long given up |
//!
//! Nobody else is there. How late an answer comes is the world's to draw, and what a liar makes of it, too.

use crate::Random;
use unisono_types::{Bytes, CallAnswer, CallRefused, Digest};

/// How long `mute` thinks before everything else.
const MUTE_DELAY: u64 = 4 * crate::SECOND;

/// What `target` says to this replica, and how much later than others would.
pub fn answer(target: &str, request: &[u8], replica: usize) -> (u64, CallAnswer) {
    let oracle = || Digest::of("simulated oracle", &[request]).0[..8].to_vec();
    match target {
        "oracle" => (0, Ok(oracle().into())),
        "mute" => (MUTE_DELAY, Ok(oracle().into())),
        "dice" => {
            let thrown = Digest::of("simulated dice", &[request, &replica.to_le_bytes()]);
            (0, Ok(Bytes::copy_from_slice(&thrown.0[..8])))
        }
        "closed" => (0, Err(CallRefused::failed("closed".into()))),
        _ => (0, Err(CallRefused::Unknown)),
    }
}

/// What a liar says that it heard.
pub fn lie(random: &mut Random) -> CallAnswer {
    match random.below(4) {
        0 => Err(CallRefused::Unknown),
        1 => Err(CallRefused::failed("closed".into())),
        2 => Ok(vec![0; 2_000_000].into()), // more than may travel
        _ => Ok(random.next_u64().to_le_bytes().to_vec().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_says_one_thing_and_the_dice_say_many() {
        assert_eq!(answer("oracle", b"x", 0), answer("oracle", b"x", 1));
        assert_ne!(answer("oracle", b"x", 0), answer("oracle", b"y", 0));
        assert_eq!(answer("mute", b"x", 0).1, answer("oracle", b"x", 0).1);
        assert_ne!(answer("dice", b"x", 0), answer("dice", b"x", 1));
        assert_eq!(answer("nobody", b"x", 0).1, Err(CallRefused::Unknown));
    }
}
