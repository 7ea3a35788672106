//! TLS of the load: rustls' unbuffered API, fed by hand, at either end of a connection.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use postern_relay::Records;
use postern_tests::browserless::Anything;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CipherSuite, ClientConfig, HandshakeKind, ServerConfig};

use super::work::Groups;

/// Payload of the longest record.
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// What a record adds at most: header, content type, tag, and an explicit nonce in TLS 1.2.
const RECORD_OVERHEAD_BYTES: usize = 5 + 1 + 16 + 8;

/// One end of a TLS connection.
pub enum Tls {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What a look at received bytes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing more can be done without more bytes from the peer.
    Handshaking,
    Established,
    /// The peer said that it sends no more.
    Closed,
}

impl Tls {
    /// # Errors
    /// The name is none.
    pub fn client(config: &Arc<ClientConfig>, name: &str) -> Result<Self> {
        let name = ServerName::try_from(name.to_owned())?;
        let connection = UnbufferedClientConnection::new(config.clone(), name)?;
        Ok(Self::Client(connection))
    }

    /// # Errors
    /// The configuration is not one for a server.
    pub fn server(config: &Arc<ServerConfig>) -> Result<Self> {
        Ok(Self::Server(UnbufferedServerConnection::new(
            config.clone(),
        )?))
    }

    /// The record layer of this end, which rustls gives away after the handshake.
    ///
    /// # Errors
    /// The handshake is not over, or the record layer does not know the cipher.
    pub fn into_records(self) -> Result<Records> {
        Ok(match self {
            Self::Client(connection) => {
                let (secrets, connection) = connection.dangerous_into_kernel_connection()?;
                Records::client(secrets, connection)?
            }
            Self::Server(connection) => {
                let (secrets, connection) = connection.dangerous_into_kernel_connection()?;
                Records::server(secrets, connection)?
            }
        })
    }

    #[must_use]
    pub fn is_resumed(&self) -> bool {
        let kind = match self {
            Self::Client(connection) => connection.handshake_kind(),
            Self::Server(connection) => connection.handshake_kind(),
        };
        kind == Some(HandshakeKind::Resumed)
    }

    /// Reads the records at the start of `incoming`: payload goes to `sink`, what is to be sent is appended
    /// to `outgoing`. Returns how many bytes are done with.
    ///
    /// # Errors
    /// The peer breaks the protocol.
    pub fn read(
        &mut self,
        incoming: &mut [u8],
        outgoing: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<(usize, State)> {
        let mut used = 0;
        loop {
            let (discard, step) = match self {
                Self::Client(connection) => step(
                    connection.process_tls_records(&mut incoming[used..]),
                    outgoing,
                    sink,
                ),
                Self::Server(connection) => step(
                    connection.process_tls_records(&mut incoming[used..]),
                    outgoing,
                    sink,
                ),
            };
            used += discard;
            if let Some(state) = step? {
                return Ok((used, state));
            }
        }
    }

    /// Appends `payload` to `outgoing`, encrypted.
    ///
    /// # Errors
    /// The handshake is not over, or the connection is.
    pub fn write(&mut self, payload: &[u8], outgoing: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Client(connection) => {
                encrypt(connection.process_tls_records(&mut []), payload, outgoing)
            }
            Self::Server(connection) => {
                encrypt(connection.process_tls_records(&mut []), payload, outgoing)
            }
        }
    }
}

/// One state of the connection, dealt with; `None` when it must be asked again.
fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> (usize, Result<Option<State>>) {
    let mut discard = status.discard;
    let outcome = (|| match status.state? {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                discard += record.discard;
                sink(record.payload)?;
            }
            Ok(None)
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let filled = outgoing.len();
            let length = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(error)) => error.required_size,
                other => bail!("a handshake message of no length: {other:?}"),
            };
            outgoing.resize(filled + length, 0);
            data.encode(&mut outgoing[filled..])?;
            Ok(None)
        }
        ConnectionState::TransmitTlsData(transmit) => {
            // Whoever called sends what was appended before it reads again.
            transmit.done();
            Ok(None)
        }
        ConnectionState::BlockedHandshake => Ok(Some(State::Handshaking)),
        ConnectionState::WriteTraffic(_) => Ok(Some(State::Established)),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Some(State::Closed)),
        other => bail!("a state that is not expected: {other:?}"),
    })();
    (discard, outcome)
}

fn encrypt<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    payload: &[u8],
    outgoing: &mut Vec<u8>,
) -> Result<()> {
    let ConnectionState::WriteTraffic(mut traffic) = status.state? else {
        bail!("the connection takes no application data now");
    };
    let filled = outgoing.len();
    let records = payload.len().div_ceil(RECORD_BYTES_MAX);
    outgoing.resize(filled + payload.len() + records * RECORD_OVERHEAD_BYTES, 0);
    let written = traffic.encrypt(payload, &mut outgoing[filled..]);
    let written = written.map_err(|error: EncryptError| anyhow::anyhow!("{error}"))?;
    outgoing.truncate(filled + written);
    Ok(())
}

/// ring's ciphers, in the order and with the key exchange that browsers have today.
#[must_use]
pub fn provider(groups: Groups) -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    if groups == Groups::Browser {
        // Chromium and Firefox ask for AES-128 first.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        provider
            .kx_groups
            .insert(0, aws_lc_rs::kx_group::X25519MLKEM768);
    }
    provider
}

/// A client that takes any certificate: the bench looks at speed.
///
/// # Errors
/// The provider lacks a protocol version.
pub fn client_config(provider: CryptoProvider, resumed: bool) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.enable_secret_extraction = true;
    config.resumption = if resumed {
        Resumption::in_memory_sessions(1024)
    } else {
        Resumption::disabled()
    };
    Ok(Arc::new(config))
}

/// A server with a fresh certificate of its own, and the certificate.
///
/// # Errors
/// None can be made.
pub fn server_config(
    provider: CryptoProvider,
    name: &str,
) -> Result<(Arc<ServerConfig>, CertificateDer<'static>)> {
    let certified = rcgen::generate_simple_self_signed([name.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let certificate = certified.cert.der().clone();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::from(key))
        .context("a certificate of our own")?;
    config.enable_secret_extraction = true;
    Ok((Arc::new(config), certificate))
}

/// A client and a server that have shaken hands in memory.
///
/// # Errors
/// One of them refuses.
pub fn connected() -> Result<(Tls, Tls)> {
    let name = super::SERVER_NAME;
    let (server, _) = server_config(provider(Groups::Browser), name)?;
    let client = client_config(provider(Groups::Browser), false)?;
    let (mut client, mut server) = (Tls::client(&client, name)?, Tls::server(&server)?);
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let mut nothing = |_: &[u8]| Ok(());
    loop {
        let (used, client_state) = client.read(&mut to_client, &mut to_server, &mut nothing)?;
        to_client.drain(..used);
        let (used, server_state) = server.read(&mut to_server, &mut to_client, &mut nothing)?;
        to_server.drain(..used);
        let established = [client_state, server_state] == [State::Established; 2];
        if established && to_client.is_empty() && to_server.is_empty() {
            return Ok((client, server));
        }
    }
}
