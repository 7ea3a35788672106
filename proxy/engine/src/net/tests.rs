//! Sockets of either kind of core, and what becomes of bytes when a socket changes hands.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::trial::{KINDS, on_a_core};

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream of a core and its peer, over TCP and over UNIX.
async fn pairs() -> Vec<(Stream, std::fs::File)> {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("binds");
    let address = listener.local_address().expect("address");
    let peer = std::net::TcpStream::connect(address).expect("connects");
    let (tcp, remote, local) = listener.accept().await.expect("accepts");
    assert_eq!(remote, peer.local_addr().expect("address"));
    assert_eq!(local, address);
    let (unix, unix_peer) = UnixStream::pair().expect("a pair");
    let unix = Stream::adopt(unix.into()).expect("adopts");
    let file = |socket: OwnedFd| std::fs::File::from(socket);
    vec![(tcp, file(peer.into())), (unix, file(unix_peer.into()))]
}

/// What is left on a descriptor to the end of the stream, read by a thread that is no core.
fn rest_of(descriptor: OwnedFd) -> Vec<u8> {
    let reader = std::thread::spawn(move || {
        let socket = socket2::Socket::from(descriptor);
        assert!(socket.nonblocking().expect("flags"), "non-blocking");
        socket.set_nonblocking(false).expect("flags");
        socket.set_read_timeout(Some(PATIENCE)).expect("option");
        let mut bytes = Vec::new();
        std::fs::File::from(OwnedFd::from(socket))
            .read_to_end(&mut bytes)
            .expect("reads");
        bytes
    });
    reader.join().expect("no panic")
}

#[test]
fn bytes_of_before_during_and_after_a_hand_over_all_arrive() {
    for kind in KINDS {
        on_a_core(kind, || async {
            for (mut stream, mut peer) in pairs().await {
                peer.write_all(b"read here;before;").expect("writes");
                let mut read = [0; 10];
                stream.read_exact(&mut read).await.expect("reads");
                assert_eq!(&read, b"read here;");
                // The rest lies in the kernel, and the executor may poll for more.
                clock::sleep(Duration::from_millis(5)).await;
                let (given_away, after) = std::sync::mpsc::channel();
                let writer = std::thread::spawn(move || {
                    for _ in 0..1000 {
                        peer.write_all(b"during;").expect("writes");
                    }
                    after.recv().expect("given away");
                    peer.write_all(b"after").expect("writes");
                });
                let descriptor = stream.into_descriptor().expect("gives away");
                // What the executor cancels, it has cancelled by then.
                clock::sleep(Duration::from_millis(5)).await;
                given_away.send(()).expect("the writer lives");
                let expected = format!("before;{}after", "during;".repeat(1000));
                assert_eq!(String::from_utf8_lossy(&rest_of(descriptor)), expected);
                writer.join().expect("no panic");
            }
        });
    }
}

#[test]
fn a_hand_over_while_a_read_waits_takes_no_byte_and_closes_nothing() {
    for kind in KINDS {
        on_a_core(kind, || async {
            for (mut stream, mut peer) in pairs().await {
                let mut bytes = [0; 16];
                let patience = Duration::from_millis(20);
                let read = clock::within(patience, stream.read(&mut bytes)).await;
                assert!(read.is_err(), "nothing was sent yet");
                let descriptor = stream.into_descriptor().expect("gives away");
                clock::sleep(Duration::from_millis(20)).await;
                peer.write_all(b"after").expect("the stream is open");
                let mut answer = std::fs::File::from(descriptor.try_clone().expect("clones"));
                answer.write_all(b"answer").expect("it can be written");
                let mut read = [0; 6];
                peer.read_exact(&mut read).expect("reads");
                assert_eq!(&read, b"answer");
                drop(peer);
                assert_eq!(rest_of(descriptor), b"after");
            }
        });
    }
}

#[test]
fn the_peer_sees_the_end_as_soon_as_the_new_owner_closes() {
    for kind in KINDS {
        on_a_core(kind, || async {
            for (stream, mut peer) in pairs().await {
                let descriptor = stream.into_descriptor().expect("gives away");
                drop(descriptor);
                // The core must not hold the socket by what it still polls for.
                let reader = std::thread::spawn(move || {
                    let read = peer.read(&mut [0; 1]);
                    assert_eq!(read.expect("an orderly end"), 0);
                });
                clock::within(PATIENCE, async {
                    while !reader.is_finished() {
                        clock::sleep(Duration::from_millis(1)).await;
                    }
                })
                .await
                .expect("in time");
                reader.join().expect("no panic");
            }
        });
    }
}

