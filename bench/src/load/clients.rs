//! The clients of one job: opened and warmed up together, measured together, closed together.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::command::{BEGUN, Command, LAST, MORE};
use super::desktop::{self, SharedLatency};
use super::measured::Measured;
use super::open::Opener;
use super::pattern::{PERIOD_BYTES, Pattern};
use super::stream::{FRAME_BYTES, Stream};
use super::work::{BURST_MESSAGES, Direction, MESSAGE_BYTES, Pace, Ping, Work};
use super::{Job, Phase, ring};
use crate::measure;

/// Most that one receive of a bulk flow, and of any other, brings.
const BULK_BUFFER_BYTES: usize = 256 * 1024;
const BUFFER_BYTES: usize = 32 * 1024;

/// Connections that are opened at a time.
const OPENING_MAX: usize = 32;

/// What every flow carries before it is measured.
const WARM_BYTES: u64 = 4 << 20;
const WARM_MESSAGES: u32 = 20;
const WARM_BURSTS: u64 = 5;
const WARM_DESKTOP_MS: u64 = 300;
const WARM_OPENING_SECONDS: f64 = 0.2;

/// Until buffers that nobody reads are full, and until an idle relay has tidied up.
const SETTLE: Duration = Duration::from_millis(1000);

/// Looks at the relay from outside while the clients hold still.
pub type Observe<'a> = &'a mut dyn FnMut(Phase) -> Result<()>;

/// Does a job on this thread.
///
/// # Errors
/// A connection fails or does less than all of its work.
pub fn execute(job: &Job, observe: Observe<'_>) -> Result<Measured> {
    ring::run(async {
        match &job.work {
            Work::Open {
                concurrency,
                seconds,
                resumed,
            } => open_and_close(job, *concurrency, *seconds, *resumed, observe).await,
            work => Fleet::open(job, work).await?.work(work, observe).await,
        }
    })
}

/// All connections of a job.
struct Fleet {
    streams: Vec<Stream>,
    stalled: Vec<Stream>,
    shared: Shared,
    sessions: u64,
    resumed: u64,
}

/// What the flows have in common.
#[derive(Clone, Default)]
struct Shared {
    pattern: Pattern,
    latency: SharedLatency,
    latency_up: SharedLatency,
}

/// What one flow carried.
#[derive(Debug, Clone, Copy, Default)]
struct Carried {
    bytes: u64,
    messages: u64,
}

impl Fleet {
    async fn open(job: &Job, work: &Work) -> Result<Self> {
        let (count, stalled) = match work {
            Work::Bulk { flows, .. } => (*flows, 0),
            Work::Ping(ping) => (ping.connections, ping.stalled),
            Work::Burst { connections, .. } => (*connections, 0),
            Work::Desktop { sessions, .. } | Work::Idle { sessions } => (*sessions, 0),
            Work::Open { .. } => (0, 0),
        };
        let buffer_bytes = match work {
            Work::Bulk { .. } => BULK_BUFFER_BYTES,
            _ => BUFFER_BYTES,
        };
        let opener = Rc::new(Opener::new(&job.target, true, buffer_bytes)?);
        let opening = Rc::new(Semaphore::new(OPENING_MAX));
        let open = async |count: usize| {
            let streams = (0..count).map(|_| {
                let (opener, opening) = (opener.clone(), opening.clone());
                async move {
                    let _turn = opening.acquire().await?;
                    opener.open().await
                }
            });
            all(streams).await
        };
        let streams = open(count).await?;
        let stalled = open(stalled).await?;
        let resumed = streams.iter().filter(|stream| stream.is_resumed()).count();
        Ok(Self {
            sessions: (count + stalled.len()) as u64,
            resumed: resumed as u64,
            streams,
            stalled,
            shared: Shared::default(),
        })
    }

    async fn work(mut self, work: &Work, observe: Observe<'_>) -> Result<Measured> {
        for stream in &mut self.stalled {
            let endless = u64::MAX - u64::MAX % PERIOD_BYTES as u64;
            let order = Command::Source { bytes: endless }.encode();
            stream.writer.send(&order).await?;
        }
        self.round(work, true).await?;
        if matches!(work, Work::Idle { .. }) || !self.stalled.is_empty() {
            tokio::time::sleep(SETTLE).await;
        }
        self.shared = Shared::default();
        let server_before = self.server_cpu_ns().await?;
        observe(Phase::Ready)?;
        let (begin, cpu_before) = (Instant::now(), own_cpu_ns()?);
        let carried = self.round(work, false).await?;
        let (seconds, cpu_after) = (begin.elapsed().as_secs_f64(), own_cpu_ns()?);
        observe(Phase::Done)?;
        let server_after = self.server_cpu_ns().await?;
        Ok(Measured {
            seconds,
            bytes: carried.bytes,
            messages: carried.messages,
            sessions: self.sessions,
            resumed: self.resumed,
            latency: self.shared.latency.take(),
            latency_up: self.shared.latency_up.take(),
            client_cpu_ns: cpu_after - cpu_before,
            server_cpu_ns: server_after - server_before,
        })
    }

