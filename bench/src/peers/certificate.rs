//! The one certificate that all relays show to clients.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::HOST;

/// A self-signed ECDSA P-256 certificate for [`HOST`], as PEM files.
#[derive(Debug)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Certificate and key in one file, as HAProxy wants it.
    pub both: PathBuf,
}

impl Certificate {
    /// # Errors
    /// The files can't be written.
    pub fn write(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let files = Self {
            chain: folder.join("chain.pem"),
            key: folder.join("key.pem"),
            both: folder.join("both.pem"),
        };
        let both = format!("{chain}{key}");
        for (file, text) in [
            (&files.chain, &chain),
            (&files.key, &key),
            (&files.both, &both),
        ] {
            write_secret(file, text)?;
        }
        Ok(files)
    }
}

/// Writes a file that its owner alone can read.
pub(super) fn write_secret(file: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}
