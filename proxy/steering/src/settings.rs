//! `[steering]` of the configuration as values that hold: who this node is, what all nodes serve, whom they trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::{NodeId, Policy, Weight};

/// An address and how many of its leading bits count.
pub type Prefix = ipnet::IpNet;

/// UDP port of the tunnels where nothing else is configured: that of GUE.
pub const TUNNEL_PORT: u16 = 6080;

/// Largest IP packet between nodes where nothing else is configured.
pub const MTU: u16 = 1500;

/// Where a cluster's keys begin in etcd where nothing else is configured.
pub const STORE_PREFIX: &str = "/postern/steering/";

/// Everything that steering needs to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Number of this node, its own in the cluster.
    pub node: NodeId,
    pub weight: Weight,
    /// Of this node, for tunnels. At least one of both is there.
    pub address_v4: Option<Ipv4Addr>,
    pub address_v6: Option<Ipv6Addr>,
    /// Where the packets to the services arrive.
    pub interface: String,
    pub mode: ModeWish,
    /// TCP services that all nodes share.
    pub vips: Vec<SocketAddr>,
    /// UDP port of the tunnels between nodes.
    pub tunnel_port: u16,
    /// Largest IP packet that leaves.
    pub mtu: u16,
    /// Addresses that members may have; nobody else is one.
    pub peers: Vec<Prefix>,
    /// What becomes of whom, the longest prefix first.
    pub sources: Vec<(Prefix, SourceRule)>,
    /// SYNs that one source may send for long; 0: no limit.
    pub syns_per_second: u32,
    /// SYNs that one source may send at once.
    pub syns_burst: u32,
    /// The cluster's secret: 32 bytes as hex digits.
    pub secret_file: PathBuf,
    pub store: StoreSettings,
    pub policy: Policy,
}

impl Settings {
    /// True where a member may have `address`.
    #[must_use]
    pub fn is_peer(&self, address: IpAddr) -> bool {
        self.peers.iter().any(|prefix| prefix.contains(&address))
    }
}

/// How the interface is to run the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModeWish {
    /// Natively where that can be.
    #[default]
    Auto,
    /// Natively or not at all.
    Native,
    /// By the network stack.
    Generic,
}

/// What becomes of the packets of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceRule {
    /// Dropped.
    Deny,
    /// Let in, without a limit of SYNs.
    Allow,
}

/// Where members meet and the table is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// A file, the same on every node: no heartbeats, no moves.
    File(PathBuf),
    Etcd {
        /// `http://` or `https://` URLs.
        endpoints: Vec<String>,
        /// Where the keys begin.
        prefix: String,
        ca_file: Option<PathBuf>,
        certificate_file: Option<PathBuf>,
        key_file: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_the_peers_is_one() {
        let settings = Settings {
            node: NodeId::new(1).unwrap(),
            weight: Weight::new(1).unwrap(),
            address_v4: Some(Ipv4Addr::new(10, 0, 0, 1)),
            address_v6: None,
            interface: "eth0".to_owned(),
            mode: ModeWish::Auto,
            vips: Vec::new(),
            tunnel_port: TUNNEL_PORT,
            mtu: MTU,
            peers: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            sources: Vec::new(),
            syns_per_second: 0,
            syns_burst: 0,
            secret_file: PathBuf::new(),
            store: StoreSettings::File(PathBuf::new()),
            policy: Policy::default(),
        };
        let check = |address: &str, expected: bool| {
            let address = address.parse().unwrap();
            assert_eq!(settings.is_peer(address), expected, "{address}");
        };
        check("10.0.0.200", true);
        check("10.0.1.1", false);
        check("fd00::7", true);
        check("fd01::7", false);
        // Another family's zeros are nobody's.
        check("::ffff:10.0.0.200", false);
    }
}
