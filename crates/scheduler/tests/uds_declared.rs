//! The declared lane of UDS, as stories.

mod support;

use support::parameters;
use support::story::story;
use unisono_scheduler::testing::Checked;
use unisono_scheduler::uds::Uds;
use unisono_scheduler::{Entry, Event, Scheduler};

fn uds(primaries: u32, steps: u32) -> Uds {
    Uds::new(parameters(primaries, steps))
}

#[test]
fn tickets_give_locks_in_log_order_whoever_comes_first() {
    story(
        &mut uds(4, 1),
        "request 1 declares a b  -> start 1
         request 2 declares b    -> start 2           # no primary in the round: admitted at once
         2 lock b                ->                   # the ticket of 1 is first
         1 lock b                -> 1 granted         # in any order of its own
         1 lock a                -> 1 granted
         1 unlock b              -> 2 granted, 1 granted
         2 finish                -> 2 finished
         1 finish                -> 1 finished",
    );
}

#[test]
fn what_was_not_declared_is_refused_and_changes_nothing() {
    story(
        &mut uds(4, 1),
        "request 1 declares a read:b -> start 1
         1 lock c       -> 1 not declared
         1 read a       -> 1 not declared             # for writing only
         1 lock b       -> 1 not declared
         1 lock a for 5 -> 1 not declared
         1 unlock a     -> 1 not possible
         1 notify a     -> 1 not possible
         1 lock a       -> 1 granted
         1 lock a       -> 1 not possible
         1 sleep 5      -> 1 not declared
         1 yield        -> 1 not declared
         1 wait a       -> 1 not declared
         1 try b        -> 1 not declared
         1 spawn 7      -> 1 not declared
         1 join 1       -> 1 not declared
         1 call         -> 1 not declared
         1 parameters 1 1 -> 1 not declared
         1 unlock a     -> 1 granted
         1 lock a       -> 1 not declared             # the ticket is used up
         1 finish       -> 1 finished",
    );
}

#[test]
fn a_ticket_has_so_many_uses_and_keeps_the_lock_between_them() {
    story(
        &mut uds(4, 1),
        "request 1 declares a*2 -> start 1
         request 2 declares a   -> start 2
         1 lock a       -> 1 granted
         1 unlock a     -> 1 granted
         2 lock a       ->                            # 1 may lock it once more
         1 lock a       -> 1 granted
         1 unlock a     -> 2 granted, 1 granted
         2 finish       -> 2 finished
         1 finish       -> 1 finished",
    );
}

#[test]
fn an_unused_ticket_is_given_up_at_the_end() {
    story(
        &mut uds(4, 1),
        "request 1 declares a -> start 1
         request 2 declares a -> start 2
         2 lock a       ->
         1 finish       -> 2 granted, 1 finished
         2 finish       -> 2 finished",
    );
}

#[test]
fn a_declared_request_waits_for_the_end_of_a_round_with_primaries() {
    story(
        &mut uds(3, 2),
        "request 1            -> start 1
         request 2 declares a ->                      # deferred: 1 might be before or behind it
         1 lock a             -> 1 granted
         2 lock a             ->                      # it ran ahead
         request 3            -> start 3              # the third member closes the membership
         3 lock a             ->
         1 unlock a           -> 3 granted, 1 granted
         1 finish             -> 1 finished
         3 finish             -> 3 finished, 2 granted # the round is over
         2 finish             -> 2 finished",
    );
}

#[test]
fn undeclared_threads_queue_behind_the_tickets_they_find() {
    story(
        &mut uds(2, 1),
        "request 1 declares a -> start 1
         request 2 declares a -> start 2
         1 lock a             -> 1 granted
         request 3            -> start 3
         3 lock a             ->
         1 finish             -> 1 finished
         2 lock a             -> 2 granted            # reserved, whether or not it had asked
         2 unlock a           -> 3 granted, 2 granted
         3 finish             -> 3 finished
         2 finish             -> 2 finished",
    );
}

