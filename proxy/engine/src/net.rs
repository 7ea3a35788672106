//! Sockets on a core: listening with `SO_REUSEPORT`, accepting, connecting.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{FromRawFd as _, IntoRawFd as _};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream, UnixStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::EngineError;

/// Connections that may wait to be accepted on one core.
const BACKLOG: i32 = 1024;

/// A listening socket of one core; every core has its own on the same address.
#[derive(Debug)]
pub struct Listener(TcpListener);

/// A connected stream socket, TCP with `TCP_NODELAY` or UNIX.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// # Errors
    /// When the address is taken by somebody else, not ours, or needs a privilege.
    pub fn bind(address: SocketAddr) -> Result<Self, EngineError> {
        listen(address)
            .map(Self)
            .map_err(|source| EngineError::Listen { address, source })
    }

    /// The next connection, with its remote and local address.
    ///
    /// # Errors
    /// When the kernel has none to give (out of descriptors, or the client is gone already).
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr, SocketAddr)> {
        let stream = self.0.accept().await?;
        stream.set_nodelay(true)?;
        let remote = stream.peer_addr()?;
        let local = stream.local_addr()?;
        Ok((Stream::Tcp(stream), remote, local))
    }
}

/// A listening socket that shares its address with the other cores', and leaves it free for the next
/// process: connections inherit `SO_REUSEADDR`, without which those that the kernel still remembers
/// would keep that process from its [`crate::front::claim`].
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // SAFETY: the descriptor is a listening socket, and it is given away: nothing else closes it.
    Ok(unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) })
}

/// Connects over TCP.
///
/// # Errors
/// As the kernel says.
pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Stream::Tcp(stream))
}

/// Connects to a UNIX stream socket.
///
/// # Errors
/// As the kernel says.
pub async fn connect_unix(path: &Path) -> io::Result<Stream> {
    Ok(Stream::Unix(UnixStream::connect(path).await?))
}

/// Looks a name up on a thread of its own: the system's resolver blocks.
///
/// # Errors
/// As the resolver says.
pub async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    glommio::executor()
        .spawn_blocking(move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
        .await
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_close(cx),
            Self::Unix(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}
