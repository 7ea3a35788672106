//! IPv4 and IPv6 headers, as far as steering reads them; what it does not follow is named.

use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::verdict::Verdict;

use crate::packet::{ETHERNET_BYTES, Window, frame_bytes};

/// Ethernet types, as they lie in memory.
pub const TYPE_IPV4: u16 = 0x0800_u16.to_be();
pub const TYPE_IPV6: u16 = 0x86dd_u16.to_be();

pub const IPV4_BYTES: usize = 20;
pub const IPV6_BYTES: usize = 40;

/// Numbers of protocols.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// An IP header without what makes it longer.
#[derive(Clone, Copy)]
pub struct Ip {
    pub source: Address,
    pub destination: Address,
    pub protocol: u8,
    pub v6: bool,
    /// Header and payload.
    pub bytes: u32,
    /// Where the payload begins in the frame.
    pub payload_at: usize,
    /// Why its payload is not read, if it is not.
    pub refused: Option<Verdict>,
}

/// Reads the IP header of a frame.
#[inline(always)]
pub fn read(context: &XdpContext) -> Result<Ip, Verdict> {
    let Some(frame) = Window::<ETHERNET_BYTES>::at(context, 0) else {
        return Err(Verdict::Malformed);
    };
    match frame.u16::<12>() {
        TYPE_IPV4 => read_v4(context),
        TYPE_IPV6 => read_v6(context),
        _ => Err(Verdict::NotIp),
    }
}

/// [RFC 791 §3.1] Internet header format.
///
/// [RFC 791 §3.1]: https://www.rfc-editor.org/rfc/rfc791#section-3.1
#[inline(always)]
fn read_v4(context: &XdpContext) -> Result<Ip, Verdict> {
    let Some(header) = Window::<IPV4_BYTES>::at(context, ETHERNET_BYTES) else {
        return Err(Verdict::Malformed);
    };
    let (begin, bytes) = (header.u8::<0>(), u32::from(header.be16::<2>()));
    let shortest = u32::from(begin & 0xf) * 4;
    let there = frame_bytes(context) - ETHERNET_BYTES as u64;
    if begin >> 4 != 4 || shortest < 20 || bytes < shortest || u64::from(bytes) > there {
        return Err(Verdict::Malformed);
    }
    // More fragments, or not the first.
    let refused = if header.be16::<6>() & 0x3fff != 0 {
        Some(Verdict::Fragment)
    } else if shortest != 20 {
        Some(Verdict::IpOptions)
    } else {
        None
    };
    Ok(Ip {
        source: Address::from_v4(header.u32::<12>()),
        destination: Address::from_v4(header.u32::<16>()),
        protocol: header.u8::<9>(),
        v6: false,
        bytes,
        payload_at: ETHERNET_BYTES + IPV4_BYTES,
        refused,
    })
}

/// [RFC 8200 §3] IPv6 header format; §4 lists the extension headers.
///
/// [RFC 8200 §3]: https://www.rfc-editor.org/rfc/rfc8200#section-3
#[inline(always)]
fn read_v6(context: &XdpContext) -> Result<Ip, Verdict> {
    let Some(header) = Window::<IPV6_BYTES>::at(context, ETHERNET_BYTES) else {
        return Err(Verdict::Malformed);
    };
    let bytes = u32::from(header.be16::<4>()) + IPV6_BYTES as u32;
    let there = frame_bytes(context) - ETHERNET_BYTES as u64;
    if header.u8::<0>() >> 4 != 6 || u64::from(bytes) > there {
        return Err(Verdict::Malformed);
    }
    let protocol = header.u8::<6>();
    let source = Address {
        first: header.u64::<8>(),
        second: header.u64::<16>(),
    };
    let destination = Address {
        first: header.u64::<24>(),
        second: header.u64::<32>(),
    };
    // A mapped IPv4 address is none of IPv6's on the wire: it would pass for a service over IPv4.
    if destination.v4().is_some() {
        return Err(Verdict::Malformed);
    }
    Ok(Ip {
        source,
        destination,
        protocol,
        v6: true,
        bytes,
        payload_at: ETHERNET_BYTES + IPV6_BYTES,
        refused: match protocol {
            44 => Some(Verdict::Fragment),
            // Hop-by-hop and destination options, routing, authentication, mobility, HIP, shim6.
            0 | 43 | 51 | 60 | 135 | 139 | 140 => Some(Verdict::Ipv6Extension),
            _ => None,
        },
    })
}

/// An Internet checksum after one of the words below it changed ([RFC 1624 §3], equation 3).
///
/// [RFC 1624 §3]: https://www.rfc-editor.org/rfc/rfc1624#section-3
#[inline(always)]
pub fn updated_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// The one's complement sum of 16-bit words, from a sum of them.
#[inline(always)]
pub fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}
