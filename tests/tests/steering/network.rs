//! Machines and cables: browsers, a target and the store around a router that spreads packets over the nodes.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use postern_tests::machine::{Machine, cable};

/// The address that all nodes share, in both families.
pub const VIPS: [&str; 2] = ["192.0.2.10:443", "[2001:db8::10]:443"];

/// Where nodes are, and nobody else.
pub const PEERS: [&str; 2] = ["10.80.0.0/16", "fd80::/16"];

/// Sources of connections that are only counted: each lends its ports, which wait for a minute after
/// every connection.
pub const COUNTED_SOURCES: u8 = 8;

/// Everything but the gateways.
pub struct Network {
    pub client: Machine,
    pub target: Machine,
    pub store: Machine,
    router: Machine,
    /// Number 1 is the first.
    pub nodes: Vec<Arc<Machine>>,
}

/// The shared address of a family: 0 is IPv4, 1 is IPv6.
pub fn vip(family: usize) -> SocketAddr {
    VIPS[family].parse().expect("an address and a port")
}

/// A node's own addresses.
pub fn node_addresses(number: u16) -> [IpAddr; 2] {
    [format!("10.80.{number}.2"), format!("fd80:{number}::2")]
        .map(|text| text.parse().expect("an address"))
}

/// A counted source's address, of the family of `vip`.
pub fn counted_source(index: u8, vip: SocketAddr) -> IpAddr {
    let last = 10 + index % COUNTED_SOURCES;
    let text = match vip {
        SocketAddr::V4(_) => format!("10.77.0.{last}"),
        SocketAddr::V6(_) => format!("fd77::{last}"),
    };
    text.parse().expect("an address")
}

impl Network {
    /// All machines, with `nodes` nodes; the router sends the shared addresses to nobody yet.
    pub fn start(nodes: u16, folder: &Path) -> Result<Self> {
        let machine = |name: &str| Machine::start(name, folder);
        let router = machine("router")?;
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // Answers come from whichever node has the connection.
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            // By protocol, addresses and ports, as routers in front of a service do. Policy 1 would trust
            // the hash that Linux' own sockets give their packets, which no cable carries and which changes
            // when a packet is sent again.
            ("ipv4/fib_multipath_hash_policy", "3"),
            ("ipv6/fib_multipath_hash_policy", "3"),
            ("ipv4/fib_multipath_hash_fields", "0x37"),
            ("ipv6/fib_multipath_hash_fields", "0x37"),
        ] {
            router.set(key, value)?;
        }
        let plugged = |name: &str, interface: &str, net: &str| -> Result<Machine> {
            let machine = machine(name)?;
            plug(&machine, (&router, interface), net)?;
            Ok(machine)
        };
        let client = plugged("client", "c", "77")?;
        client.set("ipv4/ip_local_port_range", "1024 65535")?;
        for last in 10..10 + COUNTED_SOURCES {
            client.run(&format!("ip addr add 10.77.0.{last}/24 dev eth0"))?;
            client.run(&format!("ip addr add fd77::{last}/64 dev eth0 nodad"))?;
        }
        let target = plugged("target", "t", "78")?;
        let store = plugged("store", "s", "79")?;
        let mut all = Vec::new();
        for number in 1..=nodes {
            let node = machine(&format!("node{number}"))?;
            plug(
                &node,
                (&router, &format!("n{number}")),
                &format!("80:{number}"),
            )?;
            for vip in VIPS {
                let vip: SocketAddr = vip.parse()?;
                match vip.ip() {
                    IpAddr::V4(ip) => node.run(&format!("ip addr add {ip}/32 dev lo"))?,
                    IpAddr::V6(ip) => node.run(&format!("ip addr add {ip}/128 dev lo nodad"))?,
                };
            }
            all.push(Arc::new(node));
        }
        Ok(Self {
            client,
            target,
            store,
            router,
            nodes: all,
        })
    }

    /// Makes the router spread the shared addresses over these nodes, `(number, weight)` each. Another
    /// order or other weights send many connections' packets to other nodes than before.
    pub fn spread(&self, nodes: &[(u16, u16)]) -> Result<()> {
        for (family, vip) in VIPS.iter().enumerate() {
            let vip: SocketAddr = vip.parse()?;
            let mut line = match family {
                0 => format!("ip route replace {}", vip.ip()),
                _ => format!("ip -6 route replace {}", vip.ip()),
            };
            for (number, weight) in nodes {
                let via = node_addresses(*number)[family];
                write!(line, " nexthop via {via} dev n{number} weight {weight}")?;
            }
            self.router.run(&line)?;
        }
        Ok(())
    }

    /// Makes the router hash connections in another way, where its kernel can be told to.
    pub fn hash_with(&self, seed: u32) -> bool {
        let key = "ipv4/fib_multipath_hash_seed";
        self.router.set(key, &seed.to_string()).is_ok()
    }

    /// Pulls a node's cable.
    pub fn unplug(&self, number: u16) -> Result<()> {
        self.router
            .run(&format!("ip link set dev n{number} down"))
            .map(drop)
    }

    pub fn node(&self, number: u16) -> Result<&Arc<Machine>> {
        let index = usize::from(number).checked_sub(1);
        let node = index.and_then(|index| self.nodes.get(index));
        node.context("nodes are counted from 1")
    }
}

/// Gives `machine` the interface `eth0` in the router's network `net`: `77` is 10.77.0.0/24 and
/// fd77::/64, `80:1` is 10.80.1.0/24 and fd80:1::/64.
fn plug(machine: &Machine, (router, interface): (&Machine, &str), net: &str) -> Result<()> {
    let (area, part) = net.split_once(':').unwrap_or((net, "0"));
    let v6 = format!("fd{net}");
    cable((machine, "eth0"), (router, interface))?;
    for (end, interface, last) in [(router, interface, 1), (machine, "eth0", 2)] {
        end.run(&format!(
            "ip addr add 10.{area}.{part}.{last}/24 dev {interface}"
        ))?;
        end.run(&format!(
            "ip addr add {v6}::{last}/64 dev {interface} nodad"
        ))?;
    }
    machine.run(&format!("ip route add default via 10.{area}.{part}.1"))?;
    machine.run(&format!("ip -6 route add default via {v6}::1"))?;
    Ok(())
}
