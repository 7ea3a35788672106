//! The project's own commands: `cargo xtask demo`, `test`, `bench`, `ci` and what they are made of.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod command;
mod counts;
mod demo;
mod ebpf;
mod layers;
mod manifests;
mod manual;
mod report;
mod setup;
mod source;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, checks and shows Postern.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing to build, show and test (Debian packages, through apt).
    Setup {
        /// Only what these purposes need; all but `bench` when left out.
        #[arg(value_enum)]
        purposes: Vec<setup::Purpose>,
        /// Say what would be installed, and install nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Start a gateway with a desktop behind it on this machine, and say how to open it.
    Demo(demo::Arguments),
    /// Run the tests, all of them or one part.
    Test(test::Arguments),
    /// Measure the data plane beside HAProxy, nginx, websockify and stunnel.
    Bench(bench::Arguments),
    /// Build the kernel's programs anew (Debian's BPF compiler), and hold them against their budgets.
    Ebpf(ebpf::Arguments),
    /// Everything that must hold before a change is taken: format, clippy, tidy, layers, tests.
    Ci,
    /// Check the rules about files that no compiler checks.
    Tidy,
    /// Check which crate may import which.
    Layers,
    /// Write docs/configuration.md from the program's own manual.
    Manual,
}

fn main() -> ExitCode {
    let outcome = run(Arguments::parse().task);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `task`; false when it ran and found something wrong.
fn run(task: Task) -> Result<bool> {
    match task {
        Task::Setup { purposes, dry_run } => {
            let purposes = if purposes.is_empty() {
                setup::Purpose::ALL.to_vec()
            } else {
                purposes
            };
            setup::install(&purposes, dry_run).map(|()| true)
        }
        Task::Demo(arguments) => demo::run(&arguments).map(|()| true),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Ebpf(arguments) => ebpf::run(&arguments),
        Task::Ci => ci::run(),
        Task::Tidy => Ok(report::findings("tidy", &tidy::check()?)),
        Task::Manual => manual::write().map(|()| true),
        Task::Layers => Ok(report::findings("layers", &layers::check()?)),
    }
}
