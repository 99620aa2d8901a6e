//! The sequential policy: its rules as stories, and against a model that does what its page says in the plainest way.

mod support;

use std::collections::{BTreeMap, VecDeque};
use support::story::story;
use unisono_scheduler::sequential::{PASSES_PER_ENTRY, Sequential};
use unisono_scheduler::testing::{Checked, Features, Recording};
use unisono_scheduler::{
    Entry, Event, Grant, LockId, Mode, Operation, OperationResult, Parameters, QueueId, RoundReport, Scheduler, Status,
    ThreadIndex,
};

// -- stories

#[test]
fn the_next_request_begins_when_nobody_can_run() {
    story(
        &mut Sequential::new(),
        "request 1      -> start 1
         request 2      ->
         1 lock a       -> 1 granted
         1 yield        -> 1 granted                # nobody else is ready
         1 sleep 5      -> start 2
         2 lock b       -> 2 granted
         2 finish       -> 2 finished
         tick 5         -> 1 granted @5
         1 unlock a     -> 1 granted @5
         1 finish       -> 1 finished",
    );
}

#[test]
fn an_operation_before_its_time_has_no_effect() {
    story(
        &mut Sequential::new(),
        "request 1      -> start 1
         request 2      ->
         2 lock a       ->
         1 lock a       -> 1 granted
         1 finish       -> 1 finished, 2 granted",
    );
}

#[test]
fn a_queue_is_served_in_order_and_readers_together() {
    story(
        &mut Sequential::new(),
        "request 1      -> start 1
         request 2      ->
         request 3      ->
         request 4      ->
         1 lock a       -> 1 granted
         1 sleep 9      -> start 2
         2 lock a       -> start 3
         3 read a       -> start 4
         4 read a       ->
         tick 9         -> 1 granted @9
         1 finish       -> 1 finished, 2 granted @9
         2 unlock a     -> 2 granted @9             # the readers are ready, one at a time
         2 finish       -> 2 finished, 3 granted @9
         3 finish       -> 3 finished, 4 granted @9",
    );
}

#[test]
fn the_operation_that_closes_a_cycle_gets_the_error() {
    story(
        &mut Sequential::new(),
        "request 1      -> start 1
         request 2      ->
         1 lock a       -> 1 granted
         1 sleep 1      -> start 2
         2 lock b       -> 2 granted
         2 lock a       ->
         tick 1         -> 1 granted @1
         1 lock b       -> 1 deadlock @1
         1 finish       -> 1 finished, 2 granted @1",
    );
}

#[test]
fn a_writer_that_gives_up_makes_way_for_the_readers_behind_it() {
    let mut sequential = Sequential::new();
    story(
        &mut sequential,
        "request 1      -> start 1
         request 2      ->
         request 3      ->
         1 read a       -> 1 granted
         1 sleep 99     -> start 2
         2 lock a for 9 -> start 3
         3 read a       ->
         tick 9         -> 2 timed out @9
         2 finish       -> 2 finished, 3 granted @9",
    );
    assert_eq!(sequential.status().deadline, Some(99));
}

#[test]
fn waiters_are_notified_in_order_and_own_the_lock_again() {
    story(
        &mut Sequential::new(),
        "request 1      -> start 1
         request 2      ->
         request 3      ->
         1 lock a       -> 1 granted
         1 wait a       -> start 2
         2 lock a       -> 2 granted
         2 wait a/7 for 30 -> start 3
         3 lock a       -> 3 granted
         3 notify a     -> 3 granted
         3 notify a/8   -> 3 granted
         3 finish       -> 3 finished, 1 granted
         tick 30        ->                          # 2 is due, 1 runs first
         1 finish       -> 1 finished, 2 timed out @30
         2 unlock a     -> 2 granted @30
         2 wait a       -> 2 not possible @30",
    );
}

#[test]
fn a_spinning_thread_does_not_keep_out_the_request_it_waits_for() {
    let mut sequential = Sequential::new();
    let mut grants = Vec::new();
    let spin = Event::Operation { thread: ThreadIndex(1), operation: Operation::Yield };
    story(&mut sequential, "request 1 -> start 1");
    for _ in 0..PASSES_PER_ENTRY {
        sequential.handle(spin.clone(), &mut grants);
    }
    assert_eq!(grants.len(), PASSES_PER_ENTRY as usize);
    story(
        &mut sequential,
        "1 yield        ->                          # now the log
         request 2      -> start 2
         2 finish       -> 2 finished, 1 granted
         1 finish       -> 1 finished",
    );
}

