//! All timers of a replica in one queue, by the monotonic clock.

use std::collections::{BTreeMap, BTreeSet};
use unisono_replica::Timer;

/// Which timer is due when, in microseconds. Setting one again replaces it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, u64>,
    /// Invariant: the same pairs as `at`.
    queue: BTreeSet<(u64, Timer)>,
}

impl Timers {
    /// Sets a timer, or stops it.
    pub(super) fn set(&mut self, timer: Timer, at: Option<u64>) {
        if let Some(before) = self.at.remove(&timer) {
            self.queue.remove(&(before, timer));
        }
        if let Some(at) = at {
            self.at.insert(timer, at);
            self.queue.insert((at, timer));
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn due(&mut self, now: u64) -> Option<Timer> {
        let (at, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.set(timer, None);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_setting_counts_and_timers_come_in_the_order_of_time() {
        let (a, b) = (unisono_consensus::TimerId(1), unisono_consensus::TimerId(2));
        let mut timers = Timers::default();
        timers.set(a, Some(10));
        timers.set(b, Some(20));
        timers.set(a, Some(30));
        assert_eq!((timers.next(), timers.due(19)), (Some(20), None));
        assert_eq!((timers.due(50), timers.due(50), timers.due(50)), (Some(b), Some(a), None));
        timers.set(a, Some(5));
        timers.set(a, None);
        assert_eq!(timers, Timers::default());
    }
}
