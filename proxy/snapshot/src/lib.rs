//! What control tells the engine, and what the engine reports: types and their encoding. No I/O.
#![forbid(unsafe_code)]

pub mod driver;
pub mod frame;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod secret;

pub use driver::{Driver, EngineInfo, Placement};
pub use limits::Limits;
pub use message::{Certificate, Ended, LiveSession, Snapshot, ToControl, ToEngine};
pub use metrics::{CoreMetrics, Histogram};
pub use secret::Secret;
