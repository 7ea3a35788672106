//! The TLS handshake with a browser, bounded in time and in number.

use std::net::IpAddr;

use crate::core::within;
use crate::tls::{self, TlsStream};
use crate::{Core, Outcome, State};

/// # Errors
/// When the core has too many handshakes under way, or too many with `source`, or this one fails or takes too long.
pub(crate) async fn shake<C: Core>(
    core: &C,
    state: &State,
    socket: C::Stream,
    source: IpAddr,
) -> Result<TlsStream<C::Stream>, Outcome> {
    let _seat = core
        .begin_handshake(source)
        .map_err(|_| Outcome::HandshakesFull)?;
    let handshake = tls::accept(state.tls.clone(), socket);
    let result = match within(core, state.limits.handshake_ms_max, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(_)) => Err(Outcome::HandshakeFailed),
        Err(_) => Err(Outcome::HandshakeTimeout),
    };
    core.measure(|metrics| match &result {
        Ok(_) => metrics.tls_handshakes += 1,
        Err(_) => metrics.tls_handshake_failures += 1,
    });
    result
}
