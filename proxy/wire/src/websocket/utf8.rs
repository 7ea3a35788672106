//! UTF-8 over a stream [RFC 3629]: fails at the first byte that can't be right.

/// A validator that remembers the unfinished character between pieces.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Utf8 {
    unfinished: [u8; 4],
    /// INVARIANT: at most 3 between pieces.
    count: usize,
}

/// The stream is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotUtf8;

impl Utf8 {
    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), NotUtf8> {
        let mut rest = piece;
        while self.count > 0 {
            let Some((byte, after)) = rest.split_first() else {
                return Ok(());
            };
            rest = after;
            self.unfinished[self.count] = *byte;
            self.count += 1;
            match std::str::from_utf8(&self.unfinished[..self.count]) {
                Ok(_) => self.count = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(NotUtf8),
            }
        }
        let Err(error) = std::str::from_utf8(rest) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(NotUtf8);
        }
        let tail = &rest[error.valid_up_to()..];
        self.unfinished[..tail.len()].copy_from_slice(tail);
        self.count = tail.len();
        Ok(())
    }

    /// Ends the stream: no character may be unfinished.
    pub(super) fn finish(&mut self) -> Result<(), NotUtf8> {
        match std::mem::take(&mut self.count) {
            0 => Ok(()),
            _ => Err(NotUtf8),
        }
    }
}
