//! The framing as outside conformance suites look at it: what is allowed comes back unchanged.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_parts::process::Process;
use postern_parts::{port, program, wait};
use postern_tests::gateway::{Configuration, echo_program};
use postern_tests::{Browser, Gateway};
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::Data;

use crate::echo_peer::{Peer, gateway, spoilt};

/// So many bytes of text, in which characters of several bytes lie across every boundary.
fn text(bytes: usize) -> String {
    let mut text = "x".repeat(bytes % 2);
    text.extend(std::iter::repeat_n('é', bytes / 2));
    text
}

fn binary(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

#[test]
fn messages_of_every_length_come_back_as_what_they_were() -> Result<()> {
    let gateway = gateway()?;
    let mut peer = Peer::connect(&gateway.browser())?;
    let large = [65_535, 65_536, 1 << 20, 16 << 20];
    for bytes in [0, 1, 125, 126, 127, 128].into_iter().chain(large) {
        peer.echoed(Message::text(text(bytes)))
            .with_context(|| format!("{bytes} bytes of text"))?;
        peer.echoed(Message::binary(binary(bytes)))
            .with_context(|| format!("{bytes} bytes of binary"))?;
    }
    for _ in 0..1000 {
        peer.echoed(Message::text("again"))?;
    }
    // Nothing was left over.
    peer.client.close(None)?;
    peer.expect_close(None)
}

#[test]
fn fragments_are_one_message_with_pings_between_them() -> Result<()> {
    let gateway = gateway()?;
    let mut peer = Peer::connect(&gateway.browser())?;
    let ping = |number: u8| Message::Ping(vec![number; 125].into());
    let pong = |number: u8| Message::Pong(vec![number; 125].into());
    for (kind, whole) in [
        (Data::Text, Message::text("Hel-lo-!")),
        (Data::Binary, Message::binary("Hel-lo-!")),
    ] {
        peer.frame(kind, b"Hel", false)?;
        peer.client.send(ping(1))?;
        peer.expect(&pong(1))?;
        // An empty part, and a pong that nobody asked for.
        peer.frame(Data::Continue, b"", false)?;
        peer.client.send(Message::Pong("unasked".into()))?;
        peer.frame(Data::Continue, b"-lo", false)?;
        peer.client.send(ping(2))?;
        peer.client.send(Message::Ping("".into()))?;
        peer.frame(Data::Continue, b"-!", true)?;
        peer.expect(&pong(2))?;
        peer.expect(&Message::Pong("".into()))?;
        peer.expect(&whole)?;
    }
    for kind in [Data::Text, Data::Binary] {
        peer.frame(kind, b"", false)?;
        peer.frame(Data::Continue, b"", false)?;
        peer.frame(Data::Continue, b"", true)?;
        peer.expect(&match kind {
            Data::Text => Message::text(""),
            _ => Message::binary(""),
        })?;
    }
    // Whole messages between pings: answered in order.
    for number in 0..10 {
        peer.client.send(ping(number))?;
        peer.client.send(Message::text(number.to_string()))?;
    }
    for number in 0..10 {
        peer.expect(&pong(number))?;
        peer.expect(&Message::text(number.to_string()))?;
    }
    Ok(())
}

#[test]
fn fragments_of_every_size_are_taken() -> Result<()> {
    let gateway = gateway()?;
    let mut peer = Peer::connect(&gateway.browser())?;
    let greeting = "Hello-µ@ßöäüàá-UTF-8!! κόσμε 😀 \u{7ff}\u{800}\u{ffff}\u{10ffff}";
    for bytes in 1..=5 {
        peer.fragments(Data::Text, greeting.as_bytes(), bytes)?;
        peer.expect(&Message::text(greeting))?;
    }
    // As a client does that fragments by itself, and large ones in parts small and large.
    for (length, bytes) in [(65_536, 1300), (1 << 20, 64), (4 << 20, 65_536)] {
        let whole = text(length);
        peer.fragments(Data::Text, whole.as_bytes(), bytes)?;
        peer.expect(&Message::text(whole))?;
        let whole = binary(length);
        peer.fragments(Data::Binary, &whole, bytes)?;
        peer.expect(&Message::binary(whole))?;
    }
    // A frame that arrives byte by byte.
    for byte in spoilt(0x1, greeting.as_bytes(), |_| {}) {
        peer.raw(&[byte])?;
    }
    peer.expect(&Message::text(greeting))
}

#[test]
fn a_close_frame_is_answered_with_its_code() -> Result<()> {
    let gateway = gateway()?;
    let registered = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1014];
    let free = [3000, 3999, 4000, 4999];
    for code in registered.into_iter().chain(free) {
        for reason in ["", "ends", &"r".repeat(123)] {
            let mut peer = Peer::connect(&gateway.browser())?;
            peer.echoed(Message::text("before"))?;
            peer.client.close(Some(CloseFrame {
                code: code.into(),
                reason: reason.into(),
            }))?;
            peer.expect_close(Some(code))
                .with_context(|| format!("{code} {reason:?}"))?;
        }
    }
    let mut peer = Peer::connect(&gateway.browser())?;
    peer.client.close(None)?;
    peer.expect_close(None)
}

