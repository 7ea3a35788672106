//! The answer to a WebSocket opening handshake [RFC 6455 §4.2].

use tungstenite::error::{Error as HandshakeError, ProtocolError as HandshakeFault};
use tungstenite::handshake::server::{create_response, write_response};

use super::{Body, Head, HeadError, response};

/// Why a head is not a WebSocket opening handshake that we accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error("the request does not ask for a websocket")]
    NotWebSocket,
    #[error("the connection header does not list upgrade")]
    Connection,
    #[error("an opening handshake has no body")]
    Body,
    #[error("the websocket version is not 13")]
    Version,
    #[error("the websocket key is not 16 bytes in base64")]
    Key,
}

impl UpgradeError {
    /// The metric and log label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Head(error) => error.label(),
            Self::NotWebSocket => "not_websocket",
            Self::Connection => "connection_header",
            Self::Body => "upgrade_body",
            Self::Version => "websocket_version",
            Self::Key => "websocket_key",
        }
    }

    /// The whole refusal: 426 naming version 13 for another version, else what the head deserves.
    #[must_use]
    pub fn response(self) -> Vec<u8> {
        let text = "text/plain; charset=utf-8";
        let body = self.to_string();
        match self {
            Self::Version => response(
                426,
                "Upgrade Required",
                text,
                &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")],
                body.as_bytes(),
            ),
            Self::Head(error) => {
                let (status, reason) = error.status();
                response(status, reason, text, &[], body.as_bytes())
            }
            _ => response(400, "Bad Request", text, &[], body.as_bytes()),
        }
    }
}

/// The exact bytes of the 101 for `head`.
///
/// Neither an extension (permessage-deflate would put a decompressor before the limits) nor a
/// subprotocol is ever agreed to, whatever was offered.
///
/// # Errors
/// When `head` is not a handshake of version 13 without a body.
pub fn websocket_accept(head: &Head<'_>) -> Result<Vec<u8>, UpgradeError> {
    if !head.wants_websocket() {
        return Err(UpgradeError::NotWebSocket);
    }
    if head.body != Body::None {
        return Err(UpgradeError::Body);
    }
    if !head.lists("connection", "upgrade") {
        return Err(UpgradeError::Connection);
    }
    let version = head.header("sec-websocket-version")?;
    let key = head.header("sec-websocket-key")?.ok_or(UpgradeError::Key)?;
    let request = http::Request::builder()
        .method(http::Method::GET)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "websocket")
        .header(
            http::header::SEC_WEBSOCKET_VERSION,
            version.unwrap_or_default(),
        )
        .header(http::header::SEC_WEBSOCKET_KEY, key)
        .body(())
        .map_err(|_| UpgradeError::Head(HeadError::Value))?;
    let accepted = create_response(&request).map_err(|error| match error {
        HandshakeError::Protocol(HandshakeFault::MissingSecWebSocketVersionHeader) => {
            UpgradeError::Version
        }
        _ => UpgradeError::Key,
    })?;
    let mut bytes = Vec::with_capacity(160);
    write_response(&mut bytes, &accepted).map_err(|_| UpgradeError::Key)?;
    Ok(bytes)
}
