//! Sockets on a core: listening with `SO_REUSEPORT`, accepting, connecting.

mod stream;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, RawFd};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub use stream::Stream;

use crate::front::{self, Kind};
use crate::tcp_info::TcpInfo;
use crate::{EngineError, clock};
use stream::Carried;

/// Connections that may wait to be accepted on one core.
const BACKLOG: i32 = 1024;

/// Between attempts to connect to a UNIX socket whose backlog is full.
const BACKLOG_REST: Duration = Duration::from_millis(5);

/// Attempts to connect to a UNIX socket whose backlog is full.
const BACKLOG_ATTEMPTS_MAX: u32 = 400;

/// A listening socket of one core; every core has its own on the same address.
#[derive(Debug)]
pub struct Listener(Listening);

#[derive(Debug)]
enum Listening {
    /// And its descriptor, which the executor's type does not show.
    Ring(glommio::net::TcpListener, RawFd),
    Epoll(tokio::net::TcpListener),
}

impl Listener {
    /// # Errors
    /// When the address is taken by somebody else, not ours, or needs a privilege.
    pub fn bind(address: SocketAddr) -> Result<Self, EngineError> {
        Self::bind_limited(address, None)
    }

    /// The same, with a limit of the segments that clients are told to send.
    ///
    /// # Errors
    /// As above, and when the limit is none that TCP can have.
    pub fn bind_limited(
        address: SocketAddr,
        segment_bytes_max: Option<u16>,
    ) -> Result<Self, EngineError> {
        listen(address, segment_bytes_max)
            .map(Self)
            .map_err(|source| EngineError::Listen { address, source })
    }

    /// Where it listens; a port of 0 was replaced by the kernel's choice.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Listening::Ring(listener, _) => Ok(listener.local_addr()?),
            Listening::Epoll(listener) => listener.local_addr(),
        }
    }

    /// Connections that wait to be accepted.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        TcpInfo::of(self.as_fd()).map_or(0, |info| info.backlog())
    }

    /// The next connection, with its remote and local address.
    ///
    /// # Errors
    /// When the kernel has none to give (out of descriptors, or the client is gone already).
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr, SocketAddr)> {
        let stream = Stream::new(match &self.0 {
            Listening::Ring(listener, _) => Carried::Ring(listener.accept().await?),
            Listening::Epoll(listener) => Carried::Epoll(listener.accept().await?.0),
        });
        stream.prepare()?;
        let (remote, local) = (stream.remote_address()?, stream.local_address()?);
        Ok((stream, remote, local))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let socket = match &self.0 {
            Listening::Ring(_, descriptor) => *descriptor,
            Listening::Epoll(listener) => listener.as_raw_fd(),
        };
        // SAFETY: the listener owns the descriptor for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(socket) }
    }
}

/// A listening socket that shares its address with the other cores', and leaves it free for the next
/// process: connections inherit `SO_REUSEADDR`, without which those that the kernel still remembers
/// would keep that process from its [`crate::front::claim`].
fn listen(address: SocketAddr, segment_bytes_max: Option<u16>) -> io::Result<Listening> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Connections inherit these two.
    socket.set_out_of_band_inline(true)?;
    if let Some(bytes) = segment_bytes_max {
        socket.set_tcp_mss(u32::from(bytes))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(match front::kind() {
        Kind::IoUring => {
            let descriptor = socket.into_raw_fd();
            // SAFETY: the descriptor is a listening socket, and it is given away: nothing else closes it.
            let listener = unsafe { glommio::net::TcpListener::from_raw_fd(descriptor) };
            Listening::Ring(listener, descriptor)
        }
        Kind::Epoll => {
            socket.set_nonblocking(true)?;
            Listening::Epoll(tokio::net::TcpListener::from_std(socket.into())?)
        }
    })
}

/// Connects over TCP.
///
/// # Errors
/// As the kernel says.
pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
    let stream = Stream::new(match front::kind() {
        Kind::IoUring => Carried::Ring(glommio::net::TcpStream::connect(address).await?),
        Kind::Epoll => Carried::Epoll(tokio::net::TcpStream::connect(address).await?),
    });
    stream.prepare()?;
    Ok(stream)
}

/// Connects to a UNIX stream socket.
///
/// # Errors
/// As the kernel says; `WouldBlock` when its listener accepts nothing for seconds.
pub async fn connect_unix(path: &Path) -> io::Result<Stream> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Such a connect is done or has failed when it returns: there is nothing to poll for.
    let mut attempts = 1;
    while let Err(error) = socket.connect(&address) {
        if error.kind() != io::ErrorKind::WouldBlock || attempts == BACKLOG_ATTEMPTS_MAX {
            return Err(error);
        }
        attempts += 1;
        clock::sleep(BACKLOG_REST).await;
    }
    Stream::adopt(socket.into())
}

/// Looks a name up on a thread of its own: the system's resolver blocks.
///
/// # Errors
/// As the resolver says.
pub async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let look_up = move || Ok((host.as_str(), port).to_socket_addrs()?.collect());
    match front::kind() {
        Kind::IoUring => glommio::executor().spawn_blocking(look_up).await,
        Kind::Epoll => tokio::task::spawn_blocking(look_up)
            .await
            .map_err(io::Error::other)?,
    }
}

#[cfg(test)]
mod tests;
