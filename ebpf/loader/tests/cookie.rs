//! A SYN cookie that this node gave keeps its connection here, though the stack has nothing of it but the listener.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod apart;
mod packets;
mod world;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use apart::apart;
use packets::*;
use postern_ebpf_abi::verdict::Verdict;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use world::*;

/// Number of our SYN.
const BEGIN: u32 = 7_000;

/// Sends a SYN that no socket stands behind; the number that the listener answers with.
fn number_of_answer(client: SocketAddr, vip: SocketAddr) -> u32 {
    let domain = Domain::for_address(client);
    let raw = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).unwrap();
    raw.bind(&SockAddr::from(SocketAddr::new(client.ip(), 0)))
        .unwrap();
    raw.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let syn = tcp(client, vip, SYN, [BEGIN, 0], b"");
    raw.send_to(&syn, &SockAddr::from(SocketAddr::new(vip.ip(), 0)))
        .unwrap();
    loop {
        let mut buffer = Vec::with_capacity(256);
        let bytes = raw
            .recv(buffer.spare_capacity_mut())
            .expect("an answer to the SYN");
        // SAFETY: the kernel wrote as many bytes as it says.
        unsafe { buffer.set_len(bytes) };
        // With IPv4 a raw socket gets the IP header, too.
        let answer = &buffer[if client.is_ipv4() { 20 } else { 0 }..];
        let to = u16::from_be_bytes([answer[2], answer[3]]);
        if to == client.port() && answer[13] & (SYN | ACK) == SYN | ACK {
            return u32::from_be_bytes(answer[4..8].try_into().unwrap());
        }
    }
}

fn check(client: &str, vip: &str) {
    let (client, listener) = (at(client), TcpListener::bind(vip).unwrap());
    let vip = listener.local_addr().unwrap();
    let mut world = World::serving(&[vip]);
    world.give(SELF, OTHER);
    let cookie = number_of_answer(client, vip);
    let numbers = |acknowledged: u32| {
        let ack = tcp(client, vip, ACK, [BEGIN + 1, acknowledged], b"");
        packet(client.ip(), vip.ip(), TCP, &ack)
    };
    let good = numbers(cookie.wrapping_add(1));
    let forged = numbers(cookie.wrapping_add(0x0100_0001));
    world.steer("a cookie", &arriving(&good), Verdict::LocalCookie);
    world.steer("a forged cookie", &arriving(&forged), Verdict::ToSecond);
    let hash = flow_hash(client, vip, TCP);
    let tunnelled = |inner: &[u8]| {
        let chain = chain(0, 1, [OTHER, SELF, NEAR], hash);
        let to = SocketAddr::from((own(place(OTHER)), TUNNEL_PORT));
        arriving(&gue(
            SocketAddr::from((place(OTHER), 50_000)),
            to,
            &chain,
            inner,
        ))
    };
    let taken = world.redirect("a cookie", &tunnelled(&good), Verdict::TakenCookie);
    assert_eq!(taken, arriving(&good));
    world.redirect("a forged cookie", &tunnelled(&forged), Verdict::PassedOn);
}

#[test]
fn a_cookie_that_was_given_here_is_recognised() {
    apart(|| {
        // 2: every SYN is answered with a cookie. The setting is the namespace's own.
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").unwrap();
        check("127.0.0.5:40000", "127.0.0.77:0");
        check("[::1]:40001", "[::1]:0");
    });
}
