//! `account` on a control group: attached, drained in batches, its losses read, detached.

mod sweep;

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, ProgramInfo, SockOps,
    TestRun as _, TestRunOptions,
};
use aya::{Ebpf, EbpfLoader, Pod};
use postern_ebpf_abi as abi;
use postern_ebpf_abi::account::{Apart, FlowKey, FlowRecord, Loss, Replaced, Sums};

use crate::held::Held;
use crate::maps::Raw;
use crate::programs::permission;
use crate::set::{ACCOUNTS, Set};
use crate::{Error, Pins, clock, object};

/// When a flow is taken out of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After the last packet of a flow that is over.
    pub over: Duration,
    /// After the last packet of a flow that is not: it begins anew with its next packet.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            over: Duration::from_secs(2),
            idle: Duration::from_secs(3600),
        }
    }
}

/// Why a flow was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its socket closed.
    Over,
    /// Nothing was heard of it.
    Idle,
    /// It was over, and another began between the same addresses and ports.
    Replaced,
}

/// A flow and why it ended; none while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub record: FlowRecord,
    pub ending: Option<Ending>,
}

impl Account {
    fn of(key: &FlowKey, record: FlowRecord, ending: Option<Ending>) -> Self {
        Self {
            local: key.local(),
            remote: key.remote(),
            record,
            ending,
        }
    }
}

/// What a drain took out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drained {
    pub accounts: Vec<Account>,
    /// Whether the batch was full: another drain will find more.
    pub more: bool,
}

/// A direction, as one program sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    In,
    Out,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::In => abi::programs::ACCOUNT_IN,
            Self::Out => abi::programs::ACCOUNT_OUT,
        }
    }
}

/// The accounts of all TCP connections of a control group: as long as this lives, or as long as they
/// are pinned.
pub struct Accounts {
    held: Held,
    replaced: RingBuf<MapData>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Accounts {
    /// Counts for the sockets that processes of `cgroup` and of groups within open, at most
    /// `flows_max` connections at a time; more are counted as lost. Connections that exist are
    /// adopted at their next packet.
    ///
    /// # Errors
    /// It is no control group of version 2, or the process may not load programs.
    pub fn attach(cgroup: &Path, flows_max: u32) -> Result<Self, Error> {
        let cgroup = File::open(cgroup).map_err(Error::System)?;
        let (mut ebpf, replaced) = Self::loaded(flows_max)?;
        // Links leave room for other programs whatever their mode; the kernel takes no other here.
        let mode = CgroupAttachMode::Single;
        // Whoever hears of beginnings must have seen the packet that began.
        for (side, kind) in [
            (Side::In, CgroupSkbAttachType::Ingress),
            (Side::Out, CgroupSkbAttachType::Egress),
        ] {
            packets(&mut ebpf, side)?
                .attach(&cgroup, kind, mode)
                .map_err(in_program(side.name()))?;
        }
        sockets(&mut ebpf)?
            .attach(&cgroup, mode)
            .map_err(in_program(abi::programs::ACCOUNT_LIFE))?;
        let held = Held::Loaded(ebpf);
        Ok(Self { held, replaced })
    }

    /// Opens what [`crate::install_accounts`] pinned; takes no capability. Dropped, it leaves all
    /// in place.
    ///
    /// # Errors
    /// Nothing is installed, or by another version of the programs.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let set = Set::installed(pins, &ACCOUNTS)?;
        let maps = [abi::maps::ACCOUNT_FLOWS, abi::maps::ACCOUNT_SUMS];
        let held = Held::open(&set, &maps)?;
        let name = abi::maps::ACCOUNT_REPLACED;
        let replaced = RingBuf::try_from(set.map(name)?).map_err(in_map(name))?;
        Ok(Self { held, replaced })
    }

    /// Loads the programs and attaches them to nothing: for [`Accounts::run`].
    ///
    /// # Errors
    /// The process may not, or the kernel's verifier refuses a program.
    pub fn load(flows_max: u32) -> Result<Self, Error> {
        let (ebpf, replaced) = Self::loaded(flows_max)?;
        let held = Held::Loaded(ebpf);
        Ok(Self { held, replaced })
    }

