//! Counters that more than one core, or an interrupt of this one, may change at once.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// Adds to `counter`. One instruction; the compiler offers it on this target by intrinsic only.
///
/// # Safety
/// `counter` is aligned and stays valid while the program runs.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, by: u64) {
    // SAFETY: as the caller promises.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, by) };
}
