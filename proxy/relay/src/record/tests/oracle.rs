//! Whatever a peer sends, sealed or not, is judged as rustls judges it, and never panics.

use std::io::Read;

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::Connection;

use super::*;
use crate::record::header::Content;

/// What a peer seals.
#[derive(Debug, Clone)]
enum Said {
    Record(Content, Vec<u8>),
    /// A handshake message in two records. Both come before a verdict is asked for: a header that
    /// can't be right is refused at once by ours, with the message's end by rustls.
    Cut(Vec<u8>, usize),
    /// A record of another kind after a handshake message's first byte.
    Interrupted(u8, Content, Vec<u8>),
    /// A KeyUpdate, after which the peer goes on under its next key.
    KeyUpdate {
        is_requested: bool,
    },
}

/// What a side made of a record: the data in it, and whether more may come; `None` = refused.
type Verdict = Option<(Vec<u8>, bool)>;

fn said() -> impl Strategy<Value = Said> {
    let record = |content| move |payload| Said::Record(content, payload);
    let code = prop_oneof![Just(0), Just(90), Just(100), any::<u8>()];
    let alert = (0_u8..4, code);
    let handshake = prop_oneof![
        Just(vec![24, 0, 0, 2, 0, 0]),
        Just(vec![24, 0, 0, 1, 2]),
        Just(vec![0, 0, 0, 0]),
        // Left out is 1, a ClientHello: rustls reads it before it declines, we do not.
        (2_u8..30, vec(any::<u8>(), 0..9)).prop_map(|(kind, body)| {
            let length = u8::try_from(body.len()).unwrap();
            [&[kind, 0, 0, length], body.as_slice()].concat()
        }),
    ];
    let cut = (handshake.clone(), 1..4_usize).prop_map(|(message, at)| Said::Cut(message, at));
    let interrupted = (
        prop_oneof![Just(0), Just(24)],
        any::<bool>(),
        vec(any::<u8>(), 1..9),
    )
        .prop_map(|(first, is_data, payload)| match is_data {
            true => Said::Interrupted(first, Content::ApplicationData, payload),
            false => Said::Interrupted(first, Content::Alert, vec![1, 0]),
        });
    prop_oneof![
        8 => vec(any::<u8>(), 0..40).prop_map(record(Content::ApplicationData)),
        2 => any::<bool>().prop_map(|is_requested| Said::KeyUpdate { is_requested }),
        1 => alert.prop_map(|(level, code)| Said::Record(Content::Alert, vec![level, code])),
        1 => vec(any::<u8>(), 0..4).prop_map(record(Content::Alert)),
        1 => handshake.prop_map(record(Content::Handshake)),
        1 => cut,
        1 => interrupted,
        1 => vec(any::<u8>(), 0..4).prop_map(record(Content::ChangeCipherSpec)),
    ]
}

/// The bytes of what is said.
fn wire(peer: &mut Records, said: &Said) -> Vec<u8> {
    let mut seal = |content, payload: &[u8]| {
        let mut space = vec![0; peer.tx.payload_start()];
        space.extend_from_slice(payload);
        space.resize(space.len() + peer.tx.trailer_bytes(), 0);
        peer.tx.seal(content, &mut space, payload.len()).unwrap();
        space
    };
    match said {
        Said::Record(content, payload) => seal(*content, payload),
        Said::Cut(message, at) => {
            let (first, second) = message.split_at(*at);
            [
                seal(Content::Handshake, first),
                seal(Content::Handshake, second),
            ]
            .concat()
        }
        Said::Interrupted(first, content, payload) => {
            [seal(Content::Handshake, &[*first]), seal(*content, payload)].concat()
        }
        Said::KeyUpdate { is_requested } => {
            let message = [24, 0, 0, 1, u8::from(*is_requested)];
            let record = seal(Content::Handshake, &message);
            if peer.version == Version::Tls13 {
                let next = peer.schedule.next_tx().unwrap();
                peer.tx = Protection::new(peer.version, next).unwrap();
            }
            record
        }
    }
}

