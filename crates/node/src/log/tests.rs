//! The log on a disk in memory that can lose what was not synced, flip bytes and fail on demand.

use super::record::{HEADER_BYTES, segment_name};
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use unisono_consensus::ClockReading;
use unisono_trusted::RegisterState;
use unisono_types::{Incarnation, PublicKey, RegisterView, Step, VotePosition};

type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Default)]
struct MemoryDisk(Arc<Mutex<Memory>>);

#[derive(Clone, Default)]
struct Memory {
    /// What reads see.
    now: Files,
    /// What a crash leaves, of files whose names it leaves.
    synced: Files,
    named: BTreeSet<String>,
    /// Writes and syncs until everything fails, and how.
    fails_after: Option<(u64, io::ErrorKind)>,
    operations: u64,
}

impl Memory {
    fn left(&self) -> Files {
        let named = self.synced.iter().filter(|(name, _)| self.named.contains(*name));
        named.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
    }

    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.fails_after {
            Some((limit, kind)) if self.operations > limit => Err(kind.into()),
            _ => Ok(()),
        }
    }
}

impl MemoryDisk {
    fn with(files: Files) -> Self {
        let named = files.keys().cloned().collect();
        Self(Arc::new(Mutex::new(Memory { now: files.clone(), synced: files, named, ..Memory::default() })))
    }

    fn files(&self) -> Files {
        self.0.lock().unwrap().now.clone()
    }

    /// What is left when the power fails now.
    fn crashed(&self) -> Self {
        Self::with(self.0.lock().unwrap().left())
    }

    /// The same machine for another process: what was not synced is seen and not safe.
    fn killed(&self) -> Self {
        Self(Arc::new(Mutex::new(Memory { fails_after: None, ..self.0.lock().unwrap().clone() })))
    }

    /// The same, and what of the mark was written and not synced is neither what it was nor what it should be.
    fn crashed_in_the_mark(&self) -> Self {
        let memory = self.0.lock().unwrap();
        let mut files = memory.left();
        if let Some(synced) = files.get_mut(MARK_FILE) {
            let written = synced.iter_mut().zip(&memory.now[MARK_FILE]).filter(|(synced, now)| synced != now);
            written.for_each(|(synced, now)| *synced = !*now);
        }
        Self::with(files)
    }

    fn fail_after(&self, operations: u64, kind: io::ErrorKind) {
        let mut memory = self.0.lock().unwrap();
        memory.fails_after = Some((memory.operations + operations, kind));
    }

    fn places(&self) -> Places {
        Places { log: Arc::new(self.clone()), key: Arc::new(self.clone()) }
    }
}

struct MemoryFile(MemoryDisk, String);

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().into_keys().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut memory = self.0.lock().unwrap();
        memory.operation()?;
        assert!(!memory.now.contains_key(name), "{name} exists");
        memory.now.insert(name.into(), vec![0; usize::try_from(bytes).unwrap()]);
        Ok(Box::new(MemoryFile(self.clone(), name.into())))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        if !self.files().contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(MemoryFile(self.clone(), name.into())))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        memory.operation()?;
        memory.now.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        memory.operation()?;
        let Memory { now, synced, named, .. } = &mut *memory;
        for (name, bytes) in &*now {
            synced.entry(name.clone()).or_insert_with(|| vec![0; bytes.len()]);
        }
        *named = now.keys().cloned().collect();
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        format!("memory/{name}")
    }

    fn salt(&self) -> io::Result<[u8; 32]> {
        let files = self.files().len() as u8;
        Ok([files; 32])
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let memory = self.0.0.lock().unwrap();
        let bytes = &memory.now[&self.1];
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        let mut memory = self.0.0.lock().unwrap();
        memory.operation()?;
        let start = usize::try_from(offset).unwrap();
        memory.now.get_mut(&self.1).unwrap()[start..start + written.len()].copy_from_slice(written);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut memory = self.0.0.lock().unwrap();
        memory.operation()?;
        let bytes = memory.now[&self.1].clone();
        memory.synced.insert(self.1.clone(), bytes);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().unwrap().now[&self.1].len() as u64)
    }
}

