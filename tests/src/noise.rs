//! Pseudo-random bytes that both ends of a relay can make and compare.

/// A stream of bytes that is the same for the same seed (xorshift64*).
#[derive(Debug, Clone)]
pub struct Noise {
    state: u64,
}

impl Noise {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed | 1 << 63,
        }
    }

    /// Fills `chunk` with what comes next. Chunks of whole 8 bytes make one stream.
    pub fn fill(&mut self, chunk: &mut [u8]) {
        for word in chunk.chunks_mut(8) {
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            let bytes = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}

/// What went over a stream: how much, and its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// Adds up a [`Digest`].
#[derive(Clone)]
pub struct Tally {
    bytes: u64,
    context: ring::digest::Context,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            bytes: 0,
            context: ring::digest::Context::new(&ring::digest::SHA256),
        }
    }
}

impl Tally {
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.context.update(bytes);
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    #[must_use]
    pub fn digest(self) -> Digest {
        let sha256 = self.context.finish();
        Digest {
            bytes: self.bytes,
            sha256: sha256
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        }
    }
}
