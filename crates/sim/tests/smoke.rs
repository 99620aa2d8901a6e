//! A few seeds of everything: what the long runs do, small enough for every commit.

use unisono_consensus::aphousia::Aphousia;
use unisono_sim::store::{Store, StoreAnswer, StoreOperation, USES};
use unisono_sim::{
    Bend, Cluster, Fault, NetworkPlan, Outcome, Plan, Planted, Report, SECOND, Scope, run_plan, run_planted,
};
use unisono_types::{Fault as HandlerFault, borsh, encode};

/// Every seed that showed a defect once, with what it showed. They stay.
const SEEDS_THAT_FAILED: [(u64, Scope); 4] = [
    // Blocks decided together have one Commit record; a log that looks for one per block loses the others.
    (29, Scope::Whole),
    (7, Scope::Numbers),
    // A Mark was ordered before a Flush that was needed; the need was never said again.
    (20_193, Scope::Whole),
    // A thread that owned no lock was made the victim of a deadlock among others.
    (483, Scope::Whole),
];

/// The same for plans with dangerous liars, large values and disks that forget.
const HARD_SEEDS_THAT_FAILED: [(u64, &str); 13] = [
    (520, "a segment that was made and never written to stood in the way of the next one"),
    (585, "a vote outlived its block in a torn write, and no later view found a base: nobody else had the block"),
    (612, "a request that waited for another session, since all clocks were a day ahead, was sent in that one"),
    (1414, "the largest message of agreement was taken for one that no link takes"),
    (1641, "a segment's header whose sync had failed was seen, and gone after the next power loss"),
    (1719, "an old torn tail, behind which later starts had written, took a register back to its state of then"),
    (2066, "a start went on in a segment whose name was not synced, and a loss of power took all of it"),
    (3440, "all clocks were set back, and a replica that restarted then had forgotten what its clock had been"),
    (5035, "whoever sent without end was served in front of all others by a simulated machine, if it was slow"),
    (6225, "a block that was missing was asked for too seldom, and of the wrong ones"),
    (
        6436,
        "a missing block was asked for in a few rounds only, and of a liar, although who built on it must have had it",
    ),
    (7766, "an echo of a probe from before a restart made a replica believe in a round trip of hours"),
    (
        8079,
        "all clocks were a day ahead for a second: votes for an outside call were forgotten, and it was never answered",
    ),
];

/// The same for plans with a theme.
const FOCUSED_SEEDS_THAT_FAILED: [(u64, &str); 1] =
    [(88, "a frame whose requests had been ordered in another one waited for ever, in front of all that came later")];

/// The plan of such a seed is that of its day.
fn run_again(seed: u64, scope: Scope) -> Outcome {
    run_plan::<Aphousia>(&Plan::narrow(seed), scope, false)
}

fn run_wide(seed: u64, scope: Scope) -> Outcome {
    run_plan::<Aphousia>(&Plan::wide(seed), scope, false)
}

fn clean(outcome: &Outcome) {
    assert_eq!(outcome.violation, None, "seed {}: run it with --seed {0} --trace", outcome.seed);
}

#[test]
fn some_seeds_of_the_whole_cluster_are_clean_and_run_the_same_twice() {
    let mut report = Report::default();
    for seed in 1..=8 {
        let outcome = run_wide(seed, Scope::Whole);
        clean(&outcome);
        report.add(&outcome);
        if seed <= 3 {
            let again = run_wide(seed, Scope::Whole);
            assert_eq!(again.trace_hash, outcome.trace_hash, "seed {seed}");
        }
    }
    assert!(report.client_operations > 500 && report.histories_checked > 30, "{report:?}");
    assert!(report.faults.loss > 0 && report.faults.crash > 0 && report.view_changes > 0, "{report:?}");
}

#[test]
fn some_seeds_of_agreement_alone_are_clean() {
    for seed in 1..=10 {
        clean(&run_wide(seed, Scope::Numbers));
    }
}

