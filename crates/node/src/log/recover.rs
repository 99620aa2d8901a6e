//! Opens a log: reads all of it once, tells a torn tail from damage, and begins a new group.
//!
//! ```text
//!   whole groups ... | nothing behind           -> go on behind them
//!   whole groups ... | part of the next group   -> torn tail: nobody was told of it. A new segment begins with a Start
//!                                                  that names its place; what is whole in it is written there again
//!   whole groups ... | damage | a later group   -> error: what was answered is damaged
//! ```

use super::disk::Disk;
use super::mark::{Found, Lost, Mark, MarkFile};
use super::read::LogReader;
use super::record::{
    FORMAT, Kind, Place, Salt, SegmentHeader, Start, decode_segment, segment_name, segment_number, split_block,
    split_register,
};
use super::scan::{Record, Segment, Walk};
use super::write::{Durable, Resume, Writer};
use super::{Entry, LogSettings, SECTOR_BYTES, StorageError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use unisono_consensus::{ClockReading, aphousia};
use unisono_trusted::{RegisterRecord, RegisterState};
use unisono_types::{Digest, SequenceNumber};

/// A log ready for use.
pub struct Opened {
    /// What it held.
    pub recovered: Recovered,
    /// Reads what is durable.
    pub reader: LogReader,
    /// Goes on behind it.
    pub writer: Writer,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("recovered", &self.recovered).finish_non_exhaustive()
    }
}

/// What a log held when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The newest state of the vote register; the first one, if `lost` says so.
    pub register: RegisterState,
    /// Why the vote register must not be used any more, if that is so.
    pub lost: Option<Lost>,
    /// The last block known to be decided, and the proof.
    pub committed: Option<super::CommittedBlock>,
    /// Blocks above it, in the order in which they were written.
    pub blocks: Vec<Bytes>,
    /// Where a torn tail was left behind, for the log of events.
    pub torn: Option<String>,
    /// Register records of which one copy was damaged.
    pub damaged_copies: u64,
    /// What the replica's clock had shown at best when it voted last.
    pub clock: ClockReading,
}

impl From<&Recovered> for aphousia::Recovered {
    fn from(found: &Recovered) -> Self {
        let committed = found.committed.as_ref();
        Self {
            register: found.register,
            proof: committed.map(|block| block.proof.clone()),
            committed: committed.map(|block| (block.sequence, block.hash, block.bytes.clone())),
            blocks: found.blocks.clone(),
            clock: found.clock,
        }
    }
}

/// The two directories of a replica's durable state: that of its log, and that of its register's key, where the mark is.
#[derive(Clone)]
pub struct Places {
    /// Of the log.
    pub log: Arc<dyn Disk>,
    /// Of the key.
    pub key: Arc<dyn Disk>,
}

/// Begins the log of a new replica, with the first record of its vote register, and the mark beside its key.
///
/// # Errors
/// [`StorageError`], also when there is a log or a mark already.
pub fn create(places: &Places, settings: LogSettings) -> Result<(), StorageError> {
    let mark = MarkFile::create(&places.key, settings.register)?;
    let mut writer = Writer::begin(Arc::clone(&places.log), settings, 1, 0, Durable::default(), mark)?;
    let first = RegisterRecord { id: settings.register, state: RegisterState::default() };
    writer.start(Start { generation: 0, cut: None }, &[Entry::Register(first)])?;
    writer.seal()
}

