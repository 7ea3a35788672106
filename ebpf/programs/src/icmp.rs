//! ICMP to one of our addresses: echo requests are answered, errors belong to the flow that they speak of.

use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::flow::{Address, Flow};
use postern_ebpf_abi::table::Settings;
use postern_ebpf_abi::verdict::Verdict;

use crate::ip::{IPV4_BYTES, IPV6_BYTES, Ip, TCP, TYPE_IPV4, TYPE_IPV6, UDP, updated_checksum};
use crate::packet::{ETHERNET_BYTES, Link, Window};
use crate::traffic::{Kind, Traffic};

/// Bytes of an ICMP header: what an error speaks of follows.
pub const ICMP_BYTES: usize = 8;
/// Hops that an answer may take.
const TTL: u8 = 64;

/// [RFC 792] ICMP: destination unreachable (with "fragmentation needed"), time exceeded, parameter
/// problem, and echo.
///
/// [RFC 792]: https://www.rfc-editor.org/rfc/rfc792
#[inline(always)]
pub fn v4(context: &XdpContext, settings: &Settings, ip: &Ip) -> Result<Traffic, Verdict> {
    let Some(header) = Window::<ICMP_BYTES>::at(context, ETHERNET_BYTES + IPV4_BYTES) else {
        return Err(Verdict::Malformed);
    };
    match header.u8::<0>() {
        8 if settings.isolated != 0 => Err(Verdict::Isolated),
        8 => Err(answer_v4(context)),
        3 | 11 | 12 => about_v4(context, ip),
        _ => Err(Verdict::IcmpUnhandled),
    }
}

/// [RFC 4443] ICMPv6: destination unreachable, packet too big, time exceeded, parameter problem,
/// and echo.
///
/// [RFC 4443]: https://www.rfc-editor.org/rfc/rfc4443
#[inline(always)]
pub fn v6(context: &XdpContext, settings: &Settings, ip: &Ip) -> Result<Traffic, Verdict> {
    let Some(header) = Window::<ICMP_BYTES>::at(context, ETHERNET_BYTES + IPV6_BYTES) else {
        return Err(Verdict::Malformed);
    };
    match header.u8::<0>() {
        128 if settings.isolated != 0 => Err(Verdict::Isolated),
        128 => Err(answer_v6(context)),
        1..=4 => about_v6(context, ip),
        _ => Err(Verdict::IcmpUnhandled),
    }
}

/// The flow that an error speaks of: it quotes the packet that we sent.
#[inline(always)]
fn about_v4(context: &XdpContext, ip: &Ip) -> Result<Traffic, Verdict> {
    const AT: usize = ETHERNET_BYTES + IPV4_BYTES + ICMP_BYTES;
    let Some(quoted) = Window::<28>::at(context, AT) else {
        return Err(Verdict::Malformed);
    };
    // Our stack sends neither options nor fragments, and only from our addresses.
    let whole = quoted.be16::<6>() & 0x3fff == 0;
    let ours = Address::from_v4(quoted.u32::<12>()) == ip.destination;
    if quoted.u8::<0>() != 0x45 || !whole || !ours {
        return Err(Verdict::Malformed);
    }
    about(Flow {
        source: Address::from_v4(quoted.u32::<16>()),
        destination: ip.destination,
        source_port: quoted.be16::<22>(),
        destination_port: quoted.be16::<20>(),
        protocol: quoted.u8::<9>(),
    })
}

#[inline(always)]
fn about_v6(context: &XdpContext, ip: &Ip) -> Result<Traffic, Verdict> {
    const AT: usize = ETHERNET_BYTES + IPV6_BYTES + ICMP_BYTES;
    let Some(quoted) = Window::<48>::at(context, AT) else {
        return Err(Verdict::Malformed);
    };
    let source = Address {
        first: quoted.u64::<8>(),
        second: quoted.u64::<16>(),
    };
    if quoted.u8::<0>() >> 4 != 6 || source != ip.destination {
        return Err(Verdict::Malformed);
    }
    about(Flow {
        source: Address {
            first: quoted.u64::<24>(),
            second: quoted.u64::<32>(),
        },
        destination: ip.destination,
        source_port: quoted.be16::<42>(),
        destination_port: quoted.be16::<40>(),
        protocol: quoted.u8::<6>(),
    })
}

#[inline(always)]
fn about(flow: Flow) -> Result<Traffic, Verdict> {
    let kind = match flow.protocol {
        TCP => Kind::Error,
        UDP => Kind::DatagramError,
        _ => return Err(Verdict::IcmpUnhandled),
    };
    Ok(Traffic { flow, kind })
}

/// Makes an echo request its own reply: addresses turned, type 0 for type 8.
#[inline(always)]
fn answer_v4(context: &XdpContext) -> Verdict {
    const BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + ICMP_BYTES;
    let (Some(frame), Some(link)) = (
        Window::<BYTES>::at(context, 0),
        Window::<ETHERNET_BYTES>::at(context, 0),
    ) else {
        return Verdict::Malformed;
    };
    Link::read(link).turned().write(frame, TYPE_IPV4);
    let (source, destination) = (frame.u32::<26>(), frame.u32::<30>());
    frame.set_u32::<26>(destination);
    frame.set_u32::<30>(source);
    let life = frame.u16::<22>();
    frame.set_u8::<22>(TTL);
    let header = updated_checksum(frame.u16::<24>(), life, frame.u16::<22>());
    frame.set_u16::<24>(header);
    let kind = frame.u16::<34>();
    frame.set_u8::<34>(0);
    let message = updated_checksum(frame.u16::<36>(), kind, frame.u16::<34>());
    frame.set_u16::<36>(message);
    Verdict::EchoAnswered
}

/// The same with types 128 and 129; turned addresses have the same sum.
#[inline(always)]
fn answer_v6(context: &XdpContext) -> Verdict {
    const BYTES: usize = ETHERNET_BYTES + IPV6_BYTES + ICMP_BYTES;
    let (Some(frame), Some(link)) = (
        Window::<BYTES>::at(context, 0),
        Window::<ETHERNET_BYTES>::at(context, 0),
    ) else {
        return Verdict::Malformed;
    };
    Link::read(link).turned().write(frame, TYPE_IPV6);
    let source = (frame.u64::<22>(), frame.u64::<30>());
    let destination = (frame.u64::<38>(), frame.u64::<46>());
    frame.set_u64::<22>(destination.0);
    frame.set_u64::<30>(destination.1);
    frame.set_u64::<38>(source.0);
    frame.set_u64::<46>(source.1);
    frame.set_u8::<21>(TTL);
    let kind = frame.u16::<54>();
    frame.set_u8::<54>(129);
    let message = updated_checksum(frame.u16::<56>(), kind, frame.u16::<54>());
    frame.set_u16::<56>(message);
    Verdict::EchoAnswered
}
