//! The mark beside the register's key: what the key has said, as far as that must be known without the log.
//!
//! ```text
//!   register.mark   two slots in pages of their own; the whole one with the greater count holds
//!   slot            "unimark3" 8 | count 8 | register's name, BLAKE3 32 | generation 8 | segment 8
//!                   | floor: view 8 step 8 | bound: view 8 step 8 | clock: after 8 micros 8 | lost 1
//!                   | BLAKE3 of all before, 32
//! ```
//! A vote register that starts from an older state, or from none, could vote against its own votes. Its records stand in
//! the log; a log that is emptied, cut short or replaced by an older copy does not say so itself. The mark does:
//! * `generation` counts the starts of the log. The log's own Start record says the same, or one more if the process
//!   ended between the two writes.
//! * The register's newest durable position lies between `floor` and `bound`; where the process ended in order the two
//!   are equal. The bound is raised before a position beyond it is written, ahead of need. The floor follows each group
//!   of the log.
//! * `segment` is the newest segment of the log.
//! * `clock` protects nothing: what the replica's clock had shown at best, so that a replica that restarts after its clock
//!   was set back votes as it would have before.
//!
//! ```text
//!   counts      41 synced      42 follows the log, unsynced      42 synced      43 follows      ...
//!   slots       one            the other                         the other      the one
//! ```
//! The floor follows by a write that costs no sync, behind the sync of its group and before anybody is told of the group,
//! into the slot that the next synced write takes. So the last synced slot stays whole until the next one is.
//! * A killed process leaves unsynced writes to the system. The next start finds a floor that is not below anything that
//!   was answered, and tells an older copy of the log from the log, however young it is.
//! * A loss of power may lose or tear them. Then the floor is an earlier one, at the least that of the last synced write:
//!   an older copy of the log that was made since then passes for the log.
//!
//! Once the register is lost the mark says so for ever: a follower's log fits its mark again, and proves nothing.
//!
//! What no software can see: key, mark and log put back together from one older copy. Then only a certificate that a
//! peer still shows tells.

use super::{Disk, DiskFile, StorageError};
use std::sync::Arc;
use unisono_consensus::ClockReading;
use unisono_trusted::RegisterState;
use unisono_types::{Digest, Hasher, RegisterId, RegisterView, SequenceNumber, Step};

/// The file's name.
pub const MARK_FILE: &str = "register.mark";

/// Distance of the two slots: no disk writes both as one.
const SLOT_BYTES: u64 = 4096;
const FILE_BYTES: u64 = 2 * SLOT_BYTES;
const MAGIC: &[u8; 8] = b"unimark3";
const BYTES: usize = 8 + 8 + 32 + 8 + 8 + 32 + 16 + 1 + 32;

/// Views reserved ahead, so that leaving a view seldom costs an extra write.
const VIEWS_AHEAD: u64 = 8;

/// Where a register stands: votes and views are ordered by it.
pub type RegisterPlace = (RegisterView, Step);

const fn place(state: RegisterState) -> RegisterPlace {
    (state.view, state.step)
}

/// What the mark says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Starts of the log so far.
    pub generation: u64,
    /// The newest segment of the log.
    pub segment: u64,
    /// The register's durable place is not below this.
    pub floor: RegisterPlace,
    /// Nor beyond this.
    pub bound: RegisterPlace,
    /// What the replica's clock had shown at its newest vote or view change, or one that was being written.
    pub clock: ClockReading,
    /// The register must not be used any more.
    pub lost: Option<Lost>,
}

/// What was found in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Of its newest start.
    pub generation: Option<u64>,
    /// The newest state of the register.
    pub register: Option<RegisterState>,
    /// Its newest segment; 0 when there is none.
    pub segment: u64,
}

/// Why a register must stay silent: its state is missing or older than what its key has said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum Lost {
    /// No mark.
    #[error("register.mark is missing or damaged")]
    NoMark,
    /// No log, or none with a record of the register.
    #[error("the data directory is empty")]
    Empty,
    /// An older log.
    #[error("the data directory is an older copy")]
    Older,
    /// Some of the log is gone.
    #[error("the end of the log is missing")]
    Short,
    /// An older mark.
    #[error("register.mark is an older copy")]
    OlderMark,
    /// A peer showed a certificate of this key that the register does not know.
    #[error("a peer shows a vote of this register that its record does not have")]
    Witnessed,
}

