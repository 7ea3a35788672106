//! Whom the nodes believe: what is refused, and what a refusal leaves as it was.

use std::net::Ipv4Addr;

use postern_steering::{BucketIndex, Flows as _, Place, Weight};

use super::*;
use crate::values::encode;

fn node(number: u16) -> NodeId {
    NodeId::new(number).unwrap()
}

fn place(address: [u8; 4]) -> Place {
    Place {
        v4: Some(Ipv4Addr::from(address)),
        v6: None,
        ethernet: [0; 6],
    }
}

fn registration(address: [u8; 4], boot: u128) -> Registration {
    Registration::new(place(address), Weight::new(100).unwrap(), Boot(boot))
}

fn heartbeat(boot: u128, sequence: u64, generation: u64) -> Heartbeat {
    let generation = Generation(generation);
    Heartbeat::new(Boot(boot), sequence, generation, Generation(0), None)
}

fn report(boot: u128, sequence: u64, flows: u32) -> FlowsReport {
    FlowsReport {
        boot: Boot(boot),
        sequence,
        flows: vec![(BucketIndex(7), flows)],
    }
}

/// Node 1 is registered with boot 1, has said sequence 10 and report 10.
fn nodes() -> Nodes {
    let mut nodes = Nodes::new(vec!["10.0.0.0/24".parse().unwrap()]);
    let mut take = |change| nodes.apply(change, Millis(50_000)).unwrap();
    take(Change::Registration(
        node(1),
        Some(registration([10, 0, 0, 1], 1)),
    ));
    take(Change::Heartbeat(node(1), Some(heartbeat(1, 10, 5))));
    take(Change::Flows(node(1), Some(report(1, 10, 3))));
    nodes
}

#[test]
fn what_does_not_hold_is_refused_and_the_last_good_value_stays() {
    let check = |change: Change, expected: Refusal| {
        let mut nodes = nodes();
        let before = nodes.get(node(1)).cloned();
        assert_eq!(
            nodes.apply(change.clone(), Millis(51_000)),
            Err(expected),
            "{change:?}"
        );
        assert_eq!(nodes.get(node(1)).cloned(), before, "{change:?}");
        let seen = nodes.reports().at(node(1), BucketIndex(7)).unwrap();
        assert_eq!(seen.flows, 3);
    };
    let registered = |number, registration| Change::Registration(node(number), Some(registration));
    // Nobody but peers, nobody else's address, nobody without one.
    check(
        registered(1, registration([192, 0, 2, 1], 1)),
        Refusal::Address,
    );
    check(
        registered(2, registration([192, 0, 2, 2], 2)),
        Refusal::Address,
    );
    check(
        registered(2, registration([10, 0, 0, 1], 2)),
        Refusal::Address,
    );
    let nowhere = Place {
        v4: None,
        ..place([0; 4])
    };
    let nowhere = Registration::new(nowhere, Weight::new(1).unwrap(), Boot(2));
    check(registered(2, nowhere), Refusal::Address);
    let heavy = String::from_utf8(encode(&registration([10, 0, 0, 2], 2))).unwrap();
    let heavy = heavy.replace("\"weight\":100", "\"weight\":10001");
    let heavy = serde_json::from_str(&heavy).unwrap();
    check(registered(2, heavy), Refusal::Weight);
    check(
        registered(4_096, registration([10, 0, 0, 2], 2)),
        Refusal::TooMany,
    );

    let heard = |heartbeat| Change::Heartbeat(node(1), Some(heartbeat));
    check(heard(heartbeat(1, 9, 6)), Refusal::Sequence);
    check(heard(heartbeat(2, 11, 6)), Refusal::Boot);
    check(heard(heartbeat(1, 11, u64::MAX)), Refusal::Ahead);
    check(
        Change::Flows(node(1), Some(report(1, 9, 0))),
        Refusal::Sequence,
    );
    check(
        Change::Flows(node(1), Some(report(2, 11, 0))),
        Refusal::Boot,
    );
}

#[test]
fn what_is_told_again_is_no_news_and_no_fault() {
    let mut nodes = nodes();
    let again = Change::Heartbeat(node(1), Some(heartbeat(1, 10, 5)));
    assert_eq!(nodes.apply(again, Millis(60_000)), Ok(Heard::Nothing));
    let (_, at) = nodes.get(node(1)).unwrap().heartbeat.unwrap();
    assert_eq!(at, Millis(50_000));
    let stranger = Change::Heartbeat(node(9), Some(heartbeat(9, 1, 5)));
    assert_eq!(nodes.apply(stranger, Millis(60_000)), Ok(Heard::Nothing));
}

#[test]
fn a_count_is_as_old_as_it_may_be_and_is_confirmed_by_heartbeats() {
    let mut nodes = nodes();
    let taken_at = |nodes: &Nodes| {
        nodes
            .reports()
            .at(node(1), BucketIndex(7))
            .unwrap()
            .taken_at
    };
    assert_eq!(taken_at(&nodes), Millis(50_000 - REPORT_AGE_MS_MAX));
    let mut confirming = heartbeat(1, 11, 5);
    confirming.report = 10;
    let change = Change::Heartbeat(node(1), Some(confirming));
    nodes.apply(change, Millis(60_000)).unwrap();
    assert_eq!(taken_at(&nodes), Millis(60_000 - REPORT_AGE_MS_MAX));
    // A heartbeat that says nothing of the count confirms nothing.
    let change = Change::Heartbeat(node(1), Some(heartbeat(1, 12, 5)));
    nodes.apply(change, Millis(70_000)).unwrap();
    assert_eq!(taken_at(&nodes), Millis(60_000 - REPORT_AGE_MS_MAX));
}

#[test]
fn a_new_boot_begins_from_nothing_and_a_lost_lease_ends_it() {
    let mut nodes = nodes();
    let rebooted = registration([10, 0, 0, 1], 2);
    let change = Change::Registration(node(1), Some(rebooted));
    nodes.apply(change, Millis(51_000)).unwrap();
    assert_eq!(nodes.reports().at(node(1), BucketIndex(7)), None);
    // Sequences of a boot are its own.
    let change = Change::Heartbeat(node(1), Some(heartbeat(2, 1, 5)));
    assert!(nodes.apply(change, Millis(51_000)).is_ok());
    assert_eq!(nodes.newest_in_force(), Generation(5));
    nodes
        .apply(Change::Registration(node(1), None), Millis(52_000))
        .unwrap();
    assert_eq!(nodes.registered().count(), 0);
    assert_eq!(nodes.newest_in_force(), Generation(0));
    // Its number, and its address, are free.
    let other = Change::Registration(node(2), Some(registration([10, 0, 0, 1], 3)));
    assert!(nodes.apply(other, Millis(53_000)).is_ok());
}

#[test]
fn what_is_wanted_of_a_node_outlives_it_and_room_for_that_is_bounded() {
    let mut nodes = nodes();
    let drain = Change::Intent(node(1), Some(Intent::Drain));
    nodes.apply(drain, Millis(0)).unwrap();
    nodes
        .apply(Change::Registration(node(1), None), Millis(0))
        .unwrap();
    assert_eq!(nodes.intent(node(1)), Intent::Drain);
    nodes
        .apply(Change::Intent(node(1), None), Millis(0))
        .unwrap();
    assert!(nodes.get(node(1)).is_none());
    let refused = (1..=u16::MAX).filter(|number| {
        let change = Change::Intent(node(*number), Some(Intent::Drain));
        nodes.apply(change, Millis(0)) == Err(Refusal::TooMany)
    });
    assert_eq!(refused.count(), usize::from(u16::MAX) - 2 * MEMBERS_MAX);
}
