//! How long to wait for an answer: a smoothed round trip, as TCP has it, in whole microseconds.

/// Below this a time-out would only meet the jitter of a busy machine.
const TIMEOUT_MICROSECONDS_MIN: u64 = 30_000;

/// Above this a dead leader would be noticed too late.
pub(crate) const TIMEOUT_MICROSECONDS_MAX: u64 = 1_000_000;

/// The longest pause between two repetitions: thousands of requests that wait inside the service must not cost more
/// than what is answered meanwhile, and one whose answer was lost must not wait for long.
const PAUSE_MICROSECONDS_MAX: u64 = 4_000_000;

/// Before anything was measured.
const TIMEOUT_MICROSECONDS_FIRST: u64 = 200_000;

/// The smoothed round trip, and a small generator for jitter.
#[derive(Clone, Debug)]
pub(crate) struct RoundTrip {
    smoothed: Option<u64>,
    random: u64,
}

impl RoundTrip {
    pub(crate) fn new(seed: u64) -> Self {
        Self { smoothed: None, random: seed | 1 }
    }

    /// An answer came this long after its request was sent for the first and only time (Karn: an answer to a repeated
    /// request measures nothing).
    pub(crate) fn measured(&mut self, microseconds: u64) {
        let sample = microseconds.min(TIMEOUT_MICROSECONDS_MAX);
        self.smoothed = Some(self.smoothed.map_or(sample, |smoothed| (7 * smoothed + sample) / 8));
    }

    /// How long to wait for the first answer.
    pub(crate) fn timeout(&self) -> u64 {
        self.smoothed.map_or(TIMEOUT_MICROSECONDS_FIRST, |smoothed| {
            (3 * smoothed).clamp(TIMEOUT_MICROSECONDS_MIN, TIMEOUT_MICROSECONDS_MAX)
        })
    }

    /// `wait` and up to an eighth of it more.
    pub(crate) fn jittered(&mut self, wait: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        wait + self.random % (wait / 8 + 1)
    }
}

/// How long so many bytes take at 8 MB/s, which the slowest network that this is made for carries.
pub(crate) const fn transfer_microseconds(bytes: usize) -> u64 {
    bytes as u64 / 8
}

/// The pause behind one of `wait`.
pub(crate) fn longer(wait: u64) -> u64 {
    (wait * 2).min(PAUSE_MICROSECONDS_MAX.max(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_round_trip_within_its_bounds() {
        let mut trip = RoundTrip::new(1);
        assert_eq!(trip.timeout(), TIMEOUT_MICROSECONDS_FIRST);
        (0..50).for_each(|_| trip.measured(1_000));
        assert_eq!(trip.timeout(), TIMEOUT_MICROSECONDS_MIN);
        (0..50).for_each(|_| trip.measured(100_000));
        assert!((250_000..=300_000).contains(&trip.timeout()));
        (0..50).for_each(|_| trip.measured(u64::MAX));
        assert_eq!(trip.timeout(), TIMEOUT_MICROSECONDS_MAX);
    }

    #[test]
    fn jitter_adds_at_most_an_eighth_and_follows_its_seed() {
        let draw = |seed| {
            let mut trip = RoundTrip::new(seed);
            (0..100).map(|_| trip.jittered(800)).collect::<Vec<u64>>()
        };
        assert!(draw(3).iter().all(|wait| (800..=900).contains(wait)));
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(5));
        assert_eq!(RoundTrip::new(0).jittered(0), 0);
    }
}
