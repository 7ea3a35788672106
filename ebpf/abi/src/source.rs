//! Lists of sources: who is let in, who is not, and how many connections each may begin.

use crate::flow::Address;

/// Most prefixes in the list.
pub const SOURCES_MAX: u32 = 65_536;
/// Most sources whose SYNs are counted at a time; the one that was quiet longest is forgotten.
pub const SYN_SOURCES_MAX: u32 = 131_072;

/// Key of the list: an LPM key begins with the number of bits that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed)]
pub struct Prefix {
    /// Bits of the mapped address: those of an IPv4 prefix and 96.
    pub bits: u32,
    pub address: [u8; 16],
}

// SAFETY: packed, and made of integers.
unsafe impl crate::Plain for Prefix {}

const _: () = assert!(size_of::<Prefix>() == 20);

/// The list's value: what becomes of the sources under a prefix.
pub const ALLOW: u32 = 0;
/// Packets to our addresses are dropped.
pub const DENY: u32 = 1;

/// Who a limit of SYNs counts as one: an IPv4 address, or an IPv6 network of 64 bits, since a host
/// has all of that.
#[inline(always)]
#[must_use]
pub const fn limited_as(source: Address) -> Address {
    if source.first == 0 {
        source
    } else {
        Address {
            first: source.first,
            second: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_an_ipv6_network_count_as_one_and_ipv4_hosts_do_not() {
        let host = |last: u8| {
            let mut octets = [0x20; 16];
            octets[15] = last;
            Address::from_octets(octets)
        };
        assert_eq!(limited_as(host(1)), limited_as(host(2)));
        assert_ne!(
            limited_as(Address::from_v4(1)),
            limited_as(Address::from_v4(2))
        );
    }
}
