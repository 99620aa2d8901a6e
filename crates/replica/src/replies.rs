//! Answers on their way out: grouped by connection, so that one call speaks to one connection in as few messages as
//! possible.

use crate::{ConnectionId, Output};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use unisono_types::{Answer, Epoch, Outcome, PublicKey, ReplicaId, Reply, ReplyBody, SequenceNumber, SessionId};

/// Bytes of bodies in one message: a message is written and read whole, and others should get a turn in between.
const REPLY_BYTES_MAX: usize = 256 << 10;

/// Clients whose Open is under way: beyond it the oldest key's must ask again.
const OPENERS_MAX: usize = 1 << 14;

/// Sessions that were named by a connection before their opening was walked here: beyond it they must speak again.
const EARLY_MAX: usize = 1 << 12;

/// Outcomes up to this many bytes are sent whole by every replica: a digest would hardly be shorter, and any f+1
/// replies then suffice.
pub(crate) const SHORT_OUTCOME_BYTES: usize = 1_024;

/// Who is connected, who waits for what, and what was said in this call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replies {
    live: BTreeSet<ConnectionId>,
    openers: BTreeMap<(PublicKey, u64), ConnectionId>,
    early: BTreeMap<(SessionId, PublicKey), ConnectionId>,
    answers: BTreeMap<ConnectionId, Vec<Answer>>,
}

impl Replies {
    /// A connection has spoken.
    pub(crate) fn heard(&mut self, connection: ConnectionId) {
        self.live.insert(connection);
    }

    /// A connection is gone. Time: one step per Open under way.
    pub(crate) fn gone(&mut self, connection: ConnectionId) {
        self.live.remove(&connection);
        self.openers.retain(|_, waiting| *waiting != connection);
        self.early.retain(|_, waiting| *waiting != connection);
    }

    /// This connection waits for an Open.
    pub(crate) fn opening(&mut self, key: PublicKey, nonce: u64, connection: ConnectionId) {
        if self.openers.len() >= OPENERS_MAX {
            self.openers.pop_first();
        }
        self.openers.insert((key, nonce), connection);
    }

    /// Who waits for this Open.
    pub(crate) fn opener(&mut self, key: PublicKey, nonce: u64) -> Option<ConnectionId> {
        self.openers.remove(&(key, nonce))
    }

    /// This connection speaks for a session whose opening was not yet walked here.
    pub(crate) fn early(&mut self, session: SessionId, key: PublicKey, connection: ConnectionId) {
        if self.early.len() >= EARLY_MAX {
            self.early.pop_last();
        }
        self.early.insert((session, key), connection);
    }

    /// Who spoke for a session that is opened now.
    pub(crate) fn take_early(&mut self, session: SessionId, key: PublicKey) -> Option<ConnectionId> {
        if self.early.is_empty() {
            return None;
        }
        self.early.remove(&(session, key))
    }

    /// Says something, if somebody is there to hear it.
    pub(crate) fn say(&mut self, connection: Option<ConnectionId>, answer: impl FnOnce() -> Answer) {
        if let Some(connection) = connection.filter(|connection| self.live.contains(connection)) {
            self.answers.entry(connection).or_default().push(answer());
        }
    }

    /// Whether something was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Everything said since the last time.
    pub(crate) fn flush<M>(
        &mut self,
        epoch: Epoch,
        leader: ReplicaId,
        executed: SequenceNumber,
        out: &mut Vec<Output<M>>,
    ) {
        while let Some((connection, answers)) = self.answers.pop_first() {
            let mut part = Vec::new();
            let mut bytes = 0;
            let mut send = |answers| {
                let reply = Reply { epoch, leader, executed, answers };
                out.push(Output::Reply { connection, reply });
            };
            for answer in answers {
                let size = body_bytes(&answer);
                if bytes + size > REPLY_BYTES_MAX && !part.is_empty() {
                    send(core::mem::take(&mut part));
                    bytes = 0;
                }
                bytes += size;
                part.push(answer);
            }
            send(part);
        }
    }
}

fn body_bytes(answer: &Answer) -> usize {
    const HEADER_BYTES: usize = 64;
    HEADER_BYTES
        + match answer {
            Answer::Executed { body: ReplyBody::Full(Ok(bytes)), .. } => bytes.len(),
            _ => 0,
        }
}

/// Whether an outcome is sent whole by everyone.
pub(crate) fn is_short(outcome: &Outcome) -> bool {
    outcome.as_ref().map_or(true, |bytes| bytes.len() <= SHORT_OUTCOME_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::{Bytes, RequestNumber};

    fn executed(number: u64, bytes: usize) -> Answer {
        let body = ReplyBody::Full(Ok(Bytes::from(vec![0; bytes])));
        Answer::Executed { session: SessionId(1), number: RequestNumber(number), body }
    }

    fn flush(replies: &mut Replies) -> Vec<(ConnectionId, usize)> {
        let mut out: Vec<Output<()>> = Vec::new();
        replies.flush(Epoch(0), ReplicaId(0), SequenceNumber(0), &mut out);
        out.iter()
            .map(|output| match output {
                Output::Reply { connection, reply } => (*connection, reply.answers.len()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn one_connection_gets_one_message_and_the_dead_get_none() {
        let mut replies = Replies::default();
        let [a, b, dead] = [1, 2, 3].map(ConnectionId);
        [a, b, dead].into_iter().for_each(|connection| replies.heard(connection));
        replies.gone(dead);
        for number in 0..10 {
            replies.say(Some(a), || executed(number, 100));
            replies.say(Some(dead), || executed(number, 100));
        }
        replies.say(Some(b), || executed(0, 0));
        replies.say(None, || panic!("nobody listens, so nothing is made"));
        assert_eq!(flush(&mut replies), [(a, 10), (b, 1)]);
        assert_eq!(flush(&mut replies), []);
    }

    #[test]
    fn large_answers_travel_in_messages_of_their_own() {
        let mut replies = Replies::default();
        let a = ConnectionId(1);
        replies.heard(a);
        for (number, bytes) in [(1, 10), (2, 10 << 20), (3, 10), (4, 10)].into_iter() {
            replies.say(Some(a), || executed(number, bytes));
        }
        assert_eq!(flush(&mut replies), [(a, 1), (a, 1), (a, 2)]);
    }

    #[test]
    fn those_who_wait_are_bounded_and_forgotten_with_their_connection() {
        let mut replies = Replies::default();
        for nonce in 0..OPENERS_MAX as u64 + 10 {
            replies.opening(PublicKey([1; 32]), nonce, ConnectionId(nonce % 2));
            replies.early(SessionId(nonce), PublicKey([1; 32]), ConnectionId(0));
        }
        assert_eq!((replies.openers.len(), replies.early.len()), (OPENERS_MAX, EARLY_MAX));
        replies.gone(ConnectionId(0));
        assert_eq!((replies.openers.len(), replies.early.len()), (OPENERS_MAX / 2, 0));
    }
}
