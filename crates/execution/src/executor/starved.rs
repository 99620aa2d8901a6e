//! When to say that only a new entry can move what is left: once per state, and again after an entry was tried.

use unisono_scheduler::Status;
use unisono_types::{Done, Timestamp, Work};

/// What was said last, as long as nothing was done about it.
#[derive(Debug, Default)]
pub(super) struct Starved {
    flush: bool,
    tick: Option<u64>,
}

impl Starved {
    /// Any work may answer a need for a Flush, and whoever heard of the need takes it for answered; a Tick answers a
    /// deadline. If the need is still there afterwards, it is said again.
    pub(super) fn submitted(&mut self, work: &Work) {
        self.flush = false;
        if matches!(work, Work::Tick(_)) {
            self.tick = None;
        }
    }

    /// To be called when the log is used up and nothing runs.
    pub(super) fn check(&mut self, status: Status) -> Option<Done> {
        let now = Self { flush: status.needs_flush, tick: status.deadline };
        let news = (now.flush && !self.flush) || (now.tick.is_some() && now.tick != self.tick);
        *self = now;
        news.then_some(Done::Starved { flush: self.flush, tick: self.tick.map(Timestamp) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::SequenceNumber;

    fn status(needs_flush: bool, deadline: Option<u64>) -> Status {
        Status { needs_flush, deadline, ..Status::default() }
    }

    #[test]
    fn each_state_is_said_once_and_again_after_an_entry_did_not_help() {
        let mut starved = Starved::default();
        let said = |flush, tick: Option<u64>| Some(Done::Starved { flush, tick: tick.map(Timestamp) });
        assert_eq!(starved.check(status(false, None)), None);
        assert_eq!(starved.check(status(true, None)), said(true, None));
        assert_eq!(starved.check(status(true, None)), None);
        starved.submitted(&Work::Flush);
        assert_eq!(starved.check(status(true, None)), said(true, None));
        assert_eq!(starved.check(status(true, Some(9))), said(true, Some(9)));
        assert_eq!(starved.check(status(false, Some(9))), None, "less to do is no news");
        assert_eq!(starved.check(status(false, Some(4))), said(false, Some(4)));
        starved.submitted(&Work::Tick(Timestamp(3)));
        assert_eq!(starved.check(status(false, Some(4))), said(false, Some(4)));
        assert_eq!(starved.check(status(false, None)), None);
        assert_eq!(starved.check(status(true, None)), said(true, None));
    }

    /// Found by the simulator (seed 20193): a Mark came before the Flush that was asked for. The replica takes a need for
    /// met by any work, so it waited to be asked again, for ever.
    #[test]
    fn a_need_that_other_work_did_not_meet_is_said_again() {
        let mut starved = Starved::default();
        let said = Some(Done::Starved { flush: true, tick: None });
        assert_eq!(starved.check(status(true, None)), said);
        starved.submitted(&Work::Mark(SequenceNumber(1)));
        assert_eq!(starved.check(status(true, None)), said);
        assert_eq!(starved.check(status(true, None)), None);
    }
}
