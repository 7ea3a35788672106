//! Flows that the kernel has accounted: drained once a second, and written to the audit trail, one record each.

mod journal;

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postern_audit::{Event, FlowEnding, FlowLoss, FlowSide, KernelFlow, Record};
use postern_ebpf::{Account, Accounts, Ending, Patience, monotonic_ns};
use tokio::sync::watch;

use crate::admin::Accounting;
use crate::{ConductorError, keep, reports};
use journal::Journal;

const PERIOD: Duration = Duration::from_secs(1);

/// Losses are told this often, where there are any.
const LOSS_PERIOD: Duration = Duration::from_secs(10);

/// Flows that are drained at once.
const BATCH: usize = 4_096;

/// Records that wait for a disk that does not take them. With more nothing is drained: what the kernel
/// then finds no room for it counts as lost.
const WAITING_MAX: usize = 65_536;

/// The thread that drains, as long as this lives.
#[derive(Debug)]
pub struct Draining {
    end: Sender<()>,
    thread: JoinHandle<()>,
    counts: watch::Receiver<Accounting>,
}

impl Draining {
    /// # Errors
    /// The audit folder can't be written.
    pub fn start(
        accounts: Accounts,
        audit_directory: &Path,
        state_directory: &Path,
    ) -> Result<Self, ConductorError> {
        let journal = Journal::open(audit_directory)?;
        let told = keep::folder(state_directory)?.join("losses");
        let (counts, seen) = watch::channel(Accounting::default());
        let (end, ended) = channel();
        let mut drain = Drain {
            accounts,
            journal,
            waiting: VecDeque::new(),
            listening: BTreeSet::new(),
            losses: Losses::read(told),
            losses_at: Instant::now(),
            counts,
            is_failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("accounts".to_owned())
            .spawn(move || drain.run(&ended))
            .map_err(|source| ConductorError::System {
                what: "a thread",
                source,
            })?;
        Ok(Self {
            end,
            thread,
            counts: seen,
        })
    }

    #[must_use]
    pub fn counts(&self) -> watch::Receiver<Accounting> {
        self.counts.clone()
    }

    /// Writes what is over, and ends. It blocks.
    pub fn end(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the thread that drains accounts has panicked");
        }
    }
}

struct Drain {
    accounts: Accounts,
    journal: Journal,
    /// INVARIANT: at most [`WAITING_MAX`] and a batch.
    waiting: VecDeque<Record>,
    listening: BTreeSet<u16>,
    losses: Losses,
    losses_at: Instant,
    counts: watch::Sender<Accounting>,
    is_failing: bool,
}

impl Drain {
    fn run(&mut self, ended: &Receiver<()>) {
        loop {
            let is_over = !matches!(ended.recv_timeout(PERIOD), Err(RecvTimeoutError::Timeout));
            if let Err(error) = self.once(is_over) {
                if !self.is_failing {
                    tracing::error!(
                        error = error.in_full(),
                        "flows are not written to the audit trail"
                    );
                }
                self.is_failing = true;
            } else {
                self.is_failing = false;
            }
            if is_over {
                return;
            }
        }
    }

    fn once(&mut self, is_over: bool) -> Result<(), ConductorError> {
        self.listening = reports::listening()?;
        loop {
            if self.waiting.len() >= WAITING_MAX {
                break;
            }
            let drained = self.accounts.drain(Patience::default(), BATCH)?;
            let clock = Clock::now();
            for account in &drained.accounts {
                let side = self.side(account);
                self.waiting.push_back(clock.record(account, side));
            }
            if !drained.more {
                break;
            }
            self.write()?;
        }
        if is_over || self.losses_at.elapsed() >= LOSS_PERIOD {
            self.losses_at = Instant::now();
            self.tell_losses()?;
        }
        self.write()
    }

    /// Nobody says who began a connection; but at a port that is listened on it was the other end.
    fn side(&self, account: &Account) -> FlowSide {
        if self.listening.contains(&account.local.port()) {
            FlowSide::Accepted
        } else {
            FlowSide::Dialled
        }
    }

