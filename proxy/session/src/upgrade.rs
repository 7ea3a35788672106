//! Reads the request head and decides what the connection is: an application's WebSocket, or
//! something for control.

use futures_lite::{AsyncRead, AsyncReadExt as _};
use postern_snapshot::Limits;
use postern_wire::http1::{self, Head, HeadError};

use crate::core::within;
use crate::{Core, Outcome};

/// Reads until the head is whole. What follows it stays behind it in `buffer`.
///
/// # Errors
/// When the head is malformed, too large or too slow, or the browser goes away.
pub(crate) async fn read_head<C: Core>(
    core: &C,
    limits: &Limits,
    browser: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Result<(), Outcome> {
    let reading = async {
        let mut chunk = vec![0; limits.head_bytes_max.min(4096)];
        loop {
            let room = limits.head_bytes_max - buffer.len();
            if room == 0 {
                return Err(Outcome::HeadTooLarge);
            }
            let part = room.min(chunk.len());
            let read = match browser.read(&mut chunk[..part]).await {
                Ok(0) | Err(_) => return Err(Outcome::ClosedEarly),
                Ok(read) => read,
            };
            buffer.extend_from_slice(&chunk[..read]);
            // A head ends with a line feed: without a new one there is nothing new to see.
            if chunk[..read].contains(&b'\n')
                && http1::parse_head(buffer).map_err(malformed)?.is_some()
            {
                return Ok(());
            }
        }
    };
    match within(core, limits.head_ms_max, reading).await {
        Ok(result) => result,
        Err(_) if buffer.is_empty() => Err(Outcome::ClosedEarly),
        Err(_) => Err(Outcome::HeadTimeout),
    }
}

pub(crate) fn malformed(error: HeadError) -> Outcome {
    Outcome::HeadMalformed(error)
}

/// The host of a request, checked against the name that the TLS handshake asked for: a connection
/// made for one name is not used for another.
///
/// # Errors
/// When the names differ.
pub(crate) fn host<'a>(head: &'a Head<'_>, asked: Option<&str>) -> Result<&'a str, Outcome> {
    let host = head.host().name.as_str();
    match asked {
        Some(asked) if !asked.eq_ignore_ascii_case(host) => Err(Outcome::Misdirected),
        _ => Ok(host),
    }
}
