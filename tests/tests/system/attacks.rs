//! Upgrades that must not become sessions: who asks, from which page, with which token.

use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use postern_tests::Browser;
use postern_tests::browserless::{APPLICATION_COOKIE, ORGANISATION_COOKIE, PATIENCE};
use postern_tests::gateway::Application;

use crate::scene::Scene;

type Headers = Vec<(String, String)>;

/// Asks for `lab` with headers that `spoil` has changed.
fn refused(
    scene: &Scene,
    what: &str,
    status: u16,
    reason: &str,
    spoil: impl FnOnce(&mut Headers),
) -> Result<()> {
    let mut headers = scene.alice.upgrade_headers("lab");
    spoil(&mut headers);
    let head = Browser::upgrade_head("lab", &headers);
    let mut source = None;
    let record = scene.check(what, reason, || {
        let answer = scene.alice.raw(head.as_bytes(), PATIENCE)?;
        source = Some(answer.source);
        ensure!(
            answer.status() == status,
            "answered with {}",
            answer.status()
        );
        ensure!(answer.ended, "the connection stays open");
        Ok(answer.source)
    })?;
    let source = source.expect("the attack ran");
    let decisions = scene.gateway.audit().decisions(source)?;
    let judged = !matches!(
        reason,
        "head_malformed" | "upgrade_malformed" | "upgrade_version"
    );
    if judged {
        ensure!(
            record.application.as_deref() == Some("lab"),
            "{what}: {record:?}"
        );
        let [decision] = decisions.as_slice() else {
            anyhow::bail!("{what}: {} decisions", decisions.len());
        };
        ensure!(
            decision.decision.as_deref() == Some("block") && decision.reason == record.reason,
            "{what}: {decision:?}"
        );
    }
    Ok(())
}

fn set(headers: &mut Headers, name: &str, value: &str) {
    for (_, old) in headers.iter_mut().filter(|(of, _)| of == name) {
        *old = value.to_owned();
    }
}

fn remove(headers: &mut Headers, name: &str) {
    headers.retain(|(of, _)| of != name);
}

fn add(headers: &mut Headers, name: &str, value: &str) {
    headers.push((name.to_owned(), value.to_owned()));
}

fn token(headers: &mut Headers, token: &str) {
    set(headers, "Cookie", &format!("{APPLICATION_COOKIE}={token}"));
}

/// The parts of a token: header, payload, signature.
fn parts(token: &str) -> [String; 3] {
    let parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts.try_into().expect("a compact JWS has three parts")
}

/// Another character in the middle of a part, which changes six bits of what it means.
fn tampered(part: &str) -> String {
    let middle = part.len() / 2;
    let other = if part.as_bytes()[middle] == b'A' {
        "B"
    } else {
        "A"
    };
    format!("{}{other}{}", &part[..middle], &part[middle + 1..])
}

#[test]
fn no_token_but_the_right_one_opens_an_application() -> Result<()> {
    let other = |name: &str| Application {
        session_duration: "1s",
        ..Application::new(name, "127.0.0.1:9")
    };
    let mut scene = Scene::start(|configuration| configuration.with(other("other")))?;
    scene.alice.open("other")?;
    let organisation = scene
        .alice
        .cookie(ORGANISATION_COOKIE)
        .unwrap_or_default()
        .to_owned();
    let others = scene.alice.token("other").unwrap_or_default().to_owned();
    let good = scene.alice.token("lab").unwrap_or_default().to_owned();
    let [header, payload, signature] = parts(&good);
    let with_header = |json: &str| format!("{}.{payload}.{signature}", BASE64URL.encode(json));
    let kid = serde_json::from_slice::<serde_json::Value>(&BASE64URL.decode(&header)?)?["kid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let named = |alg: &str| {
        with_header(&format!(
            "{{\"alg\":\"{alg}\",\"kid\":\"{kid}\",\"typ\":\"at+jwt\"}}"
        ))
    };
    let stranger = with_header("{\"alg\":\"ES256\",\"kid\":\"stranger\",\"typ\":\"at+jwt\"}");

    refused(&scene, "no cookie", 401, "token_missing", |h| {
        remove(h, "Cookie")
    })?;
    refused(&scene, "an empty cookie", 401, "token_malformed", |h| {
        token(h, "")
    })?;
    refused(&scene, "a cookie of words", 401, "token_malformed", |h| {
        token(h, "letmein")
    })?;
    refused(
        &scene,
        "a cookie too long for a token",
        401,
        "token_malformed",
        |h| {
            token(h, &"A".repeat(5000));
        },
    )?;
    refused(&scene, "a tampered payload", 401, "token_signature", |h| {
        token(h, &format!("{header}.{}.{signature}", tampered(&payload)));
    })?;
    refused(
        &scene,
        "a tampered signature",
        401,
        "token_signature",
        |h| {
            token(h, &format!("{header}.{payload}.{}", tampered(&signature)));
        },
    )?;
    refused(
        &scene,
        "another application's payload",
        401,
        "token_signature",
        |h| {
            token(h, &format!("{header}.{}.{signature}", parts(&others)[1]));
        },
    )?;
    refused(&scene, "no algorithm", 401, "token_algorithm", |h| {
        token(h, &named("none"))
    })?;
    refused(
        &scene,
        "a symmetric algorithm",
        401,
        "token_algorithm",
        |h| {
            token(h, &named("HS256"));
        },
    )?;
    refused(&scene, "an unknown key", 401, "token_unknown_key", |h| {
        token(h, &stranger)
    })?;
    refused(
        &scene,
        "another application's token",
        403,
        "token_audience",
        |h| token(h, &others),
    )?;
    refused(&scene, "the organisation token", 403, "token_type", |h| {
        token(h, &organisation)
    })?;
    refused(
        &scene,
        "the token under another name",
        401,
        "token_missing",
        |h| {
            set(h, "Cookie", &format!("postern-app={good}"));
        },
    )?;

    // The other application's token lives for a second.
    std::thread::sleep(Duration::from_millis(2100));
    let expired = scene.alice.upgrade_headers("other");
    scene.check("an expired token", "token_expired", || {
        let head = Browser::upgrade_head("other", &expired);
        let answer = scene.alice.raw(head.as_bytes(), PATIENCE)?;
        ensure!(answer.status() == 401, "answered with {}", answer.status());
        Ok(answer.source)
    })?;
    // After all of these the right token opens it.
    scene.alice.desktop("lab").map(drop)
}