impl Lost {
    const ALL: [Self; 6] = [Self::NoMark, Self::Empty, Self::Older, Self::Short, Self::OlderMark, Self::Witnessed];
}

/// The rule: whether the register may speak with what was found.
#[must_use]
pub fn judge(mark: Option<&Mark>, found: &Found) -> Option<Lost> {
    let Some(mark) = mark else { return Some(Lost::NoMark) };
    let (Some(generation), Some(register)) = (found.generation, found.register) else { return Some(Lost::Empty) };
    let place = place(register);
    if generation < mark.generation {
        return Some(Lost::Older);
    }
    // One more: a start that ended before it could tell the mark.
    if generation > mark.generation + 1 || place > mark.bound || found.segment > mark.segment + 1 {
        return Some(Lost::OlderMark);
    }
    (place < mark.floor || found.segment < mark.segment).then_some(Lost::Short)
}

/// The mark's file.
pub(super) struct MarkFile {
    disk: Arc<dyn Disk>,
    file: Option<Box<dyn DiskFile>>,
    name: Digest,
    /// Of the last synced slot.
    count: u64,
    mark: Option<Mark>,
}

impl MarkFile {
    /// The mark of a register that has said nothing yet.
    pub(super) fn create(disk: &Arc<dyn Disk>, register: RegisterId) -> Result<Self, StorageError> {
        let mut file = Self::empty(disk, register);
        file.make()?;
        file.mark = Some(Mark::default());
        file.write()?;
        Ok(file)
    }

    /// The mark as it is found, if it is whole and this register's.
    pub(super) fn open(disk: &Arc<dyn Disk>, register: RegisterId) -> Result<Self, StorageError> {
        let mut found = Self::empty(disk, register);
        let file = match disk.open(MARK_FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(found.failed("opening")(error)),
        };
        found.disk.sync_directory().map_err(found.failed("syncing the directory of"))?;
        let mut newest: Option<(u64, Mark)> = None;
        for slot in [0, SLOT_BYTES] {
            let mut bytes = [0; BYTES];
            let read = file.read_at(&mut bytes, slot).map_err(found.failed("reading"))?;
            let decoded = decode(&bytes[..read], found.name);
            newest = newest.into_iter().chain(decoded).max_by_key(|(count, _)| *count);
        }
        found.file = Some(file);
        if let Some((count, mark)) = newest {
            // Whether the disk has what the system shows is not known: it is written once more in its place, and synced,
            // before the other slot is given up.
            found.count = count.saturating_sub(1);
            found.mark = Some(mark);
            found.write()?;
        }
        Ok(found)
    }

    fn empty(disk: &Arc<dyn Disk>, register: RegisterId) -> Self {
        let mut hasher = Hasher::new("unisono register mark 1");
        hasher.part(&register.cluster.0).part(&[register.group]).part(&register.replica.0.to_le_bytes());
        hasher.part(&register.incarnation.0.to_le_bytes()).part(&register.key.0);
        Self { disk: Arc::clone(disk), file: None, name: hasher.finish(), count: 0, mark: None }
    }

    pub(super) const fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    pub(super) fn lost(&self) -> Option<Lost> {
        self.mark.and_then(|mark| mark.lost)
    }

    /// The generation of the start that happens now.
    pub(super) fn next_generation(&self, found: Option<u64>) -> u64 {
        found.max(self.mark.map(|mark| mark.generation)).map_or(0, |generation| generation.saturating_add(1))
    }

    /// From now on the register is silent for ever, whatever its log says.
    pub(super) fn lose(&mut self, lost: Lost) -> Result<(), StorageError> {
        if self.file.is_none() {
            self.make()?;
        }
        self.mark.get_or_insert_default().lost = Some(lost);
        self.write()
    }

    /// The log was opened: its Start is durable, and this state of the register with it.
    pub(super) fn started(
        &mut self,
        generation: u64,
        segment: u64,
        state: Option<RegisterState>,
    ) -> Result<(), StorageError> {
        self.change(|mark| {
            mark.generation = generation;
            mark.segment = mark.segment.max(segment);
            mark.floor = mark.floor.max(state.map_or(mark.floor, place));
        })
    }

