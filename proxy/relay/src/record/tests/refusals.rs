//! What a peer may not do: every rule has its violation here.

use super::*;
use crate::record::header::Content;
use crate::record::{
    EMPTY_RECORDS_MAX, KEY_UPDATES_MAX, PLAINTEXT_BYTES_MAX, TICKETS_MAX, WARNINGS_MAX,
};

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

const PAYLOAD: &[u8] = b"a record's payload";

fn for_every_cipher(check: impl Fn(&dyn Fn() -> (Records, Protection), Version)) {
    for version in VERSIONS {
        for algorithm in 0..Algorithm::ALL.len() {
            check(&|| fixed(version, algorithm), version);
        }
    }
}

/// A record with this content, sealed in the version's way.
fn sealed(peer: &mut Protection, version: Version, content: Content, payload: &[u8]) -> Vec<u8> {
    match version {
        Version::Tls12 => peer.seal_as_it_stands(content, payload),
        Version::Tls13 => {
            let inner = [payload, &[content as u8]].concat();
            peer.seal_as_it_stands(Content::ApplicationData, &inner)
        }
    }
}

/// The error that a server gives to the last of these records; those before it pass.
fn refusal(version: Version, sequence: &[(Content, &[u8])]) -> RecordError {
    refusal_by(fixed(version, 0).0, version, sequence)
}

fn refusal_by(
    mut records: Records,
    version: Version,
    sequence: &[(Content, &[u8])],
) -> RecordError {
    let (_, mut peer) = fixed(version, 0);
    let (last, before) = sequence.split_last().unwrap();
    for (content, payload) in before {
        let mut record = sealed(&mut peer, version, *content, payload);
        records.open(&mut record).unwrap();
    }
    let mut record = sealed(&mut peer, version, last.0, last.1);
    records.open(&mut record).unwrap_err()
}

/// The record layer of one role, without a peer.
fn side(version: Version, is_server: bool) -> Records {
    let (mut records, _) = fixed(version, 0);
    if !is_server {
        records.assembler = Assembler::client(version);
    }
    records
}

#[test]
fn any_flipped_bit_is_refused() {
    for_every_cipher(|fixed, version| {
        let whole = sealed(&mut fixed().1, version, Content::ApplicationData, PAYLOAD);
        for bit in 0..whole.len() * 8 {
            let mut record = whole.clone();
            record[bit / 8] ^= 1 << (bit % 8);
            let (mut records, _) = fixed();
            match records.open(&mut record) {
                Err(_) => {}
                // A longer length waits for bytes that make it another record.
                Ok(Opened::Incomplete { .. }) => {
                    assert!((3..5).contains(&(bit / 8)), "bit {bit}");
                    record.resize(1 << 17, 0);
                    records.open(&mut record).unwrap_err();
                }
                Ok(other) => panic!("bit {bit}: {other:?}"),
            }
        }
    });
}

#[test]
fn truncated_record_says_how_many_bytes_it_needs() {
    for_every_cipher(|fixed, version| {
        let (mut records, mut peer) = fixed();
        let whole = sealed(&mut peer, version, Content::ApplicationData, PAYLOAD);
        for length in 0..whole.len() {
            let needed = if length < 5 { 5 } else { whole.len() };
            assert_eq!(
                records.open(&mut whole[..length].to_vec()),
                Ok(Opened::Incomplete { needed })
            );
        }
        let mut followed = [whole.as_slice(), b"more"].concat();
        let opened = records.open(&mut followed).unwrap();
        let Opened::Data { payload, consumed } = opened else {
            panic!("{opened:?}");
        };
        assert_eq!((&followed[payload], consumed), (PAYLOAD, whole.len()));
        assert_eq!(&followed[consumed..], b"more", "what follows is untouched");
    });
}

#[test]
fn replayed_and_reordered_records_are_refused() {
    for_every_cipher(|fixed, version| {
        let (_, mut peer) = fixed();
        let first = sealed(&mut peer, version, Content::ApplicationData, b"first");
        let second = sealed(&mut peer, version, Content::ApplicationData, b"second");

        let (mut records, _) = fixed();
        records.open(&mut first.clone()).unwrap();
        let replayed = records.open(&mut first.clone());
        assert_eq!(replayed, Err(RecordError::Forged));

        let (mut records, _) = fixed();
        let early = records.open(&mut second.clone());
        assert_eq!(early, Err(RecordError::Forged));
        let late = records.open(&mut first.clone());
        assert_eq!(late, Err(RecordError::Forged), "an error is final");
    });
}

