//! What `account` reads of a packet: addresses, ports, sequence numbers, lengths.

use aya_ebpf::programs::{SkBuffContext, SockOpsContext};
use postern_ebpf_abi::account::{FlowKey, ports};
use postern_ebpf_abi::flow::Address;

/// A TCP segment, or several that travel the stack as one.
pub struct Packet {
    pub key: FlowKey,
    pub sequence: u32,
    pub acknowledged: u32,
    /// Bytes of all headers of one segment.
    pub headers: u32,
    pub payload: u32,
    pub segments: u32,
    flags: u8,
}

const TCP: u8 = 6;

/// Most extension headers of IPv6 before the TCP header; a packet with more is nobody's.
const EXTENSIONS_MAX: u32 = 4;

/// [RFC 8200 §4]: hop-by-hop options, routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// [RFC 9293 §3.1] Control bits.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// [RFC 791 §3.1] The header, without options.
#[repr(C)]
struct Ipv4 {
    version_and_words: u8,
    service: u8,
    bytes: u16,
    identification: u16,
    fragment: u16,
    hops: u8,
    protocol: u8,
    checksum: u16,
    from: u32,
    to: u32,
}

/// [RFC 8200 §3] The header. Its addresses are read as words: nothing aligns them.
#[repr(C)]
struct Ipv6 {
    version_class_label: u32,
    bytes: u16,
    next: u8,
    hops: u8,
    from: Address,
    to: Address,
}

/// [RFC 9293 §3.1] The header, without options.
#[repr(C)]
struct Tcp {
    from: u16,
    to: u16,
    sequence: u32,
    acknowledged: u32,
    words: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

const _: () = assert!(size_of::<Ipv4>() == 20 && size_of::<Ipv6>() == 40 && size_of::<Tcp>() == 20);

impl Packet {
    /// None for what is no TCP, or whose headers are not in one piece at its beginning.
    #[inline(always)]
    pub fn read(ctx: &SkBuffContext, incoming: bool) -> Option<Self> {
        let (from, to, offset) = match at::<Ipv4>(ctx, 0)?.version_and_words >> 4 {
            4 => ipv4(ctx)?,
            6 => ipv6(ctx)?,
            _ => return None,
        };
        let tcp = at::<Tcp>(ctx, offset)?;
        let headers = offset as u32 + u32::from(tcp.words >> 4) * 4;
        let payload = ctx.len().checked_sub(headers)?;
        let (local, remote, ports) = if incoming {
            (to, from, ports(tcp.to, tcp.from))
        } else {
            (from, to, ports(tcp.from, tcp.to))
        };
        Some(Self {
            key: FlowKey {
                local,
                remote,
                ports,
            },
            sequence: u32::from_be(tcp.sequence),
            acknowledged: u32::from_be(tcp.acknowledged),
            headers,
            payload,
            segments: segments(ctx, payload),
            flags: tcp.flags,
        })
    }

    /// Whether it is of a handshake's first two packets.
    #[inline(always)]
    pub fn begins(&self) -> bool {
        self.flags & SYN != 0
    }

    #[inline(always)]
    pub fn fin(&self) -> bool {
        self.flags & FIN != 0
    }

    #[inline(always)]
    pub fn rst(&self) -> bool {
        self.flags & RST != 0
    }

    /// The sequence number after its payload.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.payload)
    }

    /// Every segment has headers of its own, of the same length.
    #[inline(always)]
    pub fn wire_bytes(&self) -> u64 {
        u64::from(self.headers) * u64::from(self.segments) + u64::from(self.payload)
    }
}

/// Segments that a packet is on the wire: all but the last are `gso_size` long.
#[inline(always)]
fn segments(ctx: &SkBuffContext, payload: u32) -> u32 {
    // SAFETY: the kernel hands the program a valid packet.
    let size = unsafe { (*ctx.skb.skb).gso_size };
    if size == 0 || payload == 0 {
        return 1;
    }
    payload.div_ceil(size)
}

/// Source, destination, length of the header.
#[inline(always)]
fn ipv4(ctx: &SkBuffContext) -> Option<(Address, Address, usize)> {
    let header = at::<Ipv4>(ctx, 0)?;
    let length = usize::from(header.version_and_words & 0x0f) * 4;
    if length < size_of::<Ipv4>() || header.protocol != TCP {
        return None;
    }
    Some((
        Address::from_v4(header.from),
        Address::from_v4(header.to),
        length,
    ))
}

/// Source, destination, length of all headers before TCP.
#[inline(always)]
fn ipv6(ctx: &SkBuffContext) -> Option<(Address, Address, usize)> {
    let header = at::<Ipv6>(ctx, 0)?;
    let mut next = header.next;
    let mut offset = size_of::<Ipv6>();
    for _ in 0..EXTENSIONS_MAX {
        if !EXTENSIONS.contains(&next) {
            break;
        }
        let extension = at::<[u8; 2]>(ctx, offset)?;
        next = extension[0];
        offset += (usize::from(extension[1]) + 1) * 8;
    }
    (next == TCP).then_some((header.from, header.to, offset))
}

/// A piece of the packet, when it is there in one piece.
#[inline(always)]
fn at<T>(ctx: &SkBuffContext, offset: usize) -> Option<&T> {
    // SAFETY: reads two fields of a valid packet.
    let (data, end) = unsafe {
        (
            (*ctx.skb.skb).data as usize,
            (*ctx.skb.skb).data_end as usize,
        )
    };
    let start = data + offset;
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: inside of the packet, as just checked, and any bytes are a `T`: headers of plain
    // numbers. A BPF load needs no alignment where the kernel's verifier lets it pass.
    Some(unsafe { &*(start as *const T) })
}

/// An address of four words as they are on the wire.
#[inline(always)]
pub fn joined(words: [u32; 4]) -> Address {
    let [a, b, c, d] = words.map(u64::from);
    Address {
        first: a | b << 32,
        second: c | d << 32,
    }
}

/// Bytes of an IP packet without options that carries a segment of so many bytes.
#[inline(always)]
pub fn bytes_on_wire(key: &FlowKey, segment_bytes: u32) -> u64 {
    let header = match key.local.v4() {
        Some(_) => size_of::<Ipv4>(),
        None => size_of::<Ipv6>(),
    };
    u64::from(segment_bytes) + header as u64
}

/// Payload of the segment that a socket speaks of.
#[inline(always)]
pub fn payload_of(ctx: &SockOpsContext, segment_bytes: u32) -> u32 {
    // SAFETY: reads two fields of a context that is the program's for its length.
    let (data, end) = unsafe {
        (
            (*ctx.ops).__bindgen_anon_3.skb_data as usize,
            (*ctx.ops).__bindgen_anon_4.skb_data_end as usize,
        )
    };
    if data + 20 > end {
        return 0;
    }
    // SAFETY: inside of the segment's header, as just checked.
    let offset = unsafe { *((data + 12) as *const u8) } >> 4;
    segment_bytes.saturating_sub(u32::from(offset) * 4)
}
