//! Appends groups to the newest segment.

use super::disk::{Disk, DiskFile};
use super::index::Index;
use super::mark::MarkFile;
use super::record::{Kind, Place, Salt, Start, align, encode_segment, put_record, segment_name};
use super::{Entry, LogSettings, SECTOR_BYTES, StorageError};
use std::sync::{Arc, Mutex, PoisonError};
use unisono_trusted::RegisterRecord;
use unisono_types::bounds::GROUP_BYTES;

/// What readers may look at; moves on after each sync.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) index: Index,
    /// Salts of the segments, from number 1.
    pub(super) salts: Vec<Salt>,
    /// Where the next group will stand.
    pub(super) end: Option<Place>,
}

/// The only writer.
pub struct Writer {
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    file: Box<dyn DiskFile>,
    /// Bytes of the segment's file.
    length: u64,
    segment: u64,
    salt: Salt,
    /// Where the next group will stand.
    at: u64,
    /// The last whole group.
    whole: u64,
    pub(super) durable: Arc<Mutex<Durable>>,
    buffer: Vec<u8>,
    mark: MarkFile,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("segment", &self.segment).field("at", &self.at).finish_non_exhaustive()
    }
}

/// Where a writer goes on.
pub(super) struct Resume {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) length: u64,
    pub(super) at: Place,
    pub(super) whole: u64,
}

impl Writer {
    /// Goes on in an existing segment.
    pub(super) fn resume(
        disk: Arc<dyn Disk>,
        settings: LogSettings,
        resume: Resume,
        durable: Durable,
        mark: MarkFile,
    ) -> Self {
        let salt = *durable.salts.last().expect("a segment that exists has a salt");
        Self {
            disk,
            settings,
            file: resume.file,
            length: resume.length,
            segment: resume.at.segment,
            salt,
            at: resume.at.offset,
            whole: resume.whole,
            durable: Arc::new(Mutex::new(durable)),
            buffer: Vec::new(),
            mark,
        }
    }

    /// Begins segment `number`.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        settings: LogSettings,
        number: u64,
        whole: u64,
        durable: Durable,
        mark: MarkFile,
    ) -> Result<Self, StorageError> {
        let (file, salt) = create_segment(&*disk, settings, number, settings.segment_bytes)?;
        let mut durable = durable;
        durable.salts.push(salt);
        let at = Place { segment: number, offset: SECTOR_BYTES };
        Ok(Self::resume(disk, settings, Resume { file, length: settings.segment_bytes, at, whole }, durable, mark))
    }

    /// The first group of a process. The log says which start it is before the mark does.
    pub(super) fn start(&mut self, start: Start, entries: &[Entry]) -> Result<(), StorageError> {
        self.group(Some((Kind::Start, start.encode())), entries)?;
        self.mark.started(start.generation, self.segment, newest(entries).map(|record| record.state))
    }

    /// The last group of a process that ends in order; from then on the mark says exactly where the register stands.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn seal(&mut self) -> Result<(), StorageError> {
        self.group(Some((Kind::Seal, Vec::new())), &[])?;
        self.mark.sealed(self.segment)
    }

    /// Writes and syncs entries, in as many groups as their bytes need, keeping their order.
    ///
    /// # Errors
    /// [`StorageError`]: what of them is durable is not known, and nothing more may be written.
    pub fn write(&mut self, entries: Vec<Entry>) -> Result<(), StorageError> {
        groups(entries).try_for_each(|group| self.append(&group))
    }

    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<(), StorageError> {
        if entries.is_empty() {
            return Ok(());
        }
        for entry in entries {
            match entry {
                Entry::Register(record) => self.mark.reserve(record.state, self.segment)?,
                Entry::Lost(lost) => self.mark.lose(*lost)?,
                Entry::Clock(clock) => self.mark.clock_showed(*clock),
                _ => {}
            }
        }
        if entries.iter().all(is_for_the_mark) {
            return Ok(());
        }
        self.group(None, entries)?;
        newest(entries).map_or(Ok(()), |record| self.mark.durable(record.state))
    }

    fn group(&mut self, first: Option<(Kind, Vec<u8>)>, entries: &[Entry]) -> Result<(), StorageError> {
        let register = newest(entries).map(RegisterRecord::encode);
        let others =
            entries.iter().filter(|entry| !matches!(entry, Entry::Register(_)) && !is_for_the_mark(entry)).count()
                + usize::from(first.is_some());
        let need = 3 * SECTOR_BYTES + entries.iter().map(entry_bytes).sum::<u64>();
        if self.at + need > self.length {
            self.next_segment(need)?;
        }
        let group = self.whole + 1;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut written = 0;
        let mut put = |buffer: &mut Vec<u8>, kind, payload: &[&[u8]]| {
            written += 1;
            let place = Place { segment: self.segment, offset: self.at + buffer.len() as u64 };
            let last = written == others && register.is_none();
            put_record(buffer, &self.salt, place, (kind, last, group), payload);
        };
        if let Some((kind, payload)) = &first {
            put(&mut buffer, *kind, &[payload]);
        }
        for entry in entries {
            match entry {
                Entry::Block { sequence, hash, bytes } => {
                    put(&mut buffer, Kind::Block, &[&sequence.0.to_le_bytes(), &hash.0, bytes]);
                }
                Entry::Commit { sequence, hash, proof } => {
                    put(&mut buffer, Kind::Commit, &[&sequence.0.to_le_bytes(), &hash.0, proof]);
                }
                Entry::Register(_) | Entry::Lost(_) | Entry::Clock(_) => {}
            }
        }
        if let Some(record) = &register {
            self.put_register(&mut buffer, group, record);
        }
        let path = || self.disk.path(&segment_name(self.segment));
        self.file.write_at(&buffer, self.at).map_err(|error| StorageError::io("writing", &path(), error))?;
        self.file.sync().map_err(|error| StorageError::io("syncing", &path(), error))?;
        self.note(entries, group, align(self.at + buffer.len() as u64));
        // A rare large block shall not keep its size for ever.
        buffer.shrink_to(1 << 20);
        self.buffer = buffer;
        Ok(())
    }

    fn put_register(&self, buffer: &mut Vec<u8>, group: u64, record: &[u8]) {
        let first_at = self.at + buffer.len() as u64;
        let payload = [&first_at.to_le_bytes()[..], record];
        let place = |offset| Place { segment: self.segment, offset };
        put_record(buffer, &self.salt, place(first_at), (Kind::Register, false, group), &payload);
        let copy_at = align(self.at + buffer.len() as u64);
        buffer.resize(usize::try_from(copy_at - self.at).expect("a group fits into memory"), 0);
        put_record(buffer, &self.salt, place(copy_at), (Kind::RegisterCopy, true, group), &payload);
    }

    fn note(&mut self, entries: &[Entry], group: u64, end: u64) {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.index.group(Place { segment: self.segment, offset: self.at }, self.whole);
        for entry in entries {
            if let Entry::Block { sequence, .. } = entry {
                durable.index.block(*sequence);
            }
        }
        durable.end = Some(Place { segment: self.segment, offset: end });
        self.at = end;
        self.whole = group;
    }

    fn next_segment(&mut self, need: u64) -> Result<(), StorageError> {
        let number = self.segment + 1;
        let length = self.settings.segment_bytes.max(align(need) + SECTOR_BYTES);
        let (file, salt) = create_segment(&*self.disk, self.settings, number, length)?;
        self.file = file;
        self.length = length;
        self.segment = number;
        self.salt = salt;
        self.at = SECTOR_BYTES;
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).salts.push(salt);
        self.mark.grown(number)
    }
}

