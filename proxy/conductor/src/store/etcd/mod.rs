//! The store in etcd (v3): single requests. What changes is followed in `follow`.

mod codec;
mod follow;
mod link;
mod scan;
mod tls;
mod transaction;
mod wire;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use link::Link;
use wire::{
    KEEP_ALIVE, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, RangeRequest,
};

use super::{Entry, Key, LeaseId, Refused, Revision, Sealer, StoreError};

pub use follow::Follower;
pub use transaction::{Commit, Transaction};

/// Where etcd is, and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// `http://` or `https://` URLs. One after the other is tried until one answers.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// Who signs the certificates of etcd; needed for `https://`.
    pub ca_file: Option<PathBuf>,
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// Keys that end with whoever keeps them alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub id: LeaseId,
    /// How long it lasts without being kept alive; etcd may make it longer than it was asked for.
    pub lasts: Duration,
}

/// Values in etcd under a prefix, sealed. A clone uses the same connection.
#[derive(Debug, Clone)]
pub struct Etcd {
    link: Arc<Link>,
    prefix: Arc<str>,
    sealer: Sealer,
}

impl Etcd {
    /// Checks what `access` names. Connects when something is asked, and reads the files for it anew.
    ///
    /// # Errors
    /// What was configured can't be.
    pub fn open(access: &Access, sealer: Sealer) -> Result<Self, StoreError> {
        if access.prefix.is_empty() || access.prefix.contains('\0') {
            let why = format!("{:?} is no prefix for keys of etcd", access.prefix);
            return Err(StoreError::Settings(why));
        }
        Ok(Self {
            link: Arc::new(Link::new(access)?),
            prefix: access.prefix.as_str().into(),
            sealer,
        })
    }

    /// The newest value of `key`, from a majority of etcd's members.
    ///
    /// # Errors
    /// etcd was not reached, did not answer, or refuses.
    pub async fn read(&self, key: &Key) -> Result<Option<Result<Entry, Refused>>, StoreError> {
        let question = RangeRequest {
            key: self.name(key).into_bytes(),
            ..RangeRequest::default()
        };
        let answer = self.link.ask(question).await?;
        Ok(answer.kvs.into_iter().next().map(|kv| self.judge(kv)))
    }

    /// Everything under the prefix, at one revision.
    ///
    /// # Errors
    /// As [`Etcd::read`], or there is more than a cluster needs.
    #[cfg(test)]
    pub async fn read_all(&self) -> Result<super::Snapshot, StoreError> {
        Ok(scan::read_all(self).await?.snapshot)
    }

    /// Tells everything that is there, and then what changes, for as long as the follower lives.
    /// Must be called on a tokio runtime.
    #[must_use]
    pub fn follow(&self) -> Follower {
        Follower::start(self.clone())
    }

    /// Writes `value`, whatever is there.
    ///
    /// # Errors
    /// As [`Etcd::commit`].
    pub async fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Option<LeaseId>,
    ) -> Result<Revision, StoreError> {
        self.always(Transaction::new().put(key, value, lease)).await
    }

    /// Takes `key` away, where it is there.
    ///
    /// # Errors
    /// As [`Etcd::commit`].
    pub async fn delete(&self, key: &Key) -> Result<Revision, StoreError> {
        self.always(Transaction::new().delete(key)).await
    }

    async fn always(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        match self.commit(transaction).await? {
            Commit::Done(revision) => Ok(revision),
            Commit::Refused => {
                let why = "a transaction without a condition was not done";
                Err(StoreError::Rejected(why.to_owned()))
            }
        }
    }

    /// Does all of `transaction` where all of its conditions hold, and nothing else.
    ///
    /// # Errors
    /// etcd was not reached or refuses: nothing was done. It did not answer
    /// ([`StoreError::Unanswered`]): it may have been done, or be done a moment later.
    pub async fn commit(&self, transaction: Transaction) -> Result<Commit, StoreError> {
        let answer = self.link.ask(transaction.seal(self)?).await?;
        let revision = revision(answer.header.map_or(0, |header| header.revision));
        Ok(if answer.succeeded {
            Commit::Done(revision)
        } else {
            Commit::Refused
        })
    }

    /// Makes a lease that lasts for `lasts`, in whole seconds.
    ///
    /// # Errors
    /// etcd was not reached, did not answer, or refuses.
    pub async fn grant(&self, lasts: Duration) -> Result<Lease, StoreError> {
        let ttl = i64::try_from(lasts.as_secs().max(1)).unwrap_or(i64::MAX);
        let answer = self.link.ask(LeaseGrantRequest { ttl }).await?;
        if !answer.error.is_empty() || answer.id == 0 {
            return Err(StoreError::Rejected(answer.error));
        }
        Ok(Lease {
            id: LeaseId(answer.id),
            lasts: seconds(answer.ttl),
        })
    }

    /// Begins the time of a lease anew, and says how long it lasts from now.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`]: it has ended, and its keys are gone. Else as [`Etcd::grant`].
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        let question = LeaseKeepAliveRequest { id: lease.0 };
        let answer: LeaseKeepAliveResponse = self.link.ask_stream(KEEP_ALIVE, question).await?;
        if answer.ttl <= 0 {
            return Err(StoreError::LeaseGone);
        }
        Ok(seconds(answer.ttl))
    }

    /// Ends a lease now, and its keys with it. One that has ended already is no error.
    ///
    /// # Errors
    /// As [`Etcd::grant`].
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self.link.ask(LeaseRevokeRequest { id: lease.0 }).await {
            Ok(_) | Err(StoreError::LeaseGone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What etcd calls `key`.
    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The first name that no longer begins with the prefix.
    fn end(&self) -> Vec<u8> {
        after(self.prefix.as_bytes())
    }

    /// The key behind one of etcd's names.
    fn key(&self, name: &[u8]) -> Option<Key> {
        let name = std::str::from_utf8(name).ok()?;
        Key::new(name.strip_prefix(&*self.prefix)?)
    }

    fn refused(&self, name: &[u8], why: super::Refusal, modified: i64) -> Refused {
        let shown = name
            .strip_prefix(self.prefix.as_bytes())
            .unwrap_or_default();
        let shown = &shown[..shown.len().min(super::limits::KEY_BYTES_MAX)];
        Refused {
            key: shown.escape_ascii().to_string(),
            why,
            modified: revision(modified),
        }
    }

    /// What lies under a name, once its seal has been looked at.
    fn judge(&self, kv: wire::KeyValue) -> Result<Entry, Refused> {
        let refused = |why| self.refused(&kv.key, why, kv.mod_revision);
        let key = self
            .key(&kv.key)
            .ok_or_else(|| refused(super::Refusal::Key))?;
        let value = self.sealer.open(&self.name(&key), &kv.value);
        Ok(Entry {
            value: value.map_err(refused)?,
            key,
            created: revision(kv.create_revision),
            modified: revision(kv.mod_revision),
            lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
        })
    }
}

/// The first name after all that begin with `prefix`; a lone 0 is the end of all names.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// A revision of etcd's; a negative one is none.
fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or_default())
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or_default())
}

/// A revision as etcd takes it; one that it never gave is the last that there can be.
fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
