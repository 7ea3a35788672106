//! Opening and sealing take no memory from the system once the pool is warm.
#![allow(clippy::unwrap_used)]

mod peers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use postern_relay::memory::{Pool, Queue};
use postern_relay::record::{Opened, Records};
use rustls::CipherSuite;

const RECORDS: usize = 10_000;

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
