//! The UDP flows that this node remembers.

use std::time::Duration;

use aya::maps::{HashMap, MapError};
use postern_ebpf_abi as abi;
use postern_ebpf_abi::datagram::quiet_ns;

use crate::{Error, Programs, clock};

/// A UDP flow that this node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Its keyed hash, which says its bucket.
    pub hash: u64,
    /// Since its last datagram, to a second or so.
    pub quiet: Duration,
}

impl Programs {
    /// The flows that are remembered and not over.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn remembered(&self) -> Result<Vec<Remembered>, Error> {
        let name = abi::maps::DATAGRAMS;
        let failed = |source| Error::Map { name, source };
        let map = self.ebpf.map(name).ok_or(Error::Missing(name))?;
        let map = HashMap::<_, u64, u64>::try_from(map).map_err(failed)?;
        let now_ns = clock::monotonic_ns();
        let mut flows = Vec::new();
        for key in map.keys() {
            let hash = key.map_err(failed)?;
            match map.get(&hash, 0) {
                Ok(last_ns) => flows.extend(quiet_ns(last_ns, now_ns).map(|quiet| Remembered {
                    hash,
                    quiet: Duration::from_nanos(quiet),
                })),
                // Forgotten since its key was read.
                Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(flows)
    }

    /// Remembers a flow as if this node had taken its last datagram `quiet` ago: for tests and
    /// measurements.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn remember(&mut self, flow: Remembered) -> Result<(), Error> {
        let name = abi::maps::DATAGRAMS;
        let failed = |source| Error::Map { name, source };
        let map = self.ebpf.map_mut(name).ok_or(Error::Missing(name))?;
        let mut map = HashMap::<_, u64, u64>::try_from(map).map_err(failed)?;
        let quiet_ns = u64::try_from(flow.quiet.as_nanos()).unwrap_or(u64::MAX);
        let last_ns = clock::monotonic_ns().saturating_sub(quiet_ns);
        map.insert(flow.hash, last_ns, 0).map_err(failed)
    }
}
