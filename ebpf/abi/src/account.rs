//! What `account` and its reader share: a flow's key, its counters, and what was lost.
//!
//! A flow is one end of a TCP connection of this machine: when both ends are local there are two,
//! each from its own view. Addresses are 16 bytes, IPv4 mapped (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2).

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::Plain;
use crate::flow::Address;

/// Who speaks with whom, seen from this end. Nine words, no more: a tenth would cost the kernel's
/// hash another round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct FlowKey {
    pub local: Address,
    pub remote: Address,
    /// The local port as it is on the wire, then the remote one: one word, since the kernel reads it
    /// as one, and waits when it was written in pieces.
    pub ports: u32,
}

// SAFETY: integers without padding between or after them, as asserted below.
unsafe impl Plain for FlowKey {}

impl FlowKey {
    /// The key of the connection between these two, as a socket's owner knows them.
    #[must_use]
    pub fn between(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: mapped(local.ip()),
            remote: mapped(remote.ip()),
            ports: ports(local.port().to_be(), remote.port().to_be()),
        }
    }

    #[must_use]
    pub fn local(&self) -> SocketAddr {
        canonical(self.local, u16::from_be(self.ports as u16))
    }

    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        canonical(self.remote, u16::from_be((self.ports >> 16) as u16))
    }
}

/// [`FlowKey::ports`] of two ports as they are on the wire, on this little-endian machine.
#[inline(always)]
#[must_use]
pub const fn ports(local: u16, remote: u16) -> u32 {
    local as u32 | (remote as u32) << 16
}

const _: () = assert!(cfg!(target_endian = "little"));

fn mapped(address: IpAddr) -> Address {
    Address::from_octets(match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    })
}

fn canonical(address: Address, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(address.octets()).to_canonical(), port)
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Direction {
    /// Packets on the wire: the segments that a GSO packet is cut into, those that GRO joined.
    pub packets: u64,
    /// IP packets with their headers, for every segment; the link's headers are not in here.
    pub wire_bytes: u64,
    /// Payload that these packets carried, what was carried again included.
    pub carried_bytes: u64,
    /// Positions that the stream has advanced: each byte once, and a FIN that was taken. To be read
    /// by [`FlowRecord::payload_in`] and [`FlowRecord::payload_out`].
    pub advanced: u64,
}

/// What is known of a flow.
///
/// What was sent advances by the sequence numbers of our own packets; what was received by the
/// acknowledgements in our own packets, and at the end by what the closing socket says: by
/// nothing that a peer can forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FlowRecord {
    /// Monotonic clock of the kernel's last tick, nanoseconds.
    pub first_ns: u64,
    /// As `first_ns`, of the last packet or change, or of the tick before.
    pub last_ns: u64,
    /// Towards this end.
    pub incoming: Direction,
    /// From this end.
    pub outgoing: Direction,
    /// Sequence number that is received next.
    pub incoming_next: u32,
    /// Sequence number that is sent next.
    pub outgoing_next: u32,
    /// Sequence number after the peer's FIN; only with `fin_in`.
    pub incoming_end: u32,
    /// The rest are marks, 0 or 1, each a byte of its own: two cores may set two of them at once.
    /// The flow was old when accounting began, or had been drained as idle: it lacks its beginning.
    pub adopted: u8,
    pub fin_in: u8,
    pub fin_out: u8,
    /// Either side sent a reset. A mark, no proof: the peer's may be forged.
    pub reset: u8,
    /// The socket is closed, and what it received is final.
    pub closed: u8,
    pub reserved: [u8; 3],
    /// The kernel's count of ticks when `last_ns` was written: the clock is read once a tick.
    pub last_tick: u32,
}

// SAFETY: integers without padding between or after them, as asserted below.
unsafe impl Plain for FlowRecord {}