const REGISTER: RegisterId = RegisterId {
    cluster: ClusterId([7; 16]),
    group: 0,
    replica: ReplicaId(1),
    incarnation: Incarnation(0),
    key: PublicKey([9; 32]),
};

const SETTINGS: LogSettings = LogSettings { segment_bytes: 12 << 10, ..LogSettings::new(REGISTER, parent) };

/// Forks begin behind block 1.
fn parent(block: &Bytes) -> Option<Digest> {
    let sequence = u64::from_le_bytes(*block.first_chunk()?);
    Some(digest(sequence - 1, if sequence == 2 { 0 } else { *block.get(8)? }))
}

fn digest(sequence: u64, fork: u8) -> Digest {
    Digest::of("test", &[&sequence.to_le_bytes(), &[fork]])
}

fn content(sequence: u64, fork: u8, length: usize) -> Bytes {
    Bytes::from([&sequence.to_le_bytes()[..], &[fork], &vec![fork ^ 0x5a; length]].concat())
}

fn block(sequence: u64, fork: u8, length: usize) -> Entry {
    Entry::Block {
        sequence: SequenceNumber(sequence),
        hash: digest(sequence, fork),
        bytes: content(sequence, fork, length),
    }
}

fn commit(sequence: u64, fork: u8) -> Entry {
    let proof = Bytes::from(format!("proof {sequence}"));
    Entry::Commit { sequence: SequenceNumber(sequence), hash: digest(sequence, fork), proof }
}

fn record(version: u8) -> RegisterRecord {
    record_in(0, version)
}

fn record_in(view: u64, version: u8) -> RegisterRecord {
    let vote = VotePosition { view: RegisterView(view), step: Step(version.into()), hash: Digest([version; 32]) };
    RegisterRecord { id: REGISTER, state: RegisterState { view: vote.view, step: vote.step, last: vote } }
}

fn register(version: u8) -> Entry {
    Entry::Register(record(version))
}

/// A vote in every third view, so that the mark is synced now and then.
fn vote(version: u8) -> Entry {
    Entry::Register(record_in(3 * u64::from(version), version))
}

fn opened(disk: &MemoryDisk) -> Opened {
    open(&disk.places(), SETTINGS).unwrap()
}

/// A disk with the log of a new replica.
fn fresh() -> MemoryDisk {
    let disk = MemoryDisk::default();
    create(&disk.places(), SETTINGS).unwrap();
    disk
}

fn sequences(blocks: &[CommittedBlock]) -> Vec<u64> {
    blocks.iter().map(|block| block.sequence.0).collect()
}

/// Block `n` with the register's vote, then its commit with the next block, as a replica writes.
fn written(disk: &MemoryDisk, blocks: u64, length: usize) -> Opened {
    let mut log = opened(disk);
    for sequence in 1..=blocks {
        let mut group = vec![block(sequence, 0, length), register(u8::try_from(sequence).unwrap())];
        if sequence > 1 {
            group.insert(0, commit(sequence - 1, 0));
        }
        log.writer.append(&group).unwrap();
    }
    log
}

fn version(recovered: &Recovered) -> Option<u8> {
    assert_eq!(recovered.lost, None);
    u8::try_from(recovered.register.step.0).ok().filter(|version| *version > 0)
}

