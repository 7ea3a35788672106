//! What carries the engine's bytes and places its connections: the administrator's wish, and what the engine says it runs on.

use serde::{Deserialize, Serialize};

/// What carries the engine's bytes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// io_uring where the kernel allows it, epoll elsewhere.
    #[default]
    Auto,
    /// io_uring; the engine does not start where it is forbidden.
    IoUring,
    /// epoll.
    Epoll,
}

/// What puts a new connection on a core.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// The kernel's hash of its addresses: every core gets as many as the others, however busy it is.
    #[default]
    Hash,
    /// A program in the kernel, by live sessions and CPU time of every core.
    Load,
}

/// What the engine runs on, as labels of a metric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineInfo {
    /// `io_uring` or `epoll`.
    pub driver: String,
    /// Whether the kernel can carry TLS records (kTLS): `yes` or `no`.
    pub kernel_tls: String,
    /// How new connections come to cores: by the kernel's `hash`, by `load`, or by the hash since
    /// placement by load is `unavailable`.
    pub placement: String,
}
