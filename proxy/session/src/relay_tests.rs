//! The relay on a virtual clock: who ends it, when, and what both peers see of it.

use postern_wire::websocket::{DecoderLimits, TextPolicy, client_frame};

use super::*;
use crate::trial::{Pipe, TrialCore, pipe};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn desktop() -> (Desktop<Pipe, Pipe>, Pipe, Pipe) {
    let (browser, browser_peer) = pipe();
    let (target, target_peer) = pipe();
    let limits = DecoderLimits {
        frame_bytes_max: 1 << 20,
    };
    let desktop = Desktop {
        browser,
        inbox: Inbox::new(),
        decoder: Decoder::new(limits, TextPolicy::Refuse),
        target,
    };
    (desktop, browser_peer, target_peer)
}

fn durations(absolute_s: u64, idle_s: u64) -> Durations {
    Durations {
        absolute: Duration::from_secs(absolute_s),
        idle: Duration::from_secs(idle_s),
    }
}

/// Runs a relay beside its two peers; the outcome, its time, and what the peers made.
fn trial<A, B>(
    durations: Durations,
    stop: &Stop,
    browser: impl AsyncFnOnce(&TrialCore, Pipe) -> A,
    target: impl AsyncFnOnce(&TrialCore, Pipe) -> B,
) -> (Outcome, Traffic, u64, A, B) {
    let core = TrialCore::new();
    let limits = Limits::default();
    let (desktop, browser_peer, target_peer) = desktop();
    let relay = async {
        let (outcome, traffic) = run(&core, &limits, desktop, durations, stop).await;
        (outcome, traffic, core.elapsed_ms())
    };
    let peers = futures_lite::future::zip(browser(&core, browser_peer), target(&core, target_peer));
    let ((outcome, traffic, at), (a, b)) = core.run(futures_lite::future::zip(relay, peers));
    (outcome, traffic, at, a, b)
}

async fn read_all(mut pipe: Pipe) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)
        .await
        .expect("pipes do not fail reading");
    bytes
}

/// Answers pings until the relay is over; what came beside pings.
async fn answer_pings(mut pipe: Pipe) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut chunk = [0; 512];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        if chunk[..read] == websocket::ping(&[]) {
            let pong = client_frame(Opcode::Pong, true, KEY, &[]);
            pipe.write_all(&pong).await.expect("the relay reads");
        } else {
            rest.extend_from_slice(&chunk[..read]);
        }
    }
    rest
}

#[test]
fn bytes_cross_both_ways_and_a_browsers_close_reaches_the_target() {
    let (outcome, traffic, _, browser, target) = trial(
        durations(3600, 0),
        &Stop::default(),
        async |_, mut pipe| {
            for message in [&b"one"[..], &[b'x'; 70_000]] {
                let frame = client_frame(Opcode::Binary, true, KEY, message);
                pipe.write_all(&frame).await.expect("the relay reads");
            }
            let goodbye = client_frame(Opcode::Close, true, KEY, &1000_u16.to_be_bytes());
            pipe.write_all(&goodbye).await.expect("the relay reads");
            read_all(pipe).await
        },
        async |_, mut pipe| {
            let mut heard = Vec::new();
            pipe.read_to_end(&mut heard).await.expect("the input ends");
            // Only now, with the input closed, does it answer: half-close works.
            pipe.write_all(b"late answer")
                .await
                .expect("the browser still listens");
            heard
        },
    );
    assert_eq!(outcome, Outcome::BrowserClosed);
    assert_eq!(target, [&b"one"[..], &[b'x'; 70_000]].concat());
    let mut expected = websocket::binary_frame(b"late answer");
    expected.extend(websocket::close_frame(1000, "target_closed"));
    assert_eq!(browser, expected);
    let counts = (
        traffic.bytes_up,
        traffic.messages_up,
        traffic.bytes_down,
        traffic.messages_down,
    );
    assert_eq!(counts, (70_003, 2, 11, 1));
}

#[test]
fn a_target_that_ends_lets_the_browser_finish() {
    let (outcome, _, _, browser, target) = trial(
        durations(3600, 0),
        &Stop::default(),
        async |_, mut pipe| {
            let goodbye = websocket::close_frame(1000, "target_closed");
            let mut heard = vec![0; goodbye.len()];
            pipe.read_exact(&mut heard).await.expect("a close frame");
            pipe.write_all(&client_frame(Opcode::Binary, true, KEY, b"last words"))
                .await
                .expect("reads");
            pipe.write_all(&client_frame(Opcode::Close, true, KEY, &[]))
                .await
                .expect("reads");
            heard == goodbye
        },
        async |_, mut pipe| {
            pipe.close().await.expect("closes");
            read_all(pipe).await
        },
    );
    assert_eq!((outcome, browser), (Outcome::TargetClosed, true));
    assert_eq!(target, b"last words");
}

