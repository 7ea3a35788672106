//! The io_uring engine: executors, sockets, timers and durable files of one core. Knows nothing of
//! RDP, tokens or policy.
//!
//! One of the two places that may hold `unsafe` (the other is `ebpf`).

pub mod clock;
pub mod doorbell;
pub mod front;
pub mod journal;
pub mod net;
pub mod resources;

/// What the engine can't do here.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("address {address} can't be listened on: {source}")]
    Listen {
        address: std::net::SocketAddr,
        source: std::io::Error,
    },
    #[error("core {0} is not one that this process may run on")]
    Core(usize),
    #[error(
        "executor on core {core}: {why}; io_uring has to be allowed (Linux 5.8 or newer, \
         kernel.io_uring_disabled = 0, no seccomp filter against it, as containers have)"
    )]
    Executor { core: usize, why: String },
    #[error("{limit} is {have}, {need} are needed: {remedy}")]
    Resource {
        limit: &'static str,
        have: u64,
        need: u64,
        remedy: &'static str,
    },
}
