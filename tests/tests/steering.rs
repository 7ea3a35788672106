//! Gateways that share an address, each on a machine of its own behind a router that knows nothing of connections.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "steering/cluster.rs"]
mod cluster;
#[path = "steering/fleet.rs"]
mod fleet;
#[path = "steering/life.rs"]
mod life;
#[path = "steering/network.rs"]
mod network;
#[path = "steering/overload.rs"]
mod overload;
#[path = "steering/poison.rs"]
mod poison;
#[path = "steering/processor.rs"]
mod processor;
#[path = "steering/sessions.rs"]
mod sessions;
#[path = "steering/shares.rs"]
mod shares;
#[path = "steering/unsteered.rs"]
mod unsteered;

/// Held by a test from its beginning to its end: no two take each other's processor away.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
