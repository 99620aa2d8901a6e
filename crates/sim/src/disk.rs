//! One machine's disk: files whose writes are lost, torn or kept by chance when the power fails before their sync.
//!
//! ```text
//!   write_at ──> what reads see ──sync──> what survives
//!                    \____ power loss: each unsynced write is lost, whole, or torn at its sectors
//! ```
//! The log that ships runs on it ([`unisono_node::log`]). A sync may fail: then what it should have made durable is seen
//! by reads and lost with the power, and no later sync brings it back, as on real systems. The disk may be full, and
//! the power may fail between any two operations.

use crate::Random;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use unisono_node::log::{self, DiskFile, MARK_FILE, Places};

/// What disks write as one.
const SECTOR_BYTES: usize = 512;

/// What an armed disk does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// After so many further operations nothing works any more.
    Power(u32),
    /// The next sync fails.
    Sync,
    /// The next file finds no room.
    Full,
}

#[derive(Clone, Default, Debug)]
struct File {
    /// What reads see.
    bytes: Vec<u8>,
    /// Unsynced writes, oldest first: where, and what stood there before.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// The first of these a failed sync has dropped: no later sync brings them to the disk.
    dropped: usize,
    /// Its name survives.
    named: bool,
}

#[derive(Default, Debug)]
struct Machine {
    files: BTreeMap<String, File>,
    armed: Option<Failure>,
    /// For salts: no two of one machine are equal.
    salts: u64,
}

/// One machine's disk.
#[derive(Clone, Default, Debug)]
pub struct Disk(Arc<Mutex<Machine>>);

impl Disk {
    /// The directories of one process: its log's and its key's.
    #[must_use]
    pub fn places(&self, process: usize) -> Places {
        let directory = |kind: &str| {
            Arc::new(Directory { disk: self.clone(), prefix: format!("{process}/{kind}/") }) as Arc<dyn log::Disk>
        };
        Places { log: directory("data"), key: directory("key") }
    }

    /// Something will go wrong.
    pub fn arm(&self, failure: Failure) {
        self.machine().armed = Some(failure);
    }

    /// Nothing goes wrong any more.
    pub fn disarm(&self) {
        self.machine().armed = None;
    }

    /// The power is gone: of what was not synced, chance decides.
    pub fn power_off(&self, random: &mut Random) {
        let mut machine = self.machine();
        machine.armed = None;
        machine.files.retain(|_, file| file.named || random.chance(500));
        // The mark is written often without a sync: its fate does not shift what else is drawn.
        let mut of_marks = random.clone().fork();
        for (name, file) in &mut machine.files {
            let random = if name.ends_with(MARK_FILE) { &mut of_marks } else { &mut *random };
            file.lose_power(random);
        }
    }

    /// What would be found in the log's directory of a process if the power failed now.
    #[must_use]
    pub fn image(&self, process: usize) -> BTreeMap<String, Vec<u8>> {
        let prefix = format!("{process}/data/");
        let machine = self.machine();
        let files = machine.files.iter().filter(|(name, file)| name.starts_with(&prefix) && file.named);
        let kept = |file: &File| {
            let mut bytes = file.bytes.clone();
            for (start, before) in file.unsynced.iter().rev() {
                bytes[*start..start + before.len()].copy_from_slice(before);
            }
            bytes
        };
        files.map(|(name, file)| (name.clone(), kept(file))).collect()
    }

