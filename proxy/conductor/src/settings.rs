//! What the conductor is told at its start.

use std::path::PathBuf;

/// Everything that the role needs to know; at least one of its three tasks is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub steering: Option<postern_steering::Settings>,
    /// Connections are accounted, and written to the audit folder.
    pub accounting: bool,
    /// New connections are placed on cores by load.
    pub placement: bool,
    /// A folder on a bpffs; programs and maps are pinned there.
    pub pins: PathBuf,
    pub state_directory: PathBuf,
    pub run_directory: PathBuf,
    pub audit_directory: PathBuf,
    /// Control's socket, which is asked how busy the engine is.
    pub admin_socket: PathBuf,
}

/// Name of the conductor's socket in the run folder.
pub const SOCKET: &str = "steer.sock";

impl Settings {
    /// The conductor's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_directory.join(SOCKET)
    }
}
