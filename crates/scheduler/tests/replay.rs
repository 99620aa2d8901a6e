//! One log, many timings: random programs are run once to make a log and then again and again under other arrivals,
//! latencies, numbers of workers and start-ahead. Every run must come to the same owners per lock, the same results,
//! the same rounds and the same reports, and to its end.

mod support;

use support::executor::{Executor, LogEntry, Outcome, Timing};
use support::program::{Features, Scenario};
use support::{Checked, Random};
use unisono_scheduler::Parameters;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;

fn uds(parameters: &Parameters) -> Box<dyn Checked> {
    Box::new(Uds::new(parameters.clone()))
}

fn lead(scenario: &Scenario, make: fn(&Parameters) -> Box<dyn Checked>, seed: u64) -> (Vec<LogEntry>, Outcome) {
    let timing = Timing::random(&mut Random::new(seed ^ 0x5EED));
    Executor::new(scenario, make(&scenario.parameters), timing, seed).lead()
}

/// Number of replays that differ; the first seed that does.
fn replays(
    scenarios: std::ops::Range<u64>,
    replays: u64,
    features: Features,
    make: fn(&Parameters) -> Box<dyn Checked>,
) -> (u64, Option<(u64, u64)>, Outcome) {
    let (mut different, mut first, mut total) = (0, None, Outcome::default());
    for seed in scenarios {
        let scenario = Scenario::random(seed, features);
        let (log, led) = lead(&scenario, make, seed);
        for replay in 0..replays {
            let timing = Timing::random(&mut Random::new(seed << 16 | replay));
            let followed = Executor::new(&scenario, make(&scenario.parameters), timing, replay).follow(&log);
            if followed != led {
                different += 1;
                first = first.or(Some((seed, replay)));
            }
        }
        total.reports.extend(led.reports);
        total.rounds += led.rounds;
        total.deadlocks += led.deadlocks;
        total.timeouts += led.timeouts;
        total.joins += led.joins;
        total.occupied += led.occupied;
    }
    (different, first, total)
}

#[test]
fn uds_is_the_same_under_any_timing() {
    let (different, first, total) = replays(0..300, 6, Features::ALL, uds);
    assert_eq!(different, 0, "the first (scenario, replay): {first:?}");
    // The programs were worth it.
    assert!(total.reports.len() > 200 && total.rounds > 10_000, "{} {}", total.reports.len(), total.rounds);
    assert!(total.deadlocks > 50 && total.timeouts > 200, "{} {}", total.deadlocks, total.timeouts);
    assert!(total.joins > 500 && total.occupied > 100, "{} {}", total.joins, total.occupied);
}

#[test]
fn sequential_is_the_same_under_any_timing() {
    let (different, first, total) =
        replays(1_000..1_200, 4, Features::ALL, |_| Box::new(Sequential::new()) as Box<dyn Checked>);
    assert_eq!(different, 0, "the first (scenario, replay): {first:?}");
    assert!(total.deadlocks > 10 && total.timeouts > 50, "{} {}", total.deadlocks, total.timeouts);
}

#[test]
fn without_parking_behind_locks_sequential_is_uds_with_one_primary() {
    // Who never parks while owning a lock never makes anybody queue when one thread runs at a time; then the two differ
    // in nothing but what a yield and a failing try mean, and that an answer does not end a round.
    let features =
        Features { hold_parked: false, yields: false, tries: false, calls: false, forget: false, ..Features::ALL };
    let one = |_: &Parameters| -> Box<dyn Checked> { Box::new(Uds::new(support::parameters(1, u32::MAX))) };
    for seed in 2_000..2_100 {
        let scenario = Scenario::random(seed, features);
        let (log, _) = lead(&scenario, one, seed);
        let log: Vec<_> = log.into_iter().filter(|entry| !matches!(entry, LogEntry::Reconfigure(_))).collect();
        let by_uds = Executor::new(&scenario, one(&scenario.parameters), Timing::PLAIN, 0).follow(&log);
        let by_sequential = Executor::new(&scenario, Box::new(Sequential::new()), Timing::PLAIN, 0).follow(&log);
        assert_eq!(by_uds.owners, by_sequential.owners, "seed {seed}");
        assert_eq!(by_uds.results, by_sequential.results, "seed {seed}");
        assert_eq!(by_uds.objects, by_sequential.objects, "seed {seed}");
    }
}

#[test]
fn locks_come_and_go_without_a_trace() {
    for seed in 3_000..3_020 {
        let scenario = Scenario::random(seed, Features::ALL);
        let (log, _) = lead(&scenario, uds, seed);
        let mut executor = Executor::new(&scenario, uds(&scenario.parameters), Timing::PLAIN, 0);
        executor.run(&log);
        // Whatever the last round used is dropped at its end.
        executor.deliver(&LogEntry::Mark);
        assert_eq!(executor.scheduler.locks_in_use(), 0, "seed {seed}");
    }
}

/// The simulator plants this bug to show that its checkers work; here it shows that these tests do.
#[cfg(feature = "planted")]
#[test]
fn a_lock_granted_in_arrival_order_is_found() {
    use unisono_scheduler::uds::Planted;
    let planted =
        |parameters: &Parameters| Box::new(Uds::planted(parameters.clone(), Planted::ArrivalOrder)) as Box<dyn Checked>;
    let (different, first, _) = replays(0..40, 4, Features::ALL, planted);
    assert!(different > 40, "only {different} of 160 replays differ, the first is {first:?}");
}
