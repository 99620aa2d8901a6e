//! Group commit: what waits to be written, and when.
//!
//! Everything that waits is taken at once, written and synced once. Entries that somebody waits for are taken as soon as
//! the disk is free, and so are a whole group's bytes; the others go along, or after a while alone.

use super::Entry;
use unisono_types::bounds::GROUP_BYTES;

/// Counts groups that were handed over, from 1.
pub type Ticket = u64;

/// Entries that are handed over together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Reported when these and all entries before them are durable. Tickets grow.
    pub ticket: Ticket,
    /// What to write.
    pub entries: Vec<Entry>,
    /// Something waits for it.
    pub urgent: bool,
}

/// What nothing waits for is written at the latest after so many microseconds.
const LAZY_MICROS: u64 = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    entries: Vec<Entry>,
    bytes: usize,
    /// Of the newest group.
    ticket: Ticket,
    urgent: bool,
    /// When the oldest of what waits came, if anything does.
    since: Option<u64>,
}

impl Queue {
    /// Puts a group behind all others, at this time of some clock in microseconds.
    pub fn push(&mut self, group: Group, now: u64) {
        let Group { ticket, entries, urgent } = group;
        self.bytes += entries.iter().map(Entry::bytes).sum::<usize>();
        self.entries.extend(entries);
        self.since.get_or_insert(now);
        self.ticket = ticket;
        self.urgent |= urgent;
    }

    /// Everything that waits, and the ticket to report for it.
    pub fn take(&mut self) -> Option<(Vec<Entry>, Ticket)> {
        self.since.take()?;
        self.urgent = false;
        self.bytes = 0;
        Some((std::mem::take(&mut self.entries), self.ticket))
    }

    /// When what waits is to be taken; `None` when nothing waits.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let since = self.since?;
        Some(if self.urgent || self.bytes >= GROUP_BYTES { since } else { since + LAZY_MICROS })
    }

    /// Whether something waits that is urgent.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Bytes that wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(ticket: Ticket, urgent: bool) -> Group {
        Group { ticket, entries: Vec::new(), urgent }
    }

    #[test]
    fn urgent_groups_are_due_at_once_and_take_the_others_along() {
        let mut queue = Queue::default();
        assert_eq!((queue.due(), queue.take()), (None, None));
        queue.push(group(1, false), 500);
        queue.push(group(2, false), 900);
        assert_eq!(queue.due(), Some(500 + LAZY_MICROS));
        queue.push(group(3, true), 1_000);
        assert_eq!(queue.due(), Some(500));
        assert_eq!(queue.take(), Some((Vec::new(), 3)));
        assert_eq!((queue.due(), queue.is_urgent()), (None, false));
    }
}
