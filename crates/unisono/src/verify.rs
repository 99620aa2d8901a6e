//! The signature pool: checks what came from outside on more than one core, when that is worth the hand-over.
//!
//! ```text
//!   event loop ── a wake-up's messages ──> [ share | share | share ] ──> checked, in the order in which they came
//!                                            pool    pool    caller
//! ```
//! The caller takes part and waits for the others, so nothing is reordered and nothing is in flight when it goes on.
//! A signature takes some 50 us to check, waking a thread some 10 to 30: the pool is used from [`WORTH_IT`] messages
//! on, and never where the other cores have work of their own (two cores run a replica, its storage and a neighbour).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Fewer messages than this are checked by the caller alone.
pub const WORTH_IT: usize = 8;

/// More threads than this check faster than one event loop can feed them.
const THREADS_MAX: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that wait for work. Ended when dropped.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    wake: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

#[derive(Default)]
struct Jobs {
    queue: Vec<Job>,
    stop: bool,
}

/// Threads that a machine with this many cores should give to signatures.
#[must_use]
pub const fn threads_for(cores: usize) -> usize {
    // Three: the event loop, the storage thread, and one for everybody else.
    let free = cores.saturating_sub(3);
    if free > THREADS_MAX { THREADS_MAX } else { free }
}

impl Pool {
    /// A pool of `threads`; with none the caller does everything.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let spawn = |number| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("verify-{number}")).spawn(move || work(&shared))
        };
        Ok(Self { threads: (0..threads).map(spawn).collect::<Result<_, _>>()?, shared })
    }

    /// `check` of each item, in order.
    ///
    /// # Panics
    /// When `check` panics.
    pub fn check<T, R, F>(&self, items: Vec<T>, check: F) -> Vec<R>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Fn(T) -> R + Clone + Send + 'static,
    {
        if self.threads.is_empty() || items.len() < WORTH_IT {
            return items.into_iter().map(check).collect();
        }
        let count = items.len();
        let share = count.div_ceil(self.threads.len() + 1);
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut items = items.into_iter();
        let mut own: Vec<T> = items.by_ref().take(share).collect();
        let mut jobs: Vec<Job> = Vec::new();
        let mut start = own.len();
        while start < count {
            let part: Vec<T> = items.by_ref().take(share).collect();
            let (sender, check, at) = (sender.clone(), check.clone(), start);
            start += part.len();
            jobs.push(Box::new(move || {
                let results: Vec<R> = part.into_iter().map(check).collect();
                // The receiver waits for all of us.
                drop(sender.send((at, results)));
            }));
        }
        drop(sender);
        lock(&self.shared.jobs).queue.append(&mut jobs);
        self.shared.wake.notify_all();
        let mut parts = vec![(0, own.drain(..).map(check).collect::<Vec<R>>())];
        // Ends when every job has answered or was dropped by a panic.
        parts.extend(receiver);
        parts.sort_by_key(|(at, _)| *at);
        let results: Vec<R> = parts.into_iter().flat_map(|(_, results)| results).collect();
        assert_eq!(results.len(), count, "a check panicked");
        results
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.jobs).stop = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of a check was caught and is reported to who asked for it.
            drop(thread.join());
        }
    }
}

fn lock(jobs: &Mutex<Jobs>) -> MutexGuard<'_, Jobs> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(shared: &Shared) {
    loop {
        let mut jobs = lock(&shared.jobs);
        let job = loop {
            if let Some(job) = jobs.queue.pop() {
                break job;
            }
            if jobs.stop {
                return;
            }
            jobs = shared.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        };
        drop(jobs);
        // The thread must live on; who asked notices by the missing answer.
        drop(catch_unwind(AssertUnwindSafe(job)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items_with_any_number_of_threads() {
        for threads in 0..4 {
            let pool = Pool::new(threads).unwrap();
            for count in [0, 1, WORTH_IT - 1, WORTH_IT, 1000] {
                let results = pool.check((0..count).collect(), |item: usize| item * 3);
                assert_eq!(results, (0..count).map(|item| item * 3).collect::<Vec<_>>(), "{threads} {count}");
            }
        }
    }

    #[test]
    fn a_panicking_check_is_the_callers_panic_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        let check = |item: usize| assert_ne!(item, 99, "planted");
        assert!(catch_unwind(AssertUnwindSafe(|| pool.check((0..100).collect(), check))).is_err());
        assert_eq!(pool.check((0..90).collect(), check).len(), 90);
    }

    #[test]
    fn small_machines_check_where_they_are() {
        assert_eq!([1, 2, 3, 4, 8, 64].map(threads_for), [0, 0, 0, 1, 5, THREADS_MAX]);
    }
}
