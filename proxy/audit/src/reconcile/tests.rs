//! Records and flows in, verdicts out.

use super::*;
use crate::FlowSide;

const CLIENT: &str = "198.51.100.7:50000";
const ENTRANCE: &str = "192.0.2.1:443";
const TARGET: &str = "203.0.113.5:3389";
const DIALLED_FROM: &str = "192.0.2.1:41000";

/// Of a connection from 100 s to 110 s, of whose accounts the last word was at 200 s.
fn connection() -> Record {
    let text = |text: &str| Some(text.to_owned());
    Record {
        connection: Some(7),
        source: text(CLIENT),
        client_local: text(ENTRANCE),
        client_received: Some(1000),
        client_sent: Some(2000),
        target_local: text(DIALLED_FROM),
        target_remote: text(TARGET),
        target_received: Some(1500),
        target_sent: Some(700),
        duration_ms: Some(10_000),
        ..Record::new(110_000, Event::Connection)
    }
}

fn flow(local: &str, remote: &str, payload_in: u64, payload_out: u64) -> KernelFlow {
    KernelFlow {
        local: local.parse().expect("an address"),
        remote: remote.parse().expect("an address"),
        side: FlowSide::Unknown,
        payload_in,
        payload_out,
        carried_in: payload_in,
        carried_out: payload_out,
        packets_in: 10,
        packets_out: 10,
        wire_bytes_in: payload_in + 520,
        wire_bytes_out: payload_out + 520,
        first_ms: 99_996,
        last_ms: 110_004,
        ending: FlowEnding::Over,
        adopted: false,
    }
}

fn client() -> KernelFlow {
    flow(ENTRANCE, CLIENT, 1000, 2000)
}

fn target() -> KernelFlow {
    flow(DIALLED_FROM, TARGET, 1500, 700)
}

fn flow_record(flow: KernelFlow) -> Record {
    Record {
        flow: Some(Box::new(flow)),
        ..Record::new(112_000, Event::Flow)
    }
}

fn loss(flows: u64) -> Record {
    let lost = FlowLoss {
        flows,
        packets: 100 * flows,
        ..FlowLoss::default()
    };
    Record {
        flow_loss: Some(lost),
        ..Record::new(150_000, Event::FlowLoss)
    }
}

/// The accounts are kept from 1 s to 200 s.
fn reconcile(connections: &[Record], accounts: &[Record]) -> Reconciled {
    let mut reconciliation = Reconciliation::default();
    for record in connections {
        reconciliation.take("core-0", record);
    }
    reconciliation.take(FLOW_CHAIN, &Record::new(1_000, Event::Started));
    for record in accounts {
        reconciliation.take(FLOW_CHAIN, record);
    }
    let last = Record {
        flow_loss: Some(FlowLoss::default()),
        ..Record::new(200_000, Event::FlowLoss)
    };
    reconciliation.take(FLOW_CHAIN, &last);
    reconciliation.finish()
}

/// Where the legs and flows of one connection came to lie: agreeing, adopted, differing, unaccounted,
/// outside, unrecorded, unserved, living, others; and whether that holds.
fn check(connection: Record, accounts: &[KernelFlow], expected: [u64; 9], holds: bool) {
    let accounts: Vec<Record> = accounts.iter().cloned().map(flow_record).collect();
    let found = reconcile(&[connection], &accounts);
    let sums = [
        found.agreeing,
        found.adopted,
        found.differing,
        found.unaccounted,
        found.outside,
        found.unrecorded,
        found.unserved,
        found.living,
        found.others,
    ];
    assert_eq!(sums.map(|sum| sum.legs), expected, "{found}");
    assert_eq!(found.holds(), holds, "{found}");
}

#[test]
fn both_legs_agree_when_every_byte_does() {
    check(
        connection(),
        &[client(), target()],
        [2, 0, 0, 0, 0, 0, 0, 0, 0],
        true,
    );
    let found = reconcile(
        &[connection()],
        &[flow_record(client()), flow_record(target())],
    );
    assert_eq!(
        (found.agreeing.bytes_in, found.agreeing.bytes_out),
        (2500, 2700)
    );
    assert!(found.differences.is_empty());
}

#[test]
fn one_byte_more_or_less_differs() {
    for (payload_in, payload_out) in [(999, 2000), (1001, 2000), (1000, 1999), (1000, 2001)] {
        let client = flow(ENTRANCE, CLIENT, payload_in, payload_out);
        check(
            connection(),
            &[client, target()],
            [1, 0, 1, 0, 0, 0, 0, 0, 0],
            false,
        );
    }
}

#[test]
fn what_was_unsent_at_the_close_may_have_been_sent_or_not_and_nothing_else() {
    let unsent = Record {
        client_unsent: Some(300),
        ..connection()
    };
    for (payload_out, agrees) in [(1699, 0), (1700, 1), (1999, 1), (2000, 1), (2001, 0)] {
        let flows = [flow(ENTRANCE, CLIENT, 1000, payload_out), target()];
        let expected = [1 + agrees, 0, 1 - agrees, 0, 0, 0, 0, 0, 0];
        check(unsent.clone(), &flows, expected, agrees == 1);
    }
}

