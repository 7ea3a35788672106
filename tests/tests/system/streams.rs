//! What records say of the TCP streams of both legs, beside what passed by on the cables.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_audit::Record;
use postern_tests::browserless::{Opened, PATIENCE, WebSocket};
use postern_tests::gateway::Configuration;
use postern_tests::tap::Tap;
use postern_tests::{Browser, FakeTarget, Gateway, on_each_driver};

/// Enough for many records, each way.
const BYTES: usize = 300_000;

/// A TLS 1.3 record with an alert [RFC 8446 §5.2]: header, alert, its type, tag.
const GOODBYE_BYTES: u64 = 5 + 2 + 1 + 16;

/// Where browsers reach the gateway by the tap: the same port, so that nothing else changes.
const BY_TAP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

on_each_driver!(
    a_session_is_counted_whole,
    a_killed_session_is_counted_with_its_last_words,
    a_session_that_its_target_resets_is_counted_whole,
    a_session_that_its_browser_resets_is_counted_whole,
    requests_and_refusals_are_counted_with_their_handshakes,
    connections_that_never_spoke_tls_are_counted,
);

/// A gateway with a tap on each side.
struct Scene {
    gateway: Gateway,
    _target: FakeTarget,
    to_target: Tap,
    from_browsers: Tap,
    /// `alice`, who comes by the tap.
    alice: Browser,
}

impl Scene {
    fn start(driver: &'static str) -> Result<Self> {
        let target = FakeTarget::echo()?;
        let to_target = Tap::start((Ipv4Addr::LOCALHOST, 0).into(), target.address)?;
        let configuration = Configuration::for_target(to_target.address).driver(driver);
        let gateway = Gateway::start(configuration)?;
        let alice = gateway.signed_in("alice", "lab")?;
        let by_tap = SocketAddr::new(BY_TAP.into(), gateway.address.port());
        let from_browsers = Tap::start(by_tap, gateway.address)?;
        Ok(Self {
            alice: alice.by(by_tap),
            gateway,
            _target: target,
            to_target,
            from_browsers,
        })
    }

    /// The first desktop, after some talk.
    fn desktop(&self) -> Result<WebSocket> {
        let mut desktop = self.alice.desktop("lab")?;
        let payload = vec![7; BYTES];
        let writer = desktop.writer();
        let sending = std::thread::spawn(move || writer.send(&payload));
        desktop.receive_exactly(BYTES)?;
        sending.join().ok().context("the sender panicked")??;
        Ok(desktop)
    }

    /// The record of the tapped connection `number`, whose client's leg is as it passed by.
    fn record(&self, number: usize) -> Result<Record> {
        let passed = self.from_browsers.passed(number)?;
        let record = self.gateway.audit().connection(passed.outwards)?;
        let at = self.gateway.address.to_string();
        ensure!(record.client_local == Some(at), "{record:?}");
        let counted = (record.client_received, record.client_sent);
        let expected = (Some(passed.to_called), Some(passed.from_called));
        ensure!(counted == expected, "{passed:?}: {record:?}");
        ensure!(record.client_unsent.is_none(), "{record:?}");
        Ok(record)
    }

    /// The same, with the only target that was dialled.
    fn session(&self) -> Result<Record> {
        let record = self.record(0)?;
        let passed = self.to_target.passed(0)?;
        let ends = (record.target_local.clone(), record.target_remote.clone());
        let (local, remote) = (passed.caller, self.to_target.address);
        let expected = (Some(local.to_string()), Some(remote.to_string()));
        ensure!(ends == expected, "{record:?}");
        ensure!(
            record.target_sent == Some(passed.from_caller),
            "{passed:?}: {record:?}"
        );
        // The target answers the gateway's good-bye. Where that comes after the gateway's socket has gone,
        // the tap could write it, and nobody received it.
        let received = record.target_received.context("target_received")?;
        let late = passed.to_caller.checked_sub(received);
        ensure!(
            matches!(late, Some(0 | GOODBYE_BYTES)),
            "{passed:?}: {record:?}"
        );
        ensure!(record.target_unsent.is_none(), "{record:?}");
        // More than the payload: handshakes, records and frames are in there.
        let payload = BYTES as u64;
        ensure!(passed.to_called > payload && passed.from_caller > payload);
        Ok(record)
    }

