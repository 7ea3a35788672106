//! A processor for each node: what a node sees of `/proc/stat` is its own work alone, as in containers.
//!
//! All nodes run on the processors of one machine, whose load says nothing of one of them. Containers have
//! the same trouble, and lxcfs helps them: it puts a file over `/proc/stat` that counts the container's own
//! processes. So does this, for a node with as many cores as the machine has.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use postern_parts::process::Process;
use postern_tests::machine::Machine;

/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(200);

/// Ticks of `/proc/stat` a second, on every Linux of today.
const TICKS: u64 = 100;

/// Nanoseconds of a tick.
const TICK_NS: u64 = 1_000_000_000 / TICKS;

/// Keeps a node's `/proc/stat` until it is dropped.
pub struct Processor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    folder: PathBuf,
    burners: Vec<Process>,
}

#[derive(Default)]
struct Shared {
    /// The process group whose work counts; 0: none.
    group: AtomicU32,
    /// Processes that never rest.
    burners: Mutex<Vec<u32>>,
    is_over: AtomicBool,
}

impl Processor {
    /// Puts an idle processor into `machine`.
    pub fn install(machine: &Machine, folder: &Path) -> Result<Self> {
        let file = folder.join(format!("{}.stat", machine.name));
        std::fs::write(&file, stat(0, 0))?;
        machine.show(&file, "/proc/stat")?;
        let shared = Arc::new(Shared::default());
        let (worker, open) = (shared.clone(), File::options().write(true).open(&file)?);
        let thread = std::thread::spawn(move || keep(&open, &worker));
        Ok(Self {
            shared,
            thread: Some(thread),
            folder: folder.to_owned(),
            burners: Vec::new(),
        })
    }

    /// Counts the work of a process and its group from now on.
    pub fn count(&self, group: u32) {
        self.shared.group.store(group, Ordering::SeqCst);
    }

    /// Lets processes on `machine` burn all of its cores.
    pub fn burn(&mut self, machine: &Machine) -> Result<()> {
        for core in 0..cores() {
            // It takes what nobody else wants, and counts as if it had it all: see `work_of`.
            let mut command = machine.command("nice");
            command.args(["-n", "19", "sh", "-c", "while :; do :; done"]);
            let log = format!("{}.burner{core}.log", machine.name);
            let burner = Process::start("burner", &command, &self.folder.join(log))?;
            self.shared.burners().push(burner.pid());
            self.burners.push(burner);
        }
        Ok(())
    }

    /// Ends what [`Processor::burn`] began.
    pub fn cool(&mut self) {
        self.shared.burners().clear();
        self.burners.clear();
    }
}

impl Shared {
    fn burners(&self) -> MutexGuard<'_, Vec<u32>> {
        self.burners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It ends at its next look, whatever became of it.
            let _ = thread.join();
        }
    }
}

fn keep(file: &File, shared: &Shared) {
    let (mut busy_ns, mut idle_ns) = (0, 0);
    let mut seen = BTreeMap::new();
    let mut last = Instant::now();
    while !shared.is_over.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK);
        let now = Instant::now();
        let passed = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
        let passed = passed.saturating_mul(cores());
        last = now;
        let worked = work_of(shared, &mut seen).min(passed);
        busy_ns += worked;
        idle_ns += passed - worked;
        let text = stat(busy_ns / TICK_NS, idle_ns / TICK_NS);
        // One write of the same length each time: whoever reads finds a whole file.
        if let Err(error) = file.write_all_at(text.as_bytes(), 0) {
            eprintln!("a node's /proc/stat can't be written: {error}");
            return;
        }
    }
}

/// Nanoseconds that the node's processes have worked since the last look. A process that burns would work
/// all the time on a core of its own, so the time that it waits for one of ours counts as well.
fn work_of(shared: &Shared, seen: &mut BTreeMap<u32, u64>) -> u64 {
    let mut now = BTreeMap::new();
    for pid in members(shared.group.load(Ordering::SeqCst)) {
        if let Ok(ns) = threads_ns(pid) {
            now.insert(pid, ns);
        }
    }
    for burner in shared.burners().iter() {
        if let Ok(ns) = schedule_ns(&format!("/proc/{burner}/schedstat"), true) {
            now.insert(*burner, ns);
        }
    }
    let worked = now
        .iter()
        .map(|(pid, ns)| ns.saturating_sub(seen.get(pid).copied().unwrap_or(*ns)))
        .sum();
    *seen = now;
    worked
}

/// The processes of a group; group 0 are the kernel's own, which are nobody's.
fn members(group: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").ok().filter(|_| group != 0);
    let Some(entries) = entries else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_member = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may have blanks in it; the group is the third word after it.
        let after = stat.rsplit_once(") ").map(|(_, after)| after);
        after.and_then(|after| after.split(' ').nth(2)?.parse().ok()) == Some(group)
    };
    pids.filter(is_member).collect()
}

fn threads_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path().join("schedstat");
        // A thread may end meanwhile.
        sum += schedule_ns(&path.to_string_lossy(), false).unwrap_or_default();
    }
    Ok(sum)
}

/// What a thread has run, with what it has waited for a processor if that is asked for.
fn schedule_ns(path: &str, with_waits: bool) -> Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let ran = words.next().context("schedstat has two numbers")??;
    let waited = words.next().context("schedstat has two numbers")??;
    Ok(if with_waits { ran + waited } else { ran })
}

/// Cores of this machine, and of each node.
fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

/// `/proc/stat`, with the work evenly on all cores.
fn stat(busy: u64, idle: u64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, busy: u64, idle: u64| {
        let written = writeln!(text, "{name} {busy:>12} 0 0 {idle:>12} 0 0 0 0 0 0");
        written.expect("a string grows");
    };
    line("cpu ", busy, idle);
    for core in 0..cores() {
        line(&format!("cpu{core}"), busy / cores(), idle / cores());
    }
    text
}
