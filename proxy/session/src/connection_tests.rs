//! Whole connections on the trial core: TLS, upgrade, RDCleanPath, TLS again, relay, record.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use futures_lite::future::zip;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use postern_access::application::APPLICATION_COOKIE;
use postern_access::{
    Action, Application, CertificatePolicy, Fingerprint, Jwk, Jwks, Policy, PublicAddress,
    RdpSecurity, Revocations, Selector, SessionLimits, UnixSeconds,
};
use postern_audit::{Event, Record};
use postern_snapshot::message::AuditSettings;
use postern_snapshot::{Certificate, Driver, Limits, Secret, Snapshot};
use postern_wire::rdcleanpath;
use postern_wire::websocket::{self, Opcode, client_frame};
use postern_wire::x224::{self, Confirm, Protocols};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, RootCertStore, ServerConfig};

use crate::provider::towards_browsers;
use crate::tls::{self, TlsStream};
use crate::trial::{Pipe, TrialCarriage, TrialCore, UNIX_MS, pipe};
use crate::{Core as _, Outcome, State, Stop, serve};

const HOST: &str = "gw.example";
const ISSUER: &str = "https://gw.example";
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SOURCE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
const SESSION_S: u64 = 600;

/// A gateway, a browser's cookie for it, and the target's side of TLS.
struct Scene {
    core: TrialCore,
    browser: Arc<ClientConfig>,
    target: Arc<ServerConfig>,
    token: String,
}

fn certificate() -> (
    CertificateDer<'static>,
    String,
    PrivateKeyDer<'static>,
    String,
) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let pem = signing_key.serialize_pem();
    (cert.der().clone(), cert.pem(), key, pem)
}

fn signed_token() -> (Jwks, String) {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("randomness");
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("a key");
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let jwk = Jwk {
        kid: "key".to_owned(),
        kty: "EC".to_owned(),
        crv: "P-256".to_owned(),
        x: BASE64URL.encode(x),
        y: Some(BASE64URL.encode(y)),
        alg: "ES256".to_owned(),
        usage: "sig".to_owned(),
    };
    let now = UNIX_MS / 1000;
    let claims = format!(
        r#"{{"iss":"{ISSUER}","sub":"u","email":"a@example.org","aud":["app:lab"],"iat":{now},"nbf":{now},
        "exp":{},"type":"app","identity_nonce":"n","auth_time":{now}}}"#,
        now + 3600
    );
    let header = r#"{"alg":"ES256","kid":"key","typ":"JWT"}"#;
    let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
    let signature = pair.sign(&random, message.as_bytes()).expect("signs");
    let token = format!("{message}.{}", BASE64URL.encode(signature));
    (Jwks { keys: vec![jwk] }, token)
}

fn application(certificate: &CertificateDer<'_>) -> Application {
    Application {
        name: "lab".to_owned(),
        title: "Lab".to_owned(),
        public: PublicAddress {
            origin: ISSUER.to_owned(),
            host: HOST.to_owned(),
            prefix: "/app/lab".to_owned(),
        },
        target: "127.0.0.1:3389".parse().expect("a target"),
        certificate: CertificatePolicy::Pin(vec![Fingerprint::of(certificate)]),
        security: vec![RdpSecurity::Tls],
        policies: vec![Policy {
            name: "all".to_owned(),
            action: Action::Allow,
            include: vec![Selector::Everyone],
            require: Vec::new(),
            exclude: Vec::new(),
            session_duration_s: None,
        }],
        session: SessionLimits {
            duration_s: SESSION_S,
            idle_s: 0,
        },
    }
}

