//! The recorded RDP workload, both ends: screen updates of recorded sizes and rates down, input up.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::measured::Latency;
use super::pattern::Pattern;
use super::stream::{FRAME_BYTES, Reader, Stream, Writer};
use crate::measure::monotonic_ns;

/// Screen updates a second, drawn anew for each.
const UPDATE_HERTZ: (u64, u64) = (5, 30);

/// Bytes of an ordinary update.
const UPDATE_BYTES: (u64, u64) = (1_000, 8_000);

/// One update in so many is a burst, as when a window scrolls.
const BURST_EVERY: u64 = 10;

/// What a burst adds: five PDUs of the longest kind.
const BURST_BYTES: usize = 5 * 16_400;

/// Input events a second, drawn anew for each.
const INPUT_HERTZ: (u64, u64) = (20, 100);

/// Length of the payload (`u32`), reserved (`u32`), when it was due (`u64`, monotonic ns); big-endian.
const HEADER_BYTES: usize = 16;

/// An input event: kind, when it was sent (`u64`, monotonic ns, big-endian). As long as a mouse event.
const INPUT_BYTES: usize = 9;
const INPUT: u8 = 0;
const INPUT_END: u8 = 1;

/// Latencies that are shared by all sessions of a process.
pub type SharedLatency = Rc<RefCell<Latency>>;

/// What one session measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Session {
    pub updates: u64,
    pub bytes: u64,
}

/// Where events are at which times: the same for the same seed.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Evenly from `range`, its end excluded [xorshift64*].
    fn draw(&mut self, (from, to): (u64, u64)) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        from + (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % (to - from)
    }

    fn interval_ns(&mut self, hertz: (u64, u64)) -> u64 {
        1_000_000_000 / self.draw(hertz)
    }
}

/// Waits until `due_ns`; from when latency counts: from when it was due where we are late because the last
/// one was held up, else from now, so that a timer's slack is nobody's latency.
pub async fn wait_until(due_ns: u64) -> u64 {
    let now = monotonic_ns();
    if now >= due_ns {
        return due_ns;
    }
    tokio::time::sleep(Duration::from_nanos(due_ns - now)).await;
    monotonic_ns()
}

/// The server's end for `ms` milliseconds.
///
/// # Errors
/// The client breaks off or sends something else than input.
pub async fn serve(
    reader: &mut Reader,
    writer: &mut Writer,
    ms: u64,
    seed: u64,
    mut pattern: Pattern,
) -> Result<()> {
    let mut latency = Latency::default();
    let screen = async {
        let mut dice = Dice::new(seed);
        let begin = monotonic_ns();
        let end = begin + ms * 1_000_000;
        let mut due = begin;
        let mut message = Vec::new();
        pattern = pattern.restarted();
        loop {
            due += dice.interval_ns(UPDATE_HERTZ);
            if due > end {
                break;
            }
            let from = wait_until(due).await;
            let mut length = dice.draw(UPDATE_BYTES) as usize;
            if dice.draw((0, BURST_EVERY)) == 0 {
                length += BURST_BYTES;
            }
            header(&mut message, length, from);
            while message.len() < HEADER_BYTES + length {
                let left = HEADER_BYTES + length - message.len();
                message.extend_from_slice(pattern.next(left.min(FRAME_BYTES)));
            }
            writer.prepare(&message, FRAME_BYTES);
            writer.send_prepared().await?;
        }
        header(&mut message, 0, 0);
        writer.send(&message).await
    };
    tokio::try_join!(screen, take_input(reader, &mut latency))?;
    let counts: Vec<_> = latency.counts().collect();
    let mut report = Vec::with_capacity(4 + 16 * counts.len());
    report.extend_from_slice(&u32::try_from(counts.len())?.to_be_bytes());
    for number in counts.into_iter().flat_map(|(ns, count)| [ns, count]) {
        report.extend_from_slice(&number.to_be_bytes());
    }
    writer.send(&report).await
}

fn header(message: &mut Vec<u8>, length: usize, from_ns: u64) {
    message.clear();
    message.extend_from_slice(&(length as u32).to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&from_ns.to_be_bytes());
}

async fn take_input(reader: &mut Reader, latency: &mut Latency) -> Result<()> {
    let mut event = Vec::with_capacity(INPUT_BYTES);
    let mut has_ended = false;
    while !has_ended {
        let more = reader
            .receive(&mut |bytes| {
                let now = monotonic_ns();
                for byte in bytes {
                    ensure!(!has_ended, "input came after its end");
                    event.push(*byte);
                    if event.len() == INPUT_BYTES {
                        match event[0] {
                            INPUT => latency.record(now.saturating_sub(number(&event[1..]))),
                            INPUT_END => has_ended = true,
                            other => bail!("input of kind {other}"),
                        }
                        event.clear();
                    }
                }
                Ok(())
            })
            .await?;
        ensure!(more, "the connection closed at a desktop");
    }
    Ok(())
}

