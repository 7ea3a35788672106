//! Control's own chain: records of logins, logouts, administration and certificates.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use postern_audit::{Chain, Event, Record};

use super::{CHAIN_EXTENSION, CONTROL_CHAIN, recover};
use crate::{ControlError, clock};

/// Appends records, each on disk before the call returns.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Mutex<Writer>>);

#[derive(Debug)]
struct Writer {
    file: File,
    chain: Chain,
    /// Length of the file up to its last whole record.
    bytes: u64,
    /// Records that could not be written and that no gap record speaks of yet.
    unsaid: u64,
}

impl Journal {
    /// Opens `control.jsonl` and writes that a run began, and whether a torn line was found. A full
    /// disk keeps nobody from revoking: the record is missed and told of later.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let recovered = recover(directory, CONTROL_CHAIN)?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(directory.join(format!("{CONTROL_CHAIN}.{CHAIN_EXTENSION}")))?;
        let mut writer = Writer {
            bytes: file.metadata()?.len(),
            file,
            chain: recovered.chain,
            unsaid: 0,
        };
        if let Some(torn) = recovered.torn {
            let mut gap = Record::new(clock::unix_ms(), Event::Gap);
            gap.detail = Some(format!("a torn last line was moved to {}", torn.display()));
            writer.append_or_say_so(&gap);
        }
        writer.append_or_say_so(&Record::new(clock::unix_ms(), Event::Started));
        Ok(Self(Arc::new(Mutex::new(writer))))
    }

    /// Writes a record; it is on disk when this returns. A record that can't be written is told of
    /// by a gap record once there is room again.
    ///
    /// # Errors
    /// When it is not on disk.
    pub async fn append(&self, record: Record) -> Result<(), ControlError> {
        let writer = self.0.clone();
        tokio::task::spawn_blocking(move || {
            // A panic while the lock was held leaves a writer that still knows its last record.
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.append_or_count(&record)
        })
        .await
        .map_err(|_| ControlError::Worker)?
        .map_err(ControlError::Audit)
    }
}

#[cfg(test)]
impl Journal {
    /// From now on nothing can be written.
    pub(crate) fn break_for_test(&self) {
        let mut writer = self.0.lock().expect("no panic");
        writer.file = File::open("/dev/null").expect("opens for reading");
    }
}

impl Writer {
    fn append_or_count(&mut self, record: &Record) -> io::Result<()> {
        let result = self.say_gap().and_then(|()| self.append(record));
        if result.is_err() {
            self.unsaid += 1;
        }
        result
    }

    fn append_or_say_so(&mut self, record: &Record) {
        if let Err(error) = self.append_or_count(record) {
            tracing::error!(%error, "an audit record is lost");
        }
    }

    fn say_gap(&mut self) -> io::Result<()> {
        if self.unsaid == 0 {
            return Ok(());
        }
        let mut gap = Record::new(clock::unix_ms(), Event::Gap);
        gap.detail = Some(format!("{} records could not be written", self.unsaid));
        self.append(&gap)?;
        self.unsaid = 0;
        Ok(())
    }

    /// The chain moves on only once the line is on disk.
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut chain = self.chain.clone();
        let line = chain.append(record);
        let written = self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Part of the line may stand there; without this the next one would not be a line.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.chain = chain;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(directory: &Path) -> Vec<Record> {
        let text = std::fs::read_to_string(directory.join("control.jsonl")).expect("chain");
        let mut records = Vec::new();
        postern_audit::verify(CONTROL_CHAIN, text.lines(), |_, record| {
            records.push(record.clone());
        })
        .expect("the chain holds");
        records
    }

    #[tokio::test]
    async fn a_run_goes_on_where_the_last_one_ended() {
        let folder = tempfile::tempdir().expect("folder");
        for run in 1..=3 {
            let journal = Journal::open(folder.path()).expect("opens");
            journal
                .append(Record::new(run, Event::Login))
                .await
                .expect("written");
        }
        let events: Vec<_> = records(folder.path())
            .iter()
            .map(|record| record.event)
            .collect();
        assert_eq!(events, [Event::Started, Event::Login].repeat(3));
    }

    #[tokio::test]
    async fn a_torn_line_is_told_by_a_gap_record() {
        let folder = tempfile::tempdir().expect("folder");
        drop(Journal::open(folder.path()).expect("opens"));
        let mut file = OpenOptions::new()
            .append(true)
            .open(folder.path().join("control.jsonl"))
            .expect("opens");
        file.write_all(b"{\"chain\":\"contr").expect("written");
        drop(Journal::open(folder.path()).expect("opens"));
        let records = records(folder.path());
        assert_eq!(records.len(), 3);
        assert_eq!(records[1].event, Event::Gap);
        assert!(
            records[1]
                .detail
                .as_deref()
                .expect("words")
                .contains(".torn-")
        );
    }
}
