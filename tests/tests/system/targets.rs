//! Machines that the gateway must not connect a browser to.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use postern_audit::Event;
use postern_parts::{Xrdp, port, wait, xrdp};
use postern_tests::fake_target::{FakeTarget, Greeting, Work};
use postern_tests::gateway::{Application, Authority, Certificate, Configuration, EFFECT};
use postern_tests::{Browser, Gateway};
use postern_wire::rdcleanpath::{Answer, Failure};
use postern_wire::x224::{self, ConnectionRequest, Protocol, Protocols};

use crate::scene::Scene;

/// Asks for `application`'s desktop, which is refused with this close frame, one record, one count.
fn refused(
    gateway: &Gateway,
    browser: &Browser,
    application: &str,
    code: u16,
    reason: &str,
) -> Result<Failure> {
    let before = gateway.metrics()?.reasons();
    let mut websocket = browser.upgrade(application)?;
    let answer = websocket.request(application, Protocols::ALL)?;
    let Answer::Failed(failure) = answer else {
        anyhow::bail!("{application}: a desktop");
    };
    let close = websocket.closed()?;
    ensure!(
        close == (code, reason.to_owned()),
        "{application}: closed with {close:?}"
    );
    let record = gateway.audit().connection(websocket.source)?;
    ensure!(
        record.reason.as_deref() == Some(reason),
        "{application}: {record:?}"
    );
    let decisions = gateway.audit().decisions(websocket.source)?;
    ensure!(
        decisions.len() == 1,
        "{application}: {} decisions",
        decisions.len()
    );
    let gained: BTreeMap<String, u64> = wait::until("the count", EFFECT, || {
        let after = gateway.metrics()?.reasons();
        let gain = |(reason, count): (&String, &u64)| {
            let gain = count - before.get(reason).copied().unwrap_or(0);
            (gain > 0).then(|| (reason.clone(), gain))
        };
        let gained: BTreeMap<_, _> = after.iter().filter_map(gain).collect();
        Ok((!gained.is_empty()).then_some(gained))
    })?;
    let once = BTreeMap::from([(reason.to_owned(), 1)]);
    ensure!(gained == once, "{application}: counted were {gained:?}");
    Ok(failure)
}

/// Opens a desktop, uses it, and waits until its end is on record.
fn works(gateway: &Gateway, browser: &Browser, application: &str) -> Result<()> {
    let mut desktop = browser
        .desktop(application)
        .with_context(|| application.to_owned())?;
    desktop.send(b"hello")?;
    ensure!(desktop.receive_exactly(5)? == b"hello", "{application}");
    desktop.writer().close(1000)?;
    desktop.closed()?;
    let source = desktop.source;
    drop(desktop);
    gateway.audit().connection(source).map(drop)
}

#[test]
fn weak_or_broken_machines_are_refused_with_the_reason() -> Result<()> {
    let scene = Scene::start(|configuration| configuration.limit("negotiate_ms_max", 1000))?;
    let check = |greeting, code, reason: &str| {
        scene.target.behave(greeting, Work::Echo);
        let dialled = scene.target.accepted();
        let failure = refused(&scene.gateway, &scene.alice, "lab", code, reason)
            .with_context(|| format!("{greeting:?}"))?;
        ensure!(
            scene.target.accepted() == dialled + 1,
            "{greeting:?}: dialled more than once"
        );
        Ok(failure)
    };
    let standard = "target_standard_security";
    for greeting in [Greeting::StandardSecurity, Greeting::Bare] {
        let failure = check(greeting, 4009, standard)?;
        ensure!(matches!(failure, Failure::Negotiation(_)), "{failure:?}");
    }
    let code = x224::SSL_NOT_ALLOWED_BY_SERVER;
    let failure = check(Greeting::Fail(code), 4009, "target_negotiation")?;
    let expected = Failure::Negotiation(x224::encode_confirm(x224::Confirm::Failure(code)));
    ensure!(failure == expected, "{failure:?}");
    let not_offered = "target_security_not_offered";
    check(Greeting::Choose(Protocol::Tls), 4009, not_offered)?;
    check(Greeting::ChooseBits(3), 4009, not_offered)?;
    check(Greeting::ChooseBits(4), 4009, not_offered)?;
    check(Greeting::Garbage, 4006, "target_protocol")?;
    check(Greeting::Close, 4006, "target_protocol")?;
    check(Greeting::NoTls, 4009, "target_tls")?;
    let failure = check(Greeting::Silence, 4007, "target_timeout")?;
    ensure!(failure == Failure::Wsa(10060), "{failure:?}");
    scene
        .target
        .behave(Greeting::Choose(Protocol::Nla), Work::Echo);
    works(&scene.gateway, &scene.alice, "lab")?;

    // A machine is never offered what its application does not allow.
    let allowed = Protocols::NLA.union(Protocols::NLA_EX);
    for request in scene.target.requests() {
        let offered = ConnectionRequest::parse(&request)?.protocols();
        ensure!(
            !offered.is_empty() && offered.intersection(allowed) == offered,
            "{offered:?}"
        );
    }
    Ok(())
}