#[test]
fn real_signatures_are_clean_too() {
    let plan = Plan { ed25519: true, heal_at: SECOND / 2, faults: Vec::new(), ..Plan::wide(3) };
    clean(&run_plan::<Aphousia>(&plan, Scope::Numbers, false));
}

#[test]
fn seeds_that_failed_once_stay_clean() {
    for (seed, scope) in SEEDS_THAT_FAILED {
        clean(&run_again(seed, scope));
    }
    for (seed, once) in HARD_SEEDS_THAT_FAILED {
        println!("seed {seed}: {once}");
        clean(&run_plan::<Aphousia>(&Plan::hard(seed), Scope::Whole, false));
    }
    for (seed, once) in FOCUSED_SEEDS_THAT_FAILED {
        println!("seed {seed}: {once}");
        clean(&run_plan::<Aphousia>(&Plan::of_seed(seed), Scope::Whole, false));
    }
}

/// Seeds that together use everything, most of it dozens of times.
const SEEDS_OF_EVERYTHING: std::ops::Range<u64> = 100..124;

#[test]
fn a_few_seeds_use_everything_that_a_service_can_do_and_meet_all_that_can_go_wrong_outside() {
    let mut report = Report::default();
    for seed in SEEDS_OF_EVERYTHING {
        let outcome = run_plan::<Aphousia>(&Plan { ed25519: false, ..Plan::wide(seed) }, Scope::Whole, false);
        clean(&outcome);
        report.add(&outcome);
    }
    let unused: Vec<_> = report.uses.iter().filter(|(_, count)| **count == 0).collect();
    assert!(unused.is_empty() && report.uses.len() == USES.len(), "never used: {unused:?}");
    let json = serde_json::to_value(&report).expect("numbers by name");
    for part in ["outside", "faults", "ordered"] {
        for (name, count) in json[part].as_object().expect("counts by name") {
            // These plans spare the disks: others do not, and lost logs have a test of their own.
            if !["lost_log", "storage"].contains(&name.as_str()) {
                assert!(count.as_u64() > Some(0), "{part}: no {name}");
            }
        }
    }
    for kind in ["answer", "flush", "mark", "reconfigure", "request", "tick"] {
        assert!(report.ordered.contains_key(kind), "nobody ordered {kind}");
    }
    assert!(report.start_ahead > 0 && report.outside_calls == report.outside.asked);
}

/// Plans with dangerous liars, on agreement alone and for a short while each.
fn hard(seeds: std::ops::Range<u64>) -> Vec<Plan> {
    let of_seed = |seed| Plan { ed25519: false, heal_at: 2 * SECOND, ..Plan::hard(seed) };
    let short = |plan: &Plan| plan.faults.iter().all(|(_, fault)| !matches!(fault, Fault::SlowNetwork { .. }));
    seeds.map(of_seed).filter(short).collect()
}

#[test]
fn liars_take_part_to_the_end_lie_in_all_ways_and_machines_have_work_to_do() {
    let mut report = Report::default();
    for mut plan in hard(0..250).into_iter().filter(|plan| !plan.liars.is_empty()) {
        // Every second liar knows all ways to bend a statement, so that few seeds show them all.
        for liar in plan.liars.iter_mut().filter(|liar| liar.replica % 2 == 0) {
            (liar.bends, liar.bend_kinds) = (400, u64::MAX);
        }
        report.add(&run_plan::<Aphousia>(&plan, Scope::Numbers, false));
    }
    assert!(report.liars >= 60, "{} liars", report.liars);
    assert!(report.liars_active * 10 >= report.liars * 8, "{} of {} speak", report.liars_active, report.liars);
    for bend in Bend::ALL {
        assert!(report.bends.contains_key(bend.name()), "nobody certifies {bend:?}: {:?}", report.bends);
    }
    let json = serde_json::to_value(&report).expect("numbers by name");
    for (name, count) in json["lies"].as_object().expect("counts by name") {
        assert!(count.as_u64() > Some(0), "lies: no {name}");
    }
    let stress = &report.stress;
    assert!(stress.queued_events > 0 && stress.queued_messages > 0 && stress.clock_jumps > 0, "{stress:?}");
    assert!(report.faults.storage > 0, "{:?}", report.faults);
}

