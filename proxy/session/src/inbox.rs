//! Bytes that have arrived from a browser and are not consumed yet, in a buffer of fixed size.

use std::io;

use futures_lite::{AsyncRead, AsyncReadExt as _};

/// What one inbox holds: a request, or a piece of a frame.
pub(crate) const INBOX_BYTES: usize = 16 * 1024;

/// A buffer that is filled at its end and consumed at its start.
pub(crate) struct Inbox {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; INBOX_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// What has arrived and is not consumed.
    pub(crate) fn filled(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(
            self.start <= self.end,
            "no more is consumed than has arrived"
        );
    }

    /// Reads once; zero bytes mean that the peer has ended its side.
    ///
    /// # Errors
    /// As the stream says; `OutOfMemory` when the buffer is full, which a decoder that consumes
    /// payload as it arrives never lets happen.
    pub(crate) async fn fill<R: AsyncRead + Unpin>(&mut self, reader: &mut R) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let read = reader.read(&mut self.bytes[self.end..]).await?;
        self.end += read;
        Ok(read)
    }
}
