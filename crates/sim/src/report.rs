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
    /// Changes of how many handlers may run ahead.
    pub start_ahead: u64,
    /// Items of the common order by kind.
    pub ordered: BTreeMap<&'static str, u64>,
    /// What requests that came to their end had used of the service's possibilities.
    pub uses: BTreeMap<&'static str, u64>,
    /// The outside.
    pub outside: OutsideCounts,
    /// Byzantine replicas.
    pub liars: u64,
    /// Of those, still certifying in the last second in which something was decided.
    pub liars_active: u64,
    /// False statements that a register certified, by kind.
    pub bends: BTreeMap<&'static str, u64>,
    /// What else liars did.
    pub lies: LieCounts,
    /// Slowness, size and time.
    pub stress: StressCounts,
    /// Faults.
    pub faults: FaultCounts,
}

/// Slowness, size and time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct StressCounts {
    /// Events that waited for a replica that was at work.
    pub queued_events: u64,
    /// Messages that waited for a link.
    pub queued_messages: u64,
    /// Messages that found no room in front of a link.
    pub overflowed_messages: u64,
    /// Jumps of wall clocks, back ones counted too.
    pub clock_jumps: u64,
    /// Seconds of virtual time in which every message took seconds.
    pub slow_network_seconds: u64,
    /// Large operations that were answered.
    pub large_operations: u64,
    /// Their bytes.
    pub large_bytes: u64,
    /// Sessions that ended because agreed time had moved on.
    pub sessions_ended: u64,
}

impl StressCounts {
    fn add(&mut self, other: &Self) {
        self.queued_events += other.queued_events;
        self.queued_messages += other.queued_messages;
        self.overflowed_messages += other.overflowed_messages;
        self.clock_jumps += other.clock_jumps;
        self.slow_network_seconds += other.slow_network_seconds;
        self.large_operations += other.large_operations;
        self.large_bytes += other.large_bytes;
        self.sessions_ended += other.sessions_ended;
    }
}

/// What liars did, beyond bending what their cores say.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct LieCounts {
    /// Last votes for what nobody has.
    pub hidden: u64,
    /// Blocks of their own that were kept from a peer.
    pub withheld: u64,
    /// Answers to laggards that were late, stale, tampered with or left out.
    pub meals: u64,
    /// Messages with frames that were not let in.
    pub ignored: u64,
    /// Messages of floods.
    pub flooded: u64,
    /// Wishes for the next view, without need.
    pub deposing: u64,
    /// Changes of their clocks.
    pub pushes: u64,
    /// Cores that had lost the thread and were made anew.
    pub reseated: u64,
}

impl LieCounts {
    fn add(&mut self, other: &Self) {
        self.hidden += other.hidden;
        self.withheld += other.withheld;
        self.meals += other.meals;
        self.ignored += other.ignored;
        self.flooded += other.flooded;
        self.deposing += other.deposing;
        self.pushes += other.pushes;
        self.reseated += other.reseated;
    }
}

/// What replicas asked outside, and what went wrong there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct OutsideCounts {
    /// Calls asked, by each replica.
    pub asked: u64,
    /// Of those, asked again: the replica had crashed before it was answered.
    pub asked_again: u64,
    /// Calls asked and not yet answered when the replica crashed.
    pub interrupted: u64,
    /// Answers later than a second.
    pub late: u64,
    /// Calls that are never answered.
    pub unanswered: u64,
    /// Calls of a target that says different things to different replicas.
    pub differing: u64,
    /// Answers that are too large to travel.
    pub too_large: u64,
    /// Calls of a target that was down.
    pub down: u64,
    /// Answers that a liar made up.
    pub lies: u64,
    /// Lies to which a second, different submission was added.
    pub contradictions: u64,
}

impl OutsideCounts {
    fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.asked_again += other.asked_again;
        self.interrupted += other.interrupted;
        self.late += other.late;
        self.unanswered += other.unanswered;
        self.differing += other.differing;
        self.too_large += other.too_large;
        self.down += other.down;
        self.lies += other.lies;
        self.contradictions += other.contradictions;
    }
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
    /// Processes that ended for their disk.
    pub storage: u64,
    /// Logs replaced by an older copy or by nothing.
    pub lost_log: u64,
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
    /// Changes of how many handlers may run ahead.
    pub start_ahead: u64,
    /// Items of the common orders by kind: requests, ticks, flushes, marks, changes of the schedule, answers.
    pub ordered: BTreeMap<&'static str, u64>,
    /// What requests had used of the service's possibilities.
    pub uses: BTreeMap<&'static str, u64>,
    /// The outside.
    pub outside: OutsideCounts,
    /// Byzantine replicas.
    pub liars: u64,
    /// Of those, still certifying in the last second in which something was decided.
    pub liars_active: u64,
    /// False statements that registers certified, by kind.
    pub bends: BTreeMap<&'static str, u64>,
    /// What else liars did.
    pub lies: LieCounts,
    /// Slowness, size and time.
    pub stress: StressCounts,
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
        self.outside_calls += counts.outside.asked;
        self.start_ahead += counts.start_ahead;
        add(&mut self.ordered, &counts.ordered);
        add(&mut self.uses, &counts.uses);
        self.outside.add(&counts.outside);
        self.liars += counts.liars;
        self.liars_active += counts.liars_active;
        add(&mut self.bends, &counts.bends);
        self.lies.add(&counts.lies);
        self.stress.add(&counts.stress);
        self.faults.loss += faults.loss;
        self.faults.duplication += faults.duplication;
        self.faults.partition += faults.partition;
        self.faults.crash += faults.crash;
        self.faults.pause += faults.pause;
        self.faults.byzantine += faults.byzantine;
        self.faults.client_crash += faults.client_crash;
        self.faults.storage += faults.storage;
        self.faults.lost_log += faults.lost_log;
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

fn add(sum: &mut BTreeMap<&'static str, u64>, counts: &BTreeMap<&'static str, u64>) {
    for (name, count) in counts {
        *sum.entry(name).or_default() += count;
    }
}
