//! The conductor: the role that installs the kernel's programs and keeps their tables, with the other nodes' conductors.
#![forbid(unsafe_code)]

pub mod admin;
mod error;
mod run;
mod secret;
mod settings;
mod store;

pub use error::ConductorError;
pub use run::{Reread, detach, main};
pub use secret::{Secret, make_secret};
pub use settings::Settings;
