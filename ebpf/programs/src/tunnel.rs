//! The way to another node: puts a packet into GUE over UDP, and takes it out.

use aya_ebpf::helpers::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::chain::{
    CHAIN_BYTES, Chain, GUE_BYTES, GUE_FIRST_BYTE, OVERHEAD_V4, OVERHEAD_V6, PROTOCOL_IPV4,
    PROTOCOL_IPV6,
};
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::table::{NODES_MAX, Node, NodeId, Settings, Table};
use postern_ebpf_abi::verdict::Verdict;

use crate::ip::{IPV4_BYTES, IPV6_BYTES, Ip, TYPE_IPV4, TYPE_IPV6, UDP, fold};
use crate::packet::{ETHERNET_BYTES, Link, Window};

/// Bytes of UDP, GUE and chain.
pub const TUNNEL_BYTES: usize = 8 + GUE_BYTES + CHAIN_BYTES;
/// Hops of IP that a tunnelled packet may take.
const TTL: u8 = 64;
/// Lowest of the 2^14 source ports that flows spread over ([RFC 6335 §6] calls them dynamic).
///
/// [RFC 6335 §6]: https://www.rfc-editor.org/rfc/rfc6335#section-6
const PORT_MIN: u16 = 0xc000;

/// Where `id` is, if it is anywhere.
#[inline(always)]
pub fn node(table: &Table, id: NodeId) -> Option<&Node> {
    let node = &table.nodes[id.0 as usize & (NODES_MAX - 1)];
    if id == NodeId::NOBODY || id.0 as usize >= NODES_MAX || node.address.is_none() {
        None
    } else {
        Some(node)
    }
}

/// What a packet is wrapped with.
pub struct Way {
    /// Hash of the flow.
    pub hash: u64,
    /// Whom it is sent to.
    pub hop: NodeId,
    /// Whom it may go on to.
    pub next: NodeId,
    /// How often it may be passed on.
    pub hops_left: u8,
    /// Generation of the table that steered it.
    pub generation: u64,
}

/// Why a packet is not put into a tunnel.
pub enum Refusal {
    /// There is room for so many bytes of an IP packet.
    TooBig(u16),
    Other(Verdict),
}

impl From<Refusal> for Verdict {
    #[inline(always)]
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooBig(_) => Self::TooBig,
            Refusal::Other(verdict) => verdict,
        }
    }
}

/// Puts the packet, whose header is `ip`, into a tunnel on its way to `way.hop`.
#[inline(always)]
pub fn wrap(context: &XdpContext, table: &Table, ip: &Ip, way: &Way) -> Result<(), Refusal> {
    let Some(node) = node(table, way.hop) else {
        return Err(Refusal::Other(Verdict::Unassigned));
    };
    let settings = &table.settings;
    match node.address.v4() {
        Some(to) => wrap_v4(context, settings, node, to, ip, way),
        None => wrap_v6(context, settings, node, ip, way),
    }
}

#[inline(always)]
fn wrap_v4(
    context: &XdpContext,
    settings: &Settings,
    node: &Node,
    to: u32,
    ip: &Ip,
    way: &Way,
) -> Result<(), Refusal> {
    const BYTES: usize = ETHERNET_BYTES + OVERHEAD_V4;
    let bytes = ip.bytes + OVERHEAD_V4 as u32;
    let link = lengthen(context, settings, bytes, OVERHEAD_V4)?;
    let Some(frame) = Window::<BYTES>::at(context, 0) else {
        return Err(Refusal::Other(Verdict::NoHeadroom));
    };
    towards(link, node).write(frame, TYPE_IPV4);
    let from = (settings.address_v4.second >> 32) as u32;
    let length = (bytes as u16).to_be();
    let (begin, fragment) = (0x0045_u16, 0x4000_u16.to_be());
    let life = u16::from_ne_bytes([TTL, UDP]);
    // One's complement sums are the same in either byte order.
    let sum = u64::from(begin) + u64::from(length) + u64::from(fragment) + u64::from(life);
    let checksum = !fold(sum + u64::from(from) + u64::from(to));
    frame.set_u16::<14>(begin);
    frame.set_u16::<16>(length);
    frame.set_u16::<18>(0);
    frame.set_u16::<20>(fragment);
    frame.set_u16::<22>(life);
    frame.set_u16::<24>(checksum);
    frame.set_u32::<26>(from);
    frame.set_u32::<30>(to);
    let Some(rest) = Window::<TUNNEL_BYTES>::at(context, ETHERNET_BYTES + IPV4_BYTES) else {
        return Err(Refusal::Other(Verdict::NoHeadroom));
    };
    write_tunnel(rest, settings, bytes - IPV4_BYTES as u32, ip.v6, way);
    Ok(())
}

