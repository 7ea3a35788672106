//! Our stream against rustls' buffered connections, over a wire that a test can cut anywhere.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::Read as _;
use std::pin::pin;
use std::rc::Rc;
use std::task::Waker;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use postern_relay::memory::Queue;
use postern_relay::record::Opened;
use postern_relay::{Pool, Records};
use proptest::prelude::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConnection, RootCertStore, ServerConnection, SupportedProtocolVersion};

use super::*;
use crate::provider::towards_browsers;

const NAME: &str = "gateway.example";

/// Turns after which a conversation in which nothing moves is stuck.
const TURNS_MAX: usize = 400_000;

/// Bytes that the wire holds on their way to the peer.
const WIRE_BYTES: usize = 3000;

/// What lies between our socket and the peer.
struct Wire {
    to_us: VecDeque<u8>,
    from_us: VecDeque<u8>,
    /// Bytes that one read or write takes at most.
    piece: usize,
    /// Of `to_us`, what has arrived.
    gate: usize,
    /// The peer has ended its side; so have we.
    ended: bool,
    shut: bool,
    /// Bytes that went through to us, and which one of them is to be flipped.
    carried: usize,
    flip: Option<usize>,
}

#[derive(Clone)]
struct Socket(Rc<RefCell<Wire>>);

impl Socket {
    fn new(piece: usize) -> Self {
        Self(Rc::new(RefCell::new(Wire {
            to_us: VecDeque::new(),
            from_us: VecDeque::new(),
            piece,
            gate: usize::MAX,
            ended: false,
            shut: false,
            carried: 0,
            flip: None,
        })))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let room = buffer.len().min(wire.piece).min(wire.gate);
        let bytes: Vec<u8> = (0..room).map_while(|_| wire.to_us.pop_front()).collect();
        if bytes.is_empty() {
            return match wire.ended {
                true => Poll::Ready(Ok(0)),
                false => Poll::Pending,
            };
        }
        wire.gate -= bytes.len();
        buffer[..bytes.len()].copy_from_slice(&bytes);
        if let Some(flip) = wire.flip
            && (wire.carried..wire.carried + bytes.len()).contains(&flip)
        {
            buffer[flip - wire.carried] ^= 0x55;
        }
        wire.carried += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let taken = bytes
            .len()
            .min(wire.piece)
            .min(WIRE_BYTES - wire.from_us.len());
        wire.from_us.extend(&bytes[..taken]);
        match taken {
            0 => Poll::Pending,
            taken => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().shut = true;
        Poll::Ready(Ok(()))
    }
}

/// The other side: rustls as everybody uses it.
struct Peer {
    connection: rustls::Connection,
    received: Vec<u8>,
    error: Option<rustls::Error>,
    closed: bool,
}

impl Peer {
    /// Takes what we sent and sends what it has.
    fn turn(&mut self, socket: &Socket) {
        let mut wire = socket.0.borrow_mut();
        while !wire.from_us.is_empty() && self.error.is_none() {
            self.connection.read_tls(&mut wire.from_us).expect("memory");
            match self.connection.process_new_packets() {
                Ok(state) => self.closed |= state.peer_has_closed(),
                Err(error) => self.error = Some(error),
            }
            // All that has come was read: that is no end.
            let _ = self.connection.reader().read_to_end(&mut self.received);
        }
        while self.connection.wants_write() {
            self.connection.write_tls(&mut wire.to_us).expect("memory");
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        use std::io::Write as _;
        self.connection.set_buffer_limit(None);
        self.connection.writer().write_all(bytes).expect("memory");
    }
}

/// Which side we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

const SIDES: [Side; 2] = [Side::Server, Side::Client];
const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;
const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;

fn configs(version: &'static SupportedProtocolVersion) -> (ServerConfig, ClientConfig) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let mut server = ServerConfig::builder_with_provider(towards_browsers())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a key of the certificate");
    let mut client = ClientConfig::builder_with_provider(towards_browsers())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.enable_secret_extraction = true;
    client.enable_secret_extraction = true;
    (server, client)
}

fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a name")
}

fn peer_of(side: Side, server: ServerConfig, client: ClientConfig) -> Peer {
    let connection = match side {
        Side::Server => ClientConnection::new(Arc::new(client), name())
            .expect("a client")
            .into(),
        Side::Client => ServerConnection::new(Arc::new(server))
            .expect("a server")
            .into(),
    };
    Peer {
        connection,
        received: Vec::new(),
        error: None,
        closed: false,
    }
}

/// Runs `ours` and the peer by turns; none when it goes on waiting while nothing moves.
fn run<T>(socket: &Socket, peer: &mut Peer, ours: impl Future<Output = T>) -> Option<T> {
    let mut ours = pin!(ours);
    let state = |socket: &Socket| {
        let wire = socket.0.borrow();
        (wire.carried, wire.to_us.len())
    };
    let mut idle = 0;
    for _ in 0..TURNS_MAX {
        let before = state(socket);
        if let Poll::Ready(value) = ours.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            peer.turn(socket);
            return Some(value);
        }
        peer.turn(socket);
        idle = if state(socket) == before { idle + 1 } else { 0 };
        if idle > 3 * WIRE_BYTES {
            return None;
        }
    }
    panic!("a conversation without end");
}