#[test]
fn what_was_written_is_there_again_over_many_segments() {
    let disk = fresh();
    let log = written(&disk, 40, 700);
    assert!(disk.files().len() > 4, "several segments");
    assert_eq!(sequences(&log.reader.committed(SequenceNumber(1), 1 << 20).unwrap()), (1..40).collect::<Vec<_>>());
    drop(log);
    let log = opened(&disk.crashed());
    let recovered = &log.recovered;
    assert_eq!(version(recovered), Some(40));
    let committed = recovered.committed.as_ref().unwrap();
    assert_eq!((committed.sequence.0, &committed.bytes), (39, &content(39, 0, 700)));
    assert_eq!(committed.proof, "proof 39");
    assert_eq!(recovered.blocks, [content(40, 0, 700)]);
    assert_eq!((recovered.torn.clone(), recovered.damaged_copies), (None, 0));
    for from in 1..40 {
        let read = log.reader.committed(SequenceNumber(from), 1500).unwrap();
        assert_eq!(sequences(&read), (from..40.min(from + 2)).collect::<Vec<_>>(), "two blocks and not a third");
        assert!(read.iter().all(|block| block.bytes == content(block.sequence.0, 0, 700)));
    }
    assert!(log.reader.committed(SequenceNumber(40), 1 << 20).unwrap().is_empty());
}

#[test]
fn a_new_log_holds_nothing_and_a_block_larger_than_a_segment_fits() {
    let disk = fresh();
    let mut log = opened(&disk);
    assert!(
        log.recovered.register == RegisterState::default()
            && log.recovered.committed.is_none()
            && log.recovered.blocks.is_empty()
    );
    assert!(log.reader.committed(SequenceNumber(1), 100).unwrap().is_empty());
    log.writer.append(&[block(1, 0, 50_000), register(1)]).unwrap();
    log.writer.append(&[commit(1, 0), block(2, 0, 10)]).unwrap();
    let log = opened(&disk.crashed());
    assert_eq!(log.reader.committed(SequenceNumber(1), 1).unwrap()[0].bytes, content(1, 0, 50_000));
    assert_eq!(log.recovered.blocks, [content(2, 0, 10)]);
}

#[test]
fn of_two_forks_the_committed_one_is_read() {
    let disk = fresh();
    let mut log = opened(&disk);
    let fork = [block(1, 0, 10), block(2, 1, 10), block(3, 1, 10), block(2, 2, 20), block(3, 2, 20)];
    log.writer.append(&fork).unwrap();
    log.writer.append(&[commit(1, 0), commit(2, 2)]).unwrap();
    log.writer.append(&[block(4, 2, 5)]).unwrap();
    let log = opened(&disk.crashed());
    let read = log.reader.committed(SequenceNumber(1), 1 << 20).unwrap();
    assert_eq!(read.iter().map(|block| block.hash).collect::<Vec<_>>(), [digest(1, 0), digest(2, 2)]);
    assert_eq!(log.recovered.blocks, [content(3, 1, 10), content(3, 2, 20), content(4, 2, 5)]);
}

#[test]
fn a_commit_stands_for_all_blocks_below_it_by_their_parents() {
    let disk = fresh();
    let mut log = opened(&disk);
    log.writer.append(&[block(1, 0, 10), block(2, 1, 10), block(3, 1, 10), block(2, 2, 20), block(3, 2, 20)]).unwrap();
    log.writer.append(&[commit(3, 1), block(4, 1, 30), commit(4, 1)]).unwrap();
    let hashes = |from, bytes| -> Vec<Digest> {
        log.reader.committed(SequenceNumber(from), bytes).unwrap().iter().map(|block| block.hash).collect()
    };
    assert_eq!(hashes(1, 1 << 20), [digest(1, 0), digest(2, 1), digest(3, 1), digest(4, 1)]);
    assert_eq!(hashes(2, 1), [digest(2, 1), digest(3, 1)], "cut only where there is a proof");
    let read = log.reader.committed(SequenceNumber(2), 1).unwrap();
    assert_eq!((read[0].proof.len(), &read[1].proof[..]), (0, &b"proof 3"[..]));
}

#[test]
fn the_newest_of_several_register_states_in_one_group_counts() {
    let disk = fresh();
    let mut log = opened(&disk);
    log.writer.append(&[register(1), block(1, 0, 10), register(2), block(2, 0, 10)]).unwrap();
    drop(log);
    let log = opened(&disk.crashed());
    assert_eq!((version(&log.recovered), log.recovered.blocks.len()), (Some(2), 2));
}

