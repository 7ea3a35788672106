//! The chain of flows on disk: goes on after a crash, takes a batch as a whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use postern_audit::FLOW_CHAIN;
use postern_audit::{Chain, Event, Record};

use super::unix_ms;
use crate::ConductorError;

/// Longest end that is looked through for the last whole record; records are far shorter.
const TAIL_BYTES_MAX: u64 = 64 * 1024;

/// The writing end of `flows.jsonl`.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    chain: Chain,
    /// INVARIANT: of the file, up to the last record of the chain.
    bytes: u64,
}

impl Journal {
    /// Goes on with the chain in `directory`. A torn end is moved aside, never thrown away, and said so
    /// in a first record.
    ///
    /// # Errors
    /// It can't be read or written, or its end holds no record of this chain.
    pub fn open(directory: &Path) -> Result<Self, ConductorError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(ConductorError::file("folder", directory))?;
        let path = directory.join(format!("{FLOW_CHAIN}.jsonl"));
        let failed = || ConductorError::file("audit file", &path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed())?;
        let (chain, bytes) = last(&mut file).map_err(failed())?;
        let torn = set_aside(&mut file, &path, bytes).map_err(failed())?;
        let mut journal = Self {
            path,
            file,
            chain,
            bytes,
        };
        let mut started = Record::new(unix_ms(), Event::Started);
        started.detail = torn.map(|torn| format!("a torn end was moved to {}", torn.display()));
        journal.append(&[started])?;
        Ok(journal)
    }

    /// Writes records and waits for the disk.
    ///
    /// # Errors
    /// The disk does not take them: the file is as it was.
    pub fn append(&mut self, records: &[Record]) -> Result<(), ConductorError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut chain = self.chain.clone();
        let lines: String = records.iter().map(|record| chain.append(record)).collect();
        let written = self
            .file
            .seek(SeekFrom::Start(self.bytes))
            .and_then(|_| self.file.write_all(lines.as_bytes()))
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What has gone out of it is no record, and is written over by the next ones.
            let _ = self.file.set_len(self.bytes);
            return Err(ConductorError::file("audit file", &self.path)(error));
        }
        self.chain = chain;
        self.bytes += lines.len() as u64;
        Ok(())
    }
}

/// The chain up to its last whole record, and where that ends.
fn last(file: &mut File) -> io::Result<(Chain, u64)> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut tail)?;
    let mut end = tail.len();
    while let Some(feed) = tail[..end].iter().rposition(|byte| *byte == b'\n') {
        let begin = tail[..feed]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |before| before + 1);
        let chain = std::str::from_utf8(&tail[begin..feed])
            .ok()
            .and_then(|line| Chain::resume(FLOW_CHAIN, line));
        if let Some(chain) = chain {
            return Ok((chain, from + feed as u64 + 1));
        }
        end = begin;
    }
    if from == 0 {
        return Ok((Chain::start(FLOW_CHAIN), 0));
    }
    let why = format!("the last {TAIL_BYTES_MAX} bytes hold no record of chain {FLOW_CHAIN}");
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// Moves what stands after `end` into a file of its own.
fn set_aside(file: &mut File, path: &Path, end: u64) -> io::Result<Option<PathBuf>> {
    if file.metadata()?.len() == end {
        return Ok(None);
    }
    let torn = path.with_extension(format!("jsonl.torn-{}", unix_ms()));
    let mut aside = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&torn)?;
    file.seek(SeekFrom::Start(end))?;
    io::copy(file, &mut aside)?;
    aside.sync_all()?;
    file.set_len(end)?;
    file.sync_all()?;
    Ok(Some(torn))
}

#[cfg(test)]
mod tests {
    use postern_audit::verify;

    use super::*;

    fn flow(number: u64) -> Record {
        Record::new(number, Event::Flow)
    }

    /// Records of the chain that holds.
    fn held(folder: &Path) -> u64 {
        let text = std::fs::read_to_string(folder.join("flows.jsonl")).unwrap();
        verify(FLOW_CHAIN, text.lines(), |_, _| {}).unwrap().seq
    }

    #[test]
    fn a_chain_goes_on_where_it_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&[flow(1), flow(2)]).unwrap();
        assert_eq!(held(folder.path()), 3);
        let mut again = Journal::open(folder.path()).unwrap();
        again.append(&[flow(3)]).unwrap();
        assert_eq!(held(folder.path()), 5);
    }

    #[test]
    fn a_torn_end_is_moved_aside_and_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let check = |torn: &str| {
            let mut journal = Journal::open(folder.path()).unwrap();
            journal.append(&[flow(1)]).unwrap();
            let before = held(folder.path());
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(torn.as_bytes()).unwrap();
            let _ = Journal::open(folder.path()).unwrap();
            assert_eq!(held(folder.path()), before + 1);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(
                text.lines()
                    .last()
                    .unwrap()
                    .contains("a torn end was moved")
            );
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        check("{\"chain\":\"flows\",\"seq\":");
        check("rubbish\n");
        let aside = std::fs::read_dir(folder.path()).unwrap().count() - 1;
        assert_eq!(aside, 2);
    }

    #[test]
    fn another_chains_file_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.jsonl");
        let strange = "x".repeat(2 * TAIL_BYTES_MAX as usize);
        std::fs::write(&path, &strange).unwrap();
        assert!(Journal::open(folder.path()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), strange);
    }
}
