//! Reads everything under the prefix at one revision, in pages that fit into memory whatever lies there.

use std::collections::BTreeSet;

use tokio::time::timeout;

use super::wire::{RangeRequest, RangeResponse};
use super::{Etcd, number, revision};
use crate::store::limits::{KEYS_MAX, PAGE_KEYS_MAX, READ_PATIENCE, VALUES_BYTES_MAX};
use crate::store::{Key, Refusal, Revision, Snapshot, StoreError};

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub snapshot: Snapshot,
    /// Which etcd it was.
    pub cluster: u64,
    /// Keys of ours whose values were refused.
    pub spoiled: BTreeSet<Key>,
    keys: usize,
    bytes: usize,
}

/// Reads all pages. A revision that is compacted on the way is one more reason to read again.
pub(super) async fn read_all(etcd: &Etcd) -> Result<Scan, StoreError> {
    timeout(READ_PATIENCE, pages(etcd))
        .await
        .unwrap_or_else(|_| Err(StoreError::Unanswered("in time".to_owned())))
}

async fn pages(etcd: &Etcd) -> Result<Scan, StoreError> {
    let mut scan = Scan::default();
    let mut from = etcd.prefix.as_bytes().to_vec();
    let mut limit = PAGE_KEYS_MAX;
    loop {
        let question = RangeRequest {
            key: from.clone(),
            range_end: etcd.end(),
            limit: i64::try_from(limit).expect("a page is short"),
            revision: number(scan.snapshot.revision),
            keys_only: false,
        };
        let page = match etcd.link.ask(question.clone()).await {
            Ok(page) => page,
            // Too much for one message: fewer at once; of a single one, its name.
            Err(StoreError::TooLong(_)) if limit > 1 => {
                limit /= 2;
                continue;
            }
            Err(StoreError::TooLong(_)) => {
                let keys_only = true;
                let question = RangeRequest {
                    keys_only,
                    ..question
                };
                let page = etcd.link.ask(question).await?;
                scan.skip(etcd, &page)?;
                if !scan.turn(&page, &mut from) {
                    break;
                }
                limit = PAGE_KEYS_MAX;
                continue;
            }
            Err(error) => return Err(error),
        };
        let more = scan.turn(&page, &mut from);
        scan.take(etcd, page)?;
        if !more {
            break;
        }
        limit = (limit * 2).min(PAGE_KEYS_MAX);
    }
    scan.snapshot.entries.sort_by_key(|entry| entry.modified);
    Ok(scan)
}

impl Scan {
    /// Notes where the next page begins; false where there is none.
    fn turn(&mut self, page: &RangeResponse, from: &mut Vec<u8>) -> bool {
        if let Some(header) = &page.header
            && self.snapshot.revision == Revision(0)
        {
            self.snapshot.revision = revision(header.revision);
            self.cluster = header.cluster_id;
        }
        let Some(last) = page.kvs.last() else {
            return false;
        };
        from.clone_from(&last.key);
        from.push(0);
        page.more
    }

    /// Keys whose values could not even be read.
    fn skip(&mut self, etcd: &Etcd, page: &RangeResponse) -> Result<(), StoreError> {
        self.count(page)?;
        for kv in &page.kvs {
            let refused = etcd.refused(&kv.key, Refusal::Length, kv.mod_revision);
            self.snapshot.refused.push(refused);
            self.spoiled.extend(etcd.key(&kv.key));
        }
        Ok(())
    }

    fn take(&mut self, etcd: &Etcd, page: RangeResponse) -> Result<(), StoreError> {
        self.count(&page)?;
        for kv in page.kvs {
            let key = etcd.key(&kv.key);
            match etcd.judge(kv) {
                Ok(entry) => {
                    self.bytes += entry.value.len();
                    self.snapshot.entries.push(entry);
                }
                Err(refused) => {
                    self.snapshot.refused.push(refused);
                    self.spoiled.extend(key);
                }
            }
        }
        if self.bytes > VALUES_BYTES_MAX {
            return Err(StoreError::TooMany {
                what: "bytes of values",
                limit: VALUES_BYTES_MAX,
            });
        }
        Ok(())
    }

    fn count(&mut self, page: &RangeResponse) -> Result<(), StoreError> {
        self.keys += page.kvs.len();
        if self.keys > KEYS_MAX {
            return Err(StoreError::TooMany {
                what: "keys",
                limit: KEYS_MAX,
            });
        }
        Ok(())
    }
}