#[test]
fn a_liar_without_a_seat_falls_silent() {
    let mut report = Report::default();
    for mut plan in hard(0..60).into_iter().filter(|plan| !plan.liars.is_empty()) {
        for liar in &mut plan.liars {
            (liar.keeps_seat, liar.twins, liar.abuses_register) = (false, true, 30);
        }
        report.add(&run_plan::<Aphousia>(&plan, Scope::Numbers, false));
    }
    assert!(report.liars_active * 2 < report.liars, "{} of {} speak", report.liars_active, report.liars);
}

#[test]
fn a_replica_with_an_emptied_or_an_older_log_follows_and_its_cluster_goes_on() {
    for older in [false, true] {
        let mut plan = Plan { heal_at: 2 * SECOND, ..Plan::calm(7, 3) };
        let down = SECOND / 10;
        plan.faults.push((SECOND / 2, Fault::Crash { replicas: 0b10, down }));
        plan.faults.push((SECOND, Fault::LoseLog { replica: 1, older, down }));
        let outcome = run_plan::<Aphousia>(&plan, Scope::Whole, false);
        clean(&outcome);
        assert_eq!(outcome.counts.faults.lost_log, 1);
    }
}

#[test]
fn an_older_log_of_the_same_run_is_known_after_a_kill_and_its_cluster_goes_on() {
    let mut plan = Plan { heal_at: 2 * SECOND, linear_clients: 2, think: 10_000, ..Plan::calm(7, 3) };
    plan.faults.push((SECOND / 2, Fault::CopyLog { replica: 1 }));
    // Not so long that the mark was synced in between.
    plan.faults.push((SECOND / 2 + 30_000, Fault::PutBack { replica: 1, down: SECOND / 10 }));
    let outcome = run_plan::<Aphousia>(&plan, Scope::Whole, false);
    clean(&outcome);
    assert_eq!((outcome.counts.faults.lost_log, outcome.counts.faults.crash), (1, 0));
}

#[test]
fn large_operations_are_answered_and_real_limits_hold() {
    let mut plan = Plan { large: 2, ..Plan::calm(5, 3) };
    (plan.linear_clients, plan.busy_clients, plan.think, plan.heal_at) = (1, 1, 10_000, 3 * SECOND);
    let outcome = run_plan::<Aphousia>(&plan, Scope::Whole, false);
    clean(&outcome);
    assert_eq!(outcome.counts.stress.large_operations, 2);
    assert!(outcome.counts.stress.large_bytes > 0);
}

#[test]
fn minutes_of_slowness_and_jumping_clocks_run_the_same_twice() {
    let mut plan = Plan { after_calm: true, heal_at: 70 * SECOND, think: SECOND, ..Plan::calm(6, 3) };
    plan.linear_clients = 2;
    plan.faults.push((SECOND, Fault::SlowNetwork { delay: 2 * SECOND, length: 60 * SECOND }));
    plan.faults.push((65 * SECOND, Fault::ClockJump { replicas: 0b111, by: 5_000_000, length: 0 }));
    let run = || run_plan::<Aphousia>(&plan, Scope::Whole, false);
    let outcome = run();
    clean(&outcome);
    assert_eq!(outcome.counts.stress.slow_network_seconds, 60);
    assert_eq!(outcome.counts.stress.clock_jumps, 1);
    assert_eq!(run().trace_hash, outcome.trace_hash);
}

/// Seeds within which each planted bug must show in this test; the long run allows 1 000.
const PLANTED_SEEDS: u64 = 60;

/// Bugs that take more seeds: where this test begins to look for them, so that it need not run them all.
const SELDOM: [(&str, u64); 5] = [
    ("any-stamp-is-voted-for", 30),
    ("skipped-views-count", 135),
    ("catch-up-believes-one-word", 15),
    ("catch-up-turn-never-ends", 35),
    ("slow-leader-excused", 20),
];

