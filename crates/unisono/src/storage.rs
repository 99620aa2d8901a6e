//! The operating system's files and the thread that writes: what the log of a replica ([`unisono_node::log`]) runs on.

mod thread;

pub use thread::{LogThread, Report};
pub use unisono_node::log::StorageError;

use crate::config::ReplicaConfig;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use unisono_node::log::{Disk, DiskFile, LogSettings, Places};
use unisono_trusted::register_id;
use unisono_types::{Membership, ReplicaId};

/// A directory of the operating system's.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    /// Held until dropped; the system lets go of it when the process ends in any way.
    _lock: Option<File>,
}

const LOCK_FILE: &str = "lock";

impl RealDisk {
    /// `directory`, whoever else uses it.
    #[must_use]
    pub fn shared(directory: &Path) -> Self {
        Self { directory: directory.into(), _lock: None }
    }

    /// Takes `directory` for this process.
    ///
    /// # Errors
    /// [`StorageError::Locked`] when another process has it.
    pub fn lock(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(LOCK_FILE);
        let name = path.display().to_string();
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| StorageError::io("opening", &name, error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => StorageError::Locked(directory.display().to_string()),
            other => StorageError::io("locking", &name, other.into()),
        })?;
        Ok(Self { directory: directory.into(), _lock: Some(lock) })
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let path = self.directory.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Space is taken now, so a full disk shows before anything is promised and later writes change no metadata.
        let allocated = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot allocate ahead: a sparse file works too, only slower.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes),
            other => other.map_err(io::Error::from),
        };
        if let Err(error) = allocated {
            drop(fs::remove_file(&path));
            return Err(error);
        }
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.directory.join(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn salt(&self) -> io::Result<[u8; 32]> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(salt)
    }
}

/// A file of the operating system's.
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(&self.0, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// How the log of this member is kept.
///
/// # Panics
/// When there is no such member: configurations are checked when they are loaded.
#[must_use]
pub fn settings(membership: &Membership, id: ReplicaId) -> LogSettings {
    let register = register_id(membership, id).expect("the configuration was checked");
    LogSettings::new(register, unisono_consensus::aphousia::parent_of)
}

/// The directories of a replica that does not run yet.
#[must_use]
pub fn unlocked(data: &Path, keys: &Path) -> Places {
    Places { log: Arc::new(RealDisk::shared(data)), key: Arc::new(RealDisk::shared(keys)) }
}

/// Takes the directories of a replica for this process.
///
/// # Errors
/// [`StorageError::Locked`] when another process has them.
pub fn lock(config: &ReplicaConfig) -> Result<Places, StorageError> {
    let log = RealDisk::lock(&config.data_directory())?;
    Ok(Places { log: Arc::new(log), key: Arc::new(RealDisk::shared(&config.directory)) })
}

#[cfg(test)]
mod tests;
