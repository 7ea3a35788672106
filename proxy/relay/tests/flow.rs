//! Flows on a virtual clock: who ends them, when, and what both peers see of it.

mod peers;
mod trial;

use postern_relay::Ended;
use postern_relay::flow::{Finish, Goodbye, Leg, Times};
use postern_relay::memory::BLOCK_BYTES;
use postern_wire::websocket::{self, Opcode, client_frame};
use trial::{KEY, TIMES, Trial, frames, goodbye, payload};

fn times(absolute_s: u64, idle_s: u64) -> Times {
    Times {
        absolute_ms: absolute_s * 1000,
        idle_ms: idle_s * 1000,
        ..TIMES
    }
}

/// The close frame that a client gets.
fn last_words(ended: &Ended) -> Vec<u8> {
    let Goodbye { code, reason } = goodbye(ended);
    websocket::close_frame(code, reason)
}

#[test]
fn bytes_cross_both_ways_and_a_clients_close_reaches_the_target() {
    let mut trial = Trial::websocket(TIMES);
    for message in [&b"one"[..], &[b'x'; 70_000]] {
        trial.client().say_message(message);
    }
    trial.client().say_close_frame(1000);
    trial.run();
    assert_eq!(
        trial.target().heard,
        [&b"one"[..], &[b'x'; 70_000]].concat()
    );
    assert!(trial.target().heard_end);
    // Only now, with the input closed, does it answer: half-close works.
    trial.pass_ms(20_000);
    trial.target().say(b"late answer");
    trial.target().finish(Finish::Ended);
    trial.run();
    let mut expected = websocket::binary_frame(b"late answer");
    expected.extend(last_words(&Ended::TargetClosed));
    assert_eq!(trial.client().heard, expected);
    assert!(trial.client().heard_end);
    trial.client().finish(Finish::Ended);
    trial.run();
    let report = trial.report.expect("it is over");
    assert_eq!(report.ended, Ended::ClientClosed);
    let counts = (
        report.traffic.bytes_up,
        report.traffic.messages_up,
        report.traffic.bytes_down,
        report.traffic.messages_down,
    );
    assert_eq!(counts, (70_003, 2, 11, 1));
    let tally = &trial.tally;
    let tallied = (
        tally.bytes_up,
        tally.messages_up,
        tally.bytes_down,
        tally.messages_down,
    );
    assert_eq!(tallied, counts);
    assert!(tally.latency.iter().sum::<u64>() > 0);
}

#[test]
fn a_target_that_ends_lets_the_client_finish() {
    let mut trial = Trial::websocket(TIMES);
    trial.target().finish(Finish::Ended);
    trial.run();
    assert_eq!(trial.client().heard, last_words(&Ended::TargetClosed));
    trial.client().say_message(b"last words");
    trial.client().say_close_frame(1000);
    trial.run();
    assert_eq!(trial.target().heard, b"last words");
    assert!(trial.target().heard_end);
    trial.client().finish(Finish::Ended);
    trial.run();
    assert_eq!(trial.ended(), Some(&Ended::TargetClosed));
}

#[test]
fn timers_end_a_flow_on_time_and_say_so() {
    let check = |times: Times, expected: Ended, at_ms: u64| {
        let mut trial = Trial::websocket(times);
        trial.client().answers_pings = true;
        trial.pass_ms(at_ms - 1);
        assert!(trial.client().heard.is_empty(), "{expected:?} too early");
        trial.pass_ms(1);
        assert_eq!(trial.client().heard, last_words(&expected));
        trial.pass_ms(2_000);
        assert_eq!(trial.ended(), Some(&expected));
    };
    check(times(100, 0), Ended::Expired, 100_000);
    check(times(3600, 90), Ended::Idle, 90_000);
    check(times(60, 90), Ended::Expired, 60_000);
}

#[test]
fn input_puts_the_idle_end_off_and_pongs_do_not() {
    let mut trial = Trial::websocket(times(3600, 60));
    trial.client().answers_pings = true;
    trial.pass_ms(39_000);
    trial.client().say_message(b"k");
    trial.pass_ms(59_999);
    assert_eq!(trial.client().heard, b"");
    trial.pass_ms(2_001);
    assert_eq!(trial.ended(), Some(&Ended::Idle));
}

