//! `place` on a group of listening sockets: attached, told the load of each core, read, detached.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::Duration;

use aya::EbpfLoader;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, ReusePortSockArray};
use aya::programs::{ProgramError, SkReuseport, SkReuseportAttachType};
use aya::sys::{Stats, enable_stats};
use postern_ebpf_abi as abi;
use postern_ebpf_abi::place::{DECISIONS, Decision, Load, Rules, SLOTS_MAX};

use crate::held::Held;
use crate::maps::Raw;
use crate::programs::permission;
use crate::set::{PLACEMENT, Set};
use crate::{Error, Pins, clock, object};

/// What is read and written from here.
const MAPS: [&str; 5] = [
    abi::maps::PLACE_SOCKETS,
    abi::maps::PLACE_LOADS,
    abi::maps::PLACE_PLACED,
    abi::maps::PLACE_RULES,
    abi::maps::PLACE_DECISIONS,
];

/// What installed placement has decided, for whoever only looks.
#[derive(Debug)]
pub struct Decisions(Held);

impl Decisions {
    /// Opens what [`crate::install_placement`] pinned; takes no capability.
    ///
    /// # Errors
    /// Nothing is installed.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let set = Set::installed(pins, &PLACEMENT)?;
        Ok(Self(Held::open(&set, &[abi::maps::PLACE_DECISIONS])?))
    }

    /// How many connections were decided how, by [`Decision`]'s number.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counts(&self) -> Result<[u64; DECISIONS as usize], Error> {
        decided(&self.0)
    }
}

fn decided(held: &Held) -> Result<[u64; DECISIONS as usize], Error> {
    let name = abi::maps::PLACE_DECISIONS;
    let map = PerCpuArray::<_, u64>::try_from(held.map(name)?).map_err(in_map(name))?;
    let mut counts = [0; DECISIONS as usize];
    for decision in Decision::ALL {
        let each = map.get(&(decision as u32), 0).map_err(in_map(name))?;
        counts[decision as usize] = each.iter().sum();
    }
    Ok(counts)
}

/// The placement of one group's connections: the sockets of all cores on one address.
///
/// Dropped, it leaves the program attached, as the group keeps it; the workers' loads then go
/// stale and the kernel's hash decides. [`Placement::detach`] ends it at once.
#[derive(Debug)]
pub struct Placement {
    held: Held,
    /// The pinned program, where this process did not load it.
    pinned: Option<SkReuseport>,
}

impl Placement {
    /// Lets `place` choose among `sockets`, which listen with `SO_REUSEPORT` on one address: the
    /// socket of slot 0 first. Until their cores publish loads the kernel's hash goes on.
    ///
    /// # Errors
    /// There are too many, they are no such group, or the process may not load programs.
    pub fn attach<S: AsFd>(sockets: &[S], rules: Rules) -> Result<Self, Error> {
        let mut ebpf = EbpfLoader::new()
            .load(object::bytes())
            .map_err(permission)?;
        let program: &mut SkReuseport = ebpf
            .program_mut(abi::programs::PLACE)
            .ok_or(Error::Missing(abi::programs::PLACE))?
            .try_into()
            .map_err(failed)?;
        program.load().map_err(failed)?;
        let placement = Self {
            held: Held::Loaded(ebpf),
            pinned: None,
        };
        placement.begin(sockets, rules)
    }

    /// The same with what [`crate::install_placement`] pinned; takes no capability.
    ///
    /// Slots that `sockets` do not fill are emptied: an engine that is gone leaves nothing.
    ///
    /// # Errors
    /// Nothing is installed, there are too many sockets, or they are no such group.
    pub fn join(pins: &Pins, sockets: &[impl AsFd], rules: Rules) -> Result<Self, Error> {
        let set = Set::installed(pins, &PLACEMENT)?;
        let held = Held::open(&set, &MAPS)?;
        let program = SkReuseport::from_pin(
            set.pin_of(abi::programs::PLACE)?,
            SkReuseportAttachType::Select,
        )
        .map_err(failed)?;
        let placement = Self {
            held,
            pinned: Some(program),
        };
        placement.begin(sockets, rules)
    }

    /// Fills the slots and lets the program choose among them.
    fn begin(mut self, sockets: &[impl AsFd], rules: Rules) -> Result<Self, Error> {
        let (Some(first), true) = (sockets.first(), sockets.len() <= SLOTS_MAX as usize) else {
            return Err(Error::TooMany {
                what: "sockets in a group",
                count: sockets.len(),
                most: SLOTS_MAX as usize,
            });
        };
        fill(self.held.map_mut(abi::maps::PLACE_SOCKETS)?, sockets)?;
        let name = abi::maps::PLACE_RULES;
        let map = self.held.map_mut(name)?;
        let mut map = Array::<_, Raw<Rules>>::try_from(map).map_err(in_map(name))?;
        let rules = Rules {
            slots: sockets.len() as u32,
            ..rules
        };
        map.set(0, Raw(rules), 0).map_err(in_map(name))?;
        self.program()?.attach(first).map_err(failed)?;
        Ok(self)
    }

