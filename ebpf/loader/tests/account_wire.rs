//! `account` at both ends of a cable: what one end sends as one packet and the other receives as many, or joins, is counted alike.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]
#![allow(dead_code, reason = "every test program uses a part")]

mod apart;
#[path = "account/group.rs"]
mod group;
#[path = "account/session.rs"]
mod session;

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use postern_ebpf::{Account, Patience};

use apart::{apart, apart_thread, ip_command};
use group::Group;
use session::{End, Plan};

/// Payload of a full segment: 1500 without the headers of IPv4 and TCP with timestamps.
const SEGMENT: u64 = 1500 - 20 - 32;

/// From the kernel's `ethtool.h`.
const ETHTOOL_SET_TSO: u32 = 0x1f;
const ETHTOOL_SET_GRO: u32 = 0x2c;

/// Switches a feature of an interface of this thread's namespace.
fn switch(interface: &str, feature: u32, on: bool) {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut value = [feature, u32::from(on)];
    // SAFETY: request and value live across the call, and the name ends with a zero.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&socket);
        let done = libc::ioctl(descriptor, SIOCETHTOOL as _, &raw mut request);
        let error = std::io::Error::last_os_error();
        assert_eq!(done, 0, "{interface}: {error}");
    }
}

fn drain(group: &mut Group) -> Vec<Account> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let patience = Patience {
        over: Duration::from_millis(50),
        ..Patience::default()
    };
    let mut accounts = Vec::new();
    while accounts.len() < 2 {
        assert!(Instant::now() < deadline, "{} flows", accounts.len());
        std::thread::sleep(Duration::from_millis(20));
        accounts.extend(group.accounts.drain(patience, 10).unwrap().accounts);
    }
    accounts
}

/// Carries `plan` from here over a cable to a namespace of its own, and counts.
fn carry(plan: Plan, tso: bool, gro: bool) {
    apart(move || {
        let mut group = Group::new("127.0.0.1:0", 16);
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let (ready, wired) = mpsc::channel::<()>();
        let there = apart_thread(move || {
            // SAFETY: takes nothing.
            tell.send((unsafe { libc::gettid() }, None)).unwrap();
            wired.recv().unwrap();
            ip_command("address add 198.18.0.2/24 dev there");
            ip_command("link set there up");
            switch("there", ETHTOOL_SET_GRO, gro);
            let listener = TcpListener::bind("198.18.0.2:0").unwrap();
            tell.send((0, Some(listener))).unwrap();
            // The namespace lasts as long as its thread.
            let _ = ended.recv();
        });
        let (thread, _) = told.recv().unwrap();
        ip_command(&format!(
            "link add here type veth peer name there netns {thread}"
        ));
        ip_command("address add 198.18.0.1/24 dev here");
        ip_command("link set here up");
        switch("here", ETHTOOL_SET_TSO, tso);
        ready.send(()).unwrap();
        let (_, listener) = told.recv().unwrap();
        let session = session::run(&listener.unwrap(), plan);
        drop(end);
        there.join().unwrap();
        let accounts = drain(&mut group);
        let of = |local| {
            accounts
                .iter()
                .find(|one| one.local == local)
                .unwrap()
                .record
        };
        let (client, server) = (of(session.client), of(session.server));
        assert_eq!(client.payload_out(), session.written_up);
        assert_eq!(server.payload_in(), session.written_up);
        assert_eq!(server.payload_out(), session.written_down);
        assert_eq!(client.payload_in(), session.written_down);
        println!(
            "TSO {tso}, GRO {gro}: {} packets sent, {} received; {} bytes sent again",
            client.outgoing.packets,
            server.incoming.packets,
            client.repeated_out()
        );
        assert!(client.outgoing.packets >= session.written_up.div_ceil(SEGMENT));
        // A cable's queue may drop; what it does not drop is counted alike.
        if client.repeated_out() == 0 {
            assert_eq!(client.outgoing.packets, server.incoming.packets);
            assert_eq!(client.outgoing.wire_bytes, server.incoming.wire_bytes);
        }
    });
}

#[test]
fn segments_that_are_cut_or_joined_on_the_way_count_alike_at_both_ends() {
    let plan = Plan {
        up: 5_000_000,
        down: 100_000,
        end: End::HalfClose,
        ..Plan::default()
    };
    for (tso, gro) in [(true, false), (false, false), (false, true)] {
        carry(plan, tso, gro);
    }
}
