//! Programs on a real interface: they see its packets in either mode, follow a new table, and leave nothing behind.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod apart;
mod packets;
mod world;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use apart::{apart, ip_command};
use postern_ebpf::{Attached, Error, Mode, Program};
use postern_ebpf_abi::table::NodeId;
use postern_ebpf_abi::verdict::Verdict;
use world::*;

/// How long a packet may take from one end of a virtual cable to the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// A virtual cable: what this end sends to the services arrives at `far`.
fn cable() -> UdpSocket {
    ip_command("link add near type veth peer name far");
    ip_command("link set far address 02:00:00:00:00:02");
    ip_command("addr add 198.51.100.7/24 dev near");
    ip_command("link set near up");
    ip_command("link set far up");
    ip_command("route add 192.0.2.0/24 dev near");
    ip_command("neigh add 192.0.2.10 lladdr 02:00:00:00:00:02 dev near nud permanent");
    let socket = UdpSocket::bind("198.51.100.7:50000").unwrap();
    socket.connect(VIP_V4).unwrap();
    socket
}

/// Sends datagrams until one is counted under `verdict`.
fn arrives(world: &World, socket: &UdpSocket, verdict: Verdict) -> bool {
    let before = world.programs.count(verdict).unwrap().packets;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        socket.send(b"datagram").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        if world.programs.count(verdict).unwrap().packets > before {
            return true;
        }
    }
    false
}

fn total(world: &World) -> u64 {
    let counts = world.programs.counts().unwrap();
    counts.iter().map(|count| count.packets).sum()
}

/// Attaches `steer`, sees packets under two tables, lets go, and sees none.
fn comes_and_goes(attach: impl FnOnce(&mut World) -> Result<Attached, Error>, mode: Mode) {
    let socket = cable();
    let mut world = World::new();
    world.give(SELF, NodeId::NOBODY);
    let attached = attach(&mut world).unwrap();
    assert_eq!(attached.mode(), mode);
    assert!(arrives(&world, &socket, Verdict::Local), "{mode:?}");
    world.give(NodeId::NOBODY, NodeId::NOBODY);
    assert!(arrives(&world, &socket, Verdict::Unassigned), "{mode:?}");
    drop(attached);
    let before = total(&world);
    socket.send(b"datagram").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(total(&world), before, "nothing is left behind");
}

#[test]
fn the_driver_runs_it_where_it_can() {
    apart(|| {
        comes_and_goes(
            |world| world.programs.attach(Program::Steer, "far"),
            Mode::Native,
        )
    });
}

#[test]
fn the_stack_runs_it_where_that_is_asked_for() {
    apart(|| {
        comes_and_goes(
            |world| {
                world
                    .programs
                    .attach_as(Program::Steer, "far", Mode::Generic)
            },
            Mode::Generic,
        );
    });
}

#[test]
fn an_interface_that_is_not_there_is_refused_by_name() {
    apart(|| {
        let error = World::new().programs.attach(Program::Steer, "nowhere");
        let text = error.unwrap_err().to_string();
        assert_eq!(text, "steer cannot be attached to nowhere (generic)");
    });
}
