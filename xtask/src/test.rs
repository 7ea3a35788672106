//! `cargo xtask test`: all set-up, all tests, and a summary that says what did not run and why.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use postern_parts::program;

use crate::command::{self, cargo, workspace};
use crate::counts::Tally;
use crate::report::{self, Part};
use crate::setup::{self, Purpose};
use crate::{manifests, report::summary};

/// How long each fuzz target runs.
const FUZZ_SECONDS: u32 = 8;
/// The one version of cargo-fuzz that the targets are run with.
const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// Packages whose tests are not unit tests.
const HARNESS: &str = "postern-tests";
/// Built and tested by itself, so that its heavy dependencies stay out of the product's build.
const DESKTOP: &str = "postern-desktop";
/// The test program of the harness that drives a browser.
const BROWSER_TESTS: &str = "browser";

/// Which tests.
#[derive(Debug, Args)]
pub struct Arguments {
    /// One part only.
    #[arg(long, value_enum)]
    only: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Every crate by itself, and the web client's scripts.
    Unit,
    /// The gateway as processes, with real servers and hostile clients.
    System,
    /// The gateway in a real browser, with real desktops.
    Browser,
    /// Every fuzz target for a few seconds.
    Fuzz,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Unit, Self::System, Self::Browser, Self::Fuzz];

    const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::System => "system",
            Self::Browser => "browser",
            Self::Fuzz => "fuzz",
        }
    }

    fn needs(self) -> &'static [Purpose] {
        match self {
            Self::Unit => &[Purpose::Build, Purpose::Store],
            Self::Fuzz => &[Purpose::Build],
            Self::System => &[
                Purpose::Build,
                Purpose::Shadow,
                Purpose::Xrdp,
                Purpose::System,
            ],
            Self::Browser => &[
                Purpose::Build,
                Purpose::Shadow,
                Purpose::Xrdp,
                Purpose::Browser,
            ],
        }
    }
}

/// Runs the tests that were asked for; true when nothing failed.
///
/// # Errors
/// The tests cannot be set up.
pub fn run(arguments: &Arguments) -> Result<bool> {
    run_after(Vec::new(), arguments.only)
}

/// All tests, after parts that ran already; one summary for all.
///
/// # Errors
/// The tests cannot be set up.
pub fn run_all_after(parts: Vec<Part>) -> Result<bool> {
    run_after(parts, None)
}

fn run_after(mut parts: Vec<Part>, only: Option<Kind>) -> Result<bool> {
    let kinds: Vec<Kind> = only.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
    let mut purposes: Vec<Purpose> = kinds
        .iter()
        .flat_map(|kind| kind.needs())
        .copied()
        .collect();
    purposes.dedup();
    setup::install(&purposes, false)?;
    for kind in kinds {
        eprintln!("\n== {} ==", kind.name());
        parts.push(part(kind));
    }
    for kind in Kind::ALL
        .into_iter()
        .filter(|kind| only.is_some_and(|only| only != *kind))
    {
        parts.push(Part::not_run(kind.name(), "--only asked for another part"));
    }
    print!("{}", summary(&parts));
    Ok(parts.iter().all(|part| part.counts.failed == 0))
}

/// Runs one kind. What cannot even start is one failure with its reason.
fn part(kind: Kind) -> Part {
    let start = Instant::now();
    let mut tally = Tally::default();
    let outcome = match kind {
        Kind::Unit => unit(&mut tally),
        Kind::System => system(&mut tally),
        Kind::Browser => browser(&mut tally),
        Kind::Fuzz => fuzz(&mut tally),
    };
    if let Err(error) = outcome {
        fail(&mut tally, format!("{error:#}"));
    }
    let Tally {
        counts, remarks, ..
    } = tally;
    report::Part {
        name: kind.name(),
        counts,
        elapsed: start.elapsed(),
        remarks,
    }
}

fn fail(tally: &mut Tally, why: String) {
    tally.counts.failed += 1;
    tally.remarks.push(format!("failed: {why}"));
}

/// Runs a test command. A command that fails without a failed test did not get so far as to run
/// them, and that is a failure, too.
fn count(tally: &mut Tally, what: &str, command: &mut Command) -> Result<()> {
    let failed_before = tally.counts.failed;
    let succeeded = command::watch(command, |line| tally.take(line))?;
    if !succeeded && tally.counts.failed == failed_before {
        fail(tally, format!("{what} did not run to its end"));
    }
    Ok(())
}

