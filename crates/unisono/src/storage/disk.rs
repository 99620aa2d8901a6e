//! The few operations on files that the log needs, behind a trait, so that tests can have them fail.

use super::StorageError;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory of files.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files, in any order.
    ///
    /// # Errors
    /// What the system says; so with all others.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a new file with `bytes` of allocated zeros. Its name is durable only after [`sync_directory`](Self::sync_directory).
    ///
    /// # Errors
    /// Also when it exists.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// Also when it does not exist.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Removes a file.
    ///
    /// # Errors
    /// Also when it does not exist.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_directory(&self) -> io::Result<()>;
    /// How people find the file.
    fn path(&self, name: &str) -> String;
}

/// One file.
pub trait DiskFile: Send {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the system says; so with all others.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;
    /// Bytes of the file.
    ///
    /// # Errors
    /// What the system says.
    fn length(&self) -> io::Result<u64>;
}

/// The operating system's.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    /// Held until dropped; the system lets go of it when the process ends in any way.
    _lock: File,
}

const LOCK_FILE: &str = "lock";

impl RealDisk {
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
        Ok(Self { directory: directory.into(), _lock: lock })
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
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(self.directory.join(name))?))
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
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
