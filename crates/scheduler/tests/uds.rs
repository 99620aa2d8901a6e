//! Each rule of UDS as a story.

mod support;

use support::parameters;
use support::story::story;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Declaration, Entry, Event, Grant, Operation, Order, Parameters, Scheduler, ThreadIndex};

fn uds(primaries: u32, steps: u32) -> Uds {
    Uds::new(parameters(primaries, steps))
}

// -- turns and steps

#[test]
fn a_lock_goes_to_whose_turn_it_is_not_to_who_comes_first() {
    story(
        &mut uds(2, 1),
        "request 1      -> start 1
         request 2      -> start 2
         2 lock a       ->                          # slot 0 has the first turn
         1 lock a       -> 1 granted
         1 unlock a     -> 2 granted, 1 granted
         2 unlock a     -> 2 granted
         1 finish       -> 1 finished
         2 finish       -> 2 finished",
    );
}

#[test]
fn who_is_out_of_steps_waits_for_the_next_round() {
    story(
        &mut uds(2, 1),
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         1 lock b       ->                          # its only step is taken
         2 lock c       -> 2 granted
         2 finish       -> 2 finished, 1 granted    # the round ends, a step in the next",
    );
}

#[test]
fn a_slot_still_to_come_has_its_turn_before_the_first_goes_again() {
    story(
        &mut uds(2, 2),
        "request 1      -> start 1
         1 lock a       -> 1 granted
         1 lock b       ->                          # slot 1 comes first, whoever that will be
         request 2      -> start 2
         2 lock c       -> 2 granted, 1 granted",
    );
}

#[test]
fn quantum_and_explicit_orders() {
    let with = |order| Uds::new(Parameters { order, ..parameters(2, 2) });
    story(
        &mut with(Order::Quantum(2)),
        "request 1      -> start 1
         request 2      -> start 2
         2 lock c       ->
         1 lock a       -> 1 granted
         1 lock b       -> 1 granted, 2 granted",
    );
    story(
        &mut with(Order::Explicit(vec![1, 0])),
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       ->
         2 lock c       -> 2 granted, 1 granted
         1 lock b       ->                          # one turn each
         2 finish       -> 2 finished",
    );
}

#[test]
fn yield_is_a_step() {
    story(
        &mut uds(2, 1),
        "request 1      -> start 1
         request 2      -> start 2
         2 yield        ->
         1 yield        -> 1 granted, 2 granted
         1 yield        ->
         2 yield        -> 1 granted, 2 granted     # the next round, both again",
    );
}

#[test]
fn a_queued_head_forfeits_its_steps_when_nobody_can_run() {
    // With quantum 2 thread 2 queues at its first step and is head for its second, but the owner's next step lies
    // behind it.
    let mut uds = Uds::new(Parameters { order: Order::Quantum(2), ..parameters(2, 4) });
    story(
        &mut uds,
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         1 lock b       -> 1 granted
         2 lock a       ->
         1 lock c       -> 1 granted                # 2 is queued at the head: it gives way
         1 unlock a     -> 2 granted, 1 granted
         2 lock d       ->                          # but it has forfeited its steps
         1 finish       -> 1 finished, 2 granted",
    );
}

// -- before a thread is primary

#[test]
fn an_operation_before_its_time_has_no_effect() {
    story(
        &mut uds(1, 4),
        "request 1      -> start 1
         request 2      ->
         2 lock a       ->                          # it was started ahead
         1 lock a       -> 1 granted
         1 unlock a     -> 1 granted
         1 finish       -> 1 finished, 2 granted    # selected: its operation is performed, no start is needed",
    );
    story(
        &mut uds(1, 4),
        "request 1      -> start 1
         request 2      ->
         request 3      ->
         2 sleep 10     ->
         tick 5         ->
         3 finish       ->
         1 finish       -> 1 finished, 3 finished   # 2 begins to sleep now
         tick 9         ->
         tick 10        -> 2 granted @10",
    );
}

// -- locks

#[test]
fn readers_share_and_do_not_pass_a_writer_in_the_queue() {
    story(
        &mut uds(4, 1),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         request 4      -> start 4
         1 read a       -> 1 granted
         2 read a       -> 2 granted
         3 lock a       ->
         4 read a       ->
         1 unlock a     -> 1 granted
         2 unlock a     -> 3 granted, 2 granted
         3 unlock a     -> 4 granted, 3 granted",
    );
}