#[test]
fn a_tail_torn_at_any_byte_is_left_behind_and_nothing_answered_is_lost() {
    let disk = fresh();
    let mut log = written(&disk, 2, 300);
    let (segment, before) = (segment_name(1), disk.files());
    log.writer.append(&[commit(2, 0), block(3, 0, 700), register(3)]).unwrap();
    drop(log);
    let after = disk.files();
    let changed: Vec<usize> =
        (0..after[&segment].len()).filter(|index| before[&segment][*index] != after[&segment][*index]).collect();
    let (first, last) = (changed[0], *changed.last().unwrap());
    // Either the front reached the disk or the back did: a disk may write in any order.
    for cut in first..=last + 1 {
        for front in [true, false] {
            let mut files = before.clone();
            let range = if front { first..cut } else { cut..last + 1 };
            files.get_mut(&segment).unwrap()[range.clone()].copy_from_slice(&after[&segment][range.clone()]);
            let torn = MemoryDisk::with(files);
            let log = opened(&torn);
            let found = version(&log.recovered).unwrap();
            assert!(found == 2 || found == 3, "cut {cut} {front}");
            assert_eq!(sequences(&log.reader.committed(SequenceNumber(1), 1 << 20).unwrap())[0], 1);
            let held: Vec<_> =
                log.recovered.committed.iter().map(|block| &block.bytes).chain(&log.recovered.blocks).collect();
            assert!(held.contains(&&content(2, 0, 300)), "cut {cut} {front}");
            if range.is_empty() {
                assert_eq!(log.recovered.torn, None);
            }
            drop(log);
            // The second start finds what the first one left, and says the same.
            let again = opened(&torn.crashed());
            assert_eq!(version(&again.recovered), Some(found), "cut {cut} {front}");
            assert_eq!(again.recovered.torn, None);
        }
    }
}

#[test]
fn a_vote_whose_block_is_torn_off_was_not_told_unless_the_mark_says_so() {
    let voted_in = |view, sequence: u64| {
        let (view, step, hash) = (RegisterView(view), Step(sequence), digest(sequence, 0));
        let last = VotePosition { view, step, hash };
        Entry::Register(RegisterRecord { id: REGISTER, state: RegisterState { view, step, last } })
    };
    let voted = |sequence| voted_in(0, sequence);
    let left_view = |view, sequence: u64| {
        let (view, step, hash) = (RegisterView(view), Step(sequence), digest(sequence, 0));
        let state = RegisterState { view, step: Step(0), last: VotePosition { view: RegisterView(0), step, hash } };
        Entry::Register(RegisterRecord { id: REGISTER, state })
    };
    let disk = fresh();
    let mut log = opened(&disk);
    log.writer.append(&[block(1, 0, 700), voted(1)]).unwrap();
    let before = disk.files();
    let at = |state: RegisterState| (state.view.0, state.step.0);
    for (entries, torn, told) in [
        (vec![block(2, 0, 3_000), voted(2)], (0, 1), (0, 2)),
        (vec![left_view(1, 1), commit(1, 0)], (1, 0), (1, 0)), // the vote before has its block
    ] {
        let disk = MemoryDisk::with(before.clone());
        let mut log = opened(&disk);
        let start = disk.files();
        log.writer.append(&entries).unwrap();
        let (segment, after) = (segment_name(1), disk.files());
        let changed = |index: &usize| start[&segment][*index] != after[&segment][*index];
        let first = (0..after[&segment].len()).find(changed).unwrap();
        let mut files = after.clone();
        files.get_mut(&segment).unwrap()[first..first + 40].fill(0); // the first record of the group
        let of = |files: Files| at(open(&MemoryDisk::with(files).places(), SETTINGS).unwrap().recovered.register);
        assert_eq!(of(files.clone()), told, "the mark has followed");
        assert_eq!(of(with_mark_of(&files, &start)), torn, "not told");

        // The next start writes behind the torn tail, which says nothing any more.
        let disk = MemoryDisk::with(files);
        let mut log = opened(&disk);
        log.writer.append(&[block(3, 0, 10), block(4, 0, 10), voted_in(9, 3)]).unwrap();
        log.writer.append(&[commit(4, 0)]).unwrap();
        assert_eq!(of(with_mark_of(&disk.files(), &start)), (9, 3), "also by an older mark");
    }
}

