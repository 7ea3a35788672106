//! Typed access to the maps that the programs share with userspace.

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, Map, MapData, MapError, PerCpuArray};
use postern_ebpf_abi as abi;
use postern_ebpf_abi::Plain;
use postern_ebpf_abi::count::Count;
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::source::SOURCES_MAX;
use postern_ebpf_abi::table::Table;
use postern_ebpf_abi::verdict::{VERDICTS, Verdict};

use crate::{Error, Programs};

/// A value of ours as aya takes it.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Raw<T>(pub T);

// SAFETY: `Plain` promises what `Pod` asks for, and the wrapper is transparent.
unsafe impl<T: Plain> aya::Pod for Raw<T> {}

impl Programs {
    /// Puts `table` in force: packets see the old one or the new one, never a mixture.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn put_table(&mut self, table: &Table) -> Result<(), Error> {
        let name = abi::maps::TABLES;
        let failed = |source| Error::Map { name, source };
        let mut inner = Array::<MapData, Raw<Table>>::create(1, 0).map_err(failed)?;
        inner.set(0, Raw(*table), 0).map_err(failed)?;
        let map = self.ebpf.map_mut(name).ok_or(Error::Missing(name))?;
        let mut tables =
            ArrayOfMaps::<_, Array<MapData, Raw<Table>>>::try_from(map).map_err(failed)?;
        tables.set(0, &inner, 0).map_err(failed)
    }

    /// What was counted under `verdict`, on all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn count(&self, verdict: Verdict) -> Result<Count, Error> {
        count(self.map(abi::maps::COUNTS)?, verdict)
    }

    /// What was counted under every verdict, by its number.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counts(&self) -> Result<[Count; VERDICTS as usize], Error> {
        counts(self.map(abi::maps::COUNTS)?)
    }

    /// Writes what becomes of the sources under a prefix. `bits` counts those of the mapped
    /// address: an IPv4 prefix has 96 more.
    ///
    /// # Errors
    /// The list is full.
    pub fn put_source(&mut self, address: Address, bits: u32, rule: u32) -> Result<(), Error> {
        put_source(self.map_mut(abi::maps::SOURCES)?, address, bits, rule)
    }

    /// Forgets a prefix; one that is not in the list is no error.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn remove_source(&mut self, address: Address, bits: u32) -> Result<(), Error> {
        remove_source(self.map_mut(abi::maps::SOURCES)?, address, bits)
    }

    fn map(&self, name: &'static str) -> Result<&Map, Error> {
        self.ebpf.map(name).ok_or(Error::Missing(name))
    }

    fn map_mut(&mut self, name: &'static str) -> Result<&mut Map, Error> {
        self.ebpf.map_mut(name).ok_or(Error::Missing(name))
    }
}

/// [`Programs::count`] of the map itself.
fn count(map: &Map, verdict: Verdict) -> Result<Count, Error> {
    let failed = in_map(abi::maps::COUNTS);
    let counts = PerCpuArray::<_, Raw<Count>>::try_from(map).map_err(&failed)?;
    let each = counts.get(&(verdict as u32), 0).map_err(failed)?;
    Ok(each
        .iter()
        .fold(Count::ZERO, |sum, Raw(one)| sum.plus(*one)))
}

/// [`Programs::counts`] of the map itself.
pub(crate) fn counts(map: &Map) -> Result<[Count; VERDICTS as usize], Error> {
    let mut counts = [Count::ZERO; VERDICTS as usize];
    for verdict in Verdict::ALL {
        counts[*verdict as usize] = count(map, *verdict)?;
    }
    Ok(counts)
}

/// [`Programs::put_source`] of the map itself.
pub(crate) fn put_source(
    map: &mut Map,
    address: Address,
    bits: u32,
    rule: u32,
) -> Result<(), Error> {
    let failed = in_map(abi::maps::SOURCES);
    let mut sources = LpmTrie::<_, [u8; 16], u32>::try_from(map).map_err(&failed)?;
    let key = Key::new(bits, address.octets());
    sources.insert(&key, rule, 0).map_err(failed)
}

/// [`Programs::remove_source`] of the map itself.
pub(crate) fn remove_source(map: &mut Map, address: Address, bits: u32) -> Result<(), Error> {
    let failed = in_map(abi::maps::SOURCES);
    let mut sources = LpmTrie::<_, [u8; 16], u32>::try_from(map).map_err(&failed)?;
    match sources.remove(&Key::new(bits, address.octets())) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(source) => Err(failed(source)),
    }
}

/// The list of sources: address, bits, rule.
pub(crate) fn list_sources(map: &Map) -> Result<Vec<(Address, u32, u32)>, Error> {
    let failed = in_map(abi::maps::SOURCES);
    let sources = LpmTrie::<_, [u8; 16], u32>::try_from(map).map_err(&failed)?;
    let entries = sources.iter().take(SOURCES_MAX as usize);
    let listed = entries.map(|entry| {
        let (key, rule) = entry?;
        Ok((Address::from_octets(key.data()), key.prefix_len(), rule))
    });
    listed.collect::<Result<_, _>>().map_err(failed)
}

fn in_map(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { name, source }
}
