//! The engine process: what all its cores share, and how it starts, follows control and ends.

mod carriage;
mod cpu;
mod ledger;
mod link;
mod placement;
mod spool;
mod start;
mod worker;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use postern_engine::doorbell::Button;
use postern_session::State;
use postern_snapshot::message::KillSelector;
use postern_snapshot::{CoreMetrics, EngineInfo, ToControl};

pub use start::run;

use ledger::Ledger;
use placement::Announcer;

/// What the engine process is told on its command line: the rest comes from control.
#[derive(Debug, Clone)]
pub struct EngineArguments {
    /// Folder of the sockets.
    pub run_directory: PathBuf,
}

/// Shared by all cores of the engine process.
struct Node {
    /// Swapped whole; a core that has loaded it works on undisturbed.
    state: ArcSwap<State>,
    ledger: Ledger,
    /// What this process runs on; set before anybody asks.
    info: OnceLock<EngineInfo>,
    /// To control. Never waited for: what does not fit is counted and told again by `Hello`.
    outbox: SyncSender<ToControl>,
    outbox_losses: AtomicU64,
    began: Instant,
    /// Milliseconds after `began` until which new sessions may begin.
    lease_until_ms: AtomicU64,
    draining: AtomicBool,
}

/// What a core is asked to do from outside.
enum Command {
    /// A new state is in force: judge every live session again, then say so.
    StateChanged(Sender<()>),
    Kill(KillSelector),
    Pin {
        request: u64,
        stored: Option<postern_access::Fingerprint>,
    },
    Metrics(Sender<CoreMetrics>),
    /// Publish the core's load from now on.
    Announce(Box<Announcer>),
    /// Take nothing more, tell every session, and end.
    Drain,
}

/// The way to one core.
struct CoreHandle {
    commands: Sender<Command>,
    button: Button,
}

impl CoreHandle {
    /// A core that is gone takes no commands, and needs none.
    fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.button.ring();
        }
    }
}

impl Node {
    fn tell_control(&self, message: ToControl) {
        if self.outbox.try_send(message).is_err() {
            self.outbox_losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn renew_lease(&self) {
        let lease_s = self.state.load().snapshot.lease_s;
        let until = self.elapsed_ms() + lease_s.saturating_mul(1000);
        self.lease_until_ms.store(until, Ordering::Relaxed);
    }

    fn lease_holds(&self) -> bool {
        self.elapsed_ms() < self.lease_until_ms.load(Ordering::Relaxed)
    }

    /// Tells every core to drain; the process ends when they have.
    fn drain(&self, cores: &Cores) {
        self.draining.store(true, Ordering::Relaxed);
        cores.iter().for_each(|core| core.send(Command::Drain));
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The cores' handles, for the threads that speak to them.
type Cores = Arc<Vec<CoreHandle>>;
