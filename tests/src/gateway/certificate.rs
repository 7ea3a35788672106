//! Certificates for gateways and targets under test.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::configuration::write_secret;
use crate::noise::Tally;

/// Writes a fresh `chain.pem` and `key.pem` for `names`; SHA-256 of the certificate.
///
/// # Errors
/// The files can't be written.
pub fn write_certificate(folder: &Path, names: &[String]) -> Result<String> {
    let certified = rcgen::generate_simple_self_signed(names)?;
    let key = certified.signing_key.serialize_pem();
    // The two are never seen apart: the key is new before the certificate names it.
    write_secret(&folder.join("key.pem"), key.as_bytes())?;
    let new = folder.join("chain.pem.new");
    std::fs::write(&new, certified.cert.pem())?;
    std::fs::rename(new, folder.join("chain.pem"))?;
    let mut tally = Tally::default();
    tally.add(certified.cert.der());
    Ok(tally.digest().sha256)
}

/// A certification authority that signs targets' certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// # Errors
    /// No certificate can be made.
    pub fn new() -> Result<Self> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        Ok(Self(CertifiedIssuer::self_signed(parameters, key)?))
    }

    /// Writes the root certificate into `folder`; its file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let file = folder.join("roots.pem");
        std::fs::write(&file, self.0.pem())?;
        Ok(file)
    }

    /// A certificate for one host name or address.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn issue(
        &self,
        name: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = KeyPair::generate()?;
        let parameters = CertificateParams::new(vec![name.to_owned()])?;
        let certificate = parameters.signed_by(&key, &self.0)?;
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((vec![certificate.der().clone()], der.into()))
    }
}
