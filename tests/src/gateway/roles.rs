//! The processes of a gateway, by role, and their violent ends.

use anyhow::Result;
use postern_parts::process::{signal_group, signal_process};
use postern_parts::wait;
use rustix::process::Signal;

use super::{EFFECT, Gateway, START_PATIENCE};

impl Gateway {
    /// Process id of a role, `control`, `engine` or `conductor`, waiting for it.
    ///
    /// # Errors
    /// There is none.
    pub fn role(&self, role: &str) -> Result<u32> {
        let parent = self.pid()?;
        wait::until(role, START_PATIENCE, || {
            Ok(child_with_argument(parent, role))
        })
    }

    /// Stops a role where it stands, so that nothing that waits for it is answered.
    ///
    /// # Errors
    /// There is none.
    pub fn freeze(&self, role: &str) -> Result<()> {
        signal_process(self.role(role)?, Signal::STOP);
        Ok(())
    }

    /// Kills a role at once, and waits until it is dead; `serve` is to start it again.
    ///
    /// # Errors
    /// There is none.
    pub fn kill(&self, role: &str) -> Result<u32> {
        let pid = self.role(role)?;
        signal_process(pid, Signal::KILL);
        wait::until("the death of a process", EFFECT, || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
        })?;
        Ok(pid)
    }

    /// Kills all its processes at once; nobody starts them again.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill_all(&mut self) -> Result<()> {
        signal_group(self.pid()?, Signal::KILL);
        self.process_mut()?.wait(EFFECT)?;
        self.process = None;
        Ok(())
    }

    /// Tells `serve` to end.
    ///
    /// # Errors
    /// It is not running.
    pub fn terminate(&self) -> Result<()> {
        signal_process(self.pid()?, Signal::TERM);
        Ok(())
    }
}

/// The child of `parent` that has `argument` as its first argument.
fn child_with_argument(parent: u32, argument: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let mut pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.find(|pid: &u32| {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let is_child = status.lines().any(|line| {
            line.strip_prefix("PPid:")
                .is_some_and(|of| of.trim() == parent.to_string())
        });
        is_child && read("cmdline").split(|byte| *byte == 0).nth(1) == Some(argument.as_bytes())
    })
}