#[test]
fn only_the_applications_own_page_may_open_it() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let origin = scene.alice.origin();
    let plain = origin.replace("https:", "http:");
    let host = format!("https://{}", scene.alice.host);
    let port = scene.gateway.address.port();
    refused(&scene, "no origin", 403, "origin_missing", |h| {
        remove(h, "Origin")
    })?;
    for wrong in [
        "null",
        "",
        "*",
        "https://evil.example",
        plain.as_str(),
        host.as_str(),
        &format!("{origin}/"),
        &format!("{origin}.evil.example"),
        &format!("https://evil.{}:{port}", scene.alice.host),
        &format!("{origin} https://evil.example"),
        &origin.to_uppercase(),
    ] {
        refused(&scene, wrong, 403, "origin_mismatch", |h| {
            set(h, "Origin", wrong)
        })?;
    }
    Ok(())
}

#[test]
fn an_upgrade_is_whole_and_unambiguous() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let origin = scene.alice.origin();
    let good = scene.alice.token("lab").unwrap_or_default().to_owned();
    let malformed = "upgrade_malformed";
    refused(&scene, "a second origin", 400, "head_malformed", |h| {
        add(h, "Origin", "https://evil.example");
    })?;
    refused(
        &scene,
        "the same origin twice",
        400,
        "head_malformed",
        |h| {
            add(h, "origin", &origin);
        },
    )?;
    refused(&scene, "a second host", 400, "head_malformed", |h| {
        add(h, "Host", "evil.example")
    })?;
    refused(&scene, "two cookie headers", 400, "head_malformed", |h| {
        add(h, "Cookie", &format!("{APPLICATION_COOKIE}=planted"));
    })?;
    refused(&scene, "the cookie twice", 400, "head_malformed", |h| {
        set(
            h,
            "Cookie",
            &format!("{APPLICATION_COOKIE}={good}; {APPLICATION_COOKIE}=planted"),
        );
    })?;
    refused(&scene, "a second key", 400, malformed, |h| {
        add(h, "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==");
    })?;
    refused(&scene, "no key", 400, malformed, |h| {
        remove(h, "Sec-WebSocket-Key")
    })?;
    refused(&scene, "a short key", 400, malformed, |h| {
        set(h, "Sec-WebSocket-Key", "AAAA")
    })?;
    refused(&scene, "no connection header", 400, malformed, |h| {
        remove(h, "Connection")
    })?;
    refused(&scene, "connection: close", 400, malformed, |h| {
        set(h, "Connection", "close")
    })?;
    refused(&scene, "a body", 400, malformed, |h| {
        add(h, "Content-Length", "5")
    })?;
    refused(&scene, "a chunked body", 400, malformed, |h| {
        add(h, "Transfer-Encoding", "chunked")
    })?;
    let version = "Sec-WebSocket-Version";
    refused(&scene, "version 8", 426, "upgrade_version", |h| {
        set(h, version, "8")
    })?;
    refused(&scene, "no version", 426, "upgrade_version", |h| {
        remove(h, version)
    })?;
    refused(&scene, "two versions in one", 426, "upgrade_version", |h| {
        set(h, version, "8, 13")
    })?;

    scene.check("bytes before the answer", malformed, || {
        let mut head = Browser::upgrade_head("lab", &scene.alice.upgrade_headers("lab"));
        head.push_str("early");
        let answer = scene.alice.raw(head.as_bytes(), PATIENCE)?;
        ensure!(answer.status() == 400, "answered with {}", answer.status());
        Ok(answer.source)
    })?;

    // An offered extension is no offence; it is not agreed to, which `upgrade` checks.
    let mut headers = scene.alice.upgrade_headers("lab");
    add(
        &mut headers,
        "Sec-WebSocket-Extensions",
        "permessage-deflate; client_max_window_bits",
    );
    add(&mut headers, "Sec-WebSocket-Protocol", "binary");
    let answer = scene.alice.raw(
        Browser::upgrade_head("lab", &headers).as_bytes(),
        Duration::from_millis(300),
    )?;
    let text = String::from_utf8_lossy(&answer.bytes).to_lowercase();
    ensure!(answer.status() == 101, "answered with {}", answer.status());
    ensure!(
        !text.contains("sec-websocket-extensions") && !text.contains("sec-websocket-protocol"),
        "{text}"
    );
    Ok(())
}
