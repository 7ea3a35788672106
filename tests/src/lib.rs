//! The harness of the system tests: a gateway with real parts around it, and clients that misbehave.
#![forbid(unsafe_code)]

pub mod browserless;
pub mod crowd;
mod drivers;
pub mod duplex;
pub mod fake_target;
pub mod gateway;
pub mod machine;
pub mod memory;
pub mod noise;
pub mod players;
pub mod scenario;
pub mod sockets;
pub mod tap;

pub use browserless::Browser;
pub use fake_target::FakeTarget;
pub use gateway::Gateway;
