//! The bytes that loads carry, so that either end can tell whether they arrived as they were sent.

use anyhow::{Result, ensure};

/// After so many bytes the pattern begins again: a multiple of what is written at once.
pub const PERIOD_BYTES: usize = 64 * 1024;

/// Bytes that are compared at both ends of a piece, where mistakes of framing show.
const EDGE_BYTES: usize = 64;

/// So often a piece is compared whole.
const WHOLE_EVERY: u64 = 64;

/// The pattern, and how far one connection is in it.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// Twice the period, so that a piece of up to a period never wraps.
    bytes: std::rc::Rc<[u8]>,
    at: usize,
    pieces: u64,
}

impl Default for Pattern {
    fn default() -> Self {
        // A linear congruential generator [Numerical Recipes]: noise that is the same at both ends.
        let mut state = 0x1234_5678_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let period: Vec<u8> = (0..PERIOD_BYTES).map(|_| noise()).collect();
        Self {
            bytes: period.repeat(2).into(),
            at: 0,
            pieces: 0,
        }
    }
}

impl Pattern {
    /// The same from its beginning.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            at: 0,
            pieces: 0,
        }
    }

    /// One period.
    #[must_use]
    pub fn period(&self) -> &[u8] {
        &self.bytes[..PERIOD_BYTES]
    }

    /// The next `bytes` bytes, at most a period, which are passed over.
    ///
    /// # Panics
    /// `bytes` is more than a period.
    pub fn next(&mut self, bytes: usize) -> &[u8] {
        assert!(bytes <= PERIOD_BYTES, "a piece is at most a period");
        let start = self.at;
        self.at = (self.at + bytes) % PERIOD_BYTES;
        &self.bytes[start..start + bytes]
    }

    /// Compares what arrived with what comes next: its edges always, all of it now and then.
    ///
    /// # Errors
    /// They differ.
    pub fn check(&mut self, arrived: &[u8]) -> Result<()> {
        for piece in arrived.chunks(PERIOD_BYTES) {
            let whole = self.pieces.is_multiple_of(WHOLE_EVERY) || piece.len() <= 2 * EDGE_BYTES;
            self.pieces += 1;
            let expected = self.next(piece.len());
            let same = if whole {
                piece == expected
            } else {
                let end = piece.len() - EDGE_BYTES;
                piece[..EDGE_BYTES] == expected[..EDGE_BYTES] && piece[end..] == expected[end..]
            };
            ensure!(same, "bytes did not arrive as they were sent");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_changed_bytes_are_noticed() {
        let stream = Pattern::default().period().repeat(2);
        let check = |stream: &[u8], cut: usize| {
            let mut pattern = Pattern::default();
            stream
                .chunks(cut)
                .try_for_each(|piece| pattern.check(piece))
        };
        for cut in [1, 100, 1000, 65_536, 100_000] {
            assert!(check(&stream, cut).is_ok(), "{cut}");
            assert!(check(&stream[1..], cut).is_err(), "{cut}");
            let lost = [&stream[..5000], &stream[5001..]].concat();
            assert!(check(&lost, cut).is_err(), "{cut}");
            let mut changed = stream.clone();
            changed[10] ^= 1;
            assert!(check(&changed, cut).is_err(), "{cut}");
        }
    }
}