#[test]
fn readers_directly_behind_a_reader_own_with_it() {
    story(
        &mut uds(4, 1),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         request 4      -> start 4
         1 lock a       -> 1 granted
         2 read a       ->
         3 read a       ->
         4 lock a       ->
         1 unlock a     -> 2 granted, 3 granted, 1 granted
         3 unlock a     -> 3 granted
         2 unlock a     -> 4 granted, 2 granted",
    );
}

#[test]
fn who_queues_at_the_end_of_a_round_tries_again_with_a_step() {
    // The authors' code dequeued at the end of a round and went on without waiting for a turn.
    story(
        &mut uds(2, 1),
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         2 lock a       ->
         1 lock b       -> 1 granted                # a new round: 1 took its step, 2 queues at a again
         1 unlock a     -> 2 granted, 1 granted",
    );
}

#[test]
fn finish_releases_in_order_of_acquisition() {
    story(
        &mut uds(3, 2),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         1 lock b       -> 1 granted
         2 yield        -> 2 granted
         3 yield        -> 3 granted
         1 lock a       -> 1 granted
         2 lock a       ->
         3 lock b       ->
         1 finish       -> 3 granted, 2 granted, 1 finished",
    );
}

#[test]
fn what_is_not_possible_changes_nothing() {
    let mut uds = uds(1, 9);
    story(
        &mut uds,
        "request 1      -> start 1
         1 unlock a     -> 1 not possible
         1 notify a     -> 1 not possible
         1 wait a       -> 1 not possible
         1 lock a       -> 1 granted
         1 lock a       -> 1 not possible
         1 read a for 5 -> 1 not possible
         1 unlock a     -> 1 granted
         1 read a       -> 1 granted
         1 wait a       -> 1 not possible           # only who owns it for writing waits
         1 finish       -> 1 finished",
    );
    assert_eq!(uds.status().deadline, None, "the refused timed lock has left no timer");
    assert_eq!(uds.locks_in_use(), 0);
}

// -- wait queues

#[test]
fn a_notified_waiter_is_primary_in_the_next_round_and_takes_a_step() {
    story(
        &mut uds(2, 2),
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         1 wait a       -> 
         2 lock a       -> 2 granted
         2 notify a     -> 2 granted
         2 finish       -> 2 finished, 1 granted",
    );
}

#[test]
fn a_lock_has_several_wait_queues() {
    story(
        &mut uds(4, 2),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         request 4      -> start 4
         1 lock a       -> 1 granted
         2 yield        -> 2 granted
         3 yield        -> 3 granted
         4 yield        -> 4 granted
         1 wait a/1     ->
         2 lock a       -> 2 granted
         2 wait a/2     ->
         3 lock a       -> 3 granted
         3 wait a/2     ->
         4 lock a       -> 4 granted
         4 notify a/3   -> 4 granted                # nobody
         4 notify a/2   -> 4 granted                # 2: first in, first out
         4 finish       -> 4 finished, 2 granted
         2 notify-all a/2 -> 2 granted
         2 notify-all a/1 -> 2 granted
         2 finish       -> 2 finished
         flush          -> 1 granted
         1 finish       -> 3 granted, 1 finished",
    );
}

// -- time

#[test]
fn now_is_the_requests_timestamp_then_that_of_the_round() {
    story(
        &mut uds(2, 9),
        "request 1 at 40 -> start 1
         1 yield        -> 1 granted @40
         tick 50        ->                          # the round it closes still has its time
         1 yield        -> 1 granted @40
         1 finish       -> 1 finished
         request 2 at 45 -> start 2
         2 yield        -> 2 granted @50",
    );
}

#[test]
fn timers_fire_in_order_at_the_end_of_a_round() {
    story(
        &mut uds(4, 9),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         1 sleep 20     ->
         2 sleep 10     ->
         3 sleep 10     ->
         tick 5         ->
         tick 9         ->
         tick 10        -> 2 granted @10, 3 granted @10
         2 sleep 9      ->
         3 finish       -> 3 finished
         tick 30        -> 1 granted @30, 2 granted @30",
    );
}