async fn shake(
    side: Side,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    socket: Socket,
) -> io::Result<TlsStream<Socket>> {
    match side {
        Side::Server => accept(server, socket).await,
        Side::Client => connect(client, name(), socket).await,
    }
}

fn shaken(
    side: Side,
    configs: (ServerConfig, ClientConfig),
    piece: usize,
) -> (TlsStream<Socket>, Peer, Socket) {
    let (server, client) = configs;
    let socket = Socket::new(piece);
    let mut peer = peer_of(side, server.clone(), client.clone());
    let ours = shake(side, Arc::new(server), Arc::new(client), socket.clone());
    let stream = run(&socket, &mut peer, ours)
        .expect("ends")
        .expect("agrees");
    (stream, peer, socket)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn handshakes_and_data_come_through_in_pieces_of_any_size() {
    for side in SIDES {
        for version in [TLS12, TLS13] {
            for (piece, bytes) in [(1, 20_000), (7, 40_000), (4096, 300_000)] {
                let (mut stream, mut peer, socket) = shaken(side, configs(version), piece);
                let data = pattern(bytes);
                peer.say(&data);
                let mut heard = vec![0; bytes];
                let talk = async {
                    stream.write_all(&data).await?;
                    stream.flush().await?;
                    stream.read_exact(&mut heard).await
                };
                run(&socket, &mut peer, talk)
                    .expect("ends")
                    .expect("arrives");
                assert!(
                    peer.received == data && heard == data,
                    "{side:?} {version:?} {piece}"
                );
                assert_eq!(peer.error, None);
            }
        }
    }
}

#[test]
fn a_server_knows_what_it_was_asked_for_and_a_client_whom_it_talks_to() {
    for version in [TLS12, TLS13] {
        let (stream, _, _) = shaken(Side::Server, configs(version), 4096);
        assert_eq!(stream.server_name(), Some(NAME));
        let (stream, _, _) = shaken(Side::Client, configs(version), 4096);
        assert_eq!(stream.server_name(), None);
        let certificates = stream.agreed().peer_certificates().expect("a chain");
        assert_eq!(certificates.len(), 1);
        assert_eq!(stream.agreed().protocol_version(), Some(version.version));
    }
}

#[test]
fn a_client_that_names_nobody_is_served_without_a_name() {
    let (server, mut client) = configs(TLS13);
    client.enable_sni = false;
    let (stream, _, _) = shaken(Side::Server, (server, client), 4096);
    assert_eq!(stream.server_name(), None);
}

#[test]
fn a_waiting_stream_holds_no_buffer() {
    for side in SIDES {
        let (mut stream, mut peer, socket) = shaken(side, configs(TLS13), 4096);
        let data = pattern(50_000);
        peer.say(&data);
        let mut heard = vec![0; data.len()];
        let talk = async {
            stream.write_all(&data).await?;
            stream.flush().await?;
            stream.read_exact(&mut heard).await
        };
        run(&socket, &mut peer, talk)
            .expect("ends")
            .expect("arrives");
        let waits = run(&socket, &mut peer, stream.read(&mut [0; 1]));
        assert!(waits.is_none(), "{side:?}");
        let held = [&stream.incoming, &stream.outgoing, &stream.plaintext].map(Backlog::capacity);
        assert_eq!(held, [0; 3], "{side:?}");
    }
}

#[test]
fn a_good_bye_is_said_and_heard() {
    for side in SIDES {
        let (mut stream, mut peer, socket) = shaken(side, configs(TLS13), 4096);
        run(&socket, &mut peer, stream.close())
            .expect("ends")
            .expect("closes");
        assert!(peer.closed && socket.0.borrow().shut, "{side:?}");
        let late = run(&socket, &mut peer, stream.write(b"late")).expect("ends");
        assert_eq!(
            late.expect_err("is closed").kind(),
            io::ErrorKind::BrokenPipe
        );
        // Our good-bye ends our side alone.
        peer.say(b"last words");
        peer.connection.send_close_notify();
        let mut heard = Vec::new();
        run(&socket, &mut peer, stream.read_to_end(&mut heard))
            .expect("ends")
            .expect("ends well");
        assert_eq!(heard, b"last words");
        let again = run(&socket, &mut peer, stream.read(&mut [0; 1])).expect("ends");
        assert_eq!(again.expect("the end"), 0);
    }
}

#[test]
fn a_stream_that_ends_without_a_good_bye_is_an_error() {
    for side in SIDES {
        let (mut stream, mut peer, socket) = shaken(side, configs(TLS13), 4096);
        peer.say(b"cut");
        peer.turn(&socket);
        socket.0.borrow_mut().ended = true;
        let mut heard = Vec::new();
        let end = run(&socket, &mut peer, stream.read_to_end(&mut heard)).expect("ends");
        assert_eq!(
            end.expect_err("is cut").kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(heard, b"cut", "{side:?}");
    }
}

#[test]
fn a_forged_record_ends_it_with_an_alert() {
    for side in SIDES {
        let (mut stream, mut peer, socket) = shaken(side, configs(TLS13), 4096);
        let mut heard = [0; 5];
        peer.say(b"first");
        run(&socket, &mut peer, stream.read_exact(&mut heard))
            .expect("ends")
            .expect("arrives");
        peer.say(b"second");
        {
            let mut wire = socket.0.borrow_mut();
            wire.flip = Some(wire.carried + 7);
        }
        for _ in 0..2 {
            let error = run(&socket, &mut peer, stream.read(&mut heard)).expect("ends");
            let error = error.expect_err("is forged");
            let inner = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>());
            assert_eq!(inner, Some(&rustls::Error::DecryptError), "{side:?}");
        }
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(peer.error, Some(alert), "{side:?}");
    }
}

#[test]
fn a_server_that_is_somebody_else_is_refused_with_an_alert() {
    let (server, _) = configs(TLS13);
    let (_, client) = configs(TLS13);
    let socket = Socket::new(4096);
    let mut peer = peer_of(Side::Client, server, client.clone());
    let ours = connect(Arc::new(client), name(), socket.clone());
    let error = run(&socket, &mut peer, ours)
        .expect("ends")
        .err()
        .expect("is refused");
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert!(
        matches!(inner, Some(rustls::Error::InvalidCertificate(_))),
        "{error}"
    );
    assert!(
        matches!(peer.error, Some(rustls::Error::AlertReceived(_))),
        "{:?}",
        peer.error
    );
}

#[test]
fn a_handshake_with_any_byte_flipped_never_ends_in_disagreement() {
    for (side, version) in [
        (Side::Server, TLS12),
        (Side::Server, TLS13),
        (Side::Client, TLS12),
        (Side::Client, TLS13),
    ] {
        let (server, client) = configs(version);
        let (_, _, socket) = shaken(side, (server.clone(), client.clone()), 4096);
        let flight = socket.0.borrow().carried;
        let (server, client) = (Arc::new(server), Arc::new(client));
        for flip in (0..flight).step_by(3) {
            let socket = Socket::new(4096);
            socket.0.borrow_mut().flip = Some(flip);
            let mut peer = peer_of(side, (*server).clone(), (*client).clone());
            let ours = shake(side, server.clone(), client.clone(), socket.clone());
            // A record's legacy version is nobody's secret: what agrees in spite of it must work.
            if let Some(Ok(mut stream)) = run(&socket, &mut peer, ours) {
                // Signatures differ in length: this handshake may have been over before.
                socket.0.borrow_mut().flip = None;
                let mut heard = [0; 4];
                peer.say(b"both");
                let read = run(&socket, &mut peer, stream.read_exact(&mut heard));
                let agreed = matches!(read, Some(Ok(()))) && peer.error.is_none();
                assert!(agreed && heard == *b"both", "{side:?} {version:?} {flip}");
            }
        }
    }
}

#[test]
fn an_endless_handshake_message_is_refused() {
    let (server, client) = configs(TLS13);
    let socket = Socket::new(4096);
    // A hello of 65,000 bytes that comes a byte a record.
    let mut hello = vec![1, 0, 0xfd, 0xe8];
    hello.resize(65_000, 0);
    for byte in hello {
        socket.0.borrow_mut().to_us.extend([22, 3, 1, 0, 1, byte]);
    }
    let mut peer = peer_of(Side::Server, server.clone(), client);
    let ours = accept(Arc::new(server), socket.clone());
    let error = run(&socket, &mut peer, ours)
        .expect("ends")
        .err()
        .expect("is refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_handshake(bytes in proptest::collection::vec(any::<u8>(), 0..600), record: bool) {
        for side in SIDES {
            let (server, client) = configs(TLS13);
            let socket = Socket::new(4096);
            let mut peer = peer_of(side, server.clone(), client.clone());
            {
                let mut wire = socket.0.borrow_mut();
                if record {
                    let length = (bytes.len() as u16).to_be_bytes();
                    wire.to_us.extend([22, 3, 3, length[0], length[1]]);
                }
                wire.to_us.extend(&bytes);
                wire.ended = true;
            }
            peer.error = Some(rustls::Error::HandshakeNotComplete);
            let ours = shake(side, Arc::new(server), Arc::new(client), socket.clone());
            prop_assert!(run(&socket, &mut peer, ours).expect("ends").is_err());
        }
    }
}

/// Everything that `records` opens in `ciphertext`, which ends with a whole record.
fn open_all(records: &mut Records, mut ciphertext: Vec<u8>) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut at = 0;
    while at < ciphertext.len() {
        let rest = &mut ciphertext[at..];
        at += match records.open(rest).expect("holds") {
            Opened::Data { payload, consumed } => {
                plain.extend_from_slice(&rest[payload]);
                consumed
            }
            Opened::Quiet { consumed } => consumed,
            other => panic!("{other:?} at {at}"),
        };
    }
    plain
}

