//! Who is measured: ourselves and the peers, each with its configuration, started on one core.

mod certificate;
mod devolutions;
mod haproxy;
mod nginx;
mod nodelay;
mod ours;
mod stunnel;
mod token;
mod websockify;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postern_parts::{Process, program, wait};
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;

use crate::cases::{Path as Way, Peer};
use crate::load::{Addresses, Target};
use crate::run::Cores;

pub use certificate::Certificate;
pub use ours::{Driver, Programs};

/// Name in certificates, TLS and `Host`.
pub const HOST: &str = "localhost";
/// Until a relay accepts connections.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// A port may be taken between its choice and its use: so often a relay is started in all.
const STARTS_MAX: usize = 3;
/// Connections that peers are told to be ready for, where they don't reckon it from the limit of
/// open files.
const CONNECTIONS_MAX: u32 = 8_000;

/// Our own name in tables and charts.
pub const OURS: &str = "postern";

impl Peer {
    /// The relays that are not ours.
    pub const RELAYS: [Self; 7] = [
        Self::HaProxySplice,
        Self::HaProxyCopy,
        Self::Nginx,
        Self::Websockify,
        Self::Stunnel,
        Self::Devolutions,
        Self::DevolutionsNoDelay,
    ];

    /// As tables, charts and SPECIFICATION.md have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HaProxySplice => "haproxy-splice",
            Self::HaProxyCopy => "haproxy-copy",
            Self::Nginx => "nginx",
            Self::Websockify => "websockify",
            Self::Stunnel => "stunnel",
            Self::Devolutions => "devolutions",
            Self::DevolutionsNoDelay => "devolutions-nodelay",
            Self::Itself => OURS,
        }
    }

    /// The programs that it is made of on `way`, as `--peer NAME=BINARY` names them; none where it
    /// can't carry it. Only TLS is their own work where websockify stands behind.
    #[must_use]
    pub fn programs(self, way: Way) -> &'static [&'static str] {
        match (self, way) {
            (Self::HaProxySplice | Self::HaProxyCopy, Way::Passthrough) => &["haproxy"],
            (Self::Nginx, Way::Passthrough) => &["nginx"],
            (Self::Nginx, Way::Wss) => &["nginx", "websockify"],
            (Self::Websockify, Way::Ws | Way::Wss) => &["websockify"],
            (Self::Stunnel, Way::Tls) => &["stunnel"],
            (Self::Stunnel, Way::Wss) => &["stunnel", "websockify"],
            (Self::Devolutions | Self::DevolutionsNoDelay, Way::Ws | Way::Wss | Way::Rdp) => {
                &["devolutions"]
            }
            _ => &[],
        }
    }
}

/// Where the peers' programs are: installed, or where `--peer` says.
#[derive(Debug, Clone, Default)]
pub struct Binaries(Vec<(&'static str, PathBuf)>);

impl Binaries {
    /// Every program that a peer is made of.
    const KNOWN: [&'static str; 5] = ["haproxy", "nginx", "websockify", "stunnel", "devolutions"];

    /// Takes each `NAME=BINARY`.
    ///
    /// # Errors
    /// A name is unknown, or there is no such file.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let mut binaries = Self::default();
        for argument in arguments {
            let (name, file) = argument
                .split_once('=')
                .with_context(|| format!("--peer {argument}: it is NAME=BINARY"))?;
            let Some(known) = Self::KNOWN.iter().find(|known| **known == name) else {
                bail!(
                    "--peer {name}: no such peer; there are {}",
                    Self::KNOWN.join(", ")
                );
            };
            let file = PathBuf::from(file);
            if !file.is_file() {
                bail!("--peer {name}: {} is no file", file.display());
            }
            binaries.0.push((known, std::path::absolute(file)?));
        }
        Ok(binaries)
    }

    /// The program of that name, if it is there.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let told = self.0.iter().rev().find(|(known, _)| *known == name);
        told.map(|(_, file)| file.clone())
            .or_else(|| program::find(name))
    }

    /// True where `peer` can carry `way`, and its programs are there.
    #[must_use]
    pub fn have(&self, peer: Peer, way: Way) -> bool {
        let programs = peer.programs(way);
        !programs.is_empty() && programs.iter().all(|name| self.find(name).is_some())
    }

    fn get(&self, name: &str) -> Result<PathBuf> {
        self.find(name)
            .with_context(|| format!("{name} is not installed: `cargo xtask bench` installs it"))
    }
}

/// What every relay is given alike.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Relays run on one of them, the load on the others.
    pub cores: Cores,
    pub certificate: &'a Certificate,
    pub binaries: &'a Binaries,
    pub programs: &'a Programs,
    /// The load's server.
    pub server: &'a Addresses,
    pub driver: Driver,
}

/// A running relay. Dropping it ends its processes.
#[derive(Debug)]
pub struct Relay {
    pub name: &'static str,
    entrance: Entrance,
    processes: Vec<Process>,
    /// INVARIANT: after `processes`, which write into it until they have ended.
    folder: TempDir,
}

/// How clients come in.
#[derive(Debug)]
enum Entrance {
    Fixed(Target),
    /// Every session has a token of its own.
    Devolutions(devolutions::Door),
}

