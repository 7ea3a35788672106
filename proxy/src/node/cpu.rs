//! How busy CPUs are, whoever keeps them busy: the kernel's counts, read by a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Between looks.
const LOOK: Duration = Duration::from_millis(100);

/// Looks that a value is the mean of.
const LOOKS: usize = 10;

/// [proc_stat(5)] The kernel's counts of each CPU's time.
const STAT: &str = "/proc/stat";

/// How busy some CPUs were over the last second.
#[derive(Debug)]
pub(super) struct Cpus {
    permille: Vec<AtomicU32>,
}

/// Ticks of one CPU since the machine began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl Cpus {
    /// Of the CPU that was named at this place.
    pub(super) fn busy_permille(&self, place: usize) -> u32 {
        let permille = self.permille.get(place);
        permille.map_or(0, |permille| permille.load(Ordering::Relaxed))
    }
}

/// Watches `cores` for as long as anybody wants to know.
///
/// # Errors
/// When the kernel does not tell, or gives no thread.
pub(super) fn watch(cores: &[usize]) -> io::Result<Arc<Cpus>> {
    let first = read(cores)?;
    let cpus = Arc::new(Cpus {
        permille: cores.iter().map(|_| AtomicU32::new(0)).collect(),
    });
    let watched = Arc::downgrade(&cpus);
    let cores = cores.to_vec();
    std::thread::Builder::new()
        .name("cpus".to_owned())
        .spawn(move || {
            let mut looks = [const { Vec::new() }; LOOKS];
            looks.fill(first);
            for at in (0..LOOKS).cycle() {
                std::thread::sleep(LOOK);
                let Some(cpus) = watched.upgrade() else {
                    return;
                };
                // What can't be read just now is read next time.
                let Ok(now) = read(&cores) else { continue };
                for ((permille, now), before) in cpus.permille.iter().zip(&now).zip(&looks[at]) {
                    permille.store(now.busy_permille_since(*before), Ordering::Relaxed);
                }
                looks[at] = now;
            }
        })?;
    Ok(cpus)
}

impl Ticks {
    fn busy_permille_since(self, before: Self) -> u32 {
        let all = self.all.saturating_sub(before.all);
        let busy = self.busy.saturating_sub(before.busy).min(all);
        let permille = (busy * 1000).checked_div(all).unwrap_or(0);
        u32::try_from(permille).unwrap_or(1000)
    }
}

fn read(cores: &[usize]) -> io::Result<Vec<Ticks>> {
    let text = std::fs::read_to_string(STAT)?;
    cores
        .iter()
        .map(|core| {
            ticks(&text, *core).ok_or_else(|| {
                let why = format!("{STAT} does not speak of CPU {core}");
                io::Error::new(io::ErrorKind::InvalidData, why)
            })
        })
        .collect()
}

/// [proc_stat(5)] `cpuN user nice system idle iowait irq softirq steal guest guest_nice`; what guests used is
/// in the first two as well.
fn ticks(text: &str, core: usize) -> Option<Ticks> {
    let name = format!("cpu{core}");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '))?;
    let mut fields = [0_u64; 8];
    let mut words = line.split_ascii_whitespace();
    for field in &mut fields {
        *field = words.next()?.parse().ok()?;
    }
    let all = fields.iter().sum();
    let [_, _, _, idle, iowait, ..] = fields;
    Some(Ticks {
        busy: all - idle - iowait,
        all,
    })
}

#[cfg(test)]
mod tests {
    use postern_engine::front::{self, Kind};

    use super::*;

    const TEXT: &str = "cpu  30 0 30 140 20 0 0 0 0 0\n\
        cpu0 10 1 9 70 5 2 3 4 8 0\n\
        cpu1 20 0 20 70 15 0 0 0 0 0\n\
        cpu10 1 1 1 1 1 1 1 1 0 0\n\
        intr 5 0\n";

    #[test]
    fn a_cpus_ticks_are_read_from_its_own_line() {
        let check = |core: usize, expected: Option<(u64, u64)>| {
            let expected = expected.map(|(busy, all)| Ticks { busy, all });
            assert_eq!(ticks(TEXT, core), expected, "{core}");
        };
        check(0, Some((29, 104)));
        check(1, Some((40, 125)));
        check(10, Some((6, 8)));
        check(2, None);
        assert_eq!(ticks("cpu0 1 2 x\n", 0), None);
        assert_eq!(ticks("cpu0 1 2 3\n", 0), None);
    }

    #[test]
    fn busy_is_a_share_of_the_time_between_two_looks() {
        let check = |busy: u64, all: u64, permille: u32| {
            let before = Ticks {
                busy: 1000,
                all: 5000,
            };
            let now = Ticks {
                busy: before.busy + busy,
                all: before.all + all,
            };
            assert_eq!(now.busy_permille_since(before), permille);
        };
        check(0, 100, 0);
        check(50, 100, 500);
        check(100, 100, 1000);
        // A tickless CPU may be told late.
        check(110, 100, 1000);
        check(0, 0, 0);
        // Counts that went back, as after a CPU was away.
        assert_eq!(
            Ticks::default().busy_permille_since(Ticks { busy: 9, all: 9 }),
            0
        );
    }

    #[test]
    fn a_cpu_that_works_is_seen_within_two_seconds() {
        let core = postern_engine::resources::cores()[0];
        let cpus = watch(&[core]).expect("the kernel tells");
        let until = std::time::Instant::now() + Duration::from_secs(2);
        let worker = front::start(core, Kind::Epoll, move || async move {
            while std::time::Instant::now() < until {
                std::hint::spin_loop();
            }
        });
        let ended = worker.expect("a thread").join();
        ended.expect("it only spins").expect("it may run there");
        assert!(cpus.busy_permille(0) >= 800, "{}", cpus.busy_permille(0));
    }
}
