//! Loads the programs that run in the kernel, runs them on packets, and reads and writes their maps: the only user of aya.

mod account;
mod attach;
mod carry;
mod clock;
pub mod cost;
mod datagrams;
mod held;
mod install;
mod kernel;
mod maps;
mod newest;
mod object;
mod pins;
mod place;
mod programs;
mod set;
mod slot;
mod steering;
mod table;

pub use account::{Account, Accounts, Drained, Ending, Patience, Side};
pub use attach::{Attached, Mode, Wish};
pub use clock::monotonic_ns;
pub use datagrams::Remembered;
pub use install::{
    History, Installed, Outcome, Part, detach, detach_part, install_accounts, install_placement,
    install_steering,
};
pub use pins::Pins;
pub use place::{Decisions, Placement, Publisher, keep_statistics};
pub use programs::{Program, Programs, Run};
pub use steering::Steering;
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
    #[error("{0} is not installed by this version: no pins of its programs are there")]
    NotInstalled(&'static str),
    #[error("there is no interface {0}")]
    NoInterface(String),
    #[error("{} is not on a bpffs; `mount -t bpf bpf /sys/fs/bpf` makes one", .0.display())]
    NotBpffs(std::path::PathBuf),
    #[error("{} is refused: {reason}", path.display())]
    Refused {
        path: std::path::PathBuf,
        reason: &'static str,
    },
    #[error("{} cannot be pinned, opened or removed", path.display())]
    Pin {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{interface} does not run {name} natively: {reason}")]
    NotNative {
        name: &'static str,
        interface: String,
        reason: String,
    },
    #[error(
        "without capabilities this kernel gives no access to maps: that takes Linux 5.19, or kernel.unprivileged_bpf_disabled = 0"
    )]
    OldKernel(#[source] std::io::Error),
}
