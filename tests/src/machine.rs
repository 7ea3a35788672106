//! What looks like a machine of its own: a network, mounts and a clock of its processor's work, in namespaces that end with a process.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_parts::process::{self, Process};
use postern_parts::{program, wait};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sockets::{self, Connection};

/// Until the namespaces are there.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// What must be installed for machines.
const PROGRAMS: [&str; 5] = ["ip", "ethtool", "mount", "nsenter", "unshare"];

/// A network namespace and a mount namespace without names: they end with the process that holds
/// them, which ends with the test, however that ends. What is pinned to the machine's own BPF file
/// system ends with them.
#[derive(Debug)]
pub struct Machine {
    pub name: String,
    holder: Process,
    network: File,
}

impl Machine {
    /// A machine without any cable. Its log goes to `folder`.
    ///
    /// # Errors
    /// Namespaces take root.
    pub fn start(name: &str, folder: &Path) -> Result<Self> {
        program::require(&PROGRAMS)?;
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--", "sh", "-c"]);
        // Interfaces are in /sys as well, and what was mounted below it has to be mounted again.
        command.arg(
            "ip link set lo up && mount -t sysfs sysfs /sys && mount -t bpf bpf /sys/fs/bpf \
             && mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo ready && exec sleep infinity",
        );
        let log = folder.join(format!("{name}.machine.log"));
        let mut holder = Process::start(name, &command, &log)?;
        wait::until(name, START_PATIENCE, || {
            holder
                .expect_running()
                .context("a machine of its own takes root")?;
            Ok(std::fs::read_to_string(&log)?
                .contains("ready")
                .then_some(()))
        })?;
        let network = File::open(format!("/proc/{}/ns/net", holder.pid()))?;
        Ok(Self {
            name: name.to_owned(),
            holder,
            network,
        })
    }

    /// Does `work` in this machine's network. Sockets that it opens and threads that it starts stay
    /// there; files are everybody's.
    pub fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let worker = || {
            move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("who made a network may enter it");
            work()
        };
        match std::thread::scope(|scope| scope.spawn(worker).join()) {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A command that runs on this machine.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let namespaces = format!("/proc/{}/ns", self.holder.pid());
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={namespaces}/net"));
        command.arg(format!("--mount={namespaces}/mnt"));
        command.arg("--").arg(program);
        command
    }

    /// Runs a command on this machine, which must succeed; its words are parted by blanks.
    ///
    /// # Errors
    /// It fails; the message has what it wrote.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split(' ');
        let program = words.next().context("a command has a name")?;
        process::run(self.command(program).args(words))
            .with_context(|| format!("{}: {line}", self.name))
    }

    /// Sets a key of `/proc/sys/net`.
    ///
    /// # Errors
    /// There is no such key.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.on(|| std::fs::write(&path, value)).context(path)
    }

    /// Shows this machine alone `file` where `place` is.
    ///
    /// # Errors
    /// One of both is not there.
    pub fn show(&self, file: &Path, place: &str) -> Result<()> {
        self.run(&format!("mount --bind {} {place}", file.display()))
            .map(drop)
    }

    /// The TCP connections of this machine.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn connections(&self) -> Result<Vec<Connection>> {
        sockets::of_process(self.holder.pid())
    }

    /// The connection that this machine has from `remote` to `local`, if it has it.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn has_connection(&self, local: SocketAddr, remote: SocketAddr) -> Result<bool> {
        let found = Connection { local, remote };
        Ok(self.connections()?.contains(&found))
    }

    /// A counter of `/proc/net/snmp`: `protocol` is `Tcp` and so on.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn counter(&self, protocol: &str, name: &str) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/net/snmp", self.holder.pid()))?;
        let start = format!("{protocol}: ");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&start));
        let (names, values) = (lines.next(), lines.next());
        let (names, values) = names.zip(values).context("no such protocol")?;
        let found = names
            .split(' ')
            .zip(values.split(' '))
            .find(|(one, _)| *one == name);
        Ok(found.context("no such counter")?.1.parse()?)
    }
}

/// Lays a cable between two machines, `(machine, interface)` each. What leaves them is whole packets
/// with their checksums, as on a cable.
///
/// # Errors
/// An interface of that name is there already.
pub fn cable(one: (&Machine, &str), other: (&Machine, &str)) -> Result<()> {
    ensure!(one.1.len() < 16 && other.1.len() < 16, "too long a name");
    let pids = [one.0, other.0].map(|machine| machine.holder.pid());
    process::run(Command::new("ip").args([
        "link",
        "add",
        one.1,
        "netns",
        &pids[0].to_string(),
        "type",
        "veth",
        "peer",
        "name",
        other.1,
        "netns",
        &pids[1].to_string(),
    ]))?;
    for (machine, interface) in [one, other] {
        machine.run(&format!(
            "ethtool -K {interface} tx off tso off gso off gro off"
        ))?;
        machine.run(&format!("ip link set dev {interface} up"))?;
    }
    Ok(())
}
