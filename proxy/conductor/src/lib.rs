//! The conductor: the role that installs the kernel's programs and keeps their tables, with the other nodes' conductors.
#![forbid(unsafe_code)]

mod accounts;
pub mod admin;
mod boot;
mod conduct;
mod desk;
mod error;
mod keep;
mod kernel;
mod leader;
mod links;
mod load;
mod membership;
mod metrics;
mod nodes;
mod privileges;
mod probe;
mod reports;
mod run;
mod secret;
mod settings;
mod source;
mod station;
mod store;
mod values;

pub use error::ConductorError;
pub use run::{Reread, detach, main};
pub use secret::{Secret, make_secret};
pub use settings::Settings;