#[test]
fn a_lock_leaves_nothing_behind() {
    let mut sequential = Sequential::new();
    story(&mut sequential, "request 1 -> start 1");
    for lock in 0..10_000 {
        let mut grants = Vec::new();
        let lock = LockId(lock << 96);
        for operation in [Operation::Lock { lock, mode: Mode::Write, timeout: None }, Operation::Unlock { lock }] {
            sequential.handle(Event::Operation { thread: ThreadIndex(1), operation }, &mut grants);
        }
        assert_eq!((grants.len(), sequential.locks_in_use()), (2, 0));
    }
}

// -- the model

/// Every rule by searching through plain vectors.
#[derive(Default)]
struct Model {
    log: VecDeque<Entry>,
    threads: Vec<Thread>,
    running: Option<u64>,
    passes: u32,
    now: u64,
    round: u64,
    /// In order of joining.
    waiting: Vec<(u64, LockId, QueueId)>,
    /// In order of acquisition.
    owned: Vec<(u64, LockId, Mode)>,
    /// In order of arrival.
    queued: Vec<(u64, LockId, Mode)>,
    /// Greatest times of exclusive owners at their release.
    carried: BTreeMap<LockId, u64>,
}

struct Thread {
    id: u64,
    index: ThreadIndex,
    now: u64,
    deadline: Option<u64>,
    state: State,
}

#[derive(Clone, PartialEq, Debug)]
enum State {
    Fresh(Option<Operation>),
    Running,
    Ready(Next),
    Yielded(OperationResult),
    /// In `queued`; what it gets when it owns the lock.
    Queued(OperationResult),
    Waiting,
    Sleeping,
}

#[derive(Clone, PartialEq, Debug)]
enum Next {
    Result(OperationResult),
    Own(LockId, OperationResult),
}

impl Scheduler for Model {
    fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
        match event {
            Event::Entry(entry) => {
                if let Entry::Request { thread, position, timestamp, .. } = entry {
                    let state = State::Fresh(None);
                    self.threads.push(Thread { id: position, index: thread, now: timestamp, deadline: None, state });
                }
                self.log.push_back(entry);
            }
            Event::Operation { thread, operation } => {
                let id = self.threads.iter().find(|known| known.index == thread).expect("a live thread").id;
                match &mut self.thread(id).state {
                    State::Fresh(ahead) => *ahead = Some(operation),
                    _ => self.perform(id, operation, grants),
                }
            }
        }
        while self.running.is_none() && self.next(grants) {}
    }

    fn status(&self) -> Status {
        let parked = |thread: &&Thread| matches!(thread.state, State::Queued(_) | State::Waiting | State::Sleeping);
        Status {
            round: self.round,
            threads: self.threads.len(),
            parked: self.threads.iter().filter(parked).count(),
            needs_flush: self.running.is_none()
                && self.threads.iter().any(|thread| matches!(thread.state, State::Yielded(_))),
            deadline: self.threads.iter().filter_map(|thread| thread.deadline).min(),
        }
    }
}

impl Model {
    fn thread(&mut self, id: u64) -> &mut Thread {
        self.threads.iter_mut().find(|thread| thread.id == id).expect("a live thread")
    }

    /// False: the log is used up.
    fn next(&mut self, grants: &mut Vec<Grant>) -> bool {
        self.fire();
        if let Some(thread) = self.threads.iter().find(|thread| matches!(thread.state, State::Ready(_))) {
            let id = thread.id; // threads stand in order of id
            self.run(id, grants);
        } else if self.passes > 0 && self.threads.iter().any(|thread| matches!(thread.state, State::Yielded(_))) {
            self.passes -= 1;
            for thread in &mut self.threads {
                if let State::Yielded(result) = thread.state {
                    thread.state = State::Ready(Next::Result(result));
                }
            }
        } else {
            let Some(entry) = self.log.pop_front() else { return false };
            self.passes = PASSES_PER_ENTRY;
            match entry {
                Entry::Request { position, .. } => self.run(position, grants),
                Entry::Tick(time) => self.now = self.now.max(time),
                Entry::Flush | Entry::Reconfigure(_) | Entry::Answer { .. } => {}
                Entry::Mark(mark) => {
                    let report = RoundReport { mark, round: self.round, grants: [0; 32], state: [0; 32] };
                    grants.push(Grant::Marked(Box::new(report)));
                }
            }
        }
        true
    }