    /// What the core of `slot` publishes its load with.
    ///
    /// # Errors
    /// There are not so many, or the process is out of descriptors.
    pub fn publisher(&self, slot: u32) -> Result<Publisher, Error> {
        if slot >= SLOTS_MAX {
            return Err(Error::TooMany {
                what: "sockets in a group",
                count: slot as usize + 1,
                most: SLOTS_MAX as usize,
            });
        }
        let [loads, placed] = [abi::maps::PLACE_LOADS, abi::maps::PLACE_PLACED];
        Ok(Publisher {
            slot,
            loads: Array::try_from(self.shared(loads)?).map_err(in_map(loads))?,
            placed: Array::try_from(self.shared(placed)?).map_err(in_map(placed))?,
        })
    }

    /// How many connections were decided how, by [`Decision`]'s number.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn decisions(&self) -> Result<[u64; DECISIONS as usize], Error> {
        decided(&self.held)
    }

    /// Leaves the group to the kernel's hash. Any socket of the group stands for all of it; none
    /// is held here, since a listener that nobody accepts from would go on taking connections.
    ///
    /// # Errors
    /// The socket is of no group that has a program.
    pub fn detach<S: AsFd>(&self, member: &S) -> Result<(), Error> {
        SkReuseport::detach(member).map_err(failed)
    }

    /// Instructions that the kernel's verifier walked through to accept the program.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn verified_instructions(&self) -> Result<u32, Error> {
        self.information()?
            .verified_instruction_count()
            .ok_or(Error::Missing("count of verified instructions"))
    }

    /// How often the program ran and how long altogether, while the kernel kept statistics.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn runs(&self) -> Result<(u64, Duration), Error> {
        let information = self.information()?;
        Ok((information.run_count(), information.run_time()))
    }

    fn information(&self) -> Result<aya::programs::ProgramInfo, Error> {
        self.program()?.info().map_err(failed)
    }

    fn program(&self) -> Result<&SkReuseport, Error> {
        match &self.pinned {
            Some(program) => Ok(program),
            None => self
                .held
                .program(abi::programs::PLACE)?
                .try_into()
                .map_err(failed),
        }
    }

    /// A descriptor of a map for somebody else.
    fn shared(&self, name: &'static str) -> Result<Map, Error> {
        let map = self.held.map(name)?;
        let Map::Array(data) = map else {
            return Err(Error::Missing(name));
        };
        let descriptor = data
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(Error::System)?;
        let data = MapData::from_fd(descriptor).map_err(in_map(name))?;
        Ok(Map::Array(data))
    }
}

/// Lets the kernel measure all of its programs, until what is returned is dropped. It costs each
/// run of each program some 20 ns.
///
/// # Errors
/// The process may not.
pub fn keep_statistics() -> Result<OwnedFd, Error> {
    enable_stats(Stats::RunTime).map_err(|error| Error::System(error.io_error))
}

/// Publishes the load of one core. It needs no privilege, and goes to the core's own thread.
pub struct Publisher {
    slot: u32,
    loads: Array<MapData, Raw<Load>>,
    placed: Array<MapData, u64>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Publisher")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Says what the core has to do now: `connections` that live on it, those in its listener's
    /// queue included, and how busy its CPU was of late, whoever it worked for.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn publish(&mut self, connections: u32, cpu_permille: u32) -> Result<(), Error> {
        let placed = self
            .placed
            .get(&self.slot, 0)
            .map_err(in_map(abi::maps::PLACE_PLACED))?;
        let load = Load {
            published_ns: clock::monotonic_ns(),
            placed,
            connections,
            cpu_permille,
        };
        self.loads
            .set(self.slot, Raw(load), 0)
            .map_err(in_map(abi::maps::PLACE_LOADS))
    }

    /// Connections that were ever placed on the core.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn placed(&self) -> Result<u64, Error> {
        self.placed
            .get(&self.slot, 0)
            .map_err(in_map(abi::maps::PLACE_PLACED))
    }
}

/// Puts the sockets into their slots and empties all others.
fn fill(map: &mut Map, sockets: &[impl AsFd]) -> Result<(), Error> {
    let failed = in_map(abi::maps::PLACE_SOCKETS);
    let mut map = ReusePortSockArray::try_from(map).map_err(&failed)?;
    for (slot, socket) in (0..).zip(sockets) {
        map.set(slot, &socket.as_fd().as_raw_fd(), 0)
            .map_err(&failed)?;
    }
    for slot in sockets.len() as u32..SLOTS_MAX {
        match map.clear_index(&slot) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
            cleared => cleared.map_err(&failed)?,
        }
    }
    Ok(())
}

fn in_map(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { name, source }
}

fn failed(source: ProgramError) -> Error {
    Error::Program {
        name: abi::programs::PLACE,
        source,
    }
}