/// Opens the log of a replica. One that does not fit the mark beside the register's key is opened all the same, and
/// [`Recovered::lost`] says why the register must stay silent.
///
/// # Errors
/// [`StorageError`], which says what to do. A log that is refused as damaged, incomplete or foreign was not changed.
pub fn open(places: &Places, settings: LogSettings) -> Result<Opened, StorageError> {
    let disk = &places.log;
    let names = disk.list().map_err(|error| StorageError::io("listing", &disk.path(""), error))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    if let Some(missing) = (1..).zip(&numbers).find_map(|(expected, found)| (expected != *found).then_some(expected)) {
        return Err(StorageError::MissingSegment(disk.path(&segment_name(missing))));
    }
    let mut scan = Scan::new(Arc::clone(disk), settings);
    let segments = scan.headers(&numbers)?;
    let newest_segment = segments.last().map_or(0, |(segment, _)| segment.number);
    let tail = scan.walk(segments)?;
    let mut mark = MarkFile::open(&places.key, settings.register)?;
    scan.withdraw_untold(mark.mark())?;
    let register = scan.register()?;
    let found = Found { generation: scan.generation, register, segment: newest_segment };
    let clock = mark.mark().map_or_else(ClockReading::default, |mark| mark.clock);
    let lost = mark.lost().or_else(|| (settings.judge)(mark.mark(), &found));
    if let Some(lost) = lost {
        mark.lose(lost)?;
    }
    let generation = mark.next_generation(scan.generation);
    scan.write_again(&tail)?;
    let durable = scan.durable();
    let mut writer = match &tail {
        Tail::Whole { at, whole, last: Some((file_length, number)) } if at.offset + SECTOR_BYTES <= *file_length => {
            scan.clear_unborn(*number + 1)?;
            let name = segment_name(*number);
            let file = disk.open(&name).map_err(|error| StorageError::io("opening", &disk.path(&name), error))?;
            let resume = Resume { file, length: *file_length, at: *at, whole: *whole };
            Writer::resume(Arc::clone(disk), settings, resume, durable, mark)
        }
        Tail::Whole { whole, last, .. } => {
            let number = last.map_or(1, |(_, number)| number + 1);
            scan.clear_unborn(number)?;
            Writer::begin(Arc::clone(disk), settings, number, *whole, durable, mark)?
        }
        Tail::Torn { newest_group, next_segment, .. } => {
            scan.clear_unborn(*next_segment)?;
            Writer::begin(Arc::clone(disk), settings, *next_segment, *newest_group, durable, mark)?
        }
    };
    let (cut, mut first) = match tail {
        Tail::Whole { .. } => (None, Vec::new()),
        Tail::Torn { cut, salvaged, .. } => (Some(cut), salvaged),
    };
    first.extend(register.map(|state| Entry::Register(RegisterRecord { id: settings.register, state })));
    writer.start(Start { generation, cut }, &first)?;
    let reader = LogReader { disk: Arc::clone(disk), durable: Arc::clone(&writer.durable), parent: settings.parent };
    let mut recovered = scan.recovered(&reader, cut)?;
    recovered.register = register.unwrap_or_default();
    recovered.lost = lost;
    recovered.clock = clock;
    Ok(Opened { recovered, reader, writer })
}

/// How a log ends.
enum Tail {
    /// Behind a whole group.
    Whole {
        at: Place,
        whole: u64,
        /// Length of the newest segment's file, and its number.
        last: Option<(u64, u64)>,
    },
    /// Within a group that was never answered.
    Torn { cut: Place, newest_group: u64, next_segment: u64, salvaged: Vec<Entry> },
}

struct Scan {
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    salts: Vec<Salt>,
    index: super::index::Index,
    register: Option<Bytes>,
    /// Its state before the torn tail, if the tail has a newer one.
    before_tail: Option<Bytes>,
    /// Where the newest whole group begins.
    newest_group: Option<Place>,
    /// Of the newest start.
    generation: Option<u64>,
    /// The last block known to be decided, where it stands, and the proof.
    committed: Option<(SequenceNumber, Digest, Place, Bytes)>,
    /// Places of blocks above the committed one, in the order in which they were written.
    blocks: BTreeMap<Place, (SequenceNumber, Digest)>,
    damaged_copies: u64,
    /// A file of a segment that was being made when the process ended; nothing was ever written to it.
    unborn: Option<u64>,
}

impl Scan {
    fn new(disk: Arc<dyn Disk>, settings: LogSettings) -> Self {
        Self {
            disk,
            settings,
            salts: Vec::new(),
            index: super::index::Index::default(),
            register: None,
            before_tail: None,
            newest_group: None,
            generation: None,
            committed: None,
            blocks: BTreeMap::new(),
            damaged_copies: 0,
            unborn: None,
        }
    }

