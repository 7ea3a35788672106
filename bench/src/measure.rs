//! Measurements of processes from outside, and statistics over the rounds of a case.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};

/// CPU time of a process and its descendants, from one look to the next.
///
/// The kernel's own accounting in nanoseconds, threads that have ended included; a descendant that ends
/// between two looks is an error, since what it used is lost.
#[derive(Debug, Clone)]
pub struct ProcessCpu {
    root: u32,
    last: Vec<(u32, u64)>,
}

impl ProcessCpu {
    /// Begins to measure `root` and its descendants.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(root: u32) -> Result<Self> {
        Ok(Self {
            root,
            last: look(root)?,
        })
    }

    /// Nanoseconds of CPU since the last call, or since [`ProcessCpu::of`].
    ///
    /// # Errors
    /// One of the processes is gone.
    pub fn lap_ns(&mut self) -> Result<u64> {
        let now = look(self.root)?;
        let before = |pid: u32| self.last.iter().find(|(of, _)| *of == pid);
        for (pid, _) in &self.last {
            let still = now.iter().any(|(of, _)| of == pid);
            ensure!(
                still,
                "process {pid} of {} ended under measurement",
                self.root
            );
        }
        let used = now
            .iter()
            .map(|(pid, ns)| ns.saturating_sub(before(*pid).map_or(0, |(_, ns)| *ns)))
            .sum();
        self.last = now;
        Ok(used)
    }
}

fn look(root: u32) -> Result<Vec<(u32, u64)>> {
    tree(root)?
        .into_iter()
        .map(|pid| Ok((pid, cpu_ns(pid)?)))
        .collect()
}

/// A process and its descendants.
fn tree(root: u32) -> Result<BTreeSet<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end while we look; ours are checked below.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the command's name, which may hold anything: state, then the parent.
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = BTreeSet::from([root]);
    loop {
        let before = found.len();
        for (pid, parent) in &parents {
            if found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            break;
        }
    }
    ensure!(
        parents.iter().any(|(pid, _)| *pid == root),
        "there is no process {root}"
    );
    Ok(found)
}

/// CPU time that all threads of a process have used, living and ended, in nanoseconds.
///
/// # Errors
/// There is no such process.
#[allow(unsafe_code)]
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let pid = i32::try_from(pid)?;
    let mut clock = 0;
    // SAFETY: `clock` is valid for the write of one clock id.
    let found = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    ensure!(found == 0, "process {pid} has no CPU clock");
    clock_ns(clock).with_context(|| format!("the CPU clock of process {pid}"))
}

/// CPU time of the calling thread, in nanoseconds.
///
/// # Panics
/// Every thread has this clock.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID).expect("every thread has a CPU clock")
}

/// Nanoseconds on the monotonic clock, which all processes of a machine share.
///
/// # Panics
/// Every machine has this clock.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC).expect("every machine has a monotonic clock")
}

#[allow(unsafe_code)]
fn clock_ns(clock: libc::clockid_t) -> Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for the write of one timespec.
    let read = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(read == 0, "{}", std::io::Error::last_os_error());
    Ok(u64::try_from(time.tv_sec)? * 1_000_000_000 + u64::try_from(time.tv_nsec)?)
}

/// Memory of a process and its descendants: proportional set size, in KB.
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn pss_kb(root: u32) -> Result<u64> {
    tree(root)?.into_iter().map(pss_of_kb).sum()
}

fn pss_of_kb(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kb = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(kb.context("no Pss in smaps_rollup")?.parse()?)
}

/// Runs the calling thread, and what it starts from now on, on one core alone.
///
/// # Errors
/// The kernel refuses.
pub fn pin_to(core: usize) -> Result<()> {
    pin(0, core)
}

/// Runs another process, or a thread of the kernel, on one core alone.
///
/// # Errors
/// There is no such process, or it stays where it is.
pub fn pin_process_to(pid: u32, core: usize) -> Result<()> {
    pin(i32::try_from(pid)?, core)
}