#[test]
fn a_start_that_is_cut_off_at_any_write_can_be_repeated() {
    let disk = fresh();
    let mut log = written(&disk, 2, 300);
    log.writer.append(&[commit(2, 0), block(3, 0, 700), register(3)]).unwrap();
    let mut files = disk.files();
    let bytes = files.get_mut(&segment_name(1)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used - 900] ^= 1; // in the middle of the last group
    for operations in 0..12 {
        let torn = MemoryDisk::with(files.clone());
        torn.fail_after(operations, io::ErrorKind::Other);
        let first = open(&torn.places(), SETTINGS);
        let done = first.is_ok();
        drop(first);
        let log = opened(&torn.crashed());
        assert_eq!(version(&log.recovered), Some(3), "after {operations} operations");
        assert_eq!(sequences(&log.reader.committed(SequenceNumber(1), 1 << 20).unwrap())[..1], [1]);
        if done {
            assert!(operations >= 4, "a new segment was made and written");
        }
    }
}

#[test]
fn a_segment_that_was_never_written_to_is_in_nobodys_way() {
    // The process ended while it made the next segment, which the one after it does not need at once.
    let disk = fresh();
    drop(written(&disk, 1, 100));
    let mut files = disk.files();
    files.insert(segment_name(2), vec![0; 12 << 10]);
    let disk = MemoryDisk::with(files);
    let mut log = opened(&disk);
    for sequence in 2..=20 {
        log.writer.append(&[block(sequence, 0, 700), register(u8::try_from(sequence).unwrap())]).unwrap();
    }
    assert!(disk.files().len() > 3, "several segments");
    assert_eq!(version(&opened(&disk.crashed()).recovered), Some(20));
}

#[test]
fn a_flipped_byte_is_found_or_does_no_harm() {
    let disk = fresh();
    let mut log = written(&disk, 8, 120);
    log.writer.seal().unwrap();
    drop(log);
    let files = disk.files();
    assert!(files.len() > 2, "more than one segment");
    let (mut damaged, mut harmless) = (0, 0);
    for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("log-")) {
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for index in 0..=used {
            let mut files = files.clone();
            files.get_mut(name).unwrap()[index] ^= 0x40;
            match open(&MemoryDisk::with(files.clone()).places(), SETTINGS) {
                Err(StorageError::Corrupt { .. }) => damaged += 1,
                Err(other) => assert!(index < 512, "{name} {index}: {other}"),
                Ok(log) => {
                    // In padding, in one copy of the register, or in the seal itself.
                    harmless += 1;
                    assert_eq!(version(&log.recovered), Some(8), "{name} {index}");
                    assert_eq!(log.reader.committed(SequenceNumber(1), 1 << 20).unwrap().len(), 7, "{name} {index}");
                    assert_eq!(log.recovered.blocks, [content(8, 0, 120)], "{name} {index}");
                }
            }
        }
    }
    assert!(damaged > 2_000 && harmless > 2_000, "{damaged} {harmless}");
}

#[test]
fn one_copy_of_the_register_is_enough_even_in_the_last_group() {
    let disk = fresh();
    drop(written(&disk, 3, 100));
    let files = disk.files();
    let bytes = &files[&segment_name(1)];
    let state = record(3).encode();
    let copies: Vec<usize> = (0..bytes.len() - 159).filter(|at| bytes[*at..at + 159] == state[..]).collect();
    assert_eq!(copies.len(), 2);
    assert!((copies[0] + state.len() - 1) / 512 < copies[1] / 512, "in two sectors");
    for (first, second) in [(true, false), (false, true), (true, true)] {
        let mut files = files.clone();
        let bytes = files.get_mut(&segment_name(1)).unwrap();
        for (at, broken) in copies.iter().zip([first, second]) {
            bytes[*at + 80] ^= u8::from(broken);
        }
        let recovered = opened(&MemoryDisk::with(files)).recovered;
        if first && second {
            assert_eq!(recovered.lost, Some(Lost::Short));
        } else {
            assert_eq!((version(&recovered), recovered.damaged_copies), (Some(3), 1), "{first} {second}");
        }
    }
}