#[inline(always)]
fn wrap_v6(
    context: &XdpContext,
    settings: &Settings,
    node: &Node,
    ip: &Ip,
    way: &Way,
) -> Result<(), Refusal> {
    const BYTES: usize = ETHERNET_BYTES + OVERHEAD_V6;
    let bytes = ip.bytes + OVERHEAD_V6 as u32;
    let link = lengthen(context, settings, bytes, OVERHEAD_V6)?;
    let Some(frame) = Window::<BYTES>::at(context, 0) else {
        return Err(Refusal::Other(Verdict::NoHeadroom));
    };
    towards(link, node).write(frame, TYPE_IPV6);
    let payload = bytes - IPV6_BYTES as u32;
    frame.set_u32::<14>(0x6000_0000_u32.to_be());
    frame.set_u16::<18>((payload as u16).to_be());
    frame.set_u16::<20>(u16::from_ne_bytes([UDP, TTL]));
    let from = settings.address_v6;
    frame.set_u64::<22>(from.first);
    frame.set_u64::<30>(from.second);
    frame.set_u64::<38>(node.address.first);
    frame.set_u64::<46>(node.address.second);
    let Some(rest) = Window::<TUNNEL_BYTES>::at(context, ETHERNET_BYTES + IPV6_BYTES) else {
        return Err(Refusal::Other(Verdict::NoHeadroom));
    };
    write_tunnel(rest, settings, payload, ip.v6, way);
    Ok(())
}

/// Makes room for `overhead` in front of the packet, which then has `bytes`; the Ethernet addresses
/// that it had.
#[inline(always)]
fn lengthen(
    context: &XdpContext,
    settings: &Settings,
    bytes: u32,
    overhead: usize,
) -> Result<Link, Refusal> {
    if bytes > u32::from(settings.mtu) {
        return Err(Refusal::TooBig(
            settings.mtu.saturating_sub(overhead as u16),
        ));
    }
    let Some(frame) = Window::<ETHERNET_BYTES>::at(context, 0) else {
        return Err(Refusal::Other(Verdict::Malformed));
    };
    let link = Link::read(frame);
    // SAFETY: the context is the program's own; every window is made anew after this.
    if unsafe { bpf_xdp_adjust_head(context.ctx, -(overhead as i32)) } != 0 {
        return Err(Refusal::Other(Verdict::NoHeadroom));
    }
    Ok(link)
}

/// To the node itself where it is on this link, otherwise back to the router.
#[inline(always)]
fn towards(link: Link, node: &Node) -> Link {
    let mut way = link.turned();
    let [a, b, c, d, e, f] = node.ethernet;
    let known = [
        u16::from_ne_bytes([a, b]),
        u16::from_ne_bytes([c, d]),
        u16::from_ne_bytes([e, f]),
    ];
    if known[0] | known[1] | known[2] != 0 {
        way.destination = known;
    }
    way
}

