//! `cargo xtask bench`: installs the peers, builds everything in release, and starts `postern-bench`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use postern_parts::program;

use crate::command;
use crate::setup::{self, Purpose};

const BENCH: &str = "postern-bench";
/// What the bench starts, beside the gateway.
const PARTS: [&str; 2] = ["postern-bench-load", "postern-bench-hop"];
/// Where charts and histograms go unless `--out` says otherwise, below the workspace.
const OUT: &str = "target/bench";

/// What to measure.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Fewer rounds and peers: ends within five minutes after the build.
    #[arg(long)]
    quick: bool,
    /// These cases alone; an unknown name lists the known ones.
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
    /// Write the rows there, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where a peer's program is; `devolutions=BINARY` adds Devolutions Gateway.
    #[arg(long, value_name = "NAME=BINARY")]
    peer: Vec<String>,
    /// Folder for charts and histograms.
    #[arg(long, value_name = "DIR", default_value = OUT)]
    out: PathBuf,
    /// What carries our engine: `io_uring` or `epoll`; its own choice when left out.
    #[arg(long, value_name = "DRIVER")]
    driver: Option<String>,
    /// Fail when a promise of SPECIFICATION.md is broken.
    #[arg(long)]
    gate: bool,
    /// Install no peers: those that are missing are left out of the comparison.
    #[arg(long)]
    no_install: bool,
}

/// Builds, then measures; true when everything of ours could be measured and, with `--gate`, no
/// promise is broken.
///
/// # Errors
/// Something cannot be installed or built.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if !arguments.no_install {
        setup::install(&[Purpose::Build, Purpose::Bench], false)?;
    }
    eprintln!("bench: building (many minutes the first time)");
    let postern = program::build("postern", "postern", "release")?;
    for part in PARTS {
        program::build(BENCH, part, "release")?;
    }
    let bench = program::build(BENCH, BENCH, "release")?;
    command::succeeds(Command::new(bench).args(words(arguments, &postern)?))
}

/// The arguments of `postern-bench`. Its files lie where they would by hand, not where it runs.
fn words(arguments: &Arguments, postern: &std::path::Path) -> Result<Vec<String>> {
    let place = |path: &std::path::Path| -> Result<String> {
        let path = std::path::absolute(path)?;
        let text = path.to_str().context("a path is not text")?;
        Ok(text.to_owned())
    };
    let mut words = vec!["run".to_owned()];
    for (flag, given) in [("--quick", arguments.quick), ("--gate", arguments.gate)] {
        words.extend(given.then(|| flag.to_owned()));
    }
    if !arguments.only.is_empty() {
        words.extend(["--only".to_owned(), arguments.only.join(",")]);
    }
    if let Some(file) = &arguments.json {
        words.extend(["--json".to_owned(), place(file)?]);
    }
    for peer in &arguments.peer {
        words.extend(["--peer".to_owned(), peer.clone()]);
    }
    if let Some(driver) = &arguments.driver {
        words.extend(["--driver".to_owned(), driver.clone()]);
    }
    let out = if arguments.out == std::path::Path::new(OUT) {
        command::workspace().join(OUT)
    } else {
        arguments.out.clone()
    };
    words.extend(["--out".to_owned(), place(&out)?]);
    words.extend(["--postern".to_owned(), place(postern)?]);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_is_asked_for_is_handed_on() {
        let check = |line: &[&str], expected: &[&str]| {
            let line = Line::parse_from([&["bench"], line].concat());
            let words = words(&line.arguments, Path::new("/b/postern")).unwrap();
            for pair in expected {
                assert!(words.join(" ").contains(pair), "{pair} is not in {words:?}");
            }
            assert_eq!(words.contains(&"--gate".to_owned()), line.arguments.gate);
        };
        check(&[], &["run --out /", "/target/bench --postern /b/postern"]);
        check(
            &["--quick", "--only", "growth,decision", "--only", "burst3"],
            &["run --quick --only growth,decision,burst3"],
        );
        check(
            &["--gate", "--driver", "epoll", "--json", "/tmp/rows.json"],
            &["run --gate --json /tmp/rows.json --driver epoll"],
        );
        check(
            &["--peer", "devolutions=/x/y", "--out", "/tmp/charts"],
            &["--peer devolutions=/x/y --out /tmp/charts"],
        );
    }
}
