//! Flows between lines of every kind: TLS by rustls' own peers, bytes that pass as they are, seeds.

mod peers;
mod trial;

use postern_relay::flow::{CLOSE_NOTIFY, Finish, Framing, Goodbye, KernelLine, Leg, Line, Times};
use postern_relay::memory::RECEIVE_BYTES_MAX;
use postern_relay::{Ended, Flow};
use postern_wire::websocket::{Opcode, binary_frame, client_frame, close_frame};
use rustls::CipherSuite;
use trial::{
    Deed, KEY, TIMES, Trial, goodbye, payload, secured, tls_client, tls_target, unwrapped,
    websocket,
};

const SUITE: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;

const NO_TIMES: Times = Times {
    absolute_ms: 0,
    idle_ms: 0,
    ping_ms: 0,
    stall_ms: 0,
    half_close_ms: 0,
    goodbye_ms: 0,
};

/// Bytes in which every place can be told.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at ^ (at >> 8)).to_le_bytes()[0])
        .collect()
}

#[test]
fn a_desktop_crosses_tls_on_both_legs() {
    for suite in peers::SUITES {
        let mut trial = secured(suite);
        let (up, down) = (pattern(300_000), pattern(500_000));
        for message in up.chunks(70_000) {
            trial.client().say_message(message);
        }
        trial.target().say(&down);
        trial.run();
        assert!(trial.target().heard == up, "{suite:?}");
        assert!(payload(&trial.client().heard) == down, "{suite:?}");
        trial.client().say_close_frame(1000);
        trial.client().say_close_notify();
        trial.run();
        assert!(trial.target().heard_close_notify && trial.target().heard_end);
        trial.target().say_close_notify();
        trial.run();
        assert!(trial.client().heard_close_notify && trial.client().heard_end);
        trial.client().finish(Finish::Ended);
        trial.run();
        assert_eq!(trial.ended(), Some(&Ended::ClientClosed));
    }
}

#[test]
fn what_comes_together_goes_together() {
    let mut trial = secured(SUITE);
    for message in [b"one", b"two", b"six"] {
        trial.client().say_message(message);
        trial.target().say(message);
    }
    trial.run();
    assert_eq!(trial.target().heard, b"onetwosix");
    assert_eq!(trial.client().heard, binary_frame(b"onetwosix"));
    // One send each way carried all of it.
    assert_eq!(trial.tally.latency.iter().sum::<u64>(), 2);
}

#[test]
fn a_close_notify_of_either_peer_is_its_end() {
    let mut trial = secured(SUITE);
    trial.target().say_close_notify();
    trial.run();
    let words = close_frame(1000, "target_closed");
    assert_eq!(trial.client().heard, words);
    assert!(trial.client().heard_close_notify);
    trial.pass_ms(31_000);
    assert_eq!(trial.ended(), Some(&Ended::TargetClosed));

    let mut trial = secured(SUITE);
    trial.client().say_message(b"unfinished business");
    trial.client().say_close_notify();
    trial.run();
    assert_eq!(trial.target().heard, b"unfinished business");
    assert!(trial.target().heard_close_notify);
    trial.pass_ms(32_000);
    assert_eq!(trial.ended(), Some(&Ended::ClientLost));
}

#[test]
fn forged_records_lose_their_leg_and_reach_nobody() {
    let forge = |trial: &mut Trial, leg: Leg| {
        let mut bytes = trial.peer(leg).intercept();
        *bytes.last_mut().expect("a record") ^= 1;
        trial.peer(leg).say_raw(&bytes);
    };
    let mut trial = secured(SUITE);
    trial.client().say_message(b"forged");
    forge(&mut trial, Leg::Client);
    trial.pass_ms(2_000);
    assert_eq!(trial.ended(), Some(&Ended::ClientLost));
    assert!(trial.client().heard_alert);
    assert_eq!(trial.target().heard, b"");

    let mut trial = secured(SUITE);
    trial.target().say(b"forged");
    forge(&mut trial, Leg::Target);
    trial.pass_ms(2_000);
    assert_eq!(trial.ended(), Some(&Ended::TargetLost));
    assert!(trial.target().heard_alert);
    let words = close_frame(4006, "target_lost");
    assert_eq!(trial.client().heard, words);
}

