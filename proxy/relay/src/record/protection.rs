//! One direction's protection: the cipher's key, its initialisation vector, and the count of records.

use std::ops::Range;

use rustls::ConnectionTrafficSecrets;

use super::cipher::{Algorithm, Cipher, Library, NONCE_BYTES, TAG_BYTES};
use super::header::{Content, HEADER_BYTES, Header};
use super::{CHANGE_CIPHER_SPEC, PLAINTEXT_BYTES_MAX, RecordError};

/// [RFC 5288 §3] Bytes of the nonce that TLS 1.2 sends with every AES-GCM record.
pub(super) const EXPLICIT_NONCE_BYTES: usize = 8;

/// [RFC 8446 §5.2] Bytes of the content type that TLS 1.3 seals behind the plaintext.
pub(super) const INNER_CONTENT_BYTES: usize = 1;

/// [RFC 8446 §5.2, RFC 5246 §6.2.3] Bytes by which a ciphertext may be longer than a plaintext.
const EXPANSION_TLS13_MAX: usize = 256;
const EXPANSION_TLS12_MAX: usize = 2048;

/// [RFC 8446 §5.3] Records are counted up to here and never wrapped.
const SEQUENCE_MAX: u64 = u64::MAX - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// How a record looks on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// [RFC 8446 §5.2] The content type is sealed; the header is authenticated.
    Tls13,
    /// [RFC 5246 §6.2.3.3, RFC 5288 §3] Half the nonce is sent; number, type and length are authenticated.
    Tls12Gcm,
    /// [RFC 5246 §6.2.3.3, RFC 7905 §2] As before, but no part of the nonce is sent.
    Tls12ChaCha,
}

/// Bytes of [`Additional`], at most.
const ADDITIONAL_BYTES_MAX: usize = 13;

impl Layout {
    fn of(version: Version, algorithm: Algorithm) -> Self {
        match (version, algorithm) {
            (Version::Tls13, _) => Self::Tls13,
            (Version::Tls12, Algorithm::Chacha20Poly1305) => Self::Tls12ChaCha,
            (Version::Tls12, Algorithm::Aes128Gcm | Algorithm::Aes256Gcm) => Self::Tls12Gcm,
        }
    }
}

/// What is authenticated beside a record's ciphertext.
struct Additional {
    bytes: [u8; ADDITIONAL_BYTES_MAX],
    used: usize,
}