fn unit(tally: &mut Tally) -> Result<()> {
    let mut product = cargo();
    product.args(["test", "--no-fail-fast"]);
    for manifest in manifests::read(&workspace())? {
        if ![HARNESS, DESKTOP].contains(&manifest.name.as_str()) {
            product.args(["--package", &manifest.name]);
        }
    }
    count(tally, "the product's tests", &mut product)?;
    let mut echo = cargo();
    echo.args([
        "test",
        "--no-fail-fast",
        "--package",
        "postern",
        "--features",
        "echo",
    ]);
    count(tally, "the gateway's tests with echo", &mut echo)?;
    count(
        tally,
        "the desktop's tests",
        cargo().args(["test", "--package", DESKTOP]),
    )?;
    web(tally)
}

/// The web client: its types, then its tests.
fn web(tally: &mut Tally) -> Result<()> {
    let folder = workspace().join("proxy/web");
    npm_packages(&folder)?;
    if command::succeeds(npm(&folder).args(["run", "--silent", "check"]))? {
        tally.counts.passed += 1;
    } else {
        fail(tally, "the web client's types (npm run check)".to_owned());
    }
    count(
        tally,
        "the web client's tests",
        npm(&folder).args(["test", "--silent"]),
    )
}

fn system(tally: &mut Tally) -> Result<()> {
    build_programs()?;
    let mut tests = cargo();
    tests.args(["test", "--no-fail-fast", "--package", HARNESS, "--lib"]);
    for name in test_programs()? {
        if name != BROWSER_TESTS {
            tests.args(["--test", &name]);
        }
    }
    count(tally, "the system tests", &mut tests)
}

fn browser(tally: &mut Tally) -> Result<()> {
    npm_packages(&workspace().join("tests/browser"))?;
    build_programs()?;
    let mut tests = cargo();
    tests.args([
        "test",
        "--no-fail-fast",
        "--package",
        HARNESS,
        "--test",
        BROWSER_TESTS,
    ]);
    // One browser at a time: two would starve each other on a small machine, and time out.
    tests.args(["--", "--test-threads", "1"]);
    count(tally, "the browser tests", &mut tests)
}

/// Builds what the harness starts, so that no test waits for a compiler.
fn build_programs() -> Result<()> {
    // Cargo gives both variants one name: the one that ships is built last, and keeps it.
    let echo = program::build_with("postern", "postern", "dev", &["echo"])?;
    let (copy, kept) = (
        echo.with_file_name("postern-echo.new"),
        echo.with_file_name("postern-echo"),
    );
    std::fs::copy(&echo, &copy)
        .and_then(|_| std::fs::rename(&copy, &kept))
        .with_context(|| format!("cannot write {}", kept.display()))?;
    program::build("postern", "postern", "dev")?;
    program::build(DESKTOP, DESKTOP, "dev")?;
    Ok(())
}

/// Names of the harness's test programs.
fn test_programs() -> Result<Vec<String>> {
    stems(&workspace().join("tests/tests"))
}

fn fuzz(tally: &mut Tally) -> Result<()> {
    let targets = stems(&workspace().join("tests/fuzz/fuzz_targets"))?;
    if !program::installed("cargo-fuzz") && !cargo_bin("cargo-fuzz").is_file() {
        let version = ["--version", CARGO_FUZZ_VERSION, "--locked"];
        command::run(cargo().args(["install", "cargo-fuzz"]).args(version))?;
    }
    for target in targets {
        // What is found lands in the corpus, which is not committed; seeds are only read.
        let corpus = format!("tests/fuzz/corpus/{target}");
        std::fs::create_dir_all(workspace().join(&corpus))?;
        let seeds = format!("tests/fuzz/seeds/{target}");
        let mut fuzz = cargo();
        // Without a sanitizer the targets build with the stable compiler; our own code has no
        // `unsafe` for one to watch.
        fuzz.args([
            "fuzz",
            "run",
            "--fuzz-dir",
            "tests/fuzz",
            "--sanitizer",
            "none",
            &target,
        ]);
        fuzz.arg(&corpus);
        if workspace().join(&seeds).is_dir() {
            fuzz.arg(&seeds);
        }
        fuzz.args([
            "--",
            &format!("-max_total_time={FUZZ_SECONDS}"),
            "-verbosity=0",
        ]);
        if command::succeeds(&mut fuzz)? {
            tally.counts.passed += 1;
        } else {
            fail(tally, format!("fuzz target {target}"));
        }
    }
    Ok(())
}

/// Where `cargo install` puts programs.
fn cargo_bin(name: &str) -> PathBuf {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo")
        });
    home.join("bin").join(name)
}

/// Names of the Rust files in a folder, without `.rs`, sorted.
fn stems(folder: &Path) -> Result<Vec<String>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(
                path.file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    Ok(names)
}

fn npm(folder: &Path) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(folder);
    command
}

/// Installs what the lock file names; scripts of packages are not run.
fn npm_packages(folder: &Path) -> Result<()> {
    let arguments = [
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ];
    command::run(npm(folder).args(arguments))
}
