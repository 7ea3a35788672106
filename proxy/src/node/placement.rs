//! Which core gets a new connection: the cores' sockets joined to the kernel's program, and their loads.
//!
//! Whatever fails here, the kernel's hash goes on: its choice is good, only blind.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_ebpf::{Pins, Placement, Publisher};
use postern_ebpf_abi::place::Rules;

use super::cpu::{self, Cpus};

/// How often a core says what it has to do.
pub(super) const PUBLISH: Duration = Duration::from_millis(100);

/// How placement came out, as a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The kernel's hash, as configured.
    Hash,
    /// By load.
    Load,
    /// It should be by load; the kernel's hash goes on.
    Unavailable,
}

impl Choice {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Load => "load",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What one core publishes its load with.
pub(super) struct Announcer {
    publisher: Publisher,
    cpus: Arc<Cpus>,
    /// The core's place among those that are measured.
    place: usize,
}

impl Announcer {
    /// Says that so many connections live on the core or wait for it; whether the kernel took it.
    pub(super) fn announce(&mut self, connections: u64) -> bool {
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        let busy = self.cpus.busy_permille(self.place);
        let published = self.publisher.publish(connections, busy);
        // Loads go stale then, and the kernel's hash decides.
        published
            .inspect_err(
                |error| tracing::error!(%error, "a core's load can't be published any more"),
            )
            .is_ok()
    }
}

/// Joins `sockets`, one of each core in the order of `cores`, which listen on one address. What each core
/// is to publish with comes back, none where the kernel's hash goes on.
pub(super) fn join(pins: &Path, cores: &[usize], sockets: &[OwnedFd]) -> (Choice, Vec<Announcer>) {
    match try_join(pins, cores, sockets) {
        Ok(announcers) => {
            tracing::info!(?cores, "new connections are placed by load");
            (Choice::Load, announcers)
        }
        Err(error) => {
            let why = format!("{error:#}");
            tracing::error!(
                why,
                "placement by load is not to be had; the kernel's hash goes on"
            );
            (Choice::Unavailable, Vec::new())
        }
    }
}

fn try_join(pins: &Path, cores: &[usize], sockets: &[OwnedFd]) -> Result<Vec<Announcer>> {
    ensure!(sockets.len() == cores.len(), "a core has no socket");
    let slots = u32::try_from(sockets.len()).context("cores")?;
    let pins = Pins::at(pins).context("where the programs are pinned")?;
    let placement = Placement::join(&pins, sockets, Rules::of(slots)).context("the group")?;
    let publishers: Vec<Publisher> = (0..slots)
        .map(|slot| placement.publisher(slot))
        .collect::<Result<_, _>>()
        .context("the cores' loads")?;
    let cpus = cpu::watch(cores).context("how busy the cores are")?;
    let announcers = publishers.into_iter().enumerate();
    Ok(announcers
        .map(|(place, publisher)| Announcer {
            publisher,
            cpus: Arc::clone(&cpus),
            place,
        })
        .collect())
}
