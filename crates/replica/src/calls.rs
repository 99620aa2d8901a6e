//! What this replica asks outside for its handlers. The local half; what counts of the answers is in `tally`.
//!
//! ```text
//!   performed ──> queued ──(room)──> asked ──(told)──> submitted ──┐
//!                    └──────────────────┴──────────────────────────┴──> over: own vote or the answer was ordered
//! ```
//! Asked at least once: what was outstanding when the process ended is asked again when it has started again and its
//! log says nothing about it.
//!
//! Invariant: at most [`AT_ONCE_MAX`] calls are asked or submitted, [`OF_ONE_TARGET_MAX`] asked of one target, so a
//! target that does not answer keeps nobody from asking the others. At most [`QUEUED_MAX`] wait; one more is refused.
//!
//! Invariant: who was asked counts until it answers, also when the call is over meanwhile: the host still asks.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use unisono_types::{Bytes, CallId, CallRefused, Frame, Verified};

/// Calls asked or submitted: each is a task and a small connection's worth of memory in the host.
pub(crate) const AT_ONCE_MAX: usize = 256;

/// Of those, asked of one target.
pub(crate) const OF_ONE_TARGET_MAX: usize = 64;

/// Calls that wait for room: what some thousand clients ask for at once.
pub(crate) const QUEUED_MAX: usize = 1 << 12;

/// Bytes of requests asked, and as many again of those that wait.
const BYTES_MAX: usize = 64 << 20;

/// Microseconds until a submission that was not ordered is submitted again: it may be lost with a leader.
pub(crate) const AGAIN_MICROSECONDS: u64 = 1_000_000;

#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    open: BTreeMap<CallId, Open>,
    /// In the order in which they were performed.
    queue: BTreeMap<u64, Question>,
    places: BTreeMap<CallId, u64>,
    next: u64,
    /// How many are asked of whom; nobody with none.
    asked: BTreeMap<String, usize>,
    queued_bytes: usize,
    asked_bytes: usize,
}

/// What somebody outside is to be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) call: CallId,
    pub(crate) target: String,
    pub(crate) request: Bytes,
}

#[derive(Clone, Debug)]
enum Open {
    /// `over`: nobody needs the answer any more.
    Asked {
        target: String,
        bytes: usize,
        over: bool,
    },
    Submitted(Verified<Frame>),
}

impl Calls {
    /// A call was performed. Refused at once when too many wait.
    pub(crate) fn performed(&mut self, question: Question) -> Result<(), CallRefused> {
        let bytes = question.request.len();
        if self.queue.len() >= QUEUED_MAX || self.queued_bytes + bytes > BYTES_MAX {
            return Err(CallRefused::failed("too many calls wait to be asked".into()));
        }
        self.queued_bytes += bytes;
        self.places.insert(question.call.clone(), self.next);
        self.queue.insert(self.next, question);
        self.next += 1;
        Ok(())
    }

    /// The next one to ask, now. Time: one step per call that waits for a busy target.
    pub(crate) fn ask(&mut self) -> Option<Question> {
        if self.open.len() >= AT_ONCE_MAX || self.asked_bytes > BYTES_MAX {
            return None;
        }
        let has_room = |target: &String| self.asked.get(target).is_none_or(|asked| *asked < OF_ONE_TARGET_MAX);
        let place = self.queue.iter().find(|(_, question)| has_room(&question.target)).map(|(place, _)| *place)?;
        let question = self.take(place)?;
        let (target, bytes) = (question.target.clone(), question.request.len());
        self.asked_bytes += bytes;
        *self.asked.entry(target.clone()).or_default() += 1;
        self.open.insert(question.call.clone(), Open::Asked { target, bytes, over: false });
        Some(question)
    }

    /// The outside has answered. Whether that is of use: nobody else was faster, and it was asked.
    pub(crate) fn told(&mut self, call: &CallId) -> bool {
        match self.open.remove(call) {
            Some(Open::Asked { target, bytes, over }) => {
                self.release(&target, bytes);
                !over
            }
            Some(submitted) => {
                self.open.insert(call.clone(), submitted);
                false
            }
            None => false,
        }
    }

    /// What was said is on its way into the order.
    pub(crate) fn submitted(&mut self, call: CallId, frame: Verified<Frame>) {
        self.open.insert(call, Open::Submitted(frame));
    }

    /// The order holds all that this replica could say about the call.
    pub(crate) fn over(&mut self, call: &CallId) {
        match self.open.get_mut(call) {
            Some(Open::Asked { over, .. }) => *over = true,
            Some(Open::Submitted(_)) => drop(self.open.remove(call)),
            None => {
                if let Some(place) = self.places.get(call).copied() {
                    self.take(place);
                }
            }
        }
    }

