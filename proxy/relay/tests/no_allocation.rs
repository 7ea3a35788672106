//! Records and flows take no memory from the system once the pool is warm.
#![allow(clippy::unwrap_used)]

mod peers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use postern_relay::flow::{Framing, Goodbye, Leg, Line, Times};
use postern_relay::memory::{Pool, Queue};
use postern_relay::record::{Opened, Records};
use postern_relay::{Context, Flow, Moment, Tally};
use postern_wire::websocket::{Decoder, DecoderLimits, Opcode, TextPolicy, client_frame};
use rustls::CipherSuite;

const RECORDS: usize = 10_000;

const BATCHES: usize = 10_000;

/// The system's allocator; it counts what a thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches a cell of
// the thread that needs neither memory nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout, as all memory here does.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as for `dealloc`; the caller answers for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Seals a record at one side and opens it at the other.
fn pass(from: &mut Records, to: &mut Records, payload: &[u8], queue: &mut Queue, pool: &mut Pool) {
    let mut writer = from.writer(queue, pool).unwrap();
    writer.push(payload).unwrap();
    writer.finish().unwrap();
    let Ok(Opened::Data {
        payload: opened,
        consumed,
    }) = to.open(queue.filled_mut())
    else {
        panic!("it is application data");
    };
    assert!(queue.filled()[opened] == *payload);
    queue.consume(consumed, pool);
    assert!(queue.is_empty());
}

fn check(suite: CipherSuite) {
    let (server, client) = peers::both(suite);
    let mut server = Records::server(server.secrets, server.connection).unwrap();
    let mut tickets = client.leftover;
    let mut client = Records::client(client.secrets, client.connection).unwrap();
    while !tickets.is_empty() {
        let Ok(Opened::Quiet { consumed }) = client.open(&mut tickets) else {
            panic!("a server's tickets say nothing to the application");
        };
        tickets.drain(..consumed);
    }

    let (mut pool, mut queue) = (Pool::new(), Queue::default());
    let payload: Vec<u8> = (0..1400_u16).map(|at| at.to_le_bytes()[0]).collect();
    pass(&mut server, &mut client, &payload, &mut queue, &mut pool);

    let before = ALLOCATIONS.get();
    for length in (1..=payload.len()).cycle().take(RECORDS / 2) {
        let payload = &payload[..length];
        pass(&mut server, &mut client, payload, &mut queue, &mut pool);
        pass(&mut client, &mut server, payload, &mut queue, &mut pool);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "{suite:?}");
}

#[test]
fn ten_thousand_records_are_sealed_and_opened_without_an_allocation() {
    let before = ALLOCATIONS.get();
    for suite in peers::SUITES {
        check(suite);
    }
    assert!(
        ALLOCATIONS.get() > before,
        "handshakes allocate: the counter counts"
    );
}

/// A flow with TLS on both legs and WebSocket on the client's, and the record layers of its peers.
struct Secured {
    flow: Flow,
    peers: [Records; 2],
    pool: Pool,
    tally: Tally,
    /// What the flow itself asked of the allocator.
    allocations: usize,
}

impl Secured {
    fn new(suite: CipherSuite) -> Self {
        let (server, browser) = peers::both(suite);
        let (target, client) = peers::both(suite);
        let decoder = Decoder::new(
            DecoderLimits {
                frame_bytes_max: 1 << 20,
            },
            TextPolicy::Refuse,
        );
        let mut flow = Flow::framed(
            Line::Tls(Box::new(
                Records::server(server.secrets, server.connection).unwrap(),
            )),
            Line::Tls(Box::new(
                Records::client(client.secrets, client.connection).unwrap(),
            )),
            Framing::WebSocket(Box::new(decoder)),
            Times {
                ping_ms: 20_000,
                stall_ms: 120_000,
                ..Times::default()
            },
            |_| Goodbye::NONE,
        );
        assert!(flow.seed(Leg::Target, &client.leftover));
        let mut browser_records = Records::client(browser.secrets, browser.connection).unwrap();
        let mut tickets = browser.leftover;
        while let Ok(Opened::Quiet { consumed }) = browser_records.open(&mut tickets) {
            tickets.drain(..consumed);
        }
        let target_records = Records::server(target.secrets, target.connection).unwrap();
        let mut secured = Self {
            flow,
            peers: [browser_records, target_records],
            pool: Pool::new(),
            tally: Tally::default(),
            allocations: 0,
        };
        secured.event(|flow, cx| flow.begin(cx));
        secured
    }

    fn event(&mut self, happens: impl FnOnce(&mut Flow, &mut Context<'_>)) {
        let mut cx = Context {
            pool: &mut self.pool,
            tally: &mut self.tally,
            now: Moment(1),
        };
        let before = ALLOCATIONS.get();
        happens(&mut self.flow, &mut cx);
        self.allocations += ALLOCATIONS.get() - before;
    }

    /// One peer sends `plain`, which comes in two parts; how many plain bytes the other gets.
    fn pass(&mut self, from: Leg, plain: &[u8], cut: usize) -> usize {
        let (mut pool, mut queue) = (Pool::new(), Queue::default());
        let mut writer = self.peers[from.index()]
            .writer(&mut queue, &mut pool)
            .unwrap();
        writer.push(plain).unwrap();
        writer.finish().unwrap();
        assert!(self.flow.wants_bytes(from));
        let cut = cut % queue.len();
        let (early, late) = queue.filled_mut().split_at_mut(cut);
        for part in [early, late] {
            self.event(|flow, cx| flow.received(from, part, cx));
        }
        let arrived = self.deliver(from.other());
        // What a ping was answered, if there was one.
        self.deliver(from);
        arrived
    }

    fn deliver(&mut self, to: Leg) -> usize {
        let mut sealed = self.flow.outgoing(to).to_vec();
        let (mut at, mut plain) = (0, 0);
        while at < sealed.len() {
            let Ok(Opened::Data { payload, consumed }) =
                self.peers[to.index()].open(&mut sealed[at..])
            else {
                panic!("whole records of application data");
            };
            plain += payload.len();
            at += consumed;
        }
        self.event(|flow, cx| flow.sent(to, sealed.len(), cx));
        plain
    }
}

#[test]
fn ten_thousand_batches_cross_a_secured_flow_both_ways_without_an_allocation() {
    let mut secured = Secured::new(CipherSuite::TLS13_AES_128_GCM_SHA256);
    let payload = vec![7; 40_000];
    secured.pass(
        Leg::Client,
        &client_frame(Opcode::Binary, true, [1; 4], &payload),
        9,
    );
    secured.pass(Leg::Target, &payload, 9);
    assert!(secured.allocations > 0, "the first blocks are the system's");

    secured.allocations = 0;
    for batch in 0..BATCHES {
        let length = match batch % 16 {
            0 => 40_000,
            _ => 1 + batch % 1400,
        };
        let mut up = client_frame(Opcode::Binary, true, [3; 4], &payload[..length]);
        if batch % 8 == 0 {
            up.extend(client_frame(Opcode::Ping, true, [5; 4], b"are you there"));
        }
        assert_eq!(secured.pass(Leg::Client, &up, batch * 7), length);
        assert!(secured.pass(Leg::Target, &payload[..length], batch * 11) > length);
    }
    assert_eq!(secured.allocations, 0);
    assert_eq!(secured.pool.lent(), 0);
}