#[test]
fn a_change_of_keys_is_answered_though_nothing_is_to_be_sent() {
    let mut trial = secured(SUITE);
    for leg in Leg::BOTH {
        trial.peer(leg).say_key_update();
        trial.run();
        assert!(trial.peer(leg).heard_bytes > 0, "{leg:?} is answered");
    }
    trial.client().say_message(b"under new keys");
    trial.target().say(b"these as well");
    trial.run();
    assert_eq!(trial.target().heard, b"under new keys");
    assert_eq!(payload(&trial.client().heard), b"these as well");
}

#[test]
fn a_client_over_tls_reaches_a_plain_target_and_cut_ends_stay_cut() {
    let mut trial = unwrapped(SUITE, NO_TIMES);
    let bytes = pattern(200_000);
    trial.client().say(&bytes);
    trial.target().say(&bytes);
    trial.target().finish(Finish::Ended);
    trial.run();
    assert!(trial.target().heard == bytes && trial.client().heard == bytes);
    assert!(trial.client().heard_close_notify && trial.client().heard_end);
    trial.client().say(b"more");
    trial.client().say_close_notify();
    trial.run();
    assert!(trial.target().heard.ends_with(b"more"));
    assert_eq!(trial.ended(), Some(&Ended::TargetClosed));

    let mut trial = unwrapped(SUITE, NO_TIMES);
    trial.target().say(b"half of it");
    trial.run();
    trial.target().finish(Finish::Broken);
    trial.run();
    assert_eq!(trial.client().heard, b"half of it");
    let client = trial.client();
    assert!(client.heard_end && !client.heard_close_notify);
    assert_eq!(trial.ended(), Some(&Ended::TargetLost));
}

#[test]
fn bytes_pass_as_they_are_and_each_end_is_passed_on() {
    let mut trial = Trial::passthrough(NO_TIMES);
    assert!(trial.flow().is_transparent());
    let bytes = pattern(300_000);
    trial.client().say(&bytes);
    trial.client().finish(Finish::Ended);
    trial.run();
    assert!(trial.target().heard == bytes && trial.target().heard_end);
    assert_eq!(trial.flow().deadline(), None);
    trial.target().say(&bytes);
    trial.target().finish(Finish::Ended);
    trial.run();
    assert!(trial.client().heard == bytes && trial.client().heard_end);
    assert_eq!(trial.ended(), Some(&Ended::ClientClosed));
    let traffic = trial.report.expect("it is over").traffic;
    assert_eq!((traffic.bytes_up, traffic.bytes_down), (300_000, 300_000));
    assert_eq!((traffic.messages_up, traffic.messages_down), (0, 0));
}

#[test]
fn a_passthrough_flow_is_limited_where_it_is_told_so() {
    let check = |times: Times, target: Option<Finish>, at_ms: u64, ended: Ended| {
        let mut trial = Trial::passthrough(times);
        trial.target().is_reading = false;
        trial.client().say(&[0; 100_000]);
        if let Some(finish) = target {
            trial.target().finish(finish);
        }
        trial.pass_ms(at_ms - 1);
        assert_eq!(trial.ended(), None, "{ended:?}");
        trial.pass_ms(1);
        assert_eq!(trial.ended(), Some(&ended));
    };
    let (base, orderly) = (NO_TIMES, Some(Finish::Ended));
    let half_close_ms = 500;
    check(
        Times {
            half_close_ms,
            ..base
        },
        orderly,
        500,
        Ended::TargetClosed,
    );
    let stall_ms = 700;
    check(Times { stall_ms, ..base }, None, 700, Ended::TargetStalled);
    let absolute_ms = 800;
    check(
        Times {
            absolute_ms,
            ..base
        },
        None,
        800,
        Ended::Expired,
    );
    let mut trial = Trial::passthrough(Times {
        idle_ms: 90,
        ..base
    });
    trial.pass_ms(80);
    trial.event(|flow, cx| flow.spliced(Leg::Client, 5, cx));
    trial.pass_ms(89);
    trial.event(|flow, cx| flow.spliced(Leg::Target, 7, cx));
    assert_eq!(trial.ended(), None);
    trial.pass_ms(1);
    let report = trial.report.expect("it is over");
    assert_eq!(report.ended, Ended::Idle);
    assert_eq!((report.traffic.bytes_up, report.traffic.bytes_down), (5, 7));
    assert_eq!((trial.tally.bytes_up, trial.tally.bytes_down), (5, 7));
}

