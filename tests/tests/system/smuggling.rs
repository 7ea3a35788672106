//! Heads that two parsers could read in two ways, too large or too slow; and no TLS at all.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use postern_parts::wait;
use postern_tests::browserless::PATIENCE;
use postern_tests::gateway::EFFECT;

use crate::scene::Scene;

/// Sends a head as it is.
fn refused(scene: &Scene, what: &str, status: u16, reason: &str, head: &str) -> Result<()> {
    let record = scene.check(what, reason, || {
        let answer = scene.alice.raw(head.as_bytes(), PATIENCE)?;
        ensure!(
            answer.status() == status,
            "answered with {}",
            answer.status()
        );
        ensure!(answer.ended, "the connection stays open");
        let answers = String::from_utf8_lossy(&answer.bytes)
            .matches("HTTP/1.1 ")
            .count();
        ensure!(answers == 1, "{answers} answers to one request");
        Ok(answer.source)
    })?;
    if reason == "head_malformed" {
        ensure!(
            record.detail.is_some(),
            "{what}: the record does not say what was wrong"
        );
    }
    Ok(())
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_refused() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let port = scene.gateway.address.port();
    let host = format!("Host: localhost:{port}\r\n");
    let malformed = "head_malformed";
    let check = |what: &str, status, head: String| refused(&scene, what, status, malformed, &head);
    let post = |headers: &str| format!("POST /login HTTP/1.1\r\n{host}{headers}\r\n");
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\n{host}\r\n");
    let hidden = format!("GET /app/lab/ HTTP/1.1\r\n{host}\r\n");

    check("both lengths", 400, {
        let head = post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
        format!("{head}0\r\n\r\n{hidden}")
    })?;
    check(
        "two lengths",
        400,
        post("Content-Length: 0\r\nContent-Length: 44\r\n"),
    )?;
    check("one length in two", 400, post("Content-Length: 0, 44\r\n"))?;
    check("a length with a sign", 400, post("Content-Length: +5\r\n"))?;
    check("a length in hex", 400, post("Content-Length: 0x5\r\n"))?;
    check(
        "a length with a leading zero",
        400,
        post("Content-Length: 05\r\n"),
    )?;
    check(
        "an unknown coding",
        400,
        post("Transfer-Encoding: xchunked\r\n"),
    )?;
    check(
        "two codings",
        400,
        post("Transfer-Encoding: gzip, chunked\r\n"),
    )?;
    check("two codings apart", 400, {
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")
    })?;
    check(
        "a space before the colon",
        400,
        post("Transfer-Encoding : chunked\r\n"),
    )?;
    check(
        "a folded header",
        400,
        post("X: 1\r\n Transfer-Encoding: chunked\r\n"),
    )?;
    check(
        "a bare line feed",
        400,
        format!("GET / HTTP/1.1\nHost: localhost:{port}\n\n"),
    )?;
    check(
        "a bare carriage return",
        400,
        post("X: 1\rTransfer-Encoding: chunked\r\n"),
    )?;
    check("a zero byte", 400, post("X: 1\0\r\n"))?;
    check("a header without a name", 400, post(": 1\r\n"))?;
    check("a header without a colon", 400, post("nonsense\r\n"))?;
    check("no host", 400, "GET / HTTP/1.1\r\n\r\n".to_owned())?;
    check(
        "two hosts",
        400,
        format!("GET / HTTP/1.1\r\n{host}{host}\r\n"),
    )?;
    check(
        "a host with a user",
        400,
        "GET / HTTP/1.1\r\nHost: a@localhost\r\n\r\n".to_owned(),
    )?;
    check("another server's address", 400, get("http://evil.example/"))?;
    check(
        "a tunnel",
        400,
        format!("CONNECT 127.0.0.1:22 HTTP/1.1\r\n{host}\r\n"),
    )?;
    check(
        "an asterisk",
        400,
        format!("OPTIONS * HTTP/1.1\r\n{host}\r\n"),
    )?;
    check("two slashes", 400, get("//evil.example/"))?;
    check("dots", 400, get("/assets/../app/lab/"))?;
    check("encoded dots", 400, get("/assets/%2e%2E/app/lab/"))?;
    check("a broken escape", 400, get("/%zz"))?;
    check("a backslash", 400, get("/\\evil.example"))?;
    check("two spaces", 400, format!("GET  / HTTP/1.1\r\n{host}\r\n"))?;
    check("no version", 400, format!("GET /\r\n{host}\r\n"))?;
    check(
        "an old version",
        505,
        format!("GET / HTTP/1.0\r\n{host}\r\n"),
    )?;
    check(
        "a new version",
        505,
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    )?;
    let many: String = (0..70).map(|number| format!("X-{number}: 1\r\n")).collect();
    check(
        "too many headers",
        431,
        format!("GET / HTTP/1.1\r\n{host}{many}\r\n"),
    )?;
    let long = "a".repeat(20_000);
    let head = format!("GET / HTTP/1.1\r\n{host}X: {long}\r\n\r\n");
    refused(&scene, "an oversized header", 431, "head_too_large", &head)?;
    let head = format!("GET /{long} HTTP/1.1\r\n{host}\r\n");
    refused(&scene, "an oversized target", 431, "head_too_large", &head)?;
    let head = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    refused(
        &scene,
        "another host than TLS asked for",
        421,
        "misdirected",
        head,
    )
}