    /// Before a state of the register is written: the bound must not be below it.
    pub(super) fn reserve(&mut self, state: RegisterState, segment: u64) -> Result<(), StorageError> {
        if self.mark.is_some_and(|mark| place(state) <= mark.bound) {
            return Ok(());
        }
        self.change(|mark| {
            mark.bound = (RegisterView(state.view.0.saturating_add(VIEWS_AHEAD)), Step(0));
            mark.segment = mark.segment.max(segment);
        })
    }

    /// Goes into the mark with its next write.
    pub(super) fn clock_showed(&mut self, clock: ClockReading) {
        self.mark.get_or_insert_default().clock = clock;
    }

    /// This state is durable and not yet reported. A failed write ends the replica although the log is safe: with a floor
    /// that silently stays behind, an older copy of the log would pass.
    pub(super) fn durable(&mut self, state: RegisterState) -> Result<(), StorageError> {
        let mark = self.mark.get_or_insert_default();
        if place(state) <= mark.floor {
            return Ok(());
        }
        mark.floor = place(state);
        self.put()
    }

    /// The log has a further segment.
    pub(super) fn grown(&mut self, segment: u64) -> Result<(), StorageError> {
        self.change(|mark| mark.segment = segment)
    }

    /// The log was ended in order.
    pub(super) fn sealed(&mut self, segment: u64) -> Result<(), StorageError> {
        self.change(|mark| {
            mark.bound = mark.floor;
            mark.segment = mark.segment.max(segment);
        })
    }

    fn change(&mut self, change: impl FnOnce(&mut Mark)) -> Result<(), StorageError> {
        change(self.mark.get_or_insert_default());
        self.write()
    }

    fn make(&mut self) -> Result<(), StorageError> {
        let file = self.disk.create(MARK_FILE, FILE_BYTES).map_err(self.failed("creating"))?;
        self.file = Some(file);
        self.disk.sync_directory().map_err(self.failed("syncing the directory of"))
    }

    fn write(&mut self) -> Result<(), StorageError> {
        self.put()?;
        if let Some(file) = &self.file {
            file.sync().map_err(self.failed("syncing"))?;
        }
        self.count += 1;
        Ok(())
    }

    /// Into the slot that is not the last synced one.
    fn put(&self) -> Result<(), StorageError> {
        let (Some(file), Some(mark)) = (&self.file, &self.mark) else { return Ok(()) };
        let count = self.count + 1;
        let slot = (count % 2) * SLOT_BYTES;
        file.write_at(&encode(count, self.name, mark), slot).map_err(self.failed("writing"))
    }

    fn failed(&self, operation: &'static str) -> impl Fn(std::io::Error) -> StorageError + use<> {
        let path = self.disk.path(MARK_FILE);
        move |error| StorageError::io(operation, &path, error)
    }
}

impl Default for Mark {
    fn default() -> Self {
        let nowhere = (RegisterView(0), Step(0));
        Self { generation: 0, segment: 0, floor: nowhere, bound: nowhere, clock: ClockReading::default(), lost: None }
    }
}

fn encode(count: u64, name: Digest, mark: &Mark) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&name.0);
    let (floor, bound) = (mark.floor, mark.bound);
    for number in [
        mark.generation,
        mark.segment,
        floor.0.0,
        floor.1.0,
        bound.0.0,
        bound.1.0,
        mark.clock.after.0,
        mark.clock.micros,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let lost = Lost::ALL.iter().position(|lost| Some(*lost) == mark.lost).map_or(0, |index| index + 1);
    bytes.push(u8::try_from(lost).expect("a handful of reasons"));
    let sum = Digest::of("unisono register mark 1", &[&bytes]);
    bytes.extend_from_slice(&sum.0);
    bytes
}