#[test]
fn a_machine_that_is_not_there_is_told_apart_from_one_that_must_not_be() -> Result<()> {
    let target = FakeTarget::echo()?;
    let port = target.address.port();
    let long = "a".repeat(64);
    let configuration = Configuration::for_target(port::free()?)
        .with(Application::new("name", format!("127.1:{port}")))
        .with(Application::new("number", format!("2130706433:{port}")))
        .with(Application::new("any", format!("0:{port}")))
        .with(Application::new("link", format!("169.254.257:{port}")))
        .with(Application::new(
            "unknown",
            format!("{long}.example:{port}"),
        ));
    let gateway = Gateway::start(configuration)?;
    let mut alice = gateway.signed_in("alice", "lab")?;
    let failure = refused(&gateway, &alice, "lab", 4007, "target_unreachable")?;
    ensure!(failure == Failure::Wsa(10061), "{failure:?}");
    // Names for loopback and its like, as the system's resolver takes them.
    for application in ["name", "number", "any", "link"] {
        alice.open(application)?;
        let failure = refused(&gateway, &alice, application, 4007, "target_address_denied")?;
        ensure!(failure == Failure::Http(403), "{failure:?}");
    }
    alice.open("unknown")?;
    let failure = refused(&gateway, &alice, "unknown", 4007, "target_unresolved")?;
    ensure!(failure == Failure::Wsa(11001), "{failure:?}");
    ensure!(target.accepted() == 0, "a name led to loopback");
    Ok(())
}

#[test]
fn the_certificate_of_the_first_use_is_kept_until_it_is_forgotten() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let first = scene.target.fingerprint();
    works(&scene.gateway, &scene.alice, "lab")?;
    let pins = scene.gateway.command(&["pins", "list"])?;
    ensure!(pins.contains(&first) && pins.contains("lab"), "{pins}");

    scene.target.change_certificate()?;
    let dialled = scene.target.accepted();
    let changed = || {
        refused(
            &scene.gateway,
            &scene.alice,
            "lab",
            4008,
            "target_certificate_changed",
        )
    };
    let failure = changed()?;
    ensure!(failure == Failure::Tls(42), "{failure:?}");
    changed()?;
    ensure!(scene.target.accepted() == dialled + 2);
    let told = wait::until("a record of the change", EFFECT, || {
        let records = scene.gateway.audit().events(Event::Certificate)?;
        Ok((records.len() >= 2).then_some(records))
    })?;
    ensure!(
        told.iter()
            .all(|record| record.application.as_deref() == Some("lab")),
        "{told:#?}"
    );
    let status = scene
        .alice
        .clone()
        .script("GET", "/app/lab/status")?
        .json()?;
    ensure!(
        status["ended"]["reason"] == "target_certificate_changed",
        "{status:#}"
    );

    scene.gateway.command(&["pins", "forget", "lab"])?;
    wait::until("the new certificate", EFFECT, || {
        Ok(works(&scene.gateway, &scene.alice, "lab").ok())
    })?;
    let pins = scene.gateway.command(&["pins", "list"])?;
    ensure!(
        pins.contains(&scene.target.fingerprint()) && !pins.contains(&first),
        "{pins}"
    );
    Ok(())
}

