//! Two nodes behind a router: connections go through real interfaces and tunnels to the node that has them, and stay there when buckets move.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod apart;
mod packets;
mod world;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use apart::{apart, apart_thread, ip_command};
use postern_ebpf::{Attached, Mode, Program, from_ip};
use postern_ebpf_abi::table::NodeId;
use postern_ebpf_abi::verdict::Verdict;
use world::*;

const NOBODY: NodeId = NodeId::NOBODY;
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
/// Longest wait for anything that crosses the namespaces.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a node is told to do; it answers each with a number.
enum Order {
    Give(NodeId, NodeId),
    Count(Verdict),
}

/// A node: a thread in a namespace of its own, with the programs on its one interface, and servers
/// that say its number and then send back what they get.
struct Node {
    orders: Sender<Order>,
    answers: Receiver<u64>,
    thread: JoinHandle<()>,
}

impl Node {
    /// Starts node `id` and plugs it into this thread's namespace, which routes.
    fn start(id: NodeId, tunnels_v6: bool) -> Self {
        let (orders, taken) = channel();
        let (answer, answers) = channel();
        let (ready, plugged) = channel::<()>();
        let thread = apart_thread(move || {
            // SAFETY: takes nothing and cannot fail.
            let thread = unsafe { libc::gettid() };
            answer.send(u64::try_from(thread).unwrap()).unwrap();
            plugged.recv_timeout(PATIENCE).unwrap();
            let (mut world, _attached) = set_up(id, tunnels_v6);
            answer.send(0).unwrap();
            while let Ok(order) = taken.recv() {
                let number = match order {
                    Order::Give(first, second) => {
                        world.give(first, second);
                        0
                    }
                    Order::Count(verdict) => world.programs.count(verdict).unwrap().packets,
                };
                answer.send(number).unwrap();
            }
        });
        let number = id.0;
        let namespace = answers.recv_timeout(PATIENCE).unwrap();
        ip_command(&format!(
            "link add r{number} type veth peer name eth netns {namespace}"
        ));
        ip_command(&format!("addr add 10.{number}.0.1/24 dev r{number}"));
        ip_command(&format!("addr add fd00:{number}::1/64 dev r{number} nodad"));
        // Segments as a cable has them: what the stack would join is too big for any tunnel.
        ip_command(&format!("link set r{number} up gso_max_segs 1"));
        ready.send(()).unwrap();
        let node = Self {
            orders,
            answers,
            thread,
        };
        node.answer();
        node
    }

    fn answer(&self) -> u64 {
        self.answers.recv_timeout(PATIENCE).unwrap()
    }

    fn give(&self, first: NodeId, second: NodeId) {
        self.orders.send(Order::Give(first, second)).unwrap();
        self.answer();
    }

    fn count(&self, verdict: Verdict) -> u64 {
        self.orders.send(Order::Count(verdict)).unwrap();
        self.answer()
    }

    fn stop(self) {
        drop(self.orders);
        self.thread.join().unwrap();
    }
}

/// Addresses, servers, table and programs of node `id`, in this thread's namespace.
fn set_up(id: NodeId, tunnels_v6: bool) -> (World, Attached) {
    let number = id.0;
    for command in [
        format!("addr add 10.{number}.0.2/24 dev eth"),
        format!("addr add fd00:{number}::2/64 dev eth nodad"),
        "addr add 192.0.2.10/32 dev lo".to_owned(),
        "addr add 2001:db8::10/128 dev lo nodad".to_owned(),
        "link set eth up".to_owned(),
        format!("route add default via 10.{number}.0.1"),
        format!("-6 route add default via fd00:{number}::1"),
    ] {
        ip_command(&command);
    }
    for address in [VIP_V4, VIP_V6] {
        let listener = TcpListener::bind(address).unwrap();
        std::thread::spawn(move || serve(&listener, number));
        let socket = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || answer(&socket, number));
    }
    let mut world = World::new();
    let settings = world.draft.settings();
    settings.node = id;
    settings.address_v4 = from_ip(ip(&format!("10.{number}.0.2")));
    settings.address_v6 = from_ip(ip(&format!("fd00:{number}::2")));
    for node in [A, B] {
        let number = node.0;
        let place = if tunnels_v6 {
            format!("fd00:{number}::2")
        } else {
            format!("10.{number}.0.2")
        };
        world.draft.node(node, ip(&place), [0; 6]).unwrap();
    }
    let attached = world
        .programs
        .attach_as(Program::Steer, "eth", Mode::Generic);
    (world, attached.unwrap())
}

/// Ends with the test's process; its namespace ends when it does.
fn serve(listener: &TcpListener, number: u16) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            stream.write_all(&[u8::try_from(number).unwrap()]).unwrap();
            let mut buffer = [0; 256];
            while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                stream.write_all(&buffer[..bytes]).unwrap();
            }
        });
    }
}

/// Answers every datagram with the node's number.
fn answer(socket: &UdpSocket, number: u16) {
    loop {
        let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
        let number = [u8::try_from(number).unwrap()];
        socket.send_to(&number, from).unwrap();
    }
}

