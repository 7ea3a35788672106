//! The store over a real etcd: what it gives back, what it refuses, what it outlives.

mod follow;
mod hostile;
mod parts;
mod tls;

use std::time::Duration;

use super::*;
use parts::{access, etcd_of, key, lease_of, open};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_read_back_with_when_it_came_to_be_and_changed() {
    let server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    let key = key("members/1");
    assert_eq!(etcd.read(&key).await.unwrap(), None);
    let created = etcd.put(&key, b"one", None).await.unwrap();
    let modified = etcd.put(&key, b"two", None).await.unwrap();
    assert!(Revision(0) < created && created < modified);
    let entry = Entry {
        key: key.clone(),
        value: b"two".to_vec(),
        created,
        modified,
        lease: None,
    };
    assert_eq!(etcd.read(&key).await.unwrap(), Some(Ok(entry.clone())));
    let all = etcd.read_all().await.unwrap();
    assert_eq!(all.entries, [entry]);
    etcd.delete(&key).await.unwrap();
    assert_eq!(etcd.read(&key).await.unwrap(), None);
    assert_eq!(etcd.read_all().await.unwrap().entries, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_takes_its_keys_along_and_nothing_is_put_under_one_that_has_ended() {
    let server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    let (kept, left) = (key("members/1"), key("members/2"));
    let keeper = lease_of(&etcd).await;
    let leaver = lease_of(&etcd).await;
    etcd.put(&kept, b"", Some(keeper.id)).await.unwrap();
    etcd.put(&left, b"", Some(leaver.id)).await.unwrap();
    let begun = std::time::Instant::now();
    while etcd.read(&left).await.unwrap().is_some() {
        assert!(begun.elapsed() < PATIENCE);
        let lasts = etcd.keep_alive(keeper.id).await.unwrap();
        assert_eq!(lasts, keeper.lasts);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(etcd.read(&kept).await.unwrap().is_some());
    let gone = |result: Result<(), StoreError>| matches!(result, Err(StoreError::LeaseGone));
    assert!(gone(etcd.keep_alive(leaver.id).await.map(drop)));
    assert!(gone(etcd.put(&left, b"", Some(leaver.id)).await.map(drop)));
    etcd.revoke(leaver.id).await.unwrap();

    etcd.revoke(keeper.id).await.unwrap();
    assert_eq!(etcd.read(&kept).await.unwrap(), None);
    assert!(gone(etcd.keep_alive(keeper.id).await.map(drop)));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_leaders_wins_and_a_deposed_one_writes_nothing() {
    let server = postern_parts::Etcd::start().unwrap();
    let (leader, table) = (key("leader"), key("table"));
    let nodes = [open(&server), open(&server)];
    let mut leases = Vec::new();
    for node in &nodes {
        leases.push(lease_of(node).await);
    }
    let bid = async |at: usize| {
        let bid = Transaction::new().if_absent(&leader).put(
            &leader,
            at.to_string().as_bytes(),
            Some(leases[at].id),
        );
        nodes[at].commit(bid).await.unwrap()
    };
    let (first, second) = tokio::join!(bid(0), bid(1));
    let (winner, won) = match (first, second) {
        (Commit::Done(revision), Commit::Refused) => (0, revision),
        (Commit::Refused, Commit::Done(revision)) => (1, revision),
        both => panic!("{both:?}"),
    };
    let loser = 1 - winner;

    let publish = async |at: usize, term: Revision, before: Revision, value: &[u8]| {
        let publication = Transaction::new()
            .if_created(&leader, term)
            .if_modified(&table, before)
            .put(&table, value, None);
        nodes[at].commit(publication).await.unwrap()
    };
    let Commit::Done(published) = publish(winner, won, Revision(0), b"1").await else {
        panic!("the leader can't publish");
    };
    assert_eq!(
        publish(winner, won, Revision(0), b"again").await,
        Commit::Refused,
        "there is a table by now"
    );

    // It loses its lease, and the other takes over.
    nodes[winner].revoke(leases[winner].id).await.unwrap();
    let Commit::Done(term) = bid(loser).await else {
        panic!("nobody leads, and nobody can");
    };
    assert_eq!(
        publish(winner, won, published, b"late").await,
        Commit::Refused
    );
    assert!(matches!(
        publish(loser, term, published, b"2").await,
        Commit::Done(_)
    ));
    let entry = nodes[winner].read(&table).await.unwrap().unwrap().unwrap();
    assert_eq!(entry.value, b"2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_not_even_sent() {
    // Nobody is asked: there is nobody.
    let etcd = etcd_of(&access(vec!["http://127.0.0.1:1".to_owned()]), 1);
    let value = vec![0; crate::store::limits::VALUE_BYTES_MAX];
    let error = etcd.put(&key("table"), &value, None).await.unwrap_err();
    assert!(matches!(error, StoreError::ValueTooLong(_)), "{error}");
    let mut many = Transaction::new();
    for number in 0..=crate::store::limits::OPERATIONS_MAX {
        many = many.delete(&key(&format!("members/{number}")));
    }
    let error = etcd.commit(many).await.unwrap_err();
    assert!(matches!(error, StoreError::TooMany { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_refuses_is_told_and_no_reason_to_ask_elsewhere() {
    let server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    let key = key("members/1");
    let twice = Transaction::new()
        .put(&key, b"1", None)
        .put(&key, b"2", None);
    let error = etcd.commit(twice).await.unwrap_err();
    assert!(matches!(error, StoreError::Rejected(_)), "{error}");
    assert_eq!(etcd.read(&key).await.unwrap(), None);
}

#[test]
fn a_prefix_ends_where_the_next_name_begins() {
    let check = |prefix: &[u8], end: &[u8]| assert_eq!(after(prefix), end, "{prefix:?}");
    check(b"/postern/", b"/postern0");
    check(b"a", b"b");
    check(b"a\xff", b"b");
    check(b"\xff\xff", b"\0");
}

#[test]
fn what_can_never_work_is_refused_at_the_beginning() {
    let check = |change: fn(&mut Access), why: &str| {
        let mut access = access(vec!["http://127.0.0.1:1".to_owned()]);
        change(&mut access);
        let error = Etcd::open(&access, parts::sealer(1)).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    };
    check(|access| access.endpoints.clear(), "no endpoints");
    check(|access| access.endpoints[0].clear(), "URL");
    check(|access| access.prefix.clear(), "prefix");
    check(|access| access.prefix.push('\0'), "prefix");
    check(|access| access.endpoints[0].insert(4, 's'), "ca_file");
}
