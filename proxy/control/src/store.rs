//! What control must remember: a narrow trait by nouns, and its embedded form.

mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;

use postern_access::{Fingerprint, Revocations, UnixSeconds};
use postern_login::KeyRecord;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ControlError;

pub(crate) use sqlite::Sqlite;

type Result<T> = std::result::Result<T, ControlError>;

/// A signing key with its private half.
pub(crate) struct StoredKey {
    pub(crate) record: KeyRecord,
    pub(crate) pkcs8: Zeroizing<Vec<u8>>,
}

/// Whose tokens are void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// By user id.
    User(String),
    /// By application name.
    Application(String),
    /// By the login's id (`identity_nonce`).
    Login(String),
}

/// A login on its way to an application's own host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingHandOver {
    pub(crate) id: String,
    /// The login, encoded by its owner.
    pub(crate) login: String,
    pub(crate) expires_at: UnixSeconds,
}

/// What is kept. Calls may block; they run on a blocking thread.
pub(crate) trait Store: Send + Sync + 'static {
    fn keys(&self) -> Result<Vec<StoredKey>>;
    fn add_key(&self, record: &KeyRecord, pkcs8: &[u8]) -> Result<()>;
    fn retire_key(&self, kid: &str, at: UnixSeconds) -> Result<()>;
    fn delete_key(&self, kid: &str) -> Result<()>;

    /// The secret behind form tokens and codes; made by `fresh` when there is none yet.
    fn value_secret(&self, fresh: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>>;

    fn revocations(&self) -> Result<Revocations>;
    fn revoke(&self, what: &Revoked, at: UnixSeconds) -> Result<()>;
    /// Forgets revocations that [`Revocations::prune`] dropped.
    fn keep_revocations(&self, kept: &Revocations) -> Result<()>;

    fn pins(&self) -> Result<BTreeMap<String, Fingerprint>>;
    /// Keeps a pin if there is none; returns the one that now stands.
    fn pin_if_absent(&self, application: &str, seen: Fingerprint) -> Result<Fingerprint>;
    /// True when there was one.
    fn forget_pin(&self, application: &str) -> Result<bool>;

    /// Users of the last configuration in force, by id, with a digest of all that is known of them.
    fn directory(&self) -> Result<BTreeMap<String, String>>;
    fn set_directory(&self, users: &BTreeMap<String, String>) -> Result<()>;

    /// A number that no snapshot had yet.
    fn next_snapshot_version(&self) -> Result<u64>;

    fn checkpoint_number(&self) -> Result<u64>;
    fn set_checkpoint_number(&self, number: u64) -> Result<()>;

    /// Keeps a hand-over until it is taken, and forgets what has expired.
    fn put_hand_over(&self, pending: &PendingHandOver, now: UnixSeconds) -> Result<()>;
    /// The login of a hand-over, once.
    fn take_hand_over(&self, id: &str, now: UnixSeconds) -> Result<Option<String>>;
}

/// The store as the rest of control holds it.
#[derive(Clone)]
pub(crate) struct StoreHandle(Arc<dyn Store>);

impl StoreHandle {
    pub(crate) fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }

    /// Runs `ask` on a blocking thread.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.0.clone();
        tokio::task::spawn_blocking(move || ask(&*store))
            .await
            .map_err(|_| ControlError::Worker)?
    }
}
