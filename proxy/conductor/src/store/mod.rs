//! What the nodes share: sealed values under a prefix of etcd, or a file of nodes.
//!
//! A value that comes out of here was sealed by somebody who has the cluster's secret, for the very key
//! that it lay under. What was not is told of as refused, never handed over. An old value put back
//! under its own key passes the seal: whoever reads compares sequences and generations.

mod error;
mod etcd;
mod key;
pub(crate) mod limits;
mod nodes_file;
mod sealed;

pub use error::StoreError;
pub use etcd::{Access, Commit, Etcd, Follower, Lease, Transaction};
pub use key::{Key, LeaseId, Revision};
#[cfg(test)]
pub use nodes_file::Node;
pub use nodes_file::{Nodes, NodesFile};
pub use sealed::{Refusal, Sealer};

use std::time::Instant;

/// A value whose seal held, and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub value: Vec<u8>,
    /// When this key came to be. A key that was deleted and made again has another one.
    pub created: Revision,
    pub modified: Revision,
    pub lease: Option<LeaseId>,
}

/// A value that nothing may be done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The key as it may be shown: relative, escaped, and cut.
    pub key: String,
    pub why: Refusal,
    pub modified: Revision,
}

/// Everything under the prefix at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub revision: Revision,
    /// In the order of their last change.
    pub entries: Vec<Entry>,
    pub refused: Vec<Refused>,
}

/// A change of what the nodes share. Changes come in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Put(Entry),
    Deleted {
        key: Key,
        /// When it was noticed, at the latest.
        revision: Revision,
    },
    /// The value that lay there before, if any, is the last good one.
    Refused(Refused),
    /// All that was there at this revision has been told: at the beginning, and whenever everything
    /// had to be read again.
    Complete(Revision),
}

/// Whether what changes in the store is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// As it happens; what happened before is on its way.
    Up { since: Instant },
    /// What was told may be old.
    Lost { since: Instant, why: String },
}

impl Health {
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}
