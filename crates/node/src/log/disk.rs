//! The few operations on files that the log needs. The real host gives them those of the operating system, the simulated
//! one a disk that loses what was not synced, tears, fails and fills up.

use std::io;

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
    /// Bytes that nobody can foresee: a segment's salt.
    ///
    /// # Errors
    /// What the system says.
    fn salt(&self) -> io::Result<[u8; 32]>;
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
