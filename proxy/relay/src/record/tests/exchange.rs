//! Bytes pass both ways between the record layer and rustls.

use std::io::{Read, Write};

use rustls::{AlertDescription, CipherSuite, Connection};

use super::*;
use crate::record::sealed_len;

/// Bytes that one side sends at once, at most.
const TURN_BYTES_MAX: usize = 100_000;

/// Bytes that one writer is given: what fits in a block, whatever seals it.
const WRITER_BYTES_MAX: usize = 1 << 16;

/// One side is ours, the other rustls.
struct Link {
    ours: Records,
    /// Bytes on their way to us.
    wire: Vec<u8>,
    rustls: Connection,
    pool: Pool,
    dice: Dice,
}

/// A link whose server is ours, and one whose client is ours.
fn links(suite: CipherSuite, seed: u64) -> [Link; 2] {
    let link = |ours, wire, rustls| Link {
        ours,
        wire,
        rustls,
        pool: Pool::new(),
        dice: Dice(seed),
    };
    let (server, rustls_client) = peers::server(suite);
    let (client, rustls_server) = peers::client(suite);
    let ours_server = Records::server(server.secrets, server.connection).unwrap();
    let ours_client = Records::client(client.secrets, client.connection).unwrap();
    [
        link(ours_server, server.leftover, rustls_client),
        link(ours_client, client.leftover, rustls_server),
    ]
}

fn for_every_link(seed: u64, check: impl Fn(&mut Link, bool)) {
    for suite in peers::SUITES {
        for mut link in links(suite, seed) {
            check(&mut link, peers::is_tls13(suite));
        }
    }
}

impl Link {
    fn ours_to_rustls(&mut self, data: &[u8]) {
        let mut received = Vec::new();
        for part in data.chunks(WRITER_BYTES_MAX) {
            let mut queue = Queue::default();
            let mut writer = self.ours.writer(&mut queue, &mut self.pool).unwrap();
            let mut place = part.to_vec();
            let mut start = 0;
            for piece in self.dice.pieces(part, 20_000) {
                let end = start + piece.len();
                match self.dice.below(3) {
                    0 => writer.push(piece).unwrap(),
                    _ => writer.push_from(&mut place, start..end).unwrap(),
                }
                start = end;
            }
            writer.finish().unwrap();
            assert!(place == part, "what was sealed where it lay is as it was");
            assert!(queue.len() <= sealed_len(part.len()));
            self.rustls_takes(queue.filled(), &mut received);
            queue.clear(&mut self.pool);
        }
        assert!(received == data, "every byte arrives");
    }

    fn rustls_takes(&mut self, wire: &[u8], received: &mut Vec<u8>) {
        for mut piece in self.dice.pieces(wire, 9_000) {
            while !piece.is_empty() {
                self.rustls.read_tls(&mut piece).unwrap();
                let state = self.rustls.process_new_packets().unwrap();
                let mut plain = vec![0; state.plaintext_bytes_to_read()];
                self.rustls.reader().read_exact(&mut plain).unwrap();
                received.extend(plain);
            }
        }
    }

    fn rustls_to_ours(&mut self, data: &[u8]) {
        self.rustls.writer().write_all(data).unwrap();
        let received = self.ours_takes();
        assert!(received == data, "every byte arrives");
    }

    /// What rustls has to say arrives, cut anyhow.
    fn ours_takes(&mut self) -> Vec<u8> {
        let mut sent = std::mem::take(&mut self.wire);
        let mut received = Vec::new();
        while self.rustls.wants_write() {
            self.rustls.write_tls(&mut sent).unwrap();
        }
        for piece in self.dice.pieces(&sent, 9_000) {
            self.wire.extend_from_slice(piece);
            let (data, end) = open_all(&mut self.ours, &mut self.wire);
            assert_eq!(end, Ok(()));
            received.extend(data);
        }
        assert!(self.wire.is_empty());
        received
    }

    fn ours_says(
        &mut self,
        write: impl FnOnce(&mut Records, &mut Queue, &mut Pool) -> Result<(), RecordError>,
    ) {
        let wire = taken(|queue, pool| write(&mut self.ours, queue, pool)).unwrap();
        self.rustls_takes(&wire, &mut Vec::new());
    }
}

#[test]
fn every_byte_arrives_whatever_the_cipher_the_role_and_the_cuts() {
    for_every_link(0x5EED_0001, |link, is_tls13| {
        for turn in 0..6 {
            let length = link.dice.below(TURN_BYTES_MAX + 1);
            let data = link.dice.bytes(length);
            link.ours_to_rustls(&data);
            if is_tls13 && turn % 2 == 0 {
                link.rustls.refresh_traffic_keys().unwrap();
            }
            let length = link.dice.below(TURN_BYTES_MAX + 1);
            let data = link.dice.bytes(length);
            link.rustls_to_ours(&data);
            if is_tls13 && turn % 3 == 0 {
                link.ours_says(Records::update_key);
            }
        }
    });
}

