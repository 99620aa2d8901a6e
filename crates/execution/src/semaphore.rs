//! Permits, from a lock and its wait queue: nothing that a service could not write itself.
//!
//! ```text
//!   acquire:  lock, while all are taken wait, take one, unlock          release:  lock, give one back, notify one, unlock
//! ```
//! Invariant: a release wakes one waiter for each permit, and who is woken looks again, so no permit lies idle while
//! somebody waits. A thread that comes meanwhile may be faster than the woken one: permits are not handed over in order of
//! arrival.

use crate::context::Context;
use crate::object::Objects;
use crate::primitives::{Guard, Mutex};
use crate::service::State;

/// The wait queue of those without a permit.
const WITHOUT: u64 = 0;

/// So many permits. A permit is a number and no guard: whoever takes one gives it back by `release`, in this handler or in
/// another; the end of a handler does not.
#[derive(Clone)]
pub struct Semaphore<const PERMITS: u64> {
    /// How many are taken.
    taken: Mutex<u64>,
}

impl<const PERMITS: u64> State for Semaphore<PERMITS> {
    fn create(objects: &mut Objects, name: &str) -> Self {
        Self { taken: Mutex::create(objects, name) }
    }
}

fn take(taken: &mut u64, permits: u64) -> bool {
    let free = *taken < permits;
    *taken += u64::from(free);
    free
}

impl<const PERMITS: u64> Semaphore<PERMITS> {
    /// Takes a permit, waits for one if there is none.
    pub async fn acquire(&self, cx: &Context) {
        let mut taken = self.taken.lock(cx).await;
        while !taken.with_mut(PERMITS, take) {
            taken = taken.wait(WITHOUT).await;
        }
    }

    /// Takes a permit, waits for one for `microseconds` of agreed time at most. True if it has one.
    pub async fn acquire_for(&self, cx: &Context, microseconds: u64) -> bool {
        let deadline = cx.now().0.saturating_add(microseconds);
        let mut taken: Guard<'_, u64> = self.taken.lock(cx).await;
        loop {
            // Also when the time was up: a permit that came with it is not left lying.
            if taken.with_mut(PERMITS, take) {
                return true;
            }
            let left = deadline.saturating_sub(cx.now().0);
            if left == 0 {
                return false;
            }
            taken = taken.wait_for(WITHOUT, left).await.0;
        }
    }

    /// Takes a permit if there is one.
    pub async fn try_acquire(&self, cx: &Context) -> bool {
        self.taken.lock(cx).await.with_mut(PERMITS, take)
    }

    /// Gives a permit back. Giving back what nobody has taken does nothing.
    pub async fn release(&self, cx: &Context) {
        let mut taken = self.taken.lock(cx).await;
        taken.with_mut((), |taken, ()| *taken = taken.saturating_sub(1));
        taken.notify_one(WITHOUT);
    }

    /// Permits that are free just now.
    pub async fn free(&self, cx: &Context) -> u64 {
        self.taken.lock(cx).await.with((), |taken, ()| PERMITS.saturating_sub(*taken))
    }
}
