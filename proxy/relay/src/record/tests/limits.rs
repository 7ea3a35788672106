//! Limits of ours: records under one key, room in a queue.

use super::*;
use crate::memory::BLOCK_BYTES;
use crate::record::header::Content;
use crate::record::{PLAINTEXT_BYTES_MAX, RECORD_BYTES_MAX, SEAL_OVERHEAD_MAX, sealed_len};

const _: () = assert!(sealed_len(1 << 16) <= BLOCK_BYTES);
const _: () = assert!(RECORD_BYTES_MAX <= BLOCK_BYTES);

#[test]
fn records_may_go_to_another_thread() {
    fn check<T: Send>() {}
    check::<Records>();
}

#[test]
fn tls13_key_is_replaced_before_it_has_sealed_too_much() {
    for suite in peers::SUITES.into_iter().filter(|s| peers::is_tls13(*s)) {
        for limit in [0, 1, 2, 3, 7] {
            let (mut server, mut client) = pair(suite);
            server.update_key_in_silence(&mut client);
            server.limit = limit;
            for turn in 0..40 {
                let data = vec![turn; 20_000];
                let mut wire = seal(&mut server, &data).unwrap();
                // The last record that a key may seal announces the next one.
                assert!(server.tx.sequence() < limit.max(2), "{limit}");
                let (heard, end) = open_all(&mut client, &mut wire);
                assert_eq!(end, Ok(()));
                assert!(heard == data, "{suite:?} {limit}");
            }
            assert!(!client.has_replies(), "no update is asked for in return");
        }
    }
}

impl Records {
    /// New keys from here to `peer`, as if nothing had been sealed under the old ones.
    fn update_key_in_silence(&mut self, peer: &mut Self) {
        let mut wire = taken(|queue, pool| self.update_key(queue, pool)).unwrap();
        peer.open(&mut wire).unwrap();
    }
}

#[test]
fn tls12_key_seals_no_more_than_it_may() {
    for suite in peers::SUITES.into_iter().filter(|s| !peers::is_tls13(*s)) {
        let (mut server, mut client) = pair(suite);
        assert_eq!(server.tx.sequence(), 1, "rustls has sealed its Finished");
        server.limit = 4;
        for _ in 0..3 {
            let mut record = seal(&mut server, b"data").unwrap();
            assert!(matches!(client.open(&mut record), Ok(Opened::Data { .. })));
        }
        assert_eq!(seal(&mut server, b"data"), Err(RecordError::Exhausted));
        let mut words = taken(|queue, pool| server.seal_close_notify(queue, pool)).unwrap();
        let consumed = words.len();
        assert_eq!(
            client.open(&mut words),
            Ok(Opened::CloseNotify { consumed })
        );
    }
}

#[test]
fn limits_are_those_of_the_ciphers() {
    for suite in peers::SUITES {
        let (server, client) = pair(suite);
        let is_gcm = format!("{suite:?}").contains("GCM");
        let limit = if is_gcm { 1 << 24 } else { u64::MAX };
        assert_eq!((server.limit, client.limit), (limit, limit), "{suite:?}");
    }
}

#[test]
fn record_numbers_never_wrap() {
    for version in [Version::Tls12, Version::Tls13] {
        let (mut records, mut peer) = fixed(version, 2);
        records.limit = u64::MAX;
        records.tx.set_sequence(u64::MAX - 1);
        records.rx.set_sequence(u64::MAX - 1);
        peer.set_sequence(u64::MAX - 1);
        let words = taken(|queue, pool| records.seal_close_notify(queue, pool));
        assert_eq!(words, Err(RecordError::Exhausted));
        let mut record = peer.seal_as_it_stands(Content::ApplicationData, &[1, 23]);
        assert_eq!(records.open(&mut record), Err(RecordError::Exhausted));
    }
}

#[test]
fn queue_with_the_promised_room_takes_the_promised_bytes() {
    for suite in peers::SUITES {
        let is_tls13 = peers::is_tls13(suite);
        for records in 0..=4 {
            for length in [
                records * PLAINTEXT_BYTES_MAX,
                records * PLAINTEXT_BYTES_MAX + 1,
            ] {
                if length > 1 << 16 {
                    continue;
                }
                let (mut server, mut client) = pair(suite);
                if is_tls13 {
                    server.limit = 2;
                }
                server.owes_key_update = is_tls13;
                server.owes_no_renegotiation = !is_tls13;
                let (mut queue, mut pool) = (Queue::default(), Pool::new());
                let _ = queue.space(&mut pool);
                queue.commit(BLOCK_BYTES - sealed_len(length));
                let filled = queue.len();
                let data = vec![9; length];
                let mut writer = server.writer(&mut queue, &mut pool).unwrap();
                writer.push(&data).unwrap();
                writer.finish().unwrap();
                let mut wire = queue.filled()[filled..].to_vec();
                assert!(wire.len() <= sealed_len(length));
                let (heard, end) = open_all(&mut client, &mut wire);
                assert_eq!(end, Ok(()));
                assert!(heard == data);
            }
        }
    }
}

#[test]
fn queue_without_room_is_told_and_stays_as_it_was() {
    for suite in peers::SUITES {
        let is_tls13 = peers::is_tls13(suite);
        let (mut server, mut client) = pair(suite);
        let (mut queue, mut pool) = (Queue::default(), Pool::new());
        let _ = queue.space(&mut pool);
        queue.commit(BLOCK_BYTES - 30);
        let filled = queue.len();
        (server.owes_key_update, server.owes_no_renegotiation) = (is_tls13, !is_tls13);
        let refused = server.seal_replies(&mut queue, &mut pool);
        assert_eq!(refused, Err(RecordError::NoRoom));
        assert!(server.has_replies(), "it is still to be said");

        (server.owes_key_update, server.owes_no_renegotiation) = (false, false);
        let mut writer = server.writer(&mut queue, &mut pool).unwrap();
        assert_eq!(writer.push(&[1; 20]), Err(RecordError::NoRoom));
        assert_eq!(queue.len(), filled);

        let mut record = seal(&mut server, b"nothing was spoiled").unwrap();
        assert!(matches!(client.open(&mut record), Ok(Opened::Data { .. })));
    }
}

#[test]
fn writer_that_is_given_nothing_writes_nothing() {
    let (mut server, _) = pair(peers::SUITES[0]);
    let wire = taken(|queue, pool| {
        let mut writer = server.writer(queue, pool)?;
        writer.push(b"")?;
        writer.finish()
    });
    assert_eq!(wire, Ok(Vec::new()));
    assert_eq!(sealed_len(0), SEAL_OVERHEAD_MAX);
}
