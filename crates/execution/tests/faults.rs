//! What happens to a handler that breaks a rule: a typed fault that names it, the same on every replica, and a service
//! that goes on.
#![allow(missing_docs)]

mod common;

use common::{Bench, decode, sequential, uds};
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use unisono_execution::testing;
use unisono_execution::{Context, Fault, LockError, Mutex, RwLock, Settings, Table};
use unisono_macros::{State, service};
use unisono_scheduler::{LockId, Operation, Order};

#[derive(State)]
#[state(crate = unisono_execution)]
struct Clumsy {
    first: Mutex<u64>,
    second: Mutex<u64>,
    shared: RwLock<u64>,
    rows: Table<u64, u64>,
}

const FIRST: LockId = LockId(0);
const SECOND: LockId = LockId(1 << 96);

fn put(value: &mut u64, new: u64) -> u64 {
    std::mem::replace(value, new)
}

/// Polls both until both are done.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut from_a, mut from_b) = (None, None);
    poll_fn(move |cx| {
        if from_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            from_a = Some(value);
        }
        if from_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            from_b = Some(value);
        }
        match (from_a.take(), from_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (from_a, from_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// Polls once and drops.
async fn glance<F: Future>(future: F) {
    let mut future = Box::pin(future);
    poll_fn(|cx| {
        let _ = future.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

#[service(crate = unisono_execution)]
impl Clumsy {
    async fn put(&self, cx: &Context, new: u64) -> u64 {
        self.first.lock(cx).await.with_mut(new, put)
    }

    async fn panic_with_two_locks(&self, cx: &Context) {
        let mut first = self.first.lock(cx).await;
        let _second = self.second.lock(cx).await;
        first.with_mut(7, |value, new| *value = new);
        panic!("deliberate: outside of a closure");
    }

    async fn panic_in_closure(&self, cx: &Context, new: u64) {
        self.first.lock(cx).await.with_mut(new, |value, new| {
            *value = new;
            assert!(new == 0, "deliberate: inside of a closure");
        });
    }

    async fn panic_before_any_operation(&self, _cx: &Context) {
        panic!("deliberate: at once");
    }

    async fn foreign(&self, cx: &Context) {
        let _first = self.first.lock(cx).await;
        pending::<()>().await;
    }

    async fn two_at_once(&self, cx: &Context) {
        let _guards = both(self.first.lock(cx), self.second.lock(cx)).await;
    }

    async fn two_blocks_at_once(&self, cx: &Context) {
        both(async { self.first.lock(cx).await.with_mut(1, put) }, async {
            self.second.lock(cx).await.with_mut(1, put)
        })
        .await;
    }

    async fn dropped(&self, cx: &Context) -> u64 {
        glance(self.first.lock(cx)).await;
        1
    }

    async fn forgotten(&self, cx: &Context) -> u64 {
        let mut future = Box::pin(self.first.lock(cx));
        poll_fn(|cx| {
            let _ = future.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
        std::mem::forget(future);
        1
    }

    async fn never_polled(&self, cx: &Context) -> u64 {
        drop(self.first.lock(cx));
        self.first.lock(cx).await.with((), |value, ()| *value)
    }

    async fn forgotten_guard(&self, cx: &Context) {
        std::mem::forget(self.first.lock(cx).await);
    }

    async fn lock_twice(&self, cx: &Context) {
        let mut first = self.first.lock(cx).await;
        first.with_mut(9, put);
        let _again = self.first.lock(cx).await;
    }

    async fn lock_twice_or(&self, cx: &Context) -> Option<LockError> {
        let _first = self.first.lock(cx).await;
        self.first.lock_or(cx).await.err()
    }

    async fn read_and_write(&self, cx: &Context) -> Option<LockError> {
        let _read = self.shared.read(cx).await;
        self.shared.write_or(cx).await.err()
    }

    async fn equal_keys(&self, cx: &Context) -> Option<LockError> {
        self.rows.lock_all(cx, [3, 4, 3]).await.err()
    }

    async fn large(&self, _cx: &Context, length: u16) -> Vec<u8> {
        vec![0; usize::from(length)]
    }

    /// Two of these with the locks exchanged meet each other.
    async fn cross(&self, cx: &Context, turned: bool) {
        let (one, other) = if turned { (&self.second, &self.first) } else { (&self.first, &self.second) };
        let _one = one.lock(cx).await;
        cx.yield_now().await;
        let _other = other.lock(cx).await;
    }

    async fn cross_or(&self, cx: &Context, turned: bool) -> Option<LockError> {
        let (one, other) = if turned { (&self.second, &self.first) } else { (&self.first, &self.second) };
        let _one = one.lock(cx).await;
        cx.yield_now().await;
        other.lock_or(cx).await.err()
    }

    async fn destructor_that_panics(&self, cx: &Context) {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("deliberate: in a destructor");
            }
        }
        let _first = self.first.lock(cx).await;
        let _bomb = Bomb;
        pending::<()>().await;
    }

    fn sample_operation(seed: u64) -> Vec<u8> {
        // Every handler, most arguments zero, one in eight longer than any.
        let mut operation = vec![(seed % 18) as u8];
        operation.extend((seed >> 8).to_le_bytes().iter().take([0, 1, 2, 8][(seed >> 5) as usize % 4]));
        operation
    }
}

fn bench() -> Bench {
    common::quiet();
    Bench::new::<Clumsy>()
}

fn handler(name: &str) -> String {
    name.to_owned()
}

#[test]
fn a_panic_becomes_a_fault_its_locks_are_released_by_the_scheduler_and_its_writes_stay() {
    let mut bench = bench();
    let outcome = bench.call(ClumsyOperation::panic_with_two_locks());
    assert_eq!(outcome, Err(Fault::Panicked { handler: handler("panic_with_two_locks") }));
    let operations = bench.take_operations();
    let expected =
        [FIRST, SECOND].map(|lock| Operation::Lock { lock, mode: unisono_scheduler::Mode::Write, timeout: None });
    assert_eq!(operations[..2], expected);
    assert_eq!(operations[2..], [Operation::Finish], "an unwinding stack unlocks nothing: not its order");
    assert_eq!(decode::<u64>(&bench.call(ClumsyOperation::put(8))), 7);
}

#[test]
fn a_panic_inside_a_closure_leaves_what_it_wrote_and_a_usable_object() {
    let mut bench = bench();
    let outcome = bench.call(ClumsyOperation::panic_in_closure(5));
    assert_eq!(outcome, Err(Fault::Panicked { handler: handler("panic_in_closure") }));
    let root = bench.mark().objects;
    assert_eq!(decode::<u64>(&bench.call(ClumsyOperation::put(5))), 5);
    assert_eq!(bench.mark().objects, root, "the root saw what was written before the panic");
}

#[test]
fn a_panic_before_any_operation() {
    let outcome = bench().call(ClumsyOperation::panic_before_any_operation());
    assert_eq!(outcome, Err(Fault::Panicked { handler: handler("panic_before_any_operation") }));
}

#[test]
fn a_foreign_future_ends_the_handler() {
    let mut bench = bench();
    let outcome = bench.call(ClumsyOperation::foreign());
    assert_eq!(outcome, Err(Fault::ForeignAwait { handler: handler("foreign") }));
    assert_eq!(decode::<u64>(&bench.call(ClumsyOperation::put(1))), 0, "its lock is free");
}

#[test]
fn two_operations_at_once_end_the_handler_and_neither_reaches_the_scheduler() {
    let mut bench = bench();
    for (operation, name) in
        [(ClumsyOperation::two_at_once(), "two_at_once"), (ClumsyOperation::two_blocks_at_once(), "two_blocks_at_once")]
    {
        assert_eq!(bench.call(operation), Err(Fault::TwoOperations { handler: handler(name) }));
        assert_eq!(bench.take_operations(), [Operation::Finish]);
    }
}

#[test]
fn a_dropped_or_forgotten_operation_ends_the_handler_even_if_the_lock_was_free() {
    let mut bench = bench();
    for (operation, name) in [(ClumsyOperation::dropped(), "dropped"), (ClumsyOperation::forgotten(), "forgotten")] {
        assert_eq!(bench.call(operation), Err(Fault::DroppedOperation { handler: handler(name) }));
        assert_eq!(bench.take_operations(), [Operation::Finish]);
    }
    assert_eq!(decode::<u64>(&bench.call(ClumsyOperation::never_polled())), 0, "one that never began is nothing");
}

#[test]
fn a_forgotten_guard_is_released_at_the_end() {
    let mut bench = bench();
    assert_eq!(decode::<()>(&bench.call(ClumsyOperation::forgotten_guard())), ());
    assert_eq!(decode::<u64>(&bench.call(ClumsyOperation::put(1))), 0);
}

#[test]
fn locking_what_one_owns_ends_the_handler_or_is_an_error_as_it_wishes() {
    let mut bench = bench();
    let outcome = bench.call(ClumsyOperation::lock_twice());
    assert_eq!(outcome, Err(Fault::AlreadyOwned { handler: handler("lock_twice") }));
    assert_eq!(decode::<u64>(&bench.call(ClumsyOperation::put(0))), 9, "what was written before stays");
    let refused = bench.call(ClumsyOperation::lock_twice_or());
    assert_eq!(decode::<Option<LockError>>(&refused), Some(LockError::AlreadyOwned));
    let refused = bench.call(ClumsyOperation::read_and_write());
    assert_eq!(decode::<Option<LockError>>(&refused), Some(LockError::AlreadyOwned));
}

#[test]
fn equal_keys_are_an_error_before_anything_is_locked() {
    let mut bench = bench();
    let refused = bench.call(ClumsyOperation::equal_keys());
    assert_eq!(decode::<Option<LockError>>(&refused), Some(LockError::EqualKeys));
    assert_eq!(bench.take_operations(), [Operation::Finish]);
}

#[test]
fn a_result_has_a_largest_size() {
    let settings = Settings { result_bytes_max: 104, ..Settings::default() };
    let mut bench = Bench::with::<Clumsy>(sequential(), settings);
    assert_eq!(decode::<Vec<u8>>(&bench.call(ClumsyOperation::large(100))).len(), 100);
    assert_eq!(bench.call(ClumsyOperation::large(101)), Err(Fault::ResultTooLarge { handler: handler("large") }));
}

#[test]
fn of_two_that_wait_for_each_other_the_younger_is_ended() {
    let mut bench = Bench::with::<Clumsy>(uds(4, 2, Order::RoundRobin), Settings::default());
    let older = bench.request(ClumsyOperation::cross(false));
    let younger = bench.request(ClumsyOperation::cross(true));
    let mut ended = bench.run();
    for _ in 0..20 {
        bench.flush();
        ended.extend(bench.run());
    }
    ended.sort_by_key(|(sequence, _)| *sequence);
    let fault = Fault::Deadlock { handler: handler("cross") };
    assert_eq!(ended, [(older, Ok(unisono_types::Bytes::new())), (younger, Err(fault))]);
}

#[test]
fn a_deadlock_can_be_an_error_for_the_handler_to_deal_with() {
    let mut bench = Bench::with::<Clumsy>(uds(4, 2, Order::RoundRobin), Settings::default());
    bench.request(ClumsyOperation::cross_or(false));
    bench.request(ClumsyOperation::cross_or(true));
    let mut ended = bench.run();
    for _ in 0..20 {
        bench.flush();
        ended.extend(bench.run());
    }
    let mut errors: Vec<Option<LockError>> = ended.iter().map(|(_, outcome)| decode(outcome)).collect();
    errors.sort();
    assert_eq!(errors, [None, Some(LockError::Deadlock)]);
}

#[test]
fn a_destructor_that_panics_while_a_handler_is_torn_down_hurts_nobody() {
    let mut bench = bench();
    let outcome = bench.call(ClumsyOperation::destructor_that_panics());
    assert_eq!(outcome, Err(Fault::ForeignAwait { handler: handler("destructor_that_panics") }));
    assert_eq!(decode::<u64>(&bench.call(ClumsyOperation::put(1))), 0);
}

#[test]
fn bytes_that_are_no_call_are_a_fault_of_their_own() {
    let mut bench = bench();
    let whole = ClumsyOperation::put(7);
    let mut longer = whole.clone();
    longer.push(0);
    for operation in [&[][..], &[255], &whole[..4], &longer] {
        assert_eq!(bench.call(operation.to_vec()), Err(Fault::UnknownOperation), "{operation:?}");
    }
}

#[test]
fn faults_are_the_same_under_every_schedule() {
    common::quiet();
    let operations = testing::samples::<Clumsy>(60, 5);
    testing::check::<Clumsy>(sequential, &operations, 0..4).unwrap();
    let recording = testing::check::<Clumsy>(|| uds(3, 2, Order::RoundRobin), &operations, 0..8).unwrap();
    let faults = recording.trace.outcomes.values().filter(|outcome| outcome.is_err()).count();
    assert!(faults > 20, "most of these handlers misbehave, {faults} did");
}
