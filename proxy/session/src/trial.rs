//! A core with a virtual clock and in-memory streams, for tests of whole connections.

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
use postern_access::{Fingerprint, Permit, Verified};
use postern_audit::Record;
use postern_relay::flow::Finish;
use postern_relay::{Flow, Goodbye, Leg, Meter, Moment, Pool, Report, Tally};
use postern_snapshot::{CoreMetrics, LiveSession, ToControl};

use crate::{AuditUnavailable, Carriage, Core, Full, Seat, State, Stop};

/// What the wall clock shows when a trial begins.
pub(crate) const UNIX_MS: u64 = 1_800_000_000_000;

/// Bytes that a pipe holds before its writer must wait.
const PIPE_BYTES: usize = 4096;

/// The virtual core. Time passes only when every task waits for it.
pub(crate) struct TrialCore {
    began: Instant,
    clock: Rc<Clock>,
    state: Arc<State>,
    verified: RefCell<Verified>,
    pub(crate) metrics: RefCell<CoreMetrics>,
    pub(crate) records: RefCell<Vec<Record>>,
    /// Far ends of the connections that sessions made.
    dialled: RefCell<VecDeque<Pipe>>,
    /// What ends the sessions that were entered.
    pub(crate) stops: RefCell<Vec<Rc<Stop>>>,
}

#[derive(Default)]
struct Clock {
    now_ms: Cell<u64>,
    timers: RefCell<Vec<(u64, Waker)>>,
}

impl Clock {
    fn wake_at(&self, ms: u64, waker: &Waker) {
        self.timers.borrow_mut().push((ms, waker.clone()));
    }
}

impl TrialCore {
    pub(crate) fn new(state: State) -> Self {
        Self {
            began: Instant::now(),
            clock: Rc::default(),
            state: Arc::new(state),
            verified: RefCell::default(),
            metrics: RefCell::default(),
            records: RefCell::default(),
            dialled: RefCell::default(),
            stops: RefCell::default(),
        }
    }

