//! Tells a client that its packet is too big for the tunnel: ICMP, from the service's address, with the largest size that fits.

use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_ktime_get_coarse_ns, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::too_big::next_due_ns;
use postern_ebpf_abi::verdict::Verdict;

use crate::icmp::ICMP_BYTES;
use crate::ip::{ICMP, ICMPV6, IPV4_BYTES, IPV6_BYTES, Ip, TYPE_IPV4, TYPE_IPV6, fold};
use crate::packet::{ETHERNET_BYTES, Link, Window, frame_bytes};
use crate::traffic::Kind;

/// Bytes of an answer over IPv4 ([RFC 1812 §4.3.2.3]), and of an answer over IPv6, which quotes as
/// much as the smallest link carries ([RFC 4443 §3.2]).
///
/// [RFC 1812 §4.3.2.3]: https://www.rfc-editor.org/rfc/rfc1812#section-4.3.2.3
/// [RFC 4443 §3.2]: https://www.rfc-editor.org/rfc/rfc4443#section-3.2
const ANSWER_V4: usize = 576;
const ANSWER_V6: usize = 1280;

/// What of the packet is quoted.
const QUOTED_V4: usize = ANSWER_V4 - IPV4_BYTES - ICMP_BYTES;
const QUOTED_V6: usize = ANSWER_V6 - IPV6_BYTES - ICMP_BYTES;

/// What is put in front of it.
const FRONT_V4: usize = ETHERNET_BYTES + IPV4_BYTES + ICMP_BYTES;
const FRONT_V6: usize = ETHERNET_BYTES + IPV6_BYTES + ICMP_BYTES;

/// Most bytes that the kernel sums at once on every version.
const SUMMED_MAX: usize = 512;

const HOPS: u8 = 64;

/// When each core's next answer is due.
#[map]
static ANSWERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Makes the packet the answer to itself, if one is due: a tunnel leaves room for `mtu` bytes.
#[inline(always)]
pub fn answer(context: &XdpContext, ip: &Ip, kind: Kind, mtu: u16) -> Verdict {
    // Nobody answers an error, or what was sent to many.
    let error = kind == Kind::Error || kind == Kind::DatagramError;
    if error || is_group(context) || !is_host(ip.source) || !is_due() {
        return Verdict::TooBig;
    }
    if ip.v6 {
        answer_v6(context, mtu)
    } else {
        answer_v4(context, mtu)
    }
}

/// [RFC 792] destination unreachable, fragmentation needed, with the next hop's MTU of [RFC 1191 §4].
///
/// [RFC 792]: https://www.rfc-editor.org/rfc/rfc792
/// [RFC 1191 §4]: https://www.rfc-editor.org/rfc/rfc1191#section-4
#[inline(always)]
fn answer_v4(context: &XdpContext, mtu: u16) -> Verdict {
    const KIND: u16 = u16::from_ne_bytes([3, 4]);
    const REST: usize = QUOTED_V4 - SUMMED_MAX;
    let (Some(old), Some(first), Some(second)) = (
        Window::<{ ETHERNET_BYTES + IPV4_BYTES }>::at(context, 0),
        Window::<SUMMED_MAX>::at(context, ETHERNET_BYTES),
        Window::<REST>::at(context, ETHERNET_BYTES + SUMMED_MAX),
    ) else {
        return Verdict::TooBig;
    };
    // Without "don't fragment" nobody waits for an answer.
    if old.be16::<20>() & 0x4000 == 0 {
        return Verdict::TooBig;
    }
    let (client, vip) = (old.u32::<26>(), old.u32::<30>());
    let sum = sum(second, sum(first, u32::from(KIND) + u32::from(mtu.to_be())));
    let Some(link) = exchange(context, IPV4_BYTES + ICMP_BYTES, ETHERNET_BYTES + ANSWER_V4) else {
        return Verdict::NoHeadroom;
    };
    let Some(new) = Window::<FRONT_V4>::at(context, 0) else {
        return Verdict::NoHeadroom;
    };
    link.turned().write(new, TYPE_IPV4);
    // Precedence 6, as RFC 1812 §4.3.2.5 wants it of errors.
    let (begin, length) = (u16::from_ne_bytes([0x45, 0xc0]), (ANSWER_V4 as u16).to_be());
    let (fragment, life) = (0x4000_u16.to_be(), u16::from_ne_bytes([HOPS, ICMP]));
    let header = u64::from(begin) + u64::from(length) + u64::from(fragment) + u64::from(life);
    new.set_u16::<14>(begin);
    new.set_u16::<16>(length);
    new.set_u16::<18>(0);
    new.set_u16::<20>(fragment);
    new.set_u16::<22>(life);
    new.set_u16::<24>(!fold(header + u64::from(client) + u64::from(vip)));
    new.set_u32::<26>(vip);
    new.set_u32::<30>(client);
    new.set_u16::<34>(KIND);
    new.set_u16::<36>(!fold(u64::from(sum)));
    new.set_u16::<38>(0);
    new.set_u16::<40>(mtu.to_be());
    Verdict::TooBigAnswered
}