    /// What was submitted and not yet ordered.
    pub(crate) fn submissions(&self) -> Vec<Verified<Frame>> {
        let submitted = |open: &Open| match open {
            Open::Submitted(frame) => Some(frame.clone()),
            Open::Asked { .. } => None,
        };
        self.open.values().filter_map(submitted).collect()
    }

    /// Calls that wait, and calls asked or submitted.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.queue.len(), self.open.len())
    }

    fn take(&mut self, place: u64) -> Option<Question> {
        let question = self.queue.remove(&place)?;
        self.places.remove(&question.call);
        self.queued_bytes -= question.request.len();
        Some(question)
    }

    fn release(&mut self, target: &str, bytes: usize) {
        self.asked_bytes -= bytes;
        if let Some(asked) = self.asked.get_mut(target) {
            *asked -= 1;
            if *asked == 0 {
                self.asked.remove(target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::{ClusterId, FrameBody, Position, SessionId, Signer};

    fn question(number: u32, target: &str) -> Question {
        let call = CallId { position: Position(9), path: vec![], call: number };
        Question { call, target: target.into(), request: Bytes::from_static(b"?") }
    }

    fn frame() -> Verified<Frame> {
        let body = FrameBody::Close { session: SessionId(1) };
        Verified::own(Frame::sign(ClusterId([0; 16]), &Signer::ed25519(&[1; 32]), body))
    }

    #[test]
    fn a_call_is_asked_told_submitted_and_over() {
        let mut calls = Calls::default();
        let first = question(0, "clock");
        assert_eq!(calls.performed(first.clone()), Ok(()));
        assert_eq!((calls.ask(), calls.ask()), (Some(first.clone()), None));
        assert!(calls.told(&first.call));
        calls.submitted(first.call.clone(), frame());
        assert!(!calls.told(&first.call), "once");
        assert_eq!(calls.submissions().len(), 1);
        calls.over(&first.call);
        assert_eq!((calls.submissions().len(), calls.counts()), (0, (0, 0)));
        assert!(calls.asked.is_empty() && calls.places.is_empty());
        assert_eq!((calls.asked_bytes, calls.queued_bytes), (0, 0));
    }

    #[test]
    fn what_others_answered_first_is_not_asked_or_not_used() {
        let mut calls = Calls::default();
        let [queued, asked] = [question(0, "b"), question(1, "a")];
        calls.performed(asked.clone()).unwrap();
        assert_eq!(calls.ask(), Some(asked.clone()));
        calls.performed(queued.clone()).unwrap();
        calls.over(&queued.call);
        calls.over(&asked.call);
        assert_eq!((calls.ask(), calls.counts()), (None, (0, 1)), "it is still being asked");
        assert!(!calls.told(&asked.call), "of no use any more");
        assert_eq!(calls.counts(), (0, 0));
        assert_eq!((calls.asked_bytes, calls.queued_bytes), (0, 0));
    }

    #[test]
    fn a_target_that_hangs_holds_up_only_those_who_ask_it() {
        let mut calls = Calls::default();
        for number in 0..1_000 {
            calls.performed(question(number, "hangs")).unwrap();
        }
        for number in 0..1_000 {
            calls.performed(question(5_000 + number, ["a", "b", "c", "d"][number as usize % 4])).unwrap();
        }
        let asked: Vec<Question> = std::iter::from_fn(|| calls.ask()).collect();
        assert_eq!(asked.len(), AT_ONCE_MAX);
        let hanging: Vec<_> = asked.iter().filter(|question| question.target == "hangs").collect();
        assert_eq!(hanging.len(), OF_ONE_TARGET_MAX);
        // Others answer them in its place: that makes no room for more of them.
        hanging.iter().for_each(|question| calls.over(&question.call));
        assert_eq!(calls.ask(), None);
        assert!(!calls.told(&hanging[0].call));
        assert_eq!(calls.ask().map(|question| question.target), Some("hangs".into()));
    }

    #[test]
    fn too_many_are_refused() {
        let mut calls = Calls::default();
        let refused = (0..=QUEUED_MAX as u32).find_map(|number| calls.performed(question(number, "a")).err());
        assert!(matches!(refused, Some(CallRefused::Failed(text)) if text.contains("too many")));
        assert_eq!(calls.counts(), (QUEUED_MAX, 0));
        let mut calls = Calls::default();
        let large = Question { request: Bytes::from(vec![0; BYTES_MAX]), ..question(0, "a") };
        calls.performed(large).unwrap();
        assert!(calls.performed(question(1, "a")).is_err(), "bytes count too");
    }
}
