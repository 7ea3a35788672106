//! The newest generation that other nodes steer by, as their tunnels name it.

use aya::maps::{Map, PerCpuArray};
use postern_ebpf_abi as abi;

use crate::{Error, Programs};

impl Programs {
    /// The highest generation that a genuine tunnel header named since the programs were loaded;
    /// 0 where none came. A node whose own table is older was left behind.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn newest_generation_seen(&self) -> Result<u64, Error> {
        let name = abi::maps::NEWEST_GENERATION;
        generation(self.ebpf.map(name).ok_or(Error::Missing(name))?)
    }
}

/// The same, of the map itself.
pub(crate) fn generation(map: &Map) -> Result<u64, Error> {
    let name = abi::maps::NEWEST_GENERATION;
    let failed = |source| Error::Map { name, source };
    let newest = PerCpuArray::<_, u64>::try_from(map).map_err(failed)?;
    let each = newest.get(&0, 0).map_err(failed)?;
    Ok(each.iter().copied().max().unwrap_or(0))
}