const _: () = assert!(size_of::<FlowKey>() == 36 && align_of::<FlowKey>() == 4);
const _: () = assert!(size_of::<Direction>() == 32);
const _: () = assert!(size_of::<FlowRecord>() == 104 && align_of::<FlowRecord>() == 8);
const _: () = assert!(core::mem::offset_of!(FlowRecord, outgoing) == 48);
const _: () = assert!(core::mem::offset_of!(FlowRecord, incoming_next) == 80);
const _: () = assert!(core::mem::offset_of!(FlowRecord, adopted) == 92);
const _: () = assert!(core::mem::offset_of!(FlowRecord, last_tick) == 100);

impl FlowRecord {
    /// Bytes of the stream that this end received in order, each once.
    #[must_use]
    pub fn payload_in(&self) -> u64 {
        let fin = self.fin_in == 1 && self.incoming_next == self.incoming_end;
        self.incoming.advanced.saturating_sub(u64::from(fin))
    }

    /// Bytes of the stream that this end sent, each once, acknowledged or not.
    #[must_use]
    pub fn payload_out(&self) -> u64 {
        self.outgoing.advanced
    }

    /// Payload that came in more than once, or that the socket never took: behind a hole when the
    /// connection ended, out of the window, or without room.
    #[must_use]
    pub fn repeated_in(&self) -> u64 {
        self.incoming
            .carried_bytes
            .saturating_sub(self.payload_in())
    }

    /// Payload that was sent again.
    #[must_use]
    pub fn repeated_out(&self) -> u64 {
        self.outgoing
            .carried_bytes
            .saturating_sub(self.payload_out())
    }

    /// Whether its socket is closed. Nobody tells of one whose flow was adopted: there both sides'
    /// word has to do, or a reset's, and if it lives on it is adopted again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let said = self.reset == 1 || (self.fin_in == 1 && self.fin_out == 1);
        self.closed == 1 || (self.adopted == 1 && said)
    }
}

/// How far `position` is ahead of `from`: 0 when it is not. Sequence numbers wrap (RFC 9293 §3.4).
#[inline(always)]
#[must_use]
pub const fn ahead(position: u32, from: u32) -> u32 {
    let distance = position.wrapping_sub(from);
    if distance <= i32::MAX as u32 {
        distance
    } else {
        0
    }
}

/// What is in no flow's counters, summed over cores with wrapping: a core may take back what
/// another has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Loss {
    /// Connections that found no place in the map when they were established.
    pub flows: u64,
    /// Packets of connections that have no place.
    pub packets: u64,
    pub wire_bytes: u64,
    /// Payload towards this end that is missing in the flows. Counted by packet: what came twice
    /// ahead of a hole is counted twice.
    pub payload_in: u64,
    /// Payload from this end that is missing in the flows, each byte once.
    pub payload_out: u64,
    /// Flows that were closed, not drained yet, and found no place in the ring when their
    /// addresses and ports were used again. Their payload is in the fields above.
    pub replaced: u64,
}

/// Packets that belong to no connection: handshakes, resets to closed ports, other protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Apart {
    pub packets: u64,
    pub wire_bytes: u64,
}

/// One core's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Sums {
    pub lost: Loss,
    pub apart: Apart,
}

// SAFETY: words of the same size.
unsafe impl Plain for Sums {}

const _: () = assert!(size_of::<Sums>() == 64 && align_of::<Sums>() == 8);

impl Sums {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (a, b) = (self.lost, other.lost);
        Self {
            lost: Loss {
                flows: a.flows.wrapping_add(b.flows),
                packets: a.packets.wrapping_add(b.packets),
                wire_bytes: a.wire_bytes.wrapping_add(b.wire_bytes),
                payload_in: a.payload_in.wrapping_add(b.payload_in),
                payload_out: a.payload_out.wrapping_add(b.payload_out),
                replaced: a.replaced.wrapping_add(b.replaced),
            },
            apart: Apart {
                packets: self.apart.packets.wrapping_add(other.apart.packets),
                wire_bytes: self.apart.wire_bytes.wrapping_add(other.apart.wire_bytes),
            },
        }
    }
}

