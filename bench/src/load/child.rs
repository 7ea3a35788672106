//! The processes of clients and server: orders come in as lines of JSON, findings go out the same way.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Job, Phase, clients, server};
use crate::measure;

/// Does the work of the role that the bench started this process for.
///
/// # Errors
/// The work fails, or the bench does not speak as expected.
pub fn main(role: &str) -> Result<()> {
    measure::raise_descriptor_limit()?;
    match role {
        "clients" => run_clients(),
        "server" => run_server(),
        other => bail!("the bench starts this program by itself; there is no role {other:?}"),
    }
}

fn run_clients() -> Result<()> {
    let job: Job = hear()?;
    pin(job.core)?;
    let patience = job.work.patience();
    end_after(patience, format!("{:?} is stuck", job.work));
    let measured = clients::execute(&job, &mut |phase| {
        tell(&phase)?;
        let answered: Phase = hear()?;
        ensure!(
            answered == phase,
            "the bench answers {answered:?} to {phase:?}"
        );
        Ok(())
    })?;
    tell(&measured)
}

fn run_server() -> Result<()> {
    let core: Option<usize> = hear()?;
    pin(core)?;
    std::thread::spawn(|| {
        // The bench is gone when its end of the pipe is.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    });
    server::serve(|addresses| tell(&addresses))
}

fn pin(core: Option<usize>) -> Result<()> {
    core.map_or(Ok(()), measure::pin_to)
}

fn end_after(patience: Duration, what: String) {
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        eprintln!("load: {what}");
        std::process::exit(3);
    });
}

fn hear<T: for<'de> Deserialize<'de>>() -> Result<T> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line)?;
    ensure!(read > 0, "the bench has ended");
    serde_json::from_str(&line).with_context(|| format!("the bench says {line:?}"))
}

fn tell<T: Serialize>(what: &T) -> Result<()> {
    let mut output = std::io::stdout().lock();
    serde_json::to_writer(&mut output, what)?;
    output.write_all(b"\n")?;
    Ok(output.flush()?)
}
