//! What is counted for every verdict.

/// Packets and their bytes, one for each verdict and CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    pub packets: u64,
    /// Bytes of the frames as they arrived.
    pub bytes: u64,
}

// SAFETY: two integers of the same size.
unsafe impl crate::Plain for Count {}

const _: () = assert!(size_of::<Count>() == 16);

impl Count {
    pub const ZERO: Self = Self {
        packets: 0,
        bytes: 0,
    };

    /// The sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}
