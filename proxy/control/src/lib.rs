//! Control: signs, stores, logs users in and publishes snapshots; it never relays a session.
#![forbid(unsafe_code)]

pub mod admin;
pub mod audit;
mod certificate;
pub mod clock;
mod conductor;
pub mod config;
mod error;
#[cfg(test)]
mod fixture;
mod hashing;
mod keys;
mod link;
mod live;
mod metrics;
mod peer;
mod publish;
mod random;
mod run;
mod site;
mod store;
mod web;

pub use config::{Config, ConfigErrors, Warnings};
pub use error::ControlError;
pub use metrics::metrics_markdown;
pub use run::{main, run};
