//! The cluster's secret: read from its file, and made into keys that each have one purpose.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use postern_ebpf_abi::siphash::SipKey;
use postern_steering::Seal;
use ring::hkdf;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize as _, Zeroizing};

use crate::ConductorError;

const SECRET_BYTES: usize = 32;

/// Longest file that is read: the digits, and room for line feeds.
const FILE_BYTES_MAX: u64 = 2 * SECRET_BYTES as u64 + 16;

/// Separates these keys from whatever else a secret may be used for.
const SALT: &[u8] = b"postern steering 1";

/// What all nodes of a cluster share. It never shows itself.
pub struct Secret {
    prk: hkdf::Prk,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Length of a derived key.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Secret {
    /// Reads the secret of `path`: 64 hex digits, in a file that only its owner can read.
    ///
    /// # Errors
    /// It can't be read, others can read it, or it is no secret.
    pub fn read(path: &Path) -> Result<Self, ConductorError> {
        let refused = |why: String| ConductorError::Secret {
            path: path.to_owned(),
            why,
        };
        let file = File::open(path).map_err(|error| refused(error.to_string()))?;
        let metadata = file
            .metadata()
            .map_err(|error| refused(error.to_string()))?;
        if metadata.mode() & 0o077 != 0 {
            let why = "others can read it: chmod 600".to_owned();
            return Err(refused(why));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| refused(error.to_string()))?;
        let mut bytes = digits(text.trim()).ok_or_else(|| {
            refused("it is not 64 hex digits; `postern steer secret` makes one".to_owned())
        })?;
        let secret = Self::new(&bytes);
        bytes.zeroize();
        Ok(secret)
    }

    /// The secret of these bytes ([RFC 5869 §2.2]).
    ///
    /// [RFC 5869 §2.2]: https://www.rfc-editor.org/rfc/rfc5869#section-2.2
    #[must_use]
    pub fn new(bytes: &[u8; SECRET_BYTES]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT);
        Self {
            prk: salt.extract(bytes),
        }
    }

    fn derive<const N: usize>(&self, label: &[u8]) -> [u8; N] {
        let mut key = [0; N];
        self.prk
            .expand(&[label], Length(N))
            .and_then(|okm| okm.fill(&mut key))
            .expect("a key is far shorter than 255 hashes");
        key
    }

    /// Seals every value of the store.
    #[must_use]
    pub fn store_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.derive(b"store"))
    }

    /// Seals tables.
    #[must_use]
    pub fn seal(&self) -> Seal {
        Seal::new(&Zeroizing::new(self.derive::<32>(b"table")))
    }

    /// Chooses buckets.
    #[must_use]
    pub fn flow_key(&self) -> SipKey {
        SipKey::from_bytes(self.derive(b"flow"))
    }

    /// Signs forwarded packets.
    #[must_use]
    pub fn tag_key(&self) -> SipKey {
        SipKey::from_bytes(self.derive(b"tag"))
    }
}

/// Makes a new secret's file, which must not be there yet.
///
/// # Errors
/// It is there, can't be written, or the system has no randomness.
pub fn make_secret(path: &Path) -> Result<(), ConductorError> {
    let failed = || ConductorError::file("secret", path);
    let mut bytes = Zeroizing::new([0_u8; SECRET_BYTES]);
    SystemRandom::new()
        .fill(&mut *bytes)
        .map_err(|_| ConductorError::Secret {
            path: path.to_owned(),
            why: "the system has no randomness".to_owned(),
        })?;
    let mut text = Zeroizing::new(String::with_capacity(2 * SECRET_BYTES + 1));
    for byte in bytes.iter() {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("four bits"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("four bits"));
    }
    text.push('\n');
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed())?;
    file.write_all(text.as_bytes()).map_err(failed())?;
    file.sync_all().map_err(failed())
}

fn digits(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let digits: Option<Zeroizing<Vec<u8>>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect::<Option<Vec<u8>>>()
        .map(Zeroizing::new);
    let digits = digits?;
    if digits.len() != 2 * SECRET_BYTES {
        return None;
    }
    let mut bytes = [0; SECRET_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_that_was_made_is_read_and_never_made_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        make_secret(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().len(), 64);
        let [one, two] = [(); 2].map(|()| Secret::read(&path).unwrap());
        assert!(one.flow_key() == two.flow_key());
        assert!(make_secret(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn what_others_can_read_or_is_no_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let check = |text: &str, mode: u32, why: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Secret::read(&path).expect_err("it is refused").to_string();
            assert!(error.contains(why), "{error}");
            assert!(
                text.trim().is_empty() || !error.contains(text.trim()),
                "{error}"
            );
        };
        let good = "0123456789abcdef".repeat(4);
        check(&good, 0o640, "chmod 600");
        check(&good, 0o604, "chmod 600");
        check("", 0o600, "64 hex digits");
        check(&good[1..], 0o600, "64 hex digits");
        check(&format!("{good}0"), 0o600, "64 hex digits");
        check(&good.replace('a', "g"), 0o600, "64 hex digits");
        std::fs::remove_file(&path).unwrap();
        assert!(Secret::read(&path).is_err());
    }

    #[test]
    fn each_purpose_has_a_key_of_its_own_and_none_shows() {
        let secret = Secret::new(&[7; 32]);
        assert!(secret.flow_key() != secret.tag_key());
        assert!(secret.flow_key() != Secret::new(&[8; 32]).flow_key());
        assert!(*secret.store_key() != secret.derive::<32>(b"table"));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
