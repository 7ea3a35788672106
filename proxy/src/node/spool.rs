//! One core's audit spool: records, chained and committed in groups.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;

use postern_audit::{Chain, Event, Record};
use postern_control::clock::unix_ms;
use postern_engine::journal::{Journal, JournalError, Ticket};
use postern_snapshot::CoreMetrics;

/// Longest line that a record makes; room is checked by it before the chain moves on.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The writing end of `core-N.jsonl`.
#[derive(Clone)]
pub(super) struct Spool(Rc<Inner>);

struct Inner {
    chain: RefCell<Chain>,
    journal: Journal,
    records: Cell<u64>,
    losses: Cell<u64>,
    /// Losses that no gap record speaks of yet.
    unsaid: Cell<u64>,
}

impl Spool {
    /// Opens the spool of a core and goes on where its chain ends.
    ///
    /// # Errors
    /// When the folder or the file can't be used.
    pub(super) async fn open(directory: &Path, core: usize) -> io::Result<Self> {
        let name = format!("core-{core}");
        let recovered = postern_control::audit::recover(directory, &name)?;
        let journal = Journal::open(&directory.join(format!("{name}.jsonl"))).await?;
        let spool = Self(Rc::new(Inner {
            chain: RefCell::new(recovered.chain),
            journal,
            records: Cell::new(0),
            losses: Cell::new(0),
            unsaid: Cell::new(0),
        }));
        let mut started = Record::new(unix_ms(), Event::Started);
        started.detail = recovered
            .torn
            .map(|torn| format!("a torn last line was moved to {}", torn.display()));
        spool.write(&started);
        Ok(spool)
    }

    /// Queues a record. One that the disk can't take in time is lost, counted, and told by a gap
    /// record as soon as there is room.
    pub(super) fn write(&self, record: &Record) {
        // A loss is counted where it happens.
        let _ = self.append(record);
    }

    /// Writes a record and waits until it is on disk.
    ///
    /// # Errors
    /// When it is not.
    pub(super) async fn write_durably(&self, record: &Record) -> Result<(), JournalError> {
        let ticket = self.append(record)?;
        self.0.journal.durable(ticket).await
    }

    /// Waits until everything so far is on disk, or can't be.
    pub(super) async fn settle(&self) {
        if let Ok(ticket) = self.0.journal.append(&[]) {
            // Nobody is left to be told at the end of a run.
            let _ = self.0.journal.durable(ticket).await;
        }
    }

    pub(super) fn measure(&self, metrics: &mut CoreMetrics) {
        metrics.audit_records = self.0.records.get();
        metrics.audit_losses = self.0.losses.get();
    }

    fn append(&self, record: &Record) -> Result<Ticket, JournalError> {
        let inner = &self.0;
        if !inner.journal.has_room(2 * LINE_BYTES_MAX) {
            inner.losses.set(inner.losses.get() + 1);
            inner.unsaid.set(inner.unsaid.get() + 1);
            return Err(JournalError::Full);
        }
        if inner.unsaid.get() > 0 {
            let mut gap = Record::new(unix_ms(), Event::Gap);
            gap.detail = Some(format!(
                "{} records could not be written",
                inner.unsaid.take()
            ));
            inner
                .journal
                .append(inner.chain.borrow_mut().append(&gap).as_bytes())?;
        }
        let line = inner.chain.borrow_mut().append(record);
        inner.records.set(inner.records.get() + 1);
        inner.journal.append(line.as_bytes())
    }
}
