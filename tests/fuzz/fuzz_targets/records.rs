//! TLS records from a peer that shook hands: sealed by its key or not, none may do harm.
#![no_main]

#[path = "../../../proxy/relay/tests/peers/mod.rs"]
mod peers;

use libfuzzer_sys::fuzz_target;
use postern_relay::memory::{Pool, Queue};
use postern_relay::record::{Opened, Records, sealed_len};
use ring::aead;
use rustls::kernel::KernelConnection;
use rustls::{CipherSuite, ConnectionTrafficSecrets};

const SUITES: [CipherSuite; 2] = [
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

const APPLICATION_DATA: u8 = 23;

/// The side that seals whatever the input says.
struct Peer {
    is_tls13: bool,
    secrets: (u64, ConnectionTrafficSecrets),
    next: Box<dyn FnMut() -> (u64, ConnectionTrafficSecrets)>,
}

impl Peer {
    fn new<Data: 'static>(suite: CipherSuite, side: peers::Side<Data>) -> Self {
        let mut connection: KernelConnection<Data> = side.connection;
        Self {
            is_tls13: peers::is_tls13(suite),
            secrets: side.secrets.tx,
            next: Box::new(move || {
                connection
                    .update_tx_secret()
                    .expect("TLS 1.3 has a next key")
            }),
        }
    }

    /// [RFC 8446 §5.2, RFC 7905 §2] A record whose plaintext, with type and padding in TLS 1.3, is `plain`.
    fn seal(&mut self, content: u8, plain: &[u8]) -> Vec<u8> {
        let (number, ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = &self.secrets else {
            unreachable!("no other cipher was offered");
        };
        let number_bytes = number.to_be_bytes();
        let mut nonce: [u8; aead::NONCE_LEN] = iv.as_ref().try_into().expect("12 bytes");
        for (byte, number) in nonce[4..].iter_mut().zip(number_bytes) {
            *byte ^= number;
        }
        let length = |bytes: usize| u16::try_from(bytes).expect("it is short").to_be_bytes();
        let outer = if self.is_tls13 {
            APPLICATION_DATA
        } else {
            content
        };
        let mut record = vec![outer, 3, 3];
        record.extend(length(plain.len() + aead::CHACHA20_POLY1305.tag_len()));
        let aad = if self.is_tls13 {
            record.clone()
        } else {
            [&number_bytes[..], &[outer, 3, 3], &length(plain.len())].concat()
        };
        record.extend_from_slice(plain);
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key.as_ref()).expect("32 bytes");
        let tag = aead::LessSafeKey::new(key)
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(aad),
                &mut record[5..],
            )
            .expect("it is short");
        record.extend_from_slice(tag.as_ref());
        self.secrets.0 += 1;
        record
    }
}

/// What a record holds for the application, if it holds that.
fn application_data(is_tls13: bool, content: u8, plain: &[u8]) -> Option<&[u8]> {
    if !is_tls13 {
        return (content == APPLICATION_DATA).then_some(plain);
    }
    let at = plain.iter().rposition(|&byte| byte != 0)?;
    (plain[at] == APPLICATION_DATA).then_some(&plain[..at])
}

/// Opens what was sealed; whether more may come.
fn open(records: &mut Records, mut wire: Vec<u8>, expected: Option<&[u8]>) -> bool {
    match records.open(&mut wire) {
        Ok(Opened::Data { payload, consumed }) => {
            assert_eq!(Some(&wire[payload]), expected, "nothing else is data");
            assert_eq!(consumed, wire.len());
            true
        }
        Ok(Opened::Quiet { consumed }) => {
            assert!(expected.is_none_or(<[u8]>::is_empty));
            assert_eq!(consumed, wire.len());
            true
        }
        Ok(Opened::CloseNotify { consumed }) => {
            assert_eq!((expected, consumed), (None, wire.len()));
            assert!(records.is_closed());
            false
        }
        Ok(Opened::Incomplete { .. }) => panic!("the record is whole"),
        Err(error) => {
            assert_eq!(records.open(&mut wire), Err(error), "an error is final");
            false
        }
    }
}

/// Bytes that nobody sealed.
fn open_unsealed(records: &mut Records, bytes: &[u8]) {
    match records.open(&mut bytes.to_vec()) {
        Ok(Opened::Incomplete { needed }) => assert!(needed > bytes.len()),
        Ok(opened) => panic!("nobody sealed it: {opened:?}"),
        Err(error) => assert_eq!(records.open(&mut []), Err(error), "an error is final"),
    }
}

/// What is to be said to the peer goes out in the room that was promised.
fn say(records: &mut Records, pool: &mut Pool) {
    let mut queue = Queue::default();
    let mut writer = records.writer(&mut queue, pool).expect("there is room");
    writer.push(b"data").expect("there is room");
    writer.finish().expect("it is sealed");
    assert!(queue.len() <= sealed_len(4) && !records.has_replies());
    queue.clear(pool);
}

// The first byte chooses version and role; then come records: a content type (bit 7: it goes out
// unsealed, as it stands), a length, as many bytes of plaintext.
fuzz_target!(|input: &[u8]| {
    let [choice, script @ ..] = input else { return };
    let suite = SUITES[usize::from(choice & 1)];
    let (server, client) = peers::both(suite);
    let (mut records, mut peer) = if choice & 2 == 0 {
        let records = Records::server(server.secrets, server.connection);
        (records.expect("a known suite"), Peer::new(suite, client))
    } else {
        let mut leftover = client.leftover;
        let records = Records::client(client.secrets, client.connection);
        let mut records = records.expect("a known suite");
        while let Ok(Opened::Quiet { consumed }) = records.open(&mut leftover) {
            leftover.drain(..consumed);
        }
        (records, Peer::new(suite, server))
    };
    let mut pool = Pool::new();
    let mut rest = script;
    while let [content, length, tail @ ..] = rest {
        let (plain, tail) = tail.split_at(tail.len().min((*length).into()));
        rest = tail;
        if content & 0x80 != 0 {
            return open_unsealed(&mut records, plain);
        }
        let expected = application_data(peer.is_tls13, *content, plain);
        let wire = peer.seal(*content, plain);
        if !open(&mut records, wire, expected) {
            return;
        }
        if peer.is_tls13 && matches!(plain, [24, 0, 0, 1, 0 | 1, 22, ..]) {
            peer.secrets = (peer.next)();
        }
        say(&mut records, &mut pool);
    }
});