fn scene() -> Scene {
    let (gateway, chain_pem, _, key_pem) = certificate();
    let (target, _, target_key, _) = certificate();
    let (jwks, token) = signed_token();
    let snapshot = Snapshot {
        version: 1,
        issued_at: UnixSeconds(UNIX_MS / 1000),
        lease_s: 60,
        issuer: ISSUER.to_owned(),
        listen: Vec::new(),
        certificates: vec![Certificate {
            names: vec![HOST.to_owned()],
            chain_pem,
            key_pem: Secret::new(key_pem),
        }],
        applications: vec![application(&target)],
        jwks,
        revocations: Revocations::default(),
        pins: BTreeMap::new(),
        limits: Limits::default(),
        audit: AuditSettings {
            directory: PathBuf::new(),
            fail_closed: true,
        },
        web_socket: PathBuf::new(),
        cores: Vec::new(),
        driver: Driver::default(),
        placement: None,
        segment_bytes_max: None,
    };
    let mut roots = RootCertStore::empty();
    roots.add(gateway).expect("a root");
    let browser = ClientConfig::builder_with_provider(towards_browsers())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let target = ServerConfig::builder_with_provider(towards_browsers())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![target], target_key)
        .expect("a key");
    Scene {
        core: TrialCore::new(State::compile(snapshot, None).expect("compiles")),
        browser: Arc::new(browser),
        target: Arc::new(target),
        token,
    }
}

impl Scene {
    /// Serves one connection beside its two peers; its record and what the peers made.
    fn play<A, B>(
        &self,
        browser: impl AsyncFnOnce(TlsStream<Pipe>) -> A,
        target: impl AsyncFnOnce(TlsStream<Pipe>) -> B,
    ) -> (Record, A, B) {
        let (near, far) = pipe();
        let (browsers, targets) = (far.meter.clone(), RefCell::new(None));
        let stop = Stop::default();
        let serving = serve(&self.core, near, SOURCE, SOURCE, &stop);
        let browser = async {
            let name = ServerName::try_from(HOST).expect("a name");
            browser(
                tls::connect(self.browser.clone(), name, far)
                    .await
                    .expect("agrees"),
            )
            .await
        };
        let target = async {
            let mut socket = self.core.dialled().await;
            targets.replace(Some(socket.meter.clone()));
            let mut request = [0; 19];
            socket.read_exact(&mut request).await.expect("a request");
            let confirm = x224::encode_confirm(Confirm::Selected(Protocols::TLS.bits()));
            socket.write_all(&confirm).await.expect("is read");
            target(
                tls::accept(self.target.clone(), socket)
                    .await
                    .expect("agrees"),
            )
            .await
        };
        let ((), (a, b)) = self.core.run(zip(serving, zip(browser, target)));
        let records = self.core.records.take();
        let mut ends = records
            .into_iter()
            .filter(|record| record.event == Event::Connection);
        let record = ends.next().expect("a record");
        assert_eq!(ends.next(), None, "one connection, one record");
        let target = targets.take().expect("it was dialled");
        let legs = [
            (browsers, record.client_received, record.client_sent),
            (target, record.target_received, record.target_sent),
        ];
        for (peer, received, sent) in legs {
            // What lies in a pipe that is given up is nobody's.
            let peer = peer.count();
            assert!(received.is_some_and(|bytes| bytes > 0 && bytes <= peer.sent));
            assert!(sent.is_some_and(|bytes| bytes >= peer.received));
        }
        (record, a, b)
    }

    /// The upgrade, and behind the 101 at once an RDCleanPath request with `more` behind it.
    async fn open(&self, stream: &mut TlsStream<Pipe>, more: &[u8]) {
        let token = &self.token;
        let head = format!(
            "GET /app/lab/rdp HTTP/1.1\r\nHost: {HOST}\r\nOrigin: {ISSUER}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Cookie: {APPLICATION_COOKIE}={token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("is read");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("an answer");
            answer.push(byte[0]);
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 101 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        let x224 = x224::encode_request(None, Protocols::TLS).expect("encodes");
        let request = rdcleanpath::encode_request("lab", "", &x224).expect("encodes");
        let mut bytes = client_frame(Opcode::Binary, true, KEY, &request);
        bytes.extend_from_slice(more);
        stream.write_all(&bytes).await.expect("is read");
        let (opcode, _) = frame(stream).await;
        assert_eq!(opcode, 0x82, "the RDCleanPath response");
    }
}

/// The next frame that the gateway sends: its first byte and its payload.
async fn frame(stream: &mut TlsStream<Pipe>) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.expect("a frame");
    let mut length = usize::from(head[1]);
    if length == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long).await.expect("a length");
        length = usize::from(u16::from_be_bytes(long));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.expect("a payload");
    (head[0], payload)
}