    fn run(&mut self, id: u64, grants: &mut Vec<Grant>) {
        self.round += 1;
        self.running = Some(id);
        let index = self.thread(id).index;
        match std::mem::replace(&mut self.thread(id).state, State::Running) {
            State::Fresh(None) => grants.push(Grant::Start { thread: index }),
            State::Fresh(Some(operation)) => self.perform(id, operation, grants),
            State::Ready(Next::Result(result)) => self.resume(id, result, grants),
            State::Ready(Next::Own(lock, result)) => self.lock(id, lock, Mode::Write, None, result, grants),
            state => panic!("cannot run from {state:?}"),
        }
    }

    fn stop(&mut self, id: u64, state: State) {
        self.thread(id).state = state;
        self.running = None;
    }

    fn resume(&mut self, id: u64, result: OperationResult, grants: &mut Vec<Grant>) {
        let now = self.now;
        let thread = self.thread(id);
        thread.now = thread.now.max(now);
        grants.push(Grant::Resume { thread: thread.index, result, now: thread.now });
    }

    fn perform(&mut self, id: u64, operation: Operation, grants: &mut Vec<Grant>) {
        let owns = |model: &Model, lock| model.owned.iter().find(|own| (own.0, own.1) == (id, lock)).map(|own| own.2);
        let possible = match &operation {
            Operation::Unlock { lock } | Operation::Notify { lock, .. } => owns(self, *lock).is_some(),
            Operation::Wait { lock, .. } => owns(self, *lock) == Some(Mode::Write),
            Operation::Lock { lock, .. } | Operation::Try { lock, .. } => owns(self, *lock).is_none(),
            // The model's programs have no children and call nobody.
            Operation::Spawn { .. } | Operation::Join { .. } | Operation::External { .. } => false,
            Operation::Sleep { .. } | Operation::Yield | Operation::Reconfigure(_) | Operation::Finish => true,
        };
        if !possible {
            return self.resume(id, OperationResult::NotPossible, grants);
        }
        match operation {
            Operation::Lock { lock, mode, timeout } => {
                self.lock(id, lock, mode, timeout, OperationResult::Granted, grants)
            }
            Operation::Unlock { lock } => {
                self.give_back(id, lock);
                self.resume(id, OperationResult::Granted, grants);
            }
            Operation::Notify { lock, queue, all } => {
                while let Some(at) = self.waiting.iter().position(|waiter| (waiter.1, waiter.2) == (lock, queue)) {
                    let waiter = self.waiting.remove(at).0;
                    self.thread(waiter).deadline = None;
                    self.thread(waiter).state = State::Ready(Next::Own(lock, OperationResult::Granted));
                    if !all {
                        break;
                    }
                }
                self.resume(id, OperationResult::Granted, grants);
            }
            Operation::Wait { lock, queue, timeout } => {
                self.arm(id, timeout);
                self.waiting.push((id, lock, queue));
                self.give_back(id, lock);
                self.stop(id, State::Waiting);
            }
            Operation::Sleep { duration } => {
                self.arm(id, Some(duration));
                self.stop(id, State::Sleeping);
            }
            Operation::Yield => self.stop(id, State::Yielded(OperationResult::Granted)),
            Operation::Reconfigure(_) => self.resume(id, OperationResult::Granted, grants),
            Operation::Try { lock, mode } => {
                if self.queued.iter().all(|queued| queued.1 != lock) && self.admits(lock, mode) {
                    self.own(id, lock, mode);
                    self.resume(id, OperationResult::Granted, grants);
                } else {
                    self.stop(id, State::Yielded(OperationResult::Occupied));
                }
            }
            Operation::Spawn { .. } | Operation::Join { .. } | Operation::External { .. } => {
                unreachable!("not possible")
            }
            Operation::Finish => {
                while let Some((_, lock, _)) = self.owned.iter().find(|own| own.0 == id).copied() {
                    self.give_back(id, lock);
                }
                let thread = self.thread(id).index;
                grants.push(Grant::Finished { thread });
                self.threads.retain(|thread| thread.id != id);
                self.running = None;
            }
        }
    }

    fn lock(
        &mut self,
        id: u64,
        lock: LockId,
        mode: Mode,
        timeout: Option<u64>,
        result: OperationResult,
        grants: &mut Vec<Grant>,
    ) {
        if self.queued.iter().all(|queued| queued.1 != lock) && self.admits(lock, mode) {
            self.own(id, lock, mode);
            return self.resume(id, result, grants);
        }
        self.queued.push((id, lock, mode));
        if self.leads_to(id, id, &mut Vec::new()) {
            self.queued.pop();
            return self.resume(id, OperationResult::Deadlock, grants);
        }
        self.arm(id, timeout);
        self.stop(id, State::Queued(result));
    }

