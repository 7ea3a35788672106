//! The table that steers: addresses served, nodes, buckets and keys, one value that is swapped as a whole.

use crate::Plain;
use crate::flow::Address;
use crate::siphash::SipKey;

/// Buckets that flows fall into.
pub const BUCKETS: usize = 65_536;
/// Nodes that a table has room for; node 0 is nobody.
pub const NODES_MAX: usize = 4_096;
/// Slots for addresses; each address has one of its own.
pub const VIP_SLOTS: usize = 256;
/// Most addresses. Few enough that a seed that gives each its own slot is soon found.
pub const VIPS_MAX: usize = 32;
/// Most services at one address.
pub const SERVICES_MAX: usize = 8;
/// Keys that tags are accepted under: the one in use, and the one before or after it.
pub const TAG_KEYS: usize = 2;

const _: () = assert!(BUCKETS.is_power_of_two() && NODES_MAX.is_power_of_two());
const _: () = assert!(VIP_SLOTS == 256, "a slot is the top byte of a product");

/// A machine of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct NodeId(pub u16);

impl NodeId {
    pub const NOBODY: Self = Self(0);
}

/// Who has the flows of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// Gets new connections.
    pub first: NodeId,
    /// May still have old ones, or is nobody.
    pub second: NodeId,
}

impl Bucket {
    pub const NONE: Self = Self {
        first: NodeId::NOBODY,
        second: NodeId::NOBODY,
    };
}

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Node {
    /// Where tunnelled packets go, and where its own come from; [`Address::NONE`]: no such node.
    pub address: Address,
    /// Its Ethernet address on the same link, or zeros: then packets go back to the router.
    pub ethernet: [u8; 6],
    pub reserved: [u8; 2],
}

impl Node {
    pub const NONE: Self = Self {
        address: Address::NONE,
        ethernet: [0; 6],
        reserved: [0; 2],
    };
}

/// A port that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    pub port: u16,
    /// Of the IP header: 6 or 17; 0: none.
    pub protocol: u8,
    pub reserved: u8,
}

impl Service {
    pub const NONE: Self = Self {
        port: 0,
        protocol: 0,
        reserved: 0,
    };
}

/// An address that all nodes share, and what it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Vip {
    /// [`Address::NONE`]: the slot is empty.
    pub address: Address,
    pub services: [Service; SERVICES_MAX],
}

impl Vip {
    pub const NONE: Self = Self {
        address: Address::NONE,
        services: [Service::NONE; SERVICES_MAX],
    };
}

/// What holds for the node as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Number of the table.
    pub generation: u64,
    /// Chooses buckets; the same on all nodes.
    pub flow_key: SipKey,
    /// Authenticate forwarded packets; the same on all nodes.
    pub tag_keys: [SipKey; TAG_KEYS],
    /// Source of this node's tunnelled packets over IPv4.
    pub address_v4: Address,
    /// Source of this node's tunnelled packets over IPv6.
    pub address_v6: Address,
    /// Makes every VIP's slot its own.
    pub vip_seed: u64,
    /// Time between SYNs of one source when it sends them for long; 0: no limit.
    pub syn_interval_ns: u64,
    /// How much time a source may be ahead of that.
    pub syn_burst_ns: u64,
    /// Who this node is.
    pub node: NodeId,
    /// UDP port of the tunnel.
    pub tunnel_port: u16,
    /// Largest IP packet that leaves.
    pub mtu: u16,
    /// Which of the tag keys signs.
    pub tag_key: u8,
    /// 1 where the list of sources is not empty.
    pub sources: u8,
    /// 1 where the cluster went on without this node: it keeps the connections that its stack has,
    /// and drops all else that is for our addresses.
    pub isolated: u8,
    pub reserved: [u8; 7],
}

/// All that steers, in the order in which a packet needs it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Table {
    pub settings: Settings,
    pub vips: [Vip; VIP_SLOTS],
    pub nodes: [Node; NODES_MAX],
    pub buckets: [Bucket; BUCKETS],
}

// SAFETY: `repr(C)`, made of integers; the asserts below show that no padding is between them.
unsafe impl Plain for Table {}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Bucket>() == 4 && size_of::<Service>() == 4);
    assert!(size_of::<Node>() == 24 && offset_of!(Node, ethernet) == 16);
    assert!(size_of::<Vip>() == 16 + 4 * SERVICES_MAX);
    assert!(offset_of!(Settings, flow_key) == 8 && offset_of!(Settings, tag_keys) == 24);
    assert!(offset_of!(Settings, address_v4) == 56 && offset_of!(Settings, vip_seed) == 88);
    assert!(offset_of!(Settings, node) == 112 && offset_of!(Settings, sources) == 119);
    assert!(offset_of!(Settings, isolated) == 120 && offset_of!(Settings, reserved) == 121);
    assert!(size_of::<Settings>() == 128);
    assert!(offset_of!(Table, vips) == 128);
    assert!(offset_of!(Table, nodes) == 128 + 48 * VIP_SLOTS);
    assert!(offset_of!(Table, buckets) == 128 + 48 * VIP_SLOTS + 24 * NODES_MAX);
    assert!(size_of::<Table>() == 128 + 48 * VIP_SLOTS + 24 * NODES_MAX + 4 * BUCKETS);
};

/// The slot that `address` has under `seed`.
#[inline(always)]
#[must_use]
pub const fn vip_slot(address: Address, seed: u64) -> usize {
    let first = address.first.wrapping_mul(seed.rotate_left(32) | 1);
    let second = address.second.wrapping_mul(seed | 1);
    ((first ^ second) >> 56) as usize
}

/// The bucket that a flow's hash falls into.
#[inline(always)]
#[must_use]
pub const fn bucket_of(hash: u64) -> usize {
    hash as usize & (BUCKETS - 1)
}
