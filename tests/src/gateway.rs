//! A gateway of its own for one test: configuration, processes, audit records, measurements.

mod audit;
mod certificate;
mod configuration;
mod metrics;
mod roles;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use postern_engine::trial::forbid_io_uring_in;
use postern_parts::process::Process;
use postern_parts::{port, wait};
use tempfile::TempDir;

use crate::Browser;
use crate::machine::Machine;

pub use audit::{Audit, Chained};
pub use certificate::{Authority, write_certificate};
pub use configuration::{
    Application, Certificate, Configuration, PASSWORD, Policy, User, write_secret,
};
pub use metrics::Metrics;

/// Until `/healthz` answers, and until one answer.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// A gateway that is told to end has this long.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// What is asked of a running gateway takes effect within this time.
pub const EFFECT: Duration = Duration::from_secs(10);

/// The program that ships.
const SHIPPED: &str = "postern";
/// The variant with `/echo`, which `cargo xtask test` builds as well.
const WITH_ECHO: &str = "postern-echo";

/// A running gateway; dropping it ends all its processes.
#[derive(Debug)]
pub struct Gateway {
    /// Where its browsers connect: the first address of the configuration.
    pub address: SocketAddr,
    /// Host name of login, launcher and applications.
    pub host: String,
    metrics: SocketAddr,
    program: PathBuf,
    /// Where it runs, unless here.
    machine: Option<Arc<Machine>>,
    process: Option<Process>,
    configuration: Configuration,
    audit: PathBuf,
    folder: TempDir,
}

impl Gateway {
    /// Writes the configuration, starts `postern serve` and waits until it answers.
    ///
    /// # Errors
    /// It does not start; the message quotes its log.
    pub fn start(configuration: Configuration) -> Result<Self> {
        Self::start_program(program()?, configuration)
    }

