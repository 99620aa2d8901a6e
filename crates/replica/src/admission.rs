//! Which frames are let into the order: those that would do something there, as far as this replica can tell now.
//!
//! ```text
//!   client ────────────────────┐
//!   Offer (peers, void blocks) ┼─> admission: as the walk would find it ──> Submit
//!   Submission of a peer ──────┘        └─ session not open here yet: the newest frame of each key is kept until it is
//! ```
//! A hint, as everything before the order: what a leader orders without it does nothing when it is walked. But frames
//! of strangers, of closed sessions, and those that did their work already take no room here, whoever repeats them.

use crate::order::Order;
use crate::session::{Place, Session, Stored};
use alloc::collections::BTreeMap;
use unisono_types::{
    Bytes, CallId, Frame, FrameBody, Position, PublicKey, Refusal, RequestNumber, SequenceNumber, SessionId,
    SystemEntry, Timestamp,
};

/// How many decisions the sender of a frame may be ahead of this replica: more than are ever on their way. A frame
/// that names a later one is of no use here before this replica has caught up, and its sender repeats it.
const AHEAD_MAX: u64 = 1 << 10;

/// An empty frame keeps its session alive when it comes after this part of the idle limit; earlier ones only say where
/// the client is.
const KEEP_ALIVE_PARTS: u64 = 8;

/// Frames kept for sessions that are about to be open, and bytes of one: 16 MiB at most. Others are sent again.
const EARLY_MAX: usize = 1 << 10;
const EARLY_BYTES_MAX: usize = 16 << 10;

/// Why a frame is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Its key may not say this, or its session is not open.
    Stranger,
    /// Its session may be opened by a decision that is not walked here yet.
    Early,
    /// Its session has too many bytes of replies stored.
    HeldBack,
    /// All that it could do is done.
    Known,
}

/// Time as late as any: what is refused then would be refused at any time.
pub(crate) const EVER: Timestamp = Timestamp(u64::MAX);

impl Order {
    /// Whether this frame would do something if it were ordered next.
    pub(crate) fn admission(&self, frame: &Frame, now: Timestamp) -> Result<(), Refused> {
        let key = frame.key();
        match frame.body() {
            FrameBody::Requests { session, lowest_unacknowledged, requests } => {
                self.requests(*session, &key, *lowest_unacknowledged, requests, now, |_, _| ())
            }
            FrameBody::Open { nonce, recent } => self.opening(&key, *nonce, *recent),
            FrameBody::Close { session } => self.session(*session, &key).map(|_| ()),
            FrameBody::System { entry, nonce } => self.entry(&key, *entry, *nonce),
            FrameBody::Admin { nonce, recent, .. } => {
                let takes = self.is_near(*recent) && self.admin.may_take(*nonce, *recent);
                takes.then_some(()).ok_or(Refused::Known)
            }
            FrameBody::Called { call, .. } => self.word(&key, call),
        }
    }

    /// Whether something in a frame of requests is new. `finished` is told which of them have their replies stored.
    pub(crate) fn requests(
        &self,
        id: SessionId,
        key: &PublicKey,
        lowest: RequestNumber,
        requests: &[(RequestNumber, Bytes)],
        now: Timestamp,
        mut finished: impl FnMut(RequestNumber, &Stored),
    ) -> Result<(), Refused> {
        let session = self.session(id, key)?;
        let mut new = requests.is_empty() && (lowest > session.lowest() || self.keeps_alive(session, now));
        for (number, _) in requests {
            match self.table.place(session, *number, lowest) {
                Place::New => new = true,
                Place::Finished(stored) => finished(*number, stored),
                Place::Acknowledged | Place::Running | Place::Beyond => {}
            }
        }
        if !new {
            return Err(Refused::Known);
        }
        let held_back = !requests.is_empty() && self.is_held_back(session, lowest);
        (!held_back).then_some(()).ok_or(Refused::HeldBack)
    }

    fn session(&self, id: SessionId, key: &PublicKey) -> Result<&Session, Refused> {
        self.table.of(id, key).ok_or_else(|| {
            let ahead = !self.proves_absence(id, key) && self.is_near(Position(id.0).sequence());
            if ahead && self.membership().is_client(key) { Refused::Early } else { Refused::Stranger }
        })
    }

    fn keeps_alive(&self, session: &Session, now: Timestamp) -> bool {
        let idle = self.membership().configuration().limits.session_idle;
        session.active.after(idle / KEEP_ALIVE_PARTS) < now
    }

    /// Whether a frame with this acknowledgement is held back for the bytes that its session has stored: half of what
    /// it may, so that the other half is there for the requests that are ordered already.
    fn is_held_back(&self, session: &Session, lowest: RequestNumber) -> bool {
        let bound = u64::from(self.membership().configuration().limits.reply_bytes) / 2;
        session.stored_bytes() >= bound && session.stored_bytes_from(lowest) >= bound
    }

