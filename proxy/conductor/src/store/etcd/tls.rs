//! Whom the store trusts to be etcd, and who it says that it is.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::Access;
use crate::store::StoreError;
use crate::store::limits::PEM_BYTES_MAX;

/// gRPC is spoken over HTTP/2 alone ([RFC 7540 §3.3]).
///
/// [RFC 7540 §3.3]: https://www.rfc-editor.org/rfc/rfc7540#section-3.3
const PROTOCOL: &[u8] = b"h2";

/// The TLS that `access` asks for. The system's certificate authorities are not asked: who may keep
/// the nodes' table is nothing that they know.
///
/// # Errors
/// A file is missing, can't be used, or others can read the key.
pub(super) fn configure(access: &Access) -> Result<Arc<ClientConfig>, StoreError> {
    let Some(ca_file) = &access.ca_file else {
        let why = "https to etcd needs the authority of its certificates (ca_file)";
        return Err(StoreError::Settings(why.to_owned()));
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_file)? {
        roots
            .add(certificate)
            .map_err(|error| file_error(ca_file, &error.to_string()))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .with_root_certificates(roots);
    let mut config = match (&access.certificate_file, &access.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate_file), Some(key_file)) => builder
            .with_client_auth_cert(certificates(certificate_file)?, private_key(key_file)?)
            .map_err(|error| file_error(certificate_file, &error.to_string()))?,
        _ => {
            let why = "a client certificate of etcd and its key go together";
            return Err(StoreError::Settings(why.to_owned()));
        }
    };
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let text = read(path, false)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| file_error(path, &error.to_string()))?;
    if certificates.is_empty() {
        return Err(file_error(path, "there is no certificate in it"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, StoreError> {
    let text = read(path, true)?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| file_error(path, "there is no private key in it"))
}

fn read(path: &Path, private: bool) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let in_words = |error: std::io::Error| file_error(path, &error.to_string());
    let file = File::open(path).map_err(in_words)?;
    let mode = file.metadata().map_err(in_words)?.mode() & 0o777;
    if private && mode & 0o077 != 0 {
        let why = format!(
            "others can read it (mode {mode:03o}); run: chmod 600 {}",
            path.display()
        );
        return Err(file_error(path, &why));
    }
    let mut text = Zeroizing::new(Vec::new());
    file.take(PEM_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(in_words)?;
    Ok(text)
}

fn file_error(path: &Path, why: &str) -> StoreError {
    StoreError::File {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}