#[test]
fn planted_bugs_break_what_they_must_and_the_same_seed_is_clean_without_them() {
    for bug in Planted::all() {
        let first = SELDOM.iter().find(|(name, _)| *name == bug.name()).map_or(0, |(_, first)| *first);
        let plan = if bug.of_schedule().is_some() { Plan::wide } else { Plan::of_seed };
        let shows = |seed: &u64| {
            let planted = Plan { planted: Some(bug), ed25519: false, ..plan(*seed) };
            run_planted(&planted, Scope::Whole, false).violation.is_some()
        };
        let seed = (first..first + PLANTED_SEEDS).find(shows);
        let seed = seed.unwrap_or_else(|| panic!("{} is not found in {PLANTED_SEEDS} seeds", bug.name()));
        clean(&run_plan::<Aphousia>(&Plan { ed25519: false, ..plan(seed) }, Scope::Whole, false));
    }
}

fn asked(cluster: &mut Cluster<Store>, client: unisono_sim::ClientId, operation: &StoreOperation) -> StoreAnswer {
    let outcome = cluster.call(client, encode(operation)).expect("a calm cluster answers");
    borsh::from_slice(&outcome.expect("no fault")).expect("the store's answer")
}

#[test]
fn a_test_talks_to_a_service_through_crashes() {
    let mut cluster = Cluster::<Store>::new(Plan::calm(1, 3));
    let (one, other) = (cluster.client(), cluster.client());
    assert_eq!(asked(&mut cluster, one, &StoreOperation::Add(0, 5)), StoreAnswer::Number(5));
    cluster.crash(0);
    assert_eq!(asked(&mut cluster, other, &StoreOperation::Add(0, 2)), StoreAnswer::Number(7), "without its leader");
    cluster.restart(0);
    let waiting = cluster.invoke(one, encode(&StoreOperation::Take(1, 60 * SECOND)));
    cluster.run_for(SECOND).expect("nothing wrong");
    assert_eq!(cluster.outcome(one, waiting), None, "it waits for an element");
    for replica in 0..3 {
        cluster.crash(replica);
    }
    for replica in 0..3 {
        cluster.restart(replica);
    }
    assert_eq!(asked(&mut cluster, other, &StoreOperation::Push(1, 9)), StoreAnswer::Number(1));
    cluster.settle().expect("nothing wrong");
    let taken = cluster.outcome(one, waiting).expect("woken by the push").expect("no fault");
    assert_eq!(borsh::from_slice::<StoreAnswer>(&taken).unwrap(), StoreAnswer::Number(9));
    assert_eq!(asked(&mut cluster, other, &StoreOperation::Sum(0)), StoreAnswer::Number(7), "nothing was lost");
    let heights: Vec<_> = (0..3).map(|replica| cluster.progress(replica).committed).collect();
    assert!(heights.windows(2).all(|pair| pair[0] == pair[1]) && cluster.checker().violation().is_none());
}

#[test]
fn a_cut_off_replica_catches_up_and_a_panic_is_one_answer() {
    let network = NetworkPlan { loss_permille: 100, duplication_permille: 200, reorder: true, ..NetworkPlan::calm() };
    let mut cluster = Cluster::<Store>::new(Plan { network, ..Plan::calm(2, 5) });
    let client = cluster.client();
    assert_eq!(asked(&mut cluster, client, &StoreOperation::Write(0, 1)), StoreAnswer::Done(true));
    cluster.inflict(&Fault::Partition { side: 0b10000, one_way: false, length: 3 * SECOND });
    for value in 2..40 {
        assert_eq!(asked(&mut cluster, client, &StoreOperation::Exchange(0, value)), StoreAnswer::Number(value - 1));
    }
    let panicked = cluster.call(client, encode(&StoreOperation::Panic)).expect("answered");
    assert_eq!(panicked, Err(HandlerFault::Panicked { handler: "panic".into() }));
    assert!(cluster.progress(4).committed < cluster.progress(0).committed);
    cluster.heal();
    cluster.settle().expect("the one that was cut off catches up");
    assert_eq!(cluster.progress(4).committed, cluster.progress(0).committed);
}
