//! The store over restarts, races and formats.

use super::*;
use std::sync::Arc;

fn store() -> (tempfile::TempDir, Sqlite) {
    let folder = tempfile::tempdir().expect("folder");
    let store = Sqlite::open(&folder.path().join("store.sqlite")).expect("opens");
    (folder, store)
}

fn reopened(folder: &tempfile::TempDir) -> Sqlite {
    Sqlite::open(&folder.path().join("store.sqlite")).expect("opens")
}

#[test]
fn every_file_of_the_store_is_private() {
    let (folder, store) = store();
    store.next_snapshot_version().expect("counts");
    for entry in std::fs::read_dir(folder.path()).expect("folder") {
        let entry = entry.expect("entry");
        let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let (folder, store) = store();
    store
        .connection()
        .pragma_update(None, "user_version", 99)
        .expect("set");
    drop(store);
    assert!(matches!(
        Sqlite::open(&folder.path().join("store.sqlite")),
        Err(ControlError::StoreTooNew { found: 99, .. })
    ));
}

#[test]
fn a_store_of_the_first_format_is_brought_to_the_newest() {
    let folder = tempfile::tempdir().expect("folder");
    let old = Connection::open(folder.path().join("store.sqlite")).expect("opens");
    old.execute_batch(MIGRATIONS[0]).expect("made");
    old.execute_batch("INSERT INTO counter VALUES ('snapshot', 41); PRAGMA user_version = 1")
        .expect("filled");
    drop(old);
    let store = reopened(&folder);
    assert_eq!(store.next_snapshot_version().expect("version"), 42);
    assert!(store.directory().expect("directory").is_empty());
}

#[test]
fn what_is_kept_survives_a_restart() {
    let (folder, store) = store();
    let secret = store.value_secret(&[1; 32]).expect("secret");
    assert_eq!(store.next_snapshot_version().expect("version"), 1);
    store
        .revoke(&Revoked::User("alice".to_owned()), UnixSeconds(10))
        .expect("revoked");
    store.set_checkpoint_number(7).expect("set");
    let users = BTreeMap::from([("alice".to_owned(), "00".to_owned())]);
    store.set_directory(&users).expect("set");
    let key = KeyRecord {
        kid: "k".to_owned(),
        created_at: UnixSeconds(1),
        retired_at: None,
    };
    store.add_key(&key, b"private").expect("added");
    store.retire_key("k", UnixSeconds(2)).expect("retired");
    drop(store);

    let store = reopened(&folder);
    assert_eq!(*store.value_secret(&[2; 32]).expect("secret"), *secret);
    assert_eq!(store.next_snapshot_version().expect("version"), 2);
    assert_eq!(store.checkpoint_number().expect("number"), 7);
    assert_eq!(store.directory().expect("directory"), users);
    let keys = store.keys().expect("keys");
    assert_eq!(keys[0].record.retired_at, Some(UnixSeconds(2)));
    assert_eq!(*keys[0].pkcs8, b"private");
    store.delete_key("k").expect("deleted");
    assert!(store.keys().expect("keys").is_empty());
    let mut revocations = store.revocations().expect("revocations");
    assert_eq!(revocations.users["alice"], UnixSeconds(10));
    revocations.users.clear();
    store.keep_revocations(&revocations).expect("kept");
    assert_eq!(store.revocations().expect("revocations"), revocations);
}

#[test]
fn a_revocation_never_moves_back() {
    let (_folder, store) = store();
    let login = Revoked::Login("n".to_owned());
    store.revoke(&login, UnixSeconds(20)).expect("revoked");
    store.revoke(&login, UnixSeconds(10)).expect("revoked");
    assert_eq!(
        store.revocations().expect("read").logins["n"],
        UnixSeconds(20)
    );
}

#[test]
fn of_many_first_pins_one_wins_and_all_hear_of_it() {
    let (_folder, store) = store();
    let store = Arc::new(store);
    let threads: Vec<_> = (0..8_u8)
        .map(|n| {
            let store = store.clone();
            std::thread::spawn(move || {
                let seen = Fingerprint([n; 32]);
                store.pin_if_absent("lab", seen).expect("pinned")
            })
        })
        .collect();
    let stored: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    assert!(stored.iter().all(|pin| *pin == stored[0]));
    assert_eq!(store.pins().expect("pins")["lab"], stored[0]);
    assert!(store.forget_pin("lab").expect("forgotten"));
    assert!(!store.forget_pin("lab").expect("forgotten"));
}

#[test]
fn a_hand_over_is_taken_once_and_in_time() {
    let (_folder, store) = store();
    let put = |id: &str| {
        let pending = PendingHandOver {
            id: id.to_owned(),
            login: "alice".to_owned(),
            expires_at: UnixSeconds(100),
        };
        store.put_hand_over(&pending, UnixSeconds(50)).expect("put");
    };
    let take = |id: &str, now| store.take_hand_over(id, UnixSeconds(now)).expect("taken");
    put("a");
    put("b");
    assert_eq!(take("a", 60).as_deref(), Some("alice"));
    assert_eq!(take("a", 60), None);
    assert_eq!(take("b", 100), None);
    assert_eq!(take("c", 60), None);
}