#[test]
fn a_timed_wait_owns_the_lock_again_however_it_ends() {
    story(
        &mut uds(2, 9),
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         1 wait a for 10 ->
         2 lock a       -> 2 granted
         2 sleep 20     ->
         tick 10        ->                          # timed out, but 2 sleeps with the lock
         tick 20        -> 2 granted @20
         2 unlock a     -> 2 granted @20
         2 finish       -> 2 finished
         flush          -> 1 timed out @20
         1 lock b       -> 1 granted @20
         1 notify a     -> 1 granted @20",
    );
}

#[test]
fn a_timed_lock_keeps_its_deadline_through_rounds() {
    let mut uds = uds(2, 1);
    story(
        &mut uds,
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         2 lock a for 10 ->
         1 yield        -> 1 granted                # the second round: 2 queues again
         tick 9         ->
         1 yield        -> 1 granted                # the third
         1 yield        -> 1 granted @9             # after the tick
         tick 10        ->
         1 yield        -> 2 timed out @10, 1 granted @10",
    );
    assert_eq!(uds.status().deadline, None);
}

// -- the log

#[test]
fn a_flush_gives_carried_over_threads_short_rounds() {
    let mut uds = Uds::new(Parameters { flush_rounds: 2, ..parameters(8, 1) });
    story(
        &mut uds,
        "request 1      -> start 1
         1 lock a       -> 1 granted
         1 lock b       ->                          # out of steps, and the membership is open
         flush          -> 1 granted                # one short round
         1 lock c       -> 1 granted                # two: the flush is used up
         1 lock d       ->",
    );
    assert!(uds.status().needs_flush);
    story(
        &mut uds,
        "request 2      -> start 2
         2 finish       -> 2 finished
         flush          -> 1 granted
         1 finish       -> 1 finished",
    );
    assert!(!uds.status().needs_flush);
}

#[test]
fn a_flush_with_nothing_to_run_is_passed_over() {
    let mut uds = uds(2, 1);
    story(&mut uds, "flush -> \n flush -> \n request 1 -> start 1");
    assert_eq!(uds.status().round, 1);
}

#[test]
fn a_flush_does_not_hold_the_request_that_spinning_threads_wait_for() {
    // Rounds of the spinning thread alone would never end.
    story(
        &mut uds(8, 1),
        "request 1      -> start 1
         1 yield        -> 1 granted
         1 yield        ->
         flush          -> 1 granted
         1 yield        ->                          # no progress: the flush is passed, not held
         request 2      -> start 2
         2 lock a       -> 2 granted",
    );
}

#[test]
fn a_thread_that_was_waiting_is_no_reason_to_hold_a_flush() {
    story(
        &mut uds(2, 2),
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         2 yield        -> 2 granted
         1 lock b       -> 1 granted
         1 wait b       ->
         2 lock a       ->                          # blocked behind a waiting owner
         flush          ->
         request 3      -> start 3
         3 lock b       -> 3 granted
         3 notify b     -> 3 granted
         3 finish       -> 3 finished
         flush          -> 1 granted
         1 finish       -> 1 finished, 2 granted    # the flush still holds
         2 finish       -> 2 finished",
    );
}

#[test]
fn a_tick_closes_the_round() {
    story(
        &mut uds(8, 1),
        "request 1      -> start 1
         1 yield        -> 1 granted
         1 yield        ->
         tick 5         -> 1 granted @5",
    );
}

#[test]
fn parameters_change_at_the_end_of_the_round() {
    story(
        &mut uds(2, 1),
        "request 1      -> start 1
         parameters 1 3 ->
         request 2      ->                          # the round is closed
         1 yield        -> 1 granted
         1 yield        -> 1 granted                # the new parameters: three steps
         1 yield        -> 1 granted
         1 yield        -> 1 granted
         1 finish       -> 1 finished, start 2",
    );
}

#[test]
fn a_mark_is_reported_between_two_rounds() {
    story(
        &mut uds(2, 1),
        "mark 1         -> marked 1 in round 1
         request 1      -> start 1
         mark 2         ->
         mark 3         ->
         1 lock a       -> 1 granted
         1 lock b       -> marked 2 in round 2, 1 granted
         1 finish       -> 1 finished, marked 3 in round 3",
    );
}

// -- rounds without progress

#[test]
fn more_primaries_when_a_round_makes_no_progress() {
    // With n = 1 the younger owner of a would never be primary while the older waiter wants a again.
    let mut uds = uds(1, 2);
    story(
        &mut uds,
        "request 1      -> start 1
         request 2      ->
         1 lock a       -> 1 granted
         1 wait a       -> start 2
         2 lock b       -> 2 granted
         2 lock a       -> 2 granted
         2 notify a     -> 2 granted
         2 yield        -> 2 granted                # 1 alone could only queue at a: the round after has both
         2 finish       -> 1 granted, 2 finished",
    );
}