#[test]
fn cores_connect_over_tcp_and_unix_and_half_close() {
    for kind in KINDS {
        on_a_core(kind, || async {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("socket");
            let unix = UnixListener::bind(&path).expect("binds");
            let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
            let address = tcp.local_addr().expect("address");
            let over_unix = connect_unix(&path).await.expect("connects");
            let over_tcp = connect(address).await.expect("connects");
            let file = |socket: OwnedFd| std::fs::File::from(socket);
            let accepted = [
                file(unix.accept().expect("accepts").0.into()),
                file(tcp.accept().expect("accepts").0.into()),
            ];
            for (mut stream, mut peer) in [over_unix, over_tcp].into_iter().zip(accepted) {
                stream.write_all(b"question").await.expect("writes");
                stream.close().await.expect("half-closes");
                let mut question = Vec::new();
                peer.read_to_end(&mut question).expect("reads");
                assert_eq!(question, b"question");
                peer.write_all(b"answer").expect("writes");
                drop(peer);
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.expect("reads");
                assert_eq!(answer, b"answer");
            }
        });
    }
}

#[test]
fn who_refuses_or_is_not_there_is_an_error() {
    for kind in KINDS {
        on_a_core(kind, || async {
            let nobody = Path::new("/nowhere/socket");
            let missing = connect_unix(nobody).await.map(drop).expect_err("nobody");
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
            let address = gone.local_addr().expect("address");
            drop(gone);
            let refused = connect(address).await.map(drop).expect_err("nobody");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}

#[test]
fn a_full_backlog_of_a_unix_socket_is_waited_for() {
    for kind in KINDS {
        on_a_core(kind, || async {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("socket");
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
            let address = SockAddr::unix(&path).expect("address");
            socket.bind(&address).expect("binds");
            socket.listen(0).expect("listens");
            // One fits into a backlog of none.
            let first = connect_unix(&path).await.expect("connects");
            let patience = Duration::from_millis(50);
            let second = clock::within(patience, connect_unix(&path)).await;
            assert!(second.is_err(), "it waits, and keeps nobody waiting");
            let accepted = socket.accept().expect("accepts");
            connect_unix(&path).await.expect("connects now");
            drop((first, accepted));
        });
    }
}

#[test]
fn names_are_looked_up() {
    for kind in KINDS {
        on_a_core(kind, || async {
            let found = resolve("127.0.0.1".to_owned(), 3389).await;
            assert_eq!(found.expect("an address"), [([127, 0, 0, 1], 3389).into()]);
            assert!(resolve("no such name".to_owned(), 1).await.is_err());
        });
    }
}

#[test]
fn a_doorbell_wakes_its_core_and_tells_when_the_button_is_gone() {
    for kind in KINDS {
        let (button, wire) = crate::doorbell::new().expect("a doorbell");
        let (ringing, rung) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            for _ in 0..3 {
                button.ring();
                rung.recv_timeout(PATIENCE).expect("woken");
            }
        });
        on_a_core(kind, move || async move {
            let mut doorbell = wire.connect().expect("connects");
            for _ in 0..3 {
                doorbell.rung().await.expect("rung");
                ringing.send(()).expect("somebody rings");
            }
            let gone = doorbell.rung().await.expect_err("the button is gone");
            assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
        });
        thread.join().expect("no panic");
    }
}

/// Whether the connection was broken off by a reset before it was accepted or not, its peer has a name.
#[test]
fn a_peer_that_resets_before_it_is_accepted_is_accepted_with_its_name() {
    for kind in KINDS {
        on_a_core(kind, || async {
            for ip in ["127.0.0.1", "::1"] {
                let ip: std::net::IpAddr = ip.parse().expect("an address");
                let listener = Listener::bind(SocketAddr::new(ip, 0)).expect("binds");
                let address = listener.local_address().expect("address");
                let peer = std::net::TcpStream::connect(address).expect("connects");
                let name = peer.local_addr().expect("address");
                let socket = socket2::Socket::from(peer);
                socket
                    .set_linger(Some(Duration::ZERO))
                    .expect("a close that resets");
                drop(socket);
                let (_, remote, local) = listener.accept().await.expect("accepts");
                assert_eq!((remote, local), (name, address));
            }
        });
    }
}

/// Reads what comes until `bytes` have come.
async fn read_exactly(stream: &mut Stream, bytes: usize) {
    let mut buffer = vec![0; bytes];
    stream.read_exact(&mut buffer).await.expect("reads");
}

#[test]
fn a_meter_counts_what_crossed_and_what_was_never_read() {
    for kind in KINDS {
        on_a_core(kind, || async {
            let (mut stream, mut peer) = pairs().await.remove(0);
            let meter = stream.meter();
            peer.write_all(&[1; 5000]).expect("writes");
            read_exactly(&mut stream, 1000).await;
            stream.write_all(b"four").await.expect("writes");
            assert_eq!((meter.count().received, meter.count().sent), (1000, 4));
            // Loopback delivers before the writer's call returns.
            drop(stream);
            let count = meter.count();
            assert_eq!((count.received, count.sent, count.unsent), (5000, 4, 0));
        });
    }
}

#[test]
fn an_urgent_byte_is_a_byte_of_the_stream() {
    for kind in KINDS {
        on_a_core(kind, || async {
            let (mut stream, peer) = pairs().await.remove(0);
            let socket = socket2::Socket::from(OwnedFd::from(peer));
            socket.send(b"before").expect("sends");
            socket.send_out_of_band(b"!").expect("sends");
            socket.send(b"after").expect("sends");
            let mut came = [0; 12];
            stream.read_exact(&mut came).await.expect("reads");
            assert_eq!(&came, b"before!after");
            assert_eq!(stream.meter().count().received, 12);
        });
    }
}

#[test]
fn what_a_reset_made_the_kernel_drop_was_not_sent() {
    for kind in KINDS {
        on_a_core(kind, || async {
            let (mut stream, peer) = pairs().await.remove(0);
            let meter = stream.meter();
            // A peer that does not read: its window fills, then the kernel's own buffer.
            let block = vec![7; 64 * 1024];
            let filled = async {
                loop {
                    stream.write_all(&block).await.expect("writes");
                }
            };
            let filled = clock::within(Duration::from_millis(300), filled).await;
            assert_eq!(filled, Err(clock::Elapsed), "the peer's window closes");
            let taken = meter.count().sent;
            let socket = socket2::Socket::from(OwnedFd::from(peer));
            let arrived = waiting(&socket);
            drop(socket);
            clock::sleep(Duration::from_millis(20)).await;
            drop(stream);
            let count = meter.count();
            assert!(count.sent < taken, "{count:?} of {taken}");
            // What is on its way at a reset went out, and never arrived: loopback loses nothing.
            assert_eq!((count.sent, count.unsent), (arrived, 0));
        });
    }
}

/// Bytes that have arrived and are not read.
fn waiting(socket: &socket2::Socket) -> u64 {
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 32 << 20];
    socket.peek(&mut buffer).expect("peeks") as u64
}

