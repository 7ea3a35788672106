//! The audit trail of a gateway under test, read as it stands on disk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use postern_audit::record::{Event, Record};
use postern_parts::wait;

use super::EFFECT;

/// A folder of chains.
#[derive(Debug, Clone)]
pub struct Audit {
    pub folder: PathBuf,
}

/// A record and where it stands.
#[derive(Debug, Clone)]
pub struct Chained {
    pub chain: String,
    pub seq: u64,
    pub record: Record,
}

impl Audit {
    pub(super) fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The files that are chains.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn chains(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.folder).context("the audit folder")?;
        let mut files: Vec<PathBuf> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|end| end == "jsonl"));
        files.sort();
        Ok(files)
    }

    /// All records, chain by chain. A last line that is being written is left out.
    ///
    /// # Errors
    /// A line is no record.
    pub fn records(&self) -> Result<Vec<Chained>> {
        let mut records = Vec::new();
        for file in self.chains()? {
            let text = std::fs::read_to_string(&file)?;
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            for line in whole.lines() {
                let line: serde_json::Value =
                    serde_json::from_str(line).with_context(|| format!("no record: {line}"))?;
                records.push(Chained {
                    chain: line["chain"].as_str().unwrap_or_default().to_owned(),
                    seq: line["seq"].as_u64().unwrap_or_default(),
                    record: serde_json::from_value(line["record"].clone())?,
                });
            }
        }
        Ok(records)
    }

    /// The records of one event.
    ///
    /// # Errors
    /// A line is no record.
    pub fn events(&self, event: Event) -> Result<Vec<Record>> {
        let records = self.records()?.into_iter().map(|chained| chained.record);
        Ok(records.filter(|record| record.event == event).collect())
    }

    /// Waits for the record of the connection that came from `source`, of which there must be
    /// one alone.
    ///
    /// # Errors
    /// There is none in time, or more than one.
    pub fn connection(&self, source: SocketAddr) -> Result<Record> {
        let source = source.to_string();
        let what = format!("the record of the connection from {source}");
        wait::until(&what, EFFECT, || {
            let mut records = self.events(Event::Connection)?;
            records.retain(|record| record.source.as_deref() == Some(&source));
            match records.len() {
                0 => Ok(None),
                1 => Ok(records.pop()),
                many => bail!("{many} records of one connection: {records:#?}"),
            }
        })
    }

    /// The decisions on the connection from `source`.
    ///
    /// # Errors
    /// A line is no record.
    pub fn decisions(&self, source: SocketAddr) -> Result<Vec<Record>> {
        let source = source.to_string();
        let mut records = self.events(Event::Decision)?;
        records.retain(|record| record.source.as_deref() == Some(&source));
        Ok(records)
    }
}
