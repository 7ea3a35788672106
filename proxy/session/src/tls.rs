//! TLS over a byte stream, either side, by rustls' unbuffered connections: only one of those can
//! give its record layer away when the session goes live.

mod asked;
mod backlog;
mod connection;
mod hand_over;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, CommonState, ServerConfig};
use rustls_pki_types::ServerName;

use asked::Asked;
use backlog::Backlog;
use connection::{Connection, Step, Wish};

pub(crate) use hand_over::LEFTOVER_BYTES_MAX;
pub use hand_over::{HandOver, Leftover};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 8 * 1024;

/// [RFC 8446 §5.1] Payload of one record.
const RECORD_PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// [RFC 5246 §6.2.3] A record on the wire: header, payload and what a cipher may add to it.
const RECORD_BYTES_MAX: usize = 5 + RECORD_PAYLOAD_BYTES_MAX + 2048;

/// Ciphertext that waits to be processed: the longest handshake message that rustls takes, in records
/// of a sane size, or one record, and what came with it.
const INCOMING_BYTES_MAX: usize = 96 * 1024;

/// While this much waits to be sent nothing is read: a peer that asks but takes no answers.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(
    RECORD_BYTES_MAX + READ_BYTES <= INCOMING_BYTES_MAX,
    "one record always fits, however it was cut"
);

/// A stream whose handshake is over. It holds no buffer while nothing is under way.
pub struct TlsStream<S> {
    socket: S,
    connection: Connection,
    server_name: Option<Box<str>>,
    /// Ciphertext that has arrived; what rustls looks at stays until it says so.
    incoming: Backlog,
    outgoing: Backlog,
    /// Decrypted and not read yet.
    plaintext: Backlog,
    /// Everything in `incoming` was looked at, and more is needed to go on.
    blocked: bool,
    peer_closed: bool,
    close_notify_said: bool,
    failure: Option<rustls::Error>,
}

/// Shakes hands with a client.
///
/// # Errors
/// When the client breaks off or breaks the protocol; a [`rustls::Error`] inside says how.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ServerConfig>,
    socket: S,
) -> io::Result<TlsStream<S>> {
    let (config, asked) = Asked::listen(&config);
    let connection = UnbufferedServerConnection::new(config).map_err(invalid)?;
    let mut stream = TlsStream::new(Connection::Server(Box::new(connection)), socket);
    poll_fn(|cx| stream.poll_handshake(cx)).await?;
    stream.server_name = asked.name();
    Ok(stream)
}

