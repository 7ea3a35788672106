//! The cases of the bench, as data: what each proves, who takes part, the work and the figure.

mod ourselves;
mod steering;

use crate::load::{Direction, Pace, Ping, Work};
use crate::micro::Micro;

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its name on the command line, in tables and in SPECIFICATION.md.
    pub name: &'static str,
    /// What a good figure shows.
    pub proves: &'static str,
    /// The ways that the load takes, each a row of its own.
    pub paths: &'static [Path],
    /// Who is compared with ours.
    pub peers: &'static [Peer],
    pub task: Task,
    pub metric: Metric,
    pub unit: &'static str,
    pub lower_is_better: bool,
}

/// The way through a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Path {
    /// TCP to TCP.
    Passthrough,
    /// TLS to TCP.
    Tls,
    /// WebSocket to TCP.
    Ws,
    /// WebSocket in TLS to TCP.
    Wss,
    /// `RDCleanPath` over WebSocket in TLS, to X.224 and TLS.
    Rdp,
    /// No relay at all: within the bench's own process.
    InProcess,
}

/// Whom we are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// HAProxy that splices.
    HaProxySplice,
    /// HAProxy that copies.
    HaProxyCopy,
    Nginx,
    Websockify,
    Stunnel,
    /// Devolutions Gateway as it ships.
    Devolutions,
    /// Devolutions Gateway with `TCP_NODELAY` set from outside.
    DevolutionsNoDelay,
    /// The case's own other variant: fewer sessions, no stalled reader, another provider, bare rustls.
    Itself,
}

/// What is run.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// One load.
    Load(Work),
    /// Loads over ours alone, each compared with the first.
    Series(Vec<Work>),
    /// Loads over ours alone, whose CPU is compared with that of [`crate::micro::floor`].
    Floor(Vec<Work>),
    Micro(Micro),
    /// Packets through cables, with and without steering: see [`crate::packets`].
    Packets,
    /// A simulated week of steering.
    Simulation,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// CPU of the relay for 10⁹ payload bytes.
    CpuPerGigabyte,
    /// CPU of the relay for one message there and back.
    CpuPerMessage,
    /// CPU of the relay for one session and second.
    CpuPerSessionSecond,
    /// 99th percentile and longest, each a row.
    Latency,
    SessionsPerSecond,
    /// Memory that a session adds.
    MemoryPerSession,
    /// Time of one operation, or of 10⁹ bytes where the unit says so.
    Time,
    /// Packets in a second of one core's time.
    Packets,
    /// What a week of steering came to: sessions cut, shares, moves, drains.
    Steering,
}

/// Relays that carry bytes from TCP to TCP.
const STREAM: &[Peer] = &[Peer::HaProxySplice, Peer::HaProxyCopy, Peer::Nginx];
/// Relays that carry TLS to TCP.
const TLS: &[Peer] = &[Peer::Stunnel];
/// Relays that carry a WebSocket to TCP.
const WS: &[Peer] = &[
    Peer::Websockify,
    Peer::Devolutions,
    Peer::DevolutionsNoDelay,
];
/// The same with TLS.
const WSS: &[Peer] = &[
    Peer::Websockify,
    Peer::Stunnel,
    Peer::Devolutions,
    Peer::DevolutionsNoDelay,
];
/// Relays that a browser's desktop goes through.
const RDP: &[Peer] = &[Peer::Devolutions, Peer::DevolutionsNoDelay];
const ITSELF: &[Peer] = &[Peer::Itself];

const MIB: u64 = 1 << 20;

/// Seconds that a ping-pong is measured for.
const PING_SECONDS: f64 = 3.0;

/// All cases, in the order in which they run.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut all = passthrough();
    all.extend(secured());
    all.extend(websocket());
    all.extend(desktop());
    all.extend(sessions());
    all.extend(ourselves::micro());
    all.extend(ourselves::sessions());
    all.extend(steering::packets());
    all.push(steering::throughput());
    all.push(steering::simulation());
    all
}

fn passthrough() -> Vec<Case> {
    let bulk = |name, flows, bytes| Case {
        name,
        proves: "bytes pass at the price of a splice",
        paths: &[Path::Passthrough],
        peers: STREAM,
        ..cpu_per_gigabyte(bulk(Direction::Down, flows, bytes))
    };
    let ping = |name, connections| Case {
        name,
        proves: "a message passes for one receive and one send",
        paths: &[Path::Passthrough],
        peers: STREAM,
        ..cpu_per_message(ping(connections, connections))
    };
    vec![
        bulk("passthrough-bulk-1", 1, 4096 * MIB),
        bulk("passthrough-bulk-64", 64, 64 * MIB),
        ping("passthrough-ping-1", 1),
        ping("passthrough-ping-64", 64),
        ping("passthrough-ping-512", 512),
    ]
}

fn secured() -> Vec<Case> {
    let bulk = |name, direction| Case {
        name,
        proves: "TLS that is taken off costs its cipher, and in the kernel no copy besides",
        paths: &[Path::Tls],
        peers: TLS,
        ..cpu_per_gigabyte(bulk(direction, 4, 128 * MIB))
    };
    vec![
        bulk("tls-bulk-up", Direction::Up),
        bulk("tls-bulk-down", Direction::Down),
        Case {
            name: "tls-ping",
            proves: "a short message in TLS costs little more than its two system calls",
            paths: &[Path::Tls],
            peers: TLS,
            ..cpu_per_message(ping(64, 64))
        },
    ]
}