fn decode(bytes: &[u8], name: Digest) -> Option<(u64, Mark)> {
    let bytes: &[u8; BYTES] = bytes.first_chunk()?;
    let (content, sum) = bytes.split_at(BYTES - 32);
    if content[..8] != *MAGIC || Digest::of("unisono register mark 1", &[content]).0 != sum || content[16..48] != name.0
    {
        return None;
    }
    let number = |at: usize| u64::from_le_bytes(*content[at..].first_chunk().expect("within the content"));
    let place_at = |at: usize| (RegisterView(number(at)), Step(number(at + 8)));
    let lost = match content[112] {
        0 => None,
        code => Some(*Lost::ALL.get(usize::from(code) - 1)?),
    };
    let (floor, bound, clock) =
        (place_at(64), place_at(80), ClockReading { after: SequenceNumber(number(96)), micros: number(104) });
    let mark = Mark { generation: number(48), segment: number(56), floor, bound, clock, lost };
    Some((number(8), mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(view: u64, step: u64) -> RegisterPlace {
        (RegisterView(view), Step(step))
    }

    fn found(generation: u64, view: u64, step: u64, segment: u64) -> Found {
        let register = RegisterState { view: RegisterView(view), step: Step(step), ..RegisterState::default() };
        Found { generation: Some(generation), register: Some(register), segment }
    }

    const RUNNING: Mark = Mark {
        generation: 5,
        segment: 3,
        floor: (RegisterView(2), Step(7)),
        bound: (RegisterView(10), Step(0)),
        clock: ClockReading { after: SequenceNumber(0), micros: 0 },
        lost: None,
    };

    #[test]
    fn a_log_that_fits_its_mark_may_speak() {
        for log in [found(5, 2, 7, 3), found(5, 9, 1_000, 4), found(6, 3, 1, 3)] {
            assert_eq!(judge(Some(&RUNNING), &log), None, "{log:?}");
        }
        let sealed = Mark { floor: place(4, 4), bound: place(4, 4), ..RUNNING };
        assert_eq!(judge(Some(&sealed), &found(5, 4, 4, 3)), None);
        assert_eq!(judge(Some(&sealed), &found(6, 4, 4, 3)), None, "a start that ended before it told the mark");
    }

    #[test]
    fn a_log_or_a_mark_that_is_missing_older_or_cut_short_may_not() {
        let none = Found { generation: None, register: None, segment: 0 };
        let sealed = Mark { floor: place(4, 4), bound: place(4, 4), ..RUNNING };
        for (mark, log, lost) in [
            (None, found(5, 2, 7, 3), Lost::NoMark),
            (Some(RUNNING), none, Lost::Empty),
            (Some(RUNNING), Found { register: None, ..found(5, 0, 0, 3) }, Lost::Empty),
            (Some(RUNNING), found(4, 2, 7, 3), Lost::Older),
            (Some(RUNNING), found(7, 2, 7, 3), Lost::OlderMark),
            (Some(RUNNING), found(5, 10, 1, 3), Lost::OlderMark),
            (Some(RUNNING), found(5, 2, 7, 5), Lost::OlderMark),
            (Some(RUNNING), found(5, 2, 6, 3), Lost::Short),
            (Some(RUNNING), found(5, 2, 7, 2), Lost::Short),
            (Some(sealed), found(5, 4, 3, 3), Lost::Short),
            (Some(sealed), found(5, 4, 5, 3), Lost::OlderMark),
        ] {
            assert_eq!(judge(mark.as_ref(), &log), Some(lost), "{mark:?} {log:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_else_is_taken_for_it() {
        let name = Digest([3; 32]);
        for lost in Lost::ALL.map(Some).into_iter().chain([None]) {
            let mark = Mark { lost, ..RUNNING };
            let bytes = encode(7, name, &mark);
            assert_eq!(decode(&bytes, name), Some((7, mark)));
            assert_eq!(decode(&bytes, Digest([4; 32])), None, "another register's");
            for index in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[index] ^= 1;
                assert_eq!(decode(&flipped, name), None, "byte {index}");
            }
        }
    }

    #[test]
    fn a_reason_that_is_not_known_here_is_no_mark_and_so_keeps_the_register_silent() {
        let name = Digest([3; 32]);
        let mut bytes = encode(7, name, &Mark { lost: Some(Lost::Witnessed), ..RUNNING });
        let reason = BYTES - 32 - 1;
        assert_eq!(usize::from(bytes[reason]), Lost::ALL.len());
        bytes[reason] += 1;
        let sum = Digest::of("unisono register mark 1", &[&bytes[..BYTES - 32]]);
        bytes[BYTES - 32..].copy_from_slice(&sum.0);
        assert_eq!(decode(&bytes, name), None);
    }
}
