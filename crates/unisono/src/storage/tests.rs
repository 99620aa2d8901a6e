//! The thread that writes, on real files that can be told to fail.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use unisono_node::log::{Entry, Group, LogSettings, Opened, create, open};
use unisono_trusted::{RegisterRecord, RegisterState};
use unisono_types::{
    Bytes, ClusterId, Digest, Incarnation, PublicKey, RegisterId, RegisterView, SequenceNumber, Step, VotePosition,
};

const REGISTER: RegisterId = RegisterId {
    cluster: ClusterId([7; 16]),
    group: 0,
    replica: ReplicaId(1),
    incarnation: Incarnation(0),
    key: PublicKey([9; 32]),
};

const SETTINGS: LogSettings = LogSettings { segment_bytes: 64 << 10, ..LogSettings::new(REGISTER, |_| None) };

/// A real disk on which, from some operation on, every write and sync fails.
struct Failing {
    disk: RealDisk,
    left: Arc<AtomicU64>,
    kind: io::ErrorKind,
}

struct FailingFile {
    file: Box<dyn DiskFile>,
    left: Arc<AtomicU64>,
    kind: io::ErrorKind,
}

fn operation(left: &AtomicU64, kind: io::ErrorKind) -> io::Result<()> {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    taken.map(drop).map_err(|_| kind.into())
}

impl Failing {
    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FailingFile { file, left: Arc::clone(&self.left), kind: self.kind })
    }
}

impl Disk for Failing {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        operation(&self.left, self.kind)?;
        Ok(self.file(self.disk.create(name, bytes)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        operation(&self.left, self.kind)?;
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        operation(&self.left, self.kind)?;
        self.disk.sync_directory()
    }

    fn path(&self, name: &str) -> String {
        self.disk.path(name)
    }

    fn salt(&self) -> io::Result<[u8; 32]> {
        self.disk.salt()
    }
}

impl DiskFile for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        operation(&self.left, self.kind)?;
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        operation(&self.left, self.kind)?;
        self.file.sync()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

/// The directories of a new replica.
struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        create(&fixture.places(), SETTINGS).unwrap();
        fixture
    }

    fn places(&self) -> Places {
        let disk = Arc::new(RealDisk::shared(self.directory.path()));
        Places { log: disk.clone(), key: disk }
    }

    fn open(&self) -> Opened {
        open(&self.places(), SETTINGS).unwrap()
    }

    /// Opened, and failing after so many further operations.
    fn failing(&self, operations: u64, kind: io::ErrorKind) -> Opened {
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let disk = RealDisk::shared(self.directory.path());
        let failing = Arc::new(Failing { disk, left: Arc::clone(&left), kind });
        let opened = open(&Places { log: failing.clone(), key: failing }, SETTINGS).unwrap();
        left.store(operations, Ordering::Relaxed);
        opened
    }
}

fn block(sequence: u64) -> Entry {
    let bytes = Bytes::from(vec![1; 50]);
    Entry::Block { sequence: SequenceNumber(sequence), hash: Digest([sequence as u8; 32]), bytes }
}

fn register(version: u64) -> Entry {
    let vote = VotePosition { view: RegisterView(0), step: Step(version), hash: Digest([1; 32]) };
    Entry::Register(RegisterRecord {
        id: REGISTER,
        state: RegisterState { view: vote.view, step: vote.step, last: vote },
    })
}

fn group(ticket: u64, entries: impl IntoIterator<Item = Entry>, urgent: bool) -> Group {
    Group { ticket, entries: entries.into_iter().collect(), urgent }
}

#[test]
fn a_full_disk_and_a_failed_sync_say_what_to_do_and_end_it() {
    let kinds = [(io::ErrorKind::StorageFull, "is full: free some space"), (io::ErrorKind::Other, "has stopped")];
    for (kind, text) in kinds {
        let fixture = Fixture::new();
        let log = fixture.failing(1, kind); // the write succeeds, its sync fails
        let (sender, reports) = std::sync::mpsc::channel();
        let thread = LogThread::start(log.writer, move |report| drop(sender.send(report))).unwrap();
        thread.append(group(1, [block(1)], true));
        let Report::Failed(error) = reports.recv().unwrap() else { panic!("nothing may be reported durable") };
        assert!(error.to_string().contains(text), "{error}");
        thread.append(group(2, [block(2)], true));
        drop(thread);
        assert!(reports.recv().is_err(), "after a failure nothing is answered any more");
    }
}

#[test]
fn the_thread_answers_in_order_and_seals_at_the_end() {
    let fixture = Fixture::new();
    let (sender, reports) = std::sync::mpsc::channel();
    let thread = LogThread::start(fixture.open().writer, move |report| drop(sender.send(report))).unwrap();
    for sequence in 1..=100 {
        thread.append(group(sequence, [block(sequence), register(sequence)], sequence % 3 == 0));
    }
    drop(thread);
    let mut durable = 0;
    for report in reports {
        let Report::Durable { ticket, .. } = report else { panic!("the disk is fine") };
        assert!(ticket > durable);
        durable = ticket;
    }
    assert_eq!(durable, 100);
    let recovered = fixture.open().recovered;
    assert_eq!((recovered.register.step, recovered.blocks.len(), recovered.lost), (Step(100), 100, None));
}

#[test]
fn a_caller_with_time_writes_what_is_queued_too_and_in_order() {
    let fixture = Fixture::new();
    let (sender, reports) = std::sync::mpsc::channel();
    let thread = LogThread::start(fixture.open().writer, move |report| drop(sender.send(report))).unwrap();
    for sequence in 1..=100 {
        thread.append(group(2 * sequence - 1, [register(2 * sequence - 1)], sequence % 2 == 0));
        let last = 2 * sequence;
        match thread.write_here(group(last, [block(sequence), register(last)], true)) {
            Ok(Report::Durable { ticket, .. }) => assert_eq!(ticket, last, "and so is everything before it"),
            Ok(Report::Failed(error)) => panic!("the disk is fine: {error}"),
            // The thread was faster with what was queued.
            Err(group) => thread.append(group),
        }
    }
    drop(thread);
    for report in reports {
        assert!(matches!(report, Report::Durable { .. }), "{report:?}");
    }
    let recovered = fixture.open().recovered;
    assert_eq!((recovered.register.step, recovered.blocks.len()), (Step(200), 100));
}

#[test]
fn after_a_failure_here_nothing_is_written_or_answered_any_more() {
    let fixture = Fixture::new();
    let (sender, reports) = std::sync::mpsc::channel();
    let log = fixture.failing(1, io::ErrorKind::Other);
    let thread = LogThread::start(log.writer, move |report| drop(sender.send(report))).unwrap();
    assert!(matches!(thread.write_here(group(1, [block(1)], true)), Ok(Report::Failed(_))));
    let again = thread.write_here(group(2, [block(2)], true)).unwrap_err();
    thread.append(again);
    drop(thread);
    assert!(reports.recv().is_err());
}

#[test]
fn what_nothing_waits_for_is_written_all_the_same() {
    let fixture = Fixture::new();
    let (sender, reports) = std::sync::mpsc::channel();
    let thread = LogThread::start(fixture.open().writer, move |report| drop(sender.send(report))).unwrap();
    thread.append(group(1, [block(1)], false));
    assert!(matches!(reports.recv().unwrap(), Report::Durable { ticket: 1, .. }));
}

#[test]
fn a_directory_is_used_by_one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::lock(directory.path()).unwrap();
    assert!(matches!(RealDisk::lock(directory.path()), Err(StorageError::Locked(_))));
    drop(disk);
    RealDisk::lock(directory.path()).unwrap();
}