#[test]
fn clients_are_told_a_limit_of_segments() {
    for kind in KINDS {
        on_a_core(kind, || async {
            for ip in ["127.0.0.1", "::1"] {
                let ip: std::net::IpAddr = ip.parse().expect("an address");
                let address = SocketAddr::new(ip, 0);
                let listener = Listener::bind_limited(address, Some(1364)).expect("binds");
                let address = listener.local_address().expect("address");
                let peer = std::net::TcpStream::connect(address).expect("connects");
                let segment = socket2::SockRef::from(&peer).tcp_mss().expect("option");
                // Options take a part of each.
                assert!((1300..=1364).contains(&segment), "{segment}");
            }
            let none = Listener::bind_limited(([127, 0, 0, 1], 0).into(), Some(1));
            assert!(matches!(none, Err(EngineError::Listen { .. })));
        });
    }
}

#[test]
fn connections_that_wait_to_be_accepted_are_counted() {
    for kind in KINDS {
        on_a_core(kind, || async {
            let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("binds");
            let address = listener.local_address().expect("address");
            assert_eq!(listener.waiting(), 0);
            let peers: Vec<_> = (0..3)
                .map(|_| std::net::TcpStream::connect(address).expect("connects"))
                .collect();
            assert_eq!(listener.waiting(), 3);
            listener.accept().await.expect("accepts");
            assert_eq!(listener.waiting(), 2);
            drop(peers);
        });
    }
}