/// Answers pings until the close frame comes.
async fn closing(stream: &mut TlsStream<Pipe>) -> Vec<u8> {
    loop {
        match frame(stream).await {
            (0x88, payload) => return payload,
            (0x89, payload) => {
                let pong = client_frame(Opcode::Pong, true, KEY, &payload);
                stream.write_all(&pong).await.expect("is read");
            }
            other => panic!("{other:?} before the close frame"),
        }
    }
}

async fn read_all(stream: &mut TlsStream<Pipe>) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .await
        .expect("ends with a good-bye");
    bytes
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn close_payload(outcome: &Outcome) -> Vec<u8> {
    let meaning = outcome.meaning();
    websocket::close_frame(meaning.close, meaning.label)[2..].to_vec()
}

#[test]
fn input_right_behind_the_request_reaches_the_target_and_everything_after_it() {
    for early in [0, 1, 500, 3_000, 15_000, 40_000] {
        let scene = scene();
        let (input, output) = (pattern(early), pattern(100_000));
        let (record, heard, reached) = scene.play(
            async |mut stream| {
                let mut more = client_frame(Opcode::Binary, true, KEY, &input);
                // The last frame is cut: its rest comes when the desktop lives.
                let cut = client_frame(Opcode::Binary, true, KEY, b"keys");
                more.extend_from_slice(&cut[..7]);
                scene.open(&mut stream, &more).await;
                stream.write_all(&cut[7..]).await.expect("is read");
                let mut heard = Vec::new();
                while heard.len() < output.len() {
                    heard.extend(frame(&mut stream).await.1);
                }
                let goodbye = client_frame(Opcode::Close, true, KEY, &1000_u16.to_be_bytes());
                stream.write_all(&goodbye).await.expect("is read");
                assert_eq!(frame(&mut stream).await.0, 0x88);
                stream.close().await.expect("closes");
                heard
            },
            async |mut stream| {
                let mut reached = vec![0; early + 4];
                stream.read_exact(&mut reached).await.expect("the input");
                stream.write_all(&output).await.expect("is read");
                stream.flush().await.expect("is read");
                assert_eq!(read_all(&mut stream).await, b"");
                stream.close().await.expect("closes");
                reached
            },
        );
        assert!(
            reached == [&input, &b"keys"[..]].concat() && heard == output,
            "{early}"
        );
        assert_eq!(record.reason.as_deref(), Some("closed_by_browser"));
        assert_eq!(record.bytes_up, Some(early as u64 + 4));
        assert_eq!(record.bytes_down, Some(output.len() as u64));
        assert_eq!(record.rdp_security.as_deref(), Some("tls"));
    }
}

#[test]
fn a_stop_ends_a_live_desktop_with_its_reason() {
    let scene = scene();
    let (record, last, ()) = scene.play(
        async |mut stream| {
            scene.open(&mut stream, &[]).await;
            scene.core.sleep(Duration::from_secs(5)).await;
            let stops = scene.core.stops.take();
            let [stop] = &stops[..] else {
                panic!("one session");
            };
            stop.raise(Outcome::Killed);
            let last = closing(&mut stream).await;
            stream.close().await.expect("closes");
            last
        },
        async |mut stream| {
            read_all(&mut stream).await;
        },
    );
    assert_eq!(record.reason.as_deref(), Some("killed"));
    assert_eq!(last, close_payload(&Outcome::Killed));
    assert_eq!(record.client_local, Some(SOURCE.to_string()));
    assert!(record.target_local.is_some() && record.target_remote.is_some());
}