#[test]
fn lengths_are_limited_before_and_after_decryption() {
    let header = |length: usize| {
        let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
        [23, 3, 3, high, low]
    };
    for_every_cipher(|fixed, version| {
        let longest = match version {
            Version::Tls12 => 16_384 + 2048,
            Version::Tls13 => 16_384 + 256,
        };
        let (mut records, peer) = fixed();
        let shortest = peer.payload_start() + peer.trailer_bytes() - 5;
        for fit in [shortest, longest] {
            let needed = 5 + fit;
            assert_eq!(
                records.open(&mut header(fit)),
                Ok(Opened::Incomplete { needed })
            );
        }
        assert_eq!(
            records.open(&mut header(longest + 1)),
            Err(RecordError::Oversized),
            "it is refused before its body is there"
        );
        let (mut records, _) = fixed();
        let too_short = records.open(&mut header(shortest - 1));
        assert!(matches!(too_short, Err(RecordError::Malformed(_))));

        let (mut records, mut peer) = fixed();
        let full = vec![b'x'; PLAINTEXT_BYTES_MAX];
        let mut record = sealed(&mut peer, version, Content::ApplicationData, &full);
        assert!(matches!(
            records.open(&mut record),
            Ok(Opened::Data { payload, .. }) if payload.len() == PLAINTEXT_BYTES_MAX
        ));
        let more = vec![b'x'; PLAINTEXT_BYTES_MAX + 1];
        let mut record = sealed(&mut peer, version, Content::ApplicationData, &more);
        assert_eq!(records.open(&mut record), Err(RecordError::Oversized));
    });
}

#[test]
fn padding_counts_towards_the_length() {
    let (mut records, mut peer) = fixed(Version::Tls13, 0);
    let mut padded = |padding: usize| {
        let mut inner = vec![b'x'; 10];
        inner.push(23);
        inner.resize(inner.len() + padding, 0);
        peer.seal_as_it_stands(Content::ApplicationData, &inner)
    };
    let mut fitting = padded(PLAINTEXT_BYTES_MAX - 10);
    assert_eq!(
        records.open(&mut fitting),
        Ok(Opened::Data {
            payload: 5..15,
            consumed: fitting.len()
        })
    );
    let mut longer = padded(PLAINTEXT_BYTES_MAX - 9);
    assert_eq!(records.open(&mut longer), Err(RecordError::Oversized));
}

#[test]
fn padding_and_nothing_else_is_refused() {
    for length in [1, 2, 100, PLAINTEXT_BYTES_MAX + 1] {
        let (mut records, mut peer) = fixed(Version::Tls13, 0);
        let mut record = peer.seal_as_it_stands(Content::ApplicationData, &vec![0; length]);
        let opened = records.open(&mut record);
        assert!(matches!(opened, Err(RecordError::Unexpected(_))));
    }
}

#[test]
fn content_that_may_not_come_is_refused() {
    for version in VERSIONS {
        for content in 0..=255_u8 {
            let (mut records, _) = fixed(version, 0);
            let is_admitted = match version {
                Version::Tls12 => matches!(content, 21..=23),
                Version::Tls13 => content == 23,
            };
            let opened = records.open(&mut [content, 3, 3, 1, 0]);
            let is_refused = matches!(opened, Err(RecordError::Unexpected(_)));
            assert_eq!(is_refused, !is_admitted, "{version:?} {content}");
        }
    }
    for inner in (0..=255_u8).filter(|inner| !matches!(inner, 21..=23)) {
        let (mut records, mut peer) = fixed(Version::Tls13, 0);
        // A zero at the end is padding: then the byte before it is the type, which is as unknown.
        let mut record = peer.seal_as_it_stands(Content::ApplicationData, &[1, inner]);
        let opened = records.open(&mut record);
        assert!(matches!(opened, Err(RecordError::Unexpected(_))), "{inner}");
    }
}

#[test]
fn version_that_is_none_of_tls_is_refused() {
    for version in VERSIONS {
        for major in (0..=255_u8).filter(|&major| major != 3) {
            let (mut records, _) = fixed(version, 0);
            let opened = records.open(&mut [23, major, 3, 1, 0]);
            assert!(matches!(opened, Err(RecordError::Malformed(_))), "{major}");
        }
    }
}

#[test]
fn unprotected_records_are_refused() {
    let plain: [&[u8]; 4] = [
        &[20, 3, 3, 0, 1, 1],
        &[21, 3, 3, 0, 2, 1, 0],
        &[21, 3, 3, 0, 2, 2, 40],
        &[22, 3, 3, 0, 4, 0, 0, 0, 0],
    ];
    for version in VERSIONS {
        for record in plain {
            let (mut records, _) = fixed(version, 0);
            let opened = records.open(&mut record.to_vec());
            let is_refused = matches!(
                opened,
                Err(RecordError::Unexpected(_) | RecordError::Malformed(_))
            );
            assert!(is_refused, "{version:?} {record:?}: {opened:?}");
        }
    }
}

