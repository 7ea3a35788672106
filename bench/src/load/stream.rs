//! One connection of the load: a socket on the ring, with TLS and WebSocket framing as its way asks.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context as _, Result, bail, ensure};
use postern_wire::websocket::{Opcode, binary_frame, client_frame, pong};
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::TcpStream;

use super::frames::{FrameReader, Reads};
use super::tls::{State, Tls};

/// Payload of the frames that carry bulk data: what browsers send.
pub const FRAME_BYTES: usize = 16 * 1024;

/// Masking key of every frame: the relay can't know that it never changes.
const MASKING_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A buffer must hold the longest TLS record and some of the next.
const BUFFER_BYTES_MIN: usize = 17 * 1024;

/// What both halves use.
struct Shared {
    socket: TcpStream,
    tls: RefCell<Option<Tls>>,
    /// What the reading half has to say: the writing half takes it along.
    replies: RefCell<Vec<u8>>,
}

/// The receiving half.
pub struct Reader {
    shared: Rc<Shared>,
    /// Always as long as its capacity; the first `filled` bytes are received and not used.
    buffer: Vec<u8>,
    filled: usize,
    /// What came while the way was opened and belongs to the layer above.
    early: Vec<u8>,
    frames: Option<FrameReader>,
    /// What came with an answer and belongs to what was asked for next, without framing.
    early_payload: Vec<u8>,
    pings: Vec<Vec<u8>>,
    ended: bool,
}

/// The sending half.
pub struct Writer {
    shared: Rc<Shared>,
    framing: Framing,
    /// Framed, not encrypted.
    plain: Vec<u8>,
    /// What goes out.
    sealed: Vec<u8>,
}

/// How messages are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    WebSocket(Reads),
}

/// Both halves of a connection.
pub struct Stream {
    pub reader: Reader,
    pub writer: Writer,
}

impl Stream {
    /// `buffer_bytes` are received at most at once.
    ///
    /// # Errors
    /// The socket does not take its option.
    pub fn new(socket: TcpStream, buffer_bytes: usize) -> Result<Self> {
        socket.set_nodelay(true)?;
        let shared = Rc::new(Shared {
            socket,
            tls: RefCell::default(),
            replies: RefCell::default(),
        });
        Ok(Self {
            reader: Reader {
                shared: shared.clone(),
                buffer: vec![0; buffer_bytes.max(BUFFER_BYTES_MIN)],
                filled: 0,
                early: Vec::new(),
                frames: None,
                early_payload: Vec::new(),
                pings: Vec::new(),
                ended: false,
            },
            writer: Writer {
                shared,
                framing: Framing::None,
                plain: Vec::new(),
                sealed: Vec::new(),
            },
        })
    }

    /// Shakes hands; everything after it is encrypted.
    ///
    /// # Errors
    /// The handshake fails.
    pub async fn start_tls(&mut self, mut tls: Tls) -> Result<()> {
        let reader = &mut self.reader;
        ensure!(reader.early.is_empty(), "bytes came before TLS");
        loop {
            let mut outgoing = Vec::new();
            let early = &mut reader.early;
            let (used, state) = tls.read(
                &mut reader.buffer[..reader.filled],
                &mut outgoing,
                &mut |bytes| {
                    early.extend_from_slice(bytes);
                    Ok(())
                },
            )?;
            reader.discard(used);
            if !outgoing.is_empty() {
                self.writer.shared.socket.write_all(outgoing).await.0?;
            }
            match state {
                State::Established => break,
                State::Closed => bail!("the peer closed in the handshake"),
                State::Handshaking => {
                    ensure!(reader.fill().await? > 0, "the peer ended in the handshake");
                }
            }
        }
        *reader.shared.tls.borrow_mut() = Some(tls);
        Ok(())
    }

    /// From now on messages are WebSocket frames; `reads` says which end this is.
    pub fn start_websocket(&mut self, reads: Reads) {
        self.reader.frames = Some(FrameReader::new(reads));
        self.writer.framing = Framing::WebSocket(reads);
    }

    /// Whether TLS resumed a session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        let tls = self.reader.shared.tls.borrow();
        tls.as_ref().is_some_and(Tls::is_resumed)
    }

    /// Sends one message and waits for `bytes` bytes of answer, which are given to `sink`.
    ///
    /// # Errors
    /// The connection ends or breaks.
    pub async fn exchange(
        &mut self,
        message: &[u8],
        bytes: usize,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.writer.send(message).await?;
        self.reader.receive_exactly(bytes as u64, sink).await
    }
}

impl Reader {
    /// Receives once and gives payload to `sink`: `false` at the end of the stream.
    ///
    /// # Errors
    /// The connection breaks, or `sink` fails.
    pub async fn receive(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        if !self.early_payload.is_empty() {
            sink(&std::mem::take(&mut self.early_payload))?;
            return Ok(true);
        }
        let early = std::mem::take(&mut self.early);
        if early.is_empty() {
            if self.ended || self.fill().await? == 0 {
                return Ok(false);
            }
        } else {
            unframe(&mut self.frames, &early, &mut self.pings, sink)?;
        }
        let used = self.absorb(sink)?;
        self.discard(used);
        if !self.pings.is_empty() {
            self.answer_pings().await?;
        }
        Ok(true)
    }

    /// Gives the payload of what is received to `sink`; how many bytes of it are done with.
    fn absorb(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let mut tls = self.shared.tls.borrow_mut();
        let incoming = &mut self.buffer[..self.filled];
        let (frames, pings) = (&mut self.frames, &mut self.pings);
        match &mut *tls {
            None => {
                unframe(frames, incoming, pings, sink)?;
                Ok(incoming.len())
            }
            Some(tls) => {
                let mut replies = self.shared.replies.borrow_mut();
                let (used, state) = tls.read(incoming, &mut replies, &mut |bytes| {
                    unframe(frames, bytes, pings, sink)
                })?;
                self.ended = state == State::Closed;
                Ok(used)
            }
        }
    }

