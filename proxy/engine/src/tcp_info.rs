//! What the kernel says of a TCP socket.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// State of a socket whose connection is gone (`TCP_CLOSE` of `net/tcp_states.h`).
const CLOSED: u8 = 7;

/// The kernel's `struct tcp_info` as far as it is read here (`linux/tcp.h`, Linux 4.19).
#[repr(C)]
pub(crate) struct TcpInfo {
    state: u8,
    flags: [u8; 7],
    timings: [u32; 4],
    /// Of a listening socket: connections that wait to be accepted.
    unacked: u32,
    words: [u32; 19],
    pacing: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
    segments: [u32; 2],
    notsent_bytes: u32,
    counts: [u32; 3],
    times: [u64; 4],
    delivered: [u32; 2],
    bytes_sent: u64,
    bytes_retrans: u64,
}

const _: () = assert!(std::mem::offset_of!(TcpInfo, bytes_acked) == 120);
const _: () = assert!(std::mem::offset_of!(TcpInfo, notsent_bytes) == 144);
const _: () = assert!(std::mem::offset_of!(TcpInfo, bytes_sent) == 200);
const _: () = assert!(size_of::<TcpInfo>() == 216);

impl TcpInfo {
    /// None where that is no TCP socket.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Option<Self> {
        let mut info = MaybeUninit::<Self>::zeroed();
        let mut length = size_of::<Self>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to the struct, which is that long.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        // SAFETY: it is integers alone, and was zeroed before the kernel wrote to it.
        (done == 0).then(|| unsafe { info.assume_init() })
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == CLOSED
    }

    /// Positions of the stream that were never sent, our FIN among them.
    pub(crate) fn waiting(&self) -> u64 {
        self.notsent_bytes.into()
    }

    /// Bytes that were sent, each once.
    pub(crate) fn went_out(&self) -> u64 {
        self.bytes_sent.saturating_sub(self.bytes_retrans)
    }

    /// Of a listening socket: connections that wait to be accepted.
    pub(crate) fn backlog(&self) -> u32 {
        self.unacked
    }
}
