//! What one connection does: bulk, messages there and back, bursts.

use anyhow::{Result, ensure};

use super::{Carried, Shared, all, number, order};
use crate::load::command::{Command, MORE};
use crate::load::desktop::wait_until;
use crate::load::pattern::{PERIOD_BYTES, Pattern};
use crate::load::stream::{FRAME_BYTES, Stream};
use crate::load::work::{BURST_MESSAGES, Direction, MESSAGE_BYTES, Pace, Ping};
use crate::measure::monotonic_ns;

/// Messages that a worker warms up with, at least one a connection.
const WARM_MESSAGES: u64 = 20;

pub(super) async fn bulk(
    stream: &mut Stream,
    direction: Direction,
    bytes: u64,
    mut pattern: Pattern,
) -> Result<()> {
    ensure!(
        bytes.is_multiple_of(PERIOD_BYTES as u64),
        "bulk flows carry multiples of {PERIOD_BYTES} bytes"
    );
    match direction {
        Direction::Up => {
            order(stream, Command::Sink { bytes }).await?;
            stream.writer.prepare(pattern.period(), FRAME_BYTES);
            for _ in 0..bytes / PERIOD_BYTES as u64 {
                stream.writer.send_prepared().await?;
            }
            let arrived = number(stream).await?;
            ensure!(arrived == bytes, "{arrived} of {bytes} bytes arrived");
            Ok(())
        }
        Direction::Down => {
            order(stream, Command::Source { bytes }).await?;
            stream
                .reader
                .receive_exactly(bytes, &mut |arrived| pattern.check(arrived))
                .await
        }
    }
}

/// One message there and back.
pub(super) async fn ping(stream: &mut Stream, kind: u8, pattern: &Pattern) -> Result<()> {
    let mut message = [kind; MESSAGE_BYTES];
    message[1..].copy_from_slice(&pattern.period()[1..MESSAGE_BYTES]);
    let mut at = 0;
    stream
        .exchange(&message, MESSAGE_BYTES, &mut |bytes| {
            ensure!(
                bytes == &message[at..at + bytes.len()],
                "another message came back"
            );
            at += bytes.len();
            Ok(())
        })
        .await
}

/// Splits the connections among so many workers as have a message under way at a time.
pub(super) async fn pings(
    streams: Vec<Stream>,
    work: &Ping,
    warm: bool,
    shared: &Shared,
) -> Result<(Vec<Stream>, Carried)> {
    let mut groups: Vec<Vec<Stream>> = Vec::new();
    groups.resize_with(work.in_flight.min(streams.len()), Vec::new);
    let count = groups.len();
    for (at, stream) in streams.into_iter().enumerate() {
        groups[at % count].push(stream);
    }
    let workers = groups.into_iter().enumerate().map(|(at, group)| {
        let (work, shared) = (work.clone(), shared.clone());
        // Those with a rate don't all begin at once.
        let part = at as f64 / count as f64;
        async move { take_turns(group, &work, part, warm, &shared).await }
    });
    let (groups, carried): (Vec<_>, Vec<_>) = all(workers).await?.into_iter().unzip();
    let messages = carried.into_iter().sum();
    let bytes = messages * 2 * MESSAGE_BYTES as u64;
    let streams = groups.into_iter().flatten().collect();
    Ok((streams, Carried { bytes, messages }))
}

async fn take_turns(
    mut streams: Vec<Stream>,
    work: &Ping,
    part: f64,
    warm: bool,
    shared: &Shared,
) -> Result<(Vec<Stream>, u64)> {
    let interval_ns = match work.pace {
        Pace::Closed => None,
        Pace::Hertz(hertz) => Some((1e9 / hertz) as u64),
    };
    let begin = monotonic_ns();
    let end = begin + (work.seconds * 1e9) as u64;
    let mut due = begin + interval_ns.map_or(0, |ns| (ns as f64 * part) as u64);
    let mut messages = 0;
    let warm_messages = WARM_MESSAGES.max(streams.len() as u64);
    let turns = streams.len();
    for turn in (0..turns).cycle() {
        let is_over = if warm {
            messages >= warm_messages
        } else {
            monotonic_ns().max(due) >= end
        };
        if is_over {
            break;
        }
        let from = match interval_ns {
            Some(interval_ns) => {
                let from = wait_until(due).await;
                due += interval_ns;
                from
            }
            None => monotonic_ns(),
        };
        ping(&mut streams[turn], MORE, &shared.pattern).await?;
        let ns = monotonic_ns().saturating_sub(from);
        shared.latency.borrow_mut().record(ns);
        messages += 1;
    }
    Ok((streams, messages))
}

pub(super) async fn bursts(
    stream: &mut Stream,
    rounds: u64,
    pause_ms: u64,
    shared: &Shared,
) -> Result<()> {
    order(stream, Command::Bursts { rounds }).await?;
    let message = shared.pattern.period()[..MESSAGE_BYTES].to_vec();
    let mut due = monotonic_ns();
    for _ in 0..rounds {
        due += pause_ms * 1_000_000;
        let from = wait_until(due).await;
        stream.writer.prepare(&message, MESSAGE_BYTES);
        // Each in a write of its own: it is the relay that must not hold the second back.
        for _ in 0..BURST_MESSAGES {
            stream.writer.send_prepared().await?;
        }
        let mut expected = shared.pattern.restarted();
        stream
            .reader
            .receive_exactly(MESSAGE_BYTES as u64, &mut |bytes| expected.check(bytes))
            .await?;
        let ns = monotonic_ns().saturating_sub(from);
        shared.latency.borrow_mut().record(ns);
    }
    Ok(())
}
