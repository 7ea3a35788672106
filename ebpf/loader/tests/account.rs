//! `account` on real connections over loopback: the kernel's bytes are the applications' bytes.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

#[path = "account/group.rs"]
mod group;
#[path = "account/session.rs"]
mod session;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use postern_ebpf::{Account, Ending, Patience};
use postern_ebpf_abi::account::Direction;

use group::Group;
use session::{End, Plan, Session};

/// Sessions of the reconciliation, and how many of them run at a time.
const SESSIONS: u32 = 1000;
const AT_ONCE: usize = 16;

const PROMPT: Patience = Patience {
    over: Duration::from_millis(50),
    idle: Duration::from_secs(3600),
};

/// IPv4 and TCP with timestamps; what more options cost is shown by hand where it matters.
const HEADERS: u64 = 20 + 32;

/// Drains until `count` flows are out.
fn drain(group: &mut Group, patience: Patience, count: usize) -> Vec<Account> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut accounts = Vec::new();
    while accounts.len() < count {
        let drained = group.accounts.drain(patience, 100).unwrap();
        if drained.accounts.is_empty() {
            assert!(
                Instant::now() < deadline,
                "{} of {count} flows came, {} are in the map",
                accounts.len(),
                group.accounts.len().unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        accounts.extend(drained.accounts);
    }
    accounts
}

/// The account of one end.
fn of(accounts: &[Account], local: SocketAddr, remote: SocketAddr) -> Account {
    let found = accounts
        .iter()
        .find(|account| account.local == local && account.remote == remote);
    *found.unwrap_or_else(|| panic!("no account of {local} with {remote}"))
}

/// Both ends say what the applications wrote.
fn reconcile(accounts: &[Account], sessions: &[Session]) {
    let mut written: HashMap<_, [u64; 2]> = HashMap::new();
    // A client's port may be used twice in a test: then both sessions are looked at together.
    for session in sessions {
        let sums = written.entry((session.client, session.server)).or_default();
        sums[0] += session.written_up;
        sums[1] += session.written_down;
    }
    let seen = |local, remote, bytes: fn(&Account) -> u64| -> u64 {
        let of_end = |one: &&Account| one.local == local && one.remote == remote;
        accounts.iter().filter(of_end).map(bytes).sum()
    };
    for ((client, server), [up, down]) in written {
        let seen = [
            seen(client, server, |one| one.record.payload_out()),
            seen(server, client, |one| one.record.payload_in()),
            seen(server, client, |one| one.record.payload_out()),
            seen(client, server, |one| one.record.payload_in()),
        ];
        assert_eq!(seen, [up, up, down, down], "{client} with {server}");
    }
}

fn run_all(group: &Group, plans: impl Iterator<Item = Plan>) -> Vec<Session> {
    let plans: Vec<Plan> = plans.collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let sessions = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(plan) = plans.get(number) else {
                        return;
                    };
                    let session = session::run(&group.listener, *plan);
                    sessions.lock().unwrap().push(session);
                }
            });
        }
    });
    sessions.into_inner().unwrap()
}

/// Sizes from nothing to a megabyte, every kind of end, a twentieth with losses, a few segments
/// of odd sizes.
fn mixed(number: u32) -> Plan {
    let size = |salt: u32| {
        let random = (number + 1).wrapping_mul(0x9e37_79b9).rotate_left(salt) ^ salt;
        let bits = random % 21;
        u64::from(random >> 5) & ((1 << bits) - 1)
    };
    let end = End::ALL[number as usize % End::ALL.len()];
    Plan {
        up: size(3),
        down: size(17),
        end,
        // Its random losses and the test's patience do not go together with huge sizes.
        lossy: number % 20 == 7,
        segment_max: [None, None, Some(536), Some(1200)][(number / 7) as usize % 4],
        ..Plan::default()
    }
}

#[test]
fn over_a_thousand_sessions_the_kernels_bytes_are_the_applications() {
    let mut group = Group::new("127.0.0.1:0", 4096);
    let sessions = run_all(&group, (0..SESSIONS).map(mixed));
    let accounts = drain(&mut group, PROMPT, 2 * sessions.len());
    let mut ends = HashMap::new();
    reconcile(&accounts, &sessions);
    for session in &sessions {
        *ends.entry(session.plan.end).or_insert(0) += 1;
    }
    let sum = |of: fn(&Account) -> u64| accounts.iter().map(of).sum::<u64>();
    println!(
        "{SESSIONS} sessions {ends:?}: payload in {}, out {}; carried again {} received, {} sent",
        sum(|account| account.record.payload_in()),
        sum(|account| account.record.payload_out()),
        sum(|account| account.record.repeated_in()),
        sum(|account| account.record.repeated_out()),
    );
    assert!(
        sum(|account| account.record.repeated_out()) > 0,
        "nothing was lost"
    );
    assert_eq!(group.accounts.lost().unwrap(), Default::default());
    assert!(group.accounts.is_empty().unwrap());
    assert!(accounts.iter().all(|account| account.record.closed == 1
        && account.record.adopted == 0
        && account.record.first_ns <= account.record.last_ns));
}

