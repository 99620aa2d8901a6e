//! What people can see of a scheduler: where threads stand, when rounds end, which grants were made last.

mod support;

use support::parameters;
use support::story::story;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Mode, Scheduler, Standing, ThreadIndex};

/// Thread 1 owns a lock and sleeps, 2 queues at it, 3 is out of steps.
const SCRIPT: &str = "request 1      -> start 1
     request 2      -> start 2
     request 3      -> start 3
     1 lock a       -> 1 granted
     2 lock a       ->
     3 lock b       -> 3 granted
     3 lock c       ->
     1 sleep 50     -> round 1 ended with 3 primaries, 3 granted";

fn standings(scheduler: &dyn Scheduler) -> [Standing; 5] {
    [0, 1, 2, 3, 9].map(|thread| scheduler.standing(ThreadIndex(thread)))
}

#[test]
fn rounds_end_visibly_while_somebody_observes_and_threads_stand_somewhere() {
    let mut uds = Uds::new(parameters(3, 1));
    uds.observe(true);
    story(&mut uds, SCRIPT);
    let expected = [Standing::Nowhere, Standing::Sleeping, Standing::Blocked, Standing::Running, Standing::Nowhere];
    assert_eq!(standings(&uds), expected);
    uds.observe(false);
    story(
        &mut uds,
        "3 finish       -> 3 finished
         tick 60        -> 1 granted @60",
    );
}

#[test]
fn without_rounds_threads_stand_somewhere_too() {
    let mut sequential = Sequential::new();
    sequential.observe(true);
    story(
        &mut sequential,
        "request 1      -> start 1
         1 lock a       -> 1 granted
         1 sleep 50     ->
         request 2      -> start 2
         2 lock a       ->
         request 3      -> start 3",
    );
    let expected = [Standing::Nowhere, Standing::Sleeping, Standing::Enqueued, Standing::Running, Standing::Nowhere];
    assert_eq!(standings(&sequential), expected);
}

#[test]
fn grants_are_told_when_their_round_has_ended_in_the_order_of_threads() {
    let mut uds = Uds::new(parameters(2, 2));
    story(
        &mut uds,
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         2 lock b       -> 2 granted
         1 unlock a     -> 1 granted
         1 lock a       -> 1 granted",
    );
    assert_eq!(uds.grants(0, 99), []);
    story(
        &mut uds,
        "1 finish       -> 1 finished
         2 lock a       -> 2 granted
         2 finish       -> 2 finished",
    );
    let told = |from, limit| {
        let records = uds.grants(from, limit).into_iter();
        records.map(|record| (record.number, record.round, record.position, record.writers_before)).collect::<Vec<_>>()
    };
    assert_eq!(told(0, 99), [(0, 1, 1, 0), (1, 1, 1, 1), (2, 1, 2, 0), (3, 1, 2, 2)]);
    assert_eq!(told(1, 2), [(1, 1, 1, 1), (2, 1, 2, 0)]);
    assert!(uds.grants(0, 99).iter().all(|record| record.path.is_empty() && record.mode == Mode::Write));
}