#[test]
fn the_youngest_of_a_cycle_gets_an_error() {
    story(
        &mut uds(3, 2),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         1 lock a       -> 1 granted
         2 lock b       -> 2 granted
         3 lock c       -> 3 granted
         1 lock b       ->
         2 lock a       ->
         3 lock a       -> 2 deadlock               # 3 stands behind the cycle, it is not on it
         2 finish       -> 1 granted, 2 finished",
    );
}

#[test]
fn who_stands_behind_a_parked_owner_is_out_of_the_way() {
    let mut uds = uds(2, 4);
    story(
        &mut uds,
        "request 1      -> start 1
         request 2      -> start 2
         1 lock a       -> 1 granted
         1 sleep 50     ->
         2 lock a       ->",
    );
    assert_eq!((uds.status().parked, uds.status().needs_flush), (2, false));
    story(
        &mut uds,
        "request 3      -> start 3
         request 4      -> start 4
         3 finish       -> 3 finished
         4 finish       -> 4 finished
         tick 50        -> 1 granted @50
         1 unlock a     -> 1 granted @50
         1 finish       -> 1 finished
         flush          -> 2 granted @50",
    );
}

#[test]
fn a_reader_is_not_let_past_a_blocked_writer() {
    story(
        &mut uds(2, 4),
        "request 1      -> start 1
         request 2      -> start 2
         1 read a       -> 1 granted
         1 sleep 50     ->
         2 lock a       ->                          # blocked: the reader sleeps
         request 3      -> start 3
         3 read a       ->
         tick 50        -> 1 granted @50
         1 finish       -> 1 finished
         flush          -> 2 granted @50
         2 finish       -> 3 granted @50, 2 finished",
    );
}

#[test]
fn a_reader_in_the_queue_owns_when_no_owner_is_left_not_before() {
    // Else its grant would depend on whether it comes before or after the first of two readers leaves.
    story(
        &mut uds(3, 2),
        "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         1 read a       -> 1 granted
         2 read a       -> 2 granted
         1 sleep 50     ->
         3 lock a       ->
         2 yield        -> 2 granted
         2 yield        -> 2 granted                # a new round; 3 is blocked behind 1
         request 4      -> start 4
         4 read a       ->
         2 unlock a     -> 2 granted
         2 finish       -> 2 finished
         tick 50        -> 1 granted @50
         1 unlock a     -> 1 granted @50
         1 finish       -> 3 granted @50, 1 finished
         flush          ->
         3 unlock a     -> 3 granted @50
         3 finish       -> 3 finished, 4 granted @50",
    );
}

#[test]
fn a_reader_follows_readers_only_where_it_would_have_been_let_in() {
    // 2 is blocked behind 1 and wants to write. Whether 3 and 4 come before or after 1 gives the lock back, 4 must wait
    // for 3: after it, it is not let past the blocked writer, and before it must come to the same.
    let before = "request 1      -> start 1
         request 2      -> start 2
         request 3      -> start 3
         request 4      -> start 4
         1 read a       -> 1 granted
         1 sleep 9      ->
         3 sleep 9      ->
         4 sleep 9      ->
         2 lock a       ->
         tick 9         -> 1 granted @9, 3 granted @9, 4 granted @9
         1 yield        -> 1 granted @9";
    for rest in [
        "3 read a       ->
         4 read a       ->
         1 unlock a     -> 3 granted @9, 1 granted @9
         3 unlock a     -> 4 granted @9, 3 granted @9",
        "1 unlock a     -> 1 granted @9
         3 read a       -> 3 granted @9
         4 read a       ->
         3 unlock a     -> 4 granted @9, 3 granted @9",
    ] {
        story(&mut uds(4, 4), &format!("{before}\n{rest}"));
    }
}