#[test]
fn timers_end_a_session_on_time_and_say_so() {
    let check = |limits: Durations, expected: Outcome, at_ms: u64| {
        let (outcome, _, ended, browser, _) = trial(
            limits,
            &Stop::default(),
            async |_, pipe| answer_pings(pipe).await,
            async |_, pipe| read_all(pipe).await,
        );
        let meaning = expected.meaning();
        assert_eq!(
            browser,
            websocket::close_frame(meaning.close, meaning.label)
        );
        assert_eq!(outcome, expected);
        // The good-bye itself may take up to two seconds.
        assert!(
            (at_ms..=at_ms + 2_100).contains(&ended),
            "{expected:?} at {ended} ms"
        );
    };
    check(durations(100, 0), Outcome::Expired, 100_000);
    check(durations(3600, 90), Outcome::Idle, 90_000);
    check(durations(60, 90), Outcome::Expired, 60_000);
}

#[test]
fn input_puts_the_idle_end_off_and_pongs_do_not() {
    let (outcome, _, ended, _, _) = trial(
        durations(3600, 60),
        &Stop::default(),
        async |core, mut pipe| {
            core.sleep(Duration::from_secs(39)).await;
            pipe.write_all(&client_frame(Opcode::Binary, true, KEY, b"k"))
                .await
                .expect("reads");
            answer_pings(pipe).await
        },
        async |_, pipe| read_all(pipe).await,
    );
    assert_eq!(outcome, Outcome::Idle);
    assert!((99_000..=101_500).contains(&ended), "{ended} ms");
}

#[test]
fn a_silent_browser_is_given_up_after_two_pings_time() {
    let (outcome, _, ended, _, _) = trial(
        durations(3600, 0),
        &Stop::default(),
        async |core, pipe| {
            core.sleep(Duration::from_secs(200)).await;
            drop(pipe);
        },
        async |_, pipe| read_all(pipe).await,
    );
    assert_eq!(outcome, Outcome::BrowserSilent);
    assert!((40_000..=47_000).contains(&ended), "{ended} ms");
}

#[test]
fn a_stalled_reader_survives_thirty_seconds_and_loses_nothing() {
    let (outcome, traffic, _, received, ()) = trial(
        durations(3600, 0),
        &Stop::default(),
        async |core, pipe| {
            core.sleep(Duration::from_secs(30)).await;
            read_all(pipe).await.len()
        },
        async |_, mut pipe| {
            pipe.write_all(&vec![b'y'; 1 << 20])
                .await
                .expect("the relay takes it all");
            pipe.close().await.expect("closes");
        },
    );
    assert_eq!(outcome, Outcome::TargetClosed);
    assert_eq!(traffic.bytes_down, 1 << 20);
    assert!(received > 1 << 20);
}

#[test]
fn a_reader_that_never_reads_is_given_up_and_bounds_what_is_taken() {
    let (outcome, traffic, ended, _, ()) = trial(
        durations(3600, 0),
        &Stop::default(),
        async |core, pipe| {
            core.sleep(Duration::from_secs(400)).await;
            drop(pipe);
        },
        async |_, mut pipe| {
            // The relay goes away before it has taken all this.
            let _ = pipe.write_all(&vec![b'y'; 1 << 20]).await;
        },
    );
    assert_eq!(outcome, Outcome::BrowserStalled);
    assert!((120_000..=130_000).contains(&ended), "{ended} ms");
    assert!(
        traffic.bytes_down <= 2 * RELAY_BUFFER_BYTES as u64,
        "{traffic:?}"
    );
}

#[test]
fn a_stop_ends_it_at_once_without_cutting_a_frame() {
    let stop = Stop::default();
    let (outcome, _, ended, browser, ()) = trial(
        durations(3600, 0),
        &stop,
        async |core, pipe| {
            core.sleep(Duration::from_secs(5)).await;
            stop.raise(Outcome::Killed);
            stop.raise(Outcome::Idle);
            read_all(pipe).await
        },
        async |_, mut pipe| {
            // The relay ends while this is under way.
            let _ = pipe.write_all(&vec![b'z'; 1 << 20]).await;
        },
    );
    assert_eq!(outcome, Outcome::Killed);
    assert!(ended <= 7_000, "{ended} ms");
    let goodbye = websocket::close_frame(4000, "killed");
    assert!(browser.ends_with(&goodbye));
    let mut frames = &browser[..browser.len() - goodbye.len()];
    while let [0x82, 126, high, low, rest @ ..] = frames {
        frames = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    assert!(
        frames.is_empty(),
        "only whole frames stand before the close frame"
    );
}

#[test]
fn broken_frames_end_it_with_their_code_and_reach_no_target() {
    let check = |bytes: Vec<u8>, code: u16, label: &'static str| {
        let (outcome, _, _, browser, target) = trial(
            durations(3600, 0),
            &Stop::default(),
            async |_, mut pipe| {
                pipe.write_all(&bytes).await.expect("the relay reads");
                read_all(pipe).await
            },
            async |_, pipe| read_all(pipe).await,
        );
        assert_eq!(outcome, Outcome::FrameRefused(code, label));
        assert_eq!(browser, websocket::close_frame(code, label));
        assert!(target.is_empty(), "{label}");
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
