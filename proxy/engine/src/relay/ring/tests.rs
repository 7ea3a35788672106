//! The driver with real sockets, in every way to receive.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postern_relay::flow::{Framing, Line};
use postern_relay::{Flow, Goodbye, Report, Tally, Times};
use postern_wire::websocket::{Decoder, DecoderLimits, TextPolicy};

use super::setup::Receiving;
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
        count_min: 2,
        buffer_bytes: 16 * 1024,
    },
};

/// A driver on its thread, and the front's ends of its queues.
struct Bench {
    orders: Option<Producer<Order, Alarm, AtomicUsize>>,
    notices: Consumer<Notice, AtomicUsize>,
    reports: HashMap<u32, Report>,
    thread: Option<JoinHandle<io::Result<Pipes>>>,
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
    fn new(wishes: Wishes) -> Self {
        let alarm = Alarm::new().unwrap();
        let (button, wire) = doorbell::new().unwrap();
        let (orders, taken) = queue::bounded(HAND_OVER_MAX, alarm.clone());
        let (given, notices) = queue::bounded(HAND_OVER_MAX, button);
        let published = Arc::new(Mutex::new(Tally::default()));
        let thread = std::thread::spawn(move || {
            let mut desk = Desk::new(taken, alarm, given, published);
            Driver::with(&mut desk, wishes)?.carry_all()
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

    fn every_way() -> [Wishes; 4] {
        let receiving = |receiving| Wishes {
            receiving: Some(receiving),
            ..Wishes::default()
        };
        [
            Wishes::default(),
            receiving(ReceiveMode::CappedBundles.into()),
            receiving(ReceiveMode::Single.into()),
            receiving(TINY),
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

    fn carry_watched(&mut self, flow: Flow) -> (Held, Ends) {
        let ((client, ours), (target, theirs)) = (tcp_pair(), tcp_pair());
        let ours = OwnedFd::from(ours);
        let held = Held::of(&ours);
        let ticket = self.carry_sockets(ours, theirs.into(), flow);
        let ends = Ends {
            client,
            target,
            ticket,
        };
        (held, ends)
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

    /// The front goes: every flow ends, then the driver. What it used pipes for.
    fn finish(mut self) -> (u64, u64) {
        drop(self.orders.take());
        let thread = self.thread.take().expect("it is joined once");
        thread
            .join()
            .expect("it does not panic")
            .expect("the ring works")
            .lendings()
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

/// A flow whose client speaks WebSocket, so that it may not be spliced and keeps no descriptors.
fn framed() -> Flow {
    let limits = DecoderLimits {
        frame_bytes_max: 1 << 20,
    };
    let decoder = Decoder::new(limits, TextPolicy::Refuse);
    let framing = Framing::WebSocket(Box::new(decoder));
    let times = Times::default();
    Flow::framed(Line::Plain, Line::Plain, framing, times, |_| Goodbye::NONE)
}

/// Client → target of a framed flow, in frames whose mask changes nothing.
fn send_frames(mut client: &TcpStream, bytes: usize, payload: u16) {
    let mut frame = Vec::new();
    let mut sent = 0;
    while sent < bytes {
        let now = usize::from(payload).min(bytes - sent);
        frame.clear();
        frame.push(0x82);
        match u8::try_from(now) {
            Ok(short) if short < 126 => frame.push(0x80 | short),
            _ => {
                frame.push(0x80 | 126);
                frame.extend((now as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend((sent..sent + now).map(byte_at));
        client.write_all(&frame).unwrap();
        sent += now;
    }
}

/// The payload of unmasked binary frames, as one stream.
struct Unframed<'a> {
    from: &'a TcpStream,
    left: u64,
}

impl Read for Unframed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let mut head = [0; 2];
            self.from.read_exact(&mut head)?;
            assert_eq!(head[0], 0x82, "a whole binary message");
            let mut length = [0; 8];
            let more = match head[1] {
                127 => 8,
                126 => 2,
                _ => 0,
            };
            self.from.read_exact(&mut length[8 - more..])?;
            self.left = match more {
                0 => u64::from(head[1]),
                _ => u64::from_be_bytes(length),
            };
        }
        let most = buffer.len().min(self.left as usize);
        let read = self.from.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

fn exchange_framed(ends: &Ends, bytes: usize, payload: u16) {
    let (client, target) = (&ends.client, &ends.target);
    std::thread::scope(|scope| {
        scope.spawn(|| send_frames(client, bytes, payload));
        scope.spawn(|| expect_stream(target, bytes));
        scope.spawn(|| send_stream(target, bytes, usize::from(payload)));
        let left = 0;
        expect_stream(Unframed { from: client, left }, bytes);
    });
}

#[test]
fn messages_and_bulk_arrive_unchanged_in_every_way_to_receive() {
    for way in Bench::every_way() {
        let mut bench = Bench::new(way);
        for (bytes, piece) in [(20_000, 64), (300_000, 1400), (8 * MIB, 60_000)] {
            let ends = bench.carry(Flow::passthrough(Times::default()));
            exchange(&ends, bytes, piece.into());
            let report = bench.report(ends.ticket);
            assert_eq!(report.traffic.bytes_up, bytes as u64, "{way:?}");
            assert_eq!(report.traffic.bytes_down, bytes as u64, "{way:?}");

            let ends = bench.carry(framed());
            exchange_framed(&ends, bytes, piece);
            drop((ends.client, ends.target));
            let report = bench.report(ends.ticket);
            assert_eq!(report.traffic.bytes_up, bytes as u64, "{way:?}");
            assert_eq!(report.traffic.bytes_down, bytes as u64, "{way:?}");
        }
        bench.finish();
    }
}

#[test]
fn two_hundred_flows_share_eight_buffers() {
    const FLOWS: usize = 200;
    const BYTES: usize = 400_000;
    let mut bench = Bench::new(Wishes {
        receiving: Some(TINY),
        ..Wishes::default()
    });
    let flows: Vec<Ends> = (0..FLOWS).map(|_| bench.carry(framed())).collect();
    std::thread::scope(|scope| {
        for ends in &flows {
            scope.spawn(|| send_frames(&ends.client, BYTES, 60_000));
        }
        // All of them have sent what fits before anybody reads.
        std::thread::sleep(Duration::from_millis(100));
        for ends in &flows {
            expect_stream(&ends.target, BYTES);
        }
    });
    bench.finish();
}

#[test]
fn bulk_is_spliced_both_ways_until_the_lane_becomes_chatty() {
    const BYTES: usize = 256 * MIB;
    let mut bench = Bench::new(Wishes::default());
    let ends = bench.carry(Flow::passthrough(Times::default()));
    std::thread::scope(|scope| {
        for (from, to) in [(&ends.client, &ends.target), (&ends.target, &ends.client)] {
            scope.spawn(move || send_stream(from, BYTES, MIB));
            scope.spawn(move || expect_stream(to, BYTES));
        }
    });
    // Both lanes are chatty now, and then bulky again.
    let (mut client, mut target) = (&ends.client, &ends.target);
    let mut byte = [0; 1];
    for number in 0..100 {
        client.write_all(&[number]).unwrap();
        target.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], number);
        target.write_all(&byte).unwrap();
        client.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], number);
    }
    exchange(&ends, 32 * MIB, MIB);
    let report = bench.report(ends.ticket);
    let carried = (BYTES + 100 + 32 * MIB) as u64;
    assert_eq!(report.traffic.bytes_up, carried);
    assert_eq!(report.traffic.bytes_down, carried);
    let (lendings, refused) = bench.finish();
    assert!(
        lendings >= 4,
        "each lane was promoted twice, not {lendings}"
    );
    assert_eq!(refused, 0);
}

#[test]
fn messages_and_frames_are_not_spliced() {
    let mut bench = Bench::new(Wishes::default());
    let ends = bench.carry(Flow::passthrough(Times::default()));
    let (mut client, mut target) = (&ends.client, &ends.target);
    let mut message = [7; 1400];
    for _ in 0..1000 {
        client.write_all(&message).unwrap();
        target.read_exact(&mut message).unwrap();
        target.write_all(&message).unwrap();
        client.read_exact(&mut message).unwrap();
    }
    let ends = bench.carry(framed());
    exchange_framed(&ends, 8 * MIB, 60_000);
    assert_eq!(bench.finish(), (0, 0));
}

#[test]
fn a_full_table_makes_the_next_flows_keep_their_descriptors() {
    let mut bench = Bench::new(Wishes {
        sockets_max: 4,
        ..Wishes::default()
    });
    for _ in 0..2 {
        let flows: Vec<_> = (0..6)
            .map(|_| {
                let (held, ends) = bench.carry_watched(framed());
                exchange_framed(&ends, 100_000, 5000);
                (held, ends)
            })
            .collect();
        let kept = |held: &&Held| held.is_open();
        let kept = flows.iter().map(|(held, _)| held).filter(kept).count();
        assert_eq!(kept, 4, "two of six flows are in the table");
        for (held, ends) in flows {
            drop((ends.client, ends.target));
            bench.report(ends.ticket);
            assert!(!held.is_open(), "everything is closed");
        }
    }
    bench.finish();
}

#[test]
fn three_thousand_idle_flows_hold_no_descriptors() {
    const FLOWS: usize = 3000;
    let mut bench = Bench::new(Wishes::default());
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        let (held, ends) = bench.carry_watched(framed());
        flows.push((held, ends));
    }
    for (_, ends) in flows.iter().step_by(100) {
        exchange_framed(ends, 1000, 100);
    }
    let begun = Instant::now();
    while flows.iter().any(|(held, _)| held.is_open()) {
        assert!(begun.elapsed() < PATIENCE, "a descriptor is still open");
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.finish();
    for (_, ends) in &mut flows {
        let ended = ends.client.read(&mut [0; 64]);
        assert!(
            ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
        );
    }
}

#[test]
fn flows_end_whatever_they_are_doing() {
    const FLOWS: u32 = 60;
    for way in Bench::every_way() {
        let mut bench = Bench::new(way);
        let flows: Vec<_> = (0..FLOWS)
            .map(|number| {
                bench.carry(match number % 2 {
                    0 => Flow::passthrough(Times::default()),
                    _ => framed(),
                })
            })
            .collect();
        std::thread::scope(|scope| {
            for ends in &flows {
                let is_framed = ends.ticket % 2 == 1;
                scope.spawn(move || overwhelm(&ends.client, is_framed));
                scope.spawn(move || overwhelm(&ends.target, false));
                // Some peers never read: those flows are stuck with full sockets.
                if ends.ticket % 3 != 0 {
                    scope.spawn(|| discard(&ends.client));
                    scope.spawn(|| discard(&ends.target));
                }
            }
            for number in 0..FLOWS {
                std::thread::sleep(Duration::from_millis(2));
                let ends = &flows[number as usize];
                match number % 5 {
                    0 => bench.order(Order::Stop(name(number), Goodbye::NONE)),
                    1 => drop(ends.client.shutdown(Shutdown::Both)),
                    2 => drop(ends.target.shutdown(Shutdown::Both)),
                    _ => bench.order(Order::Abort(name(number))),
                }
                // Whoever does not read would not let the last words through.
                if number % 5 <= 2 {
                    bench.order(Order::Abort(name(number)));
                }
            }
            for number in 0..FLOWS {
                bench.report(number);
                for socket in [
                    &flows[number as usize].client,
                    &flows[number as usize].target,
                ] {
                    // Its threads end if the relay's side is not yet seen as closed.
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
        });
        bench.finish();
    }
}

#[test]
fn a_front_that_goes_ends_flows_in_full_swing() {
    for way in Bench::every_way() {
        let mut bench = Bench::new(way);
        let flows: Vec<_> = (0..20)
            .map(|_| bench.carry(Flow::passthrough(Times::default())))
            .collect();
        std::thread::scope(|scope| {
            for ends in &flows {
                scope.spawn(|| overwhelm(&ends.client, false));
                scope.spawn(|| discard(&ends.target));
            }
            std::thread::sleep(Duration::from_millis(50));
            bench.finish();
        });
    }
}

/// Writes until nobody takes it any more.
fn overwhelm(mut peer: &TcpStream, is_framed: bool) {
    let mut piece = vec![0; 60_008];
    if is_framed {
        piece[..4].copy_from_slice(&[0x82, 0x80 | 126, 0xea, 0x60]);
    }
    while peer.write_all(&piece).is_ok() {}
}

/// Reads until nothing more comes.
fn discard(mut peer: &TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while peer.read(&mut buffer).is_ok_and(|read| read > 0) {}
}

/// A descriptor that was given away, and which socket it was.
struct Held {
    descriptor: RawFd,
    socket: std::path::PathBuf,
}

impl Held {
    fn of(socket: &OwnedFd) -> Self {
        let descriptor = socket.as_raw_fd();
        let link = std::fs::read_link(Self::path(descriptor)).unwrap();
        Self {
            descriptor,
            socket: link,
        }
    }

    fn path(descriptor: RawFd) -> String {
        format!("/proc/self/fd/{descriptor}")
    }

    /// Whether the process still holds the socket under this descriptor.
    fn is_open(&self) -> bool {
        std::fs::read_link(Self::path(self.descriptor)).is_ok_and(|link| link == self.socket)
    }
}
