//! Wakes a core from another thread, over a socket pair.

use std::io::{self, Write as _};
use std::os::fd::{FromRawFd as _, IntoRawFd as _};
use std::os::unix::net::UnixStream as StdUnixStream;

use futures_lite::AsyncReadExt as _;
use glommio::net::UnixStream;

/// The end that any thread rings.
#[derive(Debug)]
pub struct Button(StdUnixStream);

/// The end that travels to the core and becomes a [`Doorbell`] there.
#[derive(Debug)]
pub struct Wire(StdUnixStream);

/// The end that a core waits on.
#[derive(Debug)]
pub struct Doorbell(UnixStream);

/// A new doorbell.
///
/// # Errors
/// When the kernel gives no socket pair.
pub fn new() -> io::Result<(Button, Wire)> {
    let (button, wire) = StdUnixStream::pair()?;
    button.set_nonblocking(true)?;
    Ok((Button(button), Wire(wire)))
}

impl Button {
    /// Wakes the core. A full socket means that a wake-up is pending already.
    pub fn ring(&self) {
        // A core that is gone has nobody to wake either.
        let _ = (&self.0).write(&[0]);
    }
}

impl Wire {
    /// Must be called on the executor that will wait.
    #[must_use]
    pub fn connect(self) -> Doorbell {
        let descriptor = self.0.into_raw_fd();
        // SAFETY: the descriptor was just taken out of an owned socket, so it is open, a UNIX stream
        // socket, and nobody else closes it.
        Doorbell(unsafe { UnixStream::from_raw_fd(descriptor) })
    }
}

impl Doorbell {
    /// Resolves when the button was rung since the last call.
    ///
    /// # Errors
    /// When the button is gone.
    pub async fn rung(&mut self) -> io::Result<()> {
        match self.0.read(&mut [0; 64]).await? {
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }
}
