//! `account`: packets and bytes of every TCP connection of a control group, both directions.
//!
//! Two programs see each packet once, where the socket does: `account_in` after the look-up of the
//! socket, before TCP takes it; `account_out` before segmentation, fragmentation and the queue. So
//! loopback, GRO, GSO and any number of interfaces make no difference. The third, `account_life`,
//! hears from the sockets: nothing enters the map before a handshake is complete (a flood of SYNs
//! does not fill it), and a socket that closes says what it has received.

mod packet;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
    BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, BPF_TCP_CLOSE_WAIT,
    BPF_TCP_CLOSING, BPF_TCP_ESTABLISHED, BPF_TCP_FIN_WAIT1, BPF_TCP_FIN_WAIT2, BPF_TCP_LAST_ACK,
    bpf_tcp_sock as TcpSock,
};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_sk_fullsock, bpf_tcp_sock};
use aya_ebpf::macros::{cgroup_skb, map, sock_ops};
use aya_ebpf::maps::{HashMap, PerCpuArray, RingBuf};
use aya_ebpf::programs::{SkBuffContext, SockOpsContext};
use postern_ebpf_abi::account::{
    FlowKey, FlowRecord, REPLACED_BYTES, Replaced, Sums, ahead, ports,
};
use postern_ebpf_abi::flow::Address;

use crate::atomic::add;
use packet::Packet;

/// Its size is the loader's to say.
#[map]
static ACCOUNT_FLOWS: HashMap<FlowKey, FlowRecord> = HashMap::with_max_entries(1024, 0);

/// Closed flows that had to make room for a new one between the same addresses and ports.
#[map]
static ACCOUNT_REPLACED: RingBuf = RingBuf::with_byte_size(REPLACED_BYTES, 0);

/// One entry.
#[map]
static ACCOUNT_SUMS: PerCpuArray<Sums> = PerCpuArray::with_max_entries(1, 0);

/// What a program for control groups answers to let a packet go on.
const GO_ON: i32 = 1;

/// Every state of a socket that has a peer.
const CONNECTED: u32 = 1 << BPF_TCP_ESTABLISHED
    | 1 << BPF_TCP_FIN_WAIT1
    | 1 << BPF_TCP_FIN_WAIT2
    | 1 << BPF_TCP_CLOSE_WAIT
    | 1 << BPF_TCP_CLOSING
    | 1 << BPF_TCP_LAST_ACK;

/// Packets towards the sockets of the group.
#[cgroup_skb(ingress)]
pub fn account_in(ctx: SkBuffContext) -> i32 {
    match Packet::read(&ctx, true) {
        Some(packet) if !packet.begins() => count_in(&ctx, &packet),
        _ => apart(ctx.len()),
    }
    GO_ON
}

/// Packets from the sockets of the group.
#[cgroup_skb(egress)]
pub fn account_out(ctx: SkBuffContext) -> i32 {
    match Packet::read(&ctx, false) {
        Some(packet) if !packet.begins() => count_out(&ctx, &packet),
        _ => apart(ctx.len()),
    }
    GO_ON
}

/// What sockets of the group say of themselves.
#[sock_ops]
pub fn account_life(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => begin(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => end(&ctx),
        _ => {}
    }
    1
}

/// Several cores may have packets of one flow at once: the counters change atomically.
#[inline(always)]
fn count_in(ctx: &SkBuffContext, packet: &Packet) {
    let Some(flow) = flow_of(ctx, packet, true) else {
        return;
    };
    // SAFETY: an entry of the map; removed entries stay memory of the map, and the reader removes
    // none that had a packet of late.
    unsafe {
        add(
            &raw mut (*flow).incoming.packets,
            u64::from(packet.segments),
        );
        add(&raw mut (*flow).incoming.wire_bytes, packet.wire_bytes());
        if packet.payload > 0 {
            add(
                &raw mut (*flow).incoming.carried_bytes,
                u64::from(packet.payload),
            );
        }
        if packet.fin() {
            let end = packet.end().wrapping_add(1);
            // An old FIN that comes again ends nothing.
            if socket_of(ctx).is_none_or(|socket| ahead(end, (*socket).rcv_nxt) > 0) {
                (*flow).incoming_end = end;
                (*flow).fin_in = 1;
            }
        }
        if packet.rst() {
            (*flow).reset = 1;
        }
        saw(flow);
    }
}

/// A socket sends under its lock: what it sends and acknowledges has one writer at a time.
#[inline(always)]
fn count_out(ctx: &SkBuffContext, packet: &Packet) {
    let Some(flow) = flow_of(ctx, packet, false) else {
        return;
    };
    // SAFETY: as in `count_in`.
    unsafe {
        let flow = &mut *flow;
        flow.outgoing.packets += u64::from(packet.segments);
        flow.outgoing.wire_bytes += packet.wire_bytes();
        flow.outgoing.carried_bytes += u64::from(packet.payload);
        // A packet without payload may be numbered after the FIN, which is no payload either.
        if packet.payload > 0 {
            let sent = ahead(packet.end(), flow.outgoing_next);
            flow.outgoing.advanced += u64::from(sent);
            flow.outgoing_next = flow.outgoing_next.wrapping_add(sent);
        }
        if packet.fin() {
            flow.fin_out = 1;
        }
        if packet.rst() {
            // Its acknowledgement may be made up from what it answers.
            flow.reset = 1;
        } else {
            advance_incoming(flow, packet.acknowledged);
        }
        saw(flow);
    }
}

