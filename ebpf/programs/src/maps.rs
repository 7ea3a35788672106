//! The maps that the programs share with userspace, and what is read from and written to them.

use core::ptr::null;

use aya_ebpf::bindings::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS};
use aya_ebpf::helpers::bpf_map_lookup_elem;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{LpmTrie, LruHashMap, PerCpuArray, ProgramArray};
use postern_ebpf_abi::count::Count;
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::source::{SOURCES_MAX, SYN_SOURCES_MAX};
use postern_ebpf_abi::table::Table;
use postern_ebpf_abi::verdict::{VERDICTS, Verdict};

/// One table, as a definition that loaders read out of debug information: numbers are lengths of arrays.
///
/// It names the sizes of key and value, not their types: Linux before 6.2 takes no inner map without types
/// in the place of one with types, and the tables that userspace makes have none.
#[repr(C)]
struct Inner {
    r#type: *const [i32; BPF_MAP_TYPE_ARRAY as usize],
    key_size: *const [i32; size_of::<u32>()],
    value_size: *const [i32; size_of::<Table>()],
    max_entries: *const [i32; 1],
    map_flags: *const [i32; 0],
}

/// The place of the table in force.
#[repr(C)]
struct Tables {
    r#type: *const [i32; BPF_MAP_TYPE_ARRAY_OF_MAPS as usize],
    key_size: *const [i32; size_of::<u32>()],
    max_entries: *const [i32; 1],
    map_flags: *const [i32; 0],
    values: [*const Inner; 0],
}

// SAFETY: nothing reads its fields; they only have types.
unsafe impl Sync for Tables {}

#[btf_map]
static TABLES: Tables = Tables {
    r#type: null(),
    key_size: null(),
    max_entries: null(),
    map_flags: null(),
    values: [],
};

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
    let key: u32 = core::hint::black_box(0);
    let tables = (&raw const TABLES).cast_mut().cast();
    // SAFETY: the map is an array of arrays of tables, with keys of four bytes. A map that was looked up
    // lives, as its values do, until the program has ended.
    unsafe {
        let inner = bpf_map_lookup_elem(tables, (&raw const key).cast());
        if inner.is_null() {
            return None;
        }
        bpf_map_lookup_elem(inner, (&raw const key).cast())
            .cast::<Table>()
            .as_ref()
    }
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
