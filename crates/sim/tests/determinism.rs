//! Some schedules of random programs on the executor: what `determinism` does by the hundred thousand.
#![allow(missing_docs)]

use unisono_sim::determinism::{Case, PLANTED, SCHEDULES, Verdict, search};

/// Every seed that showed a defect once, with what it showed. They stay.
const SEEDS_THAT_FAILED: [u64; 0] = [];

fn run(seeds: impl Iterator<Item = u64>) -> Verdict {
    let mut total = Verdict::default();
    for seed in seeds {
        let mut wrong = Vec::new();
        total.add(&Case::of_seed(seed).run(&mut |line| wrong.push(line)));
        assert_eq!(wrong, Vec::<String>::new(), "seed {seed}: run it with determinism --seed {seed} --trace");
    }
    total
}

#[test]
fn some_schedules_come_to_one_result_and_the_control_does_not() {
    let verdict = run((0..48).chain(SEEDS_THAT_FAILED));
    assert_eq!((verdict.mismatches, verdict.hangs), (0, 0));
    assert_eq!(verdict.schedules, 48 * SCHEDULES + SEEDS_THAT_FAILED.len() as u64 * SCHEDULES);
    let Verdict { waits, timeouts, spawns, tries, calls, deadlocks, reconfigurations, declared, .. } = verdict;
    let all = [waits, timeouts, spawns, tries, calls, deadlocks, reconfigurations, declared];
    assert!(all.iter().all(|count| *count > 0), "every kind of operation occurs: {verdict:?}");
    assert!(verdict.control_mismatches > 0, "grants in the order of arrival are told from the others");
}

/// The long run looks for all of them.
#[test]
fn wrong_rules_of_each_kind_are_found() {
    for name in ["arrival-order", "try-without-slot", "no-boost", "retry-for-ever"] {
        let (planted, name) = PLANTED.into_iter().find(|(_, known)| *known == name).unwrap();
        let search = search(planted, name, 2_000);
        assert!(search.found, "{search:?}");
    }
}