#[test]
fn empty_records_carry_data_only_and_are_counted() {
    use Content::{Alert, ApplicationData, Handshake};
    for version in VERSIONS {
        for content in [Alert, Handshake] {
            let refused = refusal(version, &[(content, b"")]);
            assert!(matches!(refused, RecordError::Malformed(_)), "{content:?}");
        }
        let allowed = vec![(ApplicationData, &b""[..]); EMPTY_RECORDS_MAX as usize];
        let made_up = vec![(ApplicationData, &b"x"[..])];
        let one_more = vec![(ApplicationData, &b""[..])];
        for sequence in [
            [allowed.clone(), one_more.clone()].concat(),
            [allowed.clone(), made_up, allowed, one_more].concat(),
        ] {
            let refused = refusal(version, &sequence);
            assert_eq!(refused, RecordError::Flood("empty records"));
        }
    }
}

#[test]
fn alerts_are_judged_by_level_and_version() {
    use Content::Alert;
    for version in VERSIONS {
        for payload in [&[1][..], &[1, 90, 1], &[0, 90], &[3, 90], &[255, 0]] {
            let refused = refusal(version, &[(Alert, payload)]);
            assert!(matches!(refused, RecordError::Malformed(_)), "{payload:?}");
        }
        for code in 1..=255 {
            let fatal = refusal(version, &[(Alert, &[2, code])]);
            assert_eq!(fatal, RecordError::Alert(code));
            if version == Version::Tls13 && code != 90 {
                let warning = refusal(version, &[(Alert, &[1, code])]);
                assert_eq!(warning, RecordError::Alert(code));
            }
        }
        let harmless: &[u8] = match version {
            Version::Tls12 => &[1, 112],
            Version::Tls13 => &[1, 90],
        };
        let flood = vec![(Alert, harmless); WARNINGS_MAX as usize + 1];
        assert_eq!(refusal(version, &flood), RecordError::Flood("warnings"));
        for level in [1, 2] {
            let (mut records, mut peer) = fixed(version, 0);
            let mut record = sealed(&mut peer, version, Alert, &[level, 0]);
            let consumed = record.len();
            let opened = records.open(&mut record);
            assert_eq!(opened, Ok(Opened::CloseNotify { consumed }));
        }
    }
}

#[test]
fn handshake_messages_that_nobody_awaits_are_refused() {
    for version in VERSIONS {
        for is_server in [true, false] {
            let awaited: &[u8] = match (version, is_server) {
                (Version::Tls12, true) => &[1],
                (Version::Tls12, false) => &[0],
                (Version::Tls13, true) => &[24],
                (Version::Tls13, false) => &[4, 24],
            };
            for kind in (0..=255).filter(|kind| !awaited.contains(kind)) {
                let message = (Content::Handshake, &[kind, 0, 0, 1, 1][..]);
                let refused = refusal_by(side(version, is_server), version, &[message]);
                assert!(matches!(refused, RecordError::Unexpected(_)), "{kind}");
            }
        }
    }
}

#[test]
fn malformed_handshake_messages_are_refused() {
    let cases: [(Version, bool, &[u8]); 8] = [
        (Version::Tls13, true, &[24, 0, 0, 0]),
        (Version::Tls13, true, &[24, 0, 0, 2, 0, 0]),
        (Version::Tls13, true, &[24, 0, 0, 1, 2]),
        (Version::Tls13, false, &[24, 1, 0, 1, 0]),
        (Version::Tls13, false, &[4, 0, 0, 13]),
        (Version::Tls13, false, &[4, 1, 0, 0]),
        (Version::Tls12, false, &[0, 0, 0, 1, 0]),
        (Version::Tls12, true, &[1, 1, 0, 0]),
    ];
    for (version, is_server, message) in cases {
        let sequence = [(Content::Handshake, message)];
        let refused = refusal_by(side(version, is_server), version, &sequence);
        assert!(matches!(refused, RecordError::Malformed(_)), "{message:?}");
    }
}

#[test]
fn nothing_may_stand_between_the_parts_of_a_message() {
    use Content::{Alert, ApplicationData, Handshake};
    for (version, part) in [
        (Version::Tls13, &[24, 0][..]),
        (Version::Tls12, &[1, 0, 0, 9]),
    ] {
        for between in [(ApplicationData, PAYLOAD), (Alert, &[1, 0])] {
            let refused = refusal(version, &[(Handshake, part), between]);
            assert!(matches!(refused, RecordError::Unexpected(_)), "{between:?}");
        }
    }
}

#[test]
fn key_update_must_end_its_record() {
    let (mut server, mut client) = pair(peers::SUITES[0]);
    let messages = [24, 0, 0, 1, 0, 24, 0, 0, 1, 0];
    let mut record = sealed(
        &mut client.tx,
        Version::Tls13,
        Content::Handshake,
        &messages,
    );
    let opened = server.open(&mut record);
    assert!(matches!(opened, Err(RecordError::Unexpected(_))));
}