#[test]
fn a_silent_client_is_asked_once_and_given_up_after_two_pings_time() {
    let mut trial = Trial::websocket(TIMES);
    trial.pass_ms(19_999);
    assert_eq!(trial.client().heard, b"");
    trial.pass_ms(20_000);
    assert_eq!(trial.client().heard, websocket::ping(&[]));
    trial.pass_ms(1);
    // No words are left for it, but the end of the connection.
    assert!(trial.client().heard_end && trial.target().heard_end);
    trial.pass_ms(2_000);
    assert_eq!(trial.ended(), Some(&Ended::ClientSilent));
    assert!((40_000..=42_000).contains(&trial.ended_ms));
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let mut trial = Trial::websocket(TIMES);
    for _ in 0..10 {
        trial.pass_ms(39_000);
        // Nobody asked for this pong.
        trial
            .client()
            .say(&client_frame(Opcode::Pong, true, KEY, &[]));
        trial.run();
    }
    assert_eq!(trial.ended(), None);
    assert_eq!(trial.client().heard, websocket::ping(&[]).repeat(10));
}

#[test]
fn a_stalled_reader_survives_a_minute_and_loses_nothing() {
    let mut trial = Trial::websocket(TIMES);
    trial.client().is_reading = false;
    trial.target().say(&vec![b'y'; 1 << 20]);
    trial.target().finish(Finish::Ended);
    trial.pass_ms(60_000);
    assert_eq!(trial.ended(), None);
    trial.client().is_reading = true;
    trial.run();
    let heard = &trial.client().heard;
    assert_eq!(payload(heard), vec![b'y'; 1 << 20]);
    assert!(heard.ends_with(&last_words(&Ended::TargetClosed)));
    // It has half a minute from then on.
    trial.pass_ms(29_999);
    trial.client().say_close_frame(1000);
    trial.client().finish(Finish::Ended);
    trial.run();
    let report = trial.report.expect("it is over");
    assert_eq!(report.ended, Ended::TargetClosed);
    assert_eq!(report.traffic.bytes_down, 1 << 20);
}

#[test]
fn a_reader_that_never_reads_is_given_up_and_bounds_what_is_taken() {
    let mut trial = Trial::websocket(TIMES);
    trial.client().is_reading = false;
    trial.target().say(&vec![b'y'; 1 << 20]);
    trial.run();
    let left = trial.target().intercept();
    assert!(left.len() > (1 << 20) - 3 * BLOCK_BYTES);
    trial.pass_ms(119_999);
    assert_eq!(trial.ended(), None);
    trial.pass_ms(2_001);
    assert_eq!(trial.ended(), Some(&Ended::ClientStalled));
    assert!((120_000..=122_000).contains(&trial.ended_ms));
}

#[test]
fn a_target_that_never_reads_is_given_up_and_the_client_is_told() {
    let mut trial = Trial::websocket(TIMES);
    trial.target().is_reading = false;
    trial.client().say_message(&vec![b'y'; 1 << 19]);
    // The client can't be heard behind a target that takes nothing: it is not silent.
    trial.pass_ms(119_999);
    assert_eq!(payload(&trial.client().heard), b"");
    trial.pass_ms(1);
    assert!(
        trial
            .client()
            .heard
            .ends_with(&last_words(&Ended::TargetStalled))
    );
    trial.pass_ms(2_000);
    assert_eq!(trial.ended(), Some(&Ended::TargetStalled));
}

#[test]
fn a_client_that_could_not_be_heard_has_time_to_speak() {
    let mut trial = Trial::websocket(TIMES);
    trial.target().is_reading = false;
    trial.client().say_message(&vec![b'y'; 1 << 19]);
    trial.pass_ms(100_000);
    trial.target().is_reading = true;
    trial.pass_ms(39_999);
    assert_eq!(trial.ended(), None);
    assert_eq!(trial.target().heard.len(), 1 << 19);
    trial.pass_ms(2_001);
    assert_eq!(trial.ended(), Some(&Ended::ClientSilent));
}

