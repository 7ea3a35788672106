//! What `[steering]` has to fulfil beyond its form: addresses, services, trust, store.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use postern_ebpf_abi::source::SOURCES_MAX;
use postern_ebpf_abi::table::{SERVICES_MAX, VIPS_MAX};
use postern_steering::{
    ModeWish, NODE_NUMBER_MAX, NodeId, Policy, Prefix, Settings, SourceRule, WEIGHT_MAX, Weight,
};

use super::super::file::{ModeRule, RuleOfSource, SourceSection, SteeringSection, SynsSection};
use super::super::secret_file;
use super::Check;

/// Every IPv6 link carries as much; no jumbo frame carries more.
const MTU_MIN: u16 = 1280;
const MTU_MAX: u16 = 9000;

/// Prefixes of `peers`.
const PEERS_MAX: usize = 256;

/// Hex digits of the cluster's secret.
const SECRET_DIGITS: usize = 64;

impl Check<'_> {
    /// `None` when anything of it is wrong.
    pub(super) fn steering(
        &mut self,
        section: SteeringSection,
        listen: &[SocketAddr],
    ) -> Option<Settings> {
        let before = self.problems.len();
        let node = self.node(section.node);
        let weight = self.weight(section.weight);
        let peers = self.peers(&section.peers);
        let vips = self.vips(&section.vips, listen);
        let (address_v4, address_v6) = self.own_addresses(&section.addresses, &peers, &vips);
        self.probed(
            [address_v4.map(IpAddr::V4), address_v6.map(IpAddr::V6)],
            &vips,
            listen,
        );
        self.interface(&section.interface);
        self.tunnel(section.tunnel_port, section.mtu, &vips);
        let sources = self.sources(&section.source);
        let (syns_per_second, syns_burst) = self.syns(section.syns);
        let secret_file = self.cluster_secret(&section.secret_file);
        let store = self.steering_store(&section.store);
        if self.problems.len() > before {
            return None;
        }
        Some(Settings {
            node: node?,
            weight: weight?,
            address_v4,
            address_v6,
            interface: section.interface,
            mode: match section.mode {
                ModeRule::Auto => ModeWish::Auto,
                ModeRule::Native => ModeWish::Native,
                ModeRule::Generic => ModeWish::Generic,
            },
            vips,
            tunnel_port: section.tunnel_port,
            mtu: section.mtu,
            peers,
            sources,
            syns_per_second,
            syns_burst,
            secret_file,
            store: store?,
            policy: Policy::default(),
        })
    }

    fn node(&mut self, number: u16) -> Option<NodeId> {
        let node = NodeId::new(number).filter(|node| node.get() <= NODE_NUMBER_MAX);
        if node.is_none() {
            let what = format!(
                "{number} is no node; write 1 to {NODE_NUMBER_MAX}, on every node another one"
            );
            self.problem("steering.node", what);
        }
        node
    }

    fn weight(&mut self, weight: u32) -> Option<Weight> {
        let held = Weight::new(weight).ok();
        if held.is_none() {
            let what = format!("{weight} is out of bounds; write 1 to {WEIGHT_MAX}");
            self.problem("steering.weight", what);
        }
        held
    }

    fn peers(&mut self, texts: &[String]) -> Vec<Prefix> {
        if texts.is_empty() {
            let what = "no address may be a node's; write where nodes are, for example \
                        [\"10.0.0.0/24\"]";
            self.problem("steering.peers", what);
        }
        if texts.len() > PEERS_MAX {
            let what = format!("write at most {PEERS_MAX} ranges");
            self.problem("steering.peers", what);
        }
        let mut peers = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let key = format!("steering.peers[{index}]");
            let Some(prefix) = self.prefix(&key, text) else {
                continue;
            };
            if prefix.prefix_len() == 0 {
                self.warn(key, "every address may be a node's; write where nodes are");
            }
            peers.push(prefix);
        }
        peers
    }

    fn vips(&mut self, texts: &[String], listen: &[SocketAddr]) -> Vec<SocketAddr> {
        if texts.is_empty() {
            let what = "there is no service to steer; write for example [\"203.0.113.10:443\"]";
            self.problem("steering.vips", what);
        }
        let mut vips: Vec<SocketAddr> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let key = format!("steering.vips[{index}]");
            let Ok(vip) = text.parse::<SocketAddr>() else {
                let what = format!(
                    "{text:?} is no address and port; write \"203.0.113.10:443\" or \
                     \"[2001:db8:5::10]:443\""
                );
                self.problem(key, what);
                continue;
            };
            if vips.contains(&vip) {
                self.problem(key, format!("{text} is there twice; remove one"));
                continue;
            }
            if let Some(why) = unreachable(vip.ip()) {
                self.problem(
                    key,
                    format!("{text}: {why}; write an address that browsers reach"),
                );
            } else if listen.iter().all(|one| one.port() != vip.port()) {
                let what = format!(
                    "no address of listen.addresses has port {}; add one, or write a port of theirs",
                    vip.port()
                );
                self.problem(key, what);
            } else if !listens(listen, vip) {
                let what = format!("listen.addresses does not cover {vip}; add it there");
                self.problem(key, what);
            } else if !is_local(vip.ip()) {
                let what = format!(
                    "this machine does not have {0} yet; run: ip address add {0} dev lo",
                    vip.ip()
                );
                self.warn(key, what);
            }
            vips.push(vip);
        }
        self.vips_fit(&vips);
        vips
    }

    /// The kernel's table has so many places.
    fn vips_fit(&mut self, vips: &[SocketAddr]) {
        let addresses: BTreeSet<IpAddr> = vips.iter().map(SocketAddr::ip).collect();
        if addresses.len() > VIPS_MAX {
            let what = format!(
                "{} addresses are too many; write at most {VIPS_MAX}",
                addresses.len()
            );
            self.problem("steering.vips", what);
        }
        for address in addresses {
            let ports = vips.iter().filter(|vip| vip.ip() == address).count();
            if ports > SERVICES_MAX {
                let what = format!(
                    "{address} has {ports} ports; write at most {SERVICES_MAX} of an address"
                );
                self.problem("steering.vips", what);
            }
        }
    }

    fn own_addresses(
        &mut self,
        texts: &[String],
        peers: &[Prefix],
        vips: &[SocketAddr],
    ) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        if texts.is_empty() {
            let what = "other nodes reach this one nowhere; write for example [\"10.0.0.1\"]";
            self.problem("steering.addresses", what);
        }
        let (mut v4, mut v6) = (None, None);
        for (index, text) in texts.iter().enumerate() {
            let key = format!("steering.addresses[{index}]");
            let Ok(address) = text.parse::<IpAddr>() else {
                let what = format!("{text:?} is no address; write \"10.0.0.1\" or \"2001:db8::1\"");
                self.problem(key, what);
                continue;
            };
            let taken = match address {
                IpAddr::V4(address) => v4.replace(address).is_some(),
                IpAddr::V6(address) => v6.replace(address).is_some(),
            };
            if taken {
                let what = "another address of this family is there; write one of a family";
                self.problem(key, what);
            } else if let Some(why) = unreachable(address) {
                self.problem(
                    key,
                    format!("{text}: {why}; write one that other nodes reach"),
                );
            } else if vips.iter().any(|vip| vip.ip() == address) {
                let what =
                    format!("all nodes share {address} (steering.vips); write this node's own");
                self.problem(key, what);
            } else if !peers.iter().any(|peer| peer.contains(&address)) {
                let what = format!(
                    "{address} is in none of steering.peers: the other nodes would refuse this one; \
                     write another address, or add its range there"
                );
                self.problem(key, what);
            } else if !is_local(address) {
                self.warn(key, format!("this machine does not have {address}"));
            }
        }
        (v4, v6)
    }

    /// Other nodes try this one's service at its own address.
    fn probed(&mut self, own: [Option<IpAddr>; 2], vips: &[SocketAddr], listen: &[SocketAddr]) {
        let ports: BTreeSet<u16> = vips.iter().map(SocketAddr::port).collect();
        for address in own.into_iter().flatten() {
            for port in &ports {
                let at = SocketAddr::new(address, *port);
                // Without a listener on this port at all, the service's own problem says it.
                let port_is_there = listen.iter().any(|one| one.port() == *port);
                if port_is_there && !listens(listen, at) {
                    let what = format!(
                        "other nodes probe {at}, which listen.addresses does not cover; add it there"
                    );
                    self.problem("steering.addresses", what);
                }
            }
        }
    }

    fn interface(&mut self, name: &str) {
        // Of this thread's network namespace, whatever is mounted at /sys.
        let Ok(table) = std::fs::read_to_string("/proc/thread-self/net/dev") else {
            return;
        };
        let there = interfaces(&table);
        if !there.contains(&name) {
            let what = format!(
                "there is no interface {name:?}; write one of: {}",
                there.join(", ")
            );
            self.problem("steering.interface", what);
        }
    }

    fn tunnel(&mut self, port: u16, mtu: u16, vips: &[SocketAddr]) {
        let key = "steering.tunnel_port";
        if port == 0 {
            self.problem(key, "port 0 is any port; write the same one on all nodes");
        } else if vips.iter().any(|vip| vip.port() == port) {
            let what =
                format!("{port} is the port of a service (steering.vips); write another one");
            self.problem(key, what);
        }
        if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
            let what = format!("{mtu} is out of bounds; write {MTU_MIN} to {MTU_MAX}");
            self.problem("steering.mtu", what);
        }
    }

    fn sources(&mut self, sections: &[SourceSection]) -> Vec<(Prefix, SourceRule)> {
        if sections.len() > SOURCES_MAX as usize {
            let what = format!("write at most {SOURCES_MAX}");
            self.problem("steering.source", what);
        }
        let mut sources: Vec<(Prefix, SourceRule)> = Vec::new();
        let mut known = BTreeSet::new();
        for (index, section) in sections.iter().enumerate() {
            let key = format!("steering.source[{index}].prefix");
            let Some(prefix) = self.prefix(&key, &section.prefix) else {
                continue;
            };
            if !known.insert(prefix) {
                self.problem(key, format!("{prefix} is there twice; remove one"));
                continue;
            }
            let rule = match section.rule {
                RuleOfSource::Deny => SourceRule::Deny,
                RuleOfSource::Allow => SourceRule::Allow,
            };
            sources.push((prefix, rule));
        }
        sources.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
        sources
    }

    fn syns(&mut self, section: SynsSection) -> (u32, u32) {
        let SynsSection { per_second, burst } = section;
        if per_second == 0 && burst > 0 {
            let what = "without per_second nothing is limited; write per_second too";
            self.problem("steering.syns.burst", what);
        }
        (per_second, if burst == 0 { per_second } else { burst })
    }

    fn cluster_secret(&mut self, path: &Path) -> PathBuf {
        let path = self.path(path);
        let key = "steering.secret_file";
        match secret_file::read(&path) {
            Ok(text) => {
                let text = text.trim();
                let holds = text.len() == SECRET_DIGITS
                    && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                if !holds {
                    let shown = path.display();
                    let what = format!(
                        "{shown} is not {SECRET_DIGITS} hex digits; make one with: postern steer \
                         secret, and copy it to all nodes"
                    );
                    self.problem(key, what);
                }
            }
            Err(why) => self.problem(key, why),
        }
        path
    }

    /// Bits beyond the prefix do not count.
    fn prefix(&mut self, key: &str, text: &str) -> Option<Prefix> {
        let read = match text.parse::<Prefix>() {
            Ok(prefix) => Some(prefix.trunc()),
            // A single address is a range of one.
            Err(_) => text.parse::<IpAddr>().map(Prefix::from).ok(),
        };
        if read.is_none() {
            let what =
                format!("{text:?} is no address range; write \"10.0.0.0/24\" or \"2001:db8::/64\"");
            self.problem(key, what);
        }
        read
    }
}

