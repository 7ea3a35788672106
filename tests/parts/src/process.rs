//! A child process in a group of its own that never outlives us.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long a process may take to end after it was asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Lines of a log that an error message quotes.
const LOG_LINES_QUOTED: usize = 30;

/// A running child, its process group and its log. Dropping it ends the whole group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output going to `log`. The child dies with this process, even
    /// when that is killed.
    ///
    /// # Errors
    /// The program or the log cannot be opened.
    pub fn start(name: &str, command: &Command, log: &Path) -> Result<Self> {
        let output = create(log)?;
        Self::start_with(
            name,
            guarded(command),
            log,
            Stdio::from(output.try_clone()?),
            output,
        )
    }

    /// As [`Process::start`], with the last word on how the child is started left to `change`.
    ///
    /// # Errors
    /// The program or the log cannot be opened.
    pub fn start_changed(
        name: &str,
        command: &Command,
        log: &Path,
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let output = create(log)?;
        let mut guarded = guarded(command);
        change(&mut guarded);
        Self::start_with(name, guarded, log, Stdio::from(output.try_clone()?), output)
    }

    /// As [`Process::start`], with standard output in a file of its own.
    ///
    /// # Errors
    /// The program or a file cannot be opened.
    pub fn start_split(name: &str, command: &Command, output: &Path, log: &Path) -> Result<Self> {
        Self::start_with(
            name,
            guarded(command),
            log,
            Stdio::from(create(output)?),
            create(log)?,
        )
    }

    fn start_with(
        name: &str,
        mut guarded: Command,
        log: &Path,
        output: Stdio,
        errors: File,
    ) -> Result<Self> {
        guarded.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = spawn(guarded).with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            status: None,
        })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// The end of the log, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// # Errors
    /// The process has ended; the message quotes its log.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log_tail()),
        }
    }

    /// Sends `signal` to the process itself.
    pub fn signal(&self, signal: Signal) {
        signal_process(self.pid(), signal);
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It runs for longer than `patience`.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if start.elapsed() > patience {
                bail!("{} still runs after {} s", self.name, patience.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks the group to end, then insists.
    pub fn stop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
            if self.wait(STOP_PATIENCE).is_err() {
                signal_group(self.pid(), Signal::KILL);
                let _ = self.wait(STOP_PATIENCE);
            }
        }
        // What the process itself left behind in its group.
        signal_group(self.pid(), Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A log that only its owner reads: it may quote what is nobody else's business.
fn create(file: &Path) -> Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(file)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Starts `command` as the leader of a process group that dies with this process.
///
/// # Errors
/// It cannot be started.
pub fn start_guarded(
    command: &Command,
    input: Stdio,
    output: Stdio,
    errors: Stdio,
) -> Result<Child> {
    let mut guarded = guarded(command);
    guarded.stdin(input).stdout(output).stderr(errors);
    spawn(guarded)
}

/// Runs a short command to its end.
///
/// # Errors
/// It cannot be started or fails; the message has what it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!(
            "{name}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends `signal` to one process; one that is gone already is no error.
pub fn signal_process(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends `signal` to a process group; one that is gone already is no error.
pub fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_QUOTED)..].join("\n")
}

/// The same command under `setpriv --pdeathsig`, in a process group of its own.
fn guarded(command: &Command) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut guarded = Command::new("setpriv");
    guarded.args(["--pdeathsig", "KILL", "--"]);
    guarded.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => guarded.env(name, value),
            None => guarded.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        guarded.current_dir(folder);
    }
    guarded.process_group(0);
    guarded
}

/// Starts `command` from one thread that lives as long as the process: the kernel sends the
/// parent-death signal when the *thread* that started a child ends, and tests come and go.
fn spawn(command: Command) -> Result<Child> {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = channel();
    starter
        .send((command, answer))
        .map_err(|_| anyhow!("the starter thread is gone"))?;
    Ok(child.recv().context("the starter thread is gone")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_process_ends_its_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 300 & echo $!; wait"]);
        let process = Process::start("shell", &shell, &log).unwrap();
        let sleeper = crate::wait::until("the sleeper", Duration::from_secs(5), || {
            Ok(std::fs::read_to_string(&log)?.trim().parse::<u32>().ok())
        })
        .unwrap();
        let alive = || {
            std::fs::read_to_string(format!("/proc/{sleeper}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z"))
        };
        assert!(alive());
        drop(process);
        crate::wait::until("the end", Duration::from_secs(5), || {
            Ok((!alive()).then_some(()))
        })
        .unwrap();
    }

    #[test]
    fn a_process_that_died_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo the reason >&2; exit 7"]);
        let mut process = Process::start("shell", &shell, &folder.path().join("log")).unwrap();
        process.wait(Duration::from_secs(5)).unwrap();
        let message = process.expect_running().unwrap_err().to_string();
        assert!(
            message.contains("the reason") && message.contains('7'),
            "{message}"
        );
    }
}