    /// Starts the variant with `/echo`.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn start_with_echo(configuration: Configuration) -> Result<Self> {
        Self::start_program(echo_program()?, configuration)
    }

    /// Writes the configuration of a gateway for another machine, that browsers reach at `address`, and
    /// starts nothing. What reaches it over a network, [`Gateway::launch`] too, is called there.
    ///
    /// # Errors
    /// The configuration can't be written.
    pub fn prepare_on(
        machine: Arc<Machine>,
        address: SocketAddr,
        configuration: Configuration,
    ) -> Result<Self> {
        let mut gateway = Self::prepare(program()?, configuration)?;
        gateway.address = address;
        gateway.machine = Some(machine);
        gateway.write_configuration()?;
        Ok(gateway)
    }

    /// Writes the configuration and starts nothing; [`Gateway::serve`] is what would start.
    ///
    /// # Errors
    /// The configuration can't be written.
    pub fn prepare_here(configuration: Configuration) -> Result<Self> {
        Self::prepare(program()?, configuration)
    }

    fn start_program(program: PathBuf, configuration: Configuration) -> Result<Self> {
        let mut gateway = Self::prepare(program, configuration)?;
        gateway.launch()?;
        Ok(gateway)
    }

    fn prepare(program: PathBuf, configuration: Configuration) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-").tempdir()?;
        let audit = match &configuration.audit_directory {
            Some(directory) => directory.clone(),
            None => folder.path().join("state/audit"),
        };
        let gateway = Self {
            address: reached_at(configuration.listen.first(), port::free()?.port()),
            host: "localhost".to_owned(),
            metrics: port::free()?,
            program,
            machine: None,
            process: None,
            configuration,
            audit,
            folder,
        };
        write_certificate(gateway.folder.path(), &gateway.names())?;
        gateway.write_configuration()?;
        Ok(gateway)
    }

    /// Starts a gateway for one application named `lab` that everybody of group `staff` may open,
    /// with `alice` in that group.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn for_target(target: SocketAddr) -> Result<Self> {
        Self::start(Configuration::for_target(target))
    }

    /// Starts the processes again after [`Gateway::stop`].
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn launch(&mut self) -> Result<()> {
        let command = self.serve();
        let log = self.folder.path().join("postern.log");
        let forbidden = self.configuration.io_uring_is_forbidden;
        let process = Process::start_changed("postern", &command, &log, |command| {
            if forbidden {
                forbid_io_uring_in(command);
            }
        });
        self.process = Some(process?);
        let mut browser = self.browser();
        wait::until("the gateway", START_PATIENCE, || {
            self.process_mut()?.expect_running()?;
            let answer = browser.get("/healthz");
            Ok(answer
                .is_ok_and(|answer| answer.status == 200)
                .then_some(()))
        })
        .inspect_err(|_| eprintln!("{}", std::fs::read_to_string(&log).unwrap_or_default()))
    }

    /// A new browser without cookies.
    #[must_use]
    pub fn browser(&self) -> Browser {
        Browser::new(self.address, &self.host)
    }

    /// A browser in which `user` has signed in and opened `application`.
    ///
    /// # Errors
    /// One of these is refused.
    pub fn signed_in(&self, user: &str, application: &str) -> Result<Browser> {
        let mut browser = self.browser();
        browser.sign_in(user, PASSWORD)?;
        browser.open(application)?;
        Ok(browser)
    }

    /// Changes the configuration file and tells the gateway to read it.
    ///
    /// # Errors
    /// The gateway does not take it.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Configuration)) -> Result<()> {
        change(&mut self.configuration);
        self.write_configuration()?;
        self.command(&["reload"]).map(drop)
    }

    /// Runs `postern ARGUMENTS --config FILE`, which must succeed; its standard output.
    ///
    /// # Errors
    /// It does not; the message has what it wrote.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_command(arguments)?;
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        ensure!(
            output.status.success(),
            "postern {arguments:?}: {}: {out}{err}",
            output.status
        );
        Ok(out.into_owned())
    }

    /// Runs `postern ARGUMENTS --config FILE`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.postern();
        command.args(arguments).arg("--config").arg(self.file());
        command.output().context("postern can't be started")
    }

    /// Runs `postern audit verify` on this gateway's trail.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn verify_audit(&self) -> Result<Output> {
        let mut command = self.postern();
        command
            .args(["audit", "verify", "--directory"])
            .arg(&self.audit);
        command.output().context("postern can't be started")
    }

    /// The live sessions, as `postern sessions list --json` has them.
    ///
    /// # Errors
    /// The command fails.
    pub fn sessions(&self) -> Result<Vec<serde_json::Value>> {
        let listed: serde_json::Value =
            serde_json::from_str(&self.command(&["sessions", "list", "--json"])?)?;
        listed
            .as_array()
            .cloned()
            .context("the list of sessions is an array")
    }

    /// The audit trail.
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit::of(&self.audit)
    }

    /// What `/metrics` says now.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::get(self.metrics)
    }

    /// Whether routers should send packets here, as `GET /steer` says it: the status and the reason.
    ///
    /// # Errors
    /// It does not answer.
    pub fn announcement(&self) -> Result<(u16, String)> {
        metrics::ask(self.metrics, "/steer")
    }

    /// Folder of the configuration, the certificate and the state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Shows browsers another certificate from now on; SHA-256 of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn renew_certificate(&self) -> Result<String> {
        write_certificate(self.folder.path(), &self.names())
    }

    /// Process id of `postern serve`.
    ///
    /// # Errors
    /// It is not running.
    pub fn pid(&self) -> Result<u32> {
        Ok(self
            .process
            .as_ref()
            .context("the gateway is stopped")?
            .pid())
    }

    /// Ends the gateway in order.
    ///
    /// # Errors
    /// It does not end in time, or ends with a failure.
    pub fn stop(&mut self) -> Result<()> {
        self.terminate()?;
        let status = self.process_mut()?.wait(STOP_PATIENCE)?;
        if !status.success() {
            bail!("postern ended with {status}:\n{}", self.log());
        }
        self.process = None;
        Ok(())
    }

    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("postern.log")).unwrap_or_default()
    }

    /// The command that runs it.
    #[must_use]
    pub fn serve(&self) -> Command {
        let mut command = self.postern();
        command.arg("serve").arg("--config").arg(self.file());
        command
    }

    fn process_mut(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the gateway is stopped")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("postern.toml")
    }

    fn names(&self) -> Vec<String> {
        let own = self
            .configuration
            .applications
            .iter()
            .filter_map(|one| one.host.clone());
        std::iter::once(self.host.clone()).chain(own).collect()
    }

    fn write_configuration(&self) -> Result<()> {
        let folder = self.folder.path();
        let text =
            self.configuration
                .to_toml(folder, &self.host, self.address.port(), self.metrics)?;
        // Whole or not at all: the gateway may look at any moment.
        let new = folder.join("postern.toml.new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, self.file()).context("postern.toml can't be written")
    }

    fn postern(&self) -> Command {
        let mut command = match &self.machine {
            Some(machine) => machine.command(&self.program),
            None => Command::new(&self.program),
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Test runners show this when the test has failed.
        println!("-- log of the gateway --\n{}-- end --", self.log());
    }
}

/// The program under test: what `cargo build` made in the profile of this test.
///
/// # Errors
/// It is not there.
pub fn program() -> Result<PathBuf> {
    beside_this_test(SHIPPED)
}

/// The variant of it with `/echo`.
///
/// # Errors
/// It is not there.
pub fn echo_program() -> Result<PathBuf> {
    beside_this_test(WITH_ECHO)
}

fn beside_this_test(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/PROFILE/deps/TEST → target/PROFILE/NAME
    let folder = test
        .ancestors()
        .nth(2)
        .context("a test lies in target/PROFILE/deps")?;
    let program = folder.join(name);
    ensure!(
        program.is_file(),
        "{} is not there: `cargo xtask test --only system` builds it",
        program.display()
    );
    Ok(program)
}

/// Where a gateway that listens on `ip` is reached on this machine.
fn reached_at(ip: Option<&IpAddr>, port: u16) -> SocketAddr {
    let ip = match ip {
        None => Ipv4Addr::LOCALHOST.into(),
        Some(ip) if ip.is_unspecified() && ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        Some(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        Some(ip) => *ip,
    };
    SocketAddr::new(ip, port)
}
