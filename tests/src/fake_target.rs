//! A server that looks like RDP up to its TLS handshake, and misbehaves on request.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use postern_wire::x224::{self, Confirm, Protocol};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{Connection, ServerConfig, ServerConnection};

use crate::duplex::Duplex;
use crate::noise::{Digest, Noise, Tally};
use postern_parts::wait;

/// No gateway keeps a target waiting for longer while it negotiates.
const NEGOTIATION_PATIENCE: Duration = Duration::from_secs(20);

/// A relay may be silent for this long.
const RELAY_PATIENCE: Duration = Duration::from_secs(300);

/// A test that waits for a connection to end gives up after this.
const RESULT_PATIENCE: Duration = Duration::from_secs(60);

/// Connections are threads that hold little: a thousand of them are idle at a time.
const STACK_BYTES: usize = 256 * 1024;

/// Bytes that one turn of a source or an echo handles.
const CHUNK_BYTES: usize = 16 * 1024;

/// How the X.224 connection request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// Chooses this protocol and goes on with TLS.
    Choose(Protocol),
    /// Chooses these protocol bits, offered or not, and goes on with TLS.
    ChooseBits(u32),
    /// Standard RDP security: an answer without negotiation data that chooses anything.
    StandardSecurity,
    /// The shortest of all answers: a confirm without negotiation data.
    Bare,
    /// Refuses with a failure code.
    Fail(u32),
    /// Bytes of another protocol.
    Garbage,
    /// Nothing, until the peer goes away.
    Silence,
    /// Closes without an answer.
    Close,
    /// Agrees, then speaks no TLS.
    NoTls,
}

/// What happens after the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Sends back what comes, until the peer is done.
    Echo,
    /// Takes everything; when the peer is done, says how much in 8 bytes and closes.
    Sink,
    /// Sends so many bytes of [`Noise`], closes its side, then takes what still comes.
    Source { bytes: u64, seed: u64 },
    /// Reads nothing and writes nothing.
    Stall,
    /// Ends TCP without a TLS good-bye as soon as the first bytes come.
    Hang,
}

/// What a connection that got through TLS received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub digest: Digest,
    /// The peer said that it was done, rather than breaking off.
    pub clean: bool,
}

/// A running server; dropping it closes every connection.
#[derive(Debug)]
pub struct FakeTarget {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Mutex<(Greeting, Work)>,
    identity: Mutex<Identity>,
    accepted: AtomicU64,
    requests: Mutex<Vec<Vec<u8>>>,
    results: Mutex<Vec<Received>>,
    /// Ended when the server is dropped.
    sockets: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

#[derive(Debug, Clone)]
struct Identity {
    tls: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

impl FakeTarget {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// No port or no certificate.
    pub fn start(greeting: Greeting, work: Work) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), greeting, work)
    }

    /// Listens on a free port of `ip`.
    ///
    /// # Errors
    /// No port or no certificate.
    pub fn start_at(ip: IpAddr, greeting: Greeting, work: Work) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0)).context("no port for a target")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            behaviour: Mutex::new((greeting, work)),
            identity: Mutex::new(new_identity()?),
            accepted: AtomicU64::new(0),
            requests: Mutex::default(),
            results: Mutex::default(),
            sockets: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let server = shared.clone();
        std::thread::Builder::new()
            .name("fake target".to_owned())
            .spawn(move || accept(&listener, &server))?;
        Ok(Self { address, shared })
    }

    /// An ordinary server that sends back what it gets.
    ///
    /// # Errors
    /// As [`FakeTarget::start`].
    pub fn echo() -> Result<Self> {
        Self::start(Greeting::Choose(Protocol::Nla), Work::Echo)
    }

    /// Connections from now on behave so.
    pub fn behave(&self, greeting: Greeting, work: Work) {
        *lock(&self.shared.behaviour) = (greeting, work);
    }

    /// Connections from now on see another certificate.
    ///
    /// # Errors
    /// None can be made.
    pub fn change_certificate(&self) -> Result<()> {
        *lock(&self.shared.identity) = new_identity()?;
        Ok(())
    }

    /// Connections from now on see this chain, its own certificate first.
    ///
    /// # Errors
    /// The key does not belong to the certificate.
    pub fn use_certificate(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<()> {
        *lock(&self.shared.identity) = identity(chain, key)?;
        Ok(())
    }

    /// SHA-256 of the certificate, 64 hex digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut tally = Tally::default();
        tally.add(&lock(&self.shared.identity).certificate);
        tally.digest().sha256
    }

    /// Connections so far: a gateway that dials nothing leaves this as it is.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// The X.224 connection requests so far, as they came.
    #[must_use]
    pub fn requests(&self) -> Vec<Vec<u8>> {
        lock(&self.shared.requests).clone()
    }

    /// What ended connections received so far, in the order in which they ended.
    #[must_use]
    pub fn all_received(&self) -> Vec<Received> {
        lock(&self.shared.results).clone()
    }

    /// Waits until `number` connections (from 1) have ended their incoming side; what the last of
    /// these received.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn received(&self, number: usize) -> Result<Received> {
        wait::until("the target's connection to end", RESULT_PATIENCE, || {
            Ok(lock(&self.shared.results).get(number - 1).cloned())
        })
    }
}

