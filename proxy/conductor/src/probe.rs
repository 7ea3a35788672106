//! Tries the real service of a node: TCP, a TLS handshake, and a request that is answered.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A service that takes longer is of no use to anybody.
const PATIENCE: Duration = Duration::from_secs(2);

/// The status line is in here.
const ANSWER_BYTES_MAX: usize = 1024;

/// From here on the fault is the server's ([RFC 9110 §15.6]).
///
/// [RFC 9110 §15.6]: https://www.rfc-editor.org/rfc/rfc9110#section-15.6
const SERVER_ERROR: u16 = 500;

/// What is wrong with a service.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    #[error("no TLS")]
    Tls(#[source] std::io::Error),
    #[error("the connection broke")]
    Broken(#[source] std::io::Error),
    #[error("no answer of HTTP")]
    NotHttp,
    #[error("status {0}")]
    Status(u16),
    #[error("no answer in {} ms", PATIENCE.as_millis())]
    Late,
}

/// Tries services; a clone shares what it needs.
#[derive(Clone)]
pub struct Probe {
    connector: TlsConnector,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Probe").finish_non_exhaustive()
    }
}

impl Default for Probe {
    fn default() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring's provider has cipher suites of both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Self {
            connector: TlsConnector::from(Arc::new(config)),
        }
    }
}

impl Probe {
    /// True where the service at `address` works; its certificate is not judged.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn attempt(&self, address: SocketAddr) -> Result<(), ProbeError> {
        timeout(PATIENCE, self.request(address))
            .await
            .map_err(|_| ProbeError::Late)?
    }

    async fn request(&self, address: SocketAddr) -> Result<(), ProbeError> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(ProbeError::Connect)?;
        let name = ServerName::IpAddress(address.ip().into());
        let mut stream = self
            .connector
            .connect(name, stream)
            .await
            .map_err(ProbeError::Tls)?;
        let host = match address.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: postern-conductor\r\nConnection: close\r\n\r\n"
        );
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(ProbeError::Broken)?;
        let mut answer = Vec::new();
        while answer.len() < ANSWER_BYTES_MAX && status(&answer).is_none() {
            match stream.read_buf(&mut answer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(ProbeError::Broken(error)),
            }
        }
        match status(&answer) {
            Some(status) if status < SERVER_ERROR => Ok(()),
            Some(status) => Err(ProbeError::Status(status)),
            None => Err(ProbeError::NotHttp),
        }
    }
}

/// The status of `HTTP/1.x nnn …`.
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5)?;
    let is_whole = rest.get(1) == Some(&b' ') && digits.iter().all(u8::is_ascii_digit);
    is_whole.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// Takes any certificate. Whether the node serves is asked, not who it is: nothing secret is said, and
/// who could answer in its place could also answer in the place of its packets.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[test]
    fn a_status_is_three_digits_behind_the_version() {
        let check = |answer: &[u8], expected: Option<u16>| {
            assert_eq!(status(answer), expected, "{}", answer.escape_ascii());
        };
        check(b"HTTP/1.1 200 OK", Some(200));
        check(b"HTTP/1.0 503 ", Some(503));
        check(b"HTTP/1.1 20", None);
        check(b"HTTP/1.1 2x0 ", None);
        check(b"HTTP/2 200", None);
        check(b"SSH-2.0-", None);
        check(b"", None);
    }

    /// A service that answers every connection so.
    async fn service(answer: &'static [u8]) -> SocketAddr {
        let certified = rcgen::generate_simple_self_signed(["elsewhere.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_service_works_when_it_answers_with_less_than_500() {
        let check = async |answer: &'static [u8], expected: bool| {
            let outcome = Probe::default().attempt(service(answer).await).await;
            assert_eq!(outcome.is_ok(), expected, "{outcome:?}");
        };
        check(b"HTTP/1.1 200 OK\r\n\r\n", true).await;
        check(b"HTTP/1.1 421 Misdirected Request\r\n\r\n", true).await;
        check(b"HTTP/1.1 502 Bad Gateway\r\n\r\n", false).await;
        check(b"what?", false).await;
        check(b"", false).await;
    }

    #[tokio::test]
    async fn nobody_and_somebody_without_tls_do_not_work() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plain = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        });
        let probe = Probe::default();
        assert!(matches!(
            probe.attempt(address).await,
            Err(ProbeError::Tls(_))
        ));
        plain.await.unwrap();
        let outcome = probe.attempt(address).await;
        assert!(matches!(outcome, Err(ProbeError::Connect(_))));
    }
}