#[test]
fn bytes_of_a_client_never_pass_for_a_record() {
    let disk = fresh();
    let mut log = written(&disk, 1, 100);
    let copy = disk.files()[&segment_name(1)].clone();
    // A block that holds an image of the segment, as the segment had it: from a sector's start on.
    log.writer.append(&[block(2, 0, 10)]).unwrap();
    let image = [&[1; 512 - HEADER_BYTES - 40][..], &copy[512..3000]].concat();
    let forged = Entry::Block { sequence: SequenceNumber(3), hash: digest(3, 0), bytes: image.into() };
    log.writer.append(&[forged, register(9)]).unwrap();
    drop(log);
    let mut files = disk.files();
    let bytes = files.get_mut(&segment_name(1)).unwrap();
    let needle = copy[512..600].to_vec();
    let at = (1024..bytes.len()).find(|at| bytes[*at..].starts_with(&needle)).unwrap();
    assert_eq!(at % 512, 0, "where a record may begin");
    bytes[at - HEADER_BYTES - 40] ^= 1; // tears the record that holds the images
    let log = opened(&MemoryDisk::with(files));
    assert_eq!(version(&log.recovered), Some(9), "the register's record of the torn group");
    assert_eq!(log.recovered.blocks, [content(1, 0, 100), content(2, 0, 10)]);
}

#[test]
fn a_log_that_is_gone_missing_a_part_or_anothers_is_refused() {
    let disk = fresh();
    drop(written(&disk, 40, 700));
    let refused = |files: Files, register: RegisterId| {
        let settings = LogSettings { register, ..SETTINGS };
        open(&MemoryDisk::with(files).places(), settings).unwrap_err().to_string()
    };
    let mut hole = disk.files();
    hole.remove(&segment_name(2));
    assert!(refused(hole, REGISTER).contains("log-00000002 is missing"));
    let other = RegisterId { replica: ReplicaId(2), ..REGISTER };
    assert!(refused(disk.files(), other).contains("another replica"));
    let other = RegisterId { cluster: ClusterId([8; 16]), ..REGISTER };
    assert!(refused(disk.files(), other).contains("another cluster"));
    let mut swapped = disk.files();
    let second = swapped[&segment_name(2)].clone();
    swapped.insert(segment_name(3), second);
    assert!(refused(swapped, REGISTER).contains("belongs to another"));
    let mut erased = disk.files();
    erased.get_mut(&segment_name(1)).unwrap()[2048..4096].fill(0);
    assert!(refused(erased, REGISTER).contains("is damaged"), "a page of zeros in the middle");
    let mut cut = disk.files();
    cut.get_mut(&segment_name(1)).unwrap().truncate(2048);
    assert!(refused(cut, REGISTER).contains("shorter than it was made"));
    let other = RegisterId { key: PublicKey([1; 32]), ..REGISTER };
    assert!(refused(disk.files(), other).contains("register.key was exchanged"));
}

fn lost(files: Files) -> Option<Lost> {
    let disk = MemoryDisk::with(files);
    let first = open(&disk.places(), SETTINGS).unwrap().recovered.lost;
    // Whatever the follower writes into its log, a later start finds the same.
    let mut log = open(&disk.places(), SETTINGS).unwrap();
    log.writer.append(&[block(1, 0, 10), register(200)]).unwrap();
    log.writer.seal().unwrap();
    assert_eq!(open(&disk.places(), SETTINGS).unwrap().recovered.lost, first);
    first
}

