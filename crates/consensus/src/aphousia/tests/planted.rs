//! Wrong rules: the same storms must find each, or the checks are worth nothing.

use crate::aphousia::{Aphousia, Instance, planted::Planted};
use crate::conformance::{RunOptions, run_seed};

/// Found by tests of their own: these storms have no liar that would use them.
const ONE_BY_ONE: [Planted; 5] = [
    Planted::SkippedViewsCount,
    Planted::SlowTimeExcused,
    Planted::SizeAccuses,
    Planted::AnyDecisionRenews,
    Planted::SlowLeaderExcused,
];

#[test]
fn every_wrong_rule_is_found() {
    for (variant, planted) in Planted::ALL.into_iter().enumerate() {
        if ONE_BY_ONE.contains(&planted) {
            continue;
        }
        let options = RunOptions { members: (3, 5), variant, ..RunOptions::default() };
        let found = (0..1_000).find_map(|seed| Some((seed, run_seed::<Instance<Planted>>(seed, &options).err()?)));
        println!("{}: found {found:?}", planted.name());
        let Some((seed, _)) = found else { panic!("{} is not found", planted.name()) };
        // What the right rules do not stand either proves nothing about this one.
        assert_eq!(run_seed::<Aphousia>(seed, &options).err(), None, "seed {seed}");
    }
}
