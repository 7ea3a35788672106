//! One connection's life, a file a stage, generic over the core that it lives on:
//! admit, handshake, upgrade, authorize, cleanpath, dial, negotiate, relay, account, close.
#![forbid(unsafe_code)]

pub mod core;
pub mod outcome;
pub mod provider;
pub mod state;
pub mod stop;
pub mod tls;

mod account;
mod authorize;
mod cleanpath;
mod close;
mod connection;
#[cfg(test)]
mod connection_tests;
mod dial;
#[cfg(feature = "echo")]
mod echo;
mod handshake;
mod inbox;
mod negotiate;
mod relay;
#[cfg(test)]
mod trial;
mod upgrade;
mod verifier;
mod web;

pub use crate::core::{AuditUnavailable, Carriage, Core, Full, Seat};
pub use connection::serve;
pub use outcome::Outcome;
pub use state::{State, StateError};
pub use stop::Stop;
