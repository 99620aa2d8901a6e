//! The thread that writes: takes everything that is queued, writes it as one group, syncs once, reports.
//!
//! Whoever has nothing else to do may write in its place ([`LogThread::write_here`]): that saves two hand-overs, which
//! cost as much as a sync of a fast disk.
//!
//! Invariant: whoever takes entries from the queue holds the writer, so entries are written in the order of their
//! tickets.

use super::StorageError;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use unisono_node::log::{Entry, Group, Queue, Ticket, Writer};

/// What the thread has done.
#[derive(Debug)]
pub enum Report {
    /// Everything up to this ticket is durable.
    Durable {
        /// The ticket.
        ticket: Ticket,
        /// How long the write and its sync took.
        took: Duration,
        /// Entries of the group.
        entries: usize,
    },
    /// The disk failed: nothing is written any more.
    Failed(StorageError),
}

/// The running thread. Dropping it writes what is queued, seals the log and ends it.
#[derive(Debug)]
pub struct LogThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// What the queue's times count from.
    start: Instant,
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// `None` once the disk has failed: after a failed sync nobody knows what it holds, and nothing more is written.
    writer: Mutex<Option<Writer>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

#[derive(Debug, Default)]
struct Waiting {
    queue: Queue,
    /// The thread sleeps until it is woken, not only until what waits is due.
    idle: bool,
    stop: bool,
}

impl LogThread {
    /// Starts the thread of a log's writer.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(writer: Writer, report: impl Fn(Report) + Send + 'static) -> std::io::Result<Self> {
        let writer = Mutex::new(Some(writer));
        let shared =
            Arc::new(Shared { start: Instant::now(), waiting: Mutex::default(), wake: Condvar::new(), writer });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("storage".into()).spawn(move || run(&theirs, &report))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues a group. Its ticket, or a later one, is reported when its entries and all before them are durable.
    pub fn append(&self, group: Group) {
        let mut waiting = lock(&self.shared.waiting);
        let wake = waiting.idle || (group.urgent && !waiting.queue.is_urgent());
        waiting.queue.push(group, self.shared.now());
        waiting.idle = false;
        drop(waiting);
        if wake {
            self.shared.wake.notify_one();
        }
    }

    /// Writes what is queued and this group in the calling thread, and reports.
    ///
    /// # Errors
    /// The group, when the thread is just writing or the disk has failed: it is to be queued.
    pub fn write_here(&self, group: Group) -> Result<Report, Group> {
        let mut writer = match self.shared.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(group),
        };
        if writer.is_none() {
            return Err(group);
        }
        let mut waiting = lock(&self.shared.waiting);
        waiting.queue.push(group, self.shared.now());
        let (entries, ticket) = waiting.queue.take().expect("it was just filled");
        drop(waiting);
        Ok(write(&mut writer, entries, ticket).expect("it has not failed before"))
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        lock(&self.shared.waiting).queue.bytes()
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        lock(&self.shared.waiting).stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its panic was printed where it happened; there is nothing to add to it here.
            drop(thread.join());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(shared: &Shared, report: &impl Fn(Report)) {
    while wait(shared) {
        let mut writer = lock(&shared.writer);
        let Some((entries, ticket)) = lock(&shared.waiting).queue.take() else { continue };
        let Some(written) = write(&mut writer, entries, ticket) else { return };
        drop(writer);
        report(written);
    }
    let sealed = lock(&shared.writer).as_mut().map_or(Ok(()), Writer::seal);
    if let Err(error) = sealed {
        report(Report::Failed(error));
    }
}

/// `None` after a failure: not one answer more.
fn write(writer: &mut Option<Writer>, entries: Vec<Entry>, ticket: Ticket) -> Option<Report> {
    let start = Instant::now();
    let count = entries.len();
    let open = writer.as_mut()?;
    Some(match open.write(entries) {
        Ok(()) => Report::Durable { ticket, took: start.elapsed(), entries: count },
        Err(error) => {
            *writer = None;
            Report::Failed(error)
        }
    })
}

/// Waits until something is due; false when it is time to end and nothing is left.
fn wait(shared: &Shared) -> bool {
    let mut waiting = lock(&shared.waiting);
    loop {
        match waiting.queue.due() {
            None if waiting.stop => return false,
            None => {
                waiting.idle = true;
                waiting = shared.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                waiting.idle = false;
            }
            Some(due) => {
                let now = shared.now();
                if waiting.stop || due <= now {
                    return true;
                }
                let rest = Duration::from_micros(due - now);
                waiting = shared.wake.wait_timeout(waiting, rest).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}