#[test]
fn what_is_on_the_wire_beside_payload_is_headers_and_nothing_else() {
    for segment_max in [None, Some(1200)] {
        let mut group = Group::new("127.0.0.1:0", 64);
        let plan = Plan {
            up: 3_000_000,
            down: 1000,
            segment_max,
            ..Plan::default()
        };
        let session = session::run(&group.listener, plan);
        let accounts = drain(&mut group, PROMPT, 2);
        reconcile(&accounts, std::slice::from_ref(&session));
        let client = of(&accounts, session.client, session.server).record;
        let server = of(&accounts, session.server, session.client).record;
        let beside = |direction: Direction| {
            direction.wire_bytes - direction.carried_bytes - HEADERS * direction.packets
        };
        // What is received in order is acknowledged without more options.
        assert_eq!(beside(client.outgoing), 0, "{client:?}");
        assert_eq!(beside(server.incoming), 0, "{server:?}");
        // Two cores may take packets in another order: then acknowledgements carry options of SACK.
        assert_eq!(beside(server.outgoing) % 4, 0, "{server:?}");
        // Nothing is lost on this way, so both ends see the same, but for the SYN-ACK: the server
        // is not established yet when it sends it, and it has 8 bytes of options more.
        assert_eq!(client.outgoing.packets, server.incoming.packets);
        assert_eq!(client.outgoing.wire_bytes, server.incoming.wire_bytes);
        assert_eq!(client.incoming.packets, server.outgoing.packets + 1);
        assert_eq!(
            client.incoming.wire_bytes,
            server.outgoing.wire_bytes + HEADERS + 8
        );
        if let Some(segment_max) = segment_max {
            // What travels as one is counted as the segments that the wire would see.
            let segments = plan.up.div_ceil(segment_max.into());
            assert!(server.incoming.packets >= segments, "{server:?}");
        }
    }
}

#[test]
fn version_6_and_sockets_of_both_families_are_accounted() {
    for (listen, connect) in [("[::1]:0", None), ("[::]:0", Some("127.0.0.1"))] {
        let mut group = Group::new(listen, 64);
        let plan = Plan {
            up: 10_000,
            down: 20_000,
            connect: connect.map(|address| address.parse().unwrap()),
            ..Plan::default()
        };
        let session = session::run(&group.listener, plan);
        let accounts = drain(&mut group, PROMPT, 2);
        reconcile(&accounts, std::slice::from_ref(&session));
    }
}

#[test]
fn a_full_map_tells_how_much_is_missing() {
    let mut group = Group::new("127.0.0.1:0", 10);
    let plan = |number: u32| Plan {
        up: 1000 * u64::from(number),
        down: 50_000 + u64::from(number),
        end: if number.is_multiple_of(3) {
            End::ClientResets
        } else {
            End::HalfClose
        },
        ..Plan::default()
    };
    let sessions = run_all(&group, (0..40).map(plan));
    let lost = group.accounts.lost().unwrap();
    let accounts = drain(&mut group, PROMPT, 10);
    assert_eq!(accounts.len(), 10);
    assert!(group.accounts.is_empty().unwrap());
    let all = |bytes: fn(&Session) -> u64| sessions.iter().map(bytes).sum::<u64>();
    let written = all(|session| session.written_up + session.written_down);
    let kept = |bytes: fn(&Account) -> u64| accounts.iter().map(bytes).sum::<u64>();
    println!("of {written} bytes each way: {lost:?}");
    assert_eq!(lost.flows, 2 * 40 - 10);
    // Every byte has a sender and a receiver.
    assert_eq!(
        kept(|account| account.record.payload_in()) + lost.payload_in,
        written
    );
    assert_eq!(
        kept(|account| account.record.payload_out()) + lost.payload_out,
        written
    );
    // Room again: nothing more is lost.
    let session = session::run(&group.listener, plan(1));
    reconcile(&drain(&mut group, PROMPT, 2), &[session]);
    assert_eq!(group.accounts.lost().unwrap(), lost);
}

#[test]
fn a_connection_that_is_older_than_the_accounting_is_adopted() {
    let mut group = Group::new("127.0.0.1:0", 64);
    let mut pair = session::Pair::connect(&group.listener, &Plan::default());
    pair.exchange(1000, 1000);
    group.attach_anew(64);
    pair.exchange(70_000, 30);
    let (client, server) = (pair.client_address(), pair.server_address());
    drop(pair);
    let accounts = drain(&mut group, PROMPT, 2);
    for (account, sent, received) in [
        (of(&accounts, client, server), 70_000, 30),
        (of(&accounts, server, client), 30, 70_000),
    ] {
        assert_eq!(account.record.adopted, 1);
        assert_eq!(account.record.payload_out(), sent);
        assert_eq!(account.record.payload_in(), received);
        assert_eq!(account.ending, Some(Ending::Over));
    }
}

