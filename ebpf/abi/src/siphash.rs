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
    fn rounds(mut self, count: usize) -> Self {
        for _ in 0..count {
            self = self.round();
        }
        self
    }

    #[inline(always)]
    fn take<const C: usize>(self, word: u64) -> Self {
        let Self([v0, v1, v2, v3]) = self;
        let Self([v0, v1, v2, v3]) = Self([v0, v1, v2, v3 ^ word]).rounds(C);
        Self([v0 ^ word, v1, v2, v3])
    }
}

/// SipHash-1-3 of `words`, each as its eight little-endian bytes: spreads what others may choose.
#[inline(always)]
#[must_use]
pub fn siphash13<const N: usize>(key: SipKey, words: [u64; N]) -> u64 {
    siphash::<1, 3, N>(key, words)
}

/// SipHash-2-4 of `words`, each as its eight little-endian bytes: authenticates.
#[inline(always)]
#[must_use]
pub fn siphash24<const N: usize>(key: SipKey, words: [u64; N]) -> u64 {
    siphash::<2, 4, N>(key, words)
}

/// Jean-Philippe Aumasson, Daniel J. Bernstein: SipHash: a fast short-input PRF (2012), with `C`
/// rounds a word and `D` at the end.
#[inline(always)]
fn siphash<const C: usize, const D: usize, const N: usize>(key: SipKey, words: [u64; N]) -> u64 {
    let mut state = State::new(key);
    for word in words {
        state = state.take::<C>(word);
    }
    let bytes = N as u64 * 8;
    let State([v0, v1, v2, v3]) = state.take::<C>(bytes << 56);
    let State([v0, v1, v2, v3]) = State([v0, v1, v2 ^ 0xff, v3]).rounds(D);
    v0 ^ v1 ^ v2 ^ v3
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;
    use siphasher::sip::{SipHasher13, SipHasher24};

    use super::*;

    fn reference(mut hasher: impl core::hash::Hasher, words: &[u64]) -> u64 {
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
            let short = || SipHasher13::new_with_keys(low, high);
            prop_assert_eq!(siphash13(key, [a, b]), reference(short(), &[a, b]));
            prop_assert_eq!(siphash13(key, [a, b, c]), reference(short(), &[a, b, c]));
            prop_assert_eq!(siphash13(key, words), reference(short(), &words));
            let long = || SipHasher24::new_with_keys(low, high);
            prop_assert_eq!(siphash24(key, [a, b, c]), reference(long(), &[a, b, c]));
            prop_assert_eq!(siphash24(key, words), reference(long(), &words));
        }
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let key = SipKey::from_bytes(*b"0123456789abcdef");
        assert_eq!(std::format!("{key:?}"), "SipKey(…)");
    }
}