/// Notes that the flow lives. The clock moves once a tick, and the count of ticks is one load.
///
/// # Safety
/// `flow` is an entry of the map.
#[inline(always)]
unsafe fn saw(flow: *mut FlowRecord) {
    // SAFETY: as the caller promises; the helpers have no preconditions.
    unsafe {
        let tick = bpf_jiffies64() as u32;
        if (*flow).last_tick != tick {
            (*flow).last_tick = tick;
            (*flow).last_ns = bpf_ktime_get_coarse_ns();
        }
    }
}

#[inline(always)]
fn advance_incoming(flow: &mut FlowRecord, next: u32) {
    let received = ahead(next, flow.incoming_next);
    flow.incoming.advanced += u64::from(received);
    flow.incoming_next = flow.incoming_next.wrapping_add(received);
}

/// The flow that a packet belongs to. A connected socket that has none is adopted: it is older than
/// the accounting, was drained as idle, or there was no room before. None: counted elsewhere.
#[inline(always)]
fn flow_of(ctx: &SkBuffContext, packet: &Packet, incoming: bool) -> Option<*mut FlowRecord> {
    if let Some(flow) = ACCOUNT_FLOWS.get_ptr_mut(&packet.key) {
        // SAFETY: as in `count_in`. A closed socket may still send its reset; what else has its
        // addresses and ports is a successor's handshake.
        if unsafe { (*flow).closed } == 0 || packet.rst() {
            return Some(flow);
        }
    }
    let Some(socket) = socket_of(ctx) else {
        apart(ctx.len());
        return None;
    };
    // SAFETY: the kernel lends a socket for the length of the program.
    let (received_next, sent_next) = unsafe { ((*socket).rcv_nxt, (*socket).snd_nxt) };
    // SAFETY: has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    let flow = FlowRecord {
        first_ns: now_ns,
        last_ns: now_ns,
        incoming_next: received_next,
        outgoing_next: sent_next,
        adopted: 1,
        ..FlowRecord::default()
    };
    // When another core was first, its entry is as good.
    let _ = ACCOUNT_FLOWS.insert(&packet.key, &flow, u64::from(BPF_NOEXIST));
    let flow = ACCOUNT_FLOWS.get_ptr_mut(&packet.key);
    if flow.is_none() {
        let next = if incoming { received_next } else { sent_next };
        lose(packet, next, incoming);
    }
    flow
}

/// The connected TCP socket that a packet is from or for.
#[inline(always)]
fn socket_of(ctx: &SkBuffContext) -> Option<*const TcpSock> {
    // SAFETY: the kernel hands the program a valid packet, and null for a socket that it has not;
    // each helper takes what the one before gave, and gives null for what it is not.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let socket = bpf_sk_fullsock(socket);
        if socket.is_null() || 1u32.checked_shl((*socket).state)? & CONNECTED == 0 {
            return None;
        }
        let socket = bpf_tcp_sock(socket);
        (!socket.is_null()).then_some(socket.cast_const())
    }
}

/// A connection is established: its flow begins, with the packet that established it.
#[inline(always)]
fn begin(ctx: &SockOpsContext) {
    let Some(key) = key_of(ctx) else {
        return;
    };
    // SAFETY: the context is the program's for its length, and these fields are plain numbers.
    let (received_next, sent_next, segment_bytes) =
        unsafe { ((*ctx.ops).rcv_nxt, (*ctx.ops).snd_nxt, (*ctx.ops).skb_len) };
    // SAFETY: has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    let mut flow = FlowRecord {
        first_ns: now_ns,
        last_ns: now_ns,
        incoming_next: received_next,
        outgoing_next: sent_next,
        ..FlowRecord::default()
    };
    let established_by = packet::bytes_on_wire(&key, segment_bytes);
    flow.incoming.packets = 1;
    flow.incoming.wire_bytes = established_by;
    flow.incoming.carried_bytes = u64::from(packet::payload_of(ctx, segment_bytes));
    make_room(&key);
    let entered = ACCOUNT_FLOWS.insert(&key, &flow, u64::from(BPF_ANY));
    if let Some(sums) = ACCOUNT_SUMS.get_ptr_mut(0) {
        // SAFETY: an entry of the map, aligned, as long as the map lives.
        unsafe {
            // It was taken for a packet of nobody when it came in.
            add(&raw mut (*sums).apart.packets, 0u64.wrapping_sub(1));
            add(
                &raw mut (*sums).apart.wire_bytes,
                0u64.wrapping_sub(established_by),
            );
            if entered.is_err() {
                add(&raw mut (*sums).lost.flows, 1);
                add(&raw mut (*sums).lost.packets, 1);
                add(&raw mut (*sums).lost.wire_bytes, established_by);
                add(
                    &raw mut (*sums).lost.payload_in,
                    flow.incoming.carried_bytes,
                );
            }
        }
    }
    // Without the flag nobody hears of the end, and the flow is drained when both sides have said
    // that they are done, or when it is idle.
    let _ = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
}