#[test]
fn a_round_waits_for_running_declared_threads_not_for_those_that_wait_for_a_ticket() {
    story(
        &mut uds(2, 1),
        "request 1            -> start 1
         1 lock a             -> 1 granted
         request 2 declares a ->
         1 lock b             -> start 2, 1 granted   # the next round
         1 lock c             ->                      # out of steps
         flush                ->                      # 2 runs
         2 lock a             -> 1 granted            # now it waits for 1, which needs the next round
         1 unlock a           -> 2 granted, 1 granted
         1 sleep 5            ->
         tick 5               ->                      # 2 runs
         2 finish             -> 2 finished, 1 granted @5",
    );
}

#[test]
fn declared_requests_alone_have_no_rounds_to_wait_for() {
    let mut uds = uds(1, 1);
    story(
        &mut uds,
        "request 1 declares a -> start 1
         request 2 declares a -> start 2
         request 3 declares b -> start 3
         3 lock b             -> 3 granted
         3 finish             -> 3 finished
         mark 1               ->
         1 finish             -> 1 finished
         2 finish             -> 2 finished, marked 1 in round 1
         flush                ->",
    );
    uds.check();
}

#[test]
fn they_count_as_members_when_an_undeclared_thread_lives() {
    story(
        &mut uds(2, 1),
        "request 1            -> start 1
         request 2            -> start 2
         1 sleep 9            ->
         2 sleep 9            ->                      # a round without primaries
         request 3 declares a -> start 3
         request 4 declares a -> start 4
         request 5            ->                      # the round is full
         3 finish             -> 3 finished
         4 finish             -> 4 finished, start 5",
    );
}

#[test]
fn a_declared_thread_notifies() {
    story(
        &mut uds(1, 1),
        "request 1            -> start 1
         1 lock a             -> 1 granted
         1 wait a             ->
         request 2 declares a -> start 2
         2 lock a             -> 2 granted
         2 notify a           -> 2 granted
         2 finish             -> 2 finished, 1 granted",
    );
}

#[test]
fn the_undeclared_thread_of_a_cycle_gets_the_error() {
    story(
        &mut uds(2, 1),
        "request 1              -> start 1
         1 lock a               -> 1 granted
         request 2 declares a b ->
         1 lock b               -> start 2            # its turn is in the next round, behind the ticket
         2 lock a               ->
         flush                  -> 1 deadlock
         1 finish               -> 2 granted, 1 finished
         2 lock b               -> 2 granted",
    );
}

#[test]
fn a_cycle_that_a_ticket_closes_behind_a_blocked_thread_is_found() {
    // 1 keeps a and sleeps, 2 is blocked behind it and owns b. 4 waits for b since an earlier round when it comes to own
    // a, with 1, because 3 gives up its ticket. That closes the circle 2, 4, 2, and nobody has begun to wait.
    let mut uds = uds(4, 3);
    story(
        &mut uds,
        "request 1                   -> start 1
         request 2                   -> start 2
         1 read a                    -> 1 granted
         2 lock b                    -> 2 granted
         1 lock d                    ->
         flush                       -> 1 granted
         2 lock a                    ->
         1 sleep 9                   ->                # 2 is blocked behind 1
         request 3 declares a d      -> start 3
         request 4 declares read:a b -> start 4
         4 lock b                    ->
         3 lock d                    ->
         tick 9                      -> 1 granted @9
         1 unlock d                  -> 3 granted @9, 1 granted @9
         3 finish                    -> 3 finished
         1 sleep 99                  ->",
    );
    assert!(uds.status().needs_flush, "all are parked, and two of them for each other");
    story(
        &mut uds,
        "flush                       -> 2 deadlock @9
         2 finish                    -> 4 granted @9, 2 finished
         4 read a                    -> 4 granted @9",
    );
}

