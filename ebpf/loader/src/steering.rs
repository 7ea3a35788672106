//! Installed steering as a process without capabilities works with it: tables, counters, the list of sources.
//!
//! Two tables are pinned, and one is in force: a new table is written to the other one, which then
//! takes the place of the first by one write. The kernel answers that write when no program is
//! running any more that began with the old table, so that this may be written to from then on.

use std::os::fd::AsFd as _;

use aya::maps::{Array, Map, MapData};
use postern_ebpf_abi as abi;
use postern_ebpf_abi::count::Count;
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::table::{Settings, Table};
use postern_ebpf_abi::verdict::VERDICTS;

use crate::install::hook::hooks;
use crate::maps::{Raw, counts, list_sources, put_source, remove_source};
use crate::pins::{in_pin, refused};
use crate::set::{Making, STEERING, Set};
use crate::slot::{Inner, Slot};
use crate::{Error, Pins, kernel, newest, programs};

/// Names of the two tables among the pins.
pub(crate) const TABLES: [&str; 2] = ["TABLE_A", "TABLE_B"];

/// The maps of installed steering.
pub struct Steering {
    pins: Pins,
    set: Set,
    slot: Slot,
    tables: [Inner; 2],
    counts: Map,
    sources: Map,
    newest: Map,
    /// Whether these programs may still wait for their first table, while older ones steer.
    waiting: bool,
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Steering")
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

impl Steering {
    /// Opens what [`crate::install_steering`] pinned; takes no capability.
    ///
    /// # Errors
    /// Nothing is installed, or by another version of the programs.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let set = Set::installed(pins, &STEERING)?;
        let [first, second] = TABLES;
        Ok(Self {
            slot: slot(&set)?,
            tables: [inner(&set, first)?, inner(&set, second)?],
            counts: set.map(abi::maps::COUNTS)?,
            sources: set.map(abi::maps::SOURCES)?,
            newest: set.map(abi::maps::NEWEST_GENERATION)?,
            pins: pins.clone(),
            set,
            waiting: true,
        })
    }

    /// Puts `table` in force: packets see the old one or the new one, never a mixture.
    ///
    /// Where the programs replaced others whose table they cannot read, those have steered until
    /// now, and end with this call. The list of sources is to be complete before.
    ///
    /// # Errors
    /// As the kernel says; the table before stays in force then.
    pub fn put_table(&mut self, table: &Table) -> Result<(), Error> {
        let _lock = self.pins.lock()?;
        let in_force = self.slot.get().map_err(Error::System)?;
        let free = self
            .tables
            .iter()
            .find(|table| Some(table.number) != in_force);
        let free = free.expect("two maps have not the same number");
        free.write(table).map_err(Error::System)?;
        self.slot.put(free.map.as_fd()).map_err(Error::System)?;
        if self.waiting {
            take_over(&self.pins, &self.set)?;
            self.waiting = false;
        }
        Ok(())
    }

    /// Settings of the table in force, its generation among them; none before the first table.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn table_in_force(&self) -> Result<Option<Settings>, Error> {
        let Some(number) = self.slot.get().map_err(Error::System)? else {
            return Ok(None);
        };
        let table = self.tables.iter().find(|table| table.number == number);
        let table = table.ok_or_else(|| {
            refused(
                self.pins.directory(),
                "a table that is not ours is in force",
            )
        })?;
        table.settings().map(Some).map_err(Error::System)
    }

    /// What was counted under every verdict, by its number.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn counts(&self) -> Result<[Count; VERDICTS as usize], Error> {
        counts(&self.counts)
    }

    /// Writes what becomes of the sources under a prefix. `bits` counts those of the mapped
    /// address: an IPv4 prefix has 96 more.
    ///
    /// # Errors
    /// The list is full.
    pub fn put_source(&mut self, address: Address, bits: u32, rule: u32) -> Result<(), Error> {
        put_source(&mut self.sources, address, bits, rule)
    }

    /// Forgets a prefix; one that is not in the list is no error.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn remove_source(&mut self, address: Address, bits: u32) -> Result<(), Error> {
        remove_source(&mut self.sources, address, bits)
    }

    /// The list of sources: address, bits, rule. An adopted list may have more than was put.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn sources(&self) -> Result<Vec<(Address, u32, u32)>, Error> {
        list_sources(&self.sources)
    }

    /// The newest generation that other nodes' packets named; 0 before any.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn newest_generation_seen(&self) -> Result<u64, Error> {
        newest::generation(&self.newest)
    }
}

fn inner(set: &Set, name: &str) -> Result<Inner, Error> {
    Inner::of(set.map_descriptor(name)?).map_err(Error::System)
}

/// The place of the table in force.
pub(crate) fn slot(set: &Set) -> Result<Slot, Error> {
    Slot::of(set.map_descriptor(abi::maps::TABLES)?).map_err(Error::System)
}

/// Whether a set, of any version, has a table in force.
pub(crate) fn has_table(set: &Set) -> Result<bool, Error> {
    Ok(slot(set)?.get().map_err(Error::System)?.is_some())
}

/// Lets every interface go on with the programs of `set`, and removes all other sets.
pub(crate) fn take_over(pins: &Pins, set: &Set) -> Result<(), Error> {
    let program = set.program(abi::programs::STEER)?;
    let number = set.program_id(abi::programs::STEER)?;
    for hook in hooks(pins)? {
        if hook.facts.program != number {
            kernel::link_update(&hook.link, program.as_fd()).map_err(in_pin(&hook.path))?;
        }
    }
    settle(set)?;
    for other in Set::others(pins, &STEERING)? {
        other.remove()?;
    }
    Ok(())
}

/// Waits for programs that run since before: with its last pin `steer` loses the way to `redirect`,
/// and packets that are on it would be dropped.
fn settle(set: &Set) -> Result<(), Error> {
    let slot = slot(set)?;
    let in_force = slot.get().map_err(Error::System)?;
    for name in TABLES {
        let table = inner(set, name)?;
        if Some(table.number) == in_force {
            return slot.put(table.map.as_fd()).map_err(Error::System);
        }
    }
    Ok(())
}

/// Whether a map of an older set can be taken over: the table's array where its tables have our
/// layout, and where the list that the table counts on comes along.
pub(crate) fn accept(old: &Set, name: &str, renewed: &[String]) -> Result<bool, Error> {
    if name != abi::maps::TABLES {
        return Ok(true);
    }
    if renewed.iter().any(|name| name == abi::maps::SOURCES) {
        return Ok(false);
    }
    for name in TABLES {
        let table = old.map_descriptor(name)?;
        let information = kernel::map_information(table.as_fd()).map_err(Error::System)?;
        if information.value_size as usize != size_of::<Table>() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Pins both tables of a new set, and lets `steer` go on to `redirect`.
pub(crate) fn finish(making: Making<'_>) -> Result<(), Error> {
    let renewed = |name: &str| making.renewed.iter().any(|renewed| renewed == name);
    let old = making.old.filter(|_| !renewed(abi::maps::TABLES));
    for name in TABLES {
        let path = making.folder.join(name);
        if let Some(old) = old {
            let table = old.map_descriptor(name)?;
            kernel::pin(table.as_fd(), &path).map_err(in_pin(&path))?;
        } else {
            let table = Array::<MapData, Raw<Table>>::create(1, 0).map_err(in_table)?;
            table
                .pin(&path)
                .map_err(|error| in_pin(&path)(std::io::Error::other(error)))?;
        }
    }
    programs::chain(making.ebpf)
}

fn in_table(source: aya::maps::MapError) -> Error {
    let name = abi::maps::TABLES;
    Error::Map { name, source }
}