    fn loaded(flows_max: u32) -> Result<(Ebpf, RingBuf<MapData>), Error> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(abi::maps::ACCOUNT_FLOWS, flows_max)
            .load(object::bytes())
            .map_err(permission)?;
        for side in [Side::In, Side::Out] {
            let program = packets(&mut ebpf, side)?;
            program.load().map_err(in_program(side.name()))?;
        }
        let program = sockets(&mut ebpf)?;
        program
            .load()
            .map_err(in_program(abi::programs::ACCOUNT_LIFE))?;
        let name = abi::maps::ACCOUNT_REPLACED;
        let replaced = ebpf.take_map(name).ok_or(Error::Missing(name))?;
        let replaced = RingBuf::try_from(replaced).map_err(in_map(name))?;
        Ok((ebpf, replaced))
    }

    /// Takes out flows that are over or idle, `most` at a time.
    ///
    /// # Errors
    /// As the kernel says; what was taken out before is lost then.
    pub fn drain(&mut self, patience: Patience, most: usize) -> Result<Drained, Error> {
        let mut drained = Drained::default();
        while drained.accounts.len() < most {
            let Some(item) = self.replaced.next() else {
                break;
            };
            let Raw(replaced) = read::<Replaced>(&item)?;
            let ending = Some(Ending::Replaced);
            let account = Account::of(&replaced.key, replaced.record, ending);
            drained.accounts.push(account);
        }
        let now_ns = clock::monotonic_ns();
        let map = self.flows()?;
        let mut due = Vec::new();
        let mut sweep = sweep::Sweep::of(map);
        while due.len() + drained.accounts.len() < most
            && let Some(batch) = sweep.next().map_err(Error::System)?
        {
            let found = batch
                .iter()
                .filter_map(|(key, record)| Some((*key, ending(record, now_ns, patience)?)));
            let room = most.saturating_sub(due.len() + drained.accounts.len());
            due.extend(found.take(room));
        }
        drained.more = due.len() + drained.accounts.len() >= most;
        for (key, ending) in due {
            // It may have grown since it was looked at, and nobody else removes.
            if let Some(record) = sweep::take(map, &key).map_err(Error::System)? {
                let account = Account::of(&key, record, Some(ending));
                drained.accounts.push(account);
            }
        }
        Ok(drained)
    }

    /// The account of a connection that is in the map, as the owner of its socket names it.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn find(&self, local: SocketAddr, remote: SocketAddr) -> Result<Option<Account>, Error> {
        let key = FlowKey::between(local, remote);
        let name = abi::maps::ACCOUNT_FLOWS;
        let map = self.held.map(name)?;
        let map =
            HashMap::<_, Raw<FlowKey>, Raw<FlowRecord>>::try_from(map).map_err(in_map(name))?;
        match map.get(&Raw(key), 0) {
            Ok(Raw(record)) => Ok(Some(Account::of(&key, record, None))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(in_map(name)(source)),
        }
    }

    /// Flows that are in the map.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn len(&self) -> Result<usize, Error> {
        let mut sweep = sweep::Sweep::of(self.flows()?);
        let mut count = 0;
        while let Some(batch) = sweep.next().map_err(Error::System)? {
            count += batch.len();
        }
        Ok(count)
    }

    /// Whether no flow is in the map.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// What connections did that are in no account.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn lost(&self) -> Result<Loss, Error> {
        Ok(self.sums()?.lost)
    }

    /// Packets of the group that are of no connection.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn apart(&self) -> Result<Apart, Error> {
        Ok(self.sums()?.apart)
    }

    fn sums(&self) -> Result<Sums, Error> {
        let name = abi::maps::ACCOUNT_SUMS;
        let map = self.held.map(name)?;
        let map = PerCpuArray::<_, Raw<Sums>>::try_from(map).map_err(in_map(name))?;
        let each = map.get(&0, 0).map_err(in_map(name))?;
        Ok(each
            .iter()
            .fold(Sums::default(), |sum, Raw(one)| sum.and(*one)))
    }

    /// Leaves the group as it was. What was not drained is gone.
    pub fn detach(self) {}

    /// Puts a flow into the map, as an established connection would.
    ///
    /// # Errors
    /// The map is full.
    pub fn enter(&mut self, key: FlowKey, record: FlowRecord) -> Result<(), Error> {
        let name = abi::maps::ACCOUNT_FLOWS;
        let map = self.held.map_mut(name)?;
        let mut map =
            HashMap::<_, Raw<FlowKey>, Raw<FlowRecord>>::try_from(map).map_err(in_map(name))?;
        map.insert(Raw(key), Raw(record), 0).map_err(in_map(name))
    }

    /// Runs a program on an Ethernet frame, `repeat` times, and says how long a run took: for
    /// tests and measurements.
    ///
    /// # Errors
    /// The kernel does not run it.
    pub fn run(&self, side: Side, frame: &[u8], repeat: u32) -> Result<Duration, Error> {
        let name = side.name();
        let program: &CgroupSkb = self
            .held
            .program(name)?
            .try_into()
            .map_err(in_program(name))?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let result = program.test_run(options).map_err(in_program(name))?;
        Ok(result.duration)
    }

    /// Instructions that the kernel's verifier walked through to accept each program.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn verified_instructions(&self) -> Result<[(&'static str, u32); 3], Error> {
        let mut counts = [
            abi::programs::ACCOUNT_IN,
            abi::programs::ACCOUNT_OUT,
            abi::programs::ACCOUNT_LIFE,
        ]
        .map(|name| (name, 0));
        for (name, count) in &mut counts {
            *count = self
                .information(name)?
                .verified_instruction_count()
                .ok_or(Error::Missing("count of verified instructions"))?;
        }
        Ok(counts)
    }

    fn information(&self, name: &'static str) -> Result<ProgramInfo, Error> {
        let program = self.held.program(name)?;
        program.info().map_err(in_program(name))
    }

    fn flows(&self) -> Result<BorrowedFd<'_>, Error> {
        let name = abi::maps::ACCOUNT_FLOWS;
        match self.held.map(name)? {
            Map::HashMap(map) => Ok(map.fd().as_fd()),
            _ => Err(Error::Missing(name)),
        }
    }
}

