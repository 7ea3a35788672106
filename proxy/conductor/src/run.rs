//! Start, privileges, signals and end of the conductor.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use postern_ebpf::{Accounts, Decisions, History, Pins, Wish};
use postern_steering::{ModeWish, NODE_NUMBER_MAX};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::accounts::{self, Draining};
use crate::conduct::{self, ASKED_MAX, Beginning, Installed, Wires};
use crate::desk::{Desk, Rereading};
use crate::kernel::Pinned;
use crate::{ConductorError, Secret, Settings, admin, links, privileges};

/// Threads of the runtime: steering is not where the load is.
const WORKERS: usize = 2;

/// Reads the settings again, as they are configured now; else says why that can't be.
pub type Reread = Box<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// Runs the conductor until it is told to end. Programs and tables stay in the kernel.
///
/// It must be called while the process has one thread: what that may do, all others may.
///
/// # Errors
/// When it can't start.
pub fn main(settings: Settings, reread: Reread) -> Result<(), ConductorError> {
    if settings.steering.is_none() && !settings.accounting && !settings.placement {
        let why = "there is nothing to do: steering, accounting and placement are off";
        return Err(ConductorError::Settings(why.to_owned()));
    }
    if let Some(steering) = &settings.steering
        && steering.node.get() > NODE_NUMBER_MAX
    {
        let why = format!(
            "{} is too high a number: {NODE_NUMBER_MAX} is the highest",
            steering.node
        );
        return Err(ConductorError::Settings(why));
    }
    let _lock = lock(&settings.state_directory)?;
    let prepared = prepare(&settings)?;
    privileges::drop_all()?;
    let opened = open(&settings, prepared)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("conductor")
        .enable_all()
        .build()
        .map_err(|source| ConductorError::System {
            what: "its runtime",
            source,
        })?;
    runtime.block_on(serve(settings, opened, reread))
}

/// Takes everything out of the kernel that a conductor with these settings has put there.
///
/// # Errors
/// A conductor runs, or the process may not.
pub fn detach(settings: &Settings) -> Result<(), ConductorError> {
    let _lock = lock(&settings.state_directory)?;
    Ok(postern_ebpf::detach(&Pins::at(&settings.pins)?)?)
}

/// One conductor a state folder.
fn lock(state_directory: &Path) -> Result<File, ConductorError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_directory)
        .map_err(ConductorError::file("folder", state_directory))?;
    let path = state_directory.join("conductor.lock");
    let file = File::create(&path).map_err(ConductorError::file("lock", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ConductorError::Locked(path)),
        Err(std::fs::TryLockError::Error(error)) => Err(ConductorError::file("lock", &path)(error)),
    }
}

/// What took privileges.
struct Prepared {
    pins: Pins,
    steering: Option<(Secret, Installed, [u8; 6])>,
}

/// Loads, pins and attaches; the only part that takes capabilities.
fn prepare(settings: &Settings) -> Result<Prepared, ConductorError> {
    let pins = Pins::at(&settings.pins)?;
    let told = |what: &str, history: History, renewed: &[String]| {
        tracing::info!(what, ?history, "installed");
        if !renewed.is_empty() {
            tracing::warn!(what, maps = ?renewed, "what was counted or remembered in them is gone");
        }
    };
    let mut steering = None;
    if let Some(wanted) = &settings.steering {
        let secret = Secret::read(&wanted.secret_file)?;
        let ethernet = links::ethernet(&wanted.interface)?;
        let wish = match wanted.mode {
            ModeWish::Auto => Wish::Auto,
            ModeWish::Native => Wish::Native,
            ModeWish::Generic => Wish::Generic,
        };
        let done = postern_ebpf::install_steering(&pins, &wanted.interface, wish)?;
        told("steering", done.history, &done.renewed);
        tracing::info!(
            interface = wanted.interface,
            mode = done.mode.name(),
            "attached"
        );
        if let Some(why) = &done.native_refused {
            tracing::warn!(why, "the interface does not run the programs natively");
        }
        let installed = Installed {
            mode: done.mode.name().to_owned(),
            native_refused: done.native_refused,
        };
        steering = Some((secret, installed, ethernet));
    }
    if settings.placement {
        let done = postern_ebpf::install_placement(&pins)?;
        told("placement", done.history, &done.renewed);
    }
    if settings.accounting {
        let done = postern_ebpf::install_accounts(&pins, &accounts::own_cgroup()?)?;
        told("accounting", done.history, &done.renewed);
    }
    Ok(Prepared { pins, steering })
}

/// What runs without privileges.
struct Opened {
    steering: Option<Beginning>,
    draining: Option<Draining>,
    placement: Option<Decisions>,
}

