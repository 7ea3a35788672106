//! The list of cases is the one that the promises rest on.

use std::collections::BTreeSet;

use super::*;

#[test]
fn cases_are_complete_and_names_are_their_own() {
    let names = [
        "passthrough-bulk-1",
        "passthrough-bulk-64",
        "passthrough-ping-1",
        "passthrough-ping-64",
        "passthrough-ping-512",
        "tls-bulk-up",
        "tls-bulk-down",
        "tls-ping",
        "ws-bulk-up",
        "ws-bulk-down",
        "ws-ping",
        "wss-bulk-up",
        "wss-bulk-down",
        "wss-ping",
        "rdp-bulk-up",
        "rdp-bulk-down",
        "rdp-bulk-floor",
        "rdp-ping",
        "burst3",
        "rdp-workload-1",
        "rdp-workload-50",
        "rdp-workload-200",
        "open-full",
        "open-resumed",
        "rdp-idle",
        "decision",
        "token-verify",
        "masking",
        "handshake",
        "record",
        "growth",
        "growth-cold",
        "stalled-reader",
        "steer-denied",
        "steer-not-ours",
        "steer-self",
        "steer-gue",
        "steer-gue-131k",
        "steer-lookup",
        "steer-account",
        "steer-datagram",
        "steer-datagram-65k",
        "steer-swap",
        "steer-pps",
        "steer-sim",
    ];
    let all = all();
    let found: BTreeSet<_> = all.iter().map(|case| case.name).collect();
    assert_eq!(found, BTreeSet::from(names));
    assert_eq!(found.len(), all.len());
    for case in &all {
        assert!(!case.proves.is_empty() && !case.paths.is_empty() && !case.peers.is_empty());
        assert_ne!(case.task, Task::Series(Vec::new()), "{}", case.name);
    }
}