#[test]
fn key_update_may_come_in_parts() {
    let (mut server, mut client) = pair(peers::SUITES[0]);
    for part in [&[24][..], &[0, 0, 1], &[1]] {
        assert!(!server.has_replies());
        let mut record = sealed(&mut client.tx, Version::Tls13, Content::Handshake, part);
        server.open(&mut record).unwrap();
    }
    assert!(server.has_replies());
    let next = client.schedule.next_tx().unwrap();
    client.tx = Protection::new(Version::Tls13, next).unwrap();
    let mut wire = seal(&mut client, PAYLOAD).unwrap();
    assert_eq!(open_all(&mut server, &mut wire), (PAYLOAD.to_vec(), Ok(())));

    let mut wire = taken(|queue, pool| client.update_key(queue, pool)).unwrap();
    server.open(&mut wire).unwrap();
    assert!(server.has_replies(), "another update takes no request back");
}

#[test]
fn flood_of_key_updates_is_refused() {
    let (mut server, mut client) = pair(peers::SUITES[0]);
    let mut update = |client: &mut Records| {
        let mut record = taken(|queue, pool| client.update_key(queue, pool)).unwrap();
        server.open(&mut record).map(|_| ())
    };
    for _ in 0..KEY_UPDATES_MAX {
        assert_eq!(update(&mut client), Ok(()));
    }
    let flood = Err(RecordError::Flood("key updates"));
    assert_eq!(update(&mut client), flood);

    let (mut server, mut client) = pair(peers::SUITES[0]);
    for _ in 0..2 * KEY_UPDATES_MAX {
        let mut wire = taken(|queue, pool| client.update_key(queue, pool)).unwrap();
        wire.extend(seal(&mut client, b"data makes up for it").unwrap());
        assert_eq!(open_all(&mut server, &mut wire).1, Ok(()));
    }
}

fn ticket(length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let mut message = vec![4, 0, high, low];
    // A body that reads like key updates: nobody may look for messages in it.
    message.extend([24, 0, 0, 1, 0].iter().cycle().take(length.into()));
    message
}

#[test]
fn tickets_are_skipped_however_they_are_cut() {
    let small = [ticket(14), ticket(300), ticket(20)].concat();
    let large = [ticket(0xffff), ticket(14), ticket(40_000)].concat();
    for (flight, cut) in [
        (&small, 1),
        (&small, 3),
        (&small, 5),
        (&small, 1000),
        (&large, 1000),
        (&large, PLAINTEXT_BYTES_MAX),
    ] {
        let (mut server, mut client) = pair(peers::SUITES[0]);
        for part in flight.chunks(cut) {
            let mut record = sealed(&mut server.tx, Version::Tls13, Content::Handshake, part);
            let consumed = record.len();
            assert_eq!(client.open(&mut record), Ok(Opened::Quiet { consumed }));
        }
        let mut wire = seal(&mut server, PAYLOAD).unwrap();
        assert_eq!(open_all(&mut client, &mut wire), (PAYLOAD.to_vec(), Ok(())));
    }
}

#[test]
fn flood_of_tickets_is_refused() {
    let flood = ticket(14).repeat(TICKETS_MAX as usize + 1);
    let refused = refusal_by(
        side(Version::Tls13, false),
        Version::Tls13,
        &[(Content::Handshake, &flood)],
    );
    assert_eq!(refused, RecordError::Flood("session tickets"));
}

#[test]
fn renegotiation_is_declined_once_and_then_refused() {
    for is_server in [true, false] {
        let mut records = side(Version::Tls12, is_server);
        let (mut other, mut peer) = fixed(Version::Tls12, 0);
        let message = if is_server {
            [&[1, 0, 0, 200][..], &[0; 200]].concat()
        } else {
            vec![0; 4]
        };
        let mut hello = || peer.seal_as_it_stands(Content::Handshake, &message);
        records.open(&mut hello()).unwrap();
        assert!(records.has_replies());
        let mut warning = taken(|queue, pool| records.seal_replies(queue, pool)).unwrap();
        assert!(!records.has_replies());
        let consumed = warning.len();
        assert_eq!(other.open(&mut warning), Ok(Opened::Quiet { consumed }));
        assert_eq!(warning[13..15], [1, 100], "a warning: no_renegotiation");
        assert_eq!(
            records.open(&mut hello()),
            Err(RecordError::Flood("renegotiations"))
        );
    }
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let (server, _) = pair(peers::SUITES[0]);
    assert_eq!(format!("{server:?}"), "Records { version: Tls13, .. }");
}