impl Relay {
    /// Starts `peer`.
    ///
    /// # Errors
    /// It does not start; the message has its log.
    pub fn peer(peer: Peer, way: Way, ground: &Ground<'_>) -> Result<Self> {
        let start = || match (peer, way) {
            (Peer::HaProxySplice | Peer::HaProxyCopy, Way::Passthrough) => {
                haproxy::start(peer, ground)
            }
            (Peer::Nginx, Way::Passthrough) => nginx::stream(ground),
            (Peer::Nginx, Way::Wss) => nginx::before_websockify(ground),
            (Peer::Websockify, Way::Ws | Way::Wss) => websockify::start(way, ground),
            (Peer::Stunnel, Way::Tls) => stunnel::start(ground),
            (Peer::Stunnel, Way::Wss) => stunnel::before_websockify(ground),
            (Peer::Devolutions | Peer::DevolutionsNoDelay, Way::Ws | Way::Wss | Way::Rdp) => {
                devolutions::start(peer, way, ground)
            }
            _ => bail!("it can't"),
        };
        again(start).with_context(|| format!("{} cannot carry {way:?}", peer.name()))
    }

    /// Starts ours.
    ///
    /// # Errors
    /// It does not start; the message has its log.
    pub fn ours(way: Way, ground: &Ground<'_>) -> Result<Self> {
        let start = || match way {
            Way::Rdp => ours::gateway(ground),
            Way::Passthrough | Way::Tls | Way::Ws | Way::Wss => ours::hop(way, ground),
            Way::InProcess => bail!("nothing is carried within a process"),
        };
        again(start).with_context(|| format!("{OURS} cannot carry {way:?}"))
    }

    /// The way in for a run of `sessions`.
    ///
    /// # Errors
    /// A token cannot be made.
    pub fn target(&self, sessions: usize) -> Result<Target> {
        match &self.entrance {
            Entrance::Fixed(target) => Ok(target.clone()),
            Entrance::Devolutions(door) => door.target(sessions),
        }
    }

    /// The first process of each program that it is made of.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.processes.iter().map(Process::pid)
    }

    /// # Errors
    /// A process has ended; the message has its log.
    pub fn expect_running(&mut self) -> Result<()> {
        self.processes
            .iter_mut()
            .try_for_each(Process::expect_running)
    }

    /// Its name and what its processes have written, for messages.
    #[must_use]
    pub fn complaint(&self) -> String {
        let mut text = self.name.to_owned();
        for process in &self.processes {
            let tail = process.log_tail();
            if !tail.trim().is_empty() {
                let _ = write!(text, "\n{tail}\n");
            }
        }
        text
    }

    /// Of peers that are one process in front of the server.
    fn single(
        name: &'static str,
        target: Target,
        command: &Command,
        folder: TempDir,
    ) -> Result<Self> {
        let mut relay = Self {
            name,
            entrance: Entrance::Fixed(target),
            processes: Vec::new(),
            folder,
        };
        relay.add(name, command)?;
        Ok(relay)
    }

    /// Starts one more process of it.
    fn add(&mut self, name: &str, command: &Command) -> Result<()> {
        let log = self.folder.path().join(format!("{name}.log"));
        self.processes.push(Process::start(name, command, &log)?);
        Ok(())
    }

    /// Waits until `address` accepts connections.
    fn ready(mut self, address: SocketAddr) -> Result<Self> {
        wait::until(self.name, START_PATIENCE, || {
            self.expect_running()?;
            Ok(wait::accepts(address).then_some(()))
        })
        .with_context(|| self.complaint())?;
        Ok(self)
    }
}

/// Starts until it succeeds, a few times.
fn again(start: impl Fn() -> Result<Relay>) -> Result<Relay> {
    let mut outcome = start();
    for _ in 1..STARTS_MAX {
        if outcome.is_ok() {
            break;
        }
        outcome = start();
    }
    outcome
}

/// A loopback address that can be listened on. Without `SO_REUSEADDR`, as some peers bind: a port
/// on which an old connection still lingers is none for them.
fn free_port() -> Result<SocketAddr> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = socket.local_addr()?.as_socket();
    address.context("the kernel gave no port")
}

/// A folder for one relay, which the unprivileged workers of some peers pass through.
fn folder() -> Result<TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    tempfile::Builder::new()
        .prefix("postern-bench-")
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir()
        .context("cannot make a folder")
}

/// `program`, and all that it starts, on one core.
fn on_core(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program);
    command
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_peers_are_refused_with_the_known_ones() {
        let check = |argument: &str, expected: &str| {
            let message = Binaries::parse(&[argument.to_owned()])
                .map(drop)
                .map_err(|error| error.to_string());
            match expected {
                "" => assert_eq!(message, Ok(()), "{argument}"),
                _ => assert!(
                    message.clone().is_err_and(|text| text.contains(expected)),
                    "{argument}: {message:?}"
                ),
            }
        };
        check("devolutions=/bin/sh", "");
        check("devolution=/bin/sh", "there are haproxy, nginx");
        check("devolutions=/no/such/file", "is no file");
        check("devolutions", "NAME=BINARY");
    }

    #[test]
    fn every_program_of_a_peer_can_be_named() {
        let ways = [Way::Passthrough, Way::Tls, Way::Ws, Way::Wss, Way::Rdp];
        for peer in Peer::RELAYS {
            let programs: Vec<_> = ways.iter().flat_map(|way| peer.programs(*way)).collect();
            assert!(!programs.is_empty(), "{peer:?} carries nothing");
            for name in programs {
                assert!(Binaries::KNOWN.contains(name), "{name}");
            }
        }
        let told = Binaries::parse(&["devolutions=/bin/sh".to_owned()]).unwrap();
        assert!(told.have(Peer::DevolutionsNoDelay, Way::Rdp));
        assert!(!told.have(Peer::DevolutionsNoDelay, Way::Passthrough));
        assert!(!Binaries::default().have(Peer::Devolutions, Way::Rdp));
    }
}
