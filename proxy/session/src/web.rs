//! What is not a session goes to control over a UNIX socket, byte for byte.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use futures_lite::future::or;
use futures_lite::io::split;
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use postern_wire::proxy_protocol;

use crate::core::{send, within};
use crate::{Core, Outcome, State};

/// Control answers within this time or not at all.
const CONNECT_MS_MAX: u64 = 2_000;

/// Bytes on their way in one direction.
const BUFFER_BYTES: usize = 8 * 1024;

/// Hands a connection to control's web server, `read` being what was read of it so far.
///
/// # Errors
/// When control is not there; nothing was answered then.
pub(crate) async fn hand_over<C: Core, S>(
    core: &C,
    state: &State,
    browser: &mut S,
    read: &[u8],
    source: SocketAddr,
    local: SocketAddr,
) -> Result<(), Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connect = core.connect_unix(&state.snapshot.web_socket);
    let Ok(Ok(mut control)) = within(core, CONNECT_MS_MAX, connect).await else {
        return Err(Outcome::WebUnavailable);
    };
    let mut first = proxy_protocol::encode(source, local);
    first.extend_from_slice(read);
    if control.write_all(&first).await.is_err() {
        return Err(Outcome::WebUnavailable);
    }
    core.measure(|metrics| metrics.web_connections += 1);
    let (mut from_browser, mut to_browser) = split(browser);
    let (mut from_control, mut to_control) = split(control);
    let idle_ms_max = state.limits.stall_ms_max;
    let browser_ended = Cell::new(false);
    let up = async {
        let ended = pump(core, idle_ms_max, &mut from_browser, &mut to_control).await;
        browser_ended.set(ended);
        // The answer may still be under way.
        std::future::pending().await
    };
    let down = async {
        // Control may have died with this connection in its queue.
        let first = within(core, idle_ms_max, read_some(&mut from_control)).await;
        let first = match first {
            Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
            Ok(_) if !browser_ended.get() => return Err(Outcome::WebUnavailable),
            Ok(_) | Err(_) => Vec::new(),
        };
        if pass_on(core, idle_ms_max, &first, &mut to_browser).await && !first.is_empty() {
            pump(core, idle_ms_max, &mut from_control, &mut to_browser).await;
        }
        Ok(())
    };
    or(up, down).await
}

/// Carries bytes until the reader ends, then closes the writer. Any error or a long silence ends
/// it: a web connection that is idle for that long is opened again by the browser when needed.
/// True when the reader has ended.
async fn pump<C: Core>(
    core: &C,
    idle_ms_max: u64,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> bool {
    loop {
        let read = within(core, idle_ms_max, read_some(reader)).await;
        let bytes = read.ok().and_then(Result::ok).unwrap_or_default();
        if !pass_on(core, idle_ms_max, &bytes, writer).await || bytes.is_empty() {
            return bytes.is_empty();
        }
    }
}

/// Sends bytes, or closes the writer when there are none. False when the writer is gone.
async fn pass_on<C: Core>(
    core: &C,
    idle_ms_max: u64,
    bytes: &[u8],
    writer: &mut (impl AsyncWrite + Unpin),
) -> bool {
    if bytes.is_empty() {
        return matches!(
            within(core, CONNECT_MS_MAX, writer.close()).await,
            Ok(Ok(()))
        );
    }
    matches!(
        within(core, idle_ms_max, send(writer, bytes)).await,
        Ok(Ok(()))
    )
}

/// What arrives next; empty at the end. A connection that waits holds no buffer.
async fn read_some(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    poll_fn(|cx| {
        let mut buffer = [0; BUFFER_BYTES];
        let read = Pin::new(&mut *reader).poll_read(cx, &mut buffer);
        read.map_ok(|bytes| buffer[..bytes].to_vec())
    })
    .await
}
