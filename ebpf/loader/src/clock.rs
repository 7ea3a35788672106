//! The clock that the programs read as well.

/// The kernel's monotonic clock, nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one `timespec`, which lives across the call.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    assert_eq!(done, 0, "every kernel has a monotonic clock");
    // Neither is negative: the clock starts with the machine.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
