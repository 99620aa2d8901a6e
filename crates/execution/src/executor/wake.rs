//! Who is woken for what: workers for what is ready, the host for what is done. A call into the operating system and the
//! switches that follow cost more than most handlers do, so nobody is woken twice for the same.

use super::Notify;
use crate::sync::Instant;
use std::time::Duration;
use unisono_types::Done;

/// Workers without work. Invariant: `asleep` and `called` are together the workers in the wait.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    asleep: usize,
    /// Woken, and not yet there.
    called: usize,
}

impl Sleepers {
    /// Whether one is to be woken now for so much that can run: not if others were.
    pub(super) fn call(&mut self, runnable: usize) -> bool {
        let calls = self.asleep > 0 && runnable > self.called;
        if calls {
            self.asleep -= 1;
            self.called += 1;
        }
        calls
    }

    pub(super) fn sleeps(&mut self) {
        self.asleep += 1;
    }

    /// One is awake, called or not.
    pub(super) fn woke(&mut self) {
        *(if self.called > 0 { &mut self.called } else { &mut self.asleep }) -= 1;
    }
}

/// While there is more to run, the host is not told more often: a wake-up costs some microseconds on both sides. It is
/// later by this and the handler that a worker runs meanwhile, at most.
const INTERVAL: Duration = Duration::from_micros(250);

/// So much waits for the host at most.
const BATCH: usize = 256;

/// What the host was told.
#[derive(Default)]
pub(super) struct Notices {
    notify: Option<Notify>,
    /// Since it took last.
    told: bool,
    last: Option<Instant>,
}

impl Notices {
    pub(super) fn set(&mut self, notify: Notify) {
        self.notify = Some(notify);
    }

    /// Whether there is something for the host that it was not told of.
    pub(super) fn owed(&self, done: &[Done]) -> bool {
        !self.told && !done.is_empty() && self.notify.is_some()
    }

    /// Whether the host is to be told even though there is more to run.
    pub(super) fn due(&self, done: &[Done]) -> bool {
        done.len() >= BATCH || self.last.is_none_or(|last| last.elapsed() >= INTERVAL)
    }

    /// Whom to tell of what is done; once until it was taken.
    pub(super) fn take(&mut self, done: &[Done]) -> Option<Notify> {
        if !self.owed(done) {
            return None;
        }
        self.told = true;
        self.last = Some(Instant::now());
        self.notify.clone()
    }

    /// The host has taken what was done.
    pub(super) fn taken(&mut self) {
        self.told = false;
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nobody_is_woken_twice_for_the_same() {
        let mut sleepers = Sleepers::default();
        assert!(!sleepers.call(1), "nobody sleeps");
        (0..2).for_each(|_| sleepers.sleeps());
        assert!(!sleepers.call(0) && sleepers.call(1) && !sleepers.call(1), "one is on its way");
        assert!(sleepers.call(2) && !sleepers.call(9), "both are");
        sleepers.woke();
        sleepers.sleeps();
        assert!(sleepers.call(2), "one is on its way, there is work for two");
    }

    #[test]
    fn who_wakes_up_uncalled_leaves_the_call_to_the_other() {
        let mut sleepers = Sleepers::default();
        (0..2).for_each(|_| sleepers.sleeps());
        sleepers.woke();
        assert!(sleepers.call(1), "the other still sleeps");
        sleepers.woke();
        assert!(!sleepers.call(1), "all are awake");
    }

    #[test]
    fn the_host_is_told_once_until_it_takes_and_soon_when_much_is_done() {
        let done = |count| vec![Done::Starved { flush: true, tick: None }; count];
        let mut notices = Notices::default();
        assert!(notices.take(&done(1)).is_none(), "nobody wants to know");
        notices.set(Arc::new(|| {}));
        assert!(notices.take(&[]).is_none());
        assert!(notices.due(&done(1)), "the first at once");
        assert!(notices.owed(&done(1)) && notices.take(&done(1)).is_some());
        assert!(!notices.owed(&done(2)) && notices.take(&done(2)).is_none(), "until it takes");
        notices.taken();
        assert!(notices.owed(&done(1)) && notices.due(&done(BATCH)));
    }
}
