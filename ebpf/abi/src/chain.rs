//! The headers of a forwarded packet: Generic UDP Encapsulation with our chain of hops as its private data.

use crate::siphash::{SipKey, siphash24};
use crate::table::NodeId;

/// First word of the GUE header, without the inner protocol: version 0, no control message, six
/// words of private data ([draft-ietf-intarea-gue-09 §3.1]).
///
/// [draft-ietf-intarea-gue-09 §3.1]: https://datatracker.ietf.org/doc/html/draft-ietf-intarea-gue-09#section-3.1
pub const GUE_FIRST_BYTE: u8 = (CHAIN_BYTES / 4) as u8;
/// Bytes of the GUE header before its private data.
pub const GUE_BYTES: usize = 4;
/// Inner protocol of IPv4 in a tunnel.
pub const PROTOCOL_IPV4: u8 = 4;
/// Inner protocol of IPv6 in a tunnel.
pub const PROTOCOL_IPV6: u8 = 41;

/// Version of [`Chain`], in the upper half of its first byte; the key's number is in the lower half.
pub const CHAIN_VERSION: u8 = 1;
/// Bytes of a [`Chain`].
pub const CHAIN_BYTES: usize = size_of::<Chain>();
/// How often a TCP segment may be passed on after its first hop: to the second, which takes it.
pub const HOPS_MAX: u8 = 1;
/// How often a datagram may be: to the second, and back to the first, which takes what neither
/// remembers.
pub const DATAGRAM_HOPS_MAX: u8 = 2;

/// Bytes that the tunnel adds over IPv4: IP, UDP, GUE, chain.
pub const OVERHEAD_V4: usize = 20 + 8 + GUE_BYTES + CHAIN_BYTES;
/// Bytes that the tunnel adds over IPv6.
pub const OVERHEAD_V6: usize = 40 + 8 + GUE_BYTES + CHAIN_BYTES;

/// Where a packet goes and may go on to. All numbers are big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Chain {
    /// Version and number of the tag's key, four bits each.
    pub version_key: u8,
    /// How often it may still be passed on.
    pub hops_left: u8,
    /// Who sends it.
    pub sender: [u8; 2],
    /// Whom it is sent to.
    pub hop: [u8; 2],
    /// Whom it goes on to, or nobody.
    pub next: [u8; 2],
    /// Generation of the table that steered it.
    pub generation: [u8; 8],
    /// [`tag`] of the above and of the flow.
    pub tag: [u8; 8],
}

const _: () = assert!(size_of::<Chain>() == 24 && align_of::<Chain>() == 1);

impl Chain {
    /// A chain without its tag. Where nobody is next, no hops are left.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        key: u8,
        hops_left: u8,
        [sender, hop, next]: [NodeId; 3],
        generation: u64,
    ) -> Self {
        Self {
            version_key: CHAIN_VERSION << 4 | key & 0xf,
            hops_left: if next.0 == 0 { 0 } else { hops_left },
            sender: sender.0.to_be_bytes(),
            hop: hop.0.to_be_bytes(),
            next: next.0.to_be_bytes(),
            generation: generation.to_be_bytes(),
            tag: [0; 8],
        }
    }

    /// The chain whose 24 bytes these words hold, each as it lies in memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_words([way, generation, tag]: [u64; 3]) -> Self {
        let [version_key, hops_left, s0, s1, h0, h1, n0, n1] = way.to_ne_bytes();
        Self {
            version_key,
            hops_left,
            sender: [s0, s1],
            hop: [h0, h1],
            next: [n0, n1],
            generation: generation.to_ne_bytes(),
            tag: tag.to_ne_bytes(),
        }
    }

    /// Its first eight bytes as a word in memory.
    #[inline(always)]
    #[must_use]
    pub const fn way(&self) -> u64 {
        let [s0, s1] = self.sender;
        let [h0, h1] = self.hop;
        let [n0, n1] = self.next;
        u64::from_ne_bytes([self.version_key, self.hops_left, s0, s1, h0, h1, n0, n1])
    }

    /// Who sends it.
    #[inline(always)]
    #[must_use]
    pub const fn sender(&self) -> NodeId {
        NodeId(u16::from_be_bytes(self.sender))
    }

    /// Whom it is sent to.
    #[inline(always)]
    #[must_use]
    pub const fn hop(&self) -> NodeId {
        NodeId(u16::from_be_bytes(self.hop))
    }

    /// Whom it goes on to, or nobody.
    #[inline(always)]
    #[must_use]
    pub const fn next(&self) -> NodeId {
        NodeId(u16::from_be_bytes(self.next))
    }

    /// The same with its tag.
    #[inline(always)]
    #[must_use]
    pub fn signed(mut self, key: SipKey, flow_hash: u64) -> Self {
        self.tag = self.tag_for(key, flow_hash).to_be_bytes();
        self
    }

    /// The tag that it should have: of every field before it, and of the flow by its keyed hash.
    #[inline(always)]
    #[must_use]
    pub fn tag_for(&self, key: SipKey, flow_hash: u64) -> u64 {
        let generation = u64::from_be_bytes(self.generation);
        siphash24(key, [flow_hash, u64::from_be(self.way()), generation])
    }

    /// True where the tag is right.
    #[inline(always)]
    #[must_use]
    pub fn is_signed(&self, key: SipKey, flow_hash: u64) -> bool {
        u64::from_be_bytes(self.tag) == self.tag_for(key, flow_hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SipKey = SipKey { low: 1, high: 2 };

    #[test]
    fn a_changed_chain_is_not_signed() {
        let chain = Chain::new(1, 1, [NodeId(7), NodeId(8), NodeId(9)], 42).signed(KEY, 77);
        assert!(chain.is_signed(KEY, 77));
        assert!(!chain.is_signed(KEY, 78), "another flow");
        assert!(!chain.is_signed(SipKey::ZERO, 77), "another key");
        let changed = [
            Chain {
                version_key: 0x10,
                ..chain
            },
            Chain {
                hops_left: 0,
                ..chain
            },
            Chain {
                sender: [0, 1],
                ..chain
            },
            Chain {
                hop: [0, 1],
                ..chain
            },
            Chain {
                next: [0, 1],
                ..chain
            },
            Chain {
                generation: [0; 8],
                ..chain
            },
            Chain {
                tag: [0; 8],
                ..chain
            },
        ];
        for chain in changed {
            assert!(!chain.is_signed(KEY, 77), "{chain:?}");
        }
    }

    #[test]
    fn a_chain_without_a_next_hop_ends() {
        let chain = Chain::new(0, 1, [NodeId(1), NodeId(2), NodeId::NOBODY], 0);
        assert_eq!(chain.hops_left, 0);
    }
}
