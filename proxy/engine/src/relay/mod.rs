//! The relay of one core: a thread that owns the core's established flows, apart from the front, so
//! that a storm of handshakes can't stall live sessions.

mod buffers;
mod bulk;
mod carried;
mod desk;
mod epoll;
mod handle;
pub mod ktls;
mod machine;
mod queue;
mod ring;
mod slab;
mod splice;
mod sys;
mod timers;

pub use handle::{Carriage, Delivery, Relay, start};

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
