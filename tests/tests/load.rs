//! The gateway under load: what is measured here runs alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "load/crowd.rs"]
mod crowd;
#[path = "load/ends.rs"]
mod ends;
#[path = "load/stalls.rs"]
mod stalls;
#[path = "load/storm.rs"]
mod storm;

/// Held by a test from its beginning to its end: no two disturb each other.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