#[test]
fn a_peer_that_takes_nothing_of_what_the_kernel_holds_for_it_is_given_up() {
    let times = Times {
        stall_ms: 100,
        ..Times::default()
    };
    let mut trial = Trial::passthrough(times);
    trial.event(|flow, cx| flow.splice_waits(Leg::Client, cx));
    trial.pass_ms(90);
    // Waiting still does not begin to wait anew; a byte that went on does.
    trial.event(|flow, cx| flow.splice_waits(Leg::Client, cx));
    trial.event(|flow, cx| flow.spliced(Leg::Client, 1, cx));
    trial.event(|flow, cx| flow.splice_waits(Leg::Client, cx));
    trial.pass_ms(60);
    trial.event(|flow, cx| flow.splice_waits(Leg::Client, cx));
    trial.pass_ms(39);
    assert_eq!(trial.ended(), None);
    trial.pass_ms(1);
    let report = trial.report.expect("it is over");
    assert_eq!(report.ended, Ended::TargetStalled);
}

#[test]
fn a_passthrough_flow_ends_with_a_peer_that_is_gone() {
    let check = |leg: Leg, ended: Ended| {
        let mut trial = Trial::passthrough(NO_TIMES);
        trial.peer(leg).say(b"its last");
        trial.run();
        trial.peer(leg).finish(Finish::Broken);
        trial.run();
        assert_eq!(trial.ended(), Some(&ended));
        assert_eq!(trial.peer(leg.other()).heard, b"its last");

        let mut trial = Trial::passthrough(NO_TIMES);
        trial.peer(leg).refuses = true;
        trial.peer(leg.other()).say(b"to nobody");
        trial.run();
        assert_eq!(trial.ended(), Some(&ended));

        let mut trial = Trial::passthrough(NO_TIMES);
        trial.event(|flow, cx| flow.stop(Goodbye::NONE, cx));
        assert_eq!(trial.ended(), Some(&Ended::Stopped));
    };
    check(Leg::Client, Ended::ClientLost);
    check(Leg::Target, Ended::TargetLost);
}

#[test]
fn what_was_read_before_the_flow_comes_first() {
    let (client, mut client_peer) = tls_client(SUITE);
    let message = client_frame(Opcode::Binary, true, KEY, b"said early");
    let (early, late) = message.split_at(9);
    std::io::Write::write_all(&mut client_peer.writer(), late).expect("it is open");
    let mut sealed = Vec::new();
    client_peer
        .write_tls(&mut sealed)
        .expect("a vector takes it");
    let (sealed_early, sealed_late) = sealed.split_at(3);

    let mut flow = Flow::framed(client, Line::Plain, websocket(), TIMES, goodbye);
    assert!(flow.seed(Leg::Client, sealed_early));
    assert!(flow.seed_plain(Leg::Client, early));
    assert!(flow.seed_plain(Leg::Target, b"greeting"));
    assert!(
        !flow.seed(Leg::Target, &[0; RECEIVE_BYTES_MAX]),
        "no more than a receive brings"
    );
    let mut trial = Trial::new(flow, Some(client_peer), None);
    trial.client().say_raw(sealed_late);
    trial.run();
    assert_eq!(trial.target().heard, b"said early");
    assert_eq!(payload(&trial.client().heard), b"greeting");
}