    fn write(&mut self) -> Result<(), ConductorError> {
        let records = self.waiting.make_contiguous();
        let flows = records
            .iter()
            .filter(|record| record.event == Event::Flow)
            .count();
        self.journal.append(records)?;
        self.waiting.clear();
        self.counts
            .send_modify(|counts| counts.records += flows as u64);
        Ok(())
    }

    fn tell_losses(&mut self) -> Result<(), ConductorError> {
        let (lost, apart) = (self.accounts.lost()?, self.accounts.apart()?);
        let now = FlowLoss {
            flows: lost.flows,
            replaced: lost.replaced,
            packets: lost.packets,
            wire_bytes: lost.wire_bytes,
            payload_in: lost.payload_in,
            payload_out: lost.payload_out,
            apart_packets: apart.packets,
            apart_wire_bytes: apart.wire_bytes,
        };
        let since = self.losses.since(&now);
        self.counts.send_modify(|counts| {
            counts.flows_lost = now.flows;
            counts.bytes_lost = now.payload_in.saturating_add(now.payload_out);
        });
        if since == FlowLoss::default() {
            return Ok(());
        }
        let mut record = Record::new(unix_ms(), Event::FlowLoss);
        record.flow_loss = Some(since);
        self.waiting.push_back(record);
        self.write()?;
        self.losses.told(now)
    }
}

/// What was told of the kernel's sums, which outlive this process.
struct Losses {
    path: PathBuf,
    told: FlowLoss,
}

impl Losses {
    fn read(path: PathBuf) -> Self {
        let told = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { path, told }
    }

    /// What came since; all of it where the sums began anew.
    fn since(&self, now: &FlowLoss) -> FlowLoss {
        let is_new = now.apart_packets < self.told.apart_packets || now.packets < self.told.packets;
        let told = if is_new {
            FlowLoss::default()
        } else {
            self.told
        };
        // A core may take back what another has counted.
        FlowLoss {
            flows: now.flows.saturating_sub(told.flows),
            replaced: now.replaced.saturating_sub(told.replaced),
            packets: now.packets.saturating_sub(told.packets),
            wire_bytes: now.wire_bytes.saturating_sub(told.wire_bytes),
            payload_in: now.payload_in.saturating_sub(told.payload_in),
            payload_out: now.payload_out.saturating_sub(told.payload_out),
            apart_packets: now.apart_packets.saturating_sub(told.apart_packets),
            apart_wire_bytes: now.apart_wire_bytes.saturating_sub(told.apart_wire_bytes),
        }
    }

    fn told(&mut self, now: FlowLoss) -> Result<(), ConductorError> {
        self.told = now;
        let bytes = serde_json::to_vec(&now).expect("numbers encode");
        fs::write(&self.path, bytes).map_err(ConductorError::file("file", &self.path))
    }
}

/// Both clocks at one moment.
struct Clock {
    monotonic_ns: u64,
    unix_ms: u64,
}

impl Clock {
    fn now() -> Self {
        Self {
            monotonic_ns: monotonic_ns(),
            unix_ms: unix_ms(),
        }
    }

    fn unix_ms_of(&self, monotonic_ns: u64) -> u64 {
        let ago_ms = self.monotonic_ns.saturating_sub(monotonic_ns) / 1_000_000;
        self.unix_ms.saturating_sub(ago_ms)
    }

    fn record(&self, account: &Account, side: FlowSide) -> Record {
        let counted = &account.record;
        let mut record = Record::new(self.unix_ms, Event::Flow);
        record.flow = Some(Box::new(KernelFlow {
            local: account.local,
            remote: account.remote,
            side,
            payload_in: counted.payload_in(),
            payload_out: counted.payload_out(),
            carried_in: counted.incoming.carried_bytes,
            carried_out: counted.outgoing.carried_bytes,
            packets_in: counted.incoming.packets,
            packets_out: counted.outgoing.packets,
            wire_bytes_in: counted.incoming.wire_bytes,
            wire_bytes_out: counted.outgoing.wire_bytes,
            first_ms: self.unix_ms_of(counted.first_ns),
            last_ms: self.unix_ms_of(counted.last_ns),
            ending: match account.ending {
                Some(Ending::Idle) => FlowEnding::Idle,
                Some(Ending::Replaced) => FlowEnding::Replaced,
                // What is drained has ended.
                Some(Ending::Over) | None => FlowEnding::Over,
            },
            adopted: counted.adopted == 1,
        }));
        record
    }
}

