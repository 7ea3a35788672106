//! Wakes a core from another thread, over a socket pair.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use futures_lite::AsyncReadExt as _;

use crate::net::Stream;

/// The end that any thread rings.
#[derive(Debug)]
pub struct Button(UnixStream);

/// The end that travels to the core and becomes a [`Doorbell`] there.
#[derive(Debug)]
pub struct Wire(UnixStream);

/// The end that a core waits on.
#[derive(Debug)]
pub struct Doorbell(Stream);

/// A new doorbell.
///
/// # Errors
/// When the kernel gives no socket pair.
pub fn new() -> io::Result<(Button, Wire)> {
    let (button, wire) = UnixStream::pair()?;
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
    /// Must be called on the core that will wait.
    ///
    /// # Errors
    /// When the core can't wait for one more descriptor.
    pub fn connect(self) -> io::Result<Doorbell> {
        Stream::adopt(OwnedFd::from(self.0)).map(Doorbell)
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
