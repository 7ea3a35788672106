//! The relay of one core: a thread that owns the core's established flows, apart from the front, so
//! that a storm of handshakes can't stall live sessions.

pub mod machine;
