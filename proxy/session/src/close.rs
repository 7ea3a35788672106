//! Says why, then closes: an HTTP answer, or `RDCleanPath` error and WebSocket close frame.

use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use postern_wire::rdcleanpath::{self, Failure};
use postern_wire::x224::{self, Confirm};
use postern_wire::{http1, websocket};

use crate::core::{send, within};
use crate::{Core, Outcome};

/// Saying good-bye takes no longer than this, and as long again for the peer to hear it.
pub(crate) const GOODBYE_MS_MAX: u64 = 1_000;

/// Answers a connection that is still HTTP, if an answer is owed.
pub(crate) async fn answer_http<C: Core>(
    core: &C,
    browser: &mut (impl AsyncRead + AsyncWrite + Unpin),
    outcome: &Outcome,
) {
    let meaning = outcome.meaning();
    if meaning.status == 0 {
        return;
    }
    let headers: &[(&str, &str)] = match outcome {
        Outcome::UpgradeVersion => &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")],
        Outcome::WebUnavailable | Outcome::LeaseEnded | Outcome::SessionsFull => {
            &[("Retry-After", "2")]
        }
        _ => &[],
    };
    let body = format!("{}\n", meaning.sentence);
    let answer = http1::response(
        meaning.status,
        phrase(meaning.status),
        "text/plain; charset=utf-8",
        headers,
        body.as_bytes(),
    );
    say(core, browser, &answer).await;
}

/// Ends a WebSocket that never became a desktop: the error in the client's own protocol, then the
/// close frame that the page reads.
pub(crate) async fn answer_websocket<C: Core>(
    core: &C,
    browser: &mut (impl AsyncRead + AsyncWrite + Unpin),
    outcome: &Outcome,
) {
    let meaning = outcome.meaning();
    if meaning.close == 0 {
        return;
    }
    let mut bytes = Vec::new();
    if let Some(failure) = failure(outcome) {
        bytes = websocket::binary_frame(&rdcleanpath::failure(&failure));
    }
    bytes.extend_from_slice(&websocket::close_frame(meaning.close, meaning.label));
    say(core, browser, &bytes).await;
}

/// Writes the last bytes and waits until the peer has had the time to read them: closing a socket
/// with unread input resets it, and a reset overtakes what was written.
async fn say<C: Core>(core: &C, browser: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    let write = async {
        send(browser, bytes).await?;
        browser.close().await
    };
    if matches!(within(core, GOODBYE_MS_MAX, write).await, Ok(Ok(()))) {
        linger(core, browser).await;
    }
}

/// Reads and drops what the peer still sends, until it ends its side or a second has passed.
pub(crate) async fn linger<C: Core>(core: &C, reader: &mut (impl AsyncRead + Unpin)) {
    let drain = async {
        let mut rest = [0; 1024];
        while matches!(reader.read(&mut rest).await, Ok(1..)) {}
    };
    // A peer that goes on for longer is cut off.
    let _ = within(core, GOODBYE_MS_MAX, drain).await;
}

/// The error that IronRDP's client shows best, where the outcome has one.
fn failure(outcome: &Outcome) -> Option<Failure> {
    Some(match outcome {
        Outcome::RequestTimeout => Failure::Http(408),
        Outcome::RequestTooLarge => Failure::Http(413),
        Outcome::RequestMalformed(_) | Outcome::RequestSecurity => Failure::Http(400),
        Outcome::RequestDestination | Outcome::TargetAddressDenied => Failure::Http(403),
        Outcome::Killed | Outcome::Revoked | Outcome::PolicyChanged | Outcome::Expired => {
            Failure::Http(403)
        }
        Outcome::Draining | Outcome::PinUnavailable => Failure::Http(503),
        // Windows Sockets codes: host not found, connection refused, timed out, reset.
        Outcome::TargetUnresolved => Failure::Wsa(11001),
        Outcome::TargetUnreachable(_) => Failure::Wsa(10061),
        Outcome::TargetTimeout => Failure::Wsa(10060),
        Outcome::TargetProtocol(_) => Failure::Wsa(10054),
        // TLS alerts: handshake failure, bad certificate.
        Outcome::TargetTls(_) => Failure::Tls(40),
        Outcome::TargetCertificateChanged | Outcome::TargetCertificateUntrusted(_) => {
            Failure::Tls(42)
        }
        Outcome::TargetNegotiation(code) => negotiation(*code),
        Outcome::TargetStandardSecurity | Outcome::TargetSecurityNotOffered => {
            negotiation(x224::SSL_REQUIRED_BY_SERVER)
        }
        _ => return None,
    })
}

fn negotiation(code: u32) -> Failure {
    Failure::Negotiation(x224::encode_confirm(Confirm::Failure(code)))
}

/// [RFC 9110 §15] The reason phrases of the statuses that outcomes have.
fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        408 => "Request Timeout",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