#[test]
fn the_report_tells_grants_and_states_apart() {
    let report = |script: &str| {
        let (mut uds, mut grants) = (uds(1, 9), Vec::new());
        story(&mut uds, script);
        uds.handle(Event::Entry(Entry::Mark(1)), &mut grants);
        let Some(Grant::Marked(report)) = grants.pop() else { panic!("a Mark is reported at once") };
        (report.grants, report.state)
    };
    let with = |operations: &str| report(&format!("request 1 -> start 1\n{operations}"));
    let nothing = with("1 finish -> 1 finished");
    let lock_a = with("1 lock a -> 1 granted\n 1 finish -> 1 finished");
    let lock_b = with("1 lock b -> 1 granted\n 1 finish -> 1 finished");
    let twice =
        with("1 lock a -> 1 granted\n 1 unlock a -> 1 granted\n 1 lock a -> 1 granted\n 1 finish -> 1 finished");
    let read_a = with("1 read a -> 1 granted\n 1 finish -> 1 finished");
    let traces = [nothing.0, lock_a.0, lock_b.0, twice.0, read_a.0];
    assert!((0..traces.len()).all(|at| !traces[..at].contains(&traces[at])), "{traces:?}");
    assert_eq!(lock_a.1, lock_b.1, "what is left is the same");
    let asleep = with("1 sleep 5 ->");
    let longer = with("1 sleep 6 ->");
    let holding = with("1 lock a -> 1 granted\n 1 sleep 5 ->");
    let waiting = with("1 lock a -> 1 granted\n 1 wait a for 5 ->");
    let elsewhere = with("1 lock a -> 1 granted\n 1 wait a/1 for 5 ->");
    let states = [nothing.1, asleep.1, longer.1, holding.1, waiting.1, elsewhere.1];
    assert!((0..states.len()).all(|at| !states[..at].contains(&states[at])), "{states:?}");
}

// -- hosts

#[test]
fn the_index_of_a_finished_thread_is_free_within_the_same_round() {
    let mut uds = uds(3, 1);
    let mut grants = Vec::new();
    let request = |position| {
        let declaration = Declaration::default();
        Event::Entry(Entry::Request { thread: ThreadIndex(7), position, timestamp: 0, declaration })
    };
    for position in 1..4 {
        uds.handle(request(position), &mut grants);
        uds.handle(Event::Operation { thread: ThreadIndex(7), operation: Operation::Finish }, &mut grants);
    }
    let started = grants.iter().filter(|grant| matches!(grant, Grant::Start { .. })).count();
    assert_eq!((started, uds.status().threads), (3, 0));
}

#[test]
#[should_panic(expected = "positions ascend")]
fn a_host_that_repeats_a_position_is_stopped() {
    story(&mut uds(1, 1), "request 1 -> start 1\n 1 finish -> 1 finished\n request 1 ->");
}

#[test]
#[should_panic(expected = "an operation of a thread that is Sleeping")]
fn a_host_that_sends_two_operations_is_stopped() {
    story(&mut uds(2, 1), "request 1 -> start 1\n 1 sleep 5 ->\n 1 yield ->");
}

#[test]
fn ten_thousand_waiters_cost_a_round_nothing() {
    let rounds = |waiters: u64| {
        let mut uds = uds(16, 2);
        let mut script = String::new();
        for waiter in 1..=waiters {
            script += &format!("request {waiter} -> start {waiter}\n");
            script += &format!("{waiter} lock {waiter} -> {waiter} granted\n{waiter} wait {waiter} ->\n");
        }
        script += "flush ->\n";
        quick(&mut uds, &script);
        let (round, parked) = (uds.status().round, uds.status().parked);
        assert_eq!(parked as u64, waiters);
        let mut script = String::new();
        for busy in waiters + 1..waiters + 161 {
            script += &format!("request {busy} -> start {busy}\n{busy} lock x -> {busy} granted\n");
            script += &format!("{busy} finish -> {busy} finished\n");
        }
        quick(&mut uds, &script);
        uds.status().round - round
    };
    assert_eq!(rounds(10_000), rounds(0));
}

/// Plays a story without the checks after each line that cost as much as there are threads.
fn quick(uds: &mut Uds, script: &str) {
    struct Unchecked<'a>(&'a mut Uds);
    impl Scheduler for Unchecked<'_> {
        fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
            self.0.handle(event, grants);
        }
        fn status(&self) -> unisono_scheduler::Status {
            self.0.status()
        }
    }
    impl unisono_scheduler::testing::Checked for Unchecked<'_> {
        fn check(&self) {}
        fn locks_in_use(&self) -> usize {
            self.0.locks_in_use()
        }
    }
    story(&mut Unchecked(uds), script);
}