    fn check(&self, reason: &str) -> Result<()> {
        let record = self.session()?;
        ensure!(record.reason.as_deref() == Some(reason), "{record:?}");
        Ok(())
    }
}

fn a_session_is_counted_whole(driver: &'static str) -> Result<()> {
    let scene = Scene::start(driver)?;
    let mut desktop = scene.desktop()?;
    desktop.writer().close(1000)?;
    desktop.closed()?;
    drop(desktop);
    scene.check("closed_by_browser")
}

fn a_killed_session_is_counted_with_its_last_words(driver: &'static str) -> Result<()> {
    let scene = Scene::start(driver)?;
    let mut desktop = scene.desktop()?;
    scene.gateway.command(&["sessions", "kill", "all"])?;
    ensure!(desktop.closed()?.0 == 4000);
    drop(desktop);
    scene.check("killed")
}

fn a_session_that_its_target_resets_is_counted_whole(driver: &'static str) -> Result<()> {
    let scene = Scene::start(driver)?;
    let mut desktop = scene.desktop()?;
    scene.to_target.tear();
    // It is told how its desktop ended.
    desktop.closed()?;
    drop(desktop);
    scene.check("target_lost")
}

fn a_session_that_its_browser_resets_is_counted_whole(driver: &'static str) -> Result<()> {
    let scene = Scene::start(driver)?;
    let desktop = scene.desktop()?;
    scene.from_browsers.tear();
    scene.check("browser_lost")?;
    drop(desktop);
    Ok(())
}

fn requests_and_refusals_are_counted_with_their_handshakes(driver: &'static str) -> Result<()> {
    let scene = Scene::start(driver)?;
    let mut alice = scene.alice.clone();
    ensure!(alice.get("/")?.status == 200);
    let record = scene.record(0)?;
    ensure!(record.reason.as_deref() == Some("web"), "{record:?}");
    let mut nobody = alice.clone();
    nobody.set_cookie("/app/lab/", "__Secure-postern-app", "nonsense");
    ensure!(matches!(nobody.try_upgrade("lab")?, Opened::Refused(_)));
    let record = scene.record(1)?;
    let reason = record.reason.as_deref();
    ensure!(reason == Some("token_malformed"), "{record:?}");
    alice.raw(b"GET / HTTP/1.1\r\n\r\n", PATIENCE)?;
    let record = scene.record(2)?;
    let reason = record.reason.as_deref();
    ensure!(reason == Some("head_malformed"), "{record:?}");
    ensure!(record.target_local.is_none() && record.target_sent.is_none());
    ensure!(scene.to_target.connections() == 0);
    Ok(())
}

fn connections_that_never_spoke_tls_are_counted(driver: &'static str) -> Result<()> {
    use std::io::Write as _;
    let scene = Scene::start(driver)?;
    let address = scene.from_browsers.address;
    drop(std::net::TcpStream::connect(address)?);
    let record = scene.record(0)?;
    let counts = (record.client_received, record.client_sent);
    ensure!(counts == (Some(0), Some(0)), "{record:?}");
    let mut socket = std::net::TcpStream::connect(address)?;
    socket.write_all(&[0x42; 300])?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut alert = Vec::new();
    // It may be reset before or after the alert.
    let _ = std::io::Read::read_to_end(&mut socket, &mut alert);
    drop(socket);
    let record = scene.record(1)?;
    ensure!(record.client_received == Some(300), "{record:?}");
    ensure!(record.reason.as_deref() == Some("handshake_failed"));
    Ok(())
}