#[test]
fn a_record_is_full_before_another_begins() {
    for_every_link(0x5EED_0002, |link, _| {
        for length in [1, 16_383, 16_384, 16_385, 32_768, 50_000] {
            let data = link.dice.bytes(length);
            let wire = seal(&mut link.ours, &data).unwrap();
            let mut rest = wire.as_slice();
            let mut records = 0;
            while let [_, _, _, high, low, ..] = *rest {
                rest = &rest[5 + usize::from(u16::from_be_bytes([high, low]))..];
                records += 1;
            }
            assert_eq!(records, length.div_ceil(16_384));
            assert!(wire.len() <= sealed_len(length));
            let mut received = Vec::new();
            link.rustls_takes(&wire, &mut received);
            assert!(received == data);
        }
    });
}

#[test]
fn requested_key_update_is_answered_once_and_before_the_next_data() {
    for_every_link(0x5EED_0003, |link, is_tls13| {
        if !is_tls13 {
            return;
        }
        for _ in 0..3 {
            link.rustls.refresh_traffic_keys().unwrap();
        }
        link.ours_takes();
        assert!(link.ours.has_replies());
        let answer = taken(|queue, pool| link.ours.seal_replies(queue, pool)).unwrap();
        assert_eq!(answer.len(), 5 + 5 + 1 + 16, "one record answers them all");
        assert!(!link.ours.has_replies());
        link.rustls_takes(&answer, &mut Vec::new());

        link.rustls.refresh_traffic_keys().unwrap();
        link.ours_takes();
        link.ours_to_rustls(b"behind an answer that nobody asked to seal");
        assert!(!link.ours.has_replies());
        link.rustls_to_ours(b"and back");
    });
}

#[test]
fn key_update_that_asks_for_nothing_is_not_answered() {
    for suite in peers::SUITES.into_iter().filter(|s| peers::is_tls13(*s)) {
        let (mut server, mut client) = pair(suite);
        let mut wire = taken(|queue, pool| server.update_key(queue, pool)).unwrap();
        wire.extend(seal(&mut server, b"under the new key").unwrap());
        let heard = open_all(&mut client, &mut wire);
        assert_eq!(heard, (b"under the new key".to_vec(), Ok(())));
        assert!(!client.has_replies());
    }
}

#[test]
fn close_notify_is_said_and_heard() {
    for_every_link(0x5EED_0004, |link, _| {
        link.ours_says(Records::seal_close_notify);
        let state = link.rustls.process_new_packets().unwrap();
        assert!(state.peer_has_closed());
        let again = taken(|queue, pool| link.ours.seal_close_notify(queue, pool));
        assert_eq!(again, Ok(Vec::new()), "once is enough");
        assert_eq!(seal(&mut link.ours, b"more"), Err(RecordError::Ended));

        link.rustls_to_ours(b"the other half stays open");
        link.rustls.send_close_notify();
        link.rustls.write_tls(&mut link.wire).unwrap();
        link.wire.extend_from_slice(b"whatever follows");
        let consumed = link.wire.len();
        assert_eq!(
            link.ours.open(&mut link.wire),
            Ok(Opened::CloseNotify { consumed })
        );
        assert!(link.ours.is_closed());
    });
}

#[test]
fn peer_learns_why_it_was_refused() {
    let errors = [
        (RecordError::Forged, AlertDescription::BadRecordMac),
        (RecordError::Oversized, AlertDescription::RecordOverflow),
        (RecordError::Malformed(""), AlertDescription::DecodeError),
        (
            RecordError::Unexpected(""),
            AlertDescription::UnexpectedMessage,
        ),
    ];
    for (error, description) in errors {
        for mut link in links(peers::SUITES[0], 1) {
            let words = taken(|queue, pool| link.ours.seal_failure(&error, queue, pool)).unwrap();
            link.rustls.read_tls(&mut words.as_slice()).unwrap();
            assert_eq!(
                link.rustls.process_new_packets().unwrap_err(),
                rustls::Error::AlertReceived(description)
            );
            assert_eq!(seal(&mut link.ours, b"more"), Err(RecordError::Ended));
        }
    }
}

#[test]
fn fatal_alert_ends_the_connection_with_its_code() {
    for_every_link(0x5EED_0005, |link, _| {
        link.ours_takes();
        let mut forged = seal(&mut link.ours, b"to be spoiled").unwrap();
        *forged.last_mut().unwrap() ^= 1;
        link.rustls.read_tls(&mut forged.as_slice()).unwrap();
        link.rustls.process_new_packets().unwrap_err();
        link.rustls.write_tls(&mut link.wire).unwrap();
        let bad_record_mac = Err(RecordError::Alert(20));
        assert_eq!(link.ours.open(&mut link.wire), bad_record_mac);
        assert_eq!(link.ours.open(&mut []), bad_record_mac, "it is final");
        let error = RecordError::Alert(20);
        let words = taken(|queue, pool| link.ours.seal_failure(&error, queue, pool));
        assert_eq!(words, Ok(Vec::new()), "the peer knows already");
    });
}
