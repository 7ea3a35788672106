//! What can go wrong with the store.

use std::path::PathBuf;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was configured can't be: asking again is no use.
    #[error("{0}")]
    Settings(String),
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    /// Nothing was asked.
    #[error("no endpoint of etcd can be reached: {0}")]
    Unreachable(String),
    /// It may have been done, and it may not.
    #[error("etcd did not answer: {0}")]
    Unanswered(String),
    #[error("etcd refuses: {0}")]
    Rejected(String),
    #[error("the lease has ended")]
    LeaseGone,
    #[error("that revision is compacted")]
    Compacted,
    /// One answer is longer than any that is taken.
    #[error("an answer of etcd is too long: {0}")]
    TooLong(String),
    /// More lies under the prefix than a cluster needs.
    #[error("more than {limit} {what} lie under the prefix")]
    TooMany { what: &'static str, limit: usize },
    #[error("a value of {0} bytes is too long to be stored")]
    ValueTooLong(usize),
}