/// Shakes hands with a server.
///
/// # Errors
/// When the server breaks off, breaks the protocol or is not `name`; a [`rustls::Error`] inside says
/// how.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: S,
) -> io::Result<TlsStream<S>> {
    let connection = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
    let mut stream = TlsStream::new(Connection::Client(Box::new(connection)), socket);
    poll_fn(|cx| stream.poll_handshake(cx)).await?;
    Ok(stream)
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S> TlsStream<S> {
    fn new(connection: Connection, socket: S) -> Self {
        Self {
            socket,
            connection,
            server_name: None,
            incoming: Backlog::default(),
            outgoing: Backlog::default(),
            plaintext: Backlog::default(),
            blocked: false,
            peer_closed: false,
            close_notify_said: false,
            failure: None,
        }
    }

    /// The name that a client asked for, where it asked for one.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// What was agreed on: certificates, protocol version, cipher suite, key exchange.
    pub fn agreed(&self) -> &CommonState {
        &self.connection
    }

    /// No handshake message is cut by the end of what has arrived.
    ///
    /// rustls decrypts the pieces of a message where they lie and leaves them there until it is whole:
    /// they are no ciphertext any more. Only when it has looked at everything can that be.
    fn is_aligned(&self) -> bool {
        !self.blocked || !starts_with_a_record(self.incoming.filled())
    }

    /// One step of the connection; an error is final.
    fn step(&mut self, wish: Wish<'_>) -> io::Result<Step> {
        if let Some(failure) = &self.failure {
            return Err(invalid(failure.clone()));
        }
        // To speak nothing need be heard; rustls would decrypt what nobody has asked for yet.
        let mut nothing = Backlog::default();
        let deaf = !matches!(wish, Wish::Nothing) && self.is_aligned();
        let incoming = if deaf {
            &mut nothing
        } else {
            &mut self.incoming
        };
        let step = self
            .connection
            .step(incoming, &mut self.outgoing, &mut self.plaintext, wish);
        match step {
            Ok(step) => {
                if !deaf {
                    self.blocked = matches!(step, Step::Blocked | Step::Said);
                }
                self.peer_closed |= step == Step::PeerClosed;
                Ok(step)
            }
            Err(error) => {
                self.failure = Some(error.clone());
                // The alert that says why. rustls must not look at what it refused once more.
                while self.connection.wants_write() {
                    let (incoming, outgoing) = (&mut self.incoming, &mut self.outgoing);
                    let plaintext = &mut self.plaintext;
                    if self
                        .connection
                        .step(incoming, outgoing, plaintext, Wish::Nothing)
                        .is_err()
                    {
                        break;
                    }
                }
                Err(invalid(error))
            }
        }
    }

    /// Goes on until something was received or nothing more can be done.
    fn advance(&mut self) -> io::Result<()> {
        while self.plaintext.is_empty() && self.step(Wish::Nothing)? != Step::Blocked {}
        Ok(())
    }

    /// Says it, with whatever must be said before; whether the connection can still speak.
    fn say(&mut self, wish: Wish<'_>) -> io::Result<bool> {
        loop {
            match self.step(wish)? {
                Step::Said => return Ok(true),
                Step::Blocked => return Ok(false),
                Step::Again | Step::Received | Step::PeerClosed => {}
            }
        }
    }
}

/// Whether a whole record stands at the start of `bytes`.
fn starts_with_a_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, rest @ ..] => {
            rest.len() >= usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Err(error) = self.advance() {
                // The last gasp: an alert that says why, if the socket takes it at once.
                let _ = self.poll_drain(cx);
                return Poll::Ready(Err(error));
            }
            ready!(self.poll_drain(cx))?;
            if !self.connection.is_handshaking() {
                return Pin::new(&mut self.socket).poll_flush(cx);
            }
            if self.peer_closed || ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once from the socket.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_up_to(READ_BYTES, cx)
    }

    /// Reads at most `bytes` once from the socket.
    fn poll_fill_up_to(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.incoming.len() + READ_BYTES > INCOMING_BYTES_MAX {
            let error = rustls::Error::General("a handshake message is too long".to_owned());
            return Poll::Ready(Err(invalid(error)));
        }
        // On the stack: who waits holds no buffer.
        let mut chunk = [0; READ_BYTES];
        let chunk = &mut chunk[..bytes.min(READ_BYTES)];
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, chunk))?;
        self.incoming.append(&chunk[..read]);
        self.blocked = false;
        Poll::Ready(Ok(read))
    }

    /// Sends everything that waits to be sent.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written =
                ready!(Pin::new(&mut self.socket).poll_write(cx, self.outgoing.filled()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.consume(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        loop {
            if stream.plaintext.is_empty() && !stream.peer_closed {
                let advanced = stream.advance();
                // Answers of the protocol's own; a peer that takes none of them is not heard either.
                if let Poll::Ready(Err(error)) = stream.poll_drain(cx)
                    && advanced.is_ok()
                {
                    return Poll::Ready(Err(error));
                }
                advanced?;
            }
            if !stream.plaintext.is_empty() {
                let bytes = stream.plaintext.len().min(buffer.len());
                buffer[..bytes].copy_from_slice(&stream.plaintext.filled()[..bytes]);
                stream.plaintext.consume(bytes);
                return Poll::Ready(Ok(bytes));
            }
            if stream.peer_closed {
                return Poll::Ready(Ok(0));
            }
            if stream.outgoing.len() > OUTGOING_BYTES_MAX {
                ready!(stream.poll_drain(cx))?;
            }
            if ready!(stream.poll_fill(cx))? == 0 {
                // Without a good-bye the end may be an attacker's.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    /// Seals one record once the one before is sent.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        ready!(stream.poll_drain(cx))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let bytes = &bytes[..bytes.len().min(RECORD_PAYLOAD_BYTES_MAX)];
        if stream.close_notify_said || !stream.say(Wish::Data(bytes))? {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match stream.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(stream.poll_drain(cx))?;
        Pin::new(&mut stream.socket).poll_flush(cx)
    }

    /// Says `close_notify`, then ends the socket's sending side.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if !stream.close_notify_said && stream.failure.is_none() {
            stream.close_notify_said = true;
            stream.say(Wish::CloseNotify)?;
        }
        ready!(stream.poll_drain(cx))?;
        Pin::new(&mut stream.socket).poll_close(cx)
    }
}
