//! Which addresses are on the interface's own link, and what its Ethernet address is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postern_steering::Prefix;

use crate::ConductorError;

/// Routes that are looked at.
const ROUTES_MAX: usize = 100_000;

/// Networks that an interface reaches without a router.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    prefixes: Vec<Prefix>,
}

impl Links {
    /// Those of `interface` now.
    #[must_use]
    pub fn of(interface: &str) -> Self {
        // Without a table of routes everything goes by way of the router, which is slower and right.
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let v4 = read("/proc/thread-self/net/route");
        let v6 = read("/proc/thread-self/net/ipv6_route");
        let routes_v4 = v4.lines().take(ROUTES_MAX);
        let routes_v6 = v6.lines().take(ROUTES_MAX);
        let prefixes = routes_v4
            .filter_map(|line| route_v4(line, interface))
            .chain(routes_v6.filter_map(|line| route_v6(line, interface)));
        Self {
            prefixes: prefixes.collect(),
        }
    }

    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses as words in this machine's order.
fn route_v4(line: &str, interface: &str) -> Option<Prefix> {
    let mut fields = line.split_whitespace();
    if fields.next()? != interface {
        return None;
    }
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
    let destination = word(fields.next()?)?;
    let gateway = word(fields.next()?)?;
    let mask = word(fields.nth(4)?)?;
    let bits = Ipv4Addr::from(mask).to_bits().leading_ones();
    if gateway != [0; 4] || bits == 0 {
        return None;
    }
    Prefix::new(Ipv4Addr::from(destination).into(), u8::try_from(bits).ok()?).ok()
}

/// `destination bits source bits next-hop metric references use flags interface`, all hexadecimal.
fn route_v6(line: &str, interface: &str) -> Option<Prefix> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, bits, _, _, next, _, _, _, _, name] = fields[..] else {
        return None;
    };
    let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from_bits);
    let bits = u8::from_str_radix(bits, 16).ok()?;
    let is_direct = address(next)?.is_unspecified() && bits > 0;
    let destination = address(destination)?;
    if name != interface || !is_direct || destination.is_multicast() {
        return None;
    }
    Prefix::new(destination.into(), bits).ok()
}

/// The interface's Ethernet address; zeros where it has none.
///
/// # Errors
/// There is no such interface.
pub fn ethernet(interface: &str) -> Result<[u8; 6], ConductorError> {
    let failed = |source| ConductorError::System {
        what: "the list of its interfaces",
        source,
    };
    let all = nix::ifaddrs::getifaddrs().map_err(|error| failed(error.into()))?;
    let link = all
        .filter(|one| one.interface_name == interface)
        .find_map(|one| one.address?.as_link_addr().copied());
    match link {
        Some(link) => Ok(link.addr().unwrap_or_default()),
        None => Err(ConductorError::Settings(format!(
            "there is no interface {interface}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_without_a_router_are_on_the_link() {
        let check = |found: Option<Prefix>, expected: Option<&str>| {
            assert_eq!(found, expected.map(|text| text.parse().unwrap()));
        };
        let word = |text: &str| {
            let address: Ipv4Addr = text.parse().unwrap();
            format!("{:08X}", u32::from_ne_bytes(address.octets()))
        };
        let v4 = |interface: &str, to: &str, by: &str, mask: &str| {
            let [to, by, mask] = [to, by, mask].map(word);
            format!("{interface}\t{to}\t{by}\t0001\t0\t0\t0\t{mask}\t0\t0\t0")
        };
        let of = |line: String| route_v4(&line, "eth0");
        let net = "255.255.255.0";
        check(
            of(v4("eth0", "10.0.0.0", "0.0.0.0", net)),
            Some("10.0.0.0/24"),
        );
        check(of(v4("eth1", "10.0.0.0", "0.0.0.0", net)), None);
        check(of(v4("eth0", "10.0.1.0", "10.0.0.1", net)), None);
        check(of(v4("eth0", "0.0.0.0", "0.0.0.0", "0.0.0.0")), None);
        check(of("Iface\tDestination\tGateway".to_owned()), None);

        let zeros = "0".repeat(32);
        let v6 = |to: &str, bits: &str, by: &str, interface: &str| {
            let to: Ipv6Addr = to.parse().unwrap();
            let to = format!("{:032x}", to.to_bits());
            format!("{to} {bits} {zeros} 00 {by} 00000100 00000001 00000000 00000001 {interface}")
        };
        let of = |line: String| route_v6(&line, "eth0");
        check(of(v6("fd00::", "40", &zeros, "eth0")), Some("fd00::/64"));
        check(of(v6("fd00::", "40", &zeros, "lo")), None);
        check(of(v6("fd00::", "40", &"f".repeat(32), "eth0")), None);
        check(of(v6("ff00::", "08", &zeros, "eth0")), None);
        check(of(v6("::", "00", &zeros, "eth0")), None);
    }

    #[test]
    fn an_interface_without_an_ethernet_address_has_zeros_and_one_that_is_not_there_none() {
        assert_eq!(ethernet("lo").unwrap(), [0; 6]);
        assert!(ethernet("no-such-link").is_err());
    }
}
