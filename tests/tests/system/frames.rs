//! What may go wrong on an open WebSocket: the request for a desktop, and frames at any time.

use std::time::Duration;

use anyhow::{Result, ensure};
use ironrdp_rdcleanpath::RDCleanPathPdu;
use postern_tests::browserless::{APPLICATION_COOKIE, WebSocket};
use postern_wire::rdcleanpath;
use postern_wire::websocket::{Opcode, client_frame};
use postern_wire::x224::{self, Protocols};
use tungstenite::Message;
use tungstenite::client::IntoClientRequest as _;

use crate::scene::Scene;

const KEY: [u8; 4] = [1, 2, 3, 4];

fn masked(payload: &[u8]) -> Vec<u8> {
    client_frame(Opcode::Binary, true, KEY, payload)
}

/// Opens a WebSocket, sends `bytes`, and expects this close frame.
fn closed(
    scene: &Scene,
    what: &str,
    code: u16,
    reason: &str,
    bytes: impl AsRef<[u8]>,
) -> Result<()> {
    let record = scene.check(what, reason, || {
        let mut websocket = scene.alice.upgrade("lab")?;
        websocket.send_raw(bytes.as_ref())?;
        expect_close(&mut websocket, code, reason)?;
        Ok(websocket.source)
    })?;
    ensure!(record.session.is_some() && record.user.as_deref() == Some("alice@example.org"));
    Ok(())
}

fn expect_close(websocket: &mut WebSocket, code: u16, reason: &str) -> Result<()> {
    let close = websocket.closed()?;
    ensure!(close == (code, reason.to_owned()), "closed with {close:?}");
    Ok(())
}

/// Frames that break RFC 6455 or a limit, with their close codes and reasons.
fn wrong_frames() -> Vec<(&'static str, u16, &'static str, Vec<u8>)> {
    let long_ping = client_frame(Opcode::Ping, true, KEY, &[0; 126]);
    // A zero is how a request begins, too: the first part is no offence by itself.
    let twice = [
        client_frame(Opcode::Binary, false, KEY, b"0"),
        client_frame(Opcode::Binary, true, KEY, b"1"),
    ];
    let bad_reason = [&1000_u16.to_be_bytes()[..], &[0xff, 0xfe]].concat();
    vec![
        ("unmasked", 1002, "unmasked_frame", vec![0x82, 1, b'x']),
        (
            "reserved bit 1",
            1002,
            "reserved_bits",
            vec![0xc2, 0x81, 1, 2, 3, 4, 0],
        ),
        (
            "reserved bit 3",
            1002,
            "reserved_bits",
            vec![0x92, 0x81, 1, 2, 3, 4, 0],
        ),
        (
            "opcode 3",
            1002,
            "reserved_opcode",
            vec![0x83, 0x81, 1, 2, 3, 4, 0],
        ),
        (
            "opcode 11",
            1002,
            "reserved_opcode",
            vec![0x8b, 0x81, 1, 2, 3, 4, 0],
        ),
        (
            "a ping in parts",
            1002,
            "fragmented_control",
            vec![0x09, 0x81, 1, 2, 3, 4, 0],
        ),
        ("a ping of 126 bytes", 1002, "long_control", long_ping),
        (
            "5 in two bytes",
            1002,
            "non_minimal_length",
            vec![0x82, 0xfe, 0, 5, 1, 2, 3, 4],
        ),
        ("5 in eight bytes", 1002, "non_minimal_length", {
            [&[0x82, 0xff][..], &5_u64.to_be_bytes(), &KEY].concat()
        }),
        ("2^63 bytes", 1002, "length_top_bit", {
            [&[0x82, 0xff][..], &(1_u64 << 63).to_be_bytes(), &KEY].concat()
        }),
        ("5 MiB", 1009, "frame_too_long", {
            [&[0x82, 0xff][..], &(5_u64 << 20).to_be_bytes(), &KEY].concat()
        }),
        ("a continuation", 1002, "continuation_without_start", {
            client_frame(Opcode::Continuation, true, KEY, b"0")
        }),
        (
            "a message inside another",
            1002,
            "start_inside_message",
            twice.concat(),
        ),
        (
            "text",
            1003,
            "text_refused",
            client_frame(Opcode::Text, true, KEY, b"hello"),
        ),
        (
            "half a close code",
            1002,
            "close_length",
            client_frame(Opcode::Close, true, KEY, &[3]),
        ),
        ("a close code of nobody", 1002, "close_code", {
            client_frame(Opcode::Close, true, KEY, &999_u16.to_be_bytes())
        }),
        ("a close reason of no text", 1007, "close_reason", {
            client_frame(Opcode::Close, true, KEY, &bad_reason)
        }),
    ]
}

#[test]
fn a_broken_frame_before_the_request_ends_the_websocket() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    for (what, code, reason, bytes) in wrong_frames() {
        closed(&scene, what, code, reason, &bytes)?;
    }
    Ok(())
}

#[test]
fn a_broken_frame_ends_a_live_desktop() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    for (what, code, reason, bytes) in wrong_frames() {
        let mut websocket = scene.alice.desktop("lab")?;
        websocket.send(b"hello")?;
        ensure!(websocket.receive_exactly(5)? == b"hello");
        let record = scene.check(what, reason, || {
            websocket.send_raw(&bytes)?;
            expect_close(&mut websocket, code, reason)?;
            Ok(websocket.source)
        })?;
        ensure!(record.bytes_down >= Some(5), "{what}: {record:?}");
    }
    Ok(())
}

