//! `postern serve`: starts control, the engine and, where something of the kernel is configured, the
//! conductor, and starts again what ends by itself.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit status of a role that can't start as it is configured: starting it again is no use.
pub const EXIT_CONFIGURATION: u8 = 78;

/// Between looks at the children.
const LOOK: Duration = Duration::from_millis(50);

/// Pause before a role is started again; doubles up to the longest, and is forgotten after a
/// while of good health.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const HEALTHY: Duration = Duration::from_secs(30);

/// A role that has run this long can start as it is configured.
const PROVEN: Duration = Duration::from_secs(2);

/// The kernel's programs are checked and installed within this time, or the engine goes without.
const INSTALL_MAX: Duration = Duration::from_secs(20);

/// A role that is told to end has this long.
const END_MAX: Duration = Duration::from_secs(10);

/// One supervised process.
struct Role {
    name: &'static str,
    arguments: Vec<std::ffi::OsString>,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
    /// It has run for a while with this configuration: an error at a later start may pass.
    proven: bool,
}

/// What runs, and with what.
pub struct Roles<'a> {
    pub config: &'a Path,
    pub run_directory: &'a Path,
    /// Answers as soon as the kernel has what was configured; none where nothing of it was.
    pub conductor_socket: Option<&'a Path>,
}

/// Runs until a signal says to end, or a role can't be started at all.
///
/// # Errors
/// When a role can't be started.
pub fn run(roles: &Roles<'_>) -> Result<()> {
    let of_config = || ["--config".into(), roles.config.into()];
    let mut control = Role::new("control", of_config());
    let mut conductor = roles
        .conductor_socket
        .map(|_| Role::new("conductor", of_config()));
    let mut engine = Role::new("engine", ["--run-dir".into(), roles.run_directory.into()]);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let result = start(&mut signals, &mut control, &mut conductor, roles).and_then(|go_on| {
        if go_on {
            engine.start()?;
            watch(&mut signals, &mut control, &mut conductor, &mut engine)
        } else {
            Ok(())
        }
    });
    // The engine first: its sessions are told, and control still hears how they ended. The conductor
    // last: it accounts for them.
    engine.end();
    control.end();
    if let Some(conductor) = &mut conductor {
        conductor.end();
    }
    result
}

/// Starts control and the conductor, and waits until the engine will find what it attaches to its
/// sockets. False when a signal says to end before.
fn start(
    signals: &mut Signals,
    control: &mut Role,
    conductor: &mut Option<Role>,
    roles: &Roles<'_>,
) -> Result<bool> {
    control.start()?;
    let (Some(conductor), Some(socket)) = (conductor, roles.conductor_socket) else {
        return Ok(true);
    };
    conductor.start()?;
    let began = Instant::now();
    while UnixStream::connect(socket).is_err() {
        // A hang-up has nothing to read again yet.
        if signals.pending().any(|signal| signal != SIGHUP) {
            return Ok(false);
        }
        control.look()?;
        conductor.look()?;
        if began.elapsed() >= INSTALL_MAX {
            tracing::error!("the conductor does not answer; the engine starts without it");
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(true)
}

fn watch(
    signals: &mut Signals,
    control: &mut Role,
    conductor: &mut Option<Role>,
    engine: &mut Role,
) -> Result<()> {
    loop {
        for signal in signals.pending() {
            if signal != SIGHUP {
                return Ok(());
            }
            // Control reads its configuration again, and the engine gets the new snapshot; so does
            // the conductor.
            control.signal(SIGHUP);
            if let Some(conductor) = conductor {
                conductor.signal(SIGHUP);
            }
        }
        control.look()?;
        if let Some(conductor) = conductor {
            conductor.look()?;
        }
        engine.look()?;
        std::thread::sleep(LOOK);
    }
}

impl Role {
    fn new(name: &'static str, arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Self {
        Self {
            name,
            arguments: arguments.into_iter().collect(),
            child: None,
            started: Instant::now(),
            pause: PAUSE_MIN,
            proven: false,
        }
    }

    fn start(&mut self) -> Result<()> {
        let binary = std::env::current_exe().context("this program's own file can't be found")?;
        let child = Command::new(binary)
            .arg(self.name)
            .args(&self.arguments)
            .spawn()
            .with_context(|| format!("{} can't be started", self.name))?;
        tracing::info!(role = self.name, pid = child.id(), "started");
        self.child = Some(child);
        self.started = Instant::now();
        Ok(())
    }

    /// Starts the role again if it has ended and its pause is over.
    fn look(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return if self.started.elapsed() >= self.pause {
                self.start()
            } else {
                Ok(())
            };
        };
        let Some(status) = child.try_wait()? else {
            return Ok(());
        };
        self.ended(status)
    }

    fn ended(&mut self, status: ExitStatus) -> Result<()> {
        self.proven |= self.started.elapsed() >= PROVEN;
        if status.code() == Some(i32::from(EXIT_CONFIGURATION)) && !self.proven {
            bail!(
                "{} can't start as it is configured; see its message above",
                self.name
            );
        }
        self.pause = if self.started.elapsed() >= HEALTHY {
            PAUSE_MIN
        } else {
            (self.pause * 2).min(PAUSE_MAX)
        };
        tracing::error!(role = self.name, %status, pause_ms = self.pause.as_millis(), "ended by itself; starting it again");
        self.child = None;
        self.started = Instant::now();
        Ok(())
    }

    fn signal(&self, signal: i32) {
        if let Some(child) = &self.child {
            postern_engine::resources::signal(child, signal);
        }
    }

    fn end(&mut self) {
        self.signal(SIGTERM);
        let Some(mut child) = self.child.take() else {
            return;
        };
        let asked = Instant::now();
        while asked.elapsed() < END_MAX {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK),
                _ => return,
            }
        }
        tracing::warn!(role = self.name, "did not end in time; killed");
        // It may have ended in this very moment.
        let _ = child.kill();
        let _ = child.wait();
    }
}
