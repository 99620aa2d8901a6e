//! One log, many timings: random programs are run once to make a log and then again and again under other arrivals,
//! latencies, numbers of workers and start-ahead. Every run must come to the same owners per lock, the same results,
//! the same rounds and the same reports, and to its end.

mod support;

use unisono_scheduler::Parameters;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::testing::{
    Checked, Counters, Executor, Features, LogEntry, Outcome, Recording, Scenario, Timing,
};
use unisono_scheduler::uds::Uds;

fn uds(parameters: &Parameters) -> Box<dyn Checked> {
    Box::new(Uds::new(parameters.clone()))
}

fn sequential(_: &Parameters) -> Box<dyn Checked> {
    Box::new(Sequential::new())
}

fn record(seed: u64, features: Features, make: fn(&Parameters) -> Box<dyn Checked>) -> Recording {
    let recording = Recording::new(seed, features, &make).unwrap_or_else(|stuck| panic!("seed {seed}: {stuck:?}"));
    assert_eq!(recording.outcome.left, (0, 0), "seed {seed}: everybody comes to an end");
    assert_eq!(recording.outcome.times, None, "seed {seed}: time is causal");
    recording
}

/// Every replay of every seed comes to the same; what the programs were worth.
fn replays(
    seeds: std::ops::Range<u64>,
    replays: u64,
    features: Features,
    make: fn(&Parameters) -> Box<dyn Checked>,
) -> (Counters, Outcome) {
    let (mut counters, mut total) = (Counters::default(), Outcome::default());
    for seed in seeds {
        let recording = record(seed, features, make);
        for replay in (0..replays).map(|replay| seed << 16 | replay) {
            let outcome = recording.replay(replay, &make).unwrap_or_else(|stuck| panic!("{seed} {replay}: {stuck:?}"));
            assert!(outcome == recording.outcome, "seed {seed}, replay {replay}");
        }
        counters += recording.outcome.counters;
        total.reports.extend(recording.outcome.reports);
        total.rounds += recording.outcome.rounds;
    }
    (counters, total)
}

#[test]
fn uds_is_the_same_under_any_timing() {
    let (counters, total) = replays(0..300, 6, Features::ALL, uds);
    // The programs were worth it.
    assert!(total.reports.len() > 200 && total.rounds > 10_000, "{} {}", total.reports.len(), total.rounds);
    assert!(counters.declared > 1_000 && counters.declared < counters.requests, "{counters:?}");
    let least = [
        (counters.grants, 10_000),
        (counters.waits, 500),
        (counters.timeouts, 200),
        (counters.deadlocks, 50),
        (counters.occupied, 100),
        (counters.spawns, 500),
        (counters.joins, 300),
        (counters.calls, 200),
        (counters.reconfigurations, 200),
        (counters.trespasses, 200),
    ];
    assert!(least.into_iter().all(|(count, least)| count > least), "{counters:?}");
}

#[test]
fn sequential_is_the_same_under_any_timing() {
    let (counters, _) = replays(1_000..1_200, 4, Features::ALL, sequential);
    assert!(counters.deadlocks > 10 && counters.timeouts > 50 && counters.declared > 500, "{counters:?}");
}

#[test]
fn without_parking_behind_locks_sequential_is_uds_with_one_primary() {
    // Who never parks while owning a lock never makes anybody queue when one thread runs at a time; then the two differ
    // in nothing but what a yield and a failing try mean, and that an answer does not end a round.
    let features = Features {
        hold_parked: false,
        yields: false,
        tries: false,
        calls: false,
        forget: false,
        spins: false,
        reconfigure: false,
        predicates: false,
        declared: false,
        ..Features::ALL
    };
    let one = |_: &Parameters| -> Box<dyn Checked> { Box::new(Uds::new(support::parameters(1, u32::MAX))) };
    for seed in 2_000..2_100 {
        let Recording { scenario, log, .. } = record(seed, features, one);
        let log: Vec<_> = log.into_iter().filter(|entry| !matches!(entry, LogEntry::Reconfigure(_))).collect();
        let follow =
            |scheduler| Executor::new(&scenario, scheduler, Timing::PLAIN, 0).follow(&log).expect("no livelock");
        let by_uds = follow(one(&scenario.parameters));
        let by_sequential = follow(Box::new(Sequential::new()));
        assert_eq!(by_uds.owners, by_sequential.owners, "seed {seed}");
        assert_eq!(by_uds.results, by_sequential.results, "seed {seed}");
        assert_eq!(by_uds.objects, by_sequential.objects, "seed {seed}");
    }
}

#[test]
fn locks_come_and_go_without_a_trace() {
    for seed in 3_000..3_020 {
        let Recording { log, .. } = record(seed, Features::ALL, uds);
        let scenario = Scenario::random(seed, Features::ALL);
        let mut executor = Executor::new(&scenario, uds(&scenario.parameters), Timing::PLAIN, 0);
        executor.run(&log).expect("no livelock");
        // Whatever the last round used is dropped at its end.
        executor.deliver(&LogEntry::Mark);
        assert_eq!(executor.scheduler.locks_in_use(), 0, "seed {seed}");
    }
}
