//! Opening a way, layer by layer, as its clients do.

use std::cell::Cell;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use postern_wire::rdcleanpath::{self, Answer};
use postern_wire::x224::{self, Confirm, Protocol, Protocols};
use rustls::ClientConfig;
use tokio_uring::net::TcpStream;

use super::frames::Reads;
use super::stream::Stream;
use super::tls::{self, Tls};
use super::work::{Layer, Target, Upgrade};

/// Longest answer to an upgrade or to a request for a desktop.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// [RFC 6455 §1.3] The example's key and what it must be answered with.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pplmbitxaq9kygzzhzrbk+xoo=";

/// Opens connections over one way; those after the first may resume TLS sessions.
#[derive(Debug)]
pub struct Opener {
    target: Target,
    tls: Option<Arc<ClientConfig>>,
    buffer_bytes: usize,
    /// Number of the next connection, and how far apart the numbers of this opener's are.
    next: Cell<usize>,
    step: usize,
}

impl Opener {
    /// # Errors
    /// TLS can't be set up.
    pub fn new(target: &Target, resumed: bool, buffer_bytes: usize) -> Result<Self> {
        let groups = target.layers.iter().find_map(|layer| match layer {
            Layer::Tls { groups, .. } => Some(*groups),
            _ => None,
        });
        let tls = groups.map(|groups| tls::client_config(tls::provider(groups), resumed));
        Ok(Self {
            target: target.clone(),
            tls: tls.transpose()?,
            buffer_bytes,
            next: Cell::new(0),
            step: 1,
        })
    }

    /// One of `count` openers over the same way, each with TLS sessions of its own, which share the
    /// upgrades.
    #[must_use]
    pub fn one_of(self, number: usize, count: usize) -> Self {
        Self {
            next: Cell::new(number),
            step: count,
            ..self
        }
    }

    /// # Errors
    /// A layer refuses.
    pub async fn open(&self) -> Result<Stream> {
        let number = self.next.get();
        self.next.set(number + self.step);
        let address = self.target.address;
        let socket = TcpStream::connect(address).await.context("connect")?;
        let mut stream = Stream::new(socket, self.buffer_bytes)?;
        let mut proxy_auth = "";
        for layer in &self.target.layers {
            match layer {
                Layer::X224 => negotiate(&mut stream).await?,
                Layer::Tls { name, .. } => {
                    let config = self.tls.as_ref().context("TLS is set up")?;
                    stream.start_tls(Tls::client(config, name)?).await?;
                }
                Layer::WebSocket { upgrades } => {
                    let upgrade = upgrades
                        .get(number % upgrades.len().max(1))
                        .context("a WebSocket without an upgrade")?;
                    proxy_auth = &upgrade.proxy_auth;
                    self.upgrade(&mut stream, upgrade).await?;
                }
                Layer::CleanPath { destination } => {
                    ask_for_desktop(&mut stream, destination, proxy_auth).await?;
                }
            }
        }
        Ok(stream)
    }

    async fn upgrade(&self, stream: &mut Stream, upgrade: &Upgrade) -> Result<()> {
        let address = self.target.address.to_string();
        let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n",
            or(&upgrade.path, "/"),
            or(&upgrade.host, &address),
        );
        for (name, value) in &upgrade.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.writer.send(head.as_bytes()).await?;
        let answer = stream
            .reader
            .receive_raw(ANSWER_BYTES_MAX, &mut |bytes| {
                let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
                Ok(end.map(|end| end + 4))
            })
            .await
            .context("the answer to the upgrade")?;
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        ensure!(
            answer.starts_with("http/1.1 101") && answer.contains(ACCEPT),
            "the upgrade is refused: {answer}"
        );
        stream.start_websocket(Reads::Client);
        Ok(())
    }
}

/// [MS-RDPBCGR 2.2.1.1] Offers TLS alone, which must be chosen.
async fn negotiate(stream: &mut Stream) -> Result<()> {
    let request = x224::encode_request(None, Protocols::TLS)?;
    stream.writer.send(&request).await?;
    let confirm = stream
        .reader
        .receive_raw(x224::CONFIRM_BYTES_MAX, &mut |bytes| {
            Ok(x224::confirm_length(bytes)?.filter(|length| bytes.len() >= *length))
        })
        .await?;
    let confirm = Confirm::parse(&confirm)?;
    ensure!(
        confirm == Confirm::Selected(Protocol::Tls.bit()),
        "X.224 answers {confirm:?}"
    );
    Ok(())
}

async fn ask_for_desktop(stream: &mut Stream, destination: &str, token: &str) -> Result<()> {
    let token = if token.is_empty() { "none" } else { token };
    let x224 = x224::encode_request(None, Protocols::TLS)?;
    let request = rdcleanpath::encode_request(destination, token, &x224)?;
    stream.writer.send(&request).await?;
    let mut answer = Vec::new();
    while der_length(&answer).is_none_or(|length| answer.len() < length) {
        ensure!(answer.len() <= ANSWER_BYTES_MAX, "an answer without end");
        let more = stream
            .reader
            .receive(&mut |bytes| {
                answer.extend_from_slice(bytes);
                Ok(())
            })
            .await?;
        ensure!(more, "no answer to RDCleanPath");
    }
    match Answer::parse(&answer)? {
        Answer::Desktop { .. } => Ok(()),
        Answer::Failed(failure) => bail!("no desktop: {failure:?}"),
    }
}

/// [X.690 §8.1.3] Length of the outermost element, its header included.
fn der_length(bytes: &[u8]) -> Option<usize> {
    let second = usize::from(*bytes.get(1)?);
    if second < 0x80 {
        return Some(2 + second);
    }
    let digits = bytes.get(2..2 + (second & 0x7f))?;
    let length = digits
        .iter()
        .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
    Some(2 + digits.len() + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_element_is_known_when_its_header_is_there() {
        assert_eq!(der_length(&[]), None);
        assert_eq!(der_length(&[0x30]), None);
        assert_eq!(der_length(&[0x30, 5]), Some(7));
        assert_eq!(der_length(&[0x30, 0x82, 1]), None);
        assert_eq!(der_length(&[0x30, 0x82, 1, 0]), Some(260));
    }
}
