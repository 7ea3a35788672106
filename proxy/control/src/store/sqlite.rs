//! The embedded store: one SQLite file, for one node.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postern_access::{Fingerprint, Revocations, UnixSeconds};
use postern_login::KeyRecord;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use zeroize::{Zeroize as _, Zeroizing};

use super::{PendingHandOver, Result, Revoked, Store, StoredKey};
use crate::ControlError;

/// How the format came to be: entry N leads from version N to N + 1. Entries never change.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE signing_key (
        kid TEXT PRIMARY KEY, created_at INTEGER NOT NULL, retired_at INTEGER, pkcs8 BLOB NOT NULL
    ) STRICT;
    CREATE TABLE secret (name TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
    CREATE TABLE revocation (
        kind TEXT NOT NULL, name TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (kind, name)
    ) STRICT;
    CREATE TABLE pin (application TEXT PRIMARY KEY, sha256 TEXT NOT NULL) STRICT;
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    CREATE TABLE hand_over (
        id TEXT PRIMARY KEY, login TEXT NOT NULL, expires_at INTEGER NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE directory (user TEXT PRIMARY KEY, digest TEXT NOT NULL) STRICT;
",
];

const SNAPSHOT: &str = "snapshot";
const CHECKPOINT: &str = "checkpoint";
const VALUE_SECRET: &str = "value";

const USER: &str = "user";
const LOGIN: &str = "login";
const APPLICATION: &str = "application";

/// Another connection (a backup) may hold the file for this long.
const BUSY_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// A store in one file.
pub(crate) struct Sqlite(Mutex<Connection>);

impl Sqlite {
    /// Opens or makes the file, and brings it to the newest format.
    ///
    /// # Errors
    /// When the file can't be used or was written by a newer version.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = || ControlError::file("store", path);
        // SQLite would make the file with the umask's mode; its other files take this one's.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(failed())?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .map_err(failed())?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_MAX)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A revocation that was answered must survive a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // A deleted key leaves no copy in free pages.
        connection.pragma_update(None, "secure_delete", "ON")?;
        migrate(&mut connection)?;
        Ok(Self(Mutex::new(connection)))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic inside a transaction rolls it back; the connection stays good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let value = self
            .connection()
            .query_row("SELECT value FROM counter WHERE name = ?1", [name], |row| {
                row.get::<_, i64>(0)
            })
            .optional()?;
        Ok(value.map_or(0, from_sql))
    }
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let known = u32::try_from(MIGRATIONS.len()).expect("few migrations");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(ControlError::StoreTooNew { found, known });
    }
    for migration in &MIGRATIONS[found as usize..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

/// SQLite's integers are signed; times and counters stay far below the difference.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Store for Sqlite {
    fn keys(&self) -> Result<Vec<StoredKey>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare("SELECT kid, created_at, retired_at, pkcs8 FROM signing_key")?;
        let keys = statement.query_map([], |row| {
            Ok(StoredKey {
                record: KeyRecord {
                    kid: row.get(0)?,
                    created_at: UnixSeconds(from_sql(row.get(1)?)),
                    retired_at: row
                        .get::<_, Option<i64>>(2)?
                        .map(|at| UnixSeconds(from_sql(at))),
                },
                pkcs8: Zeroizing::new(row.get(3)?),
            })
        })?;
        Ok(keys.collect::<rusqlite::Result<_>>()?)
    }

    fn add_key(&self, record: &KeyRecord, pkcs8: &[u8]) -> Result<()> {
        self.connection().execute(
            "INSERT INTO signing_key (kid, created_at, retired_at, pkcs8) VALUES (?1, ?2, ?3, ?4)",
            params![
                record.kid,
                to_sql(record.created_at.0),
                record.retired_at.map(|at| to_sql(at.0)),
                pkcs8
            ],
        )?;
        Ok(())
    }

    fn retire_key(&self, kid: &str, at: UnixSeconds) -> Result<()> {
        self.connection().execute(
            "UPDATE signing_key SET retired_at = ?2 WHERE kid = ?1 AND retired_at IS NULL",
            params![kid, to_sql(at.0)],
        )?;
        Ok(())
    }

    fn delete_key(&self, kid: &str) -> Result<()> {
        self.connection()
            .execute("DELETE FROM signing_key WHERE kid = ?1", [kid])?;
        Ok(())
    }

    fn value_secret(&self, fresh: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
        let connection = self.connection();
        connection.execute(
            "INSERT INTO secret (name, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![VALUE_SECRET, fresh],
        )?;
        let mut bytes: Vec<u8> = connection.query_row(
            "SELECT bytes FROM secret WHERE name = ?1",
            [VALUE_SECRET],
            |row| row.get(0),
        )?;
        let secret = <[u8; 32]>::try_from(bytes.as_slice())
            .map(Zeroizing::new)
            .map_err(|_| ControlError::StoreContent("the secret is not 32 bytes".to_owned()));
        bytes.zeroize();
        secret
    }

    fn revocations(&self) -> Result<Revocations> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT kind, name, since FROM revocation")?;
        let mut rows = statement.query([])?;
        let mut revocations = Revocations::default();
        while let Some(row) = rows.next()? {
            let kind: String = row.get(0)?;
            let entries = match kind.as_str() {
                USER => &mut revocations.users,
                LOGIN => &mut revocations.logins,
                APPLICATION => &mut revocations.applications,
                other => {
                    return Err(ControlError::StoreContent(format!(
                        "a revocation of kind {other:?}"
                    )));
                }
            };
            entries.insert(row.get(1)?, UnixSeconds(from_sql(row.get(2)?)));
        }
        Ok(revocations)
    }

    fn revoke(&self, what: &Revoked, at: UnixSeconds) -> Result<()> {
        let (kind, name) = match what {
            Revoked::User(name) => (USER, name),
            Revoked::Application(name) => (APPLICATION, name),
            Revoked::Login(name) => (LOGIN, name),
        };
        // A clock that was set back must not bring tokens to life again.
        self.connection().execute(
            "INSERT INTO revocation (kind, name, since) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, name) DO UPDATE SET since = max(since, excluded.since)",
            params![kind, name, to_sql(at.0)],
        )?;
        Ok(())
    }

    fn keep_revocations(&self, kept: &Revocations) -> Result<()> {
        let stored = self.revocations()?;
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        for (kind, stored, kept) in [
            (USER, &stored.users, &kept.users),
            (LOGIN, &stored.logins, &kept.logins),
            (APPLICATION, &stored.applications, &kept.applications),
        ] {
            for name in stored.keys().filter(|name| !kept.contains_key(*name)) {
                transaction.execute(
                    "DELETE FROM revocation WHERE kind = ?1 AND name = ?2",
                    params![kind, name],
                )?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn pins(&self) -> Result<BTreeMap<String, Fingerprint>> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT application, sha256 FROM pin")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        rows.map(|row| {
            let (application, sha256) = row?;
            Ok((application, fingerprint(&sha256)?))
        })
        .collect()
    }

    fn pin_if_absent(&self, application: &str, seen: Fingerprint) -> Result<Fingerprint> {
        let connection = self.connection();
        connection.execute(
            "INSERT INTO pin (application, sha256) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![application, seen.to_string()],
        )?;
        let stored: String = connection.query_row(
            "SELECT sha256 FROM pin WHERE application = ?1",
            [application],
            |row| row.get(0),
        )?;
        fingerprint(&stored)
    }

    fn forget_pin(&self, application: &str) -> Result<bool> {
        let deleted = self
            .connection()
            .execute("DELETE FROM pin WHERE application = ?1", [application])?;
        Ok(deleted > 0)
    }

    fn directory(&self) -> Result<BTreeMap<String, String>> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT user, digest FROM directory")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn set_directory(&self, users: &BTreeMap<String, String>) -> Result<()> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        transaction.execute("DELETE FROM directory", [])?;
        for (user, digest) in users {
            transaction.execute(
                "INSERT INTO directory (user, digest) VALUES (?1, ?2)",
                [user, digest],
            )?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn next_snapshot_version(&self) -> Result<u64> {
        let version: i64 = self.connection().query_row(
            "INSERT INTO counter (name, value) VALUES (?1, 1)
             ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
            [SNAPSHOT],
            |row| row.get(0),
        )?;
        Ok(from_sql(version))
    }

    fn checkpoint_number(&self) -> Result<u64> {
        self.counter(CHECKPOINT)
    }

    fn set_checkpoint_number(&self, number: u64) -> Result<()> {
        self.connection().execute(
            "INSERT INTO counter (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            params![CHECKPOINT, to_sql(number)],
        )?;
        Ok(())
    }

    fn put_hand_over(&self, pending: &PendingHandOver, now: UnixSeconds) -> Result<()> {
        let connection = self.connection();
        connection.execute(
            "DELETE FROM hand_over WHERE expires_at <= ?1",
            [to_sql(now.0)],
        )?;
        connection.execute(
            "INSERT INTO hand_over (id, login, expires_at) VALUES (?1, ?2, ?3)",
            params![pending.id, pending.login, to_sql(pending.expires_at.0)],
        )?;
        Ok(())
    }

    fn take_hand_over(&self, id: &str, now: UnixSeconds) -> Result<Option<String>> {
        let taken = self
            .connection()
            .query_row(
                "DELETE FROM hand_over WHERE id = ?1 AND expires_at > ?2 RETURNING login",
                params![id, to_sql(now.0)],
                |row| row.get(0),
            )
            .optional()?;
        Ok(taken)
    }
}

fn fingerprint(text: &str) -> Result<Fingerprint> {
    text.parse()
        .map_err(|error| ControlError::StoreContent(format!("a pin: {error}")))
}

#[cfg(test)]
mod tests;
