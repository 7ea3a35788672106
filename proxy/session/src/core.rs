//! What a session needs of the core that it lives on: network, clock, audit, ledger.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future::or;
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use postern_access::{Fingerprint, Permit, Verified};
use postern_audit::Record;
use postern_relay::{Flow, Goodbye, Meter, Report};
use postern_snapshot::{CoreMetrics, LiveSession, ToControl};

use crate::{State, Stop};

/// A limit of the node is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    Connections,
    ConnectionsOfSource,
    Handshakes,
    HandshakesOfSource,
    Sessions,
    SessionsOfUser,
}

/// An audit record could not be made durable, and the node is set to refuse then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit record can't be written: {0}")]
pub struct AuditUnavailable(pub String);

/// A place that is held; dropping it gives it back.
pub type Seat = Box<dyn std::any::Any>;

/// A flow that the core carries. It resolves when the flow is over; dropping it cuts the flow off.
pub trait Carriage: Future<Output = Report> + Unpin {
    /// Ends the flow, with these last words to its client.
    fn stop(&self, goodbye: Goodbye);
}

/// The core that a connection lives on. Everything is of that core alone: no locks, nothing blocks.
#[allow(async_fn_in_trait, reason = "a core's futures never leave its thread")]
pub trait Core {
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;
    type Carriage: Carriage;

    /// The state in force now.
    fn state(&self) -> Arc<State>;
    /// Tokens whose signature held before, on this core.
    fn verified(&self) -> &RefCell<Verified>;
    /// Runs `change` on the core's own measurements.
    fn measure(&self, change: impl FnOnce(&mut CoreMetrics));

    fn now(&self) -> Instant;
    /// Unix time in milliseconds.
    fn unix_ms(&self) -> u64;
    fn random(&self) -> [u8; 16];
    async fn sleep(&self, duration: Duration);

    /// Carries `flow` between two sockets from now on, whose bytes a session sees no more.
    fn carry(&self, client: Self::Stream, target: Self::Stream, flow: Flow) -> Self::Carriage;

    async fn connect(&self, address: SocketAddr) -> io::Result<Self::Stream>;
    /// What counts the bytes of a TCP connection, to its end: also when the stream is gone already.
    fn meter(&self, stream: &Self::Stream) -> Rc<Meter>;
    /// Our end's address of a TCP connection, where it is known.
    fn local_address(&self, stream: &Self::Stream) -> Option<SocketAddr>;
    async fn connect_unix(&self, path: &Path) -> io::Result<Self::Stream>;
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// A number for a new connection, unique on this core while the process lives.
    fn connection_number(&self) -> u64;
    /// Counts a connection from `source`.
    ///
    /// # Errors
    /// When the node or the source has too many.
    fn admit(&self, source: IpAddr) -> Result<Seat, Full>;
    /// Counts a TLS handshake under way with `source`.
    ///
    /// # Errors
    /// When the core has too many, or too many with that source.
    fn begin_handshake(&self, source: IpAddr) -> Result<Seat, Full>;
    /// Enters a session in the live table; `stop` is raised when it must end.
    ///
    /// # Errors
    /// When the node or the user has too many.
    fn enter(&self, session: LiveSession, permit: &Permit, stop: Rc<Stop>) -> Result<Seat, Full>;
    /// Whether control has spoken recently enough for new sessions.
    fn lease_holds(&self) -> bool;

    /// Writes an audit record; resolves when it is on disk.
    ///
    /// # Errors
    /// When it can't be, and the node is set to refuse then.
    async fn record_durably(&self, record: Record) -> Result<(), AuditUnavailable>;
    /// Writes an audit record behind what was written before.
    fn record(&self, record: Record);

    /// The pin that control has for a first-use target after it was shown `seen`; none when
    /// control does not answer.
    async fn pin(&self, application: &str, seen: Fingerprint) -> Option<Fingerprint>;
    /// Tells control.
    fn report(&self, message: ToControl);
}

/// Writes all of `bytes`, past the buffers of TLS: what is not flushed may be held back there.
pub(crate) async fn send(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// The time for something ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// `future`, if it ends within `ms` milliseconds; it is dropped otherwise.
pub(crate) async fn within<C: Core, T>(
    core: &C,
    ms: u64,
    future: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    or(async { Ok(future.await) }, async {
        core.sleep(Duration::from_millis(ms)).await;
        Err(Elapsed)
    })
    .await
}
