//! Signing where all chains stand, and keeping the public keys that did.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use postern_access::token::JWS_BYTES_MAX;
use postern_access::{Jwk, Jwks};
use postern_audit::checkpoint::CHECKPOINT_TYPE;
use postern_audit::{Chain, Checkpoint, Head};
use postern_login::SigningKey;

use super::recover::move_aside;
use super::tail::Tail;
use super::verify::payload;
use super::{CHECKPOINTS_FILE, KEYS_FILE, chain_files};
use crate::{ControlError, clock};

/// The writing end of `checkpoints.jws`.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    directory: PathBuf,
    file: File,
    bytes: u64,
    number: u64,
}

impl Checkpoints {
    /// Goes on after the last checkpoint; `number_stored` is the last one that the store knows of.
    /// When the file ends earlier its end was cut, and the numbers will show it.
    ///
    /// # Errors
    /// When the file can't be used.
    pub(crate) fn open(directory: &Path, number_stored: u64) -> Result<Self, ControlError> {
        let path = directory.join(CHECKPOINTS_FILE);
        let failed = || ControlError::file("checkpoints", &path);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed())?;
        let tail = Tail::read(&mut file).map_err(failed())?;
        let last = tail.lines_backwards().next();
        let number_written = last
            .and_then(|(line, _)| payload(std::str::from_utf8(line).ok()?))
            .map_or(0, |checkpoint| checkpoint.number);
        // A line longer than the tail is no checkpoint; nothing is moved then.
        let end = last.map_or(0, |(_, end)| end);
        if tail.offset == 0 || end > 0 {
            move_aside(&mut file, &path, end).map_err(failed())?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            bytes: file.metadata().map_err(failed())?.len(),
            file,
            number: number_stored.max(number_written),
        })
    }

    /// Signs where all chains stand now; returns the checkpoint's number.
    ///
    /// # Errors
    /// When a chain can't be read or the checkpoint can't be written.
    pub(crate) fn sign(&mut self, key: &SigningKey) -> Result<u64, ControlError> {
        let checkpoint = Checkpoint {
            time_ms: clock::unix_ms(),
            number: self.number + 1,
            heads: heads(&self.directory).map_err(ControlError::Audit)?,
        };
        let json = serde_json::to_vec(&checkpoint).expect("a checkpoint is text and numbers");
        let mut line = key.sign_jws(CHECKPOINT_TYPE, &json)?;
        if line.len() > JWS_BYTES_MAX {
            let why = io::Error::other("more chains than a checkpoint has room for");
            return Err(ControlError::Audit(why));
        }
        line.push('\n');
        let written = self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.bytes).map_err(ControlError::Audit)?;
            return Err(ControlError::Audit(error));
        }
        self.bytes += line.len() as u64;
        self.number = checkpoint.number;
        Ok(self.number)
    }
}

/// Where every chain stands. What a checkpoint names is on disk first: after a power cut it must
/// not name a record that was lost.
fn heads(directory: &Path) -> io::Result<Vec<Head>> {
    let mut heads = Vec::new();
    for (name, path) in chain_files(directory)? {
        let mut file = File::open(&path)?;
        let tail = Tail::read(&mut file)?;
        file.sync_data()?;
        // An engine may be writing the last line now: the last whole one counts.
        let last = tail.lines_backwards().next();
        let head = last.and_then(|(line, _)| {
            let line = std::str::from_utf8(line).ok()?;
            Some(Chain::resume(&name, line)?.head().clone())
        });
        match head {
            Some(head) => heads.push(head),
            None if tail.bytes.is_empty() => {}
            None => tracing::error!(chain = name, "the chain's last line is not its record"),
        }
    }
    Ok(heads)
}

/// Adds keys to `keys.json`, the set of all that ever signed.
///
/// # Errors
/// When the file can't be read or written.
pub(crate) fn remember_keys(directory: &Path, keys: &[Jwk]) -> io::Result<()> {
    let path = directory.join(KEYS_FILE);
    let mut known: Jwks = match std::fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Jwks::default(),
        Err(error) => return Err(error),
    };
    let before = known.keys.len();
    for key in keys {
        if known.keys.iter().all(|other| other.kid != key.kid) {
            known.keys.push(key.clone());
        }
    }
    if known.keys.len() == before {
        return Ok(());
    }
    let written = directory.join(format!("{KEYS_FILE}.new"));
    let mut file = File::create(&written)?;
    file.write_all(&serde_json::to_vec_pretty(&known)?)?;
    file.sync_all()?;
    std::fs::rename(&written, &path)
}
