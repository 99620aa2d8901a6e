//! What waits to be sent on one link: filled by the event loop, emptied by the link's writer, a little at a time, so
//! that what is queued later and matters more can pass what is large.

use super::pieces::{HEAD_BYTES, PIECE_BYTES, put_piece, put_whole};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes of small messages in one write, and as many of the others behind them.
const WRITE_BYTES: usize = PIECE_BYTES;

/// A bounded queue of messages. Cheap to clone; all clones are one queue.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// Small messages pass large ones.
    overtaking: bool,
}

#[derive(Debug)]
struct Queue {
    /// Small messages that may pass the others; empty when nothing may.
    urgent: Lane,
    /// All others, in their order.
    ordered: Lane,
    /// Bytes of the first of `ordered` that were taken.
    at: usize,
    closed: bool,
}

/// Messages with a bound of their own.
#[derive(Debug)]
struct Lane {
    messages: VecDeque<Bytes>,
    /// Invariant: the sum of what `messages` hold and was not taken, with one head each.
    bytes: usize,
    limit_bytes: usize,
}

impl Lane {
    const fn new(limit_bytes: usize) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, limit_bytes }
    }

    /// A message alone in its lane is always taken.
    fn push(&mut self, message: Bytes) -> bool {
        let bytes = message.len() + HEAD_BYTES;
        if self.bytes > 0 && self.bytes + bytes > self.limit_bytes {
            return false;
        }
        self.bytes += bytes;
        self.messages.push_back(message);
        true
    }

    fn pop(&mut self) -> Option<Bytes> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.len() + HEAD_BYTES;
        Some(message)
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }
}

impl Queue {
    const fn is_empty(&self) -> bool {
        self.urgent.bytes + self.ordered.bytes == 0
    }

    /// The next write: small messages first, and some of the others behind them, so that neither holds up the other
    /// for longer than a write takes.
    fn fill(&mut self, out: &mut BytesMut) {
        while out.len() < WRITE_BYTES
            && let Some(message) = self.urgent.pop()
        {
            put_whole(out, &message);
        }
        let end = out.len() + WRITE_BYTES;
        while out.len() < end && self.put_ordered(out) {}
    }

    fn put_ordered(&mut self, out: &mut BytesMut) -> bool {
        let Some(first) = self.ordered.messages.front() else { return false };
        if first.len() <= PIECE_BYTES {
            put_whole(out, first);
            self.ordered.pop();
            return true;
        }
        let end = put_piece(out, first, self.at);
        self.ordered.bytes -= end - self.at;
        self.at = end;
        if end == first.len() {
            // Its bytes were counted down piece by piece.
            self.ordered.bytes -= HEAD_BYTES;
            self.ordered.messages.pop_front();
            self.at = 0;
        }
        true
    }
}