#[test]
fn tiny_pieces_that_swell_to_more_than_a_block_are_kept() {
    let bytes = pattern(RECEIVE_BYTES_MAX - 5_000);
    let between = |client: bool, target: bool| {
        let (client, client_peer) = match client {
            true => {
                let (line, peer) = tls_client(SUITE);
                (line, Some(peer))
            }
            false => (Line::Plain, None),
        };
        let (target, tickets, target_peer) = match target {
            true => {
                let (line, tickets, peer) = tls_target(SUITE);
                (line, tickets, Some(peer))
            }
            false => (Line::Plain, Vec::new(), None),
        };
        let mut flow = Flow::framed(client, target, websocket(), TIMES, goodbye);
        assert!(flow.seed(Leg::Target, &tickets));
        Trial::new(flow, client_peer, target_peer)
    };
    for client in [false, true] {
        let mut trial = between(client, false);
        trial.client().is_reading = false;
        trial.target().say(&bytes);
        trial.target().finish(Finish::Ended);
        trial.run_in_pieces(1);
        assert_eq!(trial.pool.lent(), 2, "one queue is not enough");
        trial.client().is_reading = true;
        trial.run();
        assert!(payload(&trial.client().heard) == bytes);
        let words = close_frame(1000, "target_closed");
        assert!(trial.client().heard.ends_with(&words));
    }

    let mut trial = between(false, true);
    trial.target().is_reading = false;
    trial.client().say_message(&bytes);
    (0..200).for_each(|_| trial.client().say_message(b"short"));
    trial.client().say_close_frame(1000);
    trial.run_in_pieces(1);
    assert_eq!(trial.pool.lent(), 2, "one queue is not enough");
    trial.target().is_reading = true;
    trial.run();
    assert!(trial.target().heard == [bytes, b"short".repeat(200)].concat());
    assert!(trial.target().heard_close_notify);
}

#[test]
fn records_that_swell_to_more_than_a_block_are_kept() {
    let mut trial = secured(SUITE);
    trial.run();
    trial.client().is_reading = false;
    let tiny = RECEIVE_BYTES_MAX / 23 - 40;
    let bytes = pattern(16_000 + 3_900 + 16_384 + tiny);
    let (block, rest) = bytes.split_at(16_000 + 3_900);
    let (record, tiny) = rest.split_at(16_384);
    // The socket is full, and what a wanted receive allows stands in the block.
    for part in [&block[..16_000], &block[16_000..]] {
        trial.target().say(part);
        trial.run();
    }
    // Almost all of a record is kept when the next receive is armed.
    trial.target().say(record);
    let sealed = trial.target().intercept();
    let (early, late) = sealed.split_at(sealed.len() - 9);
    trial.target().say_raw(early);
    trial.run();
    trial.perform(Deed::Disarm(Leg::Target), 0);
    trial.target().say_raw(late);
    for byte in tiny {
        trial.target().say(&[*byte]);
    }
    trial.target().say_close_notify();
    trial.run_in_pieces(23);
    assert_eq!(trial.pool.lent(), 2, "one queue is not enough");
    trial.client().is_reading = true;
    trial.run();
    assert!(payload(&trial.client().heard) == bytes);
    assert!(trial.client().heard_close_notify);
}

/// A client whose records are the kernel's, and this target.
fn kernel_client(records: u64, target: Line) -> Flow {
    let client = Line::Kernel(KernelLine::new(records));
    Flow::framed(client, target, Framing::None, NO_TIMES, goodbye)
}

#[test]
fn bytes_under_the_kernels_tls_pass_as_they_are_and_the_end_is_an_alert_after_all_of_them() {
    let bytes = pattern(300_000);
    for first in Leg::BOTH {
        let mut trial = Trial::new(kernel_client(u64::MAX, Line::Plain), None, None);
        assert!(trial.flow().is_transparent());
        assert!(trial.flow().is_kernel(Leg::Client) && !trial.flow().is_kernel(Leg::Target));
        // Data waits behind a full socket, and the good-bye behind the data.
        trial.client().is_reading = first == Leg::Target;
        for leg in [first, first.other()] {
            trial.peer(leg).say(&bytes);
            trial.peer(leg).finish(match leg {
                Leg::Client => Finish::Closed,
                Leg::Target => Finish::Ended,
            });
            trial.run();
        }
        trial.client().is_reading = true;
        trial.run();
        assert!(trial.target().heard == bytes && trial.target().heard_end);
        assert!(trial.client().heard == [&bytes[..], &CLOSE_NOTIFY].concat());
        assert!(trial.client().heard_end);
        assert_eq!((trial.client().alerts, trial.target().alerts), (1, 0));
        let report = trial.report.expect("it is over");
        let ended = match first {
            Leg::Client => Ended::ClientClosed,
            Leg::Target => Ended::TargetClosed,
        };
        assert_eq!(report.ended, ended);
        let carried = (report.traffic.bytes_up, report.traffic.bytes_down);
        assert_eq!(carried, (300_000, 300_000), "an alert is no payload");
    }
}

