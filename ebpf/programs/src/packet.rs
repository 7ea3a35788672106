//! Reading and writing a packet: every access is within bounds that the kernel's verifier can see.

use aya_ebpf::programs::XdpContext;

/// Bytes of the frame.
#[inline(always)]
pub fn frame_bytes(context: &XdpContext) -> u64 {
    (context.data_end() - context.data()) as u64
}

/// The `T` that begins `offset` bytes into the frame, if all of it is there.
#[inline(always)]
pub fn at<T: Wire>(context: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = context.data();
    if start + offset + size_of::<T>() > context.data_end() {
        return None;
    }
    Some((start + offset) as *mut T)
}

/// What may be read from and written to a packet at any place.
///
/// # Safety
/// The alignment is 1, there is no padding, and every bit pattern is a value.
pub unsafe trait Wire: Copy {}

// SAFETY: bytes.
unsafe impl<const N: usize> Wire for [u8; N] {}