impl AsRef<[u8]> for Additional {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// Protects, or unprotects, the records of one direction under one key.
pub(super) struct Protection {
    cipher: Cipher,
    iv: [u8; NONCE_BYTES],
    sequence: u64,
    layout: Layout,
}

impl Protection {
    /// Protection that goes on at record number `sequence`.
    pub(super) fn new(
        version: Version,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Algorithm::Chacha20Poly1305, key, iv)
            }
            _ => return Err(RecordError::Suite),
        };
        Ok(Self {
            cipher: Cipher::new(Library::in_use(), algorithm, key.as_ref())?,
            iv: iv.as_ref().try_into().map_err(|_| RecordError::Suite)?,
            sequence,
            layout: Layout::of(version, algorithm),
        })
    }

    /// Records protected under this key so far.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where the plaintext of a record begins.
    pub(super) fn payload_start(&self) -> usize {
        match self.layout {
            Layout::Tls13 | Layout::Tls12ChaCha => HEADER_BYTES,
            Layout::Tls12Gcm => HEADER_BYTES + EXPLICIT_NONCE_BYTES,
        }
    }

    /// Bytes that follow a record's plaintext.
    pub(super) fn trailer_bytes(&self) -> usize {
        match self.layout {
            Layout::Tls13 => INNER_CONTENT_BYTES + TAG_BYTES,
            Layout::Tls12Gcm | Layout::Tls12ChaCha => TAG_BYTES,
        }
    }

    /// Judges a peer's record by its header, before its body is there.
    pub(super) fn admit(&self, header: &Header) -> Result<(), RecordError> {
        if header.content == Content::ChangeCipherSpec {
            return Err(CHANGE_CIPHER_SPEC);
        }
        let expansion_max = match self.layout {
            Layout::Tls13 if header.content != Content::ApplicationData => {
                return Err(RecordError::Unexpected("it is not protected"));
            }
            Layout::Tls13 => EXPANSION_TLS13_MAX,
            Layout::Tls12Gcm | Layout::Tls12ChaCha => EXPANSION_TLS12_MAX,
        };
        if header.length > PLAINTEXT_BYTES_MAX + expansion_max {
            return Err(RecordError::Oversized);
        }
        if HEADER_BYTES + header.length < self.payload_start() + self.trailer_bytes() {
            return Err(RecordError::Malformed("it is too short to be protected"));
        }
        Ok(())
    }

    /// Decrypts `record`, whose header was admitted, where it lies: what it carries, and where that is.
    pub(super) fn open(
        &mut self,
        header: &Header,
        record: &mut [u8],
    ) -> Result<(Content, Range<usize>), RecordError> {
        let start = self.payload_start();
        let nonce = match self.layout {
            Layout::Tls13 | Layout::Tls12ChaCha => self.nonce(),
            Layout::Tls12Gcm => {
                let mut nonce = self.iv;
                nonce[NONCE_BYTES - EXPLICIT_NONCE_BYTES..]
                    .copy_from_slice(&record[HEADER_BYTES..start]);
                nonce
            }
        };
        let sealed = &mut record[start..];
        let additional = self.additional(header, sealed.len() - TAG_BYTES);
        let plain = self.cipher.open(nonce, additional.as_ref(), sealed)?;
        let (content, length) = match self.layout {
            Layout::Tls13 => unpad(plain)?,
            Layout::Tls12Gcm | Layout::Tls12ChaCha => (header.content, plain.len()),
        };
        if length > PLAINTEXT_BYTES_MAX {
            return Err(RecordError::Oversized);
        }
        self.count()?;
        Ok((content, start..start + length))
    }

    /// Seals a record in `space`: its plaintext stands there already, `length` bytes from
    /// [`Self::payload_start`] on. How long the record has become.
    pub(super) fn seal(
        &mut self,
        content: Content,
        space: &mut [u8],
        length: usize,
    ) -> Result<usize, RecordError> {
        let end = self.payload_start() + length + self.trailer_bytes();
        let record = space.get_mut(..end).ok_or(RecordError::NoRoom)?;
        let (nonce, additional) = self.frame(content, record, length);
        if self.layout == Layout::Tls13 {
            record[end - TAG_BYTES - INNER_CONTENT_BYTES] = content as u8;
        }
        let sealed = &mut record[self.payload_start()..];
        let sealed = self.cipher.seal(nonce, additional.as_ref(), sealed);
        // The number is used up even when sealing failed: a nonce never serves twice.
        self.count()?;
        sealed.and(Ok(end))
    }

    /// Seals a record in `space` whose plaintext stands there for the first `length` bytes only; the
    /// rest is read where it lies, `place[rest]`, which spares a copy. A byte of `place` must follow
    /// the rest; it is the same before and after. How long the record has become.
    pub(super) fn seal_joined(
        &mut self,
        content: Content,
        space: &mut [u8],
        length: usize,
        place: &mut [u8],
        rest: Range<usize>,
    ) -> Result<usize, RecordError> {
        let whole = length + rest.len();
        let end = self.payload_start() + whole + self.trailer_bytes();
        let record = space.get_mut(..end).ok_or(RecordError::NoRoom)?;
        let (nonce, additional) = self.frame(content, record, whole);
        let behind = place[rest.end];
        let from = match self.layout {
            Layout::Tls13 => {
                place[rest.end] = content as u8;
                rest.start..rest.end + INNER_CONTENT_BYTES
            }
            Layout::Tls12Gcm | Layout::Tls12ChaCha => rest.clone(),
        };
        let sealed = &mut record[self.payload_start()..];
        let additional = additional.as_ref();
        let sealed = self
            .cipher
            .seal_joined(nonce, additional, sealed, length, &place[from]);
        place[rest.end] = behind;
        self.count()?;
        sealed.and(Ok(end))
    }

    /// Writes what stands before the ciphertext of the next `record`, which carries `length` bytes.
    fn frame(
        &self,
        content: Content,
        record: &mut [u8],
        length: usize,
    ) -> ([u8; NONCE_BYTES], Additional) {
        let nonce = self.nonce();
        let outer = match self.layout {
            Layout::Tls13 => Content::ApplicationData,
            Layout::Tls12Gcm => {
                record[HEADER_BYTES..][..EXPLICIT_NONCE_BYTES]
                    .copy_from_slice(&nonce[NONCE_BYTES - EXPLICIT_NONCE_BYTES..]);
                content
            }
            Layout::Tls12ChaCha => content,
        };
        let header = Header::ours(outer, record.len() - HEADER_BYTES);
        record[..HEADER_BYTES].copy_from_slice(&header.bytes);
        (nonce, self.additional(&header, length))
    }

    /// [RFC 8446 §5.3, RFC 7905 §2] The vector with the record's number in its last eight bytes.
    /// rustls makes the nonces of TLS 1.2 AES-GCM in this way, too, and has used the first of them.
    fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = self.iv;
        let number = self.sequence.to_be_bytes();
        for (byte, number) in nonce[NONCE_BYTES - number.len()..].iter_mut().zip(number) {
            *byte ^= number;
        }
        nonce
    }

    /// What is authenticated along with `length` bytes of plaintext.
    fn additional(&self, header: &Header, length: usize) -> Additional {
        let mut bytes = [0; ADDITIONAL_BYTES_MAX];
        let used = match self.layout {
            // [RFC 8446 §5.2]
            Layout::Tls13 => {
                bytes[..HEADER_BYTES].copy_from_slice(&header.bytes);
                HEADER_BYTES
            }
            // [RFC 5246 §6.2.3.3]
            Layout::Tls12Gcm | Layout::Tls12ChaCha => {
                let ours = Header::ours(header.content, length);
                bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
                bytes[8..11].copy_from_slice(&header.bytes[..3]);
                bytes[11..].copy_from_slice(&ours.bytes[3..]);
                ADDITIONAL_BYTES_MAX
            }
        };
        Additional { bytes, used }
    }

    fn count(&mut self) -> Result<(), RecordError> {
        if self.sequence >= SEQUENCE_MAX {
            return Err(RecordError::Exhausted);
        }
        self.sequence += 1;
        Ok(())
    }
}

