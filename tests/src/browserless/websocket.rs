//! The client's end of a WebSocket at a gateway, which can also break the protocol.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use postern_wire::rdcleanpath;
use postern_wire::websocket::{Opcode, client_frame};
use postern_wire::x224::{self, Protocols};
use socket2::SockRef;

use super::http::{self, Response};
use super::{Answer, PATIENCE};
use crate::duplex::Duplex;
use crate::noise::Tally;

/// The answer to an upgrade.
#[derive(Debug)]
pub enum Opened {
    WebSocket(Box<WebSocket>),
    Refused(Response),
}

/// What a gateway sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Binary(Vec<u8>),
    Text(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close {
        code: u16,
        reason: String,
    },
    /// The connection ended; `clean` with TLS' good-bye.
    End {
        clean: bool,
    },
}

/// An open WebSocket. Reading needs it whole; [`WebSocket::writer`] writes from another thread.
#[derive(Debug)]
pub struct WebSocket {
    stream: Arc<Duplex>,
    /// This end of the connection, as audit records name it.
    pub source: SocketAddr,
    received: Vec<u8>,
    /// Bytes at the start of `received` that were used.
    used: usize,
}

/// The writing half.
#[derive(Debug, Clone)]
pub struct Writer(Arc<Duplex>);

impl Writer {
    /// Sends one binary message.
    ///
    /// # Errors
    /// The gateway takes it no more.
    pub fn send(&self, payload: &[u8]) -> std::io::Result<()> {
        self.frame(Opcode::Binary, payload)
    }

    /// # Errors
    /// The gateway takes it no more.
    pub fn frame(&self, opcode: Opcode, payload: &[u8]) -> std::io::Result<()> {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        self.0.send(&client_frame(opcode, true, key, payload))
    }

    /// Says good-bye as a page does that is closed in order.
    ///
    /// # Errors
    /// The gateway takes it no more.
    pub fn close(&self, code: u16) -> std::io::Result<()> {
        self.frame(Opcode::Close, &code.to_be_bytes())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The gateway takes them no more.
    pub fn raw(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.send(bytes)
    }

    /// Ends TLS and TCP in this direction, without a WebSocket good-bye.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn finish(&self) -> std::io::Result<()> {
        self.0.finish()
    }
}

