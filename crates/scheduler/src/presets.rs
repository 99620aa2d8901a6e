//! Known algorithms as settings of this one. Names are what `--schedule` takes.
//!
//! | name | from | as |
//! |---|---|---|
//! | `sequential` | one request after the other | one primary, unlimited steps, nothing runs ahead: [`Sequential`] |
//! | `sat` | single active thread: the next one runs when this one blocks | one primary, unlimited steps, nothing runs ahead |
//! | `mat` | multiple active threads: others compute, one may lock | one primary, unlimited steps, others run ahead |
//! | `pmat` | predicted MAT: who wants no lock that an elder thread may still want, may lock | unlimited steps, predicate on declared future locks |
//! | `pds1`, `pds2` | preemptive deterministic scheduling: a pool, one or two locks each per round | n = pool, 1 or 2 steps |
//! | `round-robin` | turns of all threads | all are primaries, unlimited steps; rounds end by Flush or Tick only |
//! | `uds` | | many more primaries than cores, some steps |
//!
//! Source: Hauck, Habiger, Domaschka, SRDS 2016, which shows them to be cases of UDS.

use crate::sequential::Sequential;
use crate::uds::Uds;
use crate::{Order, Parameters, Predicate, Scheduler};
use alloc::boxed::Box;

/// Steps that never run out.
const UNLIMITED: u32 = u32::MAX;

/// Threads of the pool of PDS.
const POOL: u32 = 16;

/// Eight times the cores of a usual machine: primaries must be oversubscribed, because many of them queue at locks.
const MANY: u32 = 64;

/// Short rounds per Flush: enough that carried-over threads need few agreements, few enough that they do not keep new
/// requests waiting.
const FLUSH_ROUNDS: u32 = 16;

/// A named setting. `parameters` are agreed; whether threads run ahead is local, and changes no result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preset {
    /// What it is called.
    pub name: &'static str,
    /// For every policy but `sequential`, which has none.
    pub parameters: Parameters,
    /// Whether handlers may compute before they are primary.
    pub start_ahead: bool,
    /// One thread at a time, without rounds.
    in_line: bool,
}

impl Preset {
    /// All names.
    pub const NAMES: [&'static str; 8] = ["sequential", "sat", "mat", "pmat", "pds1", "pds2", "round-robin", "uds"];

    /// The preset of this name.
    pub fn named(name: &str) -> Option<Self> {
        let (parameters, start_ahead) = match name {
            "sequential" | "sat" => (Parameters::sat(), false),
            "mat" => (Parameters::sat(), true),
            "pmat" => (Parameters::pmat(), true),
            "pds1" => (Parameters::pds(POOL, 1), true),
            "pds2" => (Parameters::pds(POOL, 2), true),
            "round-robin" => (Parameters::round_robin(), true),
            "uds" => (Parameters::uds(), true),
            _ => return None,
        };
        let name = Self::NAMES.into_iter().find(|known| *known == name)?;
        Some(Self { name, parameters, start_ahead, in_line: name == "sequential" })
    }

    /// A scheduler of this kind, at its beginning.
    pub fn scheduler(&self) -> Box<dyn Scheduler> {
        if self.in_line { Box::new(Sequential::new()) } else { Box::new(Uds::new(self.parameters.clone())) }
    }
}

impl Parameters {
    const fn round_robin_of(primaries: u32, steps: u32) -> Self {
        Self { primaries, steps, order: Order::RoundRobin, flush_rounds: FLUSH_ROUNDS, predicate: Predicate::All }
    }

    /// One thread holds all rights until it blocks: SAT, and with threads that run ahead MAT.
    pub const fn sat() -> Self {
        Self::round_robin_of(1, UNLIMITED)
    }

    /// MAT, and more primaries: all of the eldest that want no lock in common.
    pub fn pmat() -> Self {
        Self { predicate: Predicate::FutureLocks, ..Self::round_robin_of(MANY, UNLIMITED) }
    }

    /// PDS: a pool of threads, so many locks each per round.
    pub const fn pds(pool: u32, steps: u32) -> Self {
        Self::round_robin_of(pool, steps)
    }

    /// All threads take turns.
    pub const fn round_robin() -> Self {
        Self::round_robin_of(u32::MAX, UNLIMITED)
    }

    /// What suits most loads.
    pub const fn uds() -> Self {
        Self::round_robin_of(MANY, 4)
    }
}
