//! TLS peers that shake hands in memory: rustls' own, and ones that gave their record layer away.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a part of the tests: every user takes what it needs"
)]

use std::sync::{Arc, LazyLock};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, ring};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::ConnectionState;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, ExtractedSecrets, RootCertStore,
    ServerConfig, ServerConnection, SupportedCipherSuite,
};

/// Every cipher in both versions.
pub const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

const NAME: &str = "target.example";

static IDENTITY: LazyLock<(CertificateDer<'static>, Vec<u8>)> = LazyLock::new(|| {
    let identity = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    (
        identity.cert.der().clone(),
        identity.signing_key.serialize_der(),
    )
});

/// A side whose handshake is over and whose record layer is ours.
pub struct Side<Data> {
    pub secrets: ExtractedSecrets,
    pub connection: KernelConnection<Data>,
    /// Bytes of the peer that its handshake left over.
    pub leftover: Vec<u8>,
}

pub type ServerSide = Side<ServerConnectionData>;
pub type ClientSide = Side<ClientConnectionData>;

/// One end of a handshake.
enum End {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
    Rustls(Connection),
}

/// Whether a step was taken, or what keeps it from being taken.
enum Step {
    Taken,
    Waits,
    Done,
}

pub fn is_tls13(suite: CipherSuite) -> bool {
    supported(suite).tls13().is_some()
}

/// A server of ours and rustls' client.
pub fn server(suite: CipherSuite) -> (ServerSide, Connection) {
    let (server, client) = shake(server_end(suite), rustls_client(suite));
    (server_side(server), rustls_peer(client))
}

/// A client of ours and rustls' server.
pub fn client(suite: CipherSuite) -> (ClientSide, Connection) {
    let (server, client) = shake(rustls_server(suite), client_end(suite));
    (client_side(client), rustls_peer(server))
}

/// A server and a client, both of ours.
pub fn both(suite: CipherSuite) -> (ServerSide, ClientSide) {
    let (server, client) = shake(server_end(suite), client_end(suite));
    (server_side(server), client_side(client))
}

fn supported(suite: CipherSuite) -> SupportedCipherSuite {
    let mut all = ring::ALL_CIPHER_SUITES.iter();
    *all.find(|supported| supported.suite() == suite).unwrap()
}

fn provider(suite: CipherSuite) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![supported(suite)],
        ..ring::default_provider()
    })
}

fn server_config(suite: CipherSuite) -> Arc<ServerConfig> {
    let (certificate, key) = IDENTITY.clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
    let mut config = ServerConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[supported(suite).version()])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.enable_secret_extraction = true;
    Arc::new(config)
}

fn client_config(suite: CipherSuite) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(IDENTITY.0.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[supported(suite).version()])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    Arc::new(config)
}

fn server_end(suite: CipherSuite) -> End {
    End::Server(UnbufferedServerConnection::new(server_config(suite)).unwrap())
}

fn client_end(suite: CipherSuite) -> End {
    let name = NAME.try_into().unwrap();
    End::Client(UnbufferedClientConnection::new(client_config(suite), name).unwrap())
}

fn rustls_server(suite: CipherSuite) -> End {
    let mut server = ServerConnection::new(server_config(suite)).unwrap();
    server.set_buffer_limit(None);
    End::Rustls(server.into())
}

fn rustls_client(suite: CipherSuite) -> End {
    let name = NAME.try_into().unwrap();
    let mut client = ClientConnection::new(client_config(suite), name).unwrap();
    client.set_buffer_limit(None);
    End::Rustls(client.into())
}

/// Runs a handshake; both ends, each with the bytes that it did not need.
fn shake(mut server: End, mut client: End) -> ((End, Vec<u8>), (End, Vec<u8>)) {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let (mut server_is_done, mut client_is_done) = (false, false);
    while !server_is_done || !client_is_done {
        if !client_is_done {
            client_is_done = client.advance(&mut to_client, &mut to_server);
        }
        if !server_is_done {
            server_is_done = server.advance(&mut to_server, &mut to_client);
        }
    }
    ((server, to_server), (client, to_client))
}

impl End {
    /// Does what `incoming` allows; whether the handshake is over.
    fn advance(&mut self, incoming: &mut Vec<u8>, outgoing: &mut Vec<u8>) -> bool {
        loop {
            let (discard, step) = match self {
                Self::Rustls(connection) => return advance_rustls(connection, incoming, outgoing),
                Self::Server(connection) => {
                    let status = connection.process_tls_records(incoming);
                    (status.discard, step(status.state.unwrap(), outgoing))
                }
                Self::Client(connection) => {
                    let status = connection.process_tls_records(incoming);
                    (status.discard, step(status.state.unwrap(), outgoing))
                }
            };
            incoming.drain(..discard);
            match step {
                Step::Taken => {}
                Step::Waits => return false,
                Step::Done => return true,
            }
        }
    }
}

fn step<Data>(state: ConnectionState<'_, '_, Data>, outgoing: &mut Vec<u8>) -> Step {
    match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let mut bytes = vec![0; 1 << 16];
            let length = data.encode(&mut bytes).unwrap();
            outgoing.extend_from_slice(&bytes[..length]);
            Step::Taken
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Step::Taken
        }
        ConnectionState::BlockedHandshake => Step::Waits,
        ConnectionState::WriteTraffic(_) => Step::Done,
        other => panic!("not a state of a handshake: {other:?}"),
    }
}

fn advance_rustls(
    connection: &mut Connection,
    incoming: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
) -> bool {
    let mut unread = incoming.as_slice();
    while !unread.is_empty() {
        connection.read_tls(&mut unread).unwrap();
        connection.process_new_packets().unwrap();
    }
    incoming.clear();
    while connection.wants_write() {
        connection.write_tls(outgoing).unwrap();
    }
    !connection.is_handshaking()
}

fn server_side((end, leftover): (End, Vec<u8>)) -> ServerSide {
    let End::Server(connection) = end else {
        panic!("it is a server of ours");
    };
    let (secrets, connection) = connection.dangerous_into_kernel_connection().unwrap();
    Side {
        secrets,
        connection,
        leftover,
    }
}

fn client_side((end, leftover): (End, Vec<u8>)) -> ClientSide {
    let End::Client(connection) = end else {
        panic!("it is a client of ours");
    };
    let (secrets, connection) = connection.dangerous_into_kernel_connection().unwrap();
    Side {
        secrets,
        connection,
        leftover,
    }
}

fn rustls_peer((end, mut leftover): (End, Vec<u8>)) -> Connection {
    let End::Rustls(mut connection) = end else {
        panic!("it is rustls");
    };
    let mut answer = Vec::new();
    advance_rustls(&mut connection, &mut leftover, &mut answer);
    assert!(answer.is_empty(), "nothing is to be said after a handshake");
    connection
}
