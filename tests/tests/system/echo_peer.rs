//! A gateway with `/echo` and an independent WebSocket client at it, which can also send any bytes.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use postern_tests::duplex::Duplex;
use postern_tests::gateway::Configuration;
use postern_tests::{Browser, Gateway};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::Response;
use tungstenite::protocol::WebSocket;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::{Error, Message};

/// A connection whose writes never wait: an echo answers while it is still being sent to.
pub struct Eager {
    stream: Arc<Duplex>,
    outbox: Sender<Vec<u8>>,
}

impl Read for Eager {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.receive(buffer)
    }
}

impl Write for Eager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::ErrorKind::BrokenPipe;
        self.outbox.send(bytes.to_vec()).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The client at `/echo`.
pub struct Peer {
    pub client: WebSocket<Eager>,
    pub response: Response,
}

/// A gateway with nothing but `/echo`.
pub fn gateway() -> Result<Gateway> {
    Gateway::start_with_echo(Configuration::default())
}

impl Peer {
    pub fn connect(browser: &Browser) -> Result<Self> {
        Self::connect_with(browser, &[])
    }

    /// Offers `headers` on top of what a handshake needs.
    pub fn connect_with(browser: &Browser, headers: &[(&'static str, &str)]) -> Result<Self> {
        let url = browser.origin().replace("https:", "wss:") + "/echo";
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse()?);
        }
        let (stream, _) = browser.connect()?;
        let stream = Arc::new(stream);
        let (outbox, letters) = channel::<Vec<u8>>();
        let sending = stream.clone();
        std::thread::spawn(move || {
            for bytes in letters {
                // What the gateway does not take any more need not be sent.
                if sending.send(&bytes).is_err() {
                    return;
                }
            }
        });
        let (client, response) = tungstenite::client(request, Eager { stream, outbox })
            .map_err(|error| anyhow!("tungstenite's handshake: {error}"))?;
        Ok(Self { client, response })
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.client.get_mut().write_all(bytes)?)
    }

    /// Sends one frame of a message.
    pub fn frame(&mut self, kind: Data, payload: &[u8], fin: bool) -> Result<()> {
        let frame = Frame::message(payload.to_vec(), OpCode::Data(kind), fin);
        Ok(self.client.send(Message::Frame(frame))?)
    }

    /// Sends `payload` in parts of `bytes`, the last one perhaps shorter.
    pub fn fragments(&mut self, kind: Data, payload: &[u8], bytes: usize) -> Result<()> {
        let parts: Vec<&[u8]> = payload.chunks(bytes).collect();
        for (at, part) in parts.iter().enumerate() {
            let kind = if at == 0 { kind } else { Data::Continue };
            self.frame(kind, part, at + 1 == parts.len())?;
        }
        Ok(())
    }

    /// The next thing that comes must be this.
    pub fn expect(&mut self, expected: &Message) -> Result<()> {
        let came = self.client.read()?;
        let (short, long) = (came.len(), expected.len());
        ensure!(
            came == *expected,
            "another thing of {short} bytes instead of one of {long}"
        );
        Ok(())
    }

    /// Sends a message, which must come back.
    pub fn echoed(&mut self, message: Message) -> Result<()> {
        self.client.send(message.clone())?;
        self.expect(&message)
    }

    /// The gateway must close next, with this code and in order.
    pub fn expect_close(&mut self, code: Option<u16>) -> Result<()> {
        match self.client.read()? {
            Message::Close(close) => {
                let came = close.map(|close| u16::from(close.code));
                ensure!(came == code, "closed with {came:?} instead of {code:?}");
            }
            other => bail!("{} bytes of a message came", other.len()),
        }
        // The server ends the connection first [RFC 6455 §7.1.1].
        match self.client.read() {
            Err(Error::ConnectionClosed) => Ok(()),
            Err(error) => Err(error).context("the end of the connection"),
            Ok(more) => bail!("{} bytes came after the close frame", more.len()),
        }
    }
}

/// A masked frame with any bits set, whose payload is as long as its header says.
pub fn spoilt(opcode: u8, payload: &[u8], spoil: impl FnOnce(&mut FrameHeader)) -> Vec<u8> {
    let mut header = FrameHeader {
        is_final: true,
        opcode: OpCode::from(opcode),
        mask: Some([0x11, 0x22, 0x33, 0x44]),
        ..FrameHeader::default()
    };
    spoil(&mut header);
    let mut bytes = Vec::new();
    header
        .format(payload.len() as u64, &mut bytes)
        .expect("memory takes all bytes");
    let key = header.mask.unwrap_or_default();
    let masked = payload.iter().zip(key.iter().cycle());
    bytes.extend(masked.map(|(byte, key)| byte ^ key));
    bytes
}
