//! Wrong rules, to be found by the same schedules: a harness that does not find them would not find the next mistake.
//!
//! Each is looked for on the executor first, seed by seed, and in the scheduler's own random programs beside it: some rules
//! need what only these do. A rule whose cost is only slowness shows in a figure.

use super::{Case, STEPPED};
use serde::Serialize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use unisono_scheduler::Parameters;
use unisono_scheduler::testing::{Checked, Features, Recording, flushes_needed, rounds_beside_a_parked_owner};
use unisono_scheduler::uds::{Planted, Uds};

/// Schedules of each program of the scheduler's own.
const REPLAYS: u64 = 4;

/// All wrong rules, by name.
pub const PLANTED: [(Planted, &str); 27] = [
    (Planted::ArrivalOrder, "arrival-order"),
    (Planted::RetryWithoutTurn, "retry-without-turn"),
    (Planted::LocalFill, "local-fill"),
    (Planted::NoBoost, "no-boost"),
    (Planted::NoFlush, "no-flush"),
    (Planted::TicketCountsAsActive, "ticket-counts-as-active"),
    (Planted::TicketsWithinRound, "tickets-within-round"),
    (Planted::SpawnWithoutSlot, "spawn-without-slot"),
    (Planted::TryWithoutSlot, "try-without-slot"),
    (Planted::SleepWithoutSlot, "sleep-without-slot"),
    (Planted::TickIsNow, "tick-is-now"),
    (Planted::TimerRunsThread, "timer-runs-thread"),
    (Planted::EnqueuedKeepsHead, "enqueued-keeps-head"),
    (Planted::YieldIsProgress, "yield-is-progress"),
    (Planted::FlushHoldsUntilEmpty, "flush-holds-until-empty"),
    (Planted::FlushOnce, "flush-once"),
    (Planted::TickClosesNothing, "tick-closes-nothing"),
    (Planted::EarlyAnswerLost, "early-answer-lost"),
    (Planted::LastChangeWins, "last-change-wins"),
    (Planted::RollingHash, "rolling-hash"),
    (Planted::RetryForEver, "retry-for-ever"),
    (Planted::LateDeadlock, "late-deadlock"),
    (Planted::LockCarriesNothing, "lock-carries-nothing"),
    (Planted::RelockKeepsNow, "relock-keeps-now"),
    (Planted::ReadersCarry, "readers-carry"),
    (Planted::JoinKeepsNow, "join-keeps-now"),
    (Planted::CallKeepsNow, "call-keeps-now"),
];

/// What became of one wrong rule.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Search {
    /// Its name.
    pub name: &'static str,
    /// Whether it was found.
    pub found: bool,
    /// After how many schedules.
    pub after: Option<u64>,
    /// By what: `executor` or `scheduler` programs, or `figure`.
    pub by: Option<&'static str>,
}

/// Looks for a wrong rule within so many schedules.
#[must_use]
pub fn search(planted: Planted, name: &'static str, schedules: u64) -> Search {
    let found = |by, after| Search { name, found: true, after: Some(after), by: Some(by) };
    if let Some(after) = costs_more(planted) {
        return found("figure", after);
    }
    let mut after = 0;
    for seed in 0.. {
        for (by, look) in [("executor", on_executor as Look), ("scheduler", in_scheduler)] {
            if after >= schedules {
                return Search { name, found: false, after: None, by: None };
            }
            if look(planted, seed, &mut after) {
                return found(by, after);
            }
        }
    }
    unreachable!("seeds do not end before schedules")
}

/// Whether this seed shows the rule; counts schedules.
type Look = fn(Planted, u64, &mut u64) -> bool;

/// A rule may also break a promise of the scheduler's own.
fn shows(run: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(true)
}

fn on_executor(planted: Planted, seed: u64, after: &mut u64) -> bool {
    let case = Case::of_seed(seed);
    shows(|| {
        *after += 1;
        let recording = case.record(case.planted(planted));
        if recording.trace.outcomes.len() < case.operations.len() {
            return true;
        }
        case.executions().take(STEPPED as usize).any(|execution| {
            *after += 1;
            case.strays(planted, &recording, execution)
        })
    })
}

fn in_scheduler(planted: Planted, seed: u64, after: &mut u64) -> bool {
    let make = |parameters: &Parameters| -> Box<dyn Checked> { Box::new(Uds::planted(parameters.clone(), planted)) };
    shows(|| {
        *after += 1;
        let Ok(recording) = Recording::new(seed, Features::ALL, &make) else { return true };
        if recording.outcome.times.is_some() {
            return true;
        }
        (0..REPLAYS).any(|replay| {
            *after += 1;
            recording.replay(seed << 16 | replay, &make).ok().as_ref() != Some(&recording.outcome)
        })
    })
}

// -- slowness

/// After how many recordings a figure shows a rule that makes nothing wrong, only dear.
fn costs_more(planted: Planted) -> Option<u64> {
    match planted {
        Planted::FlushOnce => {
            let right = flushes_needed(|parameters| Uds::new(parameters.clone()));
            let wrong = flushes_needed(|parameters| Uds::planted(parameters.clone(), planted));
            (3 * wrong > 4 * right).then_some(60)
        }
        Planted::RetryForEver => {
            let right = rounds_beside_a_parked_owner(Uds::new(crowd()));
            let wrong = rounds_beside_a_parked_owner(Uds::planted(crowd(), planted));
            (wrong > 5 * right).then_some(1)
        }
        _ => None,
    }
}

fn crowd() -> Parameters {
    Parameters { primaries: 16, steps: 2, ..Parameters::uds() }
}