impl Outbox {
    /// An empty queue for at most `limit_bytes`, which keeps the order of all messages. A message alone in it is always
    /// taken.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self::with(false, 0, limit_bytes)
    }

    /// An empty queue in which messages of at most 64 KiB pass larger ones. Both kinds keep their order, and each has a
    /// bound of its own: a large message that does not fit costs no small one its place.
    #[must_use]
    pub fn overtaking(small_bytes: usize, large_bytes: usize) -> Self {
        Self::with(true, small_bytes, large_bytes)
    }

    fn with(overtaking: bool, urgent: usize, ordered: usize) -> Self {
        let queue = Queue { urgent: Lane::new(urgent), ordered: Lane::new(ordered), at: 0, closed: false };
        Self(Arc::new(Shared { queue: Mutex::new(queue), wake: Notify::new(), overtaking }))
    }

    /// Queues a message; false when it does not fit or the link is closed.
    #[must_use = "what was not queued is lost"]
    pub fn push(&self, message: Bytes) -> bool {
        let mut queue = self.queue();
        if queue.closed {
            return false;
        }
        let first = queue.is_empty();
        let urgent = self.0.overtaking && message.len() <= PIECE_BYTES;
        let lane = if urgent { &mut queue.urgent } else { &mut queue.ordered };
        let queued = lane.push(message);
        drop(queue);
        if first && queued {
            self.0.wake.notify_one();
        }
        queued
    }

    /// Ends the link that this queue belongs to.
    pub fn close(&self) {
        self.queue().closed = true;
        self.0.wake.notify_one();
    }

    /// Bytes that wait; of a large message that is under way, what has not been handed to the socket.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let queue = self.queue();
        queue.urgent.bytes + queue.ordered.bytes
    }

    /// Forgets what waits, since the link it was meant for is gone.
    pub(super) fn clear(&self) {
        let mut queue = self.queue();
        queue.urgent.clear();
        queue.ordered.clear();
        queue.at = 0;
    }

    /// Waits for messages and takes as much of them as one write should hold. `None` once closed.
    pub(super) async fn take(&self) -> Option<BytesMut> {
        loop {
            {
                let mut queue = self.queue();
                if queue.closed {
                    return None;
                }
                if !queue.is_empty() {
                    let mut out = BytesMut::new();
                    queue.fill(&mut out);
                    return Some(out);
                }
            }
            self.0.wake.notified().await;
        }
    }

    /// Waits until [`close`](Self::close).
    pub(super) async fn closed(&self) {
        while !self.queue().closed {
            self.0.wake.notified().await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::{Assembler, Step};
    use super::*;

    const LARGE: usize = 24 << 20;

    /// The other end: what has arrived after each write.
    struct Reader(Assembler, BytesMut);

    impl Reader {
        fn new() -> Self {
            Self(Assembler::new(LARGE), BytesMut::new())
        }

        fn take(&mut self, write: &[u8]) -> Vec<Bytes> {
            self.1.extend_from_slice(write);
            let mut messages = Vec::new();
            loop {
                match self.0.step(&mut self.1).unwrap() {
                    Step::Wanting => return messages,
                    Step::Whole(message) | Step::Complete(message) => messages.push(message),
                    Step::Begins(_) | Step::Came => {}
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_a_single_message_always_fits() {
        let outbox = Outbox::new(20);
        assert!(outbox.push(Bytes::from_static(&[0; 100])), "alone");
        assert!(!outbox.push(Bytes::from_static(&[0; 1])));
        outbox.clear();
        assert!(outbox.push(Bytes::from_static(&[0; 6])));
        assert!(outbox.push(Bytes::from_static(&[0; 6])), "exactly full: 2 * (6 + 4)");
        assert!(!outbox.push(Bytes::from_static(&[])));
        assert_eq!(outbox.bytes(), 20);
        outbox.close();
        outbox.clear();
        assert!(!outbox.push(Bytes::new()), "closed");
    }

    #[test]
    fn large_messages_that_do_not_fit_cost_votes_nothing() {
        let outbox = Outbox::overtaking(1000, LARGE);
        assert!(outbox.push(vec![0; LARGE].into()), "alone");
        assert!(!outbox.push(vec![0; PIECE_BYTES + 1].into()));
        assert!(outbox.push(vec![1; 500].into()));
        assert!(!outbox.push(vec![1; 500].into()), "the small ones have a bound, too");
    }

    #[tokio::test]
    async fn everything_small_leaves_in_one_write() {
        for outbox in [Outbox::new(1 << 20), Outbox::overtaking(1 << 20, 0)] {
            for message in [&b"ab"[..], b"", b"c"] {
                assert!(outbox.push(Bytes::copy_from_slice(message)));
            }
            assert_eq!(outbox.take().await.unwrap(), &b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"[..]);
            assert_eq!(outbox.bytes(), 0);
            outbox.close();
            assert_eq!(outbox.take().await, None);
        }
    }

    #[tokio::test]
    async fn a_vote_queued_behind_a_block_of_24_mib_arrives_with_the_next_piece() {
        let (outbox, mut reader) = (Outbox::overtaking(1 << 20, 2 * LARGE), Reader::new());
        assert!(outbox.push(vec![7; LARGE].into()));
        assert!(reader.take(&outbox.take().await.unwrap()).is_empty(), "one piece of 384");
        assert_eq!(outbox.bytes(), LARGE - PIECE_BYTES + HEAD_BYTES);
        assert!(outbox.push(Bytes::from_static(b"vote")));
        assert_eq!(reader.take(&outbox.take().await.unwrap()), ["vote"]);
        let mut writes = 2;
        loop {
            let arrived = reader.take(&outbox.take().await.unwrap());
            writes += 1;
            if let [block] = &arrived[..] {
                assert_eq!((block.len(), writes), (LARGE, LARGE / PIECE_BYTES));
                break;
            }
        }
        assert_eq!(outbox.bytes(), 0);
    }

    #[tokio::test]
    async fn small_messages_without_end_do_not_stop_a_large_one() {
        let (outbox, mut reader) = (Outbox::overtaking(1 << 20, 1 << 20), Reader::new());
        assert!(outbox.push(vec![7; 3 * PIECE_BYTES].into()));
        for write in 1..=3 {
            while outbox.push(vec![1; 1000].into()) {}
            let complete = reader.take(&outbox.take().await.unwrap()).iter().any(|message| message.len() > PIECE_BYTES);
            assert_eq!(complete, write == 3);
        }
    }

    #[tokio::test]
    async fn where_the_order_matters_nothing_passes() {
        let (outbox, mut reader) = (Outbox::new(1 << 20), Reader::new());
        assert!(outbox.push(vec![7; 2 * PIECE_BYTES].into()) && outbox.push(Bytes::from_static(b"later")));
        assert!(reader.take(&outbox.take().await.unwrap()).is_empty());
        let mut second = reader.take(&outbox.take().await.unwrap());
        if second.len() == 1 {
            second.extend(reader.take(&outbox.take().await.unwrap()));
        }
        assert_eq!(second.iter().map(Bytes::len).collect::<Vec<_>>(), [2 * PIECE_BYTES, 5]);
    }

    #[tokio::test]
    async fn a_new_link_gets_large_messages_from_their_beginning() {
        let outbox = Outbox::overtaking(0, 1 << 20);
        assert!(outbox.push(vec![7; 2 * PIECE_BYTES].into()));
        outbox.take().await.unwrap();
        outbox.clear();
        assert!(outbox.push(vec![8; PIECE_BYTES + 1].into()));
        let mut reader = Reader::new();
        assert!(reader.take(&outbox.take().await.unwrap()).is_empty());
        assert_eq!(reader.take(&outbox.take().await.unwrap())[0], vec![8; PIECE_BYTES + 1]);
        assert_eq!(outbox.bytes(), 0);
    }
}
