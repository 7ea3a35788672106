//! Control's web server: what is on the public port and is not a desktop's WebSocket.

mod assets;
mod desktop;
mod front;
mod hand_over;
mod headers;
mod identity;
mod launcher;
mod login;
mod pages;
mod visit;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use postern_wire::proxy_protocol::{self, Proxied};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::peer;
use crate::site::Site;

pub(crate) use front::Front;

/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 4096;

/// The engine says whom it brings within this time.
const PROXY_HEADER_MAX: Duration = Duration::from_secs(5);

/// Longest PROXY header: its fixed part and the longest body.
const PROXY_HEADER_BYTES_MAX: usize = 16 + proxy_protocol::BODY_BYTES_MAX;

/// A request's head is complete within this time; also how long a connection may idle.
const HEAD_MAX: Duration = Duration::from_secs(30);

/// What a connection may have in buffers, head included.
const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// Fields of a request's head.
const HEADERS_MAX: usize = 64;

/// Serves for as long as control lives.
pub(crate) async fn serve(site: Arc<Site>, listener: UnixListener) {
    let front = Front::new(site.clone());
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "a web connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(seat) = seats.clone().try_acquire_owned() else {
            site.counts.web_connections_refused.add();
            continue;
        };
        let front = front.clone();
        let ending = site.ending.subscribe();
        tokio::spawn(async move {
            carry(front, stream, ending).await;
            drop(seat);
        });
    }
}

async fn carry(front: Front, mut stream: UnixStream, mut ending: watch::Receiver<bool>) {
    if let Err(error) = peer::trusted_uid(&stream) {
        tracing::error!(%error, "a stranger at the web socket");
        return;
    }
    let header = timeout(PROXY_HEADER_MAX, proxy_header(&mut stream)).await;
    let Ok(Some((source, read))) = header else {
        tracing::debug!("a web connection without a PROXY header");
        return;
    };
    let service = service_fn(move |request| {
        let front = front.clone();
        async move { Ok::<_, std::convert::Infallible>(front.answer(source, request).await) }
    });
    let io = TokioIo::new(Replayed::new(read, stream));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(io, service)
    );
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = told(&mut ending) => {
            // What is asked already is answered.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a web connection ended");
    }
}

/// Until control ends.
async fn told(ending: &mut watch::Receiver<bool>) {
    // A sender that is gone says the same.
    drop(ending.wait_for(|ending| *ending).await);
}

/// Who is at the other end, and what was read beyond the header.
async fn proxy_header(stream: &mut UnixStream) -> Option<(SocketAddr, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(PROXY_HEADER_BYTES_MAX);
    loop {
        match proxy_protocol::decode(&bytes) {
            Ok(Some((Proxied::Tcp { source, .. }, used))) => {
                return Some((source, bytes.split_off(used)));
            }
            // Nobody else than a browser comes through this socket.
            Ok(Some((Proxied::Local, _))) | Err(_) => return None,
            Ok(None) if bytes.len() >= PROXY_HEADER_BYTES_MAX => return None,
            Ok(None) => {}
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A stream whose first bytes were read already.
struct Replayed {
    first: std::io::Cursor<Vec<u8>>,
    stream: UnixStream,
}

impl Replayed {
    fn new(first: Vec<u8>, stream: UnixStream) -> Self {
        Self {
            first: std::io::Cursor::new(first),
            stream,
        }
    }
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.first).poll_read(context, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() == before => {
                Pin::new(&mut self.stream).poll_read(context, buffer)
            }
            ready => ready,
        }
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
