//! What a packet costs in the kernel's programs, by the kernel's own test run; and the swap of a table.

use std::time::Duration;

use anyhow::{Context as _, Result};
use postern_ebpf::cost::{Bench, Path};

use super::Figure;

/// Packets of a figure.
const PACKETS: u32 = 300_000;

/// Figures of which the middle one counts, in each round of the bench.
const FIGURES: usize = 3;

/// Nanoseconds a packet of `path`, with the run itself subtracted.
pub(super) fn packet(path: Path) -> Result<Vec<Figure>> {
    let cost = bench()?.measure(path, FIGURES, PACKETS)?;
    Ok(vec![Figure::new("", nanoseconds(cost.median()))])
}

/// Milliseconds until a table of 1,000 nodes and 65,536 buckets is in force.
pub(super) fn swap() -> Result<Vec<Figure>> {
    let times = bench()?.swap(FIGURES)?;
    let middle = times.get(FIGURES / 2).context("there are figures")?;
    Ok(vec![Figure::new("", nanoseconds(*middle) / 1e6)])
}

fn bench() -> Result<Bench> {
    Bench::new().context("the kernel's programs")
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