/// [RFC 8446 §5.4] What an inner plaintext carries, and how long that is without type and padding.
fn unpad(plain: &[u8]) -> Result<(Content, usize), RecordError> {
    if plain.len() > PLAINTEXT_BYTES_MAX + INNER_CONTENT_BYTES {
        return Err(RecordError::Oversized);
    }
    let at = plain
        .iter()
        .rposition(|&byte| byte != 0)
        .ok_or(RecordError::Unexpected("it is padding and nothing else"))?;
    Ok((Content::parse(plain[at])?, at))
}

#[cfg(test)]
impl Protection {
    /// Protection under a key that tests know; as often as it is called, the same.
    pub(super) fn fixed(version: Version, algorithm: Algorithm) -> Self {
        let key: Vec<u8> = (1..).take(algorithm.key_bytes()).collect();
        Self {
            cipher: Cipher::new(Library::in_use(), algorithm, &key).expect("the key fits"),
            iv: [7; NONCE_BYTES],
            sequence: 0,
            layout: Layout::of(version, algorithm),
        }
    }

    pub(super) fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    /// Seals `plain` as it stands: in TLS 1.3 with the content type and padding that it ends in.
    pub(super) fn seal_as_it_stands(&mut self, outer: Content, plain: &[u8]) -> Vec<u8> {
        let nonce = self.nonce();
        let start = self.payload_start();
        let mut record = vec![0; start];
        record[HEADER_BYTES..].copy_from_slice(&nonce[NONCE_BYTES - (start - HEADER_BYTES)..]);
        record.extend_from_slice(plain);
        let header = Header::ours(outer, record.len() + TAG_BYTES - HEADER_BYTES);
        record[..HEADER_BYTES].copy_from_slice(&header.bytes);
        let additional = self.additional(&header, plain.len());
        record.extend_from_slice(&[0; TAG_BYTES]);
        self.cipher
            .seal(nonce, additional.as_ref(), &mut record[start..])
            .expect("it is short enough");
        self.sequence += 1;
        record
    }
}
