//! The machine under the run: its cores, and what others took of it meanwhile.

use std::fs;

use anyhow::{Context as _, Result};
use postern_engine::relay::ktls;
use postern_relay::record::Library;

/// Stolen time above this part of a case's time is told.
const STEAL_PART_TOLD: f64 = 0.03;

/// Others that want to run, on average over the last minute, are told from here on.
const OTHERS_TOLD: f64 = 0.5;

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    pub relay: usize,
    pub clients: usize,
    pub server: usize,
}

impl Cores {
    /// The relay alone on a core, as far as there are any.
    ///
    /// # Errors
    /// The process does not know where it may run.
    pub fn choose() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .context("no Cpus_allowed_list in /proc/self/status")?;
        Self::among(&parse_list(list.trim())?).context("no core to run on")
    }

    fn among(cores: &[usize]) -> Option<Self> {
        let relay = *cores.first()?;
        let clients = *cores.get(1).unwrap_or(&relay);
        let server = *cores.get(2).unwrap_or(&clients);
        Some(Self {
            relay,
            clients,
            server,
        })
    }
}

/// `0-2,5` → 0, 1, 2, 5.
fn parse_list(list: &str) -> Result<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last] = [first, last].map(str::parse::<usize>);
        cores.extend(first.context("a core is a number")?..=last.context("a core is a number")?);
    }
    Ok(cores)
}

/// What the figures were measured on.
#[must_use]
pub fn notes() -> Vec<String> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let mut notes = vec![format!(
        "machine: {model}, {cores} cores, Linux {}; ours protects records by {}",
        kernel.trim(),
        Library::in_use().name()
    )];
    if let Err(absence) = ktls::available() {
        notes.push(format!("TLS is not the kernel's: {absence}"));
    }
    let others = read("/proc/loadavg");
    let others = others.split(' ').next().and_then(|load| load.parse().ok());
    if others.is_some_and(|others: f64| others > OTHERS_TOLD) {
        notes.push(format!(
            "other programs were running (load {:.1}): latencies are theirs, too",
            others.unwrap_or_default()
        ));
    }
    if cores < 2 {
        notes.push("one core for the relay and the load: no figure here means much".to_owned());
    }
    notes
}

/// Time that the machine under this one kept for itself, since a moment.
#[derive(Debug, Clone, Copy)]
pub struct Steal {
    stolen: u64,
    all: u64,
}

impl Steal {
    /// # Errors
    /// The kernel does not say.
    pub fn begin() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&stat).context("no line of all processors in /proc/stat")
    }

    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .map_while(|ticks| ticks.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; what follows is counted in these already.
        Some(Self {
            stolen: *ticks.get(7)?,
            all: ticks.iter().take(8).sum(),
        })
    }

    fn part(&self, now: &Self) -> f64 {
        let all = now.all.saturating_sub(self.all).max(1);
        now.stolen.saturating_sub(self.stolen) as f64 / all as f64
    }

    /// A remark where much was stolen since.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn note(&self, what: &str) -> Result<Option<String>> {
        let part = self.part(&Self::begin()?);
        Ok((part > STEAL_PART_TOLD)
            .then(|| format!("{what}: {:.0} % of the time was stolen", 100.0 * part)))
    }

    /// What was stolen in all.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn summary(&self) -> Result<String> {
        let part = 100.0 * self.part(&Self::begin()?);
        Ok(format!(
            "stolen by the machine underneath: {part:.1} % of the time"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_has_a_core_of_its_own_where_there_are_two() {
        let check = |list: &str, relay, clients, server| {
            let expected = Cores {
                relay,
                clients,
                server,
            };
            let cores = parse_list(list).unwrap();
            assert_eq!(Cores::among(&cores), Some(expected), "{list}");
        };
        check("3", 3, 3, 3);
        check("0-1", 0, 1, 1);
        check("2,4-7", 2, 4, 5);
        assert!(parse_list("x").is_err());
        Cores::choose().unwrap();
    }

    #[test]
    fn stolen_time_is_a_part_of_all_time() {
        let parse = |text| Steal::parse(text).unwrap();
        let before = parse("cpu  10 0 10 70 0 0 0 10 5 5\ncpu0 1 2 3\n");
        let after = parse("cpu  20 0 10 130 0 0 0 40 5 5\n");
        assert!((before.part(&after) - 0.3).abs() < 1e-9);
        assert!(Steal::parse("cpu0 1 2 3\n").is_none());
        Steal::begin().unwrap().summary().unwrap();
    }
}