/// [RFC 4443 §3.2] packet too big.
///
/// [RFC 4443 §3.2]: https://www.rfc-editor.org/rfc/rfc4443#section-3.2
#[inline(always)]
fn answer_v6(context: &XdpContext, mtu: u16) -> Verdict {
    const KIND: u16 = u16::from_ne_bytes([2, 0]);
    const REST: usize = QUOTED_V6 - 2 * SUMMED_MAX;
    const PAYLOAD: u16 = (ANSWER_V6 - IPV6_BYTES) as u16;
    let (Some(old), Some(addresses), Some(first), Some(second), Some(third)) = (
        Window::<{ ETHERNET_BYTES + IPV6_BYTES }>::at(context, 0),
        Window::<32>::at(context, ETHERNET_BYTES + 8),
        Window::<SUMMED_MAX>::at(context, ETHERNET_BYTES),
        Window::<SUMMED_MAX>::at(context, ETHERNET_BYTES + SUMMED_MAX),
        Window::<REST>::at(context, ETHERNET_BYTES + 2 * SUMMED_MAX),
    ) else {
        return Verdict::TooBig;
    };
    let client = (old.u64::<22>(), old.u64::<30>());
    let vip = (old.u64::<38>(), old.u64::<46>());
    // The pseudo header of RFC 8200 §8.1 has the answer's addresses, which are the packet's.
    let begin = u32::from(KIND) + u32::from(mtu.to_be());
    let pseudo = u32::from(PAYLOAD.to_be()) + u32::from(u16::from(ICMPV6).to_be());
    let sum = sum(addresses, begin + pseudo);
    let sum = self::sum(third, self::sum(second, self::sum(first, sum)));
    let Some(link) = exchange(context, IPV6_BYTES + ICMP_BYTES, ETHERNET_BYTES + ANSWER_V6) else {
        return Verdict::NoHeadroom;
    };
    let Some(new) = Window::<FRONT_V6>::at(context, 0) else {
        return Verdict::NoHeadroom;
    };
    link.turned().write(new, TYPE_IPV6);
    new.set_u32::<14>(0x6000_0000_u32.to_be());
    new.set_u16::<18>(PAYLOAD.to_be());
    new.set_u16::<20>(u16::from_ne_bytes([ICMPV6, HOPS]));
    new.set_u64::<22>(vip.0);
    new.set_u64::<30>(vip.1);
    new.set_u64::<38>(client.0);
    new.set_u64::<46>(client.1);
    new.set_u16::<54>(KIND);
    new.set_u16::<56>(!fold(u64::from(sum)));
    new.set_u16::<58>(0);
    new.set_u16::<60>(mtu.to_be());
    Verdict::TooBigAnswered
}

/// Puts `front` bytes in front of the IP packet and cuts the frame off at `bytes`; the Ethernet
/// addresses that it had.
#[inline(always)]
fn exchange(context: &XdpContext, front: usize, bytes: usize) -> Option<Link> {
    let link = Link::read(Window::<ETHERNET_BYTES>::at(context, 0)?);
    // SAFETY: the context is the program's own; every window is made anew after this.
    if unsafe { bpf_xdp_adjust_head(context.ctx, -(front as i32)) } != 0 {
        return None;
    }
    let longer = bytes as i64 - frame_bytes(context) as i64;
    // SAFETY: as above.
    if unsafe { bpf_xdp_adjust_tail(context.ctx, longer as i32) } != 0 {
        return None;
    }
    Some(link)
}

/// Adds the 16-bit words of a window to a sum, which is as wide as the kernel's.
#[inline(always)]
fn sum<const BYTES: usize>(window: Window<BYTES>, begin: u32) -> u32 {
    const { assert!(BYTES % 4 == 0 && BYTES <= SUMMED_MAX) };
    // SAFETY: the window's bytes are in the packet, and nothing is read before it.
    let sum = unsafe {
        bpf_csum_diff(
            core::ptr::null_mut(),
            0,
            window.pointer(),
            BYTES as u32,
            begin,
        )
    };
    sum as u32
}

/// True where the frame was sent to more than one station.
#[inline(always)]
fn is_group(context: &XdpContext) -> bool {
    let frame = Window::<ETHERNET_BYTES>::at(context, 0);
    frame.is_none_or(|frame| frame.u8::<0>() & 1 != 0)
}

/// True where an address may be one host's ([RFC 1122 §3.2.2], [RFC 4443 §2.4] (e.6)).
///
/// [RFC 1122 §3.2.2]: https://www.rfc-editor.org/rfc/rfc1122#section-3.2.2
/// [RFC 4443 §2.4]: https://www.rfc-editor.org/rfc/rfc4443#section-2.4
#[inline(always)]
fn is_host(address: Address) -> bool {
    match address.v4() {
        Some(v4) => {
            let first = v4 as u8;
            first != 0 && first != 127 && first < 224
        }
        None => !address.is_none() && address.first as u8 != 0xff,
    }
}

#[inline(always)]
fn is_due() -> bool {
    let Some(due) = ANSWERS.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: reads the kernel's clock, and this CPU's entry of the map, which nothing else has now.
    let next = unsafe { next_due_ns(*due, bpf_ktime_get_coarse_ns()) };
    let Some(next) = next else {
        return false;
    };
    // SAFETY: as above.
    unsafe { *due = next };
    true
}
