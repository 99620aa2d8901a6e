//! Bytes of segments and records. Encoding, decoding, checksums; no files.

use super::{Owner, SECTOR_BYTES};
use bytes::Bytes;
use unisono_types::{Digest, SequenceNumber};

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const FORMAT: u32 = 3;

pub(super) const MAGIC: u8 = 0xb5;
const SEGMENT_MAGIC: &[u8; 8] = b"UNISOLOG";
const FLAG_LAST: u8 = 1;

/// A register's state with its address takes less; the bound keeps the search for one in a torn tail cheap.
pub(super) const REGISTER_BYTES_MAX: usize = 256;

/// Keys the checksums of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Salt(pub(super) [u8; 32]);

/// Where a record stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// First of what a process writes: which start of the log this is, and the place of a torn tail that it found and
    /// left behind, if any.
    Start,
    Block,
    Commit,
    Register,
    /// The same bytes as the register's record before it.
    RegisterCopy,
    /// Last of what a process writes when it ends in order: what stands before it was synced.
    Seal,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Start => 1,
            Self::Block => 2,
            Self::Commit => 3,
            Self::Register => 4,
            Self::RegisterCopy => 5,
            Self::Seal => 6,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Start,
            2 => Self::Block,
            3 => Self::Commit,
            4 => Self::Register,
            5 => Self::RegisterCopy,
            6 => Self::Seal,
            _ => return None,
        })
    }
}

/// A record's first bytes, not yet checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) last: bool,
    pub(super) length: u32,
    pub(super) group: u64,
    checksum: [u8; 16],
}

impl Header {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let flags = bytes[2];
        if bytes[0] != MAGIC || bytes[3] != 0 || flags & !FLAG_LAST != 0 {
            return None;
        }
        Some(Self {
            kind: Kind::from_code(bytes[1])?,
            last: flags == FLAG_LAST,
            length: u32_at(bytes, 4),
            group: u64_at(bytes, 8),
            checksum: *bytes.last_chunk()?,
        })
    }

    pub(super) fn matches(&self, salt: &Salt, place: Place, payload: &[u8]) -> bool {
        let mut plain = [0; 16];
        self.put(&mut plain);
        checksum(salt, place, &plain, payload) == self.checksum
    }

    fn put(&self, plain: &mut [u8; 16]) {
        plain[..4].copy_from_slice(&[MAGIC, self.kind.code(), u8::from(self.last), 0]);
        plain[4..8].copy_from_slice(&self.length.to_le_bytes());
        plain[8..].copy_from_slice(&self.group.to_le_bytes());
    }
}

/// Appends a record that will stand at `place`.
pub(super) fn put_record(
    out: &mut Vec<u8>,
    salt: &Salt,
    place: Place,
    (kind, last, group): (Kind, bool, u64),
    payload: &[&[u8]],
) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).expect("a record is bounded by the block limit, far below 4 GiB");
    let header = Header { kind, last, length, group, checksum: [0; 16] };
    let mut plain = [0; 16];
    header.put(&mut plain);
    out.extend_from_slice(&plain);
    out.extend_from_slice(&[0; 16]);
    let start = out.len();
    for part in payload {
        out.extend_from_slice(part);
    }
    let sum = checksum(salt, place, &plain, &out[start..]);
    out[start - 16..start].copy_from_slice(&sum);
}

fn checksum(salt: &Salt, place: Place, plain: &[u8; 16], payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(&salt.0);
    hasher.update(&place.segment.to_le_bytes()).update(&place.offset.to_le_bytes()).update(plain).update(payload);
    *hasher.finalize().as_bytes().first_chunk().expect("32 bytes have 16")
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("the caller gives enough bytes"))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(*bytes[offset..].first_chunk().expect("the caller gives enough bytes"))
}

/// The offset, or the next one that a sector begins at.
pub(super) const fn align(offset: u64) -> u64 {
    offset.next_multiple_of(SECTOR_BYTES)
}

/// Payload of Block and Commit: place, name, content.
pub(super) fn split_block(payload: &Bytes) -> Option<(SequenceNumber, Digest, Bytes)> {
    let (sequence, rest) = payload.split_first_chunk::<8>()?;
    let hash = rest.first_chunk::<32>()?;
    Some((SequenceNumber(u64::from_le_bytes(*sequence)), Digest(*hash), payload.slice(40..)))
}

/// Payload of Register and its copy: offset of the first copy, state.
pub(super) fn split_register(payload: &Bytes) -> Option<(u64, Bytes)> {
    let (offset, _) = payload.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*offset), payload.slice(8..)))
}

/// Payload of Start: the start's generation, and where the torn tail begins if there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    pub(super) generation: u64,
    pub(super) cut: Option<Place>,
}

impl Start {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = self.generation.to_le_bytes().to_vec();
        if let Some(cut) = self.cut {
            bytes.extend_from_slice(&cut.segment.to_le_bytes());
            bytes.extend_from_slice(&cut.offset.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let generation = u64::from_le_bytes(*payload.first_chunk()?);
        let cut = match payload.len() {
            8 => None,
            24 => Some(Place { segment: u64_at(payload, 8), offset: u64_at(payload, 16) }),
            _ => return None,
        };
        Some(Self { generation, cut })
    }
}

/// Name of segment `number`, from 1.
pub(super) fn segment_name(number: u64) -> String {
    format!("log-{number:08}")
}

pub(super) fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("log-")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// The first sector of a segment.
pub(super) fn encode_segment(owner: Owner, number: u64, length: u64, salt: Salt) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usize::try_from(SECTOR_BYTES).expect("512"));
    bytes.extend_from_slice(SEGMENT_MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&owner.cluster.0);
    bytes.extend_from_slice(&owner.replica.0.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&salt.0);
    bytes.extend_from_slice(&length.to_le_bytes());
    let sum = Digest::of("unisono log segment 1", &[&bytes]);
    bytes.extend_from_slice(&sum.0);
    bytes.resize(usize::try_from(SECTOR_BYTES).expect("512"), 0);
    bytes
}

/// What a segment's first sector says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SegmentHeader {
    /// With the length that its file was made with.
    Good(Salt, u64),
    Foreign,
    Version(u32),
    Damaged,
}

pub(super) fn decode_segment(bytes: &[u8], owner: Owner, number: u64) -> SegmentHeader {
    const SALT_AT: usize = 38;
    const LENGTH_AT: usize = SALT_AT + 32;
    const SUM_AT: usize = LENGTH_AT + 8;
    if bytes.len() < SUM_AT + 32 || bytes[..8] != *SEGMENT_MAGIC {
        return SegmentHeader::Damaged;
    }
    if Digest::of("unisono log segment 1", &[&bytes[..SUM_AT]]).0 != bytes[SUM_AT..SUM_AT + 32] {
        return SegmentHeader::Damaged;
    }
    if u32_at(bytes, 8) != FORMAT {
        return SegmentHeader::Version(u32_at(bytes, 8));
    }
    if bytes[12..28] != owner.cluster.0 || bytes[28..30] != owner.replica.0.to_le_bytes() || u64_at(bytes, 30) != number
    {
        return SegmentHeader::Foreign;
    }
    let salt = Salt(*bytes[SALT_AT..].first_chunk().expect("the length was checked"));
    SegmentHeader::Good(salt, u64_at(bytes, LENGTH_AT))
}
