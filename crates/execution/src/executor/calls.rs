//! Outside calls of threads, and what came back. The scheduler decides when an answer takes effect; the values wait here.
//!
//! ```text
//!   Grant::Call   ──> outstanding ──┐
//!                                   ├──> Grant::Resume takes the first value, or a time-out forgets all
//!   Work::Answer  ──> values ───────┘
//! ```
//! A machine that is slow has the answer before its thread has come to the call, so a value is kept although nobody
//! waits for it. What was submitted before a Mark was consumed when the Mark takes effect: values that nobody waits for
//! then are ones that the scheduler has dropped, and go. So the memory is bounded by what the log holds between two
//! Marks, and by the calls that wait.
//!
//! Invariant: a call gets the first value submitted for it that no Mark has dropped: a function of the log alone,
//! whether the machine is fast or slow, and however often the call was answered.

use std::collections::{BTreeMap, VecDeque};
use unisono_types::{CallAnswer, Position};

/// Which call: the thread's request, the path of births that leads to it, the number of the call.
pub(super) type CallName = (Position, Vec<u16>, u32);

#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: BTreeMap<CallName, Call>,
    marks_submitted: u64,
    marks_reached: u64,
}

#[derive(Debug, Default)]
struct Call {
    outstanding: bool,
    /// In the order of the log, with the number of Marks submitted before.
    values: VecDeque<(u64, CallAnswer)>,
}

impl Calls {
    /// The call was performed.
    pub(super) fn performed(&mut self, name: CallName) {
        self.calls.entry(name).or_default().outstanding = true;
    }

    /// An answer stands in the log.
    pub(super) fn answered(&mut self, name: CallName, answer: CallAnswer) {
        self.calls.entry(name).or_default().values.push_back((self.marks_submitted, answer));
    }

    /// The call is over; what it was answered with, if its time was not up.
    pub(super) fn end(&mut self, name: &CallName) -> Option<CallAnswer> {
        self.calls.remove(name)?.values.pop_front().map(|(_, answer)| answer)
    }

    /// Values that are kept.
    pub(super) fn values(&self) -> usize {
        self.calls.values().map(|call| call.values.len()).sum()
    }

    pub(super) fn mark_submitted(&mut self) {
        self.marks_submitted += 1;
    }

    /// The next Mark has taken effect.
    pub(super) fn mark_reached(&mut self) {
        self.marks_reached += 1;
        let reached = self.marks_reached;
        self.calls.retain(|_, call| {
            if !call.outstanding {
                call.values.retain(|(marks, _)| *marks >= reached);
            }
            call.outstanding || !call.values.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::{Bytes, SequenceNumber};

    fn name(call: u32) -> CallName {
        (Position::new(SequenceNumber(1), 0).expect("a short log"), vec![2], call)
    }

    fn value(text: &'static str) -> CallAnswer {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_first_value_counts_whether_it_came_before_or_after_the_call() {
        for early in [false, true] {
            let mut calls = Calls::default();
            if !early {
                calls.performed(name(0));
            }
            calls.answered(name(0), value("first"));
            calls.answered(name(0), value("second"));
            if early {
                calls.performed(name(0));
            }
            assert_eq!(calls.end(&name(0)), Some(value("first")));
            assert_eq!(calls.end(&name(0)), None, "all of its values are gone");
        }
    }

    #[test]
    fn what_nobody_waits_for_goes_with_the_mark_that_stands_behind_it() {
        let mut calls = Calls::default();
        calls.answered(name(0), value("before"));
        calls.performed(name(1));
        calls.answered(name(1), value("awaited"));
        calls.mark_submitted();
        calls.answered(name(0), value("behind"));
        calls.mark_reached();
        calls.performed(name(0));
        assert_eq!(calls.end(&name(0)), Some(value("behind")));
        assert_eq!(calls.end(&name(1)), Some(value("awaited")));
        assert!(calls.calls.is_empty());
    }
}
