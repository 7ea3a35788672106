//! Judges a target's certificate: pin, CA or first use. The web client judges nothing.

use std::sync::Arc;

use postern_access::Fingerprint;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// By what a target's leaf certificate is judged during the handshake.
#[derive(Debug)]
pub(crate) enum Judge {
    /// The leaf is one of these.
    Pins(Vec<Fingerprint>),
    /// The chain leads to a root and names the host.
    Roots(Arc<WebPkiServerVerifier>),
    /// Nothing is known of the target yet: the caller asks control before anything is sent.
    FirstUse,
}

/// A rustls verifier around a [`Judge`]. The proof of possession of the key is always checked.
#[derive(Debug)]
pub(crate) struct TargetVerifier {
    judge: Judge,
    provider: Arc<CryptoProvider>,
}

impl TargetVerifier {
    pub(crate) fn new(judge: Judge, provider: Arc<CryptoProvider>) -> Self {
        Self { judge, provider }
    }
}

impl Judge {
    /// # Errors
    /// When the roots can't be used.
    pub(crate) fn roots(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map(Self::Roots)
            .map_err(|error| error.to_string())
    }
}

impl ServerCertVerifier for TargetVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.judge {
            Judge::Pins(pins) if pins.contains(&Fingerprint::of(leaf)) => {
                Ok(ServerCertVerified::assertion())
            }
            Judge::Pins(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Judge::Roots(roots) => roots.verify_server_cert(leaf, intermediates, name, ocsp, now),
            Judge::FirstUse => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            leaf,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            leaf,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
