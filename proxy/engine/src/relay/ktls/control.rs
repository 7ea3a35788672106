//! Records that are no data, on a socket whose records are the kernel's: it gives them out and takes
//! them with their type beside the bytes (`SOL_TLS` control messages).
//!
//! A receive without room for a type fails with `EIO` at such a record, a splice with `EINVAL`, and the
//! record waits for who asks for it by its type.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use postern_relay::flow::CLOSE_NOTIFY;

use crate::relay::machine::ReceiveEnd;

/// [RFC 8446 §5.1]
const ALERT: u8 = 21;

/// Names a record's type in a control message, either way (`linux/tls.h`).
const SET_RECORD_TYPE: libc::c_int = 1;
const GET_RECORD_TYPE: libc::c_int = 2;

/// A record is read up to here: what tells an alert.
const CONTENT_BYTES: usize = 2;

/// A control message with a record's type. Its size and alignment are those of the kernel's: the
/// header, and one byte behind it.
#[repr(C)]
struct RecordType {
    header: libc::cmsghdr,
    kind: u8,
}

const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(std::mem::offset_of!(RecordType, kind) == HEADER_BYTES);
// SAFETY: CMSG_LEN and CMSG_SPACE only calculate.
const _: () = assert!(unsafe { libc::CMSG_LEN(1) } as usize == HEADER_BYTES + 1);
const _: () = assert!(unsafe { libc::CMSG_SPACE(1) } as usize == size_of::<RecordType>());

/// A value that nobody ever writes to.
struct Constant<T>(T);

// SAFETY: it is only read, and so is what it points to: other constants.
unsafe impl<T> Sync for Constant<T> {}

static CLOSE_BYTES: [u8; 2] = CLOSE_NOTIFY;

static CLOSE_PART: Constant<libc::iovec> = Constant(libc::iovec {
    iov_base: (&raw const CLOSE_BYTES).cast_mut().cast(),
    iov_len: CLOSE_NOTIFY.len(),
});

static CLOSE_TYPE: Constant<RecordType> = Constant(RecordType {
    header: header(SET_RECORD_TYPE),
    kind: ALERT,
});

static CLOSE: Constant<libc::msghdr> = Constant({
    // SAFETY: a `msghdr` of zeros is one without address, parts and control messages.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = (&raw const CLOSE_PART.0).cast_mut();
    message.msg_iovlen = 1;
    message.msg_control = (&raw const CLOSE_TYPE).cast_mut().cast();
    message.msg_controllen = size_of::<RecordType>();
    message
});

const fn header(kind: libc::c_int) -> libc::cmsghdr {
    libc::cmsghdr {
        cmsg_len: HEADER_BYTES + 1,
        cmsg_level: libc::SOL_TLS,
        cmsg_type: kind,
    }
}

/// `close_notify` as `sendmsg` takes it; nothing of it is ever written to, as `sendmsg` only reads.
#[must_use]
pub fn close_notify() -> &'static libc::msghdr {
    &CLOSE.0
}

/// Sends it; how many bytes were taken.
///
/// # Errors
/// As `sendmsg` has them.
pub fn send_close_notify(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message and all that it points to are constants, and the kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), close_notify(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What a receive that stopped at a record that is no data is for the flow: the peer's good-bye, or an
/// end without one. A change of keys is one, too: the kernel can't follow it before Linux 6.14, and
/// neither browsers nor the usual native clients ask for one.
#[must_use]
pub fn end_of_receive(socket: BorrowedFd<'_>) -> ReceiveEnd {
    let mut content = [0; CONTENT_BYTES];
    match receive(socket, &mut content) {
        Some((kind, length)) => judge(kind, &content[..length]),
        None => ReceiveEnd::Broken,
    }
}

/// The type of the next record, and how many bytes of it were read.
fn receive(socket: BorrowedFd<'_>, content: &mut [u8; CONTENT_BYTES]) -> Option<(u8, usize)> {
    let mut part = libc::iovec {
        iov_base: content.as_mut_ptr().cast(),
        iov_len: content.len(),
    };
    let mut kind = RecordType {
        header: header(0),
        kind: 0,
    };
    // SAFETY: a `msghdr` of zeros is one without address, parts and control messages.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut kind).cast();
    message.msg_controllen = size_of::<RecordType>();
    // SAFETY: the message's parts are alive on this frame and as long as they say; all that the kernel
    // writes there are integers.
    let read = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let is_told = message.msg_controllen > HEADER_BYTES
        && kind.header.cmsg_level == libc::SOL_TLS
        && kind.header.cmsg_type == GET_RECORD_TYPE;
    let read = usize::try_from(read).ok()?;
    is_told.then_some((kind.kind, read.min(CONTENT_BYTES)))
}

/// [RFC 8446 §6.1] Whatever its level, a `close_notify` says that nothing more comes.
fn judge(kind: u8, content: &[u8]) -> ReceiveEnd {
    match (kind, content) {
        (ALERT, [_, 0]) => ReceiveEnd::Closed,
        _ => ReceiveEnd::Broken,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_a_close_notify_is_an_orderly_end() {
        let check = |kind: u8, content: &[u8], end: ReceiveEnd| {
            assert_eq!(judge(kind, content), end, "{kind} {content:?}");
        };
        check(ALERT, &[1, 0], ReceiveEnd::Closed);
        check(ALERT, &[2, 0], ReceiveEnd::Closed);
        check(ALERT, &[2, 20], ReceiveEnd::Broken);
        check(ALERT, &[1], ReceiveEnd::Broken);
        check(ALERT, &[], ReceiveEnd::Broken);
        // A handshake message (a key update), and data that nobody asked for like this.
        check(22, &[24, 0], ReceiveEnd::Broken);
        check(23, &[1, 0], ReceiveEnd::Broken);
    }

    #[test]
    fn a_socket_that_tells_no_type_has_no_orderly_end() {
        let (ours, mut peer) = UnixStream::pair().expect("a pair");
        assert_eq!(
            end_of_receive(ours.as_fd()),
            ReceiveEnd::Broken,
            "nothing is there"
        );
        peer.write_all(&CLOSE_NOTIFY).expect("it has room");
        assert_eq!(end_of_receive(ours.as_fd()), ReceiveEnd::Broken);
    }

    #[test]
    fn a_close_notify_is_sent_in_two_bytes_with_its_type_beside_them() {
        let message = close_notify();
        // SAFETY: the message is the one above, whose control message is one `RecordType`.
        let kind = unsafe { &*message.msg_control.cast::<RecordType>() };
        assert_eq!((kind.header.cmsg_level, kind.header.cmsg_type), (282, 1));
        assert_eq!((kind.header.cmsg_len, kind.kind), (HEADER_BYTES + 1, 21));
        // A socket without TLS takes no heed of the type.
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let ours = std::net::TcpStream::connect(address).expect("it listens");
        assert_eq!(send_close_notify(ours.as_fd()).expect("it is open"), 2);
        let mut came = [9; 2];
        let (mut peer, _) = listener.accept().expect("it was connected to");
        peer.read_exact(&mut came).expect("it comes");
        assert_eq!(came, CLOSE_NOTIFY);
    }
}
