//! Whether a lane moves bulk, so that splicing pays, or single messages, so that it does not.

use postern_relay::memory::RECEIVE_BYTES_MAX;

/// Bytes that a lane moves in receives that mostly come full before it is spliced.
const PROMOTE_BYTES: u64 = 256 * 1024;

/// The same after the driver declined once: it has no pipe left, and asking again drains the lane first.
const PROMOTE_AGAIN_BYTES: u64 = 4 * 1024 * 1024;

/// A receive counts as full when it brings this much; receives are cut at the buffer's end, so it is
/// well below a buffer.
const FULL_BYTES: u64 = 8 * 1024;

/// Splices in a row that move less than [`FULL_BYTES`] before the lane goes back to buffers.
const CHATTY_SPLICES: u32 = 16;

const _: () = assert!(FULL_BYTES * 4 <= RECEIVE_BYTES_MAX as u64);

/// What one lane moved lately.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    bytes: u64,
    receives: u64,
    promote_bytes: u64,
    /// Small splices in a row.
    chatty: u32,
}

impl Bulk {
    pub const NEW: Self = Self {
        bytes: 0,
        receives: 0,
        promote_bytes: PROMOTE_BYTES,
        chatty: 0,
    };

    pub fn received(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.receives += 1;
        if self.bytes < self.receives.saturating_mul(FULL_BYTES) {
            (self.bytes, self.receives) = (0, 0);
        }
    }

    /// Whether splicing would pay.
    #[must_use]
    pub fn is_bulky(&self) -> bool {
        self.bytes >= self.promote_bytes
    }

    /// The driver could have spliced and did not.
    pub fn declined(&mut self) {
        *self = Self {
            promote_bytes: PROMOTE_AGAIN_BYTES,
            ..Self::NEW
        };
    }

    pub fn spliced(&mut self, bytes: usize) {
        let small = (bytes as u64) < FULL_BYTES;
        self.chatty = if small {
            self.chatty.saturating_add(1)
        } else {
            0
        };
    }

    /// Whether splicing still pays.
    #[must_use]
    pub fn stays_spliced(&self) -> bool {
        self.chatty < CHATTY_SPLICES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(receives: &[(usize, usize)], bulky: bool) {
        let mut bulk = Bulk::NEW;
        for &(bytes, times) in receives {
            (0..times).for_each(|_| bulk.received(bytes));
        }
        assert_eq!(bulk.is_bulky(), bulky, "{receives:?}");
    }

    #[test]
    fn full_receives_make_a_lane_bulky_and_messages_do_not() {
        check(&[(16 * 1024, 15)], false);
        check(&[(16 * 1024, 16)], true);
        check(&[(64, 100_000)], false);
        check(&[(1400, 10_000)], false);
        // Messages before the bulk don't count against it for ever, nor for it.
        check(&[(64, 100_000), (64 * 1024, 4)], true);
        check(&[(64 * 1024, 3), (64, 10_000), (64 * 1024, 3)], false);
    }

    #[test]
    fn a_lane_that_was_declined_moves_more_before_it_is_bulky_again() {
        let mut bulk = Bulk::NEW;
        bulk.declined();
        (0..63).for_each(|_| bulk.received(64 * 1024));
        assert!(!bulk.is_bulky());
        bulk.received(64 * 1024);
        assert!(bulk.is_bulky());
    }

    #[test]
    fn small_splices_in_a_row_end_splicing() {
        let mut bulk = Bulk::NEW;
        (0..CHATTY_SPLICES - 1).for_each(|_| bulk.spliced(64));
        assert!(bulk.stays_spliced());
        bulk.spliced(64 * 1024);
        (0..CHATTY_SPLICES - 1).for_each(|_| bulk.spliced(64));
        assert!(bulk.stays_spliced());
        bulk.spliced(64);
        assert!(!bulk.stays_spliced());
    }
}
