//! The UDP flows that this node has taken.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use postern_ebpf_abi::datagram::{NOTED_NS, REMEMBERED_MAX, quiet_ns};

#[map]
static DATAGRAMS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(REMEMBERED_MAX, 0);

/// True where this node has the flow with this hash. `lives` says that a datagram of it came.
#[inline(always)]
pub fn knows(hash: u64, lives: bool) -> bool {
    let Some(last) = DATAGRAMS.get_ptr_mut(&hash) else {
        return false;
    };
    // SAFETY: reads the kernel's clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: the kernel gave a pointer into the map. Other CPUs may write the same there.
    let Some(quiet) = quiet_ns(unsafe { *last }, now) else {
        return false;
    };
    if lives && quiet >= NOTED_NS {
        // SAFETY: as above.
        unsafe { *last = now };
    }
    true
}

/// Remembers that this node has the flow with this hash.
#[inline(always)]
pub fn remember(hash: u64) {
    // SAFETY: reads the kernel's clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // A full map forgets another flow; one that cannot be written remembers none.
    let _ = DATAGRAMS.insert(&hash, &now, 0);
}