    /// One round of the work by all flows; a short one to warm up.
    async fn round(&mut self, work: &Work, warm: bool) -> Result<Carried> {
        let streams = std::mem::take(&mut self.streams);
        let shared = self.shared.clone();
        let (streams, carried) = match work.clone() {
            Work::Bulk {
                direction,
                bytes_per_flow,
                ..
            } => {
                let bytes = if warm {
                    WARM_BYTES.min(bytes_per_flow)
                } else {
                    bytes_per_flow
                };
                let flow = move |mut stream: Stream| {
                    let shared = shared.clone();
                    async move {
                        let pattern = shared.pattern.restarted();
                        bulk(&mut stream, direction, bytes, pattern).await?;
                        let carried = Carried { bytes, messages: 0 };
                        Ok((stream, carried))
                    }
                };
                each(streams, flow).await?
            }
            Work::Ping(ping) => pings(streams, &ping, warm, &shared).await?,
            Work::Burst {
                rounds, pause_ms, ..
            } => {
                let rounds = if warm { WARM_BURSTS } else { u64::from(rounds) };
                let flow = move |mut stream: Stream| {
                    let shared = shared.clone();
                    async move {
                        bursts(&mut stream, rounds, pause_ms, &shared).await?;
                        let bytes = rounds * ((BURST_MESSAGES + 1) * MESSAGE_BYTES) as u64;
                        let messages = rounds;
                        Ok((stream, Carried { bytes, messages }))
                    }
                };
                each(streams, flow).await?
            }
            Work::Desktop { seconds, .. } => {
                let ms = if warm {
                    WARM_DESKTOP_MS
                } else {
                    (seconds * 1000.0) as u64
                };
                let numbered = streams.into_iter().zip(1..).collect();
                let flow = move |(mut stream, seed): (Stream, u64)| {
                    let shared = shared.clone();
                    async move {
                        order(&mut stream, Command::Desktop { ms, seed }).await?;
                        let latencies = (&shared.latency, &shared.latency_up);
                        let pattern = shared.pattern.clone();
                        let session =
                            desktop::work(&mut stream, ms, seed, pattern, latencies).await?;
                        let carried = Carried {
                            bytes: session.bytes,
                            messages: session.updates,
                        };
                        Ok((stream, carried))
                    }
                };
                each(numbered, flow).await?
            }
            Work::Idle { .. } if warm => {
                let flow = move |mut stream: Stream| {
                    let shared = shared.clone();
                    async move {
                        order(&mut stream, Command::Echo).await?;
                        ping(&mut stream, LAST, &shared.pattern).await?;
                        Ok((stream, Carried::default()))
                    }
                };
                each(streams, flow).await?
            }
            Work::Idle { .. } | Work::Open { .. } => (streams, Carried::default()),
        };
        self.streams = streams;
        Ok(carried)
    }

    async fn server_cpu_ns(&mut self) -> Result<u64> {
        let stream = self.streams.first_mut();
        server_cpu_ns(stream.context("a job has connections")?).await
    }
}

async fn server_cpu_ns(stream: &mut Stream) -> Result<u64> {
    order(stream, Command::Cpu).await?;
    number(stream).await
}

/// Runs all at once on this thread; the first error ends it. Results come in no order.
async fn all<T: 'static>(
    work: impl Iterator<Item = impl Future<Output = Result<T>> + 'static>,
) -> Result<Vec<T>> {
    let mut running = JoinSet::new();
    for one in work {
        running.spawn_local(one);
    }
    let mut done = Vec::with_capacity(running.len());
    while let Some(outcome) = running.join_next().await {
        done.push(outcome.context("a client panicked")??);
    }
    Ok(done)
}

/// Runs `flow` over all of `items` at once; what they give back, and what they carried in all.
async fn each<I: 'static, F>(
    items: Vec<I>,
    flow: impl Fn(I) -> F + 'static,
) -> Result<(Vec<Stream>, Carried)>
where
    F: Future<Output = Result<(Stream, Carried)>> + 'static,
{
    Ok(sum(all(items.into_iter().map(flow)).await?))
}

fn sum(done: Vec<(Stream, Carried)>) -> (Vec<Stream>, Carried) {
    let total = done
        .iter()
        .fold(Carried::default(), |sum, (_, one)| Carried {
            bytes: sum.bytes + one.bytes,
            messages: sum.messages + one.messages,
        });
    (done.into_iter().map(|(stream, _)| stream).collect(), total)
}

fn own_cpu_ns() -> Result<u64> {
    measure::cpu_ns(std::process::id())
}

/// Gives an order, which the server begins.
async fn order(stream: &mut Stream, command: Command) -> Result<()> {
    stream.writer.send(&command.encode()).await?;
    let mut answer = Vec::new();
    // What is ordered may follow at once.
    let more = stream
        .reader
        .receive_first(BEGUN.len(), &mut answer)
        .await?;
    ensure!(more && answer == BEGUN, "the server answers {answer:?}");
    Ok(())
}