#[test]
fn no_good_bye_is_said_for_a_peer_that_said_none() {
    // A target that is lost is no end that a client may believe in.
    let mut trial = Trial::new(kernel_client(u64::MAX, Line::Plain), None, None);
    trial.target().say(b"half of it");
    trial.run();
    trial.target().finish(Finish::Broken);
    trial.run();
    assert_eq!(trial.client().heard, b"half of it");
    assert!(trial.client().heard_end && trial.client().alerts == 0);
    assert_eq!(trial.ended(), Some(&Ended::TargetLost));

    // Nor is the end of a socket whose TLS was not closed, wherever it was opened.
    for (finish, is_closed) in [(Finish::Ended, false), (Finish::Closed, true)] {
        let (target, tickets, peer) = tls_target(SUITE);
        let mut flow = kernel_client(u64::MAX, target);
        assert!(flow.seed(Leg::Target, &tickets));
        let mut trial = Trial::new(flow, None, Some(peer));
        trial.client().say(b"all there is?");
        trial.client().finish(finish);
        trial.run();
        assert_eq!(trial.target().heard, b"all there is?");
        assert!(trial.target().heard_end);
        assert_eq!(trial.target().heard_close_notify, is_closed, "{finish:?}");
    }
}

#[test]
fn a_good_bye_that_was_heard_before_the_flow_is_passed_on_after_what_came_with_it() {
    let (client, peer) = tls_client(SUITE);
    let (target, tickets, target_peer) = tls_target(SUITE);
    let mut flow = Flow::framed(client, target, Framing::None, NO_TIMES, goodbye);
    assert!(flow.seed(Leg::Target, &tickets));
    assert!(flow.seed_plain(Leg::Client, b"a request"));
    flow.seed_close(Leg::Client);
    let mut trial = Trial::new(flow, Some(peer), Some(target_peer));
    assert!(!trial.flow().wants_bytes(Leg::Client));
    trial.run();
    assert_eq!(trial.target().heard, b"a request");
    assert!(trial.target().heard_close_notify && trial.target().heard_end);
    trial.target().say(b"its answer");
    trial.target().say_close_notify();
    trial.run();
    assert_eq!(trial.client().heard, b"its answer");
    assert!(trial.client().heard_close_notify && trial.client().heard_end);
    assert_eq!(trial.ended(), Some(&Ended::ClientClosed));
}

#[test]
fn a_key_that_the_kernel_can_not_change_ends_its_flow_before_it_is_worn_out() {
    let sends = |records: u64| {
        let mut trial = Trial::new(kernel_client(records, Line::Plain), None, None);
        let mut sends = 0;
        while trial.ended().is_none() && sends < 100 {
            trial.target().say(b"one more");
            trial.run();
            sends += 1;
        }
        (sends, trial.ended().cloned())
    };
    assert_eq!(sends(1), (1, Some(Ended::ClientLost)));
    assert_eq!(sends(50), (50, Some(Ended::ClientLost)));
    assert_eq!(sends(u64::MAX), (100, None));

    let mut trial = Trial::new(kernel_client(600, Line::Plain), None, None);
    trial.event(|flow, cx| flow.spliced(Leg::Client, 1 << 30, cx));
    trial.event(|flow, cx| flow.spliced(Leg::Target, 4 << 20, cx));
    trial.run();
    assert_eq!(
        trial.ended(),
        None,
        "what a client sends wears no key of ours"
    );
    trial.event(|flow, cx| flow.spliced(Leg::Target, 4 << 20, cx));
    trial.run();
    assert_eq!(trial.ended(), Some(&Ended::ClientLost));
}
