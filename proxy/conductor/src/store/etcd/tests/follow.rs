//! Followers: order, lost connections, compactions, other histories.

use std::time::Instant;

use super::parts::{
    Line, Listener, access, address_of, compact, etcd_of, key, lease_of, open, put_raw,
};
use super::*;
use crate::store::Health;
use crate::store::limits::SILENCE_MAX;

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_in_their_order_and_what_was_there_in_the_same() {
    let server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    let mut early = Listener::new(&etcd);
    early.expect(&["complete"]).await;
    // The names sort the other way around.
    etcd.put(&key("members/2"), b"here", None).await.unwrap();
    etcd.put(&key("heartbeats/2"), b"1", None).await.unwrap();
    let both = Transaction::new()
        .put(&key("table"), b"of 2", None)
        .delete(&key("heartbeats/2"));
    etcd.commit(both).await.unwrap();
    etcd.put(&key("intents/2"), b"drain", None).await.unwrap();
    early
        .expect(&["members/2=here", "heartbeats/2=1", "table=of 2"])
        .await;
    early
        .expect(&["heartbeats/2 deleted", "intents/2=drain"])
        .await;

    let mut late = Listener::new(&open(&server));
    late.expect(&["members/2=here", "table=of 2", "intents/2=drain"])
        .await;
    late.expect(&["complete"]).await;
    late.expect_nothing().await;
    assert_eq!(early.values, late.values);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_is_seen_by_who_follows() {
    let server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    let mut listener = Listener::new(&etcd);
    let lease = lease_of(&etcd).await;
    let member = key("members/1");
    etcd.put(&member, b"", Some(lease.id)).await.unwrap();
    listener.expect(&["complete"]).await;
    let begun = Instant::now();
    listener.expect(&["members/1=", "members/1 deleted"]).await;
    assert!(begun.elapsed() < lease.lasts + Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_or_told_twice_when_etcd_is_killed_and_comes_back() {
    let mut server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    let mut listener = Listener::new(&etcd);
    listener.expect(&["complete"]).await;
    let heartbeat = key("heartbeats/1");
    for round in 1..=3 {
        for number in 0..20 {
            let value = format!("{round}.{number}");
            etcd.put(&heartbeat, value.as_bytes(), None).await.unwrap();
        }
        for number in 0..20 {
            let line = format!("heartbeats/1={round}.{number}");
            listener.expect(&[&line]).await;
        }
        server.stop();
        listener.expect_health(false).await;
        let error = etcd.put(&key("table"), b"lost", None).await.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Unreachable(_) | StoreError::Unanswered(_)
            ),
            "{error}"
        );
        server.restart().unwrap();
        listener.expect_health(true).await;
    }
    listener.expect_nothing().await;
    assert_eq!(listener.values.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_the_line_is_cut_is_told_once_when_it_is_mended() {
    let server = postern_parts::Etcd::start().unwrap();
    let writer = open(&server);
    let line = Line::to(address_of(&server.url())).await;
    let url = format!("http://{}", line.address);
    let mut listener = Listener::new(&etcd_of(&access(vec![url]), 1));
    for name in ["members/1", "members/2"] {
        writer.put(&key(name), b"old", None).await.unwrap();
    }
    while listener.values.len() < 2 {
        listener.hear().await;
    }
    listener.expect_health(true).await;
    line.cut();
    listener.expect_health(false).await;
    writer.put(&key("members/1"), b"1", None).await.unwrap();
    writer.put(&key("members/1"), b"2", None).await.unwrap();
    writer.delete(&key("members/2")).await.unwrap();
    line.mend();
    listener
        .expect(&["members/1=1", "members/1=2", "members/2 deleted"])
        .await;
    listener.expect_nothing().await;
    // Nothing has changed: nothing is told.
    line.cut();
    listener.expect_health(false).await;
    line.mend();
    listener.expect_health(true).await;
    listener.expect_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_compaction_everything_is_read_again_and_the_difference_told() {
    let server = postern_parts::Etcd::start().unwrap();
    let writer = open(&server);
    let line = Line::to(address_of(&server.url())).await;
    let url = format!("http://{}", line.address);
    for name in ["members/1", "members/2", "members/3", "members/4"] {
        writer.put(&key(name), b"old", None).await.unwrap();
    }
    let mut listener = Listener::new(&etcd_of(&access(vec![url]), 1));
    while listener.hear().await != "complete" {}
    listener.expect_health(true).await;
    line.cut();
    listener.expect_health(false).await;
    writer.put(&key("members/5"), b"new", None).await.unwrap();
    writer
        .put(&key("members/1"), b"passing", None)
        .await
        .unwrap();
    writer
        .put(&key("members/1"), b"changed", None)
        .await
        .unwrap();
    writer.delete(&key("members/2")).await.unwrap();
    // Whoever spoils a value does not take the last good one away.
    let name = writer.name(&key("members/3"));
    put_raw(&writer, &name, b"spoiled").await.unwrap();
    let last = writer.put(&key("table"), b"1", None).await.unwrap();
    compact(&writer, last).await;
    line.mend();
    listener
        .expect(&["members/2 deleted", "members/3 refused: seal"])
        .await;
    listener
        .expect(&["members/5=new", "members/1=changed", "table=1", "complete"])
        .await;
    listener.expect_health(true).await;
    listener.expect_nothing().await;
    writer.put(&key("members/3"), b"good", None).await.unwrap();
    listener.expect(&["members/3=good"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_takes_connections_and_never_answers_counts_as_lost() {
    let mut server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    let mut listener = Listener::new(&etcd);
    listener.expect(&["complete"]).await;
    listener.expect_health(true).await;
    server.pause();
    let begun = Instant::now();
    listener.expect_health(false).await;
    let took = begun.elapsed();
    assert!(took < SILENCE_MAX * 2, "{took:?}");
    let begun = Instant::now();
    assert!(etcd.read(&key("table")).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(6));
    server.resume();
    listener.expect_health(true).await;
    etcd.put(&key("table"), b"1", None).await.unwrap();
    listener.expect(&["table=1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_where_nothing_happens_is_not_taken_for_silent() {
    let server = postern_parts::Etcd::start().unwrap();
    let mut listener = Listener::new(&open(&server));
    listener.expect(&["complete"]).await;
    listener.expect_health(true).await;
    let mut health = listener.follower.health();
    health.mark_unchanged();
    let change = tokio::time::timeout(SILENCE_MAX * 2, health.changed()).await;
    assert!(change.is_err(), "{:?}", listener.health());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_without_its_past_is_noticed_and_what_it_lacks_is_told() {
    let mut server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    for round in 0..10 {
        let value = format!("{round}");
        etcd.put(&key("table"), value.as_bytes(), None)
            .await
            .unwrap();
    }
    etcd.put(&key("members/1"), b"", None).await.unwrap();
    let mut listener = Listener::new(&etcd);
    listener
        .expect(&["table=9", "members/1=", "complete"])
        .await;
    listener.expect_health(true).await;
    server.restart_empty().unwrap();
    listener
        .expect(&["members/1 deleted", "table deleted", "complete"])
        .await;
    listener.expect_health(true).await;
    etcd.put(&key("table"), b"new", None).await.unwrap();
    listener.expect(&["table=new"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_endpoint_is_asked_when_one_is_dead_or_silent_or_without_a_majority() {
    let mut server =
        postern_parts::Etcd::start_with(3, postern_parts::etcd::Options::default()).unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut urls = vec![
        format!("http://{}", postern_parts::port::free().unwrap()),
        format!("http://{}", silent.local_addr().unwrap()),
    ];
    urls.extend(server.urls());
    let etcd = etcd_of(&access(urls), 1);
    etcd.read(&key("table")).await.unwrap();
    let mut listener = Listener::new(&etcd);
    listener.expect(&["complete"]).await;
    listener.expect_health(true).await;

    // Whichever it was connected to, two of three are left.
    server.stop_member(0);
    let written = async |value: &str| {
        let begun = Instant::now();
        while let Err(error) = etcd.put(&key("table"), value.as_bytes(), None).await {
            assert!(begun.elapsed() < PATIENCE, "{error}");
        }
    };
    written("1").await;
    while listener.values.get("table").map(Vec::as_slice) != Some(b"1") {
        listener.hear().await;
    }

    // One of three answers, but knows nothing for sure.
    server.stop_member(1);
    let begun = Instant::now();
    let mut health = listener.follower.health();
    let mut lost = async || {
        let up = health.wait_for(Health::is_up);
        tokio::time::timeout(SILENCE_MAX * 2, up).await.is_err()
    };
    while !lost().await {
        assert!(begun.elapsed() < PATIENCE, "{:?}", listener.health());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(etcd.read(&key("table")).await.is_err());
    server.restart().unwrap();
    listener.expect_health(true).await;
    written("2").await;
    while listener.values.get("table").map(Vec::as_slice) != Some(b"2") {
        listener.hear().await;
    }
}
