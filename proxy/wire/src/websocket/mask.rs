//! Masking [RFC 6455 §5.3]; the same operation masks and unmasks.

/// Bytes that are masked at once: LLVM turns a row of these into vectors. Those that every processor of the
/// architecture has are as fast as wider ones chosen at run time: memory is what takes the time
/// (`cargo xtask bench --only masking` has both).
const WORD: usize = size_of::<u128>();

/// Masks or unmasks `payload` in place, where `offset` is how far into its frame it begins.
pub fn unmask(payload: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let wide = u128::from_ne_bytes([a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<WORD>();
    for word in words {
        *word = (u128::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= mask;
    }
}
