//! The engine: executors, sockets, timers and durable files of one core, on io_uring or on epoll. Knows
//! nothing of RDP, tokens or policy.
//!
//! One of the two places that may hold `unsafe` (the other is `ebpf`).

pub mod clock;
pub mod doorbell;
pub mod front;
pub mod journal;
pub mod net;
pub mod relay;
pub mod resources;
mod settle;
mod tcp_info;
#[cfg(any(test, feature = "trial"))]
pub mod trial;

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
    #[error("executor on core {core}: {why}")]
    Executor { core: usize, why: String },
    #[error(
        "io_uring is demanded by listen.driver, but {why}: {remedy}, or leave the driver to `auto`"
    )]
    IoUringForbidden {
        why: front::Forbidden,
        remedy: &'static str,
    },
    #[error("relay of core {core}: {why}")]
    Relay { core: usize, why: String },
    #[error("io_uring can't be tried: {0}")]
    Probe(#[source] std::io::Error),
    #[error("{limit} is {have}, {need} are needed: {remedy}")]
    Resource {
        limit: &'static str,
        have: u64,
        need: u64,
        remedy: &'static str,
    },
}
