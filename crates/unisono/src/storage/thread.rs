//! The thread that writes: takes everything that is queued, writes it as one group, syncs once, reports.
//!
//! Whoever has nothing else to do may write in its place ([`LogThread::write_here`]): that saves two hand-overs, which
//! cost as much as a sync of a fast disk.
//!
//! Invariant: whoever takes entries from the queue holds the writer, so entries are written in the order of their
//! tickets.

use super::recover::Opened;
use super::write::Writer;
use super::{Entry, StorageError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Counts what was queued, from 1.
pub type Ticket = u64;

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

/// What nobody waits for is written at the latest after this time.
const LAZY: Duration = Duration::from_millis(20);

/// A group's entries are taken up to about this size; the rest goes with the next one.
const GROUP_BYTES_MAX: usize = 32 << 20;

/// The running thread. Dropping it writes what is queued, seals the log and ends it.
#[derive(Debug)]
pub struct LogThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
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
struct Queue {
    entries: Vec<Entry>,
    bytes: usize,
    /// Of the newest entry.
    ticket: Ticket,
    urgent: bool,
    since: Option<Instant>,
    /// The thread sleeps until somebody wakes it, not only until what waits is due.
    idle: bool,
    stop: bool,
}

impl Queue {
    fn push(&mut self, entries: impl IntoIterator<Item = Entry>) -> Ticket {
        for entry in entries {
            self.bytes += bytes(&entry);
            self.entries.push(entry);
        }
        self.since.get_or_insert_with(Instant::now);
        self.ticket += 1;
        self.ticket
    }

    /// What waits; nothing when somebody else has taken it.
    fn take(&mut self) -> Option<(Vec<Entry>, Ticket)> {
        self.since.take()?;
        self.urgent = false;
        self.bytes = 0;
        Some((std::mem::take(&mut self.entries), self.ticket))
    }
}

impl LogThread {
    /// Starts the writer of an opened log.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(opened: Opened, report: impl Fn(Report) + Send + 'static) -> std::io::Result<Self> {
        let writer = Mutex::new(Some(opened.writer));
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), writer });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("storage".into()).spawn(move || run(&theirs, &report))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues entries. Their ticket is reported when they, and all before them, are durable. Somebody waits for urgent
    /// ones; the others go with the next group.
    pub fn append(&self, entries: impl IntoIterator<Item = Entry>, urgent: bool) -> Ticket {
        let mut queue = lock(&self.shared.queue);
        let ticket = queue.push(entries);
        let wake = queue.idle || (urgent && !queue.urgent);
        queue.urgent |= urgent;
        queue.idle = false;
        drop(queue);
        if wake {
            self.shared.wake.notify_one();
        }
        ticket
    }

    /// Writes what is queued and these entries in the calling thread, and reports.
    ///
    /// # Errors
    /// The entries, when the thread is just writing or the disk has failed: they are to be queued.
    pub fn write_here(&self, entries: Vec<Entry>) -> Result<Report, Vec<Entry>> {
        let mut writer = match self.shared.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(entries),
        };
        if writer.is_none() {
            return Err(entries);
        }
        let mut queue = lock(&self.shared.queue);
        queue.push(entries);
        let (entries, ticket) = queue.take().expect("it was just filled");
        drop(queue);
        Ok(write(&mut writer, entries, ticket).expect("it has not failed before"))
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        lock(&self.shared.queue).bytes
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its panic was printed where it happened; there is nothing to add to it here.
            drop(thread.join());
        }
    }
}

fn bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Block { bytes, .. } | Entry::Commit { proof: bytes, .. } | Entry::Register(bytes) => bytes.len(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(shared: &Shared, report: &impl Fn(Report)) {
    while wait(shared) {
        let mut writer = lock(&shared.writer);
        let Some((entries, ticket)) = lock(&shared.queue).take() else { continue };
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
    Some(match groups(entries).try_for_each(|group| open.append(&group)) {
        Ok(()) => Report::Durable { ticket, took: start.elapsed(), entries: count },
        Err(error) => {
            *writer = None;
            Report::Failed(error)
        }
    })
}

/// Waits until something is due; false when it is time to end and nothing is left.
fn wait(shared: &Shared) -> bool {
    let mut queue = lock(&shared.queue);
    loop {
        match queue.since {
            None if queue.stop => return false,
            None => {
                queue.idle = true;
                queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle = false;
            }
            Some(since) => {
                let due = since + LAZY;
                let now = Instant::now();
                if queue.urgent || queue.stop || due <= now || queue.bytes >= GROUP_BYTES_MAX {
                    return true;
                }
                queue = shared.wake.wait_timeout(queue, due - now).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Cuts at the bound of a group, always keeping the order.
fn groups(entries: Vec<Entry>) -> impl Iterator<Item = Vec<Entry>> {
    let mut rest = entries.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut group = vec![rest.next()?];
        let mut size = bytes(&group[0]);
        while let Some(entry) = rest.next_if(|entry| size + bytes(entry) <= GROUP_BYTES_MAX) {
            size += bytes(&entry);
            group.push(entry);
        }
        Some(group)
    })
}