/// The number that ends some orders.
async fn number(stream: &mut Stream) -> Result<u64> {
    let mut digits = Vec::new();
    stream
        .reader
        .receive_exactly(8, &mut |bytes| {
            digits.extend_from_slice(bytes);
            Ok(())
        })
        .await?;
    Ok(digits
        .iter()
        .fold(0, |sum, digit| sum << 8 | u64::from(*digit)))
}

async fn bulk(
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
async fn ping(stream: &mut Stream, kind: u8, pattern: &Pattern) -> Result<()> {
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
async fn pings(
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
    for stream in &mut streams {
        order(stream, Command::Echo).await?;
    }
    let interval_ns = match work.pace {
        Pace::Closed => None,
        Pace::Hertz(hertz) => Some((1e9 / hertz) as u64),
    };
    let begin = measure::monotonic_ns();
    let end = begin + (work.seconds * 1e9) as u64;
    let mut due = begin + interval_ns.map_or(0, |ns| (ns as f64 * part) as u64);
    let mut messages = 0;
    let warm_messages = u64::from(WARM_MESSAGES).max(streams.len() as u64);
    let turns = streams.len();
    for turn in (0..turns).cycle() {
        let is_over = if warm {
            messages >= warm_messages
        } else {
            measure::monotonic_ns().max(due) >= end
        };
        if is_over {
            break;
        }
        let from = match interval_ns {
            Some(interval_ns) => {
                let from = desktop::wait_until(due).await;
                due += interval_ns;
                from
            }
            None => measure::monotonic_ns(),
        };
        ping(&mut streams[turn], MORE, &shared.pattern).await?;
        let ns = measure::monotonic_ns().saturating_sub(from);
        shared.latency.borrow_mut().record(ns);
        messages += 1;
    }
    for stream in &mut streams {
        ping(stream, LAST, &shared.pattern).await?;
    }
    Ok((streams, messages + turns as u64))
}

async fn bursts(stream: &mut Stream, rounds: u64, pause_ms: u64, shared: &Shared) -> Result<()> {
    order(stream, Command::Bursts { rounds }).await?;
    let message = shared.pattern.period()[..MESSAGE_BYTES].to_vec();
    let mut due = measure::monotonic_ns();
    for _ in 0..rounds {
        due += pause_ms * 1_000_000;
        let from = desktop::wait_until(due).await;
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
        let ns = measure::monotonic_ns().saturating_sub(from);
        shared.latency.borrow_mut().record(ns);
    }
    Ok(())
}

/// Opens, says one word and closes, over and over.
async fn open_and_close(
    job: &Job,
    concurrency: usize,
    seconds: f64,
    resumed: bool,
    observe: Observe<'_>,
) -> Result<Measured> {
    // A person's browser each: what one resumes, no other can have used up.
    let openers = (0..concurrency).map(|number| {
        let opener = Opener::new(&job.target, resumed, BUFFER_BYTES)?;
        Ok(Rc::new(opener.one_of(number, concurrency)))
    });
    let openers = openers.collect::<Result<Vec<_>>>()?;
    let shared = Shared::default();
    let counts: Rc<RefCell<Measured>> = Rc::default();
    let round = async |seconds: f64| {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let clients = openers.iter().map(|opener| {
            let (opener, shared, counts) = (opener.clone(), shared.clone(), counts.clone());
            async move {
                while Instant::now() < end {
                    let from = measure::monotonic_ns();
                    let mut stream = opener.open().await?;
                    order(&mut stream, Command::Echo).await?;
                    ping(&mut stream, LAST, &shared.pattern).await?;
                    let ns = measure::monotonic_ns() - from;
                    shared.latency.borrow_mut().record(ns);
                    let mut counts = counts.borrow_mut();
                    counts.sessions += 1;
                    counts.resumed += u64::from(stream.is_resumed());
                }
                Ok(())
            }
        });
        all(clients).await
    };
    round(WARM_OPENING_SECONDS).await?;
    counts.take();
    shared.latency.take();
    let server_before = server_cpu_ns(&mut openers[0].open().await?).await?;
    observe(Phase::Ready)?;
    let (begin, cpu_before) = (Instant::now(), own_cpu_ns()?);
    round(seconds).await?;
    let (seconds, cpu_after) = (begin.elapsed().as_secs_f64(), own_cpu_ns()?);
    observe(Phase::Done)?;
    let server_after = server_cpu_ns(&mut openers[0].open().await?).await?;
    let counted = counts.take();
    Ok(Measured {
        seconds,
        messages: counted.sessions,
        latency: shared.latency.take(),
        client_cpu_ns: cpu_after - cpu_before,
        server_cpu_ns: server_after - server_before,
        ..counted
    })
}

#[cfg(test)]
mod tests;