    fn admits(&self, lock: LockId, mode: Mode) -> bool {
        let mut owners = self.owned.iter().filter(|own| own.1 == lock);
        mode == Mode::Read && owners.clone().all(|own| own.2 == Mode::Read) || owners.next().is_none()
    }

    fn leads_to(&self, from: u64, goal: u64, seen: &mut Vec<u64>) -> bool {
        let Some(at) = self.queued.iter().position(|queued| queued.0 == from) else { return false };
        let lock = self.queued[at].1;
        let ahead = self.queued[..at].iter().filter(|queued| queued.1 == lock).map(|queued| queued.0);
        let first: Vec<u64> = ahead.chain(self.owned.iter().filter(|own| own.1 == lock).map(|own| own.0)).collect();
        first.into_iter().any(|thread| {
            let known = seen.contains(&thread);
            seen.push(thread);
            thread == goal || !known && self.leads_to(thread, goal, seen)
        })
    }

    fn own(&mut self, id: u64, lock: LockId, mode: Mode) {
        self.owned.push((id, lock, mode));
        let carried = self.carried.get(&lock).copied().unwrap_or_default();
        let thread = self.thread(id);
        thread.now = thread.now.max(carried);
    }

    fn give_back(&mut self, id: u64, lock: LockId) {
        if self.owned.contains(&(id, lock, Mode::Write)) {
            let now = self.thread(id).now;
            let carried = self.carried.entry(lock).or_default();
            *carried = now.max(*carried);
        }
        self.owned.retain(|own| (own.0, own.1) != (id, lock));
        self.hand_over(lock);
    }

    fn hand_over(&mut self, lock: LockId) {
        while let Some(at) = self.queued.iter().position(|queued| queued.1 == lock) {
            let (heir, _, mode) = self.queued[at];
            if !self.admits(lock, mode) {
                return;
            }
            self.queued.remove(at);
            self.own(heir, lock, mode);
            let State::Queued(result) = self.thread(heir).state else { panic!("it queues") };
            self.thread(heir).deadline = None;
            self.thread(heir).state = State::Ready(Next::Result(result));
        }
    }

    fn arm(&mut self, id: u64, timeout: Option<u64>) {
        let now = self.now;
        let thread = self.thread(id);
        thread.deadline = timeout.map(|timeout| thread.now.max(now) + timeout);
    }

    fn fire(&mut self) {
        loop {
            let now = self.now;
            let due = self.threads.iter().filter(|thread| thread.deadline.is_some_and(|deadline| deadline <= now));
            let Some(id) = due.min_by_key(|thread| (thread.deadline, thread.id)).map(|thread| thread.id) else {
                return;
            };
            self.thread(id).deadline = None;
            let mut left = None;
            let next = match self.thread(id).state.clone() {
                State::Waiting => {
                    let at = self.waiting.iter().position(|waiter| waiter.0 == id).expect("it waits");
                    Next::Own(self.waiting.remove(at).1, OperationResult::TimedOut)
                }
                State::Queued(_) => {
                    let at = self.queued.iter().position(|queued| queued.0 == id).expect("it queues");
                    left = Some(self.queued.remove(at).1);
                    Next::Result(OperationResult::TimedOut)
                }
                State::Sleeping => Next::Result(OperationResult::Granted),
                state => panic!("a timer of a thread that is {state:?}"),
            };
            self.thread(id).state = State::Ready(next);
            left.into_iter().for_each(|lock| self.hand_over(lock));
        }
    }
}

/// Both at once, each event and each grant compared.
struct Both {
    real: Sequential,
    model: Model,
}

impl Scheduler for Both {
    fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
        let mut expected = Vec::new();
        self.model.handle(event.clone(), &mut expected);
        let first = grants.len();
        self.real.handle(event.clone(), grants);
        let shown = |grants: &[Grant]| {
            let mut grants = grants.to_vec();
            for grant in &mut grants {
                if let Grant::Marked(report) = grant {
                    (report.grants, report.state) = ([0; 32], [0; 32]);
                }
            }
            grants
        };
        assert_eq!(shown(&grants[first..]), shown(&expected), "on {event:?}");
        assert_eq!(self.real.status(), self.model.status(), "after {event:?}");
    }

    fn status(&self) -> Status {
        self.real.status()
    }
}

impl Checked for Both {
    fn check(&self) {
        self.real.invariants();
    }

    fn locks_in_use(&self) -> usize {
        self.real.locks_in_use()
    }
}

