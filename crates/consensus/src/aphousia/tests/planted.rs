//! Wrong rules: the same storms must find each, or the checks are worth nothing.

use crate::aphousia::{Instance, planted::Planted};
use crate::conformance::{RunOptions, run_seed};

#[test]
fn every_wrong_rule_is_found() {
    for (variant, planted) in Planted::ALL.into_iter().enumerate() {
        let options = RunOptions { members: (3, 5), variant, ..RunOptions::default() };
        let seed = (0..1_000).find(|seed| run_seed::<Instance<Planted>>(*seed, &options).is_err());
        println!("{}: found at seed {seed:?}", planted.name());
        assert!(seed.is_some(), "{}", planted.name());
    }
}
