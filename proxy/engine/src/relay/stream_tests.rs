//! What a relay reports of the TCP streams of both legs, over real sockets, on every driver.

use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use postern_relay::{Ended, Flow, Goodbye, Leg, StreamBytes, Times};
use socket2::Socket;

use super::tests::{connection, drink, framed, in_time, joined, on_each_relay, passthrough, pour};
use crate::clock;

const GOODBYE: Goodbye = Goodbye {
    code: 4100,
    reason: "enough",
};

/// What a close frame with the good-bye takes.
const GOODBYE_BYTES: u64 = 2 + 2 + 6;

fn stream(received: u64, sent: u64) -> StreamBytes {
    StreamBytes {
        received,
        sent,
        unsent: 0,
    }
}

/// Bytes that have arrived at a socket and are not read.
fn waiting(socket: &Socket) -> u64 {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 20];
    socket.peek(&mut buffer).map_or(0, |bytes| bytes as u64)
}

fn reset(socket: Socket) {
    socket
        .set_linger(Some(Duration::ZERO))
        .expect("a close that resets");
}

#[test]
fn streams_are_counted_whole_whether_they_are_spliced_or_not() {
    for bytes in [1, 100_000, 64 << 20] {
        on_each_relay(move |relay| async move {
            let (client, our_client) = connection();
            let (target, our_target) = connection();
            let mut flow = passthrough();
            flow.seed_stream(Leg::Client, stream(300, 4000));
            let carriage = relay.carry(our_client, our_target, flow);
            let peers = [(client, bytes), (target, bytes / 2)].map(|(peer, bytes)| {
                let mut writing = peer.try_clone().expect("clones");
                let mut reading = peer;
                let writer = thread::spawn(move || {
                    pour(&mut writing, bytes);
                    writing.shutdown(Shutdown::Write).expect("shuts down");
                });
                (writer, thread::spawn(move || drink(&mut reading)))
            });
            for (writer, reader) in peers {
                joined(writer).await;
                joined(reader).await;
            }
            let mut report = in_time(carriage).await;
            for stream in report.streams.iter_mut().flatten() {
                // A peer that reads slowly is still being sent to when its socket is closed.
                stream.unsent = 0;
            }
            let (up, down) = (bytes as u64, bytes as u64 / 2);
            let expected = [stream(300 + up, 4000 + down), stream(down, up)];
            assert_eq!(report.streams, Some(expected));
        });
    }
}

#[test]
fn last_words_count_and_so_does_what_nobody_read() {
    on_each_relay(|relay| async move {
        let (mut client, our_client) = connection();
        let (mut target, our_target) = connection();
        let carriage = relay.carry(our_client, our_target, framed());
        target.write_all(b"hello").expect("writes");
        // A header of two bytes, then what the target said.
        let mut came = [0; 7];
        client.read_exact(&mut came).expect("reads");
        carriage.stop(GOODBYE);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).expect("reads");
        assert_eq!(rest.len() as u64, GOODBYE_BYTES);
        // It comes when nobody wants it any more.
        client.write_all(&[0; 1000]).expect("writes");
        client.shutdown(Shutdown::Write).expect("shuts down");
        let report = in_time(carriage).await;
        let expected = [stream(1000, 7 + GOODBYE_BYTES), stream(5, 0)];
        assert_eq!(
            (report.ended, report.streams),
            (Ended::Stopped, Some(expected))
        );
    });
}

#[test]
fn what_a_reset_made_the_kernel_drop_was_not_sent() {
    on_each_relay(|relay| async move {
        let (client, our_client) = connection();
        let (target, our_target) = connection();
        let carriage = relay.carry(our_client, our_target, Flow::passthrough(Times::default()));
        client.set_nonblocking(true).expect("option");
        let (mut client, target) = (client, Socket::from(target));
        // Until every buffer on the way is full and stays so.
        let mut idle = 0;
        while idle < 20 {
            match client.write(&[7; 64 * 1024]) {
                Ok(_) => idle = 0,
                Err(_) => idle += 1,
            }
            clock::sleep(Duration::from_millis(5)).await;
        }
        let arrived = waiting(&target);
        reset(target);
        let report = in_time(carriage).await;
        let [from_client, to_target] = report.streams.expect("counted");
        assert_eq!(report.ended, Ended::TargetLost);
        assert_eq!(to_target, stream(0, arrived));
        assert!(
            from_client.received > arrived,
            "{from_client:?} of {arrived}"
        );
    });
}