/// The client's end for `ms` milliseconds, after the server has begun.
///
/// # Errors
/// The relay breaks off, or bytes don't arrive as they were sent.
pub async fn work(
    stream: &mut Stream,
    ms: u64,
    seed: u64,
    pattern: &Pattern,
    (down, up): (&SharedLatency, &SharedLatency),
) -> Result<Session> {
    let Stream { reader, writer } = stream;
    let mut screen = Screen::new(pattern, down.clone());
    let watch = async {
        while !screen.has_ended {
            let more = reader.receive(&mut |bytes| screen.take(bytes)).await?;
            ensure!(more, "the relay ended a desktop");
        }
        Ok(())
    };
    let type_and_point = async {
        let mut dice = Dice::new(seed);
        let begin = monotonic_ns();
        let mut due = begin;
        while due < begin + ms * 1_000_000 {
            due += dice.interval_ns(INPUT_HERTZ);
            let from = wait_until(due).await;
            writer.send(&input(INPUT, from)).await?;
        }
        writer.send(&input(INPUT_END, 0)).await
    };
    tokio::try_join!(watch, type_and_point)?;
    let report_bytes = |report: &[u8]| {
        let count = report.first_chunk().map(|count| u32::from_be_bytes(*count));
        count.map_or(usize::MAX, |count| 4 + 16 * count as usize)
    };
    while screen.rest.len() < report_bytes(&screen.rest) {
        let more = reader.receive(&mut |bytes| screen.take(bytes)).await?;
        ensure!(more, "the relay ended before the report");
    }
    for pair in screen.rest[4..].chunks_exact(16) {
        let (ns, count) = pair.split_at(8);
        up.borrow_mut().record_n(number(ns), number(count));
    }
    Ok(screen.session)
}

fn input(kind: u8, from_ns: u64) -> [u8; INPUT_BYTES] {
    let mut event = [kind; INPUT_BYTES];
    event[1..].copy_from_slice(&from_ns.to_be_bytes());
    event
}

fn number(digits: &[u8]) -> u64 {
    digits
        .iter()
        .fold(0, |sum, digit| sum << 8 | u64::from(*digit))
}

/// Reads screen updates from a stream that may be cut anywhere.
struct Screen {
    pattern: Pattern,
    latency: SharedLatency,
    header: Vec<u8>,
    left: usize,
    session: Session,
    has_ended: bool,
    /// What came after the end.
    rest: Vec<u8>,
}

impl Screen {
    fn new(pattern: &Pattern, latency: SharedLatency) -> Self {
        Self {
            pattern: pattern.restarted(),
            latency,
            header: Vec::with_capacity(HEADER_BYTES),
            left: 0,
            session: Session::default(),
            has_ended: false,
            rest: Vec::new(),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.has_ended {
                self.rest.extend_from_slice(bytes);
                return Ok(());
            }
            if self.left == 0 {
                let wanted = HEADER_BYTES - self.header.len();
                let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
                self.header.extend_from_slice(piece);
                bytes = rest;
                if self.header.len() == HEADER_BYTES {
                    self.left = usize::try_from(number(&self.header[..4]))
                        .context("a length of 32 bits")?;
                    self.has_ended = self.left == 0;
                }
                continue;
            }
            let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.pattern.check(piece)?;
            self.left -= piece.len();
            self.session.bytes += piece.len() as u64;
            bytes = rest;
            if self.left == 0 {
                let from = number(&self.header[8..]);
                let late = monotonic_ns().saturating_sub(from);
                self.latency.borrow_mut().record(late);
                self.session.updates += 1;
                self.header.clear();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_is_what_was_recorded() {
        let mut dice = Dice::new(7);
        let (mut ns, mut bytes, updates) = (0, 0, 10_000);
        for _ in 0..updates {
            ns += dice.interval_ns(UPDATE_HERTZ);
            bytes += dice.draw(UPDATE_BYTES);
            if dice.draw((0, BURST_EVERY)) == 0 {
                bytes += BURST_BYTES as u64;
            }
        }
        let seconds = ns as f64 / 1e9;
        let (hertz, rate) = (f64::from(updates) / seconds, bytes as f64 / seconds);
        assert!((12.0..16.0).contains(&hertz), "{hertz}");
        // Measured desktops: 104 to 415 kB/s.
        assert!((150e3..220e3).contains(&rate), "{rate}");
    }

    #[test]
    fn updates_are_read_however_they_are_cut() {
        let pattern = Pattern::default();
        let mut source = pattern.clone();
        let mut stream = Vec::new();
        for length in [1000, 1, 60_000] {
            let mut message = Vec::new();
            header(&mut message, length, monotonic_ns());
            message.extend_from_slice(source.next(length));
            stream.extend(message);
        }
        let mut end = Vec::new();
        header(&mut end, 0, 0);
        stream.extend(end);
        stream.extend(b"report");
        for cut in [1, 9, 4096, 100_000] {
            let latency = SharedLatency::default();
            let mut screen = Screen::new(&pattern, latency.clone());
            for piece in stream.chunks(cut) {
                screen.take(piece).unwrap();
            }
            assert!(screen.has_ended && screen.rest == b"report", "{cut}");
            assert_eq!((screen.session.updates, screen.session.bytes), (3, 61_001));
            assert_eq!(latency.borrow().len(), 3);
        }
    }
}
