//! The maps that the programs share with userspace, and what is read from and written to them.

use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{LpmTrie, LruHashMap, PerCpuArray, ProgramArray};
use postern_ebpf_abi::count::Count;
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::source::{SOURCES_MAX, SYN_SOURCES_MAX};
use postern_ebpf_abi::table::Table;
use postern_ebpf_abi::verdict::{VERDICTS, Verdict};

#[btf_map]
static TABLES: ArrayOfMaps<Array<Table, 1>, 1> = ArrayOfMaps::new();

#[map]
static COUNTS: PerCpuArray<Count> = PerCpuArray::with_max_entries(VERDICTS, 0);

#[map]
pub static SOURCES: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(SOURCES_MAX, 0);

#[map]
pub static SYNS: LruHashMap<Address, u64> = LruHashMap::with_max_entries(SYN_SOURCES_MAX, 0);

#[map]
static NEWEST_GENERATION: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[map]
static MEASURED_FLOWS: aya_ebpf::maps::Array<u32> = aya_ebpf::maps::Array::with_max_entries(1, 0);

/// Among how many flows a measurement spreads its packets; a power of two.
#[inline(always)]
pub fn measured_flows() -> u32 {
    MEASURED_FLOWS.get(0).copied().unwrap_or(0)
}

/// The table in force.
#[inline(always)]
pub fn table() -> Option<&'static Table> {
    // On the stack: a key among the constants would be one more map.
    let key = core::hint::black_box(0);
    TABLES.get_value(0, &key)
}

/// Remembers `generation`, which a genuine packet named, if it is the highest so far.
#[inline(always)]
pub fn saw_generation(generation: u64) {
    if let Some(newest) = NEWEST_GENERATION.get_ptr_mut(0) {
        // SAFETY: the kernel gave a pointer to this CPU's entry, and nothing else runs on it now.
        unsafe {
            if generation > *newest {
                *newest = generation;
            }
        }
    }
}

/// Counts a packet of `bytes` under `verdict`.
#[inline(always)]
pub fn count(verdict: Verdict, bytes: u64) {
    if let Some(count) = COUNTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the kernel gave a pointer to this CPU's entry, and nothing else runs on it now.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += bytes;
        }
    }
}