    /// Receives `bytes` bytes of payload, no more may come.
    ///
    /// # Errors
    /// Fewer or more come.
    pub async fn receive_exactly(
        &mut self,
        bytes: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            let more = self
                .receive(&mut |payload| {
                    let length = payload.len() as u64;
                    left = left
                        .checked_sub(length)
                        .context("more came than was asked for")?;
                    sink(payload)
                })
                .await?;
            ensure!(
                more || left == 0,
                "the relay ended with {left} bytes to come"
            );
        }
        Ok(())
    }

    /// Receives `bytes` bytes of payload; what comes behind them is given out next.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn receive_first(&mut self, bytes: usize, first: &mut Vec<u8>) -> Result<bool> {
        while first.len() < bytes {
            let more = self
                .receive(&mut |payload| {
                    first.extend_from_slice(payload);
                    Ok(())
                })
                .await?;
            if !more {
                return Ok(false);
            }
        }
        self.early_payload = first.split_off(bytes);
        Ok(true)
    }

    /// Receives bytes of no framing until `is_whole` gives the length of what is wanted; what comes
    /// after it stays for the layer above.
    ///
    /// # Errors
    /// The stream ends before, or `is_whole` fails.
    pub async fn receive_raw(
        &mut self,
        bytes_max: usize,
        is_whole: &mut dyn FnMut(&[u8]) -> Result<Option<usize>>,
    ) -> Result<Vec<u8>> {
        ensure!(self.frames.is_none(), "the stream is framed");
        let mut gathered = Vec::new();
        loop {
            if let Some(length) = is_whole(&gathered)? {
                self.early = gathered.split_off(length);
                return Ok(gathered);
            }
            ensure!(gathered.len() < bytes_max, "over {bytes_max} bytes came");
            let more = self
                .receive(&mut |bytes| {
                    gathered.extend_from_slice(bytes);
                    Ok(())
                })
                .await?;
            ensure!(
                more,
                "the peer ended: {:?}",
                String::from_utf8_lossy(&gathered)
            );
        }
    }

    /// One receive behind what is there.
    async fn fill(&mut self) -> Result<usize> {
        ensure!(self.filled < self.buffer.len(), "a record does not fit");
        let buffer = std::mem::take(&mut self.buffer);
        let (read, buffer) = self.shared.socket.read(buffer.slice(self.filled..)).await;
        self.buffer = buffer.into_inner();
        let read = read.context("receive")?;
        self.filled += read;
        Ok(read)
    }

    fn discard(&mut self, used: usize) {
        self.buffer.copy_within(used..self.filled, 0);
        self.filled -= used;
    }

    /// A relay asks rarely; what it is told goes out with the next message where TLS orders records.
    async fn answer_pings(&mut self) -> Result<()> {
        let mut plain = Vec::new();
        for payload in self.pings.drain(..) {
            plain.extend_from_slice(&match self.frames {
                Some(_) => client_frame(Opcode::Pong, true, MASKING_KEY, &payload),
                None => pong(&payload),
            });
        }
        if let Some(tls) = &mut *self.shared.tls.borrow_mut() {
            tls.write(&plain, &mut self.shared.replies.borrow_mut())?;
            return Ok(());
        }
        self.shared.replies.borrow_mut().extend_from_slice(&plain);
        Ok(())
    }
}

fn unframe(
    frames: &mut Option<FrameReader>,
    bytes: &[u8],
    pings: &mut Vec<Vec<u8>>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    match frames {
        None => sink(bytes),
        Some(frames) => frames.read(bytes, pings, sink),
    }
}

impl Writer {
    /// Sends one message in one write.
    ///
    /// # Errors
    /// The peer takes it no more.
    pub async fn send(&mut self, message: &[u8]) -> Result<()> {
        self.prepare(message, usize::MAX);
        self.send_prepared().await
    }

    /// Frames `payload` in messages of at most `message_bytes`, for [`Writer::send_prepared`].
    pub fn prepare(&mut self, payload: &[u8], message_bytes: usize) {
        self.plain.clear();
        for message in payload.chunks(message_bytes) {
            match self.framing {
                Framing::None => self.plain.extend_from_slice(message),
                Framing::WebSocket(Reads::Client) => {
                    let frame = client_frame(Opcode::Binary, true, MASKING_KEY, message);
                    self.plain.extend_from_slice(&frame);
                }
                Framing::WebSocket(Reads::Server) => {
                    self.plain.extend_from_slice(&binary_frame(message));
                }
            }
        }
    }

    /// Sends what is prepared, which stays prepared.
    ///
    /// # Errors
    /// The peer takes it no more.
    pub async fn send_prepared(&mut self) -> Result<()> {
        let mut replies = self.shared.replies.take();
        let is_encrypted = match &mut *self.shared.tls.borrow_mut() {
            None => false,
            Some(tls) => {
                self.sealed.clear();
                self.sealed.append(&mut replies);
                tls.write(&self.plain, &mut self.sealed)?;
                true
            }
        };
        if !replies.is_empty() {
            self.shared.socket.write_all(replies).await.0?;
        }
        let buffer = if is_encrypted {
            &mut self.sealed
        } else {
            &mut self.plain
        };
        let (sent, taken) = self.shared.socket.write_all(std::mem::take(buffer)).await;
        *buffer = taken;
        sent.context("send")
    }
}
