//! The one place where the wall clock is read.

use std::time::{SystemTime, UNIX_EPOCH};

use postern_access::UnixSeconds;

/// Seconds since 1970.
#[must_use]
pub fn now() -> UnixSeconds {
    UnixSeconds(unix_ms() / 1000)
}

/// Milliseconds since 1970; zero on a clock that is set before it.
#[must_use]
pub fn unix_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
