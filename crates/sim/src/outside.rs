//! The outside of a simulated cluster: whom handlers can call, and what they say to whom.
//!
//! | target | says |
//! |---|---|
//! | `oracle` | the same to everybody, as a function of the request |
//! | `mute` | what the oracle says when everybody has long given up, or nothing at all |
//! | `rumour` | what the oracle says, but to some replicas no, too much, or nothing |
//! | `unsteady` | what the oracle says, but nothing works for half of the time |
//! | `dice` | something else to each replica: no answer is believed, the call has only its time-out |
//! | `closed` | no, to everybody |
//! | `flood` | more than may travel |
//!
//! Nobody else is there, though one more is asked. How late an answer comes is the world's to draw, and what a liar makes
//! of it, too.

use crate::{OutsideCounts, Random, SECOND};
use unisono_types::{Bytes, CALL_ANSWER_BYTES_MAX, CallAnswer, CallRefused, Digest};

/// Whom handlers ask.
pub const TARGETS: [&str; 8] = ["oracle", "mute", "rumour", "unsteady", "dice", "closed", "flood", "nobody"];

/// Who says what the oracle says, if anything; by their place.
pub const THAT_SAY_NUMBERS: [u8; 5] = [0, 0, 1, 2, 3];

/// Who says the same to everybody, sooner or later.
pub const THAT_AGREE: [u8; 4] = [0, 5, 6, 7];

/// How long `mute` thinks before everything else.
const MUTE_DELAY: u64 = 4 * SECOND;

/// `unsteady` works for so long, then does not for as long.
const UNSTEADY_LENGTH: u64 = SECOND / 4;

/// More than an answer may be.
const TOO_MUCH: &[u8] = &[0; CALL_ANSWER_BYTES_MAX + 1];

/// Bytes of a failure.
const CLOSED: &str = "closed";
const DOWN: &str = "down";

/// What the oracle says.
#[must_use]
pub fn truth(request: &[u8]) -> u64 {
    let digest = Digest::of("simulated oracle", &[request]);
    u64::from_le_bytes(std::array::from_fn(|place| digest.0[place]))
}

/// What `target` says to this replica at this time, and how much later than others would; `None`: nothing, ever.
#[must_use]
pub fn answer(target: &str, request: &[u8], replica: usize, now: u64) -> Option<(u64, CallAnswer)> {
    let oracle = || Ok(Bytes::copy_from_slice(&truth(request).to_le_bytes()));
    let chance = || Digest::of("simulated dice", &[request, &replica.to_le_bytes()]);
    let said = match target {
        "oracle" => oracle(),
        "mute" if truth(request).is_multiple_of(2) => return Some((MUTE_DELAY, oracle())),
        "mute" => return None,
        "rumour" => match chance().0[0] % 8 {
            0 => failed(CLOSED),
            1 => too_much(),
            2 => return None,
            _ => oracle(),
        },
        "unsteady" if (now / UNSTEADY_LENGTH).is_multiple_of(2) => oracle(),
        "unsteady" => failed(DOWN),
        "dice" => Ok(Bytes::copy_from_slice(&chance().0[..8])),
        "closed" => failed(CLOSED),
        "flood" => too_much(),
        _ => Err(CallRefused::Unknown),
    };
    Some((0, said))
}

/// Counts a call that is answered so, and what goes wrong with it.
pub fn count(target: &str, said: Option<&(u64, CallAnswer)>, counts: &mut OutsideCounts) {
    counts.asked += 1;
    counts.differing += u64::from(matches!(target, "dice" | "rumour"));
    match said {
        None => counts.unanswered += 1,
        Some((delay, answer)) => {
            counts.late += u64::from(*delay >= SECOND);
            counts.too_large += u64::from(*answer == too_much());
            counts.down += u64::from(*answer == failed(DOWN));
        }
    }
}

/// Whether this may be what enough replicas heard: one correct replica at least must have heard it, and one more.
#[must_use]
pub fn may_say(target: &str, request: &[u8], answer: &Result<&Vec<u8>, &CallRefused>) -> bool {
    let is_closed = |refused: &CallRefused| failed(CLOSED) == Err(refused.clone());
    match (target, answer) {
        ("oracle" | "mute" | "rumour" | "unsteady", Ok(bytes)) => bytes[..] == truth(request).to_le_bytes(),
        ("rumour", Err(refused)) => **refused == CallRefused::TooLarge || is_closed(refused),
        ("unsteady", Err(refused)) => failed(DOWN) == Err((*refused).clone()),
        ("closed", Err(refused)) => is_closed(refused),
        ("flood", Err(refused)) => **refused == CallRefused::TooLarge,
        ("nobody", Err(refused)) => **refused == CallRefused::Unknown,
        _ => false,
    }
}

/// What a liar says that it heard.
pub fn lie(random: &mut Random) -> CallAnswer {
    match random.below(4) {
        0 => Err(CallRefused::Unknown),
        1 => failed(CLOSED),
        2 => too_much(),
        _ => Ok(random.next_u64().to_le_bytes().to_vec().into()),
    }
}

fn failed(text: &str) -> CallAnswer {
    Err(CallRefused::failed(text.into()))
}

fn too_much() -> CallAnswer {
    Ok(Bytes::from_static(TOO_MUCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(target: &str, request: &[u8], replica: usize) -> Option<CallAnswer> {
        answer(target, request, replica, 0).map(|(_, answer)| answer)
    }

    #[test]
    fn the_oracle_says_one_thing_and_the_dice_say_many() {
        assert_eq!(said("oracle", b"x", 0), said("oracle", b"x", 1));
        assert_ne!(said("oracle", b"x", 0), said("oracle", b"y", 0));
        assert_ne!(said("dice", b"x", 0), said("dice", b"x", 1));
        assert_eq!(said("nobody", b"x", 0), Some(Err(CallRefused::Unknown)));
    }

    #[test]
    fn each_way_not_to_answer_is_taken() {
        let answers = |target: &str| -> Vec<Option<CallAnswer>> {
            (0..64u8).map(|request| said(target, &[request], usize::from(request % 7))).collect()
        };
        let rumours = answers("rumour");
        assert!(rumours.contains(&None) && rumours.contains(&Some(failed(CLOSED))));
        assert!(rumours.contains(&Some(too_much())) && rumours.contains(&said("oracle", &[0], 0)));
        assert!(answers("mute").contains(&None) && answers("mute").iter().any(Option::is_some));
        assert_eq!(answer("unsteady", b"x", 0, 0), answer("oracle", b"x", 0, 0));
        assert_eq!(answer("unsteady", b"x", 0, UNSTEADY_LENGTH), Some((0, failed(DOWN))));
    }

    #[test]
    fn who_agrees_gives_what_it_may_say() {
        for target in THAT_AGREE.map(|place| TARGETS[usize::from(place)]) {
            let answer = match said(target, b"x", 0).expect("it answers") {
                Ok(bytes) if bytes.len() > CALL_ANSWER_BYTES_MAX => Err(CallRefused::TooLarge),
                answer => answer.map(|bytes| bytes.to_vec()),
            };
            assert_eq!(said(target, b"x", 0), said(target, b"x", 1));
            assert!(may_say(target, b"x", &answer.as_ref()), "{target}");
        }
        assert!(!may_say("dice", b"x", &Ok(&truth(b"x").to_le_bytes().to_vec())));
    }
}