/// Moves the flow that had these addresses and ports before to the ring, or counts its loss.
#[inline(always)]
fn make_room(key: &FlowKey) {
    let Some(old) = ACCOUNT_FLOWS.get_ptr(key) else {
        return;
    };
    // SAFETY: an entry of the map; its socket is closed, hence nobody changes it any more.
    let record = unsafe { *old };
    let replaced = Replaced {
        record,
        key: *key,
        reserved: 0,
    };
    if ACCOUNT_REPLACED.output::<Replaced>(&replaced, 0).is_ok() {
        return;
    }
    if let Some(sums) = ACCOUNT_SUMS.get_ptr_mut(0) {
        // SAFETY: an entry of the map, aligned, as long as the map lives.
        unsafe {
            let lost = &raw mut (*sums).lost;
            add(&raw mut (*lost).replaced, 1);
            add(
                &raw mut (*lost).packets,
                record.incoming.packets + record.outgoing.packets,
            );
            add(
                &raw mut (*lost).wire_bytes,
                record.incoming.wire_bytes + record.outgoing.wire_bytes,
            );
            add(&raw mut (*lost).payload_in, record.payload_in());
            add(&raw mut (*lost).payload_out, record.payload_out());
        }
    }
}

/// A socket has closed: what it has received is final.
#[inline(always)]
fn end(ctx: &SockOpsContext) {
    let Some(key) = key_of(ctx) else {
        return;
    };
    let Some(flow) = ACCOUNT_FLOWS.get_ptr_mut(&key) else {
        return;
    };
    // SAFETY: as in `count_in`; the socket says this under its lock.
    unsafe {
        advance_incoming(&mut *flow, (*ctx.ops).rcv_nxt);
        (*flow).closed = 1;
        (*flow).last_ns = bpf_ktime_get_coarse_ns();
    }
}

/// The key of the socket that speaks.
#[inline(always)]
fn key_of(ctx: &SockOpsContext) -> Option<FlowKey> {
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    // SAFETY: the context is the program's for its length. Volatile, and before the families part:
    // the compiler would join the branches and compute the field's address, which the kernel's
    // verifier refuses.
    let (v4, v6) = unsafe {
        (
            [
                (&raw const (*ctx.ops).local_ip4).read_volatile(),
                (&raw const (*ctx.ops).remote_ip4).read_volatile(),
            ],
            [
                words(&raw const (*ctx.ops).local_ip6),
                words(&raw const (*ctx.ops).remote_ip6),
            ],
        )
    };
    let [local, remote] = match ctx.family() {
        AF_INET => v4.map(Address::from_v4),
        AF_INET6 => v6.map(packet::joined),
        _ => return None,
    };
    Some(FlowKey {
        local,
        remote,
        // The one comes in host byte order, the other as a big-endian word.
        ports: ports(
            (ctx.local_port() as u16).to_be(),
            (u32::from_be(ctx.remote_port()) as u16).to_be(),
        ),
    })
}

/// Four words of the context, each read by itself.
///
/// # Safety
/// They are of the context.
#[inline(always)]
unsafe fn words(of: *const [u32; 4]) -> [u32; 4] {
    let first = of.cast::<u32>();
    // SAFETY: as the caller promises; there are four.
    unsafe {
        [
            first.read_volatile(),
            first.add(1).read_volatile(),
            first.add(2).read_volatile(),
            first.add(3).read_volatile(),
        ]
    }
}

/// A packet that belongs to no connection.
#[inline(always)]
fn apart(bytes: u32) {
    if let Some(sums) = ACCOUNT_SUMS.get_ptr_mut(0) {
        // SAFETY: an entry of the map, aligned, as long as the map lives.
        unsafe {
            add(&raw mut (*sums).apart.packets, 1);
            add(&raw mut (*sums).apart.wire_bytes, u64::from(bytes));
        }
    }
}

/// A packet of a connection that has no place in the map. `next` is what its socket expects to
/// receive or to send next: what is not after it was counted before.
#[inline(always)]
fn lose(packet: &Packet, next: u32, incoming: bool) {
    let Some(sums) = ACCOUNT_SUMS.get_ptr_mut(0) else {
        return;
    };
    let fresh = u64::from(ahead(packet.end(), next).min(packet.payload));
    // SAFETY: an entry of the map, aligned, as long as the map lives.
    unsafe {
        let lost = &raw mut (*sums).lost;
        add(&raw mut (*lost).packets, u64::from(packet.segments));
        add(&raw mut (*lost).wire_bytes, packet.wire_bytes());
        if incoming {
            add(&raw mut (*lost).payload_in, fresh);
        } else {
            add(&raw mut (*lost).payload_out, fresh);
        }
    }
}
