//! A policy says truly whether it needs a Flush. A host that is not told waits for the next request, in an idle cluster
//! for ever; one that is told in vain has agreement reached about nothing, again and again. So whenever nothing runs in a
//! random program, a copy of the policy is given Flushes and watched.

use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::testing::{Checked, Features, Recording};
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{
    Entry, Event, Grant, GrantRecord, Operation, Parameters, Scheduler, Standing, Status, ThreadIndex,
};

/// One may be passed over because rounds were held for it, one because the last round was stuck; the next ends a round.
const FLUSHES_IN_VAIN: usize = 4;

/// With k = 1 each is one round: 3 + log2 of a hundred threads rounds without progress (I7), and two that are passed over.
const FLUSHES_UNTIL_PROGRESS_MAX: usize = 12;

#[derive(Clone)]
struct Watched<P> {
    policy: P,
    threads: u32,
    time: u64,
}

impl<P: Checked + Clone> Watched<P> {
    fn new(policy: P) -> Self {
        Self { policy, threads: 0, time: 0 }
    }

    fn flush(policy: &mut P) -> Vec<Grant> {
        let mut grants = Vec::new();
        policy.handle(Event::Entry(Entry::Flush), &mut grants);
        grants
    }

    fn watch(&self) {
        let status = self.policy.status();
        let mut copy = self.policy.clone();
        if status.needs_flush {
            let mut flushes = 0;
            while copy.status().needs_flush && Self::flush(&mut copy).is_empty() {
                flushes += 1;
                assert!(flushes <= FLUSHES_UNTIL_PROGRESS_MAX, "Flushes without end: {status:?}");
            }
        } else if status.deadline.is_none_or(|deadline| deadline > self.time) {
            for _ in 0..FLUSHES_IN_VAIN {
                let grants = Self::flush(&mut copy);
                assert!(grants.is_empty(), "an unasked Flush lets somebody go on: {status:?} {grants:?}");
            }
        }
    }
}

impl<P: Checked + Clone> Scheduler for Watched<P> {
    fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
        match &event {
            Event::Entry(Entry::Request { thread, .. })
            | Event::Operation { operation: Operation::Spawn { thread }, .. } => {
                self.threads = self.threads.max(thread.0 + 1);
            }
            Event::Entry(Entry::Tick(time)) => self.time = self.time.max(*time),
            _ => {}
        }
        self.policy.handle(event, grants);
        if (0..self.threads).all(|thread| self.policy.standing(ThreadIndex(thread)) != Standing::Running) {
            self.watch();
        }
    }

    fn status(&self) -> Status {
        self.policy.status()
    }

    fn parameters(&self) -> Option<&Parameters> {
        self.policy.parameters()
    }

    fn grants(&self, from: u64, limit: usize) -> Vec<GrantRecord> {
        self.policy.grants(from, limit)
    }

    fn observe(&mut self, on: bool) {
        self.policy.observe(on);
    }

    fn standing(&self, thread: ThreadIndex) -> Standing {
        self.policy.standing(thread)
    }
}

impl<P: Checked + Clone> Checked for Watched<P> {
    fn check(&self) {
        self.policy.check();
    }

    fn locks_in_use(&self) -> usize {
        self.policy.locks_in_use()
    }
}

fn watch(seeds: std::ops::Range<u64>, make: fn(&Parameters) -> Box<dyn Checked>) {
    for seed in seeds {
        println!("seed {seed}");
        let recording = Recording::new(seed, Features::ALL, &make).expect("everybody comes to an end");
        assert_eq!(recording.outcome.left, (0, 0));
    }
}

#[test]
fn uds_needs_a_flush_exactly_when_one_helps() {
    watch(0..150, |parameters| Box::new(Watched::new(Uds::new(parameters.clone()))));
}

#[test]
fn sequential_needs_a_flush_exactly_when_one_helps() {
    watch(1_000..1_100, |_| Box::new(Watched::new(Sequential::new())));
}