    /// The far end of the next connection that a session makes.
    pub(crate) async fn dialled(&self) -> Pipe {
        loop {
            let next = self.dialled.borrow_mut().pop_front();
            match next {
                Some(pipe) => return pipe,
                None => self.sleep(Duration::from_millis(1)).await,
            }
        }
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
        let clock = &self.clock;
        let next = clock.timers.borrow().iter().map(|(at, _)| *at).min();
        let next = next.expect("a task that waits for nothing would wait for ever");
        clock.now_ms.set(clock.now_ms.get().max(next));
        let due = clock
            .timers
            .borrow_mut()
            .extract_if(.., |(at, _)| *at <= next)
            .collect::<Vec<_>>();
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Core for TrialCore {
    type Stream = Pipe;
    type Carriage = TrialCarriage;

    fn state(&self) -> Arc<State> {
        self.state.clone()
    }

    fn verified(&self) -> &RefCell<Verified> {
        &self.verified
    }

    fn measure(&self, change: impl FnOnce(&mut CoreMetrics)) {
        change(&mut self.metrics.borrow_mut());
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.clock.now_ms.get())
    }

    fn unix_ms(&self) -> u64 {
        UNIX_MS + self.clock.now_ms.get()
    }

    fn random(&self) -> [u8; 16] {
        [7; 16]
    }

    async fn sleep(&self, duration: Duration) {
        let until =
            self.clock.now_ms.get() + u64::try_from(duration.as_millis()).expect("a test's time");
        std::future::poll_fn(|cx| {
            if self.clock.now_ms.get() >= until {
                return Poll::Ready(());
            }
            self.clock.wake_at(until, cx.waker());
            Poll::Pending
        })
        .await;
    }

    fn carry(&self, client: Pipe, target: Pipe, flow: Flow) -> TrialCarriage {
        TrialCarriage(Box::new(Driven {
            sockets: [client, target],
            flow: Some(flow),
            pool: Pool::new(),
            tally: Tally::default(),
            clock: self.clock.clone(),
            has_begun: false,
            goodbye: Cell::new(None),
        }))
    }

    fn meter(&self, stream: &Pipe) -> Rc<Meter> {
        stream.meter.clone()
    }

    fn local_address(&self, _: &Pipe) -> Option<SocketAddr> {
        Some(([192, 0, 2, 1], 40_000).into())
    }

    async fn connect(&self, _: SocketAddr) -> io::Result<Pipe> {
        let (near, far) = pipe();
        self.dialled.borrow_mut().push_back(far);
        Ok(near)
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

    fn begin_handshake(&self, _: IpAddr) -> Result<Seat, Full> {
        Ok(Box::new(()))
    }

    fn enter(&self, _: LiveSession, _: &Permit, stop: Rc<Stop>) -> Result<Seat, Full> {
        self.stops.borrow_mut().push(stop);
        Ok(Box::new(()))
    }

    fn lease_holds(&self) -> bool {
        true
    }

    async fn record_durably(&self, record: Record) -> Result<(), AuditUnavailable> {
        self.record(record);
        Ok(())
    }

    fn record(&self, record: Record) {
        self.records.borrow_mut().push(record);
    }

    async fn pin(&self, _: &str, _: Fingerprint) -> Option<Fingerprint> {
        None
    }

    fn report(&self, _: ToControl) {}
}

/// A flow that is driven by whoever waits for it.
pub(crate) struct TrialCarriage(Box<Driven>);

struct Driven {
    sockets: [Pipe; 2],
    /// INVARIANT: there until the report is given.
    flow: Option<Flow>,
    pool: Pool,
    tally: Tally,
    clock: Rc<Clock>,
    has_begun: bool,
    goodbye: Cell<Option<Goodbye>>,
}

impl Carriage for TrialCarriage {
    fn stop(&self, goodbye: Goodbye) {
        self.0.goodbye.set(Some(goodbye));
    }
}

impl Future for TrialCarriage {
    type Output = Report;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Report> {
        let this = &mut *self.0;
        let now_ms = this.clock.now_ms.get();
        let mut flow = this.flow.take().expect("is polled until it is ready");
        let mut context = postern_relay::Context {
            pool: &mut this.pool,
            tally: &mut this.tally,
            now: Moment::default().plus_ms(now_ms),
        };
        if !std::mem::replace(&mut this.has_begun, true) {
            flow.begin(&mut context);
        }
        if let Some(goodbye) = this.goodbye.take() {
            flow.stop(goodbye, &mut context);
        }
        flow.woken(&mut context);
        let mut moves = true;
        while std::mem::take(&mut moves) {
            for leg in Leg::BOTH {
                let socket = &mut this.sockets[leg.index()];
                moves |= drive(&mut flow, leg, socket, &mut context, cx);
            }
        }
        if flow.is_over() {
            return Poll::Ready(flow.released(&mut this.pool));
        }
        if let Some(at) = flow.deadline() {
            this.clock.wake_at(at.0.div_ceil(1000), cx.waker());
        }
        this.flow = Some(flow);
        Poll::Pending
    }
}

/// Does what `flow` wants of one leg; whether anything happened.
fn drive(
    flow: &mut Flow,
    leg: Leg,
    socket: &mut Pipe,
    context: &mut postern_relay::Context<'_>,
    cx: &mut Context<'_>,
) -> bool {
    let mut socket = Pin::new(socket);
    let mut moves = false;
    if flow.wants_bytes(leg) {
        let mut buffer = [0; PIPE_BYTES];
        match socket.as_mut().poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(0)) => flow.finished(leg, Finish::Ended, context),
            Poll::Ready(Ok(bytes)) => {
                flow.stream_mut(leg).received += bytes as u64;
                flow.received(leg, &mut buffer[..bytes], context);
            }
            Poll::Ready(Err(_)) => flow.finished(leg, Finish::Broken, context),
            Poll::Pending => return drive_output(flow, leg, socket, context, cx),
        }
        moves = true;
    }
    drive_output(flow, leg, socket, context, cx) || moves
}

fn drive_output(
    flow: &mut Flow,
    leg: Leg,
    socket: Pin<&mut Pipe>,
    context: &mut postern_relay::Context<'_>,
    cx: &mut Context<'_>,
) -> bool {
    let outgoing = flow.outgoing(leg);
    if !outgoing.is_empty() {
        return match socket.poll_write(cx, outgoing) {
            Poll::Ready(Ok(bytes)) => {
                flow.stream_mut(leg).sent += bytes as u64;
                flow.sent(leg, bytes, context);
                true
            }
            Poll::Ready(Err(_)) => {
                flow.send_failed(leg, context);
                true
            }
            Poll::Pending => false,
        };
    }
    let shuts = flow.wants_shutdown(leg);
    if shuts {
        // A pipe closes at once.
        let _ = socket.poll_close(cx);
        flow.shut_down(leg);
    }
    shuts
}

/// One end of an in-memory stream that holds [`PIPE_BYTES`] each way.
pub(crate) struct Pipe {
    incoming: Rc<RefCell<Lane>>,
    outgoing: Rc<RefCell<Lane>>,
    pub(crate) meter: Rc<Meter>,
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
            meter: Rc::default(),
        },
        Pipe {
            incoming: other,
            outgoing: one,
            meter: Rc::default(),
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
        self.meter.received(bytes);
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
        self.meter.sent(taken);
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
