//! What came out of one seed, and of many.

use crate::Violation;
use serde::Serialize;
use std::collections::BTreeMap;

/// What happened in runs, in numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Events of the world.
    pub events: u64,
    /// Decisions committed.
    pub decisions: u64,
    /// Views left, as the farthest correct replica saw it.
    pub view_changes: u64,
    /// Requests of clients.
    pub client_operations: u64,
    /// Histories checked for linearizability.
    pub histories_checked: u64,
    /// Histories whose search was given up.
    pub histories_undecided: u64,
    /// States compared at Marks.
    pub marks: u64,
    /// Inputs that a replica did not let in.
    pub rejected: u64,
    /// Suspicions.
    pub suspected: u64,
    /// Outside calls asked, by each replica.
    pub outside_calls: u64,
    /// Items of the common order by kind.
    pub ordered: BTreeMap<&'static str, u64>,
    /// Faults.
    pub faults: FaultCounts,
}

/// Faults that took place.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct FaultCounts {
    /// Messages lost.
    pub loss: u64,
    /// Messages doubled.
    pub duplication: u64,
    /// Partitions.
    pub partition: u64,
    /// Crashes of replicas.
    pub crash: u64,
    /// Pauses of replicas.
    pub pause: u64,
    /// Messages that went through a liar.
    pub byzantine: u64,
    /// Crashes of clients.
    pub client_crash: u64,
}

/// One seed's run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Hash of all that happened.
    pub trace_hash: u64,
    /// In numbers.
    pub counts: Counts,
    /// The first violation.
    pub violation: Option<Violation>,
}

/// Many seeds: the simulator's output.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// Seeds run.
    pub runs: u64,
    /// Seeds with a violation.
    pub violations: u64,
    /// Seeds whose second run differed from the first.
    pub replay_mismatches: u64,
    /// Events.
    pub events: u64,
    /// Events in a second of real time, on the one core that ran them.
    pub events_per_s: u64,
    /// Decisions.
    pub decisions: u64,
    /// View changes.
    pub view_changes: u64,
    /// Requests of clients.
    pub client_operations: u64,
    /// Histories checked.
    pub histories_checked: u64,
    /// Histories whose search was given up; they count as not checked.
    pub histories_undecided: u64,
    /// Marks at which states were compared.
    pub marks: u64,
    /// Outside calls that replicas asked.
    pub outside_calls: u64,
    /// Items of the common orders by kind: requests, ticks, flushes, marks, changes of the schedule, answers.
    pub ordered: BTreeMap<&'static str, u64>,
    /// Faults.
    pub faults: FaultCounts,
    /// Which seeds.
    pub failing_seeds: Vec<u64>,
}

impl Report {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        let (counts, faults) = (&outcome.counts, &outcome.counts.faults);
        self.runs += 1;
        self.events += counts.events;
        self.decisions += counts.decisions;
        self.view_changes += counts.view_changes;
        self.client_operations += counts.client_operations;
        self.histories_checked += counts.histories_checked;
        self.histories_undecided += counts.histories_undecided;
        self.marks += counts.marks;
        self.outside_calls += counts.outside_calls;
        for (kind, count) in &counts.ordered {
            *self.ordered.entry(kind).or_default() += count;
        }
        self.faults.loss += faults.loss;
        self.faults.duplication += faults.duplication;
        self.faults.partition += faults.partition;
        self.faults.crash += faults.crash;
        self.faults.pause += faults.pause;
        self.faults.byzantine += faults.byzantine;
        self.faults.client_crash += faults.client_crash;
        if outcome.violation.is_some() {
            self.fails(outcome.seed);
            self.violations += 1;
        }
    }

    /// The second run of a seed differed from the first.
    pub fn mismatch(&mut self, seed: u64) {
        self.replay_mismatches += 1;
        self.fails(seed);
    }

    fn fails(&mut self, seed: u64) {
        if self.failing_seeds.last() != Some(&seed) {
            self.failing_seeds.push(seed);
        }
    }
}