    /// The newest record of the register, as one of this register.
    fn register(&self) -> Result<Option<RegisterState>, StorageError> {
        let Some(record) = &self.register else { return Ok(None) };
        match RegisterRecord::newest(&self.settings.register, [&record[..]]) {
            Some(state) => Ok(Some(state)),
            None => Err(StorageError::ForeignRegister(self.disk.path(""))),
        }
    }

    fn durable(&self) -> Durable {
        Durable { index: self.index.clone(), salts: self.salts.clone(), end: None }
    }

    fn failed(&self, operation: &'static str, number: u64) -> impl Fn(std::io::Error) -> StorageError + use<> {
        let path = self.disk.path(&segment_name(number));
        move |error| StorageError::io(operation, &path, error)
    }

    fn corrupt(&self, place: Place, reason: &'static str) -> StorageError {
        StorageError::Corrupt { path: self.disk.path(&segment_name(place.segment)), offset: place.offset, reason }
    }

    /// Opens all segments and checks whose they are.
    fn headers(&mut self, numbers: &[u64]) -> Result<Vec<(Segment, u64)>, StorageError> {
        let mut segments = Vec::new();
        for number in numbers {
            let failed = self.failed("reading", *number);
            let file = self.disk.open(&segment_name(*number)).map_err(&failed)?;
            let length = file.length().map_err(&failed)?;
            let mut bytes = vec![0; usize::try_from(SECTOR_BYTES).expect("512")];
            let read = file.read_at(&mut bytes, 0).map_err(&failed)?;
            let path = || self.disk.path(&segment_name(*number));
            match decode_segment(&bytes[..read], self.settings.owner(), *number) {
                SegmentHeader::Good(_, made) if length < made => {
                    let place = Place { segment: *number, offset: length };
                    return Err(self.corrupt(place, "the file is shorter than it was made"));
                }
                SegmentHeader::Good(salt, _) => {
                    self.salts.push(salt);
                    segments.push((Segment::new(file, *number, salt, length), length));
                }
                SegmentHeader::Foreign => return Err(StorageError::Foreign(path())),
                SegmentHeader::Version(found) => {
                    return Err(StorageError::Version { path: path(), found, known: FORMAT });
                }
                // The header is synced before anything else is written: without one, nothing else is there.
                SegmentHeader::Damaged
                    if numbers.last() == Some(number) && is_blank(&*file, length).map_err(&failed)? =>
                {
                    self.unborn = Some(*number);
                }
                SegmentHeader::Damaged => {
                    let place = Place { segment: *number, offset: 0 };
                    return Err(self.corrupt(place, "the segment's header is unreadable"));
                }
            }
        }
        Ok(segments)
    }

