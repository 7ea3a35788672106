//! A TLS connection that one thread reads while another one writes, as browsers and servers do.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::Connection;

/// Encrypted bytes that one read takes from the socket.
const CHUNK_BYTES: usize = 32 * 1024;

/// Plaintext that one record is made of at most.
const RECORD_BYTES: usize = 16 * 1024;

/// Both ends of blocking TLS over TCP. Reading and writing go through `&self`.
#[derive(Debug)]
pub struct Duplex {
    socket: TcpStream,
    /// Held while bytes are encrypted or decrypted, never while the socket blocks.
    tls: Mutex<Connection>,
    /// Held from encryption to the end of the write: records leave in the order they were made.
    writing: Mutex<()>,
}

impl Duplex {
    /// Finishes the handshake; no step of it and no later read takes longer than `patience`.
    ///
    /// # Errors
    /// The handshake fails or is too slow.
    pub fn handshake(
        socket: TcpStream,
        mut connection: Connection,
        patience: Duration,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let mut stream = &socket;
        while connection.is_handshaking() {
            if let Err(error) = connection.complete_io(&mut stream) {
                // The peer may like to hear the alert; it is no loss if it is gone.
                let _ = connection.write_tls(&mut stream);
                return Err(error);
            }
        }
        while connection.wants_write() {
            connection.write_tls(&mut stream)?;
        }
        Ok(Self {
            socket,
            tls: Mutex::new(connection),
            writing: Mutex::new(()),
        })
    }

    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What the handshake agreed on.
    pub fn with_tls<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&self.tls())
    }

    /// How long the next reads may wait.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))
    }

    /// Reads what has arrived; 0 when the peer has said that it is done. A connection that ends
    /// without that is [`ErrorKind::UnexpectedEof`].
    ///
    /// # Errors
    /// The connection broke, or nothing came in time ([`ErrorKind::WouldBlock`]).
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut encrypted = vec![0; CHUNK_BYTES];
        loop {
            match self.tls().reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                answer => return answer,
            }
            let mut socket = &self.socket;
            let bytes = match socket.read(&mut encrypted) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                answer => answer?,
            };
            self.take_in(&encrypted[..bytes])?;
        }
    }

    /// Feeds bytes from the socket, none meaning its end, until all of them are decrypted.
    fn take_in(&self, mut encrypted: &[u8]) -> io::Result<()> {
        let mut tls = self.tls();
        loop {
            tls.read_tls(&mut encrypted)?;
            tls.process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            if encrypted.is_empty() {
                return Ok(());
            }
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The connection broke, or the peer took nothing in time.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let _turn = self.turn();
        for record in bytes.chunks(RECORD_BYTES) {
            let mut encrypted = Vec::with_capacity(record.len() + 64);
            {
                let mut tls = self.tls();
                tls.writer().write_all(record)?;
                flush_into(&mut tls, &mut encrypted)?;
            }
            (&self.socket).write_all(&encrypted)?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent; the peer may go on.
    ///
    /// # Errors
    /// The connection broke.
    pub fn finish(&self) -> io::Result<()> {
        let _turn = self.turn();
        let mut encrypted = Vec::new();
        {
            let mut tls = self.tls();
            tls.send_close_notify();
            flush_into(&mut tls, &mut encrypted)?;
        }
        (&self.socket).write_all(&encrypted)?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// Ends both directions at once; whoever reads or writes meanwhile is woken.
    pub fn cut(&self) {
        // A socket that is gone needs no ending.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn tls(&self) -> MutexGuard<'_, Connection> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn flush_into(tls: &mut Connection, encrypted: &mut Vec<u8>) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(encrypted)?;
    }
    Ok(())
}
