//! What waits to be sent on one link: filled by the event loop, emptied by the link's writer, all of it at once.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A bounded queue of messages. Cheap to clone; all clones are one queue.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    limit_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    /// Invariant: the sum of what `messages` hold, with their length prefixes.
    bytes: usize,
    closed: bool,
}

/// Messages up to this size are copied into one buffer, larger ones are written from where they are.
const COALESCED_BYTES_MAX: usize = 64 << 10;

impl Outbox {
    /// An empty queue for at most `limit_bytes`. A message alone in the queue is always taken.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self(Arc::new(Shared { queue: Mutex::default(), wake: Notify::new(), limit_bytes }))
    }

    /// Queues a message; false when it does not fit or the link is closed.
    #[must_use = "what was not queued is lost"]
    pub fn push(&self, message: Bytes) -> bool {
        let mut queue = self.queue();
        let bytes = message.len() + 4;
        if queue.closed || (queue.bytes > 0 && queue.bytes + bytes > self.0.limit_bytes) {
            return false;
        }
        queue.bytes += bytes;
        queue.messages.push_back(message);
        let first = queue.messages.len() == 1;
        drop(queue);
        if first {
            self.0.wake.notify_one();
        }
        true
    }

    /// Ends the link that this queue belongs to.
    pub fn close(&self) {
        self.queue().closed = true;
        self.0.wake.notify_one();
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.queue().bytes
    }

    /// Forgets what waits, since the link it was meant for is gone.
    pub(super) fn clear(&self) {
        let mut queue = self.queue();
        queue.messages.clear();
        queue.bytes = 0;
    }

    /// Waits for messages and takes them, framed: small ones together in one piece. `None` once closed.
    pub(super) async fn take(&self) -> Option<VecDeque<Bytes>> {
        loop {
            {
                let mut queue = self.queue();
                if queue.closed {
                    return None;
                }
                if !queue.messages.is_empty() {
                    queue.bytes = 0;
                    let messages = std::mem::take(&mut queue.messages);
                    drop(queue);
                    return Some(framed(messages));
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

fn framed(messages: VecDeque<Bytes>) -> VecDeque<Bytes> {
    let mut pieces = VecDeque::new();
    let mut small = BytesMut::new();
    for message in messages {
        let length = u32::try_from(message.len()).expect("messages are bounded far below 4 GiB").to_le_bytes();
        small.extend_from_slice(&length);
        if message.len() <= COALESCED_BYTES_MAX {
            small.extend_from_slice(&message);
        } else {
            pieces.push_back(small.split().freeze());
            pieces.push_back(message);
        }
    }
    if !small.is_empty() {
        pieces.push_back(small.freeze());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test]
    async fn everything_queued_leaves_in_one_piece_and_large_messages_are_not_copied() {
        let outbox = Outbox::new(1 << 20);
        for message in [&b"ab"[..], b"", b"c"] {
            assert!(outbox.push(Bytes::copy_from_slice(message)));
        }
        let pieces = outbox.take().await.unwrap();
        assert_eq!(pieces, [&b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"[..]]);
        let large = Bytes::from(vec![7; COALESCED_BYTES_MAX + 1]);
        assert!(
            outbox.push(Bytes::from_static(b"x"))
                && outbox.push(large.clone())
                && outbox.push(Bytes::from_static(b"y"))
        );
        let pieces = outbox.take().await.unwrap();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        outbox.close();
        assert_eq!(outbox.take().await, None);
    }
}
