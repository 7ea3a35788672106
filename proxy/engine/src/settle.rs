//! What the kernel still holds of a TCP connection whose socket is about to be closed.
//!
//! It must be final when it is asked for: a socket that neither sends nor receives takes nothing more
//! from its peer, as what comes then is answered with a reset. So both directions are ended first.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use postern_relay::Rest;

/// State of a socket whose connection is gone (`TCP_CLOSE` of `net/tcp_states.h`).
const CLOSED: u8 = 7;

/// The kernel's `struct tcp_info` as far as it is read here (`linux/tcp.h`, Linux 4.19).
#[repr(C)]
struct TcpInfo {
    state: u8,
    flags: [u8; 7],
    words: [u32; 24],
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

/// Ends both directions of `socket`, which is to be closed now and not to be used any more, and says
/// what is left in the kernel. Nothing where that is no TCP connection.
pub(crate) fn settle(socket: BorrowedFd<'_>) -> Rest {
    // SAFETY: shutdown takes plain integers; the descriptor is open while it is borrowed. It fails on
    // a connection that is gone, where there is nothing to end.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
    let Some(info) = information(socket) else {
        return Rest::default();
    };
    Rest {
        unread: unread(socket),
        waiting: u64::from(info.notsent_bytes),
        went_out: info.bytes_sent.saturating_sub(info.bytes_retrans),
        is_broken: info.state == CLOSED,
    }
}

fn unread(socket: BorrowedFd<'_>) -> u64 {
    let mut unread: libc::c_int = 0;
    // SAFETY: FIONREAD writes one integer, which lives on this frame.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut unread) };
    match done {
        0 => u64::try_from(unread).unwrap_or(0),
        _ => 0,
    }
}

fn information(socket: BorrowedFd<'_>) -> Option<TcpInfo> {
    let mut info = MaybeUninit::<TcpInfo>::zeroed();
    let mut length = size_of::<TcpInfo>() as libc::socklen_t;
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