/// 0 is the calling thread.
#[allow(unsafe_code)]
fn pin(pid: libc::pid_t, core: usize) -> Result<()> {
    ensure!(core < libc::CPU_SETSIZE as usize, "there is no core {core}");
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is within the set, as checked above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is valid for reads of the size given.
    let pinned = unsafe { libc::sched_setaffinity(pid, size_of_val(&set), &raw const set) };
    ensure!(
        pinned == 0,
        "core {core}: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// Raises the limit of open descriptors as far as it goes; the new limit.
///
/// # Errors
/// The kernel refuses.
#[allow(unsafe_code)]
pub fn raise_descriptor_limit() -> Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for the write of one rlimit.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    ensure!(read == 0, "{}", std::io::Error::last_os_error());
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for the read of one rlimit.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    ensure!(set == 0, "{}", std::io::Error::last_os_error());
    Ok(limit.rlim_cur)
}

/// One figure of one peer, measured in several rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples(Vec<f64>);

/// How two peers' figures relate, round by round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Median of the rounds' ratios.
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub n: usize,
}

impl Samples {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    #[must_use]
    pub fn n(&self) -> usize {
        self.0.len()
    }

    /// NaN when there is none.
    #[must_use]
    pub fn median(&self) -> f64 {
        median(&self.0)
    }

    #[must_use]
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    #[must_use]
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// Median of the distances to the median.
    #[must_use]
    pub fn mad(&self) -> f64 {
        let center = self.median();
        let distances: Vec<f64> = self.0.iter().map(|value| (value - center).abs()).collect();
        median(&distances)
    }

    /// From least to greatest, as a part of the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        (self.max() - self.min()) / self.median()
    }

    /// These against `other`'s, round by round: rounds are interleaved, so what disturbs one disturbs its
    /// neighbour, too. `None` when there is no round of both.
    #[must_use]
    pub fn ratio_to(&self, other: &Self) -> Option<Ratio> {
        let ratios: Vec<f64> = self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect();
        let ratios = Self(ratios);
        (ratios.n() > 0).then(|| Ratio {
            median: ratios.median(),
            min: ratios.min(),
            max: ratios.max(),
            n: ratios.n(),
        })
    }
}

impl Ratio {
    /// The rounds don't even agree on who is better.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.min < 1.0 && self.max > 1.0
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn statistics_of_rounds_are_those_of_the_textbook() {
        let samples: Samples = [3.0, 1.0, 10.0, 2.0].into_iter().collect();
        assert_eq!((samples.median(), samples.n()), (2.5, 4));
        assert_eq!((samples.min(), samples.max()), (1.0, 10.0));
        assert_eq!((samples.mad(), samples.spread()), (1.0, 3.6));
        assert!(Samples::default().median().is_nan());
        let peer: Samples = [6.0, 4.0, 5.0].into_iter().collect();
        let ratio = samples.ratio_to(&peer).unwrap();
        let expected = Ratio {
            median: 0.5,
            min: 0.25,
            max: 2.0,
            n: 3,
        };
        assert_eq!(ratio, expected);
        assert!(ratio.is_undecided());
        assert_eq!(samples.ratio_to(&Samples::default()), None);
    }

    #[test]
    fn a_busy_process_uses_cpu_and_a_sleeping_one_does_not() {
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let mut sleeper = ProcessCpu::of(child.id()).unwrap();
        let mut own = ProcessCpu::of(std::process::id()).unwrap();
        let begin = thread_cpu_ns();
        // The thread has ended when the lap is taken; what it used counts all the same.
        let busy = std::thread::spawn(|| {
            let begin = thread_cpu_ns();
            while thread_cpu_ns() - begin < 50_000_000 {}
        });
        busy.join().unwrap();
        let used = own.lap_ns().unwrap();
        assert!(used >= 50_000_000, "{used}");
        assert!(thread_cpu_ns() - begin < used);
        assert!(sleeper.lap_ns().unwrap() < 5_000_000);
        assert!(pss_kb(child.id()).unwrap() > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(sleeper.lap_ns().is_err());
        assert!(pss_kb(child.id()).is_err());
    }
}
