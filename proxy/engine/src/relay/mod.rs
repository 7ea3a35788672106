//! The relay of one core: a thread that owns the core's established flows, apart from the front, so
//! that a storm of handshakes can't stall live sessions.

mod bulk;
mod carried;
pub mod machine;
mod slab;
mod timers;