#[test]
fn a_request_that_is_none_of_ours_is_never_dialled() -> Result<()> {
    let scene = Scene::start(|configuration| configuration.limit("cleanpath_ms_max", 1000))?;
    let target = scene.target.address;
    let x224 = x224::encode_request(None, Protocols::ALL)?;
    let request = |destination: &str| rdcleanpath::encode_request(destination, "none", &x224);
    let good = request("lab")?;

    for elsewhere in [
        "127.0.0.1:22",
        "127.0.0.1",
        "other",
        "",
        "LAB",
        "lab:22",
        "lab.evil.example",
        &format!("127.0.0.1:{}", target.port() ^ 1),
        &format!("[::ffff:127.0.0.1]:{}", target.port()),
        &format!("evil.example:{}", target.port()),
    ] {
        let frame = masked(&request(elsewhere)?);
        closed(&scene, elsewhere, 4010, "request_destination", &frame)?;
    }

    let large = rdcleanpath::encode_request("lab", &"A".repeat(17 * 1024), &x224)?;
    closed(&scene, "17 KiB", 4010, "request_too_large", masked(&large))?;
    let promised = [0x30, 0x83, 1, 0, 0, 0xa0, 4, 2, 2, 0x0d, 0x3e];
    closed(
        &scene,
        "64 KiB promised",
        4010,
        "request_too_large",
        masked(&promised),
    )?;
    let malformed = "request_malformed";
    closed(
        &scene,
        "no PDU",
        4010,
        malformed,
        masked(b"\x03\x00\x00\x13\x0e\xe0"),
    )?;
    closed(&scene, "an answer", 4010, malformed, {
        masked(&rdcleanpath::response(
            "127.0.0.1:1",
            &x224,
            [b"certificate"],
        ))
    })?;
    closed(&scene, "bytes behind it", 4010, malformed, {
        masked(&[good.as_slice(), b"more"].concat())
    })?;
    closed(&scene, "a preconnection blob", 4010, malformed, {
        let pdu = RDCleanPathPdu::new_request(
            x224.clone(),
            "lab".to_owned(),
            "none".to_owned(),
            Some("blob".to_owned()),
        )?;
        masked(&pdu.to_der()?)
    })?;
    closed(&scene, "no X.224", 4010, malformed, {
        masked(&rdcleanpath::encode_request("lab", "none", b"nonsense")?)
    })?;
    closed(
        &scene,
        "standard security only",
        4010,
        "request_security",
        {
            let offer = x224::encode_request(None, Protocols::NONE)?;
            masked(&rdcleanpath::encode_request("lab", "none", &offer)?)
        },
    )?;
    closed(&scene, "TLS without NLA", 4010, "request_security", {
        let offer = x224::encode_request(None, Protocols::TLS)?;
        masked(&rdcleanpath::encode_request("lab", "none", &offer)?)
    })?;
    closed(
        &scene,
        "half a request",
        4010,
        "request_timeout",
        masked(&good[..good.len() / 2]),
    )?;
    closed(&scene, "pings alone", 4010, "request_timeout", {
        client_frame(Opcode::Ping, true, KEY, b"there?")
    })
}

#[test]
fn a_request_in_pieces_is_one_request() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let x224 = x224::encode_request(None, Protocols::ALL)?;
    let request = rdcleanpath::encode_request("lab", "none", &x224)?;
    let mut websocket = scene.alice.upgrade("lab")?;
    for byte in &request {
        websocket.send_raw(&masked(&[*byte]))?;
    }
    let answer = rdcleanpath::Answer::parse(&websocket.receive()?)?;
    ensure!(
        matches!(answer, rdcleanpath::Answer::Desktop { .. }),
        "{answer:?}"
    );
    websocket.send(b"alive")?;
    ensure!(websocket.receive_exactly(5)? == b"alive");
    websocket.writer().close(1000)?;
    ensure!(websocket.closed_within(Duration::from_secs(5))?.0 == 1000);
    let record = scene.gateway.audit().connection(websocket.source)?;
    ensure!(
        record.reason.as_deref() == Some("closed_by_browser"),
        "{record:?}"
    );
    Ok(())
}

#[test]
fn an_independent_client_agrees_with_the_framing() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let url = format!(
        "wss://{}:{}/app/lab/rdp",
        scene.alice.host,
        scene.gateway.address.port()
    );
    let mut request = url.into_client_request()?;
    let token = scene.alice.token("lab").unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert("Origin", scene.alice.origin().parse()?);
    headers.insert("Cookie", format!("{APPLICATION_COOKIE}={token}").parse()?);
    let (stream, source) = scene.alice.connect()?;
    let (mut client, _) = tungstenite::client(request, &stream)
        .map_err(|error| anyhow::anyhow!("tungstenite's handshake: {error}"))?;
    let x224 = x224::encode_request(None, Protocols::ALL)?;
    let pdu = rdcleanpath::encode_request("lab", "none", &x224)?;
    client.send(Message::binary(pdu))?;
    let answer = rdcleanpath::Answer::parse(&client.read()?.into_data())?;
    ensure!(
        matches!(answer, rdcleanpath::Answer::Desktop { .. }),
        "{answer:?}"
    );
    // All three forms of a length, and a ping between.
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..length).map(|at: u32| at.to_le_bytes()[0]).collect();
        client.send(Message::Ping(b"still there?".as_slice().into()))?;
        client.send(Message::binary(payload.clone()))?;
        let mut returned = Vec::new();
        while returned.len() < payload.len() {
            if let Message::Binary(part) = client.read()? {
                returned.extend_from_slice(&part);
            }
        }
        ensure!(returned == payload, "{length} bytes came back changed");
    }
    client.close(None)?;
    while client.read().is_ok() {}
    let record = scene.gateway.audit().connection(source)?;
    ensure!(
        record.reason.as_deref() == Some("closed_by_browser"),
        "{record:?}"
    );
    Ok(())
}
