//! Figures that show rules which make nothing wrong, only dear.

use super::{Checked, Features, LogEntry, Recording};
use crate::uds::Uds;
use crate::{Declaration, Entry, Event, Grant, LockId, Mode, Operation, Parameters, Scheduler, ThreadIndex};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// How many Flushes the logs of the first 60 random programs need: the figure that shows a rule by which a Flush lets too
/// little happen.
pub fn flushes_needed(make: impl Fn(&Parameters) -> Uds) -> usize {
    let make = |parameters: &Parameters| -> Box<dyn Checked> { Box::new(make(parameters)) };
    let logs = (0..60).filter_map(|seed| Some(Recording::new(seed, Features::ALL, &make).ok()?.log));
    logs.map(|log| log.iter().filter(|entry| matches!(entry, LogEntry::Flush)).count()).sum()
}

/// How many rounds 2 000 requests need while 100 threads want a lock whose owner sleeps: the figure that shows a rule by
/// which these try again and again.
pub fn rounds_beside_a_parked_owner(mut uds: Uds) -> u64 {
    let mut grants = Vec::new();
    let (kept, other) = (LockId(1), LockId(2));
    let mut queue: VecDeque<Event> = (1..=2_101)
        .map(|position| {
            let (thread, declaration) = (ThreadIndex(position as u32), Declaration::default());
            Event::Entry(Entry::Request { thread, position, timestamp: 0, declaration })
        })
        .collect();
    // By thread: how many of its operations it has asked for.
    let mut asked = alloc::vec![0; 2_102];
    let mut rounds_before = 0;
    while let Some(event) = queue.pop_front() {
        if matches!(&event, Event::Entry(Entry::Request { position: 102, .. })) {
            rounds_before = uds.status().round;
        }
        uds.handle(event, &mut grants);
        for grant in grants.drain(..) {
            let (Grant::Start { thread } | Grant::Resume { thread, .. }) = grant else { continue };
            let lock = if thread.0 <= 101 { kept } else { other };
            asked[thread.0 as usize] += 1;
            let operation = match (thread.0, asked[thread.0 as usize]) {
                (1, 2) => Operation::Sleep { duration: 1_000_000 },
                (_, 1) => Operation::Lock { lock, mode: Mode::Write, timeout: None },
                (_, 2) => Operation::Unlock { lock },
                _ => Operation::Finish,
            };
            queue.push_front(Event::Operation { thread, operation });
        }
        if queue.is_empty() && uds.status().threads > 101 {
            queue.push_back(Event::Entry(Entry::Flush));
        }
    }
    uds.status().round - rounds_before
}