#[test]
fn declared_readers_share() {
    story(
        &mut uds(1, 1),
        "request 1 declares read:a -> start 1
         request 2 declares read:a -> start 2
         request 3 declares a      -> start 3
         request 4 declares read:a -> start 4
         2 read a       -> 2 granted
         4 read a       ->                            # behind a writer
         3 lock a       ->
         1 finish       -> 1 finished
         2 finish       -> 3 granted, 2 finished
         3 finish       -> 4 granted, 3 finished
         4 finish       -> 4 finished",
    );
}

#[test]
fn a_try_fails_while_a_ticket_stands_against_it() {
    story(
        &mut uds(2, 2),
        "request 1 declares a -> start 1
         request 2            -> start 2
         2 try a              ->
         1 yield              -> 1 not declared
         request 3            ->
         1 finish             -> 1 finished, 2 granted, start 3
         2 finish             -> 2 finished",
    );
    story(
        &mut uds(1, 2),
        "request 1              -> start 1
         1 lock a               -> 1 granted
         request 2 declares a b ->
         1 sleep 9              -> start 2
         request 3              ->
         2 lock a               -> start 3            # 2 waits for its ticket, and b is reserved for it
         3 try b                -> 3 occupied",
    );
}

#[test]
fn its_time_is_that_of_the_rounds_it_runs_in() {
    story(
        &mut uds(1, 1),
        "request 1 at 3            -> start 1
         1 lock a                  -> 1 granted @3
         request 2 at 4 declares a ->
         tick 20                   ->
         1 sleep 1                 -> start 2
         2 lock a                  -> 1 granted @20
         1 finish                  -> 2 granted @20, 1 finished
         2 unlock a                -> 2 granted @20",
    );
}

/// 3 waits behind the ticket of 2, who waits for 1, who sleeps. Nobody of them can go on before its time, however many
/// rounds end: a replica that went on asking for Flushes had 40 of them ordered in a row.
#[test]
fn who_waits_behind_a_waiting_ticket_asks_for_no_flush_without_end() {
    let mut uds = uds(4, 1);
    story(
        &mut uds,
        "request 1            -> start 1
         1 lock b             -> 1 granted
         1 sleep 50           ->
         request 2 declares a b ->                     # deferred: the round had a primary
         flush                -> start 2
         2 lock a             -> 2 granted
         2 lock b             ->                       # behind 1
         request 3            -> start 3
         3 lock a             ->                       # behind 2",
    );
    let mut flushes = 0;
    let mut grants = Vec::new();
    while uds.status().needs_flush {
        uds.handle(Event::Entry(Entry::Flush), &mut grants);
        assert!(grants.is_empty(), "nobody can go on: {grants:?}");
        flushes += 1;
        assert!(flushes <= 3, "Flushes that change nothing");
    }
    assert!(flushes > 0, "the first may change something");
    story(
        &mut uds,
        "tick 60              -> 1 granted @60
         1 unlock b           -> 2 granted @60, 1 granted @60  # who waited for his ticket goes on at once
         2 unlock a           -> 2 granted @60          # it is not 3's turn yet
         2 finish             -> 2 finished
         1 finish             -> 3 granted @60, 1 finished
         3 finish             -> 3 finished",
    );
    assert!(!uds.status().needs_flush);
}

/// 1 keeps a and sleeps, 2 is blocked behind it and owns b, 3 owns a, too, and waits for b. All three are parked, and
/// nothing but the end of the round finds the circle of 2 and 3.
#[test]
fn who_may_have_closed_a_cycle_by_waiting_for_a_ticket_asks_for_a_flush() {
    let mut uds = uds(2, 3);
    story(
        &mut uds,
        "request 1                   -> start 1
         request 2                   -> start 2
         1 read a                    -> 1 granted
         2 lock b                    -> 2 granted
         1 call                      -> 1 calls 0
         2 lock a                    ->                # 2 is blocked behind 1
         request 3 declares read:a b -> start 3
         3 lock b                    ->",
    );
    assert!(uds.status().needs_flush);
    story(
        &mut uds,
        "flush                       -> 2 deadlock
         2 finish                    -> 3 granted, 2 finished",
    );
}
