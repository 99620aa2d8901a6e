//! Random programs under random timing: the check that a policy is deterministic, and that it lets everybody come to an
//! end. For tests and simulators; decides nothing in a replica.
//!
//! ```text
//!   seed ──> Scenario ──lead──> log + Outcome
//!                          └──follow, under another timing──> Outcome, the same
//! ```
//! `program`: handlers whose operations depend on what they have seen, so that any difference in the order of grants
//! spreads into results. `executor`: takes one step of one handler at a time; which, how many run at once, which begin
//! ahead and when entries arrive is chosen by a seed. It watches from outside: owners per lock, results, reports.

mod executor;
mod figure;
mod program;

pub use executor::{Anachronism, Counters, Executor, LogEntry, Outcome, Stuck, Timing};
pub use figure::{flushes_needed, rounds_beside_a_parked_owner};
pub use program::{Features, Object, Scenario};

use crate::sequential::Sequential;
use crate::uds::Uds;
use crate::{Parameters, Scheduler};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A policy that can check itself.
pub trait Checked: Scheduler {
    /// Panics when an invariant does not hold.
    fn check(&self);

    /// Locks that somebody owns or stands at.
    fn locks_in_use(&self) -> usize;
}

impl Checked for Uds {
    fn check(&self) {
        self.invariants();
    }

    fn locks_in_use(&self) -> usize {
        self.locks_in_use()
    }
}

impl Checked for Sequential {
    fn check(&self) {
        self.invariants();
    }

    fn locks_in_use(&self) -> usize {
        self.locks_in_use()
    }
}

/// Makes the policy under test.
pub type Make<'a> = &'a dyn Fn(&Parameters) -> Box<dyn Checked>;

/// A scenario, the log of its first run, and what all other runs must come to.
pub struct Recording {
    /// What ran.
    pub scenario: Scenario,
    /// Its log.
    pub log: Vec<LogEntry>,
    /// What it came to.
    pub outcome: Outcome,
}

impl Recording {
    /// The scenario of this seed, led to its end.
    pub fn new(seed: u64, features: Features, make: Make<'_>) -> Result<Self, Stuck> {
        let scenario = Scenario::random(seed, features);
        let timing = Timing::random(&mut Random::new(seed ^ 0x5EED));
        let (log, outcome) = Executor::new(&scenario, make(&scenario.parameters), timing, seed).lead()?;
        Ok(Self { scenario, log, outcome })
    }

    /// The same log under the timing of this seed.
    pub fn replay(&self, seed: u64, make: Make<'_>) -> Result<Outcome, Stuck> {
        let timing = Timing::random(&mut Random::new(seed));
        Executor::new(&self.scenario, make(&self.scenario.parameters), timing, seed).follow(&self.log)
    }
}

/// xorshift64*: enough for schedules, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed; any will do.
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..4 {
            random.word();
        }
        random
    }

    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.word() >> 16) % bound
    }

    /// True with this chance.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// Mixes what a handler has seen.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    (a.rotate_left(7) ^ b).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