fn seal(records: &mut Records, bytes: &[u8]) -> Vec<u8> {
    let (mut queue, mut pool) = (Queue::default(), Pool::new());
    let mut writer = records.writer(&mut queue, &mut pool).expect("is open");
    writer.push(bytes).expect("has room");
    writer.finish().expect("seals");
    queue.filled().to_vec()
}

/// Where a connection is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Anywhere,
    BetweenRecords,
}

const CUTS: [Cut; 2] = [Cut::Anywhere, Cut::BetweenRecords];

async fn hand_over(stream: TlsStream<Socket>, cut: Cut) -> io::Result<(Socket, Records, Leftover)> {
    if cut == Cut::Anywhere {
        return stream.into_relay().await;
    }
    let (socket, handed, leftover) = stream.hand_over_between_records().await?;
    assert!(leftover.ciphertext.is_empty(), "all of it is decrypted");
    Ok((
        socket,
        handed.into_records().expect("it is known"),
        leftover,
    ))
}

/// Hands over after `gate` bytes of what the peer said have arrived and `read` of them were read;
/// every byte must come, once and in order, and what is sealed then must be understood.
fn check_hand_over(
    (side, cut): (Side, Cut),
    configs: (ServerConfig, ClientConfig),
    gate: usize,
    read: usize,
) {
    let said = format!("{side:?}, {cut:?}, {gate} bytes arrived, {read} read");
    let (mut stream, mut peer, socket) = shaken(side, configs, 4096);
    let messages = [pattern(40), pattern(1), pattern(700), pattern(90)];
    let all = messages.concat();
    for message in &messages {
        peer.say(message);
        peer.turn(&socket);
    }
    socket.0.borrow_mut().gate = gate;
    let mut first = vec![0; read];
    let mut heard = 0;
    while heard < read {
        let Some(bytes) = run(&socket, &mut peer, stream.read(&mut first[heard..])) else {
            break;
        };
        heard += bytes.expect("reads");
    }
    let mut handing = pin!(hand_over(stream, cut));
    let handed = match handing
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(handed) => handed,
        Poll::Pending => {
            // The end of what has arrived cuts what must come whole: it waits for the rest.
            socket.0.borrow_mut().gate = usize::MAX;
            run(&socket, &mut peer, handing).expect("ends")
        }
    };
    let (_, mut records, leftover) = handed.expect("hands over");
    assert!(!leftover.closed, "{said}");
    let rest: Vec<u8> = socket.0.borrow_mut().to_us.drain(..).collect();
    let opened = open_all(&mut records, [leftover.ciphertext, rest].concat());
    let arrived = [&first[..heard], &leftover.plaintext, &opened].concat();
    assert!(arrived == all, "{said}: {} of {}", arrived.len(), all.len());
    let sealed = seal(&mut records, b"from the relay");
    socket.0.borrow_mut().from_us.extend(sealed);
    peer.turn(&socket);
    assert_eq!(
        (peer.error, peer.received),
        (None, b"from the relay".to_vec()),
        "{said}"
    );
}

