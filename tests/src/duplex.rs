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
    /// Decrypted and not yet taken; only the one reader locks it.
    incoming: Mutex<Incoming>,
    /// Held from encryption to the end of the write: records leave in the order they were made.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    /// Of `bytes`, from the start.
    taken: usize,
    /// How it ends, once that is known: in order or not.
    end: Option<ErrorKind>,
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
            incoming: Mutex::default(),
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
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let mut encrypted = [0; CHUNK_BYTES];
        // What came with the handshake is there before the first read.
        self.decrypt(&mut &[][..], &mut incoming)?;
        loop {
            let rest = &incoming.bytes[incoming.taken..];
            if !rest.is_empty() {
                let part = rest.len().min(buffer.len());
                buffer[..part].copy_from_slice(&rest[..part]);
                incoming.taken += part;
                return Ok(part);
            }
            match incoming.end {
                None => {}
                Some(ErrorKind::UnexpectedEof) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(_) => return Ok(0),
            }
            incoming.bytes.clear();
            incoming.taken = 0;
            let bytes = match (&self.socket).read(&mut encrypted) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                answer => answer?,
            };
            if bytes == 0 {
                incoming.end = Some(ErrorKind::UnexpectedEof);
            }
            self.decrypt(&mut &encrypted[..bytes], &mut incoming)?;
        }
    }

    /// Decrypts all of `encrypted`, in the portions that the library takes.
    fn decrypt(&self, encrypted: &mut &[u8], incoming: &mut Incoming) -> io::Result<()> {
        let mut tls = self.tls();
        loop {
            if !encrypted.is_empty() {
                tls.read_tls(encrypted)?;
            }
            let state = tls
                .process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            let start = incoming.bytes.len();
            incoming
                .bytes
                .resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut incoming.bytes[start..])?;
            if state.peer_has_closed() {
                incoming.end = Some(ErrorKind::NotConnected);
            }
            if encrypted.is_empty() || state.peer_has_closed() {
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

impl Read for &Duplex {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer)
    }
}

impl Write for &Duplex {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn flush_into(tls: &mut Connection, encrypted: &mut Vec<u8>) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(encrypted)?;
    }
    Ok(())
}
