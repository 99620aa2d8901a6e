//! Which decisions are executed: every request of theirs has finished or is parked, and of all before them.
//!
//! Invariant: `open` is ascending, and its first entry has a count above zero.

use std::collections::VecDeque;
use unisono_types::SequenceNumber;

#[derive(Debug, Default)]
pub(super) struct Settled {
    open: VecDeque<(SequenceNumber, usize)>,
    last: SequenceNumber,
}

impl Settled {
    /// A request of `sequence` has begun to count.
    pub(super) fn add(&mut self, sequence: SequenceNumber) {
        self.seen(sequence);
        match self.open.back_mut() {
            Some((last, count)) if *last == sequence => *count += 1,
            _ => self.open.push_back((sequence, 1)),
        }
    }

    /// Work of `sequence` was submitted.
    pub(super) fn seen(&mut self, sequence: SequenceNumber) {
        self.last = self.last.max(sequence);
    }

    /// A request of `sequence` has finished or is parked. Said once for each that was added.
    pub(super) fn settle(&mut self, sequence: SequenceNumber) {
        if let Ok(index) = self.open.binary_search_by_key(&sequence, |(open, _)| *open) {
            self.open[index].1 = self.open[index].1.saturating_sub(1);
        }
        while self.open.front().is_some_and(|(_, count)| *count == 0) {
            self.open.pop_front();
        }
    }

    pub(super) fn executed(&self) -> SequenceNumber {
        match self.open.front() {
            Some((open, _)) => open.previous().unwrap_or(SequenceNumber::ZERO),
            None => self.last,
        }
    }

    pub(super) fn all(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_open_decision_holds_the_mark_back() {
        let mut settled = Settled::default();
        let [two, five, six] = [2, 5, 6].map(SequenceNumber);
        for sequence in [two, two, five] {
            settled.add(sequence);
        }
        settled.seen(six);
        settled.settle(five);
        assert_eq!(settled.executed(), SequenceNumber(1));
        settled.settle(two);
        assert_eq!(settled.executed(), SequenceNumber(1));
        settled.settle(two);
        assert_eq!(settled.executed(), six);
        assert!(settled.all());
    }

    #[test]
    fn a_decision_that_is_extended_after_its_requests_settled_opens_again() {
        let mut settled = Settled::default();
        settled.add(SequenceNumber(3));
        settled.settle(SequenceNumber(3));
        assert_eq!(settled.executed(), SequenceNumber(3));
        settled.add(SequenceNumber(3));
        assert_eq!(settled.executed(), SequenceNumber(2));
    }
}
