//! Reads one segment from record to record.

use super::SECTOR_BYTES;
use super::disk::DiskFile;
use super::record::{HEADER_BYTES, Header, Kind, MAGIC, Place, REGISTER_BYTES_MAX, Salt, align, split_register};
use bytes::Bytes;
use std::io;

/// Read at once; a usual group is far smaller.
const READ_BYTES: usize = 256 << 10;

/// A checked record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) header: Header,
    pub(super) payload: Bytes,
    /// The offset behind it.
    pub(super) end: u64,
}

/// A segment's records.
pub(super) struct Segment {
    file: Box<dyn DiskFile>,
    pub(super) number: u64,
    salt: Salt,
    /// Nothing from here on is looked at.
    limit: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl Segment {
    pub(super) fn new(file: Box<dyn DiskFile>, number: u64, salt: Salt, limit: u64) -> Self {
        Self { file, number, salt, limit, buffer: Vec::new(), buffer_at: 0 }
    }

    /// The whole record at `offset`, if there is one.
    pub(super) fn record_at(&mut self, offset: u64) -> io::Result<Option<Record>> {
        let Some(header) = self.bytes(offset, HEADER_BYTES)?.and_then(Header::decode) else { return Ok(None) };
        self.checked(offset, header)
    }

    fn checked(&mut self, offset: u64, header: Header) -> io::Result<Option<Record>> {
        let place = Place { segment: self.number, offset };
        let (salt, start) = (self.salt, offset + HEADER_BYTES as u64);
        let Some(payload) = self.bytes(start, header.length as usize)? else { return Ok(None) };
        if !header.matches(&salt, place, payload) {
            return Ok(None);
        }
        let payload = Bytes::copy_from_slice(payload);
        Ok(Some(Record { place, header, payload, end: start + u64::from(header.length) }))
    }

    fn bytes(&mut self, offset: u64, length: usize) -> io::Result<Option<&[u8]>> {
        if offset.saturating_add(length as u64) > self.limit {
            return Ok(None);
        }
        let buffered = self.buffer_at..self.buffer_at + self.buffer.len() as u64;
        if offset < buffered.start || offset + length as u64 > buffered.end {
            let room = usize::try_from(self.limit - offset).unwrap_or(usize::MAX);
            self.buffer.resize(length.max(READ_BYTES).min(room), 0);
            let read = self.file.read_at(&mut self.buffer, offset)?;
            self.buffer.truncate(read);
            self.buffer_at = offset;
        }
        let start = usize::try_from(offset - self.buffer_at).expect("within the buffer");
        Ok(self.buffer.get(start..start + length))
    }

    /// Looks for records that were written into what lies behind `offset` although something before them is missing.
    /// `see` gets them in no useful order but by place; those not at a sector's start only if they are a register's.
    pub(super) fn search(&mut self, offset: u64, mut see: impl FnMut(Record)) -> io::Result<()> {
        let mut at = offset;
        while let Some(window) = self.bytes(at, HEADER_BYTES)? {
            if window[0] != MAGIC {
                at += self.to_next_magic(at);
                continue;
            }
            let header = Header::decode(window).filter(|header| {
                at.is_multiple_of(SECTOR_BYTES)
                    || (header.kind == Kind::Register && header.length as usize <= REGISTER_BYTES_MAX)
            });
            if let Some(header) = header
                && let Some(record) = self.checked(at, header)?
            {
                see(record);
            }
            at += 1;
        }
        Ok(())
    }

    /// How far the next byte is that a record could begin with, within what is buffered.
    fn to_next_magic(&self, at: u64) -> u64 {
        let start = usize::try_from(at - self.buffer_at).expect("within the buffer");
        let rest = &self.buffer[start..];
        rest.iter().position(|byte| *byte == MAGIC).unwrap_or(rest.len().saturating_sub(HEADER_BYTES - 1).max(1)) as u64
    }
}

/// A walk over the groups of a segment, in order.
pub(super) struct Walk {
    pub(super) segment: Segment,
    /// Where the next record must stand.
    pub(super) at: u64,
    /// Where the group began that is being read.
    pub(super) group_at: u64,
    /// Where the group began that the last record belongs to.
    pub(super) record_group_at: u64,
    /// The group being read, if its last record has not come yet.
    pub(super) open: Option<u64>,
    /// The last whole group.
    pub(super) whole: u64,
    /// Register records of which one copy is damaged.
    pub(super) damaged_copies: u64,
}

impl Walk {
    /// From the group that starts at `offset`, the one behind group `whole`.
    pub(super) const fn new(segment: Segment, offset: u64, whole: u64) -> Self {
        Self { segment, at: offset, group_at: offset, record_group_at: offset, open: None, whole, damaged_copies: 0 }
    }

    /// The number that the next record must carry.
    pub(super) fn expected(&self) -> u64 {
        self.open.unwrap_or(self.whole + 1)
    }

    /// The next record; `None` where none stands.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let expected = self.expected();
        if self.open.is_none() {
            self.group_at = self.at;
        }
        self.record_group_at = self.group_at;
        match self.segment.record_at(self.at)? {
            Some(record) if record.header.group == expected && record.header.kind != Kind::RegisterCopy => {
                if record.header.kind == Kind::Register {
                    let copy_at = align(record.end);
                    let copy = self.segment.record_at(copy_at)?;
                    if copy.is_none_or(|copy| copy.header.kind != Kind::RegisterCopy || copy.payload != record.payload)
                    {
                        self.damaged_copies += 1;
                    }
                    self.close(expected, align(copy_at + (record.end - record.place.offset)));
                } else if record.header.last {
                    self.close(expected, align(record.end));
                } else {
                    self.open = Some(expected);
                    self.at = record.end;
                }
                Ok(Some(record))
            }
            _ => self.lone_copy(expected),
        }
    }

    /// The register's first copy would stand here and is damaged: its second one says so.
    fn lone_copy(&mut self, expected: u64) -> io::Result<Option<Record>> {
        let copy_at = align(self.at + HEADER_BYTES as u64 + 1);
        // The first copy may reach into the next sector; then its copy stands one further.
        for at in [copy_at, copy_at + SECTOR_BYTES] {
            let Some(copy) = self.segment.record_at(at)? else { continue };
            let first_at = split_register(&copy.payload).map(|(offset, _)| offset);
            let fits = copy.header.kind == Kind::RegisterCopy && copy.header.group == expected;
            if fits && first_at == Some(self.at) {
                self.damaged_copies += 1;
                self.close(expected, align(copy.end));
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }

    const fn close(&mut self, group: u64, next: u64) {
        self.open = None;
        self.whole = group;
        self.at = next;
        self.group_at = next;
    }
}