/// A flow that had to leave the map before it was drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Replaced {
    pub record: FlowRecord,
    pub key: FlowKey,
    pub reserved: u32,
}

// SAFETY: types without padding, and as many bytes between them as they are together.
unsafe impl Plain for Replaced {}

const _: () = assert!(size_of::<Replaced>() == 144 && align_of::<Replaced>() == 8);

/// Bytes of the ring of replaced flows: a power of two, a whole number of pages.
pub const REPLACED_BYTES: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_key_gives_back_the_addresses_it_was_made_of() {
        for (local, remote) in [
            ("192.0.2.1:443", "198.51.100.7:50000"),
            ("[2001:db8::1]:443", "[2001:db8::2]:1"),
        ] {
            let key = FlowKey::between(address(local), address(remote));
            assert_eq!(key.local(), address(local));
            assert_eq!(key.remote(), address(remote));
        }
        // A socket of both families shows IPv4 as mapped addresses: the same flow.
        assert_eq!(
            FlowKey::between(
                address("[::ffff:192.0.2.1]:443"),
                address("[::ffff:192.0.2.2]:5")
            ),
            FlowKey::between(address("192.0.2.1:443"), address("192.0.2.2:5")),
        );
    }

    #[test]
    fn sequence_numbers_advance_across_the_wrap_and_never_back() {
        for (position, from, expected) in [
            (5, 5, 0),
            (6, 5, 1),
            (5, 6, 0),
            (2, u32::MAX - 1, 4),
            (u32::MAX, 1, 0),
            (i32::MAX as u32, 0, i32::MAX as u32),
            (1 << 31, 0, 0),
        ] {
            assert_eq!(ahead(position, from), expected, "{position} from {from}");
        }
    }

    #[test]
    fn the_peers_fin_is_no_payload_once_it_was_taken() {
        let mut flow = FlowRecord {
            incoming: Direction {
                carried_bytes: 120,
                advanced: 100,
                ..Direction::default()
            },
            incoming_next: 1100,
            incoming_end: 1101,
            fin_in: 1,
            ..FlowRecord::default()
        };
        assert_eq!((flow.payload_in(), flow.repeated_in()), (100, 20));
        flow.incoming_next = 1101;
        flow.incoming.advanced = 101;
        assert_eq!((flow.payload_in(), flow.repeated_in()), (100, 20));
        // Without a FIN a position that equals a stale field is nothing special.
        flow.fin_in = 0;
        assert_eq!(flow.payload_in(), 101);
    }

    #[test]
    fn a_flow_is_over_when_its_socket_is_closed_or_cannot_say_so_and_both_sides_have() {
        let flow = FlowRecord::default();
        let fins = FlowRecord {
            fin_in: 1,
            fin_out: 1,
            ..flow
        };
        let reset = FlowRecord { reset: 1, ..flow };
        for (over, flow) in [
            (false, flow),
            (false, fins),
            (false, reset),
            (true, FlowRecord { closed: 1, ..flow }),
            (false, FlowRecord { adopted: 1, ..flow }),
            (
                false,
                FlowRecord {
                    adopted: 1,
                    fin_in: 0,
                    ..fins
                },
            ),
            (true, FlowRecord { adopted: 1, ..fins }),
            (
                true,
                FlowRecord {
                    adopted: 1,
                    ..reset
                },
            ),
        ] {
            assert_eq!(flow.is_over(), over, "{flow:?}");
        }
    }

    #[test]
    fn what_one_core_takes_back_from_another_cancels_out() {
        let counted = Sums {
            apart: Apart {
                packets: 3,
                wire_bytes: 120,
            },
            ..Sums::default()
        };
        let taken_back = Sums {
            apart: Apart {
                packets: 0u64.wrapping_sub(1),
                wire_bytes: 0u64.wrapping_sub(40),
            },
            ..Sums::default()
        };
        assert_eq!(
            counted.and(taken_back).apart,
            Apart {
                packets: 2,
                wire_bytes: 80
            }
        );
    }
}