#[test]
fn a_register_whose_log_is_empty_older_or_cut_short_is_silent_for_ever() {
    let disk = fresh();
    let new = disk.files();
    let mut log = written(&disk, 20, 700);
    log.writer.seal().unwrap();
    let stopped = disk.files();
    drop(written(&disk, 40, 700));
    let killed = disk.files();
    assert_eq!(open(&MemoryDisk::with(killed.clone()).places(), SETTINGS).unwrap().recovered.lost, None);
    assert_eq!(lost(with_mark_of(&Files::new(), &killed)), Some(Lost::Empty));
    assert_eq!(lost(with_mark_of(&new, &killed)), Some(Lost::Older), "as init made it");
    assert_eq!(lost(with_mark_of(&stopped, &killed)), Some(Lost::Older), "a copy made at a stop");
    assert_eq!(lost(with_mark_of(&killed, &new)), Some(Lost::OlderMark));
    let mut without = killed.clone();
    without.remove(MARK_FILE);
    assert_eq!(lost(without), Some(Lost::NoMark));
    let last = segment_name(killed.keys().filter(|name| name.starts_with("log-")).count() as u64);
    let mut shorter = killed.clone();
    shorter.remove(&last);
    assert_eq!(lost(shorter), Some(Lost::Short));
    // After a stop in order every vote counts, even one that a torn write could have lost.
    let mut zeroed = stopped.clone();
    let newest = segment_name(stopped.keys().filter(|name| name.starts_with("log-")).count() as u64);
    let bytes = zeroed.get_mut(&newest).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used - 2_000..].fill(0);
    assert_eq!(lost(zeroed), Some(Lost::Short));
}

#[test]
fn a_mark_torn_at_any_write_is_the_one_before() {
    for operations in 0..40 {
        let disk = fresh();
        disk.fail_after(operations, io::ErrorKind::Other);
        if let Ok(mut log) = open(&disk.places(), SETTINGS) {
            for version in 1..=6 {
                let written = log.writer.append(&[block(version.into(), 0, 3_000), vote(version)]);
                if written.is_err() {
                    break;
                }
            }
        }
        for left in [disk.crashed(), disk.crashed_in_the_mark(), MemoryDisk::with(disk.files())] {
            assert_eq!(opened(&left).recovered.lost, None, "after {operations} operations");
        }
    }
}

fn with_mark_of(log: &Files, mark: &Files) -> Files {
    let mut files = log.clone();
    files.insert(MARK_FILE.into(), mark[MARK_FILE].clone());
    files
}

#[test]
fn after_a_kill_an_older_copy_is_known_however_young_it_is() {
    let disk = fresh();
    let mut log = opened(&disk);
    let mut moments = vec![(disk.files(), disk.crashed().files())];
    for version in 1..=20 {
        log.writer.append(&[block(version.into(), 0, 700), vote(version)]).unwrap();
        moments.push((disk.files(), disk.crashed().files()));
    }
    assert!(disk.files().len() > 3, "several segments");
    let judged = |files: Files| open(&MemoryDisk::with(files).places(), SETTINGS).unwrap().recovered.lost;
    let mut passed = 0;
    for (copied, (copy, _)) in moments.iter().enumerate() {
        for (ended, (killed, without_power)) in moments.iter().enumerate().skip(copied) {
            let older = ended > copied;
            assert_eq!(judged(with_mark_of(copy, killed)), older.then_some(Lost::Short), "{copied} {ended}");
            passed += u64::from(judged(with_mark_of(copy, without_power)).is_none() && older);
        }
    }
    assert!(passed > 0, "what a loss of power takes from the mark is missing there");
    // A group without a vote moves nothing: the log of before is as good.
    let before = disk.files();
    log.writer.append(&[commit(20, 0)]).unwrap();
    assert_eq!(judged(with_mark_of(&before, &disk.files())), None);
}