    fn opening(&self, key: &PublicKey, nonce: u64, recent: SequenceNumber) -> Result<(), Refused> {
        match self.table.opening(key, nonce, recent, self.height().next()) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Refused::Known),
            // It is this replica that is behind.
            Err(Refusal::TooOld) if recent > self.height() && self.is_near(recent) => Ok(()),
            Err(_) => Err(Refused::Stranger),
        }
    }

    /// Entries of a member are numbered: one that is not above the last ordered one is a repetition.
    fn entry(&self, key: &PublicKey, entry: SystemEntry, nonce: u64) -> Result<(), Refused> {
        let member = self.membership().member_by_host_key(key).ok_or(Refused::Stranger)?;
        let over = matches!(entry, SystemEntry::Tick(time) if time <= self.tick());
        if over || self.last_entry(member.id).is_some_and(|last| nonce <= last) {
            return Err(Refused::Known);
        }
        Ok(())
    }

    fn word(&self, key: &PublicKey, call: &CallId) -> Result<(), Refused> {
        let member = self.membership().member_by_host_key(key).ok_or(Refused::Stranger)?;
        if !self.is_near(call.position.sequence()) {
            return Err(Refused::Stranger);
        }
        if self.tallies.is_settled(member.id, call) { Err(Refused::Known) } else { Ok(()) }
    }

    fn is_near(&self, sequence: SequenceNumber) -> bool {
        sequence.0 <= self.height().0.saturating_add(AHEAD_MAX)
    }
}

/// Frames of sessions that are not open here yet: f+1 others may have told the client of it before this replica has
/// walked there. Without this its first request would wait until it is repeated.
#[derive(Clone, Debug, Default)]
pub(crate) struct EarlyFrames(BTreeMap<PublicKey, (SessionId, Frame)>);

impl EarlyFrames {
    /// Keeps a frame that was refused as early. Of one key the newest only.
    pub(crate) fn keep(&mut self, frame: &Frame) {
        let FrameBody::Requests { session, .. } = frame.body() else { return };
        let known = self.0.contains_key(&frame.key());
        if frame.wire().len() <= EARLY_BYTES_MAX && (known || self.0.len() < EARLY_MAX) {
            self.0.insert(frame.key(), (*session, frame.clone()));
        }
    }

    /// The session is open now.
    pub(crate) fn take(&mut self, session: SessionId, key: &PublicKey) -> Option<Frame> {
        self.0.get(key).filter(|(kept, _)| *kept == session)?;
        self.0.remove(key).map(|(_, frame)| frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{client_signer, membership};
    use unisono_types::ClusterId;

    fn frame(client: u64, session: u64, bytes: usize) -> Frame {
        let requests = alloc::vec![(RequestNumber(1), Bytes::from(alloc::vec![1; bytes]))];
        let lowest_unacknowledged = RequestNumber(1);
        let body = FrameBody::Requests { session: SessionId(session), lowest_unacknowledged, requests };
        Frame::sign(ClusterId([7; 16]), &client_signer(client), body)
    }

    #[test]
    fn one_frame_of_a_key_waits_for_its_session_and_there_is_room_for_so_many_keys() {
        let mut early = EarlyFrames::default();
        early.keep(&frame(0, 5, 10));
        let newer = frame(0, 6, 10);
        early.keep(&newer);
        early.keep(&frame(1, 6, EARLY_BYTES_MAX));
        let key = newer.key();
        assert_eq!(early.take(SessionId(5), &key), None);
        assert_eq!(early.take(SessionId(6), &frame(1, 6, 1).key()), None, "too long to be kept");
        assert_eq!(early.take(SessionId(6), &key), Some(newer));
        assert_eq!(early.take(SessionId(6), &key), None);
        for client in 0..EARLY_MAX as u64 + 10 {
            early.keep(&frame(client, 5, 1));
        }
        assert_eq!(early.0.len(), EARLY_MAX);
    }

    #[test]
    fn a_session_that_is_far_ahead_or_of_a_stranger_is_not_waited_for() {
        let order = Order::new(membership(3), crate::MarkRule::default());
        let at = |client: u64, sequence: u64| {
            let session = Position::new(SequenceNumber(sequence), 0).unwrap();
            order.admission(&frame(client, session.0, 1), Timestamp(0))
        };
        assert_eq!(at(0, 1), Err(Refused::Early));
        assert_eq!(at(0, AHEAD_MAX + 1), Err(Refused::Stranger));
        assert_eq!(at(99, 1), Err(Refused::Stranger));
    }
}
