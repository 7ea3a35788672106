//! Installed steering as a process without capabilities works with it: tables, counters, the list of sources.

use postern_ebpf_abi::count::Count;
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::table::{Settings, Table};
use postern_ebpf_abi::verdict::VERDICTS;

use crate::{Error, Pins};

/// The maps of installed steering.
#[derive(Debug)]
pub struct Steering {}

impl Steering {
    /// Opens what [`crate::install_steering`] pinned; takes no capability.
    ///
    /// # Errors
    /// Nothing is installed, or by another version of the programs.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let _ = pins;
        Err(Error::NotInstalled("steering"))
    }

    /// Puts `table` in force: packets see the old one or the new one, never a mixture.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn put_table(&mut self, table: &Table) -> Result<(), Error> {
        let _ = table;
        Err(Error::NotInstalled("steering"))
    }

    /// Settings of the table in force, its generation among them; none before the first table.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn table_in_force(&self) -> Result<Option<Settings>, Error> {
        Err(Error::NotInstalled("steering"))
    }

    /// What was counted under every verdict, by its number.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn counts(&self) -> Result<[Count; VERDICTS as usize], Error> {
        Err(Error::NotInstalled("steering"))
    }

    /// Writes what becomes of the sources under a prefix. `bits` counts those of the mapped
    /// address: an IPv4 prefix has 96 more.
    ///
    /// # Errors
    /// The list is full.
    pub fn put_source(&mut self, address: Address, bits: u32, rule: u32) -> Result<(), Error> {
        let _ = (address, bits, rule);
        Err(Error::NotInstalled("steering"))
    }

    /// Forgets a prefix; one that is not in the list is no error.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn remove_source(&mut self, address: Address, bits: u32) -> Result<(), Error> {
        let _ = (address, bits);
        Err(Error::NotInstalled("steering"))
    }

    /// The list of sources: address, bits, rule.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn sources(&self) -> Result<Vec<(Address, u32, u32)>, Error> {
        Err(Error::NotInstalled("steering"))
    }

    /// The newest generation that other nodes' packets named; 0 before any.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn newest_generation_seen(&self) -> Result<u64, Error> {
        Err(Error::NotInstalled("steering"))
    }
}