fn websocket() -> Vec<Case> {
    let bulk = |name, direction, path: &'static [Path], peers| Case {
        name,
        proves: "a WebSocket's bytes are unmasked, framed and encrypted where they lie",
        paths: path,
        peers,
        ..cpu_per_gigabyte(bulk(direction, 4, 128 * MIB))
    };
    let ping = |name, path: &'static [Path], peers| Case {
        name,
        proves: "a short message costs little more than its two system calls",
        paths: path,
        peers,
        ..cpu_per_message(ping(64, 64))
    };
    vec![
        bulk("ws-bulk-up", Direction::Up, &[Path::Ws], WS),
        bulk("ws-bulk-down", Direction::Down, &[Path::Ws], WS),
        ping("ws-ping", &[Path::Ws], WS),
        bulk("wss-bulk-up", Direction::Up, &[Path::Wss], WSS),
        bulk("wss-bulk-down", Direction::Down, &[Path::Wss], WSS),
        ping("wss-ping", &[Path::Wss], WSS),
    ]
}

fn desktop() -> Vec<Case> {
    let bulk = |name, direction| Case {
        name,
        proves: "the product's real way: TLS and WebSocket in front, TLS behind",
        paths: &[Path::Rdp],
        peers: RDP,
        ..cpu_per_gigabyte(bulk(direction, 4, 128 * MIB))
    };
    let floor = [Direction::Up, Direction::Down].map(|up| self::bulk(up, 4, 128 * MIB));
    let workload = |name, sessions| Case {
        name,
        proves: "desktops as they are used, at the recorded sizes and times",
        paths: &[Path::Rdp],
        peers: RDP,
        task: Task::Load(Work::Desktop {
            sessions,
            seconds: 5.0,
        }),
        metric: Metric::CpuPerSessionSecond,
        unit: "µs",
        ..template()
    };
    vec![
        bulk("rdp-bulk-up", Direction::Up),
        bulk("rdp-bulk-down", Direction::Down),
        Case {
            name: "rdp-bulk-floor",
            proves: "the relay costs little more than the cryptography and the copies of the kernel",
            paths: &[Path::Rdp],
            peers: ITSELF,
            task: Task::Floor(floor.to_vec()),
            ..template()
        },
        Case {
            name: "rdp-ping",
            proves: "a short message passes both TLS legs at little cost",
            paths: &[Path::Rdp],
            peers: RDP,
            ..cpu_per_message(ping(64, 64))
        },
        Case {
            name: "burst3",
            proves: "no message waits for the acknowledgement of another",
            paths: &[Path::Ws, Path::Wss, Path::Rdp, Path::Passthrough],
            peers: &[
                Peer::HaProxySplice,
                Peer::Websockify,
                Peer::Stunnel,
                Peer::Devolutions,
                Peer::DevolutionsNoDelay,
            ],
            task: Task::Load(Work::Burst {
                connections: 10,
                rounds: 200,
                pause_ms: 10,
            }),
            metric: Metric::Latency,
            unit: "ms",
            ..template()
        },
        workload("rdp-workload-1", 1),
        workload("rdp-workload-50", 50),
        workload("rdp-workload-200", 200),
    ]
}

fn sessions() -> Vec<Case> {
    let open = |name, proves, resumed| Case {
        name,
        proves,
        paths: &[Path::Rdp],
        peers: RDP,
        task: Task::Load(Work::Open {
            concurrency: 16,
            seconds: 3.0,
            resumed,
        }),
        metric: Metric::SessionsPerSecond,
        unit: "1/s",
        lower_is_better: false,
    };
    vec![
        open(
            "open-full",
            "sessions open fast, token and policy included",
            false,
        ),
        open(
            "open-resumed",
            "who comes back is let in by the TLS session that is known",
            true,
        ),
        Case {
            name: "rdp-idle",
            proves: "an idle desktop holds no buffers",
            paths: &[Path::Rdp],
            peers: RDP,
            task: Task::Load(Work::Idle { sessions: 1000 }),
            metric: Metric::MemoryPerSession,
            unit: "KB",
            ..template()
        },
    ]
}

fn bulk(direction: Direction, flows: usize, bytes_per_flow: u64) -> Work {
    Work::Bulk {
        direction,
        flows,
        bytes_per_flow,
    }
}

fn ping(connections: usize, in_flight: usize) -> Work {
    Work::Ping(Ping {
        connections,
        in_flight,
        seconds: PING_SECONDS,
        pace: Pace::Closed,
        stalled: 0,
    })
}

fn cpu_per_gigabyte(work: Work) -> Case {
    Case {
        task: Task::Load(work),
        ..template()
    }
}

fn cpu_per_message(work: Work) -> Case {
    Case {
        task: Task::Load(work),
        metric: Metric::CpuPerMessage,
        unit: "µs",
        ..template()
    }
}

/// What most cases have in common.
fn template() -> Case {
    Case {
        name: "",
        proves: "",
        paths: &[],
        peers: &[],
        task: Task::Series(Vec::new()),
        metric: Metric::CpuPerGigabyte,
        unit: "s/GB",
        lower_is_better: true,
    }
}

#[cfg(test)]
mod tests;
