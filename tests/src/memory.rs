//! What a process holds: memory and descriptors.

use std::fs;

use anyhow::{Context as _, Result};

/// Memory that a process has written to, in bytes. Pages of its program do not count: they come as
/// code runs for the first time, and can be thrown away.
///
/// # Errors
/// There is no such process.
pub fn own_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kib(&status, "RssAnon:").map(|kib| kib * 1024)
}

/// The proportional set size of a process, in bytes.
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn proportional_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).context(path)?;
    kib(&rollup, "Pss:").map(|kib| kib * 1024)
}

/// Descriptors that a process has open.
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn descriptors(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).context(path)?.count())
}

fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(kib.with_context(|| format!("no {name}"))?.trim().parse()?)
}
