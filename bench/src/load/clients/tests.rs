//! Every work over every way without a relay, with the bytes checked at both ends.

use std::sync::{OnceLock, mpsc};

use super::super::work::{Direction, Layer, Pace, Ping, Target, Work};
use super::super::{Addresses, Job, Measured, Phase, SERVER_NAME, server};
use super::execute;

/// One server for all tests of this process.
fn addresses() -> &'static Addresses {
    static ADDRESSES: OnceLock<Addresses> = OnceLock::new();
    ADDRESSES.get_or_init(|| {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || server::serve(|addresses| Ok(tell.send(addresses)?)));
        told.recv().unwrap()
    })
}

fn ways() -> Vec<Target> {
    let addresses = addresses();
    let nowhere = addresses.plain;
    let upgrades = || vec![super::super::Upgrade::default()];
    let mut ways: Vec<Target> = [
        Target::tcp(nowhere),
        Target::tls(nowhere, SERVER_NAME),
        Target::ws(nowhere, upgrades()),
        Target::wss(nowhere, SERVER_NAME, upgrades()),
    ]
    .iter()
    .map(|relayed| addresses.direct_for(relayed))
    .collect();
    let mut rdp = Target::tls(addresses.rdp, SERVER_NAME);
    rdp.layers.insert(0, Layer::X224);
    ways.push(rdp);
    ways
}

fn check(work: &Work, expect: impl Fn(&Measured)) {
    for target in ways() {
        let job = Job {
            work: work.clone(),
            target,
            core: None,
        };
        let mut phases = Vec::new();
        let measured = execute(&job, &mut |phase| {
            phases.push(phase);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{job:?}: {error:#}"));
        assert_eq!(phases, [Phase::Ready, Phase::Done]);
        assert!(measured.seconds > 0.0 && measured.client_cpu_ns > 0);
        expect(&measured);
    }
}

#[test]
fn bulk_arrives_whole_in_both_directions() {
    for direction in [Direction::Up, Direction::Down] {
        let work = Work::Bulk {
            direction,
            flows: 3,
            bytes_per_flow: (6 << 20) - 1,
        };
        check(&work, |measured| {
            assert_eq!((measured.bytes, measured.sessions), (18 << 20, 3));
            assert!(measured.server_cpu_ns > 0);
        });
    }
}

#[test]
fn messages_come_back() {
    for (pace, stalled) in [(Pace::Closed, 0), (Pace::Hertz(50.0), 1)] {
        let work = Work::Ping(Ping {
            connections: 9,
            in_flight: 4,
            seconds: 0.4,
            pace,
            stalled,
        });
        check(&work, |measured| {
            assert_eq!(measured.sessions, 9 + stalled as u64);
            assert!(measured.messages > 40, "{}", measured.messages);
            assert!(measured.latency.len() > 30);
            if stalled > 0 {
                assert!(measured.messages < 100, "{}", measured.messages);
            }
        });
    }
}

#[test]
fn bursts_are_answered() {
    let work = Work::Burst {
        connections: 2,
        rounds: 10,
        pause_ms: 5,
    };
    check(&work, |measured| {
        assert_eq!((measured.messages, measured.latency.len()), (20, 20));
        assert!(measured.seconds >= 0.05);
    });
}

#[test]
fn desktops_show_and_take_input() {
    let work = Work::Desktop {
        sessions: 3,
        seconds: 0.5,
    };
    check(&work, |measured| {
        assert!(measured.messages >= 3 && measured.bytes > 3000);
        assert_eq!(measured.latency.len(), measured.messages);
        assert!(measured.latency_up.len() >= 3 * 8);
    });
}

#[test]
fn sessions_open_and_resume() {
    for resumed in [false, true] {
        let work = Work::Open {
            concurrency: 3,
            seconds: 0.3,
            resumed,
        };
        check(&work, |measured| {
            assert!(measured.sessions >= 3);
            assert_eq!(measured.latency.len(), measured.sessions);
            assert!(resumed || measured.resumed == 0);
        });
    }
    let wss = addresses().direct_for(&ways()[3]);
    let work = Work::Open {
        concurrency: 3,
        seconds: 0.3,
        resumed: true,
    };
    let job = Job {
        work,
        target: wss,
        core: None,
    };
    let measured = execute(&job, &mut |_| Ok(())).unwrap();
    assert_eq!(measured.resumed, measured.sessions);
}

#[test]
fn idle_sessions_stay_open_while_they_are_looked_at() {
    let work = Work::Idle { sessions: 20 };
    check(&work, |measured| {
        assert_eq!((measured.sessions, measured.bytes), (20, 0));
    });
}

#[test]
fn a_connection_that_is_refused_fails_the_run() {
    // The plain door takes no TLS: it hears an order that is none.
    let job = Job {
        work: Work::Idle { sessions: 1 },
        target: Target::tls(addresses().plain, SERVER_NAME),
        core: None,
    };
    assert!(execute(&job, &mut |_| Ok(())).is_err());
    let job = Job {
        target: Target::tcp(([127, 0, 0, 1], 1).into()),
        ..job
    };
    assert!(execute(&job, &mut |_| Ok(())).is_err());
}