#[test]
fn nothing_is_taken_after_a_close_frame() -> Result<()> {
    let gateway = gateway()?;
    let close = spoilt(0x8, &1000_u16.to_be_bytes(), |_| {});
    for (what, after) in [
        ("another close", close.clone()),
        ("a ping", spoilt(0x9, b"there?", |_| {})),
        ("a message", spoilt(0x1, b"more", |_| {})),
    ] {
        let mut peer = Peer::connect(&gateway.browser())?;
        peer.raw(&[close.as_slice(), &after].concat())?;
        peer.expect_close(Some(1000)).context(what)?;
    }
    // Half a message before it never becomes a whole one.
    let mut peer = Peer::connect(&gateway.browser())?;
    let half = spoilt(0x1, b"half", |header| header.is_final = false);
    let rest = spoilt(0x0, b"rest", |_| {});
    peer.raw(&[half, close, rest].concat())?;
    peer.expect_close(Some(1000))
}

#[test]
fn no_extension_is_agreed_to() -> Result<()> {
    let gateway = gateway()?;
    let offer = "permessage-deflate; client_max_window_bits, permessage-deflate";
    let headers = [("Sec-WebSocket-Extensions", offer)];
    let mut peer = Peer::connect_with(&gateway.browser(), &headers)?;
    for name in ["sec-websocket-extensions", "sec-websocket-protocol"] {
        let agreed = peer.response.headers().get(name);
        ensure!(agreed.is_none(), "{name}: {agreed:?}");
    }
    peer.echoed(Message::text(text(1000)))?;
    // What a deflated message begins with is a reserved bit here.
    peer.raw(&spoilt(0x1, b"", |header| header.rsv1 = true))?;
    peer.expect_close(Some(1002))
}

#[test]
fn a_client_without_a_server_name_is_served() -> Result<()> {
    let gateway = gateway()?;
    // An address is no name that TLS can ask for.
    let mut peer = Peer::connect(&gateway.browser().on("127.0.0.1"))?;
    peer.echoed(Message::text("by address"))
}

#[test]
fn the_program_that_ships_has_no_echo() -> Result<()> {
    let gateway = Gateway::start(Configuration::default())?;
    let browser = gateway.browser();
    let head = Browser::upgrade_head_at("/echo", &browser.upgrade_headers(""));
    let (stream, _) = browser.connect()?;
    stream.send(head.as_bytes())?;
    let mut answer = [0; 64];
    let read = stream.receive(&mut answer)?;
    let told = String::from_utf8_lossy(&answer[..read]);
    ensure!(told.starts_with("HTTP/1.1 404 "), "{told}");
    let plain = gateway.browser().get("/echo")?;
    ensure!(plain.status == 404, "answered with {}", plain.status);
    Ok(())
}

/// The configuration in the manual page is the one that people will copy.
#[test]
fn the_configuration_in_the_conformance_page_serves_the_echo() -> Result<()> {
    let page = std::fs::read_to_string(program::workspace().join("docs/conformance.md"))?;
    let (_, rest) = page.split_once("```toml\n").context("a configuration")?;
    let (shown, _) = rest.split_once("```").context("the end of it")?;
    let folder = tempfile::tempdir()?;
    let address = port::free()?;
    ensure!(
        shown.contains("127.0.0.1:9001"),
        "another address:\n{shown}"
    );
    let text = shown.replace("127.0.0.1:9001", &address.to_string());
    let file = folder.path().join("conformance.toml");
    std::fs::write(&file, text)?;
    let mut process = start(&file)?;
    let browser = Browser::new(address, "127.0.0.1");
    let mut peer = wait::until("the echo", Duration::from_secs(30), || {
        process.expect_running()?;
        Ok(Peer::connect(&browser).ok())
    })?;
    peer.echoed(Message::text("as the page says"))
}

fn start(file: &Path) -> Result<Process> {
    let mut command = std::process::Command::new(echo_program()?);
    command.arg("serve").arg("--config").arg(file);
    Process::start("postern-echo", &command, &file.with_extension("log"))
}
