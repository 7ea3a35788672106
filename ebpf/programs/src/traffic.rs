//! What a packet to one of our addresses is: a flow, and its place in the flow's life.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::flow::{Address, Flow};
use postern_ebpf_abi::table::{Settings, Table, Vip, vip_slot};
use postern_ebpf_abi::verdict::Verdict;

use crate::icmp;
use crate::ip::{ICMP, ICMPV6, Ip, TCP, UDP};
use crate::packet::Window;

/// Bits of TCP's flags.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Bytes of a TCP header without options.
pub const TCP_BYTES: usize = 20;

/// A packet's place in the life of its flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TCP connection begins.
    Syn,
    /// Any other TCP segment.
    Segment,
    /// UDP.
    Datagram,
    /// An ICMP error about something that we sent over TCP.
    Error,
    /// An ICMP error about something that we sent over UDP: nothing that makes a flow live.
    DatagramError,
}

/// A packet of a flow to one of our services.
#[derive(Clone, Copy)]
pub struct Traffic {
    pub flow: Flow,
    pub kind: Kind,
}

/// What stands at `address`, if it is one of ours.
#[inline(always)]
pub fn vip(table: &Table, address: Address) -> Option<&Vip> {
    let vip = &table.vips[vip_slot(address, table.settings.vip_seed)];
    if vip.address == address && !address.is_none() {
        Some(vip)
    } else {
        None
    }
}

/// The flow that a packet to `vip` belongs to, or the verdict about a packet of none.
#[inline(always)]
pub fn classify(
    context: &XdpContext,
    settings: &Settings,
    vip: &Vip,
    ip: &Ip,
) -> Result<Traffic, Verdict> {
    let traffic = match ip.protocol {
        TCP => segment(context, ip)?,
        UDP => datagram(context, ip)?,
        ICMP if !ip.v6 => icmp::v4(context, settings, ip)?,
        ICMPV6 if ip.v6 => icmp::v6(context, settings, ip)?,
        _ => return Err(Verdict::NotServed),
    };
    let Flow {
        destination_port,
        protocol,
        ..
    } = traffic.flow;
    if serves(vip, destination_port, protocol) {
        Ok(traffic)
    } else {
        Err(Verdict::NotServed)
    }
}

/// True where `vip` serves a port. Eight comparisons would be eight branches, and the verifier would
/// walk through what follows for each: so they are arithmetic, hidden from the optimiser.
#[inline(always)]
fn serves(vip: &Vip, port: u16, protocol: u8) -> bool {
    let mut found = 0;
    for service in &vip.services {
        let difference = u64::from(service.port ^ port) | u64::from(service.protocol ^ protocol);
        found |= hidden(difference).wrapping_sub(1) >> 63;
    }
    hidden(found) != 0 && protocol != 0
}

/// `value`, of which the optimiser knows nothing.
#[inline(always)]
fn hidden(mut value: u64) -> u64 {
    // SAFETY: changes nothing; the kernel refuses line information of no instruction at all.
    unsafe { asm!("{value} += 0", value = inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// [RFC 9293 §3.1] TCP header format.
///
/// [RFC 9293 §3.1]: https://www.rfc-editor.org/rfc/rfc9293#section-3.1
#[inline(always)]
fn segment(context: &XdpContext, ip: &Ip) -> Result<Traffic, Verdict> {
    let Some(header) = Window::<TCP_BYTES>::at(context, ip.payload_at) else {
        return Err(Verdict::Malformed);
    };
    let header_bytes = u32::from(header.u8::<12>() >> 4) * 4;
    let payload = ip.bytes + 14 - ip.payload_at as u32;
    if header_bytes < TCP_BYTES as u32 || payload < header_bytes {
        return Err(Verdict::Malformed);
    }
    let begins = header.u8::<13>() & (FIN | SYN | RST | ACK) == SYN;
    Ok(Traffic {
        flow: Flow {
            source: ip.source,
            destination: ip.destination,
            source_port: header.be16::<0>(),
            destination_port: header.be16::<2>(),
            protocol: TCP,
        },
        kind: if begins { Kind::Syn } else { Kind::Segment },
    })
}

/// [RFC 768] UDP.
///
/// [RFC 768]: https://www.rfc-editor.org/rfc/rfc768
#[inline(always)]
fn datagram(context: &XdpContext, ip: &Ip) -> Result<Traffic, Verdict> {
    let Some(header) = Window::<8>::at(context, ip.payload_at) else {
        return Err(Verdict::Malformed);
    };
    let bytes = u32::from(header.be16::<4>());
    if bytes < 8 || bytes > ip.bytes + 14 - ip.payload_at as u32 {
        return Err(Verdict::Malformed);
    }
    Ok(Traffic {
        flow: Flow {
            source: ip.source,
            destination: ip.destination,
            source_port: header.be16::<0>(),
            destination_port: header.be16::<2>(),
            protocol: UDP,
        },
        kind: Kind::Datagram,
    })
}
