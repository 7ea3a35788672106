//! Connections over loopback go to the core that `place` should choose.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use postern_ebpf::{Placement, Publisher, keep_statistics};
use postern_ebpf_abi::place::{DECISIONS, Decision, Rules};
use socket2::{Domain, SockAddr, Socket, Type};

/// Issue: 1,000 connections differ by less than 10 % in sessions.
const CONNECTIONS: u32 = 1000;

/// Connections that a listener keeps waiting.
const BACKLOG: i32 = 2048;

/// Listening sockets of one address, with `place` on them.
struct Group {
    sockets: Vec<Socket>,
    address: SocketAddr,
    placement: Placement,
    publishers: Vec<Publisher>,
    /// Both ends of what was accepted: they live as long as the group.
    clients: Vec<TcpStream>,
    accepted: Vec<Socket>,
}

impl Group {
    fn of(count: u32, rules: impl FnOnce(Rules) -> Rules) -> Self {
        let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut sockets = Vec::new();
        for _ in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&SockAddr::from(address)).unwrap();
            socket.listen(BACKLOG).unwrap();
            socket.set_nonblocking(true).unwrap();
            address = socket.local_addr().unwrap().as_socket().unwrap();
            sockets.push(socket);
        }
        let placement = Placement::attach(&sockets, rules(Rules::of(0)))
            .unwrap_or_else(|error| panic!("{error}: {error:?}"));
        let publishers = (0..count)
            .map(|slot| placement.publisher(slot).unwrap())
            .collect();
        Self {
            sockets,
            address,
            placement,
            publishers,
            clients: Vec::new(),
            accepted: Vec::new(),
        }
    }

    /// Publishes connections and CPU of every core.
    fn publish(&mut self, loads: &[(u32, u32)]) {
        for (publisher, &(connections, cpu_permille)) in self.publishers.iter_mut().zip(loads) {
            publisher.publish(connections, cpu_permille).unwrap();
        }
    }

    fn connect(&mut self, count: u32) {
        let clients = (0..count).map(|_| TcpStream::connect(self.address).unwrap());
        self.clients.extend(clients);
    }

    /// Accepts all that waits; how many on each socket.
    fn accept(&mut self) -> Vec<u32> {
        let mut counts = vec![0; self.sockets.len()];
        for (count, socket) in counts.iter_mut().zip(&self.sockets) {
            while let Ok((connection, _)) = socket.accept() {
                self.accepted.push(connection);
                *count += 1;
            }
        }
        counts
    }

    fn decisions(&self) -> [u64; DECISIONS as usize] {
        self.placement.decisions().unwrap()
    }

    fn count(&self, decision: Decision) -> u64 {
        self.decisions()[decision as usize]
    }
}

/// The difference between most and fewest, by the mean.
fn difference(counts: &[u32]) -> f64 {
    let (most, fewest) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
    let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    f64::from(most - fewest) / mean
}

fn assert_even(what: &str, counts: &[u32]) {
    assert_eq!(counts.iter().sum::<u32>(), CONNECTIONS, "{what}");
    let difference = difference(counts);
    println!("{what}: {counts:?}, {:.1} % apart", difference * 100.0);
    assert!(difference < 0.1, "{what}: {counts:?}");
}

#[test]
fn a_burst_is_spread_evenly_before_any_load_is_refreshed() {
    for cores in [2, 4] {
        let mut group = Group::of(cores, |rules| Rules {
            fresh_ns: 60_000_000_000,
            ..rules
        });
        group.publish(&vec![(0, 0); cores as usize]);
        group.connect(CONNECTIONS);
        let counts = group.accept();
        assert_even(&format!("{cores} cores, one burst"), &counts);
        let decisions = group.decisions();
        assert_eq!(decisions.iter().sum::<u64>(), u64::from(CONNECTIONS));
        assert_eq!(group.count(Decision::Stale), 0);
    }
}

#[test]
fn connections_are_spread_evenly_while_the_cores_publish() {
    for cores in [2, 4] {
        let mut group = Group::of(cores, |rules| rules);
        let mut live = vec![0; cores as usize];
        for _ in 0..CONNECTIONS / 20 {
            let loads: Vec<_> = live.iter().map(|count| (*count, 300)).collect();
            group.publish(&loads);
            group.connect(20);
            for (live, new) in live.iter_mut().zip(group.accept()) {
                *live += new;
            }
        }
        assert_even(&format!("{cores} cores, published often"), &live);
        assert_eq!(group.count(Decision::Least), u64::from(CONNECTIONS));
    }
}

/// Connects from several threads at once: the program runs on all CPUs.
#[test]
fn connections_from_many_threads_at_once_are_spread_evenly() {
    let mut group = Group::of(2, |rules| Rules {
        fresh_ns: 60_000_000_000,
        ..rules
    });
    group.publish(&[(7, 0), (7, 0)]);
    let address = group.address;
    let threads = (0..4).map(|_| {
        std::thread::spawn(move || -> Vec<TcpStream> {
            let connect = |_| TcpStream::connect(address).unwrap();
            (0..CONNECTIONS / 4).map(connect).collect()
        })
    });
    let threads: Vec<_> = threads.collect();
    for thread in threads {
        group.clients.extend(thread.join().unwrap());
    }
    let counts = group.accept();
    assert_even("2 cores, 4 threads", &counts);
}

