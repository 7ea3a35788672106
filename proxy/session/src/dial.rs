//! Dials a target. Takes a [`Permit`]: without one there is no way to a socket.

use std::net::{IpAddr, SocketAddr};

use postern_access::Permit;
use postern_snapshot::Limits;

use crate::core::within;
use crate::{Core, Outcome};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Connects to the target of the permit's application, and says to which address.
///
/// # Errors
/// When the name is unknown, leads where the gateway must not go, or nothing answers.
pub(crate) async fn dial<C: Core>(
    core: &C,
    permit: &Permit,
    limits: &Limits,
) -> Result<(C::Stream, SocketAddr), Outcome> {
    let target = &permit.application().target;
    let addresses = match target.host.parse::<IpAddr>() {
        Ok(literal) => vec![SocketAddr::new(literal, target.port)],
        Err(_) => {
            let look_up = core.resolve(&target.host, target.port);
            match within(core, limits.dial_ms_max, look_up).await {
                Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
                Ok(_) => return Err(Outcome::TargetUnresolved),
                Err(_) => return Err(Outcome::TargetTimeout),
            }
        }
    };
    let allowed: Vec<SocketAddr> = addresses
        .into_iter()
        .filter(|address| may_dial(&target.host, address.ip()))
        .take(ADDRESSES_MAX)
        .collect();
    let mut outcome = Outcome::TargetAddressDenied;
    for address in allowed {
        core.measure(|metrics| metrics.dials += 1);
        outcome = match within(core, limits.dial_ms_max, core.connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => Outcome::TargetUnreachable(error.kind()),
            Err(_) => Outcome::TargetTimeout,
        };
    }
    Err(outcome)
}

/// An administrator who writes an address means it. A name is another matter: who answers for the
/// name must not be able to send the gateway to itself, to its link or to a group.
fn may_dial(host: &str, address: IpAddr) -> bool {
    if host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !(address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
                || address.octets()[0] == 0)
        }
        IpAddr::V6(address) => {
            !(address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_unspecified()
                || address.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_not_lead_to_the_gateway_itself() {
        let check = |host: &str, address: &str, allowed: bool| {
            let address = address.parse().expect("an address");
            assert_eq!(may_dial(host, address), allowed, "{host} → {address}");
        };
        check("pc.example", "192.0.2.7", true);
        check("pc.example", "2001:db8::7", true);
        check("pc.example", "10.1.2.3", true);
        check("pc.example", "127.0.0.1", false);
        check("pc.example", "::1", false);
        check("pc.example", "::ffff:127.0.0.1", false);
        check("pc.example", "169.254.169.254", false);
        check("pc.example", "fe80::1", false);
        check("pc.example", "0.0.0.0", false);
        check("pc.example", "0.1.2.3", false);
        check("pc.example", "224.0.0.1", false);
        check("pc.example", "255.255.255.255", false);
        check("127.0.0.1", "127.0.0.1", true);
        check("localhost", "127.0.0.1", true);
    }
}
