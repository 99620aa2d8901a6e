//! Bytes that may wait between sockets and whoever handles their messages.
//!
//! ```text
//!   client key A ── part ──┐
//!   client key B ── part ──┴── whole          peer 1 ── its own       peer 2 ── its own
//! ```
//! Small and large messages have separate shares, so that large ones on a slow line keep nobody's small ones out; where
//! many keys share the whole, messages up to 1 MiB have one more, so that they never wait for one that takes seconds. A
//! small message takes its share when it has come, a large one when it begins: once begun it can always be finished, so
//! several that share a budget never wait for each other.

use super::pieces::PIECE_BYTES;
use super::{Bytes, Inbound};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a message takes at least: it has a place in queues, too.
const UNIT_BYTES: usize = 1024;

/// Up to this size a message takes the medium share, where there is one: at the rate that is demanded while others wait
/// it is there after a second and a half.
const MEDIUM_BYTES: usize = 1 << 20;

/// A budget, or a part of one. Cheap to clone; all clones are one budget. Links take shares in the order in which they
/// ask.
#[derive(Clone, Debug)]
pub struct Budget {
    own: Shares,
    whole: Option<Shares>,
}

#[derive(Clone, Debug)]
struct Shares {
    small: Allotment,
    medium: Option<Allotment>,
    large: Allotment,
}

#[derive(Clone, Debug)]
struct Allotment {
    units: Arc<Semaphore>,
    total: u32,
    waiting: Arc<AtomicUsize>,
}

/// A message's share of a budget, free again when this is dropped.
#[derive(Debug, Default)]
pub struct Share(#[expect(dead_code, reason = "held, never looked at")] [Option<OwnedSemaphorePermit>; 2]);

impl Allotment {
    fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(total as usize)), total, waiting: Arc::default() }
    }

    /// One message larger than all of it takes all of it.
    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.total);
        if let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(units) {
            return permit;
        }
        let _waiting = Waiting::new(&self.waiting);
        Arc::clone(&self.units).acquire_many_owned(units).await.expect("the semaphore is never closed")
    }
}

/// Counts one waiting link until dropped, also when the link ends while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shares {
    fn new(small_bytes: usize, large_bytes: usize) -> Self {
        Self { small: Allotment::new(small_bytes), medium: None, large: Allotment::new(large_bytes) }
    }

    fn of(&self, bytes: usize) -> &Allotment {
        match &self.medium {
            _ if bytes <= PIECE_BYTES => &self.small,
            Some(medium) if bytes <= MEDIUM_BYTES => medium,
            _ => &self.large,
        }
    }
}

impl Budget {
    /// A budget with one share for messages of at most 64 KiB and one for larger ones.
    #[must_use]
    pub fn new(small_bytes: usize, large_bytes: usize) -> Self {
        Self { own: Shares::new(small_bytes, large_bytes), whole: None }
    }

    /// A part of this budget: what is taken from it is within its own bounds and within those of the whole.
    #[must_use]
    pub fn part(&self, small_bytes: usize, large_bytes: usize) -> Self {
        Self { own: Shares::new(small_bytes, large_bytes), whole: Some(self.own.clone()) }
    }

    /// The same with a share of its own for messages of more than 64 KiB and at most 1 MiB.
    #[must_use]
    pub fn with_medium(mut self, bytes: usize) -> Self {
        self.own.medium = Some(Allotment::new(bytes));
        self
    }

    /// Waits until a message of `bytes` fits.
    pub(super) async fn take(&self, bytes: usize) -> Share {
        // The own part first: whoever has used it up does not stand in the way of the others.
        let own = self.own.of(bytes).take(bytes).await;
        let whole = match &self.whole {
            Some(whole) => Some(whole.of(bytes).take(bytes).await),
            None => None,
        };
        Share([Some(own), whole])
    }

    /// Waits until a message that is there fits.
    pub(super) async fn admit(&self, bytes: Bytes) -> Inbound {
        let share = self.take(bytes.len()).await;
        Inbound { bytes, share }
    }

    /// Somebody waits for the room that a message of `bytes` takes.
    pub(super) fn contended(&self, bytes: usize) -> bool {
        let waits = |shares: &Shares| shares.of(bytes).waiting.load(Ordering::Relaxed) > 0;
        waits(&self.own) || self.whole.as_ref().is_some_and(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    /// The share if it is to be had now.
    fn now(budget: &Budget, bytes: usize) -> Option<Share> {
        match pin!(budget.take(bytes)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(share) => Some(share),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_that_uses_up_its_part_leaves_the_others_theirs() {
        let whole = Budget::new(10 << 10, 1 << 20);
        let (flooding, other) = (whole.part(4 << 10, 1 << 20), whole.part(4 << 10, 1 << 20));
        let held: Vec<_> = std::iter::from_fn(|| now(&flooding, 1)).collect();
        assert_eq!(held.len(), 4, "a byte counts as a unit");
        assert!(now(&other, 4 << 10).is_some());
        drop(held);
        assert!(now(&flooding, 4 << 10).is_some());
    }

    #[test]
    fn parts_together_stay_within_the_whole() {
        let whole = Budget::new(4 << 10, 1 << 20);
        let (one, two) = (whole.part(3 << 10, 0), whole.part(3 << 10, 0));
        let held = now(&one, 3 << 10).unwrap();
        assert!(now(&two, 2 << 10).is_none());
        drop(held);
        assert!(now(&two, 2 << 10).is_some());
    }

    #[test]
    fn large_messages_keep_no_small_ones_out_and_a_giant_fits_alone() {
        let budget = Budget::new(1 << 10, 100 << 10);
        let giant = now(&budget, 1 << 30).unwrap();
        assert!(now(&budget, PIECE_BYTES + 1).is_none());
        assert!(now(&budget, 10).is_some());
        drop(giant);
        assert!(now(&budget, PIECE_BYTES + 1).is_some());
    }

    #[test]
    fn who_waits_for_a_large_share_is_seen_by_those_who_hold_one_until_it_gives_up() {
        let whole = Budget::new(0, 1 << 20);
        let (one, two) = (whole.part(0, 1 << 20), whole.part(0, 1 << 20));
        let _held = now(&one, 1 << 20).unwrap();
        assert!(!one.contended(1 << 20));
        {
            let mut waiting = pin!(two.take(1 << 20));
            assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(one.contended(1 << 20) && two.contended(1 << 20));
            assert!(!one.contended(1), "small ones have their own");
        }
        assert!(!one.contended(1 << 20));
    }

    #[test]
    fn the_largest_messages_of_others_keep_no_medium_ones_out() {
        const LARGEST: usize = 20 << 20;
        let whole = Budget::new(0, LARGEST).with_medium(2 << 20);
        let part = || whole.part(0, LARGEST).with_medium(1 << 20);
        let (holding, honest, other) = (part(), part(), part());
        let _held = now(&holding, LARGEST).unwrap();
        let medium = now(&honest, MEDIUM_BYTES).unwrap();
        assert!(now(&honest, MEDIUM_BYTES).is_none(), "its part is used up");
        assert!(now(&other, MEDIUM_BYTES).is_some(), "and nobody else's");
        drop(medium);
        assert!(now(&honest, MEDIUM_BYTES + 1).is_none(), "a larger one waits with the largest");
        assert!(now(&honest, MEDIUM_BYTES).is_some());
    }
}
