//! Whether a flow is this node's: connections that begin are, and those that its stack knows.

use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::{bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie};
use aya_ebpf::programs::XdpContext;
use postern_ebpf_abi::flow::Flow;

use crate::ip::{IPV4_BYTES, IPV6_BYTES};
use crate::memory;
use crate::packet::{ETHERNET_BYTES, Window};
use crate::traffic::{Kind, TCP_BYTES, Traffic};

/// `TCP_LISTEN` of the kernel's states.
const LISTEN: u32 = 10;

/// Whose a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Ours: a connection begins.
    Syn,
    /// Ours: this node remembers the UDP flow.
    Remembered,
    /// Ours: the stack has the connection.
    Socket,
    /// Ours: it completes a handshake that we answered with a SYN cookie.
    Cookie,
    /// Perhaps another node's.
    Unknown,
}

/// Whose `traffic` is, whose flow has this hash; the packet is that of `context`.
#[inline(always)]
pub fn of(context: &XdpContext, traffic: &Traffic, hash: u64) -> Turn {
    match traffic.kind {
        Kind::Syn => Turn::Syn,
        Kind::Segment | Kind::Error => look_up(context, traffic),
        Kind::Datagram | Kind::DatagramError => {
            if memory::knows(hash, traffic.kind == Kind::Datagram) {
                Turn::Remembered
            } else {
                Turn::Unknown
            }
        }
    }
}

/// Asks the stack. The socket that it gives is given back on every way.
#[inline(always)]
fn look_up(context: &XdpContext, traffic: &Traffic) -> Turn {
    let socket = socket(context, &traffic.flow);
    if socket.is_null() {
        return Turn::Unknown;
    }
    // SAFETY: the verifier lets a program read the state of a socket that it was given.
    let listens = unsafe { (*socket).state } == LISTEN;
    let turn = if !listens {
        Turn::Socket
    } else if traffic.kind == Kind::Segment && has_cookie(context, socket, &traffic.flow) {
        Turn::Cookie
    } else {
        Turn::Unknown
    };
    // SAFETY: the socket was given to us, is not null, and is not used after this.
    unsafe { bpf_sk_release(socket.cast()) };
    turn
}

/// The socket of a flow: its connection, or else who listens for it, or null.
#[inline(always)]
fn socket(context: &XdpContext, flow: &Flow) -> *mut bpf_sock {
    // SAFETY: the tuple is made of integers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let (source_port, destination_port) = (flow.source_port.to_be(), flow.destination_port.to_be());
    let bytes = match (flow.source.v4(), flow.destination.v4()) {
        (Some(source), Some(destination)) => {
            // SAFETY: the union's members are integers; this one is written as a whole.
            let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
            v4.saddr = source;
            v4.daddr = destination;
            v4.sport = source_port;
            v4.dport = destination_port;
            size_of_val(v4)
        }
        _ => {
            // SAFETY: the same for this one.
            let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
            v6.saddr = words(flow.source.first, flow.source.second);
            v6.daddr = words(flow.destination.first, flow.destination.second);
            v6.sport = source_port;
            v6.dport = destination_port;
            size_of_val(v6)
        }
    };
    // SAFETY: the tuple is initialised and as long as is said; the context is the program's own.
    unsafe {
        bpf_skc_lookup_tcp(
            context.ctx.cast(),
            &raw mut tuple,
            bytes as u32,
            BPF_F_CURRENT_NETNS as u64,
            0,
        )
    }
}

#[inline(always)]
fn words(first: u64, second: u64) -> [u32; 4] {
    [
        first as u32,
        (first >> 32) as u32,
        second as u32,
        (second >> 32) as u32,
    ]
}

/// True where the segment acknowledges a SYN cookie of `listener`.
#[inline(always)]
fn has_cookie(context: &XdpContext, listener: *mut bpf_sock, flow: &Flow) -> bool {
    if flow.destination.v4().is_some() {
        check_cookie::<IPV4_BYTES>(context, listener)
    } else {
        check_cookie::<IPV6_BYTES>(context, listener)
    }
}

#[inline(always)]
fn check_cookie<const IP_BYTES: usize>(context: &XdpContext, listener: *mut bpf_sock) -> bool {
    let (Some(ip), Some(tcp)) = (
        Window::<IP_BYTES>::at(context, ETHERNET_BYTES),
        Window::<TCP_BYTES>::at(context, ETHERNET_BYTES + IP_BYTES),
    ) else {
        return false;
    };
    // SAFETY: both windows are within the packet, and the listener was not given back yet.
    let answer = unsafe {
        bpf_tcp_check_syncookie(
            listener.cast(),
            ip.pointer(),
            IP_BYTES as u32,
            tcp.pointer(),
            TCP_BYTES as u32,
        )
    };
    answer == 0
}
