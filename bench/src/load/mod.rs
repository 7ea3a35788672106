//! The load: clients that work through a relay, and the server behind it, each in a process of its own so
//! that what they use is never taken for the relay's.

pub mod child;
mod clients;
mod command;
mod desktop;
mod frames;
mod measured;
mod open;
mod pattern;
mod ring;
mod self_check;
mod server;
mod stream;
pub mod tls;
mod work;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use postern_parts::program;
use serde::{Deserialize, Serialize};

pub use measured::{Latency, Measured};
pub use self_check::SelfCheck;
pub use work::{
    BURST_MESSAGES, Direction, Groups, Layer, MESSAGE_BYTES, Pace, Ping, Target, Upgrade, Work,
};

/// The program that clients and server run in.
const PROGRAM: &str = "postern-bench-load";

/// When an observer looks at the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Everything is open and warm; the measured part begins when the observer returns.
    Ready,
    /// The measured part is over; every connection is still open.
    Done,
}

/// What one process of clients is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub work: Work,
    pub target: Target,
    /// The core to run on; any when there is none.
    pub core: Option<usize>,
}

/// Does `work` over `target`, on any core.
///
/// # Errors
/// A connection fails, or does less than all of its work.
pub fn run(work: &Work, target: &Target) -> Result<Measured> {
    let job = Job {
        work: work.clone(),
        target: target.clone(),
        core: None,
    };
    run_observed(&job, |_| Ok(()))
}

/// Does a job and lets `observe` look at the relay before and after the measured part.
///
/// # Errors
/// As [`run`], and what `observe` returns.
pub fn run_observed(job: &Job, mut observe: impl FnMut(Phase) -> Result<()>) -> Result<Measured> {
    let mut clients = Process::start("clients", job)?;
    let outcome = (|| {
        for phase in [Phase::Ready, Phase::Done] {
            let told: Phase = clients.hear()?;
            ensure!(told == phase, "the clients are {told:?} before {phase:?}");
            observe(phase)?;
            clients.tell(&phase)?;
        }
        clients.hear()
    })();
    outcome.with_context(|| format!("{:?} over {}", job.work, job.target.address))
}

/// The server that all loads end at; dropping it ends it.
#[derive(Debug)]
pub struct Server {
    process: Process,
    pub addresses: Addresses,
}

/// Where the server listens, all on loopback, all with the same behaviour behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Addresses {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    pub ws: SocketAddr,
    pub wss: SocketAddr,
    /// X.224 negotiation that chooses TLS, TLS.
    pub rdp: SocketAddr,
    /// SHA-256 of the certificate, 64 hex digits.
    pub fingerprint: String,
}

/// Host name in the server's certificate.
pub const SERVER_NAME: &str = "localhost";

impl Server {
    /// # Errors
    /// It does not start.
    pub fn start(core: Option<usize>) -> Result<Self> {
        let mut process = Process::start("server", &core)?;
        let addresses = process.hear()?;
        Ok(Self { process, addresses })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }
}

impl Addresses {
    /// The straight way that costs clients the same as `target`: what is left out is the relay.
    #[must_use]
    pub fn direct_for(&self, target: &Target) -> Target {
        let has = |wanted: fn(&Layer) -> bool| target.layers.iter().any(wanted);
        let tls = has(|layer| matches!(layer, Layer::Tls { .. }));
        let upgrades = || vec![Upgrade::default()];
        match (tls, has(|layer| matches!(layer, Layer::WebSocket { .. }))) {
            (false, false) => Target::tcp(self.plain),
            (true, false) => Target::tls(self.tls, SERVER_NAME),
            (false, true) => Target::ws(self.ws, upgrades()),
            (true, true) => Target::wss(self.wss, SERVER_NAME, upgrades()),
        }
    }
}

/// A child that is spoken to in lines of JSON.
#[derive(Debug)]
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start<T: Serialize>(role: &str, order: &T) -> Result<Self> {
        let mut child = Command::new(program()?)
            .arg(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("the load's {role}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("stdout is a pipe")?;
        let mut process = Self {
            child,
            input,
            output: BufReader::new(output),
        };
        process.tell(order)?;
        Ok(process)
    }

    fn tell<T: Serialize>(&mut self, what: &T) -> Result<()> {
        let mut line = serde_json::to_string(what)?;
        line.push('\n');
        let input = self.input.as_mut().context("stdin is a pipe")?;
        input
            .write_all(line.as_bytes())
            .context("the load has ended")
    }

    fn hear<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            let status = self.child.wait()?;
            bail!("the load failed ({status}); what it says is above");
        }
        serde_json::from_str(&line).with_context(|| format!("the load says {line:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends by itself when nobody speaks to it any more; one that is stuck must not outlive us.
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Result<PathBuf> {
    program::beside(PROGRAM)?.with_context(|| format!("{PROGRAM} is not built"))
}
