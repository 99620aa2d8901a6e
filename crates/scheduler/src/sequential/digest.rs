//! What replicas compare of the sequential policy.

use super::*;
use crate::trace::DigestWriter;

impl Sequential {
    /// Everything that the rest of the log will meet, in canonical order. Fresh requests stand in the log, fresh
    /// children are ready; how far they have run ahead is local.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = DigestWriter::new("unisono sequential state");
        digest.words(&[self.round, self.cursor, self.now]);
        let mut threads: Vec<u32> = (0..self.threads.len() as u32)
            .filter(|thread| match self.threads[*thread as usize] {
                Thread { state: State::Vacant, .. } => false,
                Thread { state: State::Fresh, id, .. } => !id.is_request(),
                _ => true,
            })
            .collect();
        threads.sort_unstable_by_key(|thread| self.threads[*thread as usize].id);
        digest.word(threads.len() as u64);
        for thread in threads {
            let entry = &self.threads[thread as usize];
            digest.id(entry.id);
            digest.words(&[entry.now, entry.state as u64, entry.born.into(), entry.calls.into()]);
            digest.option(entry.deadline);
            match entry.pending.as_ref().filter(|_| entry.state != State::Fresh) {
                None => digest.word(0),
                Some(Pending::Operation(operation)) => {
                    digest.word(1);
                    operation.digest(&mut digest);
                }
                Some(Pending::Relock { lock, result }) => {
                    digest.word(2);
                    digest.lock(*lock);
                    digest.result(*result);
                }
                Some(Pending::Resume(result)) => {
                    digest.word(3);
                    digest.result(*result);
                }
            }
            if entry.declared {
                self.locks.digest_tickets(thread, &mut digest);
                continue;
            }
            digest.word(self.locks.owned(thread).count() as u64);
            self.locks.owned(thread).for_each(|(lock, _)| digest.lock(lock));
        }
        self.locks.digest(&mut digest, |thread| self.threads[thread as usize].id);
        self.families.digest(&mut digest);
        digest.ids(&self.yielded.iter().map(|thread| self.threads[*thread as usize].id).collect::<Vec<_>>());
        digest.finish()
    }

    /// All invariants; O(threads and locks). For tests and simulators.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn invariants(&self) {
        self.locks.invariants();
        let count = |state: State| self.threads.iter().filter(|thread| thread.state == state).count();
        assert_eq!(count(State::Running), usize::from(self.running.is_some()), "one at a time");
        assert_eq!(self.alive, self.threads.len() - count(State::Vacant));
        let fresh_children =
            self.threads.iter().filter(|thread| thread.state == State::Fresh && !thread.id.is_request()).count();
        assert_eq!(self.ready.len(), count(State::Ready) + fresh_children);
        assert_eq!(self.yielded.len(), count(State::Yielded));
        assert_eq!(self.unread, count(State::Fresh) - fresh_children);
        assert_eq!(self.timers.len(), self.threads.iter().filter(|thread| thread.deadline.is_some()).count());
        assert!(self.running.is_some() || self.ready.is_empty() && self.log.is_empty(), "whoever can run, runs");
        for (index, thread) in self.threads.iter().enumerate() {
            let place = self.locks.place(index as u32);
            let stands_right = match thread.state {
                State::Enqueued => matches!(place, Place::Queue(_)),
                State::Waiting => matches!(place, Place::Waiting(..)),
                State::Ticket => matches!(place, Place::Ticket(_)),
                _ => place == Place::Nowhere,
            };
            assert!(stands_right, "a thread that is {:?} stands at {place:?}", thread.state);
        }
    }
}
