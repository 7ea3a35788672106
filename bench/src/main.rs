//! `postern-bench`: runs the cases and says what came of them; `cargo xtask bench` builds and starts it.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use postern_bench::cases;
use postern_bench::measure;
use postern_bench::peers::{Binaries, Driver};
use postern_bench::report::{self, specification};
use postern_bench::run::{self, Pace, Plan};

/// Measures the data plane beside its peers.
#[derive(Debug, Parser)]
#[command(name = "postern-bench")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the cases, ours and the peers in turn.
    Run(RunArguments),
    /// Say which cases there are and what each proves.
    List,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Fewer rounds and peers: ends within five minutes.
    #[arg(long)]
    quick: bool,
    /// These cases alone.
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
    /// Write the rows there, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where a peer's program is: `devolutions=/path/to/devolutions-gateway`.
    #[arg(long, value_name = "NAME=BINARY")]
    peer: Vec<String>,
    /// Folder for charts and histograms.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What carries our engine: `io_uring`, `epoll`, or `auto`.
    #[arg(long, default_value = "auto")]
    driver: Driver,
    /// Fail when a promise is broken.
    #[arg(long)]
    gate: bool,
    /// The gateway's program, where it does not lie beside this one.
    #[arg(long, value_name = "FILE")]
    postern: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Run(arguments) => run(arguments),
        Task::List => {
            list();
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False when something of ours could not be measured or, with `--gate`, a promise is broken.
fn run(arguments: RunArguments) -> Result<bool> {
    let promises = specification::promises()?;
    let plan = Plan {
        cases: run::choose(&arguments.only)?,
        pace: if arguments.quick {
            Pace::QUICK
        } else {
            Pace::FULL
        },
        binaries: Binaries::parse(&arguments.peer)?,
        driver: arguments.driver,
        postern: arguments.postern,
        promises,
    };
    measure::raise_descriptor_limit()?;
    let outcome = run::run(&plan)?;

    let chosen = |case: &str| plan.cases.iter().any(|one| one.name == case);
    let mut promises = plan.promises.clone();
    promises.retain(|promise| chosen(&promise.case));
    let (table, whole) = report::promises_table(&outcome.findings, &promises);
    println!("{}", report::rows_table(&outcome.findings, &promises));
    if !promises.is_empty() {
        println!("{table}");
    }
    for note in &outcome.notes {
        println!("note: {note}");
    }
    for failure in &outcome.failures {
        println!("FAILED: {failure}");
    }
    if let Some(file) = &arguments.json {
        report::write_json(file, &outcome.findings)?;
    }
    if let Some(folder) = &arguments.out {
        report::write_folder(folder, &outcome.findings, &outcome.recorded)?;
        println!("charts and histograms are in {}", folder.display());
    }
    Ok(outcome.failures.is_empty() && (whole || !arguments.gate))
}

fn list() {
    for case in cases::all() {
        println!("{:<22} {}", case.name, case.proves);
    }
}
