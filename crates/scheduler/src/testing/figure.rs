//! Figures that show rules which make nothing wrong, only dear.

use crate::uds::Uds;
use crate::{Declaration, Entry, Event, Grant, LockId, Mode, Operation, Scheduler, ThreadIndex};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

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
