//! Puts frames on an interface as fast as one core can.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail, ensure};

use super::frame::{FRAME_BYTES, Frame};

/// Frames in a call.
const BATCH: usize = 256;

/// What the socket may have in queues: more than those hold, so that it never waits.
const BUFFER_BYTES: libc::c_int = 64 << 20;

/// A packet socket on one interface, past its queueing discipline.
#[derive(Debug)]
pub struct Generator {
    socket: OwnedFd,
}

impl Generator {
    /// On `interface` of the calling thread's namespace.
    ///
    /// # Errors
    /// The process may not, or there is no such interface.
    #[allow(unsafe_code)]
    pub fn open(interface: &str) -> Result<Self> {
        // SAFETY: takes no pointer. Protocol 0: it gets no packets.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        ensure!(socket >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: the descriptor was just opened, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let generator = Self { socket };
        generator.set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        generator.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER_BYTES)?;
        generator.bind(interface)?;
        Ok(generator)
    }

    #[allow(unsafe_code)]
    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> Result<()> {
        let socket = self.socket.as_raw_fd();
        let size = size_of_val(&value) as libc::socklen_t;
        // SAFETY: the value is read during the call, as many bytes as it has.
        let status =
            unsafe { libc::setsockopt(socket, level, option, (&raw const value).cast(), size) };
        let error = io::Error::last_os_error();
        ensure!(status == 0, "option {option} of a packet socket: {error}");
        Ok(())
    }

    #[allow(unsafe_code)]
    fn bind(&self, interface: &str) -> Result<()> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: the name is a string that ends.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        ensure!(index != 0, "{interface}: {}", io::Error::last_os_error());
        // SAFETY: all of its fields are numbers, for which zeros are a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_ifindex = i32::try_from(index)?;
        let size = size_of_val(&address) as libc::socklen_t;
        let socket = self.socket.as_raw_fd();
        // SAFETY: the address is read during the call, as many bytes as it has.
        let status = unsafe { libc::bind(socket, (&raw const address).cast(), size) };
        ensure!(status == 0, "{interface}: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Sends the frames over and over until `stop`; a frame that finds the other end's queue full is left out.
    ///
    /// # Errors
    /// The interface is down.
    #[allow(unsafe_code)]
    pub fn send_until(&self, frames: &[Frame], stop: &AtomicBool) -> Result<()> {
        let mut parts: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: FRAME_BYTES,
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: all of its fields are numbers and pointers, for which zeros are a value.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let socket = self.socket.as_raw_fd();
        let mut at = 0;
        while !stop.load(Ordering::Relaxed) {
            let batch = messages.get_mut(at..).context("there are frames")?;
            let count = batch.len().min(BATCH) as libc::c_uint;
            // SAFETY: `count` messages are there, each with one part, which is a frame; all of them live across the call, and sending
            // writes to none of the frames.
            let sent = unsafe { libc::sendmmsg(socket, batch.as_mut_ptr(), count, 0) };
            at += match usize::try_from(sent) {
                Ok(sent) => sent,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        bail!("sending: {error}");
                    }
                    1
                }
            };
            if at >= messages.len() {
                at = 0;
            }
        }
        Ok(())
    }
}
