//! What a relay promises, over real sockets, on every driver.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_lite::future::zip;
use postern_relay::flow::{CLOSE_NOTIFY, Framing, KernelLine, Line};
use postern_relay::{Ended, Flow, Goodbye, Report, Times};
use postern_wire::websocket::{self, Decoder, DecoderLimits, Opcode, TextPolicy};

use super::{Relay, start};
use crate::front::Kind;
use crate::trial::{KINDS, on_a_core};
use crate::{EngineError, clock, resources};

const PATIENCE: Duration = Duration::from_secs(60);

/// The bytes that peers write: as long as they are told apart by where they stand.
const PATTERN_BYTES: usize = 65_521;

const GOODBYE: Goodbye = Goodbye {
    code: 4100,
    reason: "enough",
};

/// Runs `work` on a core of each kind, beside a relay of the same kind that must end well afterwards.
pub(super) fn on_each_relay<F, W>(work: F)
where
    F: Fn(Relay) -> W + Send + Copy + 'static,
    W: Future<Output = ()> + 'static,
{
    for kind in KINDS {
        on_a_core(kind, move || async move {
            let (relay, delivery) = start(resources::cores()[0], kind).expect("starts");
            let (ended, ()) = zip(delivery.run(), work(relay)).await;
            ended.expect("the relay ends well");
        });
    }
}

/// A connection: the peer's end, and the one that is given to the relay.
pub(super) fn connection() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let peer = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
    let (ours, _) = listener.accept().expect("accepts");
    for socket in [&peer, &ours] {
        socket.set_nodelay(true).expect("no delay");
    }
    peer.set_read_timeout(Some(PATIENCE)).expect("timeout");
    peer.set_write_timeout(Some(PATIENCE)).expect("timeout");
    (peer, ours.into())
}

fn unix_connection() -> (UnixStream, OwnedFd) {
    let (peer, ours) = UnixStream::pair().expect("a pair");
    peer.set_read_timeout(Some(PATIENCE)).expect("timeout");
    (peer, ours.into())
}

pub(super) fn passthrough() -> Flow {
    Flow::passthrough(Times::default())
}

pub(super) fn framed() -> Flow {
    let limits = DecoderLimits {
        frame_bytes_max: 1 << 20,
    };
    let decoder = Decoder::new(limits, TextPolicy::Refuse);
    let framing = Framing::WebSocket(Box::new(decoder));
    let times = Times {
        goodbye_ms: 5000,
        ..Times::default()
    };
    let goodbye = |_: &Ended| Goodbye::NONE;
    Flow::framed(Line::Plain, Line::Plain, framing, times, goodbye)
}

pub(super) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    clock::within(PATIENCE, work).await.expect("in time")
}

/// Waits for a peer without keeping the core busy.
pub(super) async fn joined<T>(peer: JoinHandle<T>) -> T {
    in_time(async {
        while !peer.is_finished() {
            clock::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    peer.join().expect("the peer's checks hold")
}

fn pattern() -> Vec<u8> {
    let mut bytes = vec![0; 2 * PATTERN_BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let at = at % PATTERN_BYTES;
        *byte = (at ^ (at >> 8)) as u8;
    }
    bytes
}

/// Writes so many bytes of the pattern.
pub(super) fn pour(peer: &mut impl Write, bytes: usize) {
    let pattern = pattern();
    let mut poured = 0;
    while poured < bytes {
        let start = poured % PATTERN_BYTES;
        let end = (start + PATTERN_BYTES).min(start + bytes - poured);
        peer.write_all(&pattern[start..end]).expect("writes");
        poured += end - start;
    }
}

/// Reads to the end, and checks that it is the pattern; how many bytes came.
pub(super) fn drink(peer: &mut impl Read) -> usize {
    let pattern = pattern();
    let mut buffer = vec![0; PATTERN_BYTES];
    let mut drunk = 0;
    loop {
        let bytes = peer.read(&mut buffer).expect("reads");
        if bytes == 0 {
            return drunk;
        }
        let start = drunk % PATTERN_BYTES;
        assert!(
            buffer[..bytes] == pattern[start..start + bytes],
            "every byte in its order, near {drunk}"
        );
        drunk += bytes;
    }
}

/// A target that sends back what it gets.
fn echo(mut target: TcpStream) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 4096];
        loop {
            match target.read(&mut buffer).expect("reads") {
                0 => return,
                bytes => target.write_all(&buffer[..bytes]).expect("writes"),
            }
        }
    })
}