/// Milliseconds since 1970; zero on a clock that is set before it.
fn unix_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// The control group of version 2 that this process is in.
///
/// # Errors
/// There is none.
pub fn own_cgroup() -> Result<PathBuf, ConductorError> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(ConductorError::file("file", Path::new(path)))
    };
    let mounts = read("/proc/self/mounts")?;
    let groups = read("/proc/self/cgroup")?;
    // Of mounts that lie under others nothing is to be seen.
    let mut groups = cgroups_of(&mounts, &groups);
    groups.find(|group| group.is_dir()).ok_or_else(|| {
        ConductorError::Settings(
            "accounting needs a control group of version 2, and none is mounted".to_owned(),
        )
    })
}

/// Where the group is, by every mount of version 2.
fn cgroups_of<'a>(mounts: &'a str, groups: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next() == Some("cgroup2")).then_some(Path::new(place).join(group?))
    })
}

#[cfg(test)]
mod tests {
    use postern_ebpf_abi::account::{Direction, FlowRecord};

    use super::*;

    #[test]
    fn a_flow_is_recorded_with_the_streams_bytes_and_the_wall_clocks_time() {
        let clock = Clock {
            monotonic_ns: 10_000_000_000,
            unix_ms: 1_000_000,
        };
        let account = Account {
            local: "192.0.2.1:443".parse().unwrap(),
            remote: "198.51.100.7:50000".parse().unwrap(),
            record: FlowRecord {
                first_ns: 4_000_000_000,
                last_ns: 9_000_000_000,
                incoming: Direction {
                    packets: 3,
                    wire_bytes: 300,
                    carried_bytes: 120,
                    advanced: 101,
                },
                outgoing: Direction {
                    advanced: 55,
                    ..Direction::default()
                },
                incoming_next: 7,
                incoming_end: 7,
                fin_in: 1,
                ..FlowRecord::default()
            },
            ending: Some(Ending::Idle),
        };
        let record = clock.record(&account, FlowSide::Accepted);
        assert_eq!((record.event, record.time_ms), (Event::Flow, 1_000_000));
        let flow = record.flow.unwrap();
        // The FIN is no byte.
        assert_eq!((flow.payload_in, flow.payload_out), (100, 55));
        assert_eq!(
            (flow.carried_in, flow.packets_in, flow.wire_bytes_in),
            (120, 3, 300)
        );
        assert_eq!((flow.first_ms, flow.last_ms), (994_000, 999_000));
        assert_eq!((flow.ending, flow.adopted), (FlowEnding::Idle, false));
    }

    #[test]
    fn losses_are_told_once_also_over_a_restart_and_from_nothing_when_the_sums_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("losses");
        let sums = |packets: u64| FlowLoss {
            packets,
            apart_packets: packets,
            ..FlowLoss::default()
        };
        let mut losses = Losses::read(path.clone());
        assert_eq!(losses.since(&sums(5)), sums(5));
        losses.told(sums(5)).unwrap();
        assert_eq!(losses.since(&sums(5)), FlowLoss::default());
        let again = Losses::read(path);
        assert_eq!(again.since(&sums(7)), sums(2));
        assert_eq!(again.since(&sums(3)), sums(3));
    }

    #[test]
    fn the_group_is_found_below_where_groups_are_mounted() {
        let mounts = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let check = |mounts: &str, groups: &str, expected: Option<&str>| {
            let found: Vec<PathBuf> = cgroups_of(mounts, groups).collect();
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(found, expected);
        };
        let unified = "/sys/fs/cgroup/unified";
        check(
            mounts,
            "1:cpu:/x\n0::/a/b\n",
            Some(&format!("{unified}/a/b")),
        );
        check(mounts, "0::/\n", Some(&format!("{unified}/")));
        check(mounts, "1:cpu:/x\n", None);
        check("proc /proc proc rw 0 0\n", "0::/\n", None);
    }
}
