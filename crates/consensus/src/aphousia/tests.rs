//! Whole runs: scripts as stories, seeds as storms; the rules one by one; hostile bytes.

mod catchup;
mod form;
mod hostile;
mod pending;
mod planted;
mod rules;
mod time;

use super::Aphousia;
use crate::conformance::{Report, RunOptions, check_scripts, run_seed};
use std::path::Path;

#[test]
fn the_stories_happen_as_written() {
    check_scripts::<Aphousia>(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")));
}

/// CONFORMANCE_SEEDS=START..END widens the search.
fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("CONFORMANCE_SEEDS") else { return default };
    let (start, end) = range.split_once("..").expect("CONFORMANCE_SEEDS=START..END");
    start.parse().expect("a number")..end.parse().expect("a number")
}

#[test]
fn no_storm_breaks_a_promise() {
    let mut total = Report::default();
    for seed in seeds(0..100) {
        // As many members as the hunt for wrong rules has, now and then more.
        let members = if seed % 2 == 0 { (3, 5) } else { (1, 7) };
        let trace = std::env::var_os("CONFORMANCE_TRACE").is_some();
        let options = RunOptions { trace, members, ..RunOptions::default() };
        let report =
            run_seed::<Aphousia>(seed, &options).unwrap_or_else(|violation| panic!("seed {seed}: {}", violation.0));
        total.decisions += report.decisions;
        total.crashes += report.crashes;
        total.cuts += report.cuts;
        total.clocks += report.clocks;
        total.far += report.far;
        total.liars += report.liars;
        total.suspected += report.suspected;
        total.view += report.view;
        total.frames += report.frames;
    }
    println!("{total:?}");
    assert!(total.decisions > 0 && total.crashes > 0 && total.cuts > 0 && total.liars > 0 && total.view > 0);
    assert!(total.clocks > 0 && total.far > 0, "clocks are set, distances grow");
    assert!(total.suspected > 0, "some lie leaves evidence");
}
