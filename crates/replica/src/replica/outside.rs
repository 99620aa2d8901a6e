//! The replica's dealings with the outside: entries of the administrator, and calls of handlers.

use super::{CALLS, Replica};
use crate::admission::EVER;
use crate::calls::{self, Question};
use crate::{Output, PeerMessage};
use alloc::vec::Vec;
use unisono_consensus::{self as consensus, Consensus};
use unisono_types::{
    CALL_ANSWER_BYTES_MAX, CallAnswer, CallId, CallRefused, Frame, FrameBody, ReplicaId, Time, Verified,
};

impl<C: Consensus> Replica<C> {
    /// The administrator's frame goes into the order, unless it took effect already.
    pub(super) fn administered(&mut self, frame: Verified<Frame>) {
        match frame.body() {
            FrameBody::Admin { .. } if self.order.admission(frame.get(), EVER).is_ok() => {
                self.inbox.push_back(consensus::Input::Submit(frame));
            }
            FrameBody::Admin { .. } => {}
            _ => self.counters.foreign_frames += 1,
        }
    }

    /// A handler's call was performed. What the order knows of already, because this replica is behind or has been
    /// started again, is not asked again.
    pub(super) fn called(&mut self, question: Question, out: &mut Vec<Output<C::Message>>) {
        if self.order.tallies.is_settled(self.settings.id, &question.call) {
            return;
        }
        let call = question.call.clone();
        if let Err(refused) = self.calls.performed(question) {
            // Without a place to remember it: should it be lost, the call has its time-out.
            let frame = self.sign(FrameBody::Called { call, answer: Err(refused) });
            if self.started {
                self.inbox.push_back(consensus::Input::Submit(frame));
            }
        }
        self.ask(out);
    }

    /// Asks as many as may be asked now.
    pub(super) fn ask(&mut self, out: &mut Vec<Output<C::Message>>) {
        if !self.started || self.divergence.is_some() {
            return; // nobody is asked again before the log has told what was answered, nor by who is known to be wrong
        }
        while let Some(Question { call, target, request }) = self.calls.ask() {
            out.push(Output::Ask { call, target, request });
        }
    }

    /// The outside has answered.
    pub(super) fn told(&mut self, now: Time, call: CallId, answer: CallAnswer, out: &mut Vec<Output<C::Message>>) {
        if !self.calls.told(&call) || self.divergence.is_some() {
            return self.ask(out); // there is room again all the same
        }
        let limits = &self.settings.membership.configuration().limits;
        let bytes_max = CALL_ANSWER_BYTES_MAX.min(limits.operation_bytes as usize);
        let answer = match answer {
            Ok(bytes) if bytes.len() > bytes_max => Err(CallRefused::TooLarge),
            Err(CallRefused::Failed(text)) => Err(CallRefused::failed(text)),
            answer => answer,
        };
        let frame = self.sign(FrameBody::Called { call: call.clone(), answer });
        self.calls.submitted(call, frame.clone());
        let leader = self.consensus.status().leader;
        if leader != self.settings.id {
            out.push(Output::Send { to: leader, message: PeerMessage::Submission(frame.get().clone()) });
        }
        self.inbox.push_back(consensus::Input::Submit(frame));
        self.ask(out);
        self.watch_submissions(now, out);
    }

    /// A peer wants its own word about a call ordered.
    pub(super) fn submission(&mut self, from: ReplicaId, frame: Frame) {
        let member = self.settings.membership.member_by_host_key(&frame.key());
        let is_its_own = member.is_some_and(|member| member.id == from);
        if is_its_own && matches!(frame.body(), FrameBody::Called { .. }) {
            self.offered.push(frame);
        } else {
            self.counters.foreign_frames += 1;
        }
    }

    /// The order holds what this replica could say about the call.
    pub(super) fn over(&mut self, call: &CallId, out: &mut Vec<Output<C::Message>>) {
        self.calls.over(call);
        self.ask(out);
    }

    fn watch_submissions(&mut self, now: Time, out: &mut Vec<Output<C::Message>>) {
        if !self.calls_watched {
            self.calls_watched = true;
            let at = Some(now.monotonic.saturating_add(calls::AGAIN_MICROSECONDS));
            out.push(Output::SetTimer { timer: CALLS, at });
        }
    }

    /// What was not ordered within its time is submitted again.
    pub(super) fn submit_calls_again(&mut self, now: Time, out: &mut Vec<Output<C::Message>>) {
        self.calls_watched = false;
        let submissions = self.calls.submissions();
        if !submissions.is_empty() {
            self.watch_submissions(now, out);
        }
        self.inbox.extend(submissions.into_iter().map(consensus::Input::Submit));
    }
}