#[test]
fn a_core_with_less_to_do_is_filled_up_first() {
    let mut group = Group::of(2, |rules| rules);
    group.publish(&[(100, 0), (40, 0)]);
    group.connect(60);
    assert_eq!(group.accept(), [0, 60]);
    group.connect(20);
    assert_eq!(group.accept(), [10, 10]);
}

#[test]
fn a_core_that_says_it_is_busy_is_spared_until_all_are() {
    let mut group = Group::of(2, |rules| rules);
    group.publish(&[(0, 950), (50, 100)]);
    group.connect(100);
    assert_eq!(group.accept(), [0, 100]);
    assert_eq!(group.count(Decision::Spared), 100);
    group.publish(&[(0, 950), (150, 900)]);
    group.connect(100);
    assert_eq!(group.accept(), [100, 0]);
    assert_eq!(group.count(Decision::Crowded), 100);
}

/// A core that is new among full ones does not get a whole storm at once.
#[test]
fn a_core_without_connections_gets_no_more_at_once_than_the_rules_allow() {
    let mut group = Group::of(2, |rules| Rules {
        burst_max: 64,
        ..rules
    });
    group.publish(&[(500, 0), (0, 0)]);
    group.connect(100);
    assert_eq!(group.accept(), [36, 64]);
    assert_eq!(group.count(Decision::Spared), 36);
    group.publish(&[(536, 0), (64, 0)]);
    group.connect(10);
    assert_eq!(group.accept(), [0, 10]);
}

#[test]
fn without_a_fresh_load_the_kernels_hash_decides() {
    let mut group = Group::of(2, |rules| Rules {
        fresh_ns: 50_000_000,
        ..rules
    });
    // Never published.
    group.connect(100);
    assert!(group.accept().iter().all(|count| *count > 20));
    assert_eq!(group.count(Decision::Stale), 100);
    // Fresh, then not any more.
    group.publish(&[(1000, 0), (0, 0)]);
    group.connect(10);
    assert_eq!(group.accept(), [0, 10]);
    std::thread::sleep(Duration::from_millis(60));
    group.connect(100);
    assert!(group.accept().iter().all(|count| *count > 20));
    assert_eq!(group.count(Decision::Stale), 200);
    // One core hangs: the other takes all.
    group.publishers[1].publish(1000, 0).unwrap();
    group.connect(10);
    assert_eq!(group.accept(), [0, 10]);
}

#[test]
fn a_slot_whose_socket_is_gone_leaves_the_choice_to_the_kernel() {
    let mut group = Group::of(2, |rules| rules);
    drop(group.sockets.remove(0));
    group.publish(&[(0, 0), (100, 0)]);
    group.connect(50);
    assert_eq!(group.accept(), [50]);
    assert_eq!(group.count(Decision::Empty), 50);
}

#[test]
fn detached_the_kernels_hash_decides() {
    let mut group = Group::of(2, |rules| rules);
    group.publish(&[(1000, 0), (0, 0)]);
    group.connect(100);
    assert_eq!(group.accept(), [0, 100]);
    let placed = group.publishers[1].placed().unwrap();
    assert_eq!(placed, 100);
    group.placement.detach(&group.sockets[0]).unwrap();
    group.connect(100);
    assert!(group.accept().iter().all(|count| *count > 20));
    assert_eq!(group.publishers[1].placed().unwrap(), 100);
}

#[test]
fn a_worker_without_privileges_publishes() {
    let mut group = Group::of(2, |rules| rules);
    let mut publisher = group.publishers.remove(0);
    std::thread::spawn(move || {
        const NOBODY: libc::c_long = 65534;
        // SAFETY: the bare system call changes this thread alone, and takes numbers.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(done, 0);
        publisher.publish(3, 0).unwrap();
    })
    .join()
    .unwrap();
    group.publishers[0].publish(4, 0).unwrap();
    group.connect(1);
    assert_eq!(group.accept(), [1, 0]);
}

#[test]
fn sockets_that_are_no_group_are_refused() {
    let none: [Socket; 0] = [];
    assert!(Placement::attach(&none, Rules::of(0)).is_err());
    let alone = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    alone
        .bind(&SockAddr::from(
            "127.0.0.1:0".parse::<SocketAddr>().unwrap(),
        ))
        .unwrap();
    alone.listen(1).unwrap();
    assert!(Placement::attach(&[alone], Rules::of(0)).is_err());
}

/// The kernel runs no such program by itself: what it took is measured on real SYNs.
#[test]
fn the_cost_of_a_choice_is_told() {
    for cores in [2, 64] {
        let mut group = Group::of(cores, |rules| rules);
        group.publish(&vec![(0, 0); cores as usize]);
        let statistics = keep_statistics().unwrap();
        group.connect(200);
        drop(statistics);
        let (runs, time) = group.placement.runs().unwrap();
        assert!(runs >= 200);
        println!(
            "{cores} cores: {} ns a choice",
            time.as_nanos() / u128::from(runs)
        );
    }
}
