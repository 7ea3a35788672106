//! Bytes between two steps: appended at the end, taken from the start, no memory held while empty.

/// A queue of bytes. Its users bound it: nothing here does.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    start: usize,
}

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends what `write` puts into a space of `room` bytes.
    ///
    /// # Errors
    /// As `write` says; nothing is appended then.
    pub(super) fn append_with<E>(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.compact();
        let end = self.bytes.len();
        self.bytes.resize(end + room, 0);
        let written = write(&mut self.bytes[end..]);
        self.bytes
            .truncate(end + written.as_ref().map_or(0, |bytes| *bytes));
        written
    }

    /// The first `bytes` are done with; a queue that is empty then frees its memory.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(
            self.start <= self.bytes.len(),
            "no more is consumed than is there"
        );
        if self.is_empty() {
            *self = Self::default();
        }
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.compact();
        self.bytes
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
