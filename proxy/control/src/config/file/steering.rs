//! `[steering]` of the configuration file as it is written.

use std::path::PathBuf;

use postern_steering::{MTU, STORE_PREFIX, TUNNEL_PORT};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Several nodes behind one address.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SteeringSection {
    /// Number of this node, 1 to 4095, its own in the cluster.
    pub node: u16,
    /// This node's own addresses, at most one of a family: other nodes send it packets there, and probe
    /// it there. The engine has to listen on them, too.
    pub addresses: Vec<String>,
    /// Network interface where packets to the services arrive, e.g. `"eth0"`.
    pub interface: String,
    /// The services that all nodes share: addresses with one of the ports of `listen.addresses`, e.g.
    /// `"203.0.113.10:443"`. Every node has the addresses on `lo`; the same on all nodes.
    pub vips: Vec<String>,
    /// Address ranges in which nodes may be, e.g. `["10.0.0.0/24"]`; a node elsewhere is refused. The
    /// same on all nodes.
    pub peers: Vec<String>,
    /// File with the cluster's secret, readable by its owner alone (`chmod 600`), the same on all
    /// nodes; `postern steer secret` makes one.
    pub secret_file: PathBuf,
    /// Share of new connections in proportion to the other nodes' weights, 1 to 10000.
    #[serde(default = "weight")]
    pub weight: u32,
    /// How the interface runs the program: `"auto"` (in the driver where it can, else in the network
    /// stack), `"native"` (in the driver, or not at all) or `"generic"`.
    #[serde(default)]
    pub mode: ModeRule,
    /// UDP port of the tunnels between nodes; the same on all nodes.
    #[serde(default = "tunnel_port")]
    pub tunnel_port: u16,
    /// Largest IP packet that goes between nodes, 1280 to 9000. Browsers are told to send segments that
    /// fit into a tunnel of it.
    #[serde(default = "mtu")]
    pub mtu: u16,
    /// Where the nodes find each other and keep the table: a file, or etcd.
    #[serde(default)]
    pub store: StoreSection,
    /// Sources that are treated apart, a table each; of several that match the longest prefix decides.
    #[serde(default)]
    pub source: Vec<SourceSection>,
    /// Limit of new connections (TCP SYNs) of one source: an IPv4 address or an IPv6 /64.
    #[serde(default)]
    pub syns: SynsSection,
}

fn weight() -> u32 {
    100
}

fn tunnel_port() -> u16 {
    TUNNEL_PORT
}

fn mtu() -> u16 {
    MTU
}

/// How the interface runs the program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModeRule {
    /// In the driver where it can, else in the network stack.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the network stack.
    Generic,
}

/// Where the nodes find each other and keep the table: `file` or `etcd`, not both.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// TOML file with all nodes, the same on every node: no heartbeats, no moves, no drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Endpoints of etcd, e.g. `["https://10.0.0.5:2379"]`.
    pub etcd: Vec<String>,
    /// Where the cluster's keys begin in etcd; begins and ends with `/`.
    pub prefix: String,
    /// PEM file with the roots of etcd's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate that etcd knows this node by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// PEM file with its private key, readable by its owner alone (`chmod 600`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            file: None,
            etcd: Vec::new(),
            prefix: STORE_PREFIX.to_owned(),
            ca_file: None,
            certificate_file: None,
            key_file: None,
        }
    }
}

/// Sources that are treated apart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    /// Address range, e.g. `"198.51.100.0/24"`.
    pub prefix: String,
    /// `"deny"` (dropped) or `"allow"` (without the limit of `syns`).
    pub rule: RuleOfSource,
}

/// What becomes of the packets of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleOfSource {
    /// Dropped.
    Deny,
    /// Let in, without a limit of new connections.
    Allow,
}

/// Limit of new connections of one source.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SynsSection {
    /// For long; 0 means no limit.
    pub per_second: u32,
    /// At once; 0 means as many as `per_second`.
    pub burst: u32,
}
