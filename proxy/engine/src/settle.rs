//! What the kernel still holds of a TCP connection whose socket is about to be closed.
//!
//! It must be final when it is asked for: a socket that neither sends nor receives takes nothing more
//! from its peer, as what comes then is answered with a reset. So both directions are ended first.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use postern_relay::Rest;

use crate::tcp_info::TcpInfo;

/// Ends both directions of `socket`, which is to be closed now and not to be used any more, and says
/// what is left in the kernel. Nothing where that is no TCP connection.
pub(crate) fn settle(socket: BorrowedFd<'_>) -> Rest {
    // SAFETY: shutdown takes plain integers; the descriptor is open while it is borrowed. It fails on
    // a connection that is gone, where there is nothing to end.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
    let Some(info) = TcpInfo::of(socket) else {
        return Rest::default();
    };
    Rest {
        unread: unread(socket),
        waiting: info.waiting(),
        went_out: info.went_out(),
        is_broken: info.is_closed(),
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
