//! The cases in which ours is compared with itself: single operations, and sessions beside others.

use super::{Case, ITSELF, Metric, Path, Task, cpu_per_message, ping};
use crate::load::{Pace, Ping, Work};
use crate::micro::Micro;

/// Numbers of sessions whose costs are compared with that of the first.
const GROWTH: [usize; 4] = [50, 1, 500, 5000];

/// Messages a second of each of them, as of somebody who works.
const GROWTH_HERTZ: f64 = 4.0;

/// Messages that are under way at a time, whatever the number of sessions, where it is the caches that
/// are looked at.
const COLD_IN_FLIGHT: usize = 50;

pub(super) fn micro() -> Vec<Case> {
    vec![
        operation(
            "decision",
            "a decision is cheap enough to be made for every request",
            Micro::Decision,
            "µs",
        ),
        operation(
            "token-verify",
            "a token that is new costs one signature check",
            Micro::TokenVerify,
            "µs",
        ),
        operation(
            "masking",
            "unmasking runs at the speed of memory",
            Micro::Masking,
            "s/GB",
        ),
        operation(
            "handshake",
            "the provider that won, with the key exchange of today's browsers",
            Micro::Handshake,
            "µs",
        ),
        operation(
            "record",
            "our record layer costs no more than the cipher",
            Micro::Record,
            "s/GB",
        ),
    ]
}

pub(super) fn sessions() -> Vec<Case> {
    let active = |stalled| {
        Work::Ping(Ping {
            connections: 100,
            in_flight: 100,
            seconds: 5.0,
            pace: Pace::Hertz(20.0),
            stalled,
        })
    };
    vec![
        Case {
            name: "growth",
            proves: "a session costs the same however many there are",
            paths: &[Path::Wss],
            peers: ITSELF,
            task: Task::Series(GROWTH.map(paced).to_vec()),
            ..cpu_per_message(ping(0, 0))
        },
        Case {
            name: "growth-cold",
            proves: "what the caches lose when the same few messages wander over ever more sessions",
            paths: &[Path::Wss],
            peers: ITSELF,
            task: Task::Series(
                [50, 500, 5000]
                    .map(|sessions| ping(sessions, COLD_IN_FLIGHT))
                    .to_vec(),
            ),
            ..cpu_per_message(ping(0, 0))
        },
        Case {
            name: "stalled-reader",
            proves: "who does not read holds up nobody else",
            paths: &[Path::Wss],
            peers: ITSELF,
            task: Task::Series(vec![active(0), active(1)]),
            metric: Metric::Latency,
            unit: "ms",
            lower_is_better: true,
        },
    ]
}

fn paced(sessions: usize) -> Work {
    Work::Ping(Ping {
        connections: sessions,
        in_flight: sessions,
        seconds: 5.0,
        pace: Pace::Hertz(GROWTH_HERTZ),
        stalled: 0,
    })
}

/// A case of one operation's time.
pub(super) fn operation(
    name: &'static str,
    proves: &'static str,
    micro: Micro,
    unit: &'static str,
) -> Case {
    Case {
        name,
        proves,
        paths: &[Path::InProcess],
        peers: ITSELF,
        task: Task::Micro(micro),
        metric: Metric::Time,
        unit,
        lower_is_better: true,
    }
}
