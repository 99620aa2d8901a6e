//! Reading and writing with the permissions that secrets need.

use super::ConfigError;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A settings file of a 64-member cluster with its client keys has some 20 KiB.
const TOML_BYTES_MAX: u64 = 4 << 20;

pub(super) fn io_error(path: &Path, source: std::io::Error) -> ConfigError {
    match source.kind() {
        ErrorKind::NotFound => ConfigError::Missing(path.into()),
        _ => ConfigError::Io { path: path.into(), source },
    }
}

/// The directory, absolute, so that a later change of the working directory does not matter.
pub(super) fn existing_directory(path: &Path) -> Result<PathBuf, ConfigError> {
    match path.canonicalize() {
        Ok(absolute) if absolute.is_dir() => Ok(absolute),
        Ok(_) => Err(ConfigError::NoDirectory(path.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(ConfigError::NoDirectory(path.into())),
        Err(source) => Err(ConfigError::Io { path: path.into(), source }),
    }
}

pub(super) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| io_error(path, error))?;
    file.take(TOML_BYTES_MAX).read_to_string(&mut text).map_err(|error| io_error(path, error))?;
    toml::from_str(&text).map_err(|error| ConfigError::Toml { path: path.into(), reason: error.to_string() })
}

/// The bytes of a secret that only its owner may read.
pub(super) fn read_secret(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut file = File::open(path).map_err(|error| io_error(path, error))?;
    // Of the opened file, not of the path: nobody can exchange it in between.
    let mode = file.metadata().map_err(|error| io_error(path, error))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::ReadableKey { path: path.into(), mode });
    }
    let mut bytes = Vec::with_capacity(33);
    (&mut file).take(4096).read_to_end(&mut bytes).map_err(|error| io_error(path, error))?;
    Ok(bytes)
}

/// Writes a new file of mode 0600, durably. Never over an existing one.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| ConfigError::Io { path: path.into(), source })
}

/// Makes a directory of mode 0700; its parents too.
pub(super) fn make_directory(path: &Path) -> Result<(), ConfigError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| ConfigError::Io { path: path.into(), source })
}

pub(super) fn sync_directory(path: &Path) -> Result<(), ConfigError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| ConfigError::Io { path: path.into(), source })
}

/// 0.key, 1.key, ... in the order of their numbers.
pub(super) fn numbered_keys(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| io_error(directory, error))? {
        let path = entry.map_err(|error| io_error(directory, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(number) = name.and_then(|name| name.strip_suffix(".key")).and_then(|stem| stem.parse::<u32>().ok())
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The bytes that are written as two hexadecimal digits each.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

pub(super) fn from_hex_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    from_hex(text)?.try_into().ok()
}