/// The register's state that stands for all of a group.
fn newest(entries: &[Entry]) -> Option<&RegisterRecord> {
    entries.iter().rev().find_map(|entry| match entry {
        Entry::Register(record) => Some(record),
        _ => None,
    })
}

/// Such entries stand in no segment.
const fn is_for_the_mark(entry: &Entry) -> bool {
    matches!(entry, Entry::Lost(_) | Entry::Clock(_))
}

fn entry_bytes(entry: &Entry) -> u64 {
    let payload = match entry {
        Entry::Block { bytes, .. } => bytes.len(),
        Entry::Commit { proof, .. } => proof.len(),
        Entry::Lost(_) | Entry::Clock(_) => 0,
        Entry::Register(_) => 0, // at most one is written; its two copies are in the three sectors added to each group
    };
    payload as u64 + 40 + super::record::HEADER_BYTES as u64
}

fn create_segment(
    disk: &dyn Disk,
    settings: LogSettings,
    number: u64,
    length: u64,
) -> Result<(Box<dyn DiskFile>, Salt), StorageError> {
    let name = segment_name(number);
    let failed = |operation| {
        let path = disk.path(&name);
        move |error| StorageError::io(operation, &path, error)
    };
    let salt = disk.salt().map_err(failed("choosing the salt of"))?;
    let file = disk.create(&name, length).map_err(failed("creating"))?;
    file.write_at(&encode_segment(settings.owner(), number, length, Salt(salt)), 0).map_err(failed("writing"))?;
    file.sync().map_err(failed("syncing"))?;
    disk.sync_directory().map_err(failed("syncing the directory"))?;
    Ok((file, Salt(salt)))
}

/// Cuts at the bound of a group, always keeping the order.
fn groups(entries: Vec<Entry>) -> impl Iterator<Item = Vec<Entry>> {
    let mut rest = entries.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut group = vec![rest.next()?];
        let mut size = group[0].bytes();
        while let Some(entry) = rest.next_if(|entry| size + entry.bytes() <= GROUP_BYTES) {
            size += entry.bytes();
            group.push(entry);
        }
        Some(group)
    })
}
