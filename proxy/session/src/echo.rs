//! `/echo`: sends every message back, on the production framing code, for outside conformance
//! clients. Only in binaries built with the `echo` feature; asks for no token.

use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use postern_wire::websocket::{
    self, Decoder, DecoderLimits, Event, MessageKind, Opcode, TextPolicy,
};

use crate::close::linger;
use crate::core::send;
use crate::inbox::Inbox;
use crate::{Core, Outcome};

pub(crate) const PATH: &str = "/echo";

/// Conformance suites send large frames to see what happens; they are echoed as they arrive.
const FRAME_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Echoes until the peer is done; always an [`Outcome::Echo`].
pub(crate) async fn serve<C: Core>(
    core: &C,
    browser: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Outcome {
    let limits = DecoderLimits {
        frame_bytes_max: FRAME_BYTES_MAX,
    };
    let mut decoder = Decoder::new(limits, TextPolicy::Validate);
    let mut inbox = Inbox::new();
    // Errors of the stream end the echo like everything else.
    let _ = echo(browser, &mut inbox, &mut decoder).await;
    let _ = browser.close().await;
    linger(core, browser).await;
    Outcome::Echo
}

async fn echo(
    browser: &mut (impl AsyncRead + AsyncWrite + Unpin),
    inbox: &mut Inbox,
    decoder: &mut Decoder,
) -> std::io::Result<()> {
    loop {
        let filled = inbox.filled();
        let step = match decoder.next(filled) {
            Ok(step) => step,
            Err(error) => {
                let goodbye = websocket::close_frame(error.close_code(), error.label());
                return send(browser, &goodbye).await;
            }
        };
        match step.event {
            None => {
                inbox.consume(step.consumed);
                browser.flush().await?;
                if inbox.fill(browser).await? == 0 {
                    return Ok(());
                }
                continue;
            }
            Some(Event::Data {
                kind,
                payload,
                first,
                last,
            }) => {
                let opcode = match (first, kind) {
                    (false, _) => Opcode::Continuation,
                    (true, MessageKind::Text) => Opcode::Text,
                    (true, MessageKind::Binary) => Opcode::Binary,
                };
                let mut header = [0; 10];
                let bytes = websocket::frame_header(opcode, last, payload.len(), &mut header);
                browser.write_all(&header[..bytes]).await?;
                browser.write_all(&filled[payload]).await?;
            }
            Some(Event::Ping(payload)) => {
                let pong = websocket::pong(&filled[payload]);
                browser.write_all(&pong).await?;
            }
            Some(Event::Pong(_)) => {}
            Some(Event::Close(close)) => {
                let goodbye = match close {
                    Some((code, _)) => websocket::close_frame(code, ""),
                    None => websocket::close_without_code(),
                };
                return send(browser, &goodbye).await;
            }
        }
        inbox.consume(step.consumed);
    }
}