#[test]
fn a_session_ends_when_its_permit_does() {
    let scene = scene();
    let (record, last, ()) = scene.play(
        async |mut stream| {
            scene.open(&mut stream, &[]).await;
            let last = closing(&mut stream).await;
            stream.close().await.expect("closes");
            last
        },
        async |mut stream| {
            read_all(&mut stream).await;
        },
    );
    assert_eq!(record.reason.as_deref(), Some("expired"));
    assert_eq!(last, close_payload(&Outcome::Expired));
    let lived = record.duration_ms.expect("a duration");
    assert!(
        (SESSION_S * 1000..SESSION_S * 1000 + 2_000).contains(&lived),
        "{lived} ms"
    );
}

#[test]
fn a_target_that_ends_right_after_its_handshake_is_told_of() {
    let scene = scene();
    let (record, last, ()) = scene.play(
        async |mut stream| {
            scene.open(&mut stream, &[]).await;
            let last = closing(&mut stream).await;
            stream.close().await.expect("closes");
            last
        },
        async |mut stream| stream.close().await.expect("closes"),
    );
    assert_eq!(record.reason.as_deref(), Some("target_closed"));
    assert_eq!(last, close_payload(&Outcome::TargetClosed));
}

#[test]
fn a_browser_that_is_gone_before_its_desktop_lives_is_lost() {
    let scene = scene();
    let (record, (), ()) = scene.play(
        async |mut stream| {
            scene.open(&mut stream, &[]).await;
            drop(stream);
        },
        async |mut stream| {
            // However the connection ends: the browser is gone.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        },
    );
    assert_eq!(record.reason.as_deref(), Some("browser_lost"));
}

#[test]
fn a_browser_that_comes_again_resumes_and_first_agrees_on_a_post_quantum_key() {
    let scene = scene();
    let meet = || {
        let (near, far) = pipe();
        let gateway = async {
            let state = scene.core.state();
            let mut stream = tls::accept(state.tls.clone(), near).await.expect("agrees");
            // The tickets come in front of it.
            stream.write_all(b"x").await.expect("is read");
            let group = stream.agreed().negotiated_key_exchange_group();
            (
                stream.agreed().handshake_kind(),
                group.map(|group| group.name()),
            )
        };
        let browser = async {
            let name = ServerName::try_from(HOST).expect("a name");
            let stream = tls::connect(scene.browser.clone(), name, far).await;
            let mut stream = stream.expect("agrees");
            stream.read_exact(&mut [0]).await.expect("a byte");
        };
        scene.core.run(zip(gateway, browser)).0
    };
    let (first, group) = meet();
    assert_eq!(first, Some(HandshakeKind::Full));
    if cfg!(not(feature = "fips")) {
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    }
    assert_eq!(meet().0, Some(HandshakeKind::Resumed));
}

#[test]
fn the_validated_module_is_used_where_it_is_asked_for() {
    assert_eq!(scene().core.state().tls.fips(), cfg!(feature = "fips"));
}

/// What a live session leaves on its front while the relay carries it.
const SERVING_BYTES_MAX: usize = 1536;

#[test]
fn a_live_session_leaves_little_on_its_front() {
    let scene = scene();
    let stop = Rc::new(Stop::default());
    let (near, _far) = pipe();
    let serving = serve(&scene.core, near, SOURCE, SOURCE, &stop);
    let bytes = size_of_val(&serving);
    println!(
        "{bytes} bytes, and the carriage {}",
        size_of::<TrialCarriage>()
    );
    assert!(bytes <= SERVING_BYTES_MAX, "{bytes} bytes");
}
