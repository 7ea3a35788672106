//! One run of a load through one relay: what was seen of both, and the figures that come of it.

use anyhow::Result;

use crate::cases::{Case, Metric};
use crate::load::{self, Direction, Job, Measured, Phase, Ping, Target, Work};
use crate::measure::{self, ProcessCpu};
use crate::peers::{Ground, Relay};

/// Sessions that a run which opens one after the other needs tokens for.
const OPENED: usize = 1_000;

/// What was seen.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub measured: Measured,
    /// CPU of the relay's processes in the measured part.
    pub cpu_ns: u64,
    /// What the relay's memory grew by; 0 where nobody looked.
    pub grown_kb: f64,
}

/// One figure of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub metric: &'static str,
    pub unit: &'static str,
}

const fn column(metric: &'static str, unit: &'static str) -> Column {
    Column { metric, unit }
}

/// Figures of a case; the first is what the case is about.
pub(super) fn columns(case: &Case) -> &'static [Column] {
    match case.metric {
        Metric::CpuPerGigabyte => {
            const { &[column("cpu/GB", "s/GB"), column("throughput", "GB/s")] }
        }
        Metric::CpuPerMessage => {
            const {
                &[
                    column("cpu/message", "µs"),
                    column("p50", "ms"),
                    column("p99", "ms"),
                ]
            }
        }
        Metric::CpuPerSessionSecond => {
            const { &[column("cpu/session-second", "µs"), column("p99", "ms")] }
        }
        Metric::Latency => const { &[column("p99", "ms"), column("max", "ms")] },
        Metric::SessionsPerSecond => {
            const {
                &[
                    column("sessions", "1/s"),
                    column("cpu/session", "µs"),
                    column("p99", "ms"),
                ]
            }
        }
        Metric::MemoryPerSession => const { &[column("memory/session", "KB")] },
        Metric::Time => const { &[column("time", "µs")] },
        Metric::Packets => const { &[column("packets", "k/s")] },
        Metric::Steering => {
            const {
                &[
                    column("cut", "sessions"),
                    column("misplaced", "%"),
                    column("share error", "%"),
                    column("moves", "buckets"),
                    column("drain relieved", "s"),
                    column("drain closed", "s"),
                    column("drain empty", "h"),
                    column("overload", "s"),
                ]
            }
        }
    }
}

impl Sample {
    /// The floor has no relay: its CPU is all there is.
    pub fn of_floor(bytes: u64, seconds_per_gigabyte: f64) -> Self {
        let seconds = seconds_per_gigabyte * bytes as f64 / 1e9;
        Self {
            measured: Measured {
                seconds,
                bytes,
                ..Measured::default()
            },
            cpu_ns: (seconds * 1e9) as u64,
            grown_kb: 0.0,
        }
    }

    /// In the order of [`columns`].
    pub fn figures(&self, case: &Case, work: &Work) -> Vec<f64> {
        let Self {
            measured,
            cpu_ns,
            grown_kb,
        } = self;
        let cpu_us = *cpu_ns as f64 / 1e3;
        let ms = |percent: f64| measured.latency.percentile_us(percent) / 1e3;
        let each = |count: u64| cpu_us / count.max(1) as f64;
        match case.metric {
            Metric::CpuPerGigabyte => vec![
                *cpu_ns as f64 / measured.bytes.max(1) as f64,
                measured.bytes_per_second() / 1e9,
            ],
            Metric::CpuPerMessage => vec![each(measured.messages), ms(50.0), ms(99.0)],
            Metric::CpuPerSessionSecond => vec![
                cpu_us / sessions(work) as f64 / measured.seconds.max(f64::MIN_POSITIVE),
                ms(99.0),
            ],
            Metric::Latency => vec![ms(99.0), measured.latency.max_us() / 1e3],
            Metric::SessionsPerSecond => vec![
                measured.sessions as f64 / measured.seconds.max(f64::MIN_POSITIVE),
                each(measured.sessions),
                ms(99.0),
            ],
            Metric::MemoryPerSession => vec![grown_kb / sessions(work) as f64],
            Metric::Time | Metric::Packets | Metric::Steering => Vec::new(),
        }
    }
}

/// Runs `work` through `relay`.
pub(super) fn take(
    relay: &mut Relay,
    work: &Work,
    ground: &Ground<'_>,
    memory: bool,
) -> Result<Sample> {
    relay.expect_running()?;
    let job = Job {
        work: work.clone(),
        target: relay.target(sessions(work))?,
        core: Some(ground.cores.clients),
    };
    let pss = |relay: &Relay| -> Result<u64> { relay.pids().map(measure::pss_kb).sum() };
    let before = if memory { pss(relay)? } else { 0 };
    let (mut after, mut cpu_ns) = (before, 0);
    let mut cpus: Vec<ProcessCpu> = Vec::new();
    let measured = load::run_observed(&job, |phase| {
        match phase {
            Phase::Ready => cpus = relay.pids().map(ProcessCpu::of).collect::<Result<_>>()?,
            Phase::Done => {
                for cpu in &mut cpus {
                    cpu_ns += cpu.lap_ns()?;
                }
                if memory {
                    after = pss(relay)?;
                }
            }
        }
        Ok(())
    })?;
    Ok(Sample {
        measured,
        cpu_ns,
        grown_kb: after as f64 - before as f64,
    })
}