#[test]
fn a_stop_ends_it_at_once_without_cutting_a_frame() {
    let mut trial = Trial::websocket(TIMES);
    trial.client().is_reading = false;
    trial.target().say(&vec![b'z'; 1 << 20]);
    trial.pass_ms(5_000);
    let killed = Goodbye {
        code: 4000,
        reason: "killed",
    };
    let idle = Goodbye {
        code: 4004,
        reason: "idle",
    };
    trial.event(|flow, cx| flow.stop(killed, cx));
    trial.event(|flow, cx| flow.stop(idle, cx));
    trial.client().is_reading = true;
    trial.run();
    let frames = frames(&trial.client().heard)
        .into_iter()
        .map(|(opcode, payload)| (opcode, payload.expect("only whole frames").to_vec()))
        .collect::<Vec<_>>();
    let (close, data) = frames.split_last().expect("a close frame");
    assert_eq!(close.1, [&4000_u16.to_be_bytes()[..], b"killed"].concat());
    assert!(!data.is_empty() && data.iter().all(|frame| frame.0 == 2));
    trial.pass_ms(1_000);
    assert_eq!(trial.ended(), Some(&Ended::Stopped));
    assert!(trial.ended_ms <= 6_000);
}

#[test]
fn a_client_that_does_not_read_its_good_bye_is_left_in_time() {
    let mut trial = Trial::websocket(TIMES);
    trial.client().is_reading = false;
    trial.target().say(&vec![b'z'; 1 << 20]);
    trial.run();
    trial.event(|flow, cx| flow.stop(Goodbye::NONE, cx));
    trial.pass_ms(1_999);
    assert_eq!(trial.ended(), None);
    trial.pass_ms(1);
    assert_eq!(trial.ended(), Some(&Ended::Stopped));
}

#[test]
fn what_a_client_says_after_the_end_is_dropped_until_it_ends() {
    let mut trial = Trial::websocket(TIMES);
    trial.event(|flow, cx| flow.stop(Goodbye::NONE, cx));
    for _ in 0..20 {
        trial.client().say_message(&[b'x'; 20_000]);
        trial.run();
    }
    assert!(trial.client().intercept().is_empty(), "all of it is read");
    assert_eq!(trial.target().heard, b"");
    assert_eq!(trial.ended(), None);
    trial.client().finish(Finish::Ended);
    trial.run();
    assert_eq!(trial.ended(), Some(&Ended::Stopped));
    assert_eq!(trial.ended_ms, 0);
}

#[test]
fn broken_frames_end_it_with_their_code_and_reach_no_target() {
    let check = |bytes: Vec<u8>, code: u16, label: &'static str| {
        let mut trial = Trial::websocket(TIMES);
        trial.client().say(&bytes);
        trial.client().say_message(b"after it");
        trial.run();
        assert_eq!(trial.client().heard, websocket::close_frame(code, label));
        trial.pass_ms(1_000);
        assert_eq!(trial.ended(), Some(&Ended::FrameRefused(code, label)));
        assert!(trial.target().heard.is_empty(), "{label}");
    };
    check(websocket::binary_frame(b"bare"), 1002, "unmasked_frame");
    check(vec![0xc2, 0x81, 0, 0, 0, 0, 0], 1002, "reserved_bits");
    check(
        client_frame(Opcode::Text, true, KEY, b"text"),
        1003,
        "text_refused",
    );
    check(
        vec![0x82, 0xff, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0],
        1009,
        "frame_too_long",
    );
}

#[test]
fn the_end_of_either_peer_is_named_and_said() {
    struct Case {
        leg: Leg,
        finish: Finish,
        ended: Ended,
        words: Vec<u8>,
    }
    let check = |case: Case| {
        let mut trial = Trial::websocket(TIMES);
        trial.client().say_message(b"up");
        trial.target().say(b"down");
        trial.run();
        trial.peer(case.leg).finish(case.finish);
        trial.run();
        let expected = [websocket::binary_frame(b"down"), case.words].concat();
        assert_eq!(trial.client().heard, expected, "{:?}", case.ended);
        if case.leg == Leg::Client {
            assert!(trial.target().heard_end, "{:?}", case.ended);
        }
        trial.pass_ms(32_000);
        assert_eq!(trial.ended(), Some(&case.ended));
        assert_eq!(trial.target().heard, b"up");
    };
    let case = |leg, finish, ended: Ended, words: Vec<u8>| Case {
        leg,
        finish,
        ended,
        words,
    };
    let none = Vec::new;
    let closed = last_words(&Ended::TargetClosed);
    let lost = last_words(&Ended::TargetLost);
    use Finish::{Broken, Ended as Orderly};
    check(case(Leg::Client, Orderly, Ended::ClientLost, none()));
    check(case(Leg::Client, Broken, Ended::ClientLost, none()));
    check(case(Leg::Target, Orderly, Ended::TargetClosed, closed));
    check(case(Leg::Target, Broken, Ended::TargetLost, lost));
}