fn assert_counts(report: &Report, ended: Ended, bytes_up: usize, bytes_down: usize) {
    assert_eq!(report.ended, ended);
    assert_eq!(report.traffic.bytes_up, bytes_up as u64);
    assert_eq!(report.traffic.bytes_down, bytes_down as u64);
}

#[test]
fn a_peer_that_stops_reading_bulk_is_given_up_also_when_the_kernel_moves_the_bytes() {
    on_each_relay(|relay| async move {
        let ((mut client, ours), (target, theirs)) = (connection(), connection());
        let flow = Flow::passthrough(Times {
            stall_ms: 700,
            ..Times::default()
        });
        let carriage = relay.carry(ours, theirs, flow);
        let poured = thread::spawn(move || {
            let chunk = vec![7; 1 << 20];
            // The relay goes away while this is under way.
            while client.write_all(&chunk).is_ok() {}
        });
        let report = in_time(carriage).await;
        assert_eq!(report.ended, Ended::TargetStalled);
        assert!(report.traffic.bytes_up > 1 << 20, "{report:?}");
        joined(poured).await;
        drop(target);
    });
}

#[test]
fn messages_go_both_ways_and_are_counted() {
    on_each_relay(|relay| async move {
        let (mut client, our_client) = connection();
        let (target, our_target) = connection();
        let target = echo(target);
        let carriage = relay.carry(our_client, our_target, passthrough());
        let client = thread::spawn(move || {
            let mut answer = [0; 64];
            for number in 0..50_u8 {
                client.write_all(&[number; 64]).expect("writes");
                client.read_exact(&mut answer).expect("reads");
                assert_eq!(answer, [number; 64]);
            }
            client.shutdown(Shutdown::Write).expect("shuts down");
            assert_eq!(client.read(&mut answer).expect("reads"), 0);
        });
        let report = in_time(carriage).await;
        assert_counts(&report, Ended::ClientClosed, 50 * 64, 50 * 64);
        joined(client).await;
        joined(target).await;
        in_time(async {
            while relay.tally().bytes_down < 50 * 64 {
                clock::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert_eq!(relay.tally().bytes_up, 50 * 64);
    });
}

#[test]
fn bulk_arrives_whole_in_both_directions_at_once() {
    const BYTES: usize = 128 * 1024 * 1024;
    on_each_relay(|relay| async move {
        let (client, our_client) = connection();
        let (target, our_target) = connection();
        let carriage = relay.carry(our_client, our_target, passthrough());
        let peers = [client, target].map(|peer| {
            let mut writing = peer.try_clone().expect("clones");
            let mut reading = peer;
            let writer = thread::spawn(move || {
                pour(&mut writing, BYTES);
                writing.shutdown(Shutdown::Write).expect("shuts down");
            });
            (writer, thread::spawn(move || drink(&mut reading)))
        });
        for (writer, reader) in peers {
            joined(writer).await;
            assert_eq!(joined(reader).await, BYTES);
        }
        let report = in_time(carriage).await;
        assert_eq!(report.traffic.bytes_up, BYTES as u64);
        assert_eq!(report.traffic.bytes_down, BYTES as u64);
    });
}

#[test]
fn a_unix_socket_is_a_peer_like_another() {
    const BYTES: usize = 32 * 1024 * 1024;
    on_each_relay(|relay| async move {
        let (mut client, our_client) = connection();
        let (mut target, our_target) = unix_connection();
        let carriage = relay.carry(our_client, our_target, passthrough());
        let client = thread::spawn(move || {
            pour(&mut client, BYTES);
            client.shutdown(Shutdown::Write).expect("shuts down");
            drink(&mut client)
        });
        let target = thread::spawn(move || {
            let drunk = drink(&mut target);
            pour(&mut target, 1000);
            drunk
        });
        assert_eq!(joined(target).await, BYTES);
        assert_eq!(joined(client).await, 1000);
        assert_counts(&in_time(carriage).await, Ended::ClientClosed, BYTES, 1000);
    });
}

#[test]
fn who_has_ended_still_hears_the_other() {
    const BYTES: usize = 3_000_000;
    on_each_relay(|relay| async move {
        for (client_first, ended) in [(true, Ended::ClientClosed), (false, Ended::TargetClosed)] {
            let (client, our_client) = connection();
            let (target, our_target) = connection();
            let carriage = relay.carry(our_client, our_target, passthrough());
            let (mut first, mut second) = match client_first {
                true => (client, target),
                false => (target, client),
            };
            let first = thread::spawn(move || {
                pour(&mut first, 10);
                first.shutdown(Shutdown::Write).expect("shuts down");
                drink(&mut first)
            });
            let second = thread::spawn(move || {
                // The end comes through before anything is answered.
                assert_eq!(drink(&mut second), 10);
                pour(&mut second, BYTES);
            });
            assert_eq!(joined(first).await, BYTES);
            joined(second).await;
            assert_eq!(in_time(carriage).await.ended, ended);
        }
    });
}

/// The sockets have no TLS, so that the alert is two bytes more.
#[test]
fn the_end_towards_the_kernels_tls_is_said_after_all_that_was_spliced() {
    const BYTES: usize = 24 * 1024 * 1024;
    on_each_relay(|relay| async move {
        let (mut client, our_client) = connection();
        let (mut target, our_target) = connection();
        let line = Line::Kernel(KernelLine::new(u64::MAX));
        let silent = |_: &Ended| Goodbye::NONE;
        let times = Times::default();
        let flow = Flow::framed(line, Line::Plain, Framing::None, times, silent);
        let carriage = relay.carry(our_client, our_target, flow);
        let target = thread::spawn(move || {
            pour(&mut target, BYTES);
            target.shutdown(Shutdown::Write).expect("shuts down");
            drink(&mut target)
        });
        let client = thread::spawn(move || {
            assert_eq!(drink(&mut (&client).take(BYTES as u64)), BYTES);
            let mut last = Vec::new();
            client.read_to_end(&mut last).expect("reads");
            pour(&mut client, BYTES);
            last
        });
        assert_eq!(joined(client).await, CLOSE_NOTIFY);
        assert_eq!(joined(target).await, BYTES);
        let report = in_time(carriage).await;
        assert_counts(&report, Ended::TargetClosed, BYTES, BYTES);
    });
}

#[test]
fn websocket_messages_are_unframed_and_framed() {
    const BYTES: usize = 8 * 1024 * 1024;
    on_each_relay(|relay| async move {
        let (mut client, our_client) = connection();
        let (mut target, our_target) = connection();
        let carriage = relay.carry(our_client, our_target, framed());
        let target = thread::spawn(move || {
            let mut drunk = vec![0; BYTES];
            target.read_exact(&mut drunk).expect("reads");
            assert!(
                drunk
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| *byte == (at / 1000) as u8)
            );
            target.write_all(b"thanks").expect("writes");
            assert_eq!(target.read(&mut [0; 1]).expect("reads"), 0);
        });
        let client = thread::spawn(move || {
            let payload: Vec<u8> = (0..BYTES).map(|at| (at / 1000) as u8).collect();
            for message in payload.chunks(50_000) {
                let frame = websocket::client_frame(Opcode::Binary, true, [7, 8, 9, 10], message);
                client.write_all(&frame).expect("writes");
            }
            let mut answer = [0; 8];
            client.read_exact(&mut answer).expect("reads");
            assert_eq!(&answer, b"\x82\x06thanks");
            let close =
                websocket::client_frame(Opcode::Close, true, [1; 4], &1000_u16.to_be_bytes());
            client.write_all(&close).expect("writes");
            client.shutdown(Shutdown::Write).expect("shuts down");
            client.read_to_end(&mut Vec::new()).expect("reads")
        });
        joined(target).await;
        joined(client).await;
        assert_counts(&in_time(carriage).await, Ended::ClientClosed, BYTES, 6);
    });
}

/// Carries 100 conversations at once; the 99th percentile of how long an answer takes.
async fn converse(relay: &Relay) -> Duration {
    let mut carriages = Vec::new();
    let mut clients = Vec::new();
    let mut targets = Vec::new();
    for _ in 0..100 {
        let (mut client, our_client) = connection();
        let (target, our_target) = connection();
        carriages.push(relay.carry(our_client, our_target, passthrough()));
        targets.push(echo(target));
        clients.push(thread::spawn(move || {
            let took = (0..50).map(|_| {
                let asked = Instant::now();
                client.write_all(&[1; 64]).expect("writes");
                client.read_exact(&mut [0; 64]).expect("reads");
                asked.elapsed()
            });
            took.collect::<Vec<_>>()
        }));
    }
    for carriage in carriages {
        let report = in_time(carriage).await;
        assert_counts(&report, Ended::ClientClosed, 50 * 64, 50 * 64);
    }
    let mut took = Vec::new();
    for client in clients {
        took.extend(joined(client).await);
    }
    for target in targets {
        joined(target).await;
    }
    took.sort();
    took[took.len() * 99 / 100]
}

#[test]
fn a_peer_that_does_not_read_keeps_nobody_else_waiting() {
    on_each_relay(|relay| async move {
        let alone = converse(&relay).await;
        let (stalled_client, our_client) = connection();
        let (mut flooding_target, our_target) = connection();
        let stalled = relay.carry(our_client, our_target, passthrough());
        let flood = thread::spawn(move || {
            let short = Some(Duration::from_millis(300));
            flooding_target.set_write_timeout(short).expect("timeout");
            let mut poured = 0;
            let end = loop {
                match flooding_target.write(&[0; 65536]) {
                    Ok(bytes) => poured += bytes,
                    Err(error) => break error.kind(),
                }
            };
            assert_eq!(end, ErrorKind::WouldBlock, "the flood is held back");
            (flooding_target, poured)
        });
        let (flooding_target, poured) = joined(flood).await;

        let beside_it = converse(&relay).await;
        // Noise of a busy machine passes; waiting for the stalled peer would take for ever.
        let bound = 2 * alone + Duration::from_millis(250);
        assert!(beside_it < bound, "p99 {beside_it:?}, {alone:?} alone");

        // What was held back is still there.
        drop(flooding_target);
        let late = thread::spawn(move || {
            let mut client = stalled_client;
            let mut drunk = 0;
            let mut buffer = vec![0; 65536];
            while let Ok(bytes @ 1..) = client.read(&mut buffer) {
                drunk += bytes;
            }
            drunk
        });
        assert_eq!(joined(late).await, poured);
        assert_counts(&in_time(stalled).await, Ended::TargetClosed, 0, poured);
    });
}

#[test]
fn a_flow_that_is_stopped_says_so_to_its_client() {
    on_each_relay(|relay| async move {
        let (mut client, our_client) = connection();
        let (mut target, our_target) = connection();
        let carriage = relay.carry(our_client, our_target, framed());
        let client = thread::spawn(move || {
            let mut frame = vec![0; 4 + GOODBYE.reason.len()];
            client.read_exact(&mut frame).expect("reads");
            client.shutdown(Shutdown::Write).expect("shuts down");
            assert_eq!(client.read(&mut [0; 1]).expect("reads"), 0);
            frame
        });
        carriage.stop(GOODBYE);
        let report = in_time(carriage).await;
        assert_eq!(report.ended, Ended::Stopped);
        let frame = joined(client).await;
        assert_eq!(frame, websocket::close_frame(GOODBYE.code, GOODBYE.reason));
        assert_eq!(target.read(&mut [0; 1]).expect("reads"), 0);
    });
}

#[test]
fn two_thousand_flows_are_carried_at_once() {
    const FLOWS: usize = 2000;
    // Both ends of both connections of every flow are in this process.
    resources::prepare(Kind::Epoll, 2 * FLOWS as u32, 0).expect("descriptors");
    on_each_relay(|relay| async move {
        let mut flows = Vec::new();
        for _ in 0..FLOWS {
            let (client, our_client) = unix_connection();
            let (target, our_target) = unix_connection();
            let carriage = relay.carry(our_client, our_target, passthrough());
            flows.push((carriage, client, target));
        }
        let mut carriages = Vec::new();
        let mut peers = Vec::new();
        for (carriage, client, target) in flows {
            carriages.push(carriage);
            peers.push((client, target));
        }
        let talk = thread::spawn(move || {
            for (number, (client, _)) in peers.iter_mut().enumerate() {
                client.write_all(&number.to_be_bytes()).expect("writes");
            }
            for (number, (client, target)) in peers.iter_mut().enumerate() {
                let mut heard = [0; 8];
                target.read_exact(&mut heard).expect("reads");
                assert_eq!(usize::from_be_bytes(heard), number);
                target.write_all(&heard).expect("writes");
                client.read_exact(&mut heard).expect("reads");
                assert_eq!(usize::from_be_bytes(heard), number);
            }
        });
        joined(talk).await;
        for carriage in carriages {
            let report = in_time(carriage).await;
            assert_eq!(report.traffic.bytes_up, 8);
            assert_eq!(report.traffic.bytes_down, 8);
        }
    });
}

#[test]
fn a_flow_can_be_ended_in_full_swing() {
    on_each_relay(|relay| async move {
        for stops in [true, false] {
            let (mut client, our_client) = connection();
            let (mut target, our_target) = connection();
            let carriage = relay.carry(our_client, our_target, passthrough());
            let source = thread::spawn(move || while target.write_all(&[5; 65536]).is_ok() {});
            let sink = thread::spawn(move || {
                let mut buffer = vec![0; 65536];
                while let Ok(1..) = client.read(&mut buffer) {}
            });
            clock::sleep(Duration::from_millis(100)).await;
            let asked = Instant::now();
            if stops {
                carriage.stop(Goodbye::NONE);
                assert_eq!(in_time(carriage).await.ended, Ended::Stopped);
            } else {
                drop(carriage);
            }
            joined(source).await;
            joined(sink).await;
            assert!(asked.elapsed() < Duration::from_secs(5));
        }
    });
}

#[test]
fn a_reset_reaches_the_other_peer_and_the_report() {
    on_each_relay(|relay| async move {
        let (client, our_client) = connection();
        let (mut target, our_target) = connection();
        let carriage = relay.carry(our_client, our_target, passthrough());
        let socket = socket2::Socket::from(client);
        socket.set_linger(Some(Duration::ZERO)).expect("linger");
        drop(socket);
        assert_eq!(in_time(carriage).await.ended, Ended::ClientLost);
        assert!(matches!(target.read(&mut [0; 1]), Ok(0) | Err(_)));
    });
}

#[test]
fn time_limits_end_idle_flows() {
    on_each_relay(|relay| async move {
        let times = Times {
            idle_ms: 50,
            ..Times::default()
        };
        let (_client, our_client) = connection();
        let (_target, our_target) = connection();
        let began = Instant::now();
        let carriage = relay.carry(our_client, our_target, Flow::passthrough(times));
        assert_eq!(in_time(carriage).await.ended, Ended::Idle);
        assert!(began.elapsed() >= Duration::from_millis(50));
    });
}

#[test]
fn flows_end_with_the_front() {
    on_each_relay(|relay| async move {
        let (mut client, our_client) = connection();
        let (_target, our_target) = connection();
        let carriage = relay.carry(our_client, our_target, passthrough());
        clock::sleep(Duration::from_millis(20)).await;
        drop(relay);
        // A carriage keeps the relay.
        clock::sleep(Duration::from_millis(20)).await;
        drop(carriage);
        let client = thread::spawn(move || client.read(&mut [0; 1]));
        assert!(matches!(joined(client).await, Ok(0) | Err(_)));
    });
}

#[test]
fn a_relay_that_fails_ends_every_carriage_and_says_why() {
    const NOWHERE: usize = 100_000;
    for kind in KINDS {
        on_a_core(kind, move || async move {
            let (relay, delivery) = start(NOWHERE, kind).expect("starts");
            let carry = || {
                let (_, our_client) = unix_connection();
                let (_, our_target) = unix_connection();
                relay.carry(our_client, our_target, passthrough())
            };
            let early = carry();
            let (ended, report) = zip(delivery.run(), early).await;
            assert!(matches!(
                ended,
                Err(EngineError::Relay { core: NOWHERE, .. })
            ));
            assert_eq!(report.ended, Ended::TargetLost);
            assert_eq!(in_time(carry()).await.ended, Ended::TargetLost);
        });
    }
}

#[test]
fn the_relay_thread_is_named_and_pinned() {
    for kind in [Kind::IoUring, Kind::Epoll] {
        on_a_core(kind, move || async move {
            let core = resources::cores()[0];
            let (relay, delivery) = start(core, kind).expect("starts");
            let look = async move {
                let name = format!("relay-{core}");
                in_time(async {
                    while !pinned_thread_exists(&name, core) {
                        clock::sleep(Duration::from_millis(1)).await;
                    }
                })
                .await;
                drop(relay);
            };
            let (ended, ()) = zip(delivery.run(), look).await;
            ended.expect("ends well");
        });
    }
}

fn pinned_thread_exists(name: &str, core: usize) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks");
    tasks.flatten().any(|task| {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let pinned = format!("Cpus_allowed_list:\t{core}\n");
        read("comm").trim() == name && read("status").contains(&pinned)
    })
}
