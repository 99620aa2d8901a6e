//! Those who wait in a blocking pop, each with a place for what he gets.
//!
//! ```text
//!             enter                     deliver                       leave
//!   (absent) ───────> Waiting ──────────────────────> Served(key, element) ─────> (absent)
//!       |                |    cancel
//!       | cancel         └──────────> Cancelled ──────────────────────────────────> (absent)
//!       v
//!   Cancelled before he came: remembered for a while, then `enter` refuses
//! ```
//! Who waits for several keys stands in a line in each of their stripes. Whoever readies a key asks here whether the
//! first in line still waits, and only then takes the element out of the list: so an element goes to one waiter, and
//! none goes to somebody who has timed out or was cancelled.
//!
//! Order of locks: stripes in ascending order, then one stripe of waiters; never the other way round.

use crate::operation::Token;
use crate::shard::Milliseconds;
use std::collections::BTreeMap;

/// How long a cancellation that came before its pop is remembered. They are submitted one after the other by the same
/// gateway, so a cancellation that finds nobody almost always comes too late, not too early.
const CANCELLED_KEPT_MILLISECONDS: i64 = 60_000;
/// How many such cancellations a stripe remembers.
const CANCELLED_MAX: usize = 1_024;

/// A wait queue of the stripe's lock: one per waiter, so that nobody wakes in vain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub struct Queue(pub u64);

/// What became of somebody who waited.
#[derive(Clone, PartialEq, Eq, Debug, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub enum State {
    /// Nothing yet.
    Waiting,
    /// He got this.
    Served {
        /// From which key.
        key: Vec<u8>,
        /// What.
        element: Vec<u8>,
    },
    /// He is no longer interested.
    Cancelled,
}

/// Why somebody may not wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub enum NotEntered {
    /// His cancellation was here before him.
    Cancelled,
    /// Another waits under this name.
    TokenInUse,
}

/// One stripe of those who wait.
#[derive(Clone, PartialEq, Eq, Debug, Default, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub struct Waiters {
    places: BTreeMap<Token, (Queue, State)>,
    cancelled: BTreeMap<Token, Milliseconds>,
    last_queue: Queue,
}

impl Waiters {
    /// Comes to wait; the answer is where.
    ///
    /// # Errors
    /// [`NotEntered`] when he may not.
    pub fn enter(&mut self, token: Token) -> Result<Queue, NotEntered> {
        if self.cancelled.remove(&token).is_some() {
            return Err(NotEntered::Cancelled);
        }
        if self.places.contains_key(&token) {
            return Err(NotEntered::TokenInUse);
        }
        self.last_queue.0 += 1;
        self.places.insert(token, (self.last_queue, State::Waiting));
        Ok(self.last_queue)
    }

    /// Does he still wait?
    #[must_use]
    pub fn waits(&self, token: Token) -> bool {
        matches!(self.places.get(&token), Some((_, State::Waiting)))
    }

    /// Gives somebody who waits what he waited for; the answer is whom to wake.
    pub fn deliver(&mut self, (token, key, element): (Token, &[u8], &[u8])) -> Option<Queue> {
        let (queue, state) = self.places.get_mut(&token)?;
        *state = State::Served { key: key.to_vec(), element: element.to_vec() };
        Some(*queue)
    }

    /// Ends somebody's waiting; the answer is whom to wake.
    pub fn cancel(&mut self, (token, now): (Token, i64)) -> Option<Queue> {
        self.cancelled.retain(|_, since| now.saturating_sub(since.0) < CANCELLED_KEPT_MILLISECONDS);
        match self.places.get_mut(&token) {
            Some((queue, state @ State::Waiting)) => {
                *state = State::Cancelled;
                Some(*queue)
            }
            Some(_) => None,
            None => {
                if self.cancelled.len() < CANCELLED_MAX {
                    self.cancelled.insert(token, Milliseconds(now));
                }
                None
            }
        }
    }

    /// Goes, with what he got.
    pub fn leave(&mut self, token: Token) -> Option<State> {
        self.places.remove(&token).map(|(_, state)| state)
    }

    /// Nobody waits, nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.cancelled.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Token = Token([1; 16]);
    const B: Token = Token([2; 16]);

    #[test]
    fn who_waits_is_served_once() {
        let mut waiters = Waiters::default();
        let queue = waiters.enter(A).unwrap();
        assert!(waiters.waits(A) && !waiters.waits(B));
        assert_eq!(waiters.deliver((A, b"q", b"x")), Some(queue));
        assert!(!waiters.waits(A), "so nobody gives him a second element");
        assert_eq!(waiters.cancel((A, 0)), None, "too late");
        assert_eq!(waiters.leave(A), Some(State::Served { key: b"q".to_vec(), element: b"x".to_vec() }));
        assert!(waiters.is_empty());
    }

    #[test]
    fn who_is_cancelled_is_woken_and_not_served() {
        let mut waiters = Waiters::default();
        let queue = waiters.enter(A).unwrap();
        assert_eq!(waiters.cancel((A, 0)), Some(queue));
        assert!(!waiters.waits(A));
        assert_eq!(waiters.leave(A), Some(State::Cancelled));
        assert_eq!(waiters.deliver((A, b"q", b"x")), None);
    }

    #[test]
    fn a_cancellation_may_come_first() {
        let mut waiters = Waiters::default();
        assert_eq!(waiters.cancel((A, 0)), None);
        assert_eq!(waiters.enter(A), Err(NotEntered::Cancelled));
        assert!(waiters.enter(A).is_ok(), "it counts once");
        assert_eq!(waiters.enter(A), Err(NotEntered::TokenInUse));
    }

    #[test]
    fn cancellations_of_nobody_are_forgotten_in_time_and_bounded_before() {
        let mut waiters = Waiters::default();
        for number in 0..2 * CANCELLED_MAX as u128 {
            waiters.cancel((Token(number.to_le_bytes()), 0));
        }
        assert_eq!(waiters.cancelled.len(), CANCELLED_MAX);
        waiters.cancel((A, CANCELLED_KEPT_MILLISECONDS));
        assert_eq!(waiters.cancelled.len(), 1);
    }

    #[test]
    fn everybody_has_a_queue_of_his_own() {
        let mut waiters = Waiters::default();
        assert_ne!(waiters.enter(A), waiters.enter(B));
    }
}