    /// Makes durable what the process before this one may have left undone: the names of its files, and, written once
    /// more, the newest segment's header and newest whole group. After a failed sync a system may show what is not on its
    /// disk and never bring it there.
    fn write_again(&self, tail: &Tail) -> Result<(), StorageError> {
        let syncing = |error| StorageError::io("syncing the directory", &self.disk.path(""), error);
        self.disk.sync_directory().map_err(syncing)?;
        let end = match tail {
            Tail::Whole { last: None, .. } => return Ok(()),
            Tail::Whole { at, .. } => *at,
            Tail::Torn { cut, .. } => *cut,
        };
        let failed = self.failed("writing", end.segment);
        let file = self.disk.open(&segment_name(end.segment)).map_err(&failed)?;
        let newest = self.newest_group.filter(|newest| newest.segment == end.segment);
        for range in [Some(0..SECTOR_BYTES), newest.map(|newest| newest.offset..end.offset)].into_iter().flatten() {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("a group fits into memory")];
            let read = file.read_at(&mut bytes, range.start).map_err(&failed)?;
            file.write_at(&bytes[..read], range.start).map_err(&failed)?;
        }
        file.sync().map_err(&failed)
    }

    /// Removes what a process left that ended while it made a segment.
    fn clear_unborn(&mut self, number: u64) -> Result<(), StorageError> {
        if self.unborn.take() == Some(number) {
            self.disk.remove(&segment_name(number)).map_err(self.failed("removing", number))?;
        }
        Ok(())
    }

    fn walk(&mut self, segments: Vec<(Segment, u64)>) -> Result<Tail, StorageError> {
        let mut whole = 0;
        let mut tail = Tail::Whole { at: Place { segment: 1, offset: SECTOR_BYTES }, whole, last: None };
        // A tail that looks torn, until the next segment says that an earlier start has found it too.
        let mut torn: Option<(Place, u64, Vec<Entry>)> = None;
        for (mut segment, length) in segments {
            let number = segment.number;
            // A later start has written the register's state of then behind an earlier torn tail.
            self.before_tail = None;
            let failed = self.failed("reading", number);
            let first = segment.record_at(SECTOR_BYTES).map_err(&failed)?;
            let start = first.as_ref().filter(|record| record.header.kind == Kind::Start);
            let said = start.and_then(|record| Start::decode(&record.payload));
            if let Some((cut, newest, salvaged)) = torn.take() {
                match said.and_then(|said| said.cut) {
                    Some(named) if named == cut && start.is_some_and(|record| record.header.group > whole) => {}
                    None if first.is_none() && self.nothing_in(&mut segment)? => {
                        // Made by a start that ended before it wrote: its Start will be written now.
                        self.unborn = Some(number);
                        self.salts.pop();
                        return Ok(Tail::Torn { cut, newest_group: newest, next_segment: number, salvaged });
                    }
                    _ => return Err(self.corrupt(cut, "something is missing here, though a later segment was written")),
                }
                whole = start.map_or(whole, |record| record.header.group - 1);
            } else if let (Some(record), Some(named), Tail::Whole { at, .. }) =
                (start, said.and_then(|said| said.cut), &tail)
                && named == *at
                && record.header.group > whole
            {
                // What looked torn to an earlier start was never on the disk, and is gone.
                whole = record.header.group - 1;
            }
            let mut walk = Walk::new(segment, SECTOR_BYTES, whole);
            let mut group = Vec::new();
            while let Some(record) = walk.next().map_err(&failed)? {
                if group.is_empty() {
                    self.index.group(Place { segment: number, offset: walk.record_group_at }, record.header.group - 1);
                }
                self.see(&record);
                group.push(record);
                if walk.open.is_none() {
                    group.clear();
                    self.newest_group = Some(Place { segment: number, offset: walk.record_group_at });
                }
            }
            self.damaged_copies += walk.damaged_copies;
            whole = walk.whole;
            let at = Place { segment: number, offset: walk.at };
            match self.behind(&mut walk, group)? {
                None => tail = Tail::Whole { at, whole, last: Some((length, number)) },
                Some((newest, salvaged)) => {
                    let cut = Place { segment: number, offset: walk.group_at };
                    torn = Some((cut, newest, salvaged));
                }
            }
        }
        Ok(match torn {
            Some((cut, newest_group, salvaged)) => {
                Tail::Torn { cut, newest_group, next_segment: cut.segment + 1, salvaged }
            }
            None => tail,
        })
    }

    /// Judges what lies behind the last whole group of a segment: nothing (`None`), or a torn tail with the newest
    /// group number in it and what of it is whole.
    fn behind(&mut self, walk: &mut Walk, group: Vec<Record>) -> Result<Option<(u64, Vec<Entry>)>, StorageError> {
        let expected = walk.expected();
        let at = Place { segment: walk.segment.number, offset: walk.at };
        let mut found = Vec::new();
        walk.segment.search(walk.at, |record| found.push(record)).map_err(self.failed("reading", at.segment))?;
        if found.iter().any(|record| record.header.group > expected) {
            return Err(self.corrupt(at, "something is missing here, though what was written later is there"));
        }
        found.retain(|record| record.header.group == expected);
        if group.is_empty() && found.is_empty() {
            return Ok(None);
        }
        // Blocks of a group that nobody was told of do no harm, and the register must not be older than any record: see
        // [`Self::withdraw_untold`] for the one exception.
        let mut salvaged = Vec::new();
        let before = self.register.clone();
        for record in group.iter().chain(&found) {
            self.see(record);
            if let (Kind::Block, Some((sequence, hash, bytes))) = (record.header.kind, split_block(&record.payload)) {
                salvaged.push(Entry::Block { sequence, hash, bytes });
            }
        }
        self.before_tail = before.filter(|before| self.register.as_ref() != Some(before));
        Ok(Some((expected, salvaged)))
    }

    /// A vote whose record survived in the torn tail while its block did not was told to nobody, unless the mark says so:
    /// a group is answered when all of it is durable, and the mark follows before. The register must not stand by a block
    /// that perhaps nobody has: it would be the base of every later view.
    fn withdraw_untold(&mut self, mark: Option<&Mark>) -> Result<(), StorageError> {
        let (Some(state), Some(mark)) = (self.register()?, mark) else { return Ok(()) };
        let Some(before) = self.before_tail.take() else { return Ok(()) };
        let is_here = self.blocks.values().any(|(_, hash)| *hash == state.last.hash)
            || self.committed.as_ref().is_some_and(|(_, hash, ..)| *hash == state.last.hash);
        let said = RegisterRecord::newest(&self.settings.register, [&before[..]]);
        let is_new = said.is_some_and(|said| said.last != state.last);
        if is_new && !is_here && (state.view, state.step) > mark.floor {
            self.register = Some(before);
        }
        Ok(())
    }

    /// Whether a segment holds no record at all.
    fn nothing_in(&self, segment: &mut Segment) -> Result<bool, StorageError> {
        let mut nothing = true;
        segment.search(SECTOR_BYTES, |_| nothing = false).map_err(self.failed("reading", segment.number))?;
        Ok(nothing)
    }

    fn see(&mut self, record: &Record) {
        match record.header.kind {
            Kind::Seal => {}
            Kind::Start => {
                let said = Start::decode(&record.payload).map(|start| start.generation);
                self.generation = self.generation.max(said);
            }
            Kind::Register | Kind::RegisterCopy => {
                self.register =
                    split_register(&record.payload).map(|(_, state)| state).or_else(|| self.register.take());
            }
            Kind::Block => {
                let Some((sequence, hash, _)) = split_block(&record.payload) else { return };
                self.index.block(sequence);
                if self.committed.as_ref().is_none_or(|(committed, ..)| sequence > *committed) {
                    self.blocks.insert(record.place, (sequence, hash));
                }
            }
            Kind::Commit => {
                let Some((sequence, hash, proof)) = split_block(&record.payload) else { return };
                let block = self.blocks.iter().find(|(_, block)| **block == (sequence, hash)).map(|(place, _)| *place);
                // A commit without its block says nothing that could be given to anyone.
                let Some(place) = block else { return };
                self.committed = Some((sequence, hash, place, proof));
                self.blocks.retain(|_, (other, _)| *other > sequence);
            }
        }
    }

    fn recovered(self, reader: &LogReader, cut: Option<Place>) -> Result<Recovered, StorageError> {
        let read = |place: Place| reader.block_at(place);
        let committed = match self.committed {
            Some((sequence, hash, place, proof)) => {
                Some(super::CommittedBlock { sequence, hash, bytes: read(place)?, proof })
            }
            None => None,
        };
        let blocks = self.blocks.keys().map(|place| read(*place)).collect::<Result<_, _>>()?;
        let torn = cut.map(|cut| format!("{} at byte {}", self.disk.path(&segment_name(cut.segment)), cut.offset));
        let damaged_copies = self.damaged_copies;
        Ok(Recovered { committed, blocks, torn, damaged_copies, ..Recovered::default() })
    }
}

fn is_blank(file: &dyn super::DiskFile, length: u64) -> std::io::Result<bool> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = SECTOR_BYTES;
    while at < length {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}