/// A UDP flow to the service.
struct Calls {
    socket: UdpSocket,
}

impl Calls {
    fn begin(vip: SocketAddr) -> Self {
        let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(vip).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// The node that answers.
    fn node(&self) -> NodeId {
        let mut number = [0];
        for _ in 0..20 {
            self.socket.send(b"who?").unwrap();
            let before = std::mem::take(&mut number);
            assert_eq!(self.socket.recv(&mut number).unwrap(), 1);
            assert!(before == [0] || before == number, "one node answers");
        }
        NodeId(number[0].into())
    }
}

/// A connection to the service, and the node that has it.
struct Session {
    stream: TcpStream,
    node: NodeId,
}

impl Session {
    fn open(vip: SocketAddr) -> Self {
        let mut stream = TcpStream::connect_timeout(&vip, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut number = [0];
        stream.read_exact(&mut number).unwrap();
        Self {
            stream,
            node: NodeId(number[0].into()),
        }
    }

    /// Sends and gets back.
    fn works(&mut self) {
        for round in 0..20 {
            let sent = [round; 100];
            self.stream.write_all(&sent).unwrap();
            let mut got = [0; 100];
            self.stream.read_exact(&mut got).unwrap();
            assert_eq!(got, sent);
        }
    }

    /// The same with segments that no tunnel has room for, until somebody says so.
    fn works_in_full_segments(&mut self) {
        for round in 0..4 {
            let sent = vec![round; 16 * 1024];
            self.stream.write_all(&sent).unwrap();
            let mut got = vec![0; sent.len()];
            self.stream.read_exact(&mut got).unwrap();
            assert!(got == sent);
        }
    }
}

/// Makes this namespace a router that sends the services' packets to node 1.
fn route() {
    for (path, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        // Answers come straight from the node that has the connection.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ] {
        std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
    }
}

/// Node addresses are those of one family at a time: tunnels go over it.
fn check(vip: &str, tunnels_v6: bool) {
    let vip = at(vip);
    let nodes = [A, B].map(|id| Node::start(id, tunnels_v6));
    ip_command("route add 192.0.2.10 via 10.1.0.2");
    ip_command("-6 route add 2001:db8::10 via fd00:1::2");
    let give = |first, second| nodes.iter().for_each(|node| node.give(first, second));
    let [a, b] = &nodes;

    give(A, NOBODY);
    let mut old = Session::open(vip);
    old.works();
    assert_eq!(old.node, A);
    assert_eq!(b.count(Verdict::TakenSyn), 0);
    let old_calls = Calls::begin(vip);
    assert_eq!(old_calls.node(), A);

    // New connections go to B; A keeps its own, which B does not know.
    give(B, A);
    let mut new = Session::open(vip);
    new.works();
    old.works();
    assert_eq!(new.node, B);
    assert!(b.count(Verdict::TakenSyn) > 0);
    assert_eq!(a.count(Verdict::TooBigAnswered), 0);
    new.works_in_full_segments();
    assert!(a.count(Verdict::TooBigAnswered) > 0, "the client was told");
    let new_calls = Calls::begin(vip);
    assert_eq!((old_calls.node(), new_calls.node()), (A, B));
    assert!(a.count(Verdict::TakenDatagram) > 0 && b.count(Verdict::TakenNewDatagram) > 0);
    assert!(b.count(Verdict::TakenSocket) > 0 && b.count(Verdict::PassedOn) > 0);
    assert!(a.count(Verdict::ToFirst) > 0 && a.count(Verdict::TakenLast) > 0);

    // And back: now B's connection is the old one.
    give(A, B);
    let mut newest = Session::open(vip);
    for session in [&mut old, &mut new, &mut newest] {
        session.works();
    }
    assert_eq!(newest.node, A);
    let newest_calls = Calls::begin(vip);
    let calls = [&old_calls, &new_calls, &newest_calls];
    assert_eq!(calls.map(Calls::node), [A, B, A]);
    assert!(a.count(Verdict::LocalSocket) > 0 && a.count(Verdict::ToSecond) > 0);

    // Different tables on both nodes deliver, too: B still has the one before.
    b.give(B, A);
    for session in [&mut old, &mut new, &mut newest] {
        session.works();
    }
    assert_eq!(calls.map(Calls::node), [A, B, A]);
    for verdict in Verdict::ALL
        .iter()
        .filter(|verdict| verdict.name().starts_with("tunnel_"))
    {
        assert_eq!(
            b.count(*verdict) + a.count(*verdict),
            0,
            "{}",
            verdict.name()
        );
    }
    drop([old, new, newest]);
    nodes.into_iter().for_each(Node::stop);
}

#[test]
fn connections_stay_with_their_node_while_buckets_move() {
    for vip in [VIP_V4, VIP_V6] {
        for tunnels_v6 in [false, true] {
            apart(move || {
                route();
                check(vip, tunnels_v6);
            });
        }
    }
}
