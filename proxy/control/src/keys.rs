//! The signing keys in force: which one signs, which are published, when they are replaced.

use postern_access::{Jwks, KeySet, UnixSeconds};
use postern_login::rotation::{self, Plan};
use postern_login::signing_key::SystemRandom;
use postern_login::{KeyRecord, SigningKey};

use crate::ControlError;
use crate::store::{Store, StoredKey};

/// A plan settles after one key was made; more rounds would be a mistake in it.
const ROUNDS_MAX: usize = 3;

/// Keys as they stand now.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) signing: SigningKey,
    /// Everything that verifiers need: retired keys in their overlap, the active, the next.
    pub(crate) jwks: Jwks,
    pub(crate) set: KeySet,
}

impl Keys {
    /// Reads the keys, makes and retires what is due, and forgets what is over.
    ///
    /// # Errors
    /// When the store or the system's randomness fails.
    pub(crate) fn settle(
        store: &dyn Store,
        token_s_max: u64,
        now: UnixSeconds,
    ) -> Result<Self, ControlError> {
        for _ in 0..ROUNDS_MAX {
            let stored = store.keys()?;
            let records: Vec<KeyRecord> = stored.iter().map(|key| key.record.clone()).collect();
            let plan = rotation::plan(&records, token_s_max, now);
            for kid in &plan.retire {
                store.retire_key(kid, now)?;
            }
            for kid in &plan.delete {
                store.delete_key(kid)?;
            }
            if plan.create {
                create(store, now)?;
                continue;
            }
            return Self::of(&plan, &stored);
        }
        Err(ControlError::StoreContent(
            "the signing keys do not settle".to_owned(),
        ))
    }

    fn of(plan: &Plan, stored: &[StoredKey]) -> Result<Self, ControlError> {
        let key = |kid: &String| {
            let stored = stored.iter().find(|key| key.record.kid == *kid);
            let stored = stored.expect("a plan names keys that it was given");
            SigningKey::from_pkcs8(&stored.pkcs8)
        };
        let signing = plan.sign_with.as_ref().map(key).transpose()?;
        let signing = signing.ok_or_else(|| {
            ControlError::StoreContent("no key signs although none is to be made".to_owned())
        })?;
        let mut jwks = Jwks::default();
        for kid in &plan.publish {
            jwks.keys.push(key(kid)?.public_jwk().clone());
        }
        let set = KeySet::from_jwks(&jwks)?;
        Ok(Self { signing, jwks, set })
    }
}

fn create(store: &dyn Store, now: UnixSeconds) -> Result<(), ControlError> {
    let pkcs8 = SigningKey::generate(&SystemRandom::new())?;
    let record = KeyRecord {
        kid: SigningKey::from_pkcs8(&pkcs8)?.kid().to_owned(),
        created_at: now,
        retired_at: None,
    };
    tracing::info!(kid = record.kid, "a signing key was made");
    store.add_key(&record, &pkcs8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Sqlite;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn keys_rotate_with_an_overlap_and_are_forgotten_after_it() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Sqlite::open(&folder.path().join("store.sqlite")).expect("opens");
        let at = |day: u64| Keys::settle(&store, DAY, UnixSeconds(day * DAY)).expect("settles");
        let first = at(1000);
        assert_eq!(first.jwks.keys.len(), 1);
        assert_eq!(at(1001).signing.kid(), first.signing.kid());

        // The next key is published before it signs.
        let announced = at(1042);
        assert_eq!(announced.jwks.keys.len(), 2);
        assert_eq!(announced.signing.kid(), first.signing.kid());

        let rotated = at(1044);
        assert_ne!(rotated.signing.kid(), first.signing.kid());
        assert_eq!(rotated.jwks.keys.len(), 2);
        assert_eq!(at(1052).jwks.keys.len(), 1);
        assert_eq!(store.keys().expect("keys").len(), 1);
    }
}
