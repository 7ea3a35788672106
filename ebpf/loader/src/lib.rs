//! Loads the programs that run in the kernel, runs them on packets, and reads and writes their maps: the only user of aya.

mod account;
mod attach;
mod clock;
pub mod cost;
mod maps;
mod newest;
mod object;
mod place;
mod programs;
mod table;

pub use account::{Account, Accounts, Drained, Ending, Patience, Side};
pub use attach::{Attached, Mode};
pub use place::{Placement, Publisher, keep_statistics};
pub use programs::{Program, Programs, Run};
pub use table::{Draft, Endpoint, from_ip};

/// What can go wrong between userspace and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "loading programs into the kernel takes root, or CAP_BPF with CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NotPermitted(#[source] aya::EbpfError),
    #[error("the kernel does not take the object")]
    Object(#[from] aya::EbpfError),
    #[error("the kernel does not take program {name}")]
    Program {
        name: &'static str,
        #[source]
        source: aya::programs::ProgramError,
    },
    #[error("{name} cannot be attached to {interface} ({mode})")]
    Attach {
        name: &'static str,
        interface: String,
        mode: &'static str,
        #[source]
        source: aya::programs::ProgramError,
    },
    #[error("map {name} cannot be used")]
    Map {
        name: &'static str,
        #[source]
        source: aya::maps::MapError,
    },
    #[error("the kernel refuses")]
    System(#[source] std::io::Error),
    #[error("the object has no {0}")]
    Missing(&'static str),
    #[error("{what}: {count} are more than the {most} that a table has room for")]
    TooMany {
        what: &'static str,
        count: usize,
        most: usize,
    },
    #[error("no seed gives every address a slot of its own")]
    NoSeed,
    #[error("{0}: packets did not go the way that is measured")]
    Strayed(&'static str),
    #[error("node {0} is not in the table")]
    UnknownNode(u16),
}
