//! A thread's time is causal: who gets a lock, joins a child or is answered is not before what it has met. By stories,
//! under both policies.

mod support;

use support::parameters;
use support::story::story;
use unisono_scheduler::sequential::Sequential;
use unisono_scheduler::testing::Checked;
use unisono_scheduler::uds::Uds;

fn uds() -> Uds {
    Uds::new(parameters(1, u32::MAX))
}

/// Where both policies grant the same.
fn under_both(script: &str) {
    story(&mut uds(), script);
    story(&mut Sequential::new(), script);
}

#[test]
fn who_gets_a_lock_is_not_before_those_who_owned_it_alone() {
    under_both(
        "request 1 at 70 -> start 1
         1 lock a       -> 1 granted @70
         1 unlock a     -> 1 granted @70
         1 finish       -> 1 finished
         request 2 at 40 -> start 2
         2 lock b       -> 2 granted @40             # nobody was there before
         2 lock a       -> 2 granted @70
         2 unlock b     -> 2 granted @70
         2 finish       -> 2 finished
         request 3 at 50 -> start 3
         3 lock b       -> 3 granted @70             # passed on from lock to lock",
    );
}

#[test]
fn a_waiter_has_the_time_of_the_request_that_wakes_it() {
    // A lease that it writes then has not lapsed already.
    under_both(
        "request 1 at 10 -> start 1
         1 lock a       -> 1 granted @10
         1 wait a       ->
         request 2 at 90 -> start 2
         2 lock a       -> 2 granted @90
         2 notify a     -> 2 granted @90
         2 finish       -> 2 finished, 1 granted @90
         1 unlock a     -> 1 granted @90",
    );
}

#[test]
fn one_whose_wait_timed_out_has_the_time_of_the_owner_before_it() {
    under_both(
        "request 1 at 80 -> start 1
         1 lock a       -> 1 granted @80
         1 wait a for 5 ->
         request 2 at 90 -> start 2
         2 lock a       -> 2 granted @90
         2 sleep 7      ->
         tick 86        ->                          # time for 1, but 2 owns the lock
         tick 97        -> 2 granted @97
         2 finish       -> 2 finished, 1 timed out @97",
    );
}

#[test]
fn who_queues_has_the_time_of_the_owner_that_hands_the_lock_over() {
    story(
        &mut Uds::new(parameters(2, 9)),
        "request 1 at 80 -> start 1
         request 2 at 70 -> start 2
         1 lock a       -> 1 granted @80
         2 lock a       ->
         1 unlock a     -> 2 granted @80, 1 granted @80",
    );
}

#[test]
fn a_deadline_is_counted_from_the_threads_own_time() {
    under_both(
        "request 1 at 70 -> start 1
         1 lock a       -> 1 granted @70
         1 finish       -> 1 finished
         request 2 at 40 -> start 2
         2 lock a       -> 2 granted @70
         2 sleep 10     ->
         tick 79        ->
         tick 80        -> 2 granted @80",
    );
}

#[test]
fn releases_by_readers_do_not_count() {
    under_both(
        "request 1 at 70 -> start 1
         1 read a       -> 1 granted @70
         1 unlock a     -> 1 granted @70
         1 finish       -> 1 finished
         request 2 at 40 -> start 2
         2 lock a       -> 2 granted @40
         2 unlock a     -> 2 granted @40
         2 finish       -> 2 finished
         request 3 at 30 -> start 3
         3 read a       -> 3 granted @40             # but a reader is not before a writer",
    );
}

#[test]
fn a_try_that_gets_the_lock_has_its_time_and_one_that_fails_has_not() {
    under_both(
        "request 1 at 70 -> start 1
         1 lock a       -> 1 granted @70
         1 unlock a     -> 1 granted @70
         1 lock b       -> 1 granted @70
         1 sleep 100    ->
         request 2 at 40 -> start 2
         2 try a        -> 2 granted @70",
    );
    under_both(
        "request 1 at 70 -> start 1
         1 lock b       -> 1 granted @70
         1 unlock b     -> 1 granted @70
         1 lock b       -> 1 granted @70
         1 sleep 100    ->
         request 2 at 40 -> start 2
         2 try b        -> 2 occupied @40",
    );
}

#[test]
fn a_parent_that_joins_is_not_before_its_childs_end() {
    under_both(
        "request 1 at 70 -> start 1
         1 lock a       -> 1 granted @70
         1 finish       -> 1 finished
         request 2 at 40 -> start 2
         2 spawn 7      -> 2 granted @40
         2 join 1       -> start 7                  # it waits while the child ends
         7 lock a       -> 7 granted @70
         7 finish       -> 7 finished, 2 granted @70",
    );
    under_both(
        "request 1 at 70 -> start 1
         1 lock a       -> 1 granted @70
         1 finish       -> 1 finished
         request 2 at 40 -> start 2
         2 spawn 7      -> 2 granted @40
         2 sleep 1      -> start 7
         7 lock a       -> 7 granted @70
         7 finish       -> 7 finished
         tick 41        -> 2 granted @41
         2 join 1       -> 2 granted @70            # it has ended before",
    );
}

#[test]
fn an_answer_brings_its_time() {
    let asked = "request 1 at 40 -> start 1
         1 call         -> 1 calls 0";
    story(&mut uds(), &format!("{asked} \n answer 1 0 at 60 -> \n answer 1 0 at 70 -> \n flush -> 1 granted @60"));
    story(&mut Sequential::new(), &format!("{asked} \n answer 1 0 at 60 -> 1 granted @60"));
}

#[test]
fn the_declared_lane_takes_and_leaves_time_when_it_locks_not_when_its_ticket_is_reserved() {
    under_both(
        "request 1 at 70 declares a a -> start 1
         1 lock a       -> 1 granted @70
         1 unlock a     -> 1 granted @70             # a use is left, and is given up
         1 finish       -> 1 finished
         request 2 at 40 declares a b c -> start 2
         2 lock b       -> 2 granted @40             # a is reserved, and not there yet
         2 unlock b     -> 2 granted @40
         2 lock a       -> 2 granted @70
         2 finish       -> 2 finished
         request 3 at 50 -> start 3
         3 lock b       -> 3 granted @50
         3 lock c       -> 3 granted @50             # 2 has never locked it
         3 lock a       -> 3 granted @70",
    );
}

/// What replicas compare when nothing is locked any more.
fn state(scheduler: &mut dyn Checked, script: &str) -> [u8; 32] {
    use unisono_scheduler::{Entry, Event, Grant};
    story(scheduler, script);
    let mut grants = Vec::new();
    scheduler.handle(Event::Entry(Entry::Mark(1)), &mut grants);
    match grants.as_slice() {
        [Grant::Marked(report)] => report.state,
        other => panic!("a Mark reports: {other:?}"),
    }
}

#[test]
fn what_an_idle_lock_carries_is_part_of_the_state() {
    // Two that have done the same but for the lock that has the time now.
    let script = |lock: &str| {
        format!(
            "request 1 at 70 -> start 1
             1 lock {lock}       -> 1 granted @70
             1 finish       -> 1 finished"
        )
    };
    let makes: [fn() -> Box<dyn Checked>; 2] = [|| Box::new(uds()), || Box::new(Sequential::new())];
    for make in makes {
        assert_ne!(state(&mut *make(), &script("a")), state(&mut *make(), &script("b")));
    }
}
