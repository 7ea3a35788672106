//! The server's self-signed certificate, made once and kept when there is a state folder.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, DnType, KeyPair};
use ring::digest;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const CERTIFICATE_FILE: &str = "desktop.pem";
const KEY_FILE: &str = "desktop.key";

/// A certificate, its key, and TLS that shows it.
pub struct Identity {
    config: Arc<ServerConfig>,
    public_key: Vec<u8>,
    certificate: CertificateDer<'static>,
}

impl Identity {
    /// Loads the certificate from `folder`, or makes one and keeps it there.
    pub fn load_or_make(folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else {
            let (certificate, key) = make()?;
            return Self::from_pem(&certificate, &key);
        };
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let (certificate_file, key_file) = (folder.join(CERTIFICATE_FILE), folder.join(KEY_FILE));
        if !(certificate_file.exists() && key_file.exists()) {
            let (certificate, key) = make()?;
            write_private(&key_file, &key)?;
            write_private(&certificate_file, &certificate)?;
        }
        let read = |file: &Path| {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
        };
        Self::from_pem(&read(&certificate_file)?, &read(&key_file)?)
    }

    fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let pair = KeyPair::from_pem(key).context("the key is not a PKCS #8 key")?;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .context("the certificate is not PEM")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the key is not PEM")?;
        let config =
            ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .context("no TLS version is supported")?
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], key)
                .context("the certificate does not fit the key")?;
        Ok(Self {
            config: Arc::new(config),
            public_key: pair.public_key_raw().to_vec(),
            certificate,
        })
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// The bits of `subjectPublicKey`, which CredSSP binds to [MS-CSSP §3.1.5].
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// SHA-256 of the certificate's DER in hex, as a pin is written.
    pub fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.certificate);
        digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

fn make() -> Result<(String, String)> {
    let key = KeyPair::generate().context("cannot make a key")?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).context("a name is not valid")?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Postern demo desktop");
    let certificate = params
        .self_signed(&key)
        .context("cannot sign the certificate")?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_keeps_the_certificate() {
        let folder = std::env::temp_dir().join(format!("postern-desktop-{}", std::process::id()));
        let first = Identity::load_or_make(Some(&folder)).unwrap();
        let second = Identity::load_or_make(Some(&folder)).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.fingerprint().len(), 64);
        assert_ne!(
            first.fingerprint(),
            Identity::load_or_make(None).unwrap().fingerprint()
        );
    }
}
