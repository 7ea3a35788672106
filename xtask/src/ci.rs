//! `cargo xtask ci`: what must hold before a change is taken.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::command::{self, cargo};
use crate::counts::Counts;
use crate::report::{self, Part};
use crate::setup::{self, Purpose};
use crate::{ebpf, layers, manual, test, tidy};

/// Runs every check and every test; true when all of them hold.
///
/// # Errors
/// Something cannot be set up.
pub fn run() -> Result<bool> {
    setup::install(&[Purpose::Build], false)?;
    let mut checks = Part {
        name: "checks",
        counts: Counts::default(),
        elapsed: Duration::ZERO,
        remarks: Vec::new(),
    };
    let start = Instant::now();
    eprintln!("\n== checks ==");
    check(
        &mut checks,
        "format",
        succeeds(cargo().args(["fmt", "--all", "--check"])),
    );
    check(
        &mut checks,
        "tidy",
        tidy::check().map(|found| report::findings("tidy", &found)),
    );
    check(
        &mut checks,
        "layers",
        layers::check().map(|found| report::findings("layers", &found)),
    );
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    check(&mut checks, "clippy", succeeds(cargo().args(clippy)));
    check(
        &mut checks,
        "manual",
        manual::check().map(|found| report::findings("manual", &found)),
    );
    check(
        &mut checks,
        "ebpf",
        ebpf::check().map(|found| report::findings("ebpf", &found)),
    );
    checks.elapsed = start.elapsed();
    test::run_all_after(vec![checks])
}

fn succeeds(command: &mut Command) -> Result<bool> {
    command::succeeds(command)
}

/// Counts a check as one test, so that one broken rule does not hide what the tests say.
fn check(part: &mut Part, name: &str, outcome: Result<bool>) {
    match outcome {
        Ok(true) => part.counts.passed += 1,
        Ok(false) => {
            part.counts.failed += 1;
            part.remarks.push(format!("failed: {name}"));
        }
        Err(error) => {
            part.counts.failed += 1;
            part.remarks.push(format!("failed: {name}: {error:#}"));
        }
    }
}