/// Runs `work` without a relay, on a way that costs the clients what `target` does.
pub(super) fn straight(work: &Work, target: &Target, ground: &Ground<'_>) -> Result<Measured> {
    let job = Job {
        work: work.clone(),
        target: ground.server.direct_for(target),
        core: Some(ground.cores.clients),
    };
    load::run_observed(&job, |_| Ok(()))
}

/// Sessions that are open at a time, or that tokens are needed for.
fn sessions(work: &Work) -> usize {
    match work {
        Work::Bulk { flows, .. } => *flows,
        Work::Ping(Ping {
            connections,
            stalled,
            ..
        }) => connections + stalled,
        Work::Burst { connections, .. } => *connections,
        Work::Desktop { sessions, .. } | Work::Idle { sessions } => *sessions,
        Work::Open { .. } => OPENED,
    }
}

/// What a part of a case's own comparison is called.
pub(super) fn label(work: &Work) -> String {
    match work {
        Work::Bulk {
            direction: Direction::Up,
            ..
        } => "up".to_owned(),
        Work::Bulk { .. } => "down".to_owned(),
        Work::Ping(Ping {
            connections,
            stalled: 0,
            ..
        }) => format!("{connections} sessions"),
        Work::Ping(Ping {
            connections,
            stalled,
            ..
        }) => format!("{connections} sessions and {stalled} stalled"),
        other => format!("{} sessions", sessions(other)),
    }
}

/// A part of the work: shorter, with as many sessions.
pub(super) fn scaled(work: &Work, scale: f64) -> Work {
    /// Below these, starting and stopping would be what is measured.
    const SECONDS_MIN: f64 = 0.25;
    const DESKTOP_SECONDS_MIN: f64 = 1.0;
    const FLOW_BYTES_MIN: u64 = 1 << 20;
    /// Flows carry whole chunks of the load's pattern.
    const CHUNK_BYTES: u64 = 1 << 16;
    const BURSTS_MIN: u32 = 50;
    let mut work = work.clone();
    match &mut work {
        Work::Bulk { bytes_per_flow, .. } => {
            let part = (*bytes_per_flow as f64 * scale) as u64;
            *bytes_per_flow = part.next_multiple_of(CHUNK_BYTES).max(FLOW_BYTES_MIN);
        }
        Work::Ping(Ping { seconds, .. }) | Work::Open { seconds, .. } => {
            *seconds = (*seconds * scale).max(SECONDS_MIN);
        }
        Work::Desktop { seconds, .. } => *seconds = (*seconds * scale).max(DESKTOP_SECONDS_MIN),
        Work::Burst { rounds, .. } => {
            *rounds = ((f64::from(*rounds) * scale) as u32).max(BURSTS_MIN);
        }
        Work::Idle { .. } => {}
    }
    work
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;
    use crate::load::Latency;

    #[test]
    fn every_case_has_as_many_figures_as_columns() {
        let mut latency = Latency::default();
        latency.record(2_000_000);
        let sample = Sample {
            measured: Measured {
                seconds: 2.0,
                bytes: 1_000_000_000,
                messages: 100,
                sessions: 50,
                latency,
                ..Measured::default()
            },
            cpu_ns: 500_000_000,
            grown_kb: 5_000.0,
        };
        let work = Work::Idle { sessions: 100 };
        for case in cases::all() {
            if matches!(
                case.metric,
                Metric::Time | Metric::Packets | Metric::Steering
            ) {
                continue;
            }
            let figures = sample.figures(&case, &work);
            assert_eq!(figures.len(), columns(&case).len(), "{}", case.name);
            let expected = match case.metric {
                Metric::CpuPerGigabyte => 0.5,
                Metric::CpuPerMessage => 5_000.0,
                Metric::CpuPerSessionSecond => 2_500.0,
                Metric::Latency => 2.0,
                Metric::SessionsPerSecond => 25.0,
                Metric::MemoryPerSession => 50.0,
                Metric::Time | Metric::Packets | Metric::Steering => 0.0,
            };
            assert!(
                (figures[0] / expected - 1.0).abs() < 0.01,
                "{} {figures:?}",
                case.name
            );
        }
    }

    #[test]
    fn less_work_has_as_many_sessions_and_never_none() {
        for case in cases::all() {
            let works = match case.task {
                cases::Task::Load(work) => vec![work],
                cases::Task::Series(works) | cases::Task::Floor(works) => works,
                cases::Task::Micro(_) | cases::Task::Packets | cases::Task::Simulation => {
                    Vec::new()
                }
            };
            for work in works {
                for scale in [0.001, 0.3] {
                    let less = scaled(&work, scale);
                    assert_eq!(sessions(&less), sessions(&work));
                    if let Work::Bulk { bytes_per_flow, .. } = less {
                        assert_eq!(bytes_per_flow % (1 << 16), 0, "{less:?}");
                    }
                    assert!(less.patience() > std::time::Duration::ZERO);
                }
                assert_eq!(scaled(&work, 1.0), work);
            }
        }
    }
}
