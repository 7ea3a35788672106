//! Masking [RFC 6455 §5.3]; the same operation masks and unmasks.

/// Bytes that are masked at once: LLVM turns a row of these into the widest vectors that it may use.
const WORD: usize = size_of::<u128>();

/// From so many bytes on the choice of vectors is worth its price, an indirect call.
const CHOOSE_BYTES_MIN: usize = 512;

/// Masks or unmasks `payload` in place, where `offset` is how far into its frame it begins.
///
/// Long payloads take the widest vectors that the processor has, found at run time; short ones those that
/// every processor of the architecture has, and what fills no vector goes byte by byte. (Memory is what takes
/// the time: `cargo xtask bench --only masking` has both kinds of vectors beside a plain copy.)
pub fn unmask(payload: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    if payload.len() >= CHOOSE_BYTES_MIN {
        mask_chosen(payload, key);
    } else {
        mask(payload, key);
    }
}

/// [`mask`], compiled for several kinds of processors.
#[multiversion::multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512vl",
    "x86_64+avx2",
    "aarch64+neon"
))]
fn mask_chosen(payload: &mut [u8], key: [u8; 4]) {
    mask(payload, key);
}

#[inline(always)]
fn mask(payload: &mut [u8], [a, b, c, d]: [u8; 4]) {
    let wide = u128::from_ne_bytes([a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<WORD>();
    for word in words {
        *word = (u128::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip([a, b, c, d].iter().cycle()) {
        *byte ^= mask;
    }
}
