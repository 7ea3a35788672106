//! The ciphers of records, by whichever of two libraries is the faster on this machine.

use std::sync::OnceLock;

use aws_lc_rs::aead as aws_lc;
#[cfg(not(feature = "fips"))]
use ring::aead as ring;

use super::RecordError;

/// Bytes of the tag behind the ciphertext, the same for every cipher.
pub(super) const TAG_BYTES: usize = 16;

/// [RFC 8446 §5.3] Bytes of a nonce, the same for every cipher.
pub(super) const NONCE_BYTES: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// Who computes the ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    #[cfg(not(feature = "fips"))]
    Ring,
    AwsLc,
}

impl Library {
    /// What records are protected by in this process. aws-lc-rs wins where it has its newest code,
    /// and loses by half on processors that lack what that takes.
    #[must_use]
    pub fn in_use() -> Self {
        static CHOSEN: OnceLock<Library> = OnceLock::new();
        *CHOSEN.get_or_init(Self::fastest)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(not(feature = "fips"))]
            Self::Ring => "ring",
            Self::AwsLc => "aws-lc-rs",
        }
    }

    #[cfg(feature = "fips")]
    fn fastest() -> Self {
        Self::AwsLc
    }

    #[cfg(all(not(feature = "fips"), target_arch = "x86_64"))]
    fn fastest() -> Self {
        let is_newest = is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        match is_newest {
            true => Self::AwsLc,
            false => Self::Ring,
        }
    }

    #[cfg(all(not(feature = "fips"), not(target_arch = "x86_64")))]
    fn fastest() -> Self {
        Self::Ring
    }
}

/// A cipher with its key.
pub(super) enum Cipher {
    #[cfg(not(feature = "fips"))]
    Ring(Box<ring::LessSafeKey>),
    AwsLc(aws_lc::LessSafeKey),
}

impl Cipher {
    pub(super) fn new(
        library: Library,
        algorithm: Algorithm,
        key: &[u8],
    ) -> Result<Self, RecordError> {
        match library {
            #[cfg(not(feature = "fips"))]
            Library::Ring => {
                let algorithm = match algorithm {
                    Algorithm::Aes128Gcm => &ring::AES_128_GCM,
                    Algorithm::Aes256Gcm => &ring::AES_256_GCM,
                    Algorithm::Chacha20Poly1305 => &ring::CHACHA20_POLY1305,
                };
                let key = ring::UnboundKey::new(algorithm, key).map_err(|_| RecordError::Suite)?;
                Ok(Self::Ring(Box::new(ring::LessSafeKey::new(key))))
            }
            Library::AwsLc => {
                let algorithm = match algorithm {
                    Algorithm::Aes128Gcm => &aws_lc::AES_128_GCM,
                    Algorithm::Aes256Gcm => &aws_lc::AES_256_GCM,
                    Algorithm::Chacha20Poly1305 => &aws_lc::CHACHA20_POLY1305,
                };
                let key =
                    aws_lc::UnboundKey::new(algorithm, key).map_err(|_| RecordError::Suite)?;
                Ok(Self::AwsLc(aws_lc::LessSafeKey::new(key)))
            }
        }
    }

    /// Decrypts ciphertext and tag where they lie; the plaintext.
    pub(super) fn open<'a>(
        &self,
        nonce: [u8; NONCE_BYTES],
        additional: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], RecordError> {
        let plain = match self {
            #[cfg(not(feature = "fips"))]
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let plain = key.open_in_place(nonce, ring::Aad::from(additional), sealed);
                plain.map_err(|_| RecordError::Forged)?
            }
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let plain = key.open_in_place(nonce, aws_lc::Aad::from(additional), sealed);
                plain.map_err(|_| RecordError::Forged)?
            }
        };
        Ok(plain)
    }

    /// Encrypts the plaintext in `sealed` where it lies, all but the last [`TAG_BYTES`], which get the tag.
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        additional: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), RecordError> {
        let (plain, trailer) = sealed.split_at_mut(sealed.len() - TAG_BYTES);
        match self {
            #[cfg(not(feature = "fips"))]
            Self::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, ring::Aad::from(additional), plain);
                trailer.copy_from_slice(tag.map_err(|_| RecordError::Sealing)?.as_ref());
            }
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let tag =
                    key.seal_in_place_separate_tag(nonce, aws_lc::Aad::from(additional), plain);
                trailer.copy_from_slice(tag.map_err(|_| RecordError::Sealing)?.as_ref());
            }
        }
        Ok(())
    }

    /// As [`Self::seal`], but the plaintext stands in `sealed` for the first `length` bytes only. The
    /// rest is read from where it lies, without a copy where the library can do that.
    pub(super) fn seal_joined(
        &self,
        nonce: [u8; NONCE_BYTES],
        additional: &[u8],
        sealed: &mut [u8],
        length: usize,
        rest: &[u8],
    ) -> Result<(), RecordError> {
        match self {
            #[cfg(not(feature = "fips"))]
            Self::Ring(_) => {
                sealed[length..][..rest.len()].copy_from_slice(rest);
                self.seal(nonce, additional, sealed)
            }
            Self::AwsLc(key) => {
                let (plain, joined) = sealed.split_at_mut(length);
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let additional = aws_lc::Aad::from(additional);
                key.seal_in_place_scatter(nonce, additional, plain, rest, joined)
                    .map_err(|_| RecordError::Sealing)
            }
        }
    }
}

#[cfg(test)]
impl Algorithm {
    pub(super) const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];

    pub(super) fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }
}

#[cfg(all(test, not(feature = "fips")))]
mod tests {
    use super::*;

    #[test]
    fn both_libraries_seal_the_same_bytes_joined_or_not_and_open_each_other_s() {
        let rest: Vec<u8> = (0..5000u32).map(|at| at.to_le_bytes()[0]).collect();
        let (nonce, additional) = ([9; NONCE_BYTES], [4; 13]);
        for algorithm in Algorithm::ALL {
            let key: Vec<u8> = (1..).take(algorithm.key_bytes()).collect();
            let [ring, aws_lc] = [Library::Ring, Library::AwsLc]
                .map(|library| Cipher::new(library, algorithm, &key).expect("the key fits"));
            for (length, joined) in [(0, 1), (0, 5000), (10, 4990), (1, 16), (37, 0), (16, 700)] {
                let rest = &rest[..joined];
                let mut whole = [&vec![3; length], rest, &[0; TAG_BYTES]].concat();
                ring.seal(nonce, &additional, &mut whole).unwrap();
                for cipher in [&ring, &aws_lc] {
                    let mut sealed = vec![3; length + joined + TAG_BYTES];
                    cipher
                        .seal_joined(nonce, &additional, &mut sealed, length, rest)
                        .unwrap();
                    assert!(sealed == whole, "{algorithm:?} {length} {joined}");
                    let opened = cipher.open(nonce, &additional, &mut sealed).unwrap();
                    assert!(opened[..length] == vec![3; length] && opened[length..] == *rest);
                    let mut forged = whole.clone();
                    forged[0] ^= 1;
                    assert_eq!(
                        cipher.open(nonce, &additional, &mut forged),
                        Err(RecordError::Forged)
                    );
                }
            }
        }
    }
}
