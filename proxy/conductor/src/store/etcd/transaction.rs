//! Writes that are done together or not at all, and only while something is as it was.

use super::{Etcd, number, wire};
use crate::store::limits::OPERATIONS_MAX;
use crate::store::{Key, LeaseId, Revision, StoreError, sealed};

/// What is to be done, and what must hold for it.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Transaction {
    conditions: Vec<Condition>,
    operations: Vec<Operation>,
}

/// What became of a transaction that etcd has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    Done(Revision),
    /// A condition did not hold.
    Refused,
}

#[derive(Debug, Clone)]
enum Condition {
    Created(Key, Revision),
    Modified(Key, Revision),
}

#[derive(Debug, Clone)]
enum Operation {
    Put(Key, Vec<u8>, Option<LeaseId>),
    Delete(Key),
}

impl Transaction {
    pub fn new() -> Self {
        Self::default()
    }

    /// `key` must not be there.
    pub fn if_absent(self, key: &Key) -> Self {
        self.if_created(key, Revision(0))
    }

    /// `key` must have come to be at `revision`: it is still the same.
    pub fn if_created(mut self, key: &Key, revision: Revision) -> Self {
        let condition = Condition::Created(key.clone(), revision);
        self.conditions.push(condition);
        self
    }

    /// `key` must have changed last at `revision`; 0: it must not be there.
    pub fn if_modified(mut self, key: &Key, revision: Revision) -> Self {
        let condition = Condition::Modified(key.clone(), revision);
        self.conditions.push(condition);
        self
    }

    pub fn put(mut self, key: &Key, value: &[u8], lease: Option<LeaseId>) -> Self {
        let operation = Operation::Put(key.clone(), value.to_vec(), lease);
        self.operations.push(operation);
        self
    }

    pub fn delete(mut self, key: &Key) -> Self {
        self.operations.push(Operation::Delete(key.clone()));
        self
    }

    /// The request, with every value sealed for its key.
    pub(super) fn seal(self, etcd: &Etcd) -> Result<wire::TxnRequest, StoreError> {
        let count = self.conditions.len().max(self.operations.len());
        if count > OPERATIONS_MAX {
            return Err(StoreError::TooMany {
                what: "operations of a transaction",
                limit: OPERATIONS_MAX,
            });
        }
        let compare = self.conditions.into_iter();
        let success = self.operations.into_iter();
        Ok(wire::TxnRequest {
            compare: compare.map(|condition| condition.compare(etcd)).collect(),
            success: success
                .map(|operation| operation.seal(etcd))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Condition {
    fn compare(self, etcd: &Etcd) -> wire::Compare {
        let (key, target, expected) = match self {
            Self::Created(key, revision) => (
                key,
                wire::TARGET_CREATED,
                wire::Target::Created(number(revision)),
            ),
            Self::Modified(key, revision) => (
                key,
                wire::TARGET_MODIFIED,
                wire::Target::Modified(number(revision)),
            ),
        };
        wire::Compare {
            result: 0,
            target,
            key: etcd.name(&key).into_bytes(),
            expected: Some(expected),
        }
    }
}

impl Operation {
    fn seal(self, etcd: &Etcd) -> Result<wire::RequestOp, StoreError> {
        let request = match self {
            Self::Put(_, value, _) if !sealed::fits(&value) => {
                return Err(StoreError::ValueTooLong(value.len()));
            }
            Self::Put(key, value, lease) => {
                let name = etcd.name(&key);
                wire::Request::Put(wire::PutRequest {
                    value: etcd.sealer.seal(&name, &value),
                    key: name.into_bytes(),
                    lease: lease.map_or(0, |lease| lease.0),
                })
            }
            Self::Delete(key) => wire::Request::Delete(wire::DeleteRequest {
                key: etcd.name(&key).into_bytes(),
            }),
        };
        Ok(wire::RequestOp {
            request: Some(request),
        })
    }
}
