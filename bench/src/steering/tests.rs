//! The simulation in small: it is the same from run to run, and cuts nothing on sound nodes.

use super::ledger::{mean, quantile};
use super::*;

const SMALL: Scale = Scale {
    nodes: 40,
    sessions: 40_000,
    hours: 24,
    seed: 3,
};

#[test]
fn sessions_end_on_failed_nodes_alone_and_hashes_cut_others_too() {
    let ledger = simulate(SMALL).unwrap();
    assert_eq!(ledger.ours.cut_elsewhere, 0);
    assert!(ledger.crashes > 0 && ledger.ours.lost_with_node > 0);
    assert!(ledger.drains > 0 && !ledger.drain_empty_h.is_empty());
    for peer in &ledger.peers {
        assert!(peer.cut_elsewhere > 100, "{}", peer.name);
    }
    assert!(mean(&ledger.ours.misplaced) < 0.01);
    assert!(quantile(&ledger.drain_closed_s, 0.5) < 60.0);
    assert!((39_000..41_000).contains(&ledger.sessions));
}

#[test]
fn a_seed_is_a_week() {
    let small = Scale { hours: 3, ..SMALL };
    assert_eq!(simulate(small).unwrap(), simulate(small).unwrap());
    let other = Scale { seed: 4, ..small };
    assert_ne!(simulate(small).unwrap(), simulate(other).unwrap());
}
