//! The thread that writes: takes everything that is queued, writes it as one group, syncs once, reports.

use super::recover::Opened;
use super::write::Writer;
use super::{Entry, StorageError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    entries: Vec<Entry>,
    bytes: usize,
    /// Of the newest entry.
    ticket: Ticket,
    urgent: bool,
    since: Option<Instant>,
    stop: bool,
}

impl LogThread {
    /// Starts the writer of an opened log.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(opened: Opened, report: impl Fn(Report) + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("storage".into()).spawn(move || run(opened.writer, &theirs, &report))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues entries. Their ticket is reported when they, and all before them, are durable. Somebody waits for urgent
    /// ones; the others go with the next group.
    pub fn append(&self, entries: impl IntoIterator<Item = Entry>, urgent: bool) -> Ticket {
        let mut queue = lock(&self.shared.queue);
        queue.ticket += 1;
        for entry in entries {
            queue.bytes += bytes(&entry);
            queue.entries.push(entry);
        }
        queue.since.get_or_insert_with(Instant::now);
        let wake = (urgent && !queue.urgent) || queue.entries.len() == 1;
        queue.urgent |= urgent;
        let ticket = queue.ticket;
        drop(queue);
        if wake {
            self.shared.wake.notify_one();
        }
        ticket
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

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(mut writer: Writer, shared: &Shared, report: &impl Fn(Report)) {
    while let Some((entries, ticket)) = next(shared) {
        let start = Instant::now();
        let count = entries.len();
        let result = groups(entries).try_for_each(|group| writer.append(&group));
        match result {
            Ok(()) => report(Report::Durable { ticket, took: start.elapsed(), entries: count }),
            Err(error) => {
                // After a failed sync nobody knows what the disk holds: not one answer more.
                report(Report::Failed(error));
                return;
            }
        }
    }
    if let Err(error) = writer.seal() {
        report(Report::Failed(error));
    }
}

/// Waits for work; `None` when it is time to end and nothing is left.
fn next(shared: &Shared) -> Option<(Vec<Entry>, Ticket)> {
    let mut queue = lock(&shared.queue);
    loop {
        match queue.since {
            None if queue.stop => return None,
            None => queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(since) => {
                let due = since + LAZY;
                let now = Instant::now();
                if queue.urgent || queue.stop || due <= now || queue.bytes >= GROUP_BYTES_MAX {
                    queue.urgent = false;
                    queue.since = None;
                    queue.bytes = 0;
                    return Some((std::mem::take(&mut queue.entries), queue.ticket));
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
