//! A core with a virtual clock and in-memory streams, for tests of whole stages.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};
use postern_access::{Fingerprint, Permit};
use postern_audit::Record;
use postern_snapshot::{CoreMetrics, LiveSession, ToControl};

use crate::{AuditUnavailable, Core, Full, Seat, State, Stop};

/// Bytes that a pipe holds before its writer must wait.
const PIPE_BYTES: usize = 4096;

/// The virtual core. Time passes only when every task waits for it.
pub(crate) struct TrialCore {
    began: Instant,
    now_ms: Cell<u64>,
    timers: RefCell<Vec<(u64, Waker)>>,
    pub(crate) metrics: RefCell<CoreMetrics>,
}

impl TrialCore {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            now_ms: Cell::new(0),
            timers: RefCell::default(),
            metrics: RefCell::default(),
        }
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// Runs `task` to its end, letting time pass whenever nothing else can happen.
    pub(crate) fn run<T>(&self, task: impl Future<Output = T>) -> T {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        let mut task = pin!(task);
        loop {
            if let Poll::Ready(value) = task.as_mut().poll(&mut Context::from_waker(&waker)) {
                return value;
            }
            if !flag.0.swap(false, Ordering::Relaxed) {
                self.let_time_pass();
            }
        }
    }

    fn let_time_pass(&self) {
        let next = self.timers.borrow().iter().map(|(at, _)| *at).min();
        let next = next.expect("a task that waits for nothing would wait for ever");
        self.now_ms.set(self.now_ms.get().max(next));
        let due = self
            .timers
            .borrow_mut()
            .extract_if(.., |(at, _)| *at <= next)
            .collect::<Vec<_>>();
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Core for TrialCore {
    type Stream = Pipe;

    fn state(&self) -> Arc<State> {
        unreachable!("stages under trial get their limits as arguments")
    }

    fn measure(&self, change: impl FnOnce(&mut CoreMetrics)) {
        change(&mut self.metrics.borrow_mut());
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.now_ms.get())
    }

    fn unix_ms(&self) -> u64 {
        1_000_000_000_000 + self.now_ms.get()
    }

    fn random(&self) -> [u8; 16] {
        [7; 16]
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now_ms.get() + u64::try_from(duration.as_millis()).expect("a test's time");
        std::future::poll_fn(|cx| {
            if self.now_ms.get() >= until {
                return Poll::Ready(());
            }
            self.timers.borrow_mut().push((until, cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    async fn connect(&self, _: SocketAddr) -> io::Result<Pipe> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    async fn connect_unix(&self, _: &Path) -> io::Result<Pipe> {
        Err(io::ErrorKind::NotFound.into())
    }

    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(Vec::new())
    }

    fn connection_number(&self) -> u64 {
        1
    }

    fn admit(&self, _: IpAddr) -> Result<Seat, Full> {
        Ok(Box::new(()))
    }

    fn begin_handshake(&self) -> Result<Seat, Full> {
        Ok(Box::new(()))
    }

    fn enter(&self, _: LiveSession, _: &Permit, _: Rc<Stop>) -> Result<Seat, Full> {
        Ok(Box::new(()))
    }

    fn lease_holds(&self) -> bool {
        true
    }

    async fn record_durably(&self, _: Record) -> Result<(), AuditUnavailable> {
        Ok(())
    }

    fn record(&self, _: Record) {}

    async fn pin(&self, _: &str, _: Fingerprint) -> Option<Fingerprint> {
        None
    }

    fn report(&self, _: ToControl) {}
}

/// One end of an in-memory stream that holds [`PIPE_BYTES`] each way.
pub(crate) struct Pipe {
    incoming: Rc<RefCell<Lane>>,
    outgoing: Rc<RefCell<Lane>>,
}

#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    closed: bool,
    wakers: Vec<Waker>,
}

/// Both ends of a fresh stream.
pub(crate) fn pipe() -> (Pipe, Pipe) {
    let (one, other) = (
        Rc::<RefCell<Lane>>::default(),
        Rc::<RefCell<Lane>>::default(),
    );
    (
        Pipe {
            incoming: one.clone(),
            outgoing: other.clone(),
        },
        Pipe {
            incoming: other,
            outgoing: one,
        },
    )
}

impl Lane {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for lane in [&self.incoming, &self.outgoing] {
            let mut lane = lane.borrow_mut();
            lane.closed = true;
            lane.wake();
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut lane = self.incoming.borrow_mut();
        if lane.bytes.is_empty() && !lane.closed {
            lane.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        let bytes = lane.bytes.len().min(buffer.len());
        for (slot, byte) in buffer.iter_mut().zip(lane.bytes.drain(..bytes)) {
            *slot = byte;
        }
        lane.wake();
        Poll::Ready(Ok(bytes))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut lane = self.outgoing.borrow_mut();
        if lane.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = PIPE_BYTES - lane.bytes.len();
        if room == 0 {
            lane.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = room.min(bytes.len());
        lane.bytes.extend(&bytes[..taken]);
        lane.wake();
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lane = self.outgoing.borrow_mut();
        lane.closed = true;
        lane.wake();
        Poll::Ready(Ok(()))
    }
}