#[test]
fn an_unsynced_mark_torn_at_any_byte_never_says_more_than_the_log() {
    let disk = fresh();
    let mut log = opened(&disk);
    for version in 1..=8 {
        log.writer.append(&[block(version.into(), 0, 100), vote(version)]).unwrap();
        let (before, after) = (disk.crashed().files(), disk.files());
        let (old, new) = (&before[MARK_FILE], &after[MARK_FILE]);
        let changed: Vec<usize> = (0..new.len()).filter(|at| old[*at] != new[*at]).collect();
        for cut in changed[0]..=changed[changed.len() - 1] + 1 {
            for (front, back) in [(new, old), (old, new)] {
                let torn = [&front[..cut], &back[cut..]].concat();
                let mut files = after.clone();
                files.insert(MARK_FILE.into(), torn);
                let recovered = opened(&MemoryDisk::with(files)).recovered;
                assert_eq!(self::version(&recovered), Some(version), "cut {cut}");
            }
        }
    }
}

#[test]
fn a_start_that_loses_its_power_at_any_write_after_a_kill_finds_a_mark_again() {
    for operations in 0..16 {
        let disk = fresh();
        let mut log = opened(&disk);
        for version in 1..=5 {
            log.writer.append(&[block(version.into(), 0, 100), vote(version)]).unwrap();
        }
        drop(log);
        disk.fail_after(operations, io::ErrorKind::Other);
        let _ = open(&disk.places(), SETTINGS);
        for left in [disk.crashed(), disk.crashed_in_the_mark()] {
            assert_eq!(version(&opened(&left).recovered), Some(5), "after {operations} operations");
        }
    }
}

#[test]
fn what_is_written_after_a_kill_at_any_write_outlives_a_loss_of_power() {
    for operations in 0..120 {
        let disk = fresh();
        let mut log = opened(&disk);
        disk.fail_after(operations, io::ErrorKind::Other);
        let group = |version: u8| [block(version.into(), 0, 700), register(version)];
        let answered = (1..=20).take_while(|version| log.writer.append(&group(*version)).is_ok()).count();
        let disk = disk.killed();
        let mut log = opened(&disk);
        let next = version(&log.recovered).unwrap_or(0) + 1;
        assert!(usize::from(next) > answered, "after {operations} operations");
        log.writer.append(&group(next)).unwrap();
        assert_eq!(version(&opened(&disk.crashed()).recovered), Some(next), "after {operations} operations");
    }
}

#[test]
fn what_the_clock_has_shown_is_there_with_the_vote_that_it_came_with() {
    let disk = fresh();
    let mut log = opened(&disk);
    let clock = |micros| ClockReading { after: SequenceNumber(4), micros };
    assert_eq!(log.recovered.clock, ClockReading::default());
    log.writer.append(&[Entry::Clock(clock(5)), vote(1)]).unwrap();
    log.writer.append(&[Entry::Clock(clock(7))]).unwrap();
    log.writer.append(&[block(1, 0, 100)]).unwrap();
    assert_eq!(opened(&disk.killed()).recovered.clock, clock(5), "without a vote it is not written");
    log.writer.append(&[Entry::Clock(clock(6)), vote(2)]).unwrap();
    assert_eq!(opened(&disk.killed()).recovered.clock, clock(6), "the last one, not the greatest");
    assert_eq!(
        opened(&disk.crashed()).recovered.clock,
        clock(5),
        "a loss of power leaves that of the last synced write"
    );
}

#[test]
fn a_group_that_the_mark_cannot_follow_is_there_and_was_not_answered() {
    let disk = fresh();
    let mut log = written(&disk, 2, 100);
    let group = [block(3, 0, 100), register(3)];
    disk.fail_after(2, io::ErrorKind::Other); // its write and its sync
    let error = log.writer.append(&group).unwrap_err().to_string();
    assert!(error.contains("writing of memory/register.mark failed"), "{error}");
    for left in [disk.crashed(), MemoryDisk::with(disk.files())] {
        assert_eq!(version(&opened(&left).recovered), Some(3));
    }
}

#[test]
fn a_replica_that_was_killed_and_then_stopped_without_a_vote_may_speak() {
    let disk = fresh();
    drop(written(&disk, 3, 100));
    for left in [disk.crashed(), MemoryDisk::with(disk.files())] {
        opened(&left).writer.seal().unwrap();
        assert_eq!(version(&opened(&left).recovered), Some(3));
    }
}