/// Why an address is no machine's that others reach.
fn unreachable(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let broadcast = matches!(address, IpAddr::V4(Ipv4Addr::BROADCAST));
    if address.is_unspecified() {
        Some("that is no address of a machine")
    } else if address.is_loopback() {
        Some("loopback is reached by this machine alone")
    } else if address.is_multicast() || broadcast {
        Some("that is an address of many")
    } else if link_local {
        Some("a link-local address is reached from its link alone")
    } else if address.to_canonical() != address {
        Some("that is an IPv4 address in IPv6's form")
    } else {
        None
    }
}

/// True where something listens at `at`. A listener of all IPv6 addresses has those of IPv4, too.
fn listens(listen: &[SocketAddr], at: SocketAddr) -> bool {
    listen.iter().any(|one| {
        let all = one.ip().is_unspecified() && (one.is_ipv6() || at.is_ipv4());
        one.port() == at.port() && (all || one.ip() == at.ip())
    })
}

/// True where the machine has the address, or does not say that it has not.
fn is_local(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrNotAvailable,
    }
}

/// Names out of the kernel's table of interfaces: two lines of headings, then one line each.
fn interfaces(table: &str) -> Vec<&str> {
    let lines = table.lines().skip(2);
    let names = lines.filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.collect()
}