fn rustls_judges(rustls: &mut Connection, mut wire: &[u8]) -> Verdict {
    rustls.read_tls(&mut wire).unwrap();
    let state = rustls.process_new_packets().ok()?;
    let mut data = vec![0; state.plaintext_bytes_to_read()];
    rustls.reader().read_exact(&mut data).unwrap();
    Some((data, !state.peer_has_closed()))
}

fn ours_judges(ours: &mut Records, mut wire: Vec<u8>) -> Verdict {
    let (data, end) = open_all(ours, &mut wire);
    end.ok()?;
    assert!(wire.is_empty());
    Some((data, !ours.is_closed()))
}

/// The same is said to rustls and to ours, until they have heard enough.
fn check(
    (mut to_rustls, mut rustls): (Records, Connection),
    (mut to_ours, mut ours): (Records, Records),
    script: &[Said],
) {
    for said in script {
        let expected = rustls_judges(&mut rustls, &wire(&mut to_rustls, said));
        let verdict = ours_judges(&mut ours, wire(&mut to_ours, said));
        assert_eq!(verdict, expected, "{said:?} of {script:?}");
        if !matches!(verdict, Some((_, true))) {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn client_is_judged_as_rustls_judges_it(
        suite in 0..peers::SUITES.len(),
        script in vec(said(), 1..12),
    ) {
        let suite = peers::SUITES[suite];
        let (client, rustls) = peers::client(suite);
        let to_rustls = Records::client(client.secrets, client.connection).unwrap();
        let (server, client) = pair(suite);
        check((to_rustls, rustls), (client, server), &script);
    }

    #[test]
    fn server_is_judged_as_rustls_judges_it(
        suite in 0..peers::SUITES.len(),
        script in vec(said(), 1..12),
    ) {
        let suite = peers::SUITES[suite];
        let (server, rustls) = peers::server(suite);
        let to_rustls = Records::server(server.secrets, server.connection).unwrap();
        check((to_rustls, rustls), pair(suite), &script);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        is_tls13: bool,
        algorithm in 0..3_usize,
        mut bytes in vec(any::<u8>(), 0..400),
        has_header: bool,
    ) {
        let version = if is_tls13 { Version::Tls13 } else { Version::Tls12 };
        let (mut records, _) = fixed(version, algorithm);
        if has_header && bytes.len() > 5 {
            bytes[..4].copy_from_slice(&[23, 3, 3, 0]);
        }
        let length = bytes.len();
        match records.open(&mut bytes) {
            Ok(Opened::Incomplete { needed }) => prop_assert!(needed > length),
            Ok(other) => prop_assert!(false, "nobody sealed it: {other:?}"),
            Err(error) => prop_assert_eq!(records.open(&mut bytes), Err(error)),
        }
    }

    #[test]
    fn arbitrary_sealed_bytes_never_panic(
        is_tls13: bool,
        is_server: bool,
        contents in vec((0..4_usize, vec(any::<u8>(), 0..40)), 1..9),
    ) {
        let outer = [
            Content::Alert,
            Content::Handshake,
            Content::ApplicationData,
            Content::ChangeCipherSpec,
        ];
        let version = if is_tls13 { Version::Tls13 } else { Version::Tls12 };
        let (mut records, mut peer) = fixed(version, 0);
        if !is_server {
            records.assembler = Assembler::client(version);
        }
        for (content, plain) in contents {
            let content = if is_tls13 { Content::ApplicationData } else { outer[content] };
            let mut record = peer.seal_as_it_stands(content, &plain);
            let length = record.len();
            if let Ok(Opened::Data { payload, consumed }) = records.open(&mut record) {
                prop_assert_eq!(consumed, length);
                prop_assert_eq!(&record[payload.clone()], &plain[..payload.len()]);
            }
        }
    }
}