#[test]
fn a_slow_client_is_told_and_dropped() -> Result<()> {
    let scene = Scene::start(|configuration| {
        configuration
            .limit("head_ms_max", 1500)
            .limit("handshake_ms_max", 1500)
    })?;
    refused(
        &scene,
        "half a head",
        408,
        "head_timeout",
        "GET / HTTP/1.1\r\nHost: loc",
    )?;
    scene.check("a head that trickles", "head_timeout", || {
        let (stream, source) = scene.alice.connect()?;
        let began = Instant::now();
        let mut buffer = [0; 1024];
        stream.set_patience(Duration::from_millis(200))?;
        for byte in b"GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            ensure!(
                began.elapsed() < Duration::from_secs(4),
                "every byte wins time"
            );
            if stream.send(&[*byte]).is_err() {
                break;
            }
            if let Ok(read) = stream.receive(&mut buffer) {
                let answer = String::from_utf8_lossy(&buffer[..read]).into_owned();
                ensure!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
                break;
            }
        }
        Ok(source)
    })?;
    scene.check("nothing at all", "closed_early", || {
        Ok(scene.alice.raw(b"", PATIENCE)?.source)
    })?;
    let connect = || -> Result<TcpStream> {
        let socket = TcpStream::connect(scene.gateway.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    scene.check("no TLS handshake", "handshake_timeout", || {
        let mut socket = connect()?;
        ensure!(socket.read(&mut [0; 64])? == 0, "something was said");
        Ok(socket.local_addr()?)
    })?;
    scene.check("plain HTTP", "handshake_failed", || {
        let mut socket = connect()?;
        socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        // It may end with a reset: bytes of ours were not read.
        let _ = socket.read_to_end(&mut answer);
        ensure!(!answer.starts_with(b"HTTP"), "plain HTTP was answered");
        Ok(socket.local_addr()?)
    })?;
    scene.check("RDP itself", "handshake_failed", || {
        let mut socket = connect()?;
        socket.write_all(&[3, 0, 0, 11, 6, 0xe0, 0, 0, 0, 0, 0])?;
        let _ = socket.read_to_end(&mut Vec::new());
        Ok(socket.local_addr()?)
    })?;
    Ok(())
}

/// A connection that is dropped before any cryptography, whatever it says.
fn dropped(scene: &Scene, reason: &str) -> Result<()> {
    scene.check(reason, reason, || {
        let mut socket = TcpStream::connect(scene.gateway.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let source = socket.local_addr()?;
        match socket.read(&mut [0; 64]) {
            Ok(0) => Ok(source),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(source),
            other => bail!("it was not dropped: {other:?}"),
        }
    })?;
    Ok(())
}

#[test]
fn a_source_has_so_many_connections() -> Result<()> {
    let scene = Scene::start(|configuration| {
        configuration
            .limit("connections_per_source_max", 3)
            .limit("handshake_ms_max", 60_000)
    })?;
    let connect = || TcpStream::connect(scene.gateway.address);
    let live = |count: f64| {
        wait::until("connections as expected", EFFECT, || {
            let live = scene.gateway.metrics()?.sum("postern_connections_live");
            Ok((live == count).then_some(()))
        })
    };
    live(0.0)?;
    let waiting = [connect()?, connect()?, connect()?];
    // They are on several cores, one of which may be slow to accept its own.
    live(3.0)?;
    dropped(&scene, "source_full")?;
    drop(waiting);
    wait::until("room", EFFECT, || Ok(scene.alice.clone().get("/").ok())).map(drop)
}

#[test]
fn a_core_has_so_many_handshakes_and_the_node_so_many_connections() -> Result<()> {
    let start = |key| {
        Scene::start(|mut configuration| {
            configuration.cores = vec![0];
            configuration
                .limit(key, 2)
                .limit("handshake_ms_max", 60_000)
        })
    };
    for (key, reason) in [
        ("handshakes_per_core_max", "handshakes_full"),
        ("handshakes_per_source_max", "handshakes_full"),
        ("connections_max", "connections_full"),
    ] {
        let scene = start(key)?;
        let connect = || TcpStream::connect(scene.gateway.address);
        let _waiting = [connect()?, connect()?];
        dropped(&scene, reason)?;
    }
    Ok(())
}
