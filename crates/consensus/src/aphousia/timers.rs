//! Which timers are due when. A timer that moves on is not set again each time: it fires early once, and is set anew.

use alloc::collections::BTreeMap;
use unisono_types::Time;

use crate::{Output, TimerId};

/// Replaces a leader under which the oldest entry does not commit.
pub(super) const REPLACE: TimerId = TimerId(0);
/// Shows everyone what this replica waits for.
pub(super) const FORWARD: TimerId = TimerId(1);
/// Says again what was said, while something is unfinished.
pub(super) const RETRY: TimerId = TimerId(2);
/// Says where this replica stands, also when nothing happens.
pub(super) const STATUS: TimerId = TimerId(3);
/// The link to the leader is down: a moment later it is replaced.
pub(super) const LINK: TimerId = TimerId(4);
/// A block waits for its timestamp to be near enough.
pub(super) const CLOCK: TimerId = TimerId(5);
/// Shows the leader what has waited longest.
pub(super) const TELL: TimerId = TimerId(6);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Timer {
    /// When it shall fire; `None`: not at all.
    wanted: Option<u64>,
    /// When the host will fire it.
    set: Option<u64>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Timers(BTreeMap<TimerId, Timer>);

impl Timers {
    /// From now on `timer` is wanted at `at`.
    pub(super) fn want<M>(&mut self, timer: TimerId, at: Option<u64>, outbox: &mut alloc::vec::Vec<Output<M>>) {
        let entry = self.0.entry(timer).or_insert(Timer { wanted: None, set: None });
        entry.wanted = at;
        if let Some(at) = at
            && entry.set.is_none_or(|set| set > at)
        {
            entry.set = Some(at);
            outbox.push(Output::SetTimer { timer, at: Some(at) });
        }
    }

    /// The host says that `timer` fired; whether it is really due. One that is not is set again.
    pub(super) fn fired<M>(&mut self, timer: TimerId, now: Time, outbox: &mut alloc::vec::Vec<Output<M>>) -> bool {
        let Some(entry) = self.0.get_mut(&timer) else { return false };
        if entry.set.is_some_and(|set| set > now.monotonic) {
            return false; // an earlier setting that was replaced meanwhile
        }
        entry.set = None;
        match entry.wanted {
            Some(at) if at <= now.monotonic => {
                entry.wanted = None;
                true
            }
            wanted => {
                self.want(timer, wanted, outbox);
                false
            }
        }
    }

    /// How long ago the first of those was due that the host has not fired yet.
    pub(super) fn overdue_micros(&self, now: Time) -> u64 {
        let first = self.0.values().filter_map(|timer| timer.set).min();
        first.map_or(0, |at| now.monotonic.saturating_sub(at))
    }

    /// A timer that is wanted is wanted so much later.
    pub(super) fn postpone(&mut self, timer: TimerId, micros: u64) {
        if let Some(wanted) = self.0.get_mut(&timer).and_then(|timer| timer.wanted.as_mut()) {
            *wanted += micros;
        }
    }

    pub(super) fn is_wanted(&self, timer: TimerId) -> bool {
        self.0.get(&timer).is_some_and(|timer| timer.wanted.is_some())
    }
}
