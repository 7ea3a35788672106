//! A connected stream socket of a core.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use postern_relay::Meter;
use socket2::{SockAddr, SockRef, Socket};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::front::{self, Kind};
use crate::settle::settle;

/// A connected stream socket, TCP with `TCP_NODELAY` or UNIX.
///
/// Nothing is buffered here: what was not read is still in the kernel, what was written is there. So
/// what its [`Meter`] counts is what has crossed.
#[derive(Debug)]
pub struct Stream {
    /// Goes before the socket is closed.
    count: Count,
    carried: Carried,
}

/// The count of a socket; closes the books when it goes.
#[derive(Debug)]
struct Count {
    meter: Rc<Meter>,
    /// None when it is no TCP connection, or somebody else goes on counting.
    socket: Option<RawFd>,
}

impl Drop for Count {
    fn drop(&mut self) {
        if let Some(socket) = self.socket {
            // SAFETY: this goes before the socket does, see `Stream`.
            let socket = unsafe { BorrowedFd::borrow_raw(socket) };
            self.meter.settle(settle(socket));
        }
    }
}

/// The executors' types for TCP take UNIX sockets as well: they receive, send and shut down, which
/// are the same calls for both.
#[derive(Debug)]
pub(super) enum Carried {
    Ring(glommio::net::TcpStream),
    Epoll(tokio::net::TcpStream),
}

impl Stream {
    /// A TCP connection.
    pub(super) fn new(carried: Carried) -> Self {
        let socket = Some(carried.descriptor());
        Self::counted(carried, socket)
    }

    fn counted(carried: Carried, socket: Option<RawFd>) -> Self {
        let meter = Rc::default();
        let count = Count { meter, socket };
        Self { count, carried }
    }

    /// What its stream carries, until it is given away or closed.
    #[must_use]
    pub fn meter(&self) -> Rc<Meter> {
        Rc::clone(&self.count.meter)
    }

    /// Our end's address of a TCP connection.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match &self.carried {
            Carried::Ring(stream) => Ok(stream.local_addr()?),
            Carried::Epoll(stream) => stream.local_addr(),
        }
    }

    /// Takes a connected stream socket in, on the core that calls. What the kernel holds of it at the
    /// end is not counted.
    ///
    /// # Errors
    /// When the core can't wait for one more descriptor.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        let carried = match front::kind() {
            // SAFETY: the descriptor is a connected stream socket, and it is given away: nothing else
            // closes it.
            Kind::IoUring => {
                Carried::Ring(unsafe { glommio::net::TcpStream::from_raw_fd(socket.into_raw_fd()) })
            }
            Kind::Epoll => Carried::Epoll(tokio::net::TcpStream::from_std(socket.into())?),
        };
        Ok(Self::counted(carried, None))
    }

    /// Gives the socket away, non-blocking and close-on-exec, for a thread that will own it. What the
    /// peer has sent and nobody has read yet is received there.
    ///
    /// # Errors
    /// When the process may have no more descriptors; the connection is closed then.
    pub fn into_descriptor(mut self) -> io::Result<OwnedFd> {
        self.count.socket = None;
        let descriptor = match self.carried {
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

    /// Sends at once what is written, and takes urgent bytes for what they are: bytes of the stream.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let socket = SockRef::from(self);
        socket.set_tcp_nodelay(true)?;
        socket.set_out_of_band_inline(true)
    }

    /// Remote address of a TCP connection, also of one that is broken already.
    pub(super) fn remote_address(&self) -> io::Result<SocketAddr> {
        peer_name(self.as_fd(), self.local_address()?)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.carried.descriptor()) }
    }
}

impl Carried {
    fn descriptor(&self) -> RawFd {
        match self {
            Self::Ring(stream) => stream.as_raw_fd(),
            Self::Epoll(stream) => stream.as_raw_fd(),
        }
    }
}

/// What `accept` would have said of the peer: unlike `getpeername` it knows the name of one that has
/// reset the connection before anybody asked. `local` is our end's address.
fn peer_name(socket: BorrowedFd<'_>, local: SocketAddr) -> io::Result<SocketAddr> {
    let mut room = SockAddr::from(local).len();
    // SAFETY: the kernel writes at most as many bytes as the length says, which is less than there is
    // room for. It wants the length to be that of the family, no more.
    let asked = unsafe {
        SockAddr::try_init(|address, length| {
            let done = libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERNAME,
                address.cast(),
                &raw mut room,
            );
            *length = room;
            match done {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    };
    let ((), address) = asked?;
    address
        .as_socket()
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let read = match &mut this.carried {
            Carried::Ring(stream) => ready!(Pin::new(stream).poll_read(cx, buffer))?,
            Carried::Epoll(stream) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
                buffer.filled().len()
            }
        };
        this.count.meter.received(read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.carried {
            Carried::Ring(stream) => ready!(Pin::new(stream).poll_write(cx, bytes))?,
            Carried::Epoll(stream) => ready!(Pin::new(stream).poll_write(cx, bytes))?,
        };
        this.count.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    /// Nothing to do: what was written is with the kernel.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carried {
            Carried::Ring(stream) => Pin::new(stream).poll_close(cx),
            Carried::Epoll(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