#[test]
fn an_idle_connection_is_drained_and_begins_anew_without_a_loss() {
    let mut group = Group::new("127.0.0.1:0", 64);
    let mut pair = session::Pair::connect(&group.listener, &Plan::default());
    let (client, server) = (pair.client_address(), pair.server_address());
    pair.exchange(1000, 2000);
    let idle = Patience {
        over: Duration::ZERO,
        idle: Duration::from_millis(200),
    };
    let first = drain(&mut group, idle, 2);
    assert!(
        first
            .iter()
            .all(|account| account.ending == Some(Ending::Idle))
    );
    assert!(group.accounts.is_empty().unwrap());
    pair.exchange(30, 40);
    drop(pair);
    let second = drain(&mut group, PROMPT, 2);
    for (local, remote, sent, received) in [
        (client, server, [1000, 30], [2000, 40]),
        (server, client, [2000, 40], [1000, 30]),
    ] {
        for (number, accounts) in [&first, &second].into_iter().enumerate() {
            let record = of(accounts, local, remote).record;
            assert_eq!(record.payload_out(), sent[number]);
            assert_eq!(record.payload_in(), received[number]);
            assert_eq!(usize::from(record.adopted), number);
        }
    }
    assert_eq!(group.accounts.lost().unwrap(), Default::default());
}

#[test]
fn addresses_and_ports_that_are_used_again_are_another_flow() {
    let mut group = Group::new("127.0.0.1:0", 64);
    let mut plan = Plan {
        end: End::ClientResets,
        // An address of its own: no other test's connections keep its ports.
        from: Some("127.0.0.2:0".parse().unwrap()),
        ..Plan::default()
    };
    let mut clients = Vec::new();
    for number in 1..=3u64 {
        plan.up = 100 * number;
        plan.down = 10 * number;
        let session = session::run(&group.listener, plan);
        clients.push(session.client);
        plan.from = Some(session.client);
    }
    assert!(clients.iter().all(|client| *client == clients[0]));
    let accounts = drain(&mut group, PROMPT, 6);
    let count = |ending| {
        let with = |account: &&Account| account.ending == Some(ending);
        accounts.iter().filter(with).count()
    };
    assert_eq!((count(Ending::Replaced), count(Ending::Over)), (4, 2));
    let sent: u64 = accounts.iter().map(|one| one.record.payload_out()).sum();
    let heads = 3 * session::HEAD_BYTES as u64;
    assert_eq!(sent, 600 + 60 + heads + 3 * session::GOODBYE_BYTES as u64);
}

#[test]
fn a_flow_that_lives_is_found_by_its_addresses_and_stays() {
    let mut group = Group::new("127.0.0.1:0", 64);
    let mut pair = session::Pair::connect(&group.listener, &Plan::default());
    pair.exchange(500, 600);
    let (client, server) = (pair.client_address(), pair.server_address());
    let account = group.accounts.find(server, client).unwrap().unwrap();
    assert_eq!(account.record.payload_in(), 500);
    assert_eq!(account.record.payload_out(), 600);
    assert_eq!(account.ending, None);
    let drained = group.accounts.drain(PROMPT, 100).unwrap();
    assert_eq!(drained.accounts, []);
    assert!(!drained.more);
}

#[test]
fn a_drain_takes_no_more_than_it_is_asked_to() {
    let mut group = Group::new("127.0.0.1:0", 64);
    run_all(&group, (0..20).map(|_| Plan::default()));
    std::thread::sleep(PROMPT.over * 3);
    let first = group.accounts.drain(PROMPT, 10).unwrap();
    assert_eq!((first.accounts.len(), first.more), (10, true));
    let rest = group.accounts.drain(PROMPT, 100).unwrap();
    assert_eq!((rest.accounts.len(), rest.more), (30, false));
}

#[test]
fn a_handshake_that_is_refused_takes_no_place() {
    let group = Group::new("127.0.0.1:0", 64);
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let before = group.accounts.apart().unwrap();
    for _ in 0..50 {
        std::net::TcpStream::connect(nobody).unwrap_err();
    }
    assert!(group.accounts.is_empty().unwrap());
    assert_eq!(group.accounts.lost().unwrap(), Default::default());
    // The SYN goes out, the reset comes in; who sends the reset is the kernel, in no group.
    let after = group.accounts.apart().unwrap();
    assert!(
        after.packets >= before.packets + 100,
        "{before:?} {after:?}"
    );
}

#[test]
fn detached_nothing_is_counted() {
    let mut group = Group::new("127.0.0.1:0", 64);
    let mut pair = session::Pair::connect(&group.listener, &Plan::default());
    group.detach();
    pair.exchange(10, 10);
    assert!(group.programs().is_empty(), "{:?}", group.programs());
}