fn open(settings: &Settings, prepared: Prepared) -> Result<Opened, ConductorError> {
    let Prepared { pins, steering } = prepared;
    let steering = match (steering, &settings.steering) {
        (Some((secret, installed, ethernet)), Some(wanted)) => Some(Beginning {
            settings: wanted.clone(),
            secret,
            kernel: Box::new(Pinned::open(&pins)?),
            installed,
            ethernet,
            state_directory: settings.state_directory.clone(),
            admin_socket: settings.admin_socket.clone(),
        }),
        _ => None,
    };
    let draining = if settings.accounting {
        let accounts = Accounts::open(&pins)?;
        let (audit, state) = (&settings.audit_directory, &settings.state_directory);
        Some(Draining::start(accounts, audit, state)?)
    } else {
        None
    };
    let placement = if settings.placement {
        Some(Decisions::open(&pins)?)
    } else {
        None
    };
    Ok(Opened {
        steering,
        draining,
        placement,
    })
}

async fn serve(settings: Settings, opened: Opened, reread: Reread) -> Result<(), ConductorError> {
    let mut signals = Signals::listen()?;
    let listener = admin::listen(&settings.socket())?;
    let Opened {
        steering,
        draining,
        placement,
    } = opened;
    let (asked, asking) = mpsc::channel(ASKED_MAX);
    let (news, fresh) = mpsc::channel(1);
    let (end, ended) = oneshot::channel();
    let (rereads, rereading) = mpsc::channel(1);
    let desk = Desk {
        conductor: steering.is_some().then_some(asked),
        accounting: draining.as_ref().map(Draining::counts),
        placement,
        rereads,
    };
    let mut orders = Orders {
        settings,
        reread: Arc::new(reread),
        rereading,
        news,
    };
    let steering = steering.map(|beginning| {
        let wires = Wires {
            asked: asking,
            settings: fresh,
            end: ended,
        };
        tokio::spawn(conduct::run(beginning, wires))
    });
    let server = tokio::spawn(admin::serve(Arc::new(desk), listener));
    tracing::info!("the conductor is up");
    let outcome = match steering {
        None => {
            orders.obey(&mut signals).await;
            Ok(())
        }
        Some(mut steering) => {
            let early = tokio::select! {
                () = orders.obey(&mut signals) => None,
                early = &mut steering => Some(early),
            };
            let over = match early {
                Some(over) => over,
                None => {
                    // It may have ended in this very moment.
                    let _ = end.send(());
                    steering.await
                }
            };
            over.unwrap_or_else(|error| {
                Err(ConductorError::System {
                    what: "steering to go on",
                    source: std::io::Error::other(error),
                })
            })
        }
    };
    server.abort();
    if let Some(draining) = draining {
        // A thread that panicked has told of itself.
        let _ = tokio::task::spawn_blocking(move || draining.end()).await;
    }
    tracing::info!("the conductor has ended; what is in the kernel stays");
    outcome
}

/// Signals that the process listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, ConductorError> {
        let listen = |kind| {
            signal(kind).map_err(|source| ConductorError::System {
                what: "its signals",
                source,
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }
}

/// What the conductor is told while it runs.
struct Orders {
    settings: Settings,
    reread: Arc<Reread>,
    rereading: mpsc::Receiver<Rereading>,
    news: mpsc::Sender<postern_steering::Settings>,
}

impl Orders {
    /// Until the process is to end; a hang-up and whoever asks have the settings read again.
    async fn obey(&mut self, signals: &mut Signals) {
        loop {
            let reply = tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.hang_up.recv() => None,
                Some(reply) = self.rereading.recv() => Some(reply),
            };
            let outcome = self.read_again().await;
            match &outcome {
                Ok(words) => tracing::info!("{words}"),
                Err(why) => {
                    tracing::error!(why, "the new settings are refused; the old ones stay");
                }
            }
            if let Some(reply) = reply {
                // Whoever asked may have gone.
                let _ = reply.send(outcome);
            }
        }
    }

    async fn read_again(&mut self) -> Result<String, String> {
        let reread = self.reread.clone();
        let read = tokio::task::spawn_blocking(move || reread()).await;
        let new = read.map_err(|error| error.to_string())??;
        let (taken, waiting) = self.settings.renewed(new);
        self.settings = taken;
        if let Some(steering) = &self.settings.steering {
            // Nobody takes it where steering has ended.
            let _ = self.news.send(steering.clone()).await;
        }
        Ok(if waiting.is_empty() {
            "the conductor has read its settings again".to_owned()
        } else {
            let waiting = waiting.join(", ");
            format!(
                "the conductor has read its settings again; what needs a restart of the gateway: {waiting}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_has_one_conductor_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let held = lock(&state).unwrap();
        assert!(matches!(lock(&state), Err(ConductorError::Locked(_))));
        drop(held);
        lock(&state).unwrap();
    }
}