#[test]
fn it_does_what_the_model_does() {
    let mut deadlocks = 0;
    for seed in 0..400 {
        let features = Features { children: false, calls: false, declared: false, ..Features::ALL };
        let both = |_: &Parameters| -> Box<dyn Checked> {
            Box::new(Both { real: Sequential::new(), model: Model::default() })
        };
        let recording = Recording::new(seed, features, &both).unwrap_or_else(|stuck| panic!("seed {seed}: {stuck:?}"));
        deadlocks += recording.outcome.counters.deadlocks;
    }
    assert!(deadlocks > 20, "{deadlocks}");
}

// -- children

#[test]
fn children_run_when_their_parent_stops() {
    let mut sequential = Sequential::new();
    story(
        &mut sequential,
        "request 1      -> start 1
         request 2      ->
         1 spawn 7      -> 1 granted
         1 spawn 8      -> 1 granted
         8 sleep 5      ->                          # it was started ahead
         1 join 2       -> start 7
         7 finish       -> 7 finished, start 2      # 8 sleeps
         2 finish       -> 2 finished
         tick 5         -> 8 granted @5
         8 finish       -> 8 finished, 1 granted @5
         1 join 1       -> 1 granted @5
         1 join 1       -> 1 not possible @5
         1 finish       -> 1 finished",
    );
    assert_eq!(sequential.status().threads, 0);
}

#[test]
fn a_cycle_through_a_join_is_broken_on_either_side() {
    story(
        &mut Sequential::new(),
        "request 1      -> start 1
         1 lock a       -> 1 granted
         1 spawn 7      -> 1 granted
         1 join 1       -> start 7
         7 lock a       -> 7 deadlock               # the lock closes it
         7 finish       -> 7 finished, 1 granted
         1 finish       -> 1 finished",
    );
    story(
        &mut Sequential::new(),
        "request 1      -> start 1
         1 lock a       -> 1 granted
         1 spawn 7      -> 1 granted
         1 sleep 5      -> start 7
         7 lock a       ->
         tick 5         -> 1 granted @5
         1 join 1       -> 7 deadlock @5            # the join closes it
         7 finish       -> 7 finished, 1 granted @5",
    );
}

// -- the declared lane

#[test]
fn declared_requests_have_tickets_from_the_moment_they_are_read() {
    story(
        &mut Sequential::new(),
        "request 1               -> start 1
         request 2 declares a b  ->
         request 3               ->
         1 lock a                -> 1 granted
         1 sleep 9               -> start 2
         2 lock c                -> 2 not declared
         2 sleep 9               -> 2 not declared
         2 lock a                -> start 3
         3 lock b                ->                  # reserved for 2
         tick 9                  -> 1 granted @9
         1 unlock a              -> 1 granted @9
         1 finish                -> 1 finished, 2 granted @9
         2 finish                -> 2 finished, 3 granted @9
         3 finish                -> 3 finished",
    );
}

#[test]
fn who_waits_for_a_ticket_is_not_the_victim_of_a_cycle() {
    story(
        &mut Sequential::new(),
        "request 1               -> start 1
         1 lock a                -> 1 granted
         1 sleep 9               ->
         request 2 declares a b  -> start 2
         2 lock b                -> 2 granted
         2 lock a                ->
         tick 9                  -> 1 granted @9
         1 lock b                -> 1 deadlock @9
         1 finish                -> 1 finished, 2 granted @9
         2 finish                -> 2 finished",
    );
}

#[test]
fn changes_of_parameters_are_accepted_and_have_no_effect() {
    story(
        &mut Sequential::new(),
        "request 1          -> start 1
         1 parameters 9 9   -> 1 granted
         parameters 9 9     ->
         request 2          ->
         1 finish           -> 1 finished, start 2",
    );
}

// -- try

#[test]
fn a_try_answers_at_once_and_lets_others_go_first_when_it_fails() {
    story(
        &mut Sequential::new(),
        "request 1      -> start 1
         request 2      ->
         1 try a        -> 1 granted
         1 try a        -> 1 not possible
         1 sleep 5      -> start 2
         2 try a        -> 2 occupied               # nobody else is there to go first
         2 try-read a   -> 2 occupied
         request 3      ->
         2 finish       -> 2 finished, start 3
         3 finish       -> 3 finished",
    );
}

// -- outside calls

#[test]
fn a_call_waits_for_its_answer_or_its_time() {
    story(
        &mut Sequential::new(),
        "request 1      -> start 1
         1 call         -> 1 calls 0
         answer 1 1     ->                          # no such call
         answer 1 0     -> 1 granted
         1 call for 5   -> 1 calls 1
         tick 5         -> 1 timed out @5
         answer 1 1     ->                          # too late
         1 finish       -> 1 finished",
    );
}
