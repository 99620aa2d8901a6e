//! What waits for a machine that is at work, in turns: its own timers and disk first, then one message of each sender.
//!
//! The real host checks what comes on the account of its sender, so one peer that sends without end delays its own messages
//! and no others. What one sender sends stays in its order.

use super::event::Event;
use std::collections::{BTreeMap, VecDeque};

/// See the module.
#[derive(Default)]
pub(super) struct Inbox {
    own: VecDeque<Event>,
    /// By sender; none is empty.
    others: BTreeMap<usize, VecDeque<Event>>,
    /// Whose turn was last.
    last: usize,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.others.is_empty()
    }

    pub(super) fn push(&mut self, event: Event) {
        match event {
            Event::ToReplica { from, .. } => self.others.entry(from).or_default().push_back(event),
            _ => self.own.push_back(event),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        if let Some(event) = self.own.pop_front() {
            return Some(event);
        }
        let next = self.others.range(self.last + 1..).next().or_else(|| self.others.first_key_value());
        let sender = *next?.0;
        self.last = sender;
        let waiting = self.others.get_mut(&sender)?;
        let event = waiting.pop_front();
        if waiting.is_empty() {
            self.others.remove(&sender);
        }
        event
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_types::Bytes;

    #[test]
    fn whoever_sends_without_end_delays_nobody_else() {
        let mut inbox = Inbox::default();
        let message = |from, life| Event::ToReplica { replica: 0, from, life, bytes: Bytes::new() };
        (0..100).for_each(|life| inbox.push(message(3, life)));
        inbox.push(message(1, 0));
        inbox.push(message(7, 0));
        inbox.push(message(1, 1));
        inbox.push(Event::Act { replica: 0 });
        let served: Vec<_> = std::iter::from_fn(|| inbox.pop())
            .map(|event| match event {
                Event::ToReplica { from, life, .. } => Some((from, life)),
                _ => None,
            })
            .collect();
        let of = |from, life| Some((from, life));
        assert_eq!(served[..7], [None, of(1, 0), of(3, 0), of(7, 0), of(1, 1), of(3, 1), of(3, 2)]);
        assert!(served.len() == 104 && inbox.is_empty());
    }
}