#[test]
fn a_send_that_fails_loses_its_leg() {
    let check = |leg: Leg, ended: Ended, words: Vec<u8>| {
        let mut trial = Trial::websocket(TIMES);
        trial.peer(leg).refuses = true;
        match leg {
            Leg::Client => trial.target().say(b"down"),
            Leg::Target => trial.client().say_message(b"up"),
        }
        trial.pass_ms(2_000);
        assert_eq!(trial.ended(), Some(&ended));
        assert_eq!(trial.client().heard, words);
        assert_eq!(trial.target().heard, b"");
        assert_eq!(
            trial.report.expect("it is over").traffic,
            Default::default()
        );
    };
    check(Leg::Client, Ended::ClientLost, Vec::new());
    let words = last_words(&Ended::TargetLost);
    check(Leg::Target, Ended::TargetLost, words);
}

#[test]
fn a_half_closed_flow_is_ended_in_time() {
    let mut trial = Trial::websocket(TIMES);
    trial.client().say_close_frame(1000);
    trial.pass_ms(29_999);
    assert_eq!(trial.client().heard, b"");
    trial.target().say(b"not yet");
    trial.pass_ms(1);
    let mut expected = websocket::binary_frame(b"not yet");
    expected.extend(last_words(&Ended::ClientClosed));
    assert_eq!(trial.client().heard, expected);
    trial.target().say(b"too late");
    trial.pass_ms(1_000);
    assert_eq!(trial.client().heard, expected);
    assert_eq!(trial.ended(), Some(&Ended::ClientClosed));
}

#[test]
fn the_first_cause_counts() {
    let mut trial = Trial::websocket(TIMES);
    trial.client().say_close_frame(1000);
    trial.run();
    trial.event(|flow, cx| flow.stop(Goodbye::NONE, cx));
    trial.target().finish(Finish::Broken);
    trial.pass_ms(2_000);
    assert_eq!(trial.ended(), Some(&Ended::ClientClosed));
}

#[test]
fn only_the_newest_ping_is_answered_and_between_frames() {
    let mut trial = Trial::websocket(TIMES);
    trial.client().is_reading = false;
    trial.target().say(&vec![b'z'; 1 << 18]);
    trial.run();
    for at in 0..100_u8 {
        trial
            .client()
            .say(&client_frame(Opcode::Ping, true, KEY, &[at]));
    }
    trial.run();
    trial.client().is_reading = true;
    trial.run();
    let heard = &trial.client().heard;
    let pongs: Vec<_> = frames(heard)
        .into_iter()
        .filter(|frame| frame.0 == 10)
        .collect();
    assert_eq!(pongs, [(10, Some(&[99_u8][..]))]);
    assert_eq!(payload(heard).len(), 1 << 18);
}

#[test]
fn an_abort_ends_it_without_a_word() {
    let mut trial = Trial::websocket(TIMES);
    trial.target().say(b"unheard");
    trial.event(|flow, _| flow.abort());
    trial.run();
    assert_eq!(trial.ended(), Some(&Ended::Stopped));
    assert_eq!(trial.client().heard, b"");
}

#[test]
fn frames_may_be_cut_anywhere() {
    for piece in (1..300).chain([1_000, 5_000]) {
        let mut trial = Trial::websocket(TIMES);
        let mut said = Vec::new();
        for length in (0..40_usize)
            .chain([124, 125, 126, 127, 300, 70_000])
            .chain(0..40)
        {
            let message = vec![length.to_le_bytes()[0]; length];
            trial.client().say_message(&message);
            said.extend(message);
            if length % 5 == 0 {
                let ping = vec![b'p'; length.min(125)];
                trial
                    .client()
                    .say(&client_frame(Opcode::Ping, true, KEY, &ping));
            }
        }
        trial.run_in_pieces(piece);
        assert!(trial.target().heard == said, "in pieces of {piece}");
        let last = frames(&trial.client().heard).pop();
        assert_eq!(last, Some((10, Some(&[b'p'; 35][..]))));
    }
}

#[test]
fn a_target_that_is_gone_after_its_end_keeps_nobody_waiting() {
    let mut trial = Trial::websocket(TIMES);
    trial.target().finish(Finish::Ended);
    trial.run();
    trial.target().refuses = true;
    trial.client().say_message(b"to nobody");
    trial.pass_ms(1_000);
    assert_eq!(trial.ended(), Some(&Ended::TargetClosed));
    assert_eq!(trial.client().heard, last_words(&Ended::TargetClosed));
}
