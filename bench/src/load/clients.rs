//! The clients of one job: opened and warmed up together, measured together, closed together.

mod flows;
mod opening;

use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use flows::{bulk, bursts, ping, pings};
use opening::open_and_close;

use super::command::{BEGUN, Command, LAST};
use super::desktop::{self, SharedLatency};
use super::measured::Measured;
use super::open::Opener;
use super::pattern::{PERIOD_BYTES, Pattern};
use super::stream::Stream;
use super::work::{BURST_MESSAGES, MESSAGE_BYTES, Work};
use super::{Job, Phase, ring};
use crate::measure;

/// Most that one receive of a bulk flow, and of any other, brings.
const BULK_BUFFER_BYTES: usize = 256 * 1024;
const BUFFER_BYTES: usize = 32 * 1024;

/// Connections that are opened at a time.
const OPENING_MAX: usize = 32;

/// What every flow carries before it is measured.
const WARM_BYTES: u64 = 4 << 20;
const WARM_BURSTS: u64 = 5;
const WARM_DESKTOP_MS: u64 = 300;

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
    is_echoing: bool,
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
            is_echoing: false,
        })
    }

    async fn work(mut self, work: &Work, observe: Observe<'_>) -> Result<Measured> {
        for stream in &mut self.stalled {
            let endless = u64::MAX - u64::MAX % PERIOD_BYTES as u64;
            let order = Command::Source { bytes: endless }.encode();
            stream.writer.send(&order).await?;
        }
        if matches!(work, Work::Ping(_)) {
            self.begin_echo().await?;
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
        let (streams, carried) = if let Work::Ping(ping) = work {
            pings(streams, ping, warm, &shared).await?
        } else {
            let work = work.clone();
            let numbered = streams.into_iter().zip(1..).collect();
            let flow = move |(mut stream, number)| {
                let (work, shared) = (work.clone(), shared.clone());
                async move {
                    let carried = carry(&mut stream, number, &work, warm, &shared).await?;
                    Ok((stream, carried))
                }
            };
            each(numbered, flow).await?
        };
        self.streams = streams;
        Ok(carried)
    }

    /// From here on the server echoes on every connection: orders are no part of what is measured.
    async fn begin_echo(&mut self) -> Result<()> {
        let flow = async |mut stream: Stream| {
            order(&mut stream, Command::Echo).await?;
            Ok((stream, Carried::default()))
        };
        (self.streams, _) = each(std::mem::take(&mut self.streams), flow).await?;
        self.is_echoing = true;
        Ok(())
    }

    async fn server_cpu_ns(&mut self) -> Result<u64> {
        let stream = self.streams.first_mut();
        let stream = stream.context("a job has connections")?;
        if !self.is_echoing {
            return server_cpu_ns(stream).await;
        }
        ping(stream, LAST, &self.shared.pattern).await?;
        let used_ns = server_cpu_ns(stream).await?;
        order(stream, Command::Echo).await?;
        Ok(used_ns)
    }
}

/// One connection's part of a round.
async fn carry(
    stream: &mut Stream,
    number: u64,
    work: &Work,
    warm: bool,
    shared: &Shared,
) -> Result<Carried> {
    match *work {
        Work::Bulk {
            direction,
            bytes_per_flow,
            ..
        } => {
            let warm_bytes = WARM_BYTES.min(bytes_per_flow);
            let bytes = if warm { warm_bytes } else { bytes_per_flow };
            let bytes = bytes.next_multiple_of(PERIOD_BYTES as u64);
            bulk(stream, direction, bytes, shared.pattern.restarted()).await?;
            Ok(Carried { bytes, messages: 0 })
        }
        Work::Burst {
            rounds, pause_ms, ..
        } => {
            let rounds = if warm { WARM_BURSTS } else { u64::from(rounds) };
            bursts(stream, rounds, pause_ms, shared).await?;
            Ok(Carried {
                bytes: rounds * ((BURST_MESSAGES + 1) * MESSAGE_BYTES) as u64,
                messages: rounds,
            })
        }
        Work::Desktop { seconds, .. } => {
            let ms = (seconds * 1000.0) as u64;
            let ms = if warm { WARM_DESKTOP_MS } else { ms };
            order(stream, Command::Desktop { ms, seed: number }).await?;
            let latencies = (&shared.latency, &shared.latency_up);
            let session = desktop::work(stream, ms, number, &shared.pattern, latencies).await?;
            Ok(Carried {
                bytes: session.bytes,
                messages: session.updates,
            })
        }
        Work::Idle { .. } if warm => {
            order(stream, Command::Echo).await?;
            ping(stream, LAST, &shared.pattern).await?;
            Ok(Carried::default())
        }
        // Idle ones do nothing; the others have their own ways.
        Work::Idle { .. } | Work::Open { .. } | Work::Ping(_) => Ok(Carried::default()),
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

#[cfg(test)]
mod tests;
