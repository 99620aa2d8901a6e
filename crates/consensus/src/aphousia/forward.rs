//! What waits here is shown to the others, and what they show, or void blocks leave behind, goes to the replica's
//! admission.
//!
//! Showing costs its receivers a signature check per frame. A replica that is not served must not make that worse for
//! those who cannot keep up: what it may show follows what became of what it showed before. Nothing of it decided: half
//! as much, after twice the time. Something decided: at once, and as much more.

use super::message::{FORWARD_BYTES, Message};
use super::{Instance, Node, Rules};
use crate::Output;
use alloc::vec::Vec;
use unisono_types::{Frame, Time};

/// Bytes that are shown before anything is known about what becomes of them: some hundred frames.
const START_BYTES: usize = 64 << 10;
/// The wait between two fruitless times doubles at most this often: with 75 ms it comes to 5 s, within which a healed
/// network is tried again. By then a single frame is shown each time.
const DOUBLED_MAX: u32 = 6;

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Forwarding {
    /// Bytes to be shown the next time.
    bytes: usize,
    /// Times since something that was shown was decided.
    fruitless: u32,
    /// Not before this time.
    at: u64,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { bytes: START_BYTES, fruitless: 0, at: 0 }
    }
}

impl Forwarding {
    /// So many bytes of what was shown were decided.
    pub(super) fn decided(&mut self, bytes: usize) {
        if bytes > 0 {
            *self = Self { bytes: (self.bytes + 2 * bytes).min(FORWARD_BYTES), ..Self::default() };
        }
    }

    /// How many bytes may be shown now, if any.
    fn allowance(&self, now: u64) -> Option<usize> {
        (now >= self.at).then_some(self.bytes)
    }

    /// They were shown. `wait`: until the next time, if this is the first one.
    fn shown(&mut self, now: u64, wait: u64) {
        self.at = now.saturating_add(wait << self.fruitless.min(DOUBLED_MAX));
        self.fruitless = self.fruitless.saturating_add(1);
        self.bytes /= 2;
    }
}

impl<R: Rules> Instance<R> {
    /// Shows everyone what waits here and stands in no block, as far as that is allowed now.
    pub(super) fn show_waiting(&mut self, now: Time, outbox: &mut Vec<Output<Message>>) {
        let allowed = self.forwarding.allowance(now.monotonic).filter(|_| self.rules.shows_what_waits());
        let frames = allowed.map_or_else(Vec::new, |bytes| self.pending.show(bytes));
        if !frames.is_empty() {
            self.forwarding.shown(now.monotonic, self.settings.tuning.timeout_micros / 2);
            outbox.push(Output::Broadcast(Message::Frames(frames)));
        }
    }

    /// What a peer shows is for the enclosing replica to admit.
    pub(super) fn offer(&self, mut frames: Vec<Frame>, outbox: &mut Vec<Output<Message>>) {
        frames.retain(|frame| !self.pending.knows(&frame.id()));
        if !frames.is_empty() {
            outbox.push(Output::Offer(frames));
        }
    }

    /// The chain is another one now, as far as frames are concerned.
    pub(super) fn forget_proposed(&mut self) {
        if self.rules.void_frames_wait_again() {
            self.pending.forget_proposed();
        }
    }

    /// Blocks that this replica may have to decide are waited for. Those that are void, because a view is left behind
    /// or another block stands in their place, give their frames back: now, while the register is asked to leave the
    /// view, so that what of them is admitted can stand in the NewView.
    pub(super) fn watch_blocks(&mut self, outbox: &mut Vec<Output<Message>>) {
        if self.chain.nodes.is_empty() && !self.pending.waits_for_blocks() {
            return;
        }
        let (target, me) = (self.target_view(), self.me());
        // An own block of an earlier start that its register never stood by is void: another one stands in its place.
        let stands =
            |node: &&Node| node.header().view >= target && (node.own || node.is_valid() || node.proposer != Some(me));
        // Others may invent a block in the leader's name, which it will never stand by.
        let is_its_proposers = |node: &&Node| node.own || node.is_valid() || node.proposer == Some(node.from);
        let nodes = &self.chain.nodes;
        for node in nodes.values().filter(stands).filter(is_its_proposers) {
            self.pending.wait_for(&node.block);
        }
        let frames = self.pending.give_back(|hash| nodes.get(hash).as_ref().is_some_and(stands));
        if !frames.is_empty() {
            outbox.push(Output::Offer(frames));
        }
    }
}
