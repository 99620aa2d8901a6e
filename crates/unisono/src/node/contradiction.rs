//! A proof of two histories outlives the process that found it: a file in the replica's directory says so until a person
//! removes it.

use super::NodeError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The file's name.
pub(super) const FILE: &str = "two-histories";

/// Writes down what was found; the text to show.
pub(super) fn keep(directory: &Path, reason: &str) -> String {
    let path = directory.join(FILE);
    let write = || {
        File::create(&path)?.write_all(reason.as_bytes())?;
        sync(directory)
    };
    if let Err(error) = write() {
        // The replica halts all the same; only a restart would forget it.
        tracing::error!("cannot write {}: {error}", path.display());
    }
    text(&path, reason)
}

/// What a process before this one has written down.
pub(super) fn found(directory: &Path) -> Result<Option<String>, NodeError> {
    let path = directory.join(FILE);
    match fs::read_to_string(&path) {
        Ok(reason) => {
            // That process may have ended before it was durable.
            sync(directory)
                .map_err(|source| NodeError::System { operation: "syncing the file two-histories", source })?;
            Ok(Some(text(&path, &reason)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NodeError::System { operation: "reading the file two-histories", source }),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory.join(FILE))?.sync_all()?;
    File::open(directory)?.sync_all()
}

fn text(path: &Path, reason: &str) -> String {
    format!("{reason}. It stays so after a restart, until {} is removed", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(found(directory.path()).unwrap(), None);
        let kept = keep(directory.path(), "two histories are proven");
        assert!(kept.contains("two histories are proven") && kept.contains("is removed"));
        assert_eq!(found(directory.path()).unwrap(), Some(kept));
        fs::remove_file(directory.path().join(FILE)).unwrap();
        assert_eq!(found(directory.path()).unwrap(), None);
    }
}
