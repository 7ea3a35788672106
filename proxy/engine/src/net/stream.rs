//! A connected stream socket of a core.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::front::{self, Kind};

/// A connected stream socket, TCP with `TCP_NODELAY` or UNIX.
///
/// Nothing is buffered here: what was not read is still in the kernel, what was written is there.
#[derive(Debug)]
pub struct Stream(Carried);

/// The executors' types for TCP take UNIX sockets as well: they receive, send and shut down, which
/// are the same calls for both.
#[derive(Debug)]
pub(super) enum Carried {
    Ring(glommio::net::TcpStream),
    Epoll(tokio::net::TcpStream),
}

impl Stream {
    pub(super) fn new(carried: Carried) -> Self {
        Self(carried)
    }

    /// Takes a connected stream socket in, on the core that calls.
    ///
    /// # Errors
    /// When the core can't wait for one more descriptor.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self(match front::kind() {
            // SAFETY: the descriptor is a connected stream socket, and it is given away: nothing else
            // closes it.
            Kind::IoUring => {
                Carried::Ring(unsafe { glommio::net::TcpStream::from_raw_fd(socket.into_raw_fd()) })
            }
            Kind::Epoll => Carried::Epoll(tokio::net::TcpStream::from_std(socket.into())?),
        }))
    }

    /// Gives the socket away, non-blocking and close-on-exec, for a thread that will own it. What the
    /// peer has sent and nobody has read yet is received there.
    ///
    /// # Errors
    /// When the process may have no more descriptors; the connection is closed then.
    pub fn into_descriptor(self) -> io::Result<OwnedFd> {
        let descriptor = match self.0 {
            Carried::Ring(stream) => {
                // glommio lets no descriptor go, so this one is closed after another was made. What
                // it still waits for on the first one it cancels; that receives nothing.
                // SAFETY: `stream` owns the descriptor and lives to the end of this block.
                let held = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
                held.try_clone_to_owned()?
            }
            Carried::Epoll(stream) => OwnedFd::from(stream.into_std()?),
        };
        SockRef::from(&descriptor).set_nonblocking(true)?;
        Ok(descriptor)
    }

    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match &self.0 {
            Carried::Ring(stream) => Ok(stream.set_nodelay(true)?),
            Carried::Epoll(stream) => stream.set_nodelay(true),
        }
    }

    /// Remote and local address of a TCP connection.
    pub(super) fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        match &self.0 {
            Carried::Ring(stream) => Ok((stream.peer_addr()?, stream.local_addr()?)),
            Carried::Epoll(stream) => Ok((stream.peer_addr()?, stream.local_addr()?)),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Carried::Ring(stream) => Pin::new(stream).poll_read(cx, buffer),
            Carried::Epoll(stream) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Carried::Ring(stream) => Pin::new(stream).poll_write(cx, bytes),
            Carried::Epoll(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Nothing to do: what was written is with the kernel.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Carried::Ring(stream) => Pin::new(stream).poll_close(cx),
            Carried::Epoll(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