impl Drop for FakeTarget {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; it sees that this is the end.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        for socket in lock(&self.shared.sockets).drain(..) {
            // Many have ended long ago.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_identity() -> Result<Identity> {
    let certified = rcgen::generate_simple_self_signed(["target.example".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    identity(vec![certified.cert.der().clone()], key.into())
}

/// TLS with a certificate of its own.
pub(crate) fn new_tls() -> Result<Arc<ServerConfig>> {
    Ok(new_identity()?.tls)
}

fn identity(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Identity> {
    let certificate = chain.first().context("a chain has a certificate")?.clone();
    let tls = ServerConfig::builder_with_provider(crate::browserless::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Identity {
        tls: Arc::new(tls),
        certificate,
    })
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        if let Ok(handle) = socket.try_clone() {
            lock(&shared.sockets).push(handle);
        }
        let shared = shared.clone();
        let started = std::thread::Builder::new()
            .name("fake target".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let handle = socket.try_clone();
                // How a gateway breaks off is what its own records are tested for.
                let _ = serve(socket, &shared);
                // The list has a handle on the socket: dropping ours alone closes nothing.
                let _ = handle.map(|socket| socket.shutdown(std::net::Shutdown::Both));
            });
        if let Err(error) = started {
            eprintln!("fake target: no thread for a connection: {error}");
        }
    }
}

fn serve(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let (greeting, work) = *lock(&shared.behaviour);
    socket.set_read_timeout(Some(NEGOTIATION_PATIENCE))?;
    lock(&shared.requests).push(read_request(&mut socket)?);
    let confirm = match greeting {
        Greeting::Choose(protocol) => Confirm::Selected(protocol.bit()),
        Greeting::ChooseBits(bits) => Confirm::Selected(bits),
        Greeting::NoTls => Confirm::Selected(Protocol::Nla.bit()),
        Greeting::StandardSecurity => Confirm::Standard,
        Greeting::Fail(code) => Confirm::Failure(code),
        Greeting::Bare => {
            // [MS-RDPBCGR 2.2.1.2] TPKT header and X.224 header, no negotiation data.
            socket.write_all(&[3, 0, 0, 11, 6, 0xd0, 0, 0, 0x12, 0x34, 0])?;
            return read_to_end(&mut socket);
        }
        Greeting::Garbage => {
            socket.write_all(b"SSH-2.0-OpenSSH_9.2\r\n")?;
            return read_to_end(&mut socket);
        }
        Greeting::Silence => return read_to_end(&mut socket),
        Greeting::Close => return Ok(()),
    };
    socket.write_all(&x224::encode_confirm(confirm))?;
    match greeting {
        Greeting::StandardSecurity | Greeting::Fail(_) => return read_to_end(&mut socket),
        Greeting::NoTls => {
            socket.write_all(&[0x55; 64])?;
            return read_to_end(&mut socket);
        }
        _ => {}
    }
    let tls = lock(&shared.identity).tls.clone();
    let stream = shake(socket, tls)?;
    stream.socket().set_write_timeout(Some(RELAY_PATIENCE))?;
    stream.set_patience(RELAY_PATIENCE)?;
    relay(&stream, work, shared)
}

/// What an ordinary server does with a connection until the desktop lives.
pub(crate) fn negotiate(
    mut socket: TcpStream,
    protocol: Protocol,
    tls: Arc<ServerConfig>,
) -> io::Result<Duplex> {
    socket.set_read_timeout(Some(NEGOTIATION_PATIENCE))?;
    read_request(&mut socket)?;
    socket.write_all(&x224::encode_confirm(Confirm::Selected(protocol.bit())))?;
    shake(socket, tls)
}

fn shake(socket: TcpStream, tls: Arc<ServerConfig>) -> io::Result<Duplex> {
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    Duplex::handshake(socket, Connection::Server(connection), NEGOTIATION_PATIENCE)
}

/// One TPKT, which a connection request is.
fn read_request(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = vec![0; 4];
    socket.read_exact(&mut request)?;
    let length = usize::from(u16::from_be_bytes([request[2], request[3]]));
    request.resize(length.max(4), 0);
    socket.read_exact(&mut request[4..])?;
    Ok(request)
}

fn read_to_end(socket: &mut TcpStream) -> io::Result<()> {
    let mut rest = [0; 256];
    while socket.read(&mut rest)? > 0 {}
    Ok(())
}

fn relay(stream: &Duplex, work: Work, shared: &Shared) -> io::Result<()> {
    match work {
        Work::Echo => {
            take(stream, shared, |bytes| stream.send(bytes))?;
            stream.finish()
        }
        Work::Sink => {
            let received = take(stream, shared, |_| Ok(()))?;
            stream.send(&received.digest.bytes.to_be_bytes())?;
            stream.finish()
        }
        Work::Source { bytes, seed } => {
            send_noise(bytes, seed, |chunk| stream.send(chunk))?;
            stream.finish()?;
            take(stream, shared, |_| Ok(())).map(drop)
        }
        Work::Stall => {
            while !shared.ended.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }
        Work::Hang => {
            let mut first = [0; CHUNK_BYTES];
            stream.receive(&mut first)?;
            stream.cut();
            Ok(())
        }
    }
}

/// Reads until the peer is done or breaks off, and notes what came.
fn take(
    stream: &Duplex,
    shared: &Shared,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Received> {
    let mut tally = Tally::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut work = || loop {
        match stream.receive(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => {
                tally.add(&buffer[..bytes]);
                each(&buffer[..bytes])?;
            }
            Err(error) => return Err(error),
        }
    };
    let ended: io::Result<()> = work();
    let received = Received {
        digest: tally.digest(),
        clean: ended.is_ok(),
    };
    lock(&shared.results).push(received.clone());
    match ended {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(received),
    }
}

/// Gives `bytes` bytes of noise to `send`, and what they add up to.
///
/// # Errors
/// As `send`.
pub fn send_noise(
    bytes: u64,
    seed: u64,
    mut send: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Digest> {
    let mut noise = Noise::new(seed);
    let mut tally = Tally::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        noise.fill(&mut chunk[..part]);
        tally.add(&chunk[..part]);
        send(&chunk[..part])?;
        left -= part as u64;
    }
    Ok(tally.digest())
}
