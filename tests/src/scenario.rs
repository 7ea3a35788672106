//! A scenario in a real browser: Node drives Chromium, and tells the test what happens.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use postern_parts::{process, program};
use rustix::process::Signal;
use serde_json::Value;

/// A scenario that tells nothing for this long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A running scenario. Dropping it ends the browser.
#[derive(Debug)]
pub struct Scenario {
    name: String,
    child: Child,
    orders: ChildStdin,
    events: Receiver<Value>,
    log: PathBuf,
}

/// Where pictures for people go; the folder is not committed.
#[must_use]
pub fn artefacts() -> PathBuf {
    program::workspace().join("tests/artefacts")
}

impl Scenario {
    /// Starts `tests/browser/scenarios/SCRIPT.mjs` with `task`; pictures and the log carry `name`.
    ///
    /// # Errors
    /// Node or Chromium is not installed, or `npm ci` was not run in tests/browser.
    pub fn start(script: &str, name: &str, task: &Value) -> Result<Self> {
        program::require(&["node", "chromium"])?;
        let folder = program::workspace().join("tests/browser");
        if !folder.join("node_modules/playwright-core").is_dir() {
            bail!("playwright-core is not installed: run `cargo xtask test --only browser`");
        }
        let mut task = task.clone();
        task["name"] = name.into();
        task["artefacts"] = artefacts().to_string_lossy().into();
        task["chromium"] = program::find("chromium")
            .map(|file| file.to_string_lossy().into_owned())
            .into();
        std::fs::create_dir_all(artefacts())?;
        let log = artefacts().join(format!("{name}.log"));
        let file = std::fs::File::create(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("node");
        command
            .arg(format!("scenarios/{script}.mjs"))
            .arg(task.to_string())
            .current_dir(&folder);
        let (input, output) = (Stdio::piped(), Stdio::piped());
        let mut child = process::start_guarded(&command, input, output, file.into())
            .context("cannot start node")?;
        let orders = child.stdin.take().context("node has no input")?;
        let output = child.stdout.take().context("node has no output")?;
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.send(event).is_err()
                {
                    break;
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            orders,
            events,
            log,
        })
    }

    /// Waits for the next event, which must be `event`.
    ///
    /// # Errors
    /// Another event came, or none in time; the message has the scenario's log.
    pub fn expect(&mut self, event: &str) -> Result<Value> {
        let told = self.next(event)?;
        if told["event"] != event {
            bail!("{}: {told} instead of {event}:\n{}", self.name, self.log());
        }
        Ok(told)
    }

    fn next(&mut self, wanted: &str) -> Result<Value> {
        self.events.recv_timeout(SILENCE_MAX).map_err(|error| {
            let what = match error {
                RecvTimeoutError::Timeout => "silent instead of",
                RecvTimeoutError::Disconnected => "ended before",
            };
            anyhow!("{}: {what} {wanted}:\n{}", self.name, self.log())
        })
    }

    /// Sends a line to the scenario.
    ///
    /// # Errors
    /// It has ended.
    pub fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}")
            .with_context(|| format!("{}: has ended:\n{}", self.name, process::tail(&self.log)))
    }

    /// Waits for its success, whatever it tells on the way.
    ///
    /// # Errors
    /// It fails; the message has its log.
    pub fn pass(mut self) -> Result<()> {
        loop {
            let told = self.next("passed")?;
            if told["event"] == "passed" {
                return Ok(());
            }
            if told["event"] == "failed" {
                bail!("{}: failed:\n{}", self.name, self.log());
            }
        }
    }

    fn log(&self) -> String {
        process::tail(&self.log)
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        // The driver closes its browser when it is asked to end; its group is killed otherwise.
        let start = Instant::now();
        process::signal_group(self.child.id(), Signal::TERM);
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(3)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        process::signal_group(self.child.id(), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Runs a scenario that needs nothing from the test on the way.
///
/// # Errors
/// It fails.
pub fn play(script: &str, name: &str, task: &Value) -> Result<()> {
    Scenario::start(script, name, task)?.pass()
}

/// True where `file` is a picture that somebody can look at.
#[must_use]
pub fn is_picture(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|bytes| bytes.len() > 2_000 && bytes.starts_with(b"\x89PNG"))
}
