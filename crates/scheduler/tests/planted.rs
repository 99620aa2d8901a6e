//! The tests of the tests: each wrong rule is found by the random programs, or shows in its figure.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use support::parameters;
use unisono_scheduler::Parameters;
use unisono_scheduler::testing::{Checked, Features, Recording, Stuck, flushes_needed, rounds_beside_a_parked_owner};
use unisono_scheduler::uds::{Planted, Uds};

/// Programs that may be needed to find a wrong rule.
const PROGRAMS_MAX: u64 = 10_000;

/// Timings that each program is replayed under.
const REPLAYS: u64 = 4;

/// By what a wrong rule was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Found {
    /// A replay came to something else, or not to its end.
    Difference,
    /// The first run hangs.
    Hang,
    /// The first run goes on for ever, or has more rounds without progress than there can be.
    Livelock,
    /// The time of a thread is not that of what it has met.
    Time,
}

/// What the program of this seed shows.
fn search(planted: Planted, seed: u64) -> Option<Found> {
    let make = |parameters: &Parameters| -> Box<dyn Checked> { Box::new(Uds::planted(parameters.clone(), planted)) };
    let run = || -> Result<Option<Found>, Stuck> {
        let recording = Recording::new(seed, Features::ALL, &make)?;
        if recording.outcome.times.is_some() {
            return Ok(Some(Found::Time));
        }
        for replay in 0..REPLAYS {
            if recording.replay(seed << 16 | replay, &make).ok().as_ref() != Some(&recording.outcome) {
                return Ok(Some(Found::Difference));
            }
        }
        Ok(None)
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(found)) => found,
        Ok(Err(Stuck::Hang(_))) => Some(Found::Hang),
        Ok(Err(Stuck::Livelock(_))) => Some(Found::Livelock),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map_or("", String::as_str);
            assert!(message.starts_with("I7"), "{planted:?}, seed {seed}: {message}");
            Some(Found::Livelock)
        }
    }
}

/// The first program that finds it, and by what.
fn find(planted: Planted) -> (u64, Found) {
    (0..PROGRAMS_MAX)
        .find_map(|seed| search(planted, seed).map(|found| (seed, found)))
        .unwrap_or_else(|| panic!("{planted:?} is not found in {PROGRAMS_MAX} programs"))
}

#[test]
fn what_makes_replicas_differ_is_found_by_a_difference() {
    use Planted::*;
    for planted in [
        ArrivalOrder,
        RetryWithoutTurn,
        LocalFill,
        TicketsWithinRound,
        SpawnWithoutSlot,
        TryWithoutSlot,
        SleepWithoutSlot,
        TickIsNow,
        TimerRunsThread,
        EarlyAnswerLost,
        LastChangeWins,
        RollingHash,
    ] {
        let (seed, found) = find(planted);
        println!("{planted:?}: {found:?} in program {seed}");
        assert_eq!(found, Found::Difference, "{planted:?}, seed {seed}");
    }
}

#[test]
fn time_that_is_not_causal_is_seen_by_who_watches_what_threads_meet() {
    use Planted::*;
    for planted in [LockCarriesNothing, RelockKeepsNow, JoinKeepsNow, CallKeepsNow] {
        let (seed, found) = find(planted);
        println!("{planted:?}: {found:?} in program {seed}");
        assert_eq!(found, Found::Time, "{planted:?}, seed {seed}");
    }
}

#[test]
fn releases_by_readers_that_count_make_replicas_differ() {
    let mut found: Vec<Found> = (0..400).filter_map(|seed| search(Planted::ReadersCarry, seed)).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, [Found::Difference, Found::Time]);
}

#[test]
fn what_keeps_threads_from_their_end_is_found_by_a_hang_or_a_livelock() {
    use Planted::*;
    for planted in
        [NoBoost, NoFlush, EnqueuedKeepsHead, YieldIsProgress, FlushHoldsUntilEmpty, TickClosesNothing, LateDeadlock]
    {
        let (seed, found) = find(planted);
        println!("{planted:?}: {found:?} in program {seed}");
        assert_ne!(found, Found::Difference, "{planted:?}, seed {seed}");
    }
}

#[test]
fn tickets_that_count_as_active_are_found_either_way() {
    let mut found: Vec<Found> = (0..200).filter_map(|seed| search(Planted::TicketCountsAsActive, seed)).collect();
    found.sort_unstable();
    found.dedup();
    assert!(found.contains(&Found::Difference) && found.len() > 1, "{found:?}");
}

#[test]
fn a_flush_consumed_at_once_needs_a_new_one_for_every_round() {
    let right = flushes_needed(|parameters| Uds::new(parameters.clone()));
    let wrong = flushes_needed(|parameters| Uds::planted(parameters.clone(), Planted::FlushOnce));
    println!("{wrong} Flushes instead of {right}");
    assert!(3 * wrong > 4 * right, "{wrong} Flushes instead of {right}");
}

#[test]
fn who_tries_for_ever_behind_a_parked_owner_costs_rounds() {
    let right = rounds_beside_a_parked_owner(Uds::new(parameters(16, 2)));
    let wrong = rounds_beside_a_parked_owner(Uds::planted(parameters(16, 2), Planted::RetryForEver));
    println!("{wrong} rounds instead of {right}");
    assert!(wrong > 5 * right, "{wrong} rounds instead of {right}");
}