impl WebSocket {
    pub(super) fn open(stream: Duplex, source: SocketAddr, head: &[u8]) -> Result<Opened> {
        stream.send(head)?;
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        let end = loop {
            if let Some(end) = http::head_end(&received) {
                break end;
            }
            let read = stream
                .receive(&mut buffer)
                .context("no answer to the upgrade")?;
            ensure!(
                read > 0,
                "the gateway ended without an answer to the upgrade"
            );
            received.extend_from_slice(&buffer[..read]);
        };
        if http::status(&received) == Some(101) {
            check_accept(&received[..end])?;
            received.drain(..end);
            return Ok(Opened::WebSocket(Box::new(Self {
                stream: Arc::new(stream),
                source,
                received,
                used: 0,
            })));
        }
        while let Ok(read @ 1..) = stream.receive(&mut buffer) {
            received.extend_from_slice(&buffer[..read]);
        }
        let answer = Answer {
            source,
            bytes: received,
            ended: true,
        };
        Response::parse(&answer).map(Opened::Refused)
    }

    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer(self.stream.clone())
    }

    /// # Errors
    /// The gateway takes it no more.
    pub fn send(&self, payload: &[u8]) -> std::io::Result<()> {
        self.writer().send(payload)
    }

    /// # Errors
    /// The gateway takes them no more.
    pub fn send_raw(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.send(bytes)
    }

    /// Ends both directions at once.
    pub fn cut(&self) {
        self.stream.cut();
    }

    /// Breaks the connection off by a reset, which takes what is under way along, as soon as nobody
    /// has a writer.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn reset(self) -> std::io::Result<()> {
        SockRef::from(self.stream.socket()).set_linger(Some(Duration::ZERO))
    }

    /// The next frame of any kind.
    ///
    /// # Errors
    /// Nothing comes in time, or something that is no frame.
    pub fn frame(&mut self) -> Result<Frame> {
        self.frame_within(PATIENCE)
    }

    /// As [`WebSocket::frame`], with a time of its own.
    ///
    /// # Errors
    /// Nothing comes in time, or something that is no frame.
    pub fn frame_within(&mut self, patience: Duration) -> Result<Frame> {
        let deadline = Instant::now() + patience;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            if let Some((frame, used)) = parse_frame(&self.received[self.used..])? {
                self.used += used;
                if self.used == self.received.len() {
                    self.received.clear();
                    self.used = 0;
                }
                return Ok(frame);
            }
            self.received.drain(..self.used);
            self.used = 0;
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "no frame within {} s",
                patience.as_secs_f32()
            );
            self.stream.set_patience(left)?;
            match self.stream.receive(&mut buffer) {
                Ok(0) => return Ok(Frame::End { clean: true }),
                Ok(read) => self.received.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Ok(Frame::End { clean: false }),
            }
        }
    }

    /// The next frame that is not a ping; pings are answered.
    ///
    /// # Errors
    /// As [`WebSocket::frame_within`].
    pub fn next_within(&mut self, patience: Duration) -> Result<Frame> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.frame_within(left)? {
                Frame::Ping(payload) => self.writer().frame(Opcode::Pong, &payload)?,
                frame => return Ok(frame),
            }
        }
    }

    /// The payload of the next binary frame.
    ///
    /// # Errors
    /// Something else comes, or nothing in time.
    pub fn receive(&mut self) -> Result<Vec<u8>> {
        match self.next_within(PATIENCE)? {
            Frame::Binary(payload) => Ok(payload),
            other => bail!("not a binary frame: {other:?}"),
        }
    }

    /// Exactly so many bytes of payload, in however many frames.
    ///
    /// # Errors
    /// Something else comes, or nothing in time.
    pub fn receive_exactly(&mut self, bytes: usize) -> Result<Vec<u8>> {
        let mut all = Vec::with_capacity(bytes);
        while all.len() < bytes {
            all.extend_from_slice(&self.receive()?);
        }
        ensure!(
            all.len() == bytes,
            "{} bytes came instead of {bytes}",
            all.len()
        );
        Ok(all)
    }

    /// Adds payload to `tally` until the gateway closes; the close frame.
    ///
    /// # Errors
    /// The connection ends otherwise.
    pub fn drain(&mut self, tally: &mut Tally, patience: Duration) -> Result<(u16, String)> {
        loop {
            match self.next_within(patience)? {
                Frame::Binary(payload) => tally.add(&payload),
                Frame::Close { code, reason } => return Ok((code, reason)),
                Frame::End { clean } => {
                    bail!("the connection ended without a close frame (clean: {clean})")
                }
                _ => {}
            }
        }
    }

    /// Waits for the close frame, dropping what comes before it.
    ///
    /// # Errors
    /// None comes in time.
    pub fn closed_within(&mut self, patience: Duration) -> Result<(u16, String)> {
        self.drain(&mut Tally::default(), patience)
    }

    /// Waits for the close frame.
    ///
    /// # Errors
    /// None comes in time.
    pub fn closed(&mut self) -> Result<(u16, String)> {
        self.closed_within(PATIENCE)
    }

    /// Sends an `RDCleanPath` request as a client does, offering `protocols`; the answer.
    ///
    /// # Errors
    /// The gateway answers with no PDU.
    pub fn request(
        &mut self,
        destination: &str,
        protocols: Protocols,
    ) -> Result<rdcleanpath::Answer> {
        let x224 = x224::encode_request(None, protocols)?;
        let request = rdcleanpath::encode_request(destination, "none", &x224)?;
        self.send(&request)?;
        Ok(rdcleanpath::Answer::parse(&self.receive()?)?)
    }

    /// As [`WebSocket::request`]; the answer must be a desktop.
    ///
    /// # Errors
    /// It is not.
    pub fn ask_for_desktop(&mut self, application: &str) -> Result<()> {
        match self.request(application, Protocols::ALL)? {
            rdcleanpath::Answer::Desktop { .. } => Ok(()),
            rdcleanpath::Answer::Failed(failure) => bail!("no desktop: {failure:?}"),
        }
    }
}

/// [RFC 6455 §4.1] The answer belongs to our key, and agrees to nothing that we did not ask for.
fn check_accept(head: &[u8]) -> Result<()> {
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    // The example of RFC 6455 §1.3, whose key every upgrade here sends.
    ensure!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "the accept value is another key's: {head}"
    );
    ensure!(
        !head.contains("sec-websocket-extensions") && !head.contains("sec-websocket-protocol"),
        "an extension or protocol was agreed to: {head}"
    );
    Ok(())
}

/// [RFC 6455 §5.2] The frame at the start of `bytes` and its length; `None` when it is not whole.
fn parse_frame(bytes: &[u8]) -> Result<Option<(Frame, usize)>> {
    let [first, second, ..] = *bytes else {
        return Ok(None);
    };
    ensure!(second & 0x80 == 0, "a gateway does not mask");
    ensure!(first & 0x80 != 0, "a gateway does not fragment");
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(digits) = bytes.get(2..2 + extended) else {
        return Ok(None);
    };
    let length = match extended {
        0 => usize::from(second),
        _ => digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
    };
    let start = 2 + extended;
    let Some(payload) = bytes.get(start..start + length) else {
        return Ok(None);
    };
    let payload = payload.to_vec();
    let frame = match first {
        0x82 => Frame::Binary(payload),
        0x81 => Frame::Text(payload),
        0x89 => Frame::Ping(payload),
        0x8a => Frame::Pong(payload),
        0x88 => Frame::Close {
            code: payload
                .first_chunk()
                .map_or(1005, |code| u16::from_be_bytes(*code)),
            reason: String::from_utf8(payload.get(2..).unwrap_or_default().to_vec())?,
        },
        other => bail!("a frame that begins with {other:#x}"),
    };
    Ok(Some((frame, start + length)))
}