#[test]
fn a_hand_over_at_any_position_loses_no_byte() {
    for side in SIDES {
        for version in [TLS12, TLS13] {
            let (server, client) = configs(version);
            for gate in (0..1400).step_by(13) {
                for read in [0, 10, 40, 200] {
                    for cut in CUTS {
                        let configs = (server.clone(), client.clone());
                        check_hand_over((side, cut), configs, gate, read);
                    }
                }
            }
        }
    }
}

#[test]
fn a_hand_over_waits_for_the_rest_of_a_cut_ticket() {
    let (mut server, client) = configs(TLS13);
    // Tickets come in pieces of this size: the first bytes after the handshake.
    server.max_fragment_size = Some(64);
    for gate in 0..600 {
        for cut in CUTS {
            let configs = (server.clone(), client.clone());
            check_hand_over((Side::Client, cut), configs, gate, 1);
        }
    }
}

#[test]
fn a_key_update_that_is_owed_goes_out_before_the_hand_over() {
    let each = SIDES.map(|side| CUTS.map(|cut| (side, cut)));
    for (side, cut) in each.into_iter().flatten() {
        let (mut stream, mut peer, socket) = shaken(side, configs(TLS13), 4096);
        peer.connection.refresh_traffic_keys().expect("TLS 1.3");
        peer.say(b"under new keys");
        let mut heard = [0; 14];
        run(&socket, &mut peer, stream.read_exact(&mut heard))
            .expect("ends")
            .expect("arrives");
        let (_, mut records, leftover) = run(&socket, &mut peer, hand_over(stream, cut))
            .expect("ends")
            .expect("hands over");
        assert_eq!(leftover, Leftover::default(), "{side:?}");
        let sealed = seal(&mut records, b"and back");
        socket.0.borrow_mut().from_us.extend(sealed);
        peer.turn(&socket);
        assert_eq!(
            (peer.error, peer.received),
            (None, b"and back".to_vec()),
            "{side:?}"
        );
    }
}

#[test]
fn a_hand_over_tells_of_a_good_bye_that_was_heard() {
    for cut in CUTS {
        let (mut stream, mut peer, socket) = shaken(Side::Server, configs(TLS13), 4096);
        peer.connection.send_close_notify();
        let end = run(&socket, &mut peer, stream.read(&mut [0; 1])).expect("ends");
        assert_eq!(end.expect("the end"), 0);
        let handed = run(&socket, &mut peer, hand_over(stream, cut)).expect("ends");
        assert!(handed.expect("hands over").2.closed);
    }
}

#[test]
fn secrets_are_given_away_only_where_the_configuration_says_so() {
    let (mut server, client) = configs(TLS13);
    server.enable_secret_extraction = false;
    let (stream, mut peer, socket) = shaken(Side::Server, (server, client), 4096);
    assert!(
        run(&socket, &mut peer, stream.into_relay())
            .expect("ends")
            .is_err()
    );
}
