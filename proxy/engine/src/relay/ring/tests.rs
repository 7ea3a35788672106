//! The driver with real sockets, in every way to receive.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postern_relay::{Flow, Report, Tally, Times};

use super::*;
use crate::doorbell;
use crate::relay::buffers::Shape;
use crate::relay::desk::{HAND_OVER_MAX, Notice, Order, Parcel, Ticket};
use crate::relay::queue::{self, Consumer, Producer};
use crate::relay::sys::Alarm;

/// Nothing in these tests takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

const MIB: usize = 1 << 20;

const TINY: Receiving = Receiving {
    mode: ReceiveMode::CappedBundles,
    shape: Shape {
        count: 8,
        buffer_bytes: 16 * 1024,
    },
};

/// A driver on its thread, and the front's ends of its queues.
struct Bench {
    orders: Option<Producer<Order, Alarm, AtomicUsize>>,
    notices: Consumer<Notice, AtomicUsize>,
    reports: HashMap<u32, Report>,
    thread: Option<JoinHandle<io::Result<()>>>,
    carried: u32,
    _wire: doorbell::Wire,
}

/// The peers' ends of a carried flow.
struct Ends {
    client: TcpStream,
    target: TcpStream,
    ticket: u32,
}

impl Bench {
    fn new(forced: Option<Receiving>) -> Self {
        let alarm = Alarm::new().unwrap();
        let (button, wire) = doorbell::new().unwrap();
        let (orders, taken) = queue::bounded(HAND_OVER_MAX, alarm.clone());
        let (given, notices) = queue::bounded(HAND_OVER_MAX, button);
        let published = Arc::new(Mutex::new(Tally::default()));
        let thread = std::thread::spawn(move || {
            let mut desk = Desk::new(taken, alarm, given, published);
            Driver::receiving(&mut desk, forced)?.run()
        });
        Self {
            orders: Some(orders),
            notices,
            reports: HashMap::new(),
            thread: Some(thread),
            carried: 0,
            _wire: wire,
        }
    }

    fn every_way() -> [Option<Receiving>; 4] {
        [
            None,
            Some(ReceiveMode::CappedBundles.into()),
            Some(ReceiveMode::Single.into()),
            Some(TINY),
        ]
    }

    fn order(&mut self, mut order: Order) {
        let orders = self.orders.as_mut().expect("the front is there");
        while let Err(refused) = orders.push(order) {
            order = match refused {
                queue::Refused::Full(order) => order,
                queue::Refused::Closed(_) => panic!("the driver is gone"),
            };
            std::thread::yield_now();
        }
    }

    fn carry_sockets(&mut self, client: OwnedFd, target: OwnedFd, flow: Flow) -> u32 {
        let ticket = self.carried;
        self.carried += 1;
        self.order(Order::Carry(Box::new(Parcel {
            ticket: name(ticket),
            client,
            target,
            flow,
        })));
        ticket
    }

    fn carry(&mut self, flow: Flow) -> Ends {
        let ((client, ours), (target, theirs)) = (tcp_pair(), tcp_pair());
        let ticket = self.carry_sockets(ours.into(), theirs.into(), flow);
        Ends {
            client,
            target,
            ticket,
        }
    }

    fn report(&mut self, ticket: u32) -> Report {
        let begun = Instant::now();
        loop {
            while let Some(notice) = self.notices.pop() {
                self.reports.insert(notice.ticket.index, notice.report);
            }
            if let Some(report) = self.reports.remove(&ticket) {
                return report;
            }
            assert!(begun.elapsed() < PATIENCE, "the flow has not ended");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The front goes: every flow ends, then the driver.
    fn finish(mut self) {
        drop(self.orders.take());
        let thread = self.thread.take().expect("it is joined once");
        thread
            .join()
            .expect("it does not panic")
            .expect("the ring works");
    }
}

fn name(number: u32) -> Ticket {
    Ticket {
        index: number,
        generation: 0,
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for socket in [&near, &far] {
        socket.set_nodelay(true).unwrap();
    }
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    (near, far)
}

/// The byte of a stream at a place: neighbours differ, and so do places a power of two apart.
fn byte_at(place: usize) -> u8 {
    (place.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

fn send_stream(mut to: impl Write, bytes: usize, piece: usize) {
    let mut buffer = vec![0; piece];
    let mut sent = 0;
    while sent < bytes {
        let now = piece.min(bytes - sent);
        for (offset, byte) in buffer[..now].iter_mut().enumerate() {
            *byte = byte_at(sent + offset);
        }
        to.write_all(&buffer[..now]).unwrap();
        sent += now;
    }
}

#[track_caller]
fn expect_stream(mut from: impl Read, bytes: usize) {
    let mut buffer = vec![0; 256 * 1024];
    let mut came = 0;
    while came < bytes {
        let read = from.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the stream ended after {came} of {bytes} bytes");
        for (offset, byte) in buffer[..read].iter().enumerate() {
            assert_eq!(*byte, byte_at(came + offset), "at {}", came + offset);
        }
        came += read;
    }
    assert_eq!(came, bytes, "nothing comes twice");
}

/// Both directions at once, then both ends.
fn exchange(ends: &Ends, bytes: usize, piece: usize) {
    std::thread::scope(|scope| {
        for (from, to) in [(&ends.client, &ends.target), (&ends.target, &ends.client)] {
            scope.spawn(move || {
                send_stream(from, bytes, piece);
                from.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                expect_stream(to, bytes);
                let mut to = to;
                assert_eq!(to.read(&mut [0; 1]).unwrap(), 0, "the end comes too");
            });
        }
    });
}

#[test]
fn messages_and_bulk_arrive_unchanged_in_every_way_to_receive() {
    for way in Bench::every_way() {
        let mut bench = Bench::new(way);
        for (bytes, piece) in [(20_000, 64), (300_000, 1400), (8 * MIB, 100_000)] {
            let ends = bench.carry(Flow::passthrough(Times::default()));
            exchange(&ends, bytes, piece);
            let report = bench.report(ends.ticket);
            assert_eq!(report.traffic.bytes_up, bytes as u64, "{way:?}");
            assert_eq!(report.traffic.bytes_down, bytes as u64, "{way:?}");
        }
        bench.finish();
    }
}
