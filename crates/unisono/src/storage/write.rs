//! Appends groups to the newest segment.

use super::disk::{Disk, DiskFile};
use super::index::Index;
use super::record::{Kind, Place, Salt, align, encode_cut, encode_segment, put_record, segment_name};
use super::{Entry, LogSettings, SECTOR_BYTES, StorageError};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

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
pub(super) struct Writer {
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
    pub(super) fn resume(disk: Arc<dyn Disk>, settings: LogSettings, resume: Resume, durable: Durable) -> Self {
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
        }
    }

    /// Begins segment `number`, of at least `bytes`.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        settings: LogSettings,
        number: u64,
        whole: u64,
        durable: Durable,
    ) -> Result<Self, StorageError> {
        let (file, salt) = create_segment(&*disk, settings, number, settings.segment_bytes)?;
        let mut durable = durable;
        durable.salts.push(salt);
        let at = Place { segment: number, offset: SECTOR_BYTES };
        Ok(Self::resume(disk, settings, Resume { file, length: settings.segment_bytes, at, whole }, durable))
    }

    /// The first group of a process.
    pub(super) fn start(&mut self, cut: Option<Place>, entries: &[Entry]) -> Result<(), StorageError> {
        self.group(Some((Kind::Start, encode_cut(cut))), entries)
    }

    /// The last group of a process that ends in order.
    pub(super) fn seal(&mut self) -> Result<(), StorageError> {
        self.group(Some((Kind::Seal, Vec::new())), &[])
    }

    /// Writes and syncs one group.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<(), StorageError> {
        if entries.is_empty() { Ok(()) } else { self.group(None, entries) }
    }

    fn group(&mut self, first: Option<(Kind, Vec<u8>)>, entries: &[Entry]) -> Result<(), StorageError> {
        let register = entries.iter().rev().find_map(|entry| match entry {
            Entry::Register(state) => Some(state),
            _ => None,
        });
        let others =
            entries.iter().filter(|entry| !matches!(entry, Entry::Register(_))).count() + usize::from(first.is_some());
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
                Entry::Register(_) => {}
            }
        }
        if let Some(state) = register {
            self.put_register(&mut buffer, group, state);
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

    fn put_register(&self, buffer: &mut Vec<u8>, group: u64, state: &Bytes) {
        let first_at = self.at + buffer.len() as u64;
        let payload = [&first_at.to_le_bytes()[..], state];
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
        Ok(())
    }
}

fn entry_bytes(entry: &Entry) -> u64 {
    let payload = match entry {
        Entry::Block { bytes, .. } => bytes.len(),
        Entry::Commit { proof, .. } => proof.len(),
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
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(|error| {
        StorageError::io("choosing the salt", &disk.path(&name), std::io::Error::other(error.to_string()))
    })?;
    let file = disk.create(&name, length).map_err(failed("creating"))?;
    file.write_at(&encode_segment(settings.owner, number, Salt(salt)), 0).map_err(failed("writing"))?;
    file.sync().map_err(failed("syncing"))?;
    disk.sync_directory().map_err(failed("syncing the directory"))?;
    Ok((file, Salt(salt)))
}
