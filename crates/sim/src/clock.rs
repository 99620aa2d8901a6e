//! The clocks of one simulated machine: both are functions of virtual time, and no two machines agree.
//!
//! ```text
//!   virtual time ──> monotonic = start + t + t * drift     another start in every life, timers are set on it
//!                └─> wall      = 2026 + t + skew (+ drift)  what leaders propose from; jumps when it is set
//! ```
//! Invariant: monotonic never goes back within one life.

use unisono_types::Time;

/// 1 January 2026, in microseconds since the Unix epoch: some date, the same in every run.
const BEGINNING: i64 = 1_767_225_600_000_000;

/// Drift is counted in parts per million.
const MILLION: i128 = 1_000_000;

/// One machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    drift: i64,
    skew: i64,
}

impl Clock {
    /// Monotonic time begins at `start`; both clocks run `drift` millionths fast; the wall clock is `skew` ahead.
    #[must_use]
    pub const fn new(start: u64, drift: i64, skew: i64) -> Self {
        Self { start, drift, skew }
    }

    /// Monotonic time begins at `start` when the machine starts, at virtual time `now`.
    #[must_use]
    pub fn starting_at(now: u64, start: u64, drift: i64, skew: i64) -> Self {
        let elapsed = Self { start: 0, drift, skew }.elapsed(now);
        Self { start: start.max(elapsed) - elapsed, drift, skew }
    }

    /// What the machine reads at virtual time `now`.
    #[must_use]
    pub fn read(&self, now: u64) -> Time {
        let elapsed = self.elapsed(now);
        Time { monotonic: self.start + elapsed, wall: (BEGINNING + elapsed as i64 + self.skew).max(0) as u64 }
    }

    /// The first virtual time at which the monotonic clock reads at least `monotonic`.
    #[must_use]
    pub fn when(&self, monotonic: u64) -> u64 {
        let rate = MILLION + i128::from(self.drift);
        let elapsed = i128::from(monotonic.saturating_sub(self.start));
        let mut guess = (elapsed * MILLION / rate) as u64;
        while self.elapsed(guess) < elapsed as u64 {
            guess += 1;
        }
        guess
    }

    /// Somebody sets the wall clock: it is now `skew` ahead.
    pub const fn set_skew(&mut self, skew: i64) {
        self.skew = skew;
    }

    /// The wall clock jumps by so much.
    pub const fn shift(&mut self, by: i64) {
        self.skew += by;
    }

    fn elapsed(&self, now: u64) -> u64 {
        (i128::from(now) + i128::from(now) * i128::from(self.drift) / MILLION) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_when_its_machine_thinks_so_and_never_before() {
        for drift in [-900, 0, 1, 900] {
            let clock = Clock::new(5_000, drift, -7);
            for monotonic in [0, 5_000, 5_001, 6_234, 987_654_321] {
                let at = clock.when(monotonic);
                assert!(clock.read(at).monotonic >= monotonic);
                assert!(at == 0 || clock.read(at - 1).monotonic < monotonic, "drift {drift} at {monotonic}");
            }
        }
    }

    #[test]
    fn setting_the_wall_clock_leaves_the_monotonic_one_alone() {
        let mut clock = Clock::new(1, 100, 0);
        let before = clock.read(1_000_000);
        clock.set_skew(-3_000_000);
        let after = clock.read(1_000_000);
        assert_eq!((before.monotonic, before.wall - 3_000_000), (after.monotonic, after.wall));
        clock.shift(4_000_000);
        assert_eq!(clock.read(1_000_000).wall, before.wall + 1_000_000);
    }
}