#[test]
fn a_first_use_survives_both_processes() -> Result<()> {
    let mut scene = Scene::start(|configuration| configuration)?;
    works(&scene.gateway, &scene.alice, "lab")?;
    scene.gateway.stop()?;
    scene.target.change_certificate()?;
    scene.gateway.launch()?;
    let reason = "target_certificate_changed";
    refused(&scene.gateway, &scene.alice, "lab", 4008, reason).map(drop)
}

#[test]
fn pinned_and_signed_certificates_are_the_only_ones_taken() -> Result<()> {
    let pinned = FakeTarget::echo()?;
    let signed = FakeTarget::echo()?;
    let authority = Authority::new()?;
    let folder = tempfile::tempdir()?;
    let roots = authority.write(folder.path())?;
    let (chain, key) = authority.issue("127.0.0.1")?;
    signed.use_certificate(chain, key)?;
    let mut configuration =
        Configuration::for_target(pinned.address).with(Application::new("signed", signed.address));
    configuration.application("lab").certificate = Certificate::Pin(pinned.fingerprint());
    configuration.application("lab").security = vec!["nla", "tls"];
    configuration.application("signed").certificate = Certificate::Ca(roots);
    let gateway = Gateway::start(configuration)?;
    let mut alice = gateway.signed_in("alice", "lab")?;
    alice.open("signed")?;
    works(&gateway, &alice, "lab")?;
    works(&gateway, &alice, "signed")?;

    let untrusted = |application: &str| {
        let reason = "target_certificate_untrusted";
        let failure = refused(&gateway, &alice, application, 4008, reason)?;
        ensure!(failure == Failure::Tls(42), "{failure:?}");
        Ok(())
    };
    pinned.change_certificate()?;
    untrusted("lab").context("not the pinned certificate")?;
    let (chain, key) = authority.issue("another.example")?;
    signed.use_certificate(chain, key)?;
    untrusted("signed").context("another machine's certificate")?;
    let (chain, key) = Authority::new()?.issue("127.0.0.1")?;
    signed.use_certificate(chain, key)?;
    untrusted("signed").context("another authority's certificate")?;
    signed.change_certificate()?;
    untrusted("signed").context("a self-signed certificate")
}

#[test]
fn a_machine_without_nla_is_opened_only_where_tls_is_allowed() -> Result<()> {
    let target = FakeTarget::start(Greeting::Choose(Protocol::Tls), Work::Echo)?;
    let mut configuration = Configuration::for_target(target.address);
    configuration.application("lab").security = vec!["nla", "tls"];
    let gateway = Gateway::start(configuration)?;
    let alice = gateway.signed_in("alice", "lab")?;
    let desktop = alice.desktop("lab")?;
    let source = desktop.source;
    desktop.writer().close(1000)?;
    drop(desktop);
    let record = gateway.audit().connection(source)?;
    ensure!(record.rdp_security.as_deref() == Some("tls"), "{record:?}");
    ensure!(
        record.target_certificate == Some(target.fingerprint()),
        "{record:?}"
    );
    Ok(())
}

#[test]
fn a_real_server_with_standard_security_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Xrdp::start(folder.path(), xrdp::SecurityLayer::Rdp)?;
    let mut configuration = Configuration::for_target(server.address);
    configuration.application("lab").security = vec!["nla", "tls"];
    let gateway = Gateway::start(configuration)?;
    let alice = gateway.signed_in("alice", "lab")?;
    // xrdp says that TLS is not allowed rather than choosing what was not offered.
    let mut websocket = alice.upgrade("lab")?;
    let answer = websocket.request("lab", Protocols::ALL)?;
    ensure!(
        matches!(answer, Answer::Failed(Failure::Negotiation(_))),
        "{answer:?}"
    );
    let (code, reason) = websocket.closed()?;
    ensure!(code == 4009, "closed with {code} {reason}");
    let record = gateway.audit().connection(websocket.source)?;
    ensure!(
        record.reason.as_deref() == Some(reason.as_str()),
        "{record:?}"
    );
    ensure!(
        record.rdp_security.is_none() && record.bytes_up.is_none(),
        "{record:?}"
    );
    println!("refused as {reason}");
    server.expect_running()
}
