//! Receives the `RDCleanPath` request: the first thing that a browser says on its WebSocket.

use futures_lite::{AsyncRead, AsyncWrite};
use postern_access::Application;
use postern_snapshot::Limits;
use postern_wire::rdcleanpath::{self, Request};
use postern_wire::websocket::{self, Decoder, Event};

use crate::core::{send, within};
use crate::inbox::Inbox;
use crate::negotiate::Offer;
use crate::{Core, Outcome};

/// Receives one request and checks it against the application that the URL and the token name;
/// what the target is to be offered of it.
///
/// # Errors
/// When it is malformed, too large, too slow, or asks for something else than that application.
pub(crate) async fn receive<C: Core>(
    core: &C,
    limits: &Limits,
    browser: &mut (impl AsyncRead + AsyncWrite + Unpin),
    inbox: &mut Inbox,
    decoder: &mut Decoder,
    application: &Application,
) -> Result<Offer, Outcome> {
    let collecting = collect(limits, browser, inbox, decoder);
    let pdu = match within(core, limits.cleanpath_ms_max, collecting).await {
        Ok(result) => result?,
        Err(_) => return Err(Outcome::RequestTimeout),
    };
    let request = Request::parse(&pdu).map_err(|error| Outcome::RequestMalformed(error.label()))?;
    if request.has_preconnection_blob {
        return Err(Outcome::RequestMalformed("preconnection blob"));
    }
    if !names(&request.destination, application) {
        return Err(Outcome::RequestDestination);
    }
    Offer::restrict(application, &request.x224)
}

/// The request must name the application or its target; it never decides what is dialled.
fn names(destination: &str, application: &Application) -> bool {
    let target = &application.target;
    destination == application.name
        || destination == format!("{}:{}", application.name, target.port)
        || destination == target.to_string()
}

async fn collect(
    limits: &Limits,
    browser: &mut (impl AsyncRead + AsyncWrite + Unpin),
    inbox: &mut Inbox,
    decoder: &mut Decoder,
) -> Result<Vec<u8>, Outcome> {
    let mut pdu = Vec::new();
    loop {
        let filled = inbox.filled();
        let step = decoder
            .next(filled)
            .map_err(|error| Outcome::FrameRefused(error.close_code(), error.label()))?;
        match step.event {
            None => {
                inbox.consume(step.consumed);
                match inbox.fill(browser).await {
                    Ok(0) | Err(_) => return Err(Outcome::BrowserLost),
                    Ok(_) => continue,
                }
            }
            Some(Event::Data { payload, .. }) => {
                if pdu.len() + payload.len() > limits.cleanpath_bytes_max {
                    return Err(Outcome::RequestTooLarge);
                }
                pdu.extend_from_slice(&filled[payload]);
            }
            Some(Event::Ping(payload)) => {
                let pong = websocket::pong(&filled[payload]);
                let sent = send(browser, &pong).await;
                sent.map_err(|_| Outcome::BrowserLost)?;
            }
            Some(Event::Pong(_)) => {}
            Some(Event::Close(_)) => return Err(Outcome::BrowserClosed),
        }
        inbox.consume(step.consumed);
        let length = rdcleanpath::request_length(&pdu)
            .map_err(|error| Outcome::RequestMalformed(error.label()))?;
        match length {
            Some(length) if length > limits.cleanpath_bytes_max => {
                return Err(Outcome::RequestTooLarge);
            }
            Some(length) if pdu.len() > length => {
                return Err(Outcome::RequestMalformed("bytes after the request"));
            }
            Some(length) if pdu.len() == length => return Ok(pdu),
            _ => {}
        }
    }
}