/// Whether and why a flow is due.
fn ending(record: &FlowRecord, now_ns: u64, patience: Patience) -> Option<Ending> {
    let rests = Duration::from_nanos(now_ns.saturating_sub(record.last_ns));
    if record.is_over() && rests >= patience.over {
        Some(Ending::Over)
    } else if rests >= patience.idle {
        Some(Ending::Idle)
    } else {
        None
    }
}

/// The value that lies in `bytes`.
fn read<T: abi::Plain>(bytes: &[u8]) -> Result<Raw<T>, Error>
where
    Raw<T>: Pod,
{
    if bytes.len() < size_of::<T>() {
        return Err(Error::Missing("whole entry of the ring"));
    }
    // SAFETY: as many bytes are there, and of `Plain` types every pattern is a value.
    Ok(unsafe { bytes.as_ptr().cast::<Raw<T>>().read_unaligned() })
}

fn packets(ebpf: &mut Ebpf, side: Side) -> Result<&mut CgroupSkb, Error> {
    let name = side.name();
    let program = ebpf.program_mut(name).ok_or(Error::Missing(name))?;
    program.try_into().map_err(in_program(name))
}

fn sockets(ebpf: &mut Ebpf) -> Result<&mut SockOps, Error> {
    let name = abi::programs::ACCOUNT_LIFE;
    let program = ebpf.program_mut(name).ok_or(Error::Missing(name))?;
    program.try_into().map_err(in_program(name))
}

fn in_map(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { name, source }
}

fn in_program(name: &'static str) -> impl Fn(ProgramError) -> Error {
    move |source| Error::Program { name, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_due_when_it_rested_long_enough_for_what_it_is() {
        let patience = Patience {
            over: Duration::from_nanos(10),
            idle: Duration::from_nanos(100),
        };
        let living = FlowRecord {
            last_ns: 1000,
            ..FlowRecord::default()
        };
        let over = FlowRecord {
            closed: 1,
            ..living
        };
        for (record, now_ns, expected) in [
            (living, 1000, None),
            (living, 1099, None),
            (living, 1100, Some(Ending::Idle)),
            (over, 1009, None),
            (over, 1010, Some(Ending::Over)),
            // The packet came after the clock was read.
            (over, 999, None),
        ] {
            assert_eq!(ending(&record, now_ns, patience), expected, "{now_ns}");
        }
    }
}
