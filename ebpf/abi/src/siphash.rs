//! SipHash over 64-bit words: the hash that steers flows, and the tag that authenticates forwarded packets.

/// A secret key of SipHash.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SipKey {
    pub low: u64,
    pub high: u64,
}

// SAFETY: two integers of the same size.
unsafe impl crate::Plain for SipKey {}

impl SipKey {
    pub const ZERO: Self = Self { low: 0, high: 0 };

    /// The key that 16 random bytes make.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            low: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            high: u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        }
    }
}

impl core::fmt::Debug for SipKey {
    /// Keys are secrets.
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("SipKey(…)")
    }
}

struct State([u64; 4]);

impl State {
    #[inline(always)]
    const fn new(key: SipKey) -> Self {
        Self([
            key.low ^ 0x736f_6d65_7073_6575,
            key.high ^ 0x646f_7261_6e64_6f6d,
            key.low ^ 0x6c79_6765_6e65_7261,
            key.high ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self([mut v0, mut v1, mut v2, mut v3]) = self;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        Self([v0, v1, v2, v3])
    }

    #[inline(always)]
    const fn take(self, word: u64) -> Self {
        let Self([v0, v1, v2, v3]) = self;
        let Self([v0, v1, v2, v3]) = Self([v0, v1, v2, v3 ^ word]).round();
        Self([v0 ^ word, v1, v2, v3])
    }

    #[inline(always)]
    const fn end(self, bytes: u64) -> u64 {
        let Self([v0, v1, v2, v3]) = self.take(bytes << 56);
        let Self([v0, v1, v2, v3]) = Self([v0, v1, v2 ^ 0xff, v3]).round().round().round();
        v0 ^ v1 ^ v2 ^ v3
    }
}

/// SipHash-1-3 of `words`, each as its eight little-endian bytes.
///
/// Jean-Philippe Aumasson, Daniel J. Bernstein: SipHash: a fast short-input PRF (2012), with one
/// round a word and three at the end.
#[inline(always)]
#[must_use]
pub fn siphash13<const N: usize>(key: SipKey, words: [u64; N]) -> u64 {
    let mut state = State::new(key);
    for word in words {
        state = state.take(word);
    }
    state.end(N as u64 * 8)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::hash::Hasher as _;
    use proptest::prelude::*;

    use super::*;

    fn reference(key: SipKey, words: &[u64]) -> u64 {
        let mut hasher = siphasher::sip::SipHasher13::new_with_keys(key.low, key.high);
        for word in words {
            hasher.write(&word.to_le_bytes());
        }
        hasher.finish()
    }

    proptest! {
        #[test]
        fn hashes_are_those_of_an_independent_siphash(low: u64, high: u64, words: [u64; 6]) {
            let key = SipKey { low, high };
            let [a, b, c, ..] = words;
            prop_assert_eq!(siphash13(key, [a, b]), reference(key, &[a, b]));
            prop_assert_eq!(siphash13(key, [a, b, c]), reference(key, &[a, b, c]));
            prop_assert_eq!(siphash13(key, words), reference(key, &words));
        }
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let key = SipKey::from_bytes(*b"0123456789abcdef");
        assert_eq!(std::format!("{key:?}"), "SipKey(…)");
    }
}