    /// Puts these files in place of the log's directory of a process: an older copy, or nothing.
    pub fn replace(&self, process: usize, image: BTreeMap<String, Vec<u8>>) {
        let prefix = format!("{process}/data/");
        let mut machine = self.machine();
        machine.files.retain(|name, _| !name.starts_with(&prefix));
        for (name, bytes) in image {
            machine.files.insert(name, File { bytes, named: true, ..File::default() });
        }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which parts of an unsynced write survive the power loss: whole sectors.
fn surviving(write: Range<usize>, random: &mut Random) -> Vec<Range<usize>> {
    let sectors = (write.start / SECTOR_BYTES..write.end.div_ceil(SECTOR_BYTES)).map(|sector| sector * SECTOR_BYTES);
    let parts = sectors.map(|start| start.max(write.start)..(start + SECTOR_BYTES).min(write.end));
    match random.below(4) {
        0 => Vec::new(),
        1 => parts.collect(),
        2 => {
            let cut = (write.start + random.index(write.len() + 1)) / SECTOR_BYTES * SECTOR_BYTES;
            parts.filter(|part| part.end <= cut).collect()
        }
        _ => parts.filter(|_| !random.chance(500)).collect(),
    }
}

impl File {
    /// Each unsynced write is lost, whole or torn, and a later one that survives stands over an earlier one.
    fn lose_power(&mut self, random: &mut Random) {
        let mut written = Vec::new();
        for (start, before) in std::mem::take(&mut self.unsynced).into_iter().rev() {
            let range = start..start + before.len();
            let parts = surviving(range.clone(), random).into_iter();
            written.extend(parts.rev().map(|part| (part.start, self.bytes[part].to_vec())));
            self.bytes[range].copy_from_slice(&before);
        }
        for (start, bytes) in written.into_iter().rev() {
            self.bytes[start..start + bytes.len()].copy_from_slice(&bytes);
        }
        (self.dropped, self.named) = (0, true);
    }

    fn write(&mut self, start: usize, bytes: &[u8]) -> io::Result<()> {
        let room = self.bytes.get_mut(start..start + bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        self.unsynced.push((start, room.to_vec()));
        room.copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) {
        let synced = self.unsynced.split_off(self.dropped);
        // Where a dropped write was written over, what was synced is what stands there.
        for (start, before) in &synced {
            for (other, fallback) in &mut self.unsynced {
                let from = (*start).max(*other);
                let to = (start + before.len()).min(*other + fallback.len());
                if from < to {
                    fallback[from - *other..to - *other].copy_from_slice(&self.bytes[from..to]);
                }
            }
        }
    }
}

impl Machine {
    /// Counts an operation against the power that is about to fail.
    fn operation(&mut self) -> io::Result<()> {
        match &mut self.armed {
            Some(Failure::Power(0)) => Err(io::Error::other("the power is gone")),
            Some(Failure::Power(left)) => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Fails once if the failure of a sync is armed.
    fn fail_sync(&mut self) -> io::Result<()> {
        if self.armed == Some(Failure::Sync) {
            self.armed = None;
            return Err(io::Error::other("the sync failed"));
        }
        Ok(())
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct Directory {
    disk: Disk,
    prefix: String,
}

impl Directory {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl log::Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let machine = self.disk.machine();
        Ok(machine.files.keys().filter_map(|name| name.strip_prefix(&self.prefix)).map(ToOwned::to_owned).collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut machine = self.disk.machine();
        machine.operation()?;
        if machine.armed == Some(Failure::Full) {
            machine.armed = None;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let name = self.name(name);
        if machine.files.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = vec![0; usize::try_from(bytes).expect("simulated files are small")];
        let file = File { bytes, ..File::default() };
        machine.files.insert(name.clone(), file);
        Ok(Box::new(Handle { disk: self.disk.clone(), name }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let name = self.name(name);
        self.disk.machine().file(&name)?;
        Ok(Box::new(Handle { disk: self.disk.clone(), name }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut machine = self.disk.machine();
        machine.operation()?;
        machine.files.remove(&self.name(name)).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut machine = self.disk.machine();
        machine.operation()?;
        machine.fail_sync()?;
        let of_directory = machine.files.iter_mut().filter(|(name, _)| name.starts_with(&self.prefix));
        of_directory.for_each(|(_, file)| file.named = true);
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self.name(name)
    }

    fn salt(&self) -> io::Result<[u8; 32]> {
        let mut machine = self.disk.machine();
        machine.salts += 1;
        let mut salt = [0x5a; 32];
        salt[..8].copy_from_slice(&machine.salts.to_le_bytes());
        Ok(salt)
    }
}

struct Handle {
    disk: Disk,
    name: String,
}

impl DiskFile for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut machine = self.disk.machine();
        let seen = &machine.file(&self.name)?.bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(seen.len());
        let count = buffer.len().min(seen.len() - start);
        buffer[..count].copy_from_slice(&seen[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.disk.machine();
        machine.operation()?;
        machine.file(&self.name)?.write(usize::try_from(offset).expect("simulated files are small"), bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut machine = self.disk.machine();
        machine.operation()?;
        let outcome = machine.fail_sync();
        let file = machine.file(&self.name)?;
        match outcome {
            Ok(()) => file.sync(),
            Err(_) => file.dropped = file.unsynced.len(),
        }
        outcome
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.machine().file(&self.name)?.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    impl Disk {
        fn clone_of(&self) -> Self {
            let machine = self.machine();
            let (files, armed, salts) = (machine.files.clone(), machine.armed, machine.salts);
            Self(Arc::new(Mutex::new(Machine { files, armed, salts })))
        }
    }

    fn file(disk: &Disk) -> Box<dyn DiskFile> {
        let directory = disk.places(0).log;
        let file = directory.create("f", 2_048).unwrap();
        directory.sync_directory().unwrap();
        file
    }

    fn read(disk: &Disk) -> Vec<u8> {
        let mut bytes = vec![9; 2_048];
        disk.places(0).log.open("f").unwrap().read_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn what_was_synced_survives_and_of_the_rest_whole_sectors_do() {
        let mut fates = BTreeSet::new();
        for seed in 0..200 {
            let disk = Disk::default();
            let handle = file(&disk);
            handle.write_at(&[1; 512], 0).unwrap();
            handle.sync().unwrap();
            handle.write_at(&[2; 1_536], 512).unwrap();
            disk.power_off(&mut Random::new(seed));
            let bytes = read(&disk);
            assert_eq!(bytes[..512], [1; 512], "seed {seed}");
            let sectors: Vec<u8> = bytes.chunks(512).skip(1).map(|sector| sector[0]).collect();
            assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            fates.insert(sectors);
        }
        assert_eq!(fates.len(), 8, "every way in which three sectors survive");
    }

    #[test]
    fn of_writes_over_each_other_the_newest_that_survives_stands_there() {
        let mut fates = [0; 4];
        for seed in 0..200 {
            let disk = Disk::default();
            let handle = file(&disk);
            (1..=3).for_each(|value| handle.write_at(&[value; 100], 40).unwrap());
            disk.power_off(&mut Random::new(seed));
            fates[usize::from(read(&disk)[40])] += 1;
        }
        assert!(fates[3] > fates[2] && fates[2] > fates[1] && fates[1] > 0 && fates[0] > 0, "{fates:?}");
    }

    #[test]
    fn a_failed_sync_shows_what_it_dropped_until_the_power_fails() {
        let disk = Disk::default();
        let handle = file(&disk);
        disk.arm(Failure::Sync);
        handle.write_at(&[3; 512], 0).unwrap();
        assert!(handle.sync().is_err());
        handle.sync().unwrap();
        assert_eq!(read(&disk)[0], 3);
        handle.write_at(&[4; 512], 512).unwrap();
        handle.sync().unwrap();
        // Of what was dropped chance decides; what was written over it and synced is there.
        let zeros = (0..50).filter(|seed| {
            let disk = disk.clone_of();
            disk.power_off(&mut Random::new(*seed));
            assert_eq!(read(&disk)[512], 4);
            read(&disk)[0] == 0
        });
        assert!(zeros.count() > 10);
        handle.write_at(&[5; 1], 0).unwrap();
        handle.sync().unwrap();
        disk.power_off(&mut Random::new(1));
        assert_eq!(read(&disk)[0], 5);
    }

    #[test]
    fn the_power_fails_between_any_two_operations() {
        let disk = Disk::default();
        let handle = file(&disk);
        disk.arm(Failure::Power(1));
        handle.write_at(&[3; 512], 0).unwrap();
        assert!(handle.sync().is_err() && handle.write_at(&[4; 1], 0).is_err());
        disk.power_off(&mut Random::new(1));
        handle.write_at(&[4; 1], 0).unwrap();
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_gone_and_an_older_copy_can_be_put_back() {
        let mut there = 0;
        for seed in 0..100 {
            let disk = Disk::default();
            let directory = disk.places(0).log;
            drop(directory.create("f", 512).unwrap());
            disk.power_off(&mut Random::new(seed));
            there += directory.list().unwrap().len();
        }
        assert!((20..80).contains(&there));
        let disk = Disk::default();
        let handle = file(&disk);
        let image = disk.image(0);
        handle.write_at(&[3; 512], 0).unwrap();
        handle.sync().unwrap();
        disk.replace(0, image);
        assert_eq!(read(&disk)[0], 0);
        disk.replace(0, BTreeMap::new());
        assert_eq!(disk.places(0).log.list().unwrap().len(), 0);
    }
}
