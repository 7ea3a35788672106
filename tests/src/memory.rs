//! What a process holds: memory and descriptors.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::Browser;
use crate::fake_target::send_noise;
use crate::noise::Tally;

/// More than the receive buffers of a core: the kernel gives their pages when they are first used.
const BUFFERS_BYTES: u64 = 32 << 20;
const BUFFERS_PATIENCE: Duration = Duration::from_secs(60);

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

/// Carries bulk both ways, through every buffer of the one core that the gateway has: what they take
/// is taken then. `application` echoes.
///
/// # Errors
/// It does not come back.
pub fn touch_all_buffers(browser: &Browser, application: &str) -> Result<()> {
    let mut desktop = browser.desktop(application)?;
    let writer = desktop.writer();
    let writing = std::thread::spawn(move || {
        send_noise(BUFFERS_BYTES, 2, |chunk| writer.send(chunk))?;
        writer.close(1000)
    });
    let mut tally = Tally::default();
    desktop.drain(&mut tally, BUFFERS_PATIENCE)?;
    ensure!(tally.bytes() == BUFFERS_BYTES, "{} bytes", tally.bytes());
    writing.join().map_err(|_| anyhow!("a writer panicked"))??;
    Ok(())
}

fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(kib.with_context(|| format!("no {name}"))?.trim().parse()?)
}