#[test]
fn a_leg_without_an_account_is_missing_while_accounts_were_kept() {
    check(
        connection(),
        &[client()],
        [1, 0, 0, 1, 0, 0, 0, 0, 0],
        false,
    );
    let early = Record {
        duration_ms: Some(109_500),
        ..connection()
    };
    check(early, &[], [0, 0, 0, 0, 2, 0, 0, 0, 0], true);
    let late = Record {
        time_ms: 191_000,
        ..connection()
    };
    check(late, &[], [0, 0, 0, 0, 2, 0, 0, 0, 0], true);
}

#[test]
fn losses_explain_as_many_missing_legs_as_there_are() {
    for (lost, holds) in [(0, false), (1, false), (2, true)] {
        let found = reconcile(&[connection()], &[loss(lost)]);
        assert_eq!(found.unaccounted.legs, 2);
        assert_eq!(found.holds(), holds, "{found}");
    }
    // They explain no other bytes.
    let other = flow(ENTRANCE, CLIENT, 1, 2);
    let found = reconcile(
        &[connection()],
        &[flow_record(other), flow_record(target()), loss(9)],
    );
    assert!(!found.holds(), "{found}");
}

#[test]
fn a_connection_without_a_record_is_found_when_it_came_to_the_gateway() {
    let stranger =
        |payload_in, payload_out| flow(ENTRANCE, "198.51.100.9:1", payload_in, payload_out);
    let both = [client(), target()];
    let with = |flow: KernelFlow| [both[0].clone(), both[1].clone(), flow];
    check(
        connection(),
        &with(stranger(5, 9)),
        [2, 0, 0, 0, 0, 1, 0, 0, 0],
        false,
    );
    check(
        connection(),
        &with(stranger(5, 0)),
        [2, 0, 0, 0, 0, 0, 1, 0, 0],
        true,
    );
    let idle = KernelFlow {
        ending: FlowEnding::Idle,
        ..stranger(5, 9)
    };
    check(connection(), &with(idle), [2, 0, 0, 0, 0, 0, 0, 1, 0], true);
    let other = flow("192.0.2.1:45000", "192.0.2.9:2379", 5, 9);
    check(
        connection(),
        &with(other),
        [2, 0, 0, 0, 0, 0, 0, 0, 1],
        true,
    );
}

#[test]
fn an_account_that_lacks_its_beginning_has_no_more_than_the_leg() {
    for (payload_in, differs) in [(0, 0), (1000, 0), (1001, 1)] {
        let client = KernelFlow {
            adopted: true,
            ..flow(ENTRANCE, CLIENT, payload_in, 10)
        };
        let expected = [1, 1 - differs, differs, 0, 0, 0, 0, 0, 0];
        check(connection(), &[client, target()], expected, differs == 0);
    }
}

#[test]
fn the_parts_of_a_connection_that_was_idle_are_joined() {
    let first = KernelFlow {
        last_ms: 101_000,
        ending: FlowEnding::Idle,
        ..flow(ENTRANCE, CLIENT, 400, 500)
    };
    let second = KernelFlow {
        first_ms: 109_000,
        adopted: true,
        ..flow(ENTRANCE, CLIENT, 600, 1500)
    };
    check(
        connection(),
        &[first, second, target()],
        [2, 0, 0, 0, 0, 0, 0, 0, 0],
        true,
    );
}

#[test]
fn the_same_ports_at_another_time_are_another_connection() {
    let later = Record {
        time_ms: 120_000,
        duration_ms: Some(9_900),
        client_received: Some(1),
        client_sent: Some(2),
        target_local: None,
        ..connection()
    };
    let second = KernelFlow {
        first_ms: 110_050,
        last_ms: 120_000,
        ..flow(ENTRANCE, CLIENT, 1, 2)
    };
    let accounts = [client(), second.clone(), target()].map(flow_record);
    let found = reconcile(&[connection(), later], &accounts);
    assert_eq!((found.agreeing.legs, found.holds()), (3, true), "{found}");
    // Long after it, it belongs to none.
    let stray = KernelFlow {
        first_ms: 150_000,
        last_ms: 160_000,
        ..second
    };
    check(
        connection(),
        &[client(), target(), stray],
        [2, 0, 0, 0, 0, 1, 0, 0, 0],
        false,
    );
}

#[test]
fn a_socket_of_both_families_names_the_same_flow() {
    let mapped = Record {
        source: Some("[::ffff:198.51.100.7]:50000".to_owned()),
        ..connection()
    };
    check(
        mapped,
        &[client(), target()],
        [2, 0, 0, 0, 0, 0, 0, 0, 0],
        true,
    );
}

#[test]
fn legs_that_nobody_counted_are_told_apart() {
    let uncounted = Record {
        client_sent: None,
        ..connection()
    };
    let found = reconcile(&[uncounted], &[client(), target()].map(flow_record));
    assert_eq!((found.uncounted, found.agreeing.legs), (1, 1), "{found}");
}

#[test]
fn differences_are_listed_up_to_a_limit_and_all_are_counted() {
    let many: Vec<Record> = (0..2 * DIFFERENCES_MAX as u64)
        .map(|number| Record {
            connection: Some(number),
            source: Some(format!("198.51.100.8:{}", 1000 + number)),
            target_local: None,
            ..connection()
        })
        .collect();
    let found = reconcile(&many, &[]);
    assert_eq!(found.unaccounted.legs, 2 * DIFFERENCES_MAX as u64);
    assert_eq!(found.differences.len(), DIFFERENCES_MAX);
}
