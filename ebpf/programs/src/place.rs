//! `place`: the core for a new connection, by load.
//!
//! Runs once for a SYN (for a connection that is let in by a SYN cookie, again for its first
//! acknowledgement). The search is in [`postern_ebpf_abi::place`]; here are the maps it goes over.

use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{map, sk_reuseport};
use aya_ebpf::maps::{Array, PerCpuArray, ReusePortSockArray};
use aya_ebpf::programs::SkReuseportContext;
use postern_ebpf_abi::place::{DECISIONS, Decision, Load, Rules, SLOTS_MAX, Search};

use crate::atomic;

/// The group's sockets, a slot a core.
#[map]
static PLACE_SOCKETS: ReusePortSockArray = ReusePortSockArray::with_max_entries(SLOTS_MAX, 0);

/// What the workers publish.
#[map]
static PLACE_LOADS: Array<Load> = Array::with_max_entries(SLOTS_MAX, 0);

/// Connections ever placed on a slot. Of all cores together: the next SYN may be any core's.
#[map]
static PLACE_PLACED: Array<u64> = Array::with_max_entries(SLOTS_MAX, 0);

/// One entry.
#[map]
static PLACE_RULES: Array<Rules> = Array::with_max_entries(1, 0);

/// By [`Decision`].
#[map]
static PLACE_DECISIONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(DECISIONS, 0);

/// One entry: the search of this core. In memory of a map, whose content the kernel's verifier
/// takes for unknown: of a search on the stack it would follow every possible course.
#[map]
static PLACE_SEARCH: PerCpuArray<Search> = PerCpuArray::with_max_entries(1, 0);

/// Without a selected socket `SK_PASS` leaves the choice to the kernel's hash.
#[sk_reuseport]
pub fn place(ctx: SkReuseportContext) -> u32 {
    let decision = decide(&ctx);
    if let Some(count) = PLACE_DECISIONS.get_ptr_mut(decision as u32) {
        // SAFETY: the entry is this core's, aligned, and lives as long as the map. Atomic, since a
        // SYN may interrupt another's turn on the same core.
        unsafe { atomic::add(count, 1) };
    }
    SK_PASS
}

#[inline(always)]
fn decide(ctx: &SkReuseportContext) -> Decision {
    let Some((slot, decision)) = search() else {
        return Decision::Stale;
    };
    if PLACE_SOCKETS.select_reuseport(ctx, slot).is_err() {
        return Decision::Empty;
    }
    if let Some(placed) = PLACE_PLACED.get_ptr_mut(slot) {
        // SAFETY: aligned, and lives as long as the map; every core changes it atomically.
        unsafe { atomic::add(placed, 1) };
    }
    decision
}

#[inline(always)]
fn search() -> Option<(u32, Decision)> {
    let rules = PLACE_RULES.get(0)?;
    // SAFETY: has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let search = PLACE_SEARCH.get_ptr_mut(0)?;
    // SAFETY: this and the accesses below are to an entry of this core, aligned, as long as the
    // map lives. No search interrupts another: SYNs are taken in soft interrupts, one at a time.
    // Volatile, or the compiler would keep the search in registers.
    unsafe { search.write_volatile(Search::default()) };
    for slot in 0..SLOTS_MAX {
        if slot >= rules.slots {
            break;
        }
        let load = PLACE_LOADS.get(slot)?;
        let placed = PLACE_PLACED.get(slot)?;
        // SAFETY: as above.
        let mut so_far = unsafe { search.read_volatile() };
        so_far.look(slot, load, *placed, rules, now_ns);
        // SAFETY: as above.
        unsafe { search.write_volatile(so_far) };
    }
    // SAFETY: as above.
    unsafe { search.read_volatile() }.found()
}
