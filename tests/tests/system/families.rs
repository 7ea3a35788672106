//! IPv6 and IPv4, alone and together: the same gateway, and sources that rules can tell apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use postern_audit::Event;
use postern_tests::browserless::Opened;
use postern_tests::gateway::{Configuration, PASSWORD, Policy};
use postern_tests::{Browser, FakeTarget, Gateway};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A gateway on these addresses, reached over each family in turn.
fn start(target: &FakeTarget, listen: &[IpAddr]) -> Result<(Gateway, [Browser; 2])> {
    let gateway = Gateway::start(Configuration {
        listen: listen.to_vec(),
        ..Configuration::for_target(target.address)
    })?;
    let port = gateway.address.port();
    let browser = gateway.browser();
    let browsers = [V4, V6].map(|ip| browser.by(SocketAddr::new(ip, port)));
    Ok((gateway, browsers))
}

/// From the login to a desktop, with the source as it is in all records.
fn works(gateway: &Gateway, browser: &mut Browser, source: IpAddr) -> Result<()> {
    browser.sign_in("alice", PASSWORD)?;
    browser.open("lab")?;
    let mut desktop = browser.desktop("lab")?;
    desktop.send(b"over either")?;
    ensure!(desktop.receive_exactly(11)? == b"over either");
    ensure!(desktop.source.ip() == source);
    desktop.writer().close(1000)?;
    gateway.audit().connection(desktop.source)?;
    let login = gateway.audit().events(Event::Login)?.pop();
    let told = login.and_then(|login| login.source).unwrap_or_default();
    let told: SocketAddr = told.parse()?;
    ensure!(told.ip() == source, "the login is recorded from {told}");
    Ok(())
}

#[test]
fn a_gateway_listens_on_ipv6_ipv4_or_both() -> Result<()> {
    let target = FakeTarget::echo()?;
    for (listen, v4, v6) in [
        (&[V6][..], false, true),
        (&[V4, V6], true, true),
        (&[ANY_V4, ANY_V6], true, true),
        (&[ANY_V6], true, true),
        (&[ANY_V4], true, false),
    ] {
        let (gateway, [mut over_v4, mut over_v6]) = start(&target, listen)?;
        for (browser, source, listens) in [(&mut over_v4, V4, v4), (&mut over_v6, V6, v6)] {
            if listens {
                works(&gateway, browser, source)?;
            } else {
                ensure!(browser.connect().is_err(), "{listen:?} takes {source}");
            }
        }
    }
    Ok(())
}

#[test]
fn rules_tell_an_ipv6_source_from_an_ipv4_one() -> Result<()> {
    let target = FakeTarget::echo()?;
    for (selector, allowed, blocked) in [("::1/128", V6, V4), ("127.0.0.0/8", V4, V6)] {
        for listen in [&[V4, V6][..], &[ANY_V6]] {
            let mut configuration = Configuration::for_target(target.address);
            configuration.listen = listen.to_vec();
            configuration.application("lab").policies =
                vec![Policy::allow("near", &format!("{{ ip = \"{selector}\" }}"))];
            let gateway = Gateway::start(configuration)?;
            let at = |ip| {
                gateway
                    .browser()
                    .by(SocketAddr::new(ip, gateway.address.port()))
            };
            let mut good = at(allowed);
            works(&gateway, &mut good, allowed)?;

            let mut bad = at(blocked);
            bad.sign_in("alice", PASSWORD)?;
            let page = bad.get("/app/lab/")?;
            ensure!(
                page.status == 403,
                "{selector} from {blocked}: {}",
                page.status
            );
            // A cookie that moves to the other family is judged by where it is now.
            let moved = good.by(SocketAddr::new(blocked, gateway.address.port()));
            match moved.try_upgrade("lab")? {
                Opened::Refused(answer) if answer.status == 403 => {
                    let record = gateway.audit().connection(answer.source)?;
                    ensure!(
                        record.reason.as_deref() == Some("policy_no_match"),
                        "{record:?}"
                    );
                }
                other => anyhow::bail!("{selector} from {blocked}: {other:?}"),
            }
        }
    }
    Ok(())
}
