//! Each preset behaves as the algorithm that it is named after.

mod support;

use support::story::story;
use unisono_scheduler::presets::Preset;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::testing::{Checked, Features, Recording};
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Declaration, Entry, Event, Grant, Parameters, ThreadIndex};

fn checked(name: &str) -> Box<dyn Checked> {
    let preset = Preset::named(name).expect("a name");
    match name {
        "sequential" => Box::new(Sequential::new()),
        _ => Box::new(Uds::new(preset.parameters)),
    }
}

#[test]
fn every_name_has_a_preset_and_a_scheduler() {
    for name in Preset::NAMES {
        let preset = Preset::named(name).expect("a preset");
        assert_eq!(preset.name, name);
        let mut grants = Vec::new();
        let thread = ThreadIndex(0);
        let entry = Entry::Request { thread, position: 1, timestamp: 0, declaration: Declaration::default() };
        preset.scheduler().handle(Event::Entry(entry), &mut grants);
        assert_eq!(grants, [Grant::Start { thread }]);
        assert_eq!(preset.start_ahead, !matches!(name, "sequential" | "sat"), "{name}");
    }
    assert_eq!(Preset::named(""), None);
}

#[test]
fn sequential_runs_one_request_after_the_other() {
    for name in ["sequential", "sat"] {
        story(
            &mut *checked(name),
            "request 1      -> start 1
             request 2      ->
             1 lock a       -> 1 granted
             1 unlock a     -> 1 granted
             1 lock b       -> 1 granted
             1 finish       -> 1 finished, start 2
             2 lock a       -> 2 granted
             2 finish       -> 2 finished",
        );
    }
}

#[test]
fn sat_has_a_single_active_thread_and_goes_on_with_the_next_when_it_blocks() {
    story(
        &mut *checked("sat"),
        "request 1      -> start 1
         request 2      ->
         request 3      ->
         1 lock a       -> 1 granted
         1 sleep 9      -> start 2
         2 lock a       -> start 3                  # its owner sleeps
         3 lock b       -> 3 granted
         3 lock c       -> 3 granted
         tick 9         ->
         3 finish       -> 3 finished, 1 granted @9
         1 unlock a     -> 1 granted @9
         1 finish       -> 1 finished, 2 granted @9 # not sooner: one at a time
         2 finish       -> 2 finished",
    );
}

#[test]
fn mat_lets_others_compute_but_only_one_lock() {
    story(
        &mut *checked("mat"),
        "request 1      -> start 1
         request 2      ->
         request 3      ->
         3 lock b       ->                          # both run ahead, to their first operation
         2 lock a       ->
         1 lock a       -> 1 granted
         1 unlock a     -> 1 granted
         1 lock b       -> 1 granted
         1 finish       -> 1 finished, 2 granted    # the right to lock passes on, in order of the requests
         2 sleep 9      -> 3 granted",
    );
}

#[test]
fn pmat_lets_those_lock_whose_locks_no_elder_thread_may_still_want() {
    story(
        &mut *checked("pmat"),
        "request 1 wants a b  -> start 1
         request 2 wants a    ->                    # MAT lets one lock; predicted MAT all that cannot meet
         request 3 wants c    -> start 3
         1 lock a             -> 1 granted
         3 lock c             -> 3 granted
         3 unlock c           -> 3 granted
         1 unlock a           -> 1 granted          # 1 lives on, but wants a no more
         3 finish             -> 3 finished
         1 sleep 9            ->
         flush                -> start 2
         2 lock a             -> 2 granted
         tick 9               ->
         2 finish             -> 2 finished, 1 granted @9
         1 lock b             -> 1 granted @9
         1 finish             -> 1 finished",
    );
    story(
        &mut *checked("pmat"),
        "request 1            -> start 1
         request 2 wants a    ->                    # nothing is known of 1: like MAT
         1 lock b             -> 1 granted
         1 finish             -> 1 finished
         flush                -> start 2",
    );
}

#[test]
fn pds1_gives_each_thread_of_the_pool_one_lock_per_round() {
    story(
        &mut Uds::new(Parameters::pds(2, 1)),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      ->                          # the pool has two
         1 lock a       -> 1 granted
         1 lock b       ->                          # its second: when all have asked for their first
         2 lock c       -> 2 granted
         2 lock d       -> 1 granted, 2 granted     # a new round
         1 finish       -> 1 finished
         2 lock e       -> start 3, 2 granted",
    );
}

#[test]
fn pds2_gives_a_second_lock_once_all_have_their_first() {
    story(
        &mut Uds::new(Parameters::pds(2, 2)),
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         1 lock b       ->
         2 lock c       -> 2 granted, 1 granted
         2 lock d       -> 2 granted
         2 lock e       ->                          # the third: in the next round
         1 lock f       -> 1 granted, 2 granted",
    );
}

#[test]
fn round_robin_gives_all_threads_turns_and_ends_its_rounds_by_flush_or_tick() {
    for close in ["flush", "tick 5"] {
        story(
            &mut *checked("round-robin"),
            &format!(
                "request 1      -> start 1
                 request 2      -> start 2
                 request 3      -> start 3
                 3 lock a       ->
                 2 lock a       ->
                 1 lock b       -> 1 granted, 2 granted
                 2 unlock a     -> 3 granted, 2 granted
                 1 lock c       ->                          # another thread may come before its second turn
                 {close}        -> 1 granted
                 2 yield        -> 2 granted
                 3 yield        -> 3 granted                # steps never run out
                 1 yield        -> 1 granted"
            ),
        );
    }
}

#[test]
fn random_programs_come_to_their_end_under_every_preset() {
    for name in Preset::NAMES {
        let make = |_: &Parameters| checked(name);
        for seed in 0..15 {
            let led =
                Recording::new(seed, Features::ALL, &make).unwrap_or_else(|stuck| panic!("{name} {seed} {stuck:?}"));
            let followed = led.replay(seed + 1, &make).unwrap_or_else(|stuck| panic!("{name} {seed} {stuck:?}"));
            assert_eq!(led.outcome.left, (0, 0), "{name}, seed {seed}");
            assert!(led.outcome == followed, "{name}, seed {seed}");
        }
    }
}
