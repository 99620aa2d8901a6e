//! Mutexes without any order: who asks first owns first. The bound against which deterministic policies are measured.

use std::collections::{BTreeMap, VecDeque};
use unisono_scheduler::{Entry, Event, Grant, LockId, Operation, OperationResult, Scheduler, Status, ThreadIndex};

/// Grants locks in the order in which threads happen to ask. No thread waits for anything else.
///
/// It knows locks and nothing else: what the scripts of this module need.
#[derive(Debug, Default)]
pub struct FreeMutexes {
    locks: BTreeMap<LockId, Lock>,
    threads: usize,
}

#[derive(Debug, Default)]
struct Lock {
    owned: bool,
    queue: VecDeque<ThreadIndex>,
}

impl Scheduler for FreeMutexes {
    fn handle(&mut self, event: Event, grants: &mut Vec<Grant>) {
        match event {
            // Nobody has to be selected: threads begin when a core has nothing better to do.
            Event::Entry(Entry::Request { .. }) => self.threads += 1,
            Event::Entry(_) => {}
            Event::Operation { thread, operation: Operation::Lock { lock, .. } } => {
                let lock = self.locks.entry(lock).or_default();
                if lock.owned {
                    lock.queue.push_back(thread);
                } else {
                    lock.owned = true;
                    grants.push(granted(thread));
                }
            }
            Event::Operation { thread, operation: Operation::Unlock { lock } } => {
                grants.push(granted(thread));
                let lock = self.locks.entry(lock).or_default();
                match lock.queue.pop_front() {
                    Some(next) => grants.push(granted(next)),
                    None => lock.owned = false,
                }
            }
            Event::Operation { thread, operation: Operation::Finish } => {
                self.threads -= 1;
                grants.push(Grant::Finished { thread });
            }
            Event::Operation { operation, .. } => unreachable!("no script has {operation:?}"),
        }
    }

    fn status(&self) -> Status {
        Status { threads: self.threads, ..Status::default() } // it needs no Flush
    }
}

fn granted(thread: ThreadIndex) -> Grant {
    Grant::Resume { thread, result: OperationResult::Granted, now: 0 }
}

#[cfg(test)]
mod tests {
    use super::super::profile::lock_id;
    use super::*;
    use unisono_scheduler::Mode;

    #[test]
    fn locks_go_to_who_asks_first() {
        let mut free = FreeMutexes::default();
        let mut ask = |thread: u32, operation| {
            let mut grants = Vec::new();
            free.handle(Event::Operation { thread: ThreadIndex(thread), operation }, &mut grants);
            grants
        };
        let lock = || Operation::Lock { lock: lock_id(1), mode: Mode::Write, timeout: None };
        let unlock = || Operation::Unlock { lock: lock_id(1) };
        assert_eq!(ask(2, lock()), [granted(ThreadIndex(2))]);
        assert_eq!(ask(3, lock()), []);
        assert_eq!(ask(1, lock()), []);
        assert_eq!(ask(2, unlock()), [granted(ThreadIndex(2)), granted(ThreadIndex(3))]);
        assert_eq!(ask(3, unlock()), [granted(ThreadIndex(3)), granted(ThreadIndex(1))]);
        assert_eq!(ask(1, unlock()), [granted(ThreadIndex(1))]);
        assert_eq!(ask(3, lock()), [granted(ThreadIndex(3))]);
    }
}
