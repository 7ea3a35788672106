//! An append-only file with group commit: many writers of one core share one `fdatasync`.
//!
//! Bytes go to the file in the order of [`Journal::append`], whatever fails in between: a batch that
//! could not be written stays in front of the queue and is tried again.

mod file;

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::{clock, front};
use file::JournalFile;

/// Bytes that may wait for the disk; more are refused.
pub const PENDING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Pause after a failed write before the next try.
const RETRY: Duration = Duration::from_millis(500);

/// Position in the file that must be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Why bytes were not taken or are not durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("the disk is behind: too many bytes wait for it")]
    Full,
    #[error("the file can't be written: {0}")]
    Write(String),
}

/// A handle; clones share the file. Lives on one core.
#[derive(Clone)]
pub struct Journal(Rc<Inner>);

struct Inner {
    file: JournalFile,
    /// Not yet given to the disk, or given and failed.
    pending: RefCell<Vec<u8>>,
    /// Bytes ever appended, the old length of the file included.
    appended: Cell<u64>,
    /// Bytes known to be on disk.
    durable: Cell<u64>,
    /// How the last attempt failed; cleared by a success.
    failure: RefCell<Option<String>>,
    attempts: Cell<u64>,
    writer: RefCell<Option<Waker>>,
    waiters: RefCell<Vec<Waker>>,
}

impl Journal {
    /// Opens `path` for appending (mode 0640), makes it if it isn't there, and starts its writer.
    ///
    /// # Errors
    /// As the file system says.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let (file, length) = JournalFile::open(path).await?;
        let journal = Self(Rc::new(Inner {
            file,
            pending: RefCell::default(),
            appended: Cell::new(length),
            durable: Cell::new(length),
            failure: RefCell::default(),
            attempts: Cell::new(0),
            writer: RefCell::default(),
            waiters: RefCell::default(),
        }));
        let writer = journal.clone();
        front::spawn(async move { writer.write_batches().await });
        Ok(journal)
    }

    /// Whether `bytes` more would be taken.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.0.pending.borrow().len() + bytes <= PENDING_BYTES_MAX
    }

    /// Queues bytes; [`Journal::durable`] says when they are safe.
    ///
    /// # Errors
    /// When [`PENDING_BYTES_MAX`] would be passed; nothing was taken then.
    pub fn append(&self, bytes: &[u8]) -> Result<Ticket, JournalError> {
        if !self.has_room(bytes.len()) {
            return Err(JournalError::Full);
        }
        self.0.pending.borrow_mut().extend_from_slice(bytes);
        self.0
            .appended
            .set(self.0.appended.get() + bytes.len() as u64);
        if let Some(writer) = self.0.writer.borrow_mut().take() {
            writer.wake();
        }
        Ok(Ticket(self.0.appended.get()))
    }

    /// Resolves when everything up to `ticket` is on disk.
    ///
    /// # Errors
    /// When an attempt that included it failed. The bytes stay queued all the same.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), JournalError> {
        let first = self.0.attempts.get();
        std::future::poll_fn(|cx| {
            if self.0.durable.get() >= ticket.0 {
                return Poll::Ready(Ok(()));
            }
            // A failure counts only when its attempt began after the bytes were queued, or the
            // journal was failing already: then waiting for the next retry helps nobody.
            if let Some(why) = self.0.failure.borrow().as_ref()
                && self.0.attempts.get() > first
            {
                return Poll::Ready(Err(JournalError::Write(why.clone())));
            }
            self.0.waiters.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn write_batches(&self) {
        loop {
            std::future::poll_fn(|cx| {
                if !self.0.pending.borrow().is_empty() {
                    return Poll::Ready(());
                }
                *self.0.writer.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            let batch = self.0.pending.borrow().clone();
            let at = self.0.durable.get();
            let result = self.0.file.write_durably(&batch, at).await;
            self.0.attempts.set(self.0.attempts.get() + 1);
            let failed = result.is_err();
            match result {
                Ok(()) => {
                    self.0.pending.borrow_mut().drain(..batch.len());
                    self.0
                        .durable
                        .set(self.0.durable.get() + batch.len() as u64);
                    self.0.failure.replace(None);
                }
                Err(error) => {
                    tracing::error!(%error, "audit file can't be written");
                    self.0.failure.replace(Some(error.to_string()));
                }
            }
            self.0.waiters.take().into_iter().for_each(Waker::wake);
            if failed {
                clock::sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::Kind;
    use crate::trial::{KINDS, on_a_core};

    /// Appends what `lines` has, and waits for the last one.
    fn write(kind: Kind, path: &Path, lines: std::ops::Range<u32>) {
        let path = path.to_owned();
        on_a_core(kind, move || async move {
            let journal = Journal::open(&path).await.expect("opens");
            let mut last = None;
            for line in lines {
                last = Some(
                    journal
                        .append(format!("{line}\n").as_bytes())
                        .expect("room"),
                );
            }
            journal
                .durable(last.expect("some lines"))
                .await
                .expect("durable");
        });
    }

    #[test]
    fn many_appends_are_durable_in_order_and_survive_reopening_by_either_kind() {
        for (first, second) in [KINDS, [KINDS[1], KINDS[0]]].map(|[one, other]| (one, other)) {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("core-0.jsonl");
            write(first, &path, 0..1000);
            write(second, &path, 1000..1001);
            let text = std::fs::read_to_string(&path).expect("reads");
            let numbers: Vec<u32> = text
                .lines()
                .map(|line| line.parse().expect("number"))
                .collect();
            assert_eq!(numbers, (0..=1000).collect::<Vec<_>>(), "{first:?}");
            let mode = std::os::unix::fs::PermissionsExt::mode(
                &path.metadata().expect("metadata").permissions(),
            );
            assert_eq!(mode & 0o027, 0, "others can't read it: {first:?}");
        }
    }

    #[test]
    fn a_full_disk_is_reported_to_the_writer_and_the_queue_is_bounded() {
        for kind in KINDS {
            on_a_core(kind, || async {
                let journal = Journal::open(Path::new("/dev/full")).await.expect("opens");
                let ticket = journal.append(b"record\n").expect("room");
                let error = journal.durable(ticket).await.expect_err("no space");
                assert!(matches!(error, JournalError::Write(_)), "{error}");
                let megabyte = vec![b'x'; 1024 * 1024];
                let refused = (0..8)
                    .map(|_| journal.append(&megabyte))
                    .find(Result::is_err);
                assert_eq!(refused, Some(Err(JournalError::Full)));
            });
        }
    }

    #[test]
    fn one_commit_serves_all_who_wait() {
        const WRITERS: u64 = 100;
        for kind in KINDS {
            on_a_core(kind, || async {
                let folder = tempfile::tempdir().expect("folder");
                let journal = Journal::open(&folder.path().join("core-0.jsonl"))
                    .await
                    .expect("opens");
                let durable = Rc::new(Cell::new(0));
                for _ in 0..WRITERS {
                    let (journal, durable) = (journal.clone(), durable.clone());
                    front::spawn(async move {
                        let ticket = journal.append(b"record\n").expect("room");
                        journal.durable(ticket).await.expect("durable");
                        durable.set(durable.get() + 1);
                    });
                }
                while durable.get() < WRITERS {
                    clock::sleep(Duration::from_millis(1)).await;
                }
                let commits = journal.0.attempts.get();
                assert!(
                    commits < WRITERS / 2,
                    "{commits} commits for {WRITERS} writers"
                );
            });
        }
    }
}