/// UDP without a checksum, as [RFC 6935 §5] lets tunnels over IPv6, too; GUE; the chain.
///
/// [RFC 6935 §5]: https://www.rfc-editor.org/rfc/rfc6935#section-5
#[inline(always)]
fn write_tunnel(
    to: Window<TUNNEL_BYTES>,
    settings: &Settings,
    bytes: u32,
    carries_v6: bool,
    way: &Way,
) {
    let port = PORT_MIN | (way.hash >> 48) as u16;
    to.set_u16::<0>(port.to_be());
    to.set_u16::<2>(settings.tunnel_port.to_be());
    to.set_u16::<4>((bytes as u16).to_be());
    to.set_u16::<6>(0);
    let protocol = if carries_v6 {
        PROTOCOL_IPV6
    } else {
        PROTOCOL_IPV4
    };
    to.set_u16::<8>(u16::from_ne_bytes([GUE_FIRST_BYTE, protocol]));
    to.set_u16::<10>(0);
    let key = settings.tag_key & 1;
    let path = [settings.node, way.hop, way.next];
    let chain = Chain::new(key, way.hops_left, path, way.generation)
        .signed(settings.tag_keys[key as usize], way.hash);
    to.set_u64::<12>(chain.way());
    to.set_u64::<20>(u64::from_ne_bytes(chain.generation));
    to.set_u64::<28>(u64::from_ne_bytes(chain.tag));
}

/// What a tunnelled packet says about itself.
pub struct Arrived {
    pub chain: Chain,
    pub carries_v6: bool,
}

/// Reads the headers of the tunnel behind the IP header `ip`.
#[inline(always)]
pub fn read(context: &XdpContext, settings: &Settings, ip: &Ip) -> Result<Arrived, Verdict> {
    if ip.refused.is_some() || !is_for(context, settings, ip) {
        return Err(Verdict::TunnelMalformed);
    }
    let Some(tunnel) = Window::<TUNNEL_BYTES>::at(context, ip.payload_at) else {
        return Err(Verdict::TunnelMalformed);
    };
    let payload = ip.bytes + ETHERNET_BYTES as u32 - ip.payload_at as u32;
    let protocol = tunnel.u8::<9>();
    let plain = tunnel.u8::<8>() == GUE_FIRST_BYTE && tunnel.u16::<10>() == 0;
    let carries = protocol == PROTOCOL_IPV4 || protocol == PROTOCOL_IPV6;
    if !plain || !carries || u32::from(tunnel.be16::<4>()) != payload {
        return Err(Verdict::TunnelMalformed);
    }
    let chain = Chain::from_words([tunnel.u64::<12>(), tunnel.u64::<20>(), tunnel.u64::<28>()]);
    Ok(Arrived {
        chain,
        carries_v6: protocol == PROTOCOL_IPV6,
    })
}

/// True where a packet is for this node's end of the tunnels.
#[inline(always)]
pub fn is_for(context: &XdpContext, settings: &Settings, ip: &Ip) -> bool {
    let own = if ip.v6 {
        settings.address_v6
    } else {
        settings.address_v4
    };
    if ip.protocol != UDP || ip.destination != own || own == Address::NONE {
        return false;
    }
    match Window::<8>::at(context, ip.payload_at) {
        Some(udp) => udp.be16::<2>() == settings.tunnel_port,
        None => false,
    }
}

/// Takes the packet out of the tunnel, whose outer IP header was `ip`.
#[inline(always)]
pub fn unwrap(context: &XdpContext, ip: &Ip, carries_v6: bool) -> Result<(), Verdict> {
    let Some(frame) = Window::<ETHERNET_BYTES>::at(context, 0) else {
        return Err(Verdict::TunnelMalformed);
    };
    let link = Link::read(frame);
    let overhead = if ip.v6 { OVERHEAD_V6 } else { OVERHEAD_V4 };
    // SAFETY: the context is the program's own; every window is made anew after this.
    if unsafe { bpf_xdp_adjust_head(context.ctx, overhead as i32) } != 0 {
        return Err(Verdict::TunnelMalformed);
    }
    let Some(frame) = Window::<ETHERNET_BYTES>::at(context, 0) else {
        return Err(Verdict::TunnelMalformed);
    };
    link.write(frame, if carries_v6 { TYPE_IPV6 } else { TYPE_IPV4 });
    Ok(())
}
