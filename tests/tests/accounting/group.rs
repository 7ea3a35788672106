//! A control group of the test's own, with `account` on it: one test at a time is in there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use postern_ebpf::Accounts;

/// A process is in one control group, with all of its threads.
static TURN: Mutex<()> = Mutex::new(());

/// Where control groups of version 2 are, beside those of version 1 or alone.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

pub struct Group {
    pub accounts: Accounts,
    path: PathBuf,
    before: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Group {
    /// Makes a group, and keeps accounts of at most `flows_max` connections of what is started inside.
    pub fn new(flows_max: u32) -> Result<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let root = ROOTS
            .map(PathBuf::from)
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())
            .context("control groups of version 2 are not mounted")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = root.join(own.context("the process is in no group")?);
        let path = root.join(format!("postern-tests-{}", std::process::id()));
        fs::create_dir(&path).context("a control group takes root")?;
        let accounts = Accounts::attach(&path, flows_max).inspect_err(|_| {
            // It is empty.
            let _ = fs::remove_dir(&path);
        })?;
        Ok(Self {
            accounts,
            path,
            before,
            _turn: turn,
        })
    }

    /// What `start` starts stays in the group; the test itself leaves it again.
    pub fn inside<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        enter(&self.path)?;
        let started = start();
        enter(&self.before)?;
        started
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What was started inside may take a moment to be gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        eprintln!("{} is still in use", self.path.display());
    }
}

fn enter(group: &Path) -> Result<()> {
    let id = std::process::id().to_string();
    fs::write(group.join("cgroup.procs"), id).context("the group can't be entered")
}
