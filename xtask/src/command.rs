//! Running a command in view: its output is shown as it comes, and read on the way.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
pub use postern_parts::program::{cargo, workspace};

/// Runs to the end with the terminal's own output.
///
/// # Errors
/// It cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    if !succeeds(command)? {
        bail!("failed: {}", words(command));
    }
    Ok(())
}

/// Runs to the end with the terminal's own output; says whether it succeeded.
///
/// # Errors
/// It cannot be started.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    announce(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", words(command)))?;
    Ok(status.success())
}

/// Runs to the end, shows every line and gives it to `see`; says whether it succeeded.
///
/// # Errors
/// It cannot be started.
pub fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<bool> {
    announce(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", words(command)))?;
    let output = child.stdout.take().context("the output is not a pipe")?;
    lines(output, |line| {
        println!("{line}");
        see(line);
    })?;
    Ok(child.wait()?.success())
}

fn lines(output: impl Read, mut see: impl FnMut(&str)) -> Result<()> {
    let mut reader = BufReader::new(output);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        see(String::from_utf8_lossy(&bytes).trim_end());
        bytes.clear();
    }
    Ok(())
}

fn announce(command: &Command) {
    eprintln!("$ {}", words(command));
}

/// The command as one would type it.
fn words(command: &Command) -> String {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
