//! What others write under the prefix, and servers that are no etcd.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::parts::{Listener, PREFIX, access, etcd_of, key, open, put_raw, put_raw_all, sealer};
use super::*;
use crate::store::limits::{KEYS_MAX, MESSAGE_BYTES_MAX, PAGE_KEYS_MAX, VALUE_BYTES_MAX};

/// Everything that is refused, in words.
fn refused(snapshot: &crate::store::Snapshot) -> Vec<String> {
    let line = |refused: &Refused| format!("{}: {}", refused.key, refused.why.label());
    snapshot.refused.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_sealed_for_its_key_is_refused_and_told_of() {
    let server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    let mut listener = Listener::new(&etcd);
    listener.expect(&["complete"]).await;
    etcd.put(&key("members/1"), b"good", None).await.unwrap();
    listener.expect(&["members/1=good"]).await;

    let at = |name: &str| format!("{PREFIX}{name}");
    let copied = sealer(1).seal(&at("members/1"), b"good");
    let foreign = sealer(2).seal(&at("members/4"), b"good");
    let long = "k".repeat(100);
    let cases: [(&str, &[u8], &str); 8] = [
        ("members/2", &copied, "members/2 refused: seal"),
        ("members/3", b"", "members/3 refused: seal"),
        ("members/4", &foreign, "members/4 refused: seal"),
        ("table", &[0; 100], "table refused: seal"),
        ("members/1", b"spoiled", "members/1 refused: seal"),
        ("a\nb", &copied, "a\\nb refused: key"),
        ("", &copied, " refused: key"),
        (&long, &copied, &format!("{} refused: key", &long[..64])),
    ];
    for (name, value, told) in cases {
        put_raw(&etcd, &at(name), value).await.unwrap();
        listener.expect(&[told]).await;
    }
    // A name of another prefix is nobody's business.
    put_raw(&etcd, "/test/steering", b"x").await.unwrap();
    put_raw(&etcd, "/test/steering0", b"x").await.unwrap();
    listener.expect_nothing().await;

    let snapshot = etcd.read_all().await.unwrap();
    assert_eq!(snapshot.entries, []);
    assert_eq!(refused(&snapshot).len(), cases.len());
    let read = etcd.read(&key("members/2")).await.unwrap().unwrap();
    assert_eq!(read.unwrap_err().why, crate::store::Refusal::Seal);
    // Who is refused has no say: the value that was told is there until its key is deleted.
    assert_eq!(listener.values["members/1"], b"good");
    etcd.delete(&key("members/1")).await.unwrap();
    etcd.delete(&key("members/2")).await.unwrap();
    listener.expect(&["members/1 deleted"]).await;
    listener.expect_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_too_long_to_be_read_are_passed_by() {
    let options = postern_parts::etcd::Options {
        request_bytes_max: Some(64 << 20),
        ..Default::default()
    };
    let server = postern_parts::Etcd::start_with(1, options).unwrap();
    let etcd = open(&server);
    etcd.put(&key("a"), b"1", None).await.unwrap();
    let mut listener = Listener::new(&etcd);
    listener.expect(&["a=1", "complete"]).await;
    listener.expect_health(true).await;

    // Longer than a message, and longer than a value: while following.
    let huge = vec![7; 2 * MESSAGE_BYTES_MAX];
    let up = listener.health();
    put_raw(&etcd, &format!("{PREFIX}b"), &huge).await.unwrap();
    listener.expect(&["b refused: length", "complete"]).await;
    listener.expect_nothing().await;
    etcd.put(&key("c"), b"3", None).await.unwrap();
    listener.expect(&["c=3"]).await;
    let long = vec![7; VALUE_BYTES_MAX + 1];
    put_raw(&etcd, &format!("{PREFIX}d"), &long).await.unwrap();
    etcd.put(&key("e"), b"5", None).await.unwrap();
    let mut told = Vec::new();
    while told.last().map(String::as_str) != Some("e=5") {
        told.push(listener.hear().await);
    }
    assert!(told.contains(&"d refused: length".to_owned()), "{told:?}");
    // Never lost meanwhile: nobody loses a lead by what others write.
    assert_eq!(listener.health(), up);

    // While reading everything, where the good values alone are more than one message.
    let (good, count) = (vec![b'x'; 80_000], 128);
    assert!(good.len() * count > 2 * MESSAGE_BYTES_MAX && count < PAGE_KEYS_MAX);
    for number in 0..count {
        let name = format!("members/{number}");
        etcd.put(&key(&name), &good, None).await.unwrap();
    }
    put_raw(&etcd, &format!("{PREFIX}members/15x"), &huge)
        .await
        .unwrap();
    let snapshot = etcd.read_all().await.unwrap();
    assert_eq!(snapshot.entries.len(), 3 + count);
    let told = refused(&snapshot);
    assert_eq!(told, ["b: length", "d: length", "members/15x: length"]);
    let error = etcd.read(&key("b")).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLong(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_a_cluster_needs_are_no_reason_to_take_a_part_for_the_whole() {
    let server = postern_parts::Etcd::start().unwrap();
    let etcd = open(&server);
    etcd.put(&key("members/1"), b"", None).await.unwrap();
    let names: Vec<_> = (0..KEYS_MAX)
        .map(|number| (format!("{PREFIX}a{number:06}").into_bytes(), Vec::new()))
        .collect();
    for part in names.chunks(128) {
        put_raw_all(&etcd, part).await.unwrap();
    }
    let error = etcd.read_all().await.unwrap_err();
    assert!(matches!(error, StoreError::TooMany { .. }), "{error}");
    let mut listener = Listener::new(&etcd);
    listener.expect_nothing().await;
    let told = format!("{:?}", listener.health());
    assert!(!listener.health().is_up(), "{told}");
    // One less is taken, and the good one found at the end of them.
    let (name, _) = &names[0];
    let delete = wire::Request::Delete(wire::DeleteRequest { key: name.clone() });
    let operation = wire::RequestOp {
        request: Some(delete),
    };
    let request = wire::TxnRequest {
        compare: Vec::new(),
        success: vec![operation],
    };
    etcd.link.ask(request).await.unwrap();
    let snapshot = etcd.read_all().await.unwrap();
    assert_eq!(snapshot.entries.len(), 1);
    assert_eq!(snapshot.refused.len(), KEYS_MAX - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_etcd_is_an_error() {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let flood = vec![b'x'; 1 << 20];
    for greeting in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n", &settings, &flood] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let greeting = greeting.to_vec();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(&greeting).await;
            }
        });
        let etcd = etcd_of(&access(vec![format!("http://{address}")]), 1);
        let error = etcd.read(&key("table")).await.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Unreachable(_) | StoreError::Unanswered(_)
            ),
            "{error}"
        );
        let error = etcd.keep_alive(LeaseId(1)).await.unwrap_err();
        assert!(!matches!(error, StoreError::LeaseGone), "{error}");
    }
}
