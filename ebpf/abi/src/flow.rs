//! A flow: addresses, ports and protocol, and the keyed hash that steers it.

use crate::siphash::{SipKey, siphash13};

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d` ([RFC 4291 §2.5.5.2]): its 16 bytes as
/// they are on the wire, read as two words of this machine.
///
/// [RFC 4291 §2.5.5.2]: https://www.rfc-editor.org/rfc/rfc4291#section-2.5.5.2
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Address {
    pub first: u64,
    pub second: u64,
}

// SAFETY: two integers of the same size.
unsafe impl crate::Plain for Address {}

const _: () = assert!(size_of::<Address>() == 16);

/// The bytes `0 0 ff ff` before a mapped IPv4 address, as the low half of the second word.
const MAPPED: u64 = u32::from_ne_bytes([0, 0, 0xff, 0xff]) as u64;

impl Address {
    /// `::`, which is nobody's address.
    pub const NONE: Self = Self {
        first: 0,
        second: 0,
    };

    /// The address with these 16 bytes.
    #[must_use]
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self {
            first: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            second: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// The IPv4 address whose four bytes are those of `wire` in memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(wire: u32) -> Self {
        Self {
            first: 0,
            second: MAPPED | (wire as u64) << 32,
        }
    }

    /// Its 16 bytes.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.first.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.second.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The IPv4 address, if it is one: its four bytes as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn v4(self) -> Option<u32> {
        if self.first == 0 && self.second & 0xffff_ffff == MAPPED {
            Some((self.second >> 32) as u32)
        } else {
            None
        }
    }

    /// True where it is nobody's.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.first == 0 && self.second == 0
    }
}

/// Who speaks to whom. Seen from the packet that the client sent: the source is the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    pub destination_port: u16,
    /// As the IP header has it.
    pub protocol: u8,
}

impl Flow {
    /// The hash that chooses the bucket, the same on every node that has the key.
    ///
    /// Addresses are hashed as their bytes are on the wire, so nodes of one byte order agree; BPF
    /// objects of this project are little-endian.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, key: SipKey) -> u64 {
        let rest = (self.source_port as u64) << 48
            | (self.destination_port as u64) << 32
            | (self.protocol as u64);
        match (self.source.v4(), self.destination.v4()) {
            (Some(source), Some(destination)) => {
                siphash13(key, [source as u64 | (destination as u64) << 32, rest])
            }
            _ => siphash13(
                key,
                [
                    self.source.first,
                    self.source.second,
                    self.destination.first,
                    self.destination.second,
                    rest,
                ],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn an_ipv4_address_is_the_same_from_either_form() {
        let v4 = Ipv4Addr::new(192, 0, 2, 7);
        let mapped = Address::from_octets(v4.to_ipv6_mapped().octets());
        let wire = u32::from_ne_bytes(v4.octets());
        assert_eq!(mapped, Address::from_v4(wire));
        assert_eq!(mapped.v4(), Some(wire));
        assert_eq!(mapped.octets(), v4.to_ipv6_mapped().octets());
    }

    #[test]
    fn an_ipv6_address_is_not_an_ipv4_address() {
        for octets in [
            Ipv6Addr::LOCALHOST.octets(),
            Ipv6Addr::UNSPECIFIED.octets(),
            [0xff; 16],
        ] {
            assert_eq!(Address::from_octets(octets).v4(), None);
        }
    }

    #[test]
    fn every_part_of_a_flow_changes_its_hash() {
        let key = SipKey::from_bytes([7; 16]);
        let flow = Flow {
            source: Address::from_v4(1),
            destination: Address::from_v4(2),
            source_port: 3,
            destination_port: 4,
            protocol: 6,
        };
        let others = [
            Flow {
                source: Address::from_v4(9),
                ..flow
            },
            Flow {
                destination: Address::from_v4(9),
                ..flow
            },
            Flow {
                source_port: 9,
                ..flow
            },
            Flow {
                destination_port: 9,
                ..flow
            },
            Flow {
                protocol: 17,
                ..flow
            },
            Flow {
                source: Address::from_octets([9; 16]),
                ..flow
            },
        ];
        for other in others {
            assert_ne!(flow.hash(key), other.hash(key), "{other:?}");
        }
        assert_ne!(flow.hash(key), flow.hash(SipKey::ZERO));
    }
}
