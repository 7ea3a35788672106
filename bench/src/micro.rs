//! What is measured within the bench's own process, without a relay, by the calling thread's CPU time.

mod decision;
mod floor;
mod handshake;
mod masking;
mod record;
mod steer;

use anyhow::Result;
use postern_ebpf::cost::Path;

use crate::measure::thread_cpu_ns;

pub use floor::floor;

/// CPU that one figure takes.
const FIGURE_NS: u64 = 100_000_000;

/// One micro-benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Micro {
    /// An upgrade with a token that is known, and ten policies of which the last one decides.
    Decision,
    /// A token's signature and claims.
    TokenVerify,
    /// WebSocket unmasking, against copying.
    Masking,
    /// The server's part of a TLS 1.3 handshake, by provider and key exchange, full and resumed.
    Handshake,
    /// Opening and sealing TLS records, ours against rustls.
    Record,
    /// A packet on a path through the kernel's programs.
    Steer(Path),
    /// A new table of steering, until it is in force.
    SteerSwap,
}

/// One figure of a micro-benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What of the case it is: `ring, X25519, full`. Empty where there is only one.
    pub variant: String,
    /// In the case's unit, lower is better.
    pub value: f64,
    /// The variant that the others are compared with.
    pub is_reference: bool,
}

/// One round: the same figures in the same order each time.
///
/// # Errors
/// What is measured does not work.
pub fn run(micro: Micro) -> Result<Vec<Figure>> {
    match micro {
        Micro::Decision => decision::decision(),
        Micro::TokenVerify => decision::token_verify(),
        Micro::Masking => Ok(masking::run()),
        Micro::Handshake => handshake::run(),
        Micro::Record => record::run(),
        Micro::Steer(path) => steer::packet(path),
        Micro::SteerSwap => steer::swap(),
    }
}

impl Figure {
    fn new(variant: &str, value: f64) -> Self {
        Self {
            variant: variant.to_owned(),
            value,
            is_reference: false,
        }
    }

    fn reference(variant: &str, value: f64) -> Self {
        Self {
            is_reference: true,
            ..Self::new(variant, value)
        }
    }
}

/// Nanoseconds that one call of `operation` takes.
fn cost_ns(mut operation: impl FnMut() -> Result<()>) -> Result<f64> {
    let (mut calls, mut batch) = (0_u64, 1_u64);
    let begin = thread_cpu_ns();
    loop {
        for _ in 0..batch {
            operation()?;
        }
        calls += batch;
        let used = thread_cpu_ns() - begin;
        if used >= FIGURE_NS {
            return Ok(used as f64 / calls as f64);
        }
        // The clock is looked at rarely enough to cost nothing.
        batch = calls;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_measured_and_one_at_most_is_the_reference() {
        let all = [
            (Micro::Decision, 1),
            (Micro::TokenVerify, 1),
            (Micro::Masking, 5),
            (Micro::Handshake, 8),
            (Micro::Record, 2),
            (Micro::Steer(Path::Own), 1),
            (Micro::SteerSwap, 1),
        ];
        for (micro, count) in all {
            let figures = run(micro).unwrap();
            assert_eq!(figures.len(), count, "{figures:?}");
            let references = figures.iter().filter(|figure| figure.is_reference);
            assert_eq!(references.count(), usize::from(count > 1), "{micro:?}");
            for figure in &figures {
                assert!(figure.value > 0.0 && figure.value.is_finite(), "{figure:?}");
            }
        }
    }

    #[test]
    fn the_floor_carries_bytes_in_both_directions() {
        for up in [true, false] {
            let seconds_per_gigabyte = floor(up, 8 << 20).unwrap();
            assert!(seconds_per_gigabyte > 0.01, "{seconds_per_gigabyte}");
        }
    }
}
